//! Whatever keeps the bytes from coming, the download says what it is.

use std::{collections::BTreeMap, future::IntoFuture, sync::Arc};

use tokio::{net::UdpSocket, task::JoinSet, time::timeout};

use super::{
    swarms::{Holder, Manner, random_file},
    *,
};
use crate::{
    CHUNK_SIZE, Download, DownloadEvent, Limits, Rate, Stall,
    limits::{NO_SOURCE_PATIENCE, WRITE_QUEUE_CHUNKS},
    wire::tracker::{Announcement, Holding, SwarmEntry},
};

/// Waits until the download says why nothing comes, and that it is this.
async fn stalls_by(download: &Download, expected: Stall) {
    let mut watch = download.watch();
    let said = async {
        let mut progress = Some(download.progress());
        while let Some(now) = progress {
            if now.stall == Some(expected) {
                return;
            }
            progress = watch.next().await;
        }
        panic!("it ended: {:?}", download.progress());
    };
    if timeout(WITHIN, said).await.is_err() {
        panic!("{expected:?} is not said: {:?}", download.progress());
    }
}

#[tokio::test]
async fn a_stall_is_never_silent() {
    let world = World::new().await;
    let films = group("films");
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    let chunk = CHUNK_SIZE as usize;
    let one = 1;
    let reasons = [
        (
            "one",
            Manner::HasOne,
            Stall::NoHolder {
                chunk: 1,
                chunks: 2,
            },
        ),
        ("busy", Manner::Busy(usize::MAX), Stall::Busy { peers: one }),
        ("queue", Manner::Queues, Stall::Busy { peers: one }),
        ("silent", Manner::Silent, Stall::Silent { peers: one }),
        ("refuses", Manner::Refuses, Stall::Refused { peers: one }),
    ];
    let mut files = BTreeMap::new();
    for (at, (name, ..)) in reasons.iter().enumerate() {
        let file = Arc::new(random_file(name, 3 * chunk - at));
        world.share(&alice, &films, &file).await;
        files.insert(*name, file);
    }
    for (at, name) in ["gone", "hole", "nobody", "lost"].into_iter().enumerate() {
        let file = Arc::new(random_file(name, chunk - at));
        world.share(&alice, &films, &file).await;
        files.insert(name, file);
    }
    alice.peer().shutdown().await.unwrap();

    for (name, manner, _) in reasons.clone() {
        let user = world.raw_user(name).await;
        Holder::start(user, &films, &files[name], manner).await;
    }
    // One that has gone without a word, and one in whose place is what answers to nothing.
    let gone = UdpSocket::bind(loopback()).await.unwrap();
    let hole = UdpSocket::bind(loopback()).await.unwrap();
    let mut users = Vec::new();
    for (name, socket) in [("gone", &gone), ("hole", &hole)] {
        let entry = SwarmEntry {
            group: films.clone(),
            name: files[name].name.clone(),
            id: files[name].id(),
            holding: Holding::Complete,
        };
        let announcement = Announcement {
            number: 1,
            addrs: vec![socket.local_addr().unwrap()],
            anew: true,
            swarms: vec![entry],
        };
        let user = world.raw_user(name).await;
        user.ask(Request::Announce(announcement)).await;
        users.push(user);
    }
    drop(gone);

    let bob = world.login("bob").await;
    let download = |name: &str| {
        let options = DownloadOptions::default().wait(true);
        let dest = world.path(&format!("{name}.got"));
        bob.download(&films, &file_name(name), dest, options)
    };
    let mut said = JoinSet::new();
    for (name, _, reason) in reasons {
        let download = download(name);
        said.spawn(async move { stalls_by(&download, reason).await });
    }
    let [hole, gone, nobody, lost] = ["hole", "gone", "nobody", "lost"].map(download);
    said.spawn(async move { stalls_by(&hole, Stall::Connecting { peers: 1 }).await });
    said.spawn(async move { stalls_by(&gone, Stall::Unreachable { peers: 1 }).await });
    said.spawn(async move { stalls_by(&nobody, Stall::Nobody).await });
    while let Some(said) = said.join_next().await {
        said.unwrap();
    }
    world.tracker.shutdown().await.unwrap();
    stalls_by(&lost, Stall::NoTracker).await;
}

#[tokio::test]
async fn who_is_told_to_wait_for_a_place_is_not_told_that_nobody_is_online() {
    let world = World::new().await;
    let films = group("films");
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    let manners = [
        ("queue", Manner::Queues),
        ("busy", Manner::Busy(usize::MAX)),
        ("part", Manner::HasOne),
    ];
    for (at, (name, manner)) in manners.into_iter().enumerate() {
        let file = Arc::new(random_file(name, 3 * CHUNK_SIZE as usize - at));
        world.share(&alice, &films, &file).await;
        Holder::start(world.raw_user(name).await, &films, &file, manner).await;
    }
    alice.peer().shutdown().await.unwrap();
    let bob = world.login("bob").await;
    // None of them is to wait until somebody comes.
    let download = |name: &str| {
        let dest = world.path(&format!("{name}.got"));
        bob.download(&films, &file_name(name), dest, DownloadOptions::default())
    };
    let waiting = ["queue", "busy"].map(download);
    for download in &waiting {
        stalls_by(download, Stall::Busy { peers: 1 }).await;
    }
    // Where nothing can come any more that is the end, after so long a time that it would have been theirs.
    let part = timeout(NO_SOURCE_PATIENCE * 2, download("part").into_future());
    part.await.expect("it gives up").unwrap_err();
    for download in &waiting {
        stalls_by(download, Stall::Busy { peers: 1 }).await;
        assert!(download.progress().state.is_active());
    }
}

#[tokio::test]
async fn a_store_that_takes_long_holds_up_what_it_must_and_silences_nothing() {
    let world = World::new().await;
    let films = group("films");
    let size = 4 * WRITE_QUEUE_CHUNKS * CHUNK_SIZE as usize;
    let file = Arc::new(random_file("film", size));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    let slow = Manner::Slow(Duration::from_millis(1));
    Holder::start(world.raw_user("sam").await, &films, &file, slow).await;
    let bob = world.login("bob").await;
    let dest = world.path("bob.got");
    let download = bob.download(&films, &file.name, &dest, DownloadOptions::default());
    let mut events = download.events();
    let first = async {
        while let Some(event) = events.next().await {
            if matches!(event, DownloadEvent::ChunkVerified { .. }) {
                return;
            }
        }
        panic!("it ended: {:?}", download.progress());
    };
    timeout(WITHIN, first).await.expect("a chunk comes");
    // Nothing is journalled from now on.
    let held_up = HeldUp::new(bob.peer());
    stalls_by(&download, Stall::Disk).await;
    let verified = download.progress().verified_bytes;
    assert!(verified >= WRITE_QUEUE_CHUNKS as u64 * u64::from(CHUNK_SIZE));
    held_up.goes_on().await;
    let report = timeout(WITHIN, download.into_future()).await;
    report.expect("nothing holds it up").unwrap();
    assert!(std::fs::read(&dest).unwrap() == file.content);
}

#[tokio::test]
async fn a_download_that_is_limited_says_so_and_goes_on_when_it_is_not_any_more() {
    let world = World::new().await;
    let films = group("films");
    let file = random_file("film", 20 * CHUNK_SIZE as usize);
    let alice = world.sharer("alice", &films, &file).await;
    let bob = world.login("bob").await;
    bob.join(&films).await.unwrap();
    alice.accept(&films, bob.user()).await.unwrap();
    let rate = Rate::per_second(Rate::MIN).unwrap();
    let limits = Limits::default().download(Some(rate));
    bob.peer().set_limits(limits).await.unwrap();
    let (dest, options) = (world.path("bob.got"), DownloadOptions::default());
    let download = bob.download(&films, &file.name, &dest, options);
    stalls_by(&download, Stall::Limited { rate }).await;
    // One chunk has room at once, and the next one in a minute.
    assert_eq!(alice.peer().sent_bytes(), u64::from(CHUNK_SIZE));
    bob.peer().set_limits(Limits::default()).await.unwrap();
    let report = timeout(WITHIN, download.into_future()).await;
    report.expect("nothing holds it up").unwrap();
    assert!(std::fs::read(&dest).unwrap() == file.content);
    assert_eq!(alice.peer().sent_bytes(), file.content.len() as u64);
}

#[tokio::test]
async fn of_two_changes_of_the_limits_at_once_none_is_lost() {
    let world = World::new().await;
    let peer = world.peer("alice").await;
    let [upload, download] = [40_000_000, 500_000].map(|bytes| Rate::per_second(bytes).ok());
    let (one, other) = tokio::join!(
        peer.change_limits(|limits| limits.upload(upload)),
        peer.change_limits(|limits| limits.download(download)),
    );
    let both = Limits::default().upload(upload).download(download);
    assert!(one.unwrap() == both || other.unwrap() == both);
    assert_eq!(peer.limits(), both);
    peer.shutdown().await.unwrap();
    assert_eq!(world.peer("alice").await.limits(), both);
}

#[tokio::test]
async fn limits_are_kept() {
    let world = World::new().await;
    let peer = world.peer("alice").await;
    assert_eq!(peer.limits(), Limits::default());
    let limits = Limits::default().upload(Rate::per_second(40_000_000).ok());
    peer.set_limits(limits).await.unwrap();
    assert_eq!(peer.limits(), limits);
    peer.shutdown().await.unwrap();
    let peer = world.peer("alice").await;
    assert_eq!(peer.limits(), limits);
    // They hold from the beginning: one who is asked sends at that rate.
    assert_eq!(peer.limits().upload.map(Rate::bytes), Some(40_000_000));
    peer.set_limits(Limits::default()).await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(world.peer("alice").await.limits(), Limits::default());
}
