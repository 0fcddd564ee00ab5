//! Every way in which a small ring can go: three replicas of one row, two proposers who both create it,
//! messages in any order or never, a replica that crashes and one that loses its disk and returns.
//!
//! All that thinks is the product's: coordinators, replicas over the model of a disk, and the member that returns.

use stateright::{Checker as _, Expectation, HasDiscoveries, Model, Property};

use self::machines::{FRESH, Id, Lived, Machines, REPLICAS, Told, Went};
use crate::dht::sim::Fault;
use crate::wire::ring::Epoch;

mod machines;

/// What may happen, and which mistake is made.
struct Ring {
    /// How often each proposer begins.
    tries: [u8; 2],
    crashes: u8,
    wipes: u8,
    mistake: Option<Fault>,
    machines: Machines,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct World {
    replicas: Each<Replica>,
    proposers: [Proposer; 2],
    /// What was asked and may yet arrive, and at whom.
    requests: Vec<(Id, Each<bool>)>,
    crashes: u8,
    wipes: u8,
}

/// Of each replica.
type Each<T> = [T; REPLICAS];

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Replica {
    node: Id,
    returning: Option<Returning>,
}

/// One that lost its disk.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Returning {
    machine: Id,
    /// What it asks of whom, and what it calls them; itself 0.
    asks: Each<Option<Id>>,
    names: Each<u8>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Proposer {
    tries: u8,
    epoch: Epoch,
    /// As it was when it asked what it asks now; nothing before it begins, and after it has ended.
    machine: Option<Id>,
    asked: Option<Id>,
    /// What it was answered.
    heard: Each<Option<Id>>,
    /// Whether it asks something that follows from answers.
    went_on: bool,
    told: Option<Told>,
}

/// What happens. A request and its answer are one step.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// A proposer begins, or begins again, in this epoch.
    Begin(usize, Epoch),
    /// A request arrives, and its answer does or does not.
    Arrive(Id, usize, bool),
    Crash(usize),
    Wipe(usize),
    /// One that returns asks another.
    Return(usize, usize),
}

impl Model for Ring {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let proposer = |tries| Proposer {
            tries,
            epoch: Epoch::FOUNDING,
            machine: None,
            asked: None,
            heard: [None; REPLICAS],
            went_on: true,
            told: None,
        };
        let replica = |_| Replica {
            node: FRESH,
            returning: None,
        };
        vec![World {
            replicas: [0; REPLICAS].map(replica),
            proposers: self.tries.map(proposer),
            requests: Vec::new(),
            crashes: self.crashes,
            wipes: self.wipes,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (p, proposer) in world.proposers.iter().enumerate() {
            self.beginnings(world, p, proposer, steps);
        }
        for (request, to) in &world.requests {
            let asked = self.machines.asked(*request);
            let proposer = &world.proposers[usize::from(asked.proposer)];
            let may_be_unheard =
                asked.is_accept && proposer.tries > 0 && proposer.asked == Some(*request);
            for r in (0..REPLICAS).filter(|r| to[*r] && world.replicas[*r].returning.is_none()) {
                steps.push(Step::Arrive(*request, r, true));
                if may_be_unheard {
                    steps.push(Step::Arrive(*request, r, false));
                }
            }
        }
        for (r, replica) in world.replicas.iter().enumerate() {
            let fresh = replica.node == FRESH;
            if !fresh && world.crashes > 0 {
                steps.push(Step::Crash(r));
            }
            if !fresh && replica.returning.is_none() && world.wipes > 0 {
                steps.push(Step::Wipe(r));
            }
            if let Some(returning) = &replica.returning {
                let asked = (0..REPLICAS).filter(|other| returning.asks[*other].is_some());
                let votes = asked.filter(|other| world.replicas[*other].returning.is_none());
                steps.extend(votes.map(|other| Step::Return(r, other)));
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Begin(p, epoch) => self.begin(&mut next, p, epoch),
            Step::Arrive(request, r, heard) => self.arrive(&mut next, request, r, heard),
            Step::Crash(r) => {
                next.crashes -= 1;
                let node = self.machines.restart(next.replicas[r].node);
                match next.replicas[r].returning {
                    None => next.replicas[r].node = self.machines.vote(node),
                    Some(_) => self.begin_return(&mut next, r, node),
                }
            }
            Step::Wipe(r) => {
                next.wipes -= 1;
                let node = self.machines.wipe(next.replicas[r].node);
                self.begin_return(&mut next, r, node);
            }
            Step::Return(r, other) => self.ask_for(&mut next, r, other),
        }
        if self.mistake.is_none() {
            self.drop_what_is_void(&mut next);
        }
        next.requests.retain(|(_, to)| to.contains(&true));
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a row is created once", |_, world: &World| {
                let made = |proposer: &&Proposer| proposer.told == Some(Told::Made);
                world.proposers.iter().filter(made).count() <= 1
            }),
            Property::always(
                "what was acknowledged is the newest of every majority",
                |ring: &Ring, world: &World| {
                    world.proposers.iter().enumerate().all(|(p, proposer)| {
                        proposer.told != Some(Told::Made) || ring.is_kept(world, p as u8)
                    })
                },
            ),
            Property::sometimes("all are told", |ring: &Ring, world: &World| {
                let told = |told| {
                    let mut proposers = world.proposers.iter();
                    proposers.any(|proposer| proposer.told == Some(told))
                };
                told(Told::Made) && (ring.tries[1] == 0 || told(Told::Conflict))
            }),
            Property::sometimes(
                "what can happen happened, and a proposer goes on",
                |ring: &Ring, world: &World| {
                    let spent = world.crashes == 0 && world.wipes == 0;
                    let mut replicas = world.replicas.iter();
                    let whole = replicas.all(|replica| replica.returning.is_none());
                    let later = |proposer: &Proposer| {
                        let returned = proposer.epoch > Epoch::FOUNDING;
                        returned == (ring.wipes > 0) && proposer.told.is_some()
                    };
                    spent && whole && world.proposers.iter().any(later)
                },
            ),
        ]
    }
}

impl Ring {
    fn beginnings(&self, world: &World, p: usize, proposer: &Proposer, steps: &mut Vec<Step>) {
        if proposer.tries == 0 || !proposer.went_on {
            return;
        }
        // Whoever of two that are alike begins first is called the first.
        let first = &world.proposers[0];
        if p == 1 && self.tries[0] == self.tries[1] && first.tries == self.tries[0] {
            return;
        }
        let replicas = world.replicas.iter();
        let mut epochs: Vec<_> = replicas.map(|it| self.machines.known(it.node).epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        let known = epochs.into_iter().filter(|epoch| *epoch >= proposer.epoch);
        steps.extend(known.map(|epoch| Step::Begin(p, epoch)));
    }

    fn begin(&self, world: &mut World, p: usize, epoch: Epoch) {
        let round = self.highest_round(world);
        let proposer = &mut world.proposers[p];
        let lived = match proposer.machine {
            None => vec![Lived::Begin(p as u8, epoch, round)],
            Some(_) if epoch > proposer.epoch => vec![Lived::Round(round), Lived::Epoch(epoch)],
            Some(_) => vec![Lived::Round(round), Lived::Silence],
        };
        proposer.tries -= 1;
        proposer.epoch = epoch;
        let went = self.machines.live(proposer.machine, lived);
        self.go_on(world, p, went, false);
    }

    /// To try in vain again is no other history, so whoever begins has heard of every round there is.
    fn highest_round(&self, world: &World) -> u64 {
        let promised = world.replicas.iter().map(|it| self.machines.known(it.node).promised);
        let under_way = world.requests.iter().map(|(request, _)| *request);
        let asked = world.proposers.iter().filter_map(|proposer| proposer.asked);
        let asked = under_way.chain(asked).map(|it| self.machines.asked(it).round);
        promised.chain(asked).max().unwrap_or(0)
    }

    fn arrive(&self, world: &mut World, request: Id, r: usize, heard: bool) {
        let under_way = world.requests.iter_mut().filter(|(it, _)| *it == request);
        under_way.for_each(|(_, to)| to[r] = false);
        let (node, answer) = self.machines.ask(world.replicas[r].node, request);
        world.replicas[r].node = node;
        let asked = self.machines.asked(request);
        let p = usize::from(asked.proposer);
        if !heard || world.proposers[p].asked != Some(request) || self.machines.refuses(answer) {
            return;
        }
        let round = self.highest_round(world);
        let proposer = &mut world.proposers[p];
        proposer.heard[r] = Some(answer);
        let answers = (0..).zip(proposer.heard);
        let answers = answers.filter_map(|(r, answer)| Some(Lived::Answer(r, answer?)));
        let prepares_twice = !asked.is_accept && asked.epoch > Epoch::FOUNDING;
        let round = prepares_twice.then_some(Lived::Round(round));
        let lived = round.into_iter().chain(answers).collect();
        let went = self.machines.live(proposer.machine, lived);
        if !went.asks.is_empty() || went.end.is_some() {
            self.go_on(world, p, went, true);
        }
    }

    /// A proposer asks something else, or ends.
    fn go_on(&self, world: &mut World, p: usize, went: Went<Told>, went_on: bool) {
        // A promise that is made to it now makes no difference but to forbid something.
        world.requests.retain(|(request, _)| {
            let asked = self.machines.asked(*request);
            usize::from(asked.proposer) != p || asked.is_accept
        });
        let proposer = &mut world.proposers[p];
        proposer.heard = [None; REPLICAS];
        proposer.went_on = went_on;
        (proposer.machine, proposer.asked) = match went.asks.first() {
            Some((_, request)) => (Some(went.machine), Some(*request)),
            None => (None, None),
        };
        if let Some(request) = proposer.asked {
            assert!(went.asks.len() == REPLICAS);
            world.requests.push((request, [true; REPLICAS]));
            world.requests.sort_unstable();
        }
        if went.end.is_some() {
            (proposer.told, proposer.tries) = (went.end, 0);
        }
    }

    fn begin_return(&self, world: &mut World, r: usize, node: Id) {
        let incarnation = u64::from(world.crashes + world.wipes);
        let went = self.machines.begin_return(node, incarnation);
        let mut names = [0; REPLICAS];
        names[(r + 1) % REPLICAS] = 1;
        names[(r + 2) % REPLICAS] = 2;
        let returning = Returning {
            machine: went.machine,
            asks: [None; REPLICAS],
            names,
        };
        world.replicas[r] = Replica {
            node,
            returning: Some(returning),
        };
        self.go_on_returning(world, r, went);
    }

    /// One that returns asks another, and does what follows of the answer.
    fn ask_for(&self, world: &mut World, r: usize, other: usize) {
        let Some(returning) = &mut world.replicas[r].returning else {
            return;
        };
        let Some(request) = returning.asks[other].take() else {
            return;
        };
        let (machine, name) = (returning.machine, returning.names[other]);
        let (node, answer) = self.machines.ask(world.replicas[other].node, request);
        world.replicas[other].node = node;
        let went = self.machines.go_on_returning(machine, name, answer);
        self.go_on_returning(world, r, went);
    }

    fn go_on_returning(&self, world: &mut World, r: usize, mut went: Went<()>) {
        let replica = &mut world.replicas[r];
        let Some(returning) = &mut replica.returning else {
            return;
        };
        loop {
            returning.machine = went.machine;
            let mut own = None;
            for (to, request) in went.asks {
                match returning.names.iter().position(|name| *name == to) {
                    Some(other) if other != r => returning.asks[other] = Some(request),
                    _ => own = Some(request),
                }
            }
            if went.end.is_some() {
                replica.node = self.machines.vote(replica.node);
                replica.returning = None;
                return;
            }
            let Some(request) = own else {
                return;
            };
            let (node, answer) = self.machines.ask(replica.node, request);
            replica.node = node;
            went = self.machines.go_on_returning(returning.machine, 0, answer);
        }
    }

    /// Requests that would be refused for ever are as good as lost.
    fn drop_what_is_void(&self, world: &mut World) {
        for (request, to) in &mut world.requests {
            for (replica, to) in world.replicas.iter().zip(to) {
                if *to && replica.returning.is_none() {
                    let (node, answer) = self.machines.ask(replica.node, *request);
                    *to = node != replica.node || !self.machines.refuses(answer);
                }
            }
        }
    }

    /// Whether the newest state of every majority that votes was made by this proposer.
    fn is_kept(&self, world: &World, p: u8) -> bool {
        let replicas = world.replicas.iter();
        let voters = replicas.filter(|replica| replica.returning.is_none());
        let voters: Vec<_> = voters.map(|it| self.machines.known(it.node)).collect();
        voters.iter().enumerate().all(|(i, a)| {
            let mut later = voters[i + 1..].iter();
            later.all(|b| {
                let newest = if a.accepted > b.accepted { a } else { b };
                newest.made == Some(p)
            })
        })
    }
}

impl World {
    /// The same world with the replicas in another order, the same for those that differ in nothing else.
    fn with_sorted_replicas(&self) -> Self {
        let mut order = [0, 1, 2];
        order.sort_by_cached_key(|r| self.role_of(*r));
        let mut sorted = self.clone();
        sorted.replicas = sort(&self.replicas, order);
        for replica in &mut sorted.replicas {
            if let Some(returning) = &mut replica.returning {
                returning.asks = sort(&returning.asks, order);
                returning.names = sort(&returning.names, order);
            }
        }
        for proposer in &mut sorted.proposers {
            proposer.heard = sort(&proposer.heard, order);
        }
        for (_, to) in &mut sorted.requests {
            *to = sort(to, order);
        }
        sorted
    }

    /// All that tells a replica apart.
    fn role_of(&self, r: usize) -> Vec<Option<Id>> {
        let replica = &self.replicas[r];
        let returning = replica.returning.as_ref().map(|it| it.machine);
        let mut role = vec![Some(replica.node), returning];
        let others = self.replicas.iter().flat_map(|other| &other.returning);
        role.extend(others.flat_map(|it| [it.asks[r], Some(it.names[r].into())]));
        role.extend(self.proposers.iter().map(|proposer| proposer.heard[r]));
        role.extend(self.requests.iter().map(|(_, to)| Some(to[r].into())));
        role
    }
}

fn sort<T: Clone>(each: &Each<T>, order: Each<usize>) -> Each<T> {
    order.map(|r| each[r].clone())
}

/// The properties that do not hold.
fn broken(ring: Ring) -> Vec<&'static str> {
    let began = std::time::Instant::now();
    let checker = ring
        .checker()
        .symmetry_fn(World::with_sorted_replicas)
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_dfs()
        .join();
    let ring = checker.model();
    println!(
        "{:?} {} {} {:?}: {} states of {}, {:?} machines, {:?}",
        ring.tries, ring.crashes, ring.wipes, ring.mistake,
        checker.unique_state_count(),
        checker.state_count(),
        checker.model().machines.count(),
        began.elapsed()
    );
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

fn ring(tries: [u8; 2], crashes: u8, wipes: u8, mistake: Option<Fault>) -> Ring {
    Ring {
        tries,
        crashes,
        wipes,
        mistake,
        machines: Machines::new(mistake),
    }
}

#[test]
fn a_row_is_agreed_on_whatever_happens() {
    let cases = std::env::var("CASES").unwrap_or("110,111,210,111,2101,1111".into());
    for case in cases.split(',') {
        let n: Vec<u8> = case.bytes().map(|b| b - b'0').collect();
        let ring = ring([n[0], n[1]], n[2], n[3], None);
        assert_eq!(broken(ring), [] as [&str; 0], "{case}");
    }
}

#[test]
fn whatever_is_left_out_of_the_rules_breaks_it() {
    for (crashes, wipes, mistake) in [
        (0, 0, Fault::QuorumTooSmall),
        (0, 0, Fault::AcceptBelowPromise),
        (1, 0, Fault::CeilingNotKept),
        (0, 1, Fault::AmnesiacVotes),
        (0, 1, Fault::PullFromOne),
        (0, 1, Fault::ReturnWithoutFence),
    ] {
        let broken = broken(ring([1, 1], crashes, wipes, Some(mistake)));
        println!("{broken:?}");
        assert!(!broken.is_empty(), "nobody notices: {mistake:?}");
    }
}
