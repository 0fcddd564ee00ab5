//! What is said over the control socket, as plain data. Enums grow at their end; [`super::PROTOCOL`] rises when
//! anything else changes.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use p2pshare::{FileName, GroupName, Limits, Password, RingId, RingStatus, UserName};
use serde::{Deserialize, Serialize};

pub(crate) use super::rate_setting::RateSetting;
use crate::failure::Failure;

/// What a command says first. Fields may only be added at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ClientHello {
    pub(super) protocol: u16,
    /// The version of the binary.
    pub(super) version: String,
}

/// What a background peer says first. Fields may only be added at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerHello {
    pub(crate) protocol: u16,
    /// The version of the binary.
    pub(crate) version: String,
    /// Uploads and downloads that a restart would interrupt.
    pub(crate) transfers: u32,
    /// The trackers that it was started with.
    pub(crate) trackers: Vec<String>,
}

/// What a command asks for; one per connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Login {
        user: UserName,
        password: Password,
    },
    Logout,
    /// End the process if nobody is logged in or logging in.
    Retire,
    Status,
    CreateGroup {
        group: GroupName,
        open: bool,
    },
    ListGroups,
    JoinGroup {
        group: GroupName,
    },
    ListRequests {
        group: GroupName,
    },
    Accept {
        group: GroupName,
        user: UserName,
    },
    Reject {
        group: GroupName,
        user: UserName,
    },
    LeaveGroup {
        group: GroupName,
    },
    RemoveMember {
        group: GroupName,
        user: UserName,
    },
    TransferGroup {
        group: GroupName,
        user: UserName,
    },
    Upload(UploadRequest),
    ListFiles {
        group: GroupName,
    },
    Download(DownloadRequest),
    ShowDownloads,
    StopSharing {
        group: GroupName,
        name: FileName,
        for_all: bool,
    },
    Verify(VerifyRequest),
    Availability {
        group: GroupName,
        name: FileName,
    },
    /// Change the limits that are given, and say which hold.
    Limit {
        upload: Option<RateSetting>,
        download: Option<RateSetting>,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UploadRequest {
    /// Absolute.
    pub(crate) path: WirePath,
    pub(crate) group: GroupName,
    pub(crate) name: Option<FileName>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DownloadRequest {
    pub(crate) group: GroupName,
    pub(crate) name: FileName,
    /// Absolute.
    pub(crate) dest: WirePath,
    pub(crate) force: bool,
    pub(crate) sha256: bool,
    pub(crate) wait: bool,
    pub(crate) in_order: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VerifyRequest {
    pub(crate) group: GroupName,
    pub(crate) name: FileName,
    pub(crate) repair: bool,
}

/// What a background peer answers a request with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Event {
    Progress(Progress),
    /// The last one.
    Done(Result<Outcome, Failure>),
}

/// How far a transfer is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    /// How many peers it comes from.
    pub(crate) peers: u32,
    /// Why nothing comes, if nothing has come for a while.
    pub(crate) stall: Option<String>,
}

/// What a transfer is doing.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Phase {
    Hashing,
    Preparing,
    Waiting,
    Downloading,
    Finishing,
    Verifying,
}

/// What a request led to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    LoggedIn(LoggedIn),
    LoggedOut {
        user: UserName,
    },
    /// Whether the process ends; a login is answered with it too where it does.
    Retired {
        ending: bool,
    },
    Status(Box<PeerStatus>),
    Groups {
        groups: Vec<GroupRow>,
        /// Whether they come from trackers that are cut off from the ring.
        stale: bool,
    },
    Joined(Joined),
    Users(Vec<UserName>),
    Uploaded(Uploaded),
    Files {
        files: Vec<FileRow>,
        /// Whether they come from trackers that are cut off from the ring.
        stale: bool,
    },
    Downloaded(Downloaded),
    Transfers(Vec<TransferRow>),
    Stopped {
        entry_removed: bool,
    },
    Verified(Verified),
    Availability(AvailabilityRow),
    Limits(Limits),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoggedIn {
    /// As the account was created.
    pub(crate) user: UserName,
    /// The tracker that is connected.
    pub(crate) tracker: Option<String>,
    pub(crate) peer: SocketAddr,
    pub(crate) pid: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    pub(crate) user: UserName,
    pub(crate) ring: RingId,
    /// The tracker that is connected.
    pub(crate) tracker: Option<String>,
    pub(crate) peer: SocketAddr,
    pub(crate) pid: u32,
    pub(crate) shared_files: u32,
    pub(crate) transfers: u32,
    /// Of the shared files, those that changed on disk or cannot be read now.
    pub(crate) unserved_files: u32,
    /// Those that are running.
    pub(crate) downloads: Vec<TransferRow>,
    /// How the ring is, if a tracker has said so in time.
    pub(crate) trackers: Option<RingStatus>,
    /// Bytes of chunks that went to others since it started.
    pub(crate) sent_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GroupRow {
    pub(crate) name: GroupName,
    pub(crate) owner: UserName,
    pub(crate) open: bool,
    pub(crate) members: u32,
    /// `owner`, `member`, `pending` or nothing.
    pub(crate) my_role: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Joined {
    Member,
    Requested { owner: UserName },
    AlreadyPending { owner: UserName },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Uploaded {
    pub(crate) name: FileName,
    pub(crate) size: u64,
    pub(crate) chunks: u32,
    pub(crate) sha256: String,
    pub(crate) link: String,
    pub(crate) elapsed: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FileRow {
    pub(crate) name: FileName,
    pub(crate) size: u64,
    pub(crate) uploader: UserName,
    pub(crate) holders_online: u32,
    pub(crate) sha256: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Downloaded {
    pub(crate) bytes: u64,
    pub(crate) chunks_total: u32,
    pub(crate) chunks_resumed: u32,
    pub(crate) elapsed: Duration,
    pub(crate) sha256_checked: bool,
    /// Whether the destination had this content already.
    pub(crate) was_there: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verified {
    pub(crate) chunks: u32,
    pub(crate) sha256_checked: bool,
    /// What was wrong, and is right now.
    pub(crate) repaired: Option<String>,
}

/// What those who are online have of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AvailabilityRow {
    pub(crate) chunks: u32,
    pub(crate) holders: u32,
    /// Of these, those with all of it.
    pub(crate) whole: u32,
    /// Those with a part who do not say which.
    pub(crate) untold: u32,
    /// In the order of the file, chunks in a row that equally many have: how many, and how many have them.
    pub(crate) runs: Vec<(u32, u32)>,
}

/// A download, or a file that is shared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TransferRow {
    pub(crate) name: FileName,
    pub(crate) group: GroupName,
    pub(crate) size: u64,
    pub(crate) verified_bytes: u64,
    pub(crate) state: String,
    pub(crate) path: WirePath,
    /// Peers that a download dropped.
    pub(crate) left: Vec<LeftRow>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LeftRow {
    /// As much of its id as is shown.
    pub(crate) peer: String,
    pub(crate) reason: String,
}

/// A path as the file system has it, which need not be UTF-8.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WirePath(Vec<u8>);

impl From<&Path> for WirePath {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<WirePath> for PathBuf {
    fn from(path: WirePath) -> Self {
        OsStr::from_bytes(&path.0).into()
    }
}

impl std::fmt::Display for WirePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Path::new(OsStr::from_bytes(&self.0)).display().fmt(f)
    }
}

impl std::fmt::Debug for WirePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WirePath({self})")
    }
}
