//! One open swarm stream: requests wait in one queue, and what is read for some of them from disk, as the turn of the
//! one who asks comes, waits in the next to be sent. Bytes go from the buffer into which they were read.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    Inner, Right, Served,
    gate::Turn,
    given::{Asker, News},
    streams::Place,
    turns::Piece,
};
use crate::{
    content::{Bitfield, ChunkIndex},
    identity::PeerId,
    limits::{
        CANCELLED_READS_MAX, CHUNK_REQUESTS_MAX, CLOCK_TOLERANCE, GRANT_GRACE_CUT_OFF,
        HAVE_INTERVAL, OPENED_BYTES_PACED_MAX, RIGHT_LOOK, SEED_READ_AHEAD, SEED_STALL_MAX,
        STREAM_IDLE_MAX,
    },
    peer::ongoing::Part,
    time::Timestamp,
    transport::{CloseCode, ReceiveError, RecvStream, SendStream},
    wire::{
        peer::{ChunkHeader, SwarmAnswer, SwarmRequest},
        tracker::Holding,
    },
};

/// One open swarm stream.
pub(super) struct Swarm {
    inner: Arc<Inner>,
    served: Served,
    asker: Asker,
    right: Mutex<Right>,
    /// Chunks that are asked for, until they are answered.
    asked: Mutex<HashMap<u32, Asked>>,
    place: Place,
}

/// What is asked for of one chunk.
#[derive(Default)]
struct Asked {
    times: u32,
    /// Whether it is no longer wanted.
    cancelled: bool,
}

/// A chunk that was read, and the right to have it under way until the last byte of it has arrived.
struct Held {
    bytes: Bytes,
    _turn: Turn,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why no more is answered.
enum Ended {
    /// That was all.
    Answered,
    /// Others need the place, or there are fewer now.
    PlaceLost,
    /// The one who asks may read no more.
    RightOver,
    /// The one who asked takes nothing.
    NotTaken,
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
    pub(super) fn new(inner: Arc<Inner>, served: Served, right: Right, place: Place) -> Self {
        let chunks = served.layout().chunk_count();
        Self {
            asker: inner.given.enter(&right.group, served.id(), chunks),
            inner,
            served,
            right: Mutex::new(right),
            asked: Mutex::default(),
            place,
        }
    }

    pub(super) async fn serve(
        self,
        mut send: SendStream,
        receive: RecvStream,
    ) -> Option<ReceiveError> {
        let told = self.open(&mut send).await?;
        let (ask, asked) = mpsc::channel(CHUNK_REQUESTS_MAX);
        let (prepare, prepared) = mpsc::channel(SEED_READ_AHEAD);
        let ended = tokio::select! {
            error = self.hear(receive, ask) => return error,
            () = self.prepare(asked, prepare) => return None,
            ended = self.answer(prepared, &mut send, told) => ended,
            () = self.place.lost() => Ended::PlaceLost,
            () = self.right_ends() => Ended::RightOver,
        };
        match ended {
            Ended::Answered => send.finish(),
            // Nor does anything go out that was read before, or waits to be sent.
            Ended::RightOver => send.reset(CloseCode::Unauthenticated),
            // Within a chunk there is nothing to say but this.
            Ended::PlaceLost => send.reset(CloseCode::TooManyRequests),
            Ended::NotTaken => {}
        }
        None
    }

    /// Says what is here, and gives that.
    async fn open(&self, send: &mut SendStream) -> Option<Option<Bitfield>> {
        let told = self.served.had();
        let holding = match &told {
            Some(told) => Holding::Partial(told.to_bytes()),
            None => Holding::Complete,
        };
        if let Holding::Partial(bits) = &holding {
            self.pace(bits.len().min(OPENED_BYTES_PACED_MAX), Piece::First)
                .await;
        }
        let opened = SwarmAnswer::Opened { holding };
        let sent = timeout(SEED_STALL_MAX, send.send(&opened)).await;
        matches!(sent, Ok(Ok(()))).then_some(told)
    }

    /// Takes in what the downloader says, until the stream ends.
    async fn hear(&self, mut receive: RecvStream, ask: mpsc::Sender<u32>) -> Option<ReceiveError> {
        let mut idle_until = Instant::now() + STREAM_IDLE_MAX;
        loop {
            let mut next = pin!(receive.receive_or_end());
            let request = loop {
                match timeout_at(idle_until, &mut next).await {
                    // At a low limit it is this side that takes its time.
                    Err(_) if !self.asked().is_empty() => {
                        idle_until = Instant::now() + STREAM_IDLE_MAX;
                    }
                    request => break request,
                }
            };
            match request {
                Ok(Ok(Some(SwarmRequest::Chunk { index }))) => {
                    idle_until = Instant::now() + STREAM_IDLE_MAX;
                    self.note(index);
                    self.is_asked(index);
                    // More than may be unanswered: whoever sends them waits until some are answered.
                    if ask.send(index).await.is_err() {
                        return None;
                    }
                }
                Ok(Ok(Some(SwarmRequest::Cancel { index }))) => {
                    if let Some(asked) = self.asked().get_mut(&index) {
                        asked.cancelled = true;
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

    /// Starts reading the chunks that are asked for, a few ahead of what is being sent, when it is their turn.
    async fn prepare(&self, mut asked: mpsc::Receiver<u32>, prepare: mpsc::Sender<Prepared>) {
        while let Some(index) = asked.recv().await {
            let prepared = match self.served.layout().chunk(index) {
                Some(chunk) if self.served.gives(chunk) => {
                    let bytes = self.served.layout().chunk_len(chunk);
                    let reads = &self.inner.reads;
                    let turn = reads.turn(self.peer(), bytes.into(), Piece::First).await;
                    // Much may have happened meanwhile.
                    match self.served.gives(chunk) && !self.is_cancelled(index) {
                        true => Prepared::Chunk {
                            index,
                            read: self.read(chunk, turn),
                        },
                        false => Prepared::Lacking { index },
                    }
                }
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
        send: &mut SendStream,
        told: Option<Bitfield>,
    ) -> Ended {
        let mut tidings = Tidings {
            growth: Growth::new(&self.served, told),
            news: self.asker.news(),
        };
        let mut may_cancel = CANCELLED_READS_MAX;
        loop {
            let answer = tokio::select! {
                answer = prepared.recv() => answer,
                more = tidings.more() => match self.tell(send, more).await {
                    true => continue,
                    false => return Ended::NotTaken,
                },
                // Who asks for nothing has no use for it.
                () = self.place.turn_over(), if self.asked().is_empty() => {
                    return end_turn(send).await;
                }
            };
            let Some(answer) = answer else { break };
            let (index, bytes) = match answer {
                Prepared::Chunk { index, read } => (index, read.await.ok().flatten()),
                Prepared::Lacking { index } => (index, None),
            };
            let piece = bytes.as_ref().map_or(0, |bytes| self.piece(bytes));
            let mut is_cancelled = self.is_cancelled(index);
            if bytes.is_some() && (may_cancel == 0 || !is_cancelled) {
                if !self.first_turn(send, piece, &mut tidings).await {
                    return Ended::NotTaken;
                }
                is_cancelled = self.is_cancelled(index);
            }
            let (header, bytes) = match bytes {
                None if is_cancelled => (ChunkHeader::Cancelled { index }, None),
                None => (ChunkHeader::Lacking { index }, None),
                Some(_) if is_cancelled && may_cancel > 0 => {
                    may_cancel -= 1;
                    (ChunkHeader::Cancelled { index }, None)
                }
                Some(bytes) => {
                    may_cancel = CANCELLED_READS_MAX.min(may_cancel + 1);
                    let length = bytes.len() as u32;
                    (ChunkHeader::Chunk { index, length }, Some(bytes))
                }
            };
            if !send_header(send, header).await {
                return Ended::NotTaken;
            }
            if let Some(bytes) = bytes
                && !self.send_chunk(send, bytes, piece).await
            {
                return Ended::NotTaken;
            }
            self.is_answered(index);
            if self.place.is_turn_over() {
                return end_turn(send).await;
            }
        }
        Ended::Answered
    }

    /// Waits until the first `piece` of a chunk may be sent, and meanwhile says what there is to say: those to whom it is said
    /// would else wait for it as long as for their turn. Whether that was taken.
    async fn first_turn(
        &self,
        send: &mut SendStream,
        piece: usize,
        tidings: &mut Tidings<'_>,
    ) -> bool {
        let mut turn = pin!(self.pace(piece, Piece::First));
        loop {
            let more = tokio::select! {
                biased;
                () = &mut turn => return true,
                more = tidings.more() => more,
            };
            if !self.tell(send, more).await {
                return false;
            }
        }
    }

    /// Says what is here, or was asked for by others, which is little. Whether it was taken.
    async fn tell(&self, send: &mut SendStream, more: Bytes) -> bool {
        self.pace(more.len(), Piece::Next).await;
        send_in_time(send, more).await
    }

    /// Sends a chunk, of which a `piece` may be sent now, as fast as the limit allows. Whether it was taken.
    async fn send_chunk(&self, send: &mut SendStream, mut bytes: Bytes, mut piece: usize) -> bool {
        loop {
            if !send_in_time(send, bytes.split_to(piece)).await {
                return false;
            }
            let sent = &self.inner.sent_bytes;
            sent.fetch_add(piece as u64, Ordering::Relaxed);
            if bytes.is_empty() {
                return true;
            }
            piece = self.piece(&bytes);
            self.pace(piece, Piece::Next).await;
        }
    }

    /// How many of these bytes go at once.
    fn piece(&self, bytes: &Bytes) -> usize {
        let rate = self.inner.sends.rate();
        rate.map_or(bytes.len(), |rate| rate.piece_bytes().min(bytes.len()))
    }

    /// Waits until so many bytes may be sent.
    async fn pace(&self, bytes: usize, piece: Piece) {
        if self.inner.sends.rate().is_some() {
            self.inner
                .sends
                .turn(self.peer(), bytes as u64, piece)
                .await;
        }
    }

    fn read(&self, chunk: ChunkIndex, turn: Turn) -> JoinHandle<Option<Bytes>> {
        let (inner, served) = (self.inner.clone(), self.served.clone());
        tokio::task::spawn_blocking(move || {
            let bytes = served.read(chunk, &inner)?;
            Some(Bytes::from_owner(Held { bytes, _turn: turn }))
        })
    }

    fn peer(&self) -> PeerId {
        self.right().peer
    }

    /// Waits until the downloader may read no more. It may show another right before, and the ring's time may be set.
    async fn right_ends(&self) {
        while let Some(left) = self.right_left() {
            sleep(left.min(RIGHT_LOOK)).await;
        }
    }

    /// For how long the downloader's right to read still holds, if it does. One exception, so that a dead ring stops
    /// nobody: a peer that itself reaches no tracker goes on for a while on what was open before.
    fn right_left(&self) -> Option<Duration> {
        let (now, expires) = (self.inner.link.now(), self.right().expires);
        let left = |end: Timestamp| (now <= end).then(|| end.saturating_since(now) + A_MOMENT);
        let end = expires.saturating_add(CLOCK_TOLERANCE);
        left(end).or_else(|| {
            let is_cut_off = self.inner.link.connected().borrow().is_none();
            left(end.saturating_add(GRANT_GRACE_CUT_OFF)).filter(|_| is_cut_off)
        })
    }

    fn right(&self) -> MutexGuard<'_, Right> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is one more request for that chunk.
    fn is_asked(&self, index: u32) {
        let mut all = self.asked();
        let asked = all.entry(index).or_default();
        asked.times += 1;
        asked.cancelled = false;
    }

    fn is_cancelled(&self, index: u32) -> bool {
        let asked = self.asked();
        asked.get(&index).is_some_and(|asked| asked.cancelled)
    }

    /// One request for that chunk is answered.
    fn is_answered(&self, index: u32) {
        let mut all = self.asked();
        if let Some(asked) = all.get_mut(&index) {
            asked.times -= 1;
            if asked.times == 0 {
                all.remove(&index);
            }
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u32, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that others have the place now: what is not answered is asked for again, there or elsewhere.
async fn end_turn(send: &mut SendStream) -> Ended {
    match send_header(send, ChunkHeader::TurnOver).await {
        true => Ended::Answered,
        false => Ended::NotTaken,
    }
}

async fn send_header(send: &mut SendStream, header: ChunkHeader) -> bool {
    send_in_time(send, Bytes::copy_from_slice(&header.encode())).await
}

/// Whether the bytes went out in time: whoever asks and then does not read gives his place to others.
async fn send_in_time(send: &mut SendStream, bytes: Bytes) -> bool {
    let sent = timeout(SEED_STALL_MAX, send.send_bytes(bytes)).await;
    matches!(sent, Ok(Ok(())))
}

/// What there is to say beside answers.
struct Tidings<'a> {
    growth: Growth<'a>,
    news: News<'a>,
}

impl Tidings<'_> {
    /// The headers that say more, once there is anything. Cancel-safe.
    async fn more(&mut self) -> Bytes {
        tokio::select! {
            more = self.growth.more() => more,
            more = self.news.more() => more,
        }
    }
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
/// What it takes for a time to be over that is told in milliseconds.
const A_MOMENT: Duration = Duration::from_millis(1);
