//! The ring in a world of its own: seeded, in virtual time, where anything breaks that the ring is made to
//! survive, and a judge who looks at everything that clients were told.
//!
//! It runs the machines and the replica service of the product, the same code that the drivers run over QUIC
//! and a disk, so that what holds here holds there, as far as thinking goes. A world follows from its seed: the
//! same seed lives through the same events in the same order.

mod client;
mod clocks;
#[cfg(test)]
mod exhaustive;
mod history;
mod host;
mod judge;
mod leases;
mod linearizable;
mod meeting;
mod monitor;
mod network;
pub mod swarm;
mod tally;
mod temper;
#[cfg(test)]
mod tests;
mod trouble;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dht::sim::{Fault, plant};
use tally::Tally;
use temper::Temper;
use world::World;

/// What came of one world, or of many.
#[derive(Clone, Debug, Default)]
pub struct Report {
    tally: Tally,
}

impl Report {
    /// How much time went by in the worlds.
    #[must_use]
    pub fn simulated(&self) -> Duration {
        self.tally.simulated
    }

    /// What clients were told, by kind.
    #[must_use]
    pub fn told(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally.told
    }

    /// What broke, by kind.
    #[must_use]
    pub fn broken(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally.broken
    }

    /// What must not be, described.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.tally.violations
    }

    /// A hash of everything that happened, in its order.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.tally.trace
    }

    /// Adds the worlds of another report.
    pub fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
    }
}

/// A mistake that can be planted.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub struct Mistake {
    /// What it is called.
    pub name: &'static str,
    /// The temper of the worlds in which it is looked for: the one that makes what it takes frequent.
    pub worlds: &'static str,
    /// Whether it is made in code of the product; else it is made in what stands for the product's driver here.
    pub in_product: bool,
}

/// Lives through the world of a seed; or, with a mistake planted in the ring, through one in which that shows.
///
/// # Errors
///
/// The name, if there is no such mistake.
pub fn run(seed: u64, fault: Option<&str>) -> Result<Report, &str> {
    let fault = match fault {
        None => None,
        Some(name) => {
            let named = Fault::ALL.iter().find(|(_, known)| *known == name);
            Some(named.ok_or(name)?.0)
        }
    };
    let _planted = plant(fault);
    let tally = World::new(seed, fault.and_then(Temper::shows)).live();
    Ok(Report { tally })
}

/// The mistakes that can be planted.
#[must_use]
pub fn mistakes() -> Vec<Mistake> {
    let all = Fault::ALL.iter().map(|(fault, name)| Mistake {
        name,
        worlds: Temper::shows(*fault).map_or("any", Temper::name),
        in_product: *fault != Fault::AckBeforeSync,
    });
    all.collect()
}
