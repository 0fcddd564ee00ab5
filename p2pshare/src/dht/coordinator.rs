//! The coordinator of one read or one change of one row: a machine that is told what the replicas answer
//! and what time it is, and says what to send and how it ended.
//!
//! A change asks a majority to promise (*prepare*), makes its change of the newest state that any of
//! them had accepted, and asks a majority to take that (*accept*). A read is one round when a majority
//! has accepted the same ballot; else it writes the newest state back as a change that changes nothing,
//! so that nobody later reads an older one. Whoever is refused tries again above the ballot that refused
//! it, after a random and growing pause, so that duels end.
//!
//! **Invariants.** An outcome is given only when the state that it rests on is chosen. A failure is
//! called certain only if no replica was ever asked to accept the change. `Finish` is not the end: the
//! machine goes on until every replica has answered or had its time. A repair ends well only when those that it is for have taken it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::machine::{Action, Input, Machine};
use super::planted::{Fault, planted};
use super::quorum::{Count, Quorum, majority};
use super::register::{Attempt, Change, Decision};
use super::task::{Failure, Intent, Outcome, Proposer, Task};
use crate::identity::MemberId;
use crate::limits::{
    DUEL_PAUSE_FIRST, DUEL_PAUSE_LONGEST, ROW_DEADLINE, ROW_PHASE_TIMEOUT, ROW_READ_PATIENCE,
};
use crate::wire::ring::{Ballot, Epoch, ReplicaAnswer, ReplicaCall, ReplicaRequest, RowState};

/// The machine.
#[derive(Debug)]
pub(crate) struct Coordinator {
    task: Task,
    proposer: Proposer,
    rng: SmallRng,
    phase: Phase,
    /// When the phase has had its time.
    timeout: Instant,
    /// When the whole has had its time.
    deadline: Instant,
    tries: u32,
    /// Whether a replica was asked to accept the change.
    exposed: bool,
    /// The replicas of which the last that is known is that they failed, or were silent as long as they were waited for.
    unreached: BTreeSet<MemberId>,
    /// An epoch of other members, of which a replica told.
    newer: Option<Epoch>,
    actions: VecDeque<Action<Result<Outcome, Failure>>>,
}

#[derive(Debug)]
enum Phase {
    /// Asked what the replicas have.
    Reading { answers: Answers, quorum: Quorum },
    /// Asked for promises.
    Preparing {
        ballot: Ballot,
        answers: Answers,
        quorum: Quorum,
    },
    /// Asked to accept a state; a majority of that means the outcome.
    Accepting {
        ballot: Ballot,
        outcome: Outcome,
        quorum: Quorum,
    },
    /// Waits before it tries again.
    Pausing,
    /// Has finished, and lets the other replicas answer.
    Settling { ballot: Ballot, quorum: Quorum },
    /// There is nothing more to do.
    Settled,
}

/// What replicas had accepted.
type Answers = BTreeMap<MemberId, (Ballot, RowState)>;

impl Coordinator {
    /// Begins a task. `seed` is for the pauses.
    pub(crate) fn new(now: Instant, task: Task, proposer: Proposer, seed: u64) -> Self {
        let mut this = Self {
            proposer,
            rng: SmallRng::seed_from_u64(seed),
            phase: Phase::Pausing,
            timeout: now,
            deadline: now + ROW_DEADLINE,
            tries: 0,
            exposed: false,
            unreached: BTreeSet::new(),
            newer: None,
            actions: VecDeque::new(),
            task,
        };
        if this.task.reachable < majority(this.task.replicas.len()) {
            this.finish(Err(insufficient(&this.task, this.task.reachable)));
        } else {
            this.begin(now);
        }
        this
    }

    /// Whether it may be dropped.
    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled) && self.actions.is_empty()
    }

    /// The first round of a try: reads ask what there is, changes prepare at once.
    fn begin(&mut self, now: Instant) {
        match self.task.intent {
            Intent::Read | Intent::Look if self.tries == 0 => self.read(now),
            _ => self.prepare(now),
        }
    }

    fn read(&mut self, now: Instant) {
        let quorum = self.ask(
            now,
            &ReplicaCall::Read {
                key: self.task.key.clone(),
            },
        );
        self.phase = Phase::Reading {
            answers: Answers::new(),
            quorum,
        };
    }

    fn on_answer(&mut self, now: Instant, from: MemberId, answer: ReplicaAnswer) {
        match answer {
            ReplicaAnswer::Row { accepted, state } => self.on_row(now, from, accepted, state),
            ReplicaAnswer::Promised {
                ballot,
                accepted,
                state,
            } => {
                self.on_promise(now, from, ballot, accepted, state);
            }
            ReplicaAnswer::Accepted { ballot } => self.on_accepted(from, ballot),
            ReplicaAnswer::Refused { ballot, promised } => {
                if self.proposer.rounds.pass(promised.round) {
                    self.task.round = self.task.round.max(promised.round);
                }
                self.on_failure(now, from, Some(ballot));
            }
            ReplicaAnswer::StaleEpoch { highest } => self.on_stale_epoch(now, from, highest),
            // Nothing else is asked for here.
            _ => {}
        }
    }

    fn on_row(&mut self, now: Instant, from: MemberId, accepted: Ballot, state: RowState) {
        let Phase::Reading { answers, quorum } = &mut self.phase else {
            return;
        };
        let count = quorum.agree(from);
        answers.insert(from, (accepted, state));
        if count != Count::Reached && !planted(Fault::ReadFromOne) {
            return;
        }
        if planted(Fault::ReadFromOne) || planted(Fault::NoWriteBack) {
            let newest = answers.values().max_by_key(|(ballot, _)| *ballot);
            let Some((_, state)) = newest.cloned() else {
                return;
            };
            return self.finish(Ok(Outcome::Read(state)));
        }
        // Whichever ballot a majority has accepted was the newest chosen one at some moment since the
        // read began.
        let agreed = answers
            .values()
            .find(|(ballot, _)| is_chosen(answers, *ballot, quorum));
        if let Some((_, state)) = agreed {
            let outcome = Outcome::Read(state.clone());
            self.finish(Ok(outcome));
        } else if quorum.is_complete() {
            self.prepare(now);
        } else {
            self.timeout = self.timeout.min(now + ROW_READ_PATIENCE);
        }
    }

    fn prepare(&mut self, now: Instant) {
        let ballot = Ballot {
            round: self.proposer.rounds.above(self.task.round),
            member: self.proposer.member,
            incarnation: self.proposer.incarnation,
        };
        self.task.round = ballot.round;
        let quorum = self.ask(
            now,
            &ReplicaCall::Prepare {
                key: self.task.key.clone(),
                ballot,
            },
        );
        self.phase = Phase::Preparing {
            ballot,
            answers: Answers::new(),
            quorum,
        };
    }

    fn on_promise(
        &mut self,
        now: Instant,
        from: MemberId,
        promised: Ballot,
        accepted: Ballot,
        state: RowState,
    ) {
        let Phase::Preparing {
            ballot,
            answers,
            quorum,
            ..
        } = &mut self.phase
        else {
            return;
        };
        if *ballot != promised {
            return;
        }
        answers.insert(from, (accepted, state));
        if quorum.agree(from) != Count::Reached {
            return;
        }
        let (rounds, epoch) = (&self.proposer.rounds, self.task.epoch);
        if !rounds.settle(&self.task.replicas, epoch) {
            return self.prepare(now);
        }
        let newest = match planted(Fault::AnyAcceptedState) {
            true => answers.values().next(),
            false => answers.values().max_by_key(|(ballot, _)| *ballot),
        };
        let Some((newest, state)) = newest else {
            return;
        };
        let (chosen, state) = (is_chosen(answers, *newest, quorum), state.clone());
        let (next, outcome) = match self.decide(&state) {
            Some((next, outcome)) => (next, outcome),
            None => return self.finish(Err(Failure::OutcomeUnknown)),
        };
        match next {
            Some(next) => {
                self.exposed = true;
                self.accept(now, promised, next, outcome);
            }
            None if chosen && !matches!(self.task.intent, Intent::Repair { .. }) => {
                self.finish(Ok(outcome));
            }
            None => self.accept(now, promised, state, outcome),
        }
    }

    /// What the intent makes of a state: the next one, if it is another, and what that means. `None` if
    /// it cannot be known.
    fn decide(&self, state: &RowState) -> Option<(Option<RowState>, Outcome)> {
        let change = match &self.task.intent {
            Intent::Read | Intent::Look | Intent::Repair { .. } => {
                return Some((None, Outcome::Read(state.clone())));
            }
            Intent::Change(change) => change,
        };
        let again;
        let change = if self.exposed {
            again = Change {
                attempt: Attempt::Retry,
                ..change.clone()
            };
            &again
        } else {
            change
        };
        match change.decide(state) {
            Decision::Apply(next) => {
                let version = next.version();
                Some((Some(next), Outcome::Applied(version)))
            }
            // It is this coordinator's own change, of an earlier try.
            Decision::AlreadyApplied(version) if self.exposed => {
                Some((None, Outcome::Applied(version)))
            }
            Decision::AlreadyApplied(version) => Some((None, Outcome::AlreadyApplied(version))),
            Decision::Conflict => Some((None, Outcome::Conflict(state.clone()))),
            Decision::Unknown => None,
        }
    }

    fn accept(&mut self, now: Instant, ballot: Ballot, state: RowState, outcome: Outcome) {
        let key = self.task.key.clone();
        let quorum = self.ask(now, &ReplicaCall::Accept { key, ballot, state });
        self.phase = Phase::Accepting {
            ballot,
            outcome,
            quorum,
        };
    }

    fn on_accepted(&mut self, from: MemberId, accepted: Ballot) {
        let (ballot, quorum, outcome) = match &mut self.phase {
            Phase::Accepting {
                ballot,
                quorum,
                outcome,
                ..
            } => (*ballot, quorum, Some(outcome)),
            Phase::Settling { ballot, quorum } => (*ballot, quorum, None),
            _ => return,
        };
        if ballot != accepted || quorum.agree(from) != Count::Reached {
            return;
        }
        // A repair is for those that may not be among the first.
        if outcome.is_some()
            && let Intent::Repair { of } = &self.task.intent
            && !quorum.have_agreed(of)
        {
            if quorum.is_complete() {
                self.finish(Err(Failure::Contended));
            }
            return;
        }
        let (outcome, quorum) = (outcome.cloned(), quorum.clone());
        if let Some(outcome) = outcome {
            self.finish(Ok(outcome));
        }
        self.settle(ballot, quorum);
    }

    fn settle(&mut self, ballot: Ballot, quorum: Quorum) {
        self.phase = match quorum.is_complete() {
            true => Phase::Settled,
            false => Phase::Settling { ballot, quorum },
        };
    }

    /// A replica knows a later epoch. If it is one of the same members, of whom one came back, this goes on in
    /// it from the start: nothing that was promised in the earlier one counts any more.
    fn on_stale_epoch(&mut self, now: Instant, from: MemberId, highest: Epoch) {
        let over = matches!(self.phase, Phase::Settling { .. } | Phase::Settled);
        if highest.list == self.task.epoch.list {
            if highest > self.task.epoch && !over {
                self.task.epoch = highest;
                self.tries += 1;
                self.prepare(now);
            }
            return;
        }
        self.newer = self.newer.max(Some(highest));
        self.on_failure(now, from, None);
    }

    /// A replica will not take part in the phase that asked under `ballot`, or in any.
    fn on_failure(&mut self, now: Instant, from: MemberId, asked: Option<Ballot>) {
        match &mut self.phase {
            Phase::Reading { quorum, .. } => {
                let count = quorum.fail(from);
                if self.newer.is_some() {
                    self.give_up();
                } else if count == Count::Impossible {
                    self.pause(now);
                } else if count == Count::Reached && quorum.is_complete() {
                    self.prepare(now);
                }
            }
            Phase::Preparing { ballot, quorum, .. } | Phase::Accepting { ballot, quorum, .. } => {
                if asked.is_some_and(|asked| asked != *ballot) {
                    return;
                }
                match quorum.fail(from) {
                    Count::Impossible if self.newer.is_some() => self.give_up(),
                    Count::Impossible => self.pause(now),
                    // A repair that a majority took, and one that it is for did not.
                    Count::Reached if quorum.is_complete() => {
                        self.finish(Err(Failure::Contended));
                    }
                    Count::Open | Count::Reached => {}
                }
            }
            Phase::Settling { ballot, quorum } => {
                if asked.is_none_or(|asked| asked == *ballot) {
                    quorum.fail(from);
                    let (ballot, quorum) = (*ballot, quorum.clone());
                    self.settle(ballot, quorum);
                }
            }
            Phase::Pausing | Phase::Settled => {}
        }
    }

    /// Waits a while, longer each time and never the same for two, before the next try.
    fn pause(&mut self, now: Instant) {
        let longest = DUEL_PAUSE_FIRST
            .saturating_mul(1 << self.tries.min(16))
            .min(DUEL_PAUSE_LONGEST);
        let pause = self.rng.random_range(longest / 2..=longest);
        self.tries += 1;
        let failure = self.failure();
        let too_few = matches!(failure, Failure::InsufficientReplicas { .. });
        if now + pause >= self.deadline || (too_few && matches!(self.task.intent, Intent::Look)) {
            return self.finish(Err(failure));
        }
        self.phase = Phase::Pausing;
        self.timeout = now + pause;
    }

    fn give_up(&mut self) {
        self.finish(Err(self.failure()));
    }

    /// What is in the way, by all that was heard up to now.
    fn failure(&self) -> Failure {
        let replicas = self.task.replicas.iter();
        let reachable = replicas.filter(|id| !self.unreached.contains(id)).count();
        if self.exposed && !planted(Fault::CertainAfterExposure) {
            Failure::OutcomeUnknown
        } else if let Some(epoch) = self.newer {
            Failure::StaleEpoch(epoch)
        } else if reachable < majority(self.task.replicas.len()) {
            insufficient(&self.task, reachable)
        } else {
            Failure::Contended
        }
    }

    fn finish(&mut self, result: Result<Outcome, Failure>) {
        debug_assert!(!matches!(
            self.phase,
            Phase::Settling { .. } | Phase::Settled
        ));
        self.actions.push_back(Action::Finish(result));
        self.phase = Phase::Settled;
    }

    /// Asks every replica, and starts to count.
    fn ask(&mut self, now: Instant, call: &ReplicaCall) -> Quorum {
        self.timeout = now + ROW_PHASE_TIMEOUT;
        for to in self.task.replicas.iter().copied() {
            let request = ReplicaRequest {
                epoch: self.task.epoch,
                call: call.clone(),
            };
            self.actions.push_back(Action::Send { to, request });
        }
        Quorum::new(self.task.replicas.iter().copied())
    }
}

impl Machine for Coordinator {
    type Outcome = Result<Outcome, Failure>;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Failed { from }
            | Input::Answer {
                from,
                answer: ReplicaAnswer::Unavailable,
            } => {
                self.unreached.insert(from);
                self.on_failure(now, from, None);
            }
            Input::Answer { from, answer } => {
                self.unreached.remove(&from);
                self.on_answer(now, from, answer);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|timeout| now < timeout) {
            return;
        }
        if let Phase::Reading { quorum, .. }
        | Phase::Preparing { quorum, .. }
        | Phase::Accepting { quorum, .. } = &self.phase
            && now >= self.timeout
        {
            // Where it is this member's own that is silent, there is just too much to do here.
            let me = self.proposer.member;
            self.unreached
                .extend(quorum.silent().filter(|id| *id != me));
        }
        match &self.phase {
            Phase::Settling { .. } => self.phase = Phase::Settled,
            _ if now >= self.deadline => self.give_up(),
            Phase::Reading { quorum, .. } if quorum.count() == Count::Reached => self.prepare(now),
            Phase::Reading { .. } | Phase::Pausing => self.begin(now),
            Phase::Accepting { quorum, .. } if quorum.count() == Count::Reached => {
                self.finish(Err(Failure::Contended));
            }
            Phase::Preparing { .. } | Phase::Accepting { .. } => self.pause(now),
            Phase::Settled => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Settled => None,
            Phase::Settling { .. } => Some(self.timeout),
            _ => Some(self.timeout.min(self.deadline)),
        }
    }

    fn poll_action(&mut self) -> Option<Action<Self::Outcome>> {
        self.actions.pop_front()
    }
}

fn insufficient(task: &Task, reachable: usize) -> Failure {
    let members = task.replicas.len();
    Failure::InsufficientReplicas {
        reachable,
        members,
        needed: majority(members),
    }
}

/// Whether a majority has accepted this ballot.
fn is_chosen(answers: &Answers, ballot: Ballot, quorum: &Quorum) -> bool {
    let mut count = quorum.afresh();
    answers
        .iter()
        .filter(|(_, (accepted, _))| *accepted == ballot)
        .any(|(member, _)| count.agree(*member) == Count::Reached)
}
