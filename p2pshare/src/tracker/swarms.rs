//! Who is online with what. Each peer announces where it is and what it holds, all of it under one number
//! that only rises; its tracker keeps that while it lasts, and says it in the ring: a lease for each swarm (a
//! file of a group), which ends [`LEASE_LIFE`] after it was said last. Nothing here is durable: a tracker that
//! restarts learns again within one renewal.
//!
//! A number in the ring is that of the announcement, and below it the tracker's own steps since then. So what a
//! peer announces to another tracker counts for more than anything that was said for it here.

pub(super) mod crowd;
mod held;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crowd::Crowd;
use held::{Held, HeldSet};

use crate::{
    content::FileId,
    dht::{DhtNode, Lease, LeaseError, LeaseKey, LeaseNews, LeaseSession},
    identity::{FileName, GroupName, PeerId, SessionId},
    limits::{
        ANNOUNCEMENT_STEP_BITS, ANNOUNCING_PEERS_MAX, CROWD_KEPT, CROWDS_KEPT_BYTES_MAX,
        HOLDERS_SAMPLE_MAX, LEASE_LIFE, LEASE_RENEWAL, SWARMS_CHECKED_PER_RENEWAL, SWARMS_SEEN_MAX,
    },
    time::Timestamp,
    wire::tracker::{
        Announcement, Availability, Holder, Holding, Refusal, SetDigest, SwarmEntry, SwarmPlace,
    },
};

/// The swarms of a ring.
pub(super) struct Swarms {
    dht: DhtNode,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    peers: HashMap<PeerId, Announced>,
    /// When a swarm last had somebody with all of it, for those that were seen lately.
    seen: HashMap<Swarm, Timestamp>,
    /// The large swarms that somebody asked for a moment ago.
    crowds: HashMap<Swarm, (Instant, Arc<Crowd>)>,
}

/// What became of an announcement.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Some of the peer's older entries, which the caller checks and [forgets](Swarms::forget) if they are
    /// not right any more; over several renewals it is all of them.
    pub(super) to_check: Vec<SwarmEntry>,
    pub(super) left_out: LeftOut,
}

/// What there was no room for.
type LeftOut = Vec<(GroupName, FileName)>;

/// What one peer announced to this tracker.
struct Announced {
    session: SessionId,
    number: u64,
    /// What was said of it in the ring.
    said: LeaseSession,
    /// When all of that was last said anew.
    renewed: Instant,
    addrs: Vec<SocketAddr>,
    holds: HeldSet,
    /// Where the next check of old entries goes on.
    checked: Option<SwarmPlace>,
    last: Instant,
}

/// A file of a group.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Swarm {
    group: String,
    id: FileId,
}

impl Swarm {
    fn new(group: &GroupName, id: FileId) -> Self {
        Self {
            group: group.folded(),
            id,
        }
    }

    fn key(&self) -> LeaseKey {
        #[expect(
            clippy::expect_used,
            reason = "a name of 64 bytes and an id of 64 digits are below what a key takes"
        )]
        LeaseKey::new(format!("s/{}/{}", self.group, self.id)).expect("swarms fit into keys")
    }
}

/// What a lease of a swarm says.
#[derive(Debug, Serialize, Deserialize)]
enum Claim {
    V1 {
        addrs: Vec<SocketAddr>,
        holding: Holding,
    },
}

impl Swarms {
    pub(super) fn new(dht: DhtNode) -> Self {
        Self {
            dht,
            state: Mutex::default(),
        }
    }

    /// Takes an announcement whose entries were all found to be right, and renews every lease of the
    /// peer.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many peers announce themselves here.
    pub(super) async fn announce(
        &self,
        peer: PeerId,
        session: SessionId,
        announcement: Announcement,
        now: Timestamp,
    ) -> Result<Taken, Refusal> {
        let (news, taken) = {
            let mut state = self.state();
            state
                .peers
                .retain(|_, announced| announced.last.elapsed() < LEASE_LIFE);
            if state.peers.len() >= ANNOUNCING_PEERS_MAX && !state.peers.contains_key(&peer) {
                return Err(Refusal::Busy);
            }
            let announced = state
                .peers
                .entry(peer)
                .or_insert_with(|| Announced::new(peer, session));
            if announced.session == session && announcement.number <= announced.number {
                return Ok(Taken::default());
            }
            let (news, left_out) = announced.take(peer, session, announcement);
            let whole = announced.whole();
            let to_check = announced.next_to_check();
            state.saw(whole.iter(), now);
            (news, Taken { to_check, left_out })
        };
        self.say(peer, news).await;
        Ok(taken)
    }

    /// The digest of all that is kept of what `peer` announced.
    pub(super) fn digest(&self, peer: PeerId) -> SetDigest {
        let state = self.state();
        let announced = state.peers.get(&peer);
        announced.map_or_else(SetDigest::default, |announced| announced.holds.digest())
    }

    /// Renews what `peer` announced here in this session, and drops what it says that it holds no more; nothing is added.
    /// For a tracker that is cut off: what it renews, a majority has confirmed.
    pub(super) async fn renew(&self, peer: PeerId, session: SessionId, renewal: Announcement) {
        let news = {
            let mut state = self.state();
            let announced = state.peers.get_mut(&peer).filter(|announced| {
                announced.session == session
                    && announced.number < renewal.number
                    && announced.last.elapsed() < LEASE_LIFE
            });
            announced.map(|announced| announced.take(peer, session, renewal).0)
        };
        if let Some(news) = news {
            self.say(peer, news).await;
        }
    }

    /// Says it in the ring, and once more, whole, what some replica cannot take since it lacks what came
    /// before.
    async fn say(&self, peer: PeerId, news: Result<Vec<LeaseNews>, LeaseError>) {
        let mut news = match news {
            Ok(news) => news,
            Err(error) => return tracing::warn!(%peer, %error, "not said in the ring"),
        };
        for is_last in [false, true] {
            let put = self.dht.put_leases(news).await;
            if !put.is_complete() {
                tracing::debug!(%peer, ?put, "some replicas did not take all leases");
            }
            let mut state = self.state();
            let announced = state.peers.get_mut(&peer);
            let again = !is_last && put.lacks_something();
            let lacking = announced.filter(|_| again).and_then(|announced| {
                let all = announced.leases(|_| true);
                announced.said.again(LEASE_LIFE, &put, all)
            });
            match lacking {
                Some(lacking) => news = vec![lacking],
                None => return,
            }
        }
    }

    /// Drops what `peer` announced under that name, unless it is held under another one too.
    pub(super) async fn forget(&self, peer: PeerId, group: &GroupName, name: &FileName) {
        let news = self.state().peers.get_mut(&peer).and_then(|announced| {
            let place = (group.folded(), name.clone());
            let swarm = announced.holds.remove(&place)?.swarm();
            Some(announced.change(0, &HashSet::from([swarm])))
        });
        if let Some(news) = news {
            self.say(peer, news.map(|news| vec![news])).await;
        }
    }

    /// Drops all that `peer` announced.
    pub(super) async fn leave(&self, peer: PeerId) {
        let announced = self.state().peers.remove(&peer);
        if let Some(mut announced) = announced {
            let news = announced.said.whole(0, LEASE_LIFE, []);
            self.say(peer, news.map(|news| vec![news])).await;
        }
    }

    /// Some of those who are online with (part of) a file of so many chunks, `asking` left out, and what all of
    /// them have together. A swarm of so many that they cannot all be named is looked at anew once in
    /// [`CROWD_KEPT`], however many ask.
    pub(super) async fn holders(
        &self,
        asking: PeerId,
        (group, id): (&GroupName, FileId),
        chunks: u32,
    ) -> (Vec<Holder>, Availability) {
        let swarm = Swarm::new(group, id);
        let kept = self.state().crowd(&swarm);
        let crowd = match kept {
            Some(crowd) => crowd,
            None => self.look_at(swarm, chunks).await,
        };
        let sample = crowd.sample(asking, &mut rand::rng());
        (sample, crowd.availability().clone())
    }

    async fn look_at(&self, swarm: Swarm, chunks: u32) -> Arc<Crowd> {
        let leases = self.dht.leases_of(&[swarm.key()]).await;
        let holders = all_holders(leases.into_iter().flatten().collect());
        let is_large = holders.len() > HOLDERS_SAMPLE_MAX;
        let crowd = move || Arc::new(Crowd::new(holders.into_values(), chunks));
        if !is_large {
            return crowd();
        }
        // What many have of a large file takes a while to count.
        let Ok(crowd) = tokio::task::spawn_blocking(crowd).await else {
            return Arc::new(Crowd::new([], chunks));
        };
        self.state().keep(swarm, &crowd);
        crowd
    }

    /// How many are online with the whole of each file.
    pub(super) async fn counts(&self, group: &GroupName, ids: &[FileId]) -> Vec<u32> {
        let keys = ids.iter().map(|id| Swarm::new(group, *id).key());
        let leases = self.dht.leases_of(&keys.collect::<Vec<_>>()).await;
        let count = |leases| {
            let holders = all_holders(leases).into_values();
            let whole = holders.filter(|holder| holder.holding == Holding::Complete);
            u32::try_from(whole.count()).unwrap_or(u32::MAX)
        };
        leases.into_iter().map(count).collect()
    }

    /// When somebody was last online with the whole file, as far as this tracker knows.
    pub(super) fn last_seen(&self, group: &GroupName, id: FileId) -> Option<Timestamp> {
        self.state().seen.get(&Swarm::new(group, id)).copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each peer once, by the session of it that spoke last: another one may be gone, whatever its number.
fn all_holders(mut leases: Vec<Lease>) -> BTreeMap<PeerId, Holder> {
    leases.sort_by_key(|lease| lease.expires_in);
    let holder = |lease: Lease| match postcard::from_bytes(&lease.payload) {
        Ok(Claim::V1 { addrs, holding }) => Some((
            lease.peer,
            Holder {
                peer: lease.peer,
                addrs,
                holding,
            },
        )),
        Err(_) => None,
    };
    leases.into_iter().filter_map(holder).collect()
}

impl Announced {
    fn new(peer: PeerId, session: SessionId) -> Self {
        let now = Instant::now();
        Self {
            session,
            number: 0,
            said: LeaseSession::new(peer, session),
            renewed: now,
            addrs: Vec::new(),
            holds: HeldSet::default(),
            checked: None,
            last: now,
        }
    }

    /// Takes in an announcement, and gives what is to be said in the ring, and what there was no room for.
    fn take(
        &mut self,
        peer: PeerId,
        session: SessionId,
        announcement: Announcement,
    ) -> (Result<Vec<LeaseNews>, LeaseError>, LeftOut) {
        let mut news = Vec::new();
        let is_other_session = self.session != session;
        if is_other_session {
            // Nobody speaks for the former one any more.
            let mut former = std::mem::replace(&mut self.said, LeaseSession::new(peer, session));
            news.push(former.whole(0, LEASE_LIFE, []));
            self.session = session;
        }
        if announcement.anew || is_other_session {
            self.holds = HeldSet::default();
        }
        let whole = announcement.anew || is_other_session || self.addrs != announcement.addrs;
        (self.number, self.last) = (announcement.number, Instant::now());
        self.addrs = announcement.addrs;
        let (touched, left_out) = self.hold(announcement.swarms);
        news.extend(self.news(whole, &touched));
        (news.into_iter().collect(), left_out)
    }

    /// What is to be said in the ring of what has just been announced.
    fn news(
        &mut self,
        whole: bool,
        touched: &HashSet<Swarm>,
    ) -> Vec<Result<LeaseNews, LeaseError>> {
        let number = self.number << ANNOUNCEMENT_STEP_BITS;
        if whole {
            let all = self.leases(|_| true);
            self.renewed = self.last;
            return vec![self.said.whole(number, LEASE_LIFE, all)];
        }
        let mut news = Vec::new();
        if !touched.is_empty() {
            news.push(self.change(number, touched));
        }
        // Whoever has often something new to say says the rest anew too, but not each time.
        if self.last.duration_since(self.renewed) >= LEASE_RENEWAL * 3 / 4 {
            news.push(Ok(self.said.renew(number, LEASE_LIFE)));
            self.renewed = self.last;
        }
        news
    }

    /// Notes what is held, and gives the swarms of which that changes something, and what there is no room for.
    fn hold(&mut self, entries: Vec<SwarmEntry>) -> (HashSet<Swarm>, LeftOut) {
        let (mut touched, mut left_out) = (HashSet::new(), Vec::new());
        for entry in entries {
            let (group, name) = (entry.group.clone(), entry.name.clone());
            let swarm = Swarm::new(&entry.group, entry.id);
            let (before, kept) = self.holds.put(entry);
            touched.extend(before.map(|held| held.swarm()));
            match kept {
                true => drop(touched.insert(swarm)),
                false => left_out.push((group, name)),
            }
        }
        (touched, left_out)
    }

    /// What is to be said of some swarms, as they are now.
    fn change(&mut self, number: u64, swarms: &HashSet<Swarm>) -> Result<LeaseNews, LeaseError> {
        let mut changes: BTreeMap<LeaseKey, Option<Arc<[u8]>>> =
            swarms.iter().map(|swarm| (swarm.key(), None)).collect();
        let held = self.leases(|swarm| swarms.contains(swarm));
        changes.extend(held.into_iter().map(|(key, claim)| (key, Some(claim))));
        self.said.change(number, LEASE_LIFE, changes)
    }

    /// What the leases of the swarms that are `wanted` say.
    fn leases(&self, wanted: impl Fn(&Swarm) -> bool) -> Vec<(LeaseKey, Arc<[u8]>)> {
        let claim = |holding| {
            let addrs = self.addrs.clone();
            let claim = Claim::V1 { addrs, holding };
            Arc::from(postcard::to_allocvec(&claim).unwrap_or_default())
        };
        let complete: Arc<[u8]> = claim(Holding::Complete);
        let lease = |held: &Held| {
            let swarm = held.swarm();
            let claim = match &held.holding {
                Holding::Complete => complete.clone(),
                part => claim(part.clone()),
            };
            wanted(&swarm).then(|| (swarm.key(), claim))
        };
        // Of what is held under several names, the whole of it counts.
        let (whole, parts): (Vec<_>, Vec<_>) =
            (self.holds.iter()).partition(|held| held.holding == Holding::Complete);
        parts.into_iter().chain(whole).filter_map(lease).collect()
    }

    /// The swarms of what it holds whole.
    fn whole(&self) -> Vec<Swarm> {
        let whole = self.holds.iter();
        let whole = whole.filter(|held| held.holding == Holding::Complete);
        whole.map(Held::swarm).collect()
    }

    fn next_to_check(&mut self) -> Vec<SwarmEntry> {
        let from = self.checked.take();
        let (some, last) = self.holds.some_behind(from, SWARMS_CHECKED_PER_RENEWAL);
        self.checked = last;
        some
    }
}

impl State {
    /// What is kept of a large swarm.
    fn crowd(&self, swarm: &Swarm) -> Option<Arc<Crowd>> {
        let (seen, crowd) = self.crowds.get(swarm)?;
        (seen.elapsed() < CROWD_KEPT).then(|| crowd.clone())
    }

    /// Keeps a swarm for a moment, as long as they are not too many.
    fn keep(&mut self, swarm: Swarm, crowd: &Arc<Crowd>) {
        self.crowds
            .retain(|_, (seen, _)| seen.elapsed() < CROWD_KEPT);
        let bytes: usize = self.crowds.values().map(|(_, crowd)| crowd.bytes()).sum();
        if bytes + crowd.bytes() <= CROWDS_KEPT_BYTES_MAX {
            self.crowds.insert(swarm, (Instant::now(), crowd.clone()));
        }
    }

    fn saw<'a>(&mut self, swarms: impl Iterator<Item = &'a Swarm>, now: Timestamp) {
        for swarm in swarms {
            if self.seen.len() >= SWARMS_SEEN_MAX && !self.seen.contains_key(swarm) {
                let half = self.seen.len() / 2;
                let mut times: Vec<Timestamp> = self.seen.values().copied().collect();
                let (_, &mut median, _) = times.select_nth_unstable(half);
                self.seen.retain(|_, seen| *seen > median);
            }
            self.seen.insert(swarm.clone(), now);
        }
    }
}

#[cfg(test)]
mod tests;
