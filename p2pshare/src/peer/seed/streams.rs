//! The swarm streams that are served and those that wait for a place: [`Places`] with a clock, and with somebody to
//! tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    gate::Gate,
    places::{Entry, Places, StreamId},
};
use crate::{identity::PeerId, peer::pace::Rate};

/// All of them. A cheap clone.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    state: Mutex<State>,
    /// Told when somebody else waits, or is served.
    changed: watch::Sender<()>,
    /// Where a peer is forgotten that has no place any more.
    gates: Vec<Gate>,
}

#[derive(Debug, Default)]
struct State {
    places: Places,
    waiting: HashMap<StreamId, oneshot::Sender<()>>,
    served: HashMap<StreamId, CancellationToken>,
}

/// A place, or a place in the queue; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Streams,
    id: StreamId,
    peer: PeerId,
    /// Told when the place is not there any more.
    lost: CancellationToken,
    /// Told when it is one to be served at, if it is not.
    free: Option<oneshot::Receiver<()>>,
}

impl Streams {
    pub(super) fn new(gates: Vec<Gate>) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            gates,
        }))
    }

    /// A place for a stream of `peer`, if there is even one in the queue.
    pub(super) fn enter(&self, peer: PeerId) -> Option<Place> {
        let mut state = self.state();
        let lost = CancellationToken::new();
        let (id, free) = match state.places.enter(peer, self.now()) {
            Entry::Full => return None,
            Entry::Served(id) => (id, None),
            Entry::Waits(id) => {
                let (sender, free) = oneshot::channel();
                state.waiting.insert(id, sender);
                (id, Some(free))
            }
        };
        state.served.insert(id, lost.clone());
        drop(state);
        self.0.changed.send_replace(());
        let streams = self.clone();
        Some(Place {
            streams,
            id,
            peer,
            lost,
            free,
        })
    }

    /// Another limit, at which there may be fewer places.
    pub(super) fn set_rate(&self, rate: Option<Rate>) {
        let mut state = self.state();
        for id in state.places.set_rate(rate) {
            if let Some(lost) = state.served.remove(&id) {
                lost.cancel();
            }
        }
        self.promote(&mut state);
        drop(state);
        self.0.changed.send_replace(());
    }

    /// How many are served, of all peers.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let state = self.state();
        state.served.len() - state.waiting.len()
    }

    fn promote(&self, state: &mut State) {
        while let Some(id) = state.places.promote(self.now()) {
            if let Some(waiting) = state.waiting.remove(&id) {
                let _ = waiting.send(());
            }
        }
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether it is a place in the queue.
    pub(super) const fn waits(&self) -> bool {
        self.free.is_some()
    }

    /// Waits until it is a place to be served at. Cancel-safe.
    pub(super) async fn served(&mut self) {
        if let Some(free) = &mut self.free {
            // The sender is there as long as this is.
            let _ = free.await;
            self.free = None;
        }
    }

    /// Waits until the place is not there any more. Cancel-safe.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether others wait for it who have less.
    pub(super) fn is_turn_over(&self) -> bool {
        let now = self.streams.now();
        self.streams.state().places.is_turn_over(self.id, now)
    }

    /// Waits until that is so. Cancel-safe.
    pub(super) async fn turn_over(&self) {
        let Inner { began, changed, .. } = &*self.streams.0;
        let mut changed = changed.subscribe();
        let end = self.streams.state().places.turn_end(self.id);
        sleep_until(*began + end).await;
        while !self.is_turn_over() {
            // Whoever tells of it is there as long as this is.
            let _ = changed.changed().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.streams.state();
        state.places.leave(self.id);
        state.waiting.remove(&self.id);
        state.served.remove(&self.id);
        let is_last = state.places.count_of(self.peer) == 0;
        self.streams.promote(&mut state);
        drop(state);
        let inner = &self.streams.0;
        inner.changed.send_replace(());
        for gate in inner.gates.iter().filter(|_| is_last) {
            gate.forget(self.peer);
        }
    }
}
