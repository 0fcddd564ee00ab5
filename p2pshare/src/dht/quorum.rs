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
    failed: BTreeSet<MemberId>,
}

/// How a count stands.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Count {
    /// Neither yet.
    Open,
    /// A majority has agreed.
    Reached,
    /// So many have failed that no majority can agree any more.
    Impossible,
}

impl Quorum {
    /// Nobody has answered yet.
    pub(crate) fn new(members: impl IntoIterator<Item = MemberId>) -> Self {
        Self {
            members: members.into_iter().collect(),
            agreed: BTreeSet::new(),
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
            self.failed.remove(&member);
            self.agreed.insert(member);
        }
        self.count()
    }

    /// Counts a failure, unless the member has agreed before.
    pub(crate) fn fail(&mut self, member: MemberId) -> Count {
        if self.members.contains(&member) && !self.agreed.contains(&member) {
            self.failed.insert(member);
        }
        self.count()
    }

    /// How it stands.
    pub(crate) fn count(&self) -> Count {
        let few = usize::from(planted(Fault::QuorumTooSmall) && self.members.len() > 1);
        let needed = majority(self.members.len()) - few;
        if self.agreed.len() >= needed {
            Count::Reached
        } else if self.members.len() - self.failed.len() < needed {
            Count::Impossible
        } else {
            Count::Open
        }
    }

    /// Those that have neither agreed nor failed.
    pub(crate) fn silent(&self) -> impl Iterator<Item = MemberId> {
        let members = self.members.iter().copied();
        members.filter(|member| !self.agreed.contains(member) && !self.failed.contains(member))
    }

    /// Whether all of these have agreed.
    pub(crate) fn have_agreed(&self, members: &[MemberId]) -> bool {
        members.iter().all(|member| self.agreed.contains(member))
    }

    /// Whether everybody has agreed or failed.
    pub(crate) fn is_complete(&self) -> bool {
        self.agreed.len() + self.failed.len() == self.members.len()
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
    fn strangers_and_repeats_count_for_nothing() {
        let mut quorum = Quorum::new([id(1), id(2), id(3)]);
        assert_eq!(quorum.agree(id(9)), Count::Open);
        assert_eq!(quorum.agree(id(1)), Count::Open);
        assert_eq!(quorum.agree(id(1)), Count::Open);
        assert!(quorum.silent().eq([id(2), id(3)]));
    }

    #[test]
    fn an_agreement_stands_whatever_is_heard_later() {
        let mut quorum = Quorum::new([id(1), id(2), id(3)]);
        quorum.fail(id(1));
        quorum.agree(id(1));
        quorum.fail(id(1));
        assert!(quorum.silent().eq([id(2), id(3)]));
        assert_eq!(quorum.agree(id(2)), Count::Reached);
    }
}
