//! Gives this member what another one knows of leases and it does not: it compares the numbers of the slots
//! that both hold, page by page, and pulls those where the other's is higher.
//!
//! **Invariant.** Nothing is ever pushed, and nothing pulled that is not newer; when both have done it, and
//! nothing was said meanwhile, they know the same. A member that lost all its memory gets it back so.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::table::push_number;
use crate::dht::machine::{Action, Input, Machine};
use crate::dht::planted::{Fault, planted};
use crate::identity::MemberId;
use crate::limits::LEASE_EXCHANGE_SILENCE_MAX;
use crate::wire::ring::{
    Epoch, LeaseNews, LeasePlace, ReplicaAnswer, ReplicaCall, ReplicaRequest, SessionVector,
};

/// The machine.
#[derive(Debug)]
pub(crate) struct LeaseExchange {
    epoch: Epoch,
    me: MemberId,
    with: MemberId,
    phase: Phase,
    timeout: Instant,
    slots: usize,
    actions: VecDeque<Action<Exchanged>>,
}

/// How an exchange ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Exchanged {
    /// Slots of which the other knew more.
    pub(crate) slots: usize,
    /// Whether all were compared, and what was lacking has come.
    pub(crate) complete: bool,
}

#[derive(Debug)]
enum Phase {
    /// Waits for a page of each member's numbers, of the slots behind `after`.
    Comparing {
        after: Option<LeasePlace>,
        mine: Option<Page>,
        theirs: Option<Page>,
    },
    /// Waits for the slots behind `after` that are newer there than what is `known` here. The comparison
    /// goes on behind `next`, or is over.
    Pulling {
        asked: Instant,
        known: Vec<SessionVector>,
        after: Option<LeasePlace>,
        next: Option<LeasePlace>,
    },
    /// Waits until this member has taken them. If there are more, goes on pulling behind `more`.
    Taking {
        known: Vec<SessionVector>,
        more: Option<LeasePlace>,
        next: Option<LeasePlace>,
    },
    Settled,
}

#[derive(Clone, Debug)]
struct Page {
    numbers: BTreeMap<LeasePlace, u64>,
    next: Option<LeasePlace>,
}

impl LeaseExchange {
    /// Begins to give `me` what it lacks and `with` knows.
    pub(crate) fn new(now: Instant, epoch: Epoch, me: MemberId, with: MemberId) -> Self {
        let mut this = Self {
            epoch,
            me,
            with,
            phase: Phase::Settled,
            timeout: now,
            slots: 0,
            actions: VecDeque::new(),
        };
        this.compare(now, None);
        this
    }

    fn send(&mut self, now: Instant, to: MemberId, call: ReplicaCall) {
        let epoch = self.epoch;
        let request = ReplicaRequest { epoch, call };
        self.actions.push_back(Action::Send { to, request });
        self.timeout = now + LEASE_EXCHANGE_SILENCE_MAX;
    }

    fn finish(&mut self, complete: bool) {
        self.phase = Phase::Settled;
        let slots = self.slots;
        let exchanged = Exchanged { slots, complete };
        self.actions.push_back(Action::Finish(exchanged));
    }

    fn compare(&mut self, now: Instant, after: Option<LeasePlace>) {
        self.phase = Phase::Comparing {
            after,
            mine: None,
            theirs: None,
        };
        for (to, with) in [(self.me, self.with), (self.with, self.me)] {
            self.send(now, to, ReplicaCall::LeaseVectors { with, after });
        }
    }

    fn on_vectors(
        &mut self,
        now: Instant,
        from: MemberId,
        sessions: Vec<SessionVector>,
        next: Option<LeasePlace>,
    ) {
        let (me, with) = (self.me, self.with);
        let Phase::Comparing {
            after,
            mine,
            theirs,
        } = &mut self.phase
        else {
            return;
        };
        let page = Page {
            numbers: places(&sessions).collect(),
            next,
        };
        // An answer to an earlier question.
        let first = page.numbers.keys().next().copied();
        if after.is_some()
            && (first.is_some() && first <= *after || next.is_some() && next <= *after)
        {
            return;
        }
        match from {
            _ if from == me => *mine = Some(page),
            _ if from == with => *theirs = Some(page),
            _ => return,
        }
        let (Some(mine), Some(theirs)) = (mine, theirs) else {
            return;
        };
        let next = match (mine.next, theirs.next) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (next, None) | (None, next) => next,
        };
        let mut known = Vec::new();
        for (place, number) in &theirs.numbers {
            if next.is_some_and(|next| *place > next) {
                break;
            }
            let have = mine.numbers.get(place).copied().unwrap_or_default();
            if *number > have {
                push_number(&mut known, place.owner, (place.slice, have));
                self.slots += 1;
            }
        }
        match (known.is_empty(), next) {
            (false, next) => self.pull(now, known, None, next),
            (true, Some(next)) => self.compare(now, Some(next)),
            (true, None) => self.finish(true),
        }
    }

    fn pull(
        &mut self,
        now: Instant,
        mut known: Vec<SessionVector>,
        after: Option<LeasePlace>,
        next: Option<LeasePlace>,
    ) {
        if let Some(after) = after {
            for session in &mut known {
                let owner = session.owner;
                let is_open = |slice| LeasePlace { owner, slice } > after;
                session.slices.retain(|(slice, _)| is_open(*slice));
            }
            known.retain(|session| !session.slices.is_empty());
        }
        let call = ReplicaCall::LeaseLacking {
            known: known.clone(),
            after,
        };
        self.phase = Phase::Pulling {
            asked: now,
            known,
            after,
            next,
        };
        self.send(now, self.with, call);
    }

    fn on_answer(&mut self, now: Instant, from: MemberId, answer: ReplicaAnswer) {
        let phase = std::mem::replace(&mut self.phase, Phase::Settled);
        match (phase, answer) {
            (phase, ReplicaAnswer::StaleEpoch { .. } | ReplicaAnswer::Unavailable) => {
                self.phase = phase;
                self.on_failure(from);
            }
            (phase @ Phase::Comparing { .. }, ReplicaAnswer::LeaseVectors { sessions, next }) => {
                self.phase = phase;
                self.on_vectors(now, from, sessions, next);
            }
            (
                Phase::Pulling {
                    asked,
                    known,
                    after,
                    next,
                },
                ReplicaAnswer::LeasesLacking { news, next: more },
            ) if from == self.with && (more.is_none() || more > after) => {
                self.phase = Phase::Taking { known, more, next };
                let news = aged(news, now.saturating_duration_since(asked));
                self.send(now, self.me, ReplicaCall::LeasePut(news));
            }
            (Phase::Taking { known, more, next }, ReplicaAnswer::LeasesTaken { .. })
                if from == self.me =>
            {
                match (more, next) {
                    (Some(more), next) => self.pull(now, known, Some(more), next),
                    (None, Some(next)) => self.compare(now, Some(next)),
                    (None, None) => self.finish(true),
                }
            }
            // Nothing that is waited for.
            (phase, _) => self.phase = phase,
        }
    }

    fn on_failure(&mut self, from: MemberId) {
        let open = !matches!(self.phase, Phase::Settled);
        if open && (from == self.me || from == self.with) {
            self.finish(false);
        }
    }
}

impl Machine for LeaseExchange {
    type Outcome = Exchanged;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Answer { from, answer } => self.on_answer(now, from, answer),
            Input::Failed { from } => self.on_failure(from),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|timeout| timeout <= now) {
            self.finish(false);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Settled => None,
            _ => Some(self.timeout),
        }
    }

    fn poll_action(&mut self) -> Option<Action<Exchanged>> {
        self.actions.pop_front()
    }
}

/// News that may have been under way for `age`, without those that are over since: or two members that give each other
/// what they forgot would keep it for ever.
fn aged(mut news: Vec<LeaseNews>, age: Duration) -> Vec<LeaseNews> {
    let age = match planted(Fault::LeaseClockShared) {
        true => 0,
        // Rounded up: what is passed on may lose a moment, and never gain one.
        false => u32::try_from(age.as_micros().div_ceil(1000)).unwrap_or(u32::MAX),
    };
    for news in &mut news {
        news.expires_in = news.expires_in.saturating_sub(age);
    }
    news.retain(|news| news.expires_in > 0);
    news
}

fn places(sessions: &[SessionVector]) -> impl Iterator<Item = (LeasePlace, u64)> {
    sessions.iter().flat_map(|session| {
        let owner = session.owner;
        let place = move |&(slice, number)| (LeasePlace { owner, slice }, number);
        session.slices.iter().map(place)
    })
}
