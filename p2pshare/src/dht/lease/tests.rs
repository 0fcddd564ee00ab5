use std::collections::{BTreeMap, BTreeSet};
mod machines;

use std::time::Instant;

use proptest::prelude::*;

use super::exchange::{Exchanged, LeaseExchange};
use super::read::LeaseRead;
use super::session::LeaseSession;
use super::table::LeaseTable;
use super::write::LeaseWrite;
use super::*;
use crate::dht::machine::{Action, Input, Machine};
use crate::dht::placement::slice_of_lease;
use crate::identity::MemberId;
use crate::limits::{
    LEASE_LIFE_MAX, LEASE_PAGE_BYTES, LEASE_READ_BYTES_MAX, LEASE_READ_PATIENCE, LEASE_SILENCE_MAX,
    LEASE_SLOT_BYTES_MAX, LEASE_SLOT_ENTRIES_MAX, LEASE_TABLE_BYTES_MAX, LEASES_PER_ANSWER_MAX,
    LEASES_PER_KEY_MAX,
};
use crate::wire::ring::{
    Epoch, LeaseKey, ReplicaAnswer, ReplicaCall, ReplicaRequest, SessionVector, SlotEntry,
};

const LIFE: Duration = Duration::from_secs(60);

fn key(name: &str) -> LeaseKey {
    LeaseKey::new(name).unwrap()
}

/// So many different keys of the slice of "k".
fn keys_of_one_slice(count: usize) -> Vec<LeaseKey> {
    let slice = slice_of_lease(&key("k"));
    let others = (0..).map(|i: u32| key(&format!("k{i}")));
    let others = others.filter(|key| slice_of_lease(key) == slice);
    std::iter::once(key("k"))
        .chain(others)
        .take(count)
        .collect()
}

fn session(i: u8) -> LeaseSession {
    LeaseSession::new(PeerId::from_bytes([i; 32]), SessionId::from_bytes([i; 16]))
}

fn say(text: &str) -> Option<Arc<[u8]>> {
    Some(Arc::from(text.as_bytes()))
}

fn say_bytes(text: String) -> Option<Arc<[u8]>> {
    Some(Arc::from(text.into_bytes()))
}

fn member(i: u8) -> MemberId {
    MemberId::from_bytes([i; 16])
}

fn put(table: &mut LeaseTable, now: Instant, news: &LeaseNews) -> (Vec<SessionVector>, u32) {
    let call = ReplicaCall::LeasePut(vec![news.clone()]);
    match table.handle(now, call, |_| true) {
        Some(ReplicaAnswer::LeasesTaken { gaps, refused, .. }) => (gaps, refused),
        other => panic!("{other:?}"),
    }
}

fn taken() -> (Vec<SessionVector>, u32) {
    (Vec::new(), 0)
}

/// What the table says under a key, in order.
fn said(table: &mut LeaseTable, now: Instant, key: &LeaseKey) -> Vec<String> {
    let keys = vec![key.clone()];
    let call = ReplicaCall::LeaseGet { keys, after: None };
    let Some(ReplicaAnswer::Leases { found, .. }) = table.handle(now, call, |_| true) else {
        panic!("no answer")
    };
    let payloads = found
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.payload);
    payloads
        .map(|payload| String::from_utf8(payload).unwrap())
        .collect()
}

/// All that a table knows: of each slot its number, and what it says.
type Known = BTreeMap<(LeaseOwner, Slice), (u64, BTreeMap<LeaseKey, Vec<u8>>)>;

fn known(table: &mut LeaseTable, now: Instant) -> Known {
    let known = vec![];
    let call = ReplicaCall::LeaseLacking { known, after: None };
    assert!(matches!(
        table.handle(now, call, |_| true),
        Some(ReplicaAnswer::LeasesLacking { news, next: None }) if news.is_empty()
    ));
    let mut numbers = Vec::new();
    let mut after = None;
    loop {
        let with = member(0);
        let call = ReplicaCall::LeaseVectors { with, after };
        match table.handle(now, call, |_| true) {
            Some(ReplicaAnswer::LeaseVectors { sessions, next }) => {
                numbers.extend(sessions.into_iter().map(|mut session| {
                    session
                        .slices
                        .iter_mut()
                        .for_each(|(_, number)| *number = 0);
                    session
                }));
                after = next;
            }
            other => panic!("{other:?}"),
        }
        if after.is_none() {
            break;
        }
    }
    let mut all = Known::new();
    for session in numbers {
        let (known, mut after) = (vec![session], None);
        loop {
            let call = ReplicaCall::LeaseLacking {
                known: known.clone(),
                after,
            };
            let Some(ReplicaAnswer::LeasesLacking { news, next }) =
                table.handle(now, call, |_| true)
            else {
                panic!("no answer")
            };
            for news in news {
                for slot in news.slices {
                    let entries = slot.entries.into_iter();
                    let entries = entries.map(|entry| (entry.key, entry.payload.unwrap()));
                    all.insert((news.owner, slot.slice), (news.number, entries.collect()));
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    all
}

/// Members with a table each, and a network that brings everything at once, or nothing.
struct Ring {
    tables: BTreeMap<MemberId, LeaseTable>,
    down: BTreeSet<MemberId>,
    now: Instant,
    sent: usize,
    bytes: usize,
}

impl Ring {
    fn new(count: u8) -> Self {
        Self {
            tables: (0..count)
                .map(|i| (member(i), LeaseTable::default()))
                .collect(),
            down: BTreeSet::new(),
            now: Instant::now(),
            sent: 0,
            bytes: 0,
        }
    }

    fn answer(&mut self, to: MemberId, request: ReplicaRequest) -> ReplicaAnswer {
        self.sent += 1;
        self.bytes += postcard::to_allocvec(&request).unwrap().len();
        // What is sent is what arrives.
        let bytes = postcard::to_allocvec(&request).unwrap();
        let (request, rest): (ReplicaRequest, _) = postcard::take_from_bytes(&bytes).unwrap();
        assert!(rest.is_empty());
        let answer = self.tables.get_mut(&to).unwrap();
        let answer = answer.handle(self.now, request.call, |_| true).unwrap();
        let bytes = postcard::to_allocvec(&answer).unwrap();
        assert!(bytes.len() < 320 * 1024, "{} bytes", bytes.len());
        postcard::from_bytes(&bytes).unwrap()
    }

    /// Runs a machine until it is done; members that are down do not answer.
    fn run<M: Machine>(&mut self, mut machine: M) -> M::Outcome {
        let mut outcome = None;
        loop {
            match machine.poll_action() {
                Some(Action::Send { to, request }) if !self.down.contains(&to) => {
                    let answer = self.answer(to, request);
                    machine.handle(self.now, Input::Answer { from: to, answer });
                }
                Some(Action::Send { .. }) => {}
                Some(Action::Finish(result)) => {
                    assert!(outcome.is_none(), "finished twice");
                    outcome = Some(result);
                }
                None => match machine.poll_timeout() {
                    Some(timeout) => {
                        self.now = self.now.max(timeout);
                        machine.handle_timeout(self.now);
                    }
                    None => return outcome.unwrap(),
                },
            }
        }
    }

    fn all(&self) -> Vec<MemberId> {
        self.tables.keys().copied().collect()
    }

    fn write(&mut self, news: Vec<LeaseNews>) -> LeasesPut {
        let all = self.all();
        let machine = LeaseWrite::new(self.now, Epoch::FOUNDING, news, |_| all.clone(), |_| true);
        self.run(machine)
    }

    fn read(&mut self, keys: &[LeaseKey]) -> Vec<Vec<Lease>> {
        let all = self.all();
        let keys = keys.to_vec();
        let machine = LeaseRead::new(self.now, Epoch::FOUNDING, keys, |_| all.clone(), |_| true);
        self.run(machine)
    }

    fn exchange(&mut self, me: u8, with: u8) -> Exchanged {
        let machine = LeaseExchange::new(self.now, Epoch::FOUNDING, member(me), member(with));
        self.run(machine)
    }

    fn table(&mut self, i: u8) -> &mut LeaseTable {
        self.tables.get_mut(&member(i)).unwrap()
    }

    fn known(&mut self, i: u8) -> Known {
        let now = self.now;
        known(self.table(i), now)
    }
}

// The table.

#[test]
fn only_a_higher_number_of_the_same_session_replaces() {
    let (mut table, now, k) = (LeaseTable::default(), Instant::now(), key("k"));
    let (mut first, mut second) = (session(1), session(2));
    let old = first.change(5, LIFE, [(k.clone(), say("a"))]).unwrap();
    let new = first.change(6, LIFE, [(k.clone(), say("b"))]).unwrap();
    let other = second.change(1, LIFE, [(k.clone(), say("c"))]).unwrap();
    assert_eq!(put(&mut table, now, &old), taken());
    assert_eq!(put(&mut table, now, &other), taken());
    assert_eq!(said(&mut table, now, &k), ["a", "c"]);
    assert_eq!(put(&mut table, now, &new), taken());
    assert_eq!(put(&mut table, now, &old), taken());
    assert_eq!(said(&mut table, now, &k), ["b", "c"]);
    assert_eq!(said(&mut table, now, &key("other")), [""; 0]);
}

#[test]
fn what_was_lost_shows_as_a_gap_and_is_given_whole() {
    let (mut all, mut some, now) = (LeaseTable::default(), LeaseTable::default(), Instant::now());
    let keys = keys_of_one_slice(3);
    let mut first = session(1);
    let mut say_at = |number, i: usize| {
        let change = [(keys[i].clone(), say("x"))];
        first.change(number, LIFE, change).unwrap()
    };
    let news = [say_at(7, 0), say_at(8, 1), say_at(9, 2)];
    for news in &news {
        assert_eq!(put(&mut all, now, news), taken());
    }
    // The second is lost: the third is not taken, and it is told why.
    assert_eq!(put(&mut some, now, &news[0]), taken());
    let (owner, slice) = (news[0].owner, news[0].slices[0].slice);
    let slices = vec![(slice, 7)];
    let gap = SessionVector { owner, slices };
    assert_eq!(put(&mut some, now, &news[2]), (vec![gap.clone()], 0));
    let call = ReplicaCall::LeaseLacking {
        known: vec![gap],
        after: None,
    };
    let Some(ReplicaAnswer::LeasesLacking { news, next: None }) = all.handle(now, call, |_| true)
    else {
        panic!("no answer")
    };
    assert_eq!(put(&mut some, now, &news[0]), taken());
    assert_eq!(known(&mut some, now), known(&mut all, now));
    for key in &keys {
        assert_eq!(said(&mut some, now, key), ["x"]);
    }
}

#[test]
fn it_is_gone_when_its_time_is_over_and_leaves_nothing_behind() {
    let (mut table, now, k) = (LeaseTable::default(), Instant::now(), key("k"));
    let (mut first, mut second) = (session(1), session(2));
    let a = first.change(1, LIFE, [(k.clone(), say("a"))]).unwrap();
    let long = Duration::from_secs(10_000);
    let b = second.change(1, long, [(k.clone(), say("b"))]).unwrap();
    put(&mut table, now, &a);
    put(&mut table, now, &b);
    // Renewed, it counts from then.
    let later = now + Duration::from_secs(59);
    assert_eq!(put(&mut table, later, &first.renew(2, LIFE)), taken());
    let end = later + Duration::from_secs(59);
    assert_eq!(said(&mut table, end, &k), ["a", "b"]);
    assert_eq!(said(&mut table, later + LIFE, &k), ["b"]);
    assert_eq!(said(&mut table, now + LEASE_LIFE_MAX, &k), [""; 0]);
    assert!(table.is_empty());
    // A renewal of what is gone is a gap, and so brings it back.
    let (gaps, _) = put(&mut table, end, &first.renew(3, LIFE));
    assert_eq!(gaps[0].slices, [(slice_of_lease(&k), 0)]);
}

#[test]
fn what_was_withdrawn_is_not_brought_back_by_a_slower_message() {
    let (mut table, now, k) = (LeaseTable::default(), Instant::now(), key("k"));
    let mut first = session(1);
    let a = first.change(1, LIFE, [(k.clone(), say("a"))]).unwrap();
    let renewed = first.renew(2, LIFE);
    let gone = first.change(3, LIFE, [(k.clone(), None)]).unwrap();
    let b = first.change(4, LIFE, [(k.clone(), say("b"))]).unwrap();
    for news in [&a, &renewed, &gone, &a, &renewed] {
        put(&mut table, now, news);
    }
    assert_eq!(said(&mut table, now, &k), [""; 0]);
    assert_eq!(put(&mut table, now, &b), taken());
    assert_eq!(said(&mut table, now, &k), ["b"]);
}

#[test]
fn a_peer_that_moved_to_another_tracker_speaks_with_the_same_voice() {
    let (mut table, now) = (LeaseTable::default(), Instant::now());
    let keys = keys_of_one_slice(2);
    let (mut here, mut there) = (session(1), session(1));
    let both = keys.iter().map(|key| (key.clone(), say("here")));
    put(&mut table, now, &here.change(10, LIFE, both).unwrap());
    // It holds one of the two there; what is still said for it here comes too late.
    let whole = there.whole(20, LIFE, [(keys[1].clone(), say("there").unwrap())]);
    let late = here.renew(11, LIFE);
    for news in [&whole.unwrap(), &late] {
        assert_eq!(put(&mut table, now, news), taken());
    }
    assert_eq!(said(&mut table, now, &keys[0]), [""; 0]);
    assert_eq!(said(&mut table, now, &keys[1]), ["there"]);
    // And back again.
    let mut again = session(1);
    let whole = again.whole(30, LIFE, [(keys[0].clone(), say("back").unwrap())]);
    assert_eq!(put(&mut table, now, &whole.unwrap()), taken());
    assert_eq!(put(&mut table, now, &there.renew(21, LIFE)), taken());
    assert_eq!(said(&mut table, now, &keys[0]), ["back"]);
    assert_eq!(said(&mut table, now, &keys[1]), [""; 0]);
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let (mut table, now) = (LeaseTable::default(), Instant::now());
    let entry = |name: &str| SlotEntry {
        key: key(name),
        payload: Some(b"x".to_vec()),
    };
    let slice = slice_of_lease(&key("k"));
    let news = |number, after, expires_in, entries| LeaseNews {
        owner: LeaseOwner {
            peer: PeerId::from_bytes([1; 32]),
            session: SessionId::from_bytes([1; 16]),
        },
        number,
        expires_in,
        slices: vec![SliceNews {
            slice,
            after,
            entries,
        }],
    };
    let refused = (Vec::new(), 1);
    let huge = SlotEntry {
        payload: Some(vec![0; LEASE_PAYLOAD_BYTES_MAX + 1]),
        ..entry("k")
    };
    for bad in [
        news(5, 0, 60_000, vec![entry("of another slice")]),
        news(5, 0, 60_000, vec![huge]),
        news(5, 0, 0, vec![entry("k")]),
    ] {
        assert_eq!(put(&mut table, now, &bad), refused);
    }
    assert!(table.is_empty());
    assert_eq!(
        put(&mut table, now, &news(5, 0, 60_000, vec![entry("k")])),
        taken()
    );
    // Each name once, whatever is sent.
    let twice = news(6, 0, 60_000, vec![entry("k"), entry("k")]);
    assert_eq!(put(&mut table, now, &twice), taken());
    assert_eq!(said(&mut table, now, &key("k")), ["x"]);
    table.expire(now + LEASE_LIFE_MAX);
    assert!(table.is_empty());
}

#[test]
fn a_session_has_bounds_in_a_slice() {
    let (mut table, now) = (LeaseTable::default(), Instant::now());
    let large: Arc<[u8]> = vec![0; LEASE_PAYLOAD_BYTES_MAX].into();
    let too_large: Arc<[u8]> = vec![0; LEASE_PAYLOAD_BYTES_MAX + 1].into();
    let mut first = session(1);
    let refused = first.change(1, LIFE, [(key("k"), Some(too_large))]);
    let (len, max) = (LEASE_PAYLOAD_BYTES_MAX + 1, LEASE_PAYLOAD_BYTES_MAX);
    assert_eq!(refused, Err(LeaseError::TooLarge { len, max }));
    let keys = keys_of_one_slice(LEASE_SLOT_BYTES_MAX / LEASE_PAYLOAD_BYTES_MAX);
    let (last, some) = keys.split_last().unwrap();
    let all = some.iter().map(|key| (key.clone(), large.clone()));
    assert_eq!(
        put(&mut table, now, &first.whole(1, LIFE, all).unwrap()),
        taken()
    );
    let more = first.change(2, LIFE, [(last.clone(), Some(large.clone()))]);
    assert_eq!(put(&mut table, now, &more.unwrap()), (Vec::new(), 1));
    // What was known stands, and other slices have room.
    assert_eq!(said(&mut table, now, &some[0]).len(), some.len().min(1));
    let other = session(1).change(3, LIFE, [(key("other"), Some(large))]);
    assert_eq!(put(&mut table, now, &other.unwrap()), taken());
    const { assert!(LEASE_SLOT_ENTRIES_MAX < u16::MAX as usize) };
}

#[test]
fn a_key_has_bounds_and_so_has_the_table() {
    let (mut table, now, k) = (LeaseTable::default(), Instant::now(), key("k"));
    let nth = |i: usize| {
        let mut peer = [0; 32];
        peer[..8].copy_from_slice(&i.to_be_bytes());
        LeaseSession::new(PeerId::from_bytes(peer), SessionId::from_bytes([0; 16]))
    };
    for i in 0..LEASES_PER_KEY_MAX {
        let news = nth(i).change(1, LIFE, [(k.clone(), say("a"))]);
        assert_eq!(put(&mut table, now, &news.unwrap()), taken());
    }
    // Who comes last is not named, nor is its number known; who was first may still speak, and time makes room.
    let late = nth(LEASES_PER_KEY_MAX).change(1, LEASE_LIFE_MAX, [(k.clone(), say("late"))]);
    let late = late.unwrap();
    assert_eq!(put(&mut table, now, &late), (Vec::new(), 1));
    let all = table.handle(
        now,
        ReplicaCall::LeaseGet {
            keys: vec![k.clone()],
            after: None,
        },
        |_| true,
    );
    assert!(matches!(
        all,
        Some(ReplicaAnswer::Leases { more: true, .. })
    ));
    assert_eq!(table.sessions_under(&k), LEASES_PER_KEY_MAX);
    let news = nth(0).whole(2, LIFE, [(k.clone(), say("b").unwrap())]);
    assert_eq!(put(&mut table, now, &news.unwrap()), taken());
    // Another one has room for it, and offers it until there is room here.
    let mut ring = Ring::new(2);
    ring.now = now;
    *ring.table(0) = table;
    assert_eq!(put(ring.table(1), now, &late), taken());
    for (time, slots, known) in [
        (now, 1, false),
        (now + LIFE, 1, true),
        (now + LIFE, 0, true),
    ] {
        ring.now = time;
        assert_eq!(ring.exchange(0, 1).slots, slots);
        let said = said(ring.table(0), time, &k);
        assert_eq!(said.contains(&"late".to_owned()), known);
    }

    let mut table = LeaseTable::default();
    let large: Arc<[u8]> = vec![0; LEASE_PAYLOAD_BYTES_MAX].into();
    let mut count = 0;
    let full = loop {
        let change = [(key(&count.to_string()), Some(large.clone()))];
        let news = nth(count).change(1, LIFE, change).unwrap();
        match put(&mut table, now, &news) {
            (_, 0) => count += 1,
            (_, refused) => break refused,
        }
    };
    assert_eq!(full, 1);
    assert!(count * LEASE_PAYLOAD_BYTES_MAX < LEASE_TABLE_BYTES_MAX);
    assert!((count + 2) * (LEASE_PAYLOAD_BYTES_MAX + 1024) > LEASE_TABLE_BYTES_MAX);
    // Who is in may still speak.
    let news = nth(0).whole(2, LIFE, [(key("0"), say("small").unwrap())]);
    assert_eq!(put(&mut table, now, &news.unwrap()), taken());
}

// The machines.

#[derive(Clone, Debug)]
enum Say {
    Change(Vec<(usize, bool)>),
    Renew,
    /// The peer moves to another tracker, which knows only what it holds now.
    Move(Vec<usize>),
}

/// What sessions said, and what a slot holds at each of its numbers.
#[derive(Default)]
struct History {
    news: Vec<LeaseNews>,
    slots: BTreeMap<(LeaseOwner, Slice, u64), BTreeMap<LeaseKey, Vec<u8>>>,
}

impl History {
    fn of(keys: &[LeaseKey], said: Vec<(u8, Say)>) -> Self {
        let mut this = Self::default();
        let mut sessions: BTreeMap<u8, (LeaseSession, BTreeMap<LeaseKey, Vec<u8>>)> =
            (0..3).map(|i| (i, (session(i), BTreeMap::new()))).collect();
        for (at, (who, say)) in said.into_iter().enumerate() {
            let number = (at as u64 + 1) << 16;
            let text = || say_bytes(at.to_string());
            let (speaker, holds) = sessions.get_mut(&who).unwrap();
            let news = match say {
                Say::Renew => speaker.renew(number, LIFE),
                Say::Change(changes) => {
                    let change =
                        |(i, is): &(usize, bool)| (keys[*i].clone(), is.then(text).flatten());
                    let changes: BTreeMap<_, _> = changes.iter().map(change).collect();
                    for (key, payload) in &changes {
                        match payload {
                            Some(payload) => drop(holds.insert(key.clone(), payload.to_vec())),
                            None => drop(holds.remove(key)),
                        }
                    }
                    speaker.change(number, LIFE, changes).unwrap()
                }
                Say::Move(held) => {
                    *speaker = session(who);
                    *holds = held
                        .iter()
                        .map(|i| (keys[*i].clone(), text().unwrap().to_vec()))
                        .collect();
                    let all = holds.iter();
                    let all = all.map(|(key, payload)| (key.clone(), Arc::from(&payload[..])));
                    speaker
                        .whole(number, LIFE, all.collect::<Vec<_>>())
                        .unwrap()
                }
            };
            for slot in &news.slices {
                let held = holds
                    .iter()
                    .filter(|(key, _)| slice_of_lease(key) == slot.slice);
                let held = held.map(|(key, payload)| (key.clone(), payload.clone()));
                let place = (news.owner, slot.slice, news.number);
                this.slots.insert(place, held.collect());
            }
            this.news.push(news);
        }
        this
    }

    /// Fails unless each slot holds exactly what was said up to its number.
    fn check(&self, known: &Known) {
        for ((owner, slice), (number, content)) in known {
            assert_eq!(Some(content), self.slots.get(&(*owner, *slice, *number)));
        }
    }
}

fn says() -> impl Strategy<Value = Say> {
    let change = proptest::collection::vec((0..6usize, any::<bool>()), 1..4);
    let held = proptest::collection::vec(0..6usize, 0..4);
    prop_oneof![
        4 => change.prop_map(Say::Change),
        2 => Just(Say::Renew),
        1 => held.prop_map(Say::Move),
    ]
}

type Held = (LeaseKey, Arc<[u8]>);

/// A session that holds so many files.
fn holder(i: u8, files: usize) -> (LeaseSession, Vec<Held>) {
    let payload: Arc<[u8]> = Arc::from([7; 24]);
    let key = |n| key(&format!("s/a group of some length/{n:064x}"));
    let all = (0..files).map(|n| (key(n), payload.clone())).collect();
    (session(i), all)
}

proptest! {
    /// Whatever is lost, comes twice or in another order, a slot's number says exactly what is known; and
    /// after exchanges all know the same, the highest number of each slot that any of them knew.
    #[test]
    fn numbers_are_exact_and_exchanges_make_all_equal(
        said in proptest::collection::vec((0..3u8, says()), 1..20),
        heard in proptest::collection::vec((0..3u8, any::<prop::sample::Index>()), 0..90),
    ) {
        let mut keys = keys_of_one_slice(3);
        keys.extend(["a", "b", "c"].map(key));
        let history = History::of(&keys, said);
        let mut ring = Ring::new(3);
        let now = ring.now;
        for (who, what) in heard {
            let news = what.get(&history.news);
            let before = ring.known(who);
            put(ring.table(who), now, news);
            let after = ring.known(who);
            history.check(&after);
            for (place, (number, _)) in &before {
                prop_assert!(after[place].0 >= *number);
            }
        }
        let all: Vec<Known> = (0..3).map(|i| ring.known(i)).collect();
        let mut highest: BTreeMap<_, u64> = BTreeMap::new();
        for (place, (number, _)) in all.iter().flatten() {
            let number = *number;
            highest.entry(*place).and_modify(|known| *known = number.max(*known)).or_insert(number);
        }
        for (me, with) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            prop_assert!(ring.exchange(me, with).complete);
        }
        let known = ring.known(0);
        history.check(&known);
        let numbers: BTreeMap<_, u64> = known.iter().map(|(place, (number, _))| (*place, *number)).collect();
        prop_assert_eq!(numbers, highest);
        prop_assert_eq!(&ring.known(1), &known);
        prop_assert_eq!(&ring.known(2), &known);
        for key in &keys {
            let found: Vec<_> = (0..3).map(|i| super::tests::said(ring.table(i), now, key)).collect();
            prop_assert!(found[0] == found[1] && found[0] == found[2]);
        }
        ring.now += LEASE_LIFE_MAX;
        for i in 0..3 {
            prop_assert!(ring.known(i).is_empty());
        }
        prop_assert!(ring.tables.values().all(LeaseTable::is_empty));
    }
}

/// What a peer with so many files costs: the bytes of its first announcement, of a renewal and of an exchange
/// to one replica, and how many messages the first two are.
#[test]
fn leases_cost_little() {
    let sizes = [
        (1, 300, 150),
        (100, 20_000, 3_000),
        (256, 40_000, 7_000),
        (10_000, 1_900_000, 250_000),
    ];
    for (files, first_max, renewal_max) in sizes {
        let mut ring = Ring::new(1);
        let (mut session, all) = holder(1, files);
        let number = 1_790_000_000_000 << 16;
        let before = resident();
        assert!(
            ring.write(vec![session.whole(number, LIFE, all).unwrap()])
                .is_complete()
        );
        let grown = resident().saturating_sub(before);
        let (first, messages) = (ring.bytes, ring.sent);
        (ring.bytes, ring.sent) = (0, 0);
        assert!(
            ring.write(vec![session.renew(number + (20_000 << 16), LIFE)])
                .is_complete()
        );
        let (renewal, renewals) = (ring.bytes, ring.sent);
        let call = ReplicaCall::LeaseVectors {
            with: member(0),
            after: None,
        };
        let vectors = ring
            .tables
            .get_mut(&member(0))
            .unwrap()
            .handle(ring.now, call, |_| true);
        let vectors = postcard::to_allocvec(&vectors).unwrap().len();
        let (slots, counted) = ring.table(0).size();
        println!(
            "{files} files, {slots} slots: announced with {first} bytes in {messages} messages, renewed with {renewal} in \
             {renewals}, compared with {vectors} at first; {counted} bytes counted, {grown} resident"
        );
        assert!(
            first <= first_max && renewal <= renewal_max,
            "{first} {renewal}"
        );
        assert!(
            messages <= 1 + first / LEASE_PAGE_BYTES && renewals <= 1 + renewal / LEASE_PAGE_BYTES
        );
    }
}

/// Bytes that this process has in memory, where that can be known.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}
