//! Links on a network in memory, with members that answer as a test says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::rand::SystemRandom;
use tokio::time::{Instant, timeout};

use super::*;
use crate::identity::PeerId;
use crate::identity::key::SigningKey;
use crate::identity::ring_key::RingKey;
use crate::identity::token::{Signed, TrackerCertificate};
use crate::limits::{
    IDLE_TIMEOUT, REPLICA_BATCH_TIMEOUT, REPLICA_BATCHES_UNDER_WAY, REPLICA_QUEUE_MAX,
    RING_HELLO_TIMEOUT,
};
use crate::time::Timestamp;
use crate::transport::memory::Network;
use crate::transport::{Alpn, EndpointConfig, Expect, Profile};
use crate::wire::ring::{
    Ballot, Epoch, ReplicaAnswers, ReplicaBatch, ReplicaCall, RowKey, Standing,
};

mod deserted;
mod hellos;

const CLOCKS: Clocks = Clocks {
    own: Timestamp::from_millis(7),
    ring: None,
};

/// A ring and its network.
struct World {
    network: Network,
    key: RingKey,
}

/// What a member is told by its links.
#[derive(Debug, PartialEq)]
enum Event {
    Link(MemberId, bool),
    Welcomed(TrackerAddr, Life),
    Hello(Life),
    Refused(Life, Refusal),
    Trouble(TrackerAddr, Option<Trouble>),
    Batch(MemberId, Vec<ReplicaRequest>),
}

/// How a member answers.
#[derive(Copy, Clone, PartialEq)]
enum Manner {
    /// At once and soundly.
    Prompt,
    /// Never what is written; reads at once.
    StuckWrites,
    /// Never anything.
    Stuck,
    /// One answer fewer than it was asked.
    OneShort,
    /// What belongs to another request.
    Wrong,
}

struct Member {
    hello: Mutex<Hello>,
    manner: Mutex<Manner>,
    events: mpsc::Sender<Event>,
    heard: AtomicU64,
    /// How many hellos it cannot answer.
    stunned: AtomicU64,
}

struct Node {
    links: Links<Member>,
    host: Arc<Member>,
    events: mpsc::Receiver<Event>,
}

impl Host for Member {
    fn hello(&self) -> Hello {
        self.hello.lock().unwrap().clone()
    }

    async fn welcome(&self, _: SocketAddr, hello: Hello) -> Result<Welcome, Refusal> {
        self.say(Event::Hello(hello.life));
        let stunned = &self.stunned;
        let less = |left: u64| left.checked_sub(1);
        if stunned
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
        {
            return Err(Refusal::Unavailable);
        }
        Ok(Welcome {
            hello: self.hello(),
            incarnation: 0,
            commits: 0,
        })
    }

    async fn welcomed(&self, addr: TrackerAddr, welcome: Welcome) -> Result<(), Refusal> {
        self.say(Event::Welcomed(addr, welcome.hello.life));
        Ok(())
    }

    fn parted(&self, _: &TrackerAddr) {}

    async fn refused(&self, life: Life, why: Refusal) {
        self.say(Event::Refused(life, why));
    }

    async fn answer(&self, from: MemberId, requests: Vec<ReplicaRequest>) -> Vec<ReplicaAnswer> {
        let manner = *self.manner.lock().unwrap();
        let mut answers: Vec<_> = requests.iter().map(sound_answer).collect();
        let writes = matches!(requests[0].call, ReplicaCall::Accept { .. });
        self.say(Event::Batch(from, requests));
        match manner {
            Manner::Prompt => {}
            Manner::StuckWrites if !writes => {}
            Manner::StuckWrites | Manner::Stuck => std::future::pending().await,
            Manner::OneShort => drop(answers.pop()),
            Manner::Wrong => answers.fill(ReplicaAnswer::Done),
        }
        answers
    }

    fn link_changed(&self, member: MemberId, up: bool) {
        self.say(Event::Link(member, up));
    }

    fn trouble(&self, addr: &TrackerAddr, trouble: Option<&Trouble>) {
        self.say(Event::Trouble(addr.clone(), trouble.cloned()));
    }

    fn clocks_and_commits(&self) -> (Clocks, u64) {
        (CLOCKS, 3)
    }

    fn heard(&self, _: MemberId, _: Clocks, _: Duration, _: u64) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }
}

impl Member {
    fn say(&self, event: Event) {
        self.events.try_send(event).unwrap();
    }
}

fn sound_answer(request: &ReplicaRequest) -> ReplicaAnswer {
    match &request.call {
        ReplicaCall::Accept { ballot, .. } => ReplicaAnswer::Accepted { ballot: *ballot },
        _ => ReplicaAnswer::Unavailable,
    }
}

impl World {
    fn new() -> Self {
        let founders = vec!["10.0.0.1:9000".parse().unwrap()];
        Self {
            network: Network::new(4),
            key: RingKey::generate(&SystemRandom::new(), founders).unwrap(),
        }
    }

    fn hello(&self, number: u8, incarnation: u64) -> Hello {
        let key = tls_key(number);
        hello_of(&self.key, number, incarnation, key.verifying_key().into())
    }

    fn endpoint(&self, number: u8) -> Endpoint {
        self.endpoint_that_speaks(number, Alpn::Ring)
    }

    fn endpoint_that_speaks(&self, number: u8, alpn: Alpn) -> Endpoint {
        let socket = self.network.bind(dht_addr(number)).unwrap();
        let config = EndpointConfig::listener(tls_key(number), Profile::Ring, vec![alpn]);
        Endpoint::bind_on(socket, config).unwrap()
    }

    /// A member that knows nobody yet.
    fn member(&self, number: u8) -> Node {
        self.life(number, 1)
    }

    fn life(&self, number: u8, incarnation: u64) -> Node {
        self.member_saying(number, self.hello(number, incarnation))
    }

    fn member_saying(&self, number: u8, hello: Hello) -> Node {
        self.member_on(self.endpoint(number), number, hello)
    }

    fn member_on(&self, endpoint: Endpoint, number: u8, hello: Hello) -> Node {
        let (sender, events) = mpsc::channel(100_000);
        let host = Arc::new(Member {
            hello: Mutex::new(hello),
            manner: Mutex::new(Manner::Prompt),
            events: sender,
            heard: AtomicU64::new(0),
            stunned: AtomicU64::new(0),
        });
        let links = Links::new(Some(endpoint), self.key.ring_id(), ring_member(number));
        links.start(Arc::downgrade(&host));
        Node {
            links,
            host,
            events,
        }
    }

    /// Members of one list, with all links up.
    async fn linked<const N: usize>(&self) -> [Node; N] {
        let mut nodes: [Node; N] = std::array::from_fn(|index| self.member(index as u8 + 1));
        for node in &nodes {
            node.links.set_members(&list(N as u8));
        }
        for node in &mut nodes {
            let mut up = 0;
            while up + 1 < N {
                if let Event::Link(_, true) = node.next().await {
                    up += 1;
                }
            }
        }
        nodes
    }
}

impl Node {
    /// The next thing that this member is told.
    async fn next(&mut self) -> Event {
        let next = timeout(Duration::from_secs(60), self.events.recv()).await;
        next.expect("something within a minute").unwrap()
    }

    /// Waits until it is told `wanted`.
    async fn until(&mut self, wanted: &Event) {
        while self.next().await != *wanted {}
    }

    /// Waits for trouble that is told.
    async fn trouble(&mut self) -> Trouble {
        loop {
            if let Event::Trouble(_, Some(trouble)) = self.next().await {
                return trouble;
            }
        }
    }

    fn behave(&self, manner: Manner) {
        *self.host.manner.lock().unwrap() = manner;
    }

    /// Asks one thing and waits: the answer, and how long it took.
    async fn ask(&self, to: u8, request: ReplicaRequest) -> (Input, Duration) {
        let (reply, mut answers) = mpsc::channel(1);
        let began = Instant::now();
        self.links.ask(id(to), request, &reply);
        let input = answers.recv().await.unwrap();
        (input, began.elapsed())
    }
}

fn hello_of(key: &RingKey, number: u8, incarnation: u64, peer: PeerId) -> Hello {
    let certificate = TrackerCertificate::V1 {
        ring: key.ring_id(),
        member: id(number),
        peer,
        token_key: key.token_key().verifying_key(),
        issued: Timestamp::from_millis(1),
    };
    Hello {
        certificate: Signed::sign(&certificate, &key.authority()),
        life: Life {
            member: id(number),
            incarnation,
        },
        addr: addr(number),
        standing: Standing::Empty,
        commits: 1,
        clocks: CLOCKS,
    }
}

fn tls_key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

fn id(number: u8) -> MemberId {
    MemberId::from_bytes([number; 16])
}

fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn addr(number: u8) -> TrackerAddr {
    format!("10.0.0.{number}:9000").parse().unwrap()
}

fn dht_addr(number: u8) -> SocketAddr {
    SocketAddr::new(ip(number), 10_000)
}

fn ring_member(number: u8) -> RingMember {
    RingMember {
        id: id(number),
        addr: addr(number),
    }
}

fn list(members: u8) -> Vec<RingMember> {
    (1..=members).map(ring_member).collect()
}

fn read() -> ReplicaRequest {
    ReplicaRequest {
        epoch: Epoch::FOUNDING,
        call: ReplicaCall::Read {
            key: RowKey::new("a", "b").unwrap(),
        },
    }
}

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        ..Ballot::ZERO
    }
}

fn write(round: u64) -> ReplicaRequest {
    ReplicaRequest {
        epoch: Epoch::FOUNDING,
        call: ReplicaCall::Accept {
            key: RowKey::new("a", "b").unwrap(),
            ballot: ballot(round),
            state: Default::default(),
        },
    }
}

fn is_failed(input: &Input) -> bool {
    matches!(input, Input::Failed { .. })
}

#[tokio::test(start_paused = true)]
async fn each_of_many_asks_gets_its_own_answer_from_others_and_from_itself() {
    let world = World::new();
    let [mut one, mut two] = world.linked().await;
    const ASKS: u64 = 3000;
    for to in [1, 2] {
        let mut replies = Vec::new();
        for round in 0..ASKS {
            let (reply, answers) = mpsc::channel(1);
            one.links.ask(id(to), write(round), &reply);
            replies.push(answers);
        }
        for (round, mut answers) in (0..).zip(replies) {
            match answers.recv().await.unwrap() {
                Input::Answer {
                    from,
                    answer: ReplicaAnswer::Accepted { ballot: of },
                } => assert_eq!((from, of), (id(to), ballot(round))),
                other => panic!("{to} answered {round} with {other:?}"),
            }
            assert!(answers.recv().await.is_none(), "a second answer");
        }
    }
    for node in [&mut one, &mut two] {
        let mut asked = 0;
        let mut batches = 0;
        while asked < ASKS {
            if let Event::Batch(from, requests) = node.next().await {
                assert_eq!(from, id(1));
                asked += requests.len() as u64;
                batches += 1;
            }
        }
        assert!(
            batches <= 2 * REPLICA_BATCHES_UNDER_WAY,
            "{batches} batches"
        );
    }
    // Its welcome and its batches.
    assert!(one.host.heard.load(Ordering::Relaxed) > 3);
    // Who is no member is not asked.
    let (input, took) = one.ask(9, read()).await;
    assert!(is_failed(&input) && took.is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_fails_what_waits_at_once_and_comes_back_after_a_restart() {
    let world = World::new();
    let [mut one, two] = world.linked().await;
    two.behave(Manner::Stuck);
    let (reply, mut answers) = mpsc::channel(100_000);
    // Some are under way, the others wait for a place.
    let asks = 2000;
    for round in 0..asks {
        one.links.ask(id(2), write(round), &reply);
    }
    let began = Instant::now();
    let closing = tokio::spawn(async move { two.links.close().await });
    one.until(&Event::Link(id(2), false)).await;
    assert!(!one.links.is_up(id(2)));
    for _ in 0..asks {
        assert!(is_failed(&answers.recv().await.unwrap()));
    }
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "{:?}",
        began.elapsed()
    );
    let (input, took) = one.ask(2, read()).await;
    assert!(is_failed(&input) && took.is_zero());

    closing.await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let two = world.life(2, 2);
    two.links.set_members(&list(2));
    let began = Instant::now();
    let reborn = Life {
        member: id(2),
        incarnation: 2,
    };
    one.until(&Event::Welcomed(addr(2), reborn)).await;
    one.until(&Event::Link(id(2), true)).await;
    // The dial under way, and a pause.
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let (input, _) = one.ask(2, write(1)).await;
    assert!(!is_failed(&input));
}

#[tokio::test(start_paused = true)]
async fn a_one_way_partition_fails_asks_in_time_and_then_the_link() {
    let world = World::new();
    let [mut one, mut two] = world.linked().await;
    world.network.mute(ip(1), ip(2));
    for (node, other) in [(&one, 2), (&two, 1)] {
        let (input, took) = node.ask(other, write(1)).await;
        assert!(is_failed(&input));
        assert_eq!(took.as_secs(), REPLICA_BATCH_TIMEOUT.as_secs());
        assert!(node.links.is_up(id(other)));
    }
    let began = Instant::now();
    one.until(&Event::Link(id(2), false)).await;
    two.until(&Event::Link(id(1), false)).await;
    assert!(began.elapsed() < 2 * IDLE_TIMEOUT);
    world.network.heal();
    one.until(&Event::Link(id(2), true)).await;
    two.until(&Event::Link(id(1), true)).await;
    assert!(!is_failed(&one.ask(2, write(1)).await.0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_stalls_neither_others_nor_its_own_reads() {
    let world = World::new();
    let [one, two, three] = world.linked().await;
    two.behave(Manner::StuckWrites);
    let (reply, mut answers) = mpsc::channel(10);
    one.links.ask(id(2), write(1), &reply);
    let quick = Duration::from_millis(100);
    for (to, request) in [(3, write(1)), (1, write(1)), (2, read())] {
        let (input, took) = one.ask(to, request).await;
        assert!(!is_failed(&input) && took < quick, "{to}: {took:?}");
    }
    assert!(answers.try_recv().is_err());
    assert!(is_failed(&answers.recv().await.unwrap()));
    drop(three);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_fails_at_once() {
    let world = World::new();
    let [one, two] = world.linked().await;
    two.behave(Manner::Stuck);
    let (reply, mut answers) = mpsc::channel(100_000);
    for round in 0..2 * REPLICA_QUEUE_MAX as u64 {
        one.links.ask(id(2), write(round), &reply);
    }
    let mut failed = 0;
    while answers.try_recv().is_ok_and(|input| is_failed(&input)) {
        failed += 1;
    }
    assert_eq!(failed, REPLICA_QUEUE_MAX);
}

#[tokio::test(start_paused = true)]
async fn answers_that_do_not_fit_end_the_connection() {
    for manner in [Manner::OneShort, Manner::Wrong] {
        let world = World::new();
        let [mut one, two] = world.linked().await;
        two.behave(manner);
        let (input, took) = one.ask(2, write(1)).await;
        assert!(is_failed(&input) && took < Duration::from_secs(1));
        one.until(&Event::Link(id(2), false)).await;
        one.until(&Event::Link(id(2), true)).await;
    }
}

/// Somebody at 10.0.0.9 who is no p2pshare, and says what a test wants.
struct Rogue(Endpoint);

impl Rogue {
    async fn dial(&self, to: u8) -> Connection {
        let dialed = self.0.connect(dht_addr(to), Alpn::Ring, Expect::Any).await;
        dialed.unwrap()
    }

    /// Dials member 1 and says this hello: the welcome, or how the connection ends.
    async fn greet(&self, hello: &Hello) -> Result<(Connection, Welcome), ConnectionLost> {
        let connection = self.dial(1).await;
        match connection.request(hello, RING_HELLO_TIMEOUT).await {
            Ok(welcome) => Ok((connection, welcome)),
            Err(_) => Err(connection.closed().await),
        }
    }
}

/// The code with which a connection was closed by the other side, and what it said.
fn closed_with(lost: &ConnectionLost) -> (CloseCode, String) {
    let code = lost.code();
    (code.unwrap_or_else(|| panic!("{lost:?}")), lost.to_string())
}

#[tokio::test(start_paused = true)]
async fn what_is_new_is_said_until_it_was_heard_and_costs_no_link() {
    let world = World::new();
    let [mut one, mut two] = world.linked().await;
    while two.events.try_recv().is_ok() || one.events.try_recv().is_ok() {}
    two.host.stunned.store(2, Ordering::Relaxed);
    one.links.speak_anew();
    let life = world.hello(1, 1).life;
    let began = Instant::now();
    for _ in 0..3 {
        two.until(&Event::Hello(life)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!is_failed(&one.ask(2, write(1)).await.0));
    assert!(
        timeout(Duration::from_secs(50), two.until(&Event::Hello(life)))
            .await
            .is_err()
    );
    while let Ok(event) = one.events.try_recv() {
        assert_ne!(event, Event::Link(id(2), false));
    }
}

#[tokio::test(start_paused = true)]
async fn who_dials_may_refuse_too_and_whom_it_dialed_hears_why() {
    let world = World::new();
    let mut one = world.member(1);
    one.links.set_members(&[ring_member(1), ring_member(9)]);
    let rogue = Rogue(world.endpoint(9));
    for (code, why) in [
        (CloseCode::Forgotten, Refusal::Forgotten),
        (CloseCode::Outlived, Refusal::Outlived),
    ] {
        let (connection, welcome) = rogue.greet(&world.hello(9, 1)).await.unwrap();
        connection.close_with(code, "so it is");
        let told = Event::Refused(welcome.hello.life, why);
        one.until(&told).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dialer_says_what_is_wrong_where_a_member_belongs() {
    let members = [ring_member(1), ring_member(2)];
    // Another program, or an older version.
    let world = World::new();
    let mut one = world.member(1);
    one.links.set_members(&members);
    let other = world.endpoint_that_speaks(2, Alpn::Tracker);
    let listening = {
        let other = other.clone();
        tokio::spawn(async move { while other.accept().await.is_some() {} })
    };
    let trouble = one.trouble().await.to_string();
    assert!(
        trouble.contains("does not speak p2pshare-ring/1"),
        "{trouble}"
    );
    listening.abort();
    _ = listening.await;
    drop(other);

    // A tracker of another ring, which refuses first; then one that does not.
    let other_ring = World {
        network: world.network.clone(),
        ..World::new()
    };
    tokio::task::yield_now().await;
    let two = other_ring.member(2);
    assert_eq!(one.trouble().await, Trouble::OtherRing);
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn another_member_than_the_lists_is_not_taken_for_it() {
    let world = World::new();
    let mut one = world.member(1);
    let wiped = {
        let peer = tls_key(2).verifying_key().into();
        let hello = hello_of(&world.key, 7, 1, peer);
        world.member_saying(2, hello)
    };
    one.links.set_members(&list(2));
    let (expected, found) = (id(2), id(7));
    assert_eq!(
        one.trouble().await,
        Trouble::OtherMember { expected, found }
    );
    assert!(!one.links.is_up(id(2)));
    // It takes its former place, and says so at once.
    *wiped.host.hello.lock().unwrap() = world.hello(2, 5);
    wiped.links.become_member(id(2));
    let life = world.hello(2, 5).life;
    let began = Instant::now();
    assert_eq!(one.next().await, Event::Welcomed(addr(2), life));
    assert_eq!(one.next().await, Event::Trouble(addr(2), None));
    assert_eq!(one.next().await, Event::Link(id(2), true));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!is_failed(&one.ask(2, write(1)).await.0));
    assert!(!is_failed(&wiped.ask(2, write(1)).await.0));
}

#[tokio::test(start_paused = true)]
async fn founders_keep_their_links_when_they_become_members() {
    let world = World::new();
    let founders = [addr(1), addr(2)];
    let mut nodes = [world.member(1), world.member(2)];
    for node in &nodes {
        node.links.set_founders(&founders);
    }
    for (node, other) in nodes.iter_mut().zip([2, 1]) {
        let life = world.hello(other, 1).life;
        node.until(&Event::Welcomed(addr(other), life)).await;
        assert!(is_failed(&node.ask(other, read()).await.0));
    }
    for (node, other) in nodes.iter_mut().zip([2, 1]) {
        while node.events.try_recv().is_ok() {}
        node.links.set_members(&list(2));
        assert_eq!(node.next().await, Event::Link(id(other), true));
        assert!(!is_failed(&node.ask(other, read()).await.0));
    }
}
