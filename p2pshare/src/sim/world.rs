//! A world: members with disks, the network between them, clients, and a clock that jumps from one event to
//! the next.
//!
//! **Invariant.** What happens follows from the seed. Every choice comes from one generator, events that are
//! due at the same moment happen in the order in which they were planned, and no order of a hash map shows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::client::Client;
use super::clocks::{self, Said};
use super::history::History;
use super::host::{Asker, Host};
use super::monitor::Proposals;
use super::network::Network;
use super::tally::Tally;
use super::temper::Temper;
use super::trouble::Troubles;
use crate::dht::sim::encode;
use crate::identity::PeerId;
use crate::time::RingClock;
use crate::wire::ring::{Hello, ReplicaAnswer, ReplicaRequest, RingRecord, Welcome};

/// Everything there is.
pub(super) struct World {
    pub(super) rng: SmallRng,
    pub(super) now: Instant,
    pub(super) began: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    planned: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    pub(super) proposals: Proposals,
    /// Until when what a client said under a number counts at most, by who was told it first hand.
    pub(super) lease_ends: BTreeMap<(PeerId, u64), Instant>,
    pub(super) temper: Temper,
    pub(super) clients: Vec<Client>,
    pub(super) troubles: Troubles,
    pub(super) history: History,
    /// The true time, and how far wrong clocks may have carried the ring's.
    pub(super) carried: RingClock,
    pub(super) tally: Tally,
    /// The list by which somebody had a say first.
    pub(super) founded: Option<RingRecord>,
}

/// What happens at one moment.
#[derive(Debug)]
pub(super) enum Event {
    /// A request reaches a member in the life in which it was sent to it.
    Asked {
        host: usize,
        life: u64,
        asker: Asker,
        request: ReplicaRequest,
    },
    /// An answer, or the news that there is none, reaches who asked.
    Answered {
        asker: Asker,
        from: usize,
        answer: Option<Told>,
    },
    /// A disk has synced what was written.
    Synced { host: usize, life: u64 },
    /// A machine wanted to be woken.
    Woken {
        host: usize,
        life: u64,
        machine: u64,
    },
    /// A member starts.
    Started { host: usize },
    /// A member looks after itself: who can be reached, whom to compare with.
    Looked { host: usize, life: u64 },
    /// A member says hello to another.
    Greeted {
        host: usize,
        /// Who says it, in which life.
        from: (usize, u64),
        asked: Instant,
        hello: Box<Hello>,
    },
    /// A member is answered that it is welcome.
    Welcomed {
        host: usize,
        life: u64,
        asked: Instant,
        said: Said,
        welcome: Box<Welcome>,
    },
    /// A client does its next thing, or hears that its connection broke.
    Client { client: usize },
    /// Something breaks, or is mended.
    Trouble,
}

/// An answer, with what goes with it: how many commits the disk of the one who answers has, and its clock.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) answer: ReplicaAnswer,
    pub(super) commits: u64,
    pub(super) clocks: Said,
}

impl Event {
    /// The host that has to be awake for it.
    fn host(&self) -> Option<usize> {
        match self {
            Self::Asked { host, .. }
            | Self::Synced { host, .. }
            | Self::Woken { host, .. }
            | Self::Greeted { host, .. }
            | Self::Welcomed { host, .. }
            | Self::Looked { host, .. } => Some(*host),
            Self::Answered { asker, .. } => Some(asker.host),
            Self::Started { .. } | Self::Client { .. } | Self::Trouble => None,
        }
    }

    /// What is said in it.
    fn content(&self) -> Vec<u8> {
        match self {
            Self::Asked { request, .. } => encode(request),
            Self::Answered {
                answer: Some(told), ..
            } => encode(&(&told.answer, told.commits, told.clocks.clocks)),
            Self::Greeted { hello, .. } => encode(hello),
            Self::Welcomed { welcome, .. } => encode(welcome),
            _ => Vec::new(),
        }
    }

    fn name(&self) -> u8 {
        match self {
            Self::Asked { .. } => 1,
            Self::Answered { .. } => 2,
            Self::Synced { .. } => 3,
            Self::Woken { .. } => 4,
            Self::Started { .. } => 5,
            Self::Looked { .. } => 6,
            Self::Client { .. } => 7,
            Self::Trouble => 8,
            Self::Greeted { .. } => 9,
            Self::Welcomed { .. } => 10,
        }
    }
}

impl World {
    /// The world of a seed: members that know each other, and clients that are about to begin.
    /// Of a temper, or of any.
    pub(super) fn new(seed: u64, temper: Option<Temper>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let drawn = Temper::DRAWN[rng.random_range(0..Temper::DRAWN.len())];
        let temper = temper.unwrap_or(drawn);
        let began = epoch();
        let members = match temper {
            Temper::Any => [3, 3, 3, 3, 5, 1][rng.random_range(0..6)],
            Temper::Pair => 2,
            _ => 3,
        };
        let troubles = Troubles::new(&mut rng, temper);
        let mut this = Self {
            now: began,
            began,
            events: BTreeMap::new(),
            planned: 0,
            hosts: Host::founders(members),
            network: Network::new(),
            proposals: Proposals::default(),
            lease_ends: BTreeMap::new(),
            temper,
            clients: (0..CLIENTS).map(Client::new).collect(),
            troubles,
            history: History::default(),
            carried: clocks::carried(began),
            tally: Tally::default(),
            founded: None,
            rng,
        };
        for host in 0..members {
            let after = this.between(Duration::ZERO, this.troubles.all_started());
            this.plan(after, Event::Started { host });
        }
        for client in 0..CLIENTS {
            this.plan(Duration::from_millis(500), Event::Client { client });
        }
        this.plan(this.troubles.begin(), Event::Trouble);
        this
    }

    /// Lives through it, and says what came of it.
    pub(super) fn live(mut self) -> Tally {
        let end = self.now + LIVES_MAX;
        self.run(end, |world| world.clients.iter().all(Client::is_done));
        self.heal();
        let end = self.now + QUIET;
        self.run(end, |_| false);
        self.judge();
        self.tally.simulated = self.now.duration_since(self.began);
        self.tally
    }

    /// Lets events happen until `end`, or until `enough`.
    pub(super) fn run(&mut self, end: Instant, enough: impl Fn(&Self) -> bool) {
        while !enough(self)
            && let Some(next) = self.events.first_entry()
            && next.key().0 <= end
        {
            let ((at, _), event) = next.remove_entry();
            self.now = at;
            self.happen(event);
        }
        if !enough(self) {
            self.now = end;
        }
    }

    /// Plans an event.
    pub(super) fn plan(&mut self, after: Duration, event: Event) {
        self.planned += 1;
        self.events.insert((self.now + after, self.planned), event);
    }

    /// A duration between two.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_micros() as u64, most.as_micros() as u64);
        Duration::from_micros(self.rng.random_range(least..=most))
    }

    fn happen(&mut self, event: Event) {
        if let Some(wakes) = event.host().and_then(|host| self.hosts[host].asleep_until)
            && wakes > self.now
        {
            let after = wakes.duration_since(self.now);
            return self.plan(after, event);
        }
        let at = self.now.duration_since(self.began).as_micros() as u64;
        let host = event.host().map_or(u64::MAX, |host| host as u64);
        self.tally.trace(&[at, u64::from(event.name()), host]);
        self.tally.trace_bytes(&event.content());
        match event {
            Event::Asked {
                host,
                life,
                asker,
                request,
            } => self.asked(host, life, asker, request),
            Event::Answered {
                asker,
                from,
                answer,
            } => self.answered(asker, from, answer),
            Event::Synced { host, life } => self.synced(host, life),
            Event::Woken {
                host,
                life,
                machine,
            } => self.woken(host, life, machine),
            Event::Started { host } => self.started(host),
            Event::Looked { host, life } => self.looked(host, life),
            Event::Greeted {
                host,
                from,
                asked,
                hello,
            } => self.greeted(host, from, asked, *hello),
            Event::Welcomed {
                host,
                life,
                asked,
                said,
                welcome,
            } => self.welcomed(host, life, (asked, said), *welcome),
            Event::Client { client } => self.client(client),
            Event::Trouble => self.trouble(),
        }
    }
}

/// The moment at which every world begins: only differences to it are ever used.
fn epoch() -> Instant {
    Instant::now()
}

/// How many clients there are.
pub(super) const CLIENTS: usize = 5;
/// The longest that clients are given.
const LIVES_MAX: Duration = Duration::from_secs(180);
/// How long nothing breaks at the end.
const QUIET: Duration = Duration::from_secs(30);
