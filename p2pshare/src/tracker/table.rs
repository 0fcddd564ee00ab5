//! The ring's rows as typed values, and the one way in which a tracker changes any: read the row, decide
//! from its value alone, and compare-and-set; whoever lost a race reads and decides again.
//!
//! A change that its requester sent before is found by its request key and never decided twice.

use crate::{
    dht::{Attempt, DhtNode, Row, RowChange, RowError},
    identity::PeerId,
    limits::CHANGE_RACES_MAX,
    tracker::rows::RowValue,
    wire::{
        ring::{RequestKey, RowKey, Version},
        tracker::{Change, Refusal},
    },
};

/// A change and the peer that asked for it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Request {
    pub(super) peer: PeerId,
    pub(super) change: Change,
}

impl Request {
    fn key(self) -> RequestKey {
        RequestKey {
            peer: self.peer,
            request: self.change.request,
        }
    }

    fn attempt(self) -> Attempt {
        if self.change.retry {
            Attempt::Retry
        } else {
            Attempt::First
        }
    }
}

/// What is to become of a row.
pub(super) enum Decision<T, R> {
    /// It stays, and this is the answer.
    Keep(R),
    /// It gets this value (`None` deletes it), and then this is the answer.
    Put(Option<T>, R),
}

/// The value of `key`, as a majority has it; `None` when there is none, or it was deleted.
pub(super) async fn read<T: RowValue>(dht: &DhtNode, key: &RowKey) -> Result<Option<T>, Refusal> {
    match dht.read(key).await? {
        Some(row) => value_of(&row),
        None => Ok(None),
    }
}

/// Whether `request` was carried out on the row at `key` before.
pub(super) async fn was_done(
    dht: &DhtNode,
    key: &RowKey,
    request: Request,
) -> Result<bool, Refusal> {
    let row = dht.read(key).await?;
    Ok(row.is_some_and(|row| row.produced_by(&request.key()).is_some()))
}

/// The value in `row`; `None` when it was deleted.
pub(super) fn value_of<T: RowValue>(row: &Row) -> Result<Option<T>, Refusal> {
    let Some(bytes) = &row.value else {
        return Ok(None);
    };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(Some(value)),
        _ => {
            tracing::error!("a row of the ring cannot be read by this version");
            Err(Refusal::Internal)
        }
    }
}

/// Changes the row at `key` as `decide` says of its value, once for `request`. `again` answers for a
/// request that was carried out before, from the value as it is now.
pub(super) async fn change<T: RowValue, R>(
    dht: &DhtNode,
    key: &RowKey,
    request: Request,
    decide: impl Fn(Option<T>) -> Result<Decision<T, R>, Refusal>,
    again: impl Fn(Option<T>) -> Result<R, Refusal>,
) -> Result<R, Refusal> {
    for _ in 0..CHANGE_RACES_MAX {
        let row = dht.read(key).await?;
        let value = match &row {
            Some(row) => value_of(row)?,
            None => None,
        };
        if let Some(row) = &row
            && row.produced_by(&request.key()).is_some()
        {
            return again(value);
        }
        let (value, answer) = match decide(value)? {
            Decision::Keep(answer) => return Ok(answer),
            Decision::Put(value, answer) => (value, answer),
        };
        let version = row.as_ref().map(|row| row.version);
        match put(dht, key, version, value, request).await? {
            RowChange::Conflict { .. } => {}
            _ => return Ok(answer),
        }
    }
    Err(Refusal::Busy)
}

async fn put<T: RowValue>(
    dht: &DhtNode,
    key: &RowKey,
    expected: Option<Version>,
    value: Option<T>,
    request: Request,
) -> Result<RowChange, Refusal> {
    let value = value
        .map(|value| postcard::to_allocvec(&value))
        .transpose()
        .map_err(|_| Refusal::Internal)?;
    let changed = match (expected, value) {
        (Some(expected), value) => {
            dht.compare_and_set(key, expected, value, request.key(), request.attempt())
                .await
        }
        (None, Some(value)) => {
            dht.create(key, value, request.key(), request.attempt())
                .await
        }
        (None, None) => return Err(Refusal::Internal),
    };
    Ok(changed?)
}

impl From<RowError> for Refusal {
    fn from(error: RowError) -> Self {
        match error {
            RowError::InsufficientReplicas {
                reachable,
                members,
                needed,
            } => Self::InsufficientReplicas {
                reachable: count(reachable),
                members: count(members),
                needed: count(needed),
            },
            RowError::OutcomeUnknown => Self::OutcomeUnknown,
            RowError::Contended | RowError::StaleEpoch => Self::Busy,
            error => {
                tracing::error!(%error, "the ring's store failed");
                Self::Internal
            }
        }
    }
}

fn count(replicas: usize) -> u32 {
    u32::try_from(replicas).unwrap_or(u32::MAX)
}
