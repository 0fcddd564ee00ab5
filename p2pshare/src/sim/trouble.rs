//! What breaks in a world, and when.
//!
//! Each world has troubles of a few kinds, now and then of all, so that some see one alone and some all of
//! them together. Never more than the ring is made to survive: a member forgets what it knew only while
//! all others have their memory.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;

use super::client::Client;
use super::clocks::{WRONG_MAX, WRONG_MIN};
use super::host::Host;
use super::temper::Temper;
use super::world::{Event, World};
use crate::dht::sim::{majority, remembered};
use crate::store::ModelDisk;
use crate::wire::ring::RingRecord;

/// The troubles of one world.
#[derive(Clone, Debug)]
pub(super) struct Troubles {
    kinds: Vec<Kind>,
    /// The longest between two.
    pause: Duration,
    /// Whether they begin before the ring is founded.
    early: bool,
    /// Whether they are over.
    over: bool,
    /// The longest that a client thinks.
    thinking: Duration,
}

/// Something that breaks.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Loss,
    Doubles,
    Late,
    Slow,
    Partition,
    OneWay,
    Bridge,
    Crash,
    CrashAtSync,
    AllCrash,
    SlowDisk,
    Pause,
    Wipe,
    LoseTail,
    Clock,
}

impl Kind {
    const ALL: [Self; 15] = [
        Self::Loss,
        Self::Doubles,
        Self::Late,
        Self::Slow,
        Self::Partition,
        Self::OneWay,
        Self::Bridge,
        Self::Crash,
        Self::CrashAtSync,
        Self::AllCrash,
        Self::SlowDisk,
        Self::Pause,
        Self::Wipe,
        Self::LoseTail,
        Self::Clock,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Doubles => "duplicates",
            Self::Late => "late messages",
            Self::Slow => "slow network",
            Self::Partition => "partition",
            Self::OneWay => "one-way partition",
            Self::Bridge => "bridge partition",
            Self::Crash => "crash",
            Self::CrashAtSync => "crash at a sync",
            Self::AllCrash => "crash of all",
            Self::SlowDisk => "slow disk",
            Self::Pause => "pause",
            Self::Wipe => "wiped disk",
            Self::LoseTail => "lost log tail",
            Self::Clock => "clock jump",
        }
    }
}

/// How a member dies at a sync.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Death {
    /// Before the disk has all of it.
    Before,
    /// When the disk has it and nobody was told.
    Unsaid,
    /// When everybody was told.
    After,
}

impl Troubles {
    /// Those of a new world.
    pub(super) fn new(rng: &mut SmallRng, temper: Temper) -> Self {
        let count = match rng.random_range(0..4) {
            0 => Kind::ALL.len(),
            1 => rng.random_range(0..2),
            _ => rng.random_range(2..6),
        };
        Self {
            kinds: match temper.kinds() {
                Some(kinds) => kinds.to_vec(),
                None => Kind::ALL.sample(rng, count).copied().collect(),
            },
            pause: match temper {
                Temper::Founders => Duration::from_millis(150),
                _ => Duration::from_millis([300, 1000, 4000][rng.random_range(0..3)]),
            },
            early: temper == Temper::Founders || rng.random_bool(0.1),
            over: false,
            thinking: Duration::from_millis([10, 60, 400][rng.random_range(0..3)]),
        }
    }
}

impl Troubles {
    /// When they begin.
    pub(super) fn begin(&self) -> Duration {
        match self.early {
            true => Duration::ZERO,
            false => Duration::from_secs(1),
        }
    }

    /// When all members have started.
    pub(super) fn all_started(&self) -> Duration {
        match self.early {
            true => Duration::from_secs(1),
            false => Duration::ZERO,
        }
    }

    /// The longest that a client thinks.
    pub(super) fn thinking(&self) -> Duration {
        self.thinking
    }

    /// Whether nothing breaks any more.
    pub(super) fn are_over(&self) -> bool {
        self.over
    }
}

impl World {
    /// Something breaks, or all that can be mended is.
    pub(super) fn trouble(&mut self) {
        if self.troubles.over {
            return;
        }
        if self.rng.random_bool(0.3) {
            self.network.heal();
            for host in &mut self.hosts {
                host.disk_delay = DISK_DELAY;
            }
        } else if let Some(kind) = self.troubles.kinds.choose(&mut self.rng).copied() {
            let host = self.rng.random_range(0..self.hosts.len());
            if self.breaks(kind, host) {
                self.tally.broke(kind.name());
            }
        }
        let after = self.between(Duration::from_millis(50), self.troubles.pause);
        self.plan(after, Event::Trouble);
    }

    /// Lets one thing break. Returns whether it could.
    fn breaks(&mut self, kind: Kind, host: usize) -> bool {
        match kind {
            Kind::Loss => self.network.lost = self.rng.random_range(10..300),
            Kind::Doubles => self.network.doubled = self.rng.random_range(10..300),
            Kind::Late => self.network.late = self.rng.random_range(10..300),
            Kind::Slow => {
                self.network.delay = Duration::from_millis(self.rng.random_range(20..600))
            }
            Kind::Partition | Kind::OneWay | Kind::Bridge => return self.divide(kind, host),
            Kind::Crash => {
                if self.hosts[host].life.is_none() || self.is_needed(host) {
                    return false;
                }
                self.crash(host);
            }
            Kind::AllCrash
                if self.rng.random_bool(0.8) || self.hosts.iter().any(|host| host.needs_memory) =>
            {
                return false;
            }
            Kind::AllCrash => {
                for host in 0..self.hosts.len() {
                    self.crash(host);
                }
            }
            Kind::CrashAtSync => {
                let deaths = [Death::Before, Death::Unsaid, Death::After];
                self.hosts[host].dies = deaths.choose(&mut self.rng).copied();
            }
            Kind::SlowDisk => {
                self.hosts[host].disk_delay = Duration::from_millis(self.rng.random_range(20..900))
            }
            Kind::Pause => {
                let pause = self.between(Duration::from_millis(100), Duration::from_secs(20));
                self.hosts[host].asleep_until = Some(self.now + pause);
            }
            Kind::Wipe | Kind::LoseTail => return self.forget(kind, host),
            Kind::Clock => {
                let wrong = self.rng.random_range(WRONG_MIN..=WRONG_MAX);
                let jumps = [0, 0, wrong, -wrong];
                self.hosts[host].clock_ahead = jumps[self.rng.random_range(0..4)];
            }
        }
        true
    }

    /// Cuts the network: one group from the rest, one direction only, or all but one member in the middle.
    fn divide(&mut self, kind: Kind, host: usize) -> bool {
        let members = self.hosts.len();
        if members == 1 {
            return false;
        }
        self.network.join();
        let side: Vec<bool> = match kind {
            Kind::Bridge => (0..members).map(|other| other % 2 == 0).collect(),
            _ if members > 3 && self.rng.random() => (0..members)
                .map(|other| other == host || other == (host + 1) % members)
                .collect(),
            _ => (0..members).map(|other| other == host).collect(),
        };
        let inward: bool = self.rng.random();
        for a in 0..members {
            for b in 0..members {
                let spared = kind == Kind::Bridge && (a == host || b == host);
                let wrong_way = kind == Kind::OneWay && side[a] != inward;
                if side[a] != side[b] && !spared && !wrong_way {
                    self.network.cut(a, b);
                }
            }
        }
        true
    }

    /// A member loses its disk, or the newest part of it, unless another one has lost its memory too, or nobody
    /// would know.
    fn forget(&mut self, kind: Kind, host: usize) -> bool {
        if self.hosts.len() < 3 || self.hosts.iter().any(|host| host.forgetful) {
            return false;
        }
        let (mut disk, mut noted) = (self.hosts[host].disk.clone(), self.hosts[host].noted);
        let before = disk.commits();
        match kind {
            Kind::Wipe => disk = ModelDisk::default(),
            _ => _ = disk.lose_tail(self.rng.random_range(1..20)),
        }
        // What is beside the disk was never synced.
        if kind == Kind::Wipe || self.rng.random() {
            noted = 0;
        }
        // What nobody was told of is no loss.
        let forgets = disk.commits() < self.hosts[host].said;
        let is_known = kind == Kind::Wipe || noted > disk.commits();
        let by_memory = forgets && !is_known && !self.know_of(host, disk.commits(), false);
        if by_memory && !self.know_of(host, disk.commits(), true) {
            return false;
        }
        self.crash(host);
        let there = &mut self.hosts[host];
        (there.disk, there.noted, there.needs_memory) = (disk, noted, by_memory);
        there.said = there.said.min(there.disk.commits());
        there.forgetful = there.disk.commits() < before;
        if forgets {
            there.word.forget();
        }
        if forgets && !is_known {
            self.tally.broke("loss that only others know");
        }
        true
    }

    /// Whether so many others know that a member had more than these commits that it hears one of them before it
    /// votes: from their disks, or from their memory too.
    fn know_of(&self, host: usize, commits: u64, by_memory: bool) -> bool {
        let (Some(id), members) = (self.hosts[host].id, self.hosts.len()) else {
            return false;
        };
        let told = self.hosts[host].ahead + commits;
        let knows = |other: &&Host| {
            let on_disk = other.disk.read(|view| remembered(view, id));
            let in_memory = other.life.as_ref().and_then(|life| life.heard.get(&id));
            let in_memory = in_memory.filter(|_| by_memory);
            let most = on_disk.unwrap_or_default().commits;
            most.max(in_memory.map_or(0, |known| known.commits)) > told
        };
        let others = self.hosts.iter().enumerate();
        let others = others.filter(|(other, _)| *other != host);
        let knowing = others.filter(|(_, other)| knows(other)).count();
        knowing > members - majority(members)
    }

    /// Whether a member must not die, since another one has lost something that only the others' memory tells of.
    pub(super) fn is_needed(&self, host: usize) -> bool {
        let mut others = self.hosts.iter().enumerate();
        others.any(|(other, there)| other != host && there.needs_memory)
    }

    /// Mends everything, and lets nothing break any more.
    pub(super) fn heal(&mut self) {
        self.troubles.over = true;
        self.network.heal();
        self.settle_founding();
        for host in &mut self.hosts {
            host.disk_delay = DISK_DELAY;
            host.asleep_until = None;
            host.dies = None;
        }
        self.clients.iter_mut().for_each(Client::begin_no_more);
    }
}

impl World {
    /// Where a wipe has left two lists of founders, the operator wipes whoever has the one by which nobody votes; if
    /// nobody votes at all, nothing was said, and he wipes all.
    fn settle_founding(&mut self) {
        let listed = |there: &Host| there.life.as_ref().and_then(|life| life.record().cloned());
        let lists: Vec<_> = self.hosts.iter().map(listed).collect();
        let right = self
            .founded
            .as_ref()
            .or(lists.iter().flatten().next())
            .cloned();
        let Some(right) = right else {
            return;
        };
        let is_wrong =
            |list: &Option<RingRecord>| list.as_ref().is_some_and(|list| list.contradicts(&right));
        if !lists.iter().any(is_wrong) {
            return;
        }
        self.tally.broke("founding that a wipe undid");
        for (host, list) in lists.iter().enumerate() {
            if self.founded.is_none() || is_wrong(list) {
                self.crash(host);
                self.hosts[host].disk = ModelDisk::default();
                self.hosts[host].noted = 0;
            }
        }
    }
}

/// The longest that a healthy disk takes.
pub(super) const DISK_DELAY: Duration = Duration::from_millis(3);
