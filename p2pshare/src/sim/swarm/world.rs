//! A swarm in virtual time: peers with uplinks and downlinks, each with the real picker, a tracker that knows what
//! it was told and draws whom it names as the product does, and what the driver of a download does around the picker.
//! Left out is what a holder does about its places: it serves all who ask, up to as many as it has places, without a
//! queue, turns or a limit, and all streams of it equally.
//!
//! **Invariant.** What happens follows from the seed: all choices come from one generator, and what is due at
//! the same moment happens in the order in which it was planned.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::scenario::{Peculiar, Scenario};
use super::tracker::{Known, Told, Tracker};
use super::uplink::Uplink;
use crate::content::{Bitfield, CHUNK_SIZE, ChunkIndex, Layout};
use crate::limits::{
    EXCHANGE_INTERVAL, HAVE_INTERVAL, HOLDERS_REFRESH, IDLE_SOURCE_LOOK, LEASE_LIFE, LEASE_RENEWAL,
    OUTRUN_PATIENCE, RETIRED_REST, SEED_STREAMS_MAX, SOURCE_IDLE_MAX, SOURCE_TRIED,
    SOURCES_HELD_MAX, SOURCES_MAX, STALL_LOOK, STALL_PATIENCE,
};
use crate::peer::sim::{Picker, SourceId, pause_between_looks};

/// Everything there is. Peer 0 is the seeder.
pub(super) struct World {
    rng: SmallRng,
    now: f64,
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
    pub(super) layout: Layout,
    pub(super) peers: Vec<Peer>,
    streams: Vec<Stream>,
    free: Vec<usize>,
    tracker: Tracker,
    scenario: Scenario,
}

/// What happens at one moment.
#[derive(Copy, Clone, Debug)]
enum Event {
    /// A download begins, or looks how it is, and asks the tracker again if it is time.
    Look(usize),
    /// The tracker hears of a peer.
    Announce(usize),
    /// A stream is open, or refused.
    Opened(StreamRef),
    /// A request for a chunk arrives.
    Asked(StreamRef, u32),
    /// A request to leave a chunk out arrives.
    Cancelled(StreamRef, u32),
    /// What another gave meanwhile has been coming for too long.
    Outrun(StreamRef, u32),
    /// The answer that it is left out arrives.
    LeftOut(StreamRef, ChunkIndex),
    /// A chunk has left an uplink, if nothing changed since.
    Sent(usize, u64),
    /// A chunk has arrived.
    Arrived(StreamRef, ChunkIndex),
    /// A stream that had nothing to ask for looks again.
    Wake(StreamRef),
    /// A peer is gone.
    Leave(usize),
}

/// A stream, unless it has ended and its place was taken by another.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
struct StreamRef {
    place: usize,
    life: u64,
}

/// A peer of the swarm.
pub(super) struct Peer {
    pub(super) picker: Option<Picker>,
    /// What it has got, in order, and when.
    got: Vec<(f32, u32)>,
    /// What it gave for the first time, in order, when and to whom.
    gave: Vec<(f32, u32, u32)>,
    given: Bitfield,
    pub(super) uplink: Uplink,
    pub(super) down: f64,
    /// Until when its downlink is at work.
    down_until: f64,
    /// Who fetches from it.
    askers: Vec<usize>,
    /// From whom it fetches.
    sources: Vec<usize>,
    next_source: SourceId,
    /// Whom the tracker named last.
    known: Vec<Known>,
    looks: Looks,
    /// When one of its sources last made place for another.
    exchanged: f64,
    resting: HashMap<usize, Rest>,
    /// When it announces itself again, if nothing happens.
    announces: f64,
    /// Whether chunks could ever come from anybody.
    joined: bool,
    pub(super) done_at: Option<f64>,
    pub(super) gone: bool,
    lies: bool,
    pub(super) duplicates: u32,
}

/// When a download asked the tracker.
#[derive(Copy, Clone, Debug, Default)]
struct Looks {
    first: Option<f64>,
    last: f64,
    next: f64,
    /// Since when nothing is asked of anybody.
    idle_since: Option<f64>,
}

#[derive(Copy, Clone, Debug, Default)]
struct Rest {
    times: u32,
    until: f64,
}

/// A stream on which one peer fetches from another.
struct Stream {
    life: u64,
    asker: usize,
    holder: usize,
    source: SourceId,
    open: bool,
    /// Whether the holder had but a part when it was opened.
    grows: bool,
    /// How far into what the holder got and gave it was told.
    heard: (usize, usize),
    /// Requests that have arrived and are not sent.
    queue: VecDeque<u32>,
    sending: bool,
    hungry: bool,
    wakes: bool,
    useless_since: Option<f64>,
    since: f64,
    /// Whether a chunk came.
    gave: bool,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let layout = Layout::new(u64::from(scenario.chunks) * u64::from(CHUNK_SIZE));
        let layout = layout.unwrap_or_else(|error| panic!("{error}"));
        let mut world = Self {
            rng: SmallRng::seed_from_u64(scenario.seed),
            now: 0.0,
            events: BTreeMap::new(),
            planned: 0,
            layout,
            peers: Vec::new(),
            streams: Vec::new(),
            free: Vec::new(),
            tracker: Tracker::new(scenario.chunks),
            scenario,
        };
        world.people();
        world
    }

    fn people(&mut self) {
        let count = self.scenario.chunks;
        let bound = self.scenario.bound();
        for index in 0..=self.scenario.peers {
            let speeds = self.scenario.speeds(index);
            let peculiar = self.scenario.peculiar(index);
            let seeds = index == 0;
            let lies = peculiar == Peculiar::Lies;
            let picker = (!seeds && !lies).then(|| {
                let had = Bitfield::new(count);
                Picker::new(self.layout, had, self.scenario.order(), self.rng.random())
            });
            self.peers.push(Peer {
                picker,
                got: Vec::new(),
                gave: Vec::new(),
                given: Bitfield::new(count),
                uplink: Uplink::new(speeds.up),
                down: speeds.down,
                down_until: 0.0,
                askers: Vec::new(),
                sources: Vec::new(),
                next_source: 1,
                known: Vec::new(),
                looks: Looks::default(),
                exchanged: 0.0,
                resting: HashMap::new(),
                announces: 0.0,
                joined: false,
                done_at: None,
                gone: false,
                lies,
                duplicates: 0,
            });
            if seeds || lies {
                self.tracker.hear(index, None, f64::INFINITY);
            } else {
                // They begin within a second.
                let start = self.rng.random_range(0.0..1.0);
                self.plan(start, Event::Look(index));
                let trip = self.scenario.round_trip.as_secs_f64();
                self.plan(start + trip, Event::Announce(index));
            }
            if peculiar == Peculiar::Leaves {
                let when = self.rng.random_range(0.0..bound);
                self.plan(when, Event::Leave(index));
            }
        }
    }

    fn plan(&mut self, at: f64, event: Event) {
        self.planned += 1;
        self.events
            .insert((at.max(self.now).to_bits(), self.planned), event);
    }

    /// Lets time go by until everybody who stays has the file; whether they come to have it before `deadline`.
    pub(super) fn live(&mut self, deadline: f64) -> bool {
        let stays = |peer: &&Peer| peer.picker.is_some() && !peer.gone;
        loop {
            let Some(((at, _), event)) = self.events.pop_first() else {
                return self.peers.iter().filter(stays).all(|p| p.done_at.is_some());
            };
            self.now = f64::from_bits(at);
            if self.now > deadline {
                return false;
            }
            self.handle(event);
            let ends = matches!(event, Event::Arrived(..) | Event::Leave(_));
            if ends && self.peers.iter().filter(stays).all(|p| p.done_at.is_some()) {
                return true;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Look(peer) => self.look(peer),
            Event::Announce(peer) if self.now >= self.peers[peer].announces => self.announce(peer),
            Event::Announce(_) => {}
            Event::Opened(of) => self.opened(of),
            Event::Asked(of, index) => {
                let Some(stream) = self.alive(of) else { return };
                stream.queue.push_back(index);
                let holder = stream.holder;
                self.note_given(of.place, index);
                self.send_next(of.place);
                self.foretell(holder);
            }
            Event::Cancelled(of, index) => {
                let Some(stream) = self.alive(of) else { return };
                let before = stream.queue.len();
                let begun = stream.sending.then(|| stream.queue.pop_front()).flatten();
                stream.queue.retain(|&queued| queued != index);
                if let Some(begun) = begun {
                    stream.queue.push_front(begun);
                }
                let left_out = stream.queue.len() < before;
                if begun == Some(index) {
                    let patience = self.half_trip() + OUTRUN_PATIENCE.as_secs_f64();
                    return self.plan(self.now + patience, Event::Outrun(of, index));
                }
                if left_out && let Some(chunk) = self.layout.chunk(index) {
                    self.plan(self.now + self.half_trip(), Event::LeftOut(of, chunk));
                }
            }
            Event::LeftOut(of, chunk) => {
                let Some((asker, source)) = self.alive(of).map(|s| (s.asker, s.source)) else {
                    return;
                };
                self.pick(asker, |picker, now| picker.refuse(source, chunk, now));
                self.fill(of.place);
            }
            Event::Outrun(of, index) => {
                let begun =
                    |stream: &Stream| stream.sending && stream.queue.front() == Some(&index);
                if self.alive(of).is_some_and(|stream| begun(stream)) {
                    self.end(of.place, None);
                }
            }
            Event::Sent(holder, version) => self.sent(holder, version),
            Event::Arrived(of, chunk) => self.arrived(of, chunk),
            Event::Wake(of) => {
                let Some(stream) = self.alive(of) else { return };
                stream.wakes = false;
                self.fill(of.place);
            }
            Event::Leave(peer) => self.leave(peer),
        }
    }

    fn alive(&mut self, of: StreamRef) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(of.place)?;
        (stream.life == of.life).then_some(stream)
    }

    fn reference(&self, place: usize) -> StreamRef {
        let life = self.streams[place].life;
        StreamRef { place, life }
    }

    fn half_trip(&self) -> f64 {
        self.scenario.round_trip.as_secs_f64() / 2.0
    }

    /// How long it takes on average until those who ask hear of a chunk.
    fn have_lag(&self) -> f64 {
        self.half_trip() + HAVE_INTERVAL.as_secs_f64() / 2.0
    }

    /// Consults a picker, and passes on its news.
    fn pick<R>(&mut self, peer: usize, consult: impl FnOnce(&mut Picker, Duration) -> R) -> R
    where
        R: Default,
    {
        let now = Duration::from_secs_f64(self.now);
        let Some(picker) = &mut self.peers[peer].picker else {
            return R::default();
        };
        let outcome = consult(picker, now);
        if picker.take_news() {
            for place in self.peers[peer].sources.clone() {
                self.take_back(place);
                let of = self.reference(place);
                let stream = &mut self.streams[place];
                if stream.hungry && !stream.wakes {
                    stream.wakes = true;
                    self.plan(self.now, Event::Wake(of));
                }
            }
        }
        outcome
    }

    fn take_back(&mut self, place: usize) {
        let (asker, source) = (self.streams[place].asker, self.streams[place].source);
        let Some(picker) = &mut self.peers[asker].picker else {
            return;
        };
        for index in picker.take_unwanted(source) {
            let (of, stream) = (self.reference(place), &self.streams[place]);
            let has_begun = stream.sending && stream.queue.front() == Some(&index);
            match has_begun {
                true => {
                    let patience = OUTRUN_PATIENCE.as_secs_f64();
                    self.plan(self.now + patience, Event::Outrun(of, index));
                }
                false => self.plan(self.now + self.half_trip(), Event::Cancelled(of, index)),
            }
        }
    }

    /// Looks how a download is, as it does once a second.
    fn look(&mut self, index: usize) {
        let now = self.now;
        let peer = &mut self.peers[index];
        let (Some(picker), false, None) = (&peer.picker, peer.gone, peer.done_at) else {
            return;
        };
        let looks = &mut peer.looks;
        looks.idle_since = match picker.is_idle() {
            true => looks.idle_since.or(Some(now)),
            false => None,
        };
        let idle_for = now - looks.idle_since.unwrap_or(now);
        let is_wanting = idle_for >= STALL_PATIENCE.as_secs_f64()
            && now - looks.last >= HOLDERS_REFRESH.as_secs_f64();
        match is_wanting || now >= looks.next {
            true => self.ask_tracker(index),
            false => self.start(index),
        }
        let next = self.peers[index].looks.next;
        let tick = now + STALL_LOOK.as_secs_f64();
        self.plan(tick.min(next), Event::Look(index));
    }

    fn ask_tracker(&mut self, index: usize) {
        let now = self.now;
        let Told { holders, counts } = self.tracker.tell(&mut self.rng, index, now);
        let peer = &mut self.peers[index];
        peer.known = holders;
        if let Some(picker) = &mut peer.picker {
            picker.note_availability(&counts);
        }
        let first = *peer.looks.first.get_or_insert(now);
        let pause = pause_between_looks(Duration::from_secs_f64(now - first));
        (peer.looks.last, peer.looks.next) = (now, now + pause.as_secs_f64());
        self.start(index);
    }

    /// Takes on sources as `Sources::fill` does.
    fn start(&mut self, index: usize) {
        let (now, in_use) = (self.now, self.in_use(index));
        let peer = &self.peers[index];
        let may_exchange = now - peer.exchanged >= EXCHANGE_INTERVAL.as_secs_f64()
            && peer.sources.len() < SOURCES_HELD_MAX;
        if in_use == SOURCES_MAX && !may_exchange {
            return;
        }
        let others = self.others(index);
        let mut places = SOURCES_MAX;
        let is_of_use = others.first().is_some_and(|(_, is_of_use)| *is_of_use);
        if in_use > places || (in_use == places && is_of_use) {
            self.peers[index].exchanged = now;
            places += self.replace(index);
        }
        self.take_on(index, others, places.saturating_sub(in_use));
    }

    /// Those who may be asked, and whether they have something to give.
    fn others(&self, index: usize) -> Vec<(usize, bool)> {
        let peer = &self.peers[index];
        let Some(picker) = &peer.picker else {
            return Vec::new();
        };
        let may_be_asked = |known: &&Known| {
            let begins = known.had.as_ref().is_some_and(Bitfield::is_empty);
            if begins && !peer.joined {
                return false;
            }
            let rest = peer.resting.get(&known.peer);
            let of = |&place: &usize| self.streams[place].holder == known.peer;
            rest.is_none_or(|rest| self.now >= rest.until) && !peer.sources.iter().any(of)
        };
        let others = peer.known.iter().filter(may_be_asked);
        let mut others: Vec<(usize, bool)> = others
            .map(|known| {
                let had = known.had.as_ref();
                (known.peer, had.is_none_or(|had| picker.needed_of(had) > 0))
            })
            .collect();
        others.sort_by_key(|(_, is_of_use)| !is_of_use);
        others
    }

    fn in_use(&self, index: usize) -> usize {
        let peer = &self.peers[index];
        let is_retired =
            |picker: &Picker, place: usize| picker.is_retired(self.streams[place].source);
        let picker = peer.picker.as_ref();
        let stays = |place: &&usize| picker.is_some_and(|picker| !is_retired(picker, **place));
        peer.sources.iter().filter(stays).count()
    }

    fn take_on(&mut self, index: usize, others: Vec<(usize, bool)>, room: usize) {
        let room = room.min(SOURCES_HELD_MAX.saturating_sub(self.peers[index].sources.len()));
        for (holder, _) in others.into_iter().take(room) {
            self.open(index, holder);
        }
    }

    /// Gives up the source from which the least comes. Whether there is one.
    fn replace(&mut self, index: usize) -> usize {
        let peer = &self.peers[index];
        let tried = peer.sources.iter().map(|&place| &self.streams[place]);
        let tried = tried.filter(|stream| self.now - stream.since >= SOURCE_TRIED.as_secs_f64());
        let tried: Vec<SourceId> = tried.map(|stream| stream.source).collect();
        self.pick(index, |picker, now| {
            usize::from(picker.retire_slowest(&tried, now))
        })
    }

    fn open(&mut self, asker: usize, holder: usize) {
        let source = self.peers[asker].next_source;
        self.peers[asker].next_source += 1;
        let stream = Stream {
            life: self.planned,
            asker,
            holder,
            source,
            open: false,
            grows: false,
            heard: (0, 0),
            queue: VecDeque::new(),
            sending: false,
            hungry: false,
            wakes: false,
            useless_since: None,
            since: self.now,
            gave: false,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.streams[place] = stream;
                place
            }
            None => {
                self.streams.push(stream);
                self.streams.len() - 1
            }
        };
        self.peers[asker].sources.push(place);
        let of = self.reference(place);
        // A handshake, and the opening of the stream.
        self.plan(self.now + 4.0 * self.half_trip(), Event::Opened(of));
    }

    fn opened(&mut self, of: StreamRef) {
        let Some(stream) = self.alive(of) else { return };
        let (asker, holder) = (stream.asker, stream.holder);
        let peer = &self.peers[holder];
        if peer.gone || peer.askers.len() >= SEED_STREAMS_MAX {
            return self.end(of.place, None);
        }
        let (complete, heard) = (peer.is_whole(), (peer.got.len(), peer.gave.len()));
        let holds = match &peer.picker {
            Some(picker) => picker.had().clone(),
            None => Bitfield::full(self.scenario.chunks),
        };
        let trip = self.scenario.round_trip;
        let stream = &mut self.streams[of.place];
        stream.open = true;
        stream.grows = !complete;
        // What it gave before is told of at once.
        stream.heard = (heard.0, 0);
        let source = stream.source;
        self.peers[holder].askers.push(of.place);
        self.peers[asker].joined = true;
        self.pick(asker, |picker, _| {
            picker.join(source, holds);
            picker.note_round_trip(source, trip);
        });
        self.fill(of.place);
    }

    /// Tells the asker what the holders of its streams have got, and given to others.
    fn hear(&mut self, asker: usize) {
        let until = (self.now - self.have_lag()) as f32;
        let Some(mut picker) = self.peers[asker].picker.take() else {
            return;
        };
        for &place in &self.peers[asker].sources {
            let stream = &mut self.streams[place];
            if !stream.open {
                continue;
            }
            let holder = &self.peers[stream.holder];
            let (got, gave) = &mut stream.heard;
            let news = |at: f32| at <= until;
            while let Some(&(at, index)) = holder.got.get(*got)
                && news(at)
            {
                *got += 1;
                picker.learn(stream.source, index);
            }
            while let Some(&(at, index, to)) = holder.gave.get(*gave)
                && news(at)
            {
                *gave += 1;
                if to as usize != asker {
                    picker.learn(stream.source, index);
                }
            }
        }
        self.peers[asker].picker = Some(picker);
    }

    /// Asks on a stream for as much as there is to ask for.
    fn fill(&mut self, place: usize) {
        let (asker, source) = (self.streams[place].asker, self.streams[place].source);
        if !self.streams[place].open || self.peers[asker].done_at.is_some() {
            return;
        }
        self.take_back(place);
        let has_room = |picker: &Picker| picker.has_room(source);
        if !self.peers[asker].picker.as_ref().is_some_and(has_room) {
            self.streams[place].hungry = false;
            return;
        }
        self.hear(asker);
        let of = self.reference(place);
        loop {
            let picked = self.pick(asker, |picker, now| picker.pick(source, now));
            let Some(chunk) = picked else { break };
            self.plan(self.now + self.half_trip(), Event::Asked(of, chunk.get()));
        }
        let Some(picker) = &self.peers[asker].picker else {
            return;
        };
        let (idle, needed) = (picker.asks_nothing(source), picker.is_needed(source));
        if idle && picker.is_retired(source) {
            return self.end(place, Some(RETIRED_REST.as_secs_f64()));
        }
        let now = self.now;
        let stream = &mut self.streams[place];
        stream.hungry = picker.has_room(source);
        if !idle {
            stream.useless_since = None;
            return;
        }
        if needed {
            stream.useless_since = None;
        } else {
            let since = *stream.useless_since.get_or_insert(now);
            if !stream.grows || now - since >= SOURCE_IDLE_MAX.as_secs_f64() {
                return self.end(place, None);
            }
        }
        if !stream.wakes {
            stream.wakes = true;
            self.plan(now + IDLE_SOURCE_LOOK.as_secs_f64(), Event::Wake(of));
        }
    }

    fn note_given(&mut self, place: usize, index: u32) {
        let (asker, holder) = (self.streams[place].asker, self.streams[place].holder);
        let peer = &mut self.peers[holder];
        if peer.given.set(index) {
            peer.gave.push((self.now as f32, index, asker as u32));
        }
    }

    /// Sends the next chunk that a stream was asked for, if it sends none.
    fn send_next(&mut self, place: usize) {
        let stream = &mut self.streams[place];
        if stream.sending || stream.queue.is_empty() {
            return;
        }
        stream.sending = true;
        let holder = stream.holder;
        self.peers[holder]
            .uplink
            .send(self.now, place, f64::from(CHUNK_SIZE));
    }

    fn foretell(&mut self, holder: usize) {
        let uplink = &self.peers[holder].uplink;
        if let Some(at) = uplink.next() {
            let version = uplink.version;
            self.plan(at, Event::Sent(holder, version));
        }
    }

    fn sent(&mut self, holder: usize, version: u64) {
        if self.peers[holder].uplink.version != version {
            return;
        }
        if let Some(place) = self.peers[holder].uplink.finish(self.now) {
            let of = self.reference(place);
            let stream = &mut self.streams[place];
            stream.sending = false;
            let chunk = stream
                .queue
                .pop_front()
                .and_then(|index| self.layout.chunk(index));
            let asker = stream.asker;
            if let Some(chunk) = chunk {
                let half_trip = self.half_trip();
                let peer = &mut self.peers[asker];
                let begins = peer.down_until.max(self.now + half_trip);
                peer.down_until = begins + f64::from(CHUNK_SIZE) / peer.down;
                let at = peer.down_until;
                self.plan(at, Event::Arrived(of, chunk));
            }
            self.send_next(place);
        }
        self.foretell(holder);
    }

    fn arrived(&mut self, of: StreamRef, chunk: ChunkIndex) {
        let Some(stream) = self.alive(of) else { return };
        let (asker, holder, source) = (stream.asker, stream.holder, stream.source);
        if self.peers[holder].lies {
            return self.end(of.place, Some(f64::INFINITY));
        }
        self.streams[of.place].gave = true;
        let needed = self.pick(asker, |picker, now| {
            picker.deliver(source, chunk, now) && picker.have(chunk)
        });
        if !needed {
            self.peers[asker].duplicates += 1;
        }
        if needed {
            self.has_got(asker, chunk);
        }
        self.fill(of.place);
    }

    fn has_got(&mut self, asker: usize, chunk: ChunkIndex) {
        let now = self.now;
        let peer = &mut self.peers[asker];
        peer.got.push((now as f32, chunk.get()));
        if peer.picker.as_ref().is_some_and(Picker::is_complete) {
            peer.done_at = Some(now);
            for place in peer.sources.clone() {
                self.end(place, None);
            }
            self.announce(asker);
        } else if peer.got.len().is_power_of_two() {
            self.announce(asker);
        }
        let lag = self.have_lag();
        for place in self.peers[asker].askers.clone() {
            let of = self.reference(place);
            let stream = &mut self.streams[place];
            if stream.hungry && !stream.wakes {
                stream.wakes = true;
                self.plan(now + lag, Event::Wake(of));
            }
        }
    }

    fn announce(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if peer.gone {
            return;
        }
        let again = self.now + LEASE_RENEWAL.as_secs_f64();
        peer.announces = again;
        let whole = peer.is_whole();
        let had = peer.picker.as_ref().map(Picker::had).filter(|_| !whole);
        self.tracker
            .hear(index, had, self.now + LEASE_LIFE.as_secs_f64());
        self.plan(again, Event::Announce(index));
    }

    /// Ends a stream; the holder rests for so long, or the longer the more often.
    fn end(&mut self, place: usize, pause: Option<f64>) {
        let Stream {
            asker,
            holder,
            source,
            gave,
            ..
        } = self.streams[place];
        self.streams[place].life = u64::MAX;
        self.peers[asker].sources.retain(|&other| other != place);
        self.peers[holder].askers.retain(|&other| other != place);
        self.peers[holder].uplink.abort(self.now, place);
        self.foretell(holder);
        self.free.push(place);
        let now = self.now;
        let rest = self.peers[asker].resting.entry(holder).or_default();
        if gave {
            rest.times = 0;
        }
        rest.until = now + pause.unwrap_or_else(|| f64::from(1 << rest.times.min(5)));
        rest.times += 1;
        self.pick(asker, |picker, _| picker.leave(source));
    }

    fn leave(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.gone = true;
        let streams: Vec<usize> = peer.sources.iter().chain(&peer.askers).copied().collect();
        for place in streams {
            self.end(place, None);
        }
        self.peers[index].picker = None;
    }
}

impl Peer {
    fn is_whole(&self) -> bool {
        self.picker.as_ref().is_none_or(Picker::is_complete)
    }
}
