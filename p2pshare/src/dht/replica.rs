//! One replica of the rows: registers on disk, and the fence of epochs in front of them.
//!
//! **Invariants.** What a replica promised or accepted is on disk before it says so. It answers nobody
//! who speaks in an epoch lower than the highest it has seen, and remembers that one across restarts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::row_key;
use crate::limits::{REPLICA_PAGE_BYTES, REPLICA_PAGE_ROWS, SCAN_PAGES_MAX, STORE_VALUE_BYTES_MAX};
use crate::store::{KeyRange, PageLimit, Store, StoreError, Table, Transaction};
use crate::wire::ring::{
    Epoch, Register, ReplicaAnswer, ReplicaCall, ReplicaRequest, ReplicaRow, RowKey, RowState,
    StoredRegister,
};

/// The replica of a tracker.
#[derive(Debug)]
pub(crate) struct Replica {
    store: Store,
    /// The highest epoch seen, as on disk.
    fence: AtomicU64,
}

impl Replica {
    /// The replica over a store.
    pub(crate) async fn open(store: Store) -> Result<Self, StoreError> {
        let fence = store.get(Table::Meta, FENCE_KEY).await?;
        let fence = AtomicU64::new(decode_fence(fence)?.0);
        Ok(Self { store, fence })
    }

    /// Answers a coordinator. Promises and acceptances are durable when this returns; a future that is
    /// dropped may have been carried out all the same.
    pub(crate) async fn handle(
        &self,
        request: ReplicaRequest,
    ) -> Result<ReplicaAnswer, StoreError> {
        let epoch = request.epoch;
        let highest = Epoch(self.fence.load(Ordering::Acquire));
        if epoch < highest {
            return Ok(ReplicaAnswer::StaleEpoch { highest });
        }
        if epoch > highest {
            self.store
                .write(move |tx| raise_fence(tx, epoch).map(drop))
                .await?;
            self.fence.fetch_max(epoch.0, Ordering::AcqRel);
        }
        match request.call {
            ReplicaCall::Prepare { .. } | ReplicaCall::Accept { .. } => {
                self.store.write(move |tx| answer(tx, request)).await
            }
            ReplicaCall::Read { key } => {
                let row = self.store.get(Table::Rows, row_key::encode(&key)).await?;
                let Register {
                    accepted, state, ..
                } = decode_register(row)?;
                Ok(ReplicaAnswer::Row { accepted, state })
            }
            ReplicaCall::List {
                partition,
                after,
                limit,
            } => self.list(&partition, after, limit).await,
            ReplicaCall::Scan {
                prefix,
                heads,
                after,
                limit,
            } => self.scan(&prefix, heads, after, limit).await,
            _ => Ok(ReplicaAnswer::Unavailable),
        }
    }

    async fn list(
        &self,
        partition: &[u8],
        after: Option<Vec<u8>>,
        limit: u16,
    ) -> Result<ReplicaAnswer, StoreError> {
        let prefix = row_key::encode_partition(partition);
        let mut range = KeyRange::prefix(prefix.clone());
        if let Some(sort) = after {
            range = range.after(&[prefix, sort].concat());
        }
        let page = self
            .store
            .range(Table::Rows, range, page_limit(limit))
            .await?;
        let rows = page
            .rows
            .into_iter()
            .map(decode_row)
            .collect::<Result<_, _>>()?;
        Ok(ReplicaAnswer::Rows {
            rows,
            more: page.more,
        })
    }

    async fn scan(
        &self,
        prefix: &[u8],
        heads: bool,
        after: Option<RowKey>,
        limit: u16,
    ) -> Result<ReplicaAnswer, StoreError> {
        let (mut rows, mut bytes, mut seen) = (Vec::new(), 0, after);
        // Rows that are skipped cost time too, so that they bound the page as well.
        for _ in 0..SCAN_PAGES_MAX {
            let range = match &seen {
                None => KeyRange::all(),
                Some(key) if heads => {
                    KeyRange::behind_prefix(row_key::encode_partition(key.partition()))
                }
                Some(key) => KeyRange::all().after(&row_key::encode(key)),
            };
            let page = self
                .store
                .range(Table::Rows, range, page_limit(limit))
                .await?;
            for stored in page.rows {
                let stored_bytes = stored.0.len() + stored.1.len();
                let row = decode_row(stored)?;
                let first = seen
                    .as_ref()
                    .is_none_or(|seen| seen.partition() != row.key.partition());
                seen = Some(row.key.clone());
                if row.key.partition().starts_with(prefix) && (first || !heads) {
                    bytes += stored_bytes;
                    rows.push(row);
                }
                if rows.len() >= usize::from(limit) || bytes >= REPLICA_PAGE_BYTES {
                    return Ok(ReplicaAnswer::Scanned { rows, next: seen });
                }
            }
            if !page.more {
                return Ok(ReplicaAnswer::Scanned { rows, next: None });
            }
        }
        Ok(ReplicaAnswer::Scanned { rows, next: seen })
    }
}

/// Answers a coordinator from inside a job of the writer: what it promises or accepts is durable when the
/// job is answered.
pub(crate) fn answer(
    tx: &mut Transaction<'_>,
    request: ReplicaRequest,
) -> Result<ReplicaAnswer, StoreError> {
    let highest = raise_fence(tx, request.epoch)?;
    if request.epoch < highest {
        return Ok(ReplicaAnswer::StaleEpoch { highest });
    }
    let (key, ballot, outcome) = match request.call {
        ReplicaCall::Prepare { key, ballot } => {
            let mut register = register(tx, &key)?;
            let outcome = register.prepare(ballot).map(|()| {
                let Register {
                    accepted, state, ..
                } = register.clone();
                (
                    register,
                    ReplicaAnswer::Promised {
                        ballot,
                        accepted,
                        state,
                    },
                )
            });
            (key, ballot, outcome)
        }
        ReplicaCall::Accept { key, ballot, state } => {
            let mut register = register(tx, &key)?;
            let outcome = register
                .accept(ballot, state)
                .map(|()| (register, ReplicaAnswer::Accepted { ballot }));
            (key, ballot, outcome)
        }
        ReplicaCall::Read { key } => {
            let Register {
                accepted, state, ..
            } = register(tx, &key)?;
            return Ok(ReplicaAnswer::Row { accepted, state });
        }
        // Pages are read from snapshots and never inside the writer.
        _ => {
            return Ok(ReplicaAnswer::Unavailable);
        }
    };
    match outcome {
        Ok((register, answer)) => {
            tx.put(
                Table::Rows,
                row_key::encode(&key),
                encode(&StoredRegister::V1(register)),
            )?;
            Ok(answer)
        }
        Err(promised) => Ok(ReplicaAnswer::Refused { ballot, promised }),
    }
}

/// The register of a row.
pub(crate) fn register(tx: &Transaction<'_>, key: &RowKey) -> Result<Register, StoreError> {
    decode_register(tx.get(Table::Rows, &row_key::encode(key))?)
}

/// Remembers an epoch if it is the highest seen, and returns that.
fn raise_fence(tx: &mut Transaction<'_>, epoch: Epoch) -> Result<Epoch, StoreError> {
    let highest = decode_fence(tx.get(Table::Meta, FENCE_KEY)?)?;
    if epoch > highest {
        tx.put(Table::Meta, FENCE_KEY, epoch.0.to_be_bytes())?;
    }
    Ok(highest.max(epoch))
}

fn decode_fence(row: Option<Vec<u8>>) -> Result<Epoch, StoreError> {
    let Some(row) = row else {
        return Ok(Epoch::FOUNDING);
    };
    let bytes = row.try_into().map_err(|_| StoreError::Corrupt {
        table: Table::Meta.name(),
        what: "the highest epoch is not 8 bytes",
    })?;
    Ok(Epoch(u64::from_be_bytes(bytes)))
}

fn decode_register(row: Option<Vec<u8>>) -> Result<Register, StoreError> {
    let Some(row) = row else {
        return Ok(Register::default());
    };
    let StoredRegister::V1(register) = decode(Table::Rows, &row)?;
    Ok(register)
}

fn decode_row((key, value): (Vec<u8>, Vec<u8>)) -> Result<ReplicaRow, StoreError> {
    let damaged = StoreError::Corrupt {
        table: Table::Rows.name(),
        what: "a key is none of a row",
    };
    let key = row_key::decode(&key).ok_or(damaged)?;
    let Register {
        accepted, state, ..
    } = decode_register(Some(value))?;
    Ok(ReplicaRow {
        key,
        accepted,
        state,
    })
}

/// The bytes of a stored value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "stored values are plain data, which always encodes"
    )]
    postcard::to_allocvec(value).expect("stored values are plain data")
}

/// The stored value with exactly these bytes.
pub(crate) fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(StoreError::Corrupt {
            table: table.name(),
            what: "a value does not decode",
        }),
    }
}

fn page_limit(rows: u16) -> PageLimit {
    PageLimit {
        rows: usize::from(rows.clamp(1, REPLICA_PAGE_ROWS)),
        bytes: REPLICA_PAGE_BYTES,
    }
}

const FENCE_KEY: &[u8] = b"fence";

const _: () = assert!(RowState::VALUE_BYTES_MAX + 2 * 1024 < STORE_VALUE_BYTES_MAX);
const _: () = {
    use crate::wire::frame::Message;
    assert!(2 * REPLICA_PAGE_BYTES <= ReplicaAnswer::BODY_BYTES_MAX);
};

#[cfg(test)]
mod tests;
