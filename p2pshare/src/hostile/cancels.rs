//! Whoever stops a download and goes on with it, however often, fetches nothing twice but what was under way.

use std::{collections::HashSet, future::IntoFuture, sync::Arc};

use tokio::time::timeout;

use super::{
    swarms::{Holder, Manner, download, random_file},
    *,
};
use crate::{CHUNK_SIZE, DownloadError, DownloadEvent, limits::WRITE_QUEUE_CHUNKS};

#[tokio::test]
async fn what_was_cancelled_a_hundred_times_fetches_no_chunk_twice() {
    const TIMES: usize = 100;
    let world = World::new().await;
    let chunks = TIMES + 8;
    let size = chunks * CHUNK_SIZE as usize - 99;
    let (films, file) = (group("films"), Arc::new(random_file("film", size)));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    // Nothing is under way when it is cancelled but what does not come.
    let sam = Manner::Doles(TIMES);
    let sam = Holder::start(world.raw_user("sam").await, &films, &file, sam).await;
    let bob = world.login("bob").await;
    let dest = world.path("bob.got");
    let mut verified = HashSet::new();
    for time in 0..=TIMES {
        let download = download(&bob, &films, &file, &dest);
        let mut events = download.events();
        if time < TIMES {
            let first = async {
                loop {
                    match events.next().await.expect("it is under way") {
                        DownloadEvent::ChunkVerified { index, .. } => return index,
                        DownloadEvent::Resumed { chunks } => assert_eq!(chunks as usize, time),
                        _ => {}
                    }
                }
            };
            let index = timeout(WITHIN, first).await.expect("a chunk comes");
            assert!(verified.insert(index), "chunk {index} again, time {time}");
            download.cancel();
        }
        let ended = timeout(WITHIN, download.into_future()).await;
        match ended.expect("it ends") {
            Err(DownloadError::Cancelled) if time < TIMES => {}
            Ok(report) => assert_eq!((time, report.chunks_resumed as usize), (TIMES, TIMES)),
            Err(error) => panic!("time {time}: {error}"),
        }
    }
    assert!(std::fs::read(&dest).unwrap() == file.content);
    assert_eq!(sam.sent(), chunks);
}

#[tokio::test]
async fn what_was_verified_before_a_cancel_is_not_fetched_again_however_slow_the_store_is() {
    let world = World::new().await;
    let size = 4 * WRITE_QUEUE_CHUNKS * CHUNK_SIZE as usize;
    let (films, file) = (group("films"), Arc::new(random_file("film", size)));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    let sam = Manner::Slow(Duration::from_millis(1));
    Holder::start(world.raw_user("sam").await, &films, &file, sam).await;
    let bob = world.login("bob").await;
    let dest = world.path("bob.got");
    let first = download(&bob, &films, &file, &dest);
    let mut progress = first.watch();
    while first.progress().verified_bytes == 0 {
        progress.next().await.expect("it is under way");
    }
    let held_up = HeldUp::new(bob.peer());
    let enough = WRITE_QUEUE_CHUNKS as u64 * u64::from(CHUNK_SIZE);
    while first.progress().verified_bytes < enough {
        progress.next().await.expect("it is under way");
    }
    first.cancel();
    tokio::task::yield_now().await;
    held_up.goes_on().await;
    let verified = first.progress().verified_bytes / u64::from(CHUNK_SIZE);
    let ended = timeout(WITHIN, first.into_future()).await;
    assert!(matches!(
        ended.expect("it ends"),
        Err(DownloadError::Cancelled)
    ));
    let again = timeout(WITHIN, download(&bob, &films, &file, &dest).into_future()).await;
    let report = again.expect("it goes on").unwrap();
    assert_eq!(u64::from(report.chunks_resumed), verified);
}
