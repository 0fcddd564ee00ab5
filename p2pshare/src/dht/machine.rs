//! A machine runs one thing of the ring to its end without acting itself: it says what to ask of which member,
//! and is told what they answer, that they do not, and what time it is.
//!
//! **Invariant.** What a machine does follows from what it was given, told and the seed it has, and of those that
//! propose also from the [rounds](super::task::Rounds) that their member has handed out to others; so the driver over
//! a network and the simulator run the same code. It asks its own member like any other.

use std::time::Instant;

use crate::identity::MemberId;
use crate::wire::ring::{ReplicaAnswer, ReplicaRequest};

/// One thing under way.
pub(crate) trait Machine {
    /// How it ends.
    type Outcome;

    /// Takes an answer, or the news that none will come. Late, repeated and stray ones never make an outcome wrong;
    /// that a member cannot answer may be taken for the answer to a later question, and end the machine sooner.
    fn handle(&mut self, now: Instant, input: Input);

    /// Lets time pass. Safe to call early, or twice.
    fn handle_timeout(&mut self, now: Instant);

    /// When to call [`Machine::handle_timeout`] next.
    fn poll_timeout(&self) -> Option<Instant>;

    /// What to do next; `None` until the next input or timeout. Some go on after they have finished, until those who
    /// were asked have answered or had their time.
    fn poll_action(&mut self) -> Option<Action<Self::Outcome>>;
}

/// What a machine is told.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A member answered.
    Answer {
        from: MemberId,
        answer: ReplicaAnswer,
    },
    /// A member could not be asked, or its connection broke before it answered.
    Failed { from: MemberId },
}

/// What a machine wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action<O> {
    /// Ask a member.
    Send {
        to: MemberId,
        request: ReplicaRequest,
    },
    /// Tell whoever wanted it; it comes once.
    Finish(O),
}
