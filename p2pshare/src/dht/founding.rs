//! Who this tracker is and which ring it belongs to, as its own disk says.
//!
//! **Invariants.** A folder belongs to one ring for ever. The incarnation is raised, and on disk, before
//! anything of that life is served, so that no ballot of an earlier life is used again.

use serde::{Deserialize, Serialize};

use super::replica::{decode, encode};
use crate::identity::{MemberId, RingId};
use crate::store::{StoreError, Table, Transaction};
use crate::wire::ring::Epoch;

/// Who this tracker is in this life.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) ring: RingId,
    pub(crate) member: MemberId,
    pub(crate) incarnation: u64,
    pub(crate) epoch: Epoch,
    pub(crate) members: Vec<MemberId>,
}

/// The row `node` of the table `meta`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum StoredNode {
    /// The first form.
    V1 {
        ring: RingId,
        member: MemberId,
        /// The life that began last.
        incarnation: u64,
    },
}

/// The row `epoch` of the table `meta`: who is in the ring.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum StoredEpoch {
    /// The first form.
    V1 {
        epoch: Epoch,
        members: Vec<MemberId>,
    },
}

/// Begins a life: founds the ring of one in an empty store, with `newcomer` as its member, or reads who
/// this is and raises the incarnation. The ring that was found, if it is another, is the inner error.
pub(crate) fn begin(
    tx: &mut Transaction<'_>,
    ring: RingId,
    newcomer: MemberId,
) -> Result<Result<Identity, RingId>, StoreError> {
    let (member, incarnation) = match tx.get(Table::Meta, NODE_KEY)? {
        None => {
            let founding = StoredEpoch::V1 {
                epoch: Epoch::FOUNDING,
                members: vec![newcomer],
            };
            tx.put(Table::Meta, EPOCH_KEY, encode(&founding))?;
            (newcomer, 1)
        }
        Some(row) => match decode(Table::Meta, &row)? {
            StoredNode::V1 { ring: found, .. } if found != ring => return Ok(Err(found)),
            StoredNode::V1 {
                member,
                incarnation,
                ..
            } => (member, incarnation + 1),
        },
    };
    tx.put(
        Table::Meta,
        NODE_KEY,
        encode(&StoredNode::V1 {
            ring,
            member,
            incarnation,
        }),
    )?;
    let row = tx.get(Table::Meta, EPOCH_KEY)?.ok_or(StoreError::Corrupt {
        table: Table::Meta.name(),
        what: "it does not say who is in the ring",
    })?;
    let StoredEpoch::V1 { epoch, members } = decode(Table::Meta, &row)?;
    Ok(Ok(Identity {
        ring,
        member,
        incarnation,
        epoch,
        members,
    }))
}

const NODE_KEY: &[u8] = b"node";
const EPOCH_KEY: &[u8] = b"epoch";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryDisk, Store, StoreKind};

    const RING: RingId = RingId::from_bytes([1; 32]);

    async fn life(disk: &MemoryDisk, ring: RingId, newcomer: u8) -> Result<Identity, RingId> {
        let store = Store::open_memory(disk, StoreKind::Tracker).await.unwrap();
        let newcomer = MemberId::from_bytes([newcomer; 16]);
        let identity = store
            .write(move |tx| begin(tx, ring, newcomer))
            .await
            .unwrap();
        drop(store);
        disk.lose_power();
        identity
    }

    #[tokio::test]
    async fn a_member_stays_itself_and_every_life_has_a_number_of_its_own() {
        let disk = MemoryDisk::default();
        let first = life(&disk, RING, 7).await.unwrap();
        let member = MemberId::from_bytes([7; 16]);
        let expected = Identity {
            ring: RING,
            member,
            incarnation: 1,
            epoch: Epoch::FOUNDING,
            members: vec![member],
        };
        assert_eq!(first, expected);
        for incarnation in 2..5 {
            let next = life(&disk, RING, 8).await.unwrap();
            assert_eq!(
                next,
                Identity {
                    incarnation,
                    ..expected.clone()
                }
            );
        }
    }

    #[tokio::test]
    async fn a_folder_of_another_ring_is_refused_and_left_alone() {
        let disk = MemoryDisk::default();
        life(&disk, RING, 7).await.unwrap();
        let other = RingId::from_bytes([2; 32]);
        assert_eq!(life(&disk, other, 8).await, Err(RING));
        assert_eq!(life(&disk, RING, 9).await.unwrap().incarnation, 2);
    }

    #[test]
    fn stored_forms_have_golden_bytes() {
        let node = StoredNode::V1 {
            ring: RingId::from_bytes([1; 32]),
            member: MemberId::from_bytes([2; 16]),
            incarnation: 300,
        };
        let bytes = [&[0][..], &[1; 32], &[2; 16], &[0xac, 0x02]].concat();
        assert_eq!(encode(&node), bytes);
        assert_eq!(decode::<StoredNode>(Table::Meta, &bytes).unwrap(), node);
        let members = vec![MemberId::from_bytes([2; 16])];
        let epoch = StoredEpoch::V1 {
            epoch: Epoch::FOUNDING,
            members,
        };
        let bytes = [&[0, 1, 1][..], &[2; 16]].concat();
        assert_eq!(encode(&epoch), bytes);
        assert_eq!(decode::<StoredEpoch>(Table::Meta, &bytes).unwrap(), epoch);
    }
}
