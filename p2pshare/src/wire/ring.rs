//! The plain data of the ring: rows and their registers, ballots, epochs, leases, and what replicas say to
//! each other. Behaviour lives in `dht`; here is only what can be written down, and every bound on it is
//! checked when it is read back.

mod lease;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::lease::{
    LeaseEntry, LeaseOwner, LeasePlace, SessionVector, SliceNews, SlotEntry,
};
pub use self::lease::{LeaseKey, LeaseNews};
use super::frame::Message;
use crate::identity::{MemberId, PeerId, RequestId};

/// One of the 2^14 fixed parts of the key circle, the unit of placement, repair and movement.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub(crate) struct Slice(u16);

impl Slice {
    /// How many bits of the hash of a partition key name its slice.
    pub(crate) const BITS: u32 = 14;
    /// How many slices there are.
    pub(crate) const COUNT: u16 = 1 << Self::BITS;

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

    /// Every slice, in order.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a ring of several trackers uses it")
    )]
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
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a ring of several trackers uses it")
    )]
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
pub(crate) struct Ballot {
    /// Compared first, so that whoever was refused can pass the one that refused it.
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

/// What one replica knows of one row.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Register {
    /// Nothing below this is taken any more.
    pub(crate) promised: Ballot,
    /// The proposal that brought the state; at most `promised`.
    pub(crate) accepted: Ballot,
    /// The state that it brought.
    pub(crate) state: RowState,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            promised: Ballot::ZERO,
            accepted: Ballot::ZERO,
            state: RowState::default(),
        }
    }
}

/// A register as it is on disk.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum StoredRegister {
    /// The first form.
    V1(Register),
}

/// Which list of members counts: it rises with each change of who is in the ring.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub(crate) struct Epoch(pub(crate) u64);

impl Epoch {
    /// The epoch of the founders.
    pub(crate) const FOUNDING: Self = Self(1);
}

/// What a coordinator asks of a replica.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReplicaRequest {
    /// The epoch in which it is asked; a replica that knows a later one refuses.
    pub(crate) epoch: Epoch,
    /// What is asked.
    pub(crate) call: ReplicaCall,
}

/// The calls of [`ReplicaRequest`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum ReplicaCall {
    /// Promise to take nothing below the ballot. [`ReplicaAnswer::Promised`].
    Prepare { key: RowKey, ballot: Ballot },
    /// Take this state. [`ReplicaAnswer::Accepted`].
    Accept {
        key: RowKey,
        ballot: Ballot,
        state: RowState,
    },
    /// What do you have? [`ReplicaAnswer::Row`].
    Read { key: RowKey },
    /// The rows of a partition behind a sort key. [`ReplicaAnswer::Rows`].
    List {
        partition: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u16,
    },
    /// The rows of every slice behind a key, in the order of the disk: those whose partition key begins
    /// with `prefix`, or with `heads` only the first of each such partition. [`ReplicaAnswer::Scanned`].
    Scan {
        prefix: Vec<u8>,
        heads: bool,
        after: Option<RowKey>,
        limit: u16,
    },
    /// Take these leases. [`ReplicaAnswer::LeasesTaken`].
    LeasePut(#[serde(deserialize_with = "lease::lists")] Vec<LeaseNews>),
    /// What is said under these keys, under the first of them behind a session? [`ReplicaAnswer::Leases`].
    LeaseGet {
        #[serde(deserialize_with = "lease::keys")]
        keys: Vec<LeaseKey>,
        after: Option<LeaseOwner>,
    },
    /// What numbers have the slots, behind one, in the slices that you hold and that member holds?
    /// [`ReplicaAnswer::LeaseVectors`].
    LeaseVectors {
        with: MemberId,
        after: Option<LeasePlace>,
    },
    /// The slots, behind one, that have higher numbers than those that are known, whole.
    /// [`ReplicaAnswer::LeasesLacking`].
    LeaseLacking {
        #[serde(deserialize_with = "lease::lists")]
        known: Vec<SessionVector>,
        after: Option<LeasePlace>,
    },
}

impl Message for ReplicaRequest {
    const KIND: u16 = 0x0301;
    const BODY_BYTES_MAX: usize = 320 * 1024;
}

/// What a replica answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum ReplicaAnswer {
    /// It promised, and this is what it had accepted before.
    Promised {
        ballot: Ballot,
        accepted: Ballot,
        state: RowState,
    },
    /// It took the state, and has it on disk.
    Accepted { ballot: Ballot },
    /// It has promised a higher ballot than the one that was asked.
    Refused { ballot: Ballot, promised: Ballot },
    /// What it has accepted.
    Row { accepted: Ballot, state: RowState },
    /// A page of what it has accepted.
    Rows { rows: Vec<ReplicaRow>, more: bool },
    /// What it has accepted up to `next`, behind which there may be more.
    Scanned {
        rows: Vec<ReplicaRow>,
        next: Option<RowKey>,
    },
    /// It knows a later epoch.
    StaleEpoch { highest: Epoch },
    /// Its store has failed; it did not do it.
    Unavailable,
    /// It took the leases of the message that ends with the slice `last`, but for those of slots whose
    /// numbers it gives, since it lacks what came before, and for those that it has no room for.
    LeasesTaken {
        last: Option<Slice>,
        #[serde(deserialize_with = "lease::lists")]
        gaps: Vec<SessionVector>,
        refused: u32,
    },
    /// A page of what is said, of a question for so many keys behind `after`: under the first of them, and
    /// with `more` not all that is said under the last of these.
    Leases {
        keys: u16,
        after: Option<LeaseOwner>,
        #[serde(deserialize_with = "lease::found")]
        found: Vec<Vec<LeaseEntry>>,
        more: bool,
    },
    /// A page of numbers, up to `next`, behind which there may be more.
    LeaseVectors {
        #[serde(deserialize_with = "lease::lists")]
        sessions: Vec<SessionVector>,
        next: Option<LeasePlace>,
    },
    /// A page of slots, up to `next`, behind which there may be more.
    LeasesLacking {
        #[serde(deserialize_with = "lease::lists")]
        news: Vec<LeaseNews>,
        next: Option<LeasePlace>,
    },
}

impl Message for ReplicaAnswer {
    const KIND: u16 = 0x0302;
    const BODY_BYTES_MAX: usize = 512 * 1024;
}

/// A row in a page of [`ReplicaAnswer::Rows`] or [`ReplicaAnswer::Scanned`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReplicaRow {
    pub(crate) key: RowKey,
    pub(crate) accepted: Ballot,
    pub(crate) state: RowState,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::golden::{Golden, assert_every_variant, variants};
    use crate::wire::frame::encode;

    variants!(ReplicaCall {
        Prepare,
        Accept,
        Read,
        List,
        Scan,
        LeasePut,
        LeaseGet,
        LeaseVectors,
        LeaseLacking,
    });
    variants!(ReplicaAnswer {
        Promised,
        Accepted,
        Refused,
        Row,
        Rows,
        Scanned,
        StaleEpoch,
        Unavailable,
        LeasesTaken,
        Leases,
        LeaseVectors,
        LeasesLacking,
    });
    variants!(StoredRegister { V1 });

    fn key() -> RowKey {
        RowKey::new("g/a", "f").unwrap()
    }

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            member: MemberId::from_bytes([0xb0; 16]),
            incarnation: 2,
        }
    }

    fn state() -> RowState {
        let request = RequestKey {
            peer: PeerId::from_bytes([0xee; 32]),
            request: RequestId::from_bytes([0xcc; 16]),
        };
        RowState::default().next(Some(b"v".to_vec()), request)
    }

    fn requests() -> Vec<(&'static str, ReplicaRequest)> {
        let (key, ballot, state) = (key(), ballot(7), state());
        let list = |after| ReplicaCall::List {
            partition: b"p".to_vec(),
            after,
            limit: 5,
        };
        let scan = |heads, after| ReplicaCall::Scan {
            prefix: b"g/".to_vec(),
            heads,
            after,
            limit: 5,
        };
        let mut calls = vec![
            (
                "prepare",
                ReplicaCall::Prepare {
                    key: key.clone(),
                    ballot,
                },
            ),
            (
                "accept",
                ReplicaCall::Accept {
                    key: key.clone(),
                    ballot,
                    state,
                },
            ),
            ("read", ReplicaCall::Read { key: key.clone() }),
            ("list", list(None)),
            ("list_on", list(Some(b"s".into()))),
            ("scan", scan(false, None)),
            ("scan_on", scan(true, Some(key))),
        ];
        calls.extend(lease::tests::calls());
        assert_every_variant(calls.iter().map(|(_, call)| call));
        let request = |(name, call)| {
            let epoch = Epoch(300);
            (name, ReplicaRequest { epoch, call })
        };
        calls.into_iter().map(request).collect()
    }

    fn answers() -> Vec<(&'static str, ReplicaAnswer)> {
        let (ballot, zero) = (ballot(7), Ballot::ZERO);
        let row = ReplicaRow {
            key: key(),
            accepted: ballot,
            state: state(),
        };
        let mut answers = vec![
            (
                "promised",
                ReplicaAnswer::Promised {
                    ballot,
                    accepted: zero,
                    state: RowState::default(),
                },
            ),
            ("accepted", ReplicaAnswer::Accepted { ballot }),
            (
                "refused",
                ReplicaAnswer::Refused {
                    ballot: zero,
                    promised: ballot,
                },
            ),
            (
                "row",
                ReplicaAnswer::Row {
                    accepted: ballot,
                    state: state(),
                },
            ),
            (
                "rows",
                ReplicaAnswer::Rows {
                    rows: vec![row.clone()],
                    more: true,
                },
            ),
            (
                "scanned",
                ReplicaAnswer::Scanned {
                    rows: vec![row],
                    next: Some(key()),
                },
            ),
            (
                "stale_epoch",
                ReplicaAnswer::StaleEpoch { highest: Epoch(2) },
            ),
            ("unavailable", ReplicaAnswer::Unavailable),
        ];
        answers.extend(lease::tests::answers());
        answers
    }

    #[test]
    fn golden_bytes() {
        let entry = lease::tests::entry;
        let register = StoredRegister::V1(Register {
            promised: ballot(8),
            accepted: ballot(7),
            state: state(),
        });
        let mut golden = Golden::open("ring");
        for (name, request) in requests() {
            golden.message(&format!("request/{name}"), &request);
        }
        golden.messages("answer", &answers());
        golden.value("lease_entry", &entry(Some(b"x".to_vec())));
        golden.value("lease_entry_withdrawn", &entry(None));
        golden.values("stored", &[("register", register)]);
        golden.finish();
    }

    fn decodes<T: DeserializeOwned>(hex: &str) -> bool {
        let digits: String = hex.split_whitespace().collect();
        let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap();
        matches!(postcard::take_from_bytes::<T>(&bytes), Ok((_, [])))
    }

    #[test]
    fn what_breaks_a_bound_does_not_decode() {
        assert!(decodes::<Slice>("ff7f"));
        assert!(!decodes::<Slice>("808001"));
        assert!(decodes::<RowKey>("01 70 00"));
        assert!(!decodes::<RowKey>("00 00"));
        let long = "70".repeat(256);
        assert!(!decodes::<RowKey>(&format!("8002 {long} 00")));
        assert!(!decodes::<LeaseKey>("00"));
        assert!(!decodes::<LeaseKey>(&format!("8002 {long}")));
        // Never written and yet with a value; changed once and by nobody; remembered and never made.
        let request = "ee".repeat(48);
        assert!(decodes::<RowState>("00 00 00"));
        assert!(!decodes::<RowState>("00 01 01 76 00"));
        assert!(!decodes::<RowState>("01 00 00"));
        assert!(!decodes::<RowState>(&format!("00 00 01 {request}")));
        assert!(decodes::<RowState>(&format!("01 00 01 {request}")));
        let seventeen = request.repeat(17);
        assert!(decodes::<RowState>(&format!(
            "11 00 10 {}",
            request.repeat(16)
        )));
        assert!(!decodes::<RowState>(&format!("11 00 11 {seventeen}")));
        let huge = "76".repeat(RowState::VALUE_BYTES_MAX + 1);
        assert!(!decodes::<RowState>(&format!(
            "01 01 818001 {huge} 01 {request}"
        )));
    }

    #[test]
    fn the_largest_messages_fit_their_frames() {
        let mut state = RowState::default();
        for _ in 0..RowState::RECENT_MAX {
            let request = RequestKey {
                peer: PeerId::from_bytes([1; 32]),
                request: RequestId::from_bytes([1; 16]),
            };
            state = state.next(Some(vec![0; RowState::VALUE_BYTES_MAX]), request);
        }
        let key = RowKey::new(
            [0; RowKey::PARTITION_BYTES_MAX],
            [0; RowKey::SORT_BYTES_MAX],
        )
        .unwrap();
        let ballot = Ballot {
            incarnation: u64::MAX,
            ..ballot(u64::MAX)
        };
        let call = ReplicaCall::Accept { key, ballot, state };
        assert!(
            encode(&ReplicaRequest {
                epoch: Epoch(u64::MAX),
                call
            })
            .is_ok()
        );
    }
}
