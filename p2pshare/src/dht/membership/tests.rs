//! Many members in virtual time: what gossip costs, how soon a death is known, and what garbage does.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::many::{World, id, life};
use super::rumour::Garbage;
use super::*;
use crate::limits::GOSSIP_BYTES_MAX;

#[test]
fn a_death_is_known_soon_and_talk_is_cheap() {
    for (members, seeds, limit) in [(3, 10, 8), (50, 1, 14)] {
        let limit = Duration::from_secs(limit);
        let mut slowest = Duration::ZERO;
        let mut rate = 0.0;
        for seed in 0..seeds {
            let mut world = World::new(members, seed);
            world.pass(Duration::from_secs(20));
            assert!(world.nobody_is_thought_dead(), "seed {seed}");
            let (bytes, idle) = (world.bytes, Duration::from_secs(60));
            world.pass(idle);
            assert!(world.nobody_is_thought_dead(), "seed {seed}");
            rate = (world.bytes - bytes) as f64 / idle.as_secs_f64() / members as f64;
            assert!(rate < 500.0, "seed {seed}: {rate:.0} bytes/s");
            world.nodes[0].running = false;
            let took = world.until(2 * limit, |world| world.all_think_dead(0));
            assert!(took < limit, "seed {seed}: {took:?}");
            slowest = slowest.max(took);
        }
        println!("{members} members: {rate:.0} bytes/s each, all know of a death in {slowest:?}");
    }
}

#[test]
fn who_restarts_or_was_cut_off_is_alive_again() {
    let seed = 11;
    println!("seed {seed}");
    let mut world = World::new(3, seed);
    world.pass(Duration::from_secs(10));
    world.nodes[0].running = false;
    world.until(Duration::from_secs(10), |world| world.all_think_dead(0));
    // A later life, whose links come up: to one of the two.
    let dice = StdRng::seed_from_u64(seed);
    world.nodes[0].rumours = Rumours::new(life(0, 2), dice);
    let now = world.now;
    let rumours = &mut world.nodes[0].rumours;
    rumours.set_members(now, (0..3).map(id).collect());
    rumours.meet(now, life(1, 1));
    world.nodes[0].running = true;
    world.nodes[1].rumours.meet(now, life(0, 2));
    world.flush(0);
    world.flush(1);
    world.until(Duration::from_secs(3), World::nobody_is_thought_dead);

    // Cut off from both for less than it takes to lose a connection.
    world.cut = [(0, 1), (1, 0), (0, 2), (2, 0)].into();
    world.pass(Duration::from_secs(12));
    assert!(world.nodes[1].rumours.dead().contains(&id(0)));
    assert_eq!(world.nodes[0].rumours.dead().len(), 2);
    world.cut.clear();
    world.until(Duration::from_secs(15), World::nobody_is_thought_dead);
    world.pass(Duration::from_secs(30));
    assert!(world.nobody_is_thought_dead());

    // One way between two of them: the third tells each that the other lives.
    world.cut = [(0, 1)].into();
    world.pass(Duration::from_secs(60));
    assert!(world.nobody_is_thought_dead());
}

#[test]
fn a_pause_of_a_minute_is_survived() {
    let seed = 5;
    println!("seed {seed}");
    let mut world = World::new(3, seed);
    world.pass(Duration::from_secs(10));
    world.nodes[2].running = false;
    world.pass(Duration::from_secs(60));
    assert!(world.all_think_dead(2));
    world.nodes[2].running = true;
    world.until(Duration::from_secs(15), World::nobody_is_thought_dead);
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    let mut world = World::new(3, 1);
    world.pass(Duration::from_secs(10));
    let now = world.now;
    // What one of them really says to another.
    world.nodes[1].rumours.meet(now, life(0, 1));
    let (to, sound) = world.nodes[1].rumours.poll_send().unwrap();
    assert_eq!(to, id(0));
    let rumours = &mut world.nodes[0].rumours;
    let before = rumours.garbage();
    let mut garbage = 0;
    let mut refused = |from: usize, datagram: &[u8], why: Garbage| {
        assert_eq!(
            rumours.receive(now, id(from), datagram),
            Err(why),
            "{datagram:?}"
        );
        garbage += 1;
    };
    refused(1, &[], Garbage::OtherVersion);
    for version in [0, 2, 255] {
        refused(
            1,
            &[&[version], &sound[1..]].concat(),
            Garbage::OtherVersion,
        );
    }
    for length in 1..sound.len() {
        refused(1, &sound[..length], Garbage::Malformed);
    }
    for more in [&[0][..], &[0, 0, 0], &[0, 1], &[0xff; 40]] {
        refused(1, &[&sound, more].concat(), Garbage::Malformed);
    }
    let huge = vec![1; GOSSIP_BYTES_MAX + 1];
    let bytes = huge.len();
    refused(1, &huge, Garbage::TooLong { bytes });
    refused(2, &sound, Garbage::OtherSender);
    // Of another ring's member.
    let mut stranger = Rumours::new(life(9, 1), StdRng::seed_from_u64(1));
    stranger.set_members(now, (0..10).map(id).collect());
    stranger.meet(now, life(0, 1));
    let (_, said) = stranger.poll_send().unwrap();
    refused(9, &said, Garbage::Stranger);
    assert_eq!(rumours.garbage() - before, garbage);
    assert!(rumours.dead().is_empty());
    assert_eq!(rumours.receive(now, id(1), &sound), Ok(()));
    assert_eq!(rumours.garbage() - before, garbage);
    world.pass(Duration::from_secs(30));
    assert!(world.nobody_is_thought_dead());
}
