//! A few replicas over disks in memory, and something that runs machines against them: for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machine::{Action, Input, Machine};
use super::placement::Placement;
use super::replica::Replica;
use crate::identity::{MemberId, PeerId, RequestId};
use crate::store::{ModelDisk, StoreError, Table};
use crate::wire::ring::{
    Ballot, Epoch, ReplicaAnswer, ReplicaCall, ReplicaRequest, RequestKey, RowKey, RowState,
};

/// The members.
pub(crate) struct SmallRing {
    pub(crate) placement: Arc<Placement>,
    pub(crate) nodes: BTreeMap<MemberId, Node>,
    pub(crate) now: Instant,
}

/// A member: its disk, and its replica while it runs.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) disk: ModelDisk,
    pub(crate) replica: Option<Replica>,
}

impl Node {
    /// A member on an empty disk that votes.
    pub(crate) fn new(me: MemberId, placement: Arc<Placement>) -> Result<Self, StoreError> {
        let disk = ModelDisk::default();
        let mut node = Self {
            disk,
            replica: None,
        };
        node.start(me, placement)?;
        node.vote();
        Ok(node)
    }

    /// Begins a life that does not vote yet.
    pub(crate) fn start(
        &mut self,
        me: MemberId,
        placement: Arc<Placement>,
    ) -> Result<(), StoreError> {
        let opened = self.disk.write(|tx| Replica::open(tx, me, placement))?;
        self.disk.sync();
        self.replica = Some(opened);
        Ok(())
    }

    /// Lets it vote.
    pub(crate) fn vote(&mut self) {
        if let Some(replica) = &mut self.replica {
            replica.begin_to_vote();
        }
    }

    /// Asks it; `None` if it does not run.
    pub(crate) fn ask(
        &mut self,
        from: MemberId,
        request: ReplicaRequest,
    ) -> Option<Result<ReplicaAnswer, StoreError>> {
        let replica = self.replica.as_mut()?;
        if !Replica::writes(replica.epoch(), &request) {
            return Some(self.disk.read(|view| replica.read(view, request)));
        }
        let answer = self.disk.write(|tx| replica.write(tx, from, request));
        self.disk.sync();
        Some(answer)
    }

    /// What is on its disk in a table.
    pub(crate) fn table(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.disk.rows(table);
        rows.map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }
}

impl SmallRing {
    /// A ring of members that vote.
    pub(crate) fn new(members: u8) -> Result<Self, StoreError> {
        let ids: BTreeSet<_> = (1..=members).map(id).collect();
        let placement = Arc::new(Placement::new(&ids));
        let node = |id| Ok((id, Node::new(id, placement.clone())?));
        let nodes = ids.iter().copied().map(node);
        Ok(Self {
            nodes: nodes.collect::<Result<_, StoreError>>()?,
            placement,
            now: Instant::now(),
        })
    }

    /// The member with a number.
    pub(crate) fn node(&mut self, number: u8) -> &mut Node {
        self.nodes.entry(id(number)).or_insert_with(|| Node {
            disk: ModelDisk::default(),
            replica: None,
        })
    }

    /// The member loses its disk, and begins a life that does not vote.
    #[cfg(test)]
    pub(crate) fn wipe(&mut self, number: u8) -> Result<(), StoreError> {
        self.node(number).disk = ModelDisk::default();
        self.restart(number)
    }

    /// The member begins a life that does not vote.
    pub(crate) fn restart(&mut self, number: u8) -> Result<(), StoreError> {
        let placement = self.placement.clone();
        self.node(number).start(id(number), placement)
    }

    /// Asks a member something in an epoch.
    pub(crate) fn ask(
        &mut self,
        to: u8,
        from: u8,
        epoch: Epoch,
        call: ReplicaCall,
    ) -> Result<ReplicaAnswer, StoreError> {
        let request = ReplicaRequest { epoch, call };
        let answer = self.node(to).ask(id(from), request);
        answer.unwrap_or(Ok(ReplicaAnswer::Unavailable))
    }

    /// Makes a member accept a state for a row under a ballot of its own.
    pub(crate) fn accept(&mut self, at: u8, key: &RowKey, round: u64) -> Result<(), StoreError> {
        let epoch = self
            .node(at)
            .replica
            .as_ref()
            .map_or(Epoch::FOUNDING, Replica::epoch);
        let call = ReplicaCall::Accept {
            key: key.clone(),
            ballot: ballot(round),
            state: state(round),
        };
        let answer = self.ask(at, at, epoch, call)?;
        let ballot = ballot(round);
        assert_eq!(answer, ReplicaAnswer::Accepted { ballot });
        Ok(())
    }

    /// Delivers what a machine of `from` asks, and the answers, until it has nothing more to ask now. `meddle` may
    /// change or drop each answer and gives what arrives.
    pub(crate) fn run<M: Machine>(
        &mut self,
        from: u8,
        machine: &mut M,
        mut meddle: impl FnMut(&mut Self, MemberId, &ReplicaRequest, ReplicaAnswer) -> Vec<Input>,
    ) -> Option<M::Outcome> {
        while let Some(action) = machine.poll_action() {
            let (to, request) = match action {
                Action::Send { to, request } => (to, request),
                Action::Finish(outcome) => return Some(outcome),
            };
            let node = self.nodes.get_mut(&to)?;
            let inputs = match node.ask(id(from), request.clone()) {
                Some(Ok(answer)) => meddle(self, to, &request, answer),
                Some(Err(_)) | None => vec![Input::Failed { from: to }],
            };
            for input in inputs {
                machine.handle(self.now, input);
            }
        }
        None
    }

    /// Runs a machine of `from` for as long as it takes, at most `limit` of its timeouts.
    pub(crate) fn finish<M: Machine>(
        &mut self,
        from: u8,
        machine: &mut M,
        limit: usize,
    ) -> Option<M::Outcome> {
        for _ in 0..=limit {
            if let Some(outcome) = self.run(from, machine, faithful) {
                return Some(outcome);
            }
            self.pass_time(machine);
        }
        None
    }

    /// Lets time pass up to the next timeout of a machine.
    pub(crate) fn pass_time<M: Machine>(&mut self, machine: &mut M) {
        let next = machine.poll_timeout();
        self.now = next
            .unwrap_or(self.now + Duration::from_secs(1))
            .max(self.now);
        machine.handle_timeout(self.now);
    }
}

/// Delivers every answer once.
pub(crate) fn faithful(
    _: &mut SmallRing,
    from: MemberId,
    _: &ReplicaRequest,
    answer: ReplicaAnswer,
) -> Vec<Input> {
    vec![Input::Answer { from, answer }]
}

/// The id of a member.
pub(crate) fn id(number: u8) -> MemberId {
    MemberId::from_bytes([number; 16])
}

/// A ballot of the first member.
pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        member: id(1),
        incarnation: 1,
    }
}

/// A state that a round brought.
pub(crate) fn state(round: u64) -> RowState {
    let request = RequestKey {
        peer: PeerId::from_bytes([2; 32]),
        request: RequestId::from_bytes([3; 16]),
    };
    RowState::default().next(Some(round.to_be_bytes().to_vec()), request)
}

/// The row with a number; a hundred of them make a partition.
pub(crate) fn key(number: u32) -> RowKey {
    let [partition, sort] = [number / 100, number % 100];
    #[expect(clippy::expect_used, reason = "four bytes fit both parts of a key")]
    RowKey::new(partition.to_be_bytes(), sort.to_be_bytes()).expect("four bytes fit")
}
