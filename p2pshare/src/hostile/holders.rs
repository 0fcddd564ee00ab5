//! Holders that lie, break off or talk nonsense: a download drops them, never asks the liars again, and is
//! completed by others.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::{task::JoinSet, time::timeout};

use super::*;
use crate::{
    DownloadEvent, DownloadReport,
    transport::{CloseCode, RecvStream, SendStream},
    wire::{
        peer::{ChunkHeader, Open, PageAnswer, PeerRefusal, SwarmAnswer, SwarmRequest},
        tracker::{Announcement, Holding, SwarmEntry},
    },
};

/// What a bad holder does with whoever wants a file.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Trick {
    /// A chunk of the right length with one wrong bit.
    WrongBit,
    /// The header of another chunk than the one asked for.
    AnotherChunk,
    /// A chunk that is a byte short.
    ShortChunk,
    /// A chunk of no length.
    EmptyChunk,
    /// A chunk that says of itself that it is a byte longer, and is.
    LongChunk,
    /// A byte more after the chunk than its header says.
    ByteMore,
    /// A chunk more than was asked for.
    ChunkMore,
    /// The bytes of another chunk, which are right there.
    OthersBytes,
    /// A header that makes no sense.
    NoHeader,
    /// A request is said to be cancelled that was not.
    NeverCancelled,
    /// Says that it has got a chunk, after it had said that it has all.
    MoreThanAll,
    /// Digests of other chunks.
    FalseDigests,
    /// Fewer digests than the page has.
    FewDigests,
    /// A proof where none is needed.
    NeedlessProof,
    /// A bitfield of more chunks than there are.
    LongBitfield,
    /// A frame that is too long, instead of an answer.
    LongFrame,
    /// A frame that belongs elsewhere.
    AnotherFrame,
    /// Holds nothing after all.
    Nothing,
    /// Lacks each chunk that is asked for.
    Lacking,
    /// Refuses.
    Refusing,
    /// Ends the stream within a chunk.
    CutShort,
    /// Closes the connection instead of an answer.
    HangsUp,
}

impl Trick {
    /// How long the file is with which it is played: some take two chunks, which are of one length.
    const fn bytes(self) -> usize {
        match self {
            Self::ByteMore | Self::ChunkMore | Self::OthersBytes => 2 * crate::CHUNK_SIZE as usize,
            _ => 7_000,
        }
    }
}

/// What the download says of it, and the code with which the liar is closed, if it is to be one.
const TRICKS: &[(Trick, &str, Option<CloseCode>)] = {
    const NONSENSE: &str = "it does not keep to the protocol";
    const FALSE: &str = "it sent digests that are not of the file";
    const BROKE: &str = "the connection broke";
    const EXHAUSTED: &str = "it has nothing that is missing";
    const LACKING: &str = "it lacks chunk 0, which it said it has";
    const FAULT: Option<CloseCode> = Some(CloseCode::ProtocolError);
    &[
        (Trick::WrongBit, "it sent a bad chunk 0", FAULT),
        (Trick::AnotherChunk, NONSENSE, FAULT),
        (Trick::ShortChunk, NONSENSE, FAULT),
        (Trick::EmptyChunk, NONSENSE, FAULT),
        (Trick::LongChunk, NONSENSE, FAULT),
        (Trick::ByteMore, NONSENSE, FAULT),
        (Trick::ChunkMore, NONSENSE, FAULT),
        (Trick::OthersBytes, "it sent a bad chunk ", FAULT),
        (Trick::NoHeader, NONSENSE, FAULT),
        (Trick::NeverCancelled, NONSENSE, FAULT),
        (Trick::MoreThanAll, NONSENSE, FAULT),
        (Trick::FalseDigests, FALSE, FAULT),
        (Trick::FewDigests, FALSE, FAULT),
        (Trick::NeedlessProof, FALSE, FAULT),
        (Trick::LongBitfield, NONSENSE, FAULT),
        (Trick::LongFrame, NONSENSE, Some(CloseCode::FrameTooLong)),
        (Trick::AnotherFrame, NONSENSE, FAULT),
        (Trick::Nothing, EXHAUSTED, None),
        (Trick::Lacking, LACKING, None),
        (Trick::Refusing, "the peer refuses", None),
        (Trick::CutShort, BROKE, None),
        (Trick::HangsUp, BROKE, None),
    ]
};

/// Files with the trick that is played with each, and how often each was asked for.
#[derive(Default)]
struct Stage {
    files: HashMap<FileId, (Trick, TestFile)>,
    opened: Mutex<HashMap<FileId, usize>>,
    closed: Mutex<HashMap<FileId, Option<CloseCode>>>,
}

impl Stage {
    /// Plays on every connection that comes.
    async fn play(self: Arc<Self>, stranger: Arc<RawUser>) {
        while let Some(connection) = stranger.stranger.endpoint.accept().await {
            tokio::spawn(self.clone().play_to(connection));
        }
    }

    async fn play_to(self: Arc<Self>, connection: Connection) {
        let mut streams = JoinSet::new();
        while let Ok((send, receive)) = connection.accept().await {
            streams.spawn(self.clone().play_on(connection.clone(), send, receive));
        }
        let lost = connection.closed().await;
        while let Some(Ok(of)) = streams.join_next().await {
            self.closed.lock().unwrap().insert(of, lost.code());
        }
    }

    /// Plays on one stream, and gives the file that it was about.
    async fn play_on(
        self: Arc<Self>,
        connection: Connection,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> FileId {
        let of = match receive.receive().await.unwrap() {
            Open::Digests { id, .. } => {
                self.give_digests(id, &mut send).await;
                id
            }
            Open::Swarm { id, .. } => {
                *self.opened.lock().unwrap().entry(id).or_default() += 1;
                self.give_chunks(id, &connection, &mut send, &mut receive)
                    .await;
                id
            }
        };
        // The stream stays open: to reset it would be another trick.
        connection.closed().await;
        of
    }

    async fn give_digests(&self, id: FileId, send: &mut SendStream) {
        let (trick, file) = &self.files[&id];
        let mut digests = file.digests.clone();
        let mut proof = Vec::new();
        match trick {
            Trick::FalseDigests => digests[0] = Digest::of(b"something else"),
            Trick::FewDigests => digests.clear(),
            Trick::NeedlessProof => proof.push(crate::content::page_root(&digests)),
            _ => {}
        }
        send.send(&PageAnswer::Page { digests, proof })
            .await
            .unwrap();
        send.finish();
    }

    async fn give_chunks(
        &self,
        id: FileId,
        connection: &Connection,
        send: &mut SendStream,
        receive: &mut RecvStream,
    ) {
        let (trick, file) = &self.files[&id];
        let opened = |holding| SwarmAnswer::Opened { holding };
        let answer = match trick {
            Trick::LongFrame => {
                let frame = [3, 2, 0xff, 0xff, 0xff, 0xff];
                send.send_bytes(Bytes::copy_from_slice(&frame))
                    .await
                    .unwrap();
                return;
            }
            Trick::AnotherFrame => {
                let cancel = SwarmRequest::Cancel { index: 0 };
                send.send(&cancel).await.unwrap();
                return;
            }
            Trick::HangsUp => return connection.close(CloseCode::Done),
            Trick::Refusing => SwarmAnswer::Refused(PeerRefusal::Denied),
            Trick::Nothing => opened(Holding::Nothing),
            Trick::LongBitfield => opened(Holding::Partial(vec![0xff; 2])),
            _ => opened(Holding::Complete),
        };
        send.send(&answer).await.unwrap();
        // Until the connection or the stream ends.
        while let Ok(Some(request)) = receive.receive_or_end().await {
            let index = match request {
                SwarmRequest::Chunk { index } => index,
                SwarmRequest::Renew { .. } => continue,
                SwarmRequest::Cancel { .. } => panic!("nothing is cancelled"),
            };
            if !give_chunk(*trick, file, index, send).await {
                return;
            }
        }
    }
}

/// Whether the stream goes on.
async fn give_chunk(trick: Trick, file: &TestFile, index: u32, send: &mut SendStream) -> bool {
    let mut chunk = file.chunk(index).to_vec();
    let length = chunk.len() as u32;
    let mut header = ChunkHeader::Chunk { index, length }.encode();
    match trick {
        Trick::WrongBit => chunk[1000] ^= 1,
        Trick::AnotherChunk => header[1] ^= 1,
        Trick::ShortChunk => {
            chunk.pop();
            let length = length - 1;
            header = ChunkHeader::Chunk { index, length }.encode();
        }
        Trick::EmptyChunk => header[5..].fill(0),
        Trick::LongChunk => {
            chunk.push(0);
            let length = length + 1;
            header = ChunkHeader::Chunk { index, length }.encode();
        }
        Trick::ByteMore => chunk.push(9),
        Trick::ChunkMore => chunk = [&chunk[..], &header, &chunk].concat(),
        Trick::OthersBytes => chunk = file.chunk(1 - index).to_vec(),
        Trick::NoHeader => header[0] = 9,
        Trick::MoreThanAll => {
            // Once it would be that somebody else asked for it.
            header = ChunkHeader::Have { index }.encode();
            chunk = header.into();
        }
        Trick::NeverCancelled => {
            header = ChunkHeader::Cancelled { index }.encode();
            chunk.clear();
        }
        Trick::Lacking => {
            header = ChunkHeader::Lacking { index }.encode();
            chunk.clear();
        }
        Trick::CutShort => chunk.truncate(1_000),
        _ => {}
    }
    let bytes = Bytes::from([&header[..], &chunk].concat());
    // Whoever has seen enough takes no more.
    let sent = send.send_bytes(bytes).await.is_ok();
    if trick == Trick::CutShort {
        send.finish();
    }
    sent && trick != Trick::CutShort
}

#[tokio::test]
async fn who_sends_what_is_not_of_the_file_is_dropped_and_others_complete_it() {
    let world = World::new().await;
    let photos = group("photos");
    let alice = world.login("alice").await;
    alice.create_group(&photos, Access::Open).await.unwrap();
    let mut stage = Stage::default();
    for (trick, ..) in TRICKS {
        let file = TestFile::new(&format!("{trick:?}"), trick.bytes());
        world.share(&alice, &photos, &file).await;
        stage.files.insert(file.id(), (*trick, file));
    }
    // Nobody has the files but Mallory, who says so to the tracker.
    alice.peer().shutdown().await.unwrap();
    drop(alice);
    let mallory = Arc::new(world.raw_user("mallory").await);
    let entry = |(_, file): &(Trick, TestFile)| SwarmEntry {
        group: photos.clone(),
        name: file.name.clone(),
        id: file.id(),
        holding: Holding::Complete,
    };
    let announcement = Announcement {
        number: 1,
        addrs: vec![mallory.stranger.endpoint.local_addr()],
        anew: true,
        swarms: stage.files.values().map(entry).collect(),
    };
    let announced = mallory.ask(Request::Announce(announcement)).await;
    let Response::Announced { gone, .. } = announced else {
        panic!("not announced: {announced:?}");
    };
    assert_eq!(gone, []);
    let stage = Arc::new(stage);
    tokio::spawn(stage.clone().play(mallory.clone()));

    let bob = world.login("bob").await;
    let mut downloads = JoinSet::new();
    let mut dropped = JoinSet::new();
    for (trick, reason, _) in TRICKS {
        let name = file_name(&format!("{trick:?}"));
        let dest = world.path(&format!("{trick:?}.got"));
        // However long it takes until somebody else is there.
        let options = DownloadOptions::default().wait(true);
        let download = bob.download(&photos, &name, dest, options);
        let (mut events, mallory) = (download.events(), mallory.peer_id());
        // While one that breaks off is asked again, after a while, the liars would be too, were they not banned.
        let mut times = if *trick == Trick::CutShort { 3 } else { 1 };
        dropped.spawn(async move {
            while let Some(event) = events.next().await {
                if let DownloadEvent::PeerLeft { peer, reason: why } = event {
                    assert_eq!(peer, mallory);
                    assert!(why.starts_with(reason), "{trick:?}: {why}");
                    times -= 1;
                    if times == 0 {
                        return;
                    }
                }
            }
            panic!("{trick:?} was not noticed");
        });
        downloads.spawn(async move { (*trick, download.await) });
    }
    while let Some(dropped) = timeout(WITHIN, dropped.join_next()).await.unwrap() {
        dropped.unwrap();
    }

    // Alice comes back, and everything is there.
    let peer = world.peer("alice").await;
    peer.resume().await.unwrap().unwrap();
    while let Some(done) = timeout(WITHIN, downloads.join_next()).await.unwrap() {
        let (trick, done) = done.unwrap();
        let DownloadReport { dest, .. } = done.unwrap_or_else(|error| panic!("{trick:?}: {error}"));
        assert_whole(&stage, trick, &dest);
    }
    assert_banned(&stage).await;
}

fn assert_whole(stage: &Stage, trick: Trick, dest: &Path) {
    let of_trick = |(other, _): &&(Trick, TestFile)| *other == trick;
    let (_, file) = stage.files.values().find(of_trick).unwrap();
    assert!(std::fs::read(dest).unwrap() == file.content, "{trick:?}");
}

/// The liars were closed with a code that says why, and asked once.
async fn assert_banned(stage: &Stage) {
    for (id, (trick, _)) in &stage.files {
        let code = TRICKS.iter().find(|(other, ..)| other == trick).unwrap().2;
        let Some(code) = code else { continue };
        assert_eq!(stage.opened.lock().unwrap()[id], 1, "{trick:?}");
        let closed = async {
            while !stage.closed.lock().unwrap().contains_key(id) {
                tokio::task::yield_now().await;
            }
        };
        timeout(WITHIN, closed).await.unwrap();
        let closed = stage.closed.lock().unwrap()[id];
        assert_eq!(closed, Some(code), "{trick:?}");
    }
}
