//! Looking after a file that is here: it is read once, and what the file id does not commit to is found, served no
//! longer, and on request fetched again. A file is served after that exactly if all of it was found right.

use std::{
    fmt,
    future::IntoFuture,
    io,
    ops::RangeInclusive,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::watch, task::JoinHandle};

use super::{
    download::{DownloadProgress, DownloadState, DownloadWatch, Pages, Repair},
    error::VerifyError,
    file::{Source, Stamp},
    library::{self, Share},
    session::Session,
    share::{hash_chunks, keep_pages},
};
use crate::{
    content::{
        Bitfield, Digest, FileId, FinishedPage, Hasher, Layout, Manifest, ManifestBuilder,
        PageIndex,
    },
    identity::{FileName, GroupName},
    limits::DAMAGE_SHOWN_MAX,
    wire::tracker::{Request, Response},
};

/// A file that is being verified. Awaiting it gives the end; dropping it cancels.
#[derive(Debug)]
#[must_use = "dropping it cancels it"]
pub struct Verify {
    progress: watch::Receiver<DownloadProgress>,
    cancel: Arc<AtomicBool>,
    task: JoinHandle<Result<VerifyReport, VerifyError>>,
}

/// A file that was found right, or was put right.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u32,
    /// Whether the SHA-256 of the whole was known, and is the same.
    pub sha256_checked: bool,
    /// Whether others can have it from here.
    pub is_shared: bool,
    /// What was wrong, and is right now.
    pub repaired: Option<Damage>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Damage {
    /// Its chunks.
    pub chunks: u32,
    /// Of these, those that are not what they should be.
    pub bad_chunks: u32,
    /// Where they are, counted from 0: the first 16 runs of them.
    pub bad_runs: Vec<RangeInclusive<u32>>,
    /// The bytes that it should have.
    pub bytes: u64,
    /// The bytes that it has; `None` if there is no file.
    pub bytes_found: Option<u64>,
}

impl Verify {
    pub(super) fn start(session: Session, group: GroupName, name: FileName, repair: bool) -> Self {
        let (sender, progress) = watch::channel(DownloadProgress::at_start());
        let cancel = Arc::new(AtomicBool::new(false));
        let job = Job {
            session,
            group,
            name,
            progress: sender,
            cancel: cancel.clone(),
        };
        Self {
            progress,
            cancel,
            task: tokio::spawn(job.run(repair)),
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

    /// Ends it. A repair that is under way leaves what it has put right so far.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        // A repair waits for peers, not for chunks that were hashed.
        self.task.abort();
    }
}

impl IntoFuture for Verify {
    type Output = Result<VerifyReport, VerifyError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            // Held here, so that dropping the future cancels as dropping the verification does.
            let mut verify = self;
            match (&mut verify.task).await {
                Ok(outcome) => outcome,
                Err(_) => Err(VerifyError::Cancelled),
            }
        })
    }
}

impl Drop for Verify {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Damage {
    fn of(found: &Found, layout: Layout) -> Self {
        let mut bad_runs: Vec<RangeInclusive<u32>> = Vec::new();
        for index in found.right.iter_missing() {
            let is_full = bad_runs.len() == DAMAGE_SHOWN_MAX;
            match bad_runs.last_mut() {
                Some(run) if *run.end() + 1 == index => *run = *run.start()..=index,
                _ if is_full => break,
                _ => bad_runs.push(index..=index),
            }
        }
        Self {
            chunks: layout.chunk_count(),
            bad_chunks: layout.chunk_count() - found.right.count(),
            bad_runs,
            bytes: layout.length(),
            bytes_found: found.stamp.map(|stamp| stamp.size),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(found) = self.bytes_found else {
            return f.write_str("there is no file any more");
        };
        match found.cmp(&self.bytes) {
            std::cmp::Ordering::Less => write!(f, "{} bytes too short", self.bytes - found)?,
            std::cmp::Ordering::Greater => write!(f, "{} bytes too long", found - self.bytes)?,
            std::cmp::Ordering::Equal => {}
        }
        if self.bad_chunks == 0 {
            return Ok(());
        }
        if found != self.bytes {
            f.write_str(", ")?;
        }
        let (bad, chunks) = (self.bad_chunks, self.chunks);
        let are = if bad == 1 { "is" } else { "are" };
        write!(f, "{bad} of {chunks} chunks {are} bad: ")?;
        let mut named = 0;
        for (at, run) in self.bad_runs.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            named += run.end() - run.start() + 1;
            match run.end() - run.start() {
                0 => write!(f, "{}", run.start())?,
                _ => write!(f, "{}-{}", run.start(), run.end())?,
            }
        }
        match self.bad_chunks.saturating_sub(named) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A verification that is about to run.
struct Job {
    session: Session,
    group: GroupName,
    name: FileName,
    progress: watch::Sender<DownloadProgress>,
    cancel: Arc<AtomicBool>,
}

/// What is here under the name.
struct Held {
    id: FileId,
    layout: Layout,
    path: PathBuf,
    /// Of the whole, as its uploader published it, if that is known.
    sha256: Option<Digest>,
    share: Option<Arc<Share>>,
}

/// What was read.
struct Found {
    /// As the file was; `None` if there is none.
    stamp: Option<Stamp>,
    right: Bitfield,
    /// Chunks whose digests are not here, so that nobody can tell yet.
    unknown: Bitfield,
    sha256: Digest,
}

impl Found {
    fn is_right(&self, layout: Layout) -> bool {
        let size = self.stamp.map(|stamp| stamp.size);
        self.right.is_complete() && size == Some(layout.length())
    }
}

impl Job {
    async fn run(self, repair: bool) -> Result<VerifyReport, VerifyError> {
        let held = self.find().await?;
        let mut found = self.read(&held).await?;
        let mut repaired = None;
        if !found.is_right(held.layout) {
            let damage = Damage::of(&found, held.layout);
            tracing::warn!(group = %self.group, name = %self.name, path = %held.path.display(), %damage, "a file is damaged");
            self.stop_serving(&held, &found).await?;
            if !repair {
                return Err(self.damaged(damage));
            }
            self.repair(&held, &found).await?;
            // Only what was read again is said to be right.
            found = self.read(&held).await?;
            if !found.is_right(held.layout) {
                return Err(self.damaged(Damage::of(&found, held.layout)));
            }
            repaired = Some(damage);
        }
        let is_shared = self.serve(&held, &found).await?;
        if held.sha256.is_some_and(|sha256| sha256 != found.sha256) {
            let name = self.name.clone();
            return Err(VerifyError::Sha256Mismatch { name });
        }
        self.progress
            .send_modify(|progress| progress.state = DownloadState::Complete);
        Ok(VerifyReport {
            path: held.path,
            bytes: held.layout.length(),
            chunks: held.layout.chunk_count(),
            sha256_checked: held.sha256.is_some(),
            is_shared,
            repaired,
        })
    }

    /// The share of that name, or what a download of it has led to.
    async fn find(&self) -> Result<Held, VerifyError> {
        let peer = self.session.peer();
        if let Some(share) = peer.library().get(&self.group, &self.name) {
            return Ok(Held {
                id: share.id,
                layout: share.layout,
                path: share.path.clone(),
                sha256: Some(share.sha256),
                share: Some(share),
            });
        }
        let (finished, begun) = peer.journal().find(&self.group, &self.name).await?;
        let still_there = finished
            .into_iter()
            .find(|finished| finished.path.is_file());
        let (group, name) = (self.group.clone(), self.name.clone());
        match still_there {
            Some(finished) => Ok(Held {
                sha256: self.published_sha256(finished.id).await,
                id: finished.id,
                layout: finished.layout,
                path: finished.path,
                share: None,
            }),
            None if begun => Err(VerifyError::Incomplete { group, name }),
            None => Err(VerifyError::NotHere { group, name }),
        }
    }

    /// What was published with the file `id`, if the group still has it and a tracker can be asked.
    async fn published_sha256(&self, id: FileId) -> Option<Digest> {
        let request = Request::FindFile {
            group: self.group.clone(),
            name: self.name.clone(),
        };
        match self.session.ask(request).await {
            Ok(Response::File(file)) if file.id == id => Some(file.sha256),
            _ => None,
        }
    }

    /// Reads the whole file, and compares it with the digests that are kept, or by the file id alone where they
    /// are not.
    async fn read(&self, held: &Held) -> Result<Found, VerifyError> {
        let layout = held.layout;
        self.progress.send_modify(|progress| {
            progress.state = DownloadState::Verifying;
            progress.total_bytes = layout.length();
            progress.verified_bytes = 0;
            progress.peers = 0;
        });
        let path = held.path.clone();
        let source = match blocking(move || Source::open(&path)).await? {
            Ok(source) => Arc::new(source),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing(layout)),
            Err(cause) => {
                return Err(VerifyError::Unreadable {
                    path: held.path.clone(),
                    cause: Arc::new(cause),
                });
            }
        };
        let library = self.session.peer().library();
        let pages = Arc::new(Pages::new(library.clone(), layout, held.id));
        let mut reading = Reading::new(source.clone(), pages.clone());
        let mut unknown = Bitfield::new(layout.chunk_count());
        for page in layout.pages() {
            if !pages.load(page).await? {
                layout.chunks_of(page).for_each(|index| {
                    unknown.set(index);
                });
            }
            let (progress, cancel) = (self.progress.clone(), self.cancel.clone());
            reading = blocking(move || reading.page(page, &progress, &cancel)).await??;
        }
        if !source.is_unchanged().unwrap_or(false) {
            return Err(VerifyError::Changed {
                path: held.path.clone(),
            });
        }
        let (manifest, lost, mut right, sha256) = reading.finish();
        if let Some(manifest) = manifest.filter(|manifest| manifest.id() == held.id) {
            right = Bitfield::full(layout.chunk_count());
            if held.share.is_some() {
                keep_pages(library, &manifest, &lost).await?;
            }
        }
        Ok(Found {
            stamp: Some(source.stamp()),
            right,
            unknown,
            sha256,
        })
    }

    async fn stop_serving(&self, held: &Held, found: &Found) -> Result<(), VerifyError> {
        let Some(share) = &held.share else {
            return Ok(());
        };
        let peer = self.session.peer();
        if found.stamp.is_some() {
            // For the streams that are open, and for whoever opens one from now on, after a restart too.
            peer.library().mark_wrong(share);
            let none = Stamp::of_none(held.layout.length());
            peer.library().restamp(share, none).await?;
        } else {
            // Its disk may come back, and the file with it.
            peer.library().note_found(share, library::Found::Unreadable);
        }
        peer.wait_until_known().await;
        Ok(())
    }

    /// Serves the file as it was found, if it is shared. Whether it is.
    async fn serve(&self, held: &Held, found: &Found) -> Result<bool, VerifyError> {
        let (Some(share), Some(stamp)) = (&held.share, found.stamp) else {
            return Ok(false);
        };
        let peer = self.session.peer();
        if !share.is_changed() && share.stamp == stamp {
            return Ok(true);
        }
        let is_shared = peer.library().restamp(share, stamp).await?;
        if is_shared {
            peer.announce(&self.group, &self.name).await;
        }
        Ok(is_shared)
    }

    async fn repair(&self, held: &Held, found: &Found) -> Result<(), VerifyError> {
        let mut claimed = found.right.clone();
        for index in found.unknown.iter_set() {
            claimed.set(index);
        }
        let repair = Repair {
            session: self.session.clone(),
            group: self.group.clone(),
            name: self.name.clone(),
            path: held.path.clone(),
            id: held.id,
            layout: held.layout,
            claimed,
            only_length: found.right.is_complete(),
            progress: self.progress.clone(),
        };
        Ok(repair.run().await?)
    }

    fn damaged(&self, damage: Damage) -> VerifyError {
        let name = self.name.clone();
        VerifyError::Damaged { name, damage }
    }
}

/// What there is to find where there is no file.
fn nothing(layout: Layout) -> Found {
    Found {
        stamp: None,
        right: Bitfield::new(layout.chunk_count()),
        unknown: Bitfield::new(layout.chunk_count()),
        sha256: Digest::of(&[]),
    }
}

/// A file that is being read, page after page of its digests.
struct Reading {
    source: Arc<Source>,
    pages: Arc<Pages>,
    right: Bitfield,
    whole: Hasher,
    /// Of what is there, whatever it is; `None` once something could not be read.
    builder: Option<ManifestBuilder>,
    /// Of it, the pages of digests that are not here.
    lost: Vec<FinishedPage>,
}

impl Reading {
    fn new(source: Arc<Source>, pages: Arc<Pages>) -> Self {
        let layout = pages.layout();
        Self {
            source,
            right: Bitfield::new(layout.chunk_count()),
            whole: Hasher::new(),
            builder: Some(ManifestBuilder::new(layout)),
            lost: Vec::new(),
            pages,
        }
    }

    /// Reads the chunks whose digests `page` holds. One that cannot be read is not right. Blocks.
    fn page(
        mut self,
        page: PageIndex,
        progress: &watch::Sender<DownloadProgress>,
        cancel: &AtomicBool,
    ) -> Result<Self, VerifyError> {
        let layout = self.pages.layout();
        let source = self.source.clone();
        hash_chunks(&source, layout, layout.chunks_of(page), |chunk, hashed| {
            if cancel.load(Ordering::Relaxed) {
                return Err(VerifyError::Cancelled);
            }
            let mut is_read = false;
            if let Ok((bytes, digest)) = hashed {
                self.whole.update(&bytes);
                let expected = self.pages.digest(chunk);
                if expected == Some(digest) {
                    self.right.set(chunk.get());
                }
                if let Some(Ok(finished)) =
                    self.builder.as_mut().map(|builder| builder.push(digest))
                {
                    is_read = true;
                    self.lost.extend(finished.filter(|_| expected.is_none()));
                }
            }
            if !is_read {
                self.builder = None;
            }
            let length = u64::from(layout.chunk_len(chunk));
            progress.send_modify(|progress| progress.verified_bytes += length);
            Ok(())
        })?;
        Ok(self)
    }

    /// What the file is, its pages that are not here, which of its chunks are right, and the SHA-256 of what was
    /// read.
    fn finish(self) -> (Option<Manifest>, Vec<FinishedPage>, Bitfield, Digest) {
        let manifest = self.builder.and_then(|builder| builder.finish().ok());
        (manifest, self.lost, self.right, self.whole.finish())
    }
}

/// Runs `work` where it may block.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, VerifyError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| VerifyError::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::CHUNK_SIZE;

    fn damage(chunks: u32, bad: &[u32], found: impl FnOnce(u64) -> u64) -> String {
        let layout = Layout::new(u64::from(chunks) * u64::from(CHUNK_SIZE)).unwrap();
        let mut right = Bitfield::full(chunks);
        for &index in bad {
            right.clear(index);
        }
        let found = Found {
            stamp: Some(Stamp::of_none(found(layout.length()))),
            right,
            ..nothing(layout)
        };
        Damage::of(&found, layout).to_string()
    }

    #[test]
    fn damage_is_told_in_runs_and_not_without_end() {
        let same = |bytes| bytes;
        let two = damage(200, &[4, 17, 18, 19], same);
        assert_eq!(two, "4 of 200 chunks are bad: 4, 17-19");
        assert_eq!(damage(2, &[1], same), "1 of 2 chunks is bad: 1");
        assert_eq!(damage(2, &[], |bytes| bytes + 3), "3 bytes too long");
        let short = damage(2, &[1], |bytes| bytes - 1);
        assert_eq!(short, "1 bytes too short, 1 of 2 chunks is bad: 1");
        let every_second: Vec<u32> = (0..200).step_by(2).collect();
        let many = damage(200, &every_second, same);
        assert!(
            many.starts_with("100 of 200 chunks are bad: 0, 2, 4,"),
            "{many}"
        );
        assert!(many.ends_with(", 28, 30 and 84 more"), "{many}");
        let layout = Layout::new(5).unwrap();
        let gone = Damage::of(&nothing(layout), layout).to_string();
        assert_eq!(gone, "there is no file any more");
    }
}
