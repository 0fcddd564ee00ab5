//! The ring's rows as typed values, and the one way in which a tracker changes any: read the row, decide
//! from its value alone, and compare-and-set; whoever lost a race reads and decides again.
//!
//! A change that its requester sent before is found by its request key and never decided twice. Where the row
//! has forgotten who made it, a retry is neither made nor refused: whether it was made before is unknown.

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
    match dht.read(key).await? {
        Some(row) => made(&row, request),
        None => Ok(false),
    }
}

/// Whether `request` made one of the versions of `row`.
fn made(row: &Row, request: Request) -> Result<bool, Refusal> {
    if row.produced_by(&request.key()).is_some() {
        return Ok(true);
    }
    match request.attempt() {
        Attempt::Retry if row.has_forgotten() => Err(Refusal::OutcomeUnknown),
        _ => Ok(false),
    }
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
            && made(row, request)?
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
    changed.map_err(|error| match error {
        // Others may have taken it before the store of this tracker failed.
        RowError::Store(error) => {
            tracing::error!(%error, "the ring's store failed");
            Refusal::OutcomeUnknown
        }
        error => error.into(),
    })
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
            RowError::NotFounded { .. } => Self::NotFounded,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{GroupName, RequestId, RingId, SessionId},
        time::Timestamp,
        tracker::rows::{SessionRow, group_key},
    };

    fn request(i: u8, retry: bool) -> Request {
        let change = Change {
            request: RequestId::from_bytes([i; 16]),
            retry,
        };
        let peer = PeerId::from_bytes([1; 32]);
        Request { peer, change }
    }

    /// Makes the row if there is none, as whoever creates something does.
    async fn create(
        dht: &DhtNode,
        key: &RowKey,
        request: Request,
    ) -> Result<&'static str, Refusal> {
        let group = GroupName::new("g").unwrap();
        change(
            dht,
            key,
            request,
            |found: Option<SessionRow>| match found {
                Some(_) => Err(Refusal::GroupExists {
                    group: group.clone(),
                }),
                None => Ok(Decision::Put(Some(row(0)), "made")),
            },
            |_| Ok("was made"),
        )
        .await
    }

    fn row(begun: u64) -> SessionRow {
        SessionRow::V1 {
            session: SessionId::from_bytes([0; 16]),
            generation: 1,
            begun: Timestamp::from_millis(begun),
        }
    }

    #[tokio::test]
    async fn a_retry_that_the_row_has_forgotten_is_unknown_and_not_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ring = RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        let key = group_key(&GroupName::new("g").unwrap());
        assert_eq!(create(&dht, &key, request(0, false)).await, Ok("made"));
        let refused = Err(Refusal::GroupExists {
            group: GroupName::new("g").unwrap(),
        });
        for i in 1..=16 {
            // As long as the row knows all who changed it, it knows what to say.
            assert_eq!(create(&dht, &key, request(0, true)).await, Ok("was made"));
            assert_eq!(create(&dht, &key, request(99, true)).await, refused);
            change(
                &dht,
                &key,
                request(i, false),
                |_| Ok(Decision::Put(Some(row(i.into())), ())),
                |_| Ok(()),
            )
            .await
            .unwrap();
        }
        let unknown = Refusal::OutcomeUnknown;
        for forgotten in [request(0, true), request(99, true)] {
            let again = create(&dht, &key, forgotten).await;
            assert_eq!(again, Err(unknown.clone()));
            let done = was_done(&dht, &key, forgotten).await;
            assert_eq!(done, Err(unknown.clone()));
        }
        // What is remembered is still found, and what was never sent before is still decided.
        assert_eq!(was_done(&dht, &key, request(1, true)).await, Ok(true));
        assert_eq!(create(&dht, &key, request(99, false)).await, refused);
        let kept = read::<SessionRow>(&dht, &key).await.unwrap();
        assert_eq!(kept, Some(row(16)), "something was changed");
        dht.shutdown().await.unwrap();
    }
}
