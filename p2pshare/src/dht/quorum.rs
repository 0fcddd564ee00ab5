//! Counting to a majority.
//!
//! The size of a quorum follows from the number of replicas and nothing else, so that any two quorums
//! share a member and nobody can configure otherwise.

use std::collections::BTreeSet;

use super::planted::{Fault, planted};
use crate::identity::MemberId;

/// The least number of `members` of which any two sets overlap.
pub(crate) const fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// Who of the replicas has agreed to one thing, and who will not.
#[derive(Clone, Debug)]
pub(crate) struct Quorum {
    members: BTreeSet<MemberId>,
    agreed: BTreeSet<MemberId>,
    /// Those that answered that they will not.
    refused: BTreeSet<MemberId>,
    /// Those that cannot be reached, or take no part.
    failed: BTreeSet<MemberId>,
}

/// How a count stands.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Count {
    /// Neither yet.
    Open,
    /// A majority has agreed.
    Reached,
    /// No majority can agree any more, and it is known why: so many have failed, or so many have answered.
    Impossible,
}

impl Quorum {
    /// Nobody has answered yet.
    pub(crate) fn new(members: impl IntoIterator<Item = MemberId>) -> Self {
        Self {
            members: members.into_iter().collect(),
            agreed: BTreeSet::new(),
            refused: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// A new count among the same replicas.
    pub(crate) fn afresh(&self) -> Self {
        Self::new(self.members.iter().copied())
    }

    /// Counts an agreement; again, or from a stranger, it counts for nothing.
    pub(crate) fn agree(&mut self, member: MemberId) -> Count {
        if self.members.contains(&member) {
            self.refused.remove(&member);
            self.failed.remove(&member);
            self.agreed.insert(member);
        }
        self.count()
    }

    /// Counts a refusal, unless the member has agreed before.
    pub(crate) fn refuse(&mut self, member: MemberId) -> Count {
        if self.members.contains(&member) && !self.agreed.contains(&member) {
            self.failed.remove(&member);
            self.refused.insert(member);
        }
        self.count()
    }

    /// Counts a failure, unless the member has answered before.
    pub(crate) fn fail(&mut self, member: MemberId) -> Count {
        let answered = self.agreed.contains(&member) || self.refused.contains(&member);
        if self.members.contains(&member) && !answered {
            self.failed.insert(member);
        }
        self.count()
    }

    /// How it stands.
    pub(crate) fn count(&self) -> Count {
        let few = usize::from(planted(Fault::QuorumTooSmall) && self.members.len() > 1);
        let needed = majority(self.members.len()) - few;
        let left = self.members.len() - self.failed.len();
        if self.agreed.len() >= needed {
            Count::Reached
        } else if left < needed || (self.answered() >= needed && left - self.refused.len() < needed)
        {
            Count::Impossible
        } else {
            Count::Open
        }
    }

    fn answered(&self) -> usize {
        self.agreed.len() + self.refused.len()
    }

    /// How many can be reached, as far as is known: those that answered, and when a majority is out of
    /// reach, those also that were not waited for.
    pub(crate) fn reachable(&self) -> usize {
        match self.count() {
            Count::Impossible => self.members.len() - self.failed.len(),
            Count::Open | Count::Reached => self.answered(),
        }
    }

    /// Whether so many can be reached that together they could have agreed.
    pub(crate) fn is_within_reach(&self) -> bool {
        self.reachable() >= majority(self.members.len())
    }

    /// Whether all of these have agreed.
    pub(crate) fn have_agreed(&self, members: &[MemberId]) -> bool {
        members.iter().all(|member| self.agreed.contains(member))
    }

    /// Whether nobody has answered, and somebody may yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.answered() == 0 && self.count() == Count::Open
    }

    /// Whether everybody has answered or failed.
    pub(crate) fn is_complete(&self) -> bool {
        self.answered() + self.failed.len() == self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(i: u8) -> MemberId {
        MemberId::from_bytes([i; 16])
    }

    #[test]
    fn any_two_majorities_overlap_and_no_smaller_sets_do() {
        for members in 1..100 {
            assert!(2 * majority(members) > members);
            assert!(2 * (majority(members) - 1) <= members);
        }
        assert_eq!([1, 2, 3, 5].map(majority), [1, 2, 2, 3]);
    }

    #[test]
    fn it_is_reached_with_a_majority_and_impossible_without() {
        let mut quorum = Quorum::new([id(1), id(2), id(3)]);
        assert_eq!(quorum.agree(id(1)), Count::Open);
        assert_eq!(quorum.fail(id(2)), Count::Open);
        assert_eq!(quorum.clone().agree(id(3)), Count::Reached);
        assert_eq!(quorum.fail(id(3)), Count::Impossible);
        assert!(quorum.is_complete());
    }

    #[test]
    fn who_refuses_was_reached_and_a_third_is_waited_for_before_it_is_said_why() {
        let mut quorum = Quorum::new([id(1), id(2), id(3)]);
        quorum.refuse(id(1));
        quorum.fail(id(1));
        assert_eq!(quorum.fail(id(2)), Count::Open);
        let standing = |quorum: &Quorum| (quorum.count(), quorum.reachable());
        assert_eq!(standing(&quorum), (Count::Open, 1));
        let mut failed = quorum.clone();
        failed.fail(id(3));
        assert_eq!(standing(&failed), (Count::Impossible, 1));
        assert!(!failed.is_within_reach());
        for answer in [Quorum::agree, Quorum::refuse] {
            let mut answered = quorum.clone();
            answer(&mut answered, id(3));
            assert_eq!(standing(&answered), (Count::Impossible, 2));
            assert!(answered.is_within_reach());
        }
        assert_eq!(quorum.agree(id(1)), Count::Open);
        assert_eq!(quorum.refuse(id(1)), Count::Open);
        assert_eq!(quorum.agree(id(3)), Count::Reached);
    }

    #[test]
    fn strangers_and_repeats_count_for_nothing() {
        let mut quorum = Quorum::new([id(1), id(2), id(3)]);
        assert_eq!(quorum.agree(id(9)), Count::Open);
        assert_eq!(quorum.agree(id(1)), Count::Open);
        assert_eq!(quorum.agree(id(1)), Count::Open);
        assert_eq!(quorum.reachable(), 1);
    }

    #[test]
    fn an_agreement_stands_whatever_is_heard_later() {
        let mut quorum = Quorum::new([id(1), id(2), id(3)]);
        quorum.fail(id(1));
        quorum.agree(id(1));
        quorum.fail(id(1));
        assert_eq!(quorum.reachable(), 1);
        assert_eq!(quorum.agree(id(2)), Count::Reached);
    }
}
