//! Answers that those who asked do not read. They cost the tracker memory, so that all of them together are
//! bounded: whoever has not taken his answer for longest loses his connection when there are too many.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::timeout;

use crate::{
    limits::{DELIVERY_TIMEOUT, UNDELIVERED_BYTES_MAX},
    transport::{CloseCode, Connection, Responder, SendError},
    wire::{frame, tracker::Response},
};

/// The answers of all connections that are not on their way yet.
#[derive(Default)]
pub(super) struct Backlog(Mutex<Undelivered<Connection>>);

impl Backlog {
    /// Sends an answer; who does not take it within [`DELIVERY_TIMEOUT`] loses the connection.
    ///
    /// # Errors
    /// If the answer was not delivered.
    pub(super) async fn deliver(
        &self,
        connection: &Connection,
        responder: Responder,
        response: Response,
    ) -> Result<(), SendError> {
        let frame = frame::encode(&response)?;
        drop(response);
        let (number, slow) = self.undelivered().add(frame.len(), connection.clone());
        for slow in slow {
            slow.close(CloseCode::TooSlow);
        }
        let _entry = Entry(self, number);
        match timeout(DELIVERY_TIMEOUT, responder.answer_frame(frame)).await {
            Ok(sent) => sent,
            Err(_) => {
                connection.close(CloseCode::TooSlow);
                Ok(())
            }
        }
    }

    fn undelivered(&self) -> MutexGuard<'_, Undelivered<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer on the list, which leaves it when dropped.
struct Entry<'a>(&'a Backlog, u64);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let delivered = self.0.undelivered().remove(self.1);
        // Not under the lock: the last of a connection closes it.
        drop(delivered);
    }
}

/// Whose answers of how many bytes wait, in the order in which they were made.
struct Undelivered<C> {
    all: BTreeMap<u64, (usize, C)>,
    bytes: usize,
    next: u64,
}

impl<C> Default for Undelivered<C> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            bytes: 0,
            next: 0,
        }
    }
}

impl<C> Undelivered<C> {
    /// Adds an answer, and gives the connections that are to be closed for it.
    fn add(&mut self, bytes: usize, connection: C) -> (u64, Vec<C>) {
        let mut slow = Vec::new();
        while self.bytes + bytes > UNDELIVERED_BYTES_MAX {
            let Some((&first, _)) = self.all.first_key_value() else {
                break;
            };
            slow.extend(self.remove(first));
        }
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.all.insert(number, (bytes, connection));
        (number, slow)
    }

    fn remove(&mut self, number: u64) -> Option<C> {
        let (bytes, connection) = self.all.remove(&number)?;
        self.bytes -= bytes;
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longest_makes_room() {
        let mut undelivered = Undelivered::default();
        let third = UNDELIVERED_BYTES_MAX / 3;
        let (first, slow) = undelivered.add(third, "first");
        assert!(slow.is_empty());
        undelivered.add(third, "second");
        undelivered.add(third, "third");
        assert_eq!(undelivered.add(third / 2, "fourth").1, ["first"]);
        assert_eq!(undelivered.add(third / 2, "fifth").1, [""; 0]);
        assert_eq!(undelivered.remove(first), None);
        let (last, slow) = undelivered.add(2 * third, "sixth");
        assert_eq!(slow, ["second", "third"]);
        assert_eq!(undelivered.remove(last), Some("sixth"));
        assert_eq!(undelivered.bytes, 2 * (third / 2));
    }
}
