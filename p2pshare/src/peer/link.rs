//! The way to the trackers: one connection, kept warm, to whichever of the list answers.
//!
//! A tracker is asked for nothing before it has proved, under the ring's signature, that it is one. A request
//! whose connection dies, or whose tracker falls silent or can do nothing, is sent again to another one, with
//! the same request id and so done once; who calls notices at most a pause. What no tracker can do is said when
//! all that can be reached have said so.

mod asking;
mod dial;
mod live;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::sleep};

use self::{
    asking::{Asking, Failed},
    dial::Dialed,
    live::{NotLive, Slot},
};
use super::error::SessionError;
use crate::{
    identity::{
        RingId, TrackerAddr,
        key::VerifyingKey,
        token::{Credential, Signed},
    },
    limits::{CREDENTIAL_RENEWAL, TRACKER_ANSWER_TIMEOUT, TRACKER_ATTEMPTS},
    time::{RingClock, Timestamp},
    transport::Endpoint,
    wire::tracker::{Refusal, Request, Response, RingStatus},
};

/// The trackers of one ring, as one peer reaches them. A cheap clone.
#[derive(Clone)]
pub(super) struct TrackerLink(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    trackers: Vec<TrackerAddr>,
    /// The place in the list of the one to be dialed first: it answered last, or the one before it is lost.
    first: AtomicUsize,
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
            first: AtomicUsize::new(0),
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

    /// Has `tracker` be dialed first, if it is one of the list.
    pub(super) fn prefer(&self, tracker: &TrackerAddr) {
        if let Some(at) = self.0.trackers.iter().position(|addr| addr == tracker) {
            self.0.first.store(at, Ordering::Relaxed);
        }
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

    /// As if that one were.
    #[cfg(test)]
    pub(super) fn pretend(&self, connected: Connected) {
        self.0.connected.send_replace(Some(connected));
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
        match self.live(false, &[]).await {
            Ok(_) => {}
            Err(NotLive::Failed(error)) => return Err(error),
            Err(NotLive::Refused(_)) => return Err(SessionError::LoggedOut),
            Err(NotLive::Unable(_, refusal)) => return Err(refusal.into()),
            Err(NotLive::NoOther) => return Err(self.unreachable()),
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

    /// How the ring is, as the tracker sees it that is connected.
    pub(super) async fn ring_status(&self) -> Result<RingStatus, SessionError> {
        match self.ask_as_nobody(Request::Ring).await? {
            Response::Ring(status) => Ok(status),
            _ => Err(SessionError::Protocol),
        }
    }

    async fn ask_as(&self, mut query: Request, as_user: bool) -> Result<Response, SessionError> {
        let mut asking = Asking::default();
        for attempt in 0..TRACKER_ATTEMPTS * self.0.trackers.len() {
            match self.try_once(&query, as_user, &mut asking).await {
                Ok(response) => return Ok(response),
                Err(Failed::Over(error)) => return asking.end(&query, error),
                Err(Failed::Again) => {}
                Err(Failed::Later) => sleep(pause_before_attempt(attempt)).await,
            }
            if asking.began.elapsed() >= TRACKER_ANSWER_TIMEOUT * TRACKER_ATTEMPTS as u32 {
                break;
            }
            // Not before: a row that has forgotten who changed it has no certain answer to a retry.
            if asking.sent {
                query.mark_retry();
            }
        }
        asking.end(&query, self.unreachable())
    }

    async fn try_once(
        &self,
        query: &Request,
        as_user: bool,
        asking: &mut Asking,
    ) -> Result<Response, Failed> {
        let live = match self.live(as_user, &asking.shunned).await {
            Ok(live) => live,
            Err(NotLive::Refused(credential)) if self.is_replaced(&credential).await => {
                return Err(Failed::Again);
            }
            Err(NotLive::Refused(_)) => return Err(Failed::Over(SessionError::LoggedOut)),
            Err(NotLive::Unable(tracker, refusal)) => {
                return Err(self.turn_away(asking, query, tracker, Err(refusal)));
            }
            Err(NotLive::NoOther) => return Err(asking.went_round(query, self.unreachable())),
            // A tracker that is being started again can still say what became of it.
            Err(NotLive::Failed(SessionError::Unreachable { .. }))
                if asking.sent && asking.began.elapsed() < TRACKER_ANSWER_TIMEOUT =>
            {
                return Err(Failed::Later);
            }
            Err(NotLive::Failed(error)) => return Err(Failed::Over(error)),
        };
        let asked = live.connection.request(query, TRACKER_ANSWER_TIMEOUT);
        let answer = tokio::select! {
            biased;
            answer = asked => answer.map_err(|error| (error.may_have_arrived(), error.to_string())),
            () = self.replaced(&live) => Err((true, "it fell silent".to_owned())),
        };
        match answer {
            Ok(Response::Refused(Refusal::NotLoggedIn)) if as_user => {
                let replaced = match &live.authenticated {
                    Some(credential) => self.is_replaced(credential).await,
                    None => self.0.credential.borrow().is_some(),
                };
                match replaced {
                    true => Err(Failed::Again),
                    false => Err(Failed::Over(SessionError::LoggedOut)),
                }
            }
            Ok(Response::Refused(Refusal::OutcomeUnknown)) => {
                asking.sent = true;
                asking.shun(live.tracker, self.0.trackers.len());
                Err(Failed::Again)
            }
            Ok(Response::Refused(refusal)) if refusal.is_of_the_tracker() => {
                Err(self.turn_away(asking, query, live.tracker, Err(refusal)))
            }
            // Whoever turns a retry away unseen does not know what became of it.
            Ok(Response::Refused(refusal))
                if asking.may_be_done(query) && !refusal.is_of_the_row() =>
            {
                Err(Failed::Later)
            }
            Ok(Response::Refused(refusal)) => Err(Failed::Over(refusal.into())),
            Ok(response) if response.is_stale() => {
                Err(self.turn_away(asking, query, live.tracker, Ok(response)))
            }
            Ok(response) => Ok(response),
            Err((may_have_arrived, error)) => {
                let tracker = &self.0.trackers[live.tracker];
                tracing::debug!(%error, %tracker, "a request failed");
                asking.sent |= may_have_arrived;
                self.drop_live(&live).await;
                Err(Failed::Again)
            }
        }
    }

    /// Notes that a tracker said something that another one may say better.
    fn turn_away(
        &self,
        asking: &mut Asking,
        query: &Request,
        tracker: usize,
        said: Result<Response, Refusal>,
    ) -> Failed {
        // What one has, cut off as it is, is more than that another can do nothing.
        if said.is_ok() || !matches!(asking.said, Some(Ok(_))) {
            asking.said = Some(said);
        }
        match asking.shun(tracker, self.0.trackers.len()) {
            true => asking.went_round(query, self.unreachable()),
            false => Failed::Again,
        }
    }

    fn unreachable(&self) -> SessionError {
        SessionError::Unreachable {
            tried: self.0.trackers.clone(),
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

    /// Takes in what a tracker proved, unless it is of another ring.
    fn learn(&self, dialed: &Dialed) -> Result<(), SessionError> {
        let mut knowledge = self.knowledge();
        match knowledge.id {
            Some(expected) if expected != dialed.ring => {
                return Err(SessionError::WrongRing {
                    tracker: self.0.trackers[dialed.tracker].clone(),
                    expected,
                    found: dialed.ring,
                });
            }
            _ => knowledge.id = Some(dialed.ring),
        }
        knowledge.token_key = Some(dialed.token_key);
        // A ring whose clocks were wrong may have begun anew since the last connection.
        if let Some(time) = dialed.time {
            knowledge.clock = Some(RingClock::new(time, Instant::now()));
        }
        Ok(())
    }

    /// Takes in the ring's time as the tracker just told it.
    pub(super) fn update_clock(&self, time: Timestamp) {
        let (mut knowledge, now) = (self.knowledge(), Instant::now());
        let clock = knowledge.clock.get_or_insert(RingClock::new(time, now));
        clock.update(time, now);
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
