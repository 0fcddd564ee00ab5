//! What the tracker knows of a swarm: what each peer announced last, until its lease ends.

use rand::rngs::SmallRng;
use rand::seq::index;

use crate::content::Bitfield;
use crate::limits::HOLDERS_SAMPLE_MAX;

pub(super) struct Tracker {
    chunks: u32,
    /// By peer.
    leases: Vec<Option<Lease>>,
    /// Those who announced something.
    holders: Vec<usize>,
    counts: Vec<u16>,
    whole: u16,
}

struct Lease {
    /// `None` if it is everything.
    had: Option<Bitfield>,
    until: f64,
}

impl Tracker {
    pub(super) fn new(chunks: u32) -> Self {
        Self {
            chunks,
            leases: Vec::new(),
            holders: Vec::new(),
            counts: vec![0; chunks as usize],
            whole: 0,
        }
    }

    /// A peer announces what it has; `None` is everything.
    pub(super) fn hear(&mut self, peer: usize, had: Option<&Bitfield>, until: f64) {
        if self.leases.len() <= peer {
            self.leases.resize_with(peer + 1, || None);
        }
        let had = had.cloned();
        self.count(had.as_ref(), |count| *count += 1);
        match self.leases[peer].replace(Lease { had, until }) {
            None => self.holders.push(peer),
            Some(before) => self.count(before.had.as_ref(), |count| *count -= 1),
        }
    }

    fn count(&mut self, had: Option<&Bitfield>, change: impl Fn(&mut u16)) {
        match had {
            None => change(&mut self.whole),
            Some(had) => had
                .iter_set()
                .for_each(|i| change(&mut self.counts[i as usize])),
        }
    }

    /// A random sample of those who hold something, `asking` left out.
    pub(super) fn sample(&self, rng: &mut SmallRng, asking: usize, now: f64) -> Vec<usize> {
        let amount = self.holders.len().min(HOLDERS_SAMPLE_MAX + 1);
        let sample = index::sample(rng, self.holders.len(), amount).into_iter();
        let sample = sample.map(|place| self.holders[place]);
        let counts = |peer: &usize| {
            let lease = self.leases[*peer].as_ref();
            *peer != asking && lease.is_some_and(|lease| lease.until > now)
        };
        sample.filter(counts).take(HOLDERS_SAMPLE_MAX).collect()
    }

    /// What a peer announced; `None` is everything.
    pub(super) fn announced(&self, peer: usize) -> Option<&Bitfield> {
        self.leases[peer].as_ref()?.had.as_ref()
    }

    /// How many hold each chunk.
    pub(super) fn counts(&self) -> Vec<u16> {
        debug_assert_eq!(self.counts.len(), self.chunks as usize);
        self.counts.iter().map(|count| count + self.whole).collect()
    }
}
