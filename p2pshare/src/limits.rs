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

/// Bytes in a password; the fewest that an account takes.
pub(crate) const PASSWORD_BYTES_MIN: usize = 4;
/// Bytes in a password; more would only be work for whoever hashes it.
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;

/// Bytes in the body of a request to a tracker: an announcement is the longest.
pub(crate) const TRACKER_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes in the body of a tracker's answer: a page of files or of holders is the longest.
pub(crate) const TRACKER_RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes in the body of a peer's request to a peer.
pub(crate) const PEER_REQUEST_BYTES_MAX: usize = 1024;
/// Bytes in the answer that opens a swarm: the bitfield of a file of 4 TiB.
pub(crate) const SWARM_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Chunk requests of one swarm stream that are not answered yet.
pub(crate) const CHUNK_REQUESTS_MAX: usize = 256;

/// Addresses that one peer announces.
pub(crate) const ANNOUNCED_ADDRS_MAX: usize = 8;
/// Files in one announcement.
pub(crate) const ANNOUNCED_SWARMS_MAX: usize = 256;
/// Holders in one answer: a random sample of them when there are more.
pub(crate) const HOLDERS_SAMPLE_MAX: usize = 50;
/// How long a lease counts after it was announced.
pub(crate) const LEASE_LIFE: Duration = Duration::from_secs(60);
/// How often a peer renews its leases.
pub(crate) const LEASE_RENEWAL: Duration = Duration::from_secs(20);

/// Durable sharers in the row of a file.
pub(crate) const SHARERS_MAX: usize = 32;

/// Passwords hashed at once: each takes 19 MiB and one core.
pub(crate) const HASHERS: usize = 2;
/// Passwords that wait to be hashed.
pub(crate) const HASHERS_WAITING_MAX: usize = 64;
/// Failed logins at one account, from strangers, before the next one waits.
pub(crate) const LOGIN_FAILURES_FREE_ACCOUNT: u32 = 20;
/// Failed logins from one address prefix, or from a known peer, before the next one waits.
pub(crate) const LOGIN_FAILURES_FREE_PREFIX: u32 = 5;
/// Accounts made from one address prefix before the next one waits.
pub(crate) const ACCOUNTS_FREE_PREFIX: u32 = 100;
/// The longest that one attempt to log in waits for the next.
pub(crate) const LOGIN_WAIT_MAX: Duration = Duration::from_secs(300);
/// How long after the last failure all of a lane are forgotten.
pub(crate) const LOGIN_FAILURES_FORGOTTEN: Duration = Duration::from_secs(900);
/// Lanes of failures that a tracker remembers.
pub(crate) const LOGIN_LANES_MAX: usize = 16 * 1024;

const _: () = assert!(TOKEN_BYTES_MAX > 4 * NAME_BYTES_MAX);
const _: () = assert!(2 * LEASE_RENEWAL.as_secs() < LEASE_LIFE.as_secs());
const _: () = assert!(TOKEN_BYTES_MAX + 256 < PEER_REQUEST_BYTES_MAX);
const _: () = assert!(LOGIN_WAIT_MAX.as_secs() < LOGIN_FAILURES_FORGOTTEN.as_secs());
