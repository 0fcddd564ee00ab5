//! The tree is that of the rows after whatever happened to them, and where it is not that is seen and set right.

use proptest::prelude::*;

use super::*;
use crate::dht::small_ring::{Node, SmallRing, ballot, id, key};
use crate::store::ModelDisk;

/// The tree that the disk of the first member has, and the one that its rows make.
fn trees(ring: &mut SmallRing) -> [HashTree; 2] {
    let disk = &mut ring.node(1).disk;
    let loaded = disk.read(HashTree::load).unwrap().unwrap();
    let mut rows = ModelDisk::default();
    for (key, value) in disk.rows(Table::Rows) {
        rows.write(|tx| tx.put(Table::Rows, key, value)).unwrap();
    }
    let built = rows.write(HashTree::build).unwrap();
    [loaded, built.0]
}

fn is_sound(disk: &ModelDisk, slice: Slice) -> bool {
    disk.read(|view| examine(view, slice)).unwrap().0
}

#[test]
fn leaves_and_hashes_never_change() {
    // Of SHA-256, as another program computes it.
    assert_eq!([1, 2, 3].map(|number| leaf_of(&key(number))), [28, 32, 48]);
    let expected = 0x898e_4ccf_5b00_a6c5_6fdb_1d02_5988_ce9f;
    assert_eq!(hash(&key(1), ballot(7)), expected);
    assert_eq!(hash(&key(1), Ballot::ZERO), 0);
}

#[test]
fn rows_are_spread_over_all_leaves_of_their_slice() {
    let mut counts = [0; TREE_LEAVES_PER_SLICE as usize];
    for number in 0..6400u32 {
        let key = RowKey::new("one partition", number.to_be_bytes()).unwrap();
        counts[usize::from(leaf_of(&key))] += 1;
    }
    assert!(
        counts.iter().all(|count| (50..150).contains(count)),
        "{counts:?}"
    );
}

/// A folder of a version that had no tree.
#[test]
fn a_disk_with_rows_and_no_tree_gets_one() {
    let mut ring = SmallRing::new(1).unwrap();
    for number in 0..300 {
        ring.accept(1, &key(number), 1 + u64::from(number) % 3)
            .unwrap();
    }
    let before = ring.node(1).table(Table::HashTree);
    let disk = &mut ring.node(1).disk;
    let mut old = ModelDisk::default();
    for (key, value) in disk.rows(Table::Rows) {
        old.write(|tx| tx.put(Table::Rows, key, value)).unwrap();
    }
    old.sync();
    ring.node(1).disk = old;
    ring.restart(1).unwrap();
    assert_eq!(ring.node(1).table(Table::HashTree), before);
    assert_eq!(ring.node(1).replica.as_ref().unwrap().rows(), 300);
    // And only once.
    let commits = ring.node(1).disk.commits();
    ring.restart(1).unwrap();
    assert_eq!(ring.node(1).disk.commits(), commits);
}

/// A row that the disk lost and a leaf that it damaged are seen; after that the tree tells the truth.
#[test]
fn a_scrub_finds_what_the_disk_lost() {
    let mut ring = SmallRing::new(1).unwrap();
    for number in 0..300 {
        ring.accept(1, &key(number), 1).unwrap();
    }
    let (lost, slice) = (key(150), slice_of_row(&key(150)));
    let node = ring.node(1);
    assert!(is_sound(&node.disk, slice));
    let lose = |tx: &mut Transaction<'_>| tx.remove(Table::Rows, row_key::encode(&lost));
    node.disk.write(lose).unwrap();
    node.disk.sync();
    assert!(!is_sound(&node.disk, slice));
    let replica = node.replica.as_mut().unwrap();
    let mut scrub = |slice| node.disk.write(|tx| replica.scrub(tx, slice)).unwrap();
    assert_eq!([scrub(slice), scrub(slice)], [1, 0]);
    let whole: u32 = Slice::all().map(scrub).sum();
    assert_eq!(whole, 0);
    node.disk.sync();
    let [loaded, built] = trees(&mut ring);
    assert_eq!(loaded, built);
}

#[test]
fn a_scrub_mends_a_leaf_in_memory_and_on_disk() {
    let mut disk = ModelDisk::default();
    let mut tree = HashTree::default();
    let slice = slice_of_row(&key(1));
    for leaf in [0, 63] {
        let planted = disk.write(|tx| tx.put(Table::HashTree, disk_key(slice, leaf), [1; 16]));
        planted.unwrap();
    }
    tree.set(slice, 63, 5);
    tree.set(slice, 7, 6);
    let mended = disk.write(|tx| tree.scrub(tx, slice)).unwrap();
    assert_eq!(mended, (1 | 1 << 7 | 1 << 63, Vec::new()));
    assert_eq!(tree, HashTree::default());
    disk.sync();
    assert!(is_sound(&disk, slice));
}

/// The tree follows from the rows, so that a member goes on whatever stands in its place.
#[test]
fn what_is_no_leaf_is_replaced_by_those_of_the_rows() {
    let mut ring = SmallRing::new(1).unwrap();
    for number in 0..300 {
        ring.accept(1, &key(number), 1).unwrap();
    }
    let before = ring.node(1).table(Table::HashTree);
    let slice = slice_of_row(&key(1));
    for (place, value) in [
        (&[0, 0][..], &[0; 16][..]),
        (&[0, 0, 64], &[0; 16]),
        (&[0x40, 0, 0], &[0; 16]),
        (&disk_key(slice, leaf_of(&key(1))), &[0; 15]),
    ] {
        let disk = &mut ring.node(1).disk;
        let planted = disk.write(|tx| tx.put(Table::HashTree, place, value));
        planted.unwrap();
        disk.sync();
        ring.restart(1).unwrap();
        assert_eq!(ring.node(1).table(Table::HashTree), before);
        assert_eq!(ring.node(1).replica.as_ref().unwrap().rows(), 300);
    }
    // And while it lives.
    let Node { disk, replica } = ring.node(1);
    let leaf = disk_key(slice, leaf_of(&key(1)));
    let planted = disk.write(|tx| tx.put(Table::HashTree, leaf, [0; 15]));
    planted.unwrap();
    disk.sync();
    assert!(!is_sound(disk, slice));
    let mended = disk.write(|tx| replica.as_mut().unwrap().scrub(tx, slice));
    assert_eq!(mended.unwrap(), 1);
    assert_eq!(ring.node(1).table(Table::HashTree), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rows are accepted and installed in any order, power is lost and lives begin: the tree in memory and the one
    /// on disk are those of the rows.
    #[test]
    fn after_any_changes_the_tree_is_that_of_the_rows(
        changes in proptest::collection::vec((0..40u32, 1..9u64, 0..4u8), 0..80),
    ) {
        use crate::wire::ring::{Epoch, ReplicaCall, ReplicaAnswer};
        let mut ring = SmallRing::new(1).unwrap();
        for (number, round, what) in changes {
            let row = ReplicaRow {
                key: key(number),
                accepted: ballot(round),
                state: crate::dht::small_ring::state(round),
            };
            let ReplicaRow { key, accepted: ballot, state } = row.clone();
            let call = match what {
                0 => ReplicaCall::Prepare { key, ballot },
                1 => ReplicaCall::Accept { key, ballot, state },
                2 => {
                    ring.restart(1).unwrap();
                    ReplicaCall::Install { rows: vec![row] }
                }
                _ => {
                    ring.node(1).disk.crash(0);
                    ring.restart(1).unwrap();
                    ReplicaCall::TreeGroups { with: id(1) }
                }
            };
            ring.ask(1, 1, Epoch::FOUNDING, call).unwrap();
            ring.node(1).vote();
            let [loaded, built] = trees(&mut ring);
            prop_assert_eq!(&loaded, &built);
            let sums = ReplicaCall::TreeLeaves { slice: slice_of_row(&self::key(number)) };
            let answer = ring.ask(1, 1, Epoch::FOUNDING, sums).unwrap();
            let ReplicaAnswer::Sums { sums, .. } = answer else { panic!("{answer:?}") };
            prop_assert_eq!(&sums[..], &built.leaves(slice_of_row(&self::key(number)))[..]);
        }
    }
}
