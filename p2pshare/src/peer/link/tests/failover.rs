//! Trackers that die, fall silent, hear and are not heard, or can do nothing, at every moment of a request: it is
//! done once, and its answer comes within a second of that moment wherever another tracker can give it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    content::{Digest, FileId},
    identity::{FileName, GroupName, RequestId},
    limits::{IDLE_TIMEOUT, LEASE_RENEWAL},
    peer::{
        file::Stamp,
        library::{Library, NewShare},
        ongoing::Ongoing,
        presence::Presence,
    },
    store::{MemoryDisk, Store, StoreKind},
    transport::CloseCode,
    wire::tracker::{Access, Announcement, Holding, SetDigest, SwarmEntry, SwarmPlace},
};

/// What the trackers of one ring have in common: which changes were made, and by whom they were asked for.
#[derive(Default)]
struct Ring {
    /// The outcome of each change.
    done: Mutex<BTreeMap<RequestId, GroupName>>,
    /// Changes that came again and did not say so.
    unmarked: AtomicUsize,
}

/// How a tracker answers those who are logged in.
#[derive(Clone)]
enum Manner {
    Well,
    /// It acknowledges every packet at once, and answers then.
    After(Duration),
    Refusing(Refusal),
    /// Also when somebody shows a credential.
    RefusingAll(Refusal),
    Stale,
}

/// What one tracker heard.
#[derive(Clone, Default)]
struct Heard {
    /// How many requests other than greetings.
    requests: Arc<AtomicUsize>,
    /// Whether each announcement began anew.
    announced: Arc<Mutex<Vec<bool>>>,
    /// What was announced and is kept.
    held: Arc<Mutex<BTreeMap<SwarmPlace, SwarmEntry>>>,
    /// What there is no room for.
    no_room_for: Arc<Mutex<Option<FileName>>>,
}

impl Heard {
    fn take(&self, announcement: Announcement) -> Response {
        self.announced.lock().unwrap().push(announcement.anew);
        let mut held = self.held.lock().unwrap();
        if announcement.anew {
            held.clear();
        }
        let mut left_out = Vec::new();
        for entry in announcement.swarms {
            held.remove(&entry.place());
            if self.no_room_for.lock().unwrap().as_ref() == Some(&entry.name) {
                left_out.push((entry.group, entry.name));
            } else if entry.holding != Holding::Nothing {
                held.insert(entry.place(), entry);
            }
        }
        let mut digest = SetDigest::default();
        for (place, entry) in held.iter() {
            digest.add(place, entry.id, &entry.holding);
        }
        Response::Announced {
            time: Some(BEGAN),
            gone: Vec::new(),
            left_out,
            held: digest,
        }
    }

    fn announced(&self) -> Vec<bool> {
        self.announced.lock().unwrap().clone()
    }

    /// The names of the files that are kept.
    fn names(&self) -> Vec<String> {
        let held = self.held.lock().unwrap();
        held.keys().map(|(_, name)| name.to_string()).collect()
    }
}

struct World {
    network: Network,
    trackers: Vec<Endpoint>,
    manners: Vec<Arc<Mutex<Manner>>>,
    heard: Vec<Heard>,
    ring: Arc<Ring>,
    link: TrackerLink,
    peer: Endpoint,
}

const PEER: u8 = 9;

fn host(tracker: usize) -> IpAddr {
    [10, 0, 0, u8::try_from(tracker).unwrap() + 1].into()
}

fn peer_host() -> IpAddr {
    [10, 0, 0, PEER].into()
}

fn welcome_of(tracker: &Endpoint, observed: SocketAddr) -> Welcome {
    let certificate = TrackerCertificate::V1 {
        ring: ring(),
        member: MemberId::from_bytes([1; 16]),
        peer: tracker.peer_id(),
        token_key: key(8).verifying_key(),
        issued: BEGAN,
    };
    Welcome {
        certificate: Signed::sign(&certificate, &key(7)),
        time: Some(BEGAN),
        observed,
    }
}

impl World {
    /// A ring of so many trackers, the first of which a peer is logged in at, or is about to.
    async fn new(count: usize, warm: bool) -> Self {
        let network = Network::new(1);
        let peer = endpoint(&network, PEER, Profile::Peer, &[]);
        let ring_of_all = Arc::new(Ring::default());
        let (mut trackers, mut manners, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let tracker = endpoint(
                &network,
                u8::try_from(number).unwrap() + 1,
                Profile::Tracker,
                &[Alpn::Tracker],
            );
            let manner = Arc::new(Mutex::new(Manner::Well));
            let count = Heard::default();
            let welcome = welcome_of(&tracker, peer.local_addr());
            let shown = credential(peer.peer_id(), BEGAN);
            tokio::spawn(serve_all(
                tracker.clone(),
                (welcome, shown),
                manner.clone(),
                count.clone(),
                ring_of_all.clone(),
            ));
            trackers.push(tracker);
            manners.push(manner);
            heard.push(count);
        }
        let addrs = trackers
            .iter()
            .map(|tracker| tracker.local_addr().to_string().parse().unwrap());
        let link = TrackerLink::new(peer.clone(), addrs.collect(), Some(ring()), None);
        link.set_credential(Some(credential(peer.peer_id(), BEGAN)));
        if warm {
            link.ask(Request::ListGroups { cursor: Vec::new() })
                .await
                .unwrap();
        }
        Self {
            network,
            trackers,
            manners,
            heard,
            ring: ring_of_all,
            link,
            peer,
        }
    }

    fn set(&self, tracker: usize, manner: Manner) {
        *self.manners[tracker].lock().unwrap() = manner;
    }

    fn heard(&self, tracker: usize) -> usize {
        self.heard[tracker].requests.load(Relaxed)
    }

    fn connected(&self) -> TrackerAddr {
        self.link.connected().borrow().clone().unwrap().tracker
    }

    fn addr(&self, tracker: usize) -> TrackerAddr {
        self.trackers[tracker]
            .local_addr()
            .to_string()
            .parse()
            .unwrap()
    }

    fn done(&self) -> usize {
        self.ring.done.lock().unwrap().len()
    }
}

/// Serves like a tracker of `ring`, for ever.
async fn serve_all(
    tracker: Endpoint,
    (welcome, honoured): (Welcome, Signed<Credential>),
    manner: Arc<Mutex<Manner>>,
    heard: Heard,
    ring: Arc<Ring>,
) {
    while let Some(connection) = tracker.accept().await {
        let (welcome, honoured) = (welcome.clone(), honoured.clone());
        let (manner, ring) = (manner.clone(), ring.clone());
        let heard = heard.clone();
        let answer = move |request: Request, responder: Responder| {
            let (welcome, honoured) = (welcome.clone(), honoured.clone());
            let (manner, ring) = (manner.lock().unwrap().clone(), ring.clone());
            let heard = heard.clone();
            if request != Request::Hello {
                heard.requests.fetch_add(1, Relaxed);
            }
            async move {
                let response = match (request, manner) {
                    (Request::Hello, _) => Response::Welcome(welcome),
                    (_, Manner::RefusingAll(refusal)) => Response::Refused(refusal),
                    (Request::Authenticate { .. } | Request::Login { .. }, _) => {
                        logged_in(&honoured)
                    }
                    (_, Manner::Refusing(refusal)) => Response::Refused(refusal),
                    (Request::Announce(announcement), _) => heard.take(announcement),
                    (Request::ListGroups { .. }, manner) => Response::Groups {
                        groups: Vec::new(),
                        next: Vec::new(),
                        stale: matches!(manner, Manner::Stale),
                    },
                    (request, Manner::After(pause)) => {
                        sleep(pause).await;
                        carry_out(&ring, request)
                    }
                    (request, _) => carry_out(&ring, request),
                };
                let _ = responder.answer(&response).await;
            }
        };
        let limits = ServeLimits {
            at_once: 32,
            request_bytes: || usize::MAX,
            bodies: Bodies::default(),
        };
        tokio::spawn(async move { serve(&connection, limits, answer).await });
    }
}

fn carry_out(ring: &Ring, request: Request) -> Response {
    let Request::CreateGroup { change, group, .. } = request else {
        return Response::Refused(Refusal::BadRequest);
    };
    let mut done = ring.done.lock().unwrap();
    match done.get(&change.request) {
        Some(_) if !change.retry => {
            ring.unmarked.fetch_add(1, Relaxed);
        }
        Some(_) => {}
        None if done.values().any(|other| *other == group) => {
            return Response::Refused(Refusal::GroupExists { group });
        }
        None => {
            done.insert(change.request, group);
        }
    }
    Response::Done
}

fn create(name: &str) -> Request {
    let mut request = [0; 16];
    request[..name.len()].copy_from_slice(name.as_bytes());
    Request::CreateGroup {
        change: Change::new(RequestId::from_bytes(request)),
        group: GroupName::new(name).unwrap(),
        access: Access::Open,
    }
}

fn no_quorum() -> Refusal {
    Refusal::InsufficientReplicas {
        reachable: 1,
        members: 3,
        needed: 2,
    }
}

/// What becomes of the first tracker.
#[derive(Copy, Clone, Debug)]
enum End {
    /// As by kill -9, or SIGSTOP, or a cut cable.
    Gone,
    /// It hears and is not heard.
    Unheard,
    /// It is heard and does not hear.
    Deaf,
    /// As by SIGTERM.
    Closed,
}

async fn dies_at(moment: Duration, end: End, warm: bool) {
    let world = World::new(3, warm).await;
    let began = Instant::now();
    let ask = world.link.ask(create("g"));
    let die = async {
        sleep(moment).await;
        match end {
            End::Gone => world.network.part(host(0), peer_host()),
            End::Unheard => world.network.mute(host(0), peer_host()),
            End::Deaf => world.network.mute(peer_host(), host(0)),
            End::Closed => world.trackers[0].close(CloseCode::ShuttingDown),
        }
    };
    let (answer, ()) = tokio::join!(ask, die);
    let took = began.elapsed();
    let when = format!("{end:?} at {moment:?}, warm {warm}: {answer:?} after {took:?}");
    assert!(matches!(answer, Ok(Response::Done)), "{when}");
    assert!(took <= moment + Duration::from_secs(1), "{when}");
    assert_eq!(world.done(), 1, "{when}");
    assert_eq!(world.ring.unmarked.load(Relaxed), 0, "{when}");
    // What comes next goes to one that lives, and at once.
    let began = Instant::now();
    let answer = world.link.ask(create("h")).await;
    assert!(matches!(answer, Ok(Response::Done)), "{when}: {answer:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{when}");
    assert_eq!(world.done(), 2, "{when}");
}

async fn dies_at_each(moments: Range<u64>, warm: bool) {
    for end in [End::Gone, End::Unheard, End::Deaf, End::Closed] {
        for moment in moments.clone().step_by(5) {
            dies_at(Duration::from_millis(moment), end, warm).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_dies_at_any_moment_of_a_first_command_is_replaced_within_a_second() {
    dies_at_each(0..120, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_dies_at_any_moment_of_a_later_command_is_replaced_within_a_second() {
    dies_at_each(0..60, true).await;
}

#[tokio::test(start_paused = true)]
async fn two_of_three_may_be_dead() {
    for warm in [false, true] {
        let world = World::new(3, warm).await;
        world.network.part(host(0), peer_host());
        world.network.part(host(1), peer_host());
        let began = Instant::now();
        let answer = world.link.ask(create("g")).await;
        assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
        assert!(
            began.elapsed() < Duration::from_millis(1500),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(world.connected(), world.addr(2));
        assert_eq!(world.done(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_works_on_something_for_long_is_left_in_peace() {
    let world = World::new(3, true).await;
    world.set(0, Manner::After(Duration::from_secs(7)));
    let answer = world.link.ask(create("g")).await;
    assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
    assert_eq!((world.heard(1), world.heard(2)), (0, 0));
    assert_eq!(world.connected(), world.addr(0));
}

#[tokio::test(start_paused = true)]
async fn all_requests_under_way_move_over_together() {
    let world = World::new(3, true).await;
    world.set(0, Manner::After(Duration::from_millis(100)));
    let mut asks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let link = world.link.clone();
        asks.spawn(async move { link.ask(create(&format!("g{number}"))).await });
    }
    sleep(Duration::from_millis(20)).await;
    world.network.part(host(0), peer_host());
    while let Some(answer) = asks.join_next().await {
        let answer = answer.unwrap();
        assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
    }
    assert_eq!(world.done(), 20);
    assert_eq!(world.ring.unmarked.load(Relaxed), 0);
    assert_eq!(world.heard(2), 0);
}

#[tokio::test(start_paused = true)]
async fn what_one_tracker_cannot_do_another_is_asked_for() {
    for refusal in [
        no_quorum(),
        Refusal::NotFounded,
        Refusal::Busy,
        Refusal::Internal,
    ] {
        for all in [false, true] {
            let world = World::new(3, false).await;
            let manner = match all {
                false => Manner::Refusing(refusal.clone()),
                true => Manner::RefusingAll(refusal.clone()),
            };
            world.set(0, manner.clone());
            world.set(1, manner.clone());
            let began = Instant::now();
            let answer = world.link.ask(create("g")).await;
            assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
            assert!(began.elapsed() < Duration::from_secs(1));
            // The next one begins where that ended.
            assert_eq!(world.connected(), world.addr(2));
            // Where none can, it is said at once.
            world.set(2, manner);
            let began = Instant::now();
            let answer = world.link.ask(create("h")).await;
            let Err(SessionError::Refused(said)) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(said, refusal);
            assert!(began.elapsed() < Duration::from_secs(1));
            assert_eq!(world.done(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_waits_no_longer_than_a_moment_for_trackers_that_are_dead() {
    let world = World::new(3, true).await;
    world.set(0, Manner::Refusing(no_quorum()));
    world.network.part(host(1), peer_host());
    world.network.part(host(2), peer_host());
    let began = Instant::now();
    // However many there are, they wait together.
    let mut asks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let link = world.link.clone();
        asks.spawn(async move { link.ask(create(&format!("g{number}"))).await });
    }
    while let Some(answer) = asks.join_next().await {
        let answer = answer.unwrap();
        assert!(
            matches!(answer, Err(SessionError::Refused(ref refusal)) if *refusal == no_quorum()),
            "{answer:?}"
        );
    }
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    // The one that answers is kept.
    assert_eq!(world.connected(), world.addr(0));
    world.set(0, Manner::Well);
    assert!(matches!(
        world.link.ask(create("g")).await,
        Ok(Response::Done)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_cut_off_is_the_last_resort() {
    let world = World::new(3, true).await;
    let list = || world.link.ask(Request::ListGroups { cursor: Vec::new() });
    world.set(0, Manner::Stale);
    world.set(1, Manner::Refusing(no_quorum()));
    let answer = list().await.unwrap();
    assert!(!answer.is_stale());
    assert_eq!(world.connected(), world.addr(2));
    // It is better than nothing, whoever is asked last.
    world.set(2, Manner::Refusing(no_quorum()));
    let answer = list().await.unwrap();
    assert!(answer.is_stale(), "{answer:?}");
    world.network.part(host(1), peer_host());
    world.network.part(host(2), peer_host());
    let answer = list().await.unwrap();
    assert!(answer.is_stale(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn without_any_tracker_that_is_said_soon_and_with_all_their_names() {
    let world = World::new(3, false).await;
    for tracker in 0..3 {
        world.network.part(host(tracker), peer_host());
    }
    let answer = timeout(Duration::from_secs(7), world.link.ask(create("g"))).await;
    let Ok(Err(SessionError::Unreachable { tried })) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(tried, [world.addr(0), world.addr(1), world.addr(2)]);
    assert_eq!(world.done(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_idle_learns_that_the_tracker_is_gone_and_who_takes_its_place() {
    let world = World::new(3, true).await;
    let mut connected = world.link.connected();
    world.network.part(host(0), peer_host());
    let gone = connected.wait_for(Option::is_none);
    assert!(timeout(Duration::from_secs(20), gone).await.is_ok());
    let now = world.link.connect().await.unwrap();
    assert_eq!(now.tracker, world.addr(1));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_online_is_announced_anew_wherever_the_connection_leads() {
    for end in [End::Gone, End::Closed] {
        let world = World::new(3, false).await;
        let disk = MemoryDisk::default();
        let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
        let library = Library::load(store).await.unwrap();
        let holdings = (library.clone(), Ongoing::new(library));
        let presence = Presence::new(world.link.clone(), holdings, world.peer.local_addr());
        let mut known = presence.known();
        let stop = CancellationToken::new();
        let running = tokio::spawn(presence.run(stop.clone()));
        known.wait_for(Option::is_some).await.unwrap();
        let announced = |tracker: usize| world.heard[tracker].announced.lock().unwrap().clone();
        assert_eq!(announced(0), [true]);
        known.mark_unchanged();
        // By itself, within the time in which a silent connection is given up.
        let within = match end {
            End::Closed => {
                world.trackers[0].close(CloseCode::ShuttingDown);
                Duration::from_secs(1)
            }
            _ => {
                world.network.part(host(0), peer_host());
                IDLE_TIMEOUT + Duration::from_secs(1)
            }
        };
        let began = Instant::now();
        while announced(1).is_empty() {
            timeout(within, known.changed()).await.unwrap().unwrap();
        }
        assert!(began.elapsed() <= within, "{end:?}: {:?}", began.elapsed());
        assert_eq!(announced(1), [true], "{end:?}");
        // With a request of somebody else, at once.
        world.network.part(host(1), peer_host());
        let answer = world.link.ask(create("g")).await;
        assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
        let began = Instant::now();
        while announced(2).is_empty() {
            timeout(within, known.changed()).await.unwrap().unwrap();
        }
        assert!(began.elapsed() < Duration::from_millis(200), "{end:?}");
        stop.cancel();
        running.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_in_the_middle_of_an_announcement_is_followed_by_another_one() {
    for moment in (0..160).step_by(5) {
        let world = World::new(2, false).await;
        let disk = MemoryDisk::default();
        let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
        let library = Library::load(store).await.unwrap();
        let holdings = (library.clone(), Ongoing::new(library));
        let presence = Presence::new(world.link.clone(), holdings, world.peer.local_addr());
        let known = presence.known();
        let stop = CancellationToken::new();
        let running = tokio::spawn(presence.run(stop.clone()));
        sleep(Duration::from_millis(moment)).await;
        world.network.part(host(0), peer_host());
        let answer = world.link.ask(create("g")).await;
        assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
        sleep(Duration::from_secs(1)).await;
        assert!(known.borrow().is_some(), "after {moment} ms");
        let announced = world.heard[1].announced.lock().unwrap().clone();
        assert!(announced.contains(&true), "after {moment} ms");
        stop.cancel();
        running.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_new_is_announced_at_once_however_long_announcements_have_failed() {
    let world = World::new(1, true).await;
    world.set(0, Manner::Refusing(no_quorum()));
    let disk = MemoryDisk::default();
    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let library = Library::load(store).await.unwrap();
    let holdings = (library.clone(), Ongoing::new(library.clone()));
    let presence = Presence::new(world.link.clone(), holdings, world.peer.local_addr());
    let mut known = presence.known();
    let stop = CancellationToken::new();
    let running = tokio::spawn(presence.run(stop.clone()));
    sleep(Duration::from_secs(120)).await;
    assert!(known.borrow().is_none());
    // Whoever gets no answer asks seldom.
    let asked = world.heard(0);
    assert!(asked < 60, "{asked} requests");
    world.set(0, Manner::Well);
    let began = Instant::now();
    library.notify();
    known.wait_for(Option::is_some).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    stop.cancel();
    running.await.unwrap();
}

/// Shares something small under that name.
async fn share(library: &Library, folder: &std::path::Path, name: &str) {
    let (group, name) = (GroupName::new("g").unwrap(), FileName::new(name).unwrap());
    let path = folder.join(name.as_str());
    std::fs::write(&path, name.as_str()).unwrap();
    let digest = Digest::of(name.as_str().as_bytes());
    let new = NewShare {
        group: group.clone(),
        name: name.clone(),
        id: FileId::from_bytes(*digest.as_bytes()),
        sha256: digest,
        stamp: Stamp::of(&path.metadata().unwrap()),
        path,
        recorded: true,
    };
    library.add(new).await.unwrap();
    library.publish(&group, &name);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_on_the_way_is_told_again_with_the_next_renewal() {
    let world = World::new(1, true).await;
    let heard = world.heard[0].clone();
    let (folder, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let library = Library::load(store).await.unwrap();
    for name in ["a", "b", "c"] {
        share(&library, folder.path(), name).await;
    }
    // What there is no room for is no reason to tell all anew, with each renewal.
    *heard.no_room_for.lock().unwrap() = Some(FileName::new("b").unwrap());
    let holdings = (library.clone(), Ongoing::new(library.clone()));
    let presence = Presence::new(world.link.clone(), holdings, world.peer.local_addr());
    let mut known = presence.known();
    let stop = CancellationToken::new();
    let running = tokio::spawn(presence.run(stop.clone()));
    known.wait_for(Option::is_some).await.unwrap();
    let renewal = LEASE_RENEWAL + Duration::from_secs(1);
    sleep(3 * renewal).await;
    assert_eq!(heard.announced(), [true, false, false, false]);
    assert_eq!(heard.names(), ["a", "c"]);

    // A change that was lost, one that was made twice, and all of it.
    let lose: [fn(&mut BTreeMap<SwarmPlace, SwarmEntry>); 3] = [
        |held| drop(held.pop_first()),
        |held| {
            for entry in held.values_mut() {
                entry.holding = Holding::Partial(vec![1]);
            }
        },
        BTreeMap::clear,
    ];
    for lose in lose {
        lose(&mut heard.held.lock().unwrap());
        heard.announced.lock().unwrap().clear();
        sleep(renewal).await;
        assert_eq!(heard.names(), ["a", "c"]);
        let whole = |entry: &SwarmEntry| entry.holding == Holding::Complete;
        assert!(heard.held.lock().unwrap().values().all(whole));
        assert_eq!(heard.announced(), [false, true]);
        sleep(renewal).await;
        assert_eq!(heard.announced(), [false, true, false]);
    }
    // With something new it is noticed too, and that one is not lost either.
    heard.held.lock().unwrap().clear();
    share(&library, folder.path(), "d").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(heard.names(), ["a", "c", "d"]);
    stop.cancel();
    running.await.unwrap();
    assert!(heard.names().is_empty());
}
