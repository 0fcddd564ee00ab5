//! The machines of the product as small numbers, for a search that meets the same ones in the same state again and
//! again: what becomes of one by what it is told is computed by the product, once, and looked up afterwards.
//!
//! **Invariant.** Two machines have the same number if there is no difference between them: they print the same.
//!
//! All replicas bear the same name here, and whoever asks one bears another, as nothing but that follows from names.
//! For a member that returns, the others are two that it tells apart.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

use crate::dht::sim::{
    Action, Attempt, Change, Coordinator, Fault, Input, Intent, Machine, Node, Outcome, Placement,
    Proposer, Return, Task, plant, register,
};
use crate::identity::{MemberId, PeerId, RequestId};
use crate::store::Table;
use crate::wire::ring::{
    Ballot, Epoch, Life, ReplicaAnswer, ReplicaCall, ReplicaRequest, RequestKey, RowKey, RowState,
    Version,
};

/// The number of a machine, a request or an answer.
pub(super) type Id = u16;

/// Who created the row; `None` while nobody has.
pub(super) type Made = Option<u8>;

pub(super) const REPLICAS: usize = 3;

/// A replica that votes, and was never told anything.
pub(super) const FRESH: Id = 0;

/// The machines met so far, with a mistake in all of them or none.
pub(super) struct Machines {
    mistake: Option<Fault>,
    met: Mutex<Met>,
}

#[derive(Default)]
struct Met {
    nodes: Numbered<Node>,
    coordinators: Numbered<Vec<Lived>>,
    returns: Numbered<Return>,
    requests: Numbered<ReplicaRequest>,
    answers: Numbered<ReplicaAnswer>,
    of_nodes: HashMap<(Id, ToNode), (Id, Id)>,
    of_coordinators: HashMap<(Option<Id>, Vec<Lived>), Went<Told>>,
    of_returns: HashMap<(Id, u8, Id), Went<()>>,
    begun: HashMap<(Id, u64), Went<()>>,
    known: HashMap<Id, Known>,
}

struct Numbered<T> {
    numbers: HashMap<String, Id>,
    all: Vec<T>,
}

/// What happens to a replica.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
enum ToNode {
    Ask(Id),
    /// It begins a new life, without a vote.
    Start,
    /// The same, on an empty disk.
    Wipe,
    Vote,
}

/// What happens to a coordinator.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Lived {
    /// It begins: the proposer, the epoch, and the highest round it knows of.
    Begin(u8, Epoch, u64),
    /// It hears of a round.
    Round(u64),
    /// It hears of an epoch.
    Epoch(Epoch),
    /// Nobody answers for so long that it tries again.
    Silence,
    Answer(u8, Id),
}

/// What became of a machine, and what it wants.
#[derive(Clone, Debug)]
pub(super) struct Went<T> {
    pub(super) machine: Id,
    pub(super) asks: Vec<(u8, Id)>,
    pub(super) end: Option<T>,
}

/// How a proposer ends.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Told {
    Made,
    Conflict,
    /// Neither for certain.
    Nothing,
}

/// What a replica has.
#[derive(Copy, Clone, Debug)]
pub(super) struct Known {
    pub(super) accepted: Ballot,
    pub(super) made: Made,
    /// The round above which it takes everything.
    pub(super) promised: u64,
    pub(super) epoch: Epoch,
}

/// What a request is.
#[derive(Copy, Clone, Debug)]
pub(super) struct Asked {
    pub(super) proposer: u8,
    pub(super) epoch: Epoch,
    pub(super) round: u64,
    pub(super) is_accept: bool,
}

impl Machines {
    pub(super) fn new(mistake: Option<Fault>) -> Self {
        let machines = Self {
            mistake,
            met: Mutex::default(),
        };
        let fresh = machines.run(fresh);
        let number = machines.with(|met| met.nodes.number(known_by(&fresh), fresh));
        assert_eq!(number, FRESH);
        machines
    }

    fn with<R>(&self, what: impl FnOnce(&mut Met) -> R) -> R {
        what(&mut self.met.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the product.
    fn run<R>(&self, what: impl FnOnce() -> R) -> R {
        let _planted = plant(self.mistake);
        what()
    }

    /// Asks a replica something.
    pub(super) fn ask(&self, node: Id, request: Id) -> (Id, Id) {
        self.change(node, ToNode::Ask(request))
    }

    /// A replica loses its disk, and begins a new life.
    pub(super) fn wipe(&self, node: Id) -> Id {
        self.change(node, ToNode::Wipe).0
    }

    /// A replica begins a new life.
    pub(super) fn restart(&self, node: Id) -> Id {
        self.change(node, ToNode::Start).0
    }

    pub(super) fn vote(&self, node: Id) -> Id {
        self.change(node, ToNode::Vote).0
    }

    fn change(&self, node: Id, change: ToNode) -> (Id, Id) {
        self.with(|met| {
            if let Some(known) = met.of_nodes.get(&(node, change)) {
                return *known;
            }
            let mut next = met.nodes.get(node).clone();
            let answer = self.run(|| match change {
                ToNode::Ask(request) => {
                    let request = met.requests.get(request).clone();
                    let own = matches!(request.call, ReplicaCall::Install { .. });
                    let from = if own { ME } else { 1 };
                    next.ask(id(from), request).unwrap().unwrap()
                }
                ToNode::Start | ToNode::Wipe => {
                    if change == ToNode::Wipe {
                        next = fresh();
                    }
                    next.start(id(ME), PLACEMENT.clone()).unwrap();
                    ReplicaAnswer::Done
                }
                ToNode::Vote => {
                    next.vote();
                    ReplicaAnswer::Done
                }
            });
            let answer = met.answers.number(format!("{answer:?}"), answer);
            let next = met.nodes.number(known_by(&next), next);
            met.of_nodes.insert((node, change), (next, answer));
            (next, answer)
        })
    }

    /// Whether an answer says that what was asked is not done, and never will be.
    pub(super) fn refuses(&self, answer: Id) -> bool {
        self.with(|met| {
            matches!(
                met.answers.get(answer),
                ReplicaAnswer::Refused { .. } | ReplicaAnswer::StaleEpoch { .. }
            )
        })
    }

    pub(super) fn known(&self, node: Id) -> Known {
        if let Some(known) = self.with(|met| met.known.get(&node).copied()) {
            return known;
        }
        let (epoch, row) = self.with(|met| {
            let node = met.nodes.get(node);
            let row = node.disk.read(|view| register(view, &key())).unwrap();
            (node.replica.as_ref().unwrap().epoch(), row)
        });
        // Whoever is asked for a promise that nobody gives says what it has promised.
        let (key, ballot) = (key(), Ballot::ZERO);
        let call = ReplicaCall::Prepare { key, ballot };
        let request = self.request(ReplicaRequest { epoch, call });
        let (_, answer) = self.ask(node, request);
        let promised = self.with(|met| match met.answers.get(answer) {
            ReplicaAnswer::Refused { promised, .. } => promised.round,
            _ => 0,
        });
        let known = Known {
            accepted: row.accepted,
            made: made(&row.state),
            promised,
            epoch,
        };
        self.with(|met| met.known.insert(node, known));
        known
    }

    fn request(&self, request: ReplicaRequest) -> Id {
        self.with(|met| met.requests.number(format!("{request:?}"), request))
    }

    pub(super) fn asked(&self, request: Id) -> Asked {
        self.with(|met| {
            let request = met.requests.get(request);
            let (ballot, is_accept) = match &request.call {
                ReplicaCall::Prepare { ballot, .. } => (*ballot, false),
                ReplicaCall::Accept { ballot, .. } => (*ballot, true),
                call => unreachable!("{call:?}"),
            };
            Asked {
                proposer: number(ballot.member),
                epoch: request.epoch,
                round: ballot.round,
                is_accept,
            }
        })
    }

    /// A coordinator, or a new one, lives through something.
    pub(super) fn live(&self, machine: Option<Id>, lived: Vec<Lived>) -> Went<Told> {
        let key = (machine, lived);
        self.with(|met| {
            if let Some(went) = met.of_coordinators.get(&key) {
                return went.clone();
            }
            let mut past = machine.map_or(Vec::new(), |it| met.coordinators.get(it).clone());
            let (coordinator, actions) = self.run(|| relive(met, &past, &key.1));
            past.extend(&key.1);
            let next = met.coordinators.number(format!("{coordinator:?}"), past);
            let went = met.went(next, actions, |outcome| match outcome {
                Ok(Outcome::Applied(_) | Outcome::AlreadyApplied(_)) => Told::Made,
                Ok(Outcome::Conflict(_)) => Told::Conflict,
                Ok(Outcome::Read(_)) | Err(_) => Told::Nothing,
            });
            met.of_coordinators.insert(key, went.clone());
            went
        })
    }

    /// A member returns that knows of no later epoch than its replica.
    pub(super) fn begin_return(&self, node: Id, incarnation: u64) -> Went<()> {
        if let Some(went) = self.with(|met| met.begun.get(&(node, incarnation)).cloned()) {
            return went;
        }
        let member = id(ME);
        let life = Life {
            member,
            incarnation,
        };
        let highest = self.known(node).epoch;
        let mut machine = self.run(|| Return::new(*NOW, &PLACEMENT, life, highest, 0));
        let actions = actions(&mut machine);
        self.with(|met| {
            let next = met.returns.number(format!("{machine:?}"), machine);
            let went = met.went(next, actions, |_| ());
            met.begun.insert((node, incarnation), went.clone());
            went
        })
    }

    /// One that returns hears an answer.
    pub(super) fn go_on_returning(&self, machine: Id, from: u8, answer: Id) -> Went<()> {
        self.with(|met| {
            if let Some(went) = met.of_returns.get(&(machine, from, answer)) {
                return went.clone();
            }
            let mut next = met.returns.get(machine).clone();
            let given = met.answers.get(answer).clone();
            let actions = self.run(|| {
                let (from, answer) = (id(from), given);
                let refused = matches!(answer, ReplicaAnswer::StaleEpoch { .. });
                next.handle(*NOW, Input::Answer { from, answer });
                let mut wanted = actions(&mut next);
                if refused && wanted.is_empty() {
                    // It lets another go first, and there is none.
                    pass_time(&mut next);
                    wanted = actions(&mut next);
                }
                wanted
            });
            let next = met.returns.number(format!("{next:?}"), next);
            let went = met.went(next, actions, |_| ());
            met.of_returns.insert((machine, from, answer), went.clone());
            went
        })
    }
}

impl Met {
    fn went<O, T>(
        &mut self,
        machine: Id,
        actions: Vec<Action<O>>,
        end: impl Fn(O) -> T,
    ) -> Went<T> {
        let (mut asks, mut ended) = (Vec::new(), None);
        for action in actions {
            match action {
                Action::Send { to, request } => {
                    let request = self.requests.number(format!("{request:?}"), request);
                    asks.push((number(to), request));
                }
                Action::Finish(outcome) => ended = Some(end(outcome)),
            }
        }
        Went {
            machine,
            asks,
            end: ended,
        }
    }
}

impl<T> Numbered<T> {
    fn number(&mut self, known_by: String, it: T) -> Id {
        *self.numbers.entry(known_by).or_insert_with(|| {
            self.all.push(it);
            Id::try_from(self.all.len() - 1).unwrap()
        })
    }

    fn get(&self, number: Id) -> &T {
        &self.all[usize::from(number)]
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            all: Vec::new(),
        }
    }
}

impl fmt::Debug for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|met| {
            f.debug_struct("Machines")
                .field("replicas", &met.nodes.all.len())
                .field("coordinators", &met.coordinators.all.len())
                .field("returns", &met.returns.all.len())
                .finish_non_exhaustive()
        })
    }
}

/// One that votes, on an empty disk.
fn fresh() -> Node {
    Node::new(id(ME), PLACEMENT.clone()).unwrap()
}

/// All that there is to a replica: it answers alike whatever else differs.
fn known_by(node: &Node) -> String {
    let memory = node.replica.as_ref().unwrap().memory();
    let disk = [Table::Meta, Table::Rows].map(|table| node.table(table));
    format!("{memory:?} {disk:?}")
}

/// A coordinator that lives through something, and what it wants then. As it follows from its past, that is what is kept
/// of it.
fn relive(met: &Met, past: &[Lived], lived: &[Lived]) -> (Coordinator, Vec<Action<Outcomes>>) {
    let mut all = past.iter().chain(lived);
    let Some(Lived::Begin(p, epoch, round)) = all.next() else {
        unreachable!("it begins with its beginning");
    };
    let mut machine = Coordinator::new(*NOW, task(*p, *epoch, *round), proposer(*p), 0);
    let mut wanted = vec![actions(&mut machine)];
    for lived in all {
        let mut hear = |from, answer| {
            let from = id(from);
            machine.handle(*NOW, Input::Answer { from, answer });
        };
        match *lived {
            Lived::Begin(..) => unreachable!("it begins once"),
            Lived::Round(round) => {
                // It is not what it asks now that is refused, so that it only learns of the round.
                let (ballot, promised) = (Ballot::ZERO, Ballot::last_of(round));
                hear(0, ReplicaAnswer::Refused { ballot, promised });
            }
            Lived::Epoch(highest) => hear(0, ReplicaAnswer::StaleEpoch { highest }),
            Lived::Answer(from, answer) => hear(from, met.answers.get(answer).clone()),
            Lived::Silence => {
                // It gives up waiting, and its pause.
                pass_time(&mut machine);
                pass_time(&mut machine);
            }
        }
        wanted.push(actions(&mut machine));
    }
    // What it wanted in the past it has.
    let wanted = wanted.into_iter().skip(past.len()).flatten();
    (machine, wanted.collect())
}

type Outcomes = <Coordinator as Machine>::Outcome;

fn actions<M: Machine>(machine: &mut M) -> Vec<Action<M::Outcome>> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn pass_time(machine: &mut impl Machine) {
    if let Some(at) = machine.poll_timeout() {
        machine.handle_timeout(at);
    }
}

fn task(p: u8, epoch: Epoch, round: u64) -> Task {
    Task {
        key: key(),
        intent: Intent::Change(Change {
            expected: Version::NEVER,
            value: Some(vec![p]),
            request: RequestKey {
                peer: PeerId::from_bytes([p; 32]),
                request: RequestId::from_bytes([p; 16]),
            },
            attempt: Attempt::First,
        }),
        epoch,
        replicas: (0..REPLICAS as u8).map(id).collect(),
        reachable: REPLICAS,
        round,
    }
}

fn proposer(p: u8) -> Proposer {
    Proposer {
        member: id(p),
        incarnation: 0,
        rounds: Arc::default(),
    }
}

fn id(i: u8) -> MemberId {
    MemberId::from_bytes([i + 1; 16])
}

fn number(id: MemberId) -> u8 {
    id.as_bytes()[0] - 1
}

fn key() -> RowKey {
    RowKey::new("p", "s").unwrap()
}

fn made(state: &RowState) -> Made {
    state.value().map(|value| value[0])
}

const ME: u8 = 0;

static PLACEMENT: LazyLock<Arc<Placement>> = LazyLock::new(|| {
    let ids: BTreeSet<_> = (0..REPLICAS as u8).map(id).collect();
    Arc::new(Placement::new(&ids))
});

/// The time stands still: only the order of things counts.
static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);
