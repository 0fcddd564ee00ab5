//! Whose turn it is when several peers wait to be sent something: whoever got least, counted from when it began to
//! wait, so that nobody gets more by asking on more streams or for more at once. Pure: the time is an argument.
//!
//! It is start-time fair queueing. The bytes that each peer got are its place on a common clock, which is where the
//! peer stands whose turn it is; a peer that did not want anything for a while, or could not take it, is where the
//! clock is. Beside that there is a pace at which all of them are served, and a bound of what is under way: of it
//! a peer may have as much as is left for all others, and one turn in any case, so that those who take slowly do not
//! take the others' place, however many they are.
//!
//! At a pace a turn is a whole chunk, of which one piece comes after the other, as long as it is everybody's turn, on each
//! stream, in [`SEED_ROUND_MAX`]: a chunk is of no use to anybody before the last byte of it has come, and then it can be given on.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{
    identity::PeerId,
    limits::SEED_ROUND_MAX,
    peer::pace::{Pace, Rate},
};

/// Those who wait, and what is under way to whom.
#[derive(Debug)]
pub(super) struct Turns {
    pace: Pace,
    /// Bytes that may be under way.
    most: u64,
    under_way: u64,
    /// Where the peer stood that had the last turn, when it began.
    clock: u64,
    peers: HashMap<PeerId, Line>,
}

/// Which of all that was ever asked; those that asked later have higher ones.
pub(super) type TurnId = u64;

/// What one peer waits for.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Wanted>,
    /// Where the peer stands on the clock.
    got: u64,
    /// Bytes of its turn so far.
    turn: u64,
    under_way: u64,
    /// Whether it is to be forgotten when nothing is under way any more, and it is not ahead of the others.
    gone: bool,
}

#[derive(Copy, Clone, Debug)]
struct Wanted {
    id: TurnId,
    bytes: u64,
    piece: Piece,
}

/// What is to be sent.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    /// The beginning of something, or all of it.
    First,
    /// What goes on with what the peer was sent last, or is little beside it.
    Next,
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

    /// `peer` waits to be sent so many bytes.
    pub(super) fn ask(&mut self, peer: PeerId, id: TurnId, bytes: u64, piece: Piece) {
        let longest = self.longest_turn();
        let line = self.peers.entry(peer).or_insert_with(|| Line {
            // It has had no turn with which anything goes on.
            turn: u64::MAX,
            ..Line::default()
        });
        line.gone = false;
        let wanted = Wanted { id, bytes, piece };
        // Another stream of the peer waits for the end of the turn, and no longer.
        match line.goes_on(wanted, longest) {
            true => line.waiting.push_front(wanted),
            false => line.waiting.push_back(wanted),
        }
    }

    /// It does not wait any more.
    pub(super) fn withdraw(&mut self, peer: PeerId, id: TurnId) {
        if let Some(line) = self.peers.get_mut(&peer) {
            line.waiting.retain(|waiting| waiting.id != id);
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

    /// Lets the next one go, if it is anybody's turn now; its bytes are under way then.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        let free = self.most.saturating_sub(self.under_way);
        let fits =
            |line: &Line, bytes| line.under_way == 0 || (bytes <= free && line.under_way < free);
        let longest = self.longest_turn();
        let waiting = self.peers.iter().filter_map(|(peer, line)| {
            let wanted = *line.waiting.front()?;
            let goes_on = line.goes_on(wanted, longest);
            let start = line.got.max(self.clock);
            fits(line, wanted.bytes).then_some(((!goes_on, start, wanted.id), *peer, wanted.bytes))
        });
        let next = waiting.min_by_key(|(order, ..)| *order);
        let Some(((begins, start, id), peer, bytes)) = next else {
            if self.peers.values().all(|line| line.waiting.is_empty()) {
                let ahead = self.peers.values().map(|line| line.got).max();
                self.clock = self.clock.max(ahead.unwrap_or_default());
                self.forget_gone();
            }
            return Next::Nobody;
        };
        let wait = self.pace.wait(now);
        if !wait.is_zero() {
            return Next::At(now + wait);
        }
        self.pace.take(bytes, now);
        self.under_way += bytes;
        if begins {
            self.clock = start;
        }
        if let Some(line) = self.peers.get_mut(&peer) {
            line.waiting.pop_front();
            line.turn = match begins {
                true => bytes,
                false => line.turn + bytes,
            };
            line.got = start + bytes;
            line.under_way += bytes;
        }
        if begins {
            self.forget_gone();
        }
        Next::Go(peer, id, bytes)
    }

    /// How many bytes a turn may be, if it is to be everybody's in time, on each stream.
    fn longest_turn(&self) -> u64 {
        let rate = self.pace.rate();
        let a_round = rate.map_or(0, |rate| rate.bytes_in(SEED_ROUND_MAX));
        let there = self.peers.values().filter(|line| !line.gone);
        let streams: usize = there.map(|line| line.waiting.len().max(1)).sum();
        a_round / streams.max(1) as u64
    }

    fn tidy(&mut self, peer: PeerId) {
        let clock = self.clock;
        if self
            .peers
            .get(&peer)
            .is_some_and(|line| line.is_over(clock))
        {
            self.peers.remove(&peer);
        }
    }

    fn forget_gone(&mut self) {
        let clock = self.clock;
        self.peers.retain(|_, line| !line.is_over(clock));
    }
}

impl Line {
    /// Whether that is sent in the turn that the peer has.
    fn goes_on(&self, wanted: Wanted, longest: u64) -> bool {
        wanted.piece == Piece::Next && self.turn.saturating_add(wanted.bytes) <= longest
    }

    /// Whether nothing has to be remembered of a peer: one that comes back is not to have what it got once more.
    fn is_over(&self, clock: u64) -> bool {
        self.gone && self.waiting.is_empty() && self.under_way == 0 && self.got <= clock
    }
}

#[cfg(test)]
mod tests;
