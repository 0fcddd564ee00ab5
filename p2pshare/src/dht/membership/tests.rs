//! Many members in virtual time: what gossip costs, how soon a death is known, and what garbage does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::rumour::Garbage;
use super::*;
use crate::limits::GOSSIP_BYTES_MAX;

/// When it arrives, its number, from whom, to whom, and what.
type UnderWay = (Instant, u64, usize, usize, Bytes);

/// Members whose links are all up, apart from those of whom the test says otherwise.
struct World {
    now: Instant,
    began: Instant,
    dice: StdRng,
    nodes: Vec<Node>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    sent: u64,
    bytes: u64,
    loss: f64,
    /// Pairs between which nothing gets through, one way.
    cut: BTreeSet<(usize, usize)>,
}

struct Node {
    rumours: Rumours,
    running: bool,
}

impl World {
    fn new(members: usize, seed: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            now,
            began: now,
            dice: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            under_way: BinaryHeap::new(),
            sent: 0,
            bytes: 0,
            loss: 0.01,
            cut: BTreeSet::new(),
        };
        for member in 0..members {
            let dice = StdRng::seed_from_u64(world.dice.random());
            let mut rumours = Rumours::new(life(member, 1), dice);
            rumours.set_members(now, (0..members).map(id).collect());
            let running = true;
            world.nodes.push(Node { rumours, running });
        }
        // The links come up one after the other.
        for one in 0..members {
            for other in (0..members).filter(|other| *other != one) {
                let now = world.now;
                world.nodes[one].rumours.meet(now, life(other, 1));
            }
            world.flush(one);
        }
        world
    }

    /// Sends what a member wants sent.
    fn flush(&mut self, from: usize) {
        while let Some((to, datagram)) = self.nodes[from].rumours.poll_send() {
            assert!(datagram.len() <= GOSSIP_BYTES_MAX);
            self.bytes += datagram.len() as u64;
            self.sent += 1;
            let to = number(to);
            if self.dice.random_bool(self.loss) || self.cut.contains(&(from, to)) {
                continue;
            }
            let due = self.now + Duration::from_micros(self.dice.random_range(200..2000));
            self.under_way
                .push(Reverse((due, self.sent, from, to, datagram)));
        }
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Lets time pass until `done`: how much it took.
    fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while !done(self) {
            assert!(self.step(began + limit), "not within {limit:?}");
        }
        self.now - began
    }

    fn step(&mut self, until: Instant) -> bool {
        let arrival = self.under_way.peek().map(|Reverse((due, ..))| *due);
        let running = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.running);
        let alarm = running
            .filter_map(|(index, node)| Some((node.rumours.poll_timeout()?, index)))
            .min();
        let next = arrival.into_iter().chain(alarm.map(|(due, _)| due)).min();
        let Some(next) = next.filter(|next| *next <= until) else {
            return false;
        };
        self.now = self.now.max(next);
        let who = match (arrival, alarm) {
            (Some(arrival), alarm) if alarm.is_none_or(|(due, _)| arrival <= due) => {
                let Some(Reverse((_, _, from, to, datagram))) = self.under_way.pop() else {
                    return false;
                };
                if self.nodes[to].running {
                    let taken = self.nodes[to]
                        .rumours
                        .receive(self.now, id(from), &datagram);
                    assert_eq!(taken, Ok(()));
                }
                to
            }
            (_, Some((_, who))) => {
                self.nodes[who].rumours.handle_timeout(self.now);
                who
            }
            _ => return false,
        };
        self.flush(who);
        true
    }

    fn all_think_dead(&self, dead: usize) -> bool {
        let others = self.nodes.iter().filter(|node| node.running);
        others
            .into_iter()
            .all(|node| node.rumours.dead().contains(&id(dead)))
    }

    fn nobody_is_thought_dead(&self) -> bool {
        self.nodes.iter().all(|node| node.rumours.dead().is_empty())
    }
}

fn id(member: usize) -> MemberId {
    MemberId::from_bytes((member as u128).to_be_bytes())
}

fn number(id: MemberId) -> usize {
    u128::from_be_bytes(*id.as_bytes()) as usize
}

fn life(member: usize, incarnation: u64) -> Life {
    let member = id(member);
    Life {
        member,
        incarnation,
    }
}

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
    assert!(world.nobody_is_thought_dead() && world.now > world.began);
}
