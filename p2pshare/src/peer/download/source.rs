//! One source of chunks: a peer that holds the file, on one stream with many requests in flight. Bytes are
//! hashed as they come, in the pieces in which they came, and a chunk goes on to be written only when its
//! digest is the one that the file id commits to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::timeout,
};

use super::{pages::Pages, partial::Write};
use crate::{
    content::{Bitfield, ChunkIndex, Hasher, PageIndex},
    identity::{GroupName, PeerId},
    limits::{
        CHUNK_DEADLINE, CHUNK_PIECES_AT_ONCE, CHUNK_WINDOW, PEER_ANSWER_TIMEOUT, SOURCE_SILENCE_MAX,
    },
    peer::{
        grants::Grants,
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
    /// Told when chunks that were asked for have to be asked for again.
    pub(super) returned: Notify,
    pub(super) writes: mpsc::Sender<Write>,
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
    /// It went silent, or is so slow that it might as well be.
    #[error("nothing, or next to nothing, comes from it")]
    Silent,
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
        match CloseCode::for_fault(&error) {
            Some(code) => Self::Protocol(code),
            None => Self::Broken(error),
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
    /// Fetches chunks from `holder` until there is a reason not to. `joined` is told once chunks can come.
    pub(super) async fn fetch(
        self: Arc<Self>,
        source: SourceId,
        holder: Holder,
        joined: mpsc::Sender<PeerId>,
    ) -> SourceEnd {
        let _give_back = GiveBack {
            shared: &self,
            source,
        };
        let connection = match self.connect(&holder).await {
            Ok(connection) => connection,
            Err(end) => return end,
        };
        let end = match self.open(&connection).await {
            Ok(mut feed) => {
                let _ = joined.send(holder.peer).await;
                feed.source = source;
                feed.run().await
            }
            Err(end) => end,
        };
        if let Some(code) = end.code() {
            connection.close(code);
        }
        end
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
    ) -> Result<Feed<'a>, SourceEnd> {
        let grant = self
            .grants
            .get(&self.group)
            .await
            .map_err(SourceEnd::NoGrant)?;
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
        let answer = timeout(PEER_ANSWER_TIMEOUT, receive.receive::<SwarmAnswer>()).await;
        let holding = match answer.map_err(|_| SourceEnd::Silent)?? {
            SwarmAnswer::Opened { holding } => holding,
            SwarmAnswer::Refused(refusal) => return Err(refusal.into()),
        };
        let count = self.pages.layout().chunk_count();
        let holds = match holding {
            Holding::Nothing => Bitfield::new(count),
            Holding::Complete => Bitfield::full(count),
            Holding::Partial(bits) => {
                Bitfield::from_bytes(count, &bits).map_err(|_| SourceEnd::NONSENSE)?
            }
        };
        Ok(Feed {
            shared: self,
            connection,
            source: 0,
            send,
            incoming: Incoming::new(receive),
            holds,
            asked: VecDeque::new(),
            grant_serial: grant.serial,
        })
    }

    fn picker(&self) -> MutexGuard<'_, Picker> {
        self.picker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever ends a source, its chunks go to others.
struct GiveBack<'a> {
    shared: &'a Shared,
    source: SourceId,
}

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        self.shared.picker().give_back_all(self.source);
        self.shared.returned.notify_waiters();
    }
}

/// An open swarm stream.
struct Feed<'a> {
    shared: &'a Arc<Shared>,
    connection: &'a Connection,
    source: SourceId,
    send: SendStream,
    incoming: Incoming,
    holds: Bitfield,
    /// Asked for and not answered, in order.
    asked: VecDeque<ChunkIndex>,
    /// Which grant the peer saw last.
    grant_serial: u64,
}

impl Feed<'_> {
    async fn run(mut self) -> SourceEnd {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    /// Fills the window of requests, then takes one answer.
    async fn step(&mut self) -> Result<(), SourceEnd> {
        self.renew_grant().await?;
        while self.asked.len() < CHUNK_WINDOW {
            let returned = self.shared.returned.notified();
            let picked = {
                let mut picker = self.shared.picker();
                if picker.is_complete() {
                    return Err(SourceEnd::Over);
                }
                picker.pick(self.source, |index| self.holds.get(index))
            };
            let Some(chunk) = picked else {
                if self.asked.is_empty() {
                    // All that is missing was asked of others, who may fail.
                    let lacks_all = self.holds.is_empty();
                    if lacks_all {
                        return Err(SourceEnd::Exhausted);
                    }
                    tokio::select! {
                        () = returned => continue,
                        lost = self.connection.closed() => return Err(SourceEnd::Broken(lost.into())),
                    }
                }
                break;
            };
            self.asked.push_back(chunk);
            self.load_digests(chunk).await?;
            let index = chunk.get();
            self.send.send(&SwarmRequest::Chunk { index }).await?;
        }
        // One who trickles is as good as silent, while others wait for what was asked of him.
        match timeout(CHUNK_DEADLINE, self.take_answer()).await {
            Ok(taken) => taken,
            Err(_) => Err(SourceEnd::Silent),
        }
    }

    async fn take_answer(&mut self) -> Result<(), SourceEnd> {
        let ChunkPart::Header(header) = self.incoming.part().await? else {
            return Err(SourceEnd::NONSENSE);
        };
        let Some(chunk) = self.asked.pop_front() else {
            return Err(SourceEnd::NONSENSE);
        };
        let layout = self.shared.pages.layout();
        match header {
            ChunkHeader::Chunk { index, length }
                if index == chunk.get() && length == layout.chunk_len(chunk) =>
            {
                let pieces = self.receive_chunk(chunk, length).await?;
                let write = Write { chunk, pieces };
                let sent = self.shared.writes.send(write).await;
                sent.map_err(|_| SourceEnd::Over)
            }
            ChunkHeader::Lacking { index } if index == chunk.get() => {
                self.holds.clear(index);
                self.shared.picker().give_back(self.source, chunk);
                self.shared.returned.notify_waiters();
                match self.holds.is_empty() {
                    true => Err(SourceEnd::Exhausted),
                    false => Ok(()),
                }
            }
            _ => Err(SourceEnd::NONSENSE),
        }
    }

    /// Takes the bytes of a chunk as they come, and gives them only if they are the right ones.
    async fn receive_chunk(
        &mut self,
        chunk: ChunkIndex,
        length: u32,
    ) -> Result<Vec<Bytes>, SourceEnd> {
        let mut missing = length as usize;
        let (mut hasher, mut pieces) = (Hasher::new(), Vec::new());
        while missing > 0 {
            let ChunkPart::Bytes(piece) = self.incoming.part().await? else {
                return Err(SourceEnd::NONSENSE);
            };
            hasher.update(&piece);
            missing -= piece.len();
            pieces.push(piece);
        }
        let expected = match self.shared.pages.digest(chunk) {
            Some(expected) => Some(expected),
            None => {
                self.load_digests(chunk).await?;
                self.shared.pages.digest(chunk)
            }
        };
        if expected == Some(hasher.finish()) {
            Ok(pieces)
        } else {
            Err(SourceEnd::BadChunk { index: chunk.get() })
        }
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

    async fn renew_grant(&mut self) -> Result<(), SourceEnd> {
        let shared = self.shared;
        // A renewal that fails leaves the grant that the peer has seen.
        if let Ok(grant) = shared.grants.get(&shared.group).await
            && grant.serial != self.grant_serial
        {
            self.grant_serial = grant.serial;
            let renew = SwarmRequest::Renew { grant: grant.token };
            self.send.send(&renew).await?;
        }
        Ok(())
    }
}

impl Shared {
    async fn fetch_page(&self, connection: &Connection, page: PageIndex) -> Result<(), SourceEnd> {
        let grant = self
            .grants
            .get(&self.group)
            .await
            .map_err(SourceEnd::NoGrant)?;
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

/// What was received and not yet used, in the pieces in which it came.
struct Incoming {
    stream: RecvStream,
    reader: ChunkReader,
    pieces: [Bytes; CHUNK_PIECES_AT_ONCE],
    next: usize,
    filled: usize,
}

impl Incoming {
    fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            reader: ChunkReader::default(),
            pieces: std::array::from_fn(|_| Bytes::new()),
            next: 0,
            filled: 0,
        }
    }

    /// The next header, or bytes of the chunk whose header came last.
    async fn part(&mut self) -> Result<ChunkPart, SourceEnd> {
        loop {
            while self.next < self.filled {
                if let Some(part) = self.reader.next(&mut self.pieces[self.next])? {
                    return Ok(part);
                }
                self.next += 1;
            }
            let received = self.stream.receive_bytes(&mut self.pieces);
            let received = timeout(SOURCE_SILENCE_MAX, received).await;
            self.filled = received
                .map_err(|_| SourceEnd::Silent)??
                .ok_or(SourceEnd::Broken(ReceiveError::Truncated))?;
            self.next = 0;
        }
    }
}
