//! What the benches of p2pshare share: the hot paths are measured in `benches/`, the whole by the program
//! `end_to_end`, each beside something that is known.

pub mod plain_quinn;
pub mod process;
pub mod ring_of;
