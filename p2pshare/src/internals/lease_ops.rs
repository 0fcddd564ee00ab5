//! The fuzz target of leases: whatever is said, lost, late, repeated and exchanged, and whoever forgets, a member knows
//! of each session exactly what its number says, for no longer than that counts.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::dht::parts::{
    Action, Input, LeaseExchange, LeaseSession, LeaseTable, Machine, id, slice_of_lease,
};
use crate::identity::{PeerId, SessionId};
use crate::limits::LEASE_LIFE_MAX;
use crate::wire::ring::{
    Epoch, LeaseKey, LeaseNews, LeaseOwner, ReplicaAnswer, ReplicaCall, ReplicaRequest, Slice,
};

/// What two members know of leases that three sessions say is what was said, and both know the same after exchanges.
///
/// Each three bytes are one step: what is done, by whom, and with what.
pub fn fuzz_lease_ops(data: &[u8]) {
    Leases::default().live(data);
}

const MEMBERS: usize = 2;
const SESSIONS: usize = 3;
const LIVES: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_secs(1),
    Duration::from_secs(10),
    LEASE_LIFE_MAX,
];

/// Three of one slice, and two of others.
static KEYS: LazyLock<Vec<LeaseKey>> = LazyLock::new(|| {
    let all = (0u32..).filter_map(|number| LeaseKey::new(format!("k{number}")).ok());
    let mut others = all.clone();
    let first = others.next().map(|key| slice_of_lease(&key));
    let of_first = all.filter(|key| Some(slice_of_lease(key)) == first);
    of_first.take(3).chain(others.take(2)).collect()
});

/// A slot, as one number of it says.
type Place = (LeaseOwner, Slice, u64);
type Content = BTreeMap<LeaseKey, Arc<[u8]>>;
/// The number of each slot that a member knows.
type Numbers = BTreeMap<(LeaseOwner, Slice), u64>;

struct Leases {
    now: Instant,
    tables: [LeaseTable; MEMBERS],
    sessions: Vec<LeaseSession>,
    /// What each session says now.
    says: [Content; SESSIONS],
    /// All news that there ever were, which may arrive at any time.
    news: Vec<LeaseNews>,
    /// All that a slot said under a number.
    said: BTreeMap<Place, Content>,
    /// Until when that counts at most, by who was told it first hand.
    ends: BTreeMap<Place, Instant>,
    /// What each member knew when it was looked at last.
    known: [Numbers; MEMBERS],
}

impl Default for Leases {
    fn default() -> Self {
        let session = |i: usize| {
            let i = i as u8;
            LeaseSession::new(PeerId::from_bytes([i; 32]), SessionId::from_bytes([i; 16]))
        };
        Self {
            now: Instant::now(),
            tables: Default::default(),
            sessions: (0..SESSIONS).map(session).collect(),
            says: Default::default(),
            news: Vec::new(),
            said: BTreeMap::new(),
            ends: BTreeMap::new(),
            known: Default::default(),
        }
    }
}

impl Leases {
    /// Goes through the steps. Returns how many leases both members know in the end.
    fn live(&mut self, data: &[u8]) -> usize {
        for &[what, who, with] in data.as_chunks::<3>().0.iter().take(128) {
            let (session, member) = (usize::from(who) % SESSIONS, usize::from(who) % MEMBERS);
            match what % 8 {
                0 | 1 => self.say(session, with),
                2 => self.renew(session, with),
                3 | 4 if !self.news.is_empty() => {
                    // Mostly the newest, which whoever speaks sends at once.
                    let back = usize::from(with) % self.news.len();
                    let news = self.news[self.news.len() - 1 - back].clone();
                    self.hear(member, news);
                }
                5 => _ = self.exchange(member, Some(usize::from(with) % 12)),
                6 => self.now += Duration::from_millis(u64::from(with).pow(2)),
                _ if with == 0 => {
                    self.tables[member] = LeaseTable::default();
                    self.known[member].clear();
                }
                _ => {}
            }
            self.look();
        }
        for member in [0, 1, 0] {
            assert!(self.exchange(member, None), "an exchange came to nothing");
        }
        self.look();
        assert_eq!(self.known[0], self.known[1]);
        let leases = self.known[0].len();
        self.now += LEASE_LIFE_MAX;
        self.look();
        assert!(self.known.iter().all(BTreeMap::is_empty));
        leases
    }

    /// A session changes what it says, or says all of it anew.
    fn say(&mut self, session: usize, with: u8) {
        let key = KEYS[usize::from(with) % KEYS.len()].clone();
        let life = LIVES[usize::from(with >> 3) % LIVES.len()];
        let payload: Arc<[u8]> = Arc::from(self.news.len().to_be_bytes());
        let says = &mut self.says[session];
        let speaker = &mut self.sessions[session];
        let news = match with >> 5 {
            0..4 => {
                says.insert(key.clone(), payload.clone());
                speaker.change(0, life, [(key, Some(payload))])
            }
            4 | 5 => {
                says.remove(&key);
                speaker.change(0, life, [(key, None)])
            }
            _ => {
                says.insert(key, payload);
                speaker.whole(0, life, says.clone())
            }
        };
        if let Ok(news) = news {
            self.note(session, news);
        }
    }

    fn renew(&mut self, session: usize, with: u8) {
        let life = LIVES[usize::from(with) % LIVES.len()];
        let news = self.sessions[session].renew(0, life);
        self.note(session, news);
    }

    /// Notes what the news say in all.
    fn note(&mut self, session: usize, news: LeaseNews) {
        for slot in &news.slices {
            let of_slice = self.says[session].iter();
            let of_slice = of_slice.filter(|(key, _)| slice_of_lease(key) == slot.slice);
            let content = of_slice.map(|(key, payload)| (key.clone(), payload.clone()));
            let place = (news.owner, slot.slice, news.number);
            self.said.insert(place, content.collect());
        }
        self.news.push(news);
    }

    /// A member is told something first hand.
    fn hear(&mut self, member: usize, news: LeaseNews) {
        let ends = self.now + Duration::from_millis(news.expires_in.into());
        for slot in &news.slices {
            let place = (news.owner, slot.slice, news.number);
            let known = self.ends.entry(place).or_insert(ends);
            *known = ends.max(*known);
        }
        self.ask(member, ReplicaCall::LeasePut(vec![news]));
    }

    fn ask(&mut self, member: usize, call: ReplicaCall) -> Option<ReplicaAnswer> {
        self.tables[member].handle(self.now, call, |_| true)
    }

    /// A member pulls what the other one knows; so many of their answers arrive, each a moment later. Returns whether it
    /// has all then.
    fn exchange(&mut self, member: usize, mut answers: Option<usize>) -> bool {
        let ids = [id(1), id(2)];
        let (me, with) = (ids[member], ids[1 - member]);
        let mut machine = LeaseExchange::new(self.now, Epoch::FOUNDING, me, with);
        while let Some(action) = machine.poll_action() {
            let (to, ReplicaRequest { call, .. }) = match action {
                Action::Send { to, request } => (to, request),
                Action::Finish(exchanged) => return exchanged.complete,
            };
            let at = if to == ids[0] { 0 } else { 1 };
            let answer = self.ask(at, call);
            if let Some(left) = &mut answers {
                self.now += Duration::from_millis(7);
                *left = left.saturating_sub(1);
            }
            let input = match answer.filter(|_| answers != Some(0)) {
                Some(answer) => Input::Answer { from: to, answer },
                None => Input::Failed { from: to },
            };
            machine.handle(self.now, input);
        }
        panic!("an exchange neither asks nor ends")
    }

    /// Looks at what the members know now.
    fn look(&mut self) {
        for member in 0..MEMBERS {
            let vectors = ReplicaCall::LeaseVectors {
                with: id(1),
                after: None,
            };
            let Some(ReplicaAnswer::LeaseVectors {
                sessions,
                next: None,
            }) = self.ask(member, vectors)
            else {
                panic!("no page of numbers");
            };
            let mut numbers = Numbers::new();
            for session in sessions {
                let slots = session.slices.into_iter();
                numbers.extend(slots.map(|(slice, number)| ((session.owner, slice), number)));
            }
            for (place, before) in &self.known[member] {
                let now = numbers.get(place);
                assert!(now.is_none_or(|now| now >= before), "a number went back");
            }
            self.look_at_content(member, &numbers);
            self.known[member] = numbers;
        }
    }

    /// That a member says under each key what it has to by the numbers that it knows.
    fn look_at_content(&mut self, member: usize, numbers: &Numbers) {
        let get = ReplicaCall::LeaseGet {
            keys: KEYS.clone(),
            after: None,
        };
        let Some(ReplicaAnswer::Leases {
            found, more: false, ..
        }) = self.ask(member, get)
        else {
            panic!("no page of leases");
        };
        let mut found_in: BTreeMap<(LeaseOwner, Slice), usize> = BTreeMap::new();
        for (key, entry) in KEYS
            .iter()
            .zip(found)
            .flat_map(|(key, entries)| entries.into_iter().map(move |entry| (key, entry)))
        {
            let owner = LeaseOwner {
                peer: entry.peer,
                session: entry.session,
            };
            let slice = slice_of_lease(key);
            let place = (owner, slice, entry.number);
            assert_eq!(numbers.get(&(owner, slice)), Some(&entry.number));
            let said = self.said.get(&place).and_then(|said| said.get(key));
            assert_eq!(entry.payload.as_deref(), said.map(|said| &said[..]));
            let left = Duration::from_millis(entry.expires_in.into());
            let ends = self.ends.get(&place);
            assert!(
                ends.is_some_and(|ends| self.now + left <= *ends),
                "kept too long"
            );
            *found_in.entry((owner, slice)).or_default() += usize::from(said.is_some());
        }
        for (&(owner, slice), &number) in numbers {
            let said = self.said.get(&(owner, slice, number));
            let found = found_in.get(&(owner, slice)).copied();
            assert_eq!(found.unwrap_or_default(), said.map_or(0, BTreeMap::len));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sessions say something, which one member hears and the other pulls; some of it is lost, withdrawn, renewed
    /// and said anew.
    const SEED: &[u8] = &[
        0,
        0,
        0b0001_0000,
        3,
        0,
        0,
        0,
        1,
        0b0001_1001,
        3,
        0,
        0,
        3,
        1,
        0,
        5,
        1,
        11,
        0,
        0,
        0b0001_0001,
        0,
        0,
        0b0001_1010,
        4,
        1,
        0,
        4,
        0,
        1,
        4,
        0,
        0,
        2,
        0,
        3,
        3,
        0,
        0,
        6,
        0,
        90,
        5,
        1,
        3,
        5,
        1,
        11,
        0,
        1,
        0b1001_1001,
        3,
        1,
        0,
        0,
        2,
        0b1101_1000,
        3,
        0,
        0,
        7,
        1,
        0,
        5,
        1,
        11,
    ];

    /// Fuzzing starts from a sequence that makes sense.
    #[test]
    fn the_corpus_holds_a_sequence_in_which_leases_are_known() {
        let folder = format!("{}/../fuzz/corpus/lease_ops", env!("CARGO_MANIFEST_DIR"));
        let seed = format!("{folder}/two-members");
        if std::env::var_os("P2PSHARE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&seed, SEED).unwrap();
        }
        assert!(
            std::fs::read(&seed).unwrap() == SEED,
            "P2PSHARE_GOLDEN=write makes it anew"
        );
        assert!(Leases::default().live(SEED) >= 2);
    }
}
