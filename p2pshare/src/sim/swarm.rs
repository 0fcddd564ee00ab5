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
    /// When half of those had it who came to have it.
    pub half: Duration,
    /// Before which it cannot be.
    pub bound: Duration,
    /// How many copies the seeder sent.
    pub seeder_copies: f64,
    /// The share of chunks that came again to one who had them.
    pub twice: f64,
    /// How many came to have it.
    pub complete: usize,
    /// A hash of who had it when: of two runs that went the same way it is the same.
    pub trace: u64,
}

impl Swarm {
    /// So many peers who want a file of so many chunks from one seeder; all of them send 10 Mbit/s and receive
    /// eight times as much.
    #[must_use]
    pub fn new(peers: usize, chunks: u32, seed: u64) -> Self {
        Self(Scenario {
            peers,
            chunks,
            seed,
            seeder_up: RATE,
            speeds: vec![Speeds {
                up: RATE,
                down: DOWN * RATE,
            }],
            picking: Picking::RarestFirst,
            one_leaves_of: None,
            one_lies_of: None,
            round_trip: Duration::from_millis(40),
            given_up: GIVEN_UP,
        })
    }

    /// Peers of four speeds, from half of that to four times as much, and a seeder of twice as much.
    #[must_use]
    pub fn unequal(mut self) -> Self {
        let speeds = [0.5, 1.0, 2.0, 4.0].map(|times| Speeds {
            up: times * RATE,
            down: DOWN * times * RATE,
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

    /// Given up once it takes so many times as long as it has to.
    #[must_use]
    pub fn given_up_after(mut self, bounds: f64) -> Self {
        self.0.given_up = bounds;
        self
    }

    /// Lives through it.
    #[must_use]
    pub fn live(&self) -> Outcome {
        let bound = self.0.bound();
        let mut world = World::new(self.0.clone());
        let ended = world.live(bound * self.0.given_up);
        let done_at = world
            .peers
            .iter()
            .map(|peer| peer.done_at.unwrap_or_default());
        let trace = done_at.fold(0, |trace: u64, at| {
            (trace ^ at.to_bits()).wrapping_mul(0x0100_0000_01b3)
        });
        let mut done: Vec<f64> = world.peers.iter().filter_map(|peer| peer.done_at).collect();
        done.sort_by(f64::total_cmp);
        let time = |of: Option<&f64>| Duration::from_secs_f64(of.copied().unwrap_or_default());
        let chunks = f64::from(self.0.chunks);
        let twice: u32 = world.peers.iter().map(|peer| peer.duplicates).sum();
        let size = world.layout.length() as f64;
        Outcome {
            last: ended.then(|| time(done.last())),
            half: time(done.get(done.len() / 2)),
            bound: Duration::from_secs_f64(bound),
            seeder_copies: world.peers[0].uplink.total / size,
            twice: f64::from(twice) / (chunks * done.len().max(1) as f64),
            complete: done.len(),
            trace,
        }
    }
}

/// Bytes a second that a peer sends: ten megabits.
const RATE: f64 = 1.25e6;
/// How many times as much it receives.
const DOWN: f64 = 8.0;
/// How many times as long as it has to a swarm may take, if nothing else is said.
const GIVEN_UP: f64 = 20.0;
