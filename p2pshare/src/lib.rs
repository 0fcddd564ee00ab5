//! Group file sharing.

#![allow(dead_code)]

mod content;
mod identity;
mod limits;
mod time;
mod wire;

pub use content::{CHUNK_SIZE, Digest, FileId, ParseDigestError};
pub use identity::{
    FileName, GroupName, MemberId, NameError, PeerId, RequestId, RingId, Role, SessionId, UserName,
};
pub use time::Timestamp;
