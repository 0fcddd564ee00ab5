use super::*;
use crate::{
    golden::{Golden, variants},
    limits::ANNOUNCED_ENTRY_BYTES,
};

variants!(Claim { V1 });

#[test]
fn golden_bytes() {
    let claim = |holding| Claim::V1 {
        addrs: vec![([192, 0, 2, 1], 41873).into()],
        holding,
    };
    let claims = [
        ("complete", claim(Holding::Complete)),
        ("partial", claim(Holding::Partial(vec![0b101, 1]))),
    ];
    let mut golden = Golden::open("tracker_leases");
    golden.values("swarm", &claims);
    golden.finish();
    let swarm = Swarm::new(
        &GroupName::new("Photos").unwrap(),
        FileId::from_bytes([0x1d; 32]),
    );
    let key = format!("s/photos/{}", "1d".repeat(32));
    assert_eq!(swarm.key().as_bytes(), key.as_bytes());
}
const PEER: PeerId = PeerId::from_bytes([1; 32]);
const ASKING: PeerId = PeerId::from_bytes([9; 32]);
/// Of each file.
const CHUNKS: u32 = 8;

fn group() -> GroupName {
    GroupName::new("Photos").unwrap()
}

fn file(i: u16) -> FileId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&i.to_be_bytes());
    FileId::from_bytes(id)
}

fn session(i: u8) -> SessionId {
    SessionId::from_bytes([i; 16])
}

fn entry(i: u16, holding: Holding) -> SwarmEntry {
    SwarmEntry {
        group: group(),
        name: FileName::new(&format!("{i}.jpg")).unwrap(),
        id: file(i),
        holding,
    }
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn peer(i: u16) -> PeerId {
    let mut id = [2; 32];
    id[..2].copy_from_slice(&i.to_be_bytes());
    PeerId::from_bytes(id)
}

fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

/// Several trackers of one ring: what one of them says all know.
struct Trackers {
    swarms: Vec<Arc<Swarms>>,
    dht: DhtNode,
    _folder: tempfile::TempDir,
}

impl Trackers {
    async fn new(count: usize) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let ring = crate::identity::RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        Self {
            swarms: (0..count)
                .map(|_| Arc::new(Swarms::new(dht.clone())))
                .collect(),
            dht,
            _folder: folder,
        }
    }

    /// The peer announces at a tracker under a number that it has in common with its port.
    async fn announce(&self, at: usize, as_session: u8, number: u16, swarms: Vec<SwarmEntry>) {
        self.send(at, as_session, number, false, swarms).await;
    }

    async fn anew(&self, at: usize, as_session: u8, number: u16, swarms: Vec<SwarmEntry>) {
        self.send(at, as_session, number, true, swarms).await;
    }

    async fn send(
        &self,
        at: usize,
        as_session: u8,
        number: u16,
        anew: bool,
        swarms: Vec<SwarmEntry>,
    ) {
        let announcement = Announcement {
            number: number.into(),
            addrs: vec![addr(at as u16)],
            anew,
            swarms,
        };
        let swarms = &self.swarms[at];
        let now = Timestamp::from_millis(1);
        let login = (&user("u"), session(as_session));
        let announced = swarms.announce(PEER, login, announcement, now);
        announced.await.unwrap();
    }

    /// One of many peers announces at the first tracker, and is told how much of it there is no room for.
    async fn one_of_many(
        &self,
        (i, of): (u16, &str),
        number: u64,
        entries: Vec<SwarmEntry>,
    ) -> usize {
        let announcement = Announcement {
            number,
            addrs: vec![addr(i)],
            anew: number == 1,
            swarms: entries,
        };
        let login = (&user(of), session(1));
        let now = Timestamp::from_millis(number);
        let announced = self.swarms[0].announce(peer(i), login, announcement, now);
        announced.await.unwrap().left_out.len()
    }

    /// How many have the whole of each file, as each tracker says.
    async fn counts<const N: usize>(&self, files: [u16; N]) -> [u32; N] {
        let ids = files.map(file);
        let mut counts = Vec::new();
        for swarms in &self.swarms {
            counts.push(swarms.counts(&group(), &ids).await);
        }
        counts.dedup();
        assert_eq!(counts.len(), 1, "the trackers differ: {counts:?}");
        counts.remove(0).try_into().unwrap()
    }

    async fn holders(&self, asking: PeerId, i: u16) -> (Vec<Holder>, Availability) {
        let group = group();
        let of = (&group, file(i));
        self.swarms[0].holders(asking, of, CHUNKS).await
    }

    /// Where to find the peer with that file.
    async fn found(&self, i: u16) -> Vec<SocketAddr> {
        let (holders, _) = self.holders(ASKING, i).await;
        holders
            .into_iter()
            .flat_map(|holder| holder.addrs)
            .collect()
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_lasts_while_it_is_renewed() {
    let ring = Trackers::new(2).await;
    ring.anew(0, 1, 1, vec![entry(1, Holding::Complete)]).await;
    ring.announce(0, 1, 2, vec![entry(2, Holding::Complete)])
        .await;
    ring.announce(0, 1, 3, vec![entry(3, Holding::Partial(vec![1]))])
        .await;
    assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 1, 0, 0]);
    assert_eq!(ring.found(3).await, [addr(0)]);
    // Often something new, or nothing: the rest lasts too.
    for (number, every) in [(10, 10), (30, 20)] {
        for i in 0..10 {
            pass(every).await;
            let some = if every == 10 {
                vec![entry(4 + i % 2, Holding::Complete)]
            } else {
                vec![]
            };
            ring.announce(0, 1, number + i, some).await;
        }
        assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 1, 0, 1]);
    }
    ring.announce(0, 1, 50, vec![entry(1, Holding::Nothing)])
        .await;
    assert_eq!(ring.counts([1, 2, 4]).await, [0, 1, 1]);
    let two = FileName::new("2.jpg").unwrap();
    ring.swarms[0].forget(PEER, &group(), &two).await;
    assert_eq!(ring.counts([1, 2, 4]).await, [0, 0, 1]);
    // Found again at once, although the tracker spoke in between.
    ring.announce(0, 1, 51, vec![entry(2, Holding::Complete)])
        .await;
    assert_eq!(ring.counts([1, 2, 4]).await, [0, 1, 1]);
    ring.anew(0, 1, 52, vec![entry(5, Holding::Complete)]).await;
    assert_eq!(ring.counts([1, 2, 4, 5]).await, [0, 0, 0, 1]);
    pass(59).await;
    assert_eq!(ring.counts([5]).await, [1]);
    pass(1).await;
    assert_eq!(ring.counts([5]).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn content_under_two_names_is_there_until_both_are_gone() {
    let ring = Trackers::new(1).await;
    let other = SwarmEntry {
        name: FileName::new("copy.jpg").unwrap(),
        ..entry(1, Holding::Partial(vec![1]))
    };
    ring.anew(0, 1, 1, vec![other.clone(), entry(1, Holding::Complete)])
        .await;
    assert_eq!(ring.counts([1]).await, [1]);
    ring.announce(0, 1, 2, vec![entry(1, Holding::Nothing)])
        .await;
    assert_eq!(ring.counts([1]).await, [0]);
    assert_eq!(ring.found(1).await.len(), 1);
    ring.swarms[0].forget(PEER, &group(), &other.name).await;
    assert_eq!(ring.found(1).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_moves_to_another_tracker_is_where_it_says() {
    let ring = Trackers::new(2).await;
    let both = || vec![entry(1, Holding::Complete), entry(2, Holding::Complete)];
    ring.anew(0, 1, 10, both()).await;
    // Meanwhile the first tracker has done something about it by itself, more than once.
    for i in [1, 2] {
        let name = FileName::new(&format!("{i}.jpg")).unwrap();
        ring.swarms[0].forget(PEER, &group(), &name).await;
    }
    assert_eq!(ring.counts([1, 2]).await, [0, 0]);
    ring.anew(1, 1, 11, both()).await;
    assert_eq!(ring.counts([1, 2]).await, [1, 1]);
    assert_eq!(ring.found(1).await, [addr(1)]);
    // What the first does late takes nothing away.
    ring.announce(0, 1, 10, vec![entry(1, Holding::Nothing)])
        .await;
    ring.swarms[0].leave(PEER).await;
    assert_eq!(ring.counts([1, 2]).await, [1, 1]);
    // And back, within a second.
    ring.anew(0, 1, 12, both()).await;
    assert_eq!(ring.found(2).await, [addr(0)]);
    ring.swarms[1].leave(PEER).await;
    assert_eq!(ring.counts([1, 2]).await, [1, 1]);
    ring.swarms[0].leave(PEER).await;
    assert_eq!(ring.counts([1, 2]).await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_does_not_hide_a_newer_one() {
    let ring = Trackers::new(2).await;
    ring.anew(0, 1, 60_000, vec![entry(1, Holding::Complete)])
        .await;
    pass(1).await;
    // The new one begins below the numbers of the one before it.
    ring.anew(1, 2, 5, vec![entry(1, Holding::Complete)]).await;
    assert_eq!(ring.counts([1]).await, [1]);
    assert_eq!(ring.found(1).await, [addr(1)]);
    pass(20).await;
    ring.announce(1, 2, 6, Vec::new()).await;
    assert_eq!(ring.found(1).await, [addr(1)]);
    // At one tracker the former is over at once.
    ring.anew(1, 3, 4, vec![entry(2, Holding::Complete)]).await;
    pass(40).await;
    assert_eq!(ring.counts([1, 2]).await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_announces_most_makes_room_for_others() {
    let mut ring = Trackers::new(1).await;
    Arc::get_mut(&mut ring.swarms[0]).unwrap().most = 100 * ANNOUNCED_ENTRY_BYTES;
    let some = |from: u16, count: u16| -> Vec<SwarmEntry> {
        (from..from + count)
            .map(|i| entry(i, Holding::Complete))
            .collect()
    };
    let kept = |ring: &Trackers| {
        let state = ring.swarms[0].state();
        state
            .peers
            .values()
            .map(|peer| peer.holds.bytes() / ANNOUNCED_ENTRY_BYTES)
            .sum::<usize>()
    };
    // Whoever comes first may have all of it, with as many peers as he likes.
    for i in 0..10 {
        assert_eq!(
            ring.one_of_many((i, "greedy"), 1, some(10 * i, 10)).await,
            0
        );
    }
    assert_eq!(ring.one_of_many((10, "Greedy"), 1, some(200, 10)).await, 10);
    assert_eq!((kept(&ring), ring.counts([95, 205]).await), (100, [1, 0]));
    // Who has less is not turned away for it.
    for i in 11..14 {
        assert_eq!(
            ring.one_of_many((i, "u"), 1, some(300 + 10 * i, 10)).await,
            0
        );
        assert_eq!(ring.counts([300 + 10 * i]).await, [1]);
    }
    assert_eq!(kept(&ring), 100);
    // What made room is not there any more, also in the ring, and was there until then.
    let files: Vec<FileId> = (0..100).map(file).collect();
    let counts = ring.swarms[0].counts(&group(), &files).await;
    assert_eq!(counts.iter().sum::<u32>(), 70);
    let gone = counts.iter().position(|count| *count == 0).unwrap();
    let seen = ring.swarms[0].last_seen(&group(), files[gone]);
    assert_eq!(seen, Some(Timestamp::from_millis(1)));
    // Nor does he drive out others when he tells it again.
    let again = (gone / 10) as u16;
    assert_eq!(
        ring.one_of_many((again, "greedy"), 2, some(10 * again, 10))
            .await,
        10
    );
    assert_eq!(
        (kept(&ring), ring.counts([410, 420, 430]).await),
        (100, [1, 1, 1])
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_have_one_look_in_common() {
    let ring = Trackers::new(1).await;
    let swarms = &ring.swarms[0];
    let look = async || {
        let mut looks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let swarms = swarms.clone();
            let swarm = Swarm::new(&group(), file(1));
            looks.spawn(async move { swarms.crowd(swarm, CHUNKS).await });
        }
        let found = looks.join_all().await;
        assert!(
            found.iter().all(|crowd| Arc::ptr_eq(crowd, &found[0])),
            "it is looked at twice"
        );
        found[0].clone()
    };
    let part = |i: u16| vec![entry(1, Holding::Partial(vec![1 << (i % 8)]))];
    ring.one_of_many((0, "u"), 1, part(0)).await;
    let few = look().await;
    assert_eq!(few.availability().holders, 1);
    // A small swarm is not kept, and a large one for a moment.
    for i in 1..=HOLDERS_SAMPLE_MAX as u16 {
        ring.one_of_many((i, "u"), 1, part(i)).await;
    }
    let many = look().await;
    assert_eq!(many.availability().holders as usize, HOLDERS_SAMPLE_MAX + 1);
    ring.one_of_many((99, "u"), 1, part(0)).await;
    assert!(Arc::ptr_eq(&many, &look().await));
    tokio::time::advance(crate::limits::CROWD_KEPT).await;
    let more = look().await;
    assert_eq!(more.availability().holders as usize, HOLDERS_SAMPLE_MAX + 2);
    // Whoever asks first may go.
    tokio::time::advance(crate::limits::CROWD_KEPT).await;
    let first = swarms.crowd(Swarm::new(&group(), file(1)), CHUNKS);
    let gone = tokio::time::timeout(std::time::Duration::ZERO, first).await;
    assert!(gone.is_err(), "the look is begun and given up");
    look().await;
}

#[tokio::test(start_paused = true)]
async fn replicas_that_lack_what_came_before_get_all_of_it() {
    let ring = Trackers::new(1).await;
    let some: Vec<_> = (1..5).map(|i| entry(i, Holding::Complete)).collect();
    ring.anew(0, 1, 1, some).await;
    // What was said in between reached nobody.
    for lost in [1, 2] {
        if let Some(announced) = ring.swarms[0].state().peers.get_mut(&PEER) {
            announced.said.renew(lost, LEASE_LIFE);
        }
        pass(20).await;
    }
    ring.announce(0, 1, 3, vec![entry(2, Holding::Nothing)])
        .await;
    assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 0, 1, 1]);
    pass(59).await;
    assert_eq!(ring.counts([1, 2, 3, 4]).await, [1, 0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn many_files_are_listed_and_ended_at_once() {
    let ring = Trackers::new(1).await;
    let all: Vec<u16> = (0..500).collect();
    for (at, some) in all.chunks(250).enumerate() {
        let some = some.iter().map(|i| entry(*i, Holding::Complete)).collect();
        ring.send(0, 1, at as u16 + 1, at == 0, some).await;
    }
    let ids: Vec<FileId> = all.iter().map(|i| file(*i)).collect();
    let counts = ring.swarms[0].counts(&group(), &ids).await;
    assert_eq!(counts, vec![1; 500]);
    ring.anew(0, 1, 3, Vec::new()).await;
    let counts = ring.swarms[0].counts(&group(), &ids).await;
    assert_eq!(counts, vec![0; 500]);
    ring.dht.shutdown().await.unwrap();
}
