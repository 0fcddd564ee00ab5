//! What members ask each other's replicas, and the answers.
//!
//! Requests travel in batches: what one member has to ask another at one moment goes on one stream, and is
//! answered in the same order once all of it is done.

use serde::{Deserialize, Serialize};

use super::lease::{
    self, LeaseEntry, LeaseKey, LeaseNews, LeaseOwner, LeasePlace, SessionVector, bounded,
};
use super::{Ballot, Clocks, Epoch, RowKey, RowState, Slice};
use crate::identity::MemberId;
use crate::limits::{REPLICA_BATCH_BYTES_MAX, REPLICA_BATCH_REQUESTS_MAX};
use crate::wire::frame::Message;

/// What one member has to ask another at one moment.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ReplicaBatchForm")]
pub(crate) struct ReplicaBatch(Vec<ReplicaRequest>);

#[derive(Deserialize)]
struct ReplicaBatchForm(
    #[serde(deserialize_with = "bounded::<_, _, REPLICA_BATCH_REQUESTS_MAX>")] Vec<ReplicaRequest>,
);

impl ReplicaBatch {
    /// The batch of these requests, in this order, unless there are none or too many.
    pub(crate) fn new(requests: Vec<ReplicaRequest>) -> Option<Self> {
        let fits = (1..=REPLICA_BATCH_REQUESTS_MAX).contains(&requests.len());
        fits.then_some(Self(requests))
    }

    /// The requests.
    pub(crate) fn into_requests(self) -> Vec<ReplicaRequest> {
        self.0
    }
}

impl TryFrom<ReplicaBatchForm> for ReplicaBatch {
    type Error = &'static str;

    fn try_from(form: ReplicaBatchForm) -> Result<Self, Self::Error> {
        Self::new(form.0).ok_or("a batch of no requests")
    }
}

impl Message for ReplicaBatch {
    const KIND: u16 = 0x0301;
    const BODY_BYTES_MAX: usize = REPLICA_BATCH_BYTES_MAX;
}

/// What a replica answers to a batch.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReplicaAnswers {
    /// One for each request, in their order.
    #[serde(deserialize_with = "bounded::<_, _, REPLICA_BATCH_REQUESTS_MAX>")]
    pub(crate) answers: Vec<ReplicaAnswer>,
    /// How many commits the disk of the one who answers has.
    pub(crate) commits: u64,
    pub(crate) clocks: Clocks,
}

impl Message for ReplicaAnswers {
    const KIND: u16 = 0x0302;
    const BODY_BYTES_MAX: usize = 8 * REPLICA_BATCH_BYTES_MAX;
}

/// What a member asks of a replica.
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
    /// The rows of the slices up to `last` that are behind a key, in the order of the disk: those whose
    /// partition key begins with `prefix`, or with `heads` only the first of each such partition.
    /// [`ReplicaAnswer::Scanned`].
    Scan {
        first: Slice,
        last: Slice,
        prefix: Vec<u8>,
        heads: bool,
        after: Option<RowKey>,
        limit: u16,
    },
    /// Refuse from now on whatever is asked in an epoch below that of this request, which is higher than
    /// any that you know: who asks may have forgotten what it promised. [`ReplicaAnswer::Fenced`].
    Fence { incarnation: u64 },
    /// The rows that you and `with` hold, from a place on, in the order of the disk.
    /// [`ReplicaAnswer::Pulled`].
    Pull {
        with: MemberId,
        place: PullPlace,
        limit: u16,
    },
    /// Take what others have accepted, where it is newer. Only a member itself asks itself that, before it
    /// votes. [`ReplicaAnswer::Done`].
    Install { rows: Vec<ReplicaRow> },
    /// The sums of the 128 groups of slices, over those slices that you and `with` hold.
    /// [`ReplicaAnswer::Sums`].
    TreeGroups { with: MemberId },
    /// The sums of the slices of a group; zero for those that you and `with` do not both hold.
    /// [`ReplicaAnswer::Sums`].
    TreeSlices { with: MemberId, group: u8 },
    /// The sums of the leaves of a slice. [`ReplicaAnswer::Sums`].
    TreeLeaves { slice: Slice },
    /// Keys and accepted ballots of the rows of some leaves of a slice, behind a key, in the order of the disk:
    /// bit `i` stands for leaf `i`. [`ReplicaAnswer::Stamps`].
    TreeRows {
        slice: Slice,
        leaves: u64,
        after: Option<RowKey>,
    },
    /// Take these leases. [`ReplicaAnswer::LeasesTaken`].
    LeasePut(#[serde(deserialize_with = "lease::lists")] Vec<LeaseNews>),
    /// What is said under these keys, under the first of them behind a session? [`ReplicaAnswer::Leases`].
    LeaseGet {
        #[serde(deserialize_with = "lease::keys")]
        keys: Vec<LeaseKey>,
        after: Option<LeaseOwner>,
    },
    /// What numbers have the slots, behind one, in the slices that you and `with` hold?
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

impl ReplicaCall {
    /// Whether it is about leases: it is answered from memory, in any epoch and by whoever has any.
    pub(crate) const fn is_about_leases(&self) -> bool {
        matches!(
            self,
            Self::LeasePut(_)
                | Self::LeaseGet { .. }
                | Self::LeaseVectors { .. }
                | Self::LeaseLacking { .. }
        )
    }
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
    /// It did not do it: its store has failed, it does not vote yet, or it does not hold the row.
    Unavailable,
    /// It did it.
    Done,
    /// The sums of the nodes below one of a hash tree, in order.
    Sums { of: TreeNode, sums: Vec<Sum> },
    /// What it has accepted from the place that was asked in this epoch up to `next`, if there may be more.
    Pulled {
        epoch: Epoch,
        asked: PullPlace,
        rows: Vec<ReplicaRow>,
        next: Option<PullPlace>,
    },
    /// The rows of the leaves that were asked for in this slice, behind `after` and up to `next`, if there may
    /// be more.
    Stamps {
        slice: Slice,
        after: Option<RowKey>,
        rows: Vec<(RowKey, Ballot)>,
        next: Option<RowKey>,
    },
    /// It had never heard of this epoch, and refuses every lower one from now on.
    Fenced { epoch: Epoch },
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
    /// It cannot read on its disk what it was asked for of this slice, or of those behind it.
    Unreadable { slice: Slice },
}

/// A place in the rows that two members hold: a slice, and in it the row behind which it is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct PullPlace {
    pub(crate) slice: Slice,
    pub(crate) after: Option<RowKey>,
}

impl PullPlace {
    /// Before all rows.
    pub(crate) const START: Self = Self {
        slice: Slice::FIRST,
        after: None,
    };
}

/// A node of a hash tree that has others below it.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub(crate) enum TreeNode {
    /// Above all groups of slices.
    Root,
    /// Above the slices of a group.
    Group(u8),
    /// Above the leaves of a slice.
    Slice(Slice),
}

/// What stands at a node of a hash tree: the sum of the hashes below it, modulo 2^128.
pub(crate) type Sum = u128;

/// A row in a page of [`ReplicaAnswer::Rows`] or [`ReplicaAnswer::Scanned`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReplicaRow {
    pub(crate) key: RowKey,
    pub(crate) accepted: Ballot,
    pub(crate) state: RowState,
}

impl ReplicaRow {
    /// Whether the replica that gave it can no longer read what it has accepted for it.
    pub(crate) fn is_damaged(&self) -> bool {
        self.accepted == Ballot::ZERO
    }

    /// A row as it was read, whose ballot no longer matters.
    pub(crate) fn of_state(key: RowKey, state: RowState) -> Self {
        Self {
            key,
            accepted: Ballot::ZERO,
            state,
        }
    }
}
