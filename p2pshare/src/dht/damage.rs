//! What a member does about rows on its disk that can no longer be read: it says so, goes on with the others, and
//! lets the comparison with other replicas show that it lacks them.
//!
//! **Invariant.** Damage to a row costs whoever asks for that row an answer, and nobody else anything.

use super::hash_tree;
use super::host::Core;
use super::placement::slice_of_row;
use crate::store::{StoreError, Transaction};
use crate::wire::ring::{ReplicaAnswer, ReplicaCall, RowKey, Slice};

impl Core {
    /// Holds the rows of a slice on disk against the hash tree, and mends that where it is wrong.
    pub(super) async fn scrub(&self, slice: Slice) -> Result<(), StoreError> {
        let sound = self
            .store
            .view(move |view| hash_tree::is_sound(view, slice))
            .await;
        let mended = match sound {
            Ok(true) => return Ok(()),
            Ok(false) => self.mend(slice).await,
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

    /// A row on disk turned out to be damaged: sees to it that the next comparison with another replica shows that
    /// it lacks the row.
    pub(super) async fn note_damage(&self, (key, error): Damage) {
        tracing::debug!(%error, ?key, "a row could not be read");
        let slice = slice_of_row(&key);
        if let Err(error) = self.scrub(slice).await {
            tracing::error!(%error, ?slice, "a slice cannot be compared with other replicas");
        }
    }

    /// Makes the leaves of a slice those of its rows.
    async fn mend(&self, slice: Slice) -> Result<(), StoreError> {
        let seat = self.replica.clone();
        let job = move |tx: &mut Transaction<'_>| {
            let damaged = hash_tree::damaged(tx, slice)?;
            let mended = seat.change(|replica| {
                let scrubbed = replica.as_mut();
                scrubbed.map_or(Ok(0), |replica| replica.scrub(tx, slice))
            });
            Ok((mended?, damaged))
        };
        let (mended, damaged) = self.store.write(job).await?;
        if mended > 0 {
            tracing::error!(
                ?slice,
                leaves = mended,
                ?damaged,
                "rows on disk are not what they were"
            );
        }
        Ok(())
    }
}

/// A row that could not be read, and why.
pub(super) type Damage = (RowKey, StoreError);

/// The answer of a replica. That it cannot read what it is asked for concerns whoever asked, and nothing else.
pub(super) fn spared(
    call: &ReplicaCall,
    answer: Result<ReplicaAnswer, StoreError>,
) -> Result<(ReplicaAnswer, Option<Damage>), StoreError> {
    match answer {
        Err(error) if error.is_damage() => {
            let damage = match call {
                ReplicaCall::Read { key } => Some((key.clone(), error)),
                _ => {
                    tracing::error!(%error, "a part of the disk cannot be read");
                    None
                }
            };
            Ok((ReplicaAnswer::Unavailable, damage))
        }
        answer => answer.map(|answer| (answer, None)),
    }
}
