//! What a member does about rows on its disk that can no longer be read: it says so, goes on with the others, and
//! lets the comparison with other replicas show that it lacks them.
//!
//! **Invariant.** Damage to a row costs whoever asks for that row an answer, and nobody else anything. What is done about
//! it is done beside the answers, one slice at a time, and not again for a row of which it is done.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hash_tree;
use super::placement::slice_of_row;
use super::replica::Replica;
use super::seat::Seat;
use crate::store::{Store, StoreError, Transaction};
use crate::wire::ring::{ReplicaAnswer, ReplicaCall, RowKey, Slice};

/// The rows of a member, as somebody who looks after them has them at hand.
#[derive(Clone, Debug)]
pub(super) struct Ward {
    store: Store,
    seat: Arc<Seat>,
    /// Slices with rows that could not be read, until they have been looked at. There is somebody at it if there are any.
    noted: Arc<Mutex<BTreeSet<Slice>>>,
}

impl Ward {
    pub(super) fn new(store: Store, seat: Arc<Seat>) -> Self {
        Self {
            store,
            seat,
            noted: Arc::default(),
        }
    }

    /// Holds the rows of a slice on disk against the hash tree, and mends that where it is wrong.
    pub(super) async fn scrub(&self, slice: Slice) -> Result<(), StoreError> {
        let examine = move |view: &Transaction<'_>| hash_tree::examine(view, slice);
        let mended = match self.store.view_of_one_moment(examine).await {
            Ok((true, damaged)) if damaged.is_empty() => return Ok(()),
            Ok((sound, damaged)) => self.mend(slice, sound, damaged).await,
            Err(error) => Err(error),
        };
        match mended {
            Err(error) if error.is_damage() => {
                tracing::error!(%error, ?slice, "a part of the disk cannot be read");
                Ok(())
            }
            mended => mended,
        }
    }

    /// Makes the leaves of a slice those of its rows, if they are not, and has it known of its damaged rows that they
    /// are left out.
    async fn mend(
        &self,
        slice: Slice,
        sound: bool,
        damaged: Vec<RowKey>,
    ) -> Result<(), StoreError> {
        let seat = self.seat.clone();
        let job = move |tx: &mut Transaction<'_>| {
            seat.change(|replica| match replica {
                Some(replica) if sound => {
                    replica.leave_out_damaged(tx, damaged);
                    Ok(())
                }
                Some(replica) => replica.scrub(tx, slice).map(drop),
                None => Ok(()),
            })
        };
        self.store.write(job).await
    }

    /// Rows on disk turned out to be damaged: sees to it, soon, that the next comparison with another replica shows that
    /// it lacks them.
    pub(super) fn note(&self, damage: Vec<Damage>) {
        let mut noted = self.noted();
        let somebody_is_at_it = !noted.is_empty();
        for (key, error) in damage {
            tracing::debug!(%error, ?key, "a row could not be read");
            noted.insert(slice_of_row(&key));
        }
        if !somebody_is_at_it && !noted.is_empty() {
            tokio::spawn(self.clone().scrub_noted());
        }
    }

    /// Whether there is nothing to look into.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.noted().is_empty()
    }

    async fn scrub_noted(self) {
        loop {
            let next = self.noted().first().copied();
            let Some(slice) = next else {
                return;
            };
            if let Err(error) = self.scrub(slice).await {
                tracing::error!(%error, ?slice, "a slice cannot be compared with other replicas");
            }
            self.noted().remove(&slice);
        }
    }

    fn noted(&self) -> MutexGuard<'_, BTreeSet<Slice>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row that could not be read, and why.
pub(super) type Damage = (RowKey, StoreError);

/// The row that a request reads, and nothing else.
pub(super) fn row_read(call: &ReplicaCall) -> Option<RowKey> {
    match call {
        ReplicaCall::Read { key } => Some(key.clone()),
        _ => None,
    }
}

/// The answer of a replica that was asked to read a row, or for something else. That it cannot read what it is asked for
/// concerns whoever asked, and nothing else.
pub(super) fn spared(
    replica: &Replica,
    row: Option<RowKey>,
    answer: Result<ReplicaAnswer, StoreError>,
) -> Result<(ReplicaAnswer, Option<Damage>), StoreError> {
    match answer {
        Err(error) if error.is_damage() => {
            if row.is_none() {
                tracing::error!(%error, "a part of the disk cannot be read");
            }
            let new = row.filter(|key| !replica.is_left_out(key));
            Ok((ReplicaAnswer::Unavailable, new.map(|key| (key, error))))
        }
        answer => answer.map(|answer| (answer, None)),
    }
}
