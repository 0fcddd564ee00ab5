//! Sources that go silent or trickle, over the network in memory, where two minutes pass in no time.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use tokio::task::JoinHandle;

use super::*;
use crate::{
    content::{CHUNK_SIZE, Digest, Layout, ManifestBuilder},
    identity::{RingId, key::SigningKey, token::samples},
    limits::{PACED_PIECE_BYTES, RATE_MIN},
    peer::{
        library::{Library, PageRow},
        link::TrackerLink,
        pace::Rate,
        picker::Order,
    },
    store::{MemoryDisk, Store, StoreKind},
    transport::{EndpointConfig, Profile, memory::Network},
};

pub(in super::super) const CHUNKS: u32 = 3;

fn endpoint(network: &Network, host: u8) -> Endpoint {
    let key = SigningKey::from_seed(&[host; 32]);
    let config = EndpointConfig::listener(key, Profile::Peer, vec![Alpn::Peer]);
    let addr: SocketAddr = ([10, 0, 0, host], 9000).into();
    Endpoint::bind_on(network.bind(addr).unwrap(), config).unwrap()
}

fn chunk(index: u32) -> Bytes {
    vec![index as u8; CHUNK_SIZE as usize].into()
}

async fn download(network: &Network) -> (Arc<Shared>, mpsc::Receiver<Write>) {
    download_of(network, CHUNKS).await
}

/// A download of a few chunks, of which all digests are known.
pub(in super::super) async fn download_of(
    network: &Network,
    chunks: u32,
) -> (Arc<Shared>, mpsc::Receiver<Write>) {
    let layout = Layout::new(u64::from(chunks * CHUNK_SIZE)).unwrap();
    let mut builder = ManifestBuilder::new(layout);
    let digests: Vec<_> = (0..chunks).map(|index| Digest::of(&chunk(index))).collect();
    for digest in &digests {
        builder.push(*digest).unwrap();
    }
    let id = builder.finish().unwrap().id();
    let disk = MemoryDisk::default();
    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let library = Library::load(store).await.unwrap();
    let proof = Vec::new();
    let page = PageRow::V1 { digests, proof };
    library.put_pages(id, vec![(0, page)]).await.unwrap();
    let (endpoint, ring) = (endpoint(network, 1), RingId::from_bytes([1; 32]));
    let link = TrackerLink::new(endpoint.clone(), Vec::new(), Some(ring), None);
    let (grants, group) = (Grants::new(link), GroupName::new("g").unwrap());
    grants.plant(&group, samples::signed(&samples::grant()));
    let (writes, written) = mpsc::channel(chunks as usize);
    let shared = Shared {
        endpoint,
        grants,
        group,
        pages: Pages::new(library, layout, id),
        picker: Mutex::new(Picker::new(
            layout,
            Bitfield::new(chunks),
            Order::OfTheFile,
            0,
        )),
        began: Instant::now(),
        news: watch::Sender::new(()),
        writes,
        intake: Intake::default(),
        received_bytes: AtomicU64::new(0),
        unwritten: AtomicU64::new(0),
        duplicate_bytes: AtomicU64::new(0),
        standings: Mutex::default(),
    };
    (Arc::new(shared), written)
}

/// What a holder does with whoever asks it for chunks.
#[derive(Copy, Clone, Debug)]
pub(in super::super) enum Manner {
    Gives,
    IsSilent,
    /// Gives one chunk, and breaks off.
    Breaks,
    /// Refuses for so many seconds, as it is busy, and gives then.
    IsBusy(u64),
    /// Is silent for so many seconds, and trickles then.
    IsLate(u64),
    /// So many bytes at once, and so many seconds between them.
    Trickles(usize, u64),
    /// Lets who asks wait for a place for so many seconds, and gives one chunk then before others have their turn.
    TakesTurns(u64),
}

/// A byte a second, which is just not silent.
const TRICKLES: Manner = Manner::Trickles(10, 10);

/// Somebody who has the whole file.
pub(in super::super) fn serve(network: &Network, host: u8, manner: Manner) -> Holder {
    let (endpoint, began) = (endpoint(network, host), Instant::now());
    let holder = Holder {
        peer: endpoint.peer_id(),
        addrs: vec![endpoint.local_addr()],
        holding: Holding::Complete,
    };
    tokio::spawn(async move {
        while let Some(connection) = endpoint.accept().await {
            while let Ok((send, receive)) = connection.accept().await {
                serve_stream(send, receive, manner, began).await;
            }
        }
    });
    holder
}

async fn serve_stream(
    mut send: SendStream,
    mut receive: RecvStream,
    manner: Manner,
    began: Instant,
) {
    receive.receive::<Open>().await.unwrap();
    match manner {
        Manner::TakesTurns(seconds) => {
            send.send(&SwarmAnswer::Waits).await.unwrap();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        Manner::IsBusy(seconds) if began.elapsed().as_secs() < seconds => {
            let busy = SwarmAnswer::Refused(PeerRefusal::Busy);
            send.send(&busy).await.unwrap();
            return send.finish();
        }
        _ => {}
    }
    let holding = Holding::Complete;
    if send.send(&SwarmAnswer::Opened { holding }).await.is_err() {
        return;
    }
    while let Ok(SwarmRequest::Chunk { index }) = receive.receive().await {
        give(&mut send, index, manner).await;
        match manner {
            Manner::Breaks => return send.finish(),
            Manner::TakesTurns(_) => {
                let over = ChunkHeader::TurnOver.encode();
                let over = Bytes::copy_from_slice(&over);
                let _ = send.send_bytes(over).await;
                return send.finish();
            }
            _ => {}
        }
    }
}

/// A source that is fetched from.
fn fetch(
    network: &Network,
    shared: &Arc<Shared>,
    host: u8,
    manner: Manner,
) -> JoinHandle<SourceEnd> {
    let holder = serve(network, host, manner);
    let (shared, (joined, _)) = (shared.clone(), mpsc::channel(1));
    tokio::spawn(async move { shared.fetch(host.into(), holder, joined).await.0 })
}

async fn give(send: &mut SendStream, index: u32, manner: Manner) {
    let length = CHUNK_SIZE;
    let header = ChunkHeader::Chunk { index, length }.encode();
    let header = Bytes::copy_from_slice(&header);
    match manner {
        Manner::IsSilent => {}
        Manner::Gives | Manner::Breaks | Manner::IsBusy(_) | Manner::TakesTurns(_) => {
            let sent = send.send_bytes(header).await;
            sent.unwrap();
            let _ = send.send_bytes(chunk(index)).await;
        }
        Manner::IsLate(_) | Manner::Trickles(..) => {
            let (bytes, seconds) = match manner {
                Manner::Trickles(bytes, seconds) => (bytes, seconds),
                _ => (10, 10),
            };
            if let Manner::IsLate(seconds) = manner {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            let mut ticks = tokio::time::interval(Duration::from_secs(seconds));
            let mut rest = Bytes::from([header, chunk(index)].concat());
            while !rest.is_empty() {
                ticks.tick().await;
                let piece = rest.split_to(bytes.min(rest.len()));
                if send.send_bytes(piece).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_or_trickles_loses_what_was_asked_of_it() {
    for (manner, patience) in [
        (Manner::IsSilent, SOURCE_SILENCE_MAX),
        (TRICKLES, CHUNK_DEADLINE),
        (Manner::Trickles(1000, 1), CHUNK_DEADLINE),
    ] {
        let network = Network::new(1);
        let (shared, _written) = download(&network).await;
        let start = Instant::now();
        let end = timeout(patience * 2, fetch(&network, &shared, 2, manner)).await;
        let end = end.expect("it is not waited for any longer").unwrap();
        assert!(matches!(end, SourceEnd::Silent), "{manner:?}: {end}");
        assert!(end.is_dropped() && !end.is_final());
        let took = start.elapsed();
        assert!(took >= patience, "{manner:?}: {took:?}");
        assert!(
            took < patience + Duration::from_secs(2),
            "{manner:?}: {took:?}"
        );
        assert!(shared.pick(|picker, _| picker.is_idle()));
        let all = Bitfield::full(CHUNKS);
        let again = shared.pick(|picker, now| {
            picker.join(9, all);
            picker.pick(9, now)
        });
        assert_eq!(again.map(ChunkIndex::get), Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_trickles_does_not_hold_up_the_end_of_a_download() {
    let network = Network::new(1);
    let (shared, mut written) = download(&network).await;
    let start = Instant::now();
    let trickles = fetch(&network, &shared, 2, TRICKLES);
    // All three chunks were asked of it before there was another.
    while shared.pick(|picker, _| picker.is_idle()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _gives = fetch(&network, &shared, 3, Manner::Gives);
    for _ in 0..CHUNKS {
        let write = timeout(Duration::from_secs(10), written.recv()).await;
        let write = write.expect("nobody waits for the slow one").unwrap();
        let bytes = write.pieces.concat();
        assert!(bytes == chunk(write.chunk.get()));
        assert!(shared.pick(|picker, _| picker.have(write.chunk)));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?}");
    let end = trickles.await.unwrap();
    assert!(matches!(end, SourceEnd::Outrun), "{end}");
    assert!(start.elapsed() < took + OUTRUN_PATIENCE * 2);
    assert!(shared.duplicate_bytes.load(Ordering::Relaxed) < 100);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_too_late_is_let_come_but_not_for_long() {
    let network = Network::new(1);
    let (shared, mut written) = download(&network).await;
    let (start, late) = (Instant::now(), 10);
    let is_late = fetch(&network, &shared, 2, Manner::IsLate(late));
    while shared.pick(|picker, _| picker.is_idle()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _gives = fetch(&network, &shared, 3, Manner::Gives);
    for _ in 0..CHUNKS {
        let write = timeout(Duration::from_secs(late), written.recv()).await;
        write.expect("the other gives everything").unwrap();
    }
    assert!(start.elapsed().as_secs() < late, "before it began");
    let end = is_late.await.unwrap();
    assert!(matches!(end, SourceEnd::Outrun), "{end}");
    let took = start.elapsed() - Duration::from_secs(late);
    assert!(took < OUTRUN_PATIENCE * 2, "{took:?}");
}

#[test]
fn a_chunk_in_very_many_pieces_is_kept_in_fewer() {
    let mut pieces = Pieces::default();
    let all: Vec<u8> = (0..CHUNK_SIZE).map(|at| at as u8).collect();
    for byte in &all {
        pieces.push(Bytes::copy_from_slice(&[*byte]));
        assert!(pieces.0.len() <= CHUNK_PIECES_MAX);
    }
    assert!(pieces.0.concat() == all);
}

/// When each chunk came, from now on.
async fn written(shared: &Shared, written: &mut mpsc::Receiver<Write>) -> Vec<Duration> {
    let (start, mut times) = (Instant::now(), Vec::new());
    for _ in 0..CHUNKS {
        let write = timeout(CHUNK_DEADLINE * 3, written.recv()).await;
        let write = write.expect("all chunks come").unwrap();
        assert!(shared.pick(|picker, _| picker.have(write.chunk)));
        times.push(start.elapsed());
    }
    times
}

fn seconds(times: &[Duration]) -> Vec<u64> {
    times.iter().map(Duration::as_secs).collect()
}

#[tokio::test(start_paused = true)]
async fn who_sends_at_the_lowest_rate_is_honest_and_not_silent() {
    let network = Network::new(1);
    let (shared, mut writes) = download(&network).await;
    let piece = PACED_PIECE_BYTES;
    let paced = Manner::Trickles(piece as usize, piece / RATE_MIN);
    let source = fetch(&network, &shared, 2, paced);
    let times = written(&shared, &mut writes).await;
    let one = u64::from(CHUNK_SIZE) / RATE_MIN;
    assert!(times[2].as_secs() >= one * 3 - 10, "{times:?}");
    assert!(matches!(source.await.unwrap(), SourceEnd::Over));
}

#[tokio::test(start_paused = true)]
async fn no_more_is_asked_for_than_a_limit_has_room_for() {
    let network = Network::new(1);
    let (shared, mut writes) = download(&network).await;
    // A chunk takes 26 s of it, longer than anybody may be silent; but nothing is asked of anybody then.
    let rate = Some(Rate::per_second(20_000).unwrap());
    shared.intake.set_rate(rate);
    let sources = [2, 3].map(|host| fetch(&network, &shared, host, Manner::Gives));
    let times = written(&shared, &mut writes).await;
    assert_eq!(seconds(&times), [0, 26, 52]);
    assert!(shared.intake.limiting().is_some());
    for source in sources {
        let end = source.await.unwrap();
        let is_through = matches!(end, SourceEnd::Over | SourceEnd::Exhausted);
        assert!(is_through, "{end}");
    }
    // Another limit counts at once.
    let network = Network::new(1);
    let (shared, mut writes) = download(&network).await;
    shared.intake.set_rate(rate);
    let _source = fetch(&network, &shared, 2, Manner::Gives);
    let intake = shared.intake.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        intake.set_rate(None);
    });
    let times = written(&shared, &mut writes).await;
    assert_eq!(seconds(&times), [0, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_takes_no_room_in_a_limit() {
    let network = Network::new(1);
    let (shared, _writes) = download(&network).await;
    // All three chunks are asked for at once, and take as many seconds of the limit.
    let second = u64::from(CHUNK_SIZE);
    shared
        .intake
        .set_rate(Some(Rate::per_second(100 * second).unwrap()));
    let silent = fetch(&network, &shared, 2, Manner::IsSilent);
    while shared.pick(|picker, _| picker.is_idle()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    shared.intake.take(100 * CHUNK_SIZE);
    silent.abort();
    assert!(silent.await.is_err());
    // Of the three the two that had not begun to come are given back.
    let room = Instant::now();
    shared.intake.room().await;
    let took = room.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_millis(985),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_told_to_wait_waits_and_who_had_its_turn_waits_again() {
    let network = Network::new(1);
    let (shared, mut writes) = download(&network).await;
    let source = fetch(&network, &shared, 2, Manner::TakesTurns(60));
    let times = written(&shared, &mut writes).await;
    assert_eq!(seconds(&times), [60, 120, 180]);
    source.await.unwrap();
    // Who gives turns that are worth nothing is not asked for another at once.
    let network = Network::new(1);
    let (shared, _writes) = download(&network).await;
    let source = fetch(&network, &shared, 3, Manner::TakesTurns(0));
    let end = source.await.unwrap();
    assert!(matches!(end, SourceEnd::TurnOver), "{end}");
    assert!(!end.is_dropped());
    // Nor is anybody waited for for ever.
    let (network, start) = (Network::new(1), Instant::now());
    let (shared, _writes) = download(&network).await;
    let source = fetch(&network, &shared, 4, Manner::TakesTurns(1_000_000));
    let end = source.await.unwrap();
    assert!(matches!(end, SourceEnd::Silent), "{end}");
    let took = start.elapsed();
    assert!(
        took >= SEED_WAIT_MAX && took < SEED_WAIT_MAX * 2,
        "{took:?}"
    );
}
