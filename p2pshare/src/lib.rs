//! Group file sharing.

#![allow(dead_code)]

mod content;
mod dht;
mod identity;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod internals;
mod limits;
mod store;
mod time;
mod transport;
mod wire;

pub use content::{CHUNK_SIZE, Digest, FileId, ParseDigestError};
pub use dht::{
    Attempt, DhtBindError, DhtNode, DhtNodeBuilder, KeyError, Lease, LeaseError, LeaseKey, Listing,
    RequestKey, RingStatus, Row, RowChange, RowError, RowKey, ScanCursor, ScanPage, Version,
};
pub use identity::{
    FileName, GroupName, IdError, LineProblem, MemberId, NameError, PeerId, RequestId, RingId,
    Role, SessionId, TrackerAddr, TrackerAddrError, TrackerList, TrackerListError, UserName,
};
pub use store::StoreError;
pub use time::Timestamp;
pub use wire::tracker::{Access, FileSummary, GroupSummary, JoinOutcome, Password, Refusal};
