//! Benches of p2pshare; see `benches/`.
