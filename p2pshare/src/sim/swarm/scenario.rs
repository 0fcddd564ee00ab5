//! What is to be simulated: how many peers, how fast, which of them leave or lie, and how chunks are picked.

use std::time::Duration;

use super::Picking;
use crate::content::CHUNK_SIZE;
use crate::peer::sim::Order;

/// A swarm to live through.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) peers: usize,
    pub(super) chunks: u32,
    pub(super) seed: u64,
    /// Bytes a second that the seeder sends.
    pub(super) seeder_up: f64,
    /// The speeds of peers, in turn.
    pub(super) speeds: Vec<Speeds>,
    pub(super) picking: Picking,
    /// Of so many peers one leaves, and one sends garbage.
    pub(super) one_leaves_of: Option<usize>,
    pub(super) one_lies_of: Option<usize>,
    pub(super) round_trip: Duration,
    /// How many times as long as it has to it may take.
    pub(super) given_up: f64,
}

/// Bytes a second.
#[derive(Copy, Clone, Debug)]
pub(super) struct Speeds {
    pub(super) up: f64,
    pub(super) down: f64,
}

/// What is peculiar about a peer.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Peculiar {
    Nothing,
    Leaves,
    Lies,
}

impl Scenario {
    pub(super) fn speeds(&self, peer: usize) -> Speeds {
        match peer {
            0 => Speeds {
                up: self.seeder_up,
                down: self.seeder_up,
            },
            _ => self.speeds[peer % self.speeds.len()],
        }
    }

    pub(super) fn peculiar(&self, peer: usize) -> Peculiar {
        // Whoever they are, they are of all speeds.
        let turn = |of: Option<usize>, turn: usize| {
            of.is_some_and(|of| peer > 0 && (peer / self.speeds.len()) % of == turn)
        };
        if turn(self.one_lies_of, 0) {
            Peculiar::Lies
        } else if turn(self.one_leaves_of, 1) {
            Peculiar::Leaves
        } else {
            Peculiar::Nothing
        }
    }

    pub(super) fn order(&self) -> Order {
        match self.picking {
            Picking::RarestFirst => Order::RarestFirst,
            Picking::Random => Order::Random,
            Picking::InOrder => Order::OfTheFile,
        }
    }

    /// Before which not everybody can have the file, if nobody leaves or lies: the seeder has to send it, the
    /// slowest has to receive it, and all have to receive it from all.
    pub(super) fn bound(&self) -> f64 {
        let size = f64::from(self.chunks) * f64::from(CHUNK_SIZE);
        let all = (1..=self.peers).map(|peer| self.speeds(peer));
        let (mut up, mut slowest) = (self.seeder_up, f64::INFINITY);
        for speeds in all {
            up += speeds.up;
            slowest = slowest.min(speeds.down);
        }
        let shared = self.peers as f64 * size / up;
        shared.max(size / self.seeder_up).max(size / slowest)
    }
}
