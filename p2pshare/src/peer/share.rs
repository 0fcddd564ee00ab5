//! Sharing a file: it is read once, its chunks and the whole of it hashed side by side, its digests kept, and
//! only then made known to the group, so that whoever learns of it finds it served.

use std::{
    future::IntoFuture,
    io,
    ops::Range,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    error::{SessionError, ShareError},
    file::{BufferPool, Source, Stamp},
    library::{Library, NewShare, PageRow, Reserved},
    session::{Session, new_change},
};
use crate::{
    content::{
        ChunkIndex, Digest, FileId, FinishedPage, Hasher, Layout, Manifest, ManifestBuilder,
    },
    identity::{FileName, GroupName, RingId},
    limits::{PAGES_PER_WRITE, SHARE_READ_AHEAD},
    store::StoreError,
    wire::tracker::{NewFile, Refusal, Request},
};

/// A file that is being shared. Awaiting it gives the end; dropping it cancels.
#[derive(Debug)]
#[must_use = "dropping it cancels it"]
pub struct Upload {
    progress: watch::Receiver<UploadProgress>,
    cancel: Arc<AtomicBool>,
    task: JoinHandle<Result<SharedFile, ShareError>>,
}

/// How far an [`Upload`] is.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct UploadProgress {
    /// Bytes read and hashed.
    pub hashed_bytes: u64,
    /// Bytes of the file; zero until it was opened.
    pub total_bytes: u64,
}

/// A file that is shared now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SharedFile {
    /// The ring.
    pub ring: RingId,
    /// The group.
    pub group: GroupName,
    /// Its name there.
    pub name: FileName,
    /// What its content is.
    pub id: FileId,
    /// Bytes.
    pub size: u64,
    /// Chunks of 512 KiB.
    pub chunks: u32,
    /// Of the whole file.
    pub sha256: Digest,
}

impl SharedFile {
    /// The file as a link: where it is in the ring, and what it is.
    #[must_use]
    pub fn link(&self) -> String {
        let mut name = String::new();
        for byte in self.name.as_str().bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    name.push(char::from(byte));
                }
                _ => name.push_str(&format!("%{byte:02X}")),
            }
        }
        format!("p2pshare:{}/{}/{name}#{}", self.ring, self.group, self.id)
    }
}

impl Upload {
    pub(super) fn start(
        session: Session,
        path: PathBuf,
        group: GroupName,
        name: Option<FileName>,
    ) -> Self {
        let (sender, progress) = watch::channel(UploadProgress::default());
        let cancel = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(share(session, path, group, name, sender, cancel.clone()));
        Self {
            progress,
            cancel,
            task,
        }
    }

    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> UploadProgress {
        *self.progress.borrow()
    }

    /// A view of the progress that can be waited on.
    #[must_use]
    pub fn watch(&self) -> UploadWatch {
        UploadWatch(self.progress.clone())
    }

    /// Ends it; what was not made known to the group yet, is not.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

/// The progress of an [`Upload`], for somebody else than the one who awaits it.
#[derive(Clone, Debug)]
pub struct UploadWatch(watch::Receiver<UploadProgress>);

impl UploadWatch {
    /// The next progress that differs from the one before; `None` once the upload has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<UploadProgress> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

impl IntoFuture for Upload {
    type Output = Result<SharedFile, ShareError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            // Held here, so that dropping the future cancels as dropping the upload does.
            let mut upload = self;
            match (&mut upload.task).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ShareError::Cancelled),
            }
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.cancel();
    }
}

async fn share(
    session: Session,
    path: PathBuf,
    group: GroupName,
    name: Option<FileName>,
    progress: watch::Sender<UploadProgress>,
    cancel: Arc<AtomicBool>,
) -> Result<SharedFile, ShareError> {
    let name = match name {
        Some(name) => name,
        None => name_of(&path)?,
    };
    // Held to the end, so that of two that share under one name at once, the later one finds out here.
    let _reserved = reserve(&session, &group, &name).await?;
    let taken_in = {
        let (path, cancel) = (path.clone(), cancel.clone());
        let is_cancelled = move || cancel.load(Ordering::Relaxed);
        tokio::task::spawn_blocking(move || take_in(&path, &progress, is_cancelled))
            .await
            .map_err(|_| ShareError::Cancelled)??
    };
    let library = session.peer().library();
    let _pinned = library.pin(taken_in.id());
    taken_in.keep_pages(library).await?;
    let TakenIn {
        stamp,
        manifest,
        sha256,
        path,
        ..
    } = taken_in;
    let id = manifest.id();
    if cancel.load(Ordering::Relaxed) {
        return Err(ShareError::Cancelled);
    }
    let size = manifest.layout().length();
    library
        .add(NewShare {
            group: group.clone(),
            name: name.clone(),
            id,
            sha256,
            path,
            stamp,
            // As its first sharer, by the same change that publishes it.
            recorded: true,
        })
        .await?;
    let published = session
        .done(Request::PublishFile {
            change: new_change(),
            group: group.clone(),
            file: NewFile {
                name: name.clone(),
                id,
                size,
                sha256,
            },
        })
        .await;
    match published {
        Ok(()) => session.peer().announce(&group, &name).await,
        // It may be in the group now: then it is served, and if not, its announcement ends it.
        Err(SessionError::OutcomeUnknown) => {
            library.publish(&group, &name);
            return Err(SessionError::OutcomeUnknown.into());
        }
        Err(error) => {
            library.remove(&group, &name, id).await?;
            return Err(error.into());
        }
    }
    Ok(SharedFile {
        ring: session.ring_id(),
        group,
        name,
        id,
        size,
        chunks: manifest.layout().chunk_count(),
        sha256,
    })
}

/// Reserves the name, and finds out what would be refused in the end before a large file is read. The change
/// itself decides.
async fn reserve(
    session: &Session,
    group: &GroupName,
    name: &FileName,
) -> Result<Reserved, ShareError> {
    let exists = || {
        let (group, name) = (group.clone(), name.clone());
        ShareError::from(SessionError::Refused(Refusal::FileExists { group, name }))
    };
    let library = session.peer().library();
    let reserved = library.reserve(group, name).ok_or_else(exists)?;
    let request = Request::FindFile {
        group: group.clone(),
        name: name.clone(),
    };
    match session.ask(request).await {
        Ok(_) => Err(exists()),
        Err(SessionError::Refused(Refusal::FileNotFound { .. })) => {
            // What was shared under this name is not the group's any more.
            if let Some(stale) = library.get(group, name) {
                library.remove(group, name, stale.id).await?;
            }
            Ok(reserved)
        }
        Err(error) => Err(error.into()),
    }
}

fn name_of(path: &std::path::Path) -> Result<FileName, ShareError> {
    match path.file_name() {
        Some(name) => Ok(FileName::normalized(&name.to_string_lossy())?),
        None => Err(ShareError::NotAFile {
            path: path.to_owned(),
        }),
    }
}

/// What a file was found to be.
pub(super) struct TakenIn {
    path: PathBuf,
    stamp: Stamp,
    manifest: Manifest,
    pages: Vec<FinishedPage>,
    sha256: Digest,
}

impl TakenIn {
    /// What its content is.
    pub(super) fn id(&self) -> FileId {
        self.manifest.id()
    }

    /// Of the whole.
    pub(super) const fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Keeps its pages of digests, each with its proof.
    pub(super) async fn keep_pages(&self, library: &Library) -> Result<(), StoreError> {
        keep_pages(library, &self.manifest, &self.pages).await
    }
}

/// Keeps these pages of digests of a file, each with its proof.
pub(super) async fn keep_pages(
    library: &Library,
    manifest: &Manifest,
    pages: &[FinishedPage],
) -> Result<(), StoreError> {
    for pages in pages.chunks(PAGES_PER_WRITE) {
        let row = |page: &FinishedPage| {
            let proof = manifest.proof(page.page);
            let digests = page.digests.clone();
            (page.page.get(), PageRow::V1 { digests, proof })
        };
        let rows = pages.iter().map(row).collect();
        library.put_pages(manifest.id(), rows).await?;
    }
    Ok(())
}

/// Takes in a file that nobody watches being taken in. Blocks.
pub(super) fn take_in_quietly(
    path: &std::path::Path,
    cancel: &CancellationToken,
) -> Result<TakenIn, ShareError> {
    let (progress, _) = watch::channel(UploadProgress::default());
    take_in(path, &progress, || cancel.is_cancelled())
}

/// Reads and hashes a file.
fn take_in(
    path: &std::path::Path,
    progress: &watch::Sender<UploadProgress>,
    is_cancelled: impl Fn() -> bool,
) -> Result<TakenIn, ShareError> {
    let unreadable = |cause: io::Error| ShareError::Unreadable {
        path: path.to_owned(),
        cause: Arc::new(cause),
    };
    // What is kept is where the file is now, not a link that may lead elsewhere tomorrow.
    let path = path.canonicalize().map_err(unreadable)?;
    if !path.is_file() {
        return Err(ShareError::NotAFile { path });
    }
    let source = Source::open(&path).map_err(unreadable)?;
    let size = source.stamp().size;
    if size == 0 {
        return Err(ShareError::Empty);
    }
    let layout = Layout::new(size).map_err(|_| ShareError::TooLarge { path: path.clone() })?;
    let (mut whole, mut pages, mut hashed_bytes) = (Hasher::new(), Vec::new(), 0);
    let mut builder = ManifestBuilder::new(layout);
    hash_chunks(&source, layout, 0..layout.chunk_count(), |_, hashed| {
        if is_cancelled() {
            return Err(ShareError::Cancelled);
        }
        let (bytes, digest) = hashed.map_err(|cause| read_failed(&path, cause))?;
        whole.update(&bytes);
        let finished = builder.push(digest);
        pages.extend(finished.map_err(|_| ShareError::Changed { path: path.clone() })?);
        hashed_bytes += bytes.len() as u64;
        progress.send_replace(UploadProgress {
            hashed_bytes,
            total_bytes: size,
        });
        Ok(())
    })?;
    let manifest = builder
        .finish()
        .map_err(|_| ShareError::Changed { path: path.clone() })?;
    if !source.is_unchanged().unwrap_or(false) {
        return Err(ShareError::Changed { path });
    }
    Ok(TakenIn {
        sha256: whole.finish(),
        path,
        stamp: source.stamp(),
        manifest,
        pages,
    })
}

/// Reads and hashes chunks of a file. A worker for each core but one does the work; `take` is given the chunks
/// in order, on this thread, until it fails. Blocks.
pub(super) fn hash_chunks<E>(
    source: &Source,
    layout: Layout,
    chunks: Range<u32>,
    mut take: impl FnMut(ChunkIndex, io::Result<(Bytes, Digest)>) -> Result<(), E>,
) -> Result<(), E> {
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get() - 1);
    let workers = workers.clamp(1, SHARE_READ_AHEAD);
    let pool = BufferPool::default();
    let chunks = || chunks.clone().filter_map(|index| layout.chunk(index));
    thread::scope(|scope| {
        let lanes: Vec<Receiver<io::Result<(Bytes, Digest)>>> = (0..workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(SHARE_READ_AHEAD / workers);
                let (pool, mine) = (&pool, chunks().skip(worker).step_by(workers));
                scope.spawn(move || {
                    for chunk in mine {
                        let bytes = source.read_chunk(layout, chunk, pool);
                        let hashed = bytes.map(|bytes| {
                            let digest = Digest::of(&bytes);
                            (bytes, digest)
                        });
                        // Nobody listens any more once something went wrong.
                        if sender.send(hashed).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for (chunk, lane) in chunks().zip(lanes.iter().cycle()) {
            let hashed = lane
                .recv()
                .unwrap_or_else(|ended| Err(io::Error::other(ended)));
            take(chunk, hashed)?;
        }
        Ok(())
    })
}

/// A file that ends early was cut while it was read.
fn read_failed(path: &std::path::Path, cause: io::Error) -> ShareError {
    let path = path.to_owned();
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => ShareError::Changed { path },
        _ => ShareError::Unreadable {
            path,
            cause: Arc::new(cause),
        },
    }
}
