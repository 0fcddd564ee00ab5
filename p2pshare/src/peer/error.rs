//! What can go wrong for a peer, by what it was doing. Each variant says whether anything was changed.

use std::{io, path::PathBuf, sync::Arc};

use super::verify::Damage;
use crate::{
    identity::{FileName, GroupName, NameError, RingId, TrackerAddr, UserName},
    store::StoreError,
    time::Timestamp,
    transport::BindError,
    wire::tracker::Refusal,
};

/// Why a peer could not be started. Nothing runs then.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerBindError {
    /// The peer's folder, or a file in it, cannot be used.
    #[error("cannot use {}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The peer's store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket cannot be opened.
    #[error("{cause}")]
    Socket {
        /// What is wrong.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// No tracker was named.
    #[error("a peer needs the address of at least one tracker")]
    NoTrackers,
}

impl PeerBindError {
    pub(super) fn folder(
        path: &std::path::Path,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Folder {
            path: path.to_owned(),
            cause: Arc::new(cause),
        }
    }

    pub(super) fn socket(cause: BindError) -> Self {
        Self::Socket {
            cause: Arc::new(cause),
        }
    }
}

/// Why a request to the trackers was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A tracker said no; nothing was changed, but for [`Refusal::OutcomeUnknown`].
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No tracker answers. Nothing was changed.
    #[error("no tracker can be reached (tried {})", list(tried))]
    Unreachable {
        /// Those that were tried, in this order.
        tried: Vec<TrackerAddr>,
    },
    /// The trackers went away while they worked on it: it may have been done. The same command tells.
    #[error("the tracker went away before it answered; whether this was done is unknown")]
    OutcomeUnknown,
    /// The tracker is of another ring than the one that is trusted. Nothing was sent to it.
    #[error("the tracker at {tracker} is of ring {found}, not of {expected}")]
    WrongRing {
        /// Its address.
        tracker: TrackerAddr,
        /// The ring that is trusted.
        expected: RingId,
        /// The ring that it is of.
        found: RingId,
    },
    /// What answers at that address does not prove that it is a tracker. Nothing was sent to it.
    #[error("what answers at {tracker} is not a tracker of any ring")]
    NotATracker {
        /// The address.
        tracker: TrackerAddr,
    },
    /// The tracker answered something else than what was asked. It may have been done.
    #[error("the tracker's answer makes no sense")]
    Protocol,
    /// The session has ended. Nothing was changed.
    #[error("not logged in")]
    LoggedOut,
    /// The peer belongs to another user. Nothing was changed.
    #[error("this peer belongs to {owner}")]
    OtherUser {
        /// Who that is.
        owner: UserName,
    },
    /// The peer's own store or session file failed.
    #[error("the peer's own records cannot be kept: {cause}")]
    Local {
        /// What is wrong.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl SessionError {
    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_transient(),
            Self::Unreachable { .. } | Self::OutcomeUnknown => true,
            _ => false,
        }
    }

    pub(super) fn local(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Local {
            cause: Arc::new(cause),
        }
    }
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::local(error)
    }
}

/// Why a file was not shared. It is not in the group then, unless the outcome is unknown.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The trackers did not take it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There is nothing in it.
    #[error("cannot upload an empty file (0 bytes)")]
    Empty,
    /// It is larger than any file that can be shared.
    #[error("{} is larger than a file can be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is a folder, a device or the like.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// It changed while it was read.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Its name on disk cannot be its name in a group; another can be given.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<StoreError> for ShareError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

/// Why a download did not come to its end. What was verified stays in the partial file, and the same
/// download goes on from there, unless it says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The trackers did not allow it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Nobody who holds the file is online.
    #[error("no peers online for '{name}'{}", seen(*last_seen))]
    NoPeersOnline {
        /// The file.
        name: FileName,
        /// When there last was one, as far as the tracker knows, and the ring's time now.
        last_seen: Option<(Timestamp, Timestamp)>,
    },
    /// There are holders, but none of them gives anything.
    #[error("none of the {holders} peers with '{name}' can be used; the last said: {last}")]
    NoUsablePeer {
        /// The file.
        name: FileName,
        /// How many there are.
        holders: usize,
        /// Why the last of them could not be used.
        last: String,
    },
    /// Those who are online have but a part of it, and each has all that the others have.
    #[error(
        "all peers online with '{name}' ({holders}) have only a part of it: {missing} chunks are missing"
    )]
    NotAllOnline {
        /// The file.
        name: FileName,
        /// How many there are.
        holders: usize,
        /// How many chunks nobody has.
        missing: u32,
    },
    /// The destination exists, with another content. It was not touched.
    #[error("{} exists", dest.display())]
    DestinationExists {
        /// The destination.
        dest: PathBuf,
    },
    /// Somebody made the destination while the file was fetched. It was not touched; what was fetched, all of
    /// it, is in the partial file.
    #[error("{} exists now; all that was downloaded is in {}", dest.display(), partial.display())]
    DestinationTaken {
        /// The destination.
        dest: PathBuf,
        /// The partial file.
        partial: PathBuf,
    },
    /// The destination's folder does not exist, or the destination is a folder.
    #[error("cannot write to {}: {reason}", dest.display())]
    BadDestination {
        /// The destination.
        dest: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something stands where the partial file would be, and is not known to be one: a file of somebody's, or
    /// a link. It was not touched.
    #[error("{} is in the way, and not known to be a partial download; move it away", path.display())]
    InTheWay {
        /// Where it stands.
        path: PathBuf,
    },
    /// Another download of this peer writes there.
    #[error("{} is being downloaded already", dest.display())]
    AlreadyRunning {
        /// The destination.
        dest: PathBuf,
    },
    /// The disk has no room for what is missing, or has none left now.
    #[error("no space left for {}: {needed} bytes needed, {available} available", dest.display())]
    NoSpace {
        /// The destination.
        dest: PathBuf,
        /// How many bytes are missing.
        needed: u64,
        /// How many the disk has.
        available: u64,
    },
    /// The partial file or the destination cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// The finished file does not have the SHA-256 that its uploader published. It was not put in place.
    #[error(
        "the content is what '{name}' is in the group, but not what its uploader's SHA-256 says"
    )]
    Sha256Mismatch {
        /// The file.
        name: FileName,
    },
    /// The tracker gave a file record that cannot be.
    #[error("the record of '{name}' in '{group}' makes no sense")]
    BadRecord {
        /// The group.
        group: GroupName,
        /// The file.
        name: FileName,
    },
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<StoreError> for DownloadError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

impl From<Refusal> for DownloadError {
    fn from(refusal: Refusal) -> Self {
        Self::Session(refusal.into())
    }
}

/// Why a file was not found to be right, or could not be looked at.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// This peer neither shares the file nor has downloaded it.
    #[error("'{name}' in '{group}' is not downloaded or shared here")]
    NotHere {
        /// The group.
        group: GroupName,
        /// The file.
        name: FileName,
    },
    /// It was begun to be downloaded, and not all of it is here.
    #[error("the download of '{name}' in '{group}' is not complete")]
    Incomplete {
        /// The group.
        group: GroupName,
        /// The file.
        name: FileName,
    },
    /// The file on disk is not what the group has under that name. It is not served any more; it was not touched,
    /// unless a repair was under way, which leaves what was right as it was.
    #[error("'{name}' is damaged: {damage}")]
    Damaged {
        /// The file.
        name: FileName,
        /// What is wrong with it.
        damage: Damage,
    },
    /// It has the content that the group has, but its uploader published the SHA-256 of another one. It is
    /// served as before.
    #[error("'{name}' is what the group has, but not what its uploader's SHA-256 says")]
    Sha256Mismatch {
        /// The file.
        name: FileName,
    },
    /// Somebody wrote to it meanwhile.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// What is wrong could not be fetched again. The file is not served, and can be repaired later.
    #[error(transparent)]
    NotRepaired(#[from] DownloadError),
    /// This peer's own store failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

fn list(tried: &[TrackerAddr]) -> String {
    let tried: Vec<String> = tried.iter().map(ToString::to_string).collect();
    tried.join(", ")
}

fn seen(last: Option<(Timestamp, Timestamp)>) -> String {
    let Some((last, now)) = last else {
        return String::new();
    };
    match now.saturating_since(last).as_secs() {
        seconds @ 0..120 => format!("; one was last seen {seconds} s ago"),
        seconds @ 120..7_200 => format!("; one was last seen {} minutes ago", seconds / 60),
        seconds => format!("; one was last seen {} hours ago", seconds / 3_600),
    }
}
