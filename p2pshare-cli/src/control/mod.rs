//! How a command talks to the background peer of an identity: over a Unix socket that only this user can open.
//!
//! Each side says hello with the version of the protocol first; then there is one request, any number of progress
//! events, and one result. The client's end of stream cancels a transfer, whether it was meant or the client died.
//! Frames are bounded, and each side checks that the other runs as the same user.

mod client;
#[cfg(any(test, feature = "__internals"))]
mod decoding;
mod frame;
mod message;
mod rate_setting;
mod server;
mod socket;

pub(crate) use client::{Client, ConnectError, VERSION};
#[cfg(feature = "__internals")]
pub use decoding::fuzz_control;
pub(crate) use frame::{read_frame, write_frame};
pub(crate) use message::{
    AvailabilityRow, DownloadRequest, Downloaded, FileRow, GroupRow, Joined, LeftRow, LoggedIn,
    Outcome, PeerStatus, Phase, Progress, RateSetting, Request, ServerHello, TransferRow,
    UploadRequest, Uploaded, Verified, VerifyRequest,
};
pub(crate) use server::{Asked, Cancelled, Reporter, accept};
pub(crate) use socket::Listener;

/// The version of everything but the hellos, which every version reads.
pub(crate) const PROTOCOL: u16 = 4;
