//! The sources of one download: whom to ask, and what is known of those that ended. Nobody who lied is asked
//! again, and whoever just failed rests for a while, the longer the more often; whoever lacks twice what it said it
//! has, for long.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::seq::SliceRandom as _;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    source::{Shared, SourceEnd, Standing},
    stall::{self, Facts},
};
use crate::{
    content::Bitfield,
    identity::PeerId,
    limits::{BROKEN_WORDS_REST, HOLDERS_SAMPLE_MAX, RETIRED_REST, SOURCE_TRIED, SOURCES_MAX},
    peer::picker::SourceId,
    wire::{
        peer::PeerRefusal,
        tracker::{Holder, Holding},
    },
};

/// The sources of a download.
pub(super) struct Sources {
    shared: Arc<Shared>,
    running: JoinSet<(PeerId, SourceEnd)>,
    active: HashMap<PeerId, Active>,
    joined: mpsc::Sender<PeerId>,
    next_id: SourceId,
    /// Whether chunks could ever come from anybody.
    joined_once: bool,
    /// Who held the file when that was asked last, and whether there was an answer.
    holders: Vec<Holder>,
    answered: bool,
    resting: HashMap<PeerId, Rest>,
    last_end: Option<String>,
}

/// A source in use.
struct Active {
    source: SourceId,
    since: Instant,
}

/// What is known of a peer from which nothing comes any more.
#[derive(Default)]
struct Rest {
    /// How often it ended.
    times: u32,
    /// Not to be asked before this instant; one that is banned never is.
    until: Option<Instant>,
    /// Why it ended last.
    why: Why,
    /// Whether it lacked what it said it has. A file that has just changed is a reason, once.
    broke_its_word: bool,
}

impl Rest {
    fn begin(&mut self, end: &SourceEnd, now: Instant) {
        let broke_its_word = matches!(end, SourceEnd::Lacking { .. });
        let pause = match end {
            SourceEnd::Retired => RETIRED_REST,
            SourceEnd::Lacking { .. } if self.broke_its_word => BROKEN_WORDS_REST,
            _ => Duration::from_secs(1 << self.times.min(5)),
        };
        self.times += 1;
        self.until = (!end.is_final()).then(|| now + pause);
        self.why = end.into();
        self.broke_its_word |= broke_its_word;
    }
}

/// Why nothing comes from a peer, as far as it makes a difference.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
enum Why {
    /// It had too much to do, which passes.
    Busy,
    /// It refuses.
    Refusing,
    /// It cannot be reached.
    Unreachable,
    /// Anything else.
    #[default]
    Other,
}

impl From<&SourceEnd> for Why {
    fn from(end: &SourceEnd) -> Self {
        match end {
            SourceEnd::Refused(PeerRefusal::Busy) | SourceEnd::TurnOver => Self::Busy,
            SourceEnd::Refused(PeerRefusal::Denied) => Self::Refusing,
            SourceEnd::Unreachable => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

impl Sources {
    /// No sources yet. `joined` is told of each once chunks can come from it.
    pub(super) fn new(shared: Arc<Shared>, joined: mpsc::Sender<PeerId>) -> Self {
        Self {
            shared,
            running: JoinSet::new(),
            active: HashMap::new(),
            joined,
            next_id: 1,
            joined_once: false,
            holders: Vec::new(),
            answered: true,
            resting: HashMap::new(),
            last_end: None,
        }
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How many are in use.
    pub(super) fn count(&self) -> usize {
        self.active.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Why the last one ended.
    pub(super) const fn last_end(&self) -> Option<&String> {
        self.last_end.as_ref()
    }

    /// Takes on those of `holders` that are not in use and may be asked, as many as there is place for, whichever
    /// they are: so a crowd does not all ask the same. When all places are taken, the one from which the least
    /// comes makes place for another, now and then; what is shared by many gives little to each of them, and
    /// so everybody's upload comes to be used.
    pub(super) fn start(&mut self, mut holders: Vec<Holder>) {
        self.holders.clone_from(&holders);
        self.answered = true;
        let now = Instant::now();
        holders.retain(|holder| {
            let rest = self.resting.get(&holder.peer);
            let rests = rest.is_some_and(|rest| rest.until.is_none_or(|until| now < until));
            !rests && !self.active.contains_key(&holder.peer)
        });
        holders.shuffle(&mut rand::rng());
        // Of the largest files it is not announced what is there.
        holders.sort_by_cached_key(|holder| self.use_of(holder) == 0);
        let mut room = SOURCES_MAX.saturating_sub(self.in_use());
        if room == 0 && holders.first().is_some_and(|first| self.use_of(first) > 0) {
            room = self.retire_slowest(now);
        }
        for holder in holders.into_iter().take(room) {
            let (shared, source) = (self.shared.clone(), self.next_id);
            let (peer, joined) = (holder.peer, self.joined.clone());
            self.next_id += 1;
            let since = now;
            self.active.insert(peer, Active { source, since });
            self.running
                .spawn(async move { (peer, shared.fetch(source, holder, joined).await) });
        }
    }

    /// Nobody said who holds the file now: those of whom the trackers told last are asked again.
    pub(super) fn not_answered(&mut self) {
        self.start(self.holders.clone());
        self.answered = false;
    }

    /// What is known of why nothing comes.
    pub(super) fn facts(&self, quiet: Duration) -> Facts {
        let shared = &self.shared;
        let standing = |of| {
            let standings = shared.standings();
            standings.values().filter(|at| **at == of).count()
        };
        let rest_of = |holder: &&Holder| self.resting.get(&holder.peer);
        let is_banned = |holder: &&Holder| rest_of(holder).is_some_and(|rest| rest.until.is_none());
        let known: Vec<_> = self.holders.iter().filter(|h| !is_banned(h)).collect();
        let because = |why| {
            let resting = known.iter().filter(|h| !self.active.contains_key(&h.peer));
            let resting = resting.filter_map(rest_of);
            resting.filter(|rest| rest.why == why).count()
        };
        Facts {
            quiet,
            unwritten: shared.unwritten.load(Ordering::Relaxed) > 0,
            limiting: shared.intake.limiting(),
            asked: !shared.pick(|picker, _| picker.is_idle()),
            open: standing(Standing::Open),
            queued: standing(Standing::Queued),
            connecting: standing(Standing::Connecting),
            tracker: self.answered,
            known: known.len(),
            busy: because(Why::Busy),
            refusing: because(Why::Refusing),
            unreachable: because(Why::Unreachable),
            unheld: self.unheld(&known),
        }
    }

    /// The missing chunks that none of `known` announced, if all who hold anything are known.
    fn unheld(&self, known: &[&Holder]) -> Option<(u32, u32)> {
        let chunks = self.shared.pages.layout().chunk_count();
        let holds = known.iter().map(|holder| match &holder.holding {
            Holding::Nothing => Some(Bitfield::new(chunks)),
            Holding::Complete => None,
            Holding::Partial(bits) => Bitfield::from_bytes(chunks, bits).ok(),
        });
        let holds: Vec<Bitfield> = holds.collect::<Option<_>>()?;
        if self.holders.len() >= HOLDERS_SAMPLE_MAX {
            return None;
        }
        self.shared
            .pick(|picker, _| stall::unheld(picker.had(), &holds))
    }

    /// How many places are taken by those that are to stay, and are not just waited for.
    fn in_use(&self) -> usize {
        let is_queued = |source| self.shared.standings().get(&source) == Some(&Standing::Queued);
        let stays = |active: &&Active| {
            let is_retired = |source| self.shared.pick(|picker, _| picker.is_retired(source));
            !is_queued(active.source) && !is_retired(active.source)
        };
        self.active.values().filter(stays).count()
    }

    /// Gives up the source from which the least comes, of those that had the time to show how much it is. How many
    /// places that makes.
    fn retire_slowest(&self, now: Instant) -> usize {
        let active = self.active.values();
        let tried = active.filter(|active| now - active.since >= SOURCE_TRIED);
        let tried: Vec<SourceId> = tried.map(|active| active.source).collect();
        let retired = self
            .shared
            .pick(|picker, at| picker.retire_slowest(&tried, at));
        usize::from(retired)
    }

    /// How many of the missing chunks a holder announced.
    fn use_of(&self, holder: &Holder) -> usize {
        let chunks = self.shared.pages.layout().chunk_count();
        match &holder.holding {
            Holding::Complete => usize::MAX,
            Holding::Nothing => 0,
            Holding::Partial(bits) => match Bitfield::from_bytes(chunks, bits) {
                Ok(holds) => self.shared.pick(|picker, _| picker.needed_of(&holds)),
                Err(_) => 0,
            },
        }
    }

    /// Chunks can come from one.
    pub(super) const fn joined(&mut self) {
        self.joined_once = true;
    }

    /// Waits for the next one that ends; `None` while there are none. Cancel-safe.
    pub(super) async fn next_ended(&mut self) -> Option<(PeerId, SourceEnd)> {
        loop {
            // One that panicked was not counted out; its peer is not asked again.
            if let Ok(ended) = self.running.join_next().await? {
                return Some(ended);
            }
        }
    }

    /// Notes that one ended.
    pub(super) fn ended(&mut self, peer: PeerId, end: &SourceEnd) {
        self.active.remove(&peer);
        self.last_end = Some(end.to_string());
        let rest = self.resting.entry(peer).or_default();
        rest.begin(end, Instant::now());
    }

    /// Whether nobody ever gave anything, and each of `holders` was asked twice and is not just busy.
    pub(super) fn is_hopeless(&self, holders: &[Holder]) -> bool {
        let was_asked_twice = |holder: &Holder| {
            let rest = self.resting.get(&holder.peer);
            rest.is_some_and(|rest| {
                rest.why != Why::Busy && (rest.times >= 2 || rest.until.is_none())
            })
        };
        !self.joined_once && self.active.is_empty() && holders.iter().all(was_asked_twice)
    }

    /// Ends all of them.
    pub(super) async fn end(mut self) {
        self.running.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_rests_and_who_lied_is_not_asked_again() {
        let now = Instant::now();
        let lacking = SourceEnd::Lacking { index: 3 };
        let pause = |rest: &Rest| rest.until.map(|until| (until - now).as_secs());
        let mut rest = Rest::default();
        for expected in [1, 2, 4, 8, 16, 32, 32] {
            rest.begin(&SourceEnd::Unreachable, now);
            assert_eq!(pause(&rest), Some(expected));
        }
        // A file that changes may be a reason, once.
        rest.begin(&lacking, now);
        assert_eq!(pause(&rest), Some(32));
        rest.begin(&lacking, now);
        assert_eq!(pause(&rest), Some(BROKEN_WORDS_REST.as_secs()));
        rest.begin(&SourceEnd::Silent, now);
        assert_eq!(pause(&rest), Some(32));
        rest.begin(&SourceEnd::BadDigests, now);
        assert_eq!(pause(&rest), None);
    }
}
