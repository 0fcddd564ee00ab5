//! At a peer that shares something: those who may not read it learn nothing, not even that it is there.

use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use crate::{
    limits::CLOCK_TOLERANCE,
    transport::{CloseCode, ReceiveError, RecvStream, SendStream},
    wire::{
        frame::{Message, encode},
        peer::{
            ChunkHeader, ChunkPart, ChunkReader, Open, PageAnswer, PeerRefusal, SwarmAnswer,
            SwarmRequest,
        },
        tracker::Holding,
    },
};

/// A way to ask: on whose connection, by what grant, for what.
struct Attempt<'a> {
    what: &'static str,
    by: &'a Stranger,
    grant: Signed<Grant>,
    group: &'a GroupName,
    id: FileId,
}

impl Attempt<'_> {
    fn digests(&self, page: u32) -> Open {
        Open::Digests {
            grant: self.grant.clone(),
            group: self.group.clone(),
            id: self.id,
            page,
        }
    }

    fn swarm(&self) -> Open {
        Open::Swarm {
            grant: self.grant.clone(),
            group: self.group.clone(),
            id: self.id,
        }
    }
}

/// All bytes of the answer on a new stream, up to its end.
async fn transcript(connection: &Connection, open: &Open) -> Vec<u8> {
    let (mut send, mut receive) = connection.open().await.unwrap();
    send.send(open).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = next_piece(&mut receive).await {
        all.extend(&piece);
    }
    all
}

async fn next_piece(receive: &mut RecvStream) -> Option<Bytes> {
    let mut pieces = [Bytes::new()];
    receive.receive_bytes(&mut pieces).await.ok()??;
    let [piece] = pieces;
    Some(piece)
}

fn frame<M: Message>(message: M) -> Vec<u8> {
    encode(&message).unwrap()
}

/// A stream that asks for chunks.
pub(super) struct Swarm {
    pub(super) holding: Holding,
    /// What the holder said that it has got.
    pub(super) haves: Vec<u32>,
    /// What it said that it gives to others.
    pub(super) gives: Vec<u32>,
    send: SendStream,
    receive: RecvStream,
    reader: ChunkReader,
    piece: Bytes,
}

impl Swarm {
    pub(super) async fn open(connection: &Connection, open: &Open) -> Result<Self, PeerRefusal> {
        let (mut send, mut receive) = connection.open().await.unwrap();
        send.send(open).await.unwrap();
        match receive.receive().await.unwrap() {
            SwarmAnswer::Refused(refusal) => Err(refusal),
            SwarmAnswer::Waits => panic!("there are places enough"),
            SwarmAnswer::Opened { holding } => Ok(Self {
                holding,
                haves: Vec::new(),
                gives: Vec::new(),
                send,
                receive,
                reader: ChunkReader::default(),
                piece: Bytes::new(),
            }),
        }
    }

    /// The bytes of a chunk, if it is given, and the stream is not given up.
    pub(super) async fn chunk(&mut self, index: u32) -> Option<Vec<u8>> {
        self.send.send(&SwarmRequest::Chunk { index }).await.ok()?;
        let header = loop {
            match self.part().await? {
                ChunkPart::Header(ChunkHeader::Have { index }) => self.hear(index),
                ChunkPart::Header(header) => break header,
                ChunkPart::Bytes(_) => panic!("a chunk without a header"),
            }
        };
        let length = match header {
            ChunkHeader::Lacking { index: of } if of == index => return None,
            ChunkHeader::Chunk { index: of, length } if of == index => length as usize,
            other => panic!("{other:?} for chunk {index}"),
        };
        let mut chunk = Vec::new();
        while chunk.len() < length {
            match self.part().await? {
                ChunkPart::Bytes(bytes) => chunk.extend(&bytes),
                ChunkPart::Header(_) => panic!("a header within a chunk"),
            }
        }
        Some(chunk)
    }

    /// Waits until the holder gives the stream up, and says why it does.
    async fn until_it_ends(&mut self) -> Option<CloseCode> {
        let ends = async {
            let mut pieces = [Bytes::new()];
            loop {
                match self.receive.receive_bytes(&mut pieces).await {
                    Ok(Some(_)) => {}
                    Err(ReceiveError::Reset(code)) => return code.known(),
                    other => panic!("{other:?}"),
                }
            }
        };
        timeout(WITHIN, ends).await.expect("the grant ends")
    }

    pub(super) async fn renew(&mut self, grant: Signed<Grant>) {
        self.tell(&SwarmRequest::Renew { grant }).await;
    }

    async fn tell(&mut self, request: &SwarmRequest) {
        self.send.send(request).await.unwrap();
    }

    /// Waits until the holder says that it has got so many chunks.
    pub(super) async fn until_it_has(&mut self, count: usize) {
        let told = async {
            while self.haves.len() < count {
                match self.part().await.unwrap() {
                    ChunkPart::Header(ChunkHeader::Have { index }) => self.hear(index),
                    other => panic!("not asked for: {other:?}"),
                }
            }
        };
        timeout(WITHIN, told).await.expect("it gets them");
    }

    /// What the holder tells: that it has got a chunk, or that it gives one that it had to somebody else.
    fn hear(&mut self, index: u32) {
        let had = match &self.holding {
            Holding::Complete => true,
            Holding::Nothing => false,
            Holding::Partial(bits) => {
                let byte = bits.get(index as usize / 8).copied().unwrap_or_default();
                byte >> (index % 8) & 1 == 1
            }
        };
        match had || self.haves.contains(&index) {
            true => self.gives.push(index),
            false => self.haves.push(index),
        }
    }

    async fn part(&mut self) -> Option<ChunkPart> {
        loop {
            if let Some(part) = self.reader.next(&mut self.piece).unwrap() {
                return Some(part);
            }
            self.piece = next_piece(&mut self.receive).await?;
        }
    }
}

#[tokio::test]
async fn whoever_may_not_read_gets_the_answer_of_a_file_that_is_not_there() {
    let (world, other) = (World::new().await, World::new().await);
    let (photos, own) = (group("photos"), group("own"));
    let file = TestFile::new("secret.bin", 700_000);
    let alice = world.sharer("alice", &photos, &file).await;
    let (bob, mallory) = (world.raw_user("bob").await, world.raw_user("mallory").await);
    bob.join(&photos, &alice).await;
    mallory.create_group(&own).await;

    let (ring, later) = (world.ring(), now().saturating_add(WITHIN * 10));
    let (token_key, authority) = (world.ring_key().token_key(), world.ring_key().authority());
    let (bobs, mallorys) = (bob.grant(&photos).await, mallory.grant(&own).await);
    let nothing: Signed<Grant> = postcard::from_bytes(&[0; 65]).unwrap();
    let claimed = mallory.claims(ring, &photos, later);
    let over = now().as_millis() - CLOCK_TOLERANCE.as_millis() as u64 - 1;
    let expired = bob.claims(ring, &photos, Timestamp::from_millis(over));
    let elsewhere = other.ring_key().token_key();
    let by_mallory = |what, grant, group| Attempt {
        what,
        by: &mallory.stranger,
        grant,
        group,
        id: file.id(),
    };
    let by_bob = |what, grant, id| Attempt {
        what,
        by: &bob.stranger,
        grant,
        group: &photos,
        id,
    };
    let unknown = FileId::from_bytes([9; 32]);
    let attempts = [
        by_bob("a file that is not there", bobs.clone(), unknown),
        by_mallory("no grant", nothing, &photos),
        by_mallory("a grant of another group", mallorys.clone(), &photos),
        by_mallory("the file in another group", mallorys, &own),
        by_mallory("another peer's grant", bobs.clone(), &photos),
        by_bob("an expired grant", signed(&expired, &token_key), file.id()),
        by_mallory(
            "signed by another ring",
            signed(&claimed, &elsewhere),
            &photos,
        ),
        by_mallory(
            "of another ring",
            signed(&mallory.claims(other.ring(), &photos, later), &elsewhere),
            &photos,
        ),
        by_mallory(
            "of another ring, signed by this one",
            signed(&mallory.claims(other.ring(), &photos, later), &token_key),
            &photos,
        ),
        by_mallory(
            "signed by the authority",
            signed(&claimed, &authority),
            &photos,
        ),
        by_mallory(
            "signed by herself",
            signed(&claimed, &SigningKey::from_seed(&[7; 32])),
            &photos,
        ),
        by_mallory("a credential", disguised(&mallory.credential), &photos),
        by_bob(
            "a member's credential",
            disguised(&bob.credential),
            file.id(),
        ),
    ];
    for attempt in &attempts {
        let connection = attempt.by.dial_peer(alice.peer()).await;
        let denied = frame(PageAnswer::Refused(PeerRefusal::Denied));
        let digests = transcript(&connection, &attempt.digests(0)).await;
        assert_eq!(digests, denied, "{}", attempt.what);
        let denied = frame(SwarmAnswer::Refused(PeerRefusal::Denied));
        let swarm = transcript(&connection, &attempt.swarm()).await;
        assert_eq!(swarm, denied, "{}", attempt.what);
        assert_eq!(connection.close_reason(), None, "{}", attempt.what);
    }

    // Whoever may read does: what was refused above was refused for its reason.
    let right = by_bob("a member", bobs, file.id());
    let connection = bob.stranger.dial_peer(alice.peer()).await;
    let page = frame(PageAnswer::Page {
        digests: file.digests.clone(),
        proof: Vec::new(),
    });
    assert_eq!(transcript(&connection, &right.digests(0)).await, page);
    let beyond = transcript(&connection, &right.digests(1)).await;
    assert_eq!(beyond, frame(PageAnswer::Refused(PeerRefusal::Denied)));
    let mut swarm = Swarm::open(&connection, &right.swarm()).await.unwrap();
    assert_eq!(swarm.holding, Holding::Complete);
    assert_eq!(swarm.chunk(1).await.as_deref(), Some(file.chunk(1)));
    for beyond in [2, u32::MAX] {
        assert_eq!(swarm.chunk(beyond).await, None);
    }
}

#[tokio::test]
async fn a_grant_that_ends_ends_what_is_open_unless_the_ring_is_dead() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let (bob, mallory) = (world.raw_user("bob").await, world.raw_user("mallory").await);
    for member in [&bob, &mallory] {
        member.join(&photos, &alice).await;
    }
    // It counts for two seconds more.
    let short = || {
        let ends = now().as_millis() + 2_000 - CLOCK_TOLERANCE.as_millis() as u64;
        let claims = bob.claims(world.ring(), &photos, Timestamp::from_millis(ends));
        signed(&claims, &world.ring_key().token_key())
    };
    let attempt = |grant| Attempt {
        what: "a grant that is about to end",
        by: &bob.stranger,
        grant,
        group: &photos,
        id: file.id(),
    };
    let connection = bob.stranger.dial_peer(alice.peer()).await;
    let open = attempt(short()).swarm();
    let mut swarm = Swarm::open(&connection, &open).await.unwrap();
    let mut ends = Swarm::open(&connection, &open).await.unwrap();
    for swarm in [&mut swarm, &mut ends] {
        assert_eq!(swarm.chunk(0).await.as_ref(), Some(&file.content));
    }
    // A grant that does not fit is no renewal; one that does is.
    let credential = disguised(&bob.credential);
    for grant in [mallory.grant(&photos).await, credential] {
        ends.renew(grant).await;
    }
    swarm.renew(bob.grant(&photos).await).await;
    let why = ends.until_it_ends().await;
    assert_eq!(why, Some(CloseCode::Unauthenticated));
    assert!(swarm.chunk(0).await.is_some());

    // With the ring gone, what is open goes on past the end of its grant, and nothing new is opened.
    world.tracker.shutdown().await.unwrap();
    let gone = async {
        while alice.tracker().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, gone).await.expect("the tracker is missed");
    let last = short();
    swarm.renew(last.clone()).await;
    // A second longer than that counts.
    let later = now().saturating_add(Duration::from_secs(3));
    while now() <= later {
        assert!(swarm.chunk(0).await.is_some());
    }
    let again = Swarm::open(&connection, &attempt(last).swarm()).await;
    assert_eq!(again.err(), Some(PeerRefusal::Denied));
}
