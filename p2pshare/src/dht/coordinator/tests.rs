//! Three replicas and several coordinators in a world of its own time, where messages are slow, doubled
//! and lost. The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use std::time::Duration;

use super::*;
use crate::dht::register::Register;
use crate::identity::{PeerId, RequestId};
use crate::limits::ROW_DEADLINE;
use crate::wire::ring::{RequestKey, RowKey, Version};

const SEEDS: u64 = 400;

fn id(i: u8) -> MemberId {
    MemberId::from_bytes([i; 16])
}

fn request(i: u64) -> RequestKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&i.to_be_bytes());
    RequestKey {
        peer: PeerId::from_bytes([9; 32]),
        request: RequestId::from_bytes(bytes),
    }
}

fn change(expected: u64, value: &str, i: u64) -> Change {
    Change {
        expected: Version::from_u64(expected),
        value: Some(value.into()),
        request: request(i),
        attempt: Attempt::First,
    }
}

enum Event {
    Request {
        coordinator: usize,
        to: MemberId,
        request: ReplicaRequest,
    },
    Answer {
        coordinator: usize,
        from: MemberId,
        answer: ReplicaAnswer,
    },
    Failed {
        coordinator: usize,
        from: MemberId,
    },
}

/// What becomes of a message, in per cent.
#[derive(Copy, Clone)]
struct Weather {
    lost: u32,
    doubled: u32,
}

const CALM: Weather = Weather {
    lost: 0,
    doubled: 0,
};

struct World {
    now: Instant,
    start: Instant,
    rng: SmallRng,
    weather: Weather,
    replicas: BTreeMap<MemberId, Register>,
    down: BTreeSet<MemberId>,
    epochs: BTreeMap<MemberId, Epoch>,
    coordinators: Vec<Coordinator>,
    results: BTreeMap<usize, Result<Outcome, Failure>>,
    events: BTreeMap<(Instant, u64), Event>,
    sent: u64,
    proposers: BTreeMap<MemberId, Proposer>,
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let start = Instant::now();
        let members = [id(1), id(2), id(3)];
        let proposer = |member| Proposer {
            member,
            incarnation: 1,
            rounds: Arc::default(),
        };
        Self {
            now: start,
            start,
            rng: SmallRng::seed_from_u64(seed),
            weather,
            replicas: members.map(|member| (member, Register::default())).into(),
            down: BTreeSet::new(),
            epochs: BTreeMap::new(),
            coordinators: Vec::new(),
            results: BTreeMap::new(),
            events: BTreeMap::new(),
            sent: 0,
            proposers: members.map(|member| (member, proposer(member))).into(),
        }
    }

    fn task(&self, intent: Intent) -> Task {
        Task {
            key: RowKey::new("p", "s").unwrap(),
            intent,
            epoch: Epoch::FOUNDING,
            replicas: self.replicas.keys().copied().collect(),
            reachable: 3,
            round: 0,
        }
    }

    /// Starts a coordinator at a member, and names it by its number.
    fn start(&mut self, member: MemberId, intent: Intent) -> usize {
        let task = self.task(intent);
        let (proposer, seed) = (self.proposers[&member].clone(), self.rng.random());
        self.coordinators
            .push(Coordinator::new(self.now, task, proposer, seed));
        let index = self.coordinators.len() - 1;
        self.perform(index);
        index
    }

    fn perform(&mut self, index: usize) {
        while let Some(action) = self.coordinators[index].poll_action() {
            match action {
                Action::Send { to, request } => {
                    if self.down.contains(&to) {
                        self.post(|| Event::Failed {
                            coordinator: index,
                            from: to,
                        });
                        continue;
                    }
                    self.post(|| Event::Request {
                        coordinator: index,
                        to,
                        request: request.clone(),
                    });
                }
                Action::Finish(result) => {
                    let before = self.results.insert(index, result);
                    assert_eq!(before, None, "finished twice");
                }
            }
        }
    }

    fn post(&mut self, event: impl Fn() -> Event) {
        if self.rng.random_range(0..100) < self.weather.lost {
            return;
        }
        let copies = 1 + u32::from(self.rng.random_range(0..100) < self.weather.doubled);
        for _ in 0..copies {
            let delay = Duration::from_micros(self.rng.random_range(100..20_000));
            self.sent += 1;
            self.events.insert((self.now + delay, self.sent), event());
        }
    }

    fn answer(&mut self, to: MemberId, request: ReplicaRequest) -> ReplicaAnswer {
        let highest = self.epochs.get(&to).copied().unwrap_or(Epoch::FOUNDING);
        if request.epoch < highest {
            return ReplicaAnswer::StaleEpoch { highest };
        }
        self.epochs.insert(to, request.epoch);
        let register = self.replicas.get_mut(&to).unwrap();
        match request.call {
            ReplicaCall::Prepare { ballot, .. } => match register.prepare(ballot) {
                Ok(()) => ReplicaAnswer::Promised {
                    ballot,
                    accepted: register.accepted,
                    state: register.state.clone(),
                },
                Err(promised) => ReplicaAnswer::Refused { ballot, promised },
            },
            ReplicaCall::Accept { ballot, state, .. } => match register.accept(ballot, state) {
                Ok(()) => ReplicaAnswer::Accepted { ballot },
                Err(promised) => ReplicaAnswer::Refused { ballot, promised },
            },
            ReplicaCall::Read { .. } => ReplicaAnswer::Row {
                accepted: register.accepted,
                state: register.state.clone(),
            },
            call => unreachable!("{call:?}"),
        }
    }

    /// Goes to the next moment at which something happens.
    fn step(&mut self) -> bool {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let timer = self
            .coordinators
            .iter()
            .filter_map(Coordinator::poll_timeout)
            .min();
        let Some(next) = event.into_iter().chain(timer).min() else {
            return false;
        };
        self.now = self.now.max(next);
        assert!(
            self.now - self.start < Duration::from_secs(60),
            "it never ends"
        );
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Event::Request {
                    coordinator,
                    to,
                    request,
                } => {
                    let answer = self.answer(to, request);
                    self.post(|| Event::Answer {
                        coordinator,
                        from: to,
                        answer: answer.clone(),
                    });
                }
                Event::Answer {
                    coordinator,
                    from,
                    answer,
                } => {
                    let now = self.now;
                    self.coordinators[coordinator].handle(now, Input::Answer { from, answer });
                    self.perform(coordinator);
                }
                Event::Failed { coordinator, from } => {
                    self.coordinators[coordinator].handle(self.now, Input::Failed { from });
                    self.perform(coordinator);
                }
            }
        }
        for index in 0..self.coordinators.len() {
            let now = self.now;
            self.coordinators[index].handle_timeout(now);
            self.perform(index);
        }
        true
    }

    fn run(&mut self) {
        while self.step() {}
        assert!(self.coordinators.iter().all(Coordinator::is_settled));
        assert_eq!(self.results.len(), self.coordinators.len());
    }

    /// Runs one intent to its end in good weather.
    fn ask(&mut self, member: MemberId, intent: Intent) -> Result<Outcome, Failure> {
        self.weather = CALM;
        let index = self.start(member, intent);
        self.run();
        self.results[&index].clone()
    }

    fn read(&mut self) -> RowState {
        match self.ask(id(1), Intent::Read) {
            Ok(Outcome::Read(state)) => state,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_change_in_good_weather_takes_two_rounds_and_a_read_one() {
    let mut world = World::new(1, CALM);
    let made = world.ask(id(1), Intent::Change(change(0, "a", 1)));
    assert_eq!(made, Ok(Outcome::Applied(Version::from_u64(1))));
    assert_eq!(world.sent, 12);
    assert_eq!(world.read().value(), Some(&b"a"[..]));
    assert_eq!(world.sent, 18);
    let again = world.ask(id(2), Intent::Change(change(0, "a", 1)));
    assert_eq!(again, Ok(Outcome::AlreadyApplied(Version::from_u64(1))));
    let other = world.ask(id(3), Intent::Change(change(0, "b", 2)));
    assert!(matches!(other, Ok(Outcome::Conflict(state)) if state.value() == Some(b"a")));
    // Every replica has it, though two would have been enough.
    assert!(
        world
            .replicas
            .values()
            .all(|register| register.state.value() == Some(b"a"))
    );
}

#[test]
fn a_repair_ends_well_once_those_that_it_is_for_have_what_a_majority_has() {
    let mut world = World::new(1, CALM);
    world.down.insert(id(3));
    world.ask(id(1), Intent::Change(change(0, "a", 1))).unwrap();
    // One of the two that had it lost it, and the third is down for good.
    world.replicas.insert(id(2), Register::default());
    let repair = |of: [u8; 2]| Intent::Repair {
        of: of.map(id).to_vec(),
    };
    let mended = world.ask(id(1), repair([1, 2]));
    assert!(matches!(mended, Ok(Outcome::Read(state)) if state.value() == Some(b"a")));
    assert_eq!(world.replicas[&id(2)], world.replicas[&id(1)]);
    let other = world.ask(id(1), repair([1, 3]));
    assert_eq!(other, Err(Failure::Contended));
}

#[test]
fn a_row_that_was_never_written_reads_as_such() {
    assert_eq!(World::new(1, CALM).read(), RowState::default());
}

#[test]
fn a_name_is_created_once_whatever_the_weather() {
    let mut unknown = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(
            seed,
            Weather {
                lost: 10,
                doubled: 10,
            },
        );
        for i in 0..5 {
            world.start(
                id(i % 3 + 1),
                Intent::Change(change(0, &i.to_string(), i.into())),
            );
        }
        world.run();
        let results = world.results.clone();
        let row = world.read();
        let winner = row.value().map(|value| value.to_vec());
        let mut winners = 0;
        for (i, result) in results {
            match result {
                Ok(Outcome::Applied(version)) => {
                    assert_eq!(version, Version::from_u64(1), "seed {seed}");
                    assert_eq!(winner, Some(i.to_string().into_bytes()), "seed {seed}");
                    winners += 1;
                }
                Ok(Outcome::Conflict(state)) => {
                    assert_eq!(state.value(), winner.as_deref(), "seed {seed}");
                }
                Err(Failure::OutcomeUnknown) => unknown += 1,
                Err(_) => assert_ne!(winner, Some(i.to_string().into_bytes()), "seed {seed}"),
                Ok(other) => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(winners <= 1, "seed {seed}");
    }
    assert!(unknown < SEEDS / 4, "{unknown}");
}

#[test]
fn no_change_is_lost_or_made_twice_whatever_the_weather() {
    for seed in 0..SEEDS / 4 {
        let mut world = World::new(
            seed,
            Weather {
                lost: 5,
                doubled: 20,
            },
        );
        let mut made = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        let mut next = 0;
        for round in 0..6 {
            let version = world
                .replicas
                .values()
                .map(|r| r.state.version())
                .max()
                .unwrap();
            let indexes: Vec<_> = (0..3)
                .map(|member| {
                    next += 1;
                    let change = change(version.as_u64(), "x", next);
                    (next, world.start(id(member + 1), Intent::Change(change)))
                })
                .collect();
            world.run();
            for (i, index) in indexes {
                match &world.results[&index] {
                    Ok(Outcome::Applied(version)) => {
                        let before = made.insert(*version, i);
                        assert_eq!(before, None, "seed {seed} round {round}");
                    }
                    Ok(Outcome::Conflict(_)) | Err(Failure::Contended) => {}
                    Err(Failure::OutcomeUnknown | Failure::InsufficientReplicas { .. }) => {
                        unknown.insert(i);
                    }
                    other => panic!("seed {seed} round {round}: {other:?}"),
                }
            }
        }
        let row = world.read();
        let first = row.version().as_u64() - row.recent().len() as u64;
        for (later, maker) in row.recent().iter().enumerate() {
            let version = Version::from_u64(first + later as u64 + 1);
            match made.remove(&version) {
                Some(i) => assert_eq!(*maker, request(i), "seed {seed}"),
                None => assert!(unknown.iter().any(|i| request(*i) == *maker), "seed {seed}"),
            }
        }
        assert!(
            made.is_empty(),
            "seed {seed}: acknowledged and gone: {made:?}"
        );
    }
}

#[test]
fn reads_never_go_back() {
    for seed in 0..SEEDS {
        let mut world = World::new(
            seed,
            Weather {
                lost: 10,
                doubled: 10,
            },
        );
        world.start(id(1), Intent::Change(change(0, "a", 1)));
        // One after the other, each beginning after the one before has ended, while the change is
        // under way and after it.
        let mut seen = Version::NEVER;
        for i in 0..6 {
            let index = world.start(id(i % 3 + 1), Intent::Read);
            while !world.results.contains_key(&index) {
                assert!(world.step());
            }
            if let Ok(Outcome::Read(state)) = &world.results[&index] {
                assert!(state.version() >= seen, "seed {seed}");
                seen = state.version();
            }
        }
    }
}

#[test]
fn duels_end() {
    for (seed, down) in (0..SEEDS / 4).flat_map(|seed| [(seed, None), (seed, Some(3))]) {
        let mut world = World::new(seed, CALM);
        world.down.extend(down.map(id));
        for i in 0..6 {
            world.start(id(i % 3 + 1), Intent::Change(change(0, "x", i.into())));
        }
        world.run();
        let won = |result: &&Result<_, _>| matches!(result, Ok(Outcome::Applied(_)));
        assert_eq!(world.results.values().filter(won).count(), 1, "seed {seed}");
        assert!(world.now - world.start < ROW_PHASE_TIMEOUT, "seed {seed}");
    }
}

#[test]
fn one_replica_down_is_no_hindrance_and_two_are_a_certain_failure() {
    let mut world = World::new(1, CALM);
    world.down.insert(id(3));
    let made = world.ask(id(1), Intent::Change(change(0, "a", 1)));
    assert_eq!(made, Ok(Outcome::Applied(Version::from_u64(1))));
    world.down.insert(id(2));
    let insufficient = Failure::InsufficientReplicas {
        reachable: 1,
        members: 3,
        needed: 2,
    };
    let failed = world.ask(id(1), Intent::Change(change(1, "b", 2)));
    assert_eq!(failed, Err(insufficient));
    assert_eq!(world.ask(id(1), Intent::Read), Err(insufficient));
    world.down.clear();
    assert_eq!(world.read().value(), Some(&b"a"[..]));
}

#[test]
fn of_many_who_ask_where_too_few_are_reached_each_hears_that_and_not_of_the_others() {
    for seed in 0..SEEDS / 4 {
        let mut world = World::new(seed, CALM);
        world.down.extend([id(2), id(3)]);
        for i in 0..6 {
            world.start(id(1), Intent::Read);
            world.start(id(1), Intent::Change(change(0, "x", i)));
        }
        world.run();
        for result in world.results.values() {
            let insufficient = Failure::InsufficientReplicas {
                reachable: 1,
                members: 3,
                needed: 2,
            };
            assert_eq!(result, &Err(insufficient), "seed {seed}");
        }
    }
}

#[test]
fn when_too_few_are_thought_alive_nothing_is_sent() {
    let world = World::new(1, CALM);
    let task = Task {
        key: RowKey::new("p", "s").unwrap(),
        intent: Intent::Change(change(0, "a", 1)),
        epoch: Epoch::FOUNDING,
        replicas: vec![id(1), id(2)],
        reachable: 1,
        round: 0,
    };
    let mut machine = Coordinator::new(world.now, task, world.proposers[&id(1)].clone(), 0);
    let insufficient = Failure::InsufficientReplicas {
        reachable: 1,
        members: 2,
        needed: 2,
    };
    assert_eq!(
        machine.poll_action(),
        Some(Action::Finish(Err(insufficient)))
    );
    assert!(machine.is_settled());
}

#[test]
fn who_only_looks_does_not_wait_for_what_too_few_can_tell() {
    let mut world = World::new(1, CALM);
    world.down.extend([id(2), id(3)]);
    let looked = world.ask(id(1), Intent::Look);
    assert!(matches!(
        looked,
        Err(Failure::InsufficientReplicas { reachable: 1, .. })
    ));
    assert!(world.now - world.start < ROW_PHASE_TIMEOUT);
    world.down.clear();
    let state = world.read();
    assert_eq!(world.ask(id(1), Intent::Look), Ok(Outcome::Read(state)));
}

#[test]
fn what_was_in_the_way_is_said_by_what_was_last_heard_of_each() {
    #[derive(Copy, Clone, PartialEq)]
    enum Says {
        No,
        Nothing,
        Fails,
    }
    use Says::{Fails, No, Nothing};
    // What each of three does in the first try and in all others.
    let ended = |first: [Says; 3], then: [Says; 3]| {
        let world = World::new(1, CALM);
        let task = world.task(Intent::Change(change(0, "a", 1)));
        let proposer = world.proposers[&id(1)].clone();
        let (mut now, mut sent) = (world.now, 0);
        let mut machine = Coordinator::new(now, task, proposer, 0);
        loop {
            while let Some(action) = machine.poll_action() {
                let (to, ballot) = match action {
                    Action::Finish(result) => return result.unwrap_err(),
                    Action::Send { to, request } => match request.call {
                        ReplicaCall::Prepare { ballot, .. } => (to, ballot),
                        call => panic!("{call:?}"),
                    },
                };
                let says = if sent < 3 { first } else { then }[sent % 3];
                sent += 1;
                let promised = Ballot::last_of(ballot.round + 1);
                let answer = ReplicaAnswer::Refused { ballot, promised };
                match says {
                    No => machine.handle(now, Input::Answer { from: to, answer }),
                    Fails => machine.handle(now, Input::Failed { from: to }),
                    Nothing => {}
                }
            }
            now = machine.poll_timeout().unwrap();
            machine.handle_timeout(now);
        }
    };
    let too_few = |reachable| Failure::InsufficientReplicas {
        reachable,
        members: 3,
        needed: 2,
    };
    for (first, then, failure) in [
        ([No; 3], [No; 3], Failure::Contended),
        ([No, No, Fails], [No, No, Nothing], Failure::Contended),
        ([No, Fails, Fails], [No, Fails, Fails], too_few(1)),
        ([No, Nothing, Nothing], [No, Nothing, Nothing], too_few(1)),
        ([No, Nothing, Nothing], [No, Fails, Nothing], too_few(1)),
        ([No; 3], [Nothing; 3], too_few(1)),
        ([Fails; 3], [No, Fails, No], Failure::Contended),
    ] {
        assert_eq!(ended(first, then), failure);
    }
}

#[test]
fn a_timer_that_comes_late_does_not_change_what_was_in_the_way() {
    let world = World::new(1, CALM);
    let task = world.task(Intent::Change(change(0, "a", 1)));
    let mut machine = Coordinator::new(world.now, task, world.proposers[&id(1)].clone(), 0);
    while let Some(action) = machine.poll_action() {
        let Action::Send { to, request } = action else {
            panic!("{action:?}")
        };
        let ReplicaCall::Prepare { ballot, .. } = request.call else {
            panic!("{request:?}")
        };
        let promised = Ballot::last_of(9);
        let answer = ReplicaAnswer::Refused { ballot, promised };
        machine.handle(world.now, Input::Answer { from: to, answer });
    }
    machine.handle_timeout(world.now + 2 * ROW_DEADLINE);
    let contended = Action::Finish(Err(Failure::Contended));
    assert_eq!(machine.poll_action(), Some(contended));
}

#[test]
fn once_a_change_may_have_been_accepted_a_failure_is_unknown() {
    let mut world = World::new(1, CALM);
    let index = world.start(id(1), Intent::Change(change(0, "a", 1)));
    // Until the first replica has taken it; then the others vanish, and with them the answers.
    while world
        .replicas
        .values()
        .all(|register| register.accepted == Ballot::ZERO)
    {
        world.step();
    }
    world.events.clear();
    world.down.extend([id(1), id(2), id(3)]);
    world.run();
    assert_eq!(world.results[&index], Err(Failure::OutcomeUnknown));
    // A later change finds it and builds on it, and a retry learns that it was made.
    world.down.clear();
    let mut retry = change(0, "a", 1);
    retry.attempt = Attempt::Retry;
    let outcome = world.ask(id(2), Intent::Change(retry));
    let made = Version::from_u64(1);
    assert!(outcome == Ok(Outcome::AlreadyApplied(made)) || outcome == Ok(Outcome::Applied(made)));
    assert_eq!(world.read().value(), Some(&b"a"[..]));
}

fn list(list: u64) -> Epoch {
    Epoch { list, returns: 0 }
}

#[test]
fn who_hears_that_a_member_came_back_goes_on_in_the_new_epoch() {
    let mut world = World::new(1, CALM);
    let mut later = Epoch::FOUNDING;
    for (version, replica) in [(0, 1), (1, 2), (2, 3)] {
        later = later.next_return();
        world.epochs.insert(id(replica), later);
        let made = world.ask(id(1), Intent::Change(change(version, "a", version + 1)));
        assert_eq!(made, Ok(Outcome::Applied(Version::from_u64(version + 1))));
    }
    // It asked everybody in the latest, which they took.
    assert!(world.epochs.values().all(|epoch| *epoch == later));
}

#[test]
fn an_old_epoch_is_refused() {
    let mut world = World::new(1, CALM);
    world.epochs.insert(id(2), list(2));
    // One replica that knows better does not hinder the others.
    let made = world.ask(id(1), Intent::Change(change(0, "a", 1)));
    assert_eq!(made, Ok(Outcome::Applied(Version::from_u64(1))));
    world.epochs.insert(id(3), list(3));
    let refused = world.ask(id(1), Intent::Change(change(1, "b", 2)));
    assert!(matches!(refused, Err(Failure::StaleEpoch(_))));
    assert_eq!(world.replicas[&id(1)].state.value(), Some(&b"a"[..]));
}

#[test]
fn a_read_that_finds_a_minority_ahead_writes_it_back() {
    let mut world = World::new(1, CALM);
    world.ask(id(1), Intent::Change(change(0, "a", 1))).unwrap();
    let ballot = Ballot {
        round: 50,
        member: id(2),
        incarnation: 1,
    };
    let newer = world.replicas[&id(1)]
        .state
        .next(Some(b"b".to_vec()), request(2));
    world
        .replicas
        .get_mut(&id(2))
        .unwrap()
        .accept(ballot, newer)
        .unwrap();
    world.down.insert(id(3));
    assert_eq!(world.read().value(), Some(&b"b"[..]));
    assert_eq!(world.replicas[&id(1)].state.value(), Some(&b"b"[..]));
}
