//! What happens in a download, told to whoever wants to know. The queue of a reader is bounded: one who does
//! not keep up misses the oldest events and is told how many.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::{identity::PeerId, limits::DOWNLOAD_EVENTS_KEPT};

/// Something that happened in a download.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DownloadEvent {
    /// Chunks an earlier run had left were found to be right.
    Resumed {
        /// How many.
        chunks: u32,
    },
    /// Chunks come from this peer from now on.
    PeerJoined {
        /// The peer.
        peer: PeerId,
    },
    /// No chunks come from this peer any more.
    PeerLeft {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: Arc<str>,
    },
    /// A chunk was verified and written.
    ChunkVerified {
        /// Which one.
        index: u32,
        /// Its bytes.
        bytes: u32,
    },
    /// The reader was too slow.
    Lagged {
        /// How many events it missed.
        missed: u64,
    },
}

/// A bounded stream of [`DownloadEvent`]s.
#[derive(Debug)]
pub struct DownloadEvents(broadcast::Receiver<DownloadEvent>);

impl DownloadEvents {
    /// The next event; `None` once the download has ended and all were read. Cancel-safe.
    pub async fn next(&mut self) -> Option<DownloadEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                Some(DownloadEvent::Lagged { missed })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Where events come from. The download holds it weakly, so that its readers see the end.
#[derive(Clone, Debug)]
pub(super) struct Sender(broadcast::Sender<DownloadEvent>);

impl Sender {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(DOWNLOAD_EVENTS_KEPT))
    }

    pub(super) fn subscribe(&self) -> DownloadEvents {
        DownloadEvents(self.0.subscribe())
    }

    pub(super) fn send(&self, event: DownloadEvent) {
        // With no reader there is nobody to tell.
        let _ = self.0.send(event);
    }
}
