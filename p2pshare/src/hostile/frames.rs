//! Garbage, and frames that are cut short or too long, at every port: whoever sends them loses the connection
//! with a code that says why, and nobody else notices.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use rand::RngExt;
use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};

use super::*;
use crate::{
    limits::STRANGER_REQUEST_BYTES_MAX,
    transport::CloseCode,
    wire::{
        frame::{Message, encode},
        peer::{Open, SwarmAnswer, SwarmRequest},
        tracker::{Announcement, tests as samples},
    },
};

/// Bytes that a stream may consist of but should not, and what they are answered with.
struct Bad {
    what: &'static str,
    bytes: Vec<u8>,
    code: CloseCode,
}

fn bad(what: &'static str, bytes: impl Into<Vec<u8>>, code: CloseCode) -> Bad {
    Bad {
        what,
        bytes: bytes.into(),
        code,
    }
}

fn header(kind: u16, length: u32) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &length.to_le_bytes()].concat()
}

fn frame<M: Message>(message: &M) -> Vec<u8> {
    encode(message).unwrap()
}

/// What can be wrong with the frames of `M`, of which `good` is one of another kind than `foreign`.
fn bad_frames<M: Message>(good: Vec<u8>, foreign: Vec<u8>) -> Vec<Bad> {
    use CloseCode::{FrameTooLong, ProtocolError};
    let (kind, max) = (M::KIND, M::BODY_BYTES_MAX as u32);
    let garbage: [u8; 300] = std::array::from_fn(|at| mix((0x5f, at)));
    let last = good.len() - 1;
    let mut shorter = good.clone();
    shorter[2] -= 1;
    vec![
        bad("garbage", garbage, ProtocolError),
        bad("zeros", [0; 64], ProtocolError),
        bad("an HTTP request", *b"GET / HTTP/1.1\r\n\r\n", ProtocolError),
        bad("nothing at all", [], ProtocolError),
        bad("half a header", &good[..3], ProtocolError),
        bad("a header alone", &good[..6], ProtocolError),
        bad("a body cut short", &good[..last], ProtocolError),
        bad("a length that cuts the body short", shorter, ProtocolError),
        bad("an empty body", header(kind, 0), ProtocolError),
        bad(
            "a body of no message",
            [header(kind, 9), vec![0xff; 9]].concat(),
            ProtocolError,
        ),
        bad("a frame of another protocol", foreign, ProtocolError),
        bad("a kind that is none", header(0xffff, 0), ProtocolError),
        bad("a length one too long", header(kind, max + 1), FrameTooLong),
        bad("an endless length", header(kind, u32::MAX), FrameTooLong),
        bad(
            "an endless length and what begins to fill it",
            [header(kind, u32::MAX), vec![7; 100_000]].concat(),
            FrameTooLong,
        ),
        bad(
            "a length within a message that is endless",
            [header(kind, 10), vec![0xff; 9], vec![1]].concat(),
            ProtocolError,
        ),
    ]
}

/// Sends `bytes` on a stream of its own and gives the code with which the connection is closed for it.
async fn closed_for(connection: &Connection, bytes: &[u8]) -> Option<CloseCode> {
    let (mut send, _receive) = connection.open().await.unwrap();
    // The other side need not hear all of it.
    if send.send_bytes(Bytes::copy_from_slice(bytes)).await.is_ok() {
        send.finish();
    }
    let lost = timeout(WITHIN, connection.closed()).await;
    lost.expect("the connection is closed").code()
}

/// Somebody who asks one thing after another on one connection, and gets his answer each time.
struct Innocent {
    asks: JoinHandle<()>,
    answers: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Innocent {
    fn new<F: Future<Output = ()> + Send>(mut ask: impl FnMut() -> F + Send + 'static) -> Self {
        let (answers, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (answers.clone(), stop.clone());
        let asks = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                ask().await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            asks,
            answers,
            stop,
        }
    }

    /// Waits for answers to questions that were asked after now.
    async fn is_served(&self) {
        let before = self.answers.load(Ordering::Relaxed);
        let served = async {
            while self.answers.load(Ordering::Relaxed) < before + 2 {
                assert!(!self.asks.is_finished(), "an innocent one was not served");
                tokio::task::yield_now().await;
            }
        };
        timeout(WITHIN, served)
            .await
            .expect("an innocent one is served");
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.asks.await.expect("an innocent one was served");
    }
}

/// A member who asks the tracker for a grant, again and again.
fn innocent_at_tracker(member: &RawUser, group: &GroupName) -> Innocent {
    let (connection, group) = (member.connection.clone(), group.clone());
    Innocent::new(move || {
        let (connection, group) = (connection.clone(), group.clone());
        async move {
            let answer = ask(&connection, Request::Grant { group }).await;
            assert!(matches!(answer, Response::Granted { .. }), "{answer:?}");
        }
    })
}

/// Somebody who may read, and opens a swarm at a peer again and again.
fn innocent_at_peer(connection: &Connection, open: &Open) -> Innocent {
    let (connection, open) = (connection.clone(), open.clone());
    Innocent::new(move || {
        let (connection, open) = (connection.clone(), open.clone());
        async move {
            let (mut send, mut receive) = connection.open().await.unwrap();
            send.send(&open).await.unwrap();
            let answer: SwarmAnswer = receive.receive().await.unwrap();
            assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
        }
    })
}

#[tokio::test]
async fn bad_frames_at_a_tracker_end_their_connection_alone() {
    let world = World::new().await;
    let (bob, own) = (world.raw_user("bob").await, group("own"));
    bob.create_group(&own).await;
    let innocent = innocent_at_tracker(&bob, &own);
    let grant = bob.grant(&own).await;
    let renew = SwarmRequest::Renew { grant };
    let list = frame(&Request::ListGroups { cursor: Vec::new() });
    let mut all = bad_frames::<Request>(frame(&Request::Grant { group: own }), frame(&renew));
    let code = CloseCode::ProtocolError;
    all.push(bad("two requests on a stream", list.repeat(2), code));
    all.push(bad(
        "a request and a byte",
        [&list[..], &[0]].concat(),
        code,
    ));
    let answer = frame(&Response::Done);
    all.push(bad("an answer", answer, code));
    let long = header(Request::KIND, STRANGER_REQUEST_BYTES_MAX as u32 + 1);
    let code = CloseCode::FrameTooLong;
    all.push(bad("more than a stranger may say", long, code));
    for Bad { what, bytes, code } in all {
        let stranger = world.stranger();
        let connection = stranger.dial_tracker().await;
        assert_eq!(closed_for(&connection, &bytes).await, Some(code), "{what}");
        innocent.is_served().await;
    }
    // Every request, cut anywhere.
    for (what, request) in samples::requests() {
        let whole = frame(&request);
        let stranger = world.stranger();
        for end in [7, whole.len() / 2, whole.len() - 1] {
            let bytes = &whole[..end.min(whole.len() - 1)];
            let connection = stranger.dial_tracker().await;
            let closed = closed_for(&connection, bytes).await;
            assert_eq!(
                closed,
                Some(CloseCode::ProtocolError),
                "{what} cut at {end}"
            );
        }
    }
    innocent.end().await;
    assert_eq!(bob.connection.close_reason(), None);
}

#[tokio::test]
async fn bad_frames_at_a_peer_end_their_connection_alone() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let bob = world.raw_user("bob").await;
    bob.join(&photos, &alice).await;
    let open = Open::Swarm {
        grant: bob.grant(&photos).await,
        group: photos,
        id: file.id(),
    };
    let connection = bob.stranger.dial_peer(alice.peer()).await;
    let innocent = innocent_at_peer(&connection, &open);
    for Bad { what, bytes, code } in bad_frames::<Open>(frame(&open), frame(&Request::Hello)) {
        let stranger = world.stranger();
        let connection = stranger.dial_peer(alice.peer()).await;
        assert_eq!(closed_for(&connection, &bytes).await, Some(code), "{what}");
        innocent.is_served().await;
    }
    // And behind the opening of a swarm, by somebody who may.
    let good = frame(&SwarmRequest::Chunk { index: 0 });
    for Bad { what, bytes, code } in bad_frames::<SwarmRequest>(good, frame(&open)) {
        if bytes.is_empty() {
            // That is how a swarm ends.
            continue;
        }
        let stranger = bob.stranger.dial_peer(alice.peer()).await;
        let bytes = [frame(&open), bytes].concat();
        assert_eq!(closed_for(&stranger, &bytes).await, Some(code), "{what}");
        innocent.is_served().await;
    }
    innocent.end().await;
    assert_eq!(connection.close_reason(), None);
}

#[tokio::test]
async fn who_gives_up_or_asks_for_too_much_breaks_nothing() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let bob = world.raw_user("bob").await;
    bob.join(&photos, &alice).await;
    let to_peer = bob.stranger.dial_peer(alice.peer()).await;
    // Streams that are given up in the middle of a frame are no breach of protocol.
    let hello = frame(&Request::Hello);
    for connection in [&bob.connection, &to_peer] {
        for _ in 0..100 {
            let (mut send, _receive) = connection.open().await.unwrap();
            send.send_bytes(Bytes::copy_from_slice(&hello[..2]))
                .await
                .unwrap();
            send.reset(CloseCode::Cancelled);
        }
    }
    // The longest request there can be is read to its end and refused for what it says.
    let long = Announcement {
        number: 1,
        addrs: vec![loopback(); 20_000],
        anew: true,
        swarms: Vec::new(),
    };
    let refusal = bob.refused(Request::Announce(long)).await;
    assert_eq!(refusal, Refusal::BadRequest);
    let open = Open::Swarm {
        grant: bob.grant(&photos).await,
        group: photos,
        id: file.id(),
    };
    let innocent = innocent_at_peer(&to_peer, &open);
    innocent.is_served().await;
    innocent.end().await;
    assert_eq!(bob.connection.close_reason(), None);
    assert_eq!(to_peer.close_reason(), None);
}

#[tokio::test]
async fn garbage_datagrams_are_noticed_by_nobody() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let bob = world.raw_user("bob").await;
    bob.join(&photos, &alice).await;
    let open = Open::Swarm {
        grant: bob.grant(&photos).await,
        group: photos.clone(),
        id: file.id(),
    };
    let to_peer = bob.stranger.dial_peer(alice.peer()).await;
    let innocents = [
        innocent_at_tracker(&bob, &photos),
        innocent_at_peer(&to_peer, &open),
    ];
    let ports = [
        world.tracker.addr(),
        world.tracker.dht_addr(),
        alice.peer().local_addr(),
    ];
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let mut random = rand::rng();
    for round in 0..2_000 {
        let mut datagram = vec![0; random.random_range(1..1_400)];
        random.fill(&mut datagram[..]);
        match round % 4 {
            // As the first packet of a connection begins: of this version, and of one that is none.
            0 if datagram.len() > 5 => datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]),
            1 if datagram.len() > 5 => datagram[..5].copy_from_slice(&[0xc3, 9, 9, 9, 9]),
            // As a packet of an open connection begins.
            2 => datagram[0] = 0x40,
            _ => {}
        }
        socket.send_to(&datagram, ports[round % 3]).await.unwrap();
    }
    for innocent in innocents {
        innocent.is_served().await;
        innocent.end().await;
    }
    assert_eq!(bob.connection.close_reason(), None);
    assert_eq!(to_peer.close_reason(), None);
    let stranger = world.stranger();
    let connection = stranger.dial_tracker().await;
    let answer = ask(&connection, Request::Hello).await;
    assert!(matches!(answer, Response::Welcome(_)), "{answer:?}");
    stranger.dial_peer(alice.peer()).await;
}
