//! Those who show no right, and those who ask and do not take, over the network in memory.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use tempfile::NamedTempFile;

use super::*;
use crate::{
    content::{CHUNK_SIZE, Digest},
    identity::{FileName, RingId, Role, UserName, key::SigningKey},
    peer::{file::Stamp, library::NewShare, link::Connected},
    store::{MemoryDisk, Store, StoreKind},
    transport::{Alpn, Crowd, Endpoint, EndpointConfig, Expect, Profile, memory::Network},
};
use crate::{
    limits::{
        CANCELLED_READS_MAX, RATE_MIN, SEED_READ_AHEAD, SEED_STALL_MAX, SEED_STREAMS_PER_PEER_MAX,
        SEED_TURN, STREAM_IDLE_MAX,
    },
    wire::peer::{ChunkHeader, ChunkPart, ChunkReader, SwarmRequest},
};

const RING: RingId = RingId::from_bytes([1; 32]);
const ID: FileId = FileId::from_bytes([2; 32]);
const GRANT_LIFE_IN_TESTS: Duration = Duration::from_secs(3600);

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
    let (seeder, one, file) = seeder(network, chunks).await;
    let (two, dialed) = dial(network, &seeder, &one, 2).await;
    (seeder, two, dialed, file)
}

async fn seeder(network: &Network, chunks: u32) -> (Seeder, Endpoint, NamedTempFile) {
    let one = endpoint(network, 1);
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
        recorded: true,
    };
    library.add(new).await.unwrap();
    let token_key = Some(token_key().verifying_key());
    let link = TrackerLink::new(one.clone(), Vec::new(), Some(RING), token_key);
    let ongoing = Ongoing::new(library.clone());
    (Seeder::new(library, ongoing, link), one, file)
}

/// A connection of that host to the seeder at `one`.
async fn dial(
    network: &Network,
    seeder: &Seeder,
    one: &Endpoint,
    host: u8,
) -> (Endpoint, Connection) {
    let other = endpoint(network, host);
    let (dialed, accepted) = tokio::join!(
        other.connect(one.local_addr(), Alpn::Peer, Expect::Any),
        one.accept()
    );
    let accepted = accepted.unwrap();
    let place = Crowd::new(1, 1).admit(&accepted).unwrap();
    tokio::spawn(seeder.clone().serve(accepted, place));
    (other, dialed.unwrap())
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
    let expires = seeder.0.link.now().saturating_add(GRANT_LIFE_IN_TESTS);
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
async fn no_byte_goes_out_once_the_right_is_over_though_it_was_asked_for_in_time() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 80).await;
    seeder.set_rate(rate(16 * RATE_MIN));
    let (two, gone) = dial(&network, &seeder, &one, 2).await;
    let (three, stays) = dial(&network, &seeder, &one, 3).await;
    let (_send, mut ends) = ask(&seeder, &gone, two.peer_id(), 6).await;
    let (mut renews, mut goes_on) = ask(&seeder, &stays, three.peer_id(), 80).await;
    let link = &seeder.0.link;
    link.update_clock(link.now());
    // Who reaches no tracker cannot know better for a while.
    let over = GRANT_LIFE_IN_TESTS + CLOCK_TOLERANCE + Duration::from_secs(1);
    link.update_clock(link.now().saturating_add(over));
    let mut later = Instant::now() + Duration::from_secs(5);
    let before = ends.take(later).await;
    assert!(before.end.is_none() && before.bytes > 0, "{before:?}");
    // One shows another right.
    let grant = grant(&seeder, three.peer_id(), group());
    renews.send(&SwarmRequest::Renew { grant }).await.unwrap();
    later += Duration::from_secs(1);
    goes_on.take(later).await;
    link.pretend(Connected {
        tracker: "127.0.0.1:9000".parse().unwrap(),
        observed: one.local_addr(),
        serial: 1,
    });
    later += Duration::from_secs(5);
    let after = ends.take(later).await;
    match after.end {
        Some(ReceiveError::Reset(code)) => {
            assert_eq!(code.known(), Some(CloseCode::Unauthenticated));
        }
        _ => panic!("{after:?}"),
    }
    let of_two_seconds = 2 * 16 * RATE_MIN;
    assert!(after.bytes < of_two_seconds, "{after:?}");
    let taken = goes_on.take(later + Duration::from_secs(10)).await;
    assert!(taken.end.is_none(), "{taken:?}");
    assert!(taken.bytes > 8 * 16 * RATE_MIN, "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waited_until_the_right_was_over_is_refused_though_no_tracker_says_so() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 8).await;
    seeder.set_rate(rate(RATE_MIN));
    let (two, first) = dial(&network, &seeder, &one, 2).await;
    let (three, second) = dial(&network, &seeder, &one, 3).await;
    let (_send, mut receive) = ask(&seeder, &first, two.peer_id(), 8).await;
    let (answer, _waiting, mut waits) = open(&seeder, &second, three.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Waits);
    let link = &seeder.0.link;
    link.update_clock(link.now());
    let over = GRANT_LIFE_IN_TESTS + CLOCK_TOLERANCE + Duration::from_secs(1);
    link.update_clock(link.now().saturating_add(over));
    // What is open goes on to the end of its turn.
    let taken = receive.take(Instant::now() + SEED_WAIT_MAX).await;
    assert!(taken.turn_over && taken.end.is_none(), "{taken:?}");
    let answer = waits.receive::<SwarmAnswer>().await.unwrap();
    assert_eq!(answer, SwarmAnswer::Refused(PeerRefusal::Denied));
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
            while seeder.0.streams.count() > count {
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

/// A stream on which chunks come.
struct Chunks {
    receive: RecvStream,
    reader: ChunkReader,
}

/// What came on a stream, as far as it was taken.
#[derive(Debug)]
struct Taken {
    bytes: u64,
    chunks: u32,
    /// What ended it, if anything did.
    end: Option<ReceiveError>,
    /// Whether it was told that its turn is over.
    turn_over: bool,
}

impl Chunks {
    fn of(receive: RecvStream) -> Self {
        let reader = ChunkReader::default();
        Self { receive, reader }
    }

    /// Takes all that comes until then.
    async fn take(&mut self, until: Instant) -> Taken {
        let mut taken = Taken {
            bytes: 0,
            chunks: 0,
            end: None,
            turn_over: false,
        };
        loop {
            let mut pieces = [Bytes::new()];
            let received = self.receive.receive_bytes(&mut pieces);
            match tokio::time::timeout_at(until, received).await {
                Err(_) | Ok(Ok(None)) => return taken,
                Ok(Ok(Some(_))) => {}
                Ok(Err(error)) => {
                    taken.end = Some(error);
                    return taken;
                }
            }
            while let Some(part) = self.reader.next(&mut pieces[0]).unwrap() {
                match part {
                    ChunkPart::Bytes(bytes) => taken.bytes += bytes.len() as u64,
                    ChunkPart::Header(ChunkHeader::TurnOver) => taken.turn_over = true,
                    ChunkPart::Header(_) => taken.chunks += 1,
                }
            }
        }
    }
}

/// Opens a stream and asks for so many chunks on it.
async fn ask(
    seeder: &Seeder,
    connection: &Connection,
    peer: PeerId,
    chunks: u32,
) -> (SendStream, Chunks) {
    let (answer, mut send, receive) = open(seeder, connection, peer).await;
    assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
    for index in 0..chunks {
        send.send(&SwarmRequest::Chunk { index }).await.unwrap();
    }
    (send, Chunks::of(receive))
}

fn rate(bytes: u64) -> Option<Rate> {
    Some(Rate::per_second(bytes).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_and_is_shared_by_peers_whatever_each_asks_for() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 80).await;
    let mut limit = 1_000_000;
    seeder.set_rate(rate(limit));
    // One asks on three streams and for much, the other on one and for little at a time.
    let (two, greedy) = dial(&network, &seeder, &one, 2).await;
    let (three, modest) = dial(&network, &seeder, &one, 3).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(ask(&seeder, &greedy, two.peer_id(), 80).await);
    }
    streams.push(ask(&seeder, &modest, three.peer_id(), 80).await);
    // What was sent before all had asked.
    let settled = Instant::now() + Duration::from_secs(5);
    for (_, receive) in &mut streams {
        receive.take(settled).await;
    }
    for seconds in [20, 5] {
        let until = Instant::now() + Duration::from_secs(seconds);
        let before = seeder.sent_bytes();
        let mut taking = JoinSet::new();
        for (at, (send, mut receive)) in streams.drain(..).enumerate() {
            taking.spawn(async move {
                let taken = receive.take(until).await;
                (at, taken, send, receive)
            });
        }
        let (mut all, mut of_modest) = (0, 0);
        let mut back: Vec<_> = taking.join_all().await;
        back.sort_by_key(|(at, ..)| *at);
        for (at, taken, send, receive) in back {
            all += taken.bytes;
            if at == 3 {
                of_modest = taken.bytes;
            }
            streams.push((send, receive));
        }
        let expected = (limit * seconds) as f64;
        let near = |bytes: u64, of: f64| (bytes as f64 / of - 1.0).abs() < 0.05;
        assert!(near(all, expected), "{all} of {expected}");
        assert!(near(seeder.sent_bytes() - before, expected));
        assert!(near(of_modest, expected / 2.0), "{of_modest} of {all}");
        // Another limit counts while they are being served.
        limit = 4_000_000;
        seeder.set_rate(rate(limit));
    }
}

#[tokio::test(start_paused = true)]
async fn where_there_is_one_place_those_who_want_it_take_turns() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 8).await;
    seeder.set_rate(rate(RATE_MIN));
    let (two, first) = dial(&network, &seeder, &one, 2).await;
    let (three, second) = dial(&network, &seeder, &one, 3).await;
    let (_send, mut receive) = ask(&seeder, &first, two.peer_id(), 8).await;
    let start = Instant::now();
    let (answer, mut waiting, mut waits) = open(&seeder, &second, three.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Waits);
    // The first one's turn is over with the chunk that it is getting.
    let taken = receive.take(start + SEED_WAIT_MAX * 2).await;
    assert!(taken.turn_over && taken.end.is_none(), "{taken:?}");
    assert_eq!((taken.chunks, taken.bytes), (1, CHUNK_SIZE.into()));
    let answer = waits.receive::<SwarmAnswer>().await.unwrap();
    assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
    let took = start.elapsed();
    assert!(took >= SEED_TURN && took < SEED_WAIT_MAX, "{took:?}");
    // Now it is the first one that waits; of one who waits no longer nothing is left.
    let (answer, gone, _) = open(&seeder, &first, two.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Waits);
    drop(gone);
    for index in 0..8 {
        waiting.send(&SwarmRequest::Chunk { index }).await.unwrap();
    }
    let (answer, _send, mut again) = open(&seeder, &first, two.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Waits);
    let taken = Chunks::of(waits)
        .take(Instant::now() + SEED_WAIT_MAX * 2)
        .await;
    assert!(taken.turn_over, "{taken:?}");
    let answer = again.receive::<SwarmAnswer>().await.unwrap();
    assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_nothing_gives_the_place_to_who_waits() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 8).await;
    seeder.set_rate(rate(RATE_MIN));
    let (two, first) = dial(&network, &seeder, &one, 2).await;
    let (_send, mut receive) = ask(&seeder, &first, two.peer_id(), 1).await;
    let start = Instant::now();
    let taken = receive.take(start + SEED_TURN * 3).await;
    assert_eq!((taken.chunks, taken.bytes), (1, CHUNK_SIZE.into()));
    let (three, second) = dial(&network, &seeder, &one, 3).await;
    let (answer, _waiting, mut waits) = open(&seeder, &second, three.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Waits);
    let opened = timeout(Duration::from_secs(1), waits.receive::<SwarmAnswer>()).await;
    assert!(
        matches!(opened, Ok(Ok(SwarmAnswer::Opened { .. }))),
        "{opened:?}"
    );
    let second_had_it = Instant::now();
    assert!(receive.take(second_had_it + SEED_TURN / 2).await.turn_over);
    // It has its turn for itself too, though it asks for nothing.
    let (answer, _again, mut waits) = open(&seeder, &first, two.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Waits);
    let answer = waits.receive::<SwarmAnswer>().await.unwrap();
    assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
    let took = second_had_it.elapsed();
    assert!(took >= SEED_TURN - Duration::from_secs(1), "{took:?}");
    assert!(took < SEED_TURN + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_read_and_then_cancelled_is_sent_if_that_goes_on() {
    let network = Network::new(1);
    let (seeder, two, connection, _file) = connected(&network, 80).await;
    seeder.set_rate(rate(RATE_MIN));
    let (_, mut send, receive) = open(&seeder, &connection, two.peer_id()).await;
    let mut told = Told::of(receive);
    let mut given = 0;
    let mut cancelled = 0;
    for round in 0..3 {
        // One is being sent, and those behind it are read.
        let asked = round * 10..round * 10 + 1 + SEED_READ_AHEAD as u32;
        for index in asked.clone() {
            send.send(&SwarmRequest::Chunk { index }).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        for index in asked.clone().skip(1) {
            send.send(&SwarmRequest::Cancel { index }).await.unwrap();
        }
        assert_eq!(told.chunk().await, asked.start);
        for index in asked.skip(1) {
            match told.part().await {
                ChunkPart::Header(ChunkHeader::Cancelled { index: of }) => {
                    assert_eq!(of, index);
                    cancelled += 1;
                }
                ChunkPart::Header(ChunkHeader::Chunk { length, .. }) => {
                    told.bytes(length).await;
                    given += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // After the first round three were given, of which one came in spite of its cancel.
    assert_eq!((cancelled, given), (CANCELLED_READS_MAX + 3, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_that_it_is_busy() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 8).await;
    seeder.set_rate(rate(RATE_MIN));
    let (two, first) = dial(&network, &seeder, &one, 2).await;
    // It has the place and wants more than one, for which it can only wait.
    let (_send, mut receive) = ask(&seeder, &first, two.peer_id(), 8).await;
    let start = Instant::now();
    let (answer, _waiting, mut waits) = open(&seeder, &first, two.peer_id()).await;
    assert_eq!(answer, SwarmAnswer::Waits);
    let taken = tokio::spawn(async move { receive.take(start + SEED_WAIT_MAX * 2).await });
    let answer = waits.receive::<SwarmAnswer>().await.unwrap();
    assert_eq!(answer, SwarmAnswer::Refused(PeerRefusal::Busy));
    assert!(start.elapsed() >= SEED_WAIT_MAX);
    let taken = taken.await.unwrap();
    assert!(!taken.turn_over && taken.end.is_none(), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_takes_places_that_would_be_worth_too_little() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 80).await;
    seeder.set_rate(rate(1_000_000));
    let (two, first) = dial(&network, &seeder, &one, 2).await;
    let (three, second) = dial(&network, &seeder, &one, 3).await;
    let (_kept, mut stays) = ask(&seeder, &first, two.peer_id(), 80).await;
    let (_lost, mut ends) = ask(&seeder, &second, three.peer_id(), 80).await;
    let begun = Instant::now() + Duration::from_secs(2);
    assert!(stays.take(begun).await.end.is_none());
    seeder.set_rate(rate(RATE_MIN));
    let later = Instant::now() + Duration::from_secs(30);
    match ends.take(later).await.end {
        Some(ReceiveError::Reset(code)) => {
            assert_eq!(code.known(), Some(CloseCode::TooManyRequests));
        }
        other => panic!("{other:?}"),
    }
    let taken = stays.take(Instant::now() + Duration::from_secs(60)).await;
    assert!(taken.end.is_none() && taken.bytes > 0, "{taken:?}");
    assert_eq!(seeder.0.streams.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_told_what_others_ask_for_and_not_what_it_asks_for_itself() {
    let network = Network::new(1);
    let (seeder, two, connection, _file) = connected(&network, 4).await;
    let (_, mut first, to_first) = open(&seeder, &connection, two.peer_id()).await;
    let mut to_first = Told::of(to_first);
    let ask = |index| SwarmRequest::Chunk { index };
    for index in [2, 1] {
        first.send(&ask(index)).await.unwrap();
    }
    assert_eq!(to_first.chunk().await, 2);
    assert_eq!(to_first.chunk().await, 1);
    // Also who comes later.
    let (_, mut second, to_second) = open(&seeder, &connection, two.peer_id()).await;
    let mut to_second = Told::of(to_second);
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

#[tokio::test(start_paused = true)]
async fn at_a_limit_who_waits_for_a_turn_is_told_meanwhile_what_others_ask_for() {
    let network = Network::new(1);
    let (seeder, one, _file) = seeder(&network, 4).await;
    // The piece of a turn takes most of a second.
    seeder.set_rate(rate(20_000));
    let (two, of_two) = dial(&network, &seeder, &one, 2).await;
    let (three, of_three) = dial(&network, &seeder, &one, 3).await;
    let (_, mut first, to_first) = open(&seeder, &of_two, two.peer_id()).await;
    let mut to_first = Told::of(to_first);
    let ask = |index| SwarmRequest::Chunk { index };
    first.send(&ask(0)).await.unwrap();
    let header = to_first.header().await;
    assert!(matches!(header, ChunkHeader::Chunk { index: 0, .. }));
    let (_, mut second, to_second) = open(&seeder, &of_three, three.peer_id()).await;
    let mut to_second = Told::of(to_second);
    let have = |index| ChunkHeader::Have { index };
    assert_eq!(to_second.header().await, have(0));
    second.send(&ask(1)).await.unwrap();
    // By then it is read, and it is not yet its turn.
    tokio::time::sleep(Duration::from_millis(200)).await;
    first.send(&ask(2)).await.unwrap();
    assert_eq!(to_second.header().await, have(2));
    assert_eq!(to_second.chunk().await, 1);
}

/// What comes on a swarm stream.
struct Told {
    receive: RecvStream,
    reader: ChunkReader,
    piece: Bytes,
}

impl Told {
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
        self.bytes(length).await;
        index
    }

    async fn bytes(&mut self, length: u32) {
        let mut missing = length as usize;
        while missing > 0 {
            match self.part().await {
                ChunkPart::Bytes(bytes) => missing -= bytes.len(),
                ChunkPart::Header(header) => panic!("{header:?} within a chunk"),
            }
        }
    }
}
