//! Sources that go silent or trickle, over the network in memory, where two minutes pass in no time.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use tokio::task::JoinHandle;

use super::*;
use crate::{
    content::{CHUNK_SIZE, Digest, Layout, ManifestBuilder},
    identity::{RingId, key::SigningKey, token::samples},
    peer::{
        library::{Library, PageRow},
        link::TrackerLink,
        picker::Order,
    },
    store::{MemoryDisk, Store, StoreKind},
    transport::{EndpointConfig, Profile, memory::Network},
};

const CHUNKS: u32 = 3;

fn endpoint(network: &Network, host: u8) -> Endpoint {
    let key = SigningKey::from_seed(&[host; 32]);
    let config = EndpointConfig::listener(key, Profile::Peer, vec![Alpn::Peer]);
    let addr: SocketAddr = ([10, 0, 0, host], 9000).into();
    Endpoint::bind_on(network.bind(addr).unwrap(), config).unwrap()
}

fn chunk(index: u32) -> Bytes {
    vec![index as u8; CHUNK_SIZE as usize].into()
}

/// A download of a few chunks, of which all digests are known.
async fn download(network: &Network) -> (Arc<Shared>, mpsc::Receiver<Write>) {
    let layout = Layout::new(u64::from(CHUNKS * CHUNK_SIZE)).unwrap();
    let mut builder = ManifestBuilder::new(layout);
    let digests: Vec<_> = (0..CHUNKS).map(|index| Digest::of(&chunk(index))).collect();
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
    let (writes, written) = mpsc::channel(CHUNKS as usize);
    let shared = Shared {
        endpoint,
        grants,
        group,
        pages: Pages::new(library, layout, id),
        picker: Mutex::new(Picker::new(
            layout,
            Bitfield::new(CHUNKS),
            Order::OfTheFile,
            0,
        )),
        began: Instant::now(),
        news: watch::Sender::new(()),
        writes,
        duplicate_bytes: AtomicU64::new(0),
    };
    (Arc::new(shared), written)
}

/// What a holder does with whoever asks it for chunks.
#[derive(Copy, Clone, Debug)]
enum Manner {
    Gives,
    IsSilent,
    /// A byte in ten seconds, which is just not silent.
    Trickles,
}

/// A source that is fetched from.
fn fetch(
    network: &Network,
    shared: &Arc<Shared>,
    host: u8,
    manner: Manner,
) -> JoinHandle<SourceEnd> {
    let endpoint = endpoint(network, host);
    let holder = Holder {
        peer: endpoint.peer_id(),
        addrs: vec![endpoint.local_addr()],
        holding: Holding::Complete,
    };
    tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap();
        let (mut send, mut receive) = connection.accept().await.unwrap();
        receive.receive::<Open>().await.unwrap();
        let holding = Holding::Complete;
        send.send(&SwarmAnswer::Opened { holding }).await.unwrap();
        while let Ok(SwarmRequest::Chunk { index }) = receive.receive().await {
            give(&mut send, index, manner).await;
        }
        connection.closed().await;
    });
    let (shared, (joined, _)) = (shared.clone(), mpsc::channel(1));
    tokio::spawn(shared.fetch(host.into(), holder, joined))
}

async fn give(send: &mut SendStream, index: u32, manner: Manner) {
    let length = CHUNK_SIZE;
    let header = ChunkHeader::Chunk { index, length }.encode();
    let header = Bytes::copy_from_slice(&header);
    match manner {
        Manner::IsSilent => {}
        Manner::Gives => {
            let sent = send.send_bytes(header).await;
            sent.unwrap();
            let _ = send.send_bytes(chunk(index)).await;
        }
        Manner::Trickles => {
            let mut ticks = tokio::time::interval(Duration::from_secs(10));
            let mut rest = Bytes::from([header, chunk(index)].concat());
            while send.send_bytes(rest.split_to(10)).await.is_ok() {
                ticks.tick().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_or_trickles_loses_what_was_asked_of_it() {
    for (manner, patience) in [
        (Manner::IsSilent, SOURCE_SILENCE_MAX),
        (Manner::Trickles, CHUNK_DEADLINE),
    ] {
        let network = Network::new(1);
        let (shared, _written) = download(&network).await;
        let start = Instant::now();
        let end = fetch(&network, &shared, 2, manner).await.unwrap();
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
    let trickles = fetch(&network, &shared, 2, Manner::Trickles);
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
