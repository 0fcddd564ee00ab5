//! Sources that are fast, slow, stuck and gone, and what each is asked for.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::limits::{CHUNK_WINDOW, CHUNK_WINDOW_FIRST};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What is asked of whom is easier to follow in the order of the file; rarity has tests of its own.
fn picker(chunks: u32) -> Picker {
    ordered(chunks, Order::OfTheFile, 1)
}

fn ordered(chunks: u32, order: Order, seed: u64) -> Picker {
    let layout = Layout::new(u64::from(chunks) * u64::from(CHUNK_SIZE)).unwrap();
    Picker::new(layout, Bitfield::new(chunks), order, seed)
}

fn all(picker: &Picker) -> Bitfield {
    Bitfield::full(picker.layout.chunk_count())
}

fn only(picker: &Picker, indexes: &[u32]) -> Bitfield {
    let mut only = Bitfield::new(picker.layout.chunk_count());
    indexes.iter().for_each(|&index| {
        only.set(index);
    });
    only
}

/// All that a source, which holds everything if nothing else was said, is asked for at that moment.
fn ask(picker: &mut Picker, source: SourceId, now: Duration) -> Vec<u32> {
    joined(picker, source);
    std::iter::from_fn(|| picker.pick(source, now))
        .map(ChunkIndex::get)
        .collect()
}

fn joined(picker: &mut Picker, source: SourceId) {
    if !picker.sources.contains_key(&source) {
        let all = all(picker);
        picker.join(source, all);
        // With the slack of the window this is a second of its pace.
        picker.note_round_trip(source, MILLISECOND * 492);
    }
}

fn deliver(picker: &mut Picker, source: SourceId, index: u32, now: Duration) -> bool {
    let chunk = picker.layout.chunk(index).unwrap();
    let needed = picker.deliver(source, chunk, now);
    if needed {
        assert!(picker.have(chunk));
    }
    needed
}

/// Lets a source give so many chunks, one each `time`, beginning at `now`; gives the time after them.
fn give(
    picker: &mut Picker,
    source: SourceId,
    chunks: usize,
    mut now: Duration,
    time: Duration,
) -> Duration {
    joined(picker, source);
    for _ in 0..chunks {
        let chunk = picker.pick(source, now).unwrap();
        now += time;
        assert!(deliver(picker, source, chunk.get(), now));
    }
    now
}

#[test]
fn each_chunk_is_asked_for_once_and_what_fails_again() {
    let mut picker = picker(2);
    let now = SECOND;
    assert_eq!(ask(&mut picker, 1, now), [0, 1]);
    let chunk = picker.layout.chunk(1).unwrap();
    picker.refuse(2, chunk, now);
    assert_eq!(ask(&mut picker, 2, now), [0; 0], "it was not asked of 2");
    assert!(!picker.take_news());
    picker.refuse(1, chunk, now);
    assert!(picker.take_news());
    assert_eq!(ask(&mut picker, 2, now), [1]);
    picker.leave(1);
    assert_eq!(ask(&mut picker, 3, now), [0]);
    assert!(!picker.is_idle());
    picker.leave(2);
    picker.leave(3);
    assert!(picker.is_idle());
}

#[test]
fn nobody_is_asked_for_what_it_does_not_hold() {
    let mut picker = picker(3);
    let second = only(&picker, &[1]);
    picker.join(1, second);
    assert_eq!(ask(&mut picker, 1, SECOND), [1]);
    assert_eq!(ask(&mut picker, 2, SECOND), [0, 2]);
}

#[test]
fn a_source_is_asked_for_what_is_under_way_on_its_path() {
    let mut picker = picker(1000);
    assert_eq!(
        ask(&mut picker, 1, Duration::ZERO).len(),
        CHUNK_WINDOW_FIRST
    );
    picker.leave(1);
    for (time, round_trip, window) in [
        (MILLISECOND / 2, MILLISECOND, CHUNK_WINDOW),
        (MILLISECOND * 4, MILLISECOND, 6),
        (MILLISECOND * 4, MILLISECOND * 42, 26),
        (SECOND / 4, MILLISECOND * 42, 2),
        // It idles for less than a sixteenth of its time.
        (SECOND * 2, MILLISECOND * 42, 1),
    ] {
        joined(&mut picker, 2);
        picker.note_round_trip(2, round_trip);
        picker.note_round_trip(2, round_trip * 9);
        let now = give(&mut picker, 2, 20, SECOND, time);
        assert_eq!(ask(&mut picker, 2, now).len(), window, "{time:?}");
        picker.leave(2);
    }
}

#[test]
fn the_window_follows_the_pace() {
    let mut picker = picker(1000);
    joined(&mut picker, 1);
    picker.note_round_trip(1, MILLISECOND * 100);
    let mut windows = Vec::new();
    let mut now = SECOND;
    for time in [20, 20, 20, 200, 20] {
        now = give(&mut picker, 1, 20, now, MILLISECOND * time);
        windows.push(picker.sources[&1].window());
    }
    // The path lost packets for a while.
    assert_eq!(windows, [12, 12, 12, 3, 12]);
}

#[test]
fn the_last_chunks_are_left_to_those_who_are_faster() {
    let mut picker = picker(100);
    // One chunk in 10 ms, and one in 5 s.
    let now = give(&mut picker, 1, 40, Duration::ZERO, MILLISECOND * 10);
    let now = give(&mut picker, 2, 1, now, SECOND * 5);
    assert_eq!(ask(&mut picker, 1, now).len(), CHUNK_WINDOW);
    assert_eq!(
        ask(&mut picker, 2, now),
        [0; 0],
        "all is there in half a second"
    );
    // Unless they are gone, or do not have them.
    picker.leave(1);
    assert_eq!(ask(&mut picker, 2, now), [41, 42]);
}

#[test]
fn what_a_slow_source_has_not_begun_goes_to_one_with_nothing_to_do() {
    let mut picker = picker(200);
    let now = give(&mut picker, 1, 190, Duration::ZERO, MILLISECOND * 10);
    let now = give(&mut picker, 2, 6, now, SECOND);
    assert_eq!(ask(&mut picker, 2, now), [196, 197]);
    assert_eq!(ask(&mut picker, 1, now), [198, 199]);
    assert!(deliver(&mut picker, 1, 198, now + MILLISECOND * 10));
    let now = now + MILLISECOND * 20;
    assert!(deliver(&mut picker, 1, 199, now));
    picker.take_news();
    assert_eq!(ask(&mut picker, 1, now), [197]);
    assert!(picker.take_news());
    assert_eq!(picker.take_unwanted(2), [197]);
    assert_eq!(picker.take_unwanted(2), [0; 0]);
    assert!(deliver(&mut picker, 1, 197, now + MILLISECOND * 10));
    let chunk = picker.layout.chunk(197).unwrap();
    picker.refuse(2, chunk, now + MILLISECOND * 20);
    // The one that may have begun comes soon enough.
    assert_eq!(ask(&mut picker, 1, now + MILLISECOND * 20), [0; 0]);
    assert!(deliver(&mut picker, 2, 196, now + SECOND));
    assert!(picker.is_complete());
}

#[test]
fn equals_take_nothing_from_each_other() {
    let mut picker = picker(100);
    let now = give(&mut picker, 1, 42, Duration::ZERO, MILLISECOND * 50);
    let now = give(&mut picker, 2, 42, now, MILLISECOND * 50);
    assert_eq!(ask(&mut picker, 1, now).len(), 16);
    for late in 0..70 {
        assert_eq!(ask(&mut picker, 2, now + MILLISECOND * late), [0; 0]);
    }
}

#[test]
fn one_who_trickles_does_not_hold_up_the_end() {
    // For one more chunk to come twice, the file is too small.
    let mut small = picker(2);
    assert_eq!(ask(&mut small, 1, Duration::ZERO), [0, 1]);
    let takes = |picker: &mut Picker, millis| ask(picker, 2, MILLISECOND * millis);
    assert_eq!(takes(&mut small, 1900), [0; 0]);
    // What was not begun, as soon as it shows; what was, when the source is as good as stuck.
    assert_eq!(takes(&mut small, 2000), [1]);
    assert!(deliver(&mut small, 2, 1, MILLISECOND * 2010));
    assert_eq!(takes(&mut small, 4900), [0; 0]);
    assert_eq!(takes(&mut small, 5000), [0]);

    let mut large = picker(200);
    give(&mut large, 2, 199, Duration::ZERO, MILLISECOND);
    assert_eq!(ask(&mut large, 1, Duration::ZERO), [199]);
    assert_eq!(takes(&mut large, 1900), [0; 0]);
    assert_eq!(takes(&mut large, 2000), [199]);
    // Whoever is first counts, and the other is told.
    assert!(deliver(&mut large, 1, 199, MILLISECOND * 2010));
    assert_eq!(large.take_unwanted(2), [199]);
    assert!(!deliver(&mut large, 2, 199, MILLISECOND * 2020));
}

#[test]
fn before_the_end_nothing_that_has_begun_to_come_is_asked_of_another() {
    let mut picker = ordered(1000, Order::RarestFirst, 1);
    let now = give(&mut picker, 1, 20, Duration::ZERO, SECOND);
    let slow = ask(&mut picker, 1, now);
    let held = only(&picker, &slow);
    picker.join(2, held);
    // What has not begun is given up by the slow one, which has enough to do.
    assert_eq!(slow.len(), 2);
    assert_eq!(ask(&mut picker, 2, now), slow[1..]);
    assert!(deliver(&mut picker, 2, slow[1], now + MILLISECOND * 10));
    let late = now + SECOND * 30;
    assert_eq!(ask(&mut picker, 2, late), [0; 0]);
    // Once nothing else is missing, the rest is waited for.
    for index in 0..1000 {
        if !picker.had.get(index) && index != slow[0] {
            picker.have(picker.layout.chunk(index).unwrap());
        }
    }
    assert_eq!(ask(&mut picker, 2, late), slow[..1]);
}

#[test]
fn in_order_one_chunk_of_a_small_file_is_not_waited_for_at_any_price() {
    let mut picker = picker(20);
    assert_eq!(ask(&mut picker, 1, Duration::ZERO), [0, 1]);
    let held = only(&picker, &[0, 1]);
    picker.join(2, held);
    assert_eq!(ask(&mut picker, 2, SECOND * 4), [1]);
    assert!(deliver(&mut picker, 2, 1, SECOND * 4));
    picker.refuse(1, picker.layout.chunk(1).unwrap(), SECOND * 4);
    assert_eq!(ask(&mut picker, 2, MILLISECOND * 4_900), [0; 0]);
    assert_eq!(ask(&mut picker, 2, SECOND * 5), [0]);
    assert!(deliver(&mut picker, 2, 0, SECOND * 5));
    // It was one that may come twice; what else is asked of two has to come hardly at all.
    assert!(!deliver(&mut picker, 1, 0, SECOND * 6));
    assert_eq!(ask(&mut picker, 1, SECOND * 6), [2, 3]);
    let held = only(&picker, &[2]);
    picker.join(3, held);
    assert_eq!(ask(&mut picker, 3, SECOND * 20), [0; 0]);
    assert_eq!(ask(&mut picker, 3, SECOND * 21), [2]);
}

#[test]
fn only_what_may_have_come_twice_is_counted_off_when_it_does_not() {
    let mut picker = picker(200);
    let now = give(&mut picker, 2, 198, Duration::ZERO, MILLISECOND);
    assert_eq!(ask(&mut picker, 1, now), [198, 199]);
    // Whoever has something to do takes nothing over, unless somebody waits for what comes first.
    picker.order = Order::RarestFirst;
    let now = now + SECOND * 2;
    for (source, taken) in [(2, 199), (3, 198)] {
        assert_eq!(ask(&mut picker, source, now), [taken]);
    }
    // It trickles, so that none but the first of them has begun to come.
    for index in (198..200).rev() {
        assert_eq!(picker.risked_bytes, u64::from(CHUNK_SIZE), "{index}");
        let chunk = picker.layout.chunk(index).unwrap();
        picker.refuse(1, chunk, now);
    }
    assert_eq!(picker.risked_bytes, 0);
}

#[test]
fn what_was_taken_over_is_not_lost_with_whoever_took_it() {
    let mut picker = picker(200);
    give(&mut picker, 2, 199, Duration::ZERO, MILLISECOND);
    assert_eq!(ask(&mut picker, 1, Duration::ZERO), [199]);
    assert_eq!(ask(&mut picker, 2, SECOND * 3), [199]);
    picker.leave(2);
    assert!(!picker.is_idle(), "it is expected of the first again");
    picker.leave(1);
    assert_eq!(ask(&mut picker, 3, SECOND * 3), [199]);
}

#[test]
fn what_the_fewest_have_is_asked_for_first() {
    let mut picker = ordered(4, Order::RarestFirst, 1);
    for (source, holds) in [(1, &[0, 1, 2][..]), (2, &[1, 2]), (3, &[2])] {
        let holds = only(&picker, holds);
        picker.join(source, holds);
    }
    let order = |picker: &mut Picker| {
        let asked = [ask(picker, 8, SECOND), ask(picker, 9, SECOND)].concat();
        picker.leave(8);
        picker.leave(9);
        asked
    };
    assert_eq!(order(&mut picker), [3, 0, 1, 2]);
    // They get more, and give what they had to others.
    for (source, index) in [(1, 3), (2, 3), (3, 3), (1, 0), (2, 0), (2, 0)] {
        assert!(picker.learn(source, index));
    }
    assert!(!picker.learn(1, 0), "it said so before");
    assert!(!picker.learn(1, 4), "there is none");
    assert_eq!(order(&mut picker), [1, 2, 3, 0]);
    // What the tracker knows counts for those who are not connected.
    picker.note_availability(&[3, 50, 3, 3]);
    assert_eq!(order(&mut picker), [2, 3, 0, 1]);
    picker.note_availability(&[1; 3]);
    for source in 1..=3 {
        picker.leave(source);
    }
    assert_eq!(order(&mut picker).pop(), Some(1));
}

#[test]
fn of_what_is_equally_rare_each_takes_a_run_from_a_place_of_its_own() {
    let runs = |seed| {
        let mut picker = ordered(1000, Order::RarestFirst, seed);
        let asked = (0..40).flat_map(|_| {
            let asked = ask(&mut picker, 1, SECOND);
            for &index in &asked {
                deliver(&mut picker, 1, index, SECOND);
            }
            asked
        });
        asked.collect::<Vec<_>>()
    };
    let first: Vec<u32> = (0..20).map(|seed| runs(seed)[0]).collect();
    let spread = first.iter().filter(|&&first| first < 500).count();
    assert!((4..=16).contains(&spread), "{first:?}");
    assert_eq!(runs(7), runs(7), "the dice are seeded");
    let run = runs(7);
    assert_eq!(run.len(), 1000);
    let breaks = run.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert!(breaks < 20, "{breaks}");
}

#[test]
fn two_on_the_same_way_through_a_file_part() {
    let mut two = [1, 2].map(|seed| ordered(200, Order::RarestFirst, seed));
    for picker in &mut two {
        joined(picker, 1);
        picker.join(2, only(picker, &[]));
        picker.sources.get_mut(&1).unwrap().next = 50;
    }
    let mut both = 0;
    for step in 0..40 {
        let now = SECOND * step;
        let [one, other] = [0, 1].map(|at: usize| two[at].pick(1, now).unwrap().get());
        both += u32::from(one == other);
        // What comes to the one at the very same pace comes a moment sooner, and is told.
        assert!(deliver(&mut two[0], 1, one, now));
        assert!(two[1].learn(2, one));
        assert!(deliver(&mut two[1], 1, other, now));
        assert!(two[0].learn(2, other));
    }
    assert!(both <= 2, "{both} of 40 were fetched by both");
}

#[test]
fn in_order_it_is_the_first_that_is_missing() {
    let mut picker = picker(9);
    let rare = only(&picker, &[1, 2, 3]);
    picker.join(1, rare);
    picker.note_availability(&[9, 9, 9, 9, 9, 9, 9, 1, 1]);
    assert_eq!(ask(&mut picker, 2, SECOND), [0, 1]);
    let second = picker.layout.chunk(1).unwrap();
    picker.refuse(2, second, SECOND);
    assert_eq!(ask(&mut picker, 3, SECOND), [1, 2]);
}

#[test]
fn in_order_those_who_share_a_source_ask_for_different_chunks_near_the_first_that_is_missing() {
    let mut asked = Vec::new();
    for seed in 0..8 {
        let mut picker = ordered(2000, Order::OfTheFile, seed);
        joined(&mut picker, 1);
        assert_eq!(picker.pick(1, SECOND).unwrap().get(), 0);
        deliver(&mut picker, 1, 0, SECOND);
        assert!((1..20).all(|given| picker.learn(1, given)));
        let index = picker.pick(1, SECOND).unwrap().get();
        assert!((20..=IN_ORDER_NEAR).contains(&index), "{index}");
        asked.push(index);
        // What comes first is not left out for long.
        for _ in 1..IN_ORDER_NEAR + 20 {
            let index = picker.sources[&1].queue[0];
            deliver(&mut picker, 1, index, SECOND);
            picker.pick(1, SECOND).unwrap();
        }
        assert!((0..20).all(|index| picker.taken.get(index)));
    }
    asked.sort_unstable();
    asked.dedup();
    assert!(asked.len() > 4, "{asked:?}");
}

#[test]
fn in_order_nobody_waits_long_for_what_a_slow_source_was_asked_for_first() {
    let mut picker = picker(2000);
    // One gives a chunk in a minute, and one in 50 ms, which has a second's worth to do at any time.
    assert_eq!(ask(&mut picker, 2, Duration::ZERO), [0, 1]);
    let mut queue = VecDeque::from(ask(&mut picker, 1, Duration::ZERO));
    let mut now = Duration::ZERO;
    let first = only(&picker, &[0, 1]);
    while first.first_lacked_by(&picker.had, 0..2).is_some() {
        now += MILLISECOND * 50;
        assert!(now < SECOND * 5, "{:?} of them are there", picker.had);
        let index = queue.pop_front().expect("it is never idle");
        assert!(deliver(&mut picker, 1, index, now));
        queue.extend(ask(&mut picker, 1, now));
    }
    assert!(now >= SECOND * 2, "it has its chance");
    // What had begun to come from the slow one, and no more, is risked to come twice.
    assert_eq!(picker.risked_bytes, u64::from(CHUNK_SIZE));
    assert_eq!(picker.take_unwanted(2).len(), 2);
}

#[test]
fn who_had_everything_and_lacked_a_chunk_leaves_no_trace() {
    let mut picker = ordered(40, Order::RarestFirst, 1);
    // Another has a part, which counts.
    picker.join(2, only(&picker, &[3]));
    let counts = |picker: &Picker, of_chunk| {
        let seen = |index| if index == 3 { of_chunk } else { 0 };
        picker.rarity.check(&picker.taken, seen);
    };
    joined(&mut picker, 1);
    let chunk = picker.layout.chunk(3).unwrap();
    picker.lack(1, chunk, SECOND);
    counts(&picker, 1);
    assert!(picker.learn(1, 3), "it has it again");
    counts(&picker, 1);
    // That it gave it to somebody counts, as long as it is there.
    assert!(picker.learn(1, 3));
    counts(&picker, 2);
    picker.leave(1);
    counts(&picker, 1);
}

#[test]
fn what_only_a_slow_source_has_is_asked_of_it() {
    let mut picker = ordered(100, Order::RarestFirst, 1);
    let most: Vec<u32> = (0..99).collect();
    let most = only(&picker, &most);
    picker.join(1, most);
    let now = give(&mut picker, 1, 40, Duration::ZERO, MILLISECOND * 10);
    joined(&mut picker, 2);
    let chunk = picker.pick(2, now).unwrap();
    assert_eq!(chunk.get(), 99);
    assert!(deliver(&mut picker, 2, 99, now + SECOND * 5));
    assert!(!ask(&mut picker, 1, now).is_empty());
    assert_eq!(
        ask(&mut picker, 2, now),
        [0; 0],
        "the fast one has the rest"
    );
}

#[test]
fn the_source_from_which_the_least_comes_gives_up_its_place() {
    let mut picker = picker(100);
    let now = give(&mut picker, 1, 10, Duration::ZERO, MILLISECOND * 50);
    let now = give(&mut picker, 2, 10, now, MILLISECOND * 10);
    let now = give(&mut picker, 3, 10, now, MILLISECOND * 20);
    assert_eq!(ask(&mut picker, 1, now)[..2], [30, 31]);
    assert!(!picker.retire_slowest(&[7], now), "there is none");
    assert!(picker.retire_slowest(&[1, 2, 3], now));
    assert!(picker.is_retired(1));
    assert!(deliver(&mut picker, 1, 30, now), "it gives what was asked");
    assert_eq!(ask(&mut picker, 1, now), [0; 0]);
    assert!(picker.retire_slowest(&[1, 2, 3], now));
    assert!(picker.is_retired(3) && !picker.is_retired(2));
    // What the second alone has is a reason to keep it, most of the time.
    (1..=3).for_each(|source| picker.leave(source));
    let kept = (0..100).filter(|_| {
        joined(&mut picker, 2);
        !picker.retire_slowest(&[2], now) || {
            picker.leave(2);
            false
        }
    });
    let kept = kept.count();
    assert!((55..95).contains(&kept), "{kept}");
}

#[test]
fn a_file_of_one_tebibyte() {
    let layout = Layout::new(1 << 40).unwrap();
    let count = layout.chunk_count();
    assert_eq!(count, 1 << 21);
    let mut picker = Picker::new(layout, Bitfield::new(count), Order::RarestFirst, 3);
    for source in 0..4 {
        picker.join(source, Bitfield::full(count));
        let half = Bitfield::from_bytes(count, &vec![0x11 << source; count as usize / 8]);
        picker.join(source + 4, half.unwrap());
    }
    // Everybody gives, and those who have a part tell of more.
    let mut now = Duration::ZERO;
    for round in 0..2_000u32 {
        now += MILLISECOND;
        for source in 0..8 {
            if let Some(chunk) = picker.pick(source, now) {
                let index = chunk.get();
                assert!(
                    picker.deliver(source, chunk, now) && picker.have(chunk),
                    "{index}"
                );
            }
            picker.learn(source, round * 97 % count);
        }
    }
    assert_eq!(picker.missing_count(), count - 16_000);
    picker.note_availability(&vec![7; count as usize]);
    (0..8).for_each(|source| picker.leave(source));
    assert!(picker.is_idle());
}

#[test]
fn the_end_of_a_file_of_one_tebibyte() {
    let layout = Layout::new(1 << 40).unwrap();
    let count = layout.chunk_count();
    // Few are missing, far from each other, and of each source it is another rarity that it has: so whoever looks for
    // something in vain looks through the whole file, for each rarity.
    let (apart, kinds) = (2801, 8);
    let kind = |index: u32| index / apart % kinds;
    let is_missing = |index: u32| index.is_multiple_of(apart);
    let of = |wanted: &dyn Fn(u32) -> bool| {
        let mut bits = Bitfield::new(count);
        (0..count).filter(|&index| wanted(index)).for_each(|index| {
            bits.set(index);
        });
        bits
    };
    let had = of(&|index| !is_missing(index));
    let missing = count - had.count();
    assert_eq!(missing, 749);
    let mut picker = Picker::new(layout, had, Order::RarestFirst, 3);
    let counts: Vec<u16> = (0..count).map(|index| 1 + kind(index) as u16).collect();
    picker.note_availability(&counts);
    let looks = std::time::Instant::now();
    for source in 0..kinds {
        let holds = of(&|index| is_missing(index) && kind(index) == source);
        picker.join(source.into(), holds);
    }
    let one_look = looks.elapsed() / kinds;
    let (start, mut now) = (std::time::Instant::now(), Duration::ZERO);
    while !picker.is_complete() {
        now += MILLISECOND;
        let before = picker.missing_count();
        for source in 0..kinds {
            if let Some(chunk) = picker.pick(source.into(), now) {
                assert_eq!(kind(chunk.get()), source);
                assert!(deliver(&mut picker, source.into(), chunk.get(), now));
            }
        }
        assert!(picker.missing_count() < before);
    }
    // Much less than to look for each of them at all chunks of the file, one by one.
    let took = start.elapsed();
    assert!(
        took < one_look * missing,
        "{took:?}, and one look {one_look:?}"
    );
}

/// A swarm on paper: sources that give a chunk in so many milliseconds, each at its own pace, and hold what
/// they hold. Gives how long it took and how many chunks came twice.
fn simulate(chunks: u32, paces: &[u64], holds: impl Fn(u64, u32) -> bool) -> (Duration, u32) {
    let mut picker = ordered(chunks, Order::RarestFirst, 1);
    for source in 0..paces.len() as u64 {
        let indexes: Vec<u32> = (0..chunks).filter(|&i| holds(source, i)).collect();
        let held = only(&picker, &indexes);
        picker.join(source, held);
    }
    let mut queues: HashMap<SourceId, VecDeque<u32>> = HashMap::new();
    let mut due: HashMap<SourceId, u64> = HashMap::new();
    let mut twice = 0;
    for millis in (0..).step_by(10) {
        let now = MILLISECOND * millis as u32;
        for (source, &pace) in (0..).zip(paces) {
            let queue = queues.entry(source).or_default();
            if !queue.is_empty() && due[&source] <= millis {
                let index = queue.pop_front().unwrap();
                due.insert(source, millis + pace);
                twice += u32::from(!deliver(&mut picker, source, index, now));
            }
            // What has not begun is not sent.
            for index in picker.take_unwanted(source) {
                if queue.iter().skip(1).any(|&queued| queued == index) {
                    queue.retain(|&queued| queued != index);
                    let chunk = picker.layout.chunk(index).unwrap();
                    picker.refuse(source, chunk, now);
                }
            }
            while let Some(chunk) = picker.pick(source, now) {
                if queue.is_empty() {
                    due.insert(source, millis + pace);
                }
                queue.push_back(chunk.get());
            }
        }
        if picker.is_complete() {
            return (now, twice);
        }
        assert!(millis < 10_000_000, "it does not end");
    }
    unreachable!()
}

#[test]
fn the_slow_ones_hold_up_the_end_by_little() {
    // Without the slow ones it takes 1 s.
    let (took, twice) = simulate(400, &[10, 10, 10, 10, 3_000, 60_000], |_, _| true);
    assert!(took < MILLISECOND * 2_500, "{took:?}");
    assert!(twice <= 1, "{twice}");
}

proptest! {
    #[test]
    fn whatever_happens_every_chunk_is_had_in_the_end(
        acts in proptest::collection::vec((0u8..8, 0u64..3, 0u32..40, 0u32..9_000), 0..300),
        order in 0usize..3,
        seed in any::<u64>(),
    ) {
        let order = [Order::RarestFirst, Order::OfTheFile, Order::Random][order];
        let mut picker = ordered(40, order, seed);
        let held = |picker: &Picker, source: u64| {
            // One of them has everything.
            let held = (0..40).filter(|at| source == 2 || u64::from(at % 3) != source);
            let held: Vec<u32> = held.collect();
            only(picker, &held)
        };
        let mut now = Duration::ZERO;
        let mut queues: [VecDeque<ChunkIndex>; 3] = Default::default();
        for (act, source, index, later) in acts {
            now += MILLISECOND * later;
            let queue = &mut queues[source as usize];
            if !picker.sources.contains_key(&source) {
                let held = held(&picker, source);
                picker.join(source, held);
            }
            match act {
                0..=2 => if let Some(chunk) = picker.pick(source, now) {
                    prop_assert!(!picker.had.get(chunk.get()));
                    prop_assert!(!queue.contains(&chunk), "it was asked of this one already");
                    prop_assert!(picker.sources[&source].holds.get(chunk.get()));
                    queue.push_back(chunk);
                    prop_assert!(queue.len() <= CHUNK_WINDOW);
                },
                6 => {
                    let asked = &picker.sources[&source];
                    let gave = asked.gave.as_ref().is_some_and(|gave| gave.get(index));
                    let known = asked.holds.get(index) && gave;
                    prop_assert_eq!(picker.learn(source, index), !known);
                }
                7 => picker.note_availability(&(0..40).map(|at| at * index as u16).collect::<Vec<_>>()),
                3 => if let Some(chunk) = queue.pop_front() {
                    if picker.deliver(source, chunk, now) {
                        prop_assert!(picker.have(chunk), "it was had");
                    } else {
                        prop_assert!(picker.had.get(chunk.get()));
                    }
                },
                4 => if let Some(chunk) = queue.pop_front() {
                    match index % 2 {
                        0 => picker.refuse(source, chunk, now),
                        _ => picker.lack(source, chunk, now),
                    }
                },
                _ if index < 10 => {
                    picker.leave(source);
                    queue.clear();
                }
                _ => {
                    for index in picker.take_unwanted(source) {
                        prop_assert!(queue.iter().any(|chunk| chunk.get() == index));
                    }
                }
            }
            for (&index, &of) in &picker.asked {
                let queued = queues[of as usize].iter().any(|chunk| chunk.get() == index);
                prop_assert!(queued && picker.taken.get(index) && !picker.had.get(index));
            }
            let sources: Vec<_> = picker.sources.values().collect();
            picker.rarity.check(&picker.taken, |index| {
                let count = |asked: &&Asked| {
                    let gave = asked.gave.as_ref().is_some_and(|gave| gave.get(index));
                    u8::from(asked.counts && asked.holds.get(index)) + u8::from(gave)
                };
                sources.iter().map(count).sum()
            });
        }
        (0..3).for_each(|source| picker.leave(source));
        prop_assert!(picker.is_idle() && picker.taken == picker.had);
        joined(&mut picker, 9);
        while let Some(chunk) = picker.pick(9, now) {
            prop_assert!(picker.deliver(9, chunk, now) && picker.have(chunk));
        }
        prop_assert!(picker.is_complete());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_swarm_comes_to_its_end_with_next_to_nothing_twice(
        paces in proptest::collection::vec(1u64..100, 1..6),
        parts in any::<u64>(),
    ) {
        // Each chunk is held by the first, and by some of the others.
        let paces: Vec<u64> = paces.into_iter().map(|pace| pace * pace).collect();
        let holds = |source: u64, index: u32| source == 0 || parts.rotate_left(index * 7 + source as u32) & 1 == 1;
        let (_, twice) = simulate(300, &paces, holds);
        prop_assert!(twice <= 3 + paces.len() as u32, "{twice}");
    }
}
