//! What a member is in one of its lives, as its links to the others and its own tasks see it: who it is, what
//! its replica has, and what it knows of the others.
//!
//! **Invariant.** Nothing is said in the name of a life before that life is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use super::clock::RingTime;
use super::damage::{Damage, Ward, row_read, spared};
use super::founding::{self, Beginning, Identity, Remembered, Step};
use super::lease::table::LeaseTable;
use super::links::{Host, Refusal, Trouble};
use super::paging::Page;
use super::placement::Placement;
use super::replica::{self, Replica};
use super::seat::Seat;
use crate::identity::key::{SigningKey, VerifyingKey};
use crate::identity::token::{Signed, TrackerCertificate};
use crate::identity::{MemberId, PeerId, RingId, TrackerAddr};
use crate::limits::{FOUNDERS_MAX, TIME_NOTED_APART};
use crate::store::{Store, StoreError, Transaction};
use crate::time::Timestamp;
use crate::wire::ring::{
    Clocks, Epoch, Hello, Life, ReplicaAnswer, ReplicaCall, ReplicaRequest, RingRecord, Standing,
    Welcome,
};

/// By what a member proves that it is one: it signs its own certificate with the ring's key.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    /// Signs certificates of trackers.
    pub(crate) ring: SigningKey,
    /// Whose signatures credentials and grants have.
    pub(crate) tokens: VerifyingKey,
    /// The key of this process's connections.
    pub(crate) peer: PeerId,
}

/// A member in one of its lives.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) ring: RingId,
    pub(super) own: TrackerAddr,
    pub(super) store: Store,
    authority: Authority,
    state: Arc<Mutex<State>>,
    pub(super) replica: Arc<Seat>,
    pub(super) ward: Ward,
    leases: Mutex<LeaseTable>,
    time: Mutex<RingTime>,
    /// How many commits there were to tell of when this life began.
    began_with: u64,
    /// Somebody spoke, or can no longer be heard.
    spoke: Notify,
    failure: watch::Sender<Option<StoreError>>,
    /// How far this machine's clock is off, in milliseconds, for tests.
    skew: i64,
    /// Rises with whatever changes of what [`DhtNode::status`](super::DhtNode::status) tells.
    pub(super) changes: watch::Sender<u64>,
}

/// What changes while it lives.
#[derive(Debug)]
struct State {
    life: Life,
    record: Option<RingRecord>,
    placement: Arc<Placement>,
    /// How this life begins, until it has learnt again whatever it may have forgotten.
    beginning: Option<Beginning>,
    /// What the others told of themselves.
    heard: BTreeMap<MemberId, Remembered>,
    up: BTreeSet<MemberId>,
    /// Members that have said, when they spoke last, that they have no say.
    silent: BTreeSet<MemberId>,
    waiting_for: Vec<TrackerAddr>,
    /// What is wrong at which address.
    troubles: BTreeMap<TrackerAddr, Trouble>,
    /// Who cannot read on its disk what this member has to learn before it has a say.
    unreadable: BTreeSet<MemberId>,
    /// How many rows are known to differ from those of another member.
    behind: BTreeMap<MemberId, u64>,
    /// By how much the commits that it tells of are more than those of its disk.
    ahead: u64,
}

impl Core {
    pub(super) fn new(
        identity: Identity,
        own: TrackerAddr,
        store: Store,
        authority: Authority,
        skew: i64,
        beginning: Beginning,
    ) -> Self {
        let Identity {
            ring,
            life,
            record,
            ahead,
            commits,
            time,
            ..
        } = identity;
        let placement = Arc::new(placement_of(record.as_ref()));
        let replica = Arc::<Seat>::default();
        Self {
            ring,
            own,
            ward: Ward::new(store.clone(), replica.clone()),
            store,
            authority,
            state: Arc::new(Mutex::new(State {
                life,
                record,
                placement,
                beginning: Some(beginning),
                heard: BTreeMap::new(),
                up: BTreeSet::new(),
                silent: BTreeSet::new(),
                waiting_for: Vec::new(),
                troubles: BTreeMap::new(),
                unreadable: BTreeSet::new(),
                behind: BTreeMap::new(),
                ahead,
            })),
            replica,
            leases: Mutex::default(),
            time: Mutex::new(RingTime::after(time)),
            began_with: ahead.saturating_add(commits),
            spoke: Notify::new(),
            failure: watch::Sender::new(None),
            skew,
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn life(&self) -> Life {
        self.state().life
    }

    pub(super) fn record(&self) -> Option<RingRecord> {
        self.state().record.clone()
    }

    pub(super) fn placement(&self) -> Arc<Placement> {
        self.state().placement.clone()
    }

    /// The epoch in which this member asks; [`Epoch::FOUNDING`] as long as it knows none.
    pub(super) fn epoch(&self) -> Epoch {
        let seen = self.replica.seen();
        seen.map_or(Epoch::FOUNDING, |seen| seen.epoch)
    }

    pub(super) fn votes(&self) -> bool {
        self.replica.seen().is_some_and(|seen| seen.votes)
    }

    /// Whether there is a connection to a member that has a say, as far as it has told.
    pub(super) fn is_up(&self, member: MemberId) -> bool {
        let state = self.state();
        state.up.contains(&member) && !state.silent.contains(&member)
    }

    /// What this life has to do before it has a say.
    pub(super) fn step(&self) -> Option<Step> {
        self.state().beginning.as_ref().map(Beginning::step)
    }

    /// Waits until somebody has spoken since the last time.
    pub(super) async fn spoken(&self) {
        self.spoke.notified().await;
    }

    /// Whether it is of a ring that is founded, as far as it knows: whose list is not only proposed.
    pub(super) fn is_founded(&self) -> bool {
        let votes = self.votes();
        let state = self.state();
        let proposed = state.beginning.as_ref().is_some_and(Beginning::is_proposed);
        state.record.is_some() && (votes || !proposed)
    }

    /// The list that it was to propose is on disk.
    pub(super) fn has_proposed(&self, record: RingRecord) {
        if let Some(beginning) = &mut self.state().beginning {
            beginning.has_proposed(record);
        }
    }

    /// It learns again what it may have forgotten, whatever else anybody remembers of its former lives.
    pub(super) fn learns(&self) {
        self.state().beginning = None;
    }

    /// Ends a life that votes although somebody turned out to remember more of this member than its disk does. What it
    /// said since is said; its next life learns before it says more. Returns whether it does.
    async fn end_if_forgotten(&self) -> bool {
        let ends = self.votes() && self.state().has_forgotten();
        if ends {
            self.end(StoreError::Forgotten).await;
        }
        ends
    }

    /// Ends a life that must say no more. It answers nothing from here on, for as long as others reach it.
    async fn end(&self, why: StoreError) {
        let (replica, forgot) = (self.replica.clone(), matches!(why, StoreError::Forgotten));
        let left = self.store.write(move |tx| {
            replica.change(|replica| *replica = None);
            match forgot {
                true => founding::set_returning(tx, true),
                false => Ok(()),
            }
        });
        self.fail(left.await.err().unwrap_or(why));
    }

    pub(super) fn waiting_for(&self) -> Vec<TrackerAddr> {
        self.state().waiting_for.clone()
    }

    pub(super) fn set_waiting_for(&self, waiting_for: Vec<TrackerAddr>) {
        let mut state = self.state();
        if state.waiting_for != waiting_for {
            state.waiting_for = waiting_for;
            drop(state);
            self.changed();
        }
    }

    /// The same, of members.
    pub(super) fn set_waiting_for_members(&self, members: &[MemberId]) {
        let record = self.record();
        let addrs = record.iter().flat_map(RingRecord::members);
        let addrs = addrs.filter(|member| members.contains(&member.id));
        self.set_waiting_for(addrs.map(|member| member.addr.clone()).collect());
    }

    /// Who cannot read on its disk what this member has to learn.
    pub(super) fn set_unreadable(&self, members: BTreeSet<MemberId>) {
        let mut state = self.state();
        if state.unreadable != members {
            if !members.is_empty() {
                tracing::error!(
                    ?members,
                    "this tracker waits for what another one cannot read on its disk"
                );
            }
            state.unreadable = members;
            drop(state);
            self.changed();
        }
    }

    /// A page of what is on this member's disk, while it does not vote and nobody else answers; then it is better
    /// than nothing. Not if there is nothing.
    pub(super) async fn own_page(&self, call: ReplicaCall) -> Result<Option<Page>, StoreError> {
        if self.votes() || self.rows() == 0 {
            return Ok(None);
        }
        let page = self.store.view(move |view| replica::own_page(view, call));
        Ok(Page::stale(page.await?))
    }

    /// How many rows its replica has.
    pub(super) fn rows(&self) -> u64 {
        self.replica.seen().map_or(0, |seen| seen.rows)
    }

    /// How many rows are known to differ from those of the member with whom most do.
    pub(super) fn behind(&self) -> u64 {
        self.state().behind.values().copied().max().unwrap_or(0)
    }

    /// So many rows differ from those of this member.
    pub(super) fn set_behind(&self, with: MemberId, behind: u64) {
        let before = self.state().behind.insert(with, behind);
        if before.unwrap_or(0) != behind {
            self.changed();
        }
    }

    /// Becomes a member of this list in this life, on disk and then in memory, with a replica that does not
    /// vote yet. `returning` is remembered until it does; `ahead` is as in [`Identity`].
    pub(super) async fn become_member(
        &self,
        record: RingRecord,
        life: Life,
        returning: bool,
        ahead: u64,
    ) -> Result<(), StoreError> {
        let (ring, stored, replica) = (self.ring, record.clone(), self.replica.clone());
        let placement = Arc::new(placement_of(Some(&record)));
        let placed = placement.clone();
        let opened = self.store.write(move |tx| {
            founding::set_life(tx, ring, life)?;
            founding::set_record(tx, &stored, returning)?;
            founding::set_returning(tx, returning)?;
            founding::set_ahead(tx, ahead)?;
            let mut opened = Replica::open(tx, life.member, placed)?;
            opened.raise_epoch(tx, stored.epoch)?;
            Ok(opened)
        });
        let opened = opened.await?;
        // In a job, as it waits for those that look at the replica of the life before.
        let seated = self.store.view(move |_| {
            replica.change(|replica| *replica = Some(opened));
            Ok(())
        });
        seated.await?;
        let mut state = self.state();
        (state.life, state.record, state.placement) = (life, Some(record), placement);
        state.ahead = ahead;
        let members = state.record.clone();
        let is_member = |id| {
            members
                .as_ref()
                .is_some_and(|record| record.member(id).is_some())
        };
        state.heard.retain(|id, _| is_member(*id));
        state.silent.retain(|id| is_member(*id));
        state.behind.retain(|id, _| is_member(*id));
        drop(state);
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.retain(is_member);
        drop(time);
        self.changed();
        Ok(())
    }

    /// Has a say from now on, in this epoch or a later one, unless it has heard by now that it forgot something.
    /// Returns whether it has.
    pub(super) async fn begin_to_vote(&self, epoch: Epoch) -> Result<bool, StoreError> {
        let replica = self.replica.clone();
        let written = replica.clone();
        let begun = self.store.write(move |tx| {
            founding::set_voting(tx)?;
            let raise = |replica: &mut Replica| replica.raise_epoch(tx, epoch);
            written.change(|replica| replica.as_mut().map_or(Ok(()), raise))
        });
        begun.await?;
        // Nobody sees it before it is on disk.
        let state = self.state.clone();
        let seen = self.store.view(move |_| {
            // Whoever hears it later than this sees that it votes, and ends it.
            let (votes, _state) = replica.change(|replica| {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let replica = replica.as_mut().filter(|_| !state.has_forgotten());
                (replica.map(Replica::begin_to_vote).is_some(), state)
            });
            Ok(votes)
        });
        let votes = seen.await?;
        self.changed();
        Ok(votes)
    }

    /// By how much the commits that it tells of are more than those of its disk.
    pub(super) fn ahead(&self) -> u64 {
        self.state().ahead
    }

    /// How many commits it tells others that its disk has. Until it votes these are those before this life: it is
    /// not to take for a lost tail what others heard from it since.
    fn told_commits(&self) -> u64 {
        match self.votes() {
            true => self.ahead().saturating_add(self.store.commits()),
            false => self.began_with,
        }
    }

    /// What this machine's clock says.
    pub(super) fn own_time(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.unwrap_or_default().as_millis();
        let millis = i64::try_from(millis)
            .unwrap_or(i64::MAX)
            .saturating_add(self.skew);
        Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// The ring's time, once it is known.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let own = self.own_time();
        let members = self
            .state()
            .record
            .as_ref()
            .map(|record| record.members().len());
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.now(own, now(), members.unwrap_or(usize::MAX))
    }

    /// What it knows of the time.
    fn clocks(&self) -> Clocks {
        Clocks {
            own: self.own_time(),
            ring: self.time(),
        }
    }

    /// Remembers on disk what others told of themselves, where that is at least `apart` commits more than is there,
    /// and the ring's time, where that is so much later.
    pub(super) async fn note_others_and_time(&self, apart: u64) -> Result<(), StoreError> {
        let heard = self.state().heard.clone();
        let time = self.time();
        let job = move |tx: &mut Transaction<'_>| {
            founding::remember_others(tx, &heard, apart)?;
            time.map_or(Ok(()), |time| {
                founding::note_time(tx, time, TIME_NOTED_APART)
            })
        };
        self.store.write(job).await
    }

    /// Notes what a member told of itself; of others that hold the ring's key nothing, once there is a list.
    fn note(&self, member: MemberId, news: Remembered) {
        let mut state = self.state();
        if !state.may_be_member(member) {
            return;
        }
        let heard = state.heard.entry(member).or_default();
        *heard = heard.max(news);
    }

    /// Notes whether a member has a say.
    fn hear_vote(&self, member: MemberId, votes: bool) {
        let mut state = self.state();
        let changed = match votes {
            true => state.silent.remove(&member),
            false => state.may_be_member(member) && state.silent.insert(member),
        };
        drop(state);
        if changed {
            self.changed();
        }
    }

    /// Waits until this life can no longer keep its promises.
    pub(super) async fn failed(&self) -> StoreError {
        let mut failure = self.failure.subscribe();
        tokio::select! {
            error = self.store.failed() => error,
            Ok(failure) = failure.wait_for(Option::is_some) => {
                failure.clone().unwrap_or(StoreError::Closed)
            }
        }
    }

    pub(super) fn fail(&self, error: StoreError) {
        if !matches!(error, StoreError::Closed) {
            tracing::error!(%error, "this tracker can no longer be a member of the ring, and ends");
            self.failure.send_replace(Some(error));
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn answer_of_leases(&self, from: MemberId, call: ReplicaCall) -> ReplicaAnswer {
        let (me, placement) = (self.life().member, self.placement());
        let with = match &call {
            ReplicaCall::LeaseVectors { with, .. } => *with,
            _ => from,
        };
        let shared = |slice| {
            let list = placement.preference_list(slice);
            list.contains(&me) && list.contains(&with)
        };
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = leases.handle(now(), call, shared);
        answer.unwrap_or(ReplicaAnswer::Unavailable)
    }

    async fn answer_of_rows(
        &self,
        from: MemberId,
        requests: Vec<ReplicaRequest>,
    ) -> Vec<ReplicaAnswer> {
        let count = requests.len();
        let Some(seen) = self.replica.seen() else {
            return vec![ReplicaAnswer::Unavailable; count];
        };
        let writes = |request| Replica::writes(seen.epoch, request);
        let writes = requests.iter().any(writes);
        let replica = self.replica.clone();
        let answers = if writes {
            let job = move |tx: &mut Transaction<'_>| {
                replica.change(|replica| {
                    let answer = |request: ReplicaRequest| match replica.as_mut() {
                        Some(replica) => {
                            let row = row_read(&request.call);
                            let answer = replica.write(tx, from, request);
                            spared(replica, row, answer)
                        }
                        None => Ok((ReplicaAnswer::Unavailable, None)),
                    };
                    let answers: Result<Vec<_>, StoreError> =
                        requests.into_iter().map(answer).collect();
                    if answers.is_err() {
                        // What it has in memory is ahead of the disk now.
                        *replica = None;
                    }
                    answers
                })
            };
            self.store.write(job).await
        } else {
            let job = move |view: &Transaction<'_>| {
                // Each by itself, so that whoever writes need not wait for all of them.
                let answer = |request: ReplicaRequest| {
                    replica.look(|replica| match replica {
                        Some(replica) => {
                            let row = row_read(&request.call);
                            spared(replica, row, replica.read(view, request))
                        }
                        None => Ok((ReplicaAnswer::Unavailable, None)),
                    })
                };
                requests.into_iter().map(answer).collect()
            };
            self.store.view(job).await
        };
        let answers: Vec<(_, Option<Damage>)> = match answers {
            Ok(answers) => answers,
            Err(error) => {
                // What the replica has in memory may be ahead of the disk now.
                self.fail(error);
                return vec![ReplicaAnswer::Unavailable; count];
            }
        };
        let (answers, damage): (_, Vec<Option<Damage>>) = answers.into_iter().unzip();
        let damage: Vec<_> = damage.into_iter().flatten().collect();
        if !damage.is_empty() {
            self.ward.note(damage);
        }
        answers
    }

    /// What is wrong at the address of a member: somebody is there, and is not taken for it, or refuses this one, or
    /// cannot tell it what it has to learn.
    pub(super) fn refusal_at(&self, addr: &TrackerAddr) -> Option<String> {
        let state = self.state();
        let member = state.record.as_ref()?.member_at(addr)?;
        if state.unreadable.contains(&member.id) {
            return Some(
                "a part of its disk cannot be read, which this tracker has to learn".into(),
            );
        }
        let trouble = state.troubles.get(addr)?;
        let refused = !matches!(trouble, Trouble::Unreachable { .. });
        refused.then(|| trouble.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for Core {
    fn hello(&self) -> Hello {
        let Authority { ring, tokens, peer } = &self.authority;
        let (votes, commits, epoch) = (self.votes(), self.told_commits(), self.epoch());
        let clocks = self.clocks();
        let state = self.state();
        let certificate = TrackerCertificate::V1 {
            ring: self.ring,
            member: state.life.member,
            peer: *peer,
            token_key: *tokens,
            issued: self.own_time(),
        };
        let standing = match state.record.clone() {
            None => Standing::Empty,
            Some(mut record) => {
                record.epoch = record.epoch.max(epoch);
                Standing::Founded { record, votes }
            }
        };
        Hello {
            certificate: Signed::sign(&certificate, ring),
            life: state.life,
            addr: self.own.clone(),
            standing,
            commits,
            clocks,
        }
    }

    async fn welcome(&self, from: SocketAddr, hello: Hello) -> Result<Welcome, Refusal> {
        let life = hello.life;
        if let (Standing::Founded { record, .. }, Some(own)) = (&hello.standing, self.record())
            && own.contradicts(record)
        {
            let (addr, ours, theirs) = (&hello.addr, own.members(), record.members());
            tracing::error!(%addr, %from, ?ours, ?theirs, "a tracker is of another ring that was founded with this key");
            return Err(Refusal::OtherFounding);
        }
        // One that was wiped asks under a new id what is remembered of the member that it was.
        let (former, is_member) = match self.record() {
            Some(record) if record.member(life.member).is_none() => {
                let former = record.member_at(&hello.addr);
                (former.map_or(life.member, |former| former.id), false)
            }
            _ => (life.member, true),
        };
        let in_memory = self.state().heard.get(&former).copied().unwrap_or_default();
        let news = in_memory.max(Remembered::of(&hello));
        let known = self.store.write(move |tx| match is_member {
            true => founding::remember(tx, former, news),
            false => founding::remembered(tx, former),
        });
        let known = known.await.map_err(|_| Refusal::Unavailable)?;
        let known = known.max(in_memory);
        if is_member {
            may_vote(&hello, known)?;
        }
        self.note(life.member, news);
        self.hear_vote(life.member, hello.votes());
        if let Some(beginning) = &mut self.state().beginning {
            beginning.meet(&hello.addr, life.member);
        }
        Ok(Welcome {
            hello: self.hello(),
            incarnation: known.incarnation,
            commits: known.commits,
        })
    }

    async fn welcomed(&self, addr: TrackerAddr, welcome: Welcome) -> Result<(), Refusal> {
        let hello = &welcome.hello;
        let life = hello.life;
        let on_disk = self
            .store
            .view(move |view| founding::remembered(view, life.member));
        let on_disk = on_disk.await.map_err(|_| Refusal::Unavailable)?;
        let in_memory = self.state().heard.get(&life.member).copied();
        may_vote(hello, on_disk.max(in_memory.unwrap_or_default()))?;
        self.note(life.member, Remembered::of(hello));
        self.hear_vote(life.member, hello.votes());
        let told = self.told_commits();
        if let Some(beginning) = &mut self.state().beginning {
            beginning.hear(addr, welcome, told);
        }
        self.spoke.notify_one();
        match self.end_if_forgotten().await {
            true => Err(Refusal::Unavailable),
            false => Ok(()),
        }
    }

    fn parted(&self, addr: &TrackerAddr) {
        if let Some(beginning) = &mut self.state().beginning {
            beginning.part(addr);
        }
        self.spoke.notify_one();
    }

    async fn refused(&self, life: Life, why: Refusal) {
        let why = match why {
            Refusal::Outlived => StoreError::Superseded,
            Refusal::Forgotten => StoreError::Forgotten,
            Refusal::OtherFounding | Refusal::Unavailable => return,
        };
        // A life that has no say yet learns from the answers to its hellos what it has to do.
        if self.votes() && self.life() == life {
            self.end(why).await;
        }
    }

    async fn answer(&self, from: MemberId, requests: Vec<ReplicaRequest>) -> Vec<ReplicaAnswer> {
        if !requests
            .iter()
            .any(|request| request.call.is_about_leases())
        {
            return self.answer_of_rows(from, requests).await;
        }
        let mut answers = Vec::new();
        let (leases, rows): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .enumerate()
            .partition(|(_, request)| request.call.is_about_leases());
        for (at, request) in leases {
            answers.push((at, self.answer_of_leases(from, request.call)));
        }
        if !rows.is_empty() {
            let (places, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let rows = self.answer_of_rows(from, rows).await;
            answers.extend(places.into_iter().zip(rows));
        }
        answers.sort_unstable_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn link_changed(&self, member: MemberId, up: bool) {
        let changed = match up {
            true => self.state().up.insert(member),
            false => self.state().up.remove(&member),
        };
        if changed {
            self.changed();
        }
    }

    fn trouble(&self, addr: &TrackerAddr, trouble: Option<&Trouble>) {
        let mut state = self.state();
        match trouble {
            Some(trouble) => {
                tracing::warn!(%addr, %trouble, "no link to another tracker of the ring");
                state.troubles.insert(addr.clone(), trouble.clone());
            }
            None => {
                state.troubles.remove(addr);
            }
        }
        drop(state);
        self.changed();
    }

    fn clocks_and_commits(&self) -> (Clocks, u64) {
        (self.clocks(), self.told_commits())
    }

    fn heard(&self, from: MemberId, clocks: Clocks, round_trip: Duration, commits: u64) {
        // One that was wiped speaks under another name first, and would count twice.
        if self
            .record()
            .is_some_and(|record| record.member(from).is_none())
        {
            return;
        }
        let news = Remembered {
            commits,
            ..Remembered::default()
        };
        self.note(from, news);
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.hear(from, clocks, round_trip, now());
    }
}

impl State {
    /// Whether somebody turned out to remember more of this member than its disk does, and it did not learn that yet.
    fn has_forgotten(&self) -> bool {
        let beginning = self.beginning.as_ref();
        beginning.is_some_and(Beginning::has_forgotten)
    }

    /// Whether it is a member, or may be one of a ring that is not founded yet.
    fn may_be_member(&self, member: MemberId) -> bool {
        match &self.record {
            Some(record) => record.member(member).is_some(),
            None => self.heard.contains_key(&member) || self.heard.len() < FOUNDERS_MAX,
        }
    }
}

/// Whether a member may have a say of whom so much is known: not in a life that is over, or on a disk that has lost
/// what earlier ones told of. One that has no say yet has to be told what it has lost.
fn may_vote(hello: &Hello, known: Remembered) -> Result<(), Refusal> {
    let before = known.max(Remembered::of(hello)).before;
    match hello.votes() {
        true if hello.life.incarnation < known.incarnation => Err(Refusal::Outlived),
        true if hello.commits < before => Err(Refusal::Forgotten),
        _ => Ok(()),
    }
}

fn placement_of(record: Option<&RingRecord>) -> Placement {
    let members = record.into_iter().flat_map(RingRecord::members);
    Placement::new(&members.map(|member| member.id).collect())
}

/// The monotonic clock of tokio, which tests can pause.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
