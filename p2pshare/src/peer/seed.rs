//! The serving side of a peer. Nothing leaves it but against a grant that the ring signed for the very peer
//! that asks, for the group named in the request, and only of files that this peer shares in that group, or is
//! downloading from it; to be refused and to ask for what is not there look alike.

mod given;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use self::given::{Asker, GivenFiles};
use super::{
    file::{BufferPool, Source},
    library::{Found, Library, PageRow, Share},
    link::TrackerLink,
    ongoing::{Ongoing, Part},
};
use crate::{
    content::{Bitfield, ChunkIndex, FileId, Layout},
    identity::{
        GroupName, PeerId,
        token::{Grant, Signed},
    },
    limits::{
        CHUNK_REQUESTS_MAX, GRANT_GRACE_CUT_OFF, HAVE_INTERVAL, REQUEST_TIMEOUT, SEED_READ_AHEAD,
        SEED_STALL_MAX, SEED_STREAMS_MAX, SEED_STREAMS_PER_PEER_MAX, STRANGER_LIFE,
        STREAM_IDLE_MAX,
    },
    time::Timestamp,
    transport::{Admission, CloseCode, Connection, ReceiveError, RecvStream, SendStream},
    wire::{
        peer::{ChunkHeader, Open, PageAnswer, PeerRefusal, SwarmAnswer, SwarmRequest},
        tracker::Holding,
    },
};

/// Serves what a library holds. A cheap clone.
#[derive(Clone)]
pub(super) struct Seeder(Arc<Inner>);

struct Inner {
    library: Library,
    ongoing: Ongoing,
    link: TrackerLink,
    buffers: BufferPool,
    streams: Streams,
    given: GivenFiles,
    sent_bytes: AtomicU64,
}

/// The swarm streams that are being served, by who asked for them: nobody can take all the places.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<HashMap<PeerId, usize>>>);

/// A place of one of them, given back when dropped.
struct Place {
    streams: Streams,
    peer: PeerId,
}

impl Streams {
    fn enter(&self, peer: PeerId) -> Option<Place> {
        let mut served = self.served();
        let own = served.get(&peer).copied().unwrap_or(0);
        if own >= SEED_STREAMS_PER_PEER_MAX || served.values().sum::<usize>() >= SEED_STREAMS_MAX {
            return None;
        }
        served.insert(peer, own + 1);
        drop(served);
        let streams = self.clone();
        Some(Place { streams, peer })
    }

    fn served(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut served = self.streams.served();
        if let Some(own) = served.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                served.remove(&self.peer);
            }
        }
    }
}

/// The right of one peer to read one group, as it was last shown.
struct Right {
    peer: PeerId,
    group: GroupName,
    expires: Timestamp,
}

impl Seeder {
    pub(super) fn new(library: Library, ongoing: Ongoing, link: TrackerLink) -> Self {
        Self(Arc::new(Inner {
            library,
            ongoing,
            link,
            buffers: BufferPool::default(),
            streams: Streams::default(),
            given: GivenFiles::default(),
            sent_bytes: AtomicU64::new(0),
        }))
    }

    /// Bytes of chunks sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes.load(Ordering::Relaxed)
    }

    /// Serves a connection until it is closed. Breaking the protocol closes it, and so does showing no right.
    pub(super) async fn serve(self, connection: Connection, place: Admission) {
        let mut streams = JoinSet::new();
        let trusted = Arc::new(AtomicBool::new(false));
        let stranger_until = Instant::now() + STRANGER_LIFE;
        loop {
            tokio::select! {
                biased;
                Some(_) = streams.join_next(), if !streams.is_empty() => {}
                () = sleep_until(stranger_until), if !trusted.load(Ordering::Relaxed) => {
                    return connection.close(CloseCode::Unauthenticated);
                }
                stream = connection.accept() => {
                    let Ok((send, receive)) = stream else { return };
                    let (seeder, connection) = (self.clone(), connection.clone());
                    let (trusted, place) = (trusted.clone(), place.clone());
                    streams.spawn(async move {
                        let peer = connection.remote_peer();
                        let trust = || {
                            trusted.store(true, Ordering::Relaxed);
                            place.set_trusted(true);
                        };
                        if let Err(error) = seeder.serve_stream(peer, send, receive, trust).await {
                            tracing::debug!(%peer, %error, "a peer's stream ended early");
                            if let Some(code) = CloseCode::for_fault(&error) {
                                connection.close(code);
                            }
                        }
                    });
                }
            }
        }
    }

    async fn serve_stream(
        &self,
        peer: PeerId,
        send: SendStream,
        mut receive: RecvStream,
        trust: impl Fn(),
    ) -> Result<(), ReceiveError> {
        let open = match timeout(REQUEST_TIMEOUT, receive.receive::<Open>()).await {
            Ok(open) => open?,
            Err(_) => {
                receive.stop(CloseCode::TooSlow);
                return Ok(());
            }
        };
        match open {
            Open::Digests {
                grant,
                group,
                id,
                page,
            } => {
                let right = self.0.right(peer, &grant, &group);
                let page = match right {
                    Some(_) => self.page(&group, id, page).await,
                    None => None,
                };
                if page.is_some() {
                    trust();
                }
                Self::send_page(page, send).await
            }
            Open::Swarm { grant, group, id } => {
                let right = self.0.right(peer, &grant, &group);
                let opened = match right {
                    Some(right) => self.0.open(&group, id).await.map(|open| (right, open)),
                    None => None,
                };
                if opened.is_some() {
                    trust();
                }
                self.serve_swarm(peer, opened, send, receive).await
            }
        }
        .map_or(Ok(()), Err)
    }

    /// A page of digests of that content, if it is in that group here.
    async fn page(&self, group: &GroupName, id: FileId, page: u32) -> Option<PageRow> {
        let here =
            self.0.library.find(group, id).is_some() || self.0.ongoing.find(group, id).is_some();
        match here {
            true => self.0.library.page(id, page).await.ok().flatten(),
            false => None,
        }
    }

    async fn send_page(page: Option<PageRow>, mut send: SendStream) -> Option<ReceiveError> {
        let answer = match page {
            Some(PageRow::V1 { digests, proof }) => PageAnswer::Page { digests, proof },
            None => PageAnswer::Refused(PeerRefusal::Denied),
        };
        if send.send(&answer).await.is_ok() {
            send.finish();
        }
        None
    }

    async fn serve_swarm(
        &self,
        peer: PeerId,
        opened: Option<(Right, Served)>,
        mut send: SendStream,
        receive: RecvStream,
    ) -> Option<ReceiveError> {
        let slot = self.0.streams.enter(peer);
        let (answer, serving) = match (opened, slot) {
            (None, _) => (SwarmAnswer::Refused(PeerRefusal::Denied), None),
            (Some(_), None) => (SwarmAnswer::Refused(PeerRefusal::Busy), None),
            (Some((right, served)), Some(slot)) => {
                let told = served.had();
                let holding = match &told {
                    Some(told) => Holding::Partial(told.to_bytes()),
                    None => Holding::Complete,
                };
                let opened = (right, served, told);
                (SwarmAnswer::Opened { holding }, Some((opened, slot)))
            }
        };
        if send.send(&answer).await.is_err() {
            return None;
        }
        let Some(((right, served, told), slot)) = serving else {
            send.finish();
            return None;
        };
        let chunks = served.layout().chunk_count();
        Swarm {
            inner: self.0.clone(),
            asker: self.0.given.enter(&right.group, served.id(), chunks),
            served,
            right: Mutex::new(right),
            cancelled: Mutex::default(),
            _slot: slot,
        }
        .serve(send, receive, told)
        .await
    }
}

impl Inner {
    /// What `grant` gives to `peer` for `group`, if anything.
    fn right(&self, peer: PeerId, grant: &Signed<Grant>, group: &GroupName) -> Option<Right> {
        let (ring, token_key) = (self.link.ring()?, self.link.token_key()?);
        let claims = grant.open(&token_key).ok()?;
        claims.check(ring, group, peer, self.link.now()).ok()?;
        let Grant::V1 { expires, .. } = claims;
        Some(Right {
            peer,
            group: group.clone(),
            expires,
        })
    }

    /// What is here of that content in that group: all of it, if its file can be opened and is still what it
    /// was, or what a download of it has got.
    async fn open(&self, group: &GroupName, id: FileId) -> Option<Served> {
        if let Some(share) = self.library.find(group, id)
            && let Some(source) = self.open_share(&share).await
        {
            return Some(Served::Whole { share, source });
        }
        self.ongoing.find(group, id).map(Served::Part)
    }

    async fn open_share(&self, share: &Arc<Share>) -> Option<Arc<Source>> {
        let path = share.path.clone();
        let source = tokio::task::spawn_blocking(move || Source::open(&path)).await;
        match source {
            Ok(Ok(source)) if source.stamp() == share.stamp => Some(Arc::new(source)),
            Ok(Ok(_)) => {
                self.library.mark_changed(share);
                None
            }
            Ok(Err(error)) => {
                // It may come back: a disk that is not mounted, too many open files.
                tracing::debug!(path = %share.path.display(), %error, "a shared file cannot be opened now");
                self.library.note_found(share, Found::Unreadable);
                None
            }
            Err(_) => None,
        }
    }
}

/// What a swarm stream is served from.
#[derive(Clone)]
enum Served {
    Whole {
        share: Arc<Share>,
        source: Arc<Source>,
    },
    Part(Arc<Part>),
}

impl Served {
    fn layout(&self) -> Layout {
        match self {
            Self::Whole { share, .. } => share.layout,
            Self::Part(part) => part.layout,
        }
    }

    /// Which chunks are here, unless it is all of them.
    fn had(&self) -> Option<Bitfield> {
        match self {
            Self::Whole { .. } => None,
            Self::Part(part) => Some(part.had()),
        }
    }

    fn gives(&self, chunk: ChunkIndex) -> bool {
        match self {
            Self::Whole { share, .. } => !share.is_changed(),
            Self::Part(part) => part.gives(chunk),
        }
    }

    /// Reads a chunk, if the file is still what it was. Blocks.
    fn read(&self, chunk: ChunkIndex, inner: &Inner) -> Option<Bytes> {
        let read = match self {
            Self::Part(part) => part.read_chunk(chunk, &inner.buffers),
            Self::Whole { share, source } => {
                let bytes = source.read_chunk(share.layout, chunk, &inner.buffers);
                match (bytes, source.is_same()) {
                    (Ok(bytes), Ok(true)) => Ok(Some(bytes)),
                    (_, Ok(false)) => {
                        inner.library.mark_changed(share);
                        Ok(None)
                    }
                    (Err(error), _) | (_, Err(error)) => Err(error),
                }
            }
        };
        read.unwrap_or_else(|error| {
            tracing::warn!(id = %self.id(), %error, "a file cannot be read now");
            None
        })
    }

    fn id(&self) -> FileId {
        match self {
            Self::Whole { share, .. } => share.id,
            Self::Part(part) => part.id,
        }
    }
}

/// One open swarm stream.
struct Swarm {
    inner: Arc<Inner>,
    served: Served,
    asker: Asker,
    right: Mutex<Right>,
    /// Chunks that are asked for and no longer wanted.
    cancelled: Mutex<HashSet<u32>>,
    _slot: Place,
}

/// An answer that is being prepared.
enum Prepared {
    Chunk {
        index: u32,
        read: JoinHandle<Option<Bytes>>,
    },
    Lacking {
        index: u32,
    },
}

impl Swarm {
    async fn serve(
        self,
        send: SendStream,
        receive: RecvStream,
        told: Option<Bitfield>,
    ) -> Option<ReceiveError> {
        // Requests wait in one queue, and a few of them, already being read from disk, in the next.
        let (ask, asked) = mpsc::channel(CHUNK_REQUESTS_MAX);
        let (prepare, prepared) = mpsc::channel(SEED_READ_AHEAD);
        tokio::select! {
            error = self.hear(receive, ask) => error,
            () = self.prepare(asked, prepare) => None,
            () = self.answer(prepared, send, told) => None,
        }
    }

    /// Takes in what the downloader says, until the stream ends.
    async fn hear(&self, mut receive: RecvStream, ask: mpsc::Sender<u32>) -> Option<ReceiveError> {
        let mut idle_until = Instant::now() + STREAM_IDLE_MAX;
        loop {
            let request = timeout_at(idle_until, receive.receive_or_end()).await;
            match request {
                Ok(Ok(Some(SwarmRequest::Chunk { index }))) => {
                    // Whose right is over keeps his place for as long as he may be silent, to show another.
                    if self.may_read() {
                        idle_until = Instant::now() + STREAM_IDLE_MAX;
                        self.note(index);
                    }
                    self.cancelled().remove(&index);
                    // More than may be unanswered: whoever sends them waits until some are answered.
                    if ask.send(index).await.is_err() {
                        return None;
                    }
                }
                Ok(Ok(Some(SwarmRequest::Cancel { index }))) => {
                    let mut cancelled = self.cancelled();
                    if cancelled.len() < CHUNK_REQUESTS_MAX {
                        cancelled.insert(index);
                    }
                }
                Ok(Ok(Some(SwarmRequest::Renew { grant }))) => {
                    let mut right = self.right();
                    let renewed = self.inner.right(right.peer, &grant, &right.group);
                    if let Some(renewed) = renewed {
                        *right = renewed;
                    }
                }
                Ok(Ok(None)) => {
                    // The last requests are still being answered.
                    drop(ask);
                    return std::future::pending().await;
                }
                Ok(Err(error)) => return Some(error),
                Err(_) => return None,
            }
        }
    }

    /// Has the others who ask told of a chunk that is about to be given.
    fn note(&self, index: u32) {
        let chunk = self.served.layout().chunk(index);
        if chunk.is_some_and(|chunk| self.served.gives(chunk)) {
            self.asker.note(index);
        }
    }

    /// Starts reading the chunks that are asked for, a few ahead of what is being sent.
    async fn prepare(&self, mut asked: mpsc::Receiver<u32>, prepare: mpsc::Sender<Prepared>) {
        while let Some(index) = asked.recv().await {
            let prepared = match self.served.layout().chunk(index) {
                Some(chunk) if self.may_read() && self.served.gives(chunk) => Prepared::Chunk {
                    index,
                    read: self.read(chunk),
                },
                _ => Prepared::Lacking { index },
            };
            if prepare.send(prepared).await.is_err() {
                return;
            }
        }
        drop(prepare);
        std::future::pending().await
    }

    /// Sends the answers in their order, and says in between what else is here since it was `told`.
    async fn answer(
        &self,
        mut prepared: mpsc::Receiver<Prepared>,
        mut send: SendStream,
        told: Option<Bitfield>,
    ) {
        let (mut growth, mut news) = (Growth::new(&self.served, told), self.asker.news());
        loop {
            let more = async {
                tokio::select! {
                    more = growth.more() => more,
                    more = news.more() => more,
                }
            };
            let answer = tokio::select! {
                answer = prepared.recv() => answer,
                // Nor is it told what is here whose right is over.
                more = more, if self.may_read() => match send_in_time(&mut send, more).await {
                    true => continue,
                    false => return,
                },
            };
            let Some(answer) = answer else { break };
            let (index, bytes) = match answer {
                Prepared::Chunk { index, read } => (index, read.await.ok().flatten()),
                Prepared::Lacking { index } => (index, None),
            };
            let cancelled = self.cancelled().remove(&index);
            let (header, bytes) = match bytes {
                _ if cancelled => (ChunkHeader::Cancelled { index }, None),
                None => (ChunkHeader::Lacking { index }, None),
                Some(bytes) => {
                    let length = bytes.len() as u32;
                    (ChunkHeader::Chunk { index, length }, Some(bytes))
                }
            };
            let header = Bytes::copy_from_slice(&header.encode());
            if !send_in_time(&mut send, header).await {
                return;
            }
            if let Some(bytes) = bytes {
                let length = bytes.len() as u64;
                if !send_in_time(&mut send, bytes).await {
                    return;
                }
                self.inner.sent_bytes.fetch_add(length, Ordering::Relaxed);
            }
        }
        send.finish();
    }

    fn read(&self, chunk: ChunkIndex) -> JoinHandle<Option<Bytes>> {
        let (inner, served) = (self.inner.clone(), self.served.clone());
        tokio::task::spawn_blocking(move || served.read(chunk, &inner))
    }

    /// Whether the downloader's right to read still holds. One exception, so that a dead ring stops nobody:
    /// a peer that itself reaches no tracker goes on for a while on what was open before.
    fn may_read(&self) -> bool {
        let (now, right) = (self.inner.link.now(), self.right());
        let over =
            now.saturating_since(right.expires.saturating_add(crate::limits::CLOCK_TOLERANCE));
        over == Duration::ZERO
            || (over < GRANT_GRACE_CUT_OFF && self.inner.link.connected().borrow().is_none())
    }

    fn right(&self) -> std::sync::MutexGuard<'_, Right> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancelled(&self) -> std::sync::MutexGuard<'_, HashSet<u32>> {
        self.cancelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the bytes went out in time: whoever asks and then does not read gives his place to others.
async fn send_in_time(send: &mut SendStream, bytes: Bytes) -> bool {
    let sent = timeout(SEED_STALL_MAX, send.send_bytes(bytes)).await;
    matches!(sent, Ok(Ok(())))
}

/// What a download gets while it is served from.
struct Growth<'a> {
    part: Option<(&'a Part, watch::Receiver<()>)>,
    told: Bitfield,
    /// When there may be something to tell again.
    next: Instant,
}

impl<'a> Growth<'a> {
    fn new(served: &'a Served, told: Option<Bitfield>) -> Self {
        let part = match served {
            Served::Whole { .. } => None,
            Served::Part(part) => {
                let mut grown = part.grown();
                // What came since `told` was taken.
                grown.mark_changed();
                Some((&**part, grown))
            }
        };
        Self {
            part,
            told: told.unwrap_or_else(|| Bitfield::new(0)),
            next: Instant::now(),
        }
    }

    /// The headers that tell of chunks which were not told of before, once there are any; never after the
    /// last. Cancel-safe.
    async fn more(&mut self) -> Bytes {
        loop {
            let Some((part, grown)) = &mut self.part else {
                return std::future::pending().await;
            };
            sleep_until(self.next).await;
            let ended = grown.changed().await.is_err() || part.has_ended();
            self.next = Instant::now() + HAVE_INTERVAL;
            let more = part.tell(&mut self.told, HAVES_AT_ONCE);
            if more.len() == HAVES_AT_ONCE {
                grown.mark_changed();
            } else if ended || self.told.is_complete() {
                self.part = None;
            }
            if !more.is_empty() {
                let header = |index| ChunkHeader::Have { index }.encode();
                return more.into_iter().flat_map(header).collect::<Vec<_>>().into();
            }
        }
    }
}

/// Chunks that are told of in one piece.
const HAVES_AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests;
