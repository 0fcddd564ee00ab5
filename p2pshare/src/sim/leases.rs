//! Leases in the world: each client says now and then what its number is, members pass it on, and nobody may
//! be told an older number after a newer one, nor any after its time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::host::{Asker, Ended, For};
use super::world::World;

use crate::dht::sim::{LeaseExchange, LeaseSession, LeaseTable, LeaseWrite};
use crate::identity::{MemberId, PeerId};
use crate::wire::ring::{LeaseEntry, LeaseKey, ReplicaAnswer, ReplicaCall, ReplicaRequest};

/// What one life of a member knows of leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    table: LeaseTable,
    /// The highest number that it told of each peer, as long as nothing has ended.
    told: BTreeMap<PeerId, u64>,
}

impl World {
    /// A client says its number through a member.
    pub(super) fn say(&mut self, client: usize, host: usize) {
        let number = self.history.moment();
        let payload: Arc<[u8]> = Arc::from(number.to_be_bytes());
        let said = self.clients[client]
            .says
            .whole(number, LIFE, [(key_of(client), payload)]);
        let Ok(news) = said else {
            return;
        };
        self.tally.tell("lease");
        let now = self.now;
        self.clients[client].said = Some(now);
        let Some(life) = &self.hosts[host].life else {
            return;
        };
        let Some(serving) = &life.serving else {
            return;
        };
        let replicas = |slice| serving.placement.preference_list(slice).to_vec();
        let alive = |id: MemberId| {
            life.alive
                .iter()
                .any(|other| self.hosts[*other].id == Some(id))
        };
        let machine = LeaseWrite::new(now, serving.replica.epoch(), vec![news], replicas, alive);
        self.begin(host, machine, |_| Ended::Leases, For::Ring { host });
    }

    /// A member asks another what it lacks of leases.
    pub(super) fn begin_lease_exchange(&mut self, host: usize, with: usize) {
        let now = self.now;
        let serving = self.hosts[host]
            .life
            .as_ref()
            .and_then(|life| life.serving.as_ref());
        let (Some(serving), Some(me), Some(other)) =
            (serving, self.hosts[host].id, self.hosts[with].id)
        else {
            return;
        };
        let machine = LeaseExchange::new(now, serving.replica.epoch(), me, other);
        self.begin(host, machine, |_| Ended::Leases, For::Ring { host });
    }

    /// A request about leases arrives, and is answered from memory.
    pub(super) fn asked_of_leases(&mut self, host: usize, asker: Asker, request: ReplicaRequest) {
        self.look_at_leases(host);
        let (now, asking) = (self.now, self.hosts[asker.host].id);
        let (Some(me), Some(life)) = (self.hosts[host].id, &mut self.hosts[host].life) else {
            return;
        };
        let with = match &request.call {
            ReplicaCall::LeaseVectors { with, .. } => Some(*with),
            _ => asking,
        };
        let placement = life
            .serving
            .as_ref()
            .map(|serving| serving.placement.clone());
        let shared = |slice| {
            let list = placement
                .as_ref()
                .map_or(&[][..], |placement| placement.preference_list(slice));
            list.contains(&me) && with.is_some_and(|with| list.contains(&with))
        };
        let answer = life.leases.table.handle(now, request.call, shared);
        let answer = answer.unwrap_or(ReplicaAnswer::Unavailable);
        self.look_at_leases(host);
        self.answer(host, asker, None, &answer);
    }

    /// Compares what a member knows of leases now with what it knew.
    fn look_at_leases(&mut self, host: usize) {
        let (mut wrong, known) = (Vec::new(), self.leases_at(host));
        if let Some(life) = &mut self.hosts[host].life {
            // Of what has ended nothing is known, so that what comes very late counts anew.
            life.leases
                .told
                .retain(|peer, _| known.iter().any(|entry| entry.peer == *peer));
        }
        for entry in known {
            let Some(life) = &mut self.hosts[host].life else {
                return;
            };
            let told = life.leases.told.entry(entry.peer).or_default();
            if entry.number < *told {
                wrong.push(format!(
                    "member {host} knows lease {} after {told}",
                    entry.number
                ));
            }
            *told = entry.number;
            if entry.payload.as_deref() != Some(&entry.number.to_be_bytes()[..]) {
                wrong.push(format!(
                    "member {host} has mixed lease {} with another",
                    entry.number
                ));
            }
        }
        self.tally.violations.extend(wrong);
    }

    /// What a member knows of leases now.
    pub(super) fn leases_at(&mut self, host: usize) -> Vec<LeaseEntry> {
        let now = self.now;
        let Some(life) = &mut self.hosts[host].life else {
            return Vec::new();
        };
        let keys = (0..self.clients.len()).map(key_of).collect();
        let call = ReplicaCall::LeaseGet { keys, after: None };
        match life.leases.table.handle(now, call, |_| true) {
            Some(ReplicaAnswer::Leases { found, .. }) => found.into_iter().flatten().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a member knows something that nobody has said for longer than it counts and takes to arrive.
    pub(super) fn knows_of_the_past(&mut self, host: usize) -> bool {
        let over = |client: &Client| {
            let said = client.said.map(|said| self.now.duration_since(said));
            said.is_none_or(|ago| ago > LIFE + UNDER_WAY_MAX)
        };
        let over: Vec<PeerId> = self
            .clients
            .iter()
            .filter(|client| over(client))
            .map(|client| client.peer)
            .collect();
        self.leases_at(host)
            .iter()
            .any(|entry| over.contains(&entry.peer))
    }
}

fn key_of(client: usize) -> LeaseKey {
    #[expect(clippy::expect_used, reason = "a short key is one")]
    LeaseKey::new(format!("online/{client}")).expect("a short key is one")
}

/// A session of a client that has said nothing.
pub(super) fn session(peer: PeerId) -> LeaseSession {
    LeaseSession::new(peer, crate::identity::SessionId::from_bytes([1; 16]))
}

/// How long a lease counts.
const LIFE: Duration = Duration::from_secs(10);
/// How long what is said of leases may be under way when nothing is broken.
const UNDER_WAY_MAX: Duration = Duration::from_secs(1);
