//! Rows that can no longer be read on disk: nothing that was decided is lost by them, nor decided twice.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::dht::coordinator::Coordinator;
use crate::dht::machine::{Action, Input, Machine as _};
use crate::dht::register::{Attempt, Change};
use crate::dht::task::{Failure, Intent, Outcome, Proposer, Rounds, Task};
use crate::identity::{PeerId, RequestId};
use crate::wire::ring::{RequestKey, Version};

/// Makes bytes of a row on a member's disk that are no register.
fn damage(ring: &mut SmallRing, member: u8, key: &RowKey) {
    let disk = &mut ring.node(member).disk;
    let damaged = disk.write(|tx| tx.put(Table::Rows, row_key::encode(key), [0, 1, 2]));
    damaged.unwrap();
    disk.sync();
}

#[test]
fn a_damaged_row_is_answered_for_again_once_something_newer_than_what_was_lost_is_accepted() {
    for restarts in [false, true] {
        let mut ring = SmallRing::new(3).unwrap();
        // Above the ceiling that its promises made.
        let lost = 2 * PROMISE_ROUNDS_AT_ONCE;
        ask(&mut ring, prepare(1));
        ask(&mut ring, accept(lost));
        ring.accept(1, &key(2), lost).unwrap();
        damage(&mut ring, 1, &key(1));
        if restarts {
            lose_power(&mut ring);
        }
        let failed = ring.ask(1, 2, Epoch::FOUNDING, read());
        let is_rows = matches!(failed, Err(StoreError::Corrupt { table: "rows", .. }));
        assert!(is_rows, "{failed:?}");
        // Whoever comes back is told, and does not take it for a row that nobody has written.
        let pull = ReplicaCall::Pull {
            with: id(2),
            place: PullPlace::START,
            limit: 10,
        };
        let ReplicaAnswer::Pulled { rows, .. } = ask(&mut ring, pull) else {
            panic!()
        };
        let damaged: Vec<_> = rows.iter().map(ReplicaRow::is_damaged).collect();
        assert_eq!(damaged, [true, false]);
        let mut floor = 0;
        for call in [prepare(lost - 1), accept(lost - 1), accept(lost)] {
            let answer = ask(&mut ring, call);
            let ReplicaAnswer::Refused { promised, .. } = answer else {
                panic!("{answer:?}")
            };
            assert!(promised >= ballot(lost));
            floor = promised.round;
        }
        // It cannot say what it had accepted, so it does not promise.
        assert_eq!(
            ask(&mut ring, prepare(floor + 1)),
            ReplicaAnswer::Unavailable
        );
        let list = ReplicaCall::List {
            partition: key(1).partition().to_vec(),
            after: None,
            limit: 10,
        };
        let ReplicaAnswer::Rows { rows, .. } = ask(&mut ring, list) else {
            panic!()
        };
        let damaged: Vec<_> = rows.iter().map(ReplicaRow::is_damaged).collect();
        assert_eq!(damaged, [true, false]);

        let accepted = ballot(floor + 1);
        let healed = ask(&mut ring, accept(floor + 1));
        assert_eq!(healed, ReplicaAnswer::Accepted { ballot: accepted });
        let row = ReplicaAnswer::Row {
            accepted,
            state: state(floor + 1),
        };
        assert_eq!(ask(&mut ring, read()), row);
        // It compares as one that had never lost anything, and there is nothing to mend.
        let slice = slice_of_row(&key(1));
        let Node { disk, replica } = ring.node(1);
        let mended = disk.write(|tx| replica.as_mut().unwrap().scrub(tx, slice));
        assert_eq!(mended.unwrap(), 0);
        assert_eq!(replica.as_ref().unwrap().rows(), 2);
    }
}

/// What it lost first was less than what it loses then.
#[test]
fn a_row_that_was_whole_in_between_is_refused_up_to_what_it_lost_last() {
    let mut ring = SmallRing::new(3).unwrap();
    ask(&mut ring, accept(1));
    let place = row_key::encode(&key(1));
    let sound = ring.node(1).disk.rows(Table::Rows);
    let sound = sound.map(|(_, value)| value.to_vec()).next().unwrap();
    damage(&mut ring, 1, &key(1));
    let above = PROMISE_ROUNDS_AT_ONCE + 2;
    assert_eq!(ask(&mut ring, prepare(above)), ReplicaAnswer::Unavailable);
    // It was the reading that failed.
    let disk = &mut ring.node(1).disk;
    disk.write(|tx| tx.put(Table::Rows, place, sound)).unwrap();
    disk.sync();
    let lost = 10 * PROMISE_ROUNDS_AT_ONCE;
    let accepted = ReplicaAnswer::Accepted {
        ballot: ballot(lost),
    };
    assert_eq!(ask(&mut ring, accept(lost)), accepted);
    damage(&mut ring, 1, &key(1));
    let answer = ask(&mut ring, accept(lost - 1));
    assert!(
        matches!(answer, ReplicaAnswer::Refused { .. }),
        "{answer:?}"
    );
}

/// A thousand rows of one slice: what is done about each costs what one row does, but for one look at the slice.
#[test]
fn what_many_damaged_rows_of_a_slice_cost_grows_with_their_number_alone() {
    const ROWS: u64 = 1000;
    let mut ring = SmallRing::new(3).unwrap();
    let row = |number: u64| RowKey::new("files", number.to_be_bytes()).unwrap();
    let slice = slice_of_row(&row(0));
    for number in 0..ROWS {
        ring.accept(1, &row(number), 1).unwrap();
    }
    ring.restart(1).unwrap();
    let install = |ring: &mut SmallRing, rows: Vec<ReplicaRow>| {
        let before = ring.node(1).disk.scanned();
        let installed = ring.ask(1, 1, Epoch::FOUNDING, ReplicaCall::Install { rows });
        assert_eq!(installed.unwrap(), ReplicaAnswer::Done);
        let Node { disk, replica } = ring.node(1);
        let cost = disk.scanned() - before;
        let mended = disk.write(|tx| replica.as_mut().unwrap().scrub(tx, slice));
        assert_eq!(mended.unwrap(), 0);
        assert_eq!(replica.as_ref().unwrap().rows(), ROWS);
        cost
    };
    let lost = |number| ReplicaRow::of_state(row(number), RowState::default());
    let sound = |number| ReplicaRow {
        key: row(number),
        accepted: ballot(2),
        state: state(2),
    };
    let cost = install(&mut ring, (0..400).map(lost).collect());
    assert!(cost <= 2 * ROWS, "{cost}");
    // Twice the same, and made whole again.
    let cost = install(&mut ring, (0..400).map(lost).collect());
    assert!(cost <= 2 * ROWS, "{cost}");
    let cost = install(&mut ring, (0..400).map(sound).collect());
    assert!(cost <= 2 * ROWS, "{cost}");
    for number in 200..600 {
        damage(&mut ring, 1, &row(number));
    }
    let rows = (200..400).map(lost).chain((400..600).map(sound));
    let cost = install(&mut ring, rows.collect());
    assert!(cost <= 2 * ROWS, "{cost}");
}

#[test]
fn one_that_comes_back_is_given_the_rows_that_are_damaged_on_its_disk() {
    let mut ring = SmallRing::new(3).unwrap();
    ring.accept(1, &key(1), 7).unwrap();
    damage(&mut ring, 1, &key(1));
    ring.restart(1).unwrap();
    let rows = vec![ReplicaRow {
        key: key(1),
        accepted: ballot(5),
        state: state(5),
    }];
    let installed = ring.ask(1, 1, Epoch::FOUNDING, ReplicaCall::Install { rows });
    assert_eq!(installed.unwrap(), ReplicaAnswer::Done);
    ring.node(1).vote();
    let row = ReplicaAnswer::Row {
        accepted: ballot(5),
        state: state(5),
    };
    assert_eq!(ask(&mut ring, read()), row);
}

/// One row of a ring of three, of which messages are lost or come late, members lose power, and one disk at a time
/// has damaged it.
struct World {
    ring: SmallRing,
    rng: SmallRng,
    rounds: [Arc<Rounds>; 3],
    /// What is asked of whom, and has not arrived.
    late: Vec<(u8, u8, ReplicaRequest)>,
    /// Which value each version has that was acknowledged or read.
    versions: BTreeMap<u64, Option<Vec<u8>>>,
    damages: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            ring: SmallRing::new(3).unwrap(),
            rng: SmallRng::seed_from_u64(seed),
            rounds: Default::default(),
            late: Vec::new(),
            versions: BTreeMap::new(),
            damages: 0,
        }
    }

    /// Runs something that a member wants; each message is lost, or held back, with a chance of `loss` in ten.
    fn run(&mut self, from: u8, intent: Intent, loss: u8) -> Result<Outcome, Failure> {
        let task = Task {
            key: key(1),
            intent,
            epoch: Epoch::FOUNDING,
            replicas: (1..=3).map(id).collect(),
            reachable: 3,
            round: 0,
        };
        let proposer = Proposer {
            member: id(from),
            incarnation: 1,
            rounds: self.rounds[usize::from(from) - 1].clone(),
        };
        let mut machine = Coordinator::new(self.ring.now, task, proposer, self.rng.random());
        loop {
            match machine.poll_action() {
                Some(Action::Finish(outcome)) => return outcome,
                Some(Action::Send { to, request }) => {
                    let number = to.as_bytes()[0];
                    let input = match self.rng.random_range(0..10) < loss {
                        true => {
                            self.late.push((number, from, request));
                            Input::Failed { from: to }
                        }
                        false => match self.ring.node(number).ask(id(from), request) {
                            Some(Ok(answer)) => Input::Answer { from: to, answer },
                            Some(Err(_)) | None => Input::Failed { from: to },
                        },
                    };
                    machine.handle(self.ring.now, input);
                }
                None => self.ring.pass_time(&mut machine),
            }
        }
    }

    /// A version of the row is what it was and, if it was read, not older than what was acknowledged before.
    fn knows(&mut self, version: Version, value: Option<Vec<u8>>) {
        let known = self.versions.entry(version.as_u64());
        assert_eq!(*known.or_insert(value.clone()), value, "{version:?} is two");
    }

    fn read(&mut self, from: u8, loss: u8) -> Option<Version> {
        let Ok(Outcome::Read(state)) = self.run(from, Intent::Read, loss) else {
            return None;
        };
        let newest = self.versions.keys().next_back().copied().unwrap_or(0);
        assert!(state.version().as_u64() >= newest, "{newest} is lost");
        self.knows(state.version(), state.value().map(<[u8]>::to_vec));
        Some(state.version())
    }

    fn change(&mut self, from: u8, number: u8, loss: u8) {
        let Some(expected) = self.read(from, loss) else {
            return;
        };
        let change = Change {
            expected,
            value: Some(vec![number]),
            request: RequestKey {
                peer: PeerId::from_bytes([from; 32]),
                request: RequestId::from_bytes([number; 16]),
            },
            attempt: Attempt::First,
        };
        if let Ok(Outcome::Applied(version)) = self.run(from, Intent::Change(change), loss) {
            self.knows(version, Some(vec![number]));
        }
    }

    fn is_damaged(&mut self, member: u8) -> bool {
        let disk = &self.ring.node(member).disk;
        disk.read(|view| register(view, &key(1)).is_err())
    }

    fn step(&mut self, number: u8) {
        let member = self.rng.random_range(1..=3);
        match self.rng.random_range(0..12) {
            0..2 if (1..=3).all(|member| !self.is_damaged(member)) => {
                if !self.ring.node(member).table(Table::Rows).is_empty() {
                    damage(&mut self.ring, member, &key(1));
                    self.damages += 1;
                }
            }
            2..5 if !self.late.is_empty() => {
                let at = self.rng.random_range(0..self.late.len());
                let (to, from, request) = self.late.swap_remove(at);
                _ = self.ring.node(to).ask(id(from), request);
            }
            5 => {
                self.ring.restart(member).unwrap();
                self.ring.node(member).vote();
            }
            6 => _ = self.run(member, repair(), 1),
            7 => _ = self.read(member, 4),
            _ => self.change(member, number, 4),
        }
    }
}

/// A repair of all three.
fn repair() -> Intent {
    let of = (1..=3).map(id).collect();
    Intent::Repair { of }
}

#[test]
fn what_was_decided_stays_whatever_is_damaged_at_one_replica_at_a_time() {
    let mut damages = 0;
    for seed in 0..100 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        (0..60).for_each(|number| world.step(number));
        // In the end each is whole again, and nothing else is needed for that than repairs.
        for _ in 0..3 {
            _ = world.run(1, repair(), 0);
        }
        assert!((1..=3).all(|member| !world.is_damaged(member)));
        assert!(world.read(2, 0).is_some());
        damages += world.damages;
    }
    assert!(damages > 100, "{damages}");
}
