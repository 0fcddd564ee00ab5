//! Where those wait whose turn it is not: [`Turns`] with a clock, and with somebody to tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};

use super::turns::{Next, Piece, TurnId, Turns};
use crate::{identity::PeerId, peer::pace::Rate};

/// Lets one after the other through. A cheap clone.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    state: Mutex<State>,
    /// Told when the rate is another.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    turns: Turns,
    waiting: HashMap<TurnId, oneshot::Sender<Turn>>,
    next: TurnId,
}

/// The right to send so many bytes, which are under way until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    gate: Gate,
    peer: PeerId,
    bytes: u64,
}

/// Withdraws from the queue who is not interested any more.
struct Waiting<'a> {
    gate: &'a Gate,
    peer: PeerId,
    id: TurnId,
}

/// Those whose turn it is, to be told once the state is not locked any more: who has gone meanwhile drops the turn.
type Told = Vec<(oneshot::Sender<Turn>, Turn)>;

impl Gate {
    /// Through which all go at once, as long as no more than `most` bytes are under way; one with such a bound has no
    /// rate.
    pub(super) fn new(most: u64) -> Self {
        let state = State {
            turns: Turns::new(most),
            waiting: HashMap::new(),
            next: 0,
        };
        Self(Arc::new(Inner {
            began: Instant::now(),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }))
    }

    pub(super) fn set_rate(&self, rate: Option<Rate>) {
        let mut state = self.state();
        // Where both hold, what arrives could make it a matter of time whose turn it is, and nobody would be told.
        debug_assert!(rate.is_none() || !state.turns.is_bounded());
        state.turns.set_rate(rate, self.now());
        let (told, _) = self.let_through(&mut state);
        drop(state);
        tell(told);
        self.0.changed.send_replace(());
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        self.state().turns.rate()
    }

    /// Nothing is sent to `peer` any more.
    pub(super) fn forget(&self, peer: PeerId) {
        self.state().turns.forget(peer);
    }

    /// Waits until `peer` may be sent so many bytes. Cancel-safe.
    pub(super) async fn turn(&self, peer: PeerId, bytes: u64, piece: Piece) -> Turn {
        let mut changed = self.0.changed.subscribe();
        let (sender, mut turn) = oneshot::channel();
        let id = {
            let mut state = self.state();
            let id = state.next;
            state.next += 1;
            state.waiting.insert(id, sender);
            state.turns.ask(peer, id, bytes, piece);
            id
        };
        let gate = self;
        let _waiting = Waiting { gate, peer, id };
        loop {
            let next = {
                let mut state = self.state();
                let (told, next) = self.let_through(&mut state);
                drop(state);
                tell(told);
                next
            };
            tokio::select! {
                biased;
                Ok(turn) = &mut turn => return turn,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                _ = changed.changed() => {}
            }
        }
    }

    /// Those whose turn it is, and when it is the next one's if that is only a matter of time.
    fn let_through(&self, state: &mut State) -> (Told, Option<Instant>) {
        let mut told = Vec::new();
        loop {
            match state.turns.next(self.now()) {
                Next::Go(peer, id, bytes) => {
                    let Some(waiting) = state.waiting.remove(&id) else {
                        state.turns.arrived(peer, bytes);
                        continue;
                    };
                    let gate = self.clone();
                    told.push((waiting, Turn { gate, peer, bytes }));
                }
                Next::At(at) => return (told, Some(self.0.began + at)),
                Next::Nobody => return (told, None),
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

fn tell(told: Told) {
    for (waiting, turn) in told {
        // Who has gone meanwhile drops it, and it is the next one's.
        let _ = waiting.send(turn);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.turns.arrived(self.peer, self.bytes);
        let (told, _) = self.gate.let_through(&mut state);
        drop(state);
        tell(told);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if state.waiting.remove(&self.id).is_some() {
            state.turns.withdraw(self.peer, self.id);
        }
    }
}
