//! What a member knows at the start of a life of what its disk has lost.

use super::*;
use crate::store::ModelDisk;

const RING: RingId = RingId::from_bytes([1; 32]);

/// Begins a life of a member whose machine has noted so many commits.
fn start(disk: &mut ModelDisk, noted: u64) -> Identity {
    let (me, own) = (MemberId::from_bytes([1; 16]), "10.0.0.1:9000".parse());
    let (own, commits) = (own.unwrap(), disk.commits());
    let begun = disk.write(|tx| begin(tx, RING, me, &own, commits, noted));
    disk.sync();
    begun.unwrap().unwrap()
}

/// A life that had a say and made so many commits since.
fn speak(disk: &mut ModelDisk, commits: u8) {
    disk.write(set_voting).unwrap();
    for number in 0..commits {
        disk.sync();
        disk.write(|tx| tx.put(Table::Rows, [number], [1])).unwrap();
    }
    disk.sync();
}

#[test]
fn lives_that_have_no_say_do_not_make_up_for_a_tail_that_was_lost() {
    let mut disk = ModelDisk::default();
    start(&mut disk, 0);
    speak(&mut disk, 5);
    assert_eq!(disk.commits(), 7);
    assert_eq!(start(&mut disk.clone(), 0).commits, 7);
    disk.lose_tail(4);
    let left = disk.commits();
    for _ in 0..10 {
        assert_eq!(start(&mut disk, 0).commits, left);
    }
    assert!(disk.commits() > 7);
    speak(&mut disk, 0);
    assert_eq!(start(&mut disk.clone(), 0).commits, disk.commits());
}

#[test]
fn a_loss_that_the_machine_noted_is_known_until_it_is_made_good() {
    let mut disk = ModelDisk::default();
    start(&mut disk, 0);
    speak(&mut disk, 5);
    assert!(!start(&mut disk.clone(), 7).returning);
    disk.lose_tail(3);
    assert!(start(&mut disk, 7).returning);
    assert!(start(&mut disk, 0).returning);
    speak(&mut disk, 0);
    assert!(!start(&mut disk, 0).returning);
}
