//! Bytes that want to go at all times, and how many go when.

use proptest::prelude::*;

use super::*;

fn rate(bytes: u64) -> Rate {
    Rate::per_second(bytes).unwrap()
}

/// What goes from `from` on until `until`, in pieces of the sizes in turn, if a timer is as late as `late` says in
/// turn.
fn go(
    pace: &mut Pace,
    (from, until): (Duration, Duration),
    pieces: &[u64],
    late: &[Duration],
) -> Vec<(Duration, u64)> {
    let (mut now, mut gone) = (from, Vec::new());
    let (mut pieces, mut late) = (pieces.iter().cycle(), late.iter().cycle());
    while now < until {
        let wait = pace.wait(now);
        if wait.is_zero() {
            let bytes = *pieces.next().unwrap();
            pace.take(bytes, now);
            gone.push((now, bytes));
        } else {
            now += wait + *late.next().unwrap();
        }
    }
    gone
}

fn total(gone: &[(Duration, u64)]) -> u64 {
    gone.iter().map(|(_, bytes)| bytes).sum()
}

proptest! {
    /// Over any window no more than the rate allows and one burst, and all of the rate in the long run.
    #[test]
    fn a_rate_holds(
        bytes in RATE_MIN..200_000_000,
        pieces in prop::collection::vec(1_u64..=1 << 19, 1..8),
        late in prop::collection::vec(0_u64..40_000, 1..8),
    ) {
        let (rate, mut pace) = (rate(bytes), Pace::default());
        // Not so small that there are very many.
        let pieces: Vec<_> = pieces.into_iter().map(|piece| piece.max(bytes / 500).max(512)).collect();
        let late: Vec<_> = late.into_iter().map(Duration::from_micros).collect();
        pace.set_rate(Some(rate), Duration::ZERO);
        // So long that it is not about the first piece and the last.
        let time = (rate.time_of(1 << 19) * 50).max(Duration::from_secs(2));
        let gone = go(&mut pace, (Duration::ZERO, time), &pieces, &late);
        let burst = bytes as f64 * PACE_SLACK.as_secs_f64() + (1 << 19) as f64 + 1.0;
        for (at, (from, _)) in gone.iter().enumerate().step_by(1 + gone.len() / 50) {
            let mut sum = 0;
            for (now, bytes_then) in &gone[at..] {
                sum += bytes_then;
                let allowed = bytes as f64 * (*now - *from).as_secs_f64() + burst;
                prop_assert!(sum as f64 <= allowed, "{sum} in {:?}", *now - *from);
            }
        }
        prop_assert!(total(&gone) as f64 >= 0.95 * bytes as f64 * time.as_secs_f64());
    }

    /// Whatever was allowed before, from a change on it is the new rate that holds.
    #[test]
    fn a_change_counts_at_once(before in RATE_MIN..200_000_000, after in RATE_MIN..200_000_000) {
        let mut pace = Pace::default();
        let piece = [rate(before).piece_bytes().max(rate(after).piece_bytes()) as u64];
        pace.set_rate(Some(rate(before)), Duration::ZERO);
        let changed = Duration::from_secs(3);
        let time = (rate(after).time_of(piece[0]) * 50).max(Duration::from_secs(2));
        let end = changed + time;
        go(&mut pace, (Duration::ZERO, changed), &piece, &[Duration::ZERO]);
        pace.set_rate(Some(rate(after)), changed);
        let gone = total(&go(&mut pace, (changed, end), &piece, &[Duration::ZERO])) as f64;
        let expected = after as f64 * time.as_secs_f64();
        let burst = after as f64 * PACE_SLACK.as_secs_f64() + piece[0] as f64;
        prop_assert!(gone >= expected * 0.95 && gone <= expected + burst, "{gone} of {expected}");
    }
}

#[test]
fn without_a_rate_nothing_waits_and_what_did_not_go_does_not_count() {
    let (mut pace, now) = (Pace::default(), Duration::from_secs(1));
    pace.take(1 << 40, now);
    assert_eq!(pace.wait(now), Duration::ZERO);
    pace.set_rate(Some(rate(100_000)), now);
    pace.take(200_000, now);
    let rest = Duration::from_secs(2);
    assert_eq!(pace.wait(now), rest);
    pace.give_back(100_000);
    assert_eq!(pace.wait(now), rest - Duration::from_secs(1));
    pace.set_rate(None, now);
    assert_eq!(pace.wait(now), Duration::ZERO);
}

#[test]
fn pieces_are_small_at_low_rates_and_chunks_at_high_ones() {
    assert_eq!(rate(20_000).piece_bytes(), 16 * 1024);
    assert_eq!(rate(40_000_000).piece_bytes(), 400_000);
    assert_eq!(rate(1 << 40).piece_bytes(), CHUNK_SIZE as usize);
    assert_eq!(Rate::per_second(RATE_MIN - 1), Err(RateTooLow));
    assert_eq!(Rate::per_second(0), Err(RateTooLow));
}
