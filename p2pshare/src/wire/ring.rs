//! The plain data of the ring: rows and their registers, ballots, epochs, leases, and what replicas say to
//! each other. Behaviour lives in `dht`; here is only what can be written down, and every bound on it is
//! checked when it is read back.

mod calls;
mod hello;
mod lease;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::identity::{MemberId, PeerId, RequestId};
use crate::limits::{BALLOT_ROUND_MAX, TREE_SLICES_PER_GROUP};

pub(crate) use calls::{
    PullPlace, ReplicaAnswer, ReplicaAnswers, ReplicaBatch, ReplicaCall, ReplicaRequest,
    ReplicaRow, Sum, TreeNode,
};
pub(crate) use hello::{Clocks, Hello, Life, RingMember, RingRecord, Standing, Welcome};
pub(crate) use lease::{LeaseEntry, LeaseOwner, LeasePlace, SessionVector, SliceNews, SlotEntry};
pub use lease::{LeaseKey, LeaseNews};

/// One of the 2^14 fixed parts of the key circle, the unit of placement, repair and movement.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub(crate) struct Slice(u16);

impl Slice {
    /// How many bits of the hash of a partition key name its slice.
    pub(crate) const BITS: u32 = 14;
    /// How many slices there are.
    pub(crate) const COUNT: u16 = 1 << Self::BITS;
    /// The first.
    pub(crate) const FIRST: Self = Self(0);

    /// The slice with this index, if there is one.
    pub(crate) fn new(index: u16) -> Option<Self> {
        (index < Self::COUNT).then_some(Self(index))
    }

    /// The slice that the first bits of a hash name.
    pub(crate) fn from_first_bits(bits: u16) -> Self {
        Self(bits >> (u16::BITS - Self::BITS))
    }

    /// Its index, below [`Slice::COUNT`].
    pub(crate) fn index(self) -> u16 {
        self.0
    }

    /// The slices of a group, in order.
    pub(crate) fn of_group(group: u8) -> impl Iterator<Item = Self> {
        let first = u16::from(group) * TREE_SLICES_PER_GROUP;
        (first..first + TREE_SLICES_PER_GROUP).filter_map(Self::new)
    }

    /// Every slice, in order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

impl TryFrom<u16> for Slice {
    type Error = &'static str;

    fn try_from(index: u16) -> Result<Self, Self::Error> {
        Self::new(index).ok_or("no such slice")
    }
}

/// The key of a row: the partition decides which trackers hold it, and rows of one partition are listed
/// together, in the order of the sort key's bytes.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "RowKeyForm")]
pub struct RowKey {
    partition: Vec<u8>,
    sort: Vec<u8>,
}

/// A key that is empty where it must not be, or too long.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a {part} of {len} bytes; it has {min} to {max}")]
pub struct KeyError {
    part: &'static str,
    len: usize,
    min: usize,
    max: usize,
}

impl KeyError {
    fn check(part: &'static str, bytes: &[u8], min: usize, max: usize) -> Result<(), Self> {
        let len = bytes.len();
        if (min..=max).contains(&len) {
            Ok(())
        } else {
            Err(Self {
                part,
                len,
                min,
                max,
            })
        }
    }
}

impl RowKey {
    /// Bytes in a partition key; at least one.
    pub const PARTITION_BYTES_MAX: usize = 255;
    /// Bytes in a sort key, which may be empty.
    pub const SORT_BYTES_MAX: usize = 512;

    /// The key with these two parts.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when a part does not fit its bounds.
    pub fn new(partition: impl Into<Vec<u8>>, sort: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let (partition, sort) = (partition.into(), sort.into());
        KeyError::check("partition key", &partition, 1, Self::PARTITION_BYTES_MAX)?;
        KeyError::check("sort key", &sort, 0, Self::SORT_BYTES_MAX)?;
        Ok(Self { partition, sort })
    }

    /// The part that decides where the row lives.
    #[must_use]
    pub fn partition(&self) -> &[u8] {
        &self.partition
    }

    /// The part that orders the rows of a partition.
    #[must_use]
    pub fn sort(&self) -> &[u8] {
        &self.sort
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (partition, sort) = (self.partition.escape_ascii(), self.sort.escape_ascii());
        write!(f, "RowKey({partition}|{sort})")
    }
}

#[derive(Deserialize)]
struct RowKeyForm {
    partition: Vec<u8>,
    sort: Vec<u8>,
}

impl TryFrom<RowKeyForm> for RowKey {
    type Error = KeyError;

    fn try_from(form: RowKeyForm) -> Result<Self, KeyError> {
        Self::new(form.partition, form.sort)
    }
}

/// How often a row was changed. It rises by one with each change and never falls.
#[derive(
    Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize,
)]
pub struct Version(u64);

impl Version {
    /// The version of a row that nobody has written yet.
    pub const NEVER: Self = Self(0);

    /// The version after `changes` changes.
    #[must_use]
    pub const fn from_u64(changes: u64) -> Self {
        Self(changes)
    }

    /// The number of changes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// The name of one change, for ever: who asked, and which of its requests it was. A retry has the same.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct RequestKey {
    /// Who asked.
    pub peer: PeerId,
    /// Which of its requests it was.
    pub request: RequestId,
}

/// The content of a row. That there is no value is a content too: rows are never removed.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RowStateForm")]
pub(crate) struct RowState {
    version: Version,
    value: Option<Vec<u8>>,
    recent: Vec<RequestKey>,
}

impl RowState {
    /// Bytes in a value.
    pub(crate) const VALUE_BYTES_MAX: usize = 16 * 1024;
    /// How many requests a row remembers.
    pub(crate) const RECENT_MAX: usize = 16;

    /// How often it was changed.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Its value; `None` if it was never written, or deleted.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// The requests that made the last versions, the newest last: one each, so that the last made
    /// [`RowState::version`], the one before it the version before it, and so on.
    pub(crate) fn recent(&self) -> &[RequestKey] {
        &self.recent
    }

    /// The next state: a new value, made by `request`.
    pub(crate) fn next(&self, value: Option<Vec<u8>>, request: RequestKey) -> Self {
        let forgotten = (self.recent.len() + 1).saturating_sub(Self::RECENT_MAX);
        let mut recent = self.recent[forgotten..].to_vec();
        recent.push(request);
        Self {
            version: Version(self.version.0.saturating_add(1)),
            value,
            recent,
        }
    }

    /// Its parts, in the order of their declaration.
    pub(crate) fn into_parts(self) -> (Version, Option<Vec<u8>>, Vec<RequestKey>) {
        (self.version, self.value, self.recent)
    }
}

#[derive(Deserialize)]
struct RowStateForm {
    version: Version,
    value: Option<Vec<u8>>,
    recent: Vec<RequestKey>,
}

impl TryFrom<RowStateForm> for RowState {
    type Error = &'static str;

    fn try_from(form: RowStateForm) -> Result<Self, Self::Error> {
        let RowStateForm {
            version,
            value,
            recent,
        } = form;
        if value
            .as_ref()
            .is_some_and(|value| value.len() > Self::VALUE_BYTES_MAX)
        {
            return Err("a row's value is too long");
        }
        let remembered = version.0.min(Self::RECENT_MAX as u64);
        if recent.len() as u64 != remembered {
            return Err("a row does not remember as many requests as it must");
        }
        if version == Version::NEVER && value.is_some() {
            return Err("a row that was never written has a value");
        }
        Ok(Self {
            version,
            value,
            recent,
        })
    }
}

/// The number of a proposal, greater than every one that its proposer made before. No two proposals
/// share one: the round is never used twice by one incarnation of one member.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "BallotForm")]
pub(crate) struct Ballot {
    /// Compared first, so that whoever was refused can pass the one that refused it. At most
    /// [`BALLOT_ROUND_MAX`].
    pub(crate) round: u64,
    /// Whose proposal it is.
    pub(crate) member: MemberId,
    /// In which life of that member: it rises at every start.
    pub(crate) incarnation: u64,
}

impl Ballot {
    /// Less than the ballot of any proposal.
    pub(crate) const ZERO: Self = Self {
        round: 0,
        member: MemberId::from_bytes([0; 16]),
        incarnation: 0,
    };

    /// At least as high as every ballot of a round.
    pub(crate) const fn last_of(round: u64) -> Self {
        Self {
            round,
            member: MemberId::from_bytes([0xff; 16]),
            incarnation: u64::MAX,
        }
    }
}

#[derive(Deserialize)]
struct BallotForm {
    round: u64,
    member: MemberId,
    incarnation: u64,
}

impl TryFrom<BallotForm> for Ballot {
    type Error = &'static str;

    fn try_from(form: BallotForm) -> Result<Self, Self::Error> {
        let BallotForm {
            round,
            member,
            incarnation,
        } = form;
        let ballot = Self {
            round,
            member,
            incarnation,
        };
        (round <= BALLOT_ROUND_MAX)
            .then_some(ballot)
            .ok_or("a round that no ring reaches")
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ballot({}, {:?}, {})",
            self.round, self.member, self.incarnation
        )
    }
}

/// The register of a row as it is on disk: what was accepted last. What is promised is kept for all rows together.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum StoredRegister {
    /// The first form.
    V1 {
        /// The proposal that brought the state.
        accepted: Ballot,
        /// The state that it brought.
        state: RowState,
    },
}

/// Which members count: the list of them has a number that rises with each change of who is in the ring, and
/// within one list it is counted how often a member came back that may have forgotten something. Whatever was
/// promised or accepted in an earlier epoch by such a member no longer counts.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// The number of the list.
    pub(crate) list: u64,
    /// How often a member of this list came back without its memory.
    pub(crate) returns: u64,
}

impl Epoch {
    /// The epoch of the founders.
    pub(crate) const FOUNDING: Self = Self {
        list: 1,
        returns: 0,
    };

    /// The next epoch of the same list.
    pub(crate) const fn next_return(self) -> Self {
        Self {
            list: self.list,
            returns: self.returns.saturating_add(1),
        }
    }
}
