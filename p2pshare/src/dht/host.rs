//! What a member is in one of its lives, as its links to the others and its own tasks see it: who it is, what
//! its replica has, and what it knows of the others.
//!
//! **Invariant.** Nothing is said in the name of a life before that life is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};

use super::clock::RingTime;
use super::founding::{self, Identity, Remembered};
use super::hash_tree;
use super::lease::table::LeaseTable;
use super::links::{Host, Refusal, Trouble};
use super::placement::Placement;
use super::replica::Replica;
use crate::identity::key::{SigningKey, VerifyingKey};
use crate::identity::token::{Signed, TrackerCertificate};
use crate::identity::{MemberId, PeerId, RingId, TrackerAddr};
use crate::store::{Store, StoreError, Transaction};
use crate::time::Timestamp;
use crate::wire::ring::{
    Epoch, Hello, Life, ReplicaAnswer, ReplicaCall, ReplicaRequest, RingRecord, Slice, Standing,
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
    state: Mutex<State>,
    replica: Arc<RwLock<Option<Replica>>>,
    leases: Mutex<LeaseTable>,
    time: Mutex<RingTime>,
    /// How many commits there were to tell of when this life began.
    began_with: u64,
    welcomes: mpsc::Sender<(TrackerAddr, Welcome)>,
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
    /// What the others told of themselves.
    heard: BTreeMap<MemberId, Remembered>,
    up: BTreeSet<MemberId>,
    waiting_for: Vec<TrackerAddr>,
    /// What is wrong at which address.
    troubles: BTreeMap<TrackerAddr, String>,
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
        welcomes: mpsc::Sender<(TrackerAddr, Welcome)>,
    ) -> Self {
        let Identity {
            ring,
            life,
            record,
            ahead,
            commits,
            ..
        } = identity;
        let placement = Arc::new(placement_of(record.as_ref()));
        Self {
            ring,
            own,
            store,
            authority,
            state: Mutex::new(State {
                life,
                record,
                placement,
                heard: BTreeMap::new(),
                up: BTreeSet::new(),
                waiting_for: Vec::new(),
                troubles: BTreeMap::new(),
                behind: BTreeMap::new(),
                ahead,
            }),
            replica: Arc::default(),
            leases: Mutex::default(),
            time: Mutex::default(),
            began_with: ahead.saturating_add(commits),
            welcomes,
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
        self.with_replica(Replica::epoch).unwrap_or(Epoch::FOUNDING)
    }

    pub(super) fn votes(&self) -> bool {
        self.with_replica(Replica::votes).unwrap_or(false)
    }

    fn with_replica<R>(&self, f: impl FnOnce(&Replica) -> R) -> Option<R> {
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner);
        replica.as_ref().map(f)
    }

    /// Whether there is a connection to a member.
    pub(super) fn is_up(&self, member: MemberId) -> bool {
        self.state().up.contains(&member)
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

    /// Holds the rows of a slice on disk against the hash tree, and mends that where it is wrong.
    pub(super) async fn scrub(&self, slice: Slice) -> Result<(), StoreError> {
        if self
            .store
            .view(move |view| hash_tree::is_sound(view, slice))
            .await?
        {
            return Ok(());
        }
        let replica = self.replica.clone();
        let mend = move |tx: &mut Transaction<'_>| {
            let mut replica = replica.write().unwrap_or_else(PoisonError::into_inner);
            let mended = replica
                .as_mut()
                .map_or(Ok(0), |replica| replica.scrub(tx, slice));
            if mended.is_err() {
                *replica = None;
            }
            mended
        };
        let mended = self.store.write(mend).await?;
        if mended > 0 {
            tracing::error!(
                ?slice,
                leaves = mended,
                "rows on disk are not what they were"
            );
        }
        Ok(())
    }

    /// How many rows its replica has.
    pub(super) fn rows(&self) -> u64 {
        self.with_replica(Replica::rows).unwrap_or(0)
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
            founding::set_record(tx, &stored)?;
            founding::set_returning(tx, returning)?;
            founding::set_ahead(tx, ahead)?;
            let mut opened = Replica::open(tx, life.member, placed)?;
            opened.raise_epoch(tx, stored.epoch)?;
            Ok(opened)
        });
        let opened = opened.await?;
        *replica.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
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
        state.behind.retain(|id, _| is_member(*id));
        drop(state);
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.retain(is_member);
        drop(time);
        self.changed();
        Ok(())
    }

    /// Has a say from now on, in this epoch or a later one.
    pub(super) async fn begin_to_vote(&self, epoch: Epoch) -> Result<(), StoreError> {
        let replica = self.replica.clone();
        let begun = self.store.write(move |tx| {
            founding::set_voting(tx)?;
            let mut replica = replica.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(replica) = replica.as_mut() {
                replica.raise_epoch(tx, epoch)?;
                replica.begin_to_vote();
            }
            Ok(())
        });
        begun.await?;
        self.changed();
        Ok(())
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

    /// The ring's time.
    pub(super) fn time(&self) -> Timestamp {
        let own = self.own_time();
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.now(own, now())
    }

    /// Remembers on disk what others told of themselves, where that is at least `apart` commits more than is there.
    pub(super) async fn remember_others(&self, apart: u64) -> Result<(), StoreError> {
        let heard = self.state().heard.clone();
        let job = move |tx: &mut Transaction<'_>| founding::remember_others(tx, &heard, apart);
        self.store.write(job).await
    }

    fn note(&self, member: MemberId, news: Remembered) {
        let mut state = self.state();
        let heard = state.heard.entry(member).or_default();
        heard.incarnation = heard.incarnation.max(news.incarnation);
        heard.commits = heard.commits.max(news.commits);
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
            tracing::error!(%error, "a request of the ring could not be answered");
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
        let writes = self
            .with_replica(|replica| requests.iter().any(|request| replica.needs_writer(request)));
        let Some(writes) = writes else {
            return vec![ReplicaAnswer::Unavailable; count];
        };
        let replica = self.replica.clone();
        let answers = if writes {
            let job = move |tx: &mut Transaction<'_>| {
                let mut replica = replica.write().unwrap_or_else(PoisonError::into_inner);
                let answer = |request| match replica.as_mut() {
                    Some(replica) => replica.write(tx, from, request),
                    None => Ok(ReplicaAnswer::Unavailable),
                };
                let answers: Result<Vec<_>, StoreError> =
                    requests.into_iter().map(answer).collect();
                if answers.is_err() {
                    // What it has in memory is ahead of the disk now.
                    *replica = None;
                }
                answers
            };
            self.store.write(job).await
        } else {
            let job = move |view: &crate::store::Transaction<'_>| {
                let replica = replica.read().unwrap_or_else(PoisonError::into_inner);
                let answer = |request| match replica.as_ref() {
                    Some(replica) => replica.read(view, request),
                    None => Ok(ReplicaAnswer::Unavailable),
                };
                requests.into_iter().map(answer).collect()
            };
            self.store.view(job).await
        };
        answers.unwrap_or_else(|error: StoreError| {
            // What the replica has in memory may be ahead of the disk now.
            self.fail(error);
            vec![ReplicaAnswer::Unavailable; count]
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for Core {
    fn hello(&self) -> Hello {
        let Authority { ring, tokens, peer } = &self.authority;
        let (votes, commits) = (self.votes(), self.told_commits());
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
            Some(record) => Standing::Founded { record, votes },
        };
        Hello {
            certificate: Signed::sign(&certificate, ring),
            life: state.life,
            addr: self.own.clone(),
            standing,
            commits,
            clock: self.own_time(),
        }
    }

    async fn welcome(&self, _: SocketAddr, hello: Hello) -> Result<Welcome, Refusal> {
        let life = hello.life;
        let news = Remembered {
            incarnation: life.incarnation,
            commits: hello.commits,
        };
        // One that was wiped asks under a new id what is remembered of the member that it was.
        let former = self
            .record()
            .and_then(|record| record.member_at(&hello.addr).map(|former| former.id))
            .unwrap_or(life.member);
        let in_memory = self.state().heard.get(&former).copied().unwrap_or_default();
        let known = self.store.write(move |tx| match former == life.member {
            true => founding::remember(tx, former, news),
            false => founding::remembered(tx, former),
        });
        let known = known.await.map_err(|_| Refusal::Unavailable)?;
        let known_now = known.incarnation.max(in_memory.incarnation);
        // One that has lost what it knew of its last lives has to be told, and votes not yet.
        let votes = matches!(hello.standing, Standing::Founded { votes: true, .. });
        if former == life.member && votes && life.incarnation < known_now {
            return Err(Refusal::Superseded);
        }
        self.note(life.member, news);
        Ok(Welcome {
            hello: self.hello(),
            incarnation: known.incarnation.max(in_memory.incarnation),
            commits: known.commits.max(in_memory.commits),
        })
    }

    async fn welcomed(&self, addr: TrackerAddr, welcome: Welcome) {
        let hello = &welcome.hello;
        let news = Remembered {
            incarnation: hello.life.incarnation,
            commits: hello.commits,
        };
        self.note(hello.life.member, news);
        // Who no longer listens has begun already, and who listens does nothing else.
        _ = self.welcomes.try_send((addr, welcome));
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
                state.troubles.insert(addr.clone(), trouble.to_string());
            }
            None => {
                state.troubles.remove(addr);
            }
        }
    }

    fn clock_and_commits(&self) -> (Timestamp, u64) {
        (self.own_time(), self.told_commits())
    }

    fn heard(&self, from: MemberId, clock: Timestamp, round_trip: Duration, commits: u64) {
        // One that was wiped speaks under another name first, and would count twice.
        if self
            .record()
            .is_some_and(|record| record.member(from).is_none())
        {
            return;
        }
        let news = Remembered {
            incarnation: 0,
            commits,
        };
        self.note(from, news);
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.hear(from, clock, round_trip, now());
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
