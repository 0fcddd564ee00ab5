//! Sources that are fast, slow, stuck and gone, and what each is asked for.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn picker(chunks: u32) -> Picker {
    let layout = Layout::new(u64::from(chunks) * u64::from(CHUNK_SIZE)).unwrap();
    Picker::new(layout, Bitfield::new(chunks))
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

/// All that a source is asked for at that moment.
fn ask(picker: &mut Picker, source: SourceId, now: Duration) -> Vec<u32> {
    let all = all(picker);
    std::iter::from_fn(|| picker.pick(source, &all, now))
        .map(ChunkIndex::get)
        .collect()
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
    let all = all(picker);
    for _ in 0..chunks {
        let chunk = picker.pick(source, &all, now).unwrap();
        now += time;
        assert!(deliver(picker, source, chunk.get(), now));
    }
    now
}

#[test]
fn each_chunk_is_asked_for_once_and_what_fails_again() {
    let mut picker = picker(3);
    let now = SECOND;
    assert_eq!(ask(&mut picker, 1, now), [0, 1, 2]);
    let chunk = picker.layout.chunk(1).unwrap();
    picker.refuse(2, chunk, now);
    assert_eq!(ask(&mut picker, 2, now), [0; 0], "it was not asked of 2");
    assert!(!picker.take_news());
    picker.refuse(1, chunk, now);
    assert!(picker.take_news());
    assert_eq!(ask(&mut picker, 2, now), [1]);
    picker.leave(1);
    assert_eq!(ask(&mut picker, 3, now), [0, 2]);
    assert!(!picker.is_idle());
    picker.leave(2);
    picker.leave(3);
    assert!(picker.is_idle());
}

#[test]
fn nobody_is_asked_for_what_it_does_not_hold() {
    let mut picker = picker(4);
    let second = only(&picker, &[2]);
    let chunk = picker.pick(1, &second, SECOND).unwrap();
    assert_eq!(chunk.get(), 2);
    assert_eq!(picker.pick(1, &second, SECOND), None);
    assert_eq!(ask(&mut picker, 2, SECOND), [0, 1, 3]);
}

#[test]
fn the_sweep_goes_over_the_end_to_where_it_began() {
    let mut picker = picker(5);
    let second = only(&picker, &[1]);
    assert!(picker.pick(1, &second, SECOND).is_some());
    // The third that is missing.
    picker.diverge(4 + 2);
    assert_eq!(ask(&mut picker, 1, SECOND), [3, 4, 0]);
    assert_eq!(ask(&mut picker, 2, SECOND), [2]);
    picker.diverge(9);
    assert_eq!(ask(&mut picker, 3, SECOND), [0; 0]);
}

#[test]
fn a_source_is_asked_for_what_it_gives_in_two_seconds() {
    let mut picker = picker(1000);
    assert_eq!(
        ask(&mut picker, 1, Duration::ZERO).len(),
        CHUNK_WINDOW_FIRST
    );
    picker.leave(1);
    for (time, window) in [
        (MILLISECOND, CHUNK_WINDOW),
        (SECOND / 4, 8),
        (SECOND, 2),
        (SECOND * 9, 1),
    ] {
        let now = give(&mut picker, 2, 20, SECOND, time);
        assert_eq!(ask(&mut picker, 2, now).len(), window, "{time:?}");
        picker.leave(2);
    }
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
    assert_eq!(ask(&mut picker, 2, now), [41]);
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
    assert_eq!(ask(&mut picker, 1, now).len(), CHUNK_WINDOW);
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
fn only_what_may_have_come_twice_is_counted_off_when_it_does_not() {
    let mut picker = picker(200);
    let now = give(&mut picker, 2, 196, Duration::ZERO, MILLISECOND);
    assert_eq!(ask(&mut picker, 1, now), [196, 197, 198, 199]);
    let now = now + SECOND * 2;
    for (source, taken) in [(2, 199), (3, 198), (4, 197), (5, 196)] {
        assert_eq!(ask(&mut picker, source, now), [taken]);
    }
    // It trickles, so that none but the first of them has begun to come.
    for index in (196..200).rev() {
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

/// A swarm on paper: sources that give a chunk in so many milliseconds, each at its own pace, and hold what
/// they hold. Gives how long it took and how many chunks came twice.
fn simulate(chunks: u32, paces: &[u64], holds: impl Fn(u64, u32) -> bool) -> (Duration, u32) {
    let mut picker = picker(chunks);
    let held: Vec<Bitfield> = (0..paces.len() as u64)
        .map(|source| {
            let indexes: Vec<u32> = (0..chunks).filter(|&i| holds(source, i)).collect();
            only(&picker, &indexes)
        })
        .collect();
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
            while let Some(chunk) = picker.pick(source, &held[source as usize], now) {
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
        acts in proptest::collection::vec((0u8..6, 0u64..3, 0u32..40, 0u32..9_000), 0..300)
    ) {
        let mut picker = picker(40);
        let holds: Vec<_> = (0..3u32)
            .map(|source| {
                let held: Vec<u32> = (0..40).filter(|at| at % 3 != source).collect();
                only(&picker, &held)
            })
            .collect();
        let mut now = Duration::ZERO;
        let mut queues: [VecDeque<ChunkIndex>; 3] = Default::default();
        for (act, source, index, later) in acts {
            now += MILLISECOND * later;
            let queue = &mut queues[source as usize];
            match act {
                0..=2 => if let Some(chunk) = picker.pick(source, &holds[source as usize], now) {
                    prop_assert!(!picker.had.get(chunk.get()));
                    prop_assert!(!queue.contains(&chunk), "it was asked of this one already");
                    prop_assert!(holds[source as usize].get(chunk.get()));
                    queue.push_back(chunk);
                    prop_assert!(queue.len() <= CHUNK_WINDOW);
                },
                3 => if let Some(chunk) = queue.pop_front() {
                    if picker.deliver(source, chunk, now) {
                        prop_assert!(picker.have(chunk), "it was had");
                    } else {
                        prop_assert!(picker.had.get(chunk.get()));
                    }
                },
                4 => if let Some(chunk) = queue.pop_front() {
                    picker.refuse(source, chunk, now);
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
        }
        (0..3).for_each(|source| picker.leave(source));
        prop_assert!(picker.is_idle() && picker.taken == picker.had);
        let full = all(&picker);
        while let Some(chunk) = picker.pick(9, &full, now) {
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
