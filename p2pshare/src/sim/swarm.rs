//! A swarm in a world of its own: seeded, in virtual time, one seeder and a crowd that wants its file, each of
//! them with the picker of the product.
//!
//! It shows how much longer than it has to it takes until the last one has the file.

mod scenario;
#[cfg(test)]
mod tests;
mod tracker;
mod uplink;
mod world;

use std::time::Duration;

use scenario::{Scenario, Speeds};
use world::World;

/// How peers pick what they ask for.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Picking {
    /// As the product does.
    RarestFirst,
    /// Anything.
    Random,
    /// From the beginning to the end.
    InOrder,
}

/// A swarm to live through.
#[derive(Clone, Debug)]
pub struct Swarm(Scenario);

/// What came of a swarm.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When the last one had the file; `None` if not all came to have it in a time that is many times the bound.
    pub last: Option<Duration>,
    /// When half of them had it.
    pub median: Duration,
    /// Before which it cannot be.
    pub bound: Duration,
    /// How many copies the seeder sent.
    pub seeder_copies: f64,
    /// The share of chunks that came twice.
    pub duplicates: f64,
    /// How many there were who stayed and had it in the end.
    pub complete: usize,
    /// Things that happened.
    pub events: u64,
}

impl Swarm {
    /// So many peers who want a file of so many chunks from one seeder, all with the same upload and four times
    /// as much download.
    #[must_use]
    pub fn new(peers: usize, chunks: u32, seed: u64) -> Self {
        Self(Scenario {
            peers,
            chunks,
            seed,
            seeder_up: RATE,
            speeds: vec![Speeds { up: RATE, down: 4.0 * RATE }],
            picking: Picking::RarestFirst,
            one_leaves_of: None,
            one_lies_of: None,
            round_trip: Duration::from_millis(40),
            slots: std::env::var("SLOTS").ok().map_or(64, |s| s.parse().unwrap()),
            hints: std::env::var("HINTS").is_ok(),
            spread: std::env::var("SPREAD").is_ok(),
            counts: std::env::var("COUNTS").is_ok(),
        })
    }

    /// Peers of four speeds, from half of that to four times as much.
    #[must_use]
    pub fn unequal(mut self) -> Self {
        let speeds = [0.5, 1.0, 2.0, 4.0].map(|times| Speeds {
            up: times * RATE,
            down: 4.0 * times * RATE,
        });
        self.0.speeds = speeds.into();
        self.0.seeder_up = 2.0 * RATE;
        self
    }

    /// With this picking.
    #[must_use]
    pub fn picking(mut self, picking: Picking) -> Self {
        self.0.picking = picking;
        self
    }

    /// A tenth of the peers leave at any time.
    #[must_use]
    pub fn leaving(mut self) -> Self {
        self.0.one_leaves_of = Some(10);
        self
    }

    /// A tenth of the peers say that they have everything, and send garbage.
    #[must_use]
    pub fn lying(mut self) -> Self {
        self.0.one_lies_of = Some(10);
        self
    }

    /// Lives through it.
    #[must_use]
    pub fn live(&self) -> Outcome {
        let bound = self.0.bound();
        let mut world = World::new(self.0.clone());
        let ended = world.live(bound * GIVEN_UP);
        let mut done: Vec<f64> = world.peers.iter().filter_map(|peer| peer.done_at).collect();
        done.sort_by(f64::total_cmp);
        let time = |of: Option<&f64>| Duration::from_secs_f64(of.copied().unwrap_or_default());
        let chunks = f64::from(self.0.chunks);
        let twice: u32 = world.peers.iter().map(|peer| peer.duplicates).sum();
        let size = world.layout.length() as f64;
        Outcome {
            last: ended.then(|| time(done.last())),
            median: time(done.get(done.len() / 2)),
            bound: Duration::from_secs_f64(bound),
            seeder_copies: world.peers[0].uplink.total / size,
            duplicates: f64::from(twice) / (chunks * done.len().max(1) as f64),
            complete: done.len(),
            events: world.handled,
        }
    }
}

/// Bytes a second that a peer sends: ten megabits.
const RATE: f64 = 1.25e6;
/// How many times as long as it has to a swarm may take.
const GIVEN_UP: f64 = 20.0;
