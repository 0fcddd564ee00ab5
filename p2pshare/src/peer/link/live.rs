//! The one connection to the trackers: made when it is needed, logged in as who is logged in, and moved to another
//! tracker when the one at its other end is lost or silent. Whoever holds the slot makes it, the others wait.

use std::{sync::atomic::Ordering, time::Instant};

use tokio::time::timeout;

use super::{
    Connected, TrackerLink,
    dial::{Dialed, first_of, silence},
};
use crate::{
    identity::token::{Credential, Signed},
    limits::{SECOND_OPINION_TIMEOUT, TRACKER_ANSWER_TIMEOUT, TRACKER_ATTEMPTS},
    peer::error::SessionError,
    transport::{CloseCode, Connection},
    wire::tracker::{Refusal, Request, Response},
};

/// The live connection.
#[derive(Default)]
pub(super) struct Slot {
    live: Option<Live>,
    /// When all trackers had been tried in vain.
    in_vain: Option<Instant>,
    /// When one besides these had been looked for in vain.
    no_other: Option<(Instant, Vec<usize>)>,
}

#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// The place in the list.
    pub(super) tracker: usize,
    /// Differs between any two connections.
    serial: u64,
    /// The credential under which the connection is logged in.
    pub(super) authenticated: Option<Signed<Credential>>,
}

/// Why there is no live connection.
pub(super) enum NotLive {
    /// The trackers do not honour this credential.
    Refused(Box<Signed<Credential>>),
    /// The tracker in that place can do nothing at the moment; another one may.
    Unable(usize, Refusal),
    /// None but those that are shunned can be reached.
    NoOther,
    Failed(SessionError),
}

impl From<SessionError> for NotLive {
    fn from(error: SessionError) -> Self {
        Self::Failed(error)
    }
}

impl TrackerLink {
    /// A live connection to a tracker that is not `shunned`, logged in where `as_user`.
    pub(super) async fn live(&self, as_user: bool, shunned: &[usize]) -> Result<Live, NotLive> {
        let asked = Instant::now();
        let mut slot = self.0.slot.lock().await;
        for _ in 0..TRACKER_ATTEMPTS {
            let credential = self.0.credential.borrow().clone();
            if as_user && credential.is_none() {
                return Err(SessionError::LoggedOut.into());
            }
            self.have_connection(&mut slot, asked, shunned).await?;
            let Some(live) = slot.live.as_mut() else {
                return Err(SessionError::Protocol.into());
            };
            if let Some(credential) = credential.filter(|_| as_user)
                && (live.authenticated.as_ref() != Some(&credential) || self.is_old(&credential))
            {
                let authenticated = tokio::select! {
                    biased;
                    authenticated = self.authenticate(live, credential) => authenticated,
                    next = self.successor(live) => {
                        live.connection.close(CloseCode::ShuttingDown);
                        *live = next;
                        continue;
                    }
                };
                match authenticated {
                    Ok(renewed) => live.authenticated = Some(renewed),
                    // Another tracker, or this one on another connection, may be better off.
                    Err(NotLive::Failed(SessionError::Unreachable { .. })) => {
                        live.connection.close(CloseCode::ShuttingDown);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            return Ok(live.clone());
        }
        Err(self.unreachable().into())
    }

    /// Has the slot hold a connection that is not lost, to a tracker that is not `shunned`.
    async fn have_connection(
        &self,
        slot: &mut Slot,
        asked: Instant,
        shunned: &[usize],
    ) -> Result<(), NotLive> {
        if let Some(lost) = slot
            .live
            .take_if(|live| live.connection.close_reason().is_some())
        {
            self.prefer_others(lost.tracker);
        }
        match &slot.live {
            Some(live) if !shunned.contains(&live.tracker) => return Ok(()),
            // While this one waited, another tried them all.
            None if slot.in_vain.is_some_and(|failed| failed > asked) => {
                return Err(self.unreachable().into());
            }
            _ => {}
        }
        if !shunned.is_empty() {
            // While this one waited, somebody looked.
            if let Some((failed, besides)) = &slot.no_other
                && *failed > asked
                && besides.iter().all(|tracker| shunned.contains(tracker))
            {
                return Err(NotLive::NoOther);
            }
            let other = timeout(SECOND_OPINION_TIMEOUT, self.connect_any(shunned)).await;
            let Ok(Ok(other)) = other else {
                slot.no_other = Some((Instant::now(), shunned.to_vec()));
                return Err(NotLive::NoOther);
            };
            if let Some(before) = slot.live.replace(other) {
                before.connection.close(CloseCode::ShuttingDown);
            }
            return Ok(());
        }
        let connected = self.connect_any(&[]).await;
        if let Err(SessionError::Unreachable { .. }) = connected {
            slot.in_vain = Some(Instant::now());
        }
        slot.live = Some(connected?);
        Ok(())
    }

    /// Shows a credential, and gives the one that the tracker renewed it to.
    async fn authenticate(
        &self,
        live: &Live,
        credential: Signed<Credential>,
    ) -> Result<Signed<Credential>, NotLive> {
        let query = Request::Authenticate {
            credential: credential.clone(),
        };
        let answer = live.connection.request(&query, TRACKER_ANSWER_TIMEOUT);
        match answer.await {
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
                Ok(renewed)
            }
            Ok(Response::Refused(Refusal::NotLoggedIn)) => {
                Err(NotLive::Refused(Box::new(credential)))
            }
            Ok(Response::Refused(refusal)) if refusal.is_of_the_tracker() => {
                Err(NotLive::Unable(live.tracker, refusal))
            }
            Ok(Response::Refused(refusal)) => Err(SessionError::from(refusal).into()),
            Ok(_) => Err(SessionError::Protocol.into()),
            Err(_) => Err(NotLive::Failed(SessionError::Unreachable {
                tried: vec![self.0.trackers[live.tracker].clone()],
            })),
        }
    }

    /// Comes back once another tracker is connected in place of one that has fallen silent.
    pub(super) async fn replaced(&self, silent: &Live) {
        loop {
            silence(&silent.connection).await;
            let mut slot = self.0.slot.lock().await;
            let is_this = |live: &Live| live.serial == silent.serial;
            if !slot.live.as_ref().is_some_and(is_this) {
                return;
            }
            if let Some(next) = self.other_than(silent).await {
                slot.live = Some(next);
                return;
            }
        }
    }

    /// A connection to another tracker, once this one has fallen silent.
    async fn successor(&self, silent: &Live) -> Live {
        loop {
            silence(&silent.connection).await;
            if let Some(next) = self.other_than(silent).await {
                return next;
            }
        }
    }

    async fn other_than(&self, silent: &Live) -> Option<Live> {
        match self.connect_any(&[silent.tracker]).await {
            Ok(next) => Some(next),
            Err(error) => {
                let tracker = &self.0.trackers[silent.tracker];
                tracing::debug!(%error, %tracker, "it is silent, and there is no other");
                None
            }
        }
    }

    /// Connects to whichever tracker of the ring answers first and is none of `except`; those that answered
    /// before have a start.
    async fn connect_any(&self, except: &[usize]) -> Result<Live, SessionError> {
        let count = self.0.trackers.len();
        let first = self.0.first.load(Ordering::Relaxed);
        let order = (first..first + count).map(|at| at % count);
        let order: Vec<usize> = order.filter(|at| !except.contains(at)).collect();
        let link = self.clone();
        let dialed = first_of(
            &self.0.endpoint,
            &self.0.trackers,
            &order,
            move |dialed: &Dialed| link.learn(dialed),
        );
        let Dialed {
            tracker,
            connection,
            observed,
            ..
        } = dialed.await?;
        self.0.first.store(tracker, Ordering::Relaxed);
        let serial = rand::random();
        self.notice_end(&connection, serial);
        self.0.connected.send_replace(Some(Connected {
            tracker: self.0.trackers[tracker].clone(),
            observed,
            serial,
        }));
        Ok(Live {
            connection,
            tracker,
            serial,
            authenticated: None,
        })
    }

    /// Has the others tried first, after the connection to this one was lost.
    fn prefer_others(&self, tracker: usize) {
        let next = (tracker + 1) % self.0.trackers.len();
        // Whoever has found a better one meanwhile knows more.
        let _ = self
            .0
            .first
            .compare_exchange(tracker, next, Ordering::Relaxed, Ordering::Relaxed);
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

    /// Ends a connection on which a request failed.
    pub(super) async fn drop_live(&self, dead: &Live) {
        dead.connection.close(CloseCode::ShuttingDown);
        let mut slot = self.0.slot.lock().await;
        if slot
            .live
            .take_if(|live| live.serial == dead.serial)
            .is_some()
        {
            self.prefer_others(dead.tracker);
            self.0.connected.send_replace(None);
        }
    }
}
