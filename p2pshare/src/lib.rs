//! Group file sharing.

#![allow(dead_code)]

mod identity;
mod limits;
mod time;
mod transport;
mod wire;

pub use identity::{
    FileName, GroupName, MemberId, NameError, PeerId, RequestId, RingId, Role, SessionId, UserName,
};
pub use time::Timestamp;
