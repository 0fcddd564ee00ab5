//! Where a member has its replica, and what of it anybody may know at any time.
//!
//! **Invariant.** A job of the store may hold the replica for as long as it reads or writes; what is looked at from
//! async tasks is a copy, which is held for no longer than it takes to copy it.

use std::sync::{Mutex, PoisonError, RwLock};

use super::replica::Replica;
use crate::wire::ring::Epoch;

/// The replica of a member; there is none before it is in a ring, and none once memory and disk may differ.
#[derive(Debug, Default)]
pub(super) struct Seat {
    replica: RwLock<Option<Replica>>,
    seen: Mutex<Option<Seen>>,
}

/// What is known of the replica, as of the last change of it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Seen {
    /// The highest epoch that it has seen.
    pub(super) epoch: Epoch,
    /// Whether it takes part in decisions.
    pub(super) votes: bool,
    /// How many rows it has.
    pub(super) rows: u64,
}

impl Seat {
    /// What is known of the replica. Waits for nobody.
    pub(super) fn seen(&self) -> Option<Seen> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the replica, while others may look too. Only inside a job of the store.
    pub(super) fn look<R>(&self, look: impl FnOnce(Option<&Replica>) -> R) -> R {
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner);
        look(replica.as_ref())
    }

    /// Changes the replica. Only inside a job of the store.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Option<Replica>) -> R) -> R {
        let mut replica = self.replica.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut replica);
        let seen = replica.as_ref().map(|replica| Seen {
            epoch: replica.epoch(),
            votes: replica.votes(),
            rows: replica.rows(),
        });
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_known_of_a_replica_is_told_while_a_job_holds_it() {
        let seat = Arc::new(Seat::default());
        let (told, answer) = sync_channel(1);
        let other = seat.clone();
        let seen = seat.change(|_| {
            std::thread::spawn(move || told.send(other.seen().is_none()));
            answer.recv_timeout(Duration::from_secs(10))
        });
        assert_eq!(seen, Ok(true));
    }
}
