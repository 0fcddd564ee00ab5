//! A member of the world: a disk that outlives it, and the volatile rest of one life.
//!
//! It runs machines and the replica service as the product's driver does: what a machine wants asked goes out,
//! what comes back is handed to it, requests that write wait for the writer, whose batch is one sync, after
//! which all its answers go out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::clocks;
use super::leases::Leases;
use super::monitor::Word;
use super::trouble::{DISK_DELAY, Death};
use super::world::{Event, Told, World};
use crate::dht::sim::{
    Action, Beginning, Coordinator, Exchange, Exchanged, Failure, Fault, Identity, Input, Intent,
    Machine, Outcome, Page, Paging, Placement, Proposer, Remembered, Replica, Returned, Task,
    planted, remember_others, slice_of, slice_of_row,
};
use crate::identity::{MemberId, TrackerAddr};
use crate::limits::{REMEMBERED_COMMITS_APART, REPLICA_BATCH_TIMEOUT};
use crate::store::ModelDisk;
use crate::wire::ring::{ReplicaAnswer, ReplicaCall, ReplicaRequest, RingRecord, RowKey};

/// A member of the world.
pub(super) struct Host {
    pub(super) addr: TrackerAddr,
    /// Who it is, once it knows.
    pub(super) id: Option<MemberId>,
    pub(super) disk: ModelDisk,
    /// The number of commits that it has noted beside its disk, zero if that was lost.
    pub(super) noted: u64,
    /// How many commits its disk had when it last said something that binds it.
    pub(super) said: u64,
    /// Whether what it has lost is known to others, in their memory alone, and to nobody else.
    pub(super) needs_memory: bool,
    /// By how much the commits that it tells of are more than those of its disk, in this life.
    pub(super) ahead: u64,
    /// How many lives it had.
    pub(super) lives: u64,
    pub(super) life: Option<Life>,
    /// It is stopped, and goes on then.
    pub(super) asleep_until: Option<Instant>,
    /// The longest that its disk takes for a sync.
    pub(super) disk_delay: Duration,
    /// What it has said.
    pub(super) word: Word,
    /// Whether it may have forgotten what it once knew, and has not caught up.
    pub(super) forgetful: bool,
    /// What happens at its next sync.
    pub(super) dies: Option<Death>,
    /// How far its clock is ahead, in milliseconds.
    pub(super) clock_ahead: i64,
}

impl Host {
    /// Founders, one at each address.
    pub(super) fn founders(count: usize) -> Vec<Self> {
        let addrs = (0..count).filter_map(|host| format!("10.0.0.{}:9000", host + 1).parse().ok());
        let founder = |addr| Self {
            addr,
            id: None,
            disk: ModelDisk::default(),
            noted: 0,
            said: 0,
            needs_memory: false,
            ahead: 0,
            lives: 0,
            life: None,
            asleep_until: None,
            disk_delay: DISK_DELAY,
            word: Word::default(),
            forgetful: false,
            dies: None,
            clock_ahead: 0,
        };
        addrs.map(founder).collect()
    }

    /// How many commits it tells others that its disk has: until it votes, those before this life.
    pub(super) fn told_commits(&self) -> u64 {
        let commits = self.ahead + self.disk.commits();
        let Some(life) = &self.life else {
            return commits;
        };
        if life.votes() { commits } else { life.commits }
    }
}

/// One life of a member, all of it in memory.
pub(super) struct Life {
    /// Which of the host's lives it is.
    pub(super) number: u64,
    pub(super) identity: Identity,
    pub(super) beginning: Beginning,
    /// How many commits there were to tell of when it began.
    commits: u64,
    /// Whether it knows what it is, and has taken the step to be that.
    pub(super) begun: bool,
    /// What it is for others, once it is a member.
    pub(super) serving: Option<Serving>,
    /// What the others told of themselves.
    pub(super) heard: BTreeMap<MemberId, Remembered>,
    /// Whom it thinks alive.
    pub(super) alive: BTreeSet<usize>,
    /// What is said for a while.
    pub(super) leases: Leases,
    pub(super) heard_clocks: clocks::Heard,
    running: BTreeMap<u64, Running>,
    machines: u64,
    /// Requests that wait for the writer.
    waiting: VecDeque<(Asker, ReplicaRequest)>,
    /// Answers that wait for the disk; `None` while the writer is idle.
    written: Option<Vec<(Asker, ReplicaRequest, ReplicaAnswer)>>,
}

/// A member with its rows.
pub(super) struct Serving {
    pub(super) replica: Replica,
    pub(super) placement: Arc<Placement>,
    pub(super) proposer: Proposer,
}

impl Life {
    pub(super) fn new(number: u64, identity: Identity, beginning: Beginning, commits: u64) -> Self {
        Self {
            number,
            identity,
            beginning,
            commits,
            begun: false,
            serving: None,
            heard: BTreeMap::new(),
            alive: BTreeSet::new(),
            leases: Leases::default(),
            heard_clocks: clocks::Heard::default(),
            running: BTreeMap::new(),
            machines: 0,
            waiting: VecDeque::new(),
            written: None,
        }
    }

    /// How far it has come, in words.
    pub(super) fn describe(&self) -> String {
        let step = self.beginning.step();
        let machines = self
            .running
            .values()
            .map(|running| running.machine.poll_timeout());
        format!(
            "life {} begun {} running {:?} step {step:?}",
            self.number,
            self.begun,
            machines.collect::<Vec<_>>()
        )
    }

    pub(super) fn record(&self) -> Option<&RingRecord> {
        self.identity.record.as_ref()
    }

    pub(super) fn votes(&self) -> bool {
        let serving = self.serving.as_ref();
        serving.is_some_and(|serving| serving.replica.votes())
    }

    /// Remembers what a member told of itself.
    pub(super) fn note(&mut self, member: MemberId, news: Remembered) {
        let heard = self.heard.entry(member).or_default();
        *heard = heard.max(news);
    }
}

/// Who asked.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Asker {
    pub(super) host: usize,
    pub(super) life: u64,
    pub(super) machine: u64,
    /// When.
    pub(super) asked: Instant,
}

struct Running {
    machine: Box<dyn Machine<Outcome = Ended>>,
    whom: For,
    finished: bool,
    /// When it is woken next.
    woken: Option<Instant>,
}

/// For whom a machine runs.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum For {
    /// A client's try that was called at that moment.
    Client { client: usize, called: u64 },
    /// The ring itself, through this member.
    Ring { host: usize },
}

/// How any machine ends.
#[derive(Debug)]
pub(super) enum Ended {
    Row(Result<Outcome, Failure>),
    Page(Result<Page, Failure>),
    Exchanged(Exchanged),
    Returned(Returned),
    /// Something about leases, which is seen elsewhere.
    Leases,
}

/// A machine whose end is one of [`Ended`].
struct Ending<M: Machine> {
    machine: M,
    end: fn(M::Outcome) -> Ended,
}

impl<M: Machine> Machine for Ending<M> {
    type Outcome = Ended;

    fn handle(&mut self, now: Instant, input: Input) {
        self.machine.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn poll_action(&mut self) -> Option<Action<Ended>> {
        Some(match self.machine.poll_action()? {
            Action::Send { to, request } => Action::Send { to, request },
            Action::Finish(outcome) => Action::Finish((self.end)(outcome)),
        })
    }
}

impl World {
    /// Whether clients can ask a member.
    pub(super) fn serves(&self, host: usize) -> bool {
        let there = &self.hosts[host];
        let serving = there.life.as_ref().and_then(|life| life.serving.as_ref());
        let awake = there.asleep_until.is_none_or(|wakes| wakes <= self.now);
        serving.is_some_and(|serving| serving.replica.votes()) && awake
    }

    pub(super) fn life(&mut self, host: usize, life: u64) -> Option<&mut Life> {
        self.hosts[host]
            .life
            .as_mut()
            .filter(|there| there.number == life)
    }

    fn host_of(&self, id: MemberId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id == Some(id))
    }

    /// Begins a read or a change of a row at a member.
    pub(super) fn begin_row(&mut self, host: usize, key: &RowKey, intent: Intent, whom: For) {
        let (now, seed) = (self.now, self.rng.random());
        let Some((life, serving)) = self.hosts[host]
            .life
            .as_ref()
            .and_then(|life| Some((life, life.serving.as_ref()?)))
        else {
            return;
        };
        let replicas = serving
            .placement
            .preference_list(slice_of_row(key))
            .to_vec();
        let alive = |id: &&MemberId| {
            life.alive
                .iter()
                .any(|other| self.hosts[*other].id == Some(**id))
        };
        let task = Task {
            key: key.clone(),
            intent,
            epoch: serving.replica.epoch(),
            reachable: replicas.iter().filter(alive).count(),
            replicas,
            round: 0,
        };
        let proposer = serving.proposer.clone();
        let machine = Coordinator::new(now, task, proposer, seed);
        self.begin(host, machine, Ended::Row, whom);
    }

    /// Begins to list a page of a partition at a member.
    pub(super) fn begin_page(&mut self, host: usize, call: ReplicaCall, whom: For) {
        let now = self.now;
        let Some(serving) = self.hosts[host]
            .life
            .as_ref()
            .and_then(|life| life.serving.as_ref())
        else {
            return;
        };
        let ReplicaCall::List { partition, .. } = &call else {
            return;
        };
        let replicas = serving
            .placement
            .preference_list(slice_of(partition))
            .to_vec();
        // Nobody is known to be dead, so that all are waited for.
        let live = replicas.iter().copied().collect();
        let machine = Paging::new(now, call, serving.replica.epoch(), replicas, live);
        self.begin(host, machine, Ended::Page, whom);
    }

    /// Begins to compare what a member and another one have.
    fn begin_exchange(&mut self, host: usize, with: usize) {
        let now = self.now;
        let serving = self.hosts[host]
            .life
            .as_ref()
            .and_then(|life| life.serving.as_ref());
        let (Some(serving), Some(me), Some(other)) =
            (serving, self.hosts[host].id, self.hosts[with].id)
        else {
            return;
        };
        let machine = Exchange::new(now, me, other, serving.replica.epoch());
        self.begin(host, machine, Ended::Exchanged, For::Ring { host });
    }

    /// Repairs the rows that were found to differ.
    fn exchanged(&mut self, host: usize, found: &Exchanged) {
        for key in &found.rows {
            let of = found.pair.to_vec();
            self.begin_row(host, key, Intent::Repair { of }, For::Ring { host });
        }
    }

    /// Begins to run a machine at a member.
    pub(super) fn begin<M>(
        &mut self,
        host: usize,
        machine: M,
        end: fn(M::Outcome) -> Ended,
        whom: For,
    ) where
        M: Machine + 'static,
    {
        let Some(life) = &mut self.hosts[host].life else {
            return;
        };
        life.machines += 1;
        let (number, place) = (life.number, life.machines);
        let machine = Box::new(Ending { machine, end });
        let running = Running {
            machine,
            whom,
            finished: false,
            woken: None,
        };
        life.running.insert(place, running);
        self.drive(host, number, place);
    }

    /// Does what a machine wants done, as far as it can be done now.
    fn drive(&mut self, host: usize, number: u64, machine: u64) {
        loop {
            let Some(life) = self.life(host, number) else {
                return;
            };
            let Some(running) = life.running.get_mut(&machine) else {
                return;
            };
            match running.machine.poll_action() {
                Some(Action::Send { to, request }) => {
                    let asker = Asker {
                        host,
                        life: number,
                        machine,
                        asked: self.now,
                    };
                    self.ask(asker, to, request);
                }
                Some(Action::Finish(ended)) => {
                    let whom = running.whom;
                    running.finished = true;
                    self.ended(whom, ended);
                }
                None => return self.rest(host, number, machine),
            }
        }
    }

    /// A machine has nothing to do: it is woken when it wants to be, or is over.
    fn rest(&mut self, host: usize, number: u64, machine: u64) {
        let now = self.now;
        let Some(life) = self.life(host, number) else {
            return;
        };
        let Some(running) = life.running.get_mut(&machine) else {
            return;
        };
        match running.machine.poll_timeout() {
            None if running.finished => _ = life.running.remove(&machine),
            Some(timeout)
                if running
                    .woken
                    .is_none_or(|woken| woken <= now || timeout < woken) =>
            {
                running.woken = Some(timeout);
                let life = number;
                let after = timeout.saturating_duration_since(now);
                self.plan(
                    after,
                    Event::Woken {
                        host,
                        life,
                        machine,
                    },
                );
            }
            Some(_) | None => {}
        }
    }

    fn ended(&mut self, whom: For, ended: Ended) {
        match (whom, ended) {
            (For::Client { client, called }, Ended::Row(result)) => {
                self.told(client, called, Some(result))
            }
            (For::Client { client, called }, Ended::Page(result)) => {
                self.told_page(client, called, result)
            }
            (For::Ring { host }, Ended::Exchanged(exchanged)) => self.exchanged(host, &exchanged),
            (For::Ring { host }, Ended::Returned(returned)) => {
                self.begin_to_vote(host, returned.epoch)
            }
            (For::Ring { .. }, Ended::Row(_) | Ended::Page(_) | Ended::Leases)
            | (For::Client { .. }, _) => {}
        }
    }

    /// Sends a request on its way.
    fn ask(&mut self, asker: Asker, to: MemberId, request: ReplicaRequest) {
        let Some(host) = self.host_of(to) else {
            return;
        };
        if self.proposals.share_a_ballot(&request) {
            self.tally
                .violations
                .push(format!("two proposals share a ballot: {request:?}"));
        }
        let fate = self.network.fate(&mut self.rng, asker.host, host);
        let life = self.hosts[host].lives;
        let is_up = self.hosts[host].life.is_some();
        for after in fate.arrives {
            let request = request.clone();
            if is_up {
                self.plan(
                    after,
                    Event::Asked {
                        host,
                        life,
                        asker,
                        request,
                    },
                );
            } else {
                self.fail(after, asker, host);
            }
        }
        if let Some(after) = fate.failed {
            self.fail(after, asker, host);
        }
    }

    fn fail(&mut self, after: Duration, asker: Asker, from: usize) {
        self.plan(
            after,
            Event::Answered {
                asker,
                from,
                answer: None,
            },
        );
    }

    /// Sends an answer on its way.
    pub(super) fn answer(
        &mut self,
        host: usize,
        asker: Asker,
        request: Option<&ReplicaRequest>,
        answer: &ReplicaAnswer,
    ) {
        if let Some(broken) =
            request.and_then(|request| self.hosts[host].word.says(request, answer))
        {
            self.tally
                .violations
                .push(format!("member {host} {broken}: {request:?}"));
        }
        let (commits, clocks) = (self.hosts[host].told_commits(), self.clocks(host));
        if request.is_some() {
            let there = &mut self.hosts[host];
            there.said = there.said.max(there.disk.commits());
        }
        let fate = self.network.fate(&mut self.rng, host, asker.host);
        for after in fate.arrives {
            let answer = Some(Told {
                answer: answer.clone(),
                commits,
                clocks,
            });
            self.plan(
                after,
                Event::Answered {
                    asker,
                    from: host,
                    answer,
                },
            );
        }
        if let Some(after) = fate.failed {
            self.fail(after, asker, host);
        }
    }

    /// A request arrives.
    pub(super) fn asked(
        &mut self,
        host: usize,
        number: u64,
        asker: Asker,
        request: ReplicaRequest,
    ) {
        if self.life(host, number).is_none() {
            // It was sent to a life that is over.
            let after = self.between(Duration::from_millis(1), Duration::from_millis(50));
            return self.fail(after, asker, host);
        }
        if request.call.is_about_leases() {
            return self.asked_of_leases(host, asker, request);
        }
        let Host { disk, life, .. } = &mut self.hosts[host];
        let Some(life) = life else {
            return;
        };
        let Some(serving) = &life.serving else {
            return self.answer(host, asker, None, &ReplicaAnswer::Unavailable);
        };
        if Replica::writes(serving.replica.epoch(), &request) {
            life.waiting.push_back((asker, request));
            return self.write(host, number);
        }
        match disk.read(|view| serving.replica.read(view, request.clone())) {
            Ok(answer) => self.answer(host, asker, Some(&request), &answer),
            Err(error) => self
                .tally
                .violations
                .push(format!("a replica cannot read: {error}")),
        }
    }

    /// If the writer of a member is idle, it does everything that waits, as one batch.
    fn write(&mut self, host: usize, number: u64) {
        let ids: Vec<Option<MemberId>> = self.hosts.iter().map(|host| host.id).collect();
        let Host { disk, life, .. } = &mut self.hosts[host];
        let Some(life) = life else {
            return;
        };
        let Some(serving) = &mut life.serving else {
            return;
        };
        if life.written.is_some() || life.waiting.is_empty() {
            return;
        }
        let mut written = Vec::new();
        for (asker, request) in life.waiting.drain(..) {
            let Some(from) = ids[asker.host] else {
                continue;
            };
            match disk.write(|tx| serving.replica.write(tx, from, request.clone())) {
                Ok(answer) => written.push((asker, request, answer)),
                Err(error) => self
                    .tally
                    .violations
                    .push(format!("a replica cannot write: {error}")),
            }
        }
        let is_dirty = disk.is_dirty();
        if planted(Fault::AckBeforeSync) {
            for (asker, request, answer) in std::mem::take(&mut written) {
                self.answer(host, asker, Some(&request), &answer);
            }
        }
        if let Some(life) = self.life(host, number) {
            life.written = Some(written);
        }
        let least = Duration::from_micros(5);
        let most = if is_dirty {
            self.hosts[host].disk_delay
        } else {
            least
        };
        let after = self.between(least, most);
        self.plan(after, Event::Synced { host, life: number });
    }

    /// A disk has what was written.
    pub(super) fn synced(&mut self, host: usize, number: u64) {
        if self.life(host, number).is_none() {
            return;
        }
        let is_dirty = self.hosts[host].disk.is_dirty();
        let may_die = is_dirty && !self.is_needed(host);
        let death = self.hosts[host].dies.take_if(|_| may_die);
        match death {
            Some(Death::Before) => {
                self.tally.broke("crash before a sync");
                return self.crash(host);
            }
            Some(Death::Unsaid) => {
                self.tally.broke("crash after a sync");
                self.hosts[host].disk.sync();
                return self.crash(host);
            }
            Some(Death::After) | None => self.hosts[host].disk.sync(),
        }
        let written = self.life(host, number).and_then(|life| life.written.take());
        for (asker, request, answer) in written.unwrap_or_default() {
            self.answer(host, asker, Some(&request), &answer);
        }
        if death.is_some() {
            self.tally.broke("crash after an answer");
            return self.crash(host);
        }
        self.write(host, number);
    }

    /// An answer arrives, or the news that none will.
    pub(super) fn answered(&mut self, asker: Asker, from: usize, answer: Option<Told>) {
        let (now, Some(from)) = (self.now, self.hosts[from].id) else {
            return;
        };
        let Asker {
            host,
            life,
            machine,
            asked,
        } = asker;
        let Some(there) = self.life(host, life) else {
            return;
        };
        if let Some(Told {
            commits, clocks, ..
        }) = answer
        {
            let news = Remembered {
                commits,
                ..Remembered::default()
            };
            there.note(from, news);
            let round_trip = now.duration_since(asked);
            self.hear_clock(host, from, clocks, (round_trip, REPLICA_BATCH_TIMEOUT));
        }
        let Some(running) = self
            .life(host, life)
            .and_then(|life| life.running.get_mut(&machine))
        else {
            return;
        };
        let input = match answer {
            Some(Told { answer, .. }) => Input::Answer { from, answer },
            None => Input::Failed { from },
        };
        running.machine.handle(now, input);
        self.drive(host, life, machine);
    }

    /// A machine is woken.
    pub(super) fn woken(&mut self, host: usize, life: u64, machine: u64) {
        let now = self.now;
        let Some(running) = self
            .life(host, life)
            .and_then(|life| life.running.get_mut(&machine))
        else {
            return;
        };
        running.machine.handle_timeout(now);
        self.drive(host, life, machine);
    }

    /// A member dies without warning. Of what its disk had not synced, the first part may be there.
    pub(super) fn crash(&mut self, host: usize) {
        let kept = self.rng.random_range(0..4);
        self.hosts[host].disk.crash(kept);
        self.hosts[host].asleep_until = None;
        let Some(life) = self.hosts[host].life.take() else {
            return;
        };
        for running in life.running.into_values() {
            if let For::Client { client, called } = running.whom {
                self.told(client, called, None);
            }
        }
        let longest = [20, 500, 6000][self.rng.random_range(0..3)];
        let after = self.between(Duration::from_millis(2), Duration::from_millis(longest));
        self.plan(after, Event::Started { host });
    }

    /// A member looks who can be reached.
    pub(super) fn looked(&mut self, host: usize, number: u64) {
        if self.life(host, number).is_none() {
            return;
        }
        if self.greet(host) {
            // It looks again soon, as it cannot do anything else.
            return self.plan(GREETS, Event::Looked { host, life: number });
        }
        for other in 0..self.hosts.len() {
            let alive = self.hosts[other].life.is_some() && self.network.linked(host, other);
            let noticed = self.rng.random_bool(0.4);
            if let Some(life) = self.life(host, number).filter(|_| noticed || other == host) {
                match alive {
                    true => life.alive.insert(other),
                    false => life.alive.remove(&other),
                };
            }
        }
        self.note(host);
        self.ask_time(host);
        let with = match self.troubles.are_over() {
            // Each with each other in turn, so that what differs is met however often a repair meets another.
            true => {
                (host + self.now.duration_since(self.began).as_secs() as usize) % self.hosts.len()
            }
            false if self.rng.random_bool(0.05) => self.rng.random_range(0..self.hosts.len()),
            false => host,
        };
        let compares = with != host && self.serves(host);
        if compares
            && self
                .life(host, number)
                .is_some_and(|life| life.alive.contains(&with))
        {
            self.begin_exchange(host, with);
            self.begin_lease_exchange(host, with);
        }
        self.plan(LOOKS, Event::Looked { host, life: number });
    }
}

impl World {
    /// A member that votes notes how many commits its disk has, and now and then how many the others' have.
    fn note(&mut self, host: usize) {
        let Host {
            disk, life, noted, ..
        } = &mut self.hosts[host];
        let Some(life) = life else {
            return;
        };
        if let Some(serving) = &life.serving
            && serving.replica.votes()
        {
            *noted = disk.commits();
        }
        let was_dirty = disk.is_dirty();
        let heard = &life.heard;
        let done = disk.write(|tx| remember_others(tx, heard, REMEMBERED_COMMITS_APART));
        if !was_dirty {
            disk.sync();
        }
        if let Err(error) = done {
            let broken = format!("member {host} cannot remember the others: {error}");
            self.tally.violations.push(broken);
        }
    }
}

/// How often a member says hello as long as nobody answered.
const GREETS: Duration = Duration::from_millis(100);
/// How often a member looks who can be reached.
const LOOKS: Duration = Duration::from_secs(1);
