//! Clients: each does one thing after the other, through any member, and asks again through another when it
//! is not told what came of a change.
//!
//! A change keeps its request key however often it is tried. Some are put aside and tried again much later,
//! when the row may have forgotten them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::history::{Attempted, Operation, Seen};
use super::host::For;
use super::leases::session;
use super::world::{Event, World};

use crate::dht::sim::{Attempt, Change, Failure, Intent, LeaseSession, Outcome, Page};
use crate::identity::{PeerId, RequestId};
use crate::wire::ring::{ReplicaCall, RequestKey, RowKey, Version};

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: PeerId,
    requests: u64,
    /// Things that it has still to do.
    left: u32,
    doing: Option<Doing>,
    /// What it says for a while.
    pub(super) says: LeaseSession,
    /// When it said so last.
    pub(super) said: Option<Instant>,
    /// The versions that it saw last.
    known: BTreeMap<RowKey, u64>,
    aside: Option<(Instant, RowKey, Attempted)>,
}

/// What a client is doing.
#[derive(Clone, Debug)]
struct Doing {
    key: RowKey,
    /// `None` reads, or lists what there is from the row on.
    change: Option<Attempted>,
    lists: bool,
    /// When the try that is under way was called; `None` between tries.
    called: Option<u64>,
    tries: u32,
    /// Whether an earlier try may have made the change.
    maybe: bool,
    /// Of two members the one that was down when the try was called, and how many lives it had had.
    down: Option<(usize, u64)>,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        let peer = PeerId::from_bytes([number as u8 + 1; 32]);
        Self {
            peer,
            says: session(peer),
            said: None,
            requests: 0,
            left: THINGS,
            doing: None,
            known: BTreeMap::new(),
            aside: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.doing.is_none()
    }

    /// It ends what it does, and that is all.
    pub(super) fn begin_no_more(&mut self) {
        self.left = 0;
    }

    fn request(&mut self) -> RequestKey {
        self.requests += 1;
        let mut id = [self.peer.as_bytes()[0]; 16];
        id[8..].copy_from_slice(&self.requests.to_be_bytes());
        RequestKey {
            peer: self.peer,
            request: RequestId::from_bytes(id),
        }
    }
}

impl World {
    /// A client does its next thing, or tries again.
    pub(super) fn client(&mut self, client: usize) {
        if self.clients[client]
            .doing
            .as_ref()
            .is_some_and(|doing| doing.called.is_some())
        {
            return;
        }
        if self.clients[client].doing.is_none() {
            if self.clients[client].left == 0 {
                return;
            }
            self.clients[client].left -= 1;
            self.clients[client].doing = Some(self.next_thing(client));
        }
        let up: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.serves(*host))
            .collect();
        if up.is_empty() {
            return self.think(client, Duration::from_secs(1));
        }
        let host = up[self.rng.random_range(0..up.len())];
        self.ask_time(host);
        if self.rng.random_bool(0.2) {
            self.say(client, host);
        }
        let called = self.history.moment();
        let down = self.one_of_two_is_down();
        let Some(doing) = &mut self.clients[client].doing else {
            return;
        };
        doing.called = Some(called);
        doing.down = down;
        doing.tries += 1;
        let intent = match &doing.change {
            None => Intent::Read,
            Some(attempted) => Intent::Change(Change {
                expected: Version::from_u64(attempted.expected),
                value: attempted.value.clone(),
                request: attempted.request,
                attempt: if doing.maybe {
                    Attempt::Retry
                } else {
                    Attempt::First
                },
            }),
        };
        let key = doing.key.clone();
        if doing.lists {
            let after = doing
                .change
                .is_none()
                .then(|| key.sort().to_vec())
                .filter(|sort| !sort.is_empty());
            let call = ReplicaCall::List {
                partition: key.partition().to_vec(),
                after,
                limit: self.rng.random_range(1..4),
            };
            return self.begin_page(host, call, For::Client { client, called });
        }
        self.begin_row(host, &key, intent, For::Client { client, called });
    }

    /// What a client does next.
    fn next_thing(&mut self, client: usize) -> Doing {
        let aside = &mut self.clients[client].aside;
        if let Some((_, key, change)) = aside.take_if(|(due, ..)| *due <= self.now) {
            return Doing {
                key,
                change: Some(change),
                lists: false,
                called: None,
                tries: 0,
                maybe: true,
                down: None,
            };
        }
        let key = self.some_key();
        let kind = self.rng.random_range(0..100);
        let (lists, reads) = self.temper.lists_and_reads();
        let change = (kind >= reads).then(|| {
            let client = &mut self.clients[client];
            let request = client.request();
            let known = client.known.get(&key).copied().unwrap_or(0);
            Attempted {
                request,
                expected: if kind < reads + 7 { 0 } else { known },
                value: (kind < 92)
                    .then(|| format!("{}-{}", client.peer.as_bytes()[0], client.requests).into()),
            }
        });
        Doing {
            key,
            change,
            lists: kind < lists,
            called: None,
            tries: 0,
            maybe: false,
            down: None,
        }
    }

    /// A row, one of them more often than the others.
    fn some_key(&mut self) -> RowKey {
        let all = keys();
        let first = self.temper.at_first_row();
        let at = match self.rng.random_ratio(first, 100) {
            true => 0,
            false => self.rng.random_range(0..all.len()),
        };
        all[at].clone()
    }

    /// A client is told what came of a try; `None` if its connection broke.
    pub(super) fn told(
        &mut self,
        client: usize,
        called: u64,
        result: Option<Result<Outcome, Failure>>,
    ) {
        let under_way = &mut self.clients[client].doing;
        let Some(mut doing) = under_way.take_if(|doing| doing.called == Some(called)) else {
            return;
        };
        doing.called = None;
        let (word, operation) = operation(&doing, result);
        self.tally.tell(word);
        let maybe = matches!(operation, Some(Operation::Unknown(_)));
        let certain = operation.is_some() && !maybe;
        if let Some(seen) = operation.as_ref().and_then(version) {
            self.look_at_both(&doing.key, seen, doing.down);
            self.clients[client].known.insert(doing.key.clone(), seen);
        }
        if let Some(operation) = operation {
            self.history.record(&doing.key, called, operation);
        }
        doing.maybe |= maybe;
        let again = !certain && doing.tries < TRIES && self.rng.random_bool(0.7);
        let late = self.temper.tries_late();
        if let Some(change) = doing
            .change
            .clone()
            .filter(|_| !again && self.rng.random_ratio(late, 100))
        {
            let due = self.now + self.between(Duration::from_secs(5), Duration::from_secs(20));
            self.clients[client].aside = Some((due, doing.key.clone(), change));
        }
        self.clients[client].doing = again.then_some(doing);
        let pause = self.between(Duration::ZERO, self.troubles.thinking());
        self.think(client, pause);
    }

    /// A client is told a page of a partition. What it does not say for certain is not noted.
    pub(super) fn told_page(&mut self, client: usize, called: u64, page: Result<Page, Failure>) {
        let under_way = &mut self.clients[client].doing;
        let Some(doing) = under_way.take_if(|doing| doing.called == Some(called)) else {
            return;
        };
        let pause = self.between(Duration::ZERO, self.troubles.thinking());
        self.think(client, pause);
        let page = match page {
            Ok(page) if !page.stale => page,
            Ok(_) => return self.tally.tell("listed stale"),
            Err(_) => return self.tally.tell("unlisted"),
        };
        self.tally.tell("listed");
        let first = doing.key.sort();
        for key in keys()
            .into_iter()
            .filter(|key| key.partition() == doing.key.partition())
        {
            let before = !first.is_empty() && key.sort() <= first;
            let behind = page.next.as_ref().is_some_and(|next| key > *next);
            if before || behind || page.disputed.iter().any(|row| row.key == key) {
                continue;
            }
            let row = page.rows.iter().find(|row| row.key == key);
            let seen = row.map(|row| Seen::from(row.state.clone()));
            self.history.record(&key, called, Operation::Listed(seen));
        }
    }

    fn think(&mut self, client: usize, pause: Duration) {
        self.plan(pause, Event::Client { client });
    }
}

/// What a client learns from an answer, in a word and as far as it can be seen.
fn operation(
    doing: &Doing,
    result: Option<Result<Outcome, Failure>>,
) -> (&'static str, Option<Operation>) {
    let result = result.unwrap_or(Err(Failure::OutcomeUnknown));
    match (&doing.change, result) {
        (None, Ok(Outcome::Read(state))) => ("read", Some(Operation::Read(Seen::from(state)))),
        (Some(change), Ok(Outcome::Applied(version) | Outcome::AlreadyApplied(version))) => (
            "made",
            Some(Operation::Made(change.clone(), version.as_u64())),
        ),
        (Some(change), Ok(Outcome::Conflict(state))) => (
            "conflict",
            Some(Operation::Conflict(change.clone(), Seen::from(state))),
        ),
        (Some(change), Err(Failure::OutcomeUnknown)) => {
            ("unknown", Some(Operation::Unknown(change.clone())))
        }
        (None, Err(Failure::OutcomeUnknown)) => ("unread", None),
        (_, Err(Failure::InsufficientReplicas { .. })) => ("insufficient", None),
        (_, Err(Failure::Contended)) => ("contended", None),
        (_, Err(Failure::StaleEpoch(_))) => ("stale", None),
        (change, Ok(outcome)) => unreachable!("{change:?} ended as {outcome:?}"),
    }
}

/// The version that a row had, as far as this tells.
fn version(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::Read(seen) | Operation::Conflict(_, seen) => Some(seen.version),
        Operation::Made(_, version) => Some(*version),
        Operation::Listed(_) | Operation::Unknown(_) => None,
    }
}

/// The rows of the world.
pub(super) fn keys() -> Vec<RowKey> {
    let rows = PARTITIONS.iter().flat_map(|partition| {
        SORTS
            .iter()
            .filter_map(|sort| RowKey::new(*partition, *sort).ok())
    });
    rows.collect()
}

/// The partitions that have rows.
pub(super) const PARTITIONS: [&str; 2] = ["g/a", "u/b"];
const SORTS: [&str; 3] = ["", "x", "y"];
/// How many things a client does.
const THINGS: u32 = 40;
/// How often it tries one of them.
const TRIES: u32 = 4;
