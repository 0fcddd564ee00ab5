//! A ring of several members on a network in memory, each with a disk in memory, under tokio's paused clock.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ring::rand::SystemRandom;
use tokio::time::{Instant, timeout};

use crate::dht::host::Authority;
use crate::dht::life::{Surroundings, start};
use crate::dht::row_key;
use crate::dht::{Attempt, DhtBindError, DhtNode, RowChange, RowError};
use crate::identity::key::SigningKey;
use crate::identity::ring_key::RingKey;
use crate::identity::{PeerId, RequestId, TrackerAddr};
use crate::store::{MemoryDisk, Store, StoreKind, Table};
use crate::transport::memory::Network;
use crate::transport::{Alpn, Endpoint, EndpointConfig, Profile};
use crate::wire::ring::{RequestKey, RowKey};

pub(crate) struct World {
    pub(crate) network: Network,
    pub(in crate::dht::node) key: RingKey,
    pub(in crate::dht::node) disks: Vec<MemoryDisk>,
    /// By how many milliseconds the clock of each is off.
    pub(in crate::dht::node) skews: Vec<i64>,
    /// Where each notes beside its disk how many commits that has, if anywhere.
    pub(in crate::dht::node) folder: Option<PathBuf>,
}

impl World {
    /// A network with so many places for members.
    pub(in crate::dht::node) fn of(members: usize) -> Self {
        Self {
            network: Network::new(4),
            key: RingKey::generate(&SystemRandom::new(), addrs(members)).unwrap(),
            disks: (0..members).map(|_| MemoryDisk::default()).collect(),
            skews: vec![0; members],
            folder: None,
        }
    }

    /// So many members of a ring that is founded, each of which reaches all.
    pub(crate) async fn founded(members: usize) -> (Self, Vec<DhtNode>) {
        let world = Self::of(members);
        let mut nodes = Vec::new();
        for i in 0..members {
            nodes.push(world.start(i).await);
        }
        all_reach(&nodes, members).await;
        (world, nodes)
    }

    pub(in crate::dht::node) async fn start(&self, i: usize) -> DhtNode {
        self.try_start(i).await.unwrap()
    }

    pub(in crate::dht::node) async fn try_start(&self, i: usize) -> Result<DhtNode, DhtBindError> {
        let own = addrs(self.disks.len())[i].clone();
        self.start_as(i, own, &self.disks[i]).await
    }

    /// Starts at the place `i` one that takes itself for the member at `own`.
    pub(in crate::dht::node) async fn start_as(
        &self,
        i: usize,
        own: TrackerAddr,
        disk: &MemoryDisk,
    ) -> Result<DhtNode, DhtBindError> {
        // A former life lets go of its socket once its connections have ended.
        let mut socket = None;
        until("a free socket", || {
            socket = self.network.bind(SocketAddr::new(ip(i), 10_000)).ok();
            socket.is_some()
        })
        .await;
        let key = SigningKey::from_seed(&[i as u8 + 1; 32]);
        let config = EndpointConfig::listener(key.clone(), Profile::Ring, vec![Alpn::Ring]);
        let around = Surroundings {
            own,
            founders: addrs(self.disks.len()),
            authority: Authority {
                ring: self.key.authority(),
                tokens: self.key.token_key().verifying_key(),
                peer: key.verifying_key().into(),
            },
            endpoint: Some(Endpoint::bind_on(socket.unwrap(), config).unwrap()),
            skew: self.skews.get(i).copied().unwrap_or(0),
        };
        let store = Store::open_memory(disk, StoreKind::Tracker).await?;
        let (path, ring) = ("memory".into(), self.key.ring_id());
        let noted = self.folder.as_ref();
        let noted = noted.map(|folder| folder.join(format!("commits-{i}")));
        start(store, path, ring, around, noted).await
    }

    /// Puts bytes on the disk of a member in the place of a row that are none.
    pub(crate) fn damage(&self, i: usize, row: &RowKey) {
        let place = row_key::encode(row);
        self.disks[i].plant(Table::Rows, &place, b"what is this");
    }

    /// Ends a member without a word to anybody, as by `kill -9`. Partitions end.
    pub(in crate::dht::node) async fn kill(&self, i: usize, node: DhtNode) {
        self.cut_off(i);
        drop(node);
        until("a closed disk", || !self.disks[i].is_open()).await;
        let place = SocketAddr::new(ip(i), 10_000);
        until("a free socket", || self.network.bind(place).is_ok()).await;
        self.network.heal();
    }

    /// Nobody hears the member, and it hears nobody.
    pub(crate) fn cut_off(&self, i: usize) {
        self.others(i)
            .for_each(|other| self.network.part(ip(i), other));
    }

    /// Nobody hears the member, which hears all.
    pub(in crate::dht::node) fn mute(&self, i: usize) {
        self.others(i)
            .for_each(|other| self.network.mute(ip(i), other));
    }

    fn others(&self, i: usize) -> impl Iterator<Item = IpAddr> {
        (0..self.disks.len()).filter(move |j| *j != i).map(ip)
    }
}

pub(in crate::dht::node) fn ip(i: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, i as u8 + 1).into()
}

pub(in crate::dht::node) fn addrs(members: usize) -> Vec<TrackerAddr> {
    (0..members).map(addr).collect()
}

pub(in crate::dht::node) fn addr(i: usize) -> TrackerAddr {
    SocketAddr::new(ip(i), 9000).to_string().parse().unwrap()
}

pub(in crate::dht::node) fn key(number: u64) -> RowKey {
    RowKey::new(format!("row/{number}"), "").unwrap()
}

pub(in crate::dht::node) fn request(number: u64) -> RequestKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RequestKey {
        peer: PeerId::from_bytes([9; 32]),
        request: RequestId::from_bytes(bytes),
    }
}

/// Creates the row of that number, with the number as its value.
pub(in crate::dht::node) async fn create(
    node: &DhtNode,
    number: u64,
) -> Result<RowChange, RowError> {
    create_as(node, number, number, Attempt::First).await
}

/// Creates the row `row` with the number of the request as its value.
pub(in crate::dht::node) async fn create_as(
    node: &DhtNode,
    row: u64,
    number: u64,
    attempt: Attempt,
) -> Result<RowChange, RowError> {
    let value = number.to_string();
    node.create(&key(row), value, request(number), attempt)
        .await
}

/// Tries a change again that may have been made until it is known.
pub(in crate::dht::node) async fn create_again(node: &DhtNode, row: u64, number: u64) -> RowChange {
    let mut tried = create_as(node, row, number, Attempt::Retry).await;
    for _ in 0..100 {
        match tried {
            Err(error) if error.is_transient() => {}
            tried => return tried.unwrap(),
        }
        tried = create_as(node, row, number, Attempt::Retry).await;
    }
    tried.unwrap()
}

/// Creates these rows, in turn through each of the members.
pub(in crate::dht::node) async fn fill(nodes: &[DhtNode], numbers: std::ops::Range<u64>) {
    for number in numbers {
        let node = &nodes[number as usize % nodes.len()];
        let made = create(node, number).await.unwrap();
        assert!(matches!(made, RowChange::Applied { .. }), "{made:?}");
    }
}

/// Asserts that a member can read these rows.
pub(in crate::dht::node) async fn has(node: &DhtNode, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let row = node.read(&key(number)).await.unwrap();
        let value = row.and_then(|row| row.value);
        assert_eq!(value, Some(number.to_string().into_bytes()), "row {number}");
    }
}

/// Waits, for some minutes at most, until something holds.
pub(in crate::dht::node) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(300), "no {what}");
        pass(Duration::from_millis(50)).await;
    }
}

/// Waits until the member has a say and thinks that so many can be reached.
pub(crate) async fn reaches(node: &DhtNode, count: usize) {
    until("so many reachable members", || {
        let status = node.status();
        status.founded && status.reachable as usize == count
    })
    .await;
}

pub(crate) async fn all_reach(nodes: &[DhtNode], count: usize) {
    for node in nodes {
        reaches(node, count).await;
    }
}

pub(crate) async fn pass(time: Duration) {
    _ = timeout(time, std::future::pending::<()>()).await;
}
