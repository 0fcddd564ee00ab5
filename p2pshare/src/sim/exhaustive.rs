//! Every way in which a small ring can go: three replicas of one row, two proposers who both create it, messages in
//! any order or never, a replica that crashes and one that loses its disk and returns, or two that do.
//!
//! All that thinks is the product's: the coordinators, the replicas over the model of a disk, and the member that
//! returns ([`machines`]). Said here is what may happen to them. Bounded is how often proposers begin and how many
//! crashes and wipes there are; epochs and rounds need no bound, as it takes a proposer that begins to carry an epoch
//! to where a fence meets it.
//!
//! **What is left out**, and why no history is that could show a fault:
//! - A request and its answer are one step. Who hears late and goes on late is one whose next requests come late. That
//!   a promise goes unheard is as if it was not asked for, since a promise only forbids; that something is accepted
//!   unheard counts if the proposer can begin again, and otherwise it is only told less.
//! - Refusals are not heard. What they tell of, rounds and epochs, a proposer knows when it begins again; and it does
//!   that only after something came of the time before.
//! - What is refused is dropped, since it would be for ever: promises and epochs only rise, and whoever forgot them
//!   returns in an epoch in which nobody had asked before. With a mistake in the ring that may be otherwise, and
//!   nothing is dropped.
//! - What reaches one that returns is lost: it answers nobody. What it asks itself it asks until it is answered.
//! - Replicas bear no names, so that worlds with the same ones in another order are the same; nor do proposers, if
//!   they begin equally often.

mod machines;

use std::collections::BTreeSet;

use stateright::{Checker as _, Expectation, HasDiscoveries, Model, Property};

use self::machines::{FRESH, Id, Lived, Machines, Made, REPLICAS, Told, Went};
use crate::dht::sim::Fault;
use crate::wire::ring::Epoch;

/// What may happen, and which mistake is made.
#[derive(Debug)]
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
    /// What it asks of whom.
    asks: Each<Option<Id>>,
    /// What it calls the others. While it asks all the same and nobody has answered, it is all the same what.
    names: Option<Each<u8>>,
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
            let may_forget = replica.node != FRESH;
            if may_forget && world.crashes > 0 {
                steps.push(Step::Crash(r));
            }
            if may_forget && replica.returning.is_none() && world.wipes > 0 {
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
        next.sort_replicas();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(CREATED_ONCE, |_, world: &World| {
                world.told(Told::Made).count() <= 1
            }),
            Property::always(KEPT, |ring: &Ring, world: &World| {
                let mut told = world.told(Told::Made);
                told.all(|p| ring.newest(world).iter().all(|made| *made == Some(p)))
            }),
            Property::always(TOLD_TRULY, |ring: &Ring, world: &World| {
                let mut told = world.told(Told::Conflict);
                told.all(|p| ring.newest(world).iter().all(|made| *made != Some(p)))
            }),
            Property::sometimes(
                "a fence comes too late, and is raised",
                |ring: &Ring, world: &World| {
                    let twice = Epoch::FOUNDING.next_return().next_return();
                    let mut replicas = world.replicas.iter();
                    let known = |it: &Replica| ring.machines.known(it.node);
                    ring.wipes == 0 || replicas.any(|it| known(it).epoch >= twice)
                },
            ),
            Property::sometimes("all are told", |ring: &Ring, world: &World| {
                let conflicts = world.told(Told::Conflict).count();
                world.told(Told::Made).count() == 1 && (ring.tries[1] == 0 || conflicts == 1)
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
        let epochs: BTreeSet<_> = replicas
            .map(|it| self.machines.known(it.node).epoch)
            .collect();
        let known = epochs.range(proposer.epoch..);
        steps.extend(known.map(|epoch| Step::Begin(p, *epoch)));
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
        let (replicas, proposers) = (world.replicas.iter(), world.proposers.iter());
        let promised = replicas.map(|it| self.machines.known(it.node).promised);
        let under_way = world.requests.iter().map(|(request, _)| *request);
        let asked = under_way.chain(proposers.filter_map(|it| it.asked));
        let rounds = asked.map(|it| self.machines.asked(it).round);
        promised.chain(rounds).max().unwrap_or(0)
    }

    fn arrive(&self, world: &mut World, request: Id, r: usize, heard: bool) {
        let under_way = world.requests.iter_mut().filter(|(it, _)| *it == request);
        under_way.for_each(|(_, to)| to[r] = false);
        let (node, answer) = self.machines.ask(world.replicas[r].node, request);
        world.replicas[r].node = node;
        let p = usize::from(self.machines.asked(request).proposer);
        if heard && !self.machines.refuses(answer) {
            self.hear(world, p, r, answer);
        }
    }

    /// A proposer hears an answer, perhaps to what it no longer asks. If that changes nothing, it is not kept.
    fn hear(&self, world: &mut World, p: usize, r: usize, answer: Id) {
        let Proposer {
            machine,
            asked,
            mut heard,
            ..
        } = world.proposers[p];
        let Some(asked) = asked.filter(|_| heard[r].is_none()) else {
            return;
        };
        let asked = self.machines.asked(asked);
        // In a later epoch it prepares again, without beginning again.
        let prepares_twice = !asked.is_accept && asked.epoch > Epoch::FOUNDING;
        let round = prepares_twice.then(|| Lived::Round(self.highest_round(world)));
        let live = |heard: Each<Option<Id>>| {
            let answers = (0..).zip(heard);
            let answers = answers.filter_map(|(r, answer)| Some(Lived::Answer(r, answer?)));
            self.machines
                .live(machine, round.into_iter().chain(answers).collect())
        };
        let before = heard;
        heard[r] = Some(answer);
        let went = live(heard);
        if !went.asks.is_empty() || went.end.is_some() {
            self.go_on(world, p, went, true);
        } else if went.machine != live(before).machine {
            world.proposers[p].heard = heard;
        }
    }

    /// A proposer asks something else, or ends.
    fn go_on(&self, world: &mut World, p: usize, went: Went<Told>, went_on: bool) {
        let proposer = &mut world.proposers[p];
        proposer.heard = [None; REPLICAS];
        proposer.went_on = went_on;
        (proposer.machine, proposer.asked) = match went.asks.first() {
            Some((_, request)) => (Some(went.machine), Some(*request)),
            None => (None, None),
        };
        if let Some(request) = proposer.asked {
            assert_eq!(went.asks.len(), REPLICAS);
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
        let returning = Returning {
            machine: went.machine,
            asks: [None; REPLICAS],
            names: None,
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
        let names = returning.names.get_or_insert_with(|| {
            let mut names = [2; REPLICAS];
            (names[r], names[other]) = (0, 1);
            names
        });
        let (machine, name) = (returning.machine, names[other]);
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
            let (to_itself, to_others): (Vec<_>, Vec<_>) =
                went.asks.into_iter().partition(|(to, _)| *to == 0);
            if to_others.len() == REPLICAS - 1 {
                returning.names = None;
            }
            for (to, request) in to_others {
                let is_meant = |other: usize| match returning.names {
                    None => other != r,
                    Some(names) => names[other] == to,
                };
                let meant = (0..REPLICAS).filter(|other| is_meant(*other));
                meant.for_each(|other| returning.asks[other] = Some(request));
            }
            if went.end.is_some() {
                replica.node = self.machines.vote(replica.node);
                replica.returning = None;
                return;
            }
            let Some((_, request)) = to_itself.first() else {
                return;
            };
            let (node, answer) = self.machines.ask(replica.node, *request);
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

    /// Whose state is the newest of each majority that votes.
    fn newest(&self, world: &World) -> Vec<Made> {
        let replicas = world.replicas.iter();
        let voters = replicas.filter(|replica| replica.returning.is_none());
        let voters: Vec<_> = voters.map(|it| self.machines.known(it.node)).collect();
        let pairs = (1..voters.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let newest = pairs.map(|(a, b)| match voters[a].accepted > voters[b].accepted {
            true => voters[a].made,
            false => voters[b].made,
        });
        newest.collect()
    }
}

impl World {
    /// Which proposers were told this.
    fn told(&self, told: Told) -> impl Iterator<Item = u8> {
        let proposers = (0..).zip(&self.proposers);
        proposers.filter_map(move |(p, proposer)| (proposer.told == Some(told)).then_some(p))
    }

    /// Worlds with the same replicas in another order become the same.
    fn sort_replicas(&mut self) {
        let roles = [0, 1, 2].map(|r| self.role_of(r));
        if roles.is_sorted() {
            return;
        }
        let mut order = [0, 1, 2];
        order.sort_unstable_by_key(|r| &roles[*r]);
        sort(&mut self.replicas, order);
        for replica in &mut self.replicas {
            if let Some(returning) = &mut replica.returning {
                sort(&mut returning.asks, order);
                returning
                    .names
                    .iter_mut()
                    .for_each(|names| sort(names, order));
            }
        }
        for proposer in &mut self.proposers {
            sort(&mut proposer.heard, order);
        }
        for (_, to) in &mut self.requests {
            sort(to, order);
        }
    }

    /// All that tells a replica apart.
    fn role_of(&self, r: usize) -> Vec<Option<Id>> {
        let replica = &self.replicas[r];
        let returning = replica.returning.as_ref().map(|it| it.machine);
        let mut role = vec![Some(replica.node), returning];
        let others = self.replicas.iter().flat_map(|other| &other.returning);
        role.extend(others.flat_map(|it| [it.asks[r], it.names.map(|names| names[r].into())]));
        role.extend(self.proposers.iter().map(|proposer| proposer.heard[r]));
        role.extend(self.requests.iter().map(|(_, to)| Some(to[r].into())));
        role
    }
}

fn sort<T: Clone>(each: &mut Each<T>, order: Each<usize>) {
    *each = order.map(|r| each[r].clone());
}

const CREATED_ONCE: &str = "a row is created once";
const KEPT: &str = "what was acknowledged is the newest of every majority";
const TOLD_TRULY: &str = "who is told of a conflict has not made the row";

/// What a search found.
struct Found {
    /// What does not hold, and how it comes to that.
    broken: Vec<(&'static str, Vec<Step>)>,
    /// What ought to come about and never does.
    never: Vec<&'static str>,
}

fn search(ring: Ring, until: HasDiscoveries) -> Found {
    let checker = ring
        .checker()
        .finish_when(until)
        .threads(2)
        .spawn_dfs()
        .join();
    let (ring, worlds) = (checker.model(), checker.unique_state_count());
    println!("{worlds} worlds: {ring:?}");
    let (mut broken, mut never) = (Vec::new(), Vec::new());
    for property in ring.properties() {
        match (property.expectation, checker.discovery(property.name)) {
            (Expectation::Sometimes, None) => never.push(property.name),
            (Expectation::Always, Some(path)) => broken.push((property.name, path.into_actions())),
            _ => {}
        }
    }
    Found { broken, never }
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
    for (tries, crashes, wipes) in [
        ([2, 1], 1, 0),
        ([2, 1], 0, 1),
        ([1, 1], 1, 1),
        ([2, 0], 1, 1),
        ([1, 1], 0, 2),
    ] {
        let Found { broken, never } = search(
            ring(tries, crashes, wipes, None),
            HasDiscoveries::AnyFailures,
        );
        let case = format!("{tries:?} tries, {crashes} crashes, {wipes} wipes");
        assert_eq!(broken, [], "{case}");
        assert_eq!(never, [] as [&str; 0], "{case}");
    }
}

#[test]
fn whatever_is_left_out_of_the_rules_breaks_it() {
    for (tries, crashes, wipes, mistake, breaks) in [
        ([1, 1], 0, 0, Fault::QuorumTooSmall, CREATED_ONCE),
        ([1, 1], 0, 0, Fault::AcceptBelowPromise, CREATED_ONCE),
        ([1, 1], 0, 0, Fault::PromiseBelowPromise, CREATED_ONCE),
        ([2, 1], 0, 0, Fault::AnyAcceptedState, CREATED_ONCE),
        ([2, 0], 0, 0, Fault::RequestForgotten, TOLD_TRULY),
        ([1, 1], 1, 0, Fault::CeilingNotKept, CREATED_ONCE),
        ([1, 1], 0, 1, Fault::AmnesiacVotes, CREATED_ONCE),
        ([1, 1], 0, 1, Fault::PullFromOne, CREATED_ONCE),
        ([1, 1], 0, 1, Fault::ReturnWithoutFence, CREATED_ONCE),
        ([1, 1], 0, 1, Fault::NoFence, CREATED_ONCE),
        ([1, 1], 0, 1, Fault::StaleEpochAccepted, CREATED_ONCE),
    ] {
        let Found { broken, .. } = search(
            ring(tries, crashes, wipes, Some(mistake)),
            HasDiscoveries::AnyOf(BTreeSet::from([breaks])),
        );
        let mut broken = broken.into_iter().map(|(property, _)| property);
        assert!(broken.any(|it| it == breaks), "nobody notices: {mistake:?}");
    }
}
