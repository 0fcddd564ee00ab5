//! How members of the world meet: each says hello to the others until it knows what it is, founds the ring with
//! them, joins it again, or returns to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::clocks::Said;
use super::host::{Ended, For, Life, Serving};
use super::monitor::Word;
use super::world::{Event, World};
use crate::dht::sim::{
    Beginning, Placement, Proposer, Remembered, Replica, Return, Step, begin, remember, remembered,
    set_ahead, set_life, set_record, set_returning, set_voting,
};
use crate::identity::key::SigningKey;
use crate::identity::token::{Signed, TrackerCertificate};
use crate::identity::{MemberId, PeerId, RingId, TrackerAddr};
use crate::limits::RING_HELLO_TIMEOUT;
use crate::store::{StoreError, Transaction};
use crate::time::Timestamp;
use crate::wire::ring::{Clocks, Epoch, Hello, Life as LifeOf, RingRecord, Standing, Welcome};

impl World {
    /// A member starts a new life.
    pub(super) fn started(&mut self, host: usize) {
        let founders: Vec<TrackerAddr> = self.hosts.iter().map(|host| host.addr.clone()).collect();
        let newcomer = self.newcomer(host);
        let there = &mut self.hosts[host];
        if there.life.is_some() {
            return;
        }
        there.lives += 1;
        let (number, own, commits) = (there.lives, there.addr.clone(), there.disk.commits());
        let noted = there.noted;
        let begun = there
            .disk
            .write(|tx| begin(tx, RING, newcomer, &own, commits, noted));
        there.disk.sync();
        let Ok(Ok(identity)) = begun else {
            self.tally
                .violations
                .push(format!("member {host} cannot begin: {begun:?}"));
            return;
        };
        there.noted = noted.min(identity.commits);
        let commits = identity.commits;
        let beginning = Beginning::new(&identity, own, founders);
        let (known, returning) = (
            (identity.record.clone(), identity.life),
            beginning.is_returning(),
        );
        let ahead = identity.ahead;
        self.hosts[host].ahead = ahead;
        self.hosts[host].life = Some(Life::new(number, identity, beginning, ahead + commits));
        if let (Some(record), life) = known {
            self.become_member(host, record, life, returning, ahead);
        }
        self.step(host);
        self.plan(
            Duration::from_millis(1),
            Event::Looked { host, life: number },
        );
    }

    /// The id that a member takes if it finds its disk empty: another one each time.
    fn newcomer(&self, host: usize) -> MemberId {
        let mut id = [host as u8 + 1; 16];
        id[8..].copy_from_slice(&self.hosts[host].lives.to_be_bytes());
        MemberId::from_bytes(id)
    }

    /// Says hello to those whom a member has to hear, as long as it does not know what it is.
    /// Returns whether it did.
    pub(super) fn greet(&mut self, host: usize) -> bool {
        let clocks = self.clocks(host).clocks;
        let Some(life) = &self.hosts[host].life else {
            return false;
        };
        if life.begun {
            return false;
        }
        let (number, others, asked) = (life.number, life.beginning.others(), self.now);
        let hello = self.hello(host, life, clocks);
        for addr in others {
            let Some(to) = self.hosts.iter().position(|other| other.addr == addr) else {
                continue;
            };
            let broken = self.hosts[to].life.is_none() || !self.network.linked(host, to);
            if broken
                && self.rng.random_bool(0.3)
                && let Some(life) = &mut self.hosts[host].life
            {
                life.beginning.part(&addr);
            }
            for after in self.network.fate(&mut self.rng, host, to).arrives {
                let hello = Box::new(hello.clone());
                let from = (host, number);
                self.plan(
                    after,
                    Event::Greeted {
                        host: to,
                        from,
                        asked,
                        hello,
                    },
                );
            }
        }
        true
    }

    /// A member is greeted, and welcomes.
    pub(super) fn greeted(
        &mut self,
        host: usize,
        from: (usize, u64),
        asked: Instant,
        hello: Hello,
    ) {
        let Some(life) = &self.hosts[host].life else {
            return;
        };
        let record = life.record().cloned();
        let member = hello.life.member;
        let former = record
            .as_ref()
            .and_then(|record| record.member_at(&hello.addr))
            .map_or(member, |former| former.id);
        let in_memory = life.heard.get(&former).copied().unwrap_or_default();
        let news = Remembered::of(&hello);
        let job = |tx: &mut Transaction<'_>| match former == member {
            true => remember(tx, former, news),
            false => remembered(tx, former),
        };
        let known: Result<Remembered, StoreError> = self.hosts[host].disk.write(job);
        self.hosts[host].disk.sync();
        let known = known.unwrap_or_default();
        let Some(life) = &mut self.hosts[host].life else {
            return;
        };
        life.note(member, news);
        let said = self.clocks(host);
        let Some(life) = &self.hosts[host].life else {
            return;
        };
        let welcome = Welcome {
            hello: self.hello(host, life, said.clocks),
            incarnation: known.incarnation.max(in_memory.incarnation),
            commits: known.commits.max(in_memory.commits),
        };
        for after in self.network.fate(&mut self.rng, host, from.0).arrives {
            let (host, life, welcome) = (from.0, from.1, Box::new(welcome.clone()));
            self.plan(
                after,
                Event::Welcomed {
                    host,
                    life,
                    asked,
                    said,
                    welcome,
                },
            );
        }
    }

    /// A member is welcomed, and goes a step on.
    pub(super) fn welcomed(
        &mut self,
        host: usize,
        number: u64,
        (asked, said): (Instant, Said),
        welcome: Welcome,
    ) {
        let round_trip = self.now.duration_since(asked);
        let Some(life) = self.life(host, number) else {
            return;
        };
        let hello = &welcome.hello;
        let news = Remembered::of(hello);
        let from = hello.life.member;
        life.note(from, news);
        self.hear_clock(host, from, said, (round_trip, RING_HELLO_TIMEOUT));
        let told = self.hosts[host].told_commits();
        let Some(life) = self.life(host, number) else {
            return;
        };
        if !life.begun {
            life.beginning.hear(hello.addr.clone(), welcome, told);
            self.step(host);
        }
    }

    /// Does what follows from whom a member has heard.
    fn step(&mut self, host: usize) {
        let Some(life) = &self.hosts[host].life else {
            return;
        };
        let known = life.identity.life;
        let ahead = self.hosts[host].ahead;
        match life.beginning.step() {
            Step::Wait(_) => {}
            Step::Propose(record) => {
                self.become_member(host, record.clone(), known, false, ahead);
                if let Some(life) = &mut self.hosts[host].life {
                    life.beginning.has_proposed(record);
                }
                self.step(host);
            }
            Step::Join(record, _) => {
                let epoch = record.epoch;
                let mut others = self.hosts.iter().enumerate().filter(|(at, _)| *at != host);
                if others.all(|(_, there)| there.word.is_silent()) {
                    // Whatever it said and has forgotten, it said to itself.
                    self.hosts[host].word = Word::default();
                }
                self.become_member(host, record, known, false, ahead);
                self.begin_to_vote(host, epoch);
            }
            Step::Return {
                record,
                life,
                ahead,
            } => {
                // As in the product: whatever others know of earlier lives, this one is later.
                let incarnation = life.incarnation + u64::from(self.rng.random::<u32>());
                self.become_member(
                    host,
                    record,
                    LifeOf {
                        incarnation,
                        ..life
                    },
                    true,
                    ahead,
                );
                self.tally.broke("return");
                self.begin_return(host);
            }
            // A wipe may leave the founding undecided, as long as nobody has a say.
            Step::TwoRings(_) if self.founded.is_none() => {}
            Step::NotAMember(_) | Step::TwoRings(_) => {
                self.tally
                    .violations
                    .push(format!("member {host} is told that it is none"));
            }
        }
    }

    fn become_member(
        &mut self,
        host: usize,
        record: RingRecord,
        as_life: LifeOf,
        returning: bool,
        ahead: u64,
    ) {
        let placement = placement_of(&record);
        let there = &mut self.hosts[host];
        let opened = there.disk.write(|tx| {
            set_life(tx, RING, as_life)?;
            set_record(tx, &record, returning)?;
            set_returning(tx, returning)?;
            set_ahead(tx, ahead)?;
            let mut replica = Replica::open(tx, as_life.member, placement.clone())?;
            replica.raise_epoch(tx, record.epoch)?;
            Ok(replica)
        });
        there.disk.sync();
        there.ahead = ahead;
        let replica = match opened {
            Ok(replica) => replica,
            Err(error) => {
                self.tally
                    .violations
                    .push(format!("member {host} cannot open its replica: {error}"));
                return;
            }
        };
        there.id = Some(as_life.member);
        let Some(life) = &mut there.life else {
            return;
        };
        let is_member = |id| record.member(id).is_some();
        life.heard.retain(|id, _| is_member(*id));
        life.heard_clocks.retain(is_member);
        life.identity.life = as_life;
        life.identity.record = Some(record);
        life.serving = Some(Serving {
            replica,
            placement,
            proposer: Proposer {
                member: as_life.member,
                incarnation: as_life.incarnation,
                rounds: Arc::default(),
            },
        });
    }

    /// A member has a say from now on, in this epoch or a later one.
    pub(super) fn begin_to_vote(&mut self, host: usize, epoch: Epoch) {
        let record = self.hosts[host]
            .life
            .as_ref()
            .and_then(|life| life.record().cloned());
        if let Some(record) = record {
            let founded = self.founded.get_or_insert_with(|| record.clone());
            if founded.contradicts(&record) {
                let broken = format!("member {host} has a say in a second ring");
                self.tally.violations.push(broken);
            }
        }
        let there = &mut self.hosts[host];
        if !there.word.may_return_in(epoch) {
            let broken =
                format!("member {host} votes in {epoch:?}, in which its former life spoke");
            self.tally.violations.push(broken);
        }
        there.word.is_learnt();
        let owed = std::mem::take(&mut there.word.owed);
        self.look_at_what_is_owed(host, owed);
        let there = &mut self.hosts[host];
        (there.forgetful, there.needs_memory) = (false, false);
        let Some(life) = &mut there.life else {
            return;
        };
        life.begun = true;
        let Some(serving) = &mut life.serving else {
            return;
        };
        let begun = there.disk.write(|tx| {
            serving.replica.raise_epoch(tx, epoch)?;
            set_voting(tx)
        });
        there.disk.sync();
        serving.replica.begin_to_vote();
        if let Err(error) = begun {
            self.tally
                .violations
                .push(format!("member {host} cannot begin to vote: {error}"));
        }
    }

    /// A member learns again what it may have forgotten.
    fn begin_return(&mut self, host: usize) {
        self.hosts[host].word.owed = self.history.acknowledged();
        let (now, seed) = (self.now, self.rng.random());
        let Some(life) = &mut self.hosts[host].life else {
            return;
        };
        life.begun = true;
        let Some(serving) = &life.serving else {
            return;
        };
        let epoch = serving.replica.epoch();
        let machine = Return::new(now, &serving.placement, life.identity.life, epoch, seed);
        self.begin(host, machine, Ended::Returned, For::Ring { host });
    }

    fn hello(&self, host: usize, life: &Life, clocks: Clocks) -> Hello {
        let there = &self.hosts[host];
        let standing = match life.record() {
            None => Standing::Empty,
            Some(record) => Standing::Founded {
                record: record.clone(),
                votes: life.votes(),
            },
        };
        Hello {
            certificate: certificate(),
            life: life.identity.life,
            addr: there.addr.clone(),
            standing,
            commits: there.told_commits(),
            clocks,
        }
    }
}

/// Where the members of a list stand; the same lists come again and again.
fn placement_of(record: &RingRecord) -> Arc<Placement> {
    static KNOWN: Mutex<BTreeMap<BTreeSet<MemberId>, Arc<Placement>>> = Mutex::new(BTreeMap::new());
    let ids: BTreeSet<MemberId> = record.members().iter().map(|member| member.id).collect();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let placed = known
        .entry(ids)
        .or_insert_with_key(|ids| Arc::new(Placement::new(ids)));
    placed.clone()
}

/// What every member shows: nobody looks at it here.
fn certificate() -> Signed<TrackerCertificate> {
    thread_local! {
        static SHOWN: Signed<TrackerCertificate> = {
            let key = SigningKey::from_seed(&[7; 32]);
            let claims = TrackerCertificate::V1 {
                ring: RING,
                member: MemberId::from_bytes([0; 16]),
                peer: PeerId::from_bytes([0; 32]),
                token_key: key.verifying_key(),
                issued: Timestamp::from_millis(0),
            };
            Signed::sign(&claims, &key)
        };
    }
    SHOWN.with(Clone::clone)
}

const RING: RingId = RingId::from_bytes([7; 32]);
