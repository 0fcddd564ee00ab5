//! Every bound of the system in one place, with the relations between them asserted at compile time.
//! Nothing that somebody else can make grow (a name, a frame, a queue, a table, a wait) is without one.

use std::time::Duration;

/// Bytes in the name of a user or a group.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Bytes in the name of a file: what the common file systems take.
pub(crate) const FILE_NAME_BYTES_MAX: usize = 255;
/// Bytes in a signed token's claims.
pub(crate) const TOKEN_BYTES_MAX: usize = 512;
/// How far two parties' ideas of the ring's time may differ before a token counts as expired.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

const _: () = assert!(TOKEN_BYTES_MAX > 4 * NAME_BYTES_MAX);
