//! Rows as their users see them, and what can come of asking for one.

use crate::identity::TrackerAddr;
use crate::store::StoreError;
use crate::wire::ring::{PullPlace, RequestKey, RowKey, RowState, Slice, Version};

use super::placement::slice_of_row;
use super::register::produced_by;
use super::row_key;

/// A row that was written at least once.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// How often it was changed.
    pub version: Version,
    /// Its value, at most 16 KiB; `None` when it was deleted.
    pub value: Option<Vec<u8>>,
    recent: Vec<RequestKey>,
}

impl Row {
    /// The row with this state, unless it was never written.
    pub(crate) fn from_state(state: RowState) -> Option<Self> {
        let (version, value, recent) = state.into_parts();
        (version != Version::NEVER).then_some(Self {
            version,
            value,
            recent,
        })
    }

    /// The version that a request made, as far as the row remembers: it knows the last 16.
    #[must_use]
    pub fn produced_by(&self, request: &RequestKey) -> Option<Version> {
        produced_by(self.version, &self.recent, request)
    }

    /// Whether there were more changes behind a version than the row remembers who made them.
    pub(crate) fn has_forgotten_since(&self, version: u64) -> bool {
        self.version.as_u64().saturating_sub(version) > self.recent.len() as u64
    }
}

/// What came of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RowChange {
    /// It was made, and is durable.
    Applied {
        /// The version that it made.
        version: Version,
    },
    /// It had been made before, by the same request.
    AlreadyApplied {
        /// The version that it made then.
        version: Version,
    },
    /// It was not made: the row has another version than the expected one.
    Conflict {
        /// The row as it is; `None` when it was never written.
        current: Option<Row>,
    },
}

/// Rows of one partition, in the order of their sort keys.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// Sort keys and rows; deleted rows are left out.
    pub rows: Vec<(Vec<u8>, Row)>,
    /// What to give as `after` for the next page; `None` when this was the last.
    pub next: Option<Vec<u8>>,
    /// Whether this is only what this tracker has, since no majority answered.
    pub stale: bool,
    /// Whether there are rows that too few trackers can read; they are left out, or as one of them has them.
    pub unreadable: bool,
}

/// Some rows of the whole ring.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScanPage {
    /// Keys and rows in no order that means anything; deleted rows are left out. May be empty although
    /// there are more.
    pub rows: Vec<(RowKey, Row)>,
    /// Where to go on; `None` when this was the last page.
    pub next: Option<ScanCursor>,
    /// Whether this is only what this tracker has, since no majority answered.
    pub stale: bool,
    /// Whether there are rows that too few trackers can read; they are left out, or as one of them has them.
    pub unreadable: bool,
}

/// A place in a scan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScanCursor(PullPlace);

impl ScanCursor {
    /// That place.
    pub(crate) fn at(place: PullPlace) -> Self {
        Self(place)
    }

    /// The place behind `key`.
    #[cfg(test)]
    pub(crate) fn behind(key: RowKey) -> Self {
        Self(PullPlace {
            slice: slice_of_row(&key),
            after: Some(key),
        })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &PullPlace {
        &self.0
    }

    /// The cursor with these bytes, if they are those of one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (slice, within) = bytes.split_first_chunk()?;
        let slice = Slice::new(u16::from_be_bytes(*slice))?;
        let after = match within {
            [] => None,
            within => Some(row_key::decode_within(within)?),
        };
        let fits = after.as_ref().is_none_or(|key| slice_of_row(key) == slice);
        fits.then_some(Self(PullPlace { slice, after }))
    }

    /// Its bytes, at most 770.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.slice.index().to_be_bytes().to_vec();
        bytes.extend(self.0.after.iter().flat_map(row_key::encode_within));
        bytes
    }
}

/// Why a row could not be read or changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// Too few of the trackers that hold the row can be reached. Nothing was changed, now or later; try
    /// again when they are back.
    #[error(
        "insufficient replicas for write quorum: {reachable} of {members} reachable, {needed} needed"
    )]
    InsufficientReplicas {
        /// How many are not known to be out of reach.
        reachable: usize,
        /// How many hold the row.
        members: usize,
        /// How many have to answer.
        needed: usize,
    },
    /// There is no ring yet: its founders have to meet once. Nothing was changed; try again when they have.
    #[error("the ring is not founded yet{}", waits_for(waiting_for))]
    NotFounded {
        /// Those that have not answered yet.
        waiting_for: Vec<TrackerAddr>,
    },
    /// The change may have been made, or may yet be, or not. Ask again with the same request, as a
    /// retry, or read the row.
    #[error("it is not known whether the change was made")]
    OutcomeUnknown,
    /// Others kept changing the row, or this tracker has too much to do. Nothing was changed; try again.
    #[error("others kept changing the row, or this tracker has too much to do")]
    Contended,
    /// The value is longer than a row takes. Nothing was changed.
    #[error("a value of {len} bytes; a row takes at most {max}")]
    ValueTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The most, in bytes.
        max: usize,
    },
    /// The ring has changed its members, and this tracker does not know it yet. Nothing was changed;
    /// try again.
    #[error("this tracker knows an older list of members than the ring")]
    StaleEpoch,
    /// The store of this tracker failed or is shut down. Whether the change was made is known only
    /// where the store's error says so.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RowError {
    /// Whether the same call may succeed if it is made again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::InsufficientReplicas { .. }
            | Self::NotFounded { .. }
            | Self::OutcomeUnknown
            | Self::Contended
            | Self::StaleEpoch => true,
            Self::ValueTooLarge { .. } | Self::Store(_) => false,
        }
    }
}

fn waits_for(addrs: &[TrackerAddr]) -> String {
    match addrs {
        [] => String::new(),
        addrs => {
            let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
            format!(": it waits for {}", addrs.join(", "))
        }
    }
}
