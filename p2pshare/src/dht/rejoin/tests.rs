//! A member that comes back knows all that was decided before it has a say, and nothing that its former life said
//! counts any more.

use std::time::Duration;

use super::*;
use crate::dht::small_ring::{SmallRing, ballot, faithful, id, key, state};
use crate::store::Table;

const RETURNED: Epoch = Epoch {
    list: 1,
    returns: 1,
};

fn life(member: u8) -> Life {
    let (member, incarnation) = (id(member), 2);
    Life {
        member,
        incarnation,
    }
}

fn returning(ring: &SmallRing, member: u8) -> Return {
    Return::new(ring.now, &ring.placement, life(member), Epoch::FOUNDING, 7)
}

/// What a member has accepted for a row.
fn accepted(ring: &mut SmallRing, member: u8, number: u32) -> u64 {
    let stored = ring.node(member).disk.read(|view| {
        let register = crate::dht::replica::register(view, &key(number));
        register.unwrap().accepted
    });
    stored.round
}

/// Rows on different pairs of three members, some of them newer on one.
fn populate(ring: &mut SmallRing, rows: u32) {
    for number in 0..rows {
        for (at, round) in [(1, 1), (2, 1), (3, 1)] {
            if u32::from(at) != number % 4 {
                let newer = u64::from(u32::from(at) == number % 5);
                ring.accept(at, &key(number), round + newer).unwrap();
            }
        }
    }
}

#[test]
fn alone_there_is_nobody_to_ask() {
    let mut ring = SmallRing::new(1).unwrap();
    let mut machine = returning(&ring, 1);
    let returned = ring.run(1, &mut machine, faithful).unwrap();
    assert_eq!((returned.epoch, returned.rows), (Epoch::FOUNDING, 0));
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn every_majority_of_a_slice_has_one_that_was_heard() {
    for members in [2, 3, 5] {
        let ring = SmallRing::new(members).unwrap();
        for (others, needed) in sets(&ring.placement, id(1)) {
            let replicas = others.len() + 1;
            assert!(needed <= others.len());
            // So few of the others are left out that even with the member itself they are no majority.
            assert!(
                others.len() - needed + 1 < majority(replicas),
                "of {members}"
            );
        }
    }
}

#[test]
fn a_wiped_member_knows_every_row_again_in_a_new_epoch() {
    let mut ring = SmallRing::new(3).unwrap();
    populate(&mut ring, 3000);
    ring.wipe(1).unwrap();
    let mut machine = returning(&ring, 1);
    let returned = ring.finish(1, &mut machine, 0).unwrap();
    assert_eq!(returned.epoch, RETURNED);
    for number in 0..3000 {
        let others = accepted(&mut ring, 2, number).max(accepted(&mut ring, 3, number));
        assert_eq!(accepted(&mut ring, 1, number), others, "row {number}");
    }
    // Each of the two sent all that it has.
    assert!((4000..=6000).contains(&returned.rows), "{returned:?}");
    for member in 1..=3 {
        ring.restart(member).unwrap();
        assert_eq!(
            ring.node(member).replica.as_ref().unwrap().epoch(),
            RETURNED
        );
    }
}

#[test]
fn an_empty_ring_has_its_new_epoch_too() {
    let mut ring = SmallRing::new(2).unwrap();
    ring.wipe(2).unwrap();
    let mut machine = returning(&ring, 2);
    let returned = ring.finish(2, &mut machine, 0).unwrap();
    assert_eq!((returned.epoch, returned.rows), (RETURNED, 0));
    assert_eq!(ring.node(2).replica.as_ref().unwrap().epoch(), RETURNED);
}

/// Two users create one row. The first has the promises of members 1 and 2 when 1 loses its disk and comes back,
/// with its fence or without; then the second creates the row through 1 and 3; then the first goes on. Whether both
/// were told that they created it.
fn both_create(fence: bool) -> bool {
    let mut ring = SmallRing::new(3).unwrap();
    let key = key(1);
    let prepare = |round| ReplicaCall::Prepare {
        key: key.clone(),
        ballot: ballot(round),
    };
    let accept = |round| ReplicaCall::Accept {
        key: key.clone(),
        ballot: ballot(round),
        state: state(round),
    };
    for member in [1, 2] {
        let promised = ring.ask(member, 2, Epoch::FOUNDING, prepare(5)).unwrap();
        assert!(
            matches!(promised, ReplicaAnswer::Promised { .. }),
            "{promised:?}"
        );
    }
    ring.wipe(1).unwrap();
    let mut epoch = Epoch::FOUNDING;
    if fence {
        let mut machine = returning(&ring, 1);
        epoch = ring.finish(1, &mut machine, 0).unwrap().epoch;
    }
    ring.node(1).vote();
    let mut agreed = |round, epoch, members: [u8; 2]| {
        let mut agree = |call: ReplicaCall| {
            members.iter().all(|member| {
                let answer = ring.ask(*member, 2, epoch, call.clone()).unwrap();
                matches!(
                    answer,
                    ReplicaAnswer::Promised { .. } | ReplicaAnswer::Accepted { .. }
                )
            })
        };
        (round == 5 || agree(prepare(round))) && agree(accept(round))
    };
    let second = agreed(3, epoch, [1, 3]);
    let first = agreed(5, Epoch::FOUNDING, [2, 3]);
    assert!(second);
    first
}

#[test]
fn without_the_fence_a_row_is_created_twice() {
    assert!(both_create(false));
    assert!(!both_create(true));
}

#[test]
fn it_waits_for_the_one_without_whom_something_may_be_missing() {
    let mut ring = SmallRing::new(3).unwrap();
    populate(&mut ring, 50);
    ring.wipe(1).unwrap();
    let other = ring.node(2).replica.take();
    let mut machine = returning(&ring, 1);
    assert_eq!(ring.finish(1, &mut machine, 20), None);
    assert_eq!(machine.waiting_for(), [id(2)]);
    assert_eq!(accepted(&mut ring, 1, 1), 0);
    ring.node(2).replica = other;
    ring.finish(1, &mut machine, 20).unwrap();
    assert_eq!(machine.waiting_for(), []);
    assert_eq!(accepted(&mut ring, 1, 3), accepted(&mut ring, 2, 3));
}

#[test]
fn one_that_comes_back_too_is_no_help() {
    let mut ring = SmallRing::new(3).unwrap();
    for member in [1, 3] {
        ring.wipe(member).unwrap();
    }
    let mut machine = returning(&ring, 1);
    assert_eq!(ring.finish(1, &mut machine, 20), None);
    assert_eq!(machine.waiting_for(), [id(3)]);
}

#[test]
fn a_fence_that_was_taken_unheard_is_asked_for_again_and_told() {
    let mut ring = SmallRing::new(3).unwrap();
    ring.wipe(1).unwrap();
    let mut machine = returning(&ring, 1);
    let mut lost = 0;
    let silent = |_: &mut SmallRing, from, request: &ReplicaRequest, answer| {
        let loses = from == id(2) && lost == 0;
        assert!(!loses || matches!(request.call, ReplicaCall::Fence { incarnation: 2 }));
        lost += u32::from(loses);
        let answered = Input::Answer { from, answer };
        if loses { Vec::new() } else { vec![answered] }
    };
    assert_eq!(ring.run(1, &mut machine, silent), None);
    assert_eq!(machine.waiting_for(), []);
    let returned = ring.finish(1, &mut machine, 9).unwrap();
    assert_eq!(returned.epoch, RETURNED);
}

#[test]
fn an_answer_counts_only_in_the_epoch_in_which_it_was_asked() {
    let mut ring = SmallRing::new(3).unwrap();
    populate(&mut ring, 10);
    ring.wipe(1).unwrap();
    let mut machine = returning(&ring, 1);
    let late = |epoch| ReplicaAnswer::Fenced { epoch };
    let (now, [from, other]) = (ring.now, [id(2), id(3)]);
    let highest = Epoch {
        returns: 4,
        ..RETURNED
    };
    let answer = ReplicaAnswer::StaleEpoch { highest };
    machine.handle(now, Input::Answer { from, answer });
    // Late answers to the fences of before.
    for from in [from, other] {
        let answer = late(RETURNED);
        machine.handle(now, Input::Answer { from, answer });
    }
    let mut asked = Vec::new();
    while let Some(Action::Send { request, .. }) = machine.poll_action() {
        asked.push((request.epoch.returns, request.call));
    }
    let fence = ReplicaCall::Fence { incarnation: 2 };
    let expected = [1, 1, 5, 5].map(|returns| (returns, fence.clone()));
    assert_eq!(asked, expected);
}

#[test]
fn an_epoch_that_rises_meanwhile_begins_everything_anew() {
    let mut ring = SmallRing::new(3).unwrap();
    populate(&mut ring, 3000);
    ring.wipe(1).unwrap();
    let mut machine = returning(&ring, 1);
    let (mut raised, mut from_start) = (false, 0);
    let raise = |ring: &mut SmallRing, from, request: &ReplicaRequest, answer| {
        if let ReplicaCall::Pull { place, .. } = &request.call {
            from_start += u32::from(*place == PullPlace::START);
            if place.after.is_some() && !raised {
                raised = true;
                let read = ReplicaCall::Read { key: key(1) };
                let epoch = Epoch {
                    returns: 9,
                    ..request.epoch
                };
                ring.ask(3, 2, epoch, read).unwrap();
            }
        }
        vec![Input::Answer { from, answer }]
    };
    let returned = ring.run(1, &mut machine, raise).unwrap();
    assert!(raised && returned.epoch.returns >= 10, "{returned:?}");
    assert!(from_start >= 4, "{from_start}");
}

#[test]
fn two_that_drive_each_other_on_pause_longer_and_longer() {
    let mut ring = SmallRing::new(3).unwrap();
    let mut machine = returning(&ring, 1);
    let mut pauses = Vec::new();
    for _ in 0..20 {
        while machine.poll_action().is_some() {}
        let highest = machine.epoch;
        let (from, answer) = (id(2), ReplicaAnswer::StaleEpoch { highest });
        let before = ring.now;
        machine.handle(before, Input::Answer { from, answer });
        if machine.poll_action().is_none() {
            ring.pass_time(&mut machine);
            pauses.push(ring.now - before);
        }
    }
    assert_eq!(pauses.len(), 19);
    assert!(pauses[0] <= Duration::from_secs(1), "{pauses:?}");
    assert!(
        *pauses.last().unwrap() >= RETURN_PAUSE_LONGEST / 2,
        "{pauses:?}"
    );
}

/// Answers are lost, come twice and late, replicas stop and go on, epochs rise and rows change meanwhile: it ends
/// all the same, and then nothing is missing.
#[test]
fn whatever_happens_meanwhile_nothing_is_missing_in_the_end() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut ring = SmallRing::new(3).unwrap();
        populate(&mut ring, 1500);
        let before: Vec<_> = (0..1500)
            .map(|number| accepted(&mut ring, 2, number).max(accepted(&mut ring, 3, number)))
            .collect();
        if seed % 2 == 0 {
            ring.wipe(1).unwrap();
        } else {
            ring.restart(1).unwrap();
        }
        let mut machine = returning(&ring, 1);
        let returned = run_among_troubles(&mut ring, &mut machine, &mut rng);
        for (number, before) in (0..).zip(before) {
            assert!(accepted(&mut ring, 1, number) >= before, "row {number}");
        }
        for member in 1..=3 {
            let replica = ring.node(member).replica.as_ref().unwrap();
            assert!(replica.epoch() >= returned.epoch);
        }
        let table = ring.node(1).table(Table::HashTree);
        ring.restart(1).unwrap();
        assert_eq!(ring.node(1).table(Table::HashTree), table);
    }
}

#[test]
fn an_epoch_to_which_no_ring_comes_keeps_nobody_from_coming_back() {
    let mut ring = SmallRing::new(3).unwrap();
    populate(&mut ring, 10);
    ring.wipe(1).unwrap();
    let mut machine = returning(&ring, 1);
    let mut lies = 0;
    let returned = ring.run(1, &mut machine, |_, from, _, answer| {
        lies += 1;
        let returns = u64::MAX;
        let highest = Epoch { list: 1, returns };
        let answer = match lies {
            1 => ReplicaAnswer::StaleEpoch { highest },
            _ => answer,
        };
        vec![Input::Answer { from, answer }]
    });
    let returned = returned.unwrap_or_else(|| {
        ring.pass_time(&mut machine);
        ring.run(1, &mut machine, faithful).unwrap()
    });
    assert_eq!(returned.epoch, RETURNED);
}

fn run_among_troubles(ring: &mut SmallRing, machine: &mut Return, rng: &mut SmallRng) -> Returned {
    let mut late = Vec::new();
    let mut stopped = None;
    for round in 0..1000 {
        let calm = round > 40;
        let done = ring.run(1, machine, |ring, from, request, answer| {
            let mine = from == id(1);
            let trouble = if calm || mine {
                100
            } else {
                rng.random_range(0..100)
            };
            if trouble == 0 {
                let epoch = request.epoch.next_return();
                let read = ReplicaCall::Read { key: key(1) };
                ring.ask(2, 2, epoch, read).unwrap();
            }
            let input = Input::Answer { from, answer };
            match trouble {
                1..5 => Vec::new(),
                5..10 => vec![input.clone(), input],
                10..15 => {
                    late.push(input);
                    Vec::new()
                }
                15..20 => vec![Input::Failed { from }],
                20..25 => late.drain(..).chain([input]).collect(),
                _ => vec![input],
            }
        });
        let goes_on = stopped
            .take()
            .map(|(member, replica)| ring.node(member).replica = replica);
        if let Some(returned) = done {
            return returned;
        }
        if goes_on.is_none() && !calm && rng.random_bool(0.3) {
            let member = rng.random_range(2..=3);
            stopped = Some((member, ring.node(member).replica.take()));
        }
        ring.pass_time(machine);
    }
    panic!("it never ended: {machine:?}")
}
