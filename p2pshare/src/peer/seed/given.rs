//! What those who are served from one file asked for, told to the others among them: so a crowd that begins with
//! one holder takes from it each chunk once, and gets the rest from one another.
//!
//! Each is told of a chunk at most once, and of none that it asked for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    content::{Bitfield, FileId},
    identity::GroupName,
    limits::HAVE_INTERVAL,
    wire::peer::ChunkHeader,
};

/// The files of which anything is given now.
#[derive(Default)]
pub(super) struct GivenFiles(Mutex<HashMap<(GroupName, FileId), Weak<Given>>>);

/// What is given of one file.
struct Given {
    chunks: Mutex<Bitfield>,
    /// Told when there is more.
    grown: watch::Sender<()>,
}

/// One of those who ask for it.
pub(super) struct Asker {
    given: Arc<Given>,
    own: Mutex<Bitfield>,
}

impl GivenFiles {
    /// One more who asks for chunks of a file, which has so many.
    pub(super) fn enter(&self, group: &GroupName, id: FileId, chunks: u32) -> Asker {
        let mut files = lock(&self.0);
        let key = (group.clone(), id);
        let given = match files.get(&key).and_then(Weak::upgrade) {
            Some(given) => given,
            None => {
                files.retain(|_, given| given.strong_count() > 0);
                let given = Arc::new(Given {
                    chunks: Mutex::new(Bitfield::new(chunks)),
                    grown: watch::Sender::new(()),
                });
                files.insert(key, Arc::downgrade(&given));
                given
            }
        };
        drop(files);
        let own = Mutex::new(Bitfield::new(chunks));
        Asker { given, own }
    }
}

impl Asker {
    /// It asks for a chunk.
    pub(super) fn note(&self, index: u32) {
        lock(&self.own).set(index);
        if lock(&self.given.chunks).set(index) {
            self.given.grown.send_replace(());
        }
    }

    /// What it is to be told.
    pub(super) fn news(&self) -> News<'_> {
        let mut grown = self.given.grown.subscribe();
        grown.mark_changed();
        News {
            asker: self,
            told: Bitfield::new(lock(&self.own).len()),
            grown,
            next: Instant::now(),
        }
    }
}

/// What others ask for, as one of them is told.
pub(super) struct News<'a> {
    asker: &'a Asker,
    told: Bitfield,
    grown: watch::Receiver<()>,
    next: Instant,
}

impl News<'_> {
    /// The headers that tell of more, once there is any. Cancel-safe.
    pub(super) async fn more(&mut self) -> Bytes {
        loop {
            sleep_until(self.next).await;
            if self.grown.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.next = Instant::now() + HAVE_INTERVAL;
            let more: Vec<u32> = {
                let given = lock(&self.asker.given.chunks);
                given.iter_lacked_by(&self.told).take(AT_ONCE).collect()
            };
            if more.len() == AT_ONCE {
                self.grown.mark_changed();
            }
            let own = lock(&self.asker.own);
            let mut headers = Vec::new();
            for index in more {
                self.told.set(index);
                if !own.get(index) {
                    headers.extend(ChunkHeader::Have { index }.encode());
                }
            }
            if !headers.is_empty() {
                return headers.into();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chunks that are told of in one piece.
const AT_ONCE: usize = 4096;
