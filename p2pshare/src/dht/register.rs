//! The register of one row: what a replica promises and accepts, and what a change makes of a state.
//!
//! **Invariants.** A replica takes nothing below what it promised. The state that a majority accepted
//! under one ballot is chosen: every later ballot starts from it or from one that came of it. A request
//! makes at most one version of a row, whoever sends it how often: it is looked for among the requests
//! that made the last versions before anything else is compared. (CASPaxos: Rystsov 2018,
//! arXiv 1802.07000.)

use super::planted::{Fault, planted};
use crate::wire::ring::{Ballot, RequestKey, RowState, Version};

/// What one replica knows of one row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Register {
    /// Nothing below this is taken any more.
    pub(crate) promised: Ballot,
    /// The proposal that brought the state; at most `promised`.
    pub(crate) accepted: Ballot,
    /// The state that it brought.
    pub(crate) state: RowState,
}

impl Register {
    /// One that has just accepted a state.
    pub(crate) fn of(ballot: Ballot, state: RowState) -> Self {
        Self {
            promised: ballot,
            accepted: ballot,
            state,
        }
    }

    /// Promises to take nothing below `ballot`, which has to be new; else says what was promised.
    pub(crate) fn prepare(&mut self, ballot: Ballot) -> Result<(), Ballot> {
        let again = ballot == self.promised
            && (planted(Fault::BallotReused) || planted(Fault::RoundReused));
        if ballot <= self.promised && !again && !planted(Fault::PromiseBelowPromise) {
            return Err(self.promised);
        }
        self.promised = ballot;
        Ok(())
    }

    /// Takes `state` under `ballot`, unless something above that was promised.
    pub(crate) fn accept(&mut self, ballot: Ballot, state: RowState) -> Result<(), Ballot> {
        if ballot < self.promised && !planted(Fault::AcceptBelowPromise) {
            return Err(self.promised);
        }
        *self = Self::of(ballot, state);
        Ok(())
    }
}

impl Default for Register {
    fn default() -> Self {
        Self::of(Ballot::ZERO, RowState::default())
    }
}

/// Whether a request may have been sent before.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// No: nobody can have made the change already.
    First,
    /// Yes, or it is not known.
    Retry,
}

/// A change that somebody wants made to a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    /// The version that the row must have: [`Version::NEVER`] creates it.
    pub(crate) expected: Version,
    /// The new value; `None` deletes.
    pub(crate) value: Option<Vec<u8>>,
    /// Who wants it.
    pub(crate) request: RequestKey,
    /// Whether it may have been wanted before.
    pub(crate) attempt: Attempt,
}

/// What a change makes of a state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    /// A new state.
    Apply(RowState),
    /// Nothing: this request made that version.
    AlreadyApplied(Version),
    /// Nothing: the row has another version.
    Conflict,
    /// Nothing: whether this request made the version that it wanted to make is forgotten.
    Unknown,
}

impl Change {
    /// What it makes of `state`.
    pub(crate) fn decide(&self, state: &RowState) -> Decision {
        if let Some(version) = produced_by(state.version(), state.recent(), &self.request)
            && !planted(Fault::RequestForgotten)
        {
            return Decision::AlreadyApplied(version);
        }
        if state.version() == self.expected {
            return Decision::Apply(state.next(self.value.clone(), self.request));
        }
        // A version has one maker. The makers of the last versions are known, and this request is
        // not among them; so if the version after the expected one is older, it may have made that.
        let wanted = self.expected.as_u64().saturating_add(1);
        let forgotten = state.version().as_u64() - state.recent().len() as u64;
        let again = self.attempt == Attempt::Retry && !planted(Fault::RetryAsFirst);
        if again && wanted <= forgotten {
            Decision::Unknown
        } else {
            Decision::Conflict
        }
    }
}

/// The version that `request` made, if `recent`, which made the last versions up to `version`, has it.
pub(crate) fn produced_by(
    version: Version,
    recent: &[RequestKey],
    request: &RequestKey,
) -> Option<Version> {
    let later = recent.iter().rev().position(|maker| maker == request)?;
    Some(Version::from_u64(version.as_u64() - later as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{MemberId, PeerId, RequestId};

    fn ballot(round: u64, member: u8) -> Ballot {
        Ballot {
            round,
            member: MemberId::from_bytes([member; 16]),
            incarnation: 1,
        }
    }

    fn request(i: u8) -> RequestKey {
        RequestKey {
            peer: PeerId::from_bytes([1; 32]),
            request: RequestId::from_bytes([i; 16]),
        }
    }

    fn change(expected: u64, value: &str, i: u8, attempt: Attempt) -> Change {
        Change {
            expected: Version::from_u64(expected),
            value: Some(value.into()),
            request: request(i),
            attempt,
        }
    }

    fn state_after(changes: u8) -> RowState {
        (0..changes).fold(RowState::default(), |state, i| state.next(None, request(i)))
    }

    #[test]
    fn ballots_order_by_round_first() {
        assert!(ballot(2, 1) > ballot(1, 9));
        assert!(ballot(1, 2) > ballot(1, 1));
        assert!(
            Ballot {
                incarnation: 2,
                ..ballot(1, 1)
            } > ballot(1, 1)
        );
        assert!(Ballot::ZERO < ballot(1, 0));
    }

    #[test]
    fn a_promise_holds_against_everything_below_it() {
        let mut register = Register::default();
        assert_eq!(register.prepare(ballot(2, 1)), Ok(()));
        assert_eq!(register.prepare(ballot(2, 1)), Err(ballot(2, 1)));
        assert_eq!(register.prepare(ballot(1, 9)), Err(ballot(2, 1)));
        assert_eq!(
            register.accept(ballot(1, 9), state_after(1)),
            Err(ballot(2, 1))
        );
        assert_eq!(register.accepted, Ballot::ZERO);
        assert_eq!(register.accept(ballot(2, 1), state_after(1)), Ok(()));
        // Without a promise of this replica, but of a majority, which the proposer knows.
        assert_eq!(register.accept(ballot(3, 1), state_after(2)), Ok(()));
        assert_eq!(register.prepare(ballot(3, 0)), Err(ballot(3, 1)));
        assert_eq!(
            (register.accepted, register.state),
            (ballot(3, 1), state_after(2))
        );
    }

    #[test]
    fn a_row_is_created_once() {
        let create = change(0, "a", 1, Attempt::First);
        let Decision::Apply(created) = create.decide(&RowState::default()) else {
            panic!()
        };
        assert_eq!(
            (created.version().as_u64(), created.value()),
            (1, Some(&b"a"[..]))
        );
        assert_eq!(
            change(0, "b", 2, Attempt::First).decide(&created),
            Decision::Conflict
        );
        // Also when it is deleted since.
        let deleted = created.next(None, request(3));
        assert_eq!(
            change(0, "b", 2, Attempt::First).decide(&deleted),
            Decision::Conflict
        );
    }

    #[test]
    fn a_request_is_found_before_the_version_is_compared() {
        let state = state_after(3);
        let again = change(1, "x", 1, Attempt::Retry);
        assert_eq!(
            again.decide(&state),
            Decision::AlreadyApplied(Version::from_u64(2))
        );
        let first = change(3, "x", 1, Attempt::First);
        assert_eq!(
            first.decide(&state),
            Decision::AlreadyApplied(Version::from_u64(2))
        );
    }

    #[test]
    fn a_retry_is_unknown_only_when_its_version_has_a_forgotten_maker() {
        let state = state_after(20);
        // Versions 5 to 20 have known makers.
        for (expected, decision) in [(3, Decision::Unknown), (4, Decision::Conflict)] {
            assert_eq!(
                change(expected, "x", 99, Attempt::Retry).decide(&state),
                decision
            );
            let first = change(expected, "x", 99, Attempt::First);
            assert_eq!(first.decide(&state), Decision::Conflict);
        }
        // From a version that was never reached nothing can have been made.
        assert_eq!(
            change(21, "x", 99, Attempt::Retry).decide(&state),
            Decision::Conflict
        );
        let next = change(20, "x", 99, Attempt::Retry).decide(&state);
        assert!(matches!(next, Decision::Apply(state) if state.version().as_u64() == 21));
    }

    proptest! {
        #[test]
        fn a_row_remembers_the_makers_of_its_last_versions(changes in 0..60u8) {
            let state = state_after(changes);
            prop_assert_eq!(state.version().as_u64(), u64::from(changes));
            for i in 0..60 {
                let made = produced_by(state.version(), state.recent(), &request(i));
                let remembered = i < changes && i + 16 >= changes;
                let expected = remembered.then(|| Version::from_u64(u64::from(i) + 1));
                prop_assert_eq!(made, expected);
            }
        }

        #[test]
        fn a_change_sent_again_and_again_is_made_at_most_once(
            others in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            let mut state = RowState::default();
            let mut made = 0;
            for (i, ours) in others.into_iter().enumerate() {
                let expected = if ours { 3 } else { state.version().as_u64() };
                let maker = if ours { 200 } else { i as u8 };
                let attempt = if made == 0 { Attempt::First } else { Attempt::Retry };
                match change(expected, "x", maker, attempt).decide(&state) {
                    Decision::Apply(next) => {
                        made += usize::from(ours);
                        state = next;
                    }
                    Decision::AlreadyApplied(version) => {
                        prop_assert_eq!((made, version.as_u64()), (1, 4));
                    }
                    Decision::Conflict => prop_assert_eq!(made, 0),
                    Decision::Unknown => prop_assert_eq!(made, 1),
                }
            }
            prop_assert!(made <= 1);
        }
    }
}
