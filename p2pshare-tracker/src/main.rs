//! Front.
fn main() {}
