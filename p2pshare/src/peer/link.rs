//! The way to the trackers: one connection, kept warm, to whichever of the list answers.
//!
//! A tracker is asked for nothing before it has proved, under the ring's signature, that it is one. A request
//! whose connection dies is sent again, with the same request id and so done once, on the next connection;
//! who calls notices at most a pause.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::sleep};

use super::error::SessionError;
use crate::{
    identity::{
        RingId, TrackerAddr,
        key::VerifyingKey,
        token::{Credential, Signed},
    },
    limits::{CREDENTIAL_RENEWAL, TRACKER_ANSWER_TIMEOUT, TRACKER_ATTEMPTS},
    time::{RingClock, Timestamp},
    transport::{Alpn, CloseCode, Connection, Endpoint, Expect},
    wire::tracker::{Refusal, Request, Response},
};

/// The trackers of one ring, as one peer reaches them. A cheap clone.
#[derive(Clone)]
pub(super) struct TrackerLink(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    trackers: Vec<TrackerAddr>,
    /// The place in the list of the one that answered last.
    last_good: AtomicUsize,
    /// What is known of the ring; its id is known beforehand or trusted on first use.
    ring: Mutex<RingKnowledge>,
    credential: watch::Sender<Option<Signed<Credential>>>,
    /// Whether somebody logs in: the session before may be over at the trackers, and the next is not known yet.
    entering: watch::Sender<bool>,
    /// Locked while a connection is being made, so that it is made once.
    slot: tokio::sync::Mutex<Slot>,
    /// Which tracker is connected, for whoever wants to look without waiting.
    connected: watch::Sender<Option<Connected>>,
}

#[derive(Copy, Clone)]
struct RingKnowledge {
    id: Option<RingId>,
    token_key: Option<VerifyingKey>,
    clock: Option<RingClock>,
}

/// The live connection.
#[derive(Default)]
struct Slot {
    live: Option<Live>,
    /// When all trackers had been tried in vain.
    in_vain: Option<Instant>,
}

#[derive(Clone)]
struct Live {
    connection: Connection,
    tracker: usize,
    /// The credential under which the connection is logged in.
    authenticated: Option<Signed<Credential>>,
}

/// Why there is no live connection.
enum NotLive {
    /// The trackers do not honour this credential.
    Refused(Box<Signed<Credential>>),
    Failed(SessionError),
}

impl From<SessionError> for NotLive {
    fn from(error: SessionError) -> Self {
        Self::Failed(error)
    }
}

/// Somebody logs in, until this is dropped.
pub(super) struct Entering<'a>(&'a watch::Sender<bool>);

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// The tracker that is connected now.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) tracker: TrackerAddr,
    /// As what address the tracker sees this peer.
    pub(super) observed: SocketAddr,
    /// Differs between any two connections.
    pub(super) serial: u64,
}

impl std::fmt::Debug for TrackerLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrackerLink")
            .field("trackers", &self.0.trackers)
            .finish_non_exhaustive()
    }
}

impl TrackerLink {
    pub(super) fn new(
        endpoint: Endpoint,
        trackers: Vec<TrackerAddr>,
        ring: Option<RingId>,
        token_key: Option<VerifyingKey>,
    ) -> Self {
        Self(Arc::new(Inner {
            endpoint,
            trackers,
            last_good: AtomicUsize::new(0),
            ring: Mutex::new(RingKnowledge {
                id: ring,
                token_key,
                clock: None,
            }),
            credential: watch::Sender::new(None),
            entering: watch::Sender::new(false),
            slot: tokio::sync::Mutex::default(),
            connected: watch::Sender::new(None),
        }))
    }

    /// The ring, once it is known.
    pub(super) fn ring(&self) -> Option<RingId> {
        self.knowledge().id
    }

    /// The key that signs grants, once a tracker was reached, ever.
    pub(super) fn token_key(&self) -> Option<VerifyingKey> {
        self.knowledge().token_key
    }

    /// The ring's time; before a tracker was reached, this machine's.
    pub(super) fn now(&self) -> Timestamp {
        match self.knowledge().clock {
            Some(clock) => clock.now(Instant::now()),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                Timestamp::from_millis(0).saturating_add(since.unwrap_or_default())
            }
        }
    }

    /// Which tracker is connected, now and whenever that changes.
    pub(super) fn connected(&self) -> watch::Receiver<Option<Connected>> {
        self.0.connected.subscribe()
    }

    /// The credential, now and whenever it is renewed or ends.
    pub(super) fn credential(&self) -> watch::Receiver<Option<Signed<Credential>>> {
        self.0.credential.subscribe()
    }

    /// From now on connections are those of this credential's user, or of nobody.
    pub(super) fn set_credential(&self, credential: Option<Signed<Credential>>) {
        self.0.credential.send_replace(credential);
    }

    /// Somebody logs in, one at a time: until what this gives is dropped, no session counts as over.
    pub(super) fn enter(&self) -> Entering<'_> {
        self.0.entering.send_replace(true);
        Entering(&self.0.entering)
    }

    /// Connects, if it is not, and names the tracker.
    pub(super) async fn connect(&self) -> Result<Connected, SessionError> {
        match self.live(false).await {
            Ok(_) => {}
            Err(NotLive::Failed(error)) => return Err(error),
            Err(NotLive::Refused(_)) => return Err(SessionError::LoggedOut),
        }
        self.connected()
            .borrow()
            .clone()
            .ok_or(SessionError::Protocol)
    }

    /// Asks whichever tracker answers, as the credential's user where there is one. Cancel-safe in that a
    /// request which was sent may be carried out.
    pub(super) async fn ask(&self, request: Request) -> Result<Response, SessionError> {
        self.ask_as(request, true).await
    }

    /// Asks as nobody: to log in, or to make an account.
    pub(super) async fn ask_as_nobody(&self, request: Request) -> Result<Response, SessionError> {
        self.ask_as(request, false).await
    }

    async fn ask_as(&self, mut query: Request, as_user: bool) -> Result<Response, SessionError> {
        let mut sent = false;
        let began = tokio::time::Instant::now();
        for attempt in 0..TRACKER_ATTEMPTS {
            let live = match self.live(as_user).await {
                Ok(live) => live,
                Err(NotLive::Refused(credential)) if self.is_replaced(&credential).await => {
                    continue;
                }
                // A tracker that is being started again can still say what became of it.
                Err(NotLive::Failed(SessionError::Unreachable { .. }))
                    if sent && began.elapsed() < TRACKER_ANSWER_TIMEOUT =>
                {
                    sleep(pause_before_attempt(attempt)).await;
                    continue;
                }
                // What keeps us from asking again says nothing of what was asked before.
                Err(_) if sent && query.changes_rows() => return Err(SessionError::OutcomeUnknown),
                Err(NotLive::Refused(_)) => return Err(SessionError::LoggedOut),
                Err(NotLive::Failed(error)) => return Err(error),
            };
            match live
                .connection
                .request(&query, TRACKER_ANSWER_TIMEOUT)
                .await
            {
                Ok(Response::Refused(Refusal::NotLoggedIn)) if as_user => {
                    let replaced = match &live.authenticated {
                        Some(credential) => self.is_replaced(credential).await,
                        None => self.0.credential.borrow().is_some(),
                    };
                    if !replaced {
                        return Err(match sent && query.changes_rows() {
                            true => SessionError::OutcomeUnknown,
                            false => SessionError::LoggedOut,
                        });
                    }
                }
                Ok(Response::Refused(Refusal::OutcomeUnknown)) => sent = true,
                // Whoever turns a retry away unseen does not know what became of it.
                Ok(Response::Refused(refusal))
                    if sent && query.changes_rows() && !refusal.is_of_the_row() =>
                {
                    sleep(pause_before_attempt(attempt)).await;
                }
                Ok(Response::Refused(refusal)) => return Err(refusal.into()),
                Ok(response) => return Ok(response),
                Err(error) => {
                    tracing::debug!(%error, tracker = %self.0.trackers[live.tracker], "a request failed");
                    sent |= error.may_have_arrived();
                    self.drop_live(&live).await;
                }
            }
            // Not before: a row that has forgotten who changed it has no certain answer to a retry.
            if sent {
                query.mark_retry();
            }
        }
        if sent && query.changes_rows() {
            return Err(SessionError::OutcomeUnknown);
        }
        Err(SessionError::Unreachable {
            tried: self.0.trackers.clone(),
        })
    }

    /// A live connection, logged in where `as_user`.
    async fn live(&self, as_user: bool) -> Result<Live, NotLive> {
        let asked = Instant::now();
        let unreachable = || SessionError::Unreachable {
            tried: self.0.trackers.clone(),
        };
        let mut slot = self.0.slot.lock().await;
        for _ in 0..TRACKER_ATTEMPTS {
            let credential = self.0.credential.borrow().clone();
            if as_user && credential.is_none() {
                return Err(SessionError::LoggedOut.into());
            }
            slot.live
                .take_if(|live| live.connection.close_reason().is_some());
            if slot.live.is_none() {
                // While this one waited, another tried them all.
                if slot.in_vain.is_some_and(|failed| failed > asked) {
                    return Err(unreachable().into());
                }
                let connected = self.connect_any().await;
                if let Err(SessionError::Unreachable { .. }) = connected {
                    slot.in_vain = Some(Instant::now());
                }
                slot.live = Some(connected?);
            }
            let Some(live) = slot.live.as_mut() else {
                return Err(SessionError::Protocol.into());
            };
            if let Some(credential) = credential.filter(|_| as_user)
                && (live.authenticated.as_ref() != Some(&credential) || self.is_old(&credential))
            {
                match self.authenticate(live, credential).await {
                    // Another tracker, or this one on another connection, may be better off.
                    Err(NotLive::Failed(SessionError::Unreachable { .. })) => {
                        live.connection.close(CloseCode::ShuttingDown);
                        continue;
                    }
                    result => result?,
                }
            }
            return Ok(live.clone());
        }
        Err(unreachable().into())
    }

    async fn authenticate(
        &self,
        live: &mut Live,
        credential: Signed<Credential>,
    ) -> Result<(), NotLive> {
        let query = Request::Authenticate {
            credential: credential.clone(),
        };
        match live
            .connection
            .request(&query, TRACKER_ANSWER_TIMEOUT)
            .await
        {
            Ok(Response::LoggedIn {
                credential: renewed,
                ..
            }) => {
                // Whoever logged in or out meanwhile has the last word.
                self.0.credential.send_if_modified(|current| {
                    let unchanged = current.as_ref() == Some(&credential);
                    if unchanged {
                        *current = Some(renewed.clone());
                    }
                    unchanged
                });
                live.authenticated = Some(renewed);
                Ok(())
            }
            Ok(Response::Refused(Refusal::NotLoggedIn)) => {
                Err(NotLive::Refused(Box::new(credential)))
            }
            Ok(Response::Refused(refusal)) => Err(SessionError::from(refusal).into()),
            Ok(_) => Err(SessionError::Protocol.into()),
            Err(_) => Err(NotLive::Failed(SessionError::Unreachable {
                tried: vec![self.0.trackers[live.tracker].clone()],
            })),
        }
    }

    /// The session of the credential that was `refused` is over, unless somebody logs in: then that comes first.
    /// Whether there is a newer one. To be called without the slot, which whoever logs in needs.
    async fn is_replaced(&self, refused: &Signed<Credential>) -> bool {
        // An error would say that the sender is gone, and it is in `self`.
        let _ = self
            .0
            .entering
            .subscribe()
            .wait_for(|entering| !entering)
            .await;
        self.0.credential.send_if_modified(|current| {
            let same = current.as_ref() == Some(refused);
            if same {
                *current = None;
            }
            same
        });
        self.0.credential.borrow().is_some()
    }

    /// Whether a credential is so old that showing it for a new one is due.
    fn is_old(&self, credential: &Signed<Credential>) -> bool {
        credential
            .peek()
            .is_ok_and(|Credential::V1 { issued, .. }| {
                self.now().saturating_since(issued) >= CREDENTIAL_RENEWAL
            })
    }

    /// Connects to the first tracker of the list that answers and is of the ring.
    async fn connect_any(&self) -> Result<Live, SessionError> {
        self.0.connected.send_replace(None);
        let mut refused = None;
        let last_good = self.0.last_good.load(Ordering::Relaxed);
        let (later, first) = self.0.trackers.split_at(last_good);
        for (offset, addr) in first.iter().chain(later).enumerate() {
            match self.connect_one(addr).await {
                Ok((connection, observed)) => {
                    let tracker = (last_good + offset) % self.0.trackers.len();
                    self.0.last_good.store(tracker, Ordering::Relaxed);
                    let now = Connected {
                        tracker: addr.clone(),
                        observed,
                        serial: rand::random(),
                    };
                    self.notice_end(&connection, now.serial);
                    self.0.connected.send_replace(Some(now));
                    return Ok(Live {
                        connection,
                        tracker,
                        authenticated: None,
                    });
                }
                Err(SessionError::Unreachable { .. }) => {}
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| SessionError::Unreachable {
            tried: self.0.trackers.clone(),
        }))
    }

    /// Has it known when the connection `serial` is no more, without anybody asking anything.
    fn notice_end(&self, connection: &Connection, serial: u64) {
        let (connection, connected) = (connection.clone(), self.0.connected.clone());
        tokio::spawn(async move {
            let lost = connection.closed().await;
            connected.send_if_modified(|now| {
                let ended = now.as_ref().is_some_and(|now| now.serial == serial);
                if ended {
                    tracing::debug!(%lost, "the tracker's connection ended");
                    *now = None;
                }
                ended
            });
        });
    }

    async fn connect_one(
        &self,
        addr: &TrackerAddr,
    ) -> Result<(Connection, SocketAddr), SessionError> {
        let unreachable = || SessionError::Unreachable {
            tried: vec![addr.clone()],
        };
        let found = tokio::net::lookup_host((addr.host(), addr.port()))
            .await
            .map_err(|_| unreachable())?;
        for socket in found {
            let connection = match self
                .0
                .endpoint
                .connect(socket, Alpn::Tracker, Expect::Any)
                .await
            {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%error, tracker = %addr, "cannot connect");
                    continue;
                }
            };
            match connection
                .request(&Request::Hello, TRACKER_ANSWER_TIMEOUT)
                .await
            {
                Ok(Response::Welcome(welcome)) => {
                    let proof = welcome.verify(connection.remote_peer());
                    let Some((ring, token_key)) = proof else {
                        connection.close(CloseCode::ProtocolError);
                        return Err(SessionError::NotATracker {
                            tracker: addr.clone(),
                        });
                    };
                    if let Err(error) = self.learn(addr, ring, token_key, welcome.time) {
                        connection.close(CloseCode::WrongRing);
                        return Err(error);
                    }
                    return Ok((connection, welcome.observed));
                }
                Ok(_) => {
                    connection.close(CloseCode::ProtocolError);
                    return Err(SessionError::NotATracker {
                        tracker: addr.clone(),
                    });
                }
                Err(error) => tracing::debug!(%error, tracker = %addr, "no welcome"),
            }
        }
        Err(unreachable())
    }

    /// Takes in what a tracker proved, unless it is of another ring.
    fn learn(
        &self,
        tracker: &TrackerAddr,
        ring: RingId,
        token_key: VerifyingKey,
        time: Timestamp,
    ) -> Result<(), SessionError> {
        let mut knowledge = self.knowledge();
        match knowledge.id {
            Some(expected) if expected != ring => {
                return Err(SessionError::WrongRing {
                    tracker: tracker.clone(),
                    expected,
                    found: ring,
                });
            }
            _ => knowledge.id = Some(ring),
        }
        knowledge.token_key = Some(token_key);
        // What one tracker said wrongly, the next connection sets right.
        knowledge.clock = Some(RingClock::new(time, Instant::now()));
        Ok(())
    }

    /// Takes in the ring's time as a tracker just told it.
    pub(super) fn update_clock(&self, time: Timestamp) {
        if let Some(clock) = &mut self.knowledge().clock {
            clock.update(time, Instant::now());
        }
    }

    async fn drop_live(&self, dead: &Live) {
        dead.connection.close(CloseCode::ShuttingDown);
        let mut slot = self.0.slot.lock().await;
        if slot
            .live
            .take_if(|live| live.connection.close_reason().is_some())
            .is_some()
        {
            self.0.connected.send_replace(None);
        }
    }

    fn knowledge(&self) -> MutexGuard<'_, RingKnowledge> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pauses between attempts to reach a tracker again, with some randomness, so that the peers of a
/// tracker that comes back do not all come at once.
pub(super) fn pause_before_attempt(failures: usize) -> Duration {
    let base = Duration::from_millis(250) * (1 << failures.min(6));
    base.mul_f64(rand::random_range(0.75..1.25))
}

#[cfg(test)]
mod tests;
