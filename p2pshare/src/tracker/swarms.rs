//! Who is online with what. Each peer announces where it is and what it holds, all of it under one number
//! that only rises; its tracker keeps that while it lasts, and says it in the ring: a lease for each swarm (a
//! file of a group), which ends [`LEASE_LIFE`] after it was said last. Nothing here is durable: a tracker that
//! restarts learns again within one renewal.
//!
//! A number in the ring is that of the announcement, and below it the tracker's own steps since then. So what a
//! peer announces to another tracker counts for more than anything that was said for it here.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    content::FileId,
    dht::{DhtNode, Lease, LeaseError, LeaseKey, LeaseNews, LeaseSession},
    identity::{FileName, GroupName, PeerId, SessionId},
    limits::{
        ANNOUNCED_BYTES_PER_PEER_MAX, ANNOUNCEMENT_STEP_BITS, ANNOUNCING_PEERS_MAX,
        HOLDERS_SAMPLE_MAX, LEASE_LIFE, LEASE_RENEWAL, SWARMS_CHECKED_PER_RENEWAL,
        SWARMS_PER_PEER_MAX, SWARMS_SEEN_MAX,
    },
    time::Timestamp,
    wire::tracker::{Announcement, Holder, Holding, Refusal, SwarmEntry},
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
}

/// What one peer announced to this tracker.
struct Announced {
    session: SessionId,
    number: u64,
    /// What was said of it in the ring.
    said: LeaseSession,
    /// When all of that was last said anew.
    renewed: Instant,
    addrs: Vec<SocketAddr>,
    holds: BTreeMap<(String, FileName), Held>,
    /// Where the next check of old entries goes on.
    checked: Option<(String, FileName)>,
    last: Instant,
}

#[derive(Clone)]
struct Held {
    group: GroupName,
    id: FileId,
    holding: Holding,
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
    /// peer. Gives some of its older entries, which the caller checks and [forgets](Self::forget) if they
    /// are not right any more; over several renewals it gives all.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many peers announce themselves here.
    pub(super) async fn announce(
        &self,
        peer: PeerId,
        session: SessionId,
        announcement: Announcement,
        now: Timestamp,
    ) -> Result<Vec<SwarmEntry>, Refusal> {
        let (news, to_check) = {
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
                return Ok(Vec::new());
            }
            let news = announced.take(peer, session, announcement);
            let whole = announced.whole();
            let to_check = announced.next_to_check();
            state.saw(whole.iter(), now);
            (news, to_check)
        };
        self.say(peer, news).await;
        Ok(to_check)
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
            announced.map(|announced| announced.take(peer, session, renewal))
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

    /// Who is online with (part of) the file, `asking` left out; a random sample of at most
    /// [`HOLDERS_SAMPLE_MAX`].
    pub(super) async fn holders(
        &self,
        asking: PeerId,
        group: &GroupName,
        id: FileId,
    ) -> Vec<Holder> {
        let leases = self.dht.leases_of(&[Swarm::new(group, id).key()]).await;
        let holders = all_holders(leases.into_iter().flatten().collect());
        let others: Vec<Holder> = holders
            .into_values()
            .filter(|holder| holder.peer != asking)
            .collect();
        let sample = others.sample(&mut rand::rng(), HOLDERS_SAMPLE_MAX);
        sample.cloned().collect()
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

impl Held {
    fn swarm(&self) -> Swarm {
        Swarm::new(&self.group, self.id)
    }
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
            holds: BTreeMap::new(),
            checked: None,
            last: now,
        }
    }

    /// Takes in an announcement, and gives what is to be said in the ring.
    fn take(
        &mut self,
        peer: PeerId,
        session: SessionId,
        announcement: Announcement,
    ) -> Result<Vec<LeaseNews>, LeaseError> {
        let (number, now) = (
            announcement.number << ANNOUNCEMENT_STEP_BITS,
            Instant::now(),
        );
        let mut news = Vec::new();
        let mut whole = announcement.anew || self.addrs != announcement.addrs;
        if self.session != session {
            // Nobody speaks for the former one any more.
            let mut former = std::mem::replace(&mut self.said, LeaseSession::new(peer, session));
            news.push(former.whole(0, LEASE_LIFE, [])?);
            self.session = session;
            whole = true;
        }
        if announcement.anew || !news.is_empty() {
            self.holds.clear();
        }
        (self.number, self.last) = (announcement.number, now);
        self.addrs = announcement.addrs;
        let touched = self.hold(announcement.swarms);
        if whole {
            let all = self.leases(|_| true);
            news.push(self.said.whole(number, LEASE_LIFE, all)?);
            self.renewed = now;
            return Ok(news);
        }
        if !touched.is_empty() {
            news.push(self.change(number, &touched)?);
        }
        // Whoever has often something new to say says the rest anew too, but not each time.
        if now.duration_since(self.renewed) >= LEASE_RENEWAL * 3 / 4 {
            news.push(self.said.renew(number, LEASE_LIFE));
            self.renewed = now;
        }
        Ok(news)
    }

    /// Notes what is held, and gives the swarms of which that changes something.
    fn hold(&mut self, entries: Vec<SwarmEntry>) -> HashSet<Swarm> {
        let mut touched = HashSet::new();
        for entry in entries {
            let place = (entry.group.folded(), entry.name);
            let before = if entry.holding == Holding::Nothing {
                self.holds.remove(&place)
            } else if self.has_room_for(&place, &entry.holding) {
                let held = Held {
                    group: entry.group,
                    id: entry.id,
                    holding: entry.holding,
                };
                touched.insert(held.swarm());
                self.holds.insert(place, held)
            } else {
                None
            };
            touched.extend(before.map(|held| held.swarm()));
        }
        touched
    }

    /// What is to be said of some swarms, as they are now.
    fn change(&mut self, number: u64, swarms: &HashSet<Swarm>) -> Result<LeaseNews, LeaseError> {
        let mut changes: BTreeMap<LeaseKey, Option<Arc<[u8]>>> =
            swarms.iter().map(|swarm| (swarm.key(), None)).collect();
        let held = self.leases(|swarm| swarms.contains(swarm));
        changes.extend(held.into_iter().map(|(key, claim)| (key, Some(claim))));
        self.said.change(number, LEASE_LIFE, changes)
    }

    fn has_room_for(&self, place: &(String, FileName), holding: &Holding) -> bool {
        let bits = match holding {
            Holding::Nothing | Holding::Complete => return self.has_place_for(place),
            Holding::Partial(bits) => bits.len(),
        };
        let known = |held: &Held| match &held.holding {
            Holding::Partial(bits) => bits.len(),
            Holding::Nothing | Holding::Complete => 0,
        };
        let others = self.holds.iter().filter(|(at, _)| *at != place);
        let bytes: usize = others.map(|(_, held)| known(held)).sum();
        self.has_place_for(place) && bytes + bits <= ANNOUNCED_BYTES_PER_PEER_MAX
    }

    fn has_place_for(&self, place: &(String, FileName)) -> bool {
        self.holds.len() < SWARMS_PER_PEER_MAX || self.holds.contains_key(place)
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
            (self.holds.values()).partition(|held| held.holding == Holding::Complete);
        parts.into_iter().chain(whole).filter_map(lease).collect()
    }

    /// The swarms of what it holds whole.
    fn whole(&self) -> Vec<Swarm> {
        let whole = self.holds.values();
        let whole = whole.filter(|held| held.holding == Holding::Complete);
        whole.map(Held::swarm).collect()
    }

    fn next_to_check(&mut self) -> Vec<SwarmEntry> {
        let from = match self.checked.take() {
            Some(last) => std::ops::Bound::Excluded(last),
            None => std::ops::Bound::Unbounded,
        };
        let some: Vec<SwarmEntry> = self
            .holds
            .range((from, std::ops::Bound::Unbounded))
            .take(SWARMS_CHECKED_PER_RENEWAL)
            .map(|((_, name), held)| SwarmEntry {
                group: held.group.clone(),
                name: name.clone(),
                id: held.id,
                holding: held.holding.clone(),
            })
            .collect();
        self.checked = some
            .last()
            .map(|entry| (entry.group.folded(), entry.name.clone()));
        some
    }
}

impl State {
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
mod tests {
    use super::*;
    use crate::golden::{Golden, variants};

    variants!(Claim { V1 });

    #[test]
    fn golden_bytes() {
        let claim = |holding| Claim::V1 {
            addrs: vec![([192, 0, 2, 1], 41873).into()],
            holding,
        };
        let claims = [
            ("complete", claim(Holding::Complete)),
            ("partial", claim(Holding::Partial(vec![0b101, 1]))),
        ];
        let mut golden = Golden::open("tracker_leases");
        golden.values("swarm", &claims);
        golden.finish();
        let swarm = Swarm::new(
            &GroupName::new("Photos").unwrap(),
            FileId::from_bytes([0x1d; 32]),
        );
        let key = format!("s/photos/{}", "1d".repeat(32));
        assert_eq!(swarm.key().as_bytes(), key.as_bytes());
    }
    const PEER: PeerId = PeerId::from_bytes([1; 32]);
    const ASKING: PeerId = PeerId::from_bytes([9; 32]);

    fn group() -> GroupName {
        GroupName::new("Photos").unwrap()
    }

    fn file(i: u16) -> FileId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&i.to_be_bytes());
        FileId::from_bytes(id)
    }

    fn session(i: u8) -> SessionId {
        SessionId::from_bytes([i; 16])
    }

    fn entry(i: u16, holding: Holding) -> SwarmEntry {
        SwarmEntry {
            group: group(),
            name: FileName::new(&format!("{i}.jpg")).unwrap(),
            id: file(i),
            holding,
        }
    }

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// Several trackers of one ring: what one of them says all know.
    struct Trackers {
        swarms: Vec<Swarms>,
        dht: DhtNode,
        _folder: tempfile::TempDir,
    }

    impl Trackers {
        async fn new(count: usize) -> Self {
            let folder = tempfile::TempDir::new().unwrap();
            let ring = crate::identity::RingId::from_bytes([1; 32]);
            let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
            Self {
                swarms: (0..count).map(|_| Swarms::new(dht.clone())).collect(),
                dht,
                _folder: folder,
            }
        }

        /// The peer announces at a tracker under a number that it has in common with its port.
        async fn announce(&self, at: usize, as_session: u8, number: u16, swarms: Vec<SwarmEntry>) {
            self.send(at, as_session, number, false, swarms).await;
        }

        async fn anew(&self, at: usize, as_session: u8, number: u16, swarms: Vec<SwarmEntry>) {
            self.send(at, as_session, number, true, swarms).await;
        }

        async fn send(
            &self,
            at: usize,
            as_session: u8,
            number: u16,
            anew: bool,
            swarms: Vec<SwarmEntry>,
        ) {
            let announcement = Announcement {
                number: number.into(),
                addrs: vec![addr(at as u16)],
                anew,
                swarms,
            };
            let swarms = &self.swarms[at];
            let now = Timestamp::from_millis(1);
            let announced = swarms.announce(PEER, session(as_session), announcement, now);
            announced.await.unwrap();
        }

        /// How many have the whole of each file, as each tracker says.
        async fn counts<const N: usize>(&self, files: [u16; N]) -> [u32; N] {
            let ids = files.map(file);
            let mut counts = Vec::new();
            for swarms in &self.swarms {
                counts.push(swarms.counts(&group(), &ids).await);
            }
            counts.dedup();
            assert_eq!(counts.len(), 1, "the trackers differ: {counts:?}");
            counts.remove(0).try_into().unwrap()
        }

        /// Where to find the peer with that file.
        async fn found(&self, i: u16) -> Vec<SocketAddr> {
            let holders = self.swarms[0].holders(ASKING, &group(), file(i)).await;
            holders
                .into_iter()
                .flat_map(|holder| holder.addrs)
                .collect()
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_lasts_while_it_is_renewed() {
        let ring = Trackers::new(2).await;
        ring.anew(0, 1, 1, vec![entry(1, Holding::Complete)]).await;
        ring.announce(0, 1, 2, vec![entry(2, Holding::Complete)])
            .await;
        ring.announce(0, 1, 3, vec![entry(3, Holding::Partial(vec![1]))])
            .await;
        assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 1, 0, 0]);
        assert_eq!(ring.found(3).await, [addr(0)]);
        // Often something new, or nothing: the rest lasts too.
        for (number, every) in [(10, 10), (30, 20)] {
            for i in 0..10 {
                pass(every).await;
                let some = if every == 10 {
                    vec![entry(4 + i % 2, Holding::Complete)]
                } else {
                    vec![]
                };
                ring.announce(0, 1, number + i, some).await;
            }
            assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 1, 0, 1]);
        }
        ring.announce(0, 1, 50, vec![entry(1, Holding::Nothing)])
            .await;
        assert_eq!(ring.counts([1, 2, 4]).await, [0, 1, 1]);
        let two = FileName::new("2.jpg").unwrap();
        ring.swarms[0].forget(PEER, &group(), &two).await;
        assert_eq!(ring.counts([1, 2, 4]).await, [0, 0, 1]);
        // Found again at once, although the tracker spoke in between.
        ring.announce(0, 1, 51, vec![entry(2, Holding::Complete)])
            .await;
        assert_eq!(ring.counts([1, 2, 4]).await, [0, 1, 1]);
        ring.anew(0, 1, 52, vec![entry(5, Holding::Complete)]).await;
        assert_eq!(ring.counts([1, 2, 4, 5]).await, [0, 0, 0, 1]);
        pass(59).await;
        assert_eq!(ring.counts([5]).await, [1]);
        pass(1).await;
        assert_eq!(ring.counts([5]).await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn content_under_two_names_is_there_until_both_are_gone() {
        let ring = Trackers::new(1).await;
        let other = SwarmEntry {
            name: FileName::new("copy.jpg").unwrap(),
            ..entry(1, Holding::Partial(vec![1]))
        };
        ring.anew(0, 1, 1, vec![other.clone(), entry(1, Holding::Complete)])
            .await;
        assert_eq!(ring.counts([1]).await, [1]);
        ring.announce(0, 1, 2, vec![entry(1, Holding::Nothing)])
            .await;
        assert_eq!(ring.counts([1]).await, [0]);
        assert_eq!(ring.found(1).await.len(), 1);
        ring.swarms[0].forget(PEER, &group(), &other.name).await;
        assert_eq!(ring.found(1).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_moves_to_another_tracker_is_where_it_says() {
        let ring = Trackers::new(2).await;
        let both = || vec![entry(1, Holding::Complete), entry(2, Holding::Complete)];
        ring.anew(0, 1, 10, both()).await;
        // Meanwhile the first tracker has done something about it by itself, more than once.
        for i in [1, 2] {
            let name = FileName::new(&format!("{i}.jpg")).unwrap();
            ring.swarms[0].forget(PEER, &group(), &name).await;
        }
        assert_eq!(ring.counts([1, 2]).await, [0, 0]);
        ring.anew(1, 1, 11, both()).await;
        assert_eq!(ring.counts([1, 2]).await, [1, 1]);
        assert_eq!(ring.found(1).await, [addr(1)]);
        // What the first does late takes nothing away.
        ring.announce(0, 1, 10, vec![entry(1, Holding::Nothing)])
            .await;
        ring.swarms[0].leave(PEER).await;
        assert_eq!(ring.counts([1, 2]).await, [1, 1]);
        // And back, within a second.
        ring.anew(0, 1, 12, both()).await;
        assert_eq!(ring.found(2).await, [addr(0)]);
        ring.swarms[1].leave(PEER).await;
        assert_eq!(ring.counts([1, 2]).await, [1, 1]);
        ring.swarms[0].leave(PEER).await;
        assert_eq!(ring.counts([1, 2]).await, [0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_gone_does_not_hide_a_newer_one() {
        let ring = Trackers::new(2).await;
        ring.anew(0, 1, 60_000, vec![entry(1, Holding::Complete)])
            .await;
        pass(1).await;
        // The new one begins below the numbers of the one before it.
        ring.anew(1, 2, 5, vec![entry(1, Holding::Complete)]).await;
        assert_eq!(ring.counts([1]).await, [1]);
        assert_eq!(ring.found(1).await, [addr(1)]);
        pass(20).await;
        ring.announce(1, 2, 6, Vec::new()).await;
        assert_eq!(ring.found(1).await, [addr(1)]);
        // At one tracker the former is over at once.
        ring.anew(1, 3, 4, vec![entry(2, Holding::Complete)]).await;
        pass(40).await;
        assert_eq!(ring.counts([1, 2]).await, [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_lack_what_came_before_get_all_of_it() {
        let ring = Trackers::new(1).await;
        let some: Vec<_> = (1..5).map(|i| entry(i, Holding::Complete)).collect();
        ring.anew(0, 1, 1, some).await;
        // What was said in between reached nobody.
        for lost in [1, 2] {
            if let Some(announced) = ring.swarms[0].state().peers.get_mut(&PEER) {
                announced.said.renew(lost, LEASE_LIFE);
            }
            pass(20).await;
        }
        ring.announce(0, 1, 3, vec![entry(2, Holding::Nothing)])
            .await;
        assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 0, 1, 1]);
        pass(59).await;
        assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 0, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_files_are_listed_and_ended_at_once() {
        let ring = Trackers::new(1).await;
        let all: Vec<u16> = (0..500).collect();
        for (at, some) in all.chunks(250).enumerate() {
            let some = some.iter().map(|i| entry(*i, Holding::Complete)).collect();
            ring.send(0, 1, at as u16 + 1, at == 0, some).await;
        }
        let ids: Vec<FileId> = all.iter().map(|i| file(*i)).collect();
        let counts = ring.swarms[0].counts(&group(), &ids).await;
        assert_eq!(counts, vec![1; 500]);
        ring.anew(0, 1, 3, Vec::new()).await;
        let counts = ring.swarms[0].counts(&group(), &ids).await;
        assert_eq!(counts, vec![0; 500]);
        ring.dht.shutdown().await.unwrap();
    }
}
