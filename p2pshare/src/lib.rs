//! Group file sharing between machines, without a cloud: trackers keep accounts, groups and file records,
//! and peers move chunks of 512 KiB, each verified as it arrives, directly among themselves over QUIC.
//!
//! Three handles are all there is to embed:
//!
//! - [`Tracker`]: the control plane. Always on; it never sees a file's content.
//! - [`Peer`], and the [`Session`] of the user who is logged in at it: the data plane.
//! - [`DhtNode`]: the replicated store under a tracker, useful by itself.
//!
//! All are cheap clones, end by themselves when the last clone is dropped, and in order with `shutdown`.
//!
//! ```
//! use p2pshare::{
//!     Access, DownloadOptions, GroupName, Password, Peer, Tracker, TrackerAddr, TrackerClient,
//!     UserName,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! // A ring of one, on a free pair of ports.
//! let tracker = Tracker::builder(dir.join("tracker"))
//!     .listen(([127, 0, 0, 1], 0).into())
//!     .bind()
//!     .await?;
//! let trackers: [TrackerAddr; 1] = [tracker.addr().to_string().parse()?];
//!
//! // Two accounts, each at a peer of its own.
//! let client = TrackerClient::connect(&trackers, Some(tracker.ring_id())).await?;
//! let mut sessions = Vec::new();
//! for name in ["Alice", "Bob"] {
//!     let (user, password) = (UserName::new(name)?, Password::new("correct horse"));
//!     client.create_user(&user, &password).await?;
//!     let peer = Peer::builder(dir.join(name), tracker.ring_id())
//!         .trackers(trackers.clone())
//!         .bind()
//!         .await?;
//!     sessions.push(peer.login(&user, &password).await?);
//! }
//! let [alice, bob] = &sessions[..] else { unreachable!() };
//!
//! // Alice shares a file with a group that everybody may read, and Bob downloads it.
//! let group = GroupName::new("friends")?;
//! alice.create_group(&group, Access::Open).await?;
//! std::fs::write(dir.join("note.txt"), "hello")?;
//! let shared = alice.share(dir.join("note.txt"), &group, None).await?;
//! let report = bob
//!     .download(&group, &shared.name, dir.join("copy.txt"), DownloadOptions::default())
//!     .await?;
//! assert_eq!(report.bytes, 5);
//! assert_eq!(std::fs::read(dir.join("copy.txt"))?, b"hello");
//!
//! for session in &sessions {
//!     session.peer().shutdown().await?;
//! }
//! tracker.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here reads flags, the environment or files that it was not given, installs a subscriber for
//! `tracing`, or ends the process.

mod content;
mod dht;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
mod identity;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod internals;
mod limits;
mod peer;
#[cfg(any(test, feature = "__sim"))]
#[doc(hidden)]
pub mod sim;
mod store;
mod time;
mod tracker;
mod transport;
mod wire;

pub use content::{CHUNK_SIZE, Digest, FileId, ParseDigestError};
pub use dht::{
    Attempt, DhtBindError, DhtNode, DhtNodeBuilder, KeyError, Lease, LeaseError, LeaseKey,
    LeaseNews, LeaseSession, LeasesPut, Listing, RequestKey, Row, RowChange, RowError, RowKey,
    ScanCursor, ScanPage, Version,
};
pub use identity::{
    FileName, GroupName, IdError, LineProblem, MemberId, NameError, PeerId, RequestId, RingId,
    Role, SessionId, TrackerAddr, TrackerAddrError, TrackerList, TrackerListError, UserName,
};
pub use peer::{
    Damage, Download, DownloadError, DownloadEvent, DownloadEvents, DownloadOptions,
    DownloadProgress, DownloadReport, DownloadState, DownloadStatus, DownloadWatch, LeftPeer,
    Limits, Listed, Peer, PeerBindError, PeerBuilder, Rate, RateTooLow, Session, SessionError,
    ShareError, ShareStatus, SharedFile, Stall, StopOutcome, TrackerClient, Upload, UploadProgress,
    UploadWatch, Verify, VerifyError, VerifyReport,
};
pub use store::{ShutdownError, StoreError};
pub use time::Timestamp;
pub use tracker::{Tracker, TrackerBindError, TrackerBuilder};
pub use wire::tracker::{
    Access, Availability, FileSummary, GroupSummary, JoinOutcome, MemberStatus, Password, Refusal,
    RingStatus,
};
