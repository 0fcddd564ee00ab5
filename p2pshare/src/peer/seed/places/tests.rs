//! Many who want to be served at once.

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1000);

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn rate(bytes: u64) -> Option<Rate> {
    Some(Rate::per_second(bytes).unwrap())
}

fn served(places: &mut Places, number: u8) -> StreamId {
    match places.enter(peer(number), NOW) {
        Entry::Served(id) => id,
        other => panic!("{number}: {other:?}"),
    }
}

fn waits(places: &mut Places, number: u8) -> StreamId {
    match places.enter(peer(number), NOW) {
        Entry::Waits(id) => id,
        other => panic!("{number}: {other:?}"),
    }
}

#[test]
fn who_finds_no_place_waits_and_gets_the_next_unless_too_many_wait() {
    let mut places = Places::default();
    let ids: Vec<_> = (0..SEED_STREAMS_MAX as u8)
        .map(|number| served(&mut places, number))
        .collect();
    // One who has a place already is behind one who has none.
    let second = waits(&mut places, 0);
    let first = waits(&mut places, 100);
    assert_eq!(places.promote(NOW), None);
    places.leave(ids[5]);
    assert_eq!(places.count_of(peer(5)), 0);
    // Nor is anybody overtaken.
    let third = waits(&mut places, 101);
    assert_eq!(places.promote(NOW), Some(first));
    assert_eq!(places.promote(NOW), None);
    for id in [ids[6], ids[7]] {
        places.leave(id);
    }
    assert_eq!(places.promote(NOW), Some(third));
    assert_eq!(places.promote(NOW), Some(second));
    assert_eq!(places.promote(NOW), None);
    for number in 0..SEED_WAITING_MAX as u8 {
        waits(&mut places, 150 + number);
    }
    assert_eq!(places.enter(peer(120), NOW), Entry::Full);
}

#[test]
fn one_has_not_more_than_is_one_s() {
    let mut places = Places::default();
    for _ in 0..SEED_STREAMS_PER_PEER_MAX {
        served(&mut places, 1);
    }
    assert_eq!(places.enter(peer(1), NOW), Entry::Full);
    served(&mut places, 2);
    places.set_rate(rate(RATE_MIN));
    for _ in 0..SEED_WAITING_PER_PEER_MAX {
        waits(&mut places, 3);
    }
    assert_eq!(places.enter(peer(3), NOW), Entry::Full);
}

#[test]
fn a_turn_ends_only_for_somebody_who_has_less() {
    let mut places = Places::default();
    places.set_rate(rate(2 * RATE_MIN));
    let (one, two) = (served(&mut places, 1), served(&mut places, 2));
    let later = NOW + SEED_TURN;
    assert!(!places.is_turn_over(one, later), "nobody waits");
    waits(&mut places, 2);
    assert!(!places.is_turn_over(one, later), "who waits has as many");
    let third = waits(&mut places, 3);
    assert!(!places.is_turn_over(one, later - Duration::from_millis(1)));
    assert!(places.is_turn_over(one, later) && places.is_turn_over(two, later));
    places.leave(one);
    assert_eq!(places.promote(later), Some(third));
    assert!(!places.is_turn_over(two, later), "it was one that waited");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the limit and whoever comes, each that is served has enough of it, and one always is.
    #[test]
    fn a_place_is_worth_enough(
        limits in prop::collection::vec(RATE_MIN..RATE_MIN * 100, 1..4),
        comers in prop::collection::vec(0_u8..30, 1..150),
    ) {
        let mut places = Places::default();
        for bytes in limits {
            places.set_rate(rate(bytes));
            while places.promote(NOW).is_some() {}
            for (turn, comer) in comers.iter().enumerate() {
                places.enter(peer(*comer), NOW);
                if turn % 7 == 3 && let Some((&id, _)) = places.served.iter().next() {
                    places.leave(id);
                    while places.promote(NOW).is_some() {}
                }
                let counts = places.counts();
                let most = *counts.values().max().unwrap() as u64;
                prop_assert!(!counts.is_empty());
                let worth = bytes / counts.len() as u64 / most;
                prop_assert!(worth >= RATE_MIN || places.served.len() == 1, "{worth}: {counts:?}");
                prop_assert!(places.served.len() <= SEED_STREAMS_MAX);
                prop_assert!(places.waiting.len() <= SEED_WAITING_MAX);
                prop_assert!(places.first_that_fits().is_none(), "somebody waits in vain");
            }
        }
    }
}
