//! Those who show no right, and those who ask and do not take, over the network in memory.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use tempfile::NamedTempFile;

use super::*;
use crate::{
    content::{CHUNK_SIZE, Digest},
    identity::{FileName, RingId, Role, UserName, key::SigningKey},
    peer::{file::Stamp, library::NewShare},
    store::{MemoryDisk, Store, StoreKind},
    transport::{Alpn, Crowd, Endpoint, EndpointConfig, Expect, Profile, memory::Network},
    wire::peer::{ChunkPart, ChunkReader},
};

const RING: RingId = RingId::from_bytes([1; 32]);
const ID: FileId = FileId::from_bytes([2; 32]);

fn endpoint(network: &Network, host: u8) -> Endpoint {
    let key = SigningKey::from_seed(&[host; 32]);
    let config = EndpointConfig::listener(key, Profile::Peer, vec![Alpn::Peer]);
    let addr: SocketAddr = ([10, 0, 0, host], 9000).into();
    Endpoint::bind_on(network.bind(addr).unwrap(), config).unwrap()
}

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

/// A seeder of one file of so many chunks, and a connection of somebody else to it.
async fn connected(
    network: &Network,
    chunks: u32,
) -> (Seeder, Endpoint, Connection, NamedTempFile) {
    let (one, two) = (endpoint(network, 1), endpoint(network, 2));
    let disk = MemoryDisk::default();
    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let library = Library::load(store).await.unwrap();
    let file = NamedTempFile::new().unwrap();
    file.as_file()
        .set_len((chunks * CHUNK_SIZE).into())
        .unwrap();
    let path = file.path().to_owned();
    let stamp = Stamp::of(&path.metadata().unwrap());
    let new = NewShare {
        group: group(),
        name: FileName::new("f").unwrap(),
        id: ID,
        sha256: Digest::from_bytes([3; 32]),
        path,
        stamp,
    };
    library.add(new).await.unwrap();
    let token_key = Some(token_key().verifying_key());
    let link = TrackerLink::new(one.clone(), Vec::new(), Some(RING), token_key);
    let ongoing = Ongoing::new(library.clone());
    let seeder = Seeder::new(library, ongoing, link);
    let (dialed, accepted) = tokio::join!(
        two.connect(one.local_addr(), Alpn::Peer, Expect::Any),
        one.accept()
    );
    let accepted = accepted.unwrap();
    let place = Crowd::new(1, 1).admit(&accepted).unwrap();
    tokio::spawn(seeder.clone().serve(accepted, place));
    (seeder, two, dialed.unwrap(), file)
}

fn token_key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// Asks for chunks, by a right that lasts.
async fn open(
    seeder: &Seeder,
    connection: &Connection,
    peer: PeerId,
) -> (SwarmAnswer, SendStream, RecvStream) {
    let (mut send, mut receive) = connection.open().await.unwrap();
    let open = Open::Swarm {
        grant: grant(seeder, peer, group()),
        group: group(),
        id: ID,
    };
    send.send(&open).await.unwrap();
    (receive.receive().await.unwrap(), send, receive)
}

fn grant(seeder: &Seeder, peer: PeerId, group: GroupName) -> Signed<Grant> {
    let expires = seeder
        .0
        .link
        .now()
        .saturating_add(Duration::from_secs(3600));
    let grant = Grant::V1 {
        ring: RING,
        group,
        user: UserName::new("u").unwrap(),
        peer,
        role: Role::Member,
        expires,
    };
    Signed::sign(&grant, &token_key())
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_right_ends_after_a_minute() {
    let network = Network::new(1);
    let (seeder, two, connection, _file) = connected(&network, 1).await;
    let start = Instant::now();
    // A grant for a group that is not shared here is no right, and everybody can have one.
    let own = GroupName::new("own").unwrap();
    let grant = grant(&seeder, two.peer_id(), own.clone());
    for open in [
        Open::Swarm {
            grant: grant.clone(),
            group: own.clone(),
            id: ID,
        },
        Open::Digests {
            grant,
            group: own,
            id: ID,
            page: 0,
        },
    ] {
        let (mut send, mut receive) = connection.open().await.unwrap();
        send.send(&open).await.unwrap();
        send.finish();
        match open {
            Open::Swarm { .. } => assert_eq!(
                receive.receive::<SwarmAnswer>().await.unwrap(),
                SwarmAnswer::Refused(PeerRefusal::Denied)
            ),
            Open::Digests { .. } => assert_eq!(
                receive.receive::<PageAnswer>().await.unwrap(),
                PageAnswer::Refused(PeerRefusal::Denied)
            ),
        }
    }
    // It is alive all the while, and is told why it ends.
    let lost = timeout(2 * STRANGER_LIFE, connection.closed())
        .await
        .unwrap();
    assert_eq!(lost.code(), Some(CloseCode::Unauthenticated));
    let took = start.elapsed();
    assert!(took >= STRANGER_LIFE - Duration::from_secs(1), "{took:?}");
    assert!(took < STRANGER_LIFE + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_takes_nothing_loses_the_place_and_who_is_quiet_later() {
    let network = Network::new(1);
    // More than a stream holds that nobody reads.
    let chunks = 40;
    let (seeder, two, connection, _file) = connected(&network, chunks).await;
    let mut streams = Vec::new();
    for _ in 0..SEED_STREAMS_PER_PEER_MAX {
        let (answer, send, receive) = open(&seeder, &connection, two.peer_id()).await;
        assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
        streams.push((send, receive));
    }
    let start = Instant::now();
    for index in 0..chunks {
        let request = SwarmRequest::Chunk { index };
        streams[0].0.send(&request).await.unwrap();
    }
    let (answer, ..) = open(&seeder, &connection, two.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Refused(PeerRefusal::Busy));
    // Nothing is to be seen of it but that there is a place.
    let places = |count: usize| {
        let seeder = seeder.clone();
        async move {
            while seeder.0.streams.served().values().sum::<usize>() > count {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    places(SEED_STREAMS_PER_PEER_MAX - 1).await;
    let took = start.elapsed();
    assert!(took >= SEED_STALL_MAX, "{took:?}");
    assert!(took < SEED_STALL_MAX + Duration::from_secs(5), "{took:?}");
    let (answer, ..) = open(&seeder, &connection, two.peer_id()).await;
    assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
    // Those who say nothing at all keep theirs for longer, and not for ever.
    places(0).await;
    let took = start.elapsed();
    assert!(took >= STREAM_IDLE_MAX - Duration::from_secs(1), "{took:?}");
    assert!(took < STREAM_IDLE_MAX * 2, "{took:?}");
    assert_eq!(connection.close_reason(), None, "they had a right");
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_told_what_others_ask_for_and_not_what_it_asks_for_itself() {
    let network = Network::new(1);
    let (seeder, two, connection, _file) = connected(&network, 4).await;
    let (_, mut first, to_first) = open(&seeder, &connection, two.peer_id()).await;
    let mut to_first = Taken::of(to_first);
    let ask = |index| SwarmRequest::Chunk { index };
    for index in [2, 1] {
        first.send(&ask(index)).await.unwrap();
    }
    assert_eq!(to_first.chunk().await, 2);
    assert_eq!(to_first.chunk().await, 1);
    // Also who comes later.
    let (_, mut second, to_second) = open(&seeder, &connection, two.peer_id()).await;
    let mut to_second = Taken::of(to_second);
    let have = |index| ChunkHeader::Have { index };
    assert_eq!(to_second.header().await, have(1));
    assert_eq!(to_second.header().await, have(2));
    // Each is told once, though it be asked for again.
    for index in [2, 3, 4] {
        second.send(&ask(index)).await.unwrap();
    }
    assert_eq!(to_second.chunk().await, 2);
    assert_eq!(to_first.header().await, have(3));
    assert_eq!(to_second.chunk().await, 3);
    let lacking = ChunkHeader::Lacking { index: 4 };
    assert_eq!(to_second.header().await, lacking, "there is none");
    first.send(&ask(0)).await.unwrap();
    assert_eq!(to_first.chunk().await, 0);
    assert_eq!(to_second.header().await, have(0));
}

/// What comes on a swarm stream.
struct Taken {
    receive: RecvStream,
    reader: ChunkReader,
    piece: Bytes,
}

impl Taken {
    fn of(receive: RecvStream) -> Self {
        Self {
            receive,
            reader: ChunkReader::default(),
            piece: Bytes::new(),
        }
    }

    async fn part(&mut self) -> ChunkPart {
        loop {
            if let Some(part) = self.reader.next(&mut self.piece).unwrap() {
                return part;
            }
            let mut pieces = [Bytes::new()];
            let received = self.receive.receive_bytes(&mut pieces).await;
            assert!(received.unwrap().is_some(), "the stream goes on");
            [self.piece] = pieces;
        }
    }

    async fn header(&mut self) -> ChunkHeader {
        match self.part().await {
            ChunkPart::Header(header) => header,
            ChunkPart::Bytes(_) => panic!("bytes of no chunk"),
        }
    }

    /// Takes a chunk, and gives its index.
    async fn chunk(&mut self) -> u32 {
        let ChunkHeader::Chunk { index, length } = self.header().await else {
            panic!("no chunk");
        };
        let mut missing = length as usize;
        while missing > 0 {
            match self.part().await {
                ChunkPart::Bytes(bytes) => missing -= bytes.len(),
                ChunkPart::Header(header) => panic!("{header:?} within a chunk"),
            }
        }
        index
    }
}
