//! Group file sharing.

#![allow(dead_code)]

mod identity;
mod limits;
mod time;
mod wire;

pub use identity::{
    FileName, GroupName, IdError, LineProblem, MemberId, NameError, PeerId, RequestId, RingId,
    Role, SessionId, TrackerAddr, TrackerAddrError, TrackerList, TrackerListError, UserName,
};
pub use time::Timestamp;
