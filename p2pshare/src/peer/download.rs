//! Downloading a file of a group: a [`Download`] is a value that can be awaited, watched and cancelled. What
//! it has verified stays in a partial file beside the destination, and the same download goes on from there.

mod events;
mod in_place;
mod journal;
mod noting;
mod pages;
mod partial;
mod repair;
mod run;
mod source;
mod sources;
mod stall;

use std::{
    collections::BTreeMap,
    future::IntoFuture,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use events::{DownloadEvent, DownloadEvents};
pub(super) use journal::Journal;
pub(super) use pages::Pages;
pub(super) use repair::Repair;
#[cfg(any(test, feature = "__sim"))]
pub(crate) use sources::pause_between_looks;
pub use stall::Stall;

use super::{error::DownloadError, session::Session};
use crate::{
    identity::{FileName, GroupName, PeerId},
    limits::{DOWNLOADS_SHOWN_MAX, LEFT_PEERS_SHOWN_MAX},
};

/// A download under way. Awaiting it gives the end; dropping it cancels, unless it was
/// [detached](Self::detach).
#[derive(Debug)]
#[must_use = "dropping it cancels it"]
pub struct Download {
    progress: watch::Receiver<DownloadProgress>,
    events: events::Sender,
    cancel: CancellationToken,
    detached: bool,
    task: JoinHandle<Result<DownloadReport, DownloadError>>,
}

/// How a download is to be done. The default replaces nothing, does not wait for holders, and verifies by
/// the file id alone.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// Whether what is at the destination is replaced when the download is complete.
    pub force: bool,
    /// Whether the finished file is read once more for the SHA-256 that its uploader published.
    pub check_sha256: bool,
    /// Whether to wait, as long as it takes, while nobody who holds the file is online.
    pub wait: bool,
    /// Whether the file is fetched from its beginning to its end, or nearly so where others share its sources, for
    /// whoever reads it meanwhile. Others who download the same then get less from this peer.
    pub in_order: bool,
}

impl DownloadOptions {
    /// With [`DownloadOptions::force`] as given.
    #[must_use]
    pub const fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// With [`DownloadOptions::check_sha256`] as given.
    #[must_use]
    pub const fn check_sha256(mut self, check: bool) -> Self {
        self.check_sha256 = check;
        self
    }

    /// With [`DownloadOptions::wait`] as given.
    #[must_use]
    pub const fn wait(mut self, wait: bool) -> Self {
        self.wait = wait;
        self
    }

    /// With [`DownloadOptions::in_order`] as given.
    #[must_use]
    pub const fn in_order(mut self, in_order: bool) -> Self {
        self.in_order = in_order;
        self
    }
}

/// How far a download is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DownloadProgress {
    /// What it does now.
    pub state: DownloadState,
    /// Bytes on disk that were verified.
    pub verified_bytes: u64,
    /// Of these, bytes that an earlier run had fetched.
    pub resumed_bytes: u64,
    /// Bytes of the file; zero until its record was read.
    pub total_bytes: u64,
    /// Peers that chunks come from now.
    pub peers: usize,
    /// Missing chunks that nobody who is online has, as far as the trackers know: as long as there are any, the file
    /// cannot be completed.
    pub out_of_reach: u32,
    /// Why nothing comes, while nothing has come for a few seconds.
    pub stall: Option<Stall>,
    /// Peers that were dropped, the last ones of them, each once: they sent what is not of the file, broke the
    /// protocol, or gave next to nothing.
    pub left: Vec<LeftPeer>,
}

/// A peer that a download dropped.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LeftPeer {
    /// The peer.
    pub peer: PeerId,
    /// Why.
    pub reason: Arc<str>,
}

/// What a download does, or how it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DownloadState {
    /// It asks the tracker, and looks at what an earlier run left.
    Preparing,
    /// What is there is read and hashed.
    Verifying,
    /// Nobody who holds what is missing can be reached right now.
    Waiting,
    /// Chunks are coming.
    Running,
    /// All chunks are there; the file is being put in place.
    Finishing,
    /// It is at its destination, verified.
    Complete,
    /// It was stopped before its end, and can be gone on with.
    Stopped,
    /// It failed, and why; it can be tried again.
    Failed(String),
}

impl DownloadState {
    /// Whether it goes on by itself.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(
            self,
            Self::Preparing | Self::Verifying | Self::Waiting | Self::Running | Self::Finishing
        )
    }
}

/// A download that came to its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadReport {
    /// Where the file is.
    pub dest: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u32,
    /// Of these, chunks that were there and verified before anything was fetched.
    pub chunks_resumed: u32,
    /// From the start to the file in its place.
    pub elapsed: Duration,
    /// Whether the SHA-256 of the whole was checked as well.
    pub sha256_checked: bool,
    /// Whether the destination had this content already.
    pub was_there: bool,
    /// Bytes of chunks that were received in vain: because another peer was sooner, the rest did not come, or
    /// they were not of the file.
    pub duplicate_bytes: u64,
}

/// A download of a peer, as it is shown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadStatus {
    /// The group.
    pub group: GroupName,
    /// The file.
    pub name: FileName,
    /// Where it goes.
    pub dest: PathBuf,
    /// How far it is.
    pub progress: DownloadProgress,
}

impl Download {
    pub(super) fn start(
        session: Session,
        group: GroupName,
        name: FileName,
        dest: PathBuf,
        options: DownloadOptions,
    ) -> Self {
        let (sender, progress) = watch::channel(DownloadProgress::at_start());
        let (events, cancel) = (events::Sender::new(), CancellationToken::new());
        session
            .peer()
            .downloads()
            .began(&group, &name, &dest, progress.clone());
        let job = run::Job {
            session,
            group,
            name,
            dest,
            options,
            progress: sender,
            events: events.clone(),
            cancel: cancel.clone(),
            collecting: tokio::sync::Mutex::default(),
        };
        Self {
            progress,
            events,
            cancel,
            detached: false,
            task: tokio::spawn(job.run()),
        }
    }

    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> DownloadProgress {
        self.progress.borrow().clone()
    }

    /// A view of the progress that can be waited on.
    #[must_use]
    pub fn watch(&self) -> DownloadWatch {
        DownloadWatch(self.progress.clone())
    }

    /// What happens from now on, event by event. A slow reader never slows the download: it is told how many
    /// it missed.
    #[must_use]
    pub fn events(&self) -> DownloadEvents {
        self.events.subscribe()
    }

    /// Ends it. What was verified stays, and the same download goes on from there.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Lets it go on by itself; [`Session::downloads`] shows it.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

/// The progress of a [`Download`] or a [`Verify`](super::Verify), for somebody else than the one who awaits it.
#[derive(Clone, Debug)]
pub struct DownloadWatch(pub(super) watch::Receiver<DownloadProgress>);

impl DownloadWatch {
    /// The next progress that differs from the one before; `None` once the download has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<DownloadProgress> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}

impl IntoFuture for Download {
    type Output = Result<DownloadReport, DownloadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            // Held here, so that dropping the future cancels as dropping the download does.
            let mut download = self;
            match (&mut download.task).await {
                Ok(outcome) => outcome,
                Err(_) => Err(DownloadError::Cancelled),
            }
        })
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if !self.detached {
            self.cancel();
        }
    }
}

impl DownloadProgress {
    pub(super) const fn at_start() -> Self {
        Self {
            state: DownloadState::Preparing,
            verified_bytes: 0,
            resumed_bytes: 0,
            total_bytes: 0,
            peers: 0,
            out_of_reach: 0,
            stall: None,
            left: Vec::new(),
        }
    }

    fn note_left(&mut self, left: LeftPeer) {
        self.left.retain(|other| other.peer != left.peer);
        if self.left.len() >= LEFT_PEERS_SHOWN_MAX {
            self.left.remove(0);
        }
        self.left.push(left);
    }
}

/// The downloads of a peer, by destination, the ones that ended among them. A cheap clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Downloads(Arc<Mutex<BTreeMap<PathBuf, Shown>>>);

#[derive(Debug)]
struct Shown {
    /// Rises with each download that begins.
    serial: u64,
    group: GroupName,
    name: FileName,
    progress: watch::Receiver<DownloadProgress>,
}

impl Downloads {
    /// What earlier lives of the peer left.
    pub(super) fn load(kept: Vec<DownloadStatus>) -> Self {
        let downloads = Self::default();
        for status in kept {
            let (_, progress) = watch::channel(status.progress);
            downloads.began(&status.group, &status.name, &status.dest, progress);
        }
        downloads
    }

    fn began(
        &self,
        group: &GroupName,
        name: &FileName,
        dest: &Path,
        progress: watch::Receiver<DownloadProgress>,
    ) {
        let mut shown = self.shown();
        if let Some(running) = shown.get(dest)
            && running.is_running()
        {
            // The new one is about to be refused.
            return;
        }
        let serial = shown.values().map(|shown| shown.serial).max().unwrap_or(0) + 1;
        if shown.len() >= DOWNLOADS_SHOWN_MAX {
            let ended = shown.iter().filter(|(_, shown)| !shown.is_running());
            let oldest = ended.min_by_key(|(_, shown)| shown.serial);
            if let Some(oldest) = oldest.map(|(dest, _)| dest.clone()) {
                shown.remove(&oldest);
            }
        }
        shown.insert(
            dest.to_owned(),
            Shown {
                serial,
                group: group.clone(),
                name: name.clone(),
                progress,
            },
        );
    }

    /// How many go on now.
    pub(super) fn running(&self) -> usize {
        self.shown()
            .values()
            .filter(|shown| shown.is_running())
            .count()
    }

    /// All of them as they are shown, the latest last.
    pub(super) fn status(&self) -> Vec<DownloadStatus> {
        let shown = self.shown();
        let mut all: Vec<_> = shown.iter().collect();
        all.sort_by_key(|(_, shown)| shown.serial);
        let status = |(dest, shown): (&PathBuf, &Shown)| DownloadStatus {
            group: shown.group.clone(),
            name: shown.name.clone(),
            dest: dest.clone(),
            progress: shown.progress.borrow().clone(),
        };
        all.into_iter().map(status).collect()
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn is_running(&self) -> bool {
        self.progress.has_changed().is_ok() && self.progress.borrow().state.is_active()
    }
}
