//! What a replica promises is durable, epochs fence it, and what it may not say it does not say.

use super::*;
use crate::dht::small_ring::{Node, SmallRing, ballot, id, key, state};
use crate::limits::{
    BALLOT_ROUND_MAX, BALLOT_ROUNDS_APART_MAX, PROMISE_ROUNDS_AT_ONCE, SCAN_PAGES_MAX,
};
use crate::store::ModelDisk;

mod damage;

/// Members 1 to 3, and what member 2 asks of 1 in the founding epoch.
fn ask(ring: &mut SmallRing, call: ReplicaCall) -> ReplicaAnswer {
    ring.ask(1, 2, Epoch::FOUNDING, call).unwrap()
}

fn prepare(round: u64) -> ReplicaCall {
    ReplicaCall::Prepare {
        key: key(1),
        ballot: ballot(round),
    }
}

fn accept(round: u64) -> ReplicaCall {
    ReplicaCall::Accept {
        key: key(1),
        ballot: ballot(round),
        state: state(round),
    }
}

fn read() -> ReplicaCall {
    ReplicaCall::Read { key: key(1) }
}

fn scan(prefix: &[u8], after: Option<RowKey>) -> ReplicaCall {
    ReplicaCall::Scan {
        first: Slice::FIRST,
        last: Slice::new(Slice::COUNT - 1).unwrap(),
        prefix: prefix.to_vec(),
        heads: false,
        after,
        limit: 1,
    }
}

/// Loses power, with whatever is not synced, and begins another life that votes.
fn lose_power(ring: &mut SmallRing) {
    ring.node(1).disk.crash(0);
    ring.restart(1).unwrap();
    ring.node(1).vote();
}

#[test]
fn promises_and_acceptances_survive_a_power_cut() {
    let mut ring = SmallRing::new(3).unwrap();
    let promised = |ballot, accepted, state| ReplicaAnswer::Promised {
        ballot,
        accepted,
        state,
    };
    let nothing = promised(ballot(5), Ballot::ZERO, RowState::default());
    assert_eq!(ask(&mut ring, prepare(5)), nothing);
    lose_power(&mut ring);
    for call in [prepare(4), accept(4)] {
        let answer = ask(&mut ring, call);
        let ReplicaAnswer::Refused { promised, .. } = answer else {
            panic!("{answer:?}")
        };
        assert!(promised >= ballot(5));
    }
    // After a restart everything up to the ceiling is promised.
    let later = 5 + PROMISE_ROUNDS_AT_ONCE + 1;
    let accepted = ReplicaAnswer::Accepted {
        ballot: ballot(later),
    };
    assert_eq!(ask(&mut ring, accept(later)), accepted);
    lose_power(&mut ring);
    let row = ReplicaAnswer::Row {
        accepted: ballot(later),
        state: state(later),
    };
    assert_eq!(ask(&mut ring, read()), row);
}

#[test]
fn a_promise_beneath_the_ceiling_costs_no_write() {
    let mut ring = SmallRing::new(3).unwrap();
    ask(&mut ring, prepare(5));
    let commits = ring.node(1).disk.commits();
    ask(&mut ring, prepare(6));
    assert_eq!(ring.node(1).disk.commits(), commits);
    ask(&mut ring, prepare(6 + PROMISE_ROUNDS_AT_ONCE));
    assert!(ring.node(1).disk.commits() > commits);
}

#[test]
fn an_epoch_once_seen_fences_all_below_it_for_ever() {
    let mut ring = SmallRing::new(3).unwrap();
    let with = id(2);
    let calls = [
        read(),
        prepare(1),
        accept(1),
        ReplicaCall::List {
            partition: b"p".to_vec(),
            after: None,
            limit: 1,
        },
        scan(b"", None),
        ReplicaCall::TreeGroups { with },
        ReplicaCall::Pull {
            with,
            place: PullPlace::START,
            limit: 1,
        },
        ReplicaCall::Fence { incarnation: 2 },
    ];
    let stale = |answer: &ReplicaAnswer| matches!(answer, ReplicaAnswer::StaleEpoch { .. });
    let mut epoch = Epoch::FOUNDING;
    for call in &calls {
        let (before, highest) = (epoch, epoch.next_return());
        epoch = highest;
        assert!(
            !stale(&ring.ask(1, 2, epoch, call.clone()).unwrap()),
            "{call:?}"
        );
        for call in &calls {
            let refused = ring.ask(1, 2, before, call.clone()).unwrap();
            assert_eq!(refused, ReplicaAnswer::StaleEpoch { highest });
        }
    }
    lose_power(&mut ring);
    let highest = epoch;
    let refused = ask(&mut ring, read());
    assert_eq!(refused, ReplicaAnswer::StaleEpoch { highest });
}

#[test]
fn a_fence_is_taken_once_and_only_from_another_by_one_that_votes() {
    let mut ring = SmallRing::new(3).unwrap();
    let fence = ReplicaCall::Fence { incarnation: 2 };
    let epoch = Epoch::FOUNDING.next_return();
    let own = ring.ask(2, 2, epoch, fence.clone()).unwrap();
    assert_eq!(own, ReplicaAnswer::Unavailable);
    let taken = ring.ask(1, 2, epoch, fence.clone()).unwrap();
    assert_eq!(taken, ReplicaAnswer::Fenced { epoch });
    let again = ring.ask(1, 3, epoch, fence.clone()).unwrap();
    assert_eq!(again, ReplicaAnswer::StaleEpoch { highest: epoch });
    ring.restart(1).unwrap();
    let epoch = epoch.next_return();
    let silent = ring.ask(1, 3, epoch, fence).unwrap();
    assert_eq!(silent, ReplicaAnswer::Unavailable);
    // Nor did it take note of the epoch.
    assert!(ring.node(1).replica.as_ref().unwrap().epoch() < epoch);
}

#[test]
fn one_that_does_not_vote_says_nothing_and_takes_rows_from_itself_alone() {
    let mut ring = SmallRing::new(3).unwrap();
    ring.restart(1).unwrap();
    for call in [prepare(1), accept(1), read(), scan(b"", None)] {
        assert_eq!(ask(&mut ring, call), ReplicaAnswer::Unavailable);
    }
    let row = |round| ReplicaRow {
        key: key(1),
        accepted: ballot(round),
        state: state(round),
    };
    let install = |rows| ReplicaCall::Install { rows };
    let foreign = ask(&mut ring, install(vec![row(7)]));
    assert_eq!(foreign, ReplicaAnswer::Unavailable);
    // What is older than what it has is left alone.
    let own = ring.ask(1, 1, Epoch::FOUNDING, install(vec![row(7), row(6)]));
    assert_eq!(own.unwrap(), ReplicaAnswer::Done);
    ring.node(1).vote();
    let expected = ReplicaAnswer::Row {
        accepted: ballot(7),
        state: state(7),
    };
    assert_eq!(ask(&mut ring, read()), expected);
    let voting = ring.ask(1, 1, Epoch::FOUNDING, install(vec![row(8)]));
    assert_eq!(voting.unwrap(), ReplicaAnswer::Unavailable);
}

#[test]
fn a_register_has_golden_bytes() {
    let mut ring = SmallRing::new(1).unwrap();
    ring.accept(1, &key(1), 300).unwrap();
    let [(_, stored)] = &ring.node(1).table(Table::Rows)[..] else {
        panic!()
    };
    let ballot = [&[0xac, 0x02][..], &[1; 16], &[1]].concat();
    let golden = [
        &[0][..],                         // V1
        &ballot,                          // accepted: round 300, member, incarnation 1
        &[1],                             // version
        &[1, 8, 0, 0, 0, 0, 0, 0, 1, 44], // a value, its length, its bytes
        &[1],                             // requests remembered
        &[2; 32],                         // the peer
        &[3; 16],                         // its request
    ];
    assert_eq!(*stored, golden.concat());
}

/// A member that errs does not lift the rounds of a row, or of all after a restart, to where they end.
#[test]
fn a_round_far_above_all_others_is_not_followed() {
    let mut ring = SmallRing::new(3).unwrap();
    for round in [BALLOT_ROUNDS_APART_MAX + 1, BALLOT_ROUND_MAX] {
        for call in [prepare(round), accept(round)] {
            assert_eq!(ask(&mut ring, call), ReplicaAnswer::Unavailable);
        }
    }
    assert!(matches!(
        ask(&mut ring, prepare(1)),
        ReplicaAnswer::Promised { .. }
    ));
    lose_power(&mut ring);
    let next = 2 + PROMISE_ROUNDS_AT_ONCE;
    assert!(matches!(
        ask(&mut ring, prepare(next)),
        ReplicaAnswer::Promised { .. }
    ));
}

#[test]
fn one_answer_to_a_scan_reads_a_bounded_number_of_rows() {
    let mut ring = SmallRing::new(1).unwrap();
    for number in 0..40 {
        ring.accept(1, &key(number), 1).unwrap();
    }
    let answer = ask_alone(&mut ring, scan(b"q", None));
    let ReplicaAnswer::Scanned {
        rows,
        next: Some(next),
    } = answer
    else {
        panic!("{answer:?}")
    };
    assert!(rows.is_empty());
    assert_eq!(next, key(SCAN_PAGES_MAX as u32 - 1));
}

fn ask_alone(ring: &mut SmallRing, call: ReplicaCall) -> ReplicaAnswer {
    ring.ask(1, 1, Epoch::FOUNDING, call).unwrap()
}

/// In a ring of five, where not everybody holds everything.
#[test]
fn a_pull_gives_the_rows_that_both_hold_and_no_others() {
    let mut ring = SmallRing::new(5).unwrap();
    let placement = ring.placement.clone();
    let holds = |key: &RowKey, member| {
        placement
            .preference_list(slice_of_row(key))
            .contains(&id(member))
    };
    let keys: Vec<_> = (0..60).map(|number| key(100 * number)).collect();
    for key in keys.iter().filter(|key| holds(key, 1)) {
        ring.accept(1, key, 1).unwrap();
    }
    let (mut pulled, mut place) = (Vec::new(), Some(PullPlace::START));
    while let Some(asked) = place {
        let call = ReplicaCall::Pull {
            with: id(2),
            place: asked.clone(),
            limit: 2,
        };
        let answer = ask(&mut ring, call);
        let ReplicaAnswer::Pulled {
            epoch: Epoch::FOUNDING,
            asked: of,
            rows,
            next,
        } = answer
        else {
            panic!("{answer:?}")
        };
        assert!(of == asked && rows.len() <= 2);
        pulled.extend(rows.into_iter().map(|row| row.key));
        place = next;
    }
    let both = keys.iter().filter(|key| holds(key, 1) && holds(key, 2));
    let mut both: Vec<_> = both.cloned().collect();
    both.sort_by_key(row_key::encode);
    assert_eq!(pulled, both);
    assert!(both.len() < keys.iter().filter(|key| holds(key, 1)).count());
}

/// Its tree says of a pair of members what both hold, so that theirs can be compared.
#[test]
fn the_sums_for_another_member_are_over_what_both_hold() {
    let mut ring = SmallRing::new(5).unwrap();
    let placement = ring.placement.clone();
    for number in 0..60 {
        let key = key(100 * number);
        for member in 1..=5 {
            if placement
                .preference_list(slice_of_row(&key))
                .contains(&id(member))
            {
                ring.accept(member, &key, 1).unwrap();
            }
        }
    }
    let mut sums = |at: u8, with: u8| {
        let call = ReplicaCall::TreeGroups { with: id(with) };
        ring.ask(at, at, Epoch::FOUNDING, call).unwrap()
    };
    for (one, other) in [(1, 2), (1, 3), (4, 5)] {
        assert_eq!(sums(one, other), sums(other, one));
    }
    assert_ne!(sums(1, 2), sums(1, 3));
}

#[test]
fn a_disk_that_is_empty_begins_in_the_founding_epoch_and_without_a_say() {
    let ring = SmallRing::new(3).unwrap();
    let mut node = Node {
        disk: ModelDisk::default(),
        replica: None,
    };
    node.start(id(1), ring.placement).unwrap();
    let replica = node.replica.unwrap();
    assert_eq!((replica.epoch(), replica.votes()), (Epoch::FOUNDING, false));
}
