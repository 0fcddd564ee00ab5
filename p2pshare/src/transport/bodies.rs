//! The long requests that have arrived, wholly or in part, and are not done with. All of them together have so
//! many bytes at most, and nobody waits for room: where there is none, that one is given up which began first,
//! of the address prefix that has most of them. So whoever fills the room takes it from himself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::crowd::Prefix;
use crate::limits::{REQUEST_BODIES_BYTES_MAX, STRANGER_REQUEST_BYTES_MAX};

/// The room for them. A cheap clone of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies(Arc<Mutex<Begun>>);

/// The room of one, given back when dropped.
pub(super) struct Body {
    bodies: Bodies,
    number: Option<u64>,
    given_up: CancellationToken,
}

impl Bodies {
    /// Room for a request of so many bytes. What anybody may send costs none.
    pub(super) fn begin(&self, prefix: Prefix, bytes: usize) -> Body {
        let given_up = CancellationToken::new();
        let long = bytes > STRANGER_REQUEST_BYTES_MAX;
        let number = long.then(|| self.begun().add(prefix, bytes, given_up.clone()));
        let bodies = self.clone();
        Body {
            bodies,
            number,
            given_up,
        }
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body {
    /// Waits until the request has to be given up. Cancel-safe.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.bodies.begun().remove(number);
        }
    }
}

/// All that have room, in the order in which they began.
#[derive(Debug, Default)]
struct Begun {
    all: BTreeMap<u64, (Prefix, usize, CancellationToken)>,
    prefixes: HashMap<Prefix, usize>,
    bytes: usize,
    next: u64,
}

impl Begun {
    fn add(&mut self, prefix: Prefix, bytes: usize, given_up: CancellationToken) -> u64 {
        while self.bytes + bytes > REQUEST_BODIES_BYTES_MAX && self.give_one_up() {}
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        *self.prefixes.entry(prefix).or_default() += bytes;
        self.all.insert(number, (prefix, bytes, given_up));
        number
    }

    fn give_one_up(&mut self) -> bool {
        let most = self.prefixes.iter().max_by_key(|(_, bytes)| **bytes);
        let Some((&most, _)) = most else { return false };
        let first = self.all.iter().find(|(_, (prefix, ..))| *prefix == most);
        let Some((&first, (.., given_up))) = first else {
            return false;
        };
        given_up.cancel();
        self.remove(first);
        true
    }

    fn remove(&mut self, number: u64) {
        let Some((prefix, bytes, _)) = self.all.remove(&number) else {
            return;
        };
        self.bytes -= bytes;
        if let Some(of_prefix) = self.prefixes.get_mut(&prefix) {
            *of_prefix -= bytes;
            if *of_prefix == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_makes_room_and_others_keep_theirs() {
        let bodies = Bodies::default();
        let quarter = REQUEST_BODIES_BYTES_MAX / 4;
        let begin = |host, bytes| bodies.begin(Prefix::of([10, 0, 0, host].into()), bytes);
        let honest = begin(1, quarter);
        let mut flood: Vec<Body> = (0..3).map(|_| begin(2, quarter)).collect();
        let given_up = |flood: &[Body]| -> Vec<bool> {
            flood.iter().map(|f| f.given_up.is_cancelled()).collect()
        };
        assert_eq!(given_up(&flood), [false; 3]);
        // What anybody may send needs no room.
        let small = begin(3, STRANGER_REQUEST_BYTES_MAX);
        assert_eq!(given_up(&flood), [false; 3]);
        flood.push(begin(2, quarter));
        assert_eq!(given_up(&flood), [true, false, false, false]);
        let other = begin(3, quarter);
        assert_eq!(given_up(&flood), [true, true, false, false]);
        assert_eq!(given_up(&[honest, small, other]), [false; 3]);
        flood.push(begin(2, quarter));
        flood.push(begin(2, quarter));
        assert_eq!(given_up(&flood[2..]), [false; 4]);
        drop(flood);
        let begun = bodies.begun();
        assert!(begun.bytes == 0 && begun.all.is_empty() && begun.prefixes.is_empty());
    }
}
