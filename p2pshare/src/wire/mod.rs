//! Every message that crosses a network, as plain data and its bytes. No behaviour lives here.
//!
//! Enums are append-only: postcard writes the position of a variant, so that a variant is never moved,
//! removed or given another shape; what is stored or signed is an enum that starts at `V1`.

pub(crate) mod frame;
pub(crate) mod peer;
pub(crate) mod ring;
pub(crate) mod tracker;
