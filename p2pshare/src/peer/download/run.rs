//! The course of one download: what the file is, what of it is there already, where the rest can be had, and
//! in the end the file in its place, shared from there. A chunk counts as had once it was verified *and*
//! written; sources come and go meanwhile.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    DownloadOptions, DownloadProgress, DownloadReport, DownloadState, LeftPeer,
    events::{self, DownloadEvent},
    journal::{DownloadRow, Reserved, page_bits},
    noting::Noting,
    pages::Pages,
    partial::{Known, Partial, Write, Written},
    source::{Shared, SourceEnd, Standing},
    sources::{Ended, Sources, pause_between_looks},
};
use crate::{
    content::{Bitfield, ChunkIndex, Digest, Layout, PageIndex},
    identity::{FileName, GroupName, PeerId},
    limits::{GRANT_LOOK, HOLDERS_REFRESH, SOURCES_MAX, STALL_LOOK},
    peer::{
        error::{DownloadError, SessionError},
        file::{BufferPool, Source},
        library::{Found, path_bytes},
        ongoing::Serving,
        picker::{Order, Picker, SourceId},
        session::Session,
    },
    time::Timestamp,
    wire::tracker::{Availability, FileSummary, Holder, Holding, Request, Response},
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
    /// Held while chunks come, which are journalled before it ends.
    pub(super) collecting: tokio::sync::Mutex<()>,
}

/// What the trackers say of who holds a file.
pub(super) struct Look {
    /// Some who have it or a part of it, or have begun to fetch it.
    holders: Vec<Holder>,
    /// When somebody last had all of it, if nobody has anything.
    last_seen: Option<Timestamp>,
    /// What all of them have, of whom `holders` are some.
    availability: Availability,
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

impl Job {
    pub(super) async fn run(self) -> Result<DownloadReport, DownloadError> {
        let outcome = match self.session.peer().journal().reserve(&self.dest) {
            Some(reserved) => {
                let released = reserved.released();
                let outcome = tokio::select! {
                    biased;
                    () = self.cancelled() => Err(DownloadError::Cancelled),
                    outcome = self.fetch(reserved) => outcome,
                };
                // What is still being written is written, and whoever hears of the end can go on.
                released.cancelled().await;
                outcome
            }
            None => Err(DownloadError::AlreadyRunning {
                dest: self.dest.clone(),
            }),
        };
        self.progress.send_modify(|progress| {
            progress.peers = 0;
            progress.stall = None;
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

    /// Waits until it is cancelled, and what came by then is journalled.
    async fn cancelled(&self) {
        self.cancel.cancelled().await;
        drop(self.collecting.lock().await);
    }

    async fn fetch(&self, reserved: Reserved) -> Result<DownloadReport, DownloadError> {
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
        let mut prepared = self.prepare(file, layout, reserved).await?;
        let (resumed, shared, serving) =
            self.fill(&mut prepared, Some(first_look), started).await?;
        self.progress
            .send_modify(|progress| progress.state = DownloadState::Finishing);
        let file = self.put_in_place(prepared).await?;
        let library = self.session.peer().library();
        serving.complete(library.find(&self.group, file.id));
        let mut report = self.report(&file, layout, resumed.count(), started, false);
        report.duplicate_bytes = shared.duplicate_bytes.load(Ordering::Relaxed);
        Ok(report)
    }

    /// Fetches what is not right yet, and serves meanwhile what is: the chunks that were right before, and what
    /// goes on being served until it is dropped.
    pub(super) async fn fill(
        &self,
        prepared: &mut Prepared,
        first_look: Option<Look>,
        began: Instant,
    ) -> Result<(Bitfield, Arc<Shared>, Serving), DownloadError> {
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
            picker: Mutex::new(self.picker(layout, Bitfield::new(layout.chunk_count()))),
            began,
            news: watch::Sender::new(()),
            writes,
            intake: self.session.peer().intake().clone(),
            received_bytes: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            duplicate_bytes: AtomicU64::new(0),
            standings: Mutex::default(),
        });
        let holders = first_look.as_ref().map_or(&[][..], |look| &look.holders);
        let resumed = self.verify_claims(prepared, &shared, holders).await?;
        self.claim(prepared, &resumed).await?;
        prepared.had = resumed.clone();
        shared.pick(|picker, _| *picker = self.picker(layout, resumed.clone()));
        self.note_resumed(layout, &resumed);
        let peer = self.session.peer();
        let of = (
            self.group.clone(),
            prepared.file.name.clone(),
            prepared.file.id,
        );
        let source = prepared.partial.source()?;
        let serving = peer.ongoing().serve(of, layout, resumed.clone(), source);
        self.collect(prepared, &shared, &serving, written, first_look)
            .await?;
        Ok((resumed, shared, serving))
    }

    /// A picker of what is missing.
    fn picker(&self, layout: Layout, had: Bitfield) -> Picker {
        let order = match self.options.in_order {
            true => Order::OfTheFile,
            false => Order::RarestFirst,
        };
        Picker::new(layout, had, order, rand::random())
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

    pub(super) fn row(&self, file: &FileSummary) -> DownloadRow {
        DownloadRow::V1 {
            group: self.group.clone(),
            name: self.name.clone(),
            id: file.id,
            size: file.size,
            dest: path_bytes(&self.dest),
            complete: false,
        }
    }

    /// Opens the partial file, and reads what the journal claims of it.
    async fn prepare(
        &self,
        file: FileSummary,
        layout: Layout,
        reserved: Reserved,
    ) -> Result<Prepared, DownloadError> {
        let row = self.row(&file);
        let journal = self.session.peer().journal();
        let known = journal.known(&self.dest).await?;
        if known == Known::None {
            let dest = self.dest.clone();
            blocking(move || Partial::refuse_what_is_in_the_way(&dest)).await??;
        }
        // First the record, then the file: a file without a record is nobody's partial file.
        let had = journal.begin(row.clone(), layout, &self.dest).await?;
        let dest = self.dest.clone();
        let open = move || Partial::open(&dest, layout, known, reserved);
        let partial = match blocking(open).await? {
            Ok(partial) => partial,
            Err(error) => {
                if known == Known::None {
                    journal.forget(&self.dest).await?;
                }
                return Err(error);
            }
        };
        if !partial.is_doubtful() {
            self.mark(&partial, known).await?;
        }
        Ok(Prepared {
            file,
            layout,
            partial,
            had,
            row: Some(row),
        })
    }

    /// Makes sure that the partial file is one, of which only chunks that are `right` may be a proof.
    async fn claim(&self, prepared: &mut Prepared, right: &Bitfield) -> Result<(), DownloadError> {
        if !prepared.partial.is_doubtful() {
            return Ok(());
        }
        let (mut partial, right) = (prepared.partial.clone(), right.clone());
        let claim = move || partial.claim(&right).map(|()| partial);
        prepared.partial = blocking(claim).await??;
        self.mark(&prepared.partial, Known::Begun).await
    }

    /// Notes by what the partial file is known again, unless it is `known` by that.
    async fn mark(&self, partial: &Partial, known: Known) -> Result<(), DownloadError> {
        let mark = partial.mark()?;
        if known != Known::Made(mark) {
            let journal = self.session.peer().journal();
            journal.mark(&self.dest, mark).await?;
        }
        Ok(())
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
        if prepared.had.is_empty() {
            return Ok(right);
        }
        let show = |state| self.progress.send_modify(|progress| progress.state = state);
        show(DownloadState::Verifying);
        let holders = holders.iter().filter(|h| h.holding.is_something());
        let mut holders: Vec<&Holder> = holders.collect();
        for page in layout.pages() {
            let mut claimed = Bitfield::new(layout.chunk_count());
            for chunk in layout
                .chunks_of(page)
                .filter(|&chunk| prepared.had.get(chunk))
            {
                claimed.set(chunk);
            }
            if claimed.is_empty() || !have_page(shared, page, &mut holders).await? {
                continue;
            }
            let (partial, shared) = (prepared.partial.clone(), shared.clone());
            let verify = move || partial.verify(&claimed, |chunk| shared.pages.digest(chunk));
            let verified = blocking(verify).await??;
            for chunk in verified.iter_set() {
                right.set(chunk);
            }
        }
        show(DownloadState::Preparing);
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
    async fn collect(
        &self,
        prepared: &Prepared,
        shared: &Arc<Shared>,
        serving: &Serving,
        mut written: mpsc::Receiver<Written>,
        first_look: Option<Look>,
    ) -> Result<(), DownloadError> {
        if shared.pick(|picker, _| picker.is_complete()) {
            return Ok(());
        }
        if self
            .copy_own(prepared, shared, serving, &mut written)
            .await?
        {
            return Ok(());
        }
        let (joined, joins) = mpsc::channel(SOURCES_MAX);
        let mut sources = Sources::new(shared.clone(), joined);
        if let Some(look) = first_look {
            self.start(&mut sources, look);
        }
        let collected = tokio::select! {
            collected = self.drain(prepared, &mut sources, serving, written, joins) => collected,
            () = self.keep_grant() => Ok(()),
        };
        sources.end().await;
        collected
    }

    /// Takes in what the sources give until nothing is missing; lets new ones join and others go.
    async fn drain(
        &self,
        prepared: &Prepared,
        sources: &mut Sources,
        serving: &Serving,
        written: mpsc::Receiver<Written>,
        joins: mpsc::Receiver<PeerId>,
    ) -> Result<(), DownloadError> {
        let _collecting = self.collecting.lock().await;
        let shared = sources.shared().clone();
        let journal = self.session.peer().journal().clone();
        let journal = prepared.row.is_some().then(|| (journal, self.dest.clone()));
        let mut noting = Noting::new(journal, prepared.layout);
        let drained = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(DownloadError::Cancelled),
            drained = self.take_in(prepared, sources, serving, &mut noting, (written, joins)) => drained,
        };
        let had = shared.pick(|picker, _| picker.had().clone());
        let noted = noting.finish(&had).await;
        drained?;
        Ok(noted?)
    }

    async fn take_in(
        &self,
        prepared: &Prepared,
        sources: &mut Sources,
        serving: &Serving,
        noting: &mut Noting,
        (mut written, mut joins): (mpsc::Receiver<Written>, mpsc::Receiver<PeerId>),
    ) -> Result<(), DownloadError> {
        let (layout, shared) = (prepared.layout, sources.shared().clone());
        let (mut look, mut ticks) = (JoinSet::new(), interval(STALL_LOOK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let (mut looked, mut next_look) = (began, began + pause_between_looks(Duration::ZERO));
        loop {
            // What comes first is seldom: however much is written, it has its turn.
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    self.show(sources);
                    if sources.is_idle() {
                        next_look = next_look.min(looked + HOLDERS_REFRESH);
                    }
                    if look.is_empty() {
                        sources.fill();
                    }
                }
                // The tracker may take its time, and the chunks do not wait for it.
                () = sleep_until(next_look), if look.is_empty() => {
                    look.spawn(self.look(&prepared.file));
                    let now = Instant::now();
                    (looked, next_look) = (now, now + pause_between_looks(now - began));
                }
                Some(ended) = sources.next_ended() => {
                    self.source_ended(sources, ended)?;
                    if sources.is_empty() {
                        next_look = next_look.min(Instant::now() + second);
                    }
                    self.show(sources);
                }
                Some(Ok(found)) = look.join_next() => self.take_on(found, sources)?,
                Some(peer) = joins.recv() => {
                    sources.joined();
                    self.events.send(DownloadEvent::PeerJoined { peer });
                    self.show(sources);
                }
                Some(noted) = noting.done() => noted?,
                done = written.recv(), if noting.has_room() => {
                    let Some(done) = done else {
                        return Err(DownloadError::Cancelled);
                    };
                    noting.add(self.count_in(layout, &shared, serving, done?));
                    while noting.has_room() && let Ok(done) = written.try_recv() {
                        noting.add(self.count_in(layout, &shared, serving, done?));
                    }
                    if shared.pick(|picker, _| picker.is_complete()) {
                        return Ok(());
                    }
                }
            }
            if noting.is_due() {
                shared.pick(|picker, _| noting.begin(picker.had()));
            }
        }
    }

    /// Shows from whom chunks come, and why none do.
    fn show(&self, sources: &mut Sources) {
        let stall = sources.look();
        let peers = sources.count(Standing::Open);
        let is_waiting = sources.is_idle() || (peers == 0 && !sources.are_new());
        self.progress.send_if_modified(|progress| {
            let state = match (peers, is_waiting) {
                (_, true) => DownloadState::Waiting,
                (1.., false) => DownloadState::Running,
                (0, false) => progress.state.clone(),
            };
            let shown = (stall, peers, state);
            let before = (progress.stall, progress.peers, progress.state.clone());
            let changed = before != shown;
            (progress.stall, progress.peers, progress.state) = shown;
            changed
        });
    }

    /// Journals the chunks of a page that were written.
    async fn note(
        &self,
        prepared: &Prepared,
        shared: &Shared,
        page: PageIndex,
    ) -> Result<(), DownloadError> {
        if prepared.row.is_some() {
            let bits = shared.pick(|picker, _| page_bits(prepared.layout, picker.had(), page));
            let journal = self.session.peer().journal();
            journal.note(&self.dest, vec![bits]).await?;
        }
        Ok(())
    }

    /// Takes on new sources, of whom the trackers tell, and notes what all that are online have.
    fn start(&self, sources: &mut Sources, look: Look) {
        let availability = &look.availability;
        let counts: Vec<u16> = availability.parts.iter().map(|&n| n.into()).collect();
        let out_of_reach = sources.shared().pick(|picker, _| {
            picker.note_availability(&counts);
            availability.out_of_reach(picker.had())
        });
        self.progress
            .send_modify(|progress| progress.out_of_reach = out_of_reach);
        sources.start(look.holders);
    }

    /// Takes on new sources, or gives up when nothing has come for too long.
    fn take_on(
        &self,
        look: Result<Look, SessionError>,
        sources: &mut Sources,
    ) -> Result<(), DownloadError> {
        let tired = sources.is_given_up();
        let hopeless = look
            .as_ref()
            .is_ok_and(|look| sources.is_hopeless(&look.holders));
        if (tired || hopeless) && !self.options.wait {
            return Err(self.give_up(sources, look?));
        }
        match look {
            Ok(look) => self.start(sources, look),
            // The trackers may be down while the peers are not.
            Err(error) if error.is_transient() => sources.not_answered(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Has the grant renewed in time, so that no source waits for it. Never ends.
    async fn keep_grant(&self) {
        let grants = self.session.peer().grants();
        loop {
            if let Err(error) = grants.get(&self.group).await {
                tracing::debug!(group = %self.group, %error, "the grant was not renewed");
            }
            tokio::time::sleep(GRANT_LOOK).await;
        }
    }

    /// Counts a chunk that was written, and gives its page.
    fn count_in(
        &self,
        layout: Layout,
        shared: &Shared,
        serving: &Serving,
        chunk: ChunkIndex,
    ) -> PageIndex {
        let bytes = layout.chunk_len(chunk);
        shared.unwritten.fetch_sub(1, Ordering::Relaxed);
        if shared.pick(|picker, _| picker.have(chunk)) {
            serving.add(chunk);
            self.progress
                .send_modify(|progress| progress.verified_bytes += u64::from(bytes));
            let index = chunk.get();
            self.events
                .send(DownloadEvent::ChunkVerified { index, bytes });
        }
        layout.page_of(chunk)
    }

    fn source_ended(&self, sources: &mut Sources, ended: Ended) -> Result<(), DownloadError> {
        let Ended { peer, end, .. } = &ended;
        let peer = *peer;
        if end.is_final() {
            tracing::warn!(%peer, group = %self.group, name = %self.name, reason = %end, "a peer is left");
        } else {
            tracing::debug!(%peer, group = %self.group, name = %self.name, reason = %end, "a source ended");
        }
        if end.is_dropped() {
            let reason = end.to_string().into();
            self.progress
                .send_modify(|progress| progress.note_left(LeftPeer { peer, reason }));
        }
        self.events.send(DownloadEvent::PeerLeft {
            peer,
            reason: end.to_string().into(),
        });
        sources.ended(&ended);
        match ended.end {
            SourceEnd::Store(error) => Err(error.into()),
            SourceEnd::NoGrant(error) if !error.is_transient() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn give_up(&self, sources: &Sources, look: Look) -> DownloadError {
        let Look {
            mut holders,
            last_seen,
            ..
        } = look;
        holders.retain(|holder| holder.holding.is_something());
        let is_part = |holder: &Holder| matches!(holder.holding, Holding::Partial(_));
        if !holders.is_empty() && holders.iter().all(is_part) {
            return DownloadError::NotAllOnline {
                name: self.name.clone(),
                holders: holders.len(),
                missing: sources.shared().pick(|picker, _| picker.missing_count()),
            };
        }
        match (sources.last_end(), holders.len()) {
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
    pub(super) async fn look_for_holders(&self, file: &FileSummary) -> Result<Look, DownloadError> {
        let look = self.look(file).await?;
        let here = self.session.peer().library().find(&self.group, file.id);
        let is_held = look.holders.iter().any(|h| h.holding.is_something());
        if !is_held && !self.options.wait && here.is_none() {
            return Err(self.nobody(look.last_seen));
        }
        Ok(look)
    }

    fn nobody(&self, last_seen: Option<Timestamp>) -> DownloadError {
        DownloadError::NoPeersOnline {
            name: self.name.clone(),
            last_seen: last_seen.map(|seen| (seen, self.session.peer().link().now())),
        }
    }

    /// Asks who holds the file.
    fn look(&self, file: &FileSummary) -> impl Future<Output = Result<Look, SessionError>> + use<> {
        let session = self.session.clone();
        let (group, name, size) = (self.group.clone(), file.name.clone(), file.size);
        async move {
            let (holders, last_seen, availability) = session.holders(group, name).await?;
            match Layout::new(size) {
                Ok(layout) if availability.is_of(layout.chunk_count()) => Ok(Look {
                    holders,
                    last_seen,
                    availability,
                }),
                _ => Err(SessionError::Protocol),
            }
        }
    }

    /// Takes the chunks from this machine, if this peer shares the file already. Whether that was all.
    async fn copy_own(
        &self,
        prepared: &Prepared,
        shared: &Arc<Shared>,
        serving: &Serving,
        written: &mut mpsc::Receiver<Written>,
    ) -> Result<bool, DownloadError> {
        let library = self.session.peer().library();
        let layout = prepared.layout;
        let Some(share) = library.find(&self.group, prepared.file.id) else {
            return Ok(false);
        };
        let path = share.path.clone();
        let Ok(source) = blocking(move || Source::open(&path)).await? else {
            library.note_found(&share, Found::Unreadable);
            return Ok(false);
        };
        let (source, pool) = (Arc::new(source), BufferPool::default());
        shared.pick(|picker, _| picker.join(OWN, Bitfield::full(layout.chunk_count())));
        loop {
            let Some(chunk) = shared.pick(|picker, now| picker.pick(OWN, now)) else {
                shared.pick(|picker, _| picker.leave(OWN));
                return Ok(shared.pick(|picker, _| picker.is_complete()));
            };
            let page = layout.page_of(chunk);
            let known = shared.pages.load(page).await?;
            let (from, pool) = (source.clone(), pool.clone());
            let bytes = blocking(move || from.read_chunk(layout, chunk, &pool)).await?;
            let right = match bytes {
                Ok(bytes) if known && shared.pages.digest(chunk) == Some(Digest::of(&bytes)) => {
                    bytes
                }
                read => {
                    // What was read is not right, or nothing could be read, or the page is not here.
                    if read.is_ok() && known {
                        library.mark_wrong(&share);
                    }
                    shared.pick(|picker, _| picker.leave(OWN));
                    return Ok(false);
                }
            };
            shared.pick(|picker, now| picker.deliver(OWN, chunk, now));
            let write = Write {
                chunk,
                pieces: vec![right],
            };
            shared.unwritten.fetch_add(1, Ordering::Relaxed);
            let sent = shared.writes.send(write).await;
            let done = written.recv().await;
            let page = match (sent, done) {
                (Ok(()), Some(done)) => self.count_in(layout, shared, serving, done?),
                _ => return Err(DownloadError::Cancelled),
            };
            self.note(prepared, shared, page).await?;
        }
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
            duplicate_bytes: 0,
        }
    }
}

/// Whether the page is here, or one of `holders` gives it; those who do not are not asked for another one.
async fn have_page(
    shared: &Arc<Shared>,
    page: PageIndex,
    holders: &mut Vec<&Holder>,
) -> Result<bool, DownloadError> {
    if shared.pages.load(page).await? {
        return Ok(true);
    }
    while let Some(holder) = holders.last() {
        match shared.fetch_page_from(holder, page).await {
            Ok(()) => return Ok(true),
            Err(SourceEnd::Store(error)) => return Err(error.into()),
            Err(error) => tracing::debug!(peer = %holder.peer, %error, "no digests"),
        }
        holders.pop();
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

/// This peer itself, as a source.
const OWN: SourceId = 0;
