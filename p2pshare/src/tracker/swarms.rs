//! Who is online with what. Each peer announces where it is and what it holds, all of it under one number
//! that only rises; its tracker keeps that while it lasts, and says it in the ring: a lease for each swarm (a
//! file of a group), which ends [`LEASE_LIFE`] after it was said last. Nothing here is durable: a tracker that
//! restarts learns again within one renewal.
//!
//! A number in the ring is that of the announcement, and below it the tracker's own steps since then. So what a
//! peer announces to another tracker counts for more than anything that was said for it here.

pub(super) mod crowd;
mod held;
mod looks;
mod room;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crowd::Crowd;
use held::{Held, HeldSet};
use looks::Looks;
use room::Share;

use crate::{
    content::FileId,
    dht::{DhtNode, Lease, LeaseError, LeaseKey, LeaseNews, LeaseSession},
    identity::{FileName, GroupName, PeerId, SessionId, UserName},
    limits::{
        ANNOUNCED_BYTES_MAX, ANNOUNCEMENT_STEP_BITS, ANNOUNCING_PEERS_MAX, COUNT_READS_MAX,
        CROWD_LIGHT_BYTES_MAX, HOLDERS_SAMPLE_MAX, LEASE_LIFE, LEASE_RENEWAL,
        SWARMS_CHECKED_PER_RENEWAL, SWARMS_SEEN_MAX,
    },
    time::Timestamp,
    wire::tracker::{
        Announcement, Availability, Holder, Holding, Refusal, SetDigest, SwarmEntry, SwarmPlace,
    },
};

/// The swarms of a ring.
pub(super) struct Swarms {
    dht: DhtNode,
    /// Bytes that all announcements together may take.
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    peers: HashMap<PeerId, Announced>,
    /// When a swarm was last seen to get or to lose somebody with all of it, for those that were seen lately.
    seen: HashMap<Swarm, Timestamp>,
    looks: Looks,
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

/// What an announcement changes.
#[derive(Default)]
struct Changed {
    swarms: HashSet<Swarm>,
    /// Of these, those that got or lost somebody with the whole.
    whole: Vec<Swarm>,
    left_out: LeftOut,
}

/// What comes of an announcement.
struct Said {
    /// To be said in the ring.
    news: Result<Vec<LeaseNews>, LeaseError>,
    /// The swarms that got or lost somebody with the whole.
    whole: Vec<Swarm>,
    left_out: LeftOut,
}

/// What one peer announced to this tracker.
struct Announced {
    user: String,
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
    /// The same in the ring's time.
    seen: Timestamp,
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
            most: ANNOUNCED_BYTES_MAX,
            state: Mutex::default(),
        }
    }

    /// Takes an announcement whose entries were all found to be right, and renews every lease of the
    /// peer. Where there is not enough room for all, who has most makes room.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many peers announce themselves here.
    pub(super) async fn announce(
        &self,
        peer: PeerId,
        (user, session): (&UserName, SessionId),
        announcement: Announcement,
        now: Timestamp,
    ) -> Result<Taken, Refusal> {
        let user = user.folded();
        let (news, gone, taken) = {
            let mut state = self.state();
            state.expire();
            if state.peers.len() >= ANNOUNCING_PEERS_MAX && !state.peers.contains_key(&peer) {
                return Err(Refusal::Busy);
            }
            let known = state
                .peers
                .get(&peer)
                .filter(|known| known.session == session);
            if known.is_some_and(|known| announcement.number <= known.number) {
                return Ok(Taken::default());
            }
            let holds = state.peers.get(&peer).map(|known| &known.holds);
            let more = announcement.swarms.iter();
            let more = more.map(|entry| held::more(holds, entry)).sum();
            let (gone, most) = state.make_room((peer, &user), more, self.most);
            let announced = state
                .peers
                .entry(peer)
                .or_insert_with(|| Announced::new(peer, session));
            (announced.user, announced.seen) = (user, now);
            let mut said = announced.take(peer, session, announcement, most);
            let to_check = announced.next_to_check();
            let left_out = std::mem::take(&mut said.left_out);
            state.saw(said.whole, now);
            (said.news, gone, Taken { to_check, left_out })
        };
        for (peer, gone) in gone {
            tracing::warn!(%peer, user = gone.user, "announces most, and makes room for others");
            self.say_nothing(peer, gone).await;
        }
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
            let said = announced.map(|announced| {
                let most = announced.holds.bytes();
                let said = announced.take(peer, session, renewal, most);
                (said, announced.seen)
            });
            said.map(|(said, seen)| {
                state.saw(said.whole, seen);
                said.news
            })
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
        let news = {
            let mut state = self.state();
            let held = state.peers.get_mut(&peer).and_then(|announced| {
                let place = (group.folded(), name.clone());
                let held = announced.holds.remove(&place)?;
                let news = announced.change(0, &HashSet::from([held.swarm()]));
                Some((held, announced.seen, news))
            });
            held.map(|(held, seen, news)| {
                state.saw(held.is_whole().then(|| held.swarm()), seen);
                news
            })
        };
        if let Some(news) = news {
            self.say(peer, news.map(|news| vec![news])).await;
        }
    }

    /// Drops all that `peer` announced.
    pub(super) async fn leave(&self, peer: PeerId) {
        let announced = self.state().remove(peer);
        if let Some(announced) = announced {
            self.say_nothing(peer, announced).await;
        }
    }

    /// Says that a peer that was removed holds nothing any more.
    async fn say_nothing(&self, peer: PeerId, mut removed: Announced) {
        let news = removed.said.whole(0, LEASE_LIFE, []);
        self.say(peer, news.map(|news| vec![news])).await;
    }

    /// Some of those who are online with (part of) a file of so many chunks, or have begun to fetch it, `asking` left out,
    /// and what all of them have together. However many ask, they have one look at it in common, for
    /// [a moment](Looks) if it is one of so many that they cannot all be named, or of a large file.
    pub(super) async fn holders(
        &self,
        asking: PeerId,
        (group, id): (&GroupName, FileId),
        chunks: u32,
    ) -> (Vec<Holder>, Availability) {
        let crowd = self.crowd(Swarm::new(group, id), chunks).await;
        let sample = crowd.sample(asking, &mut rand::rng());
        (sample, crowd.availability().clone())
    }

    async fn crowd(&self, swarm: Swarm, chunks: u32) -> Arc<Crowd> {
        let of = (swarm, chunks);
        let look = self.state().looks.at(&of);
        // Whoever goes leaves it to the next who waits.
        look.get_or_init(|| self.look_at(&of)).await.clone()
    }

    async fn look_at(&self, of: &(Swarm, u32)) -> Arc<Crowd> {
        let (swarm, chunks) = (&of.0, of.1);
        let leases = self.dht.leases_of(&[swarm.key()]).await;
        let leases: Vec<Lease> = leases.into_iter().flatten().collect();
        let bytes = leases
            .iter()
            .map(|lease| lease.payload.len())
            .sum::<usize>();
        let is_light = leases.len() <= HOLDERS_SAMPLE_MAX && bytes <= CROWD_LIGHT_BYTES_MAX;
        let count = move || Arc::new(Crowd::new(all_holders(leases).into_values(), chunks));
        let crowd = match is_light {
            true => count(),
            // What many have, or of a large file, takes a while to count.
            false => match tokio::task::spawn_blocking(count).await {
                Ok(crowd) => crowd,
                Err(_) => Arc::new(Crowd::new([], chunks)),
            },
        };
        self.state().looks.end(of, (!is_light).then_some(&crowd));
        crowd
    }

    /// How many are online with the whole of each file.
    pub(super) async fn counts(&self, group: &GroupName, ids: &[FileId]) -> Vec<u32> {
        let keys = ids.iter().map(|id| Swarm::new(group, *id).key());
        let keys: Vec<LeaseKey> = keys.collect();
        let count = |leases| {
            let holders = all_holders(leases).into_values();
            let whole = holders.filter(|holder| holder.holding == Holding::Complete);
            u32::try_from(whole.count()).unwrap_or(u32::MAX)
        };
        let mut counts = Vec::with_capacity(keys.len());
        // Of many who hold very much one read may not tell.
        for _ in 0..COUNT_READS_MAX {
            let rest = &keys[counts.len()..];
            if rest.is_empty() {
                break;
            }
            let leases = self.dht.leases_of(rest).await;
            counts.extend(leases.into_iter().map(count));
        }
        counts.resize(keys.len(), 0);
        counts
    }

    /// When somebody was last online with the whole file, as far as this tracker knows.
    pub(super) fn last_seen(&self, group: &GroupName, id: FileId) -> Option<Timestamp> {
        let mut state = self.state();
        state.expire();
        state.seen.get(&Swarm::new(group, id)).copied()
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
            user: String::new(),
            session,
            number: 0,
            said: LeaseSession::new(peer, session),
            renewed: now,
            addrs: Vec::new(),
            holds: HeldSet::default(),
            checked: None,
            last: now,
            seen: Timestamp::from_millis(0),
        }
    }

    /// Takes in an announcement, where all that is kept may take `most`.
    fn take(
        &mut self,
        peer: PeerId,
        session: SessionId,
        announcement: Announcement,
        most: usize,
    ) -> Said {
        let mut news = Vec::new();
        let is_other_session = self.session != session;
        if is_other_session {
            // Nobody speaks for the former one any more.
            let mut former = std::mem::replace(&mut self.said, LeaseSession::new(peer, session));
            news.push(former.whole(0, LEASE_LIFE, []));
            self.session = session;
        }
        let mut ended = HeldSet::default();
        if announcement.anew || is_other_session {
            ended = std::mem::take(&mut self.holds);
        }
        let whole = announcement.anew || is_other_session || self.addrs != announcement.addrs;
        (self.number, self.last) = (announcement.number, Instant::now());
        self.addrs = announcement.addrs;
        let mut changed = self.hold(announcement.swarms, most);
        changed.whole.extend(ended.whole());
        news.extend(self.news(whole, &changed.swarms));
        Said {
            news: news.into_iter().collect(),
            whole: changed.whole,
            left_out: changed.left_out,
        }
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

    /// Notes what is held.
    fn hold(&mut self, entries: Vec<SwarmEntry>, most: usize) -> Changed {
        let mut changed = Changed::default();
        for entry in entries {
            let (group, name) = (entry.group.clone(), entry.name.clone());
            let swarm = Swarm::new(&entry.group, entry.id);
            let is_whole = entry.holding == Holding::Complete;
            let (before, kept) = self.holds.put(entry, most);
            if let Some(before) = before {
                changed.add(before.swarm(), before.is_whole());
            }
            match kept {
                true => changed.add(swarm, is_whole),
                false => changed.left_out.push((group, name)),
            }
        }
        changed
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
            (self.holds.iter()).partition(|held| held.is_whole());
        parts.into_iter().chain(whole).filter_map(lease).collect()
    }

    fn next_to_check(&mut self) -> Vec<SwarmEntry> {
        let from = self.checked.take();
        let (some, last) = self.holds.some_behind(from, SWARMS_CHECKED_PER_RENEWAL);
        self.checked = last;
        some
    }
}

impl Changed {
    fn add(&mut self, swarm: Swarm, is_whole: bool) {
        if is_whole {
            self.whole.push(swarm.clone());
        }
        self.swarms.insert(swarm);
    }
}

impl State {
    /// Forgets peers that have not spoken for so long that nothing of theirs counts any more.
    fn expire(&mut self) {
        let expired = self
            .peers
            .extract_if(|_, announced| announced.last.elapsed() >= LEASE_LIFE);
        for (_, expired) in expired.collect::<Vec<_>>() {
            self.saw(expired.holds.whole(), expired.seen);
        }
    }

    fn remove(&mut self, peer: PeerId) -> Option<Announced> {
        let removed = self.peers.remove(&peer)?;
        self.saw(removed.holds.whole(), removed.seen);
        Some(removed)
    }

    /// Removes those who make room for a peer of that user to announce so much `more`, where all may have `most`; and
    /// gives how much it may have then.
    fn make_room(
        &mut self,
        newcomer: (PeerId, &str),
        more: usize,
        most: usize,
    ) -> (Vec<(PeerId, Announced)>, usize) {
        let sum: usize = self
            .peers
            .values()
            .map(|announced| announced.holds.bytes())
            .sum();
        if sum.saturating_add(more) <= most {
            return (Vec::new(), usize::MAX);
        }
        let all = self.peers.iter().map(|(peer, announced)| Share {
            peer: *peer,
            user: &announced.user,
            bytes: announced.holds.bytes(),
        });
        let (gone, most) = room::make_room(all.collect(), newcomer, more, most);
        let gone = gone.into_iter();
        let gone = gone.filter_map(|peer| Some((peer, self.remove(peer)?)));
        (gone.collect(), most)
    }

    fn saw(&mut self, swarms: impl IntoIterator<Item = Swarm>, now: Timestamp) {
        for swarm in swarms {
            if self.seen.len() >= SWARMS_SEEN_MAX && !self.seen.contains_key(&swarm) {
                let half = self.seen.len() / 2;
                let mut times: Vec<Timestamp> = self.seen.values().copied().collect();
                let (_, &mut median, _) = times.select_nth_unstable(half);
                self.seen.retain(|_, seen| *seen > median);
            }
            self.seen.insert(swarm, now);
        }
    }
}

#[cfg(test)]
mod tests;
