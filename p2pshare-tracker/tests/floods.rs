//! Floods against a real tracker, from many addresses of this machine: whatever strangers do, its memory is bounded,
//! and whoever belongs there is served meanwhile.

// Only there every address of 127.0.0.0/8 is this machine's.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use p2pshare::{
    Access, GroupName, Password, Peer, Refusal, Session, SessionError, TrackerAddr, TrackerClient,
    UserName,
};
use quinn::{ConnectionError, VarInt};
use tempfile::TempDir;
use tokio::{
    net::UdpSocket,
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use attacker::{Answer, Attacker, address, ask, frame, request, send};

#[path = "floods/attacker.rs"]
mod attacker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_has_to_wait_and_the_right_user_gets_in() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let alice = world.user("alice").await;
    let peer = alice.peer().clone();
    let fresh = world.peer("fresh", 99).await;
    let guess = request::login("alice", "wrong");
    let mut guessers = Vec::new();
    for host in GUESSERS {
        let attacker = Attacker::new(host, world.addr);
        let connection = attacker.connect().await.unwrap();
        let mut guesses = 0;
        while ask(&connection, &guess).await == Some(Answer::InvalidCredentials) {
            guesses += 1;
        }
        guessers.push((attacker, connection, guesses));
    }
    let guesses = guessers.iter().map(|(_, _, guesses)| *guesses);
    let guesses: Vec<u32> = guesses.collect();
    // 5 from an address, and 20 at an account; few more where a guess takes so long that the wait is over.
    assert!(guesses.iter().all(|guesses| *guesses <= 6), "{guesses:?}");
    let all: u32 = guesses.iter().sum();
    assert!((20..=24).contains(&all), "{guesses:?}");

    // At a new machine she gets in after the wait that she is told.
    let refused = within(fresh.login(&user("alice"), &password())).await;
    let Err(SessionError::Refused(refusal @ Refusal::TooManyAttempts { wait })) = refused else {
        panic!("{refused:?}");
    };
    let told = refusal.to_string();
    let told = told.strip_prefix("too many attempts; try again in ");
    let told = told.and_then(|told| told.strip_suffix(" s")).unwrap();
    let told = Duration::from_secs(told.parse().unwrap());
    assert!(told >= wait && told < wait + Duration::from_secs(1));
    let over = Instant::now() + told;

    // They go on, and would take every moment at which somebody may try.
    let mut flood = JoinSet::new();
    for (attacker, connection, _) in guessers {
        let guess = guess.clone();
        flood.spawn(async move {
            while let Some(answer) = ask(&connection, &guess).await {
                assert_ne!(answer, Answer::LoggedIn);
            }
            drop(attacker);
        });
    }
    // At the machine that alice knows, she gets in at once.
    for _ in 0..3 {
        let again = within(peer.login(&user("alice"), &password())).await;
        again.unwrap();
    }
    sleep_until(over).await;
    let late = within(fresh.login(&user("alice"), &password())).await;
    late.unwrap();
    // Others never noticed.
    world.user("bob").await;
    flood.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_user_costs_what_a_known_one_does() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    world.user("alice").await;
    let mut fastest = [Duration::MAX; 2];
    let mut last = [None, None];
    // Both from addresses of their own, in turns, so that the machine's other work hits them alike.
    let attackers = [11, 12].map(|host| Attacker::new(host, world.addr));
    let mut connections = Vec::new();
    for attacker in &attackers {
        connections.push(attacker.connect().await.unwrap());
    }
    let (invalid, to_wait) = (
        [
            Some(Answer::InvalidCredentials),
            Some(Answer::InvalidCredentials),
        ],
        [Some(Answer::TooManyAttempts), Some(Answer::TooManyAttempts)],
    );
    // The waits get longer, so that also a slow machine comes to guess within one.
    for attempt in 0..20 {
        for (who, name) in ["alice", "nobody"].into_iter().enumerate() {
            let began = Instant::now();
            let answer = ask(&connections[who], &request::login(name, "wrong")).await;
            if answer == Some(Answer::InvalidCredentials) {
                fastest[who] = fastest[who].min(began.elapsed());
            }
            last[who] = answer;
        }
        if attempt < 5 {
            assert_eq!(last, invalid);
        } else if last == to_wait {
            break;
        }
    }
    assert_eq!(last, to_wait);
    let [known, unknown] = fastest;
    assert!(
        unknown * 4 > known && known * 4 > unknown,
        "known {known:?}, unknown {unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_passwords_costs_bounded_memory_and_holds_nobody_up() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let alice = world.user("alice").await;
    let peer = alice.peer().clone();
    let mut flood = JoinSet::new();
    for host in 100..140 {
        let attacker = Attacker::new(host, world.addr);
        flood.spawn(async move {
            for n in 0.. {
                let Ok(connection) = attacker.connect().await else {
                    return;
                };
                // As many as there may be, and then gone without waiting for any of them.
                for m in 0..16 {
                    let name = format!("u{host}-{n}-{m}");
                    let body = match m % 2 {
                        0 => request::create_user(&name, "pass123"),
                        _ => request::login(&name, "pass123"),
                    };
                    _ = send(&connection, &body).await;
                }
                _ = ask(&connection, request::HELLO).await;
                connection.close(VarInt::from_u32(0), b"");
            }
        });
    }
    for _ in 0..5 {
        within(peer.login(&user("alice"), &password()))
            .await
            .unwrap();
    }
    let bob = world.user("bob").await;
    works(&bob, "bobs").await;
    world.is_within(Bytes::mib(128));
    flood.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_keep_nobody_out() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let alice = world.user("alice").await;
    // First packets of connections, as somebody sends them who then says nothing more.
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dialer = Attacker::new(1, world.addr);
    let mut hellos = Vec::new();
    while hellos.len() < 300 {
        let mut bytes = vec![0; 2000];
        tokio::select! {
            _ = dialer.connect_to(sink.local_addr().unwrap()) => {}
            length = sink.recv(&mut bytes) => {
                bytes.truncate(length.unwrap());
                hellos.push(bytes);
            }
        }
    }
    let mut flood = JoinSet::new();
    let tracker = world.addr;
    // Nobody has proved that he is where these come from. Each waits for what the tracker says to it, or for a while,
    // so that it is the tracker that is flooded, and not the machine's buffers, of which everybody needs a place.
    for host in 200..230 {
        let hellos = hellos.clone();
        let socket = UdpSocket::bind((address(host), 0)).await.unwrap();
        flood.spawn(async move {
            for hello in hellos.iter().cycle() {
                _ = socket.send_to(hello, tracker).await;
                _ = timeout(ANSWERED, socket.recv(&mut [0; 2000])).await;
            }
        });
    }
    // And these do, but hear nothing of what comes then.
    for host in 230..233 {
        let deaf = Deaf::new(host, tracker).await;
        let front = deaf.front.local_addr().unwrap();
        flood.spawn(deaf.forward());
        flood.spawn(async move {
            let dialer = Attacker::new(host, tracker);
            let mut dials = JoinSet::new();
            for _ in 0..200 {
                let (config, endpoint) = (dialer.config(), dialer.endpoint.clone());
                let connecting = endpoint.connect_with(config, front, "x").unwrap();
                dials.spawn(async move { _ = connecting.await });
            }
            dials.join_all().await;
        });
    }
    works(&alice, "alices").await;
    for name in ["bob", "carol", "dave"] {
        let session = world.user(name).await;
        works(&session, name).await;
    }
    world.is_within(Bytes::mib(96));
    flood.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_all_connections_gets_his_share_and_others_find_a_place() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    // On the very address of the flood.
    let alice = world.user_at("alice", 7).await;
    let attacker = Attacker::new(7, world.addr);
    let mut held = Vec::new();
    while held.len() < 1400 {
        held.push(attacker.connect().await.unwrap());
    }
    // One place is that of Alice, and those who came first make room.
    let (out, rest) = held.split_at(1400 - 1023);
    for connection in out {
        match within(connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, TOO_MANY),
            other => panic!("{other}"),
        }
    }
    assert!(rest.iter().all(|c| c.close_reason().is_none()));
    world.is_within(Bytes::mib(160));
    // Who was there is still, and who comes finds a place: there, too.
    works(&alice, "alices").await;
    for (name, host) in [("bob", 7), ("carol", 8)] {
        let session = world.user_at(name, host).await;
        works(&session, name).await;
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_trickle_and_answers_that_nobody_reads_cost_little() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let alice = world.user("alice").await;
    let mallory = Attacker::reading(20, world.addr, VarInt::from_u32(1000));
    let connection = mallory.connect().await.unwrap();
    for body in [
        request::create_user("mallory", "pass123"),
        request::login("mallory", "pass123"),
        request::create_group("mallorys"),
    ] {
        within(ask(&connection, &body)).await.unwrap();
    }
    let mut published = JoinSet::new();
    for n in 0..500 {
        let (connection, name) = (connection.clone(), format!("{n:0250}"));
        let body = request::publish("mallorys", &name);
        published.spawn(async move { ask(&connection, &body).await.unwrap() });
    }
    for answer in published.join_all().await {
        assert_eq!(answer, Answer::Other(vec![4]), "published");
    }
    // Pages of more than 150 kB, of which nobody reads more than the beginning.
    let mut connections = Vec::new();
    for _ in 0..36 {
        let connection = mallory.connect().await.unwrap();
        let login = request::login("mallory", "pass123");
        assert_eq!(ask(&connection, &login).await, Some(Answer::LoggedIn));
        connections.push(connection);
    }
    // All are logged in before the first answer has to be read.
    let list = request::list_files("mallorys");
    let (mut asked, mut held, mut refused) = (VecDeque::new(), Vec::new(), 0);
    for connection in &connections {
        for _ in 0..16 {
            asked.extend(send(connection, &list).await.map(|s| (connection, s)));
        }
    }
    while let Some((connection, (send_stream, mut answer))) = asked.pop_front() {
        let mut head = [0; 6];
        let read = within(answer.read_exact(&mut head)).await;
        let [.., a, b, c, d] = head;
        if read.is_ok() && u32::from_le_bytes([a, b, c, d]) < 100 {
            // A tracker that has too much to do may refuse.
            refused += 1;
            assert!(refused < 10_000);
            asked.extend(send(connection, &list).await.map(|s| (connection, s)));
        } else {
            // It is on its way, or the tracker has had enough of it.
            held.push((send_stream, answer));
        }
    }
    let closed = connections.iter().filter_map(|c| c.close_reason());
    let closed: Vec<_> = closed.collect();
    for reason in &closed {
        let slow =
            matches!(reason, ConnectionError::ApplicationClosed(c) if c.error_code == TOO_SLOW);
        assert!(slow, "{reason}");
    }
    assert!((1..20).contains(&closed.len()), "{} closed", closed.len());
    // Frames that never end, on every stream that there may be, of every connection that there may be.
    let mut trickle = Vec::new();
    for host in 30..34 {
        let attacker = Attacker::new(host, world.addr);
        for _ in 0..25 {
            let connection = attacker.connect().await.unwrap();
            for _ in 0..32 {
                let (mut send, receive) = connection.open_bi().await.unwrap();
                let begun = &frame(&[19; 8 * 1024])[..1_900];
                send.write_all(begun).await.unwrap();
                trickle.push((send, receive));
            }
        }
    }
    works(&alice, "alices").await;
    let bob = world.user("bob").await;
    works(&bob, "bobs").await;
    world.is_within(Bytes::mib(224));
    drop((held, trickle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_holds_nobody_up() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let alice = world.user("alice").await;
    let mallory = Attacker::new(20, world.addr);
    let connection = mallory.connect().await.unwrap();
    let login = request::login("mallory", "pass123");
    for body in [request::create_user("mallory", "pass123"), login.clone()] {
        ask(&connection, &body).await.unwrap();
    }
    let mut made = JoinSet::new();
    for n in 0..300 {
        let (connection, body) = (connection.clone(), request::create_group(&format!("g{n}")));
        made.spawn(async move { ask(&connection, &body).await });
    }
    made.join_all().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut flood = JoinSet::new();
    for _ in 0..20 {
        let connection = mallory.connect().await.unwrap();
        assert_eq!(ask(&connection, &login).await, Some(Answer::LoggedIn));
        for n in 0..16 {
            let connection = connection.clone();
            // One announces as much as fits, all of it about groups that there are not.
            let body = match n % 2 {
                0 => request::LIST_GROUPS.to_vec(),
                _ => request::announce(256, "none"),
            };
            let answered = answered.clone();
            flood.spawn(async move {
                while let Some(answer) = ask(&connection, &body).await {
                    assert!(matches!(answer, Answer::Other(_)), "{answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    for name in ["bob", "carol"] {
        let session = world.user(name).await;
        works(&session, name).await;
    }
    works(&alice, "alices").await;
    let before = answered.load(Ordering::Relaxed);
    let more = async {
        while answered.load(Ordering::Relaxed) < before + 50 {
            tokio::task::yield_now().await;
        }
    };
    within(more).await;
    world.is_within(Bytes::mib(128));
    flood.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_begun_and_not_ended_cost_little_and_others_are_heard() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let attackers = [20, 21].map(|host| Attacker::new(host, world.addr));
    let mut connections = Vec::new();
    for (attacker, name) in attackers.iter().zip(["mallory", "honest"]) {
        let connection = attacker.connect().await.unwrap();
        let create = request::create_user(name, "pass123");
        ask(&connection, &create).await.unwrap();
        let login = request::login(name, "pass123");
        assert_eq!(ask(&connection, &login).await, Some(Answer::LoggedIn));
        connections.push(connection);
    }
    let honest = connections.pop().unwrap();
    while connections.len() < 64 {
        let connection = attackers[0].connect().await.unwrap();
        let login = request::login("mallory", "pass123");
        assert_eq!(ask(&connection, &login).await, Some(Answer::LoggedIn));
        connections.push(connection);
    }
    // On each as many as it may have in work, all but their last byte, again and again.
    let announcement = request::announce(256, "none");
    let begun = frame(&announcement);
    let begun: Arc<[u8]> = begun[..begun.len() - 1].into();
    let given_up = Arc::new(Semaphore::new(0));
    let all = 16 * connections.len() as u32;
    let mut flood = JoinSet::new();
    for connection in connections.iter().flat_map(|c| [c; 16]) {
        let (connection, begun) = (connection.clone(), begun.clone());
        let given_up = given_up.clone();
        flood.spawn(async move {
            while let Ok((mut send, _receive)) = connection.open_bi().await {
                // It fails where the tracker has had enough of it by then.
                _ = send.write_all(&begun).await;
                _ = send.stopped().await;
                given_up.add_permits(1);
            }
        });
    }
    for _ in 0..5 {
        let answer = within(ask(&honest, &announcement)).await;
        assert!(matches!(answer, Some(Answer::Other(_))), "{answer:?}");
    }
    _ = within(given_up.acquire_many(all)).await.unwrap();
    let alice = world.user("alice").await;
    works(&alice, "alices").await;
    world.is_within(Bytes::mib(160));
    flood.shutdown().await;
}

/// A tracker, and the folders of everybody.
struct World {
    dir: TempDir,
    child: Child,
    addr: SocketAddr,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_p2pshare-tracker"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("tracker"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.strip_prefix("Tracker listening on ")?.to_owned()));
        let addr = listening.expect("the tracker ended before it listened");
        let addr = addr.parse().unwrap();
        Self { dir, child, addr }
    }

    fn trackers(&self) -> [TrackerAddr; 1] {
        [self.addr.to_string().parse().unwrap()]
    }

    /// A new user at a peer of the user's own, at 127.0.0.1.
    async fn user(&self, name: &str) -> Session {
        self.user_at(name, 1).await
    }

    async fn user_at(&self, name: &str, host: u16) -> Session {
        let trackers = self.trackers();
        let client = within(TrackerClient::connect(&trackers, None)).await;
        let client = client.unwrap();
        within(client.create_user(&user(name), &password()))
            .await
            .unwrap();
        let peer = self.peer(name, host).await;
        let login = within(peer.login(&user(name), &password())).await;
        login.unwrap()
    }

    async fn peer(&self, name: &str, host: u16) -> Peer {
        let trackers = self.trackers();
        let client = within(TrackerClient::connect(&trackers, None)).await;
        Peer::builder(self.path(name), client.unwrap().ring_id())
            .trackers(trackers)
            .listen((address(host), 0).into())
            .bind()
            .await
            .unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The most memory that the tracker ever had was less than that.
    fn is_within(&self, max: Bytes) {
        let most = Bytes::most_of(&self.child);
        println!("the tracker had {} MiB at most", most.0 >> 20);
        assert!(most < max, "{} of {} MiB", most.0 >> 20, max.0 >> 20);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[derive(Copy, Clone, PartialEq, PartialOrd)]
struct Bytes(u64);

impl Bytes {
    const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    fn most_of(child: &Child) -> Self {
        let status = Path::new("/proc")
            .join(child.id().to_string())
            .join("status");
        let status = fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
        Self(kib.parse::<u64>().unwrap() << 10)
    }
}

/// Passes on what is sent through it, but of what comes back only what asks for a proof of the address.
struct Deaf {
    front: UdpSocket,
    back: UdpSocket,
}

impl Deaf {
    async fn new(host: u16, tracker: SocketAddr) -> Self {
        let back = UdpSocket::bind((address(host), 0)).await.unwrap();
        back.connect(tracker).await.unwrap();
        let front = UdpSocket::bind((address(host), 0)).await.unwrap();
        Self { front, back }
    }

    async fn forward(self) {
        let (mut from, mut to) = (None, [0; 2000]);
        let mut answer = [0; 2000];
        loop {
            tokio::select! {
                sent = self.front.recv_from(&mut to) => {
                    let Ok((length, dialer)) = sent else { continue };
                    from = Some(dialer);
                    _ = self.back.send(&to[..length]).await;
                }
                received = self.back.recv(&mut answer) => {
                    let Ok(length) = received else { continue };
                    // A Retry packet of QUIC.
                    if let Some(dialer) = from && answer[0] & 0xf0 == 0xf0 {
                        _ = self.front.send_to(&answer[..length], dialer).await;
                    }
                }
            }
        }
    }
}

/// A session does what its user came for.
async fn works(session: &Session, group: &str) {
    let group = GroupName::new(group).unwrap();
    within(session.create_group(&group, Access::Members))
        .await
        .unwrap();
    let groups = within(session.groups()).await.unwrap();
    assert!(groups.iter().any(|known| known.name == group));
    assert_eq!(within(session.files(&group)).await.unwrap().items, []);
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, work).await;
    done.expect("it is served in time")
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn password() -> Password {
    Password::new("pass123")
}

/// Each of these tests takes the whole machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Where the guesses come from.
const GUESSERS: std::ops::Range<u16> = 11..16;

/// The code with which a connection is closed that makes room.
const TOO_MANY: VarInt = VarInt::from_u32(6);

/// The code with which a connection is closed on which nobody reads.
const TOO_SLOW: VarInt = VarInt::from_u32(7);

/// How long somebody waits for the tracker to say something before sending more.
const ANSWERED: Duration = Duration::from_millis(10);
/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);
