//! Who is who: names, keys and ids, and the signed tokens by which one party believes another.
//!
//! A peer *is* its Ed25519 key, a ring *is* the key of its authority, and everything else (a user's
//! session, a grant, a tracker's certificate) is a statement that one of these keys signed.

pub(crate) mod certificate;
pub(crate) mod id;
pub(crate) mod key;
pub(crate) mod key_file;
pub(crate) mod name;
pub(crate) mod ring_key;
pub(crate) mod token;
pub(crate) mod tracker_list;

pub use id::{IdError, MemberId, PeerId, RequestId, RingId, SessionId};
pub use name::{FileName, GroupName, NameError, UserName};
pub use token::Role;
pub use tracker_list::{LineProblem, TrackerAddr, TrackerAddrError, TrackerList, TrackerListError};
