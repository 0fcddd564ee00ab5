//! The course of one download: what the file is, what of it is there already, where the rest can be had, and
//! in the end the file in its place, shared from there. A chunk counts as had once it was verified *and*
//! written; sources come and go meanwhile.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    DownloadOptions, DownloadProgress, DownloadReport, DownloadState,
    events::{self, DownloadEvent},
    journal::DownloadRow,
    pages::Pages,
    partial::{Partial, Write, Written},
    source::{Shared, SourceEnd},
};
use crate::{
    content::{Bitfield, ChunkIndex, Digest, Layout, PageIndex},
    identity::{FileName, GroupName, PeerId},
    limits::{HOLDERS_REFRESH, NO_SOURCE_PATIENCE, SOURCES_MAX},
    peer::{
        error::{DownloadError, SessionError},
        file::{BufferPool, Source, Stamp},
        library::{NewShare, path_bytes},
        picker::{Picker, SourceId},
        session::{Session, new_change},
        share,
    },
    time::Timestamp,
    wire::tracker::{FileSummary, Holder, Refusal, Request, Response},
};

/// A download that is about to run.
pub(super) struct Job {
    pub(super) session: Session,
    pub(super) group: GroupName,
    pub(super) name: FileName,
    pub(super) dest: PathBuf,
    pub(super) options: DownloadOptions,
    pub(super) progress: watch::Sender<DownloadProgress>,
    pub(super) events: events::Sender,
    pub(super) cancel: CancellationToken,
}

/// What the job has found out: the file, and the partial file with what is right in it.
pub(super) struct Prepared {
    pub(super) file: FileSummary,
    pub(super) layout: Layout,
    pub(super) partial: Partial,
    pub(super) had: Bitfield,
    /// Under which the chunks that were written are journalled; a repair journals nothing.
    pub(super) row: Option<DownloadRow>,
}

/// The sources of a download, and what is known of those that ended.
struct Sources {
    shared: Arc<Shared>,
    running: JoinSet<(PeerId, SourceEnd)>,
    active: HashSet<PeerId>,
    joined: mpsc::Sender<PeerId>,
    next_id: SourceId,
    /// Whether chunks could ever come from anybody.
    joined_once: bool,
    /// Peers not to be asked before this instant; the banned ones never.
    resting: HashMap<PeerId, (u32, Option<Instant>)>,
    last_end: Option<String>,
}

impl Job {
    pub(super) async fn run(self) -> Result<DownloadReport, DownloadError> {
        let outcome = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(DownloadError::Cancelled),
            outcome = self.fetch() => outcome,
        };
        self.progress.send_modify(|progress| {
            progress.peers = 0;
            progress.state = match &outcome {
                Ok(_) => DownloadState::Complete,
                Err(DownloadError::Cancelled) => DownloadState::Stopped,
                Err(error) => DownloadState::Failed(error.to_string()),
            };
        });
        if let Err(error) = &outcome {
            tracing::info!(group = %self.group, name = %self.name, %error, "a download ended early");
        }
        outcome
    }

    async fn fetch(&self) -> Result<DownloadReport, DownloadError> {
        let started = Instant::now();
        let file = self.find().await?;
        let layout = Layout::new(file.size).map_err(|_| DownloadError::BadRecord {
            group: self.group.clone(),
            name: self.name.clone(),
        })?;
        self.progress
            .send_modify(|progress| progress.total_bytes = file.size);
        check_destination(&self.dest)?;
        if self.is_there(&file).await? {
            return Ok(self.report(&file, layout, layout.chunk_count(), started, true));
        }
        let first_look = self.look_for_holders(&file).await?;
        let mut prepared = self.prepare(file, layout).await?;
        let (resumed, shared, written) = self.look_at_claims(&mut prepared, &first_look).await?;
        self.collect(&prepared, shared, written, first_look).await?;
        self.progress
            .send_modify(|progress| progress.state = DownloadState::Finishing);
        let file = self.put_in_place(prepared).await?;
        Ok(self.report(&file, layout, resumed.count(), started, false))
    }

    /// Finds out what of the file is right already, and starts what writes the rest.
    pub(super) async fn look_at_claims(
        &self,
        prepared: &mut Prepared,
        holders: &[Holder],
    ) -> Result<(Bitfield, Arc<Shared>, mpsc::Receiver<Written>), DownloadError> {
        let layout = prepared.layout;
        let pages = Pages::new(
            self.session.peer().library().clone(),
            layout,
            prepared.file.id,
        );
        let (writes, written) = prepared.partial.start_writer();
        let shared = Arc::new(Shared {
            endpoint: self.session.peer().endpoint().clone(),
            grants: self.session.peer().grants().clone(),
            group: self.group.clone(),
            pages,
            picker: Mutex::new(Picker::new(layout, Bitfield::new(layout.chunk_count()))),
            returned: Notify::new(),
            writes,
        });
        let right = self.verify_claims(prepared, &shared, holders).await?;
        prepared.had = right.clone();
        *lock(&shared.picker) = Picker::new(layout, right.clone());
        self.note_resumed(layout, &right);
        Ok((right, shared, written))
    }

    pub(super) async fn find(&self) -> Result<FileSummary, DownloadError> {
        let request = Request::FindFile {
            group: self.group.clone(),
            name: self.name.clone(),
        };
        match self.session.ask(request).await? {
            Response::File(file) => Ok(file),
            _ => Err(SessionError::Protocol.into()),
        }
    }

    /// Whether the destination has this very content already; then it is shared from there.
    async fn is_there(&self, file: &FileSummary) -> Result<bool, DownloadError> {
        let Ok(metadata) = std::fs::symlink_metadata(&self.dest) else {
            return Ok(false);
        };
        let same = metadata.is_file() && metadata.len() == file.size && {
            let dest = self.dest.clone();
            let id = file.id;
            let taken_in = tokio::task::spawn_blocking(move || share::take_in_quietly(&dest)).await;
            match taken_in {
                Ok(Ok(taken_in)) if taken_in.id() == id => {
                    if self.options.check_sha256 && taken_in.sha256() != file.sha256 {
                        let name = self.name.clone();
                        return Err(DownloadError::Sha256Mismatch { name });
                    }
                    taken_in.keep_pages(self.session.peer().library()).await?;
                    true
                }
                _ => false,
            }
        };
        if same {
            self.share_from_here(file).await?;
        } else if !self.options.force {
            return Err(DownloadError::DestinationExists {
                dest: self.dest.clone(),
            });
        }
        Ok(same)
    }

    /// Opens the partial file, and reads what the journal claims of it.
    async fn prepare(&self, file: FileSummary, layout: Layout) -> Result<Prepared, DownloadError> {
        let row = DownloadRow::V1 {
            group: self.group.clone(),
            name: self.name.clone(),
            id: file.id,
            size: file.size,
            dest: path_bytes(&self.dest),
            complete: false,
        };
        let journal = self.session.peer().journal();
        let known = journal.is_unfinished(&self.dest).await?;
        if !known {
            let dest = self.dest.clone();
            blocking(move || Partial::refuse_what_is_in_the_way(&dest)).await??;
        }
        // First the record, then the file: a file without a record is nobody's partial file.
        let had = journal.begin(row.clone(), layout, &self.dest).await?;
        let dest = self.dest.clone();
        let partial = match blocking(move || Partial::open(&dest, layout, known)).await? {
            Ok(partial) => partial,
            Err(error) => {
                if !known {
                    journal.forget(&self.dest).await?;
                }
                return Err(error);
            }
        };
        Ok(Prepared {
            file,
            layout,
            partial,
            had,
            row: Some(row),
        })
    }

    /// Hashes what the journal claims, page by page, and gives what is right. Pages of digests that are not
    /// here come from any holder; claims that cannot be checked are dropped.
    async fn verify_claims(
        &self,
        prepared: &Prepared,
        shared: &Arc<Shared>,
        holders: &[Holder],
    ) -> Result<Bitfield, DownloadError> {
        let layout = prepared.layout;
        let mut right = Bitfield::new(layout.chunk_count());
        for page in layout.pages() {
            let mut claimed = Bitfield::new(layout.chunk_count());
            for chunk in layout
                .chunks_of(page)
                .filter(|&chunk| prepared.had.get(chunk))
            {
                claimed.set(chunk);
            }
            if claimed.is_empty() || !have_page(shared, page, holders).await? {
                continue;
            }
            let (partial, shared) = (prepared.partial.clone(), shared.clone());
            let verify = move || partial.verify(&claimed, |chunk| shared.pages.digest(chunk));
            let verified = blocking(verify).await??;
            for chunk in verified.iter_set() {
                right.set(chunk);
            }
        }
        Ok(right)
    }

    fn note_resumed(&self, layout: Layout, resumed: &Bitfield) {
        let chunks = resumed.iter_set().filter_map(|index| layout.chunk(index));
        let bytes = chunks.map(|chunk| u64::from(layout.chunk_len(chunk))).sum();
        self.progress.send_modify(|progress| {
            progress.verified_bytes = bytes;
            progress.resumed_bytes = bytes;
        });
        if bytes > 0 {
            let chunks = resumed.count();
            self.events.send(DownloadEvent::Resumed { chunks });
        }
    }

    /// Fetches what is missing, from whoever has it.
    pub(super) async fn collect(
        &self,
        prepared: &Prepared,
        shared: Arc<Shared>,
        mut written: mpsc::Receiver<Written>,
        first_look: Vec<Holder>,
    ) -> Result<(), DownloadError> {
        let (layout, file) = (prepared.layout, &prepared.file);
        if lock(&shared.picker).is_complete() {
            return Ok(());
        }
        if self.copy_own(prepared, &shared, &mut written).await? {
            return Ok(());
        }
        let (joined, mut joins) = mpsc::channel(SOURCES_MAX);
        let mut sources = Sources::new(shared.clone(), joined);
        let mut dirty = BTreeSet::new();
        let mut refresh = interval(HOLDERS_REFRESH);
        refresh.reset();
        let mut without_source = Some(Instant::now());
        sources.start(first_look);
        self.show_sources(&sources);
        loop {
            let journal = self.session.peer().journal();
            tokio::select! {
                biased;
                done = written.recv() => {
                    let Some(done) = done else {
                        return Err(DownloadError::Cancelled);
                    };
                    dirty.insert(self.count_in(layout, &shared, done?));
                    while let Ok(done) = written.try_recv() {
                        dirty.insert(self.count_in(layout, &shared, done?));
                    }
                    let had = lock(&shared.picker).had().clone();
                    let pages = std::mem::take(&mut dirty);
                    if prepared.row.is_some() {
                        journal.note(&self.dest, layout, &had, pages).await?;
                    }
                    if had.is_complete() {
                        return Ok(());
                    }
                }
                Some(peer) = joins.recv() => {
                    without_source = None;
                    sources.joined_once = true;
                    self.events.send(DownloadEvent::PeerJoined { peer });
                    self.show_sources(&sources);
                }
                Some(ended) = sources.running.join_next() => {
                    let Ok((peer, end)) = ended else { continue };
                    self.source_ended(&mut sources, peer, end)?;
                    if sources.active.is_empty() {
                        without_source.get_or_insert_with(Instant::now);
                        refresh.reset_after(Duration::from_secs(1));
                    }
                    self.show_sources(&sources);
                }
                _ = refresh.tick() => {
                    let holders = self.holders(file).await;
                    let tired = without_source
                        .is_some_and(|since| since.elapsed() >= NO_SOURCE_PATIENCE);
                    let hopeless = holders
                        .as_ref()
                        .is_ok_and(|(holders, _)| sources.is_hopeless(holders));
                    if (tired || hopeless) && !self.options.wait {
                        return Err(self.give_up(&sources, holders?));
                    }
                    match holders {
                        Ok((holders, _)) => sources.start(holders),
                        // The trackers may be down while the peers are not.
                        Err(error) if error.is_transient() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// Counts a chunk that was written, and gives its page.
    fn count_in(&self, layout: Layout, shared: &Shared, chunk: ChunkIndex) -> PageIndex {
        let bytes = layout.chunk_len(chunk);
        if lock(&shared.picker).have(chunk) {
            self.progress
                .send_modify(|progress| progress.verified_bytes += u64::from(bytes));
            let index = chunk.get();
            self.events
                .send(DownloadEvent::ChunkVerified { index, bytes });
        }
        layout.page_of(chunk)
    }

    fn source_ended(
        &self,
        sources: &mut Sources,
        peer: PeerId,
        end: SourceEnd,
    ) -> Result<(), DownloadError> {
        if end.is_final() {
            tracing::warn!(%peer, group = %self.group, name = %self.name, reason = %end, "a peer is left");
        } else {
            tracing::debug!(%peer, group = %self.group, name = %self.name, reason = %end, "a source ended");
        }
        self.events.send(DownloadEvent::PeerLeft {
            peer,
            reason: end.to_string().into(),
        });
        match end {
            SourceEnd::Store(error) => return Err(error.into()),
            SourceEnd::NoGrant(error) if !error.is_transient() => return Err(error.into()),
            _ => {}
        }
        sources.ended(peer, &end);
        Ok(())
    }

    fn show_sources(&self, sources: &Sources) {
        let peers = sources.active.len();
        self.progress.send_modify(|progress| {
            progress.peers = peers;
            progress.state = match peers {
                0 => DownloadState::Waiting,
                _ => DownloadState::Running,
            };
        });
    }

    fn give_up(
        &self,
        sources: &Sources,
        (holders, last_seen): (Vec<Holder>, Option<Timestamp>),
    ) -> DownloadError {
        match (&sources.last_end, holders.len()) {
            (Some(last), holders @ 1..) => DownloadError::NoUsablePeer {
                name: self.name.clone(),
                holders,
                last: last.clone(),
            },
            _ => self.nobody(last_seen),
        }
    }

    /// The first look for holders, which has to find some, unless the download is to wait or the file is
    /// here.
    pub(super) async fn look_for_holders(
        &self,
        file: &FileSummary,
    ) -> Result<Vec<Holder>, DownloadError> {
        let (holders, last_seen) = self.holders(file).await?;
        let here = self.session.peer().library().find(&self.group, file.id);
        if holders.is_empty() && !self.options.wait && here.is_none() {
            return Err(self.nobody(last_seen));
        }
        Ok(holders)
    }

    fn nobody(&self, last_seen: Option<Timestamp>) -> DownloadError {
        DownloadError::NoPeersOnline {
            name: self.name.clone(),
            last_seen: last_seen.map(|seen| (seen, self.session.peer().link().now())),
        }
    }

    async fn holders(
        &self,
        file: &FileSummary,
    ) -> Result<(Vec<Holder>, Option<Timestamp>), SessionError> {
        let request = Request::Holders {
            group: self.group.clone(),
            name: file.name.clone(),
        };
        match self.session.ask(request).await? {
            Response::Holders { holders, last_seen } => Ok((holders, last_seen)),
            _ => Err(SessionError::Protocol),
        }
    }

    /// Takes the chunks from this machine, if this peer shares the file already. Whether that was all.
    async fn copy_own(
        &self,
        prepared: &Prepared,
        shared: &Arc<Shared>,
        written: &mut mpsc::Receiver<Written>,
    ) -> Result<bool, DownloadError> {
        let library = self.session.peer().library();
        let layout = prepared.layout;
        let Some(share) = library.find(&self.group, prepared.file.id) else {
            return Ok(false);
        };
        let path = share.path.clone();
        let Ok(source) = blocking(move || Source::open(&path)).await? else {
            library.mark_changed(&share);
            return Ok(false);
        };
        let (source, pool) = (Arc::new(source), BufferPool::default());
        loop {
            let picked = lock(&shared.picker).pick(0, |_| true);
            let Some(chunk) = picked else {
                return Ok(lock(&shared.picker).is_complete());
            };
            let page = layout.page_of(chunk);
            let known = shared.pages.load(page).await?;
            let (from, pool) = (source.clone(), pool.clone());
            let bytes = blocking(move || from.read_chunk(layout, chunk, &pool)).await?;
            let right = match bytes {
                Ok(bytes) if known && shared.pages.digest(chunk) == Some(Digest::of(&bytes)) => {
                    bytes
                }
                _ => {
                    library.mark_changed(&share);
                    lock(&shared.picker).give_back_all(0);
                    return Ok(false);
                }
            };
            let write = Write {
                chunk,
                pieces: vec![right],
            };
            let sent = shared.writes.send(write).await;
            let done = written.recv().await;
            match (sent, done) {
                (Ok(()), Some(done)) => self.count_in(layout, shared, done?),
                _ => return Err(DownloadError::Cancelled),
            };
        }
    }

    /// Checks the SHA-256 if that was asked for, renames the file to its destination, and shares it.
    async fn put_in_place(&self, prepared: Prepared) -> Result<FileSummary, DownloadError> {
        let Prepared {
            file, partial, row, ..
        } = prepared;
        let (options, expected, name) = (self.options, file.sha256, self.name.clone());
        blocking(move || {
            if options.check_sha256 && partial.sha256()? != expected {
                return Err(DownloadError::Sha256Mismatch { name });
            }
            partial.put_in_place(options.force)
        })
        .await??;
        if let Some(row) = row {
            let journal = self.session.peer().journal();
            journal.complete(row, &self.dest).await?;
        }
        self.share_from_here(&file).await?;
        Ok(file)
    }

    /// Shares the finished file from its destination, unless this peer shares it from elsewhere already.
    async fn share_from_here(&self, file: &FileSummary) -> Result<(), DownloadError> {
        let peer = self.session.peer();
        let library = peer.library();
        let shared = library.get(&self.group, &file.name);
        let reserved = library.reserve(&self.group, &file.name);
        if reserved.is_none() {
            // Somebody else at this peer is at it; the file is here all the same.
            return Ok(());
        }
        if shared.is_none_or(|share| share.id != file.id || share.is_changed()) {
            let dest = self.dest.clone();
            let stamped = blocking(move || {
                let path = dest.canonicalize()?;
                let stamp = Stamp::of(&std::fs::metadata(&path)?);
                Ok::<_, std::io::Error>((path, stamp))
            })
            .await?;
            let (path, stamp) = stamped.map_err(|cause| DownloadError::Io {
                path: self.dest.clone(),
                cause: Arc::new(cause),
            })?;
            if stamp.size != file.size {
                // Somebody else was at it in the meantime; what they made of it is theirs.
                return Ok(());
            }
            library
                .add(NewShare {
                    group: self.group.clone(),
                    name: file.name.clone(),
                    id: file.id,
                    sha256: file.sha256,
                    path,
                    stamp,
                })
                .await?;
        }
        let added = self
            .session
            .done(Request::AddSharer {
                change: new_change(),
                group: self.group.clone(),
                name: file.name.clone(),
                id: file.id,
            })
            .await;
        match added {
            Ok(()) => peer.announce(&self.group, &file.name).await,
            Err(SessionError::Refused(
                Refusal::FileNotFound { .. }
                | Refusal::FileReplaced { .. }
                | Refusal::NotAMember { .. },
            )) => {
                library.remove(&self.group, &file.name, file.id).await?;
            }
            // The file is here all the same, and announced as long as this peer is online.
            Err(error) => {
                tracing::warn!(%error, name = %file.name, "not noted as a sharer");
                library.publish(&self.group, &file.name);
            }
        }
        Ok(())
    }

    fn report(
        &self,
        file: &FileSummary,
        layout: Layout,
        chunks_resumed: u32,
        started: Instant,
        was_there: bool,
    ) -> DownloadReport {
        self.progress
            .send_modify(|progress| progress.verified_bytes = file.size);
        DownloadReport {
            dest: self.dest.clone(),
            bytes: file.size,
            chunks: layout.chunk_count(),
            chunks_resumed,
            elapsed: started.elapsed(),
            sha256_checked: self.options.check_sha256,
            was_there,
        }
    }
}

impl Sources {
    fn new(shared: Arc<Shared>, joined: mpsc::Sender<PeerId>) -> Self {
        Self {
            shared,
            running: JoinSet::new(),
            active: HashSet::new(),
            joined,
            next_id: 1,
            joined_once: false,
            resting: HashMap::new(),
            last_end: None,
        }
    }

    /// Takes on those of `holders` that are not in use and may be asked, as many as there is place for.
    fn start(&mut self, holders: Vec<Holder>) {
        let now = Instant::now();
        for holder in holders {
            let rests = match self.resting.get(&holder.peer) {
                Some((_, Some(until))) => now < *until,
                Some((_, None)) => true,
                None => false,
            };
            if self.active.len() >= SOURCES_MAX || rests || !self.active.insert(holder.peer) {
                continue;
            }
            let (shared, source) = (self.shared.clone(), self.next_id);
            let (peer, joined) = (holder.peer, self.joined.clone());
            self.next_id += 1;
            self.running
                .spawn(async move { (peer, shared.fetch(source, holder, joined).await) });
        }
    }

    /// Whether nobody ever gave anything, and each of `holders` was asked twice.
    fn is_hopeless(&self, holders: &[Holder]) -> bool {
        let was_asked_twice = |holder: &Holder| {
            let asked = self.resting.get(&holder.peer);
            asked.is_some_and(|(times, until)| *times >= 2 || until.is_none())
        };
        !self.joined_once && self.active.is_empty() && holders.iter().all(was_asked_twice)
    }

    fn ended(&mut self, peer: PeerId, end: &SourceEnd) {
        self.active.remove(&peer);
        self.last_end = Some(end.to_string());
        let (times, _) = self.resting.get(&peer).copied().unwrap_or((0, None));
        let rest = Duration::from_secs(1 << times.min(5));
        let until = (!end.is_final()).then(|| Instant::now() + rest);
        self.resting.insert(peer, (times + 1, until));
    }
}

/// Whether the page is here, or one of `holders` gives it.
async fn have_page(
    shared: &Arc<Shared>,
    page: PageIndex,
    holders: &[Holder],
) -> Result<bool, DownloadError> {
    if shared.pages.load(page).await? {
        return Ok(true);
    }
    for holder in holders {
        match shared.fetch_page_from(holder, page).await {
            Ok(()) => return Ok(true),
            Err(SourceEnd::Store(error)) => return Err(error.into()),
            Err(error) => tracing::debug!(peer = %holder.peer, %error, "no digests"),
        }
    }
    Ok(false)
}

/// Refuses a destination that no file can be at.
fn check_destination(dest: &Path) -> Result<(), DownloadError> {
    let bad = |reason| {
        Err(DownloadError::BadDestination {
            dest: dest.to_owned(),
            reason,
        })
    };
    match std::fs::symlink_metadata(dest) {
        Ok(metadata) if metadata.is_dir() => return bad("it is a folder"),
        _ => {}
    }
    if dest.file_name().is_none() {
        return bad("it names no file");
    }
    match dest.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            bad("its folder does not exist")
        }
        _ => Ok(()),
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DownloadError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| DownloadError::Cancelled)
}

fn lock(picker: &Mutex<Picker>) -> std::sync::MutexGuard<'_, Picker> {
    picker.lock().unwrap_or_else(PoisonError::into_inner)
}
