//! A member comes back that may have forgotten what it promised and accepted: it makes its former word void, learns
//! again what was decided, and only then has a say.
//!
//! It asks the other replicas of its slices to take an epoch that none of them has heard of (the *fence*), until of
//! every slice so many have that each majority of its replicas has one of them that is not the member itself. Then
//! it takes over what each of them has accepted in the slices that they share.
//!
//! **Why nothing is lost.** Let a state be chosen by a majority of which this member's former life was one. Another
//! of that majority has taken the fence. If it accepted the state before, it tells of it now, as it is asked after
//! its fence. After the fence it answers only in the new epoch, and a coordinator never counts answers of two
//! epochs together, so that the state was chosen in the new epoch or a later one: and there the former life has
//! not spoken, as the epoch was new to every one who took the fence, and an epoch is spoken in once a majority is in
//! it. The same holds for what the former life promised, so that promises need not be learnt.
//!
//! **Invariants.** An answer counts only in the epoch in which it was asked. A fence that may have been taken
//! unheard, or an epoch that rises meanwhile, is answered by a higher one and everything from the start. It never
//! gives up, since to vote without having learnt is the one thing it must not do.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::machine::{Action, Input, Machine};
use super::placement::Placement;
use super::planted::{Fault, planted};
use super::quorum::majority;
use crate::identity::MemberId;
use crate::limits::{
    REPLICA_PAGE_ROWS, RETURN_ANSWER_TIMEOUT, RETURN_LOST_ROWS_MAX, RETURN_PAUSE_FIRST,
    RETURN_PAUSE_LONGEST, RETURN_REST,
};
use crate::wire::ring::{
    Epoch, Life, PullPlace, ReplicaAnswer, ReplicaCall, ReplicaRequest, ReplicaRow, RowKey,
    RowState, Slice,
};

/// The machine.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Return {
    life: Life,
    /// The others that hold slices with this member.
    others: BTreeMap<MemberId, Other>,
    /// Which of them hold a slice together, and how many of those have to be heard.
    sets: BTreeMap<BTreeSet<MemberId>, usize>,
    /// In which it asks.
    epoch: Epoch,
    /// How often it had to take a higher epoch.
    tries: u32,
    /// Until when it lets another go first that comes back too.
    pause: Option<Instant>,
    /// Whose page its own replica was asked to install, and in which epoch. It is asked for one at a time.
    installing: Option<(MemberId, Epoch)>,
    /// Rows that another one could not read. What they are at the rest may be older than what was decided, so in the
    /// end this member's replica has them for damaged too, and is as silent about them.
    lost: BTreeSet<RowKey>,
    /// When to ask itself again after it failed.
    install_at: Instant,
    rng: SmallRng,
    pulled: Returned,
    finished: bool,
    actions: VecDeque<Action<Returned>>,
}

/// What came of it.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Returned {
    /// The epoch in which to begin to vote; this member's own replica has it on disk.
    pub(crate) epoch: Epoch,
    /// Rows that were sent to it; those that several sent count as often.
    pub(crate) rows: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
}

/// How far it is with another replica.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Other {
    /// Whether it has taken the fence of this epoch.
    fenced: bool,
    rows: Rows,
    /// When to ask it, again if it was asked before.
    ask_at: Instant,
    /// Whether it was asked and did not answer yet.
    asked: bool,
    /// Whether it left the last question without an answer.
    silent: bool,
    /// Whether it could not read what it was asked for last.
    unreadable: bool,
}

/// The rows of another replica.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum Rows {
    /// To be asked for from here on.
    From(PullPlace),
    /// A page of them, to be installed, and where to go on.
    Page(Vec<ReplicaRow>, Option<PullPlace>),
    /// All installed.
    All,
}

impl Other {
    fn new(now: Instant) -> Self {
        Self {
            fenced: planted(Fault::ReturnWithoutFence),
            rows: Rows::From(PullPlace::START),
            ask_at: now,
            asked: false,
            silent: false,
            unreadable: false,
        }
    }

    /// It answered, and may be asked for more.
    fn answered(&mut self, now: Instant) {
        self.silent = false;
        self.unreadable = false;
        self.asked = false;
        self.ask_at = now;
    }
}

impl Return {
    /// Begins the life `life` of a member. `highest` is the highest epoch that is known of the list of members by
    /// which `placement` was made, `seed` is for the pauses.
    pub(crate) fn new(
        now: Instant,
        placement: &Placement,
        life: Life,
        highest: Epoch,
        seed: u64,
    ) -> Self {
        let sets = sets(placement, life.member);
        let others = sets.keys().flatten().map(|other| (*other, Other::new(now)));
        let mut this = Self {
            life,
            others: others.collect(),
            epoch: highest,
            tries: 0,
            pause: None,
            installing: None,
            lost: BTreeSet::new(),
            install_at: now,
            rng: SmallRng::seed_from_u64(seed),
            pulled: Returned {
                epoch: highest,
                rows: 0,
                bytes: 0,
            },
            finished: false,
            actions: VecDeque::new(),
            sets,
        };
        if this.others.is_empty() || planted(Fault::AmnesiacVotes) {
            this.finish();
        } else {
            this.begin(now, highest);
        }
        this
    }

    /// Whom it waits for: those without whom it cannot go on and who did not answer when last asked.
    pub(crate) fn waiting_for(&self) -> Vec<MemberId> {
        let open = self.sets.iter().filter(|(set, needed)| {
            self.count(set, |other| matches!(other.rows, Rows::All)) < **needed
        });
        let open: BTreeSet<_> = open.flat_map(|(set, _)| set).copied().collect();
        let silent = |member: &MemberId| self.others.get(member).is_some_and(|it| it.silent);
        open.into_iter().filter(silent).collect()
    }

    /// Who cannot read on its disk what this member has to learn.
    pub(crate) fn unreadable(&self) -> BTreeSet<MemberId> {
        let others = self.others.iter().filter(|(_, other)| other.unreadable);
        others.map(|(member, _)| *member).collect()
    }

    /// Begins from the start in the epoch after `highest`.
    fn begin(&mut self, now: Instant, highest: Epoch) {
        self.epoch = match planted(Fault::ReturnWithoutFence) {
            true => highest,
            false => highest.next_return(),
        };
        for other in self.others.values_mut() {
            let silent = other.silent;
            *other = Other::new(now);
            other.silent = silent;
        }
        self.pause = None;
        self.lost.clear();
        self.go_on(now);
    }

    /// Somebody knows an epoch that is not below this one. The first time this goes above it at once; but two that
    /// come back together must not drive each other on for ever.
    fn begin_above(&mut self, now: Instant, highest: Epoch) {
        if highest < self.epoch || highest.is_absurd(self.epoch) || self.finished {
            return;
        }
        if self.pause.is_some() {
            self.epoch = highest;
            return;
        }
        self.tries += 1;
        if self.tries == 1 {
            return self.begin(now, highest);
        }
        self.epoch = highest;
        let longest = RETURN_PAUSE_FIRST
            .saturating_mul(1 << self.tries.min(16))
            .min(RETURN_PAUSE_LONGEST);
        let pause = self.rng.random_range(longest / 2..=longest);
        self.pause = Some(now + pause);
    }

    /// Asks whom there is something to ask of, and when there is nothing left, ends.
    fn go_on(&mut self, now: Instant) {
        if self.finished || self.pause.is_some() {
            return;
        }
        if self.has_all() {
            match self.lost.is_empty() {
                true => self.finish(),
                false if self.installing.is_none() && self.install_at <= now => self.lose(),
                false => {}
            }
            return;
        }
        let pulls = self.is_enough(|other| other.fenced);
        let due = self.others.iter().filter(|(_, other)| other.ask_at <= now);
        let asks = due.filter_map(|(member, other)| Some((*member, self.question(other, pulls)?)));
        for (to, call) in asks.collect::<Vec<_>>() {
            if let Some(other) = self.others.get_mut(&to) {
                other.ask_at = now + RETURN_ANSWER_TIMEOUT;
                other.silent |= other.asked;
                other.asked = true;
            }
            self.ask(to, call);
        }
        if pulls && self.installing.is_none() && self.install_at <= now {
            self.install();
        }
    }

    /// What to ask another replica next. It is asked for rows once the fences are enough.
    fn question(&self, other: &Other, pulls: bool) -> Option<ReplicaCall> {
        if !other.fenced {
            let incarnation = self.life.incarnation;
            return Some(ReplicaCall::Fence { incarnation });
        }
        match &other.rows {
            Rows::From(place) if pulls => Some(ReplicaCall::Pull {
                with: self.life.member,
                place: place.clone(),
                limit: REPLICA_PAGE_ROWS,
            }),
            _ => None,
        }
    }

    fn ask(&mut self, to: MemberId, call: ReplicaCall) {
        let epoch = self.epoch;
        let request = ReplicaRequest { epoch, call };
        self.actions.push_back(Action::Send { to, request });
    }

    /// Hands the page of one of the others to its own replica. It does that for an empty page too, so that its own
    /// replica is in the epoch before it votes.
    fn install(&mut self) {
        let page = self.others.iter().find_map(|(member, other)| {
            let Rows::Page(rows, _) = &other.rows else {
                return None;
            };
            Some((*member, rows.clone()))
        });
        if let Some((member, rows)) = page {
            self.installing = Some((member, self.epoch));
            self.ask(self.life.member, ReplicaCall::Install { rows });
        }
    }

    /// Has its own replica take the rows for damaged that others could not read.
    fn lose(&mut self) {
        let lost = |key: &RowKey| ReplicaRow::of_state(key.clone(), RowState::default());
        let rows = self.lost.iter().map(lost).collect();
        self.installing = Some((self.life.member, self.epoch));
        self.ask(self.life.member, ReplicaCall::Install { rows });
    }

    /// Its own replica has installed what it was given last.
    fn on_installed(&mut self, now: Instant) {
        let Some((member, epoch)) = self.installing.take() else {
            return;
        };
        if member == self.life.member && epoch == self.epoch {
            self.lost.clear();
        }
        if let Some(other) = self.others.get_mut(&member).filter(|_| epoch == self.epoch)
            && let Rows::Page(rows, next) = &mut other.rows
        {
            self.pulled.rows += rows.len() as u64;
            self.pulled.bytes += rows.iter().map(size).sum::<u64>();
            other.rows = match next.take() {
                Some(place) => Rows::From(place),
                None => Rows::All,
            };
            other.ask_at = now;
        }
    }

    fn on_fenced(&mut self, now: Instant, from: MemberId, epoch: Epoch) {
        if let Some(other) = self.others.get_mut(&from).filter(|_| epoch == self.epoch)
            && !other.fenced
        {
            other.fenced = true;
            other.answered(now);
        }
    }

    fn on_pulled(
        &mut self,
        now: Instant,
        from: MemberId,
        asked: &PullPlace,
        rows: Vec<ReplicaRow>,
        next: Option<PullPlace>,
    ) {
        if let Some(other) = self.others.get_mut(&from)
            && matches!(&other.rows, Rows::From(place) if other.fenced && place == asked)
        {
            let (lost, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(ReplicaRow::is_damaged);
            if self.lost.len() + lost.len() > RETURN_LOST_ROWS_MAX {
                return self.on_failure(now, from);
            }
            self.lost.extend(lost.into_iter().map(|row| row.key));
            other.rows = Rows::Page(rows, next);
            other.answered(now);
        }
    }

    /// A member could not be asked, or cannot do now what it was asked.
    fn on_failure(&mut self, now: Instant, from: MemberId) {
        if from == self.life.member {
            self.installing = None;
            self.install_at = now + RETURN_REST;
        } else if let Some(other) = self.others.get_mut(&from) {
            other.silent = true;
            other.asked = false;
            other.ask_at = now + RETURN_REST;
        }
    }

    fn has_all(&self) -> bool {
        self.is_enough(|other| matches!(other.rows, Rows::All))
    }

    /// Whether of each slice so many of the others are as `is` says that every majority of its replicas has one of
    /// them.
    fn is_enough(&self, is: impl Fn(&Other) -> bool) -> bool {
        let mut sets = self.sets.iter();
        sets.all(|(set, needed)| self.count(set, &is) >= *needed)
    }

    fn count(&self, set: &BTreeSet<MemberId>, is: impl Fn(&Other) -> bool) -> usize {
        let others = set.iter().filter_map(|member| self.others.get(member));
        let count = others.filter(|other| is(other)).count();
        match planted(Fault::PullFromOne) && count > 0 {
            true => set.len(),
            false => count,
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        self.pulled.epoch = self.epoch;
        self.actions.push_back(Action::Finish(self.pulled));
    }
}

impl Machine for Return {
    type Outcome = Returned;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Failed { from } => self.on_failure(now, from),
            Input::Answer { from, answer } => match answer {
                ReplicaAnswer::Unavailable => self.on_failure(now, from),
                ReplicaAnswer::Unreadable { .. } => {
                    self.on_failure(now, from);
                    let other = self.others.get_mut(&from);
                    other.into_iter().for_each(|other| other.unreadable = true);
                }
                ReplicaAnswer::StaleEpoch { highest } => {
                    if from == self.life.member {
                        self.installing = None;
                    }
                    self.begin_above(now, highest);
                }
                ReplicaAnswer::Fenced { epoch } => self.on_fenced(now, from, epoch),
                ReplicaAnswer::Pulled {
                    epoch,
                    asked,
                    rows,
                    next,
                } if epoch == self.epoch => self.on_pulled(now, from, &asked, rows, next),
                ReplicaAnswer::Done if from == self.life.member => self.on_installed(now),
                // Nothing else is asked for here, or it was in an earlier epoch.
                _ => {}
            },
        }
        self.go_on(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self.pause {
            Some(until) if until <= now => self.begin(now, self.epoch),
            _ => self.go_on(now),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.finished || self.pause.is_some() {
            return self.pause.filter(|_| !self.finished);
        }
        let pulls = self.is_enough(|other| other.fenced);
        let asked = self.others.values();
        let asked = asked.filter(|other| self.question(other, pulls).is_some());
        let has_page = |other: &Other| matches!(other.rows, Rows::Page(..));
        let installs = self.others.values().any(has_page) || self.has_all();
        let install = self.installing.is_none() && installs;
        asked
            .map(|other| other.ask_at)
            .chain(install.then_some(self.install_at))
            .min()
    }

    fn poll_action(&mut self) -> Option<Action<Returned>> {
        self.actions.pop_front()
    }
}

/// The sets of others with whom a member holds slices, and how many of each are in every majority of the replicas
/// of such a slice, whichever it is, though the member itself is left out.
fn sets(placement: &Placement, me: MemberId) -> BTreeMap<BTreeSet<MemberId>, usize> {
    let lists = Slice::all().map(|slice| placement.preference_list(slice));
    let own = lists.filter(|list| list.contains(&me)).map(|list| {
        let others = list.iter().copied().filter(|member| *member != me);
        let others: BTreeSet<_> = others.collect();
        let needed = (list.len() - majority(list.len()) + 1).min(others.len());
        (others, needed)
    });
    own.collect()
}

/// Bytes of a row, of what it is of and what it says.
fn size(row: &ReplicaRow) -> u64 {
    let value = row.state.value().map_or(0, <[u8]>::len);
    (row.key.partition().len() + row.key.sort().len() + value) as u64
}
