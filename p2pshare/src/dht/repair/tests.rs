//! An exchange names exactly the rows that differ, and costs what differs.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::dht::small_ring::{SmallRing, faithful, id, key};
use crate::store::Table;

fn exchange(ring: &mut SmallRing, me: u8, other: u8) -> Exchanged {
    let mut machine = Exchange::new(ring.now, id(me), id(other), Epoch::FOUNDING);
    ring.finish(me, &mut machine, 0).unwrap()
}

/// The keys with numbers, as a set.
fn keys(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<RowKey> {
    numbers.into_iter().map(key).collect()
}

fn found(exchanged: &Exchanged) -> BTreeSet<RowKey> {
    let found: BTreeSet<_> = exchanged.rows.iter().cloned().collect();
    assert_eq!(found.len(), exchanged.rows.len(), "a row is named twice");
    found
}

#[test]
fn equal_replicas_cost_one_question() {
    let mut ring = SmallRing::new(2).unwrap();
    let nothing = exchange(&mut ring, 1, 2);
    assert_eq!(nothing.cost.questions, 1);
    for number in 0..2000 {
        for member in [1, 2] {
            ring.accept(member, &key(number), 1).unwrap();
        }
    }
    let exchanged = exchange(&mut ring, 1, 2);
    let (end, questions) = (exchanged.end, exchanged.cost.questions);
    assert_eq!(
        (exchanged.rows.len(), end, questions),
        (0, End::Complete, 1)
    );
    assert!(exchanged.cost.bytes < 2600, "{:?}", exchanged.cost);
}

#[test]
fn one_row_that_differs_costs_four_questions_of_thousands() {
    let mut ring = SmallRing::new(2).unwrap();
    for number in 0..5000 {
        for member in [1, 2] {
            let newer = u64::from(number == 77 && member == 2);
            ring.accept(member, &key(number), 1 + newer).unwrap();
        }
    }
    for (me, other) in [(1, 2), (2, 1)] {
        let exchanged = exchange(&mut ring, me, other);
        assert_eq!(found(&exchanged), keys([77]));
        assert_eq!(exchanged.cost.questions, 4);
        assert!(exchanged.cost.bytes < 8000, "{:?}", exchanged.cost);
    }
}

/// All in one slice: pages of both sides are compared as they come, and do not match.
#[test]
fn a_large_partition_is_compared_page_by_page() {
    let mut ring = SmallRing::new(2).unwrap();
    let row = |number: u32| RowKey::new("files", number.to_be_bytes()).unwrap();
    let mut expected = BTreeSet::new();
    for number in 0..6000 {
        let key = row(number);
        let [one, two] = [number % 3 != 0, !(2000..4500).contains(&number)];
        for (member, _) in [(1, one), (2, two)].into_iter().filter(|(_, has)| *has) {
            ring.accept(member, &key, 1).unwrap();
        }
        if one != two {
            expected.insert(key);
        }
    }
    let exchanged = exchange(&mut ring, 1, 2);
    assert_eq!(exchanged.end, End::Complete);
    assert!(found(&exchanged) == expected);
}

#[test]
fn what_one_exchange_names_is_bounded_and_the_next_goes_on() {
    let mut ring = SmallRing::new(2).unwrap();
    let rows = EXCHANGE_ROWS_MAX as u32 + 100;
    for number in 0..rows {
        ring.accept(1, &key(number), 1).unwrap();
    }
    let first = exchange(&mut ring, 1, 2);
    assert_eq!(
        (first.rows.len(), first.end),
        (EXCHANGE_ROWS_MAX, End::More)
    );
    for key in &first.rows {
        ring.accept(2, key, 1).unwrap();
    }
    let second = exchange(&mut ring, 1, 2);
    assert_eq!((second.rows.len(), second.end), (100, End::Complete));
    assert!(found(&first).is_disjoint(&found(&second)));
}

#[test]
fn it_ends_when_a_member_is_silent_or_knows_a_later_epoch() {
    let mut ring = SmallRing::new(2).unwrap();
    ring.accept(1, &key(1), 1).unwrap();
    let other = ring.node(2).replica.take();
    assert_eq!(exchange(&mut ring, 1, 2).end, End::Silent(id(2)));
    ring.node(2).replica = other;

    let mut machine = Exchange::new(ring.now, id(1), id(2), Epoch::FOUNDING);
    let mute = |_: &mut SmallRing, from, request: &ReplicaRequest, answer| {
        let lost = from == id(2) && matches!(request.call, ReplicaCall::TreeLeaves { .. });
        let answer = Input::Answer { from, answer };
        if lost { Vec::new() } else { vec![answer] }
    };
    assert_eq!(ring.run(1, &mut machine, mute), None);
    let before = ring.now;
    ring.pass_time(&mut machine);
    let exchanged = ring.run(1, &mut machine, mute).unwrap();
    assert_eq!(exchanged.end, End::Silent(id(2)));
    assert_eq!(ring.now - before, EXCHANGE_ANSWER_TIMEOUT);
    assert_eq!(machine.poll_timeout(), None);

    let highest = Epoch::FOUNDING.next_return();
    let read = ReplicaCall::Read { key: key(1) };
    ring.ask(2, 2, highest, read).unwrap();
    assert_eq!(exchange(&mut ring, 1, 2).end, End::StaleEpoch(highest));
}

/// The slices are compared from the highest down.
#[test]
fn a_slice_that_one_cannot_read_keeps_no_other_from_being_compared() {
    for bad in [1, 2] {
        let mut ring = SmallRing::new(2).unwrap();
        for number in 0..500 {
            ring.accept(2, &key(100 * number), 1).unwrap();
        }
        let rotten = (0..500).map(|number| key(100 * number));
        let rotten = rotten.max_by_key(slice_of_row).unwrap();
        // Each of the two has it.
        ring.accept(1, &rotten, 2).unwrap();
        let disk = &mut ring.node(bad).disk;
        disk.rot(Table::Rows, &row_key::encode(&rotten));
        let exchanged = exchange(&mut ring, 1, 2);
        let mut expected = keys((0..500).map(|number| 100 * number));
        expected.retain(|key| slice_of_row(key) != slice_of_row(&rotten));
        assert!(expected.len() > 400);
        assert_eq!(found(&exchanged), expected);
        assert_eq!(exchanged.end, End::Partial);
    }
}

#[test]
fn one_that_does_not_get_on_with_its_rows_is_taken_for_silent() {
    let mut ring = SmallRing::new(2).unwrap();
    ring.accept(1, &key(1), 1).unwrap();
    let mut machine = Exchange::new(ring.now, id(1), id(2), Epoch::FOUNDING);
    let mut told = 0;
    let stuck = |_: &mut SmallRing, from, _: &ReplicaRequest, mut answer| {
        if let ReplicaAnswer::Stamps { rows, next, .. } = &mut answer
            && from == id(2)
        {
            told += 1;
            assert!(told < 10);
            rows.clear();
            *next = Some(key(1));
        }
        vec![Input::Answer { from, answer }]
    };
    assert_eq!(ring.run(1, &mut machine, stuck), None);
    ring.pass_time(&mut machine);
    let exchanged = ring.run(1, &mut machine, faithful).unwrap();
    assert_eq!(exchanged.end, End::Silent(id(2)));
}

#[test]
fn no_more_than_a_few_questions_are_open_at_once() {
    let mut ring = SmallRing::new(2).unwrap();
    for number in 0..500 {
        ring.accept(1, &key(100 * number), 1).unwrap();
    }
    let mut machine = Exchange::new(ring.now, id(1), id(2), Epoch::FOUNDING);
    let (mut most, mut seen) = (0, 0);
    loop {
        let mut asked = Vec::new();
        while let Some(action) = machine.poll_action() {
            match action {
                Action::Send { to, request } => asked.push((to, request)),
                Action::Finish(exchanged) => {
                    assert_eq!(exchanged.rows.len(), 500);
                    assert!(
                        most == 2 * EXCHANGE_QUESTIONS_MAX && seen > 1000,
                        "{most} {seen}"
                    );
                    return;
                }
            }
        }
        most = most.max(asked.len());
        seen += asked.len();
        for (from, request) in asked {
            let answer = ring.nodes.get_mut(&from).unwrap().ask(id(1), request);
            let answer = answer.unwrap().unwrap();
            machine.handle(ring.now, Input::Answer { from, answer });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever two replicas have accepted, and whatever comes twice: the rows that differ are named, and no others.
    #[test]
    fn exactly_what_differs_is_named(
        mine in proptest::collection::btree_map(0..400u32, 1..4u64, 0..120),
        theirs in proptest::collection::btree_map(0..400u32, 1..4u64, 0..120),
        spread in 1..120u32,
        twice in any::<bool>(),
    ) {
        let mut ring = SmallRing::new(2).unwrap();
        for (member, rows) in [(1, &mine), (2, &theirs)] {
            for (number, round) in rows {
                ring.accept(member, &key(number * spread), *round).unwrap();
            }
        }
        let mut machine = Exchange::new(ring.now, id(1), id(2), Epoch::FOUNDING);
        let exchanged = ring.run(1, &mut machine, |_, from, _, answer| {
            vec![Input::Answer { from, answer }; 1 + usize::from(twice)]
        });
        let differ = (0..400).filter(|number| mine.get(number) != theirs.get(number));
        prop_assert_eq!(found(&exchanged.unwrap()), keys(differ.map(|number| number * spread)));
    }
}
