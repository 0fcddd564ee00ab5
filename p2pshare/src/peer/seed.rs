//! The serving side of a peer. Nothing leaves it but against a grant that the ring signed for the very peer
//! that asks, for the group named in the request, and only of files that this peer shares in that group, or is
//! downloading from it; to be refused and to ask for what is not there look alike.

mod gate;
mod given;
mod places;
mod streams;
mod swarm;
mod turns;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use self::{
    gate::Gate,
    given::GivenFiles,
    streams::{Place, Streams},
    swarm::Swarm,
};
use super::{
    file::{BufferPool, Source},
    library::{Found, Library, PageRow, Share},
    link::TrackerLink,
    ongoing::{Ongoing, Part},
    pace::Rate,
};
use crate::{
    content::{Bitfield, ChunkIndex, FileId, Layout},
    identity::{
        GroupName, PeerId,
        token::{Grant, Signed},
    },
    limits::{
        CLOCK_TOLERANCE, REQUEST_TIMEOUT, SEED_UNDER_WAY_BYTES_MAX, SEED_WAIT_MAX, STRANGER_LIFE,
    },
    time::Timestamp,
    transport::{Admission, CloseCode, Connection, ReceiveError, RecvStream, SendStream},
    wire::peer::{Open, PageAnswer, PeerRefusal, SwarmAnswer},
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
    /// Through which chunks go that are read, and are under way from then on until they have arrived.
    reads: Gate,
    /// Through which bytes go that are sent, as long as there is a limit.
    sends: Gate,
    given: GivenFiles,
    sent_bytes: AtomicU64,
}

/// The right of one peer to read one group, as it was last shown.
struct Right {
    peer: PeerId,
    group: GroupName,
    expires: Timestamp,
}

impl Seeder {
    pub(super) fn new(library: Library, ongoing: Ongoing, link: TrackerLink) -> Self {
        let reads = Gate::new(SEED_UNDER_WAY_BYTES_MAX);
        let sends = Gate::new(u64::MAX);
        Self(Arc::new(Inner {
            library,
            ongoing,
            link,
            buffers: BufferPool::default(),
            streams: Streams::new(vec![reads.clone(), sends.clone()]),
            reads,
            sends,
            given: GivenFiles::default(),
            sent_bytes: AtomicU64::new(0),
        }))
    }

    /// Bytes of chunks sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes.load(Ordering::Relaxed)
    }

    /// Limits what is sent from now on. Streams for which there is no place at that rate end.
    pub(super) fn set_rate(&self, rate: Option<Rate>) {
        self.0.sends.set_rate(rate);
        self.0.streams.set_rate(rate);
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
                    // A right may have been shown since this wait began.
                    if !trusted.load(Ordering::Relaxed) {
                        return connection.close(CloseCode::Unauthenticated);
                    }
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
        let admitted = match opened {
            None => Err(PeerRefusal::Denied),
            Some((right, served)) => match self.place(peer, &mut send).await {
                Some(place) if self.0.still_counts(&right) => Ok((right, served, place)),
                Some(_) => Err(PeerRefusal::Denied),
                None => Err(PeerRefusal::Busy),
            },
        };
        let (right, served, place) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                if send.send(&SwarmAnswer::Refused(refusal)).await.is_ok() {
                    send.finish();
                }
                return None;
            }
        };
        let swarm = Swarm::new(self.0.clone(), served, right, place);
        swarm.serve(send, receive).await
    }

    /// A place to be served at, for which the one who asks may have to wait for a while.
    async fn place(&self, peer: PeerId, send: &mut SendStream) -> Option<Place> {
        let mut place = self.0.streams.enter(peer)?;
        if !place.waits() {
            return Some(place);
        }
        let waits = async {
            send.send(&SwarmAnswer::Waits).await.ok()?;
            tokio::select! {
                () = place.served() => Some(()),
                _ = send.stopped() => None,
            }
        };
        timeout(SEED_WAIT_MAX, waits).await.ok()??;
        Some(place)
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

    /// Whether a right has not ended while its owner waited.
    fn still_counts(&self, right: &Right) -> bool {
        self.link.now() <= right.expires.saturating_add(CLOCK_TOLERANCE)
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

#[cfg(test)]
mod tests;
