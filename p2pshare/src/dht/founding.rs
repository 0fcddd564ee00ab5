//! Who this member is, which ring it belongs to, and whether it may speak for its rows: founding, joining and
//! coming back.
//!
//! **Invariants.** A folder belongs to one ring for ever. The incarnation is raised, and on disk, before
//! anything of that life is said, so that no ballot of an earlier life is used again. A member that knows that it may
//! have forgotten something has no say before it has learnt it again; one that hears so only once it has a say says no
//! more in that life. **A ring is founded once**, in two steps:
//!
//! 1. An empty founder that has heard from all others that they are empty too *proposes* the list of their ids: it
//!    writes it to disk, says so, and never proposes another. One that hears of a list proposes that one; or if another
//!    id stands at its address it was wiped, or if it hears of two, it belongs to neither.
//! 2. Nobody has a say by a list before every other member has told of that very list, or one has told that it has
//!    a say.
//!
//! **Why there is no second ring, however old a word is.** Let somebody have a say by a list: each member of it had it
//! on disk then, and proposes no other one unless it is wiped. Whoever was wiped hears all others anew before it
//! proposes anything, and they have the list (that not two have lost their disks at once is what everything here is
//! built on). If it was wiped before, when no other had the list yet, then it may have proposed another one; but those
//! who have the first by its old word cannot tell of the second. Then neither list is ever told of by all: nothing is
//! founded, and both sides say that they refuse each other. That a word is dropped with its link, and once another
//! one speaks from its place, makes this rare.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::planted::{Fault, planted};
use super::quorum::majority;
use super::replica::{decode, encode};
use crate::identity::{MemberId, RingId, TrackerAddr};
use crate::limits::RETURNED_COMMITS_AHEAD;
use crate::store::{StoreError, Table, Transaction};
use crate::time::Timestamp;
use crate::wire::ring::{Epoch, Hello, Life, RingMember, RingRecord, Standing, Welcome};

/// Who this tracker is in this life.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) ring: RingId,
    pub(crate) life: Life,
    /// Who is in the ring, once that is known.
    pub(crate) record: Option<RingRecord>,
    /// Whether that list is only proposed, as far as this member knows.
    pub(crate) proposed: bool,
    /// The life before this one, as far as the disk knows; zero if there was none.
    pub(crate) last: u64,
    /// Whether it has to learn again what it may have forgotten: this machine remembers more than the disk, now or in
    /// an earlier life that did not finish to learn.
    pub(crate) returning: bool,
    /// By how much the commits that it tells others of are more than those of its disk.
    pub(crate) ahead: u64,
    /// How many commits the disk had when the last life ended that had a say. Those of lives that had none are no
    /// sign of what it remembers: they would make up for a tail that was lost.
    pub(crate) commits: u64,
    /// The ring's time that an earlier life knew and noted last; zero if none did.
    pub(crate) time: Timestamp,
}

/// The row `node` of the table `meta`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum StoredNode {
    /// The first form.
    V1 {
        ring: RingId,
        member: MemberId,
        /// The life that began last.
        incarnation: u64,
    },
}

/// The row `epoch` of the table `meta`: who is in the ring.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum StoredEpoch {
    /// The first form, of a ring of one.
    V1 { list: u64, members: Vec<MemberId> },
    /// The members with their addresses.
    V2(RingRecord),
}

/// A row `peer/<member>` of the table `meta`: what is remembered of another member.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The last of its lives that said hello.
    pub(crate) incarnation: u64,
    /// The most commits that it told of.
    pub(crate) commits: u64,
    /// How many those were when that last life spoke first: told by earlier ones, whose disk it has.
    pub(crate) before: u64,
}

impl Remembered {
    /// What a hello tells of who says it.
    pub(crate) fn of(hello: &Hello) -> Self {
        Self {
            incarnation: hello.life.incarnation,
            commits: hello.commits,
            before: 0,
        }
    }

    /// Of each the higher, where `news` came later.
    pub(crate) fn max(self, news: Self) -> Self {
        let before = match news.incarnation > self.incarnation {
            true => self.commits,
            false => self.before,
        };
        Self {
            incarnation: self.incarnation.max(news.incarnation),
            commits: self.commits.max(news.commits),
            before: before.max(news.before),
        }
    }
}

/// Begins a life: makes `newcomer` the member of an empty store, or reads who this is and raises the
/// incarnation. The ring that was found, if it is another, is the inner error. `own` is its address, `commits` are
/// those of the disk, and `noted` those that it had in a life that had a say, as this machine itself remembers; zero if it
/// does not.
pub(crate) fn begin(
    tx: &mut Transaction<'_>,
    ring: RingId,
    newcomer: MemberId,
    own: &TrackerAddr,
    commits: u64,
    noted: u64,
) -> Result<Result<Identity, RingId>, StoreError> {
    let (last, life, noted) = match tx.get(Table::Meta, NODE_KEY)? {
        None => {
            let (member, incarnation) = (newcomer, 1);
            let first = Life {
                member,
                incarnation,
            };
            // Whatever was noted was of another disk; whoever has no name is judged by its address.
            (0, first, 0)
        }
        Some(row) => match decode(Table::Meta, &row)? {
            StoredNode::V1 { ring: found, .. } if found != ring => return Ok(Err(found)),
            StoredNode::V1 {
                member,
                incarnation: last,
                ..
            } => {
                // Not just the next number: if the disk loses this life, the one that takes its place is another.
                let incarnation = match planted(Fault::BallotReused) {
                    true => last,
                    false => last.saturating_add(1 + jump(newcomer)),
                };
                let next = Life {
                    member,
                    incarnation,
                };
                (last, next, noted)
            }
        },
    };
    set_life(tx, ring, life)?;
    let record = match tx.get(Table::Meta, EPOCH_KEY)? {
        None => None,
        Some(row) => Some(match decode(Table::Meta, &row)? {
            // Whoever is alone is wherever it was started.
            StoredEpoch::V2(record) if record.members().len() == 1 => {
                alone(record.epoch, &[life.member], own)?
            }
            StoredEpoch::V2(record) => record,
            StoredEpoch::V1 { list, members } => alone(Epoch { list, returns: 0 }, &members, own)?,
        }),
    };
    let proposed = tx.get(Table::Meta, PROPOSED_KEY)?.is_some();
    let ahead = match tx.get(Table::Meta, AHEAD_KEY)? {
        None => 0,
        Some(row) => decode(Table::Meta, &row)?,
    };
    let commits = match tx.get(Table::Meta, SILENT_KEY)? {
        Some(row) if !planted(Fault::SilentLivesCount) => decode(Table::Meta, &row)?,
        _ => {
            tx.put(Table::Meta, SILENT_KEY, encode(&commits))?;
            commits
        }
    };
    let returning = tx.get(Table::Meta, RETURNING_KEY)?.is_some() || noted > commits;
    set_returning(tx, returning)?;
    let time = noted_time(tx)?;
    Ok(Ok(Identity {
        ring,
        life,
        record,
        proposed,
        last,
        returning,
        ahead,
        commits,
        time,
    }))
}

fn alone(epoch: Epoch, members: &[MemberId], own: &TrackerAddr) -> Result<RingRecord, StoreError> {
    let members = members.iter().map(|id| RingMember {
        id: *id,
        addr: own.clone(),
    });
    RingRecord::new(epoch, members.collect()).ok_or(StoreError::Corrupt {
        table: Table::Meta.name(),
        what: "it does not say who is in the ring",
    })
}

/// Remembers who this is.
pub(crate) fn set_life(
    tx: &mut Transaction<'_>,
    ring: RingId,
    life: Life,
) -> Result<(), StoreError> {
    let Life {
        member,
        incarnation,
    } = life;
    let node = StoredNode::V1 {
        ring,
        member,
        incarnation,
    };
    tx.put(Table::Meta, NODE_KEY, encode(&node))
}

/// Remembers who is in the ring. Later returns to it are in the epoch of the replica alone. The first list is only
/// proposed, until the member votes; not that of a ring to which one returns that was wiped.
pub(crate) fn set_record(
    tx: &mut Transaction<'_>,
    record: &RingRecord,
    returning: bool,
) -> Result<(), StoreError> {
    if !returning && tx.get(Table::Meta, EPOCH_KEY)?.is_none() {
        tx.put(Table::Meta, PROPOSED_KEY, [])?;
    }
    let stored = StoredEpoch::V2(record.clone());
    tx.put(Table::Meta, EPOCH_KEY, encode(&stored))
}

/// Remembers that this member may lack something that it said, until it has learnt it again.
pub(crate) fn set_returning(tx: &mut Transaction<'_>, returning: bool) -> Result<(), StoreError> {
    match returning && !planted(Fault::ReturnNotKept) {
        true => tx.put(Table::Meta, RETURNING_KEY, []),
        false => remove(tx, RETURNING_KEY),
    }
}

/// Remembers that this life has a say.
pub(crate) fn set_voting(tx: &mut Transaction<'_>) -> Result<(), StoreError> {
    set_returning(tx, false)?;
    remove(tx, PROPOSED_KEY)?;
    remove(tx, SILENT_KEY)
}

fn remove(tx: &mut Transaction<'_>, key: &[u8]) -> Result<(), StoreError> {
    match tx.get(Table::Meta, key)? {
        Some(_) => tx.remove(Table::Meta, key),
        None => Ok(()),
    }
}

/// Remembers by how much the commits that this member tells of are more than those of its disk.
pub(crate) fn set_ahead(tx: &mut Transaction<'_>, ahead: u64) -> Result<(), StoreError> {
    tx.put(Table::Meta, AHEAD_KEY, encode(&ahead))
}

/// Remembers the ring's time, once it is at least `apart` later than what is known of it.
pub(crate) fn note_time(
    tx: &mut Transaction<'_>,
    time: Timestamp,
    apart: Duration,
) -> Result<(), StoreError> {
    match time >= noted_time(tx)?.saturating_add(apart) {
        true => tx.put(Table::Meta, TIME_KEY, encode(&time)),
        false => Ok(()),
    }
}

fn noted_time(tx: &Transaction<'_>) -> Result<Timestamp, StoreError> {
    let row = tx.get(Table::Meta, TIME_KEY)?;
    row.map_or(Ok(Timestamp::default()), |row| decode(Table::Meta, &row))
}

/// What is remembered of a member.
pub(crate) fn remembered(tx: &Transaction<'_>, member: MemberId) -> Result<Remembered, StoreError> {
    match tx.get(Table::Meta, &peer_key(member))? {
        None => Ok(Remembered::default()),
        Some(row) => decode(Table::Meta, &row),
    }
}

/// Remembers of a member what is higher than what was known, and returns what was.
pub(crate) fn remember(
    tx: &mut Transaction<'_>,
    member: MemberId,
    news: Remembered,
) -> Result<Remembered, StoreError> {
    let before = remembered(tx, member)?;
    let now = before.max(news);
    if now != before {
        tx.put(Table::Meta, peer_key(member), encode(&now))?;
    }
    Ok(before)
}

/// Remembers what others told of themselves, of those of whom that are at least `apart` commits more than are known.
pub(crate) fn remember_others(
    tx: &mut Transaction<'_>,
    heard: &BTreeMap<MemberId, Remembered>,
    apart: u64,
) -> Result<(), StoreError> {
    for (member, news) in heard {
        let known = remembered(tx, *member)?;
        if news.commits.saturating_sub(known.commits) >= apart {
            remember(tx, *member, *news)?;
        }
    }
    Ok(())
}

/// By how much more than one a life's number is above the one before: random, as the id is.
fn jump(newcomer: MemberId) -> u64 {
    let [.., high, low] = *newcomer.as_bytes();
    u64::from(u16::from_be_bytes([high, low]))
}

/// What a member has heard from others since its life began, and what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    me: RingMember,
    incarnation: u64,
    /// The life before this one.
    last: u64,
    founders: Vec<TrackerAddr>,
    /// As on disk.
    record: Option<RingRecord>,
    /// Whether the record is only proposed.
    proposed: bool,
    /// Whether anybody remembers more than the disk does.
    forgot: bool,
    commits: u64,
    heard: BTreeMap<TrackerAddr, Welcome>,
    /// The most that anybody remembers of it.
    remembered: Remembered,
}

/// What a member does next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Wait for these to speak.
    Wait(Vec<TrackerAddr>),
    /// Have this list on disk, and tell the others.
    Propose(RingRecord),
    /// Remember this list of members, in which it has its place, and vote; these have not spoken.
    Join(RingRecord, Vec<TrackerAddr>),
    /// It may have forgotten what it said: be this member of this list in this life or a later one, and
    /// learn it again before voting.
    Return {
        record: RingRecord,
        life: Life,
        /// By how much the commits that it tells of are more than those of its disk from now on: more than
        /// anybody remembers, or whoever remembers its former disk would take it for forgetful at every start.
        ahead: u64,
    },
    /// Nothing: the ring has been founded, and without it.
    NotAMember(RingRecord),
    /// Nothing: these are of two rings that were founded with one key, and nobody can tell which is the right one.
    TwoRings(Vec<TrackerAddr>),
}

impl Beginning {
    /// Of a member that lives at `own` and whose disk knew `identity`.
    pub(crate) fn new(identity: &Identity, own: TrackerAddr, founders: Vec<TrackerAddr>) -> Self {
        Self {
            me: RingMember {
                id: identity.life.member,
                addr: own,
            },
            incarnation: identity.life.incarnation,
            last: identity.last,
            founders,
            record: identity.record.clone(),
            proposed: identity.proposed,
            forgot: identity.returning,
            commits: identity.ahead.saturating_add(identity.commits),
            heard: BTreeMap::new(),
            remembered: Remembered::default(),
        }
    }

    /// Whether it may lack something that it said in an earlier life.
    pub(crate) fn is_returning(&self) -> bool {
        self.forgot
    }

    /// Whom it has to hear: the members, or while there are none the founders; never itself.
    pub(crate) fn others(&self) -> Vec<TrackerAddr> {
        let others = |record: &RingRecord| {
            let others = record.members().iter().filter(|m| m.id != self.me.id);
            others.map(|member| member.addr.clone()).collect()
        };
        match &self.record {
            Some(record) => others(record),
            None => {
                let founders = self.founders.iter().cloned();
                founders.filter(|addr| *addr != self.me.addr).collect()
            }
        }
    }

    /// The list that it was to propose is on disk. Whoever has told of another one meanwhile has no word.
    pub(crate) fn has_proposed(&mut self, record: RingRecord) {
        self.record = Some(record);
        self.proposed = true;
        let mut heard = std::mem::take(&mut self.heard);
        heard.retain(|_, welcome| self.counts(welcome));
        self.heard = heard;
    }

    /// Whether what somebody tells can be of the ring that this member knows of.
    fn counts(&self, welcome: &Welcome) -> bool {
        let Standing::Founded { record, .. } = &welcome.hello.standing else {
            return true;
        };
        let own = self.record.as_ref();
        let known = own.map_or(Epoch::FOUNDING, |own| own.epoch);
        !record.epoch.is_absurd(known) && !own.is_some_and(|own| own.contradicts(record))
    }

    /// Hears what the tracker at an address says; the last word counts, but what it remembers of this member is not
    /// unsaid. `told` is the most commits that this life has told of. One of another ring has no word, nor one in an
    /// epoch to which no ring can have come.
    pub(crate) fn hear(&mut self, addr: TrackerAddr, welcome: Welcome, told: u64) {
        if !self.counts(&welcome) {
            return;
        }
        self.forgot |= self.is_outdone_by(&welcome, told);
        self.remembered = self.remembered.max(Remembered {
            incarnation: welcome.incarnation,
            commits: welcome.commits,
            before: 0,
        });
        self.heard.insert(addr, welcome);
    }

    /// Somebody spoke from an address: that another one there was empty counts no longer.
    pub(crate) fn meet(&mut self, addr: &TrackerAddr, member: MemberId) {
        if let Some(word) = self.heard.get(addr)
            && word.hello.life.member != member
        {
            self.part(addr);
        }
    }

    /// The link to an address broke: that somebody there was empty counts no longer.
    pub(crate) fn part(&mut self, addr: &TrackerAddr) {
        if let Some(word) = self.heard.get(addr)
            && word.hello.standing == Standing::Empty
        {
            self.heard.remove(addr);
        }
    }

    /// What to do now.
    pub(crate) fn step(&self) -> Step {
        match &self.record {
            Some(record) => self.step_of_member(record),
            None => self.step_of_newcomer(),
        }
    }

    fn step_of_member(&self, record: &RingRecord) -> Step {
        let newest = self.newest().unwrap_or_else(|| record.clone());
        if self.has_forgotten() {
            return self.step_back(newest, self.me.id);
        }
        let untold = self.untold(&newest);
        match untold.is_empty() {
            true => self.step_in(newest),
            false => Step::Wait(untold),
        }
    }

    /// Who has to tell of the list before anybody may have a say by it, as far as this member knows.
    fn untold(&self, record: &RingRecord) -> Vec<TrackerAddr> {
        let votes = self.heard.values().any(|welcome| welcome.hello.votes());
        if !self.proposed || votes || planted(Fault::StaleFoundingWord) {
            return Vec::new();
        }
        let told: BTreeSet<_> = self.told().map(|(addr, _)| addr).collect();
        let others = record.members().iter().map(|member| &member.addr);
        let untold = others.filter(|addr| **addr != self.me.addr && !told.contains(addr));
        untold.cloned().collect()
    }

    fn step_of_newcomer(&self) -> Step {
        if self.hears_two_rings() {
            return Step::TwoRings(self.told().map(|(addr, _)| addr.clone()).collect());
        }
        if let Some(record) = self.newest() {
            return match (record.member(self.me.id), record.member_at(&self.me.addr)) {
                // It was there when the ring was founded, and never spoke since.
                (Some(_), _) if !self.has_forgotten() => Step::Propose(record),
                (Some(_), _) => self.step_back(record, self.me.id),
                (None, Some(former)) => {
                    let id = former.id;
                    self.step_back(record, id)
                }
                (None, None) => Step::NotAMember(record),
            };
        }
        let others = self.others();
        let missing: Vec<_> = others
            .iter()
            .filter(|addr| !self.heard.contains_key(addr))
            .cloned()
            .collect();
        if !missing.is_empty() && !planted(Fault::FoundingAlone) {
            return Step::Wait(missing);
        }
        let members = others.into_iter().filter_map(|addr| {
            let id = self.heard.get(&addr)?.hello.life.member;
            Some(RingMember { id, addr })
        });
        let members = members.chain([self.me.clone()]).collect();
        match RingRecord::new(Epoch::FOUNDING, members) {
            Some(record) => Step::Propose(record),
            // Two of them have one id: a copied folder. Nobody can be told apart.
            None => Step::Wait(self.others()),
        }
    }

    /// Whether its list was only proposed when it was heard of.
    pub(crate) fn is_proposed(&self) -> bool {
        self.proposed
    }

    /// Whether anybody has turned out to remember more than its disk does, and there are others who can tell it.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.forgot && !self.others().is_empty() && !planted(Fault::LostTailIgnored)
    }

    /// Whether somebody remembers more of this member than its disk does: commits, or a life.
    fn is_outdone_by(&self, welcome: &Welcome, told: u64) -> bool {
        // One that has not met this life remembers what earlier ones told.
        let had = match welcome.incarnation < self.incarnation {
            true => self.commits,
            false => told,
        };
        let commits = match planted(Fault::OthersMemoryIgnored) {
            true => 0,
            false => welcome.commits,
        };
        let met = welcome.incarnation;
        commits > had || (met > self.last && met != self.incarnation)
    }

    /// Votes, once so many others have spoken that they are a majority with this one.
    fn step_in(&self, record: RingRecord) -> Step {
        let needed = majority(record.members().len()) - 1;
        let missing = self.missing(&record);
        match missing.len() + needed < record.members().len() {
            true => Step::Join(record, missing),
            false => Step::Wait(missing),
        }
    }

    /// The other members that have not spoken.
    fn missing(&self, record: &RingRecord) -> Vec<TrackerAddr> {
        let is_me = |member: &RingMember| member.id == self.me.id || member.addr == self.me.addr;
        let others = record.members().iter().filter(|member| !is_me(member));
        others
            .filter(|other| !self.heard.contains_key(&other.addr))
            .map(|other| other.addr.clone())
            .collect()
    }

    /// Comes back in a life above all that are known of the member, once so many others have spoken that every
    /// majority has one of them: what they remember of it is all that ever counted.
    fn step_back(&self, record: RingRecord, member: MemberId) -> Step {
        let members = record.members().len();
        let (needed, missing) = (members - majority(members) + 1, self.missing(&record));
        if missing.len() + needed >= members {
            return Step::Wait(missing);
        }
        let ahead = self.remembered.commits.max(self.commits);
        let ahead = ahead.saturating_add(RETURNED_COMMITS_AHEAD);
        // Also above the lives since its last return that its disk lost and nobody has heard of yet, whose words may come
        // late: the drawn parts of their numbers are far less than what each return is ahead of what was told before.
        let known = self.incarnation.max(self.remembered.incarnation);
        let incarnation = known.max(ahead).saturating_add(1);
        Step::Return {
            record,
            life: Life {
                member,
                incarnation,
            },
            ahead,
        }
    }

    /// The newest list of members that was told of.
    fn newest(&self) -> Option<RingRecord> {
        let told = self.told().map(|(_, record)| record);
        let own = self.record.iter();
        told.chain(own).max_by_key(|record| record.epoch).cloned()
    }

    /// Who told of which list of members.
    fn told(&self) -> impl Iterator<Item = (&TrackerAddr, &RingRecord)> {
        let heard = self.heard.iter();
        heard.filter_map(|(addr, welcome)| match &welcome.hello.standing {
            Standing::Founded { record, .. } => Some((addr, record)),
            Standing::Empty => None,
        })
    }

    fn hears_two_rings(&self) -> bool {
        let first = self.told().next();
        first.is_some_and(|(_, first)| self.told().any(|(_, record)| first.contradicts(record)))
    }
}

fn peer_key(member: MemberId) -> Vec<u8> {
    [PEER_PREFIX, member.as_bytes()].concat()
}

const NODE_KEY: &[u8] = b"node";
const EPOCH_KEY: &[u8] = b"epoch";
const RETURNING_KEY: &[u8] = b"returning";
const PROPOSED_KEY: &[u8] = b"proposed";
const AHEAD_KEY: &[u8] = b"ahead";
const SILENT_KEY: &[u8] = b"silent";
const TIME_KEY: &[u8] = b"time";
const PEER_PREFIX: &[u8] = b"peer/";
