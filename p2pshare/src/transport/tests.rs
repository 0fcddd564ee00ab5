//! The room as a whole, over the network in memory and, where the machine itself matters, over loopback.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::close::ConnectionLost;
use super::connection::DatagramError;
use super::endpoint::ConnectError;
use super::memory::{Link, Network};
use super::*;
use crate::identity::id::PeerId;
use crate::identity::key::SigningKey;
use crate::limits::{
    CONNECT_TIMEOUT, HANDSHAKES_UNPROVEN_MAX, IDLE_TIMEOUT, UDP_PAYLOAD_BYTES_MAX,
};
use crate::wire::frame::{FrameError, Message};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Question(Vec<u8>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answer(Vec<u8>);

impl Message for Question {
    const KIND: u16 = 1;
    const BODY_BYTES_MAX: usize = 2 << 20;
}

impl Message for Answer {
    const KIND: u16 = 2;
    const BODY_BYTES_MAX: usize = 2 << 20;
}

const WITHIN: Duration = Duration::from_secs(60);

fn key(host: u8) -> SigningKey {
    SigningKey::from_seed(&[host; 32])
}

fn id(host: u8) -> PeerId {
    key(host).verifying_key().into()
}

fn ip(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

fn addr(host: u8) -> SocketAddr {
    (ip(host), 9000).into()
}

fn listener(network: &Network, host: u8, profile: Profile, accept: &[Alpn]) -> Endpoint {
    let config = EndpointConfig::listener(key(host), profile, accept.to_vec());
    Endpoint::bind_on(network.bind(addr(host)).unwrap(), config).unwrap()
}

fn dialer(network: &Network, host: u8) -> Endpoint {
    let config = EndpointConfig::dialer(key(host));
    Endpoint::bind_on(network.bind(addr(host)).unwrap(), config).unwrap()
}

/// A dialer's and an accepting side of one new connection.
async fn connect(dialer: &Endpoint, alpn: Alpn, to: &Endpoint) -> (Connection, Connection) {
    let (dialed, accepted) = tokio::join!(
        dialer.connect(to.local_addr(), alpn, Expect::Peer(to.peer_id())),
        to.accept()
    );
    (dialed.unwrap(), accepted.unwrap())
}

fn at_once(at_once: usize) -> ServeLimits<impl Fn() -> usize> {
    ServeLimits {
        at_once,
        request_bytes: || usize::MAX,
        bodies: Bodies::default(),
    }
}

/// Answers every question with its own bytes, on every connection.
fn spawn_echo(endpoint: &Endpoint) -> tokio::task::JoinHandle<()> {
    let endpoint = endpoint.clone();
    tokio::spawn(async move {
        while let Some(connection) = endpoint.accept().await {
            tokio::spawn(async move { serve(&connection, at_once(8), echo).await });
        }
    })
}

async fn echo(question: Question, responder: Responder) {
    _ = responder.answer(&Answer(question.0)).await;
}

async fn ask(connection: &Connection, bytes: &[u8]) -> Result<Vec<u8>, RequestError> {
    let question = Question(bytes.to_vec());
    let answer: Answer = connection.request(&question, WITHIN).await?;
    Ok(answer.0)
}

#[tokio::test(start_paused = true)]
async fn both_ends_know_each_other() {
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Tracker, Alpn::Peer]);
    let two = dialer(&network, 2);
    for alpn in [Alpn::Tracker, Alpn::Peer] {
        let (dialed, accepted) = connect(&two, alpn, &one).await;
        assert_eq!(dialed.remote_peer(), id(1));
        assert_eq!(accepted.remote_peer(), id(2));
        assert_eq!(dialed.remote_addr(), addr(1));
        assert_eq!(accepted.remote_addr(), addr(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_protocol_that_is_not_spoken_there_is_refused() {
    let network = Network::new(1);
    let tracker = listener(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    let peer = dialer(&network, 2);
    let error = tokio::select! {
        connection = tracker.accept() => panic!("accepted {connection:?}"),
        dialed = peer.connect(addr(1), Alpn::Peer, Expect::Any) => dialed.unwrap_err(),
    };
    assert_eq!(
        error.to_string(),
        "10.0.0.1:9000 does not speak p2pshare-peer/1"
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_given_up() {
    let network = Network::new(1);
    let peer = dialer(&network, 2);
    let start = Instant::now();
    let error = peer.connect(addr(1), Alpn::Peer, Expect::Any).await;
    assert_eq!(error.unwrap_err(), ConnectError::NoAnswer { addr: addr(1) });
    assert!(start.elapsed() <= CONNECT_TIMEOUT + Duration::from_millis(2));
    peer.close(CloseCode::ShuttingDown);
    let error = peer.connect(addr(1), Alpn::Peer, Expect::Any).await;
    assert_eq!(error.unwrap_err(), ConnectError::Closed);
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_each_on_its_stream() {
    let network = Network::new(1);
    let tracker = listener(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    spawn_echo(&tracker);
    let peer = dialer(&network, 2);
    let dialed = peer.connect(addr(1), Alpn::Tracker, Expect::Any);
    let dialed = dialed.await.unwrap();
    let asked = (0..100).map(|number: u8| {
        let dialed = dialed.clone();
        tokio::spawn(async move { (ask(&dialed, &[number; 1000]).await, number) })
    });
    for task in asked.collect::<Vec<_>>() {
        let (answer, number) = task.await.unwrap();
        assert_eq!(answer, Ok(vec![number; 1000]));
    }
}

#[tokio::test(start_paused = true)]
async fn loss_and_latency_cost_time_and_nothing_else() {
    let network = Network::new(7);
    network.set_link(Link {
        latency: Duration::from_millis(20),
        loss: 0.05,
        ..Link::default()
    });
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    spawn_echo(&one);
    let two = dialer(&network, 2);
    let dialed = two.connect(addr(1), Alpn::Peer, Expect::Any).await.unwrap();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    assert_eq!(ask(&dialed, &bytes).await, Ok(bytes));
    let (_, lost) = network.counts();
    assert!(lost > 20, "{lost}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Peer, &one).await;
    let start = Instant::now();
    let after = Duration::from_secs(3);
    let answer = dialed.request::<_, Answer>(&Question(vec![1]), after).await;
    let error = answer.unwrap_err();
    let opened = true;
    assert_eq!(error, RequestError::TimedOut { after, opened });
    assert!(error.may_have_arrived());
    assert!(start.elapsed() < after + Duration::from_millis(5));
    // The other side hears that the answer is no longer wanted, and the connection lives on.
    let (send, mut receive) = accepted.accept().await.unwrap();
    assert_eq!(receive.receive_last().await, Ok(Question(vec![1])));
    assert!(send.stopped().await.unwrap().is_some());
    assert_eq!(dialed.close_reason(), None);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_was_not_sent() {
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    let two = dialer(&network, 2);
    let (dialed, _accepted) = connect(&two, Alpn::Peer, &one).await;
    let error = ask(&dialed, &vec![0; 3 << 20]).await.unwrap_err();
    assert!(matches!(error, RequestError::Unsendable(_)), "{error}");
    assert!(!error.may_have_arrived());
    assert_eq!(dialed.close_reason(), None);
    dialed.close(CloseCode::Done);
    let error = ask(&dialed, &[1]).await.unwrap_err();
    assert_eq!(error, RequestError::NotSent(ConnectionLost::ClosedHere));
}

#[tokio::test(start_paused = true)]
async fn who_breaks_the_protocol_is_closed_and_nobody_else_notices() {
    let bad: [(&[u8], CloseCode); 5] = [
        (&[1, 0, 0, 0, 0x30, 0], CloseCode::FrameTooLong),
        (&[9, 0, 1, 0, 0, 0, 0], CloseCode::ProtocolError), // another kind
        (&[1, 0, 2, 0, 0, 0, 9, 9], CloseCode::ProtocolError), // 9 bytes in a body of 2
        (&[1, 0, 9, 0, 0, 0, 1], CloseCode::ProtocolError), // ends early
        (&[1, 0, 1, 0, 0, 0, 0, 7], CloseCode::ProtocolError), // goes on
    ];
    let network = Network::new(1);
    let tracker = listener(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    spawn_echo(&tracker);
    let (good, evil) = (dialer(&network, 2), dialer(&network, 3));
    let good = good.connect(addr(1), Alpn::Tracker, Expect::Any);
    let good = good.await.unwrap();
    for (bytes, code) in bad {
        let evil = evil.connect(addr(1), Alpn::Tracker, Expect::Any);
        let evil = evil.await.unwrap();
        let (mut send, _receive) = evil.open().await.unwrap();
        send.send_bytes(Bytes::from_static(bytes)).await.unwrap();
        send.finish();
        let lost = timeout(WITHIN, evil.closed()).await.unwrap();
        assert_eq!(lost.code(), Some(code), "{bytes:?}: {lost}");
        assert_eq!(ask(&good, b"still there").await.unwrap(), b"still there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_answers_nonsense_is_closed() {
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Peer, &one).await;
    let (answer, ()) = tokio::join!(ask(&dialed, b"?"), async {
        let (mut send, mut receive) = accepted.accept().await.unwrap();
        let question: Question = receive.receive_last().await.unwrap();
        send.send(&question).await.unwrap();
        send.finish();
    });
    let unexpected = FrameError::UnexpectedKind {
        expected: 2,
        found: 1,
    };
    assert_eq!(answer, Err(ReceiveError::Frame(unexpected).into()));
    let lost = timeout(WITHIN, accepted.closed()).await.unwrap();
    assert_eq!(lost.code(), Some(CloseCode::ProtocolError));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_given_up_is_never_taken_for_whole() {
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Peer, &one).await;
    let (mut send, _receive) = dialed.open().await.unwrap();
    send.send(&Question(vec![1])).await.unwrap();
    let (_, mut receive) = accepted.accept().await.unwrap();
    assert_eq!(receive.receive_or_end().await, Ok(Some(Question(vec![1]))));
    drop(send);
    let end = receive.receive_or_end::<Question>().await;
    let Err(ReceiveError::Reset(code)) = end else {
        panic!("{end:?}");
    };
    assert_eq!(code.known(), Some(CloseCode::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_says_so_and_a_slow_request_is_dropped() {
    async fn fail(question: Question, responder: Responder) {
        match question.0.as_slice() {
            b"panic" => panic!("as the test wants it"),
            _ => drop(responder),
        }
    }
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Peer, &one).await;
    let served = tokio::spawn(async move { serve(&accepted, at_once(4), fail).await });
    for (question, expected) in [
        (&b"panic"[..], CloseCode::Internal),
        (b"drop", CloseCode::Internal),
    ] {
        match ask(&dialed, question).await {
            Err(RequestError::Unanswered(ReceiveError::Reset(code))) => {
                assert_eq!(code.known(), Some(expected));
            }
            other => panic!("{other:?}"),
        }
    }
    let (mut send, mut receive) = dialed.open().await.unwrap();
    send.send_bytes(Bytes::from_static(&[1, 0])).await.unwrap();
    match receive.receive::<Answer>().await {
        Err(ReceiveError::Reset(code)) => assert_eq!(code.known(), Some(CloseCode::TooSlow)),
        other => panic!("{other:?}"),
    }
    dialed.close(CloseCode::Done);
    assert_eq!(served.await.unwrap().code(), Some(CloseCode::Done));
}

#[tokio::test(start_paused = true)]
async fn no_more_is_served_at_once_than_was_said() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    async fn count(question: Question, responder: Responder) {
        let running = RUNNING.fetch_add(1, Ordering::Relaxed) + 1;
        MOST.fetch_max(running, Ordering::Relaxed);
        sleep(Duration::from_millis(100)).await;
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        echo(question, responder).await;
    }
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Peer, &one).await;
    tokio::spawn(async move { serve(&accepted, at_once(3), count).await });
    let asked = (0..12).map(|_| {
        let dialed = dialed.clone();
        tokio::spawn(async move { ask(&dialed, b"?").await.unwrap() })
    });
    for task in asked.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(MOST.load(Ordering::Relaxed), 3);
}

/// How many bytes the other side takes that nobody reads.
async fn fill(connection: &Connection, streams: usize) -> usize {
    let mut taken = 0;
    let mut open = Vec::new();
    for _ in 0..streams {
        let (mut send, receive) = connection.open().await.unwrap();
        while let Ok(sent) = timeout(
            Duration::from_secs(5),
            send.send_bytes(Bytes::from(vec![0; 64 * 1024])),
        )
        .await
        {
            sent.unwrap();
            taken += 64 * 1024;
        }
        open.push((send, receive));
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_make_a_tracker_hold_much() {
    let network = Network::new(1);
    let tracker = listener(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    let peer = dialer(&network, 2);
    let (dialed, accepted) = connect(&peer, Alpn::Tracker, &tracker).await;
    let taken = fill(&dialed, 6).await;
    assert_eq!(taken, 64 << 10);
    // A tracker opens no streams to peers.
    let opened = timeout(Duration::from_secs(60), accepted.open()).await;
    assert!(opened.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_kept_and_a_dead_one_is_noticed() {
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Tracker, &one).await;
    sleep(20 * IDLE_TIMEOUT).await;
    assert_eq!(dialed.close_reason(), None);
    assert_eq!(accepted.close_reason(), None);
    network.part(ip(1), ip(2));
    let start = Instant::now();
    assert_eq!(dialed.closed().await, ConnectionLost::TimedOut);
    assert_eq!(accepted.closed().await, ConnectionLost::TimedOut);
    assert!(start.elapsed() < IDLE_TIMEOUT + Duration::from_secs(6));
}

/// A listener that dies without a word and comes back; how the dialer's connection ends, and when.
async fn restart(keys: Option<&Path>) -> (ConnectionLost, Duration) {
    let network = Network::new(1);
    let start = || {
        let mut config = EndpointConfig::listener(key(1), Profile::Tracker, vec![Alpn::Tracker]);
        config.reset_keys = keys.map(Path::to_owned);
        Endpoint::bind_on(network.bind(addr(1)).unwrap(), config).unwrap()
    };
    let tracker = start();
    let peer = dialer(&network, 2);
    let (dialed, accepted) = connect(&peer, Alpn::Tracker, &tracker).await;
    network.part(ip(1), ip(2));
    drop(accepted);
    tracker.close(CloseCode::Done);
    tracker.wait_idle().await;
    drop(tracker);
    tokio::task::yield_now().await;
    let _tracker = start();
    network.heal();
    let begin = Instant::now();
    ask(&dialed, b"hello?").await.unwrap_err();
    (dialed.closed().await, begin.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_noticed_within_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let (lost, after) = restart(Some(dir.path())).await;
    assert_eq!(lost, ConnectionLost::Restarted);
    assert!(after <= Duration::from_millis(25), "{after:?}");

    let (lost, after) = restart(None).await;
    assert_eq!(lost, ConnectionLost::TimedOut);
    assert!(after > Duration::from_secs(10), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn datagrams_are_for_the_ring() {
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Ring, &[Alpn::Ring]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Ring, &one).await;
    let datagram = Bytes::from(vec![1; 1100]);
    for (from, to) in [(&dialed, &accepted), (&accepted, &dialed)] {
        from.send_datagram(datagram.clone()).unwrap();
        assert_eq!(to.receive_datagram().await.unwrap(), datagram);
    }
    let error = dialed.send_datagram(Bytes::from(vec![1; 2000]));
    assert!(matches!(error, Err(DatagramError::TooLong { .. })));

    let peer = listener(&network, 3, Profile::Peer, &[Alpn::Peer]);
    let (dialed, _accepted) = connect(&two, Alpn::Peer, &peer).await;
    assert_eq!(
        dialed.send_datagram(datagram),
        Err(DatagramError::NotSupported)
    );
}

#[tokio::test(start_paused = true)]
async fn half_open_connections_are_bounded_and_the_honest_get_through() {
    let network = Network::new(1);
    let tracker = listener(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    let (flood, honest) = (dialer(&network, 2), dialer(&network, 3));
    network.mute(ip(1), ip(2));
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..2 * HANDSHAKES_UNPROVEN_MAX {
        let flood = flood.clone();
        attempts.spawn(async move { flood.connect(addr(1), Alpn::Tracker, Expect::Any).await });
    }
    let accepted = tracker.accept();
    let dialed = async {
        sleep(Duration::from_secs(1)).await;
        honest.connect(addr(1), Alpn::Tracker, Expect::Any).await
    };
    let (accepted, dialed) = tokio::join!(accepted, dialed);
    assert_eq!(accepted.unwrap().remote_peer(), id(3));
    assert_eq!(dialed.unwrap().remote_peer(), id(1));
    assert_eq!(
        tracker.handshakes_under_way().await,
        HANDSHAKES_UNPROVEN_MAX
    );
    while let Some(attempt) = attempts.join_next().await {
        assert!(attempt.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_harms_nobody() {
    let network = Network::new(1);
    let tracker = listener(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    spawn_echo(&tracker);
    let peer = dialer(&network, 2);
    let dialed = peer.connect(addr(1), Alpn::Tracker, Expect::Any);
    let dialed = dialed.await.unwrap();
    let mut state = 1u32;
    for length in (0..2000).chain([64 * 1024]) {
        let mut bytes = vec![0; length];
        for byte in &mut bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        if length > 5 && length % 2 == 0 {
            bytes[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]); // as an Initial of QUIC v1 begins
        }
        // From strangers, and as if from the peer itself.
        network.send(addr(9), addr(1), &bytes);
        network.send(addr(2), addr(1), &bytes);
        network.send(addr(1), addr(2), &bytes);
        if length % 100 == 0 {
            assert_eq!(ask(&dialed, b"x").await.unwrap(), b"x");
        }
    }
    assert_eq!(ask(&dialed, b"x").await.unwrap(), b"x");
    let another = peer.connect(addr(1), Alpn::Tracker, Expect::Any);
    another.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_endpoints_leave_no_task() {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    let network = Network::new(1);
    let one = listener(&network, 1, Profile::Peer, &[Alpn::Peer]);
    let two = dialer(&network, 2);
    let (dialed, accepted) = connect(&two, Alpn::Peer, &one).await;
    // A handshake that never ends is under way, too.
    let three = dialer(&network, 3);
    network.mute(ip(1), ip(3));
    let hanging = three.connect(addr(1), Alpn::Peer, Expect::Any);
    assert!(timeout(Duration::from_secs(1), hanging).await.is_err());
    assert!(timeout(Duration::from_secs(1), one.accept()).await.is_err());
    assert!(alive() > before);
    drop((dialed, accepted, one, two, three));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(alive(), before);
}

#[tokio::test]
async fn loopback_finds_its_mtu_and_moves_large_answers() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = EndpointConfig::listener(key(1), Profile::Peer, vec![Alpn::Peer]);
    let one = Endpoint::bind(loopback, config).unwrap();
    spawn_echo(&one);
    let two = Endpoint::bind(loopback, EndpointConfig::dialer(key(2))).unwrap();
    assert_ne!(one.local_addr().port(), 0);
    let dialed = two.connect(one.local_addr(), Alpn::Peer, Expect::Peer(id(1)));
    let dialed = dialed.await.unwrap();
    let bytes = vec![7; 1 << 20];
    for _ in 0..200 {
        assert_eq!(ask(&dialed, &bytes).await.unwrap(), bytes);
        if dialed.mtu() == UDP_PAYLOAD_BYTES_MAX {
            return;
        }
    }
    panic!("the MTU is {} after 200 MiB", dialed.mtu());
}

#[tokio::test]
async fn ports_that_are_taken_or_dead_are_known_at_once() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let one = Endpoint::bind(loopback, EndpointConfig::dialer(key(1))).unwrap();
    let addr = one.local_addr();
    let error = Endpoint::bind(addr, EndpointConfig::dialer(key(2))).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("UDP port {} of 127.0.0.1 is in use", addr.port())
    );
    for elsewhere in ["[::1]:9000", "127.0.0.1:0", "0.0.0.0:9000"] {
        let dialed = one.connect(elsewhere.parse().unwrap(), Alpn::Peer, Expect::Any);
        let error = dialed.await.unwrap_err();
        assert!(error.to_string().contains("cannot be reached"), "{error}");
    }
    let two = Endpoint::bind(loopback, EndpointConfig::dialer(key(2))).unwrap();
    let dead = two.local_addr();
    drop(two);
    let refused = async {
        loop {
            // The socket of a dropped endpoint closes with its task.
            tokio::task::yield_now().await;
            let dialed = one.connect(dead, Alpn::Peer, Expect::Any).await;
            match dialed.unwrap_err() {
                ConnectError::NoAnswer { .. } => {}
                error => return error,
            }
        }
    };
    let error = timeout(2 * CONNECT_TIMEOUT, refused).await.unwrap();
    assert_eq!(
        error.to_string(),
        format!("{dead} cannot be reached: nobody listens on this port")
    );
}

#[tokio::test]
async fn an_endpoint_on_every_address_speaks_both_versions_of_ip() {
    let config = EndpointConfig::listener(key(1), Profile::Peer, vec![Alpn::Peer]);
    let Ok(one) = Endpoint::bind("[::]:0".parse().unwrap(), config) else {
        return; // a machine without IPv6
    };
    spawn_echo(&one);
    let port = one.local_addr().port();
    for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1")] {
        let two = Endpoint::bind(from.parse().unwrap(), EndpointConfig::dialer(key(2))).unwrap();
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let dialed = two.connect(to, Alpn::Peer, Expect::Any).await.unwrap();
        assert_eq!(ask(&dialed, b"x").await.unwrap(), b"x");
        assert_eq!(dialed.remote_addr(), to);
    }
}
