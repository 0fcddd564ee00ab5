//! Two replicas of many rows that differ a little: what it costs to find that out and to mend it.

use std::sync::Arc;

use serde::Serialize;

use crate::dht::parts::{
    Coordinator, End, Exchange, Input, Intent, Proposer, Rounds, SmallRing, Task, ballot, faithful,
    id, key, state,
};
use crate::wire::ring::{Epoch, ReplicaAnswer, ReplicaCall, ReplicaRequest, ReplicaRow, RowKey};

/// Two replicas, in a ring of two.
pub struct TwoReplicas {
    ring: SmallRing,
    rounds: Arc<Rounds>,
    round: u64,
}

/// What something cost.
#[derive(Copy, Clone, Debug, Default)]
pub struct Traffic {
    /// Rows that were found or mended.
    pub rows: u64,
    /// Questions from one replica to the other.
    pub questions: u64,
    /// Bytes of those and of the answers, without frames.
    pub bytes: u64,
}

impl TwoReplicas {
    /// Two equal replicas of so many rows; `None` if a disk in memory failed.
    pub fn new(rows: u32) -> Option<Self> {
        let mut ring = SmallRing::new(2).ok()?;
        for member in [1, 2] {
            ring.restart(member).ok()?;
            for first in (0..rows).step_by(1000) {
                let page = (first..rows.min(first + 1000)).map(|number| ReplicaRow {
                    key: key(number),
                    accepted: ballot(1),
                    state: state(1),
                });
                let rows = page.collect();
                let install = ReplicaCall::Install { rows };
                ring.ask(member, member, Epoch::FOUNDING, install).ok()?;
            }
            ring.node(member).vote();
        }
        Some(Self {
            ring,
            rounds: Arc::default(),
            round: 1,
        })
    }

    /// Changes every `step`th row of the first `rows` at the second replica only.
    pub fn change(&mut self, rows: u32, step: usize) -> Option<()> {
        self.round += 1000;
        for number in (0..rows).step_by(step) {
            self.ring.accept(2, &key(number), self.round).ok()?;
        }
        Some(())
    }

    /// Finds the rows that differ.
    pub fn find(&mut self) -> Option<(Traffic, Rows)> {
        let mut exchange = Exchange::new(self.ring.now, id(1), id(2), Epoch::FOUNDING);
        let found = self.ring.finish(1, &mut exchange, 0)?;
        let traffic = Traffic {
            rows: found.rows.len() as u64,
            questions: found.cost.questions,
            bytes: found.cost.bytes,
        };
        (found.end == End::Complete).then_some((traffic, Rows(found.rows)))
    }

    /// Mends rows, each by a round of its own.
    pub fn mend(&mut self, rows: Rows) -> Option<Traffic> {
        let mut traffic = Traffic::default();
        for key in rows.0 {
            self.mend_one(key, &mut traffic)?;
            traffic.rows += 1;
        }
        Some(traffic)
    }

    fn mend_one(&mut self, key: RowKey, traffic: &mut Traffic) -> Option<()> {
        let task = Task {
            key,
            intent: Intent::Repair {
                of: vec![id(1), id(2)],
            },
            epoch: Epoch::FOUNDING,
            replicas: vec![id(1), id(2)],
            reachable: 2,
            round: 0,
        };
        let proposer = Proposer {
            member: id(1),
            incarnation: 1,
            rounds: self.rounds.clone(),
        };
        let mut machine = Coordinator::new(self.ring.now, task, proposer, traffic.rows);
        for _ in 0..8 {
            let count =
                |_: &mut SmallRing, from, request: &ReplicaRequest, answer: ReplicaAnswer| {
                    if from == id(2) {
                        traffic.questions += 1;
                        traffic.bytes += bytes(request) + bytes(&answer);
                    }
                    vec![Input::Answer { from, answer }]
                };
            if let Some(outcome) = self.ring.run(1, &mut machine, count) {
                // The answers to what was asked last may be under way.
                self.ring.run(1, &mut machine, faithful);
                return outcome.ok().map(drop);
            }
            self.ring.pass_time(&mut machine);
        }
        None
    }
}

/// Rows that differ.
pub struct Rows(Vec<RowKey>);

fn bytes<T: Serialize>(message: &T) -> u64 {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(message, size).unwrap_or(0) as u64
}
