//! The looks at swarms. Those who ask for a swarm while it is being looked at have that look in common, so that there is
//! never more than one at once; what it took long to find is kept for a moment.

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::OnceCell, time::Instant};

use super::{Crowd, Swarm};
use crate::limits::{CROWD_KEPT, CROWDS_KEPT_BYTES_MAX};

/// Those that go on, and those of a moment ago.
#[derive(Default)]
pub(super) struct Looks(HashMap<Looked, Look>);

/// What is looked at: a swarm, by the number of chunks that it is taken to have.
pub(super) type Looked = (Swarm, u32);

/// What is found, by the first who does it: whoever goes meanwhile leaves it to the next who waits.
pub(super) type Found = Arc<OnceCell<Arc<Crowd>>>;

#[derive(Default)]
struct Look {
    found: Found,
    /// Once it is done.
    until: Option<Instant>,
}

impl Looks {
    /// The look that there is, or a new one.
    pub(super) fn at(&mut self, of: &Looked) -> Found {
        let until = self.0.get(of).and_then(|look| look.until);
        if until.is_some_and(|until| until <= Instant::now()) {
            self.0.remove(of);
        }
        self.0.entry(of.clone()).or_default().found.clone()
    }

    /// A look is done. What is to be kept of it is, as long as that is not too much.
    pub(super) fn end(&mut self, of: &Looked, keep: Option<&Arc<Crowd>>) {
        // Those that all have left who wanted them are given up.
        self.0.retain(|_, look| match look.until {
            Some(until) => until > Instant::now(),
            None => Arc::strong_count(&look.found) > 1,
        });
        let kept = self.0.values().filter_map(|look| look.found.get());
        let bytes: usize = kept.map(|crowd| crowd.bytes()).sum();
        let fits = |crowd: &&Arc<Crowd>| bytes + crowd.bytes() <= CROWDS_KEPT_BYTES_MAX;
        match (keep.filter(fits), self.0.get_mut(of)) {
            (Some(_), Some(look)) => look.until = Some(Instant::now() + CROWD_KEPT),
            _ => drop(self.0.remove(of)),
        }
    }
}
