//! Every way in which a small ring can go: three replicas of one row, two proposers who both create it,
//! messages in any order or never, a replica that crashes and one that loses its disk and returns.
//!
//! The replicas' register, the decision on a change and the counting are the product's; the proposers are the
//! coordinator without its pauses, and the epochs those of a ring in which a member returns: it has all
//! others refuse the epoch of its former life before it pulls what they have, and votes after that.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker as _, Expectation, Model, Property};

use crate::dht::sim::{Attempt, Change, Count, Decision, Quorum, Register};
use crate::identity::{MemberId, PeerId, RequestId};
use crate::wire::ring::{Ballot, RequestKey, RowState, Version};

/// What may happen, and which mistakes are made.
#[derive(Clone, Debug)]
struct Ring {
    /// How often each proposer begins.
    tries: [u8; 2],
    crashes: u8,
    wipes: u8,
    mistake: Option<Mistake>,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Mistake {
    ReturnsWithoutFence,
    VotesAtOnce,
    PullsFromOne,
    ForgetsPromises,
    AcceptsBelowPromise,
    OneIsEnough,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct World {
    replicas: Vec<Replica>,
    proposers: Vec<Proposer>,
    /// Requests that were sent and may yet arrive: proposer, replica, epoch, ballot, and the state to accept
    /// or nothing for a promise.
    requests: BTreeSet<Request>,
    crashes: u8,
    wipes: u8,
}

type Request = (u8, u8, u8, Number, Option<Made>);

/// Round and proposer.
type Number = (u8, u8);

/// Who created the row; `None` while nobody has.
type Made = Option<u8>;

#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Replica {
    accepted: Number,
    state: Made,
    promised: Number,
    /// At least the round of every promise; on disk.
    ceiling: u8,
    epoch: u8,
    returning: Option<Returning>,
}

/// What a replica that lost its disk has done so far.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Returning {
    fenced: BTreeSet<u8>,
    pulled: BTreeMap<u8, (Number, Made)>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Proposer {
    tries: u8,
    epoch: u8,
    exposed: bool,
    phase: Phase,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Phase {
    Idle,
    /// Who promised, and what it had accepted.
    Preparing(Number, BTreeMap<u8, (Number, Made)>),
    /// Who accepted.
    Accepting(Number, BTreeSet<u8>, Told),
    Done(Told),
}

#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
enum Told {
    Made,
    Conflict,
}

/// What happens. A request and its answer are one step; that an answer comes late is that the proposer goes on
/// late, and with any majority of those that have answered.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Step {
    /// A proposer begins, or begins again, in this epoch.
    Begin(usize, u8),
    Arrive(Request),
    /// A proposer goes on with the promises of these.
    Propose(usize, Vec<u8>),
    Finish(usize),
    Crash(usize),
    Wipe(usize),
    Fence(usize, usize),
    Pull(usize, usize),
    Vote(usize),
}

/// What each proposer has of a replica, and what is under way to or from it.
type Role = (
    Vec<Option<(Number, Made)>>,
    Vec<(u8, u8, Number, Option<Made>)>,
);

impl Model for Ring {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let proposer = |tries: &u8| Proposer {
            tries: *tries,
            epoch: 0,
            exposed: false,
            phase: Phase::Idle,
        };
        vec![World {
            replicas: vec![Replica::default(); REPLICAS],
            proposers: self.tries.iter().map(proposer).collect(),
            requests: BTreeSet::new(),
            crashes: self.crashes,
            wipes: self.wipes,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (p, proposer) in world.proposers.iter().enumerate() {
            self.proposer_steps(world, p, proposer, steps);
        }
        steps.extend(world.requests.iter().copied().map(Step::Arrive));
        for (r, replica) in world.replicas.iter().enumerate() {
            if replica.promised != NOTHING && world.crashes > 0 {
                steps.push(Step::Crash(r));
            }
            if replica.promised != NOTHING && world.wipes > 0 {
                steps.push(Step::Wipe(r));
            }
            if let Some(returning) = &replica.returning {
                self.return_steps(r, returning, steps);
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Begin(p, epoch) => next.begin(p, epoch),
            Step::Arrive(request) => {
                next.requests.remove(&request);
                next.arrive(request, self.mistake);
            }
            Step::Propose(p, promises) => next.propose(p, &promises),
            Step::Finish(p) => {
                if let Phase::Accepting(_, _, told) = next.proposers[p].phase {
                    next.proposers[p].phase = Phase::Done(told);
                }
            }
            Step::Crash(r) => {
                next.crashes -= 1;
                let replica = &mut next.replicas[r];
                replica.promised = match self.mistake {
                    Some(Mistake::ForgetsPromises) => replica.accepted,
                    _ => replica.accepted.max((replica.ceiling, u8::MAX)),
                };
            }
            Step::Wipe(r) => {
                next.wipes -= 1;
                next.replicas[r] = Replica {
                    returning: (self.mistake != Some(Mistake::VotesAtOnce))
                        .then(Returning::default),
                    ..Replica::default()
                };
            }
            Step::Fence(r, other) => {
                next.replicas[other].epoch = 1;
                next.replicas[r].epoch = 1;
                if let Some(returning) = &mut next.replicas[r].returning {
                    returning.fenced.insert(other as u8);
                }
            }
            Step::Pull(r, other) => {
                let Replica {
                    accepted, state, ..
                } = next.replicas[other];
                if let Some(returning) = &mut next.replicas[r].returning {
                    returning.pulled.insert(other as u8, (accepted, state));
                }
            }
            Step::Vote(r) => {
                let returning = next.replicas[r].returning.take().unwrap_or_default();
                if let Some((accepted, state)) = returning.pulled.into_values().max() {
                    let replica = &mut next.replicas[r];
                    (replica.accepted, replica.promised, replica.state) =
                        (accepted, accepted, state);
                }
            }
        }
        if self.mistake.is_none() {
            next.drop_what_is_void();
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a row is created once", |_, world: &World| {
                let made = |proposer: &&Proposer| proposer.phase == Phase::Done(Told::Made);
                world.proposers.iter().filter(made).count() <= 1
            }),
            Property::always(
                "what was acknowledged is the newest of every majority",
                |_, world: &World| {
                    world.proposers.iter().enumerate().all(|(p, proposer)| {
                        proposer.phase != Phase::Done(Told::Made) || world.is_kept(p as u8)
                    })
                },
            ),
            Property::sometimes("both are told", |_, world: &World| {
                let told = |told| {
                    world
                        .proposers
                        .iter()
                        .any(|proposer| proposer.phase == Phase::Done(told))
                };
                told(Told::Made) && told(Told::Conflict)
            }),
            Property::sometimes(
                "what can happen happened, and a proposer goes on",
                |ring, world: &World| {
                    let spent = world.crashes == 0 && world.wipes == 0;
                    let whole = world
                        .replicas
                        .iter()
                        .all(|replica| replica.returning.is_none());
                    let epoch = u8::from(ring.wipes > 0);
                    let later = |proposer: &Proposer| {
                        proposer.epoch == epoch && matches!(proposer.phase, Phase::Done(_))
                    };
                    spent && whole && world.proposers.iter().any(later)
                },
            ),
        ]
    }
}

impl Ring {
    fn proposer_steps(&self, world: &World, p: usize, proposer: &Proposer, steps: &mut Vec<Step>) {
        if proposer.tries > 0 && !matches!(proposer.phase, Phase::Done(_)) {
            let highest = world
                .replicas
                .iter()
                .map(|replica| replica.epoch)
                .max()
                .unwrap_or(0);
            steps.extend((proposer.epoch..=highest).map(|epoch| Step::Begin(p, epoch)));
        }
        match &proposer.phase {
            Phase::Preparing(_, promises) => {
                let all: Vec<u8> = promises.keys().copied().collect();
                let without = |left: u8| all.iter().copied().filter(|r| *r != left).collect();
                let choices = all.iter().map(|left| without(*left)).chain([all.clone()]);
                let enough = choices.filter(|choice: &Vec<u8>| self.reached(choice.iter()));
                steps.extend(enough.map(|choice| Step::Propose(p, choice)));
            }
            Phase::Accepting(_, agreed, _) if self.reached(agreed.iter()) => {
                steps.push(Step::Finish(p))
            }
            _ => {}
        }
    }

    fn reached<'a>(&self, agreed: impl Iterator<Item = &'a u8>) -> bool {
        let mut quorum = Quorum::new((0..REPLICAS as u8).map(id));
        let mut agreed = agreed.peekable();
        let one_is_enough = self.mistake == Some(Mistake::OneIsEnough) && agreed.peek().is_some();
        let count = agreed.map(|member| quorum.agree(id(*member))).last();
        one_is_enough || count == Some(Count::Reached)
    }

    fn return_steps(&self, r: usize, returning: &Returning, steps: &mut Vec<Step>) {
        let left = |done: &dyn Fn(&u8) -> bool| -> Vec<usize> {
            (0..REPLICAS)
                .filter(|other| *other != r && !done(&(*other as u8)))
                .collect()
        };
        let fences = self.mistake != Some(Mistake::ReturnsWithoutFence);
        let pulls = match self.mistake {
            Some(Mistake::PullsFromOne) => 1,
            _ => REPLICAS - 1,
        };
        if fences && returning.fenced.len() < REPLICAS - 1 {
            let left = left(&|other| returning.fenced.contains(other));
            steps.extend(left.into_iter().map(|other| Step::Fence(r, other)));
        } else if returning.pulled.len() < pulls {
            let left = left(&|other| returning.pulled.contains_key(other));
            steps.extend(left.into_iter().map(|other| Step::Pull(r, other)));
        } else {
            steps.push(Step::Vote(r));
        }
    }
}

impl World {
    fn begin(&mut self, p: usize, epoch: u8) {
        // As if it had heard of every round there is: to try in vain again is no other history.
        let promised = self.replicas.iter().map(|replica| replica.promised.0).max();
        let proposer = &mut self.proposers[p];
        proposer.tries -= 1;
        proposer.epoch = epoch;
        let number = (promised.unwrap_or(0) + 1, p as u8);
        proposer.phase = Phase::Preparing(number, BTreeMap::new());
        self.requests
            .extend((0..REPLICAS as u8).map(|r| (p as u8, r, epoch, number, None)));
    }

    fn arrive(&mut self, (p, r, epoch, number, state): Request, mistake: Option<Mistake>) {
        let (replica, proposer) = (
            &mut self.replicas[usize::from(r)],
            &mut self.proposers[usize::from(p)],
        );
        if replica.returning.is_some() || epoch < replica.epoch {
            return;
        }
        if mistake == Some(Mistake::AcceptsBelowPromise) && state.is_some() {
            replica.promised = replica.promised.min(number);
        }
        let mut register = replica.register();
        let taken = match state {
            None => register.prepare(ballot(number)),
            Some(state) => register.accept(ballot(number), row(state)),
        };
        if taken.is_err() {
            return;
        }
        replica.promised = number;
        replica.ceiling = replica.ceiling.max(number.0);
        match (state, &mut proposer.phase) {
            (None, Phase::Preparing(asked, promises)) if *asked == number => {
                promises.insert(r, (replica.accepted, replica.state));
            }
            (Some(_), Phase::Accepting(asked, agreed, _)) if *asked == number => {
                agreed.insert(r);
            }
            _ => {}
        }
        if let Some(state) = state {
            (replica.accepted, replica.state) = (number, state);
        }
    }

    /// What follows is made of the newest state that one of those who promised had.
    fn propose(&mut self, p: usize, promises: &[u8]) {
        let proposer = &mut self.proposers[p];
        let Phase::Preparing(number, answers) = &proposer.phase else {
            return;
        };
        let number = *number;
        let newest = promises
            .iter()
            .filter_map(|r| answers.get(r))
            .max_by_key(|(accepted, _)| *accepted);
        let newest = newest.and_then(|(_, state)| *state);
        let (state, told) = match create(p as u8, proposer.exposed).decide(&row(newest)) {
            Decision::Apply(_) => (Some(p as u8), Told::Made),
            Decision::AlreadyApplied(_) => (newest, Told::Made),
            Decision::Conflict | Decision::Unknown => (newest, Told::Conflict),
        };
        proposer.exposed |= told == Told::Made;
        proposer.phase = Phase::Accepting(number, BTreeSet::new(), told);
        let epoch = proposer.epoch;
        self.requests
            .extend((0..REPLICAS as u8).map(|r| (p as u8, r, epoch, number, Some(state))));
    }

    /// Requests that would be refused for ever are as good as lost.
    fn drop_what_is_void(&mut self) {
        let replicas = &self.replicas;
        if self.wipes == 0 {
            self.requests.retain(|(_, r, epoch, number, state)| {
                let replica = &replicas[usize::from(*r)];
                let refused = match state {
                    None => *number <= replica.promised,
                    Some(_) => *number < replica.promised,
                };
                replica.returning.is_some() || (*epoch >= replica.epoch && !refused)
            });
        }
    }

    /// The same world with the replicas in another order, the same for most of those that differ in nothing
    /// else.
    fn with_sorted_replicas(&self) -> Self {
        let mut order: Vec<u8> = (0..REPLICAS as u8).collect();
        order.sort_by_key(|r| (&self.replicas[usize::from(*r)], self.role_of(*r)));
        let place = |r: u8| order.iter().position(|other| *other == r).unwrap_or(0) as u8;
        let mut sorted = self.clone();
        sorted.replicas = order
            .iter()
            .map(|r| self.replicas[usize::from(*r)].clone())
            .collect();
        let requests = self.requests.iter();
        sorted.requests = requests
            .map(|(p, r, epoch, number, state)| (*p, place(*r), *epoch, *number, *state))
            .collect();
        for replica in &mut sorted.replicas {
            if let Some(Returning { fenced, pulled }) = &mut replica.returning {
                *fenced = fenced.iter().map(|r| place(*r)).collect();
                *pulled = std::mem::take(pulled)
                    .into_iter()
                    .map(|(r, had)| (place(r), had))
                    .collect();
            }
        }
        for proposer in &mut sorted.proposers {
            match &mut proposer.phase {
                Phase::Preparing(_, promises) => {
                    *promises = std::mem::take(promises)
                        .into_iter()
                        .map(|(r, had)| (place(r), had))
                        .collect();
                }
                Phase::Accepting(_, agreed, _) => {
                    *agreed = agreed.iter().map(|r| place(*r)).collect()
                }
                Phase::Idle | Phase::Done(_) => {}
            }
        }
        sorted
    }

    /// How the proposers and the network see a replica.
    fn role_of(&self, r: u8) -> Role {
        let phase = |proposer: &Proposer| match &proposer.phase {
            Phase::Preparing(_, promises) => promises.get(&r).copied(),
            Phase::Accepting(_, agreed, _) => agreed.contains(&r).then_some((NOTHING, None)),
            Phase::Idle | Phase::Done(_) => None,
        };
        let to = self.requests.iter().filter(|request| request.1 == r);
        let requests = to
            .map(|(p, _, epoch, number, state)| (*p, *epoch, *number, *state))
            .collect();
        (self.proposers.iter().map(phase).collect(), requests)
    }

    /// Whether the newest state of every majority that votes was made by this proposer.
    fn is_kept(&self, p: u8) -> bool {
        let voters: Vec<_> = self
            .replicas
            .iter()
            .filter(|replica| replica.returning.is_none())
            .collect();
        voters.iter().enumerate().all(|(i, a)| {
            voters[i + 1..]
                .iter()
                .all(|b| a.max_accepted(b).state == Some(p))
        })
    }
}

impl Replica {
    fn register(&self) -> Register {
        Register {
            promised: ballot(self.promised),
            accepted: ballot(self.accepted),
            state: row(self.state),
        }
    }

    fn max_accepted<'a>(&'a self, other: &'a Self) -> &'a Self {
        if self.accepted > other.accepted {
            self
        } else {
            other
        }
    }
}

fn id(i: u8) -> MemberId {
    MemberId::from_bytes([i; 16])
}

fn ballot((round, proposer): Number) -> Ballot {
    Ballot {
        round: round.into(),
        member: id(proposer),
        incarnation: 0,
    }
}

fn row(made: Made) -> RowState {
    let by = |p| RowState::default().next(Some(vec![p]), create(p, false).request);
    made.map(by).unwrap_or_default()
}

fn create(p: u8, exposed: bool) -> Change {
    Change {
        expected: Version::NEVER,
        value: Some(vec![p]),
        request: RequestKey {
            peer: PeerId::from_bytes([p; 32]),
            request: RequestId::from_bytes([p; 16]),
        },
        attempt: if exposed {
            Attempt::Retry
        } else {
            Attempt::First
        },
    }
}

const REPLICAS: usize = 3;
const NOTHING: Number = (0, 0);

/// The properties that do not hold.
fn broken(ring: Ring) -> Vec<&'static str> {
    let checker = ring
        .checker()
        .symmetry_fn(World::with_sorted_replicas)
        .threads(2)
        .spawn_dfs()
        .join();
    let properties = checker.model().properties();
    let broken = |property: &&Property<Ring>| {
        let found = checker.discovery(property.name).is_some();
        (property.expectation == Expectation::Sometimes) != found
    };
    properties
        .iter()
        .filter(broken)
        .map(|property| property.name)
        .collect()
}

fn ring(tries: [u8; 2], crashes: u8, wipes: u8, mistake: Option<Mistake>) -> Ring {
    Ring {
        tries,
        crashes,
        wipes,
        mistake,
    }
}

#[test]
fn a_row_is_agreed_on_whatever_happens() {
    for (tries, crashes, wipes) in [([2, 1], 0, 0), ([2, 1], 1, 0), ([1, 1], 1, 1)] {
        let ring = ring(tries, crashes, wipes, None);
        assert_eq!(broken(ring.clone()), [] as [&str; 0], "{ring:?}");
    }
}

#[test]
fn whatever_is_left_out_of_the_rules_breaks_it() {
    for (crashes, wipes, mistake) in [
        (0, 0, Mistake::OneIsEnough),
        (0, 0, Mistake::AcceptsBelowPromise),
        (1, 0, Mistake::ForgetsPromises),
        (0, 1, Mistake::VotesAtOnce),
        (0, 1, Mistake::PullsFromOne),
        (0, 1, Mistake::ReturnsWithoutFence),
    ] {
        let broken = broken(ring([1, 1], crashes, wipes, Some(mistake)));
        assert!(!broken.is_empty(), "nobody notices: {mistake:?}");
    }
}
