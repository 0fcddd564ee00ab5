//! One source of chunks: a peer that holds the file, on one stream with many requests in flight. Bytes are
//! hashed as they come, in the pieces in which they came, and a chunk goes on to be written only when its
//! digest is the one that the file id commits to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{pages::Pages, partial::Write};
use crate::{
    content::{Bitfield, ChunkIndex, Hasher, PageIndex},
    identity::{GroupName, PeerId},
    limits::{
        BROKEN_WORDS_MAX, CHUNK_DEADLINE, CHUNK_PIECES_AT_ONCE, CHUNK_PIECES_MAX, IDLE_SOURCE_LOOK,
        OUTRUN_PATIENCE, PEER_ANSWER_TIMEOUT, SEED_WAIT_MAX, SOURCE_IDLE_MAX, SOURCE_SILENCE_MAX,
        TURN_WORTH,
    },
    peer::{
        grants::{Grants, HeldGrant},
        intake::Intake,
        picker::{Picker, SourceId},
    },
    store::StoreError,
    transport::{
        Alpn, CloseCode, Connection, Endpoint, Expect, ReceiveError, RecvStream, RequestError,
        SendError, SendStream,
    },
    wire::{
        peer::{
            BadChunkHeader, ChunkHeader, ChunkPart, ChunkReader, Open, PageAnswer, PeerRefusal,
            SwarmAnswer, SwarmRequest,
        },
        tracker::{Holder, Holding},
    },
};

/// What all sources of a download share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) grants: Grants,
    pub(super) group: GroupName,
    pub(super) pages: Pages,
    pub(super) picker: Mutex<Picker>,
    /// What the picker's time is counted from.
    pub(super) began: Instant,
    /// Told when the picker has news for the sources.
    pub(super) news: watch::Sender<()>,
    pub(super) writes: mpsc::Sender<Write>,
    /// How much may be asked for, over all downloads.
    pub(super) intake: Intake,
    /// Bytes of chunks that came.
    pub(super) received_bytes: AtomicU64,
    /// Chunks that are right and not written yet.
    pub(super) unwritten: AtomicU64,
    /// Bytes of chunks that came in vain.
    pub(super) duplicate_bytes: AtomicU64,
    /// How far it is with each source.
    pub(super) standings: Mutex<BTreeMap<SourceId, Standing>>,
}

/// How far it is with a source.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It is being connected.
    Connecting,
    /// It is busy, and this peer waits for a place.
    Queued,
    /// Chunks can come.
    Open,
}

/// Why no more chunks come from a source.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceEnd {
    /// It holds nothing that is still needed.
    #[error("it has nothing that is missing")]
    Exhausted,
    /// No address of it answers.
    #[error("it cannot be reached")]
    Unreachable,
    /// It refuses.
    #[error(transparent)]
    Refused(#[from] PeerRefusal),
    /// Others wait for the place there.
    #[error("others wait for the place")]
    TurnOver,
    /// It went silent, or is so slow that it might as well be.
    #[error("nothing, or next to nothing, comes from it")]
    Silent,
    /// Another was sooner with the chunk that it was about to give.
    #[error("another was faster")]
    Outrun,
    /// It said that it has chunks, and lacks them when it is asked for them: what it says is worth nothing.
    #[error("it lacks chunk {index}, which it said it has")]
    Lacking { index: u32 },
    /// Its place is another's, as the least came from it.
    #[error("others give more")]
    Retired,
    /// What it sent is not the chunk that was asked for. It gets no second chance.
    #[error("it sent a bad chunk {index}")]
    BadChunk { index: u32 },
    /// What it sent are not the digests of the file. It gets no second chance.
    #[error("it sent digests that are not of the file")]
    BadDigests,
    /// It does not keep to the protocol. It gets no second chance.
    #[error("it does not keep to the protocol")]
    Protocol(CloseCode),
    /// The stream or the connection broke.
    #[error("the connection broke: {0}")]
    Broken(ReceiveError),
    /// No grant could be had.
    #[error("no grant: {0}")]
    NoGrant(crate::peer::error::SessionError),
    /// This peer's own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The download has ended.
    #[error("the download has ended")]
    Over,
}

impl SourceEnd {
    /// Well-formed, but not what belongs there.
    const NONSENSE: Self = Self::Protocol(CloseCode::ProtocolError);

    /// Whether the peer is not to be asked again for this download.
    pub(super) const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::BadChunk { .. } | Self::BadDigests | Self::Protocol(_)
        )
    }

    /// Whether it is to be shown that the peer was dropped: it did not just go, or have nothing more.
    pub(super) const fn is_dropped(&self) -> bool {
        self.is_final() || matches!(self, Self::Silent | Self::Lacking { .. })
    }

    const fn code(&self) -> Option<CloseCode> {
        match self {
            Self::BadChunk { .. } | Self::BadDigests => Some(CloseCode::ProtocolError),
            Self::Protocol(code) => Some(*code),
            _ => None,
        }
    }
}

impl From<ReceiveError> for SourceEnd {
    fn from(error: ReceiveError) -> Self {
        match (CloseCode::for_fault(&error), &error) {
            (Some(code), _) => Self::Protocol(code),
            (_, ReceiveError::Reset(code)) if code.known() == Some(CloseCode::TooManyRequests) => {
                Self::TurnOver
            }
            _ => Self::Broken(error),
        }
    }
}

impl From<SendError> for SourceEnd {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Lost(lost) => Self::Broken(lost.into()),
            _ => Self::Broken(ReceiveError::Stopped),
        }
    }
}

impl From<RequestError> for SourceEnd {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unanswered(error) => error.into(),
            RequestError::NotSent(lost) => Self::Broken(lost.into()),
            _ => Self::Silent,
        }
    }
}

impl From<BadChunkHeader> for SourceEnd {
    fn from(_: BadChunkHeader) -> Self {
        Self::NONSENSE
    }
}

impl Shared {
    /// Fetches chunks from `holder` until there is a reason not to, which it gives, and whether any came. `joined` is
    /// told once chunks can come.
    pub(super) async fn fetch(
        self: Arc<Self>,
        source: SourceId,
        holder: Holder,
        joined: mpsc::Sender<PeerId>,
    ) -> (SourceEnd, bool) {
        let _give_back = GiveBack {
            shared: &self,
            source,
        };
        self.stands(source, Standing::Connecting);
        let connection = match self.connect(&holder).await {
            Ok(connection) => connection,
            Err(end) => return (end, false),
        };
        let mut gave = false;
        let end = loop {
            let began = Instant::now();
            let end = match self.open(&connection, source).await {
                Ok(feed) => {
                    self.stands(source, Standing::Open);
                    let _ = joined.send(holder.peer).await;
                    feed.run(&mut gave).await
                }
                Err(end) => end,
            };
            // What was asked for goes to others while this one waits again.
            self.pick(|picker, _| picker.leave(source));
            if !matches!(end, SourceEnd::TurnOver) || began.elapsed() < TURN_WORTH {
                break end;
            }
        };
        if let Some(code) = end.code() {
            connection.close(code);
        }
        (end, gave)
    }

    /// Connects to whichever address answers first, and proves to be the right peer.
    async fn connect(&self, holder: &Holder) -> Result<Connection, SourceEnd> {
        let mut attempts = JoinSet::new();
        for &addr in &holder.addrs {
            let (endpoint, peer) = (self.endpoint.clone(), holder.peer);
            attempts
                .spawn(async move { endpoint.connect(addr, Alpn::Peer, Expect::Peer(peer)).await });
        }
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => tracing::debug!(peer = %holder.peer, %error, "cannot connect"),
                Err(_) => {}
            }
        }
        Err(SourceEnd::Unreachable)
    }

    async fn open<'a>(
        self: &'a Arc<Self>,
        connection: &'a Connection,
        source: SourceId,
    ) -> Result<Feed<'a>, SourceEnd> {
        let grant = self.grant().await?;
        let open = Open::Swarm {
            grant: grant.token.clone(),
            group: self.group.clone(),
            id: self.pages.id(),
        };
        let (mut send, mut receive) = connection
            .open()
            .await
            .map_err(|lost| SourceEnd::Broken(lost.into()))?;
        send.send(&open).await?;
        let mut answer = timeout(PEER_ANSWER_TIMEOUT, receive.receive::<SwarmAnswer>()).await;
        if matches!(answer, Ok(Ok(SwarmAnswer::Waits))) {
            self.stands(source, Standing::Queued);
            let patience = SEED_WAIT_MAX + PEER_ANSWER_TIMEOUT;
            answer = timeout(patience, receive.receive::<SwarmAnswer>()).await;
        }
        let holding = match answer.map_err(|_| SourceEnd::Silent)?? {
            SwarmAnswer::Opened { holding } => holding,
            SwarmAnswer::Refused(refusal) => return Err(refusal.into()),
            SwarmAnswer::Waits => return Err(SourceEnd::NONSENSE),
        };
        let count = self.pages.layout().chunk_count();
        let grows = matches!(holding, Holding::Partial(_));
        let holds = match holding {
            Holding::Nothing => Bitfield::new(count),
            Holding::Complete => Bitfield::full(count),
            Holding::Partial(bits) => {
                Bitfield::from_bytes(count, &bits).map_err(|_| SourceEnd::NONSENSE)?
            }
        };
        self.pick(|picker, _| picker.join(source, holds));
        Ok(Feed {
            shared: self,
            connection,
            source,
            send,
            incoming: Incoming::new(receive),
            grows,
            asked: VecDeque::new(),
            cancelled: Vec::new(),
            news: self.news.subscribe(),
            due: Instant::now() + CHUNK_DEADLINE,
            outrun: false,
            useless_since: None,
            broken_words: 0,
            lacked: 0,
            held_back: false,
            gave: false,
            grant_serial: grant.serial,
        })
    }

    /// The grant that is held; the tracker, which may be away, is asked only if there is none.
    async fn grant(&self) -> Result<HeldGrant, SourceEnd> {
        match self.grants.held(&self.group) {
            Some(grant) => Ok(grant),
            None => {
                let minted = self.grants.get(&self.group).await;
                minted.map_err(SourceEnd::NoGrant)
            }
        }
    }

    fn stands(&self, source: SourceId, standing: Standing) {
        self.standings().insert(source, standing);
    }

    /// How far it is with each source.
    pub(super) fn standings(&self) -> MutexGuard<'_, BTreeMap<SourceId, Standing>> {
        let standings = self.standings.lock();
        standings.unwrap_or_else(PoisonError::into_inner)
    }

    /// Consults the picker, and tells all sources what came about by it.
    pub(super) fn pick<R>(&self, consult: impl FnOnce(&mut Picker, Duration) -> R) -> R {
        let mut picker = self.picker.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = consult(&mut picker, self.began.elapsed());
        if picker.take_news() {
            self.news.send_replace(());
        }
        outcome
    }
}

/// Whatever ends a source, its chunks go to others.
struct GiveBack<'a> {
    shared: &'a Shared,
    source: SourceId,
}

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        self.shared.pick(|picker, _| picker.leave(self.source));
        self.shared.standings().remove(&self.source);
    }
}

/// Bytes of a chunk that are of no use unless the rest comes, or the chunk is right and nobody else gave it.
struct Loose<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Drop for Loose<'_> {
    fn drop(&mut self) {
        self.shared
            .duplicate_bytes
            .fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// An open swarm stream.
struct Feed<'a> {
    shared: &'a Arc<Shared>,
    connection: &'a Connection,
    source: SourceId,
    send: SendStream,
    incoming: Incoming,
    /// Whether it is downloading as well, so that it will hold more.
    grows: bool,
    /// Asked for and not answered, in order.
    asked: VecDeque<ChunkIndex>,
    /// Of these, what it was told not to send.
    cancelled: Vec<u32>,
    /// Told when chunks are missing again, or given by another.
    news: watch::Receiver<()>,
    /// By when the next answer has to be complete.
    due: Instant,
    /// Whether another has given the chunk that is being received.
    outrun: bool,
    /// Since when it has had nothing that is missing.
    useless_since: Option<Instant>,
    /// By how many the chunks that it said it has and lacks are more than those that it gave, none counted as less.
    broken_words: u32,
    /// The last of them.
    lacked: u32,
    /// Whether it would have been asked for more, had there been room in the limit.
    held_back: bool,
    /// Whether a chunk came.
    gave: bool,
    /// Which grant the peer saw last.
    grant_serial: u64,
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        // The first one may have come in part.
        for &chunk in self.asked.iter().skip(1) {
            self.shared.intake.give_back(self.bytes_of(chunk));
        }
    }
}

impl Feed<'_> {
    /// Goes on until there is a reason not to; notes whether chunks came.
    async fn run(mut self, gave: &mut bool) -> SourceEnd {
        loop {
            let step = self.step().await;
            *gave |= self.gave;
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Fills the window of requests, then takes one answer, or waits for something to ask for.
    async fn step(&mut self) -> Result<(), SourceEnd> {
        self.renew_grant().await?;
        self.cancel_unwanted(false).await?;
        self.ask().await?;
        match self.asked.is_empty() {
            true => self.idle().await,
            false => self.take_answer().await,
        }
    }

    /// Asks for as much as the picker wants, and the limit has room for.
    async fn ask(&mut self) -> Result<(), SourceEnd> {
        loop {
            self.held_back = self.shared.intake.limiting().is_some();
            if self.held_back {
                return Ok(());
            }
            let Some(chunk) = self.pick()? else {
                return Ok(());
            };
            self.shared.intake.take(self.bytes_of(chunk));
            if self.asked.is_empty() {
                self.await_next();
            }
            self.asked.push_back(chunk);
            self.load_digests(chunk).await?;
            let index = chunk.get();
            self.request(SwarmRequest::Chunk { index }).await?;
        }
    }

    /// Sends a request. Who takes no more of them has said why, which is still to be read.
    async fn request(&mut self, request: SwarmRequest) -> Result<(), SourceEnd> {
        match self.send.send(&request).await {
            Ok(()) | Err(SendError::Stopped(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn bytes_of(&self, chunk: ChunkIndex) -> u32 {
        self.shared.pages.layout().chunk_len(chunk)
    }

    fn pick(&self) -> Result<Option<ChunkIndex>, SourceEnd> {
        let round_trip = self.connection.round_trip();
        self.shared.pick(|picker, now| match picker.is_complete() {
            true => Err(SourceEnd::Over),
            false => {
                picker.note_round_trip(self.source, round_trip);
                Ok(picker.pick(self.source, now))
            }
        })
    }

    /// All that is missing was asked of others, who may fail or become slow, or is not held here.
    async fn idle(&mut self) -> Result<(), SourceEnd> {
        let now = Instant::now();
        if self.shared.pick(|picker, _| picker.is_retired(self.source)) {
            return Err(SourceEnd::Retired);
        }
        if self.shared.pick(|picker, _| picker.is_needed(self.source)) {
            self.useless_since = None;
        } else if !self.grows || now - *self.useless_since.get_or_insert(now) >= SOURCE_IDLE_MAX {
            return Err(match self.broken_words {
                0 => SourceEnd::Exhausted,
                _ => SourceEnd::Lacking { index: self.lacked },
            });
        }
        self.incoming.heard = now;
        tokio::select! {
            part = self.incoming.part() => match part? {
                ChunkPart::Header(ChunkHeader::Have { index }) => self.learn(index),
                ChunkPart::Header(ChunkHeader::TurnOver) => Err(SourceEnd::TurnOver),
                _ => Err(SourceEnd::NONSENSE),
            },
            _ = self.news.changed() => Ok(()),
            () = self.shared.intake.room(), if self.held_back => Ok(()),
            () = sleep(IDLE_SOURCE_LOOK) => Ok(()),
        }
    }

    async fn take_answer(&mut self) -> Result<(), SourceEnd> {
        let header = match self.next_part(false).await? {
            ChunkPart::Header(ChunkHeader::Have { index }) => return self.learn(index),
            ChunkPart::Header(header) => header,
            ChunkPart::Bytes(_) => return Err(SourceEnd::NONSENSE),
        };
        let Some(&chunk) = self.asked.front() else {
            return Err(SourceEnd::NONSENSE);
        };
        let was_cancelled = self.cancelled.contains(&chunk.get());
        let layout = self.shared.pages.layout();
        match header {
            ChunkHeader::Chunk { index, length }
                if index == chunk.get() && length == layout.chunk_len(chunk) =>
            {
                // What is there already is let come, but not for long.
                if was_cancelled && !self.shared.pick(|picker, _| picker.is_awaited(chunk)) {
                    self.outruns();
                }
                self.take_chunk(chunk, length).await?;
                self.gave = true;
                self.broken_words = self.broken_words.saturating_sub(1);
            }
            ChunkHeader::TurnOver => return Err(SourceEnd::TurnOver),
            ChunkHeader::Lacking { index } if index == chunk.get() => {
                self.shared.intake.give_back(self.bytes_of(chunk));
                self.shared
                    .pick(|picker, now| picker.lack(self.source, chunk, now));
                self.broken_words += 1;
                self.lacked = index;
                if self.broken_words >= BROKEN_WORDS_MAX {
                    return Err(SourceEnd::Lacking { index });
                }
            }
            ChunkHeader::Cancelled { index } if index == chunk.get() && was_cancelled => {
                self.shared.intake.give_back(self.bytes_of(chunk));
                self.shared
                    .pick(|picker, now| picker.refuse(self.source, chunk, now));
            }
            _ => return Err(SourceEnd::NONSENSE),
        }
        self.asked.pop_front();
        self.cancelled.retain(|&cancelled| cancelled != chunk.get());
        self.await_next();
        Ok(())
    }

    /// Takes the bytes of a chunk as they come, and has them written only if they are the right ones.
    async fn take_chunk(&mut self, chunk: ChunkIndex, length: u32) -> Result<(), SourceEnd> {
        let shared = self.shared;
        let mut loose = Loose { shared, bytes: 0 };
        let (mut hasher, mut pieces) = (Hasher::new(), Pieces::default());
        while loose.bytes < u64::from(length) {
            let ChunkPart::Bytes(piece) = self.next_part(true).await? else {
                return Err(SourceEnd::NONSENSE);
            };
            hasher.update(&piece);
            loose.bytes += piece.len() as u64;
            shared
                .received_bytes
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            pieces.push(piece);
        }
        let expected = match shared.pages.digest(chunk) {
            Some(expected) => Some(expected),
            None => {
                self.load_digests(chunk).await?;
                shared.pages.digest(chunk)
            }
        };
        if expected != Some(hasher.finish()) {
            return Err(SourceEnd::BadChunk { index: chunk.get() });
        }
        if shared.pick(|picker, now| picker.deliver(self.source, chunk, now)) {
            loose.bytes = 0;
            shared.unwritten.fetch_add(1, Ordering::Relaxed);
            let sent = shared
                .writes
                .send(Write {
                    chunk,
                    pieces: pieces.0,
                })
                .await;
            sent.map_err(|_| SourceEnd::Over)?;
        }
        Ok(())
    }

    /// The next part of the stream, for which others wait: one who trickles is as good as silent. Within a
    /// chunk, the first in the queue is `begun`.
    async fn next_part(&mut self, begun: bool) -> Result<ChunkPart, SourceEnd> {
        loop {
            tokio::select! {
                biased;
                part = self.incoming.part() => return part,
                _ = self.news.changed() => {}
                () = self.shared.intake.room(), if self.held_back => self.ask().await?,
                () = sleep_until(self.due) => return Err(match self.outrun {
                    true => SourceEnd::Outrun,
                    false => SourceEnd::Silent,
                }),
            }
            self.cancel_unwanted(begun).await?;
        }
    }

    /// The next answer is awaited from now on.
    fn await_next(&mut self) {
        let now = Instant::now();
        self.incoming.heard = now;
        self.due = now + CHUNK_DEADLINE;
        self.outrun = false;
    }

    /// Another has given the chunk that is being received.
    fn outruns(&mut self) {
        self.outrun = true;
        self.due = self.due.min(Instant::now() + OUTRUN_PATIENCE);
    }

    /// The holder has got a chunk, or has given it to another.
    fn learn(&self, index: u32) -> Result<(), SourceEnd> {
        match self
            .shared
            .pick(|picker, _| picker.learn(self.source, index))
        {
            true => Ok(()),
            false => Err(SourceEnd::NONSENSE),
        }
    }

    /// Takes back what others give meanwhile. What has begun to come is let come, but not for long.
    async fn cancel_unwanted(&mut self, begun: bool) -> Result<(), SourceEnd> {
        let unwanted = self
            .shared
            .pick(|picker, _| picker.take_unwanted(self.source));
        for index in unwanted {
            let is_first = self.asked.front().is_some_and(|first| first.get() == index);
            if begun && is_first {
                self.outruns();
            } else if !self.cancelled.contains(&index) {
                self.cancelled.push(index);
                self.request(SwarmRequest::Cancel { index }).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that the digest of `chunk` is known.
    async fn load_digests(&self, chunk: ChunkIndex) -> Result<(), SourceEnd> {
        let pages = &self.shared.pages;
        if pages.digest(chunk).is_some() {
            return Ok(());
        }
        let page = pages.layout().page_of(chunk);
        if pages.load(page).await? {
            return Ok(());
        }
        self.shared.fetch_page(self.connection, page).await
    }

    /// Shows the grant that counts now, if the peer has not seen it.
    async fn renew_grant(&mut self) -> Result<(), SourceEnd> {
        let shared = self.shared;
        if let Some(grant) = shared.grants.held(&shared.group)
            && grant.serial != self.grant_serial
        {
            self.grant_serial = grant.serial;
            let renew = SwarmRequest::Renew { grant: grant.token };
            self.request(renew).await?;
        }
        Ok(())
    }
}

impl Shared {
    async fn fetch_page(&self, connection: &Connection, page: PageIndex) -> Result<(), SourceEnd> {
        let grant = self.grant().await?;
        let open = Open::Digests {
            grant: grant.token,
            group: self.group.clone(),
            id: self.pages.id(),
            page: page.get(),
        };
        match connection.request(&open, PEER_ANSWER_TIMEOUT).await? {
            PageAnswer::Page { digests, proof } => self
                .pages
                .accept(page, digests, proof)
                .await?
                .map_err(|_| SourceEnd::BadDigests),
            PageAnswer::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Fetches a page of digests from `holder` alone, for chunks that an earlier run left.
    pub(super) async fn fetch_page_from(
        &self,
        holder: &Holder,
        page: PageIndex,
    ) -> Result<(), SourceEnd> {
        let connection = self.connect(holder).await?;
        self.fetch_page(&connection, page).await
    }
}

/// A chunk in the pieces in which it came. Where they are so small that it would be very many, they are joined.
#[derive(Default)]
struct Pieces(Vec<Bytes>);

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if self.0.len() >= CHUNK_PIECES_MAX {
            let joined = self.0.concat().into();
            self.0.clear();
            self.0.push(joined);
        }
        self.0.push(piece);
    }
}

/// What was received and not yet used, in the pieces in which it came.
struct Incoming {
    stream: RecvStream,
    reader: ChunkReader,
    pieces: [Bytes; CHUNK_PIECES_AT_ONCE],
    next: usize,
    filled: usize,
    /// When bytes came last, or were first awaited.
    heard: Instant,
}

impl Incoming {
    fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            reader: ChunkReader::default(),
            pieces: std::array::from_fn(|_| Bytes::new()),
            next: 0,
            filled: 0,
            heard: Instant::now(),
        }
    }

    /// The next header, or bytes of the chunk whose header came last. Cancel-safe.
    async fn part(&mut self) -> Result<ChunkPart, SourceEnd> {
        loop {
            while self.next < self.filled {
                if let Some(part) = self.reader.next(&mut self.pieces[self.next])? {
                    return Ok(part);
                }
                self.next += 1;
            }
            let received = self.stream.receive_bytes(&mut self.pieces);
            let received = timeout_at(self.heard + SOURCE_SILENCE_MAX, received).await;
            self.filled = received
                .map_err(|_| SourceEnd::Silent)??
                .ok_or(SourceEnd::Broken(ReceiveError::Truncated))?;
            self.next = 0;
            self.heard = Instant::now();
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
