//! What came of one world, or of many.

use std::collections::BTreeMap;
use std::time::Duration;

/// The sums.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// How much time went by in the world.
    pub(super) simulated: Duration,
    /// What clients were told, by kind.
    pub(super) told: BTreeMap<&'static str, u64>,
    /// What broke, by kind.
    pub(super) broken: BTreeMap<&'static str, u64>,
    /// What must not be.
    pub(super) violations: Vec<String>,
    /// A hash of everything that happened, in its order.
    pub(super) trace: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            simulated: Duration::ZERO,
            told: BTreeMap::new(),
            broken: BTreeMap::new(),
            violations: Vec::new(),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }
}

impl Tally {
    /// Somebody was told this.
    pub(super) fn tell(&mut self, what: &'static str) {
        *self.told.entry(what).or_default() += 1;
    }

    /// This broke.
    pub(super) fn broke(&mut self, what: &'static str) {
        *self.broken.entry(what).or_default() += 1;
    }

    /// Takes this into the hash of what happened (FNV-1a).
    pub(super) fn trace(&mut self, words: &[u64]) {
        for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Takes what is said into it.
    pub(super) fn trace_bytes(&mut self, bytes: &[u8]) {
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        };
        for chunk in bytes.chunks(8) {
            self.trace = (self.trace ^ word(chunk)).wrapping_mul(0x0100_0000_01b3);
            self.trace ^= self.trace >> 29;
        }
    }

    /// Adds another world's.
    pub(super) fn add(&mut self, other: &Self) {
        self.simulated += other.simulated;
        for (what, count) in &other.told {
            *self.told.entry(what).or_default() += count;
        }
        for (what, count) in &other.broken {
            *self.broken.entry(what).or_default() += count;
        }
        self.violations.extend(other.violations.iter().cloned());
        self.trace(&[other.trace]);
    }
}
