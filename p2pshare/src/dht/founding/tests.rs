//! What a member knows at the start of a life of what its disk has lost.

use super::*;
use crate::identity::PeerId;
use crate::identity::key::SigningKey;
use crate::identity::token::{Signed, TrackerCertificate};
use crate::store::ModelDisk;
use crate::time::Timestamp;
use crate::wire::ring::{Clocks, Hello};

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

fn member(number: u8) -> RingMember {
    RingMember {
        id: MemberId::from_bytes([number; 16]),
        addr: format!("10.0.0.{number}:9000").parse().unwrap(),
    }
}

/// The founders.
fn three() -> Vec<RingMember> {
    (1..=3).map(member).collect()
}

fn list() -> RingRecord {
    RingRecord::new(Epoch::FOUNDING, three()).unwrap()
}

/// How the first founder begins, over what is on its disk.
fn first_founder(disk: &mut ModelDisk) -> Beginning {
    let founders = three().into_iter().map(|founder| founder.addr);
    Beginning::new(&start(disk, 0), member(1).addr, founders.collect())
}

/// What a member says of itself, who remembers so many commits of the other.
fn welcome(id: u8, standing: Standing, commits: u64) -> Welcome {
    let key = SigningKey::from_seed(&[7; 32]);
    let member = MemberId::from_bytes([id; 16]);
    let certificate = TrackerCertificate::V1 {
        ring: RING,
        member,
        peer: PeerId::from_bytes([0; 32]),
        token_key: key.verifying_key(),
        issued: Timestamp::from_millis(0),
    };
    let hello = Hello {
        certificate: Signed::sign(&certificate, &key),
        life: Life {
            member,
            incarnation: 1,
        },
        addr: "10.0.0.9:9000".parse().unwrap(),
        standing,
        commits: 0,
        clocks: Clocks {
            own: Timestamp::from_millis(0),
            ring: None,
        },
    };
    Welcome {
        hello,
        incarnation: 0,
        commits,
    }
}

fn tells(votes: bool) -> Standing {
    let record = list();
    Standing::Founded { record, votes }
}

#[test]
fn no_founder_has_a_say_before_all_others_have_told_of_its_list_in_whichever_life() {
    let mut disk = ModelDisk::default();
    let mut founder = first_founder(&mut disk);
    for other in [2, 3] {
        assert!(matches!(founder.step(), Step::Wait(_)));
        founder.hear(member(other).addr, welcome(other, Standing::Empty, 0), 0);
    }
    assert_eq!(founder.step(), Step::Propose(list()));
    disk.write(|tx| set_record(tx, &list(), false)).unwrap();
    disk.sync();
    founder.has_proposed(list());
    let both = vec![member(2).addr, member(3).addr];
    assert_eq!(founder.step(), Step::Wait(both.clone()));
    // One has lost its disk meanwhile; its list was never heard, and its new id is in none.
    founder.hear(member(2).addr, welcome(9, Standing::Empty, 0), 0);
    founder.hear(member(3).addr, welcome(3, tells(false), 0), 0);
    assert_eq!(founder.step(), Step::Wait(vec![member(2).addr]));
    let mut told = founder.clone();
    told.hear(member(2).addr, welcome(2, tells(false), 0), 0);
    assert_eq!(told.step(), Step::Join(list(), vec![]));
    // One who votes has heard all.
    founder.hear(member(3).addr, welcome(3, tells(true), 0), 0);
    assert_eq!(founder.step(), Step::Join(list(), vec![]));

    let mut later = first_founder(&mut disk);
    assert_eq!(later.step(), Step::Wait(both));
    later.hear(member(3).addr, welcome(3, tells(false), 0), 0);
    assert_eq!(later.step(), Step::Wait(vec![member(2).addr]));
    // Once it has voted, a majority is enough for all its lives.
    disk.write(set_voting).unwrap();
    disk.sync();
    let mut member_of_it = first_founder(&mut disk);
    member_of_it.hear(member(3).addr, welcome(3, tells(false), 0), 0);
    let silent = vec![member(2).addr];
    assert_eq!(member_of_it.step(), Step::Join(list(), silent));
}

#[test]
fn that_a_founder_was_empty_counts_no_longer_than_its_link() {
    let mut founder = first_founder(&mut ModelDisk::default());
    for other in [2, 3] {
        founder.hear(member(other).addr, welcome(other, Standing::Empty, 0), 0);
    }
    founder.part(&member(2).addr);
    assert_eq!(founder.step(), Step::Wait(vec![member(2).addr]));
    founder.hear(member(2).addr, welcome(2, tells(false), 0), 0);
    founder.part(&member(2).addr);
    assert_eq!(founder.step(), Step::Propose(list()));
}

#[test]
fn what_somebody_remembers_of_a_lost_tail_is_not_unsaid() {
    let mut disk = ModelDisk::default();
    start(&mut disk, 0);
    disk.write(|tx| set_record(tx, &list(), false)).unwrap();
    speak(&mut disk, 0);
    let (mut founder, commits) = (first_founder(&mut disk), disk.commits());
    founder.hear(member(2).addr, welcome(2, tells(true), 1000), commits);
    // It has met this life now, and somebody else answers for it.
    founder.hear(member(2).addr, welcome(2, tells(true), 0), commits);
    founder.hear(member(3).addr, welcome(3, tells(true), 0), commits);
    let Step::Return { ahead, .. } = founder.step() else {
        panic!("{:?}", founder.step())
    };
    assert!(ahead > 1000);
}

#[test]
fn whoever_told_of_another_list_while_this_one_was_written_has_not_told_of_it() {
    let mut founder = first_founder(&mut ModelDisk::default());
    for other in [2, 3] {
        founder.hear(member(other).addr, welcome(other, Standing::Empty, 0), 0);
    }
    assert_eq!(founder.step(), Step::Propose(list()));
    // The third was wiped in this moment, and has proposed a list with its new id.
    let third = RingMember {
        id: MemberId::from_bytes([9; 16]),
        ..member(3)
    };
    let record = RingRecord::new(Epoch::FOUNDING, vec![member(1), member(2), third]);
    for votes in [false, true] {
        let mut founder = founder.clone();
        let record = record.clone().unwrap();
        let other = Standing::Founded { record, votes };
        founder.hear(member(3).addr, welcome(9, other, 0), 0);
        founder.has_proposed(list());
        founder.hear(member(2).addr, welcome(2, tells(false), 0), 0);
        assert_eq!(founder.step(), Step::Wait(vec![member(3).addr]));
        founder.hear(member(3).addr, welcome(3, tells(false), 0), 0);
        assert_eq!(founder.step(), Step::Join(list(), vec![]));
    }
}

#[test]
fn that_a_founder_was_empty_counts_no_longer_once_another_one_speaks_from_there() {
    let mut founder = first_founder(&mut ModelDisk::default());
    for other in [2, 3] {
        founder.hear(member(other).addr, welcome(other, Standing::Empty, 0), 0);
    }
    founder.meet(&member(2).addr, member(2).id);
    assert_eq!(founder.step(), Step::Propose(list()));
    founder.meet(&member(2).addr, MemberId::from_bytes([9; 16]));
    assert_eq!(founder.step(), Step::Wait(vec![member(2).addr]));
}

#[test]
fn nobody_is_followed_into_an_epoch_to_which_no_ring_comes() {
    let mut disk = ModelDisk::default();
    start(&mut disk, 0);
    disk.write(|tx| set_record(tx, &list(), false)).unwrap();
    speak(&mut disk, 0);
    let said = |list, returns| Standing::Founded {
        record: RingRecord::new(Epoch { list, returns }, three()).unwrap(),
        votes: true,
    };
    for disk in [&mut disk, &mut ModelDisk::default()] {
        let founder = first_founder(disk);
        for (list, returns) in [(2, 0), (1, u64::MAX)] {
            let mut founder = founder.clone();
            founder.hear(member(2).addr, welcome(2, said(list, returns), 0), 0);
            assert!(matches!(founder.step(), Step::Wait(_)));
        }
        let mut founder = founder.clone();
        founder.hear(member(2).addr, welcome(2, said(1, 1 << 20), 0), 0);
        let (Step::Join(record, _) | Step::Propose(record)) = founder.step() else {
            panic!("{:?}", founder.step())
        };
        assert_eq!(record.epoch.returns, 1 << 20);
    }
}

#[test]
fn what_was_noted_of_another_disk_says_nothing_of_a_new_one() {
    assert!(!start(&mut ModelDisk::default(), 500).returning);
}

#[test]
fn the_list_of_a_ring_to_which_a_wiped_member_returns_is_not_only_proposed() {
    for returning in [false, true] {
        let mut disk = ModelDisk::default();
        start(&mut disk, 0);
        disk.write(|tx| set_record(tx, &list(), returning)).unwrap();
        assert_eq!(start(&mut disk, 0).proposed, !returning);
    }
}

#[test]
fn what_earlier_lives_told_is_known_from_what_a_life_told_since() {
    let told = |incarnation, commits| Remembered {
        incarnation,
        commits,
        before: 0,
    };
    let known = told(5, 80).max(told(0, 100)).max(told(5, 90));
    assert_eq!((known.commits, known.before), (100, 0));
    let known = known.max(told(8, 60)).max(told(8, 200)).max(told(0, 300));
    assert_eq!((known.incarnation, known.before), (8, 100));
    // Late news of a life that is over; and what is on disk with what is in memory, whichever is newer.
    assert_eq!(known.max(told(5, 90)).before, 100);
    assert_eq!(told(5, 120).max(known).before, 120);
    assert_eq!(told(8, 120).max(known).before, 100);
    assert_eq!(known.max(told(9, 0)).before, 300);
}

#[test]
fn who_returns_has_a_number_above_those_of_lives_that_nobody_has_heard_of() {
    let mut disk = ModelDisk::default();
    start(&mut disk, 0);
    disk.write(|tx| set_record(tx, &list(), false)).unwrap();
    speak(&mut disk, 0);
    let mut before = 0;
    // Each time it had a drawn number and some starts since then, of which its disk and the others know nothing.
    for commits in (1..5).map(|returns| returns * RETURNED_COMMITS_AHEAD) {
        let mut founder = first_founder(&mut disk.clone());
        for other in [2, 3] {
            founder.hear(member(other).addr, welcome(other, tells(true), commits), 0);
        }
        let Step::Return { life, ahead, .. } = founder.step() else {
            panic!("{:?}", founder.step())
        };
        assert!(ahead > commits);
        assert!(life.incarnation > before);
        before = life.incarnation + u64::from(u32::MAX) + 1000 * u64::from(u16::MAX);
    }
}

#[test]
fn the_time_is_noted_now_and_then_and_never_earlier() {
    let mut disk = ModelDisk::default();
    let at = Timestamp::from_millis;
    for (now, noted) in [(50, 50), (59, 50), (60, 60), (20, 60), (200, 200)] {
        disk.write(|tx| note_time(tx, at(now), Duration::from_millis(10)))
            .unwrap();
        assert_eq!(start(&mut disk, 0).time, at(noted));
    }
}
