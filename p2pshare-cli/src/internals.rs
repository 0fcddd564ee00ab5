//! What fuzzing of this repository does with the control protocol.
//!
//! It exists only with the private feature `__internals`, and promises nothing to anybody else.

pub use crate::control::fuzz_control;
