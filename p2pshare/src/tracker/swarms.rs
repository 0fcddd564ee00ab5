//! Who is online with what. Each peer announces where it is and what it holds, all of it under one number
//! that only rises; the tracker keeps that as a lease for each swarm (a file of a group), which ends
//! [`LEASE_LIFE`] after the last announcement. Nothing here is durable: a tracker that restarts learns again
//! within one renewal.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use crate::{
    content::FileId,
    dht::{DhtNode, Lease, LeaseKey},
    identity::{FileName, GroupName, PeerId, SessionId},
    limits::{
        ANNOUNCED_BYTES_PER_PEER_MAX, ANNOUNCING_PEERS_MAX, HOLDERS_SAMPLE_MAX, LEASE_LIFE,
        SWARMS_CHECKED_PER_RENEWAL, SWARMS_PER_PEER_MAX, SWARMS_SEEN_MAX,
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
        let (dropped, renewed, to_check) = {
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
                .or_insert_with(|| Announced::new(session));
            if announced.session == session && announcement.number <= announced.number {
                return Ok(Vec::new());
            }
            let dropped = announced.take(session, announcement);
            let renewed = announced.leases(peer);
            let whole = announced.whole();
            let to_check = announced.next_to_check();
            state.saw(whole.iter(), now);
            (dropped, renewed, to_check)
        };
        for (swarm, lease) in &renewed {
            if let Err(error) = self.dht.put_lease(&swarm.key(), lease.clone()).await {
                tracing::warn!(%peer, %error, "a lease was not taken");
            }
        }
        for (swarm, ended) in dropped {
            if !renewed.contains_key(&swarm) {
                self.drop(&swarm, peer, &ended).await;
            }
        }
        Ok(to_check)
    }

    /// Drops what `peer` announced under that name, unless it is held under another one too.
    pub(super) async fn forget(&self, peer: PeerId, group: &GroupName, name: &FileName) {
        let ended = self.state().peers.get_mut(&peer).and_then(|announced| {
            let swarm = announced
                .holds
                .remove(&(group.folded(), name.clone()))?
                .swarm();
            // The same content may be held under another name.
            let is_held = announced.holds.values().any(|held| held.swarm() == swarm);
            (!is_held).then(|| (swarm, announced.end()))
        });
        if let Some((swarm, ended)) = ended {
            self.drop(&swarm, peer, &ended).await;
        }
    }

    /// Drops all that `peer` announced.
    pub(super) async fn leave(&self, peer: PeerId) {
        let Some(announced) = self.state().peers.remove(&peer) else {
            return;
        };
        for held in announced.holds.values() {
            self.drop(&held.swarm(), peer, &announced.end()).await;
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
        let holders = self.all_holders(group, id).await;
        let others: Vec<Holder> = holders
            .into_values()
            .filter(|holder| holder.peer != asking)
            .collect();
        let sample = others.sample(&mut rand::rng(), HOLDERS_SAMPLE_MAX);
        sample.cloned().collect()
    }

    /// How many are online with the whole file.
    pub(super) async fn count(&self, group: &GroupName, id: FileId) -> u32 {
        let holders = self.all_holders(group, id).await.into_values();
        let whole = holders.filter(|holder| holder.holding == Holding::Complete);
        u32::try_from(whole.count()).unwrap_or(u32::MAX)
    }

    /// Each peer once, by its latest session.
    async fn all_holders(&self, group: &GroupName, id: FileId) -> BTreeMap<PeerId, Holder> {
        let mut leases = self.dht.leases(&Swarm::new(group, id).key()).await;
        leases.sort_by_key(|lease| lease.number);
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

    async fn drop(&self, swarm: &Swarm, peer: PeerId, ended: &Ended) {
        let Ended { session, number } = *ended;
        let dropped = self
            .dht
            .drop_lease(&swarm.key(), peer, session, number)
            .await;
        if let Err(error) = dropped {
            tracing::warn!(%peer, %error, "a lease was not dropped, and ends by itself");
        }
    }

    /// When somebody was last online with the whole file, as far as this tracker knows.
    pub(super) fn last_seen(&self, group: &GroupName, id: FileId) -> Option<Timestamp> {
        self.state().seen.get(&Swarm::new(group, id)).copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session, and the number under which its leases end.
#[derive(Copy, Clone)]
struct Ended {
    session: SessionId,
    number: u64,
}

impl Held {
    fn swarm(&self) -> Swarm {
        Swarm::new(&self.group, self.id)
    }
}

impl Announced {
    fn new(session: SessionId) -> Self {
        Self {
            session,
            number: 0,
            addrs: Vec::new(),
            holds: BTreeMap::new(),
            checked: None,
            last: Instant::now(),
        }
    }

    /// Takes in an announcement, and gives what is not held any more.
    fn take(&mut self, session: SessionId, announcement: Announcement) -> Vec<(Swarm, Ended)> {
        let before = self.end();
        self.session = session;
        self.number = announcement.number;
        self.addrs = announcement.addrs;
        self.last = Instant::now();
        let mut dropped = Vec::new();
        if announcement.anew || before.session != session {
            dropped.extend(std::mem::take(&mut self.holds).into_values());
        }
        for entry in announcement.swarms {
            let place = (entry.group.folded(), entry.name);
            if entry.holding == Holding::Nothing {
                dropped.extend(self.holds.remove(&place));
            } else if self.has_room_for(&place, &entry.holding) {
                let held = Held {
                    group: entry.group,
                    id: entry.id,
                    holding: entry.holding,
                };
                dropped.extend(self.holds.insert(place, held));
            }
        }
        let ended = Ended {
            session: before.session,
            number: before.number.max(self.number),
        };
        dropped
            .into_iter()
            .map(|held| (held.swarm(), ended))
            .collect()
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

    fn leases(&self, peer: PeerId) -> HashMap<Swarm, Lease> {
        let lease = |held: &Held| {
            let claim = Claim::V1 {
                addrs: self.addrs.clone(),
                holding: held.holding.clone(),
            };
            let payload = postcard::to_allocvec(&claim).unwrap_or_default();
            let lease = Lease {
                peer,
                session: self.session,
                number: self.number,
                expires_in: LEASE_LIFE,
                payload: payload.into(),
            };
            (held.swarm(), lease)
        };
        // Of what is held under several names, the whole of it counts.
        let (whole, parts): (Vec<_>, Vec<_>) =
            (self.holds.values()).partition(|held| held.holding == Holding::Complete);
        parts.into_iter().chain(whole).map(lease).collect()
    }

    /// The swarms of what it holds whole.
    fn whole(&self) -> Vec<Swarm> {
        let whole = self.holds.values();
        let whole = whole.filter(|held| held.holding == Holding::Complete);
        whole.map(Held::swarm).collect()
    }

    /// Above every number that was used.
    const fn end(&self) -> Ended {
        Ended {
            session: self.session,
            number: self.number + 1,
        }
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
}
