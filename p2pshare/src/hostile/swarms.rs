//! Many holders of one file, some of them slow, dying, lying, or with a part of it only: a download takes from
//! each what it gives, and is right in the end.

use std::{
    collections::BTreeSet,
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::JoinSet,
    time::{Duration, Instant, interval, timeout},
};

use super::{readers::Swarm, *};
use crate::{
    Download, DownloadEvent,
    limits::{NO_SOURCE_PATIENCE, TRACKER_ANSWER_TIMEOUT},
    transport::{CloseCode, RecvStream, SendStream},
    wire::{
        peer::{ChunkHeader, Open, PageAnswer, PeerRefusal, SwarmAnswer, SwarmRequest},
        tracker::{Announcement, Holding, SwarmEntry},
    },
};

const CHUNK: usize = crate::CHUNK_SIZE as usize;

/// A file of random bytes.
pub(super) fn random_file(name: &str, bytes: usize) -> TestFile {
    let mut content = vec![0; bytes];
    StdRng::seed_from_u64(bytes as u64).fill_bytes(&mut content);
    TestFile::of(name, content)
}

/// How a holder behaves who is made for the test.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// Gives the chunks that are of that remainder by two to that peer, and lacks the others.
    Halves(Vec<(PeerId, u32)>),
    /// Says that it is downloading as well, and has the first chunk and no other.
    HasOne,
    /// Gives 16 KiB at a time, one piece at each tick.
    Slow(Duration),
    /// Gives so many chunks, one wrong bit in the next, and no more.
    Lies(usize),
    /// Gives so many chunks and a part of the next, and hangs up.
    Dies(usize),
    /// Gives on each of so many streams one chunk and a part of the next, and no more; on later ones all.
    Doles(usize),
    /// Is busy for so many streams, and gives everything on the next.
    Busy(usize),
    /// Says that it has everything, and lacks whatever it is asked for.
    Boasts,
    /// Lets everybody wait for a place.
    Queues,
    /// Takes requests and never answers.
    Silent,
    /// Refuses everybody.
    Refuses,
}

impl Manner {
    fn holding(&self) -> Holding {
        match self {
            Self::HasOne => Holding::Partial(vec![1]),
            _ => Holding::Complete,
        }
    }
}

/// A holder who is made for the test.
pub(super) struct Holder {
    user: RawUser,
    file: Arc<TestFile>,
    manner: Manner,
    /// Streams for chunks.
    pub(super) opened: AtomicUsize,
    /// Chunks that it was asked for, and told not to send after all.
    asked: Mutex<Vec<u32>>,
    cancelled: Mutex<Vec<u32>>,
    /// Chunks that it sent whole.
    sent: Mutex<Vec<u32>>,
}

impl Holder {
    /// Announces the whole file, and serves it in that manner.
    pub(super) async fn start(
        user: RawUser,
        group: &GroupName,
        file: &Arc<TestFile>,
        manner: Manner,
    ) -> Arc<Self> {
        let entry = SwarmEntry {
            group: group.clone(),
            name: file.name.clone(),
            id: file.id(),
            holding: manner.holding(),
        };
        let announcement = Announcement {
            number: 1,
            addrs: vec![user.stranger.endpoint.local_addr()],
            anew: true,
            swarms: vec![entry],
        };
        let announced = user.ask(Request::Announce(announcement)).await;
        assert!(matches!(announced, Response::Announced { .. }));
        let holder = Arc::new(Self {
            user,
            file: file.clone(),
            manner,
            opened: AtomicUsize::new(0),
            asked: Mutex::default(),
            cancelled: Mutex::default(),
            sent: Mutex::default(),
        });
        tokio::spawn(holder.clone().serve());
        holder
    }

    fn peer_id(&self) -> PeerId {
        self.user.peer_id()
    }

    pub(super) fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    async fn serve(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        while let Some(connection) = self.user.stranger.endpoint.accept().await {
            let holder = self.clone();
            tasks.spawn(async move {
                let mut streams = JoinSet::new();
                while let Ok((send, receive)) = connection.accept().await {
                    streams.spawn(
                        holder
                            .clone()
                            .serve_stream(connection.clone(), send, receive),
                    );
                }
            });
        }
    }

    async fn serve_stream(
        self: Arc<Self>,
        connection: Connection,
        mut send: SendStream,
        mut receive: RecvStream,
    ) {
        match receive.receive::<Open>().await.unwrap() {
            Open::Digests { .. } => {
                let digests = self.file.digests.clone();
                let proof = Vec::new();
                let answer = PageAnswer::Page { digests, proof };
                send.send(&answer).await.unwrap();
                send.finish();
            }
            Open::Swarm { .. } => {
                let before = self.opened.fetch_add(1, Ordering::Relaxed);
                if matches!(self.manner, Manner::Busy(streams) if before < streams) {
                    let busy = SwarmAnswer::Refused(PeerRefusal::Busy);
                    send.send(&busy).await.unwrap();
                    send.finish();
                    return;
                }
                match self.manner {
                    Manner::Queues => {
                        send.send(&SwarmAnswer::Waits).await.unwrap();
                        connection.closed().await;
                        return;
                    }
                    Manner::Refuses => {
                        let denied = SwarmAnswer::Refused(PeerRefusal::Denied);
                        send.send(&denied).await.unwrap();
                        send.finish();
                        return;
                    }
                    _ => {}
                }
                let holding = self.manner.holding();
                send.send(&SwarmAnswer::Opened { holding }).await.unwrap();
                let (ask, asked) = tokio::sync::mpsc::channel(256);
                tokio::join!(self.hear(receive, ask), self.give(&connection, send, asked));
            }
        }
    }

    async fn hear(&self, mut receive: RecvStream, ask: tokio::sync::mpsc::Sender<u32>) {
        while let Ok(Some(request)) = receive.receive_or_end().await {
            match request {
                SwarmRequest::Chunk { index } => {
                    self.asked.lock().unwrap().push(index);
                    ask.send(index).await.unwrap();
                }
                SwarmRequest::Cancel { index } => self.cancelled.lock().unwrap().push(index),
                SwarmRequest::Renew { .. } => {}
            }
        }
    }

    async fn give(
        &self,
        connection: &Connection,
        mut send: SendStream,
        mut asked: tokio::sync::mpsc::Receiver<u32>,
    ) {
        let stream = self.opened.load(Ordering::Relaxed);
        let mut given = 0;
        while let Some(index) = asked.recv().await {
            let doled = matches!(self.manner, Manner::Doles(streams) if stream <= streams);
            let lied = matches!(self.manner, Manner::Lies(after) if self.sent() > after);
            if matches!(self.manner, Manner::Silent) || lied || doled && given > 1 {
                continue;
            }
            given += 1;
            let mut chunk = self.file.chunk(index).to_vec();
            let length = chunk.len() as u32;
            let mut header = ChunkHeader::Chunk { index, length };
            let mut tick = Duration::from_nanos(1);
            let mut last = false;
            match &self.manner {
                Manner::Halves(halves) => {
                    let peer = connection.remote_peer();
                    if !halves.contains(&(peer, index % 2)) {
                        header = ChunkHeader::Lacking { index };
                        chunk.clear();
                    }
                }
                Manner::Boasts => {
                    header = ChunkHeader::Lacking { index };
                    chunk.clear();
                }
                Manner::Slow(pace) => {
                    tick = *pace;
                    let cancelled = self.cancelled.lock().unwrap().contains(&index);
                    if cancelled {
                        header = ChunkHeader::Cancelled { index };
                        chunk.clear();
                    }
                }
                Manner::Lies(after) if self.sent() >= *after => chunk[1000] ^= 1,
                Manner::Dies(after) if self.sent() >= *after => {
                    chunk.truncate(CHUNK / 2);
                    last = true;
                }
                Manner::Doles(_) if doled && given > 1 => chunk.truncate(CHUNK / 2),
                _ => {}
            }
            let header = Bytes::copy_from_slice(&header.encode());
            if send.send_bytes(header).await.is_err() {
                return;
            }
            let mut ticks = interval(tick);
            for piece in chunk.chunks(16 * 1024) {
                if matches!(self.manner, Manner::Slow(_)) {
                    ticks.tick().await;
                }
                let piece = Bytes::copy_from_slice(piece);
                if send.send_bytes(piece).await.is_err() {
                    return;
                }
            }
            if last {
                self.user.stranger.endpoint.close(CloseCode::ShuttingDown);
                return;
            }
            if chunk.len() == length as usize {
                self.sent.lock().unwrap().push(index);
            }
        }
    }
}

pub(super) fn download(
    session: &Session,
    group: &GroupName,
    file: &TestFile,
    dest: &PathBuf,
) -> Download {
    session.download(group, &file.name, dest, DownloadOptions::default())
}

/// Which chunks of a download are there, now and later.
fn verified(download: &Download) -> watch::Receiver<BTreeSet<u32>> {
    let (sender, receiver) = watch::channel(BTreeSet::new());
    let mut events = download.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let DownloadEvent::ChunkVerified { index, .. } = event {
                sender.send_modify(|verified| {
                    verified.insert(index);
                });
            }
        }
    });
    receiver
}

async fn until(verified: &mut watch::Receiver<BTreeSet<u32>>, chunks: &BTreeSet<u32>) {
    let reached = verified.wait_for(|verified| verified.is_superset(chunks));
    timeout(WITHIN, reached)
        .await
        .expect("chunks come")
        .unwrap();
}

#[tokio::test]
async fn four_holders_give_each_a_part_and_no_byte_twice() {
    let world = World::new().await;
    let (films, file) = (group("films"), Arc::new(random_file("film", 64 << 20)));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    let mut holders = vec![alice];
    for name in ["bob", "carol", "dora"] {
        let session = world.login(name).await;
        // Whoever only reads an open group does not share in it.
        session.join(&films).await.unwrap();
        // What is there already is shared from there.
        let copy = world.path(&format!("{name}.copy"));
        std::fs::write(&copy, &file.content).unwrap();
        let there = download(&session, &films, &file, &copy).await.unwrap();
        assert!(there.was_there);
        holders.push(session);
    }
    let before: Vec<u64> = holders.iter().map(|h| h.peer().sent_bytes()).collect();
    let eve = world.login("eve").await;
    let dest = world.path("eve.got");
    let report = download(&eve, &films, &file, &dest).await.unwrap();
    assert!(std::fs::read(&dest).unwrap() == file.content);
    let sent: Vec<u64> = holders
        .iter()
        .zip(before)
        .map(|(holder, before)| holder.peer().sent_bytes() - before)
        .collect();
    eprintln!("sent {sent:?}, twice {}", report.duplicate_bytes);
    assert!(sent.iter().all(|&sent| sent > 0), "{sent:?}");
    let total: u64 = sent.iter().sum();
    let size = file.content.len() as u64;
    assert!(total >= size && total - size < size / 100, "{sent:?}");
    assert!(report.duplicate_bytes < size / 100);

    // One dies, one lies, one is so slow that it might as well not be there.
    let slow = Manner::Slow(Duration::from_millis(200));
    let slow = Holder::start(world.raw_user("slow").await, &films, &file, slow).await;
    let liar = Holder::start(world.raw_user("liar").await, &films, &file, Manner::Lies(3)).await;
    let dying = Holder::start(
        world.raw_user("dying").await,
        &films,
        &file,
        Manner::Dies(5),
    )
    .await;
    let frank = world.login("frank").await;
    let dest = world.path("frank.got");
    let report = download(&frank, &films, &file, &dest).await.unwrap();
    assert!(std::fs::read(&dest).unwrap() == file.content);
    eprintln!("among bad ones, twice {}", report.duplicate_bytes);
    // What was wrong, and what the dying one did not finish, had to come again.
    let lost = CHUNK as u64 * 3 / 2;
    assert!(report.duplicate_bytes < size / 100 + lost);
    // The liar was not asked again.
    assert_eq!(liar.opened.load(Ordering::Relaxed), 1);
    assert_eq!(dying.sent(), 5);
    let (asked, gave) = (slow.asked.lock().unwrap().len(), slow.sent());
    assert!(asked > gave, "asked for {asked}, it gave {gave}");
    let shown = frank.downloads().remove(0).progress.left;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].peer, liar.peer_id());
    let reason = &shown[0].reason;
    assert!(reason.starts_with("it sent a bad chunk "), "{reason}");
}

#[tokio::test]
async fn two_halves_are_a_whole_when_the_one_who_had_it_is_gone() {
    let world = World::new().await;
    let (films, file) = (
        group("films"),
        Arc::new(random_file("film", 20 * CHUNK - 7)),
    );
    let [even, odd]: [BTreeSet<u32>; 2] =
        [0, 1].map(|half| (0..20).filter(|index| index % 2 == half).collect());
    let alice = world.sharer("alice", &films, &file).await;
    let [bob, carol] = [world.login("bob").await, world.login("carol").await];
    for member in [&bob, &carol] {
        member.join(&films).await.unwrap();
        alice.accept(&films, member.user()).await.unwrap();
    }
    let dave = world.raw_user("dave").await;
    dave.join(&films, &alice).await;
    let mallory = world.raw_user("mallory").await;
    // Sam has all, and gives each of them one half.
    let halves = Manner::Halves(vec![(bob.peer().peer_id(), 0), (carol.peer().peer_id(), 1)]);
    let sam = world.raw_user("sam").await;
    sam.join(&films, &alice).await;
    alice.peer().shutdown().await.unwrap();
    let sam = Holder::start(sam, &films, &file, halves).await;

    let (of_bob, of_carol) = (world.path("bob.got"), world.path("carol.got"));
    let bobs = download(&bob, &films, &file, &of_bob);
    let mut of_first = verified(&bobs);
    until(&mut of_first, &even).await;
    assert_eq!(*of_first.borrow(), even);

    // What he has he gives to those who may read it, and to nobody else; and he does not count as a holder.
    let open = |grant| Open::Swarm {
        grant,
        group: films.clone(),
        id: file.id(),
    };
    let mallorys = mallory.claims(world.ring(), &films, now());
    let forged = signed(&mallorys, &SigningKey::from_seed(&[7; 32]));
    let connection = mallory.stranger.dial_peer(bob.peer()).await;
    let refused = Swarm::open(&connection, &open(forged)).await;
    assert_eq!(refused.err(), Some(PeerRefusal::Denied));
    let connection = dave.stranger.dial_peer(bob.peer()).await;
    let open = open(dave.grant(&films).await);
    let mut stream = Swarm::open(&connection, &open).await.unwrap();
    assert_eq!(stream.holding, Holding::Partial(vec![0x55, 0x55, 0x05]));
    assert_eq!(stream.chunk(0).await.as_deref(), Some(file.chunk(0)));
    assert_eq!(stream.chunk(1).await, None);
    assert_eq!(bob.files(&films).await.unwrap()[0].holders_online, 1);

    let carols = download(&carol, &films, &file, &of_carol);
    until(&mut verified(&carols), &odd).await;
    sam.user.stranger.endpoint.close(CloseCode::ShuttingDown);
    for download in [bobs, carols] {
        let report = timeout(WITHIN * 2, download.into_future());
        let report = report
            .await
            .expect("each has what the other lacks")
            .unwrap();
        assert!(std::fs::read(report.dest).unwrap() == file.content);
        assert_eq!(report.duplicate_bytes, 0);
    }
    assert_eq!(sam.sent(), even.len() + odd.len());
    let given: u64 = [&bob, &carol].map(|s| s.peer().sent_bytes()).iter().sum();
    assert_eq!(
        given,
        file.content.len() as u64 + CHUNK as u64,
        "and one to dave"
    );

    // Who was served while it was a part goes on being served, now that it is whole and has its name.
    stream.until_it_has(odd.len()).await;
    let had: BTreeSet<u32> = stream.haves.iter().copied().collect();
    assert_eq!(had, odd);
    assert_eq!(stream.chunk(1).await.as_deref(), Some(file.chunk(1)));
    bob.stop_sharing(&films, &file.name, false).await.unwrap();
    assert_eq!(stream.chunk(1).await, None, "it is not shared any more");
}

#[tokio::test]
async fn when_all_who_are_online_have_but_a_part_it_is_said_so() {
    let world = World::new().await;
    let (films, file) = (group("films"), Arc::new(random_file("film", 3 * CHUNK)));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    let sam = world.raw_user("sam").await;
    let sam = Holder::start(sam, &films, &file, Manner::HasOne).await;
    let bob = world.login("bob").await;
    assert_eq!(bob.files(&films).await.unwrap()[0].holders_online, 0);
    let dest = world.path("bob.got");
    let download = download(&bob, &films, &file, &dest);
    until(&mut verified(&download), &[0].into()).await;
    // It waits for somebody to come who has the rest, as long as it would wait for anybody.
    assert!(download.progress().state.is_active());
    let start = Instant::now();
    let ended = timeout(NO_SOURCE_PATIENCE * 2, download.into_future());
    let error = ended.await.expect("it gives up").unwrap_err();
    assert!(start.elapsed() + Duration::from_secs(1) >= NO_SOURCE_PATIENCE);
    assert_eq!(
        error.to_string(),
        "all peers online with 'film' (1) have only a part of it: 2 chunks are missing"
    );
    assert_eq!(sam.sent(), 1);
}

#[tokio::test]
async fn who_lacks_again_and_again_what_it_said_it_has_is_found_out_and_left() {
    let world = World::new().await;
    let chunks = 64;
    let (films, file) = (
        group("films"),
        Arc::new(random_file("film", chunks * CHUNK)),
    );
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    drop(alice);
    let boaster = world.raw_user("boaster").await;
    let boaster = Holder::start(boaster, &films, &file, Manner::Boasts).await;
    let bob = world.login("bob").await;
    let dest = world.path("bob.got");
    let download = download(&bob, &films, &file, &dest);
    let mut progress = download.watch();
    let left = loop {
        let next = timeout(WITHIN, progress.next()).await;
        let now = next.expect("it is left").unwrap();
        if let Some(left) = now.left.first() {
            break left.clone();
        }
    };
    assert_eq!(left.peer, boaster.peer_id());
    assert!(
        left.reason.starts_with("it lacks chunk "),
        "{}",
        left.reason
    );
    // It was not asked for one after the other of all that it does not have.
    let asked = boaster.asked.lock().unwrap().len();
    let opened = boaster.opened.load(Ordering::Relaxed);
    assert!(asked < opened * chunks, "asked for {asked}");
    // Whoever has them gives them.
    let peer = world.peer("alice").await;
    peer.resume().await.unwrap().unwrap();
    let report = timeout(WITHIN, download.into_future());
    report.await.expect("somebody has all").unwrap();
    assert!(std::fs::read(&dest).unwrap() == file.content);
}

#[tokio::test]
async fn a_tracker_that_went_silent_does_not_hold_up_the_chunks() {
    let world = World::new().await;
    let (films, file) = (group("films"), Arc::new(random_file("film", 256 * CHUNK)));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    let slow = Manner::Slow(Duration::from_millis(1));
    let sam = Holder::start(world.raw_user("sam").await, &films, &file, slow).await;
    let bob = world.login("bob").await;
    let dest = world.path("bob.got");
    let download = download(&bob, &films, &file, &dest);
    until(&mut verified(&download), &[0].into()).await;
    let addr: SocketAddr = world.tracker.addr().to_string().parse().unwrap();
    world.tracker.shutdown().await.unwrap();
    // In its place is what answers to nothing, not even that nobody is there.
    let mut hole = UdpSocket::bind(addr).await;
    while hole.is_err() {
        tokio::task::yield_now().await;
        hole = UdpSocket::bind(addr).await;
    }
    let start = Instant::now();
    let report = timeout(WITHIN * 2, download.into_future());
    let report = report.await.expect("the holder gives everything").unwrap();
    assert!(std::fs::read(report.dest).unwrap() == file.content);
    assert_eq!(sam.sent(), 256);
    // If each look for holders held them up, not forty chunks would come until it has failed.
    let took = start.elapsed();
    assert!(took < 3 * TRACKER_ANSWER_TIMEOUT, "{took:?}");
}

#[tokio::test]
async fn a_holder_that_is_busy_is_waited_for() {
    let world = World::new().await;
    let (films, file) = (group("films"), Arc::new(random_file("film", 3 * CHUNK)));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    let sam = world.raw_user("sam").await;
    let sam = Holder::start(sam, &films, &file, Manner::Busy(2)).await;
    let bob = world.login("bob").await;
    let dest = world.path("bob.got");
    download(&bob, &films, &file, &dest).await.unwrap();
    assert!(std::fs::read(&dest).unwrap() == file.content);
    assert_eq!((sam.opened.load(Ordering::Relaxed), sam.sent()), (3, 3));
}

#[tokio::test]
async fn two_who_download_at_once_take_each_chunk_once_and_trade() {
    let world = World::new().await;
    let (films, file) = (group("films"), Arc::new(random_file("film", 40 * CHUNK)));
    let alice = world.login("alice").await;
    alice.create_group(&films, Access::Open).await.unwrap();
    world.share(&alice, &films, &file).await;
    alice.peer().shutdown().await.unwrap();
    // A chunk takes most of a second, beside which what this machine does besides is nothing.
    let slow = Manner::Slow(Duration::from_millis(24));
    let sam = Holder::start(world.raw_user("sam").await, &films, &file, slow).await;
    let [bob, carol] = [world.login("bob").await, world.login("carol").await];
    for session in [&bob, &carol] {
        // Whoever only reads an open group does not share in it.
        session.join(&films).await.unwrap();
    }
    let (of_bob, of_carol) = (world.path("bob.got"), world.path("carol.got"));
    let downloads = [
        download(&bob, &films, &file, &of_bob),
        download(&carol, &films, &file, &of_carol),
    ];
    for download in downloads {
        let report = timeout(WITHIN, download.into_future()).await;
        let report = report.expect("all chunks come").unwrap();
        assert!(std::fs::read(report.dest).unwrap() == file.content);
        assert!(report.duplicate_bytes < file.content.len() as u64 / 100);
    }
    // Each took some before it heard of the other, and they may have been the same.
    assert!(sam.sent() < 40 + 13, "{}", sam.sent());
    let given = [&bob, &carol].map(|session| session.peer().sent_bytes());
    assert!(
        given.iter().all(|&given| given > 7 * CHUNK as u64),
        "{given:?}"
    );
}
