//! What time alone ends: the rights of those who were put out, and what is known of those who died. A tracker and peers
//! on a network in memory, under the paused clock.

use tokio::time::Instant;

use super::{readers::Swarm, *};
use crate::{
    DhtNode,
    dht::test_ring::pass,
    limits::{CLOCK_TOLERANCE, GRANT_LIFE, LEASE_LIFE, LEASE_RENEWAL},
    tracker::{RING_KEY, test_tracker},
    transport::{CloseCode, memory::Network},
    wire::peer::{Open, PeerRefusal},
};

/// A ring of one, and everybody on a host of their own.
struct Quiet {
    network: Network,
    dir: TempDir,
    dht: DhtNode,
    tracker: Endpoint,
    /// Who makes the accounts.
    clerk: Stranger,
}

/// Hosts.
const TRACKER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
const CLERK: u8 = 5;

const SECOND: Duration = Duration::from_secs(1);

fn addr(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 9000).into()
}

impl Quiet {
    async fn new() -> Self {
        let (network, dir) = (Network::new(1), tempfile::tempdir().unwrap());
        let ring = SigningKey::from_seed(&[RING_KEY; 32]).verifying_key();
        let dht = DhtNode::alone(dir.path().join("ring"), ring.into());
        let dht = dht.await.unwrap();
        let tracker = test_tracker(&network, TRACKER, &dht);
        let clerk = stranger(&network, CLERK, &tracker);
        Self {
            network,
            dir,
            dht,
            tracker,
            clerk,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn create_user(&self, name: &str) {
        let connection = self.clerk.dial_tracker().await;
        let create = Request::CreateUser {
            change: change(),
            user: user(name),
            password: password(),
        };
        let created = ask(&connection, create).await;
        assert!(matches!(created, Response::UserCreated { .. }));
        connection.close(CloseCode::Done);
    }

    /// A new user who is not at a peer, but speaks for himself.
    async fn raw_user(&self, host: u8, name: &str) -> RawUser {
        self.create_user(name).await;
        RawUser::login(stranger(&self.network, host, &self.tracker), name).await
    }

    /// A new user at a peer of the user's own.
    async fn login(&self, host: u8, name: &str) -> Session {
        self.create_user(name).await;
        let tracker = self.tracker.local_addr().to_string();
        let peer = Peer::builder(self.path(name), self.dht.ring_id())
            .trackers([tracker.parse().unwrap()])
            .bind_on(self.network.bind(addr(host)).unwrap());
        let peer = peer.await.unwrap();
        peer.login(&user(name), &password()).await.unwrap()
    }

    /// A new user with a group, and a file in it.
    async fn sharer(&self, name: &str, of: &GroupName, access: Access, file: &TestFile) -> Session {
        let session = self.login(ALICE, name).await;
        session.create_group(of, access).await.unwrap();
        let path = self.path(file.name.as_str());
        std::fs::write(&path, &file.content).unwrap();
        session.share(path, of, None).await.unwrap();
        session
    }

    /// A host is gone without a word: nobody hears it any more.
    fn cut_off(&self, host: u8) {
        for other in [TRACKER, ALICE, BOB, CAROL] {
            self.network.part(addr(host).ip(), addr(other).ip());
        }
    }
}

fn stranger(network: &Network, host: u8, tracker: &Endpoint) -> Stranger {
    let socket = network.bind(addr(host)).unwrap();
    Stranger {
        endpoint: Endpoint::bind_on(socket, Stranger::config()).unwrap(),
        tracker: tracker.local_addr(),
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_put_out_of_a_group_gets_no_byte_once_the_grant_is_over() {
    let quiet = Quiet::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = quiet.sharer("alice", &photos, Access::Members, &file).await;
    let (bob, carol) = (
        quiet.raw_user(BOB, "bob").await,
        quiet.raw_user(CAROL, "carol").await,
    );
    let id = file.id();
    let open = async |member: &RawUser, grant| {
        let connection = member.stranger.dial_peer(alice.peer()).await;
        let group = group("photos");
        let swarm = Swarm::open(&connection, &Open::Swarm { grant, group, id }).await;
        swarm.map(|swarm| (connection, swarm))
    };
    for member in [&bob, &carol] {
        member.join(&photos, &alice).await;
    }
    let last = bob.grant(&photos).await;
    let (_bobs, mut of_bob) = open(&bob, last.clone()).await.unwrap();
    let carols = carol.grant(&photos).await;
    let (_carols, mut of_carol) = open(&carol, carols).await.unwrap();
    alice.remove_member(&photos, &bob.name).await.unwrap();
    // The ring's time, of which the paused clock makes less: the machine's clock stands still all the while.
    let removed = quiet.dht.time();
    let group = photos.clone();
    let refused = bob.refused(Request::Grant { group }).await;
    let group = photos.clone();
    assert_eq!(refused, Refusal::NotAMember { group });

    let mut served = None;
    while of_bob.chunk(0).await.is_some() {
        let after = quiet.dht.time().saturating_since(removed);
        // Alice hears of the ring's time with each renewal.
        assert!(after < GRANT_LIFE + CLOCK_TOLERANCE + LEASE_RENEWAL);
        served = Some(after);
        // Who still is a member is served all the while.
        of_carol.renew(carol.grant(&photos).await).await;
        assert!(of_carol.chunk(0).await.is_some());
        pass(5 * SECOND).await;
    }
    println!("served for {served:?} more");
    assert!(served.is_some(), "the grant counts at first");
    let sent = alice.peer().sent_bytes();
    assert_eq!(of_bob.chunk(0).await, None);
    assert_eq!(open(&bob, last).await.err(), Some(PeerRefusal::Denied));
    assert_eq!(alice.peer().sent_bytes(), sent);
    assert!(of_carol.chunk(0).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_died_is_forgotten_within_the_life_of_its_lease() {
    let quiet = Quiet::new().await;
    let (films, file) = (group("films"), TestFile::new("film", 1000));
    let alice = quiet.sharer("alice", &films, Access::Open, &file).await;
    let bob = quiet.login(BOB, "bob").await;
    let carol = quiet.login(CAROL, "carol").await;
    bob.join(&films).await.unwrap();
    // What is there already is shared from there.
    let copy = quiet.path("bobs");
    std::fs::write(&copy, &file.content).unwrap();
    let options = DownloadOptions::default();
    let there = bob.download(&films, &file.name, &copy, options).await;
    assert!(there.unwrap().was_there);
    let online = async || {
        let listed = carol.files(&films).await.unwrap();
        let all = carol.availability(&films, &file.name).await.unwrap();
        assert_eq!(all.whole, all.holders);
        (listed[0].holders_online, all.holders)
    };
    // At any time, be it just before a renewal.
    for _ in 0..2 * LEASE_LIFE.as_secs() {
        assert_eq!(online().await, (2, 2));
        pass(SECOND).await;
    }
    quiet.cut_off(ALICE);
    drop(alice);
    let died = Instant::now();
    while online().await != (1, 1) {
        let waited = died.elapsed();
        assert!(waited < LEASE_LIFE + SECOND, "{waited:?}");
        pass(SECOND).await;
    }
    println!("forgotten after {:?}", died.elapsed());
}
