//! Whoever stops a download and goes on with it, however often, fetches nothing twice but what was under way.

use std::{collections::HashSet, future::IntoFuture, sync::Arc};

use tokio::time::timeout;

use super::{
    swarms::{Holder, Manner, download, random_file},
    *,
};
use crate::{CHUNK_SIZE, DownloadError, DownloadEvent};

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
