//! Who is served, who waits for a place, and who has to give one up. A place is worth at least [`RATE_MIN`]: where
//! there is a limit there are so few places that each stream gets as much when all of them want it, for otherwise
//! those who ask would take this peer for one that is silent. Who waits gets a place when one is free, and
//! after a while one of those who had it. Pure: the time is an argument.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use crate::{
    identity::PeerId,
    limits::{
        RATE_MIN, SEED_STREAMS_MAX, SEED_STREAMS_PER_PEER_MAX, SEED_TURN, SEED_WAITING_MAX,
        SEED_WAITING_PER_PEER_MAX,
    },
    peer::pace::Rate,
};

/// The streams that are served, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Places {
    rate: Option<Rate>,
    served: BTreeMap<StreamId, Served>,
    waiting: VecDeque<(StreamId, PeerId)>,
    next: StreamId,
}

/// A stream; those that came later have higher ones.
pub(super) type StreamId = u64;

#[derive(Copy, Clone, Debug)]
struct Served {
    peer: PeerId,
    since: Duration,
}

/// What becomes of a stream that is opened.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    Served(StreamId),
    Waits(StreamId),
    /// Neither.
    Full,
}

impl Places {
    /// A stream of `peer` is opened.
    pub(super) fn enter(&mut self, peer: PeerId, now: Duration) -> Entry {
        let own = |served: &&Served| served.peer == peer;
        if self.served.values().filter(own).count() >= SEED_STREAMS_PER_PEER_MAX {
            return Entry::Full;
        }
        let id = self.next;
        self.next += 1;
        // Nobody who waits and could be served is overtaken.
        if self.fits(peer) && self.first_that_fits().is_none() {
            self.served.insert(id, Served { peer, since: now });
            return Entry::Served(id);
        }
        let waiting = self.waiting.iter().filter(|(_, other)| *other == peer);
        if self.waiting.len() >= SEED_WAITING_MAX || waiting.count() >= SEED_WAITING_PER_PEER_MAX {
            return Entry::Full;
        }
        self.waiting.push_back((id, peer));
        Entry::Waits(id)
    }

    /// A stream has ended, or waits no longer.
    pub(super) fn leave(&mut self, id: StreamId) {
        self.served.remove(&id);
        self.waiting.retain(|(waiting, _)| *waiting != id);
    }

    /// Gives a place to the next one who waits, if there is one for it.
    pub(super) fn promote(&mut self, now: Duration) -> Option<StreamId> {
        let at = self.first_that_fits()?;
        let (id, peer) = self.waiting.remove(at)?;
        self.served.insert(id, Served { peer, since: now });
        Some(id)
    }

    /// Whether a stream has had its place for long enough, as another waits whose peer has fewer.
    pub(super) fn is_turn_over(&mut self, id: StreamId, now: Duration) -> bool {
        let Some(served) = self.served.get(&id).copied() else {
            return true;
        };
        if now < self.turn_end(id) || self.waiting.is_empty() {
            return false;
        }
        let own = self.count_of(served.peer);
        self.served.remove(&id);
        let mut waiting = self.waiting.iter();
        let is_over = waiting.any(|(_, peer)| {
            *peer != served.peer && self.count_of(*peer) < own && self.fits(*peer)
        });
        self.served.insert(id, served);
        is_over
    }

    /// When a stream has had its place for so long that others may need it.
    pub(super) fn turn_end(&self, id: StreamId) -> Duration {
        let served = self.served.get(&id);
        served.map_or(Duration::ZERO, |served| served.since + SEED_TURN)
    }

    /// Another limit. Those whose place is not worth enough at it lose it: of whom has most the last ones.
    pub(super) fn set_rate(&mut self, rate: Option<Rate>) -> Vec<StreamId> {
        self.rate = rate;
        let mut lost = Vec::new();
        while self.served.len() > 1 && !self.is_worth_enough(None) {
            let own: HashMap<PeerId, usize> = self.counts();
            let most = |(id, served): &(&StreamId, &Served)| (own[&served.peer], **id);
            let Some(id) = self.served.iter().max_by_key(most).map(|(id, _)| *id) else {
                break;
            };
            self.served.remove(&id);
            lost.push(id);
        }
        lost
    }

    /// Of those that wait and could be served the one whose peer has fewest; of these the first.
    fn first_that_fits(&self) -> Option<usize> {
        let waiting = self.waiting.iter().enumerate();
        let fit = waiting.filter(|(_, (_, peer))| self.fits(*peer));
        fit.min_by_key(|(at, (_, peer))| (self.count_of(*peer), *at))
            .map(|(at, _)| at)
    }

    /// Whether one more stream of `peer` can be served.
    fn fits(&self, peer: PeerId) -> bool {
        self.served.len() < SEED_STREAMS_MAX
            && self.count_of(peer) < SEED_STREAMS_PER_PEER_MAX
            && (self.served.is_empty() || self.is_worth_enough(Some(peer)))
    }

    /// Whether each place is worth enough, with one more for `newcomer`: peers share the rate, and the streams of a
    /// peer its share.
    fn is_worth_enough(&self, newcomer: Option<PeerId>) -> bool {
        let Some(rate) = self.rate else { return true };
        let mut counts = self.counts();
        if let Some(peer) = newcomer {
            *counts.entry(peer).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or(0);
        (counts.len() * most) as u64 <= rate.bytes() / RATE_MIN
    }

    fn counts(&self) -> HashMap<PeerId, usize> {
        let mut counts = HashMap::new();
        for served in self.served.values() {
            *counts.entry(served.peer).or_default() += 1;
        }
        counts
    }

    /// How many streams of `peer` are served.
    pub(super) fn count_of(&self, peer: PeerId) -> usize {
        let served = self.served.values();
        served.filter(|served| served.peer == peer).count()
    }
}

#[cfg(test)]
mod tests;
