//! Many members in one place and in virtual time, with datagrams that take their time and are lost: for tests and
//! measurements of gossip.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Rumours;
use crate::identity::MemberId;
use crate::limits::GOSSIP_BYTES_MAX;
use crate::wire::ring::Life;

/// When it arrives, its number, from whom, to whom, and what.
type UnderWay = (Instant, u64, usize, usize, Bytes);

/// Members whose links are all up, apart from those of whom the test says otherwise.
pub(crate) struct World {
    pub(crate) now: Instant,
    dice: StdRng,
    pub(crate) nodes: Vec<Node>,
    /// When each member wants to be called next, as far as it has been asked.
    alarms: BTreeSet<(Instant, usize)>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    pub(crate) sent: u64,
    pub(crate) bytes: u64,
    loss: f64,
    /// Pairs between which nothing gets through, one way.
    pub(crate) cut: BTreeSet<(usize, usize)>,
}

pub(crate) struct Node {
    pub(crate) rumours: Rumours,
    pub(crate) running: bool,
    alarm: Option<Instant>,
}

impl World {
    pub(crate) fn new(members: usize, seed: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            now,
            dice: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            alarms: BTreeSet::new(),
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
            world.nodes.push(Node {
                rumours,
                running: true,
                alarm: None,
            });
        }
        // The links come up one after the other.
        for one in 0..members {
            for other in (0..members).filter(|other| *other != one) {
                let now = world.now;
                world.nodes[one].rumours.meet(now, life(other, 1));
                world.flush(one);
            }
            world.pass(LINKS_APART);
        }
        world
    }

    /// Sends what a member wants sent.
    pub(crate) fn flush(&mut self, from: usize) {
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
        let node = &mut self.nodes[from];
        let alarm = node.rumours.poll_timeout();
        if let Some(before) = std::mem::replace(&mut node.alarm, alarm) {
            self.alarms.remove(&(before, from));
        }
        self.alarms.extend(alarm.map(|alarm| (alarm, from)));
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Lets time pass until `done`: how much it took.
    pub(crate) fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while !done(self) {
            assert!(self.step(began + limit), "not within {limit:?}");
        }
        self.now - began
    }

    fn step(&mut self, until: Instant) -> bool {
        let arrival = self.under_way.peek().map(|Reverse((due, ..))| *due);
        let alarm = (self.alarms.iter().copied()).find(|(_, index)| self.nodes[*index].running);
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

    pub(crate) fn all_think_dead(&self, dead: usize) -> bool {
        let others = self.nodes.iter().filter(|node| node.running);
        others
            .into_iter()
            .all(|node| node.rumours.dead().contains(&id(dead)))
    }

    pub(crate) fn nobody_is_thought_dead(&self) -> bool {
        self.nodes.iter().all(|node| node.rumours.dead().is_empty())
    }
}

/// The id of the member with a number.
pub(crate) fn id(member: usize) -> MemberId {
    MemberId::from_bytes((member as u128).to_be_bytes())
}

/// The number of the member with an id.
fn number(id: MemberId) -> usize {
    u128::from_be_bytes(*id.as_bytes()) as usize
}

/// A life of the member with a number.
pub(crate) fn life(member: usize, incarnation: u64) -> Life {
    let member = id(member);
    Life {
        member,
        incarnation,
    }
}

/// After so long the links of the next member come up.
const LINKS_APART: Duration = Duration::from_millis(2);
