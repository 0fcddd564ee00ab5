//! The main job through the public API: accounts, a group, and a real file from one peer to another over
//! loopback, with everything that can be refused on the way.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    future::IntoFuture,
    path::{Path, PathBuf},
};

use p2pshare::{
    Access, DownloadError, DownloadEvent, DownloadOptions, DownloadState, FileName, GroupName,
    JoinOutcome, Password, Peer, Refusal, Session, SessionError, ShareError, Tracker, TrackerAddr,
    TrackerClient, UserName,
};

struct World {
    dir: tempfile::TempDir,
    tracker: Tracker,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tracker = start_tracker(&dir.path().join("tracker"), 0).await;
        Self { dir, tracker }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn trackers(&self) -> [TrackerAddr; 1] {
        [self.tracker.addr().to_string().parse().unwrap()]
    }

    async fn create_user(&self, name: &str) {
        let ring = Some(self.tracker.ring_id());
        let client = TrackerClient::connect(&self.trackers(), ring)
            .await
            .unwrap();
        let created = client.create_user(&user(name), &password()).await.unwrap();
        assert_eq!(created.as_str(), name);
    }

    async fn peer(&self, name: &str) -> Peer {
        Peer::builder(self.path(name), self.tracker.ring_id())
            .trackers(self.trackers())
            .bind()
            .await
            .unwrap()
    }

    async fn login(&self, name: &str) -> Session {
        self.create_user(name).await;
        let peer = self.peer(name).await;
        peer.login(&user(name), &password()).await.unwrap()
    }

    fn file(&self, name: &str, bytes: usize) -> (PathBuf, Vec<u8>) {
        let mut state = bytes as u64 + 1;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        })
        .take(bytes)
        .collect();
        let path = self.path(name);
        std::fs::write(&path, &content).unwrap();
        (path, content)
    }
}

#[tokio::test]
async fn a_peer_that_starts_again_is_where_it_was() {
    let world = World::new().await;
    let peer = world.peer("Alice").await;
    let addr = peer.local_addr();
    peer.shutdown().await.unwrap();
    drop(peer);
    drop(when_free(addr).await);
    let again = world.peer("Alice").await;
    assert_eq!(again.local_addr(), addr);
    again.shutdown().await.unwrap();
    drop(again);
    // Unless somebody else is there by then.
    let _taken = when_free(addr).await;
    let elsewhere = world.peer("Alice").await;
    assert_ne!(elsewhere.local_addr().port(), addr.port());
    elsewhere.shutdown().await.unwrap();
}

/// Takes the address once whoever had it has let go of it.
async fn when_free(addr: std::net::SocketAddr) -> std::net::UdpSocket {
    loop {
        match std::net::UdpSocket::bind(addr) {
            Ok(socket) => return socket,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn start_tracker(dir: &Path, port: u16) -> Tracker {
    Tracker::builder(dir)
        .listen(([127, 0, 0, 1], port).into())
        .bind()
        .await
        .unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn file_name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

fn password() -> Password {
    Password::new("pass123")
}

fn refusal<T: std::fmt::Debug>(result: Result<T, SessionError>) -> Refusal {
    match result {
        Err(SessionError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn bob_has_alices_file_verified_and_seeds_it() {
    let world = World::new().await;
    let (alice, bob) = (world.login("Alice").await, world.login("Bob").await);
    let photos = group("photos");
    alice.create_group(&photos, Access::Members).await.unwrap();
    let (path, content) = world.file("big.bin", 3 * 512 * 1024 + 77);
    let shared = alice.share(&path, &photos, None).await.unwrap();
    assert_eq!((shared.size, shared.chunks), (content.len() as u64, 4));

    let (name, dest) = (file_name("big.bin"), world.path("got.bin"));
    let options = DownloadOptions::default().check_sha256(true);
    let denied = bob.download(&photos, &name, &dest, options).await;
    assert!(matches!(
        denied,
        Err(DownloadError::Session(SessionError::Refused(
            Refusal::NotAMember { .. }
        )))
    ));
    assert_eq!(
        bob.join(&photos).await.unwrap(),
        JoinOutcome::Requested {
            owner: user("Alice")
        }
    );
    assert_eq!(alice.requests(&photos).await.unwrap(), [user("bob")]);
    alice.accept(&photos, &user("bob")).await.unwrap();

    let files = bob.files(&photos).await.unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(
        (files[0].holders_online, files[0].sha256),
        (1, shared.sha256)
    );
    let download = bob.download(&photos, &name, &dest, options);
    let mut events = download.events();
    let report = download.await.unwrap();
    assert_eq!((report.bytes, report.chunks), (content.len() as u64, 4));
    assert!(report.sha256_checked);
    assert_eq!(std::fs::read(&dest).unwrap(), content);
    assert_eq!(
        std::fs::metadata(world.path("got.bin.p2part"))
            .ok()
            .map(|_| ()),
        None
    );
    let mut verified = 0;
    while let Some(event) = events.next().await {
        verified += u32::from(matches!(event, DownloadEvent::ChunkVerified { .. }));
    }
    assert_eq!(verified, 4);
    assert_eq!(bob.downloads()[0].progress.state, DownloadState::Complete);

    // Bob seeds it: Alice stops, and Carol gets it from him.
    let stopped = alice.stop_sharing(&photos, &name, false).await.unwrap();
    assert!(!stopped.entry_removed);
    let carol = world.login("Carol").await;
    carol.join(&photos).await.unwrap();
    alice.accept(&photos, &user("carol")).await.unwrap();
    let copy = world.path("carol.bin");
    carol
        .download(&photos, &name, &copy, options)
        .await
        .unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), content);

    // The entry goes with the last who shares it.
    assert!(
        !bob.stop_sharing(&photos, &name, false)
            .await
            .unwrap()
            .entry_removed
    );
    assert!(
        carol
            .stop_sharing(&photos, &name, false)
            .await
            .unwrap()
            .entry_removed
    );
    assert!(bob.files(&photos).await.unwrap().is_empty());
    let gone = carol.stop_sharing(&photos, &name, false).await;
    assert!(matches!(refusal(gone), Refusal::FileNotFound { .. }));
    for session in [alice, bob, carol] {
        session.peer().shutdown().await.unwrap();
    }
    world.tracker.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_size_around_a_chunk_arrives() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    let chunk = 512 * 1024;
    for bytes in [1, 2, chunk - 1, chunk, chunk + 1, 2 * chunk] {
        let name = format!("f{bytes}");
        let (path, content) = world.file(&name, bytes);
        alice.share(&path, &open, None).await.unwrap();
        // Without joining.
        let dest = world.path(&format!("got{bytes}"));
        let download = bob.download(&open, &file_name(&name), &dest, DownloadOptions::default());
        assert_eq!(download.await.unwrap().bytes, bytes as u64);
        assert_eq!(std::fs::read(&dest).unwrap(), content);
    }
    let (empty, _) = world.file("empty", 0);
    assert!(matches!(
        alice.share(&empty, &open, None).await,
        Err(ShareError::Empty)
    ));
}

#[tokio::test]
async fn groups_and_members() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let music = group("music");
    alice.create_group(&music, Access::Members).await.unwrap();
    assert!(matches!(
        refusal(bob.create_group(&group("MUSIC"), Access::Open).await),
        Refusal::GroupExists { .. }
    ));
    assert!(matches!(
        refusal(bob.leave(&music).await),
        Refusal::NotAMember { .. }
    ));
    assert!(matches!(
        refusal(alice.leave(&music).await),
        Refusal::OwnerCannotLeave { .. }
    ));
    assert!(matches!(
        refusal(alice.join(&music).await),
        Refusal::AlreadyMember { .. }
    ));
    assert!(matches!(
        refusal(bob.requests(&music).await),
        Refusal::NotOwner { .. }
    ));
    let nobody = alice.accept(&music, &user("bob")).await;
    assert!(matches!(refusal(nobody), Refusal::NoPendingRequest { .. }));

    bob.join(&music).await.unwrap();
    let again = bob.join(&music).await.unwrap();
    assert_eq!(
        again,
        JoinOutcome::AlreadyPending {
            owner: user("alice")
        }
    );
    assert!(bob.groups().await.unwrap()[0].pending);
    alice.reject(&music, &user("bob")).await.unwrap();
    assert!(!bob.groups().await.unwrap()[0].pending);
    bob.join(&music).await.unwrap();
    alice.accept(&music, &user("bob")).await.unwrap();
    assert!(matches!(
        refusal(bob.join(&music).await),
        Refusal::AlreadyMember { .. }
    ));
    let summary = bob.groups().await.unwrap()[0].clone();
    assert_eq!(
        (summary.members, summary.role),
        (2, Some(p2pshare::Role::Member))
    );

    bob.leave(&music).await.unwrap();
    assert!(matches!(
        refusal(bob.files(&music).await),
        Refusal::NotAMember { .. }
    ));
    bob.join(&music).await.unwrap();
    alice.accept(&music, &user("bob")).await.unwrap();
    alice.transfer(&music, &user("bob")).await.unwrap();
    let not_owner = alice.remove_member(&music, &user("bob")).await;
    assert!(matches!(refusal(not_owner), Refusal::NotOwner { .. }));
    assert_eq!(
        alice.groups().await.unwrap()[0].role,
        Some(p2pshare::Role::Member)
    );
    bob.remove_member(&music, &user("alice")).await.unwrap();
    assert_eq!(alice.groups().await.unwrap()[0].role, None);
    assert!(matches!(
        refusal(alice.files(&music).await),
        Refusal::NotAMember { .. }
    ));
}

#[tokio::test]
async fn accounts_and_sessions() {
    let world = World::new().await;
    let alice = world.login("Alice").await;
    let client = TrackerClient::connect(&world.trackers(), None)
        .await
        .unwrap();
    assert_eq!(client.ring_id(), world.tracker.ring_id());
    let again = client.create_user(&user("ALICE"), &password()).await;
    assert!(matches!(refusal(again), Refusal::UserExists { .. }));
    let short = client
        .create_user(&user("dora"), &Password::new("abc"))
        .await;
    assert!(matches!(refusal(short), Refusal::BadPassword { .. }));

    let peer = world.peer("other").await;
    let wrong = peer.login(&user("alice"), &Password::new("wrong")).await;
    let unknown = peer.login(&user("nobody"), &password()).await;
    assert_eq!(refusal(wrong), Refusal::InvalidCredentials);
    assert_eq!(refusal(unknown), Refusal::InvalidCredentials);
    let second = peer.login(&user("alice"), &password()).await.unwrap();
    assert_eq!(second.user().as_str(), "Alice");
    second.logout().await.unwrap();
    assert!(matches!(
        second.groups().await,
        Err(SessionError::LoggedOut)
    ));
    alice.groups().await.unwrap();

    // A session goes on in the next life of its peer; after a logout it does not.
    alice.peer().shutdown().await.unwrap();
    drop(alice);
    let peer = world.peer("Alice").await;
    let alice = peer.resume().await.unwrap().unwrap();
    alice.groups().await.unwrap();
    alice.logout().await.unwrap();
    peer.shutdown().await.unwrap();
    drop((alice, peer));
    let peer = world.peer("Alice").await;
    assert!(peer.resume().await.unwrap().is_none());
    world.create_user("bob").await;
    let bob = peer.login(&user("bob"), &password()).await;
    assert!(matches!(bob, Err(SessionError::OtherUser { .. })));
}

#[tokio::test]
async fn a_tracker_that_starts_again_is_not_noticed() {
    let mut world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    let (path, content) = world.file("x", 700_000);
    alice.share(&path, &open, None).await.unwrap();
    let (dir, port) = (world.path("tracker"), world.tracker.addr().port());
    world.tracker.shutdown().await.unwrap();
    world.tracker = start_tracker(&dir, port).await;
    let options = DownloadOptions::default().wait(true);
    let dest = world.path("got");
    bob.download(&open, &file_name("x"), &dest, options)
        .await
        .unwrap();
    assert_eq!(std::fs::read(&dest).unwrap(), content);
}

#[tokio::test]
async fn a_tracker_of_another_ring_is_told_nothing() {
    let (world, other) = (World::new().await, World::new().await);
    let wrong = TrackerClient::connect(&other.trackers(), Some(world.tracker.ring_id())).await;
    assert!(matches!(wrong, Err(SessionError::WrongRing { .. })));
    let peer = Peer::builder(world.path("p"), world.tracker.ring_id())
        .trackers(other.trackers())
        .bind()
        .await
        .unwrap();
    let login = peer.login(&user("alice"), &password()).await;
    assert!(matches!(login, Err(SessionError::WrongRing { .. })));
}

#[tokio::test]
async fn destinations_are_never_replaced_unasked() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    let (path, content) = world.file("x", 1000);
    alice.share(&path, &open, None).await.unwrap();
    let (dest, name) = (world.path("got"), file_name("x"));
    std::fs::write(&dest, b"mine").unwrap();
    let plain = DownloadOptions::default();
    let refused = bob.download(&open, &name, &dest, plain).await;
    assert!(matches!(
        refused,
        Err(DownloadError::DestinationExists { .. })
    ));
    assert_eq!(std::fs::read(&dest).unwrap(), b"mine");
    bob.download(&open, &name, &dest, plain.force(true))
        .await
        .unwrap();
    assert_eq!(std::fs::read(&dest).unwrap(), content);
    assert!(
        bob.download(&open, &name, &dest, plain)
            .await
            .unwrap()
            .was_there
    );
    let missing = bob
        .download(&open, &name, world.path("no/where"), plain)
        .await;
    assert!(matches!(missing, Err(DownloadError::BadDestination { .. })));
    let folder = bob.download(&open, &name, world.dir.path(), plain).await;
    assert!(matches!(folder, Err(DownloadError::BadDestination { .. })));
    // The uploader's own file, to another place: from this machine.
    let copy = world.path("copy");
    alice.download(&open, &name, &copy, plain).await.unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), content);
}

#[tokio::test]
async fn nobody_online_is_said() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    let (path, _) = world.file("x", 1000);
    alice.share(&path, &open, None).await.unwrap();
    alice.peer().shutdown().await.unwrap();
    let plain = DownloadOptions::default();
    let none = bob
        .download(&open, &file_name("x"), world.path("got"), plain)
        .await;
    let error = none.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no peers online for 'x'; one was last seen"),
        "{error}"
    );
    let unknown = bob
        .download(&open, &file_name("y"), world.path("got"), plain)
        .await;
    assert!(matches!(
        unknown,
        Err(DownloadError::Session(SessionError::Refused(
            Refusal::FileNotFound { .. }
        )))
    ));
}

#[tokio::test]
async fn who_leaves_shares_no_more() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    bob.join(&open).await.unwrap();
    let (path, _) = world.file("bobs", 1000);
    bob.share(&path, &open, None).await.unwrap();
    assert_eq!(alice.files(&open).await.unwrap().len(), 1);
    bob.leave(&open).await.unwrap();
    assert!(bob.shares().is_empty());
    assert!(alice.files(&open).await.unwrap().is_empty());
}

#[tokio::test]
async fn two_that_share_one_name_at_once_end_with_one_file_that_is_served() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let (one, _) = world.file("one", 600_000);
    let (two, _) = world.file("two", 700_000);
    let name = file_name("same");
    for round in 0..5 {
        let open = group(&format!("open{round}"));
        alice.create_group(&open, Access::Open).await.unwrap();
        let share = |path| alice.share(path, &open, Some(name.clone())).into_future();
        let (first, second) = tokio::join!(share(&one), share(&two));
        let shared = match (first, second) {
            (Ok(shared), Err(_)) | (Err(_), Ok(shared)) => shared,
            outcome => panic!("round {round}: not exactly one: {outcome:?}"),
        };
        let files = bob.files(&open).await.unwrap();
        assert_eq!((files[0].id, files[0].holders_online), (shared.id, 1));
        let dest = world.path(&format!("got{round}"));
        let plain = DownloadOptions::default();
        let report = bob.download(&open, &name, &dest, plain).await.unwrap();
        assert_eq!(report.bytes, shared.size);
    }
}

#[tokio::test]
async fn one_content_under_two_names_is_two_files() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    let (path, content) = world.file("x", 600_000);
    let plain = DownloadOptions::default();
    for name in ["x1", "x2"] {
        let name = file_name(name);
        alice.share(&path, &open, Some(name.clone())).await.unwrap();
        let dest = world.path(&format!("bobs {name}"));
        bob.download(&open, &name, &dest, plain).await.unwrap();
        alice.stop_sharing(&open, &name, false).await.unwrap();
    }
    bob.stop_sharing(&open, &file_name("x1"), false)
        .await
        .unwrap();
    let copy = world.path("alices again");
    alice
        .download(&open, &file_name("x2"), &copy, plain)
        .await
        .unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), content);
}

#[tokio::test]
async fn what_stands_where_the_partial_file_would_be_is_left_alone() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    let plain = DownloadOptions::default();
    for (name, bytes) in [("bar.p2part", 900_000), ("bar", 1_000)] {
        let (path, _) = world.file(name, bytes);
        alice.share(&path, &open, None).await.unwrap();
    }
    let folder = world.path("downloads");
    std::fs::create_dir(&folder).unwrap();
    let (victim, dest) = (folder.join("bar.p2part"), folder.join("bar"));
    bob.download(&open, &file_name("bar.p2part"), &victim, plain)
        .await
        .unwrap();
    let before = std::fs::read(&victim).unwrap();
    let refused = bob.download(&open, &file_name("bar"), &dest, plain).await;
    assert!(
        matches!(refused, Err(DownloadError::InTheWay { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(&victim).unwrap(), before);
    assert!(!dest.exists());
}

#[tokio::test]
async fn who_is_out_of_a_group_has_no_say_in_it_and_learns_nothing_of_it() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let eve = world.login("eve").await;
    let closed = group("closed");
    alice.create_group(&closed, Access::Members).await.unwrap();
    bob.join(&closed).await.unwrap();
    alice.accept(&closed, &user("bob")).await.unwrap();
    let (path, _) = world.file("bobs", 1000);
    bob.share(&path, &closed, None).await.unwrap();
    for for_all in [false, true] {
        for name in ["bobs", "nothing"] {
            let asked = eve.stop_sharing(&closed, &file_name(name), for_all).await;
            assert!(
                matches!(refusal(asked), Refusal::NotAMember { .. }),
                "{name}"
            );
        }
    }
    let plain = DownloadOptions::default();
    let copy = world.path("copy");
    alice
        .download(&closed, &file_name("bobs"), &copy, plain)
        .await
        .unwrap();
    alice.remove_member(&closed, &user("bob")).await.unwrap();
    let all = bob.stop_sharing(&closed, &file_name("bobs"), true).await;
    assert!(matches!(refusal(all), Refusal::NotAMember { .. }));
    assert_eq!(alice.files(&closed).await.unwrap().len(), 1);
    let owner = alice.remove_member(&closed, &user("alice")).await;
    assert!(matches!(
        refusal(owner),
        Refusal::OwnerCannotBeRemoved { .. }
    ));
}

#[tokio::test]
async fn a_name_that_the_group_gave_up_can_be_shared_again_at_once() {
    let world = World::new().await;
    let (alice, bob) = (world.login("alice").await, world.login("bob").await);
    let open = group("open");
    alice.create_group(&open, Access::Open).await.unwrap();
    bob.join(&open).await.unwrap();
    let (path, _) = world.file("z", 1000);
    bob.share(&path, &open, None).await.unwrap();
    alice
        .stop_sharing(&open, &file_name("z"), true)
        .await
        .unwrap();
    bob.share(&path, &open, None).await.unwrap();
    assert_eq!(alice.files(&open).await.unwrap()[0].holders_online, 1);
}
