//! Peers that ask for much and for little, on one stream and on many, and what each gets.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{content::CHUNK_SIZE, limits::RATE_MIN};

const CHUNK: u64 = CHUNK_SIZE as u64;
const NOW: Duration = Duration::ZERO;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

/// A peer that waits at all times, on so many streams, for pieces of its size.
#[derive(Clone, Debug)]
struct Greedy {
    streams: u64,
    piece: u64,
}

fn greedy() -> impl Strategy<Value = Greedy> {
    (1_u64..9, 1..=CHUNK).prop_map(|(streams, piece)| Greedy { streams, piece })
}

proptest! {
    /// Of those who wait at all times none gets more than another, but for what one piece of each is.
    #[test]
    fn each_gets_the_same(all in prop::collection::vec(greedy(), 2..6), turns in 100_usize..400) {
        let mut queue = Turns::new(u64::MAX);
        let mut ids = 0..;
        let mut got: BTreeMap<PeerId, u64> = BTreeMap::new();
        let mut piece_of = BTreeMap::new();
        for (number, greedy) in all.iter().enumerate() {
            let peer = peer(number as u8);
            got.insert(peer, 0);
            piece_of.insert(peer, greedy.piece);
            for _ in 0..greedy.streams {
                queue.ask(peer, ids.next().unwrap(), greedy.piece, Piece::First);
            }
        }
        for _ in 0..turns {
            let Next::Go(peer, _, bytes) = queue.next(NOW) else { panic!("somebody waits") };
            *got.get_mut(&peer).unwrap() += bytes;
            queue.arrived(peer, bytes);
            queue.ask(peer, ids.next().unwrap(), piece_of[&peer], Piece::First);
            for (one, of_one) in &got {
                for (other, of_other) in &got {
                    let apart = of_one.abs_diff(*of_other);
                    prop_assert!(apart <= piece_of[one] + piece_of[other], "{got:?}");
                }
            }
        }
    }

    /// Whatever happens, each has one turn for each time that it asked and did not withdraw, no more is under way than
    /// may be, but for one turn of each, and who waits is not forgotten.
    #[test]
    fn nothing_is_lost(
        most in CHUNK..8 * CHUNK,
        steps in prop::collection::vec((0_u8..4, 0_u8..4, 1..=CHUNK), 1..200),
    ) {
        let mut queue = Turns::new(most);
        let mut waiting: BTreeMap<TurnId, (PeerId, u64)> = BTreeMap::new();
        let mut under_way: Vec<(PeerId, u64)> = Vec::new();
        let served = |queue: &mut Turns, waiting: &mut BTreeMap<_, _>, under_way: &mut Vec<_>| {
            while let Next::Go(peer, id, bytes) = queue.next(NOW) {
                assert_eq!(waiting.remove(&id), Some((peer, bytes)));
                under_way.push((peer, bytes));
                let sum: u64 = under_way.iter().map(|(_, bytes)| bytes).sum();
                let of_peer = under_way.iter().filter(|(to, _)| *to == peer).count();
                assert!(sum <= most || of_peer == 1, "{sum} of {most}");
            }
        };
        for (id, (what, who, bytes)) in (0..).zip(steps) {
            match what {
                0 | 1 => {
                    queue.ask(peer(who), id, bytes, Piece::First);
                    waiting.insert(id, (peer(who), bytes));
                }
                2 => if let Some((id, (peer, _))) = waiting.pop_first() {
                    queue.withdraw(peer, id);
                },
                _ => if let Some((peer, bytes)) = under_way.pop() {
                    queue.arrived(peer, bytes);
                },
            }
            served(&mut queue, &mut waiting, &mut under_way);
        }
        while let Some((peer, bytes)) = under_way.pop() {
            queue.arrived(peer, bytes);
            served(&mut queue, &mut waiting, &mut under_way);
        }
        prop_assert!(waiting.is_empty(), "{waiting:?}");
        for who in 0..4 {
            queue.forget(peer(who));
        }
        prop_assert!(queue.peers.is_empty() && queue.under_way == 0);
    }

    /// A pace is shared as what is unpaced is, and holds.
    #[test]
    fn a_pace_is_shared(bytes in RATE_MIN..50_000_000, streams in 1_u64..9) {
        let rate = Rate::per_second(bytes).unwrap();
        let (piece, mut queue, mut ids) = (rate.piece_bytes() as u64, Turns::new(u64::MAX), 0..);
        queue.set_rate(Some(rate), NOW);
        for _ in 0..streams {
            queue.ask(peer(0), ids.next().unwrap(), piece, Piece::First);
        }
        queue.ask(peer(1), ids.next().unwrap(), piece, Piece::First);
        let (mut now, end) = (NOW, Duration::from_secs(60));
        let mut got = [0_u64; 2];
        while now < end {
            match queue.next(now) {
                Next::Go(to, _, bytes) => {
                    got[usize::from(to == peer(1))] += bytes;
                    queue.arrived(to, bytes);
                    queue.ask(to, ids.next().unwrap(), piece, Piece::First);
                }
                Next::At(at) => now = at,
                Next::Nobody => panic!("both wait"),
            }
        }
        prop_assert!(got[0].abs_diff(got[1]) <= 2 * piece, "{got:?}");
        let (sum, expected) = ((got[0] + got[1]) as f64, 60.0 * bytes as f64);
        prop_assert!(sum >= 0.95 * expected && sum <= 1.05 * expected + 2.0 * piece as f64);
    }
}

#[test]
fn who_takes_slowly_leaves_place_for_others() {
    let mut queue = Turns::new(32 * CHUNK);
    for id in 0..100 {
        queue.ask(peer(0), id, CHUNK, Piece::First);
    }
    let at_once = |queue: &mut Turns| {
        std::iter::from_fn(|| match queue.next(NOW) {
            Next::Go(peer, ..) => Some(peer),
            _ => None,
        })
        .count()
    };
    // One alone has half of what there is.
    assert_eq!(at_once(&mut queue), 16);
    // With nothing of it arriving, others come and go.
    for id in 100..200 {
        queue.ask(peer(1), id, CHUNK, Piece::First);
    }
    assert_eq!(at_once(&mut queue), 8);
    queue.arrived(peer(1), CHUNK);
    assert_eq!(at_once(&mut queue), 1);
    // However many they are, each that has nothing under way has one turn, and the next when it takes it.
    for other in 2..40 {
        for id in 0..2 {
            queue.ask(
                peer(other),
                1000 + 2 * u64::from(other) + id,
                CHUNK,
                Piece::First,
            );
        }
        assert!((1..=4).contains(&at_once(&mut queue)), "{other}");
    }
    assert!(queue.under_way > 32 * CHUNK, "it is full");
    queue.arrived(peer(39), CHUNK);
    assert_eq!(at_once(&mut queue), 1);
    queue.arrived(peer(0), CHUNK);
    assert_eq!(at_once(&mut queue), 0, "it has more than that");
}

#[test]
fn who_was_away_has_no_claim_to_what_the_others_got() {
    let mut queue = Turns::new(u64::MAX);
    queue.ask(peer(1), 0, 10, Piece::First);
    assert_eq!(queue.next(NOW), Next::Go(peer(1), 0, 10));
    for id in 1..100 {
        queue.ask(peer(0), id, CHUNK, Piece::First);
        assert_eq!(queue.next(NOW), Next::Go(peer(0), id, CHUNK));
    }
    for id in 100..110 {
        queue.ask(peer(0), id, CHUNK, Piece::First);
        queue.ask(peer(1), id + 100, CHUNK, Piece::First);
    }
    let mut order = Vec::new();
    while let Next::Go(peer, ..) = queue.next(NOW) {
        order.push(peer);
    }
    let first_of_one = order.iter().take(4).filter(|id| **id == peer(1)).count();
    assert!(
        (1..=3).contains(&first_of_one),
        "{first_of_one} of the first 4"
    );
}

/// Which stream of whom is sent something, piece by piece, when each of `peers` waits for chunks at all times, on so many
/// streams.
fn paced(rate: Rate, peers: u8, streams: u64, pieces: usize) -> Vec<(Duration, (PeerId, u64))> {
    let (piece, mut queue) = (rate.piece_bytes() as u64, Turns::new(u64::MAX));
    queue.set_rate(Some(rate), NOW);
    // Which stream it is, is what is left when its id is divided by how many there are.
    let mut ids = (0..).step_by(streams as usize);
    for number in 0..peers {
        for stream in 0..streams {
            let id = ids.next().unwrap() + stream;
            queue.ask(peer(number), id, piece, Piece::First);
        }
    }
    let (mut now, mut left) = (NOW, BTreeMap::new());
    let mut sent = Vec::new();
    while sent.len() < pieces {
        match queue.next(now) {
            Next::Go(to, id, bytes) => {
                let stream = id % streams;
                sent.push((now, (to, stream)));
                queue.arrived(to, bytes);
                let left = left.entry((to, stream)).or_insert(CHUNK);
                *left = left.saturating_sub(bytes);
                let next = match *left {
                    0 => {
                        *left = CHUNK;
                        Piece::First
                    }
                    _ => Piece::Next,
                };
                queue.ask(to, ids.next().unwrap() + stream, piece, next);
            }
            Next::At(at) => now = at,
            Next::Nobody => panic!("all wait"),
        }
    }
    sent
}

#[test]
fn at_a_high_limit_each_is_sent_a_whole_chunk() {
    let rate = Rate::per_second(10_000_000).unwrap();
    let pieces = CHUNK.div_ceil(rate.piece_bytes() as u64) as usize;
    let sent = paced(rate, 16, 1, 32 * pieces);
    let sent: Vec<PeerId> = sent.into_iter().map(|(_, (to, _))| to).collect();
    let chunks: Vec<&[PeerId]> = sent.chunks(pieces).collect();
    for chunk in &chunks {
        assert!(chunk.iter().all(|to| *to == chunk[0]), "{chunks:?}");
    }
    for round in chunks.chunks(16) {
        let mut round: Vec<PeerId> = round.iter().map(|chunk| chunk[0]).collect();
        round.sort_unstable();
        round.dedup();
        assert_eq!(round.len(), 16, "each has its turn");
    }
}

#[test]
fn at_a_low_limit_nobody_is_sent_nothing_for_long() {
    for (bytes, peers, streams) in [
        (8_000, 1, 1),
        (16_000, 1, 2),
        (100_000, 10, 1),
        (200_000, 1, 8),
        (1_000_000, 16, 3),
        (5_000_000, 64, 1),
    ] {
        let rate = Rate::per_second(bytes).unwrap();
        let piece = rate.time_of(rate.piece_bytes() as u64);
        let all = u32::from(peers) * streams as u32;
        // Where one piece each takes longer than a round should, it is one piece each.
        let most = SEED_ROUND_MAX.max(piece * all) + piece * (all + 1);
        let mut last = BTreeMap::new();
        for (at, to) in paced(rate, peers, streams, 4000) {
            let before = last.insert(to, at).unwrap_or(NOW);
            let pause = at - before;
            assert!(pause <= most, "{pause:?} of {most:?}, {rate:?} to {all}");
        }
        assert_eq!(last.len(), all as usize);
    }
}

#[test]
fn whoever_comes_back_is_not_sent_more_than_the_others() {
    let rate = Rate::per_second(10_000_000).unwrap();
    let mut queue = Turns::new(u64::MAX);
    queue.set_rate(Some(rate), NOW);
    for number in 0..3 {
        queue.ask(
            peer(number),
            number.into(),
            1 + u64::from(number),
            Piece::First,
        );
    }
    let (mut now, mut got, mut ids) = (NOW, [0_u64; 3], 3..);
    while got.iter().sum::<u64>() < 300 * CHUNK {
        match queue.next(now) {
            Next::Go(to, _, bytes) => {
                let number = (0..3).find(|&number| peer(number) == to).unwrap();
                got[usize::from(number)] += bytes;
                queue.arrived(to, bytes);
                if number == 0 {
                    // It closes its stream after each chunk, and opens another.
                    queue.forget(to);
                }
                queue.ask(to, ids.next().unwrap(), CHUNK, Piece::First);
            }
            Next::At(at) => now = at,
            Next::Nobody => panic!("all wait"),
        }
    }
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(most - least <= 2 * CHUNK, "{got:?}");
}

#[test]
fn what_goes_on_and_what_is_little_does_not_wait_for_others() {
    let mut queue = Turns::new(u64::MAX);
    let rate = Rate::per_second(10_000_000).unwrap();
    queue.set_rate(Some(rate), NOW);
    let go = |queue: &mut Turns, at| match queue.next(at) {
        Next::Go(_, id, _) => id,
        next => panic!("{next:?}"),
    };
    let at = |seconds| Duration::from_secs(seconds);
    queue.ask(peer(0), 0, 1000, Piece::First);
    queue.ask(peer(1), 1, 1000, Piece::First);
    queue.ask(peer(0), 2, 1000, Piece::First);
    assert_eq!(go(&mut queue, at(1)), 0);
    queue.ask(peer(0), 3, 10, Piece::Next);
    assert_eq!([go(&mut queue, at(2)), go(&mut queue, at(3))], [3, 1]);
    assert_eq!(go(&mut queue, at(4)), 2);
}
