//! The sources of one download: whom to ask, and what is known of those that ended. Nobody who lied is asked
//! again, and whoever just failed rests for a while, the longer the more often in a row; whoever lacks twice what it
//! said it has, for long.
//!
//! **Invariant.** There are never more than [`SOURCES_HELD_MAX`], whatever they make of this peer.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::seq::SliceRandom as _;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    source::{Shared, SourceEnd, Standing},
    stall::{self, Facts, Quiet, Stall},
};
use crate::{
    content::Bitfield,
    identity::PeerId,
    limits::{
        BROKEN_WORDS_REST, EXCHANGE_INTERVAL, HOLDERS_REFRESH, HOLDERS_REFRESH_FIRST,
        HOLDERS_REFRESH_LONGEST, HOLDERS_REFRESH_SHARE, HOLDERS_SAMPLE_MAX, NO_SOURCE_PATIENCE,
        RETIRED_REST, SOURCE_TRIED, SOURCES_HELD_MAX, SOURCES_MAX, STALL_PATIENCE,
    },
    peer::picker::SourceId,
    wire::{
        peer::PeerRefusal,
        tracker::{Holder, Holding},
    },
};

/// The sources of a download.
pub(super) struct Sources {
    shared: Arc<Shared>,
    running: JoinSet<Ended>,
    active: HashMap<PeerId, Active>,
    joined: mpsc::Sender<PeerId>,
    next_id: SourceId,
    /// Whether a stream was ever open, of which the first is to somebody who has something.
    joined_once: bool,
    /// Who held the file when that was asked last, and whether there was an answer.
    holders: Vec<Holder>,
    answered: bool,
    resting: HashMap<PeerId, Rest>,
    last_end: Option<String>,
    /// When one last made place for another.
    exchanged: Instant,
    quiet: Quiet,
}

/// A source from which no more comes.
pub(super) struct Ended {
    pub(super) peer: PeerId,
    pub(super) end: SourceEnd,
    /// Whether a chunk came.
    pub(super) gave: bool,
}

/// A source in use.
struct Active {
    source: SourceId,
    since: Instant,
}

/// What is known of a peer from which nothing comes any more.
#[derive(Default)]
struct Rest {
    /// How often in a row it ended without having given a chunk.
    times: u32,
    /// Not to be asked before this instant; one that is banned never is.
    until: Option<Instant>,
    /// Why it ended last.
    why: Why,
    /// Whether it lacked what it said it has. A file that has just changed is a reason, once.
    broke_its_word: bool,
}

impl Rest {
    fn begin(&mut self, end: &SourceEnd, gave: bool, now: Instant) {
        if gave {
            self.times = 0;
        }
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
        let quiet = Quiet::new(shared.began.elapsed());
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
            exchanged: Instant::now(),
            quiet,
        }
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Why the last one ended.
    pub(super) const fn last_end(&self) -> Option<&String> {
        self.last_end.as_ref()
    }

    /// It was asked who holds the file.
    pub(super) fn start(&mut self, holders: Vec<Holder>) {
        self.holders = holders;
        self.answered = true;
        self.fill();
    }

    /// Takes on those who are known, are not in use and may be asked, as many as there is place for, whichever they are:
    /// so a crowd does not all ask the same. When all places are taken, the one from which the least comes makes place
    /// for another now and then; what is shared by many gives little to each of them, and so everybody's upload comes
    /// to be used.
    pub(super) fn fill(&mut self) {
        let (now, in_use) = (Instant::now(), self.in_use());
        let may_exchange =
            now - self.exchanged >= EXCHANGE_INTERVAL && self.active.len() < SOURCES_HELD_MAX;
        if in_use == SOURCES_MAX && !may_exchange {
            return;
        }
        let others = self.others(now);
        let mut places = SOURCES_MAX;
        if in_use > places
            || (in_use == places && others.first().is_some_and(|first| self.use_of(first) > 0))
        {
            self.exchanged = now;
            places += self.retire_slowest(now);
        }
        self.take_on(others, places.saturating_sub(in_use), now);
    }

    /// Those who are known, are not in use and may be asked, in any order, but first those who have something to give. Who
    /// has just begun is met while somebody is there from whom both can have it.
    fn others(&self, now: Instant) -> Vec<Holder> {
        let may_meet = self.joined_once && self.known().next().is_some();
        let may_be_asked = |holder: &&Holder| {
            if !may_meet && !holder.holding.is_something() {
                return false;
            }
            let rest = self.resting.get(&holder.peer);
            let rests = rest.is_some_and(|rest| rest.until.is_none_or(|until| now < until));
            !rests && !self.active.contains_key(&holder.peer)
        };
        let mut others: Vec<Holder> = self.holders.iter().filter(may_be_asked).cloned().collect();
        others.shuffle(&mut rand::rng());
        others.sort_by_cached_key(|holder| self.use_of(holder) == 0);
        others
    }

    fn take_on(&mut self, others: Vec<Holder>, room: usize, since: Instant) {
        let room = room.min(SOURCES_HELD_MAX.saturating_sub(self.active.len()));
        for holder in others.into_iter().take(room) {
            let (shared, source) = (self.shared.clone(), self.next_id);
            let (peer, joined) = (holder.peer, self.joined.clone());
            self.next_id += 1;
            self.active.insert(peer, Active { source, since });
            self.running.spawn(async move {
                let (end, gave) = shared.fetch(source, holder, joined).await;
                Ended { peer, end, gave }
            });
        }
    }

    /// Nobody said who holds the file now: those of whom the trackers told last are asked again.
    pub(super) fn not_answered(&mut self) {
        self.start(self.holders.clone());
        self.answered = false;
    }

    /// How it is now: why nothing comes, if nothing has come for a while.
    pub(super) fn look(&mut self) -> Option<Stall> {
        let now = self.shared.began.elapsed();
        let mut facts = self.facts();
        let received = self.shared.received_bytes.load(Ordering::Relaxed);
        self.quiet.note(received, facts.give_hope(), now);
        facts.quiet = self.quiet.time(now);
        if facts.quiet >= STALL_PATIENCE {
            facts.unheld = self.unheld();
        }
        facts.stall()
    }

    /// Whether nothing is to be hoped for from those who are known, and others are needed.
    pub(super) fn is_idle(&self) -> bool {
        self.quiet.hopeless(self.shared.began.elapsed()) >= STALL_PATIENCE
    }

    /// Whether it has been so for so long that it is time to give up.
    pub(super) fn is_given_up(&mut self) -> bool {
        self.look();
        self.quiet.hopeless(self.shared.began.elapsed()) >= NO_SOURCE_PATIENCE
    }

    /// Whether nothing can have come yet, as the first are still being connected.
    pub(super) fn are_new(&self) -> bool {
        !self.joined_once && self.count(Standing::Connecting) > 0
    }

    /// How many stand so.
    pub(super) fn count(&self, of: Standing) -> usize {
        let standings = self.shared.standings();
        standings.values().filter(|at| **at == of).count()
    }

    /// Those who hold something of the file, and were not found to lie.
    fn known(&self) -> impl Iterator<Item = &Holder> {
        let is_banned = |rest: &Rest| rest.until.is_none();
        let honest = move |h: &&Holder| !self.resting.get(&h.peer).is_some_and(is_banned);
        let holders = self.holders.iter().filter(|h| h.holding.is_something());
        holders.filter(honest)
    }

    /// What is known of why nothing comes.
    fn facts(&self) -> Facts {
        let shared = &self.shared;
        let because = |why| {
            let resting = self.known().filter(|h| !self.active.contains_key(&h.peer));
            let resting = resting.filter_map(|holder| self.resting.get(&holder.peer));
            resting.filter(|rest| rest.why == why).count()
        };
        Facts {
            quiet: Duration::ZERO,
            unwritten: shared.unwritten.load(Ordering::Relaxed) > 0,
            limiting: shared.intake.limiting(),
            asked: !shared.pick(|picker, _| picker.is_idle()),
            open: self.count(Standing::Open),
            queued: self.count(Standing::Queued),
            connecting: self.count(Standing::Connecting),
            tracker: self.answered,
            known: self.known().count(),
            busy: because(Why::Busy),
            refusing: because(Why::Refusing),
            unreachable: because(Why::Unreachable),
            unheld: None,
        }
    }

    /// The missing chunks that none of those who are known announced, if all who hold anything are known.
    fn unheld(&self) -> Option<(u32, u32)> {
        if self.holders.len() >= HOLDERS_SAMPLE_MAX {
            return None;
        }
        let chunks = self.shared.pages.layout().chunk_count();
        let holds = self.known().map(|holder| match &holder.holding {
            Holding::Nothing => Some(Bitfield::new(chunks)),
            Holding::Complete => None,
            Holding::Partial(bits) => Bitfield::from_bytes(chunks, bits).ok(),
        });
        let holds: Vec<Bitfield> = holds.collect::<Option<_>>()?;
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
            // Of the largest files it is not announced what is there: it may be of use.
            Holding::Partial(bits) if bits.is_empty() => 1,
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
    pub(super) async fn next_ended(&mut self) -> Option<Ended> {
        loop {
            // One that panicked was not counted out; its peer is not asked again.
            if let Ok(ended) = self.running.join_next().await? {
                return Some(ended);
            }
        }
    }

    /// Notes that one ended.
    pub(super) fn ended(&mut self, Ended { peer, end, gave }: &Ended) {
        self.active.remove(peer);
        self.last_end = Some(end.to_string());
        let rest = self.resting.entry(*peer).or_default();
        rest.begin(end, *gave, Instant::now());
    }

    /// Whether nobody ever gave anything, and each of `holders` was asked twice and is not just busy.
    pub(super) fn is_hopeless(&self, holders: &[Holder]) -> bool {
        let was_asked_twice = |holder: &Holder| {
            let rest = self.resting.get(&holder.peer);
            rest.is_some_and(|rest| {
                rest.why != Why::Busy && (rest.times >= 2 || rest.until.is_none())
            })
        };
        let mut holders = holders.iter().filter(|h| h.holding.is_something());
        !self.joined_once && self.active.is_empty() && holders.all(was_asked_twice)
    }

    /// Ends all of them.
    pub(super) async fn end(mut self) {
        self.running.shutdown().await;
    }
}

/// How long a download that has gone on for so long asks nobody again who holds the file, if there is hope in those
/// whom it knows. Others who began at the same moment are soon to be seen, and the sooner they give each other what they
/// have the better; what was heard ages with the download, and of a large file an answer is large.
pub(crate) fn pause_between_looks(age: Duration) -> Duration {
    let young = age.clamp(HOLDERS_REFRESH_FIRST, HOLDERS_REFRESH);
    let old = age / HOLDERS_REFRESH_SHARE;
    young.max(old).min(HOLDERS_REFRESH_LONGEST)
}

#[cfg(test)]
mod tests;
