//! Whose turn it is when several peers wait to be sent something: whoever got least, counted from when it began to
//! wait, so that nobody gets more by asking on more streams or for more at once. Pure: the time is an argument.
//!
//! It is start-time fair queueing. The bytes that each peer got are its place on a common clock, which is where the
//! peer stands whose turn it is; a peer that did not want anything for a while, or could not take it, is where the
//! clock is. Beside that there is a pace at which all of them are served, and a bound of what is under way: of it
//! a peer may have as much as is left for all others, and one turn in any case, so that those who take slowly do not
//! take the others' place, however many they are.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{
    identity::PeerId,
    peer::pace::{Pace, Rate},
};

/// Those who wait, and what is under way to whom.
#[derive(Debug)]
pub(super) struct Turns {
    pace: Pace,
    /// Bytes that may be under way.
    most: u64,
    under_way: u64,
    /// Where the peer stood that had the last turn.
    clock: u64,
    peers: HashMap<PeerId, Line>,
}

/// Which of all that was ever asked; those that asked later have higher ones.
pub(super) type TurnId = u64;

/// What one peer waits for.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<(TurnId, u64)>,
    /// Where the peer stands on the clock.
    got: u64,
    under_way: u64,
    /// Whether it is to be forgotten when nothing is under way any more.
    gone: bool,
}

/// What there is to do.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// It is this one's turn.
    Go(PeerId, TurnId, u64),
    /// It is nobody's before that time.
    At(Duration),
    /// It is nobody's before something else happens.
    Nobody,
}

impl Turns {
    /// Nobody waits, and at most so many bytes may be under way.
    pub(super) fn new(most: u64) -> Self {
        Self {
            pace: Pace::default(),
            most,
            under_way: 0,
            clock: 0,
            peers: HashMap::new(),
        }
    }

    pub(super) const fn is_bounded(&self) -> bool {
        self.most < u64::MAX
    }

    pub(super) fn set_rate(&mut self, rate: Option<Rate>, now: Duration) {
        self.pace.set_rate(rate, now);
    }

    pub(super) const fn rate(&self) -> Option<Rate> {
        self.pace.rate()
    }

    /// `peer` waits for its turn to be sent so many bytes.
    pub(super) fn ask(&mut self, peer: PeerId, id: TurnId, bytes: u64) {
        let line = self.peers.entry(peer).or_default();
        line.gone = false;
        line.waiting.push_back((id, bytes));
    }

    /// It does not wait any more.
    pub(super) fn withdraw(&mut self, peer: PeerId, id: TurnId) {
        if let Some(line) = self.peers.get_mut(&peer) {
            line.waiting.retain(|(waiting, _)| *waiting != id);
        }
        self.tidy(peer);
    }

    /// Nothing is sent to `peer` any more.
    pub(super) fn forget(&mut self, peer: PeerId) {
        if let Some(line) = self.peers.get_mut(&peer) {
            line.gone = true;
        }
        self.tidy(peer);
    }

    /// So many bytes are not under way to `peer` any more.
    pub(super) fn arrived(&mut self, peer: PeerId, bytes: u64) {
        self.under_way = self.under_way.saturating_sub(bytes);
        if let Some(line) = self.peers.get_mut(&peer) {
            line.under_way = line.under_way.saturating_sub(bytes);
        }
        self.tidy(peer);
    }

    /// Gives the next turn, if it is anybody's now; its bytes are under way then.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        let free = self.most.saturating_sub(self.under_way);
        let fits =
            |line: &Line, bytes| line.under_way == 0 || (bytes <= free && line.under_way < free);
        let waiting = self.peers.iter().filter_map(|(peer, line)| {
            let (id, bytes) = *line.waiting.front()?;
            fits(line, bytes).then_some((line.got.max(self.clock), id, *peer, bytes))
        });
        let Some((start, id, peer, bytes)) = waiting.min_by_key(|(start, id, ..)| (*start, *id))
        else {
            return Next::Nobody;
        };
        let wait = self.pace.wait(now);
        if !wait.is_zero() {
            return Next::At(now + wait);
        }
        self.pace.take(bytes, now);
        self.clock = start;
        self.under_way += bytes;
        if let Some(line) = self.peers.get_mut(&peer) {
            line.waiting.pop_front();
            line.got = start + bytes;
            line.under_way += bytes;
        }
        Next::Go(peer, id, bytes)
    }

    fn tidy(&mut self, peer: PeerId) {
        let is_over = |line: &Line| line.gone && line.waiting.is_empty() && line.under_way == 0;
        if self.peers.get(&peer).is_some_and(is_over) {
            self.peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests;
