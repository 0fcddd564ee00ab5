//! Swarms that are small enough to be lived through without optimisation.

use super::*;

const PEERS: usize = 20;
const CHUNKS: u32 = 200;

fn over(outcome: &Outcome) -> f64 {
    let last = outcome.last.expect("all come to have it");
    last.as_secs_f64() / outcome.bound.as_secs_f64()
}

#[test]
fn the_last_has_the_file_soon_after_it_can_have_it() {
    for (swarm, most) in [
        (Swarm::new(PEERS, CHUNKS, 1), 1.5),
        (Swarm::new(PEERS, CHUNKS, 1).unequal(), 1.4),
    ] {
        let outcome = swarm.live();
        assert_eq!(outcome.complete, PEERS, "{outcome:?}");
        assert!(over(&outcome) >= 1.0, "{outcome:?}");
        assert!(over(&outcome) < most, "{outcome:?}");
        assert!(outcome.seeder_copies < most, "{outcome:?}");
        assert!(outcome.twice < 0.01, "{outcome:?}");
    }
}

#[test]
fn those_who_go_through_the_file_in_order_trade_too() {
    let swarm = Swarm::new(PEERS, 600, 1).picking(Picking::InOrder);
    let outcome = swarm.given_up_after(3.0).live();
    assert!(over(&outcome) < 2.0, "{outcome:?}");
}

#[test]
fn those_who_stay_have_it_though_others_leave_or_lie() {
    for (swarm, least) in [
        (Swarm::new(PEERS, CHUNKS, 2).leaving(), PEERS * 9 / 10),
        (Swarm::new(PEERS, CHUNKS, 2).lying(), PEERS * 9 / 10),
    ] {
        let outcome = swarm.live();
        assert!(outcome.complete >= least, "{outcome:?}");
        assert!(over(&outcome) < 3.0, "{outcome:?}");
    }
}

#[test]
fn a_seed_lives_through_the_same_again() {
    let trace = |seed| Swarm::new(20, 50, seed).unequal().live().trace;
    for seed in 1..4 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
        assert_ne!(trace(seed), trace(seed + 1), "seed {seed}");
    }
}
