//! What this peer is downloading, for those to whom it gives of it meanwhile: the chunks that were verified and
//! written, and no others. Whoever is served from a download goes on being served when its file has been put
//! in place, as long as that is what this peer shares there.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    file::{BufferPool, Source},
    library::{Library, Share},
};
use crate::{
    content::{Bitfield, ChunkIndex, FileId, Layout},
    identity::{FileName, GroupName},
};

/// The downloads of a peer that are served from. A cheap clone.
#[derive(Clone, Debug)]
pub(super) struct Ongoing {
    library: Library,
    parts: Arc<Mutex<Vec<Arc<Part>>>>,
}

/// A file of a group that is here in part.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) group: GroupName,
    pub(super) name: FileName,
    pub(super) id: FileId,
    pub(super) layout: Layout,
    source: Source,
    had: Mutex<Bitfield>,
    /// Told when there is more, or will be no more.
    grown: watch::Sender<()>,
    end: OnceLock<Option<Arc<Share>>>,
}

/// A download that is served from, until this is dropped.
#[derive(Debug)]
pub(super) struct Serving {
    ongoing: Ongoing,
    part: Arc<Part>,
}

impl Ongoing {
    pub(super) fn new(library: Library) -> Self {
        Self {
            library,
            parts: Arc::default(),
        }
    }

    /// Serves from now on what is in `had` of a file that is being written, and reads it from `source`.
    pub(super) fn serve(
        &self,
        (group, name, id): (GroupName, FileName, FileId),
        layout: Layout,
        had: Bitfield,
        source: Source,
    ) -> Serving {
        let begun = !had.is_empty();
        let part = Arc::new(Part {
            group,
            name,
            id,
            layout,
            source,
            had: Mutex::new(had),
            grown: watch::Sender::new(()),
            end: OnceLock::new(),
        });
        self.parts().push(part.clone());
        if begun {
            self.library.notify();
        }
        let ongoing = self.clone();
        Serving { ongoing, part }
    }

    /// The download in `group` of that content that has got farthest.
    pub(super) fn find(&self, group: &GroupName, id: FileId) -> Option<Arc<Part>> {
        let parts = self.parts();
        let found = parts
            .iter()
            .filter(|part| part.group == *group && part.id == id);
        found.max_by_key(|part| part.lock().count()).cloned()
    }

    /// All of them of which anything is here.
    pub(super) fn begun(&self) -> Vec<Arc<Part>> {
        let parts = self.parts();
        let begun = parts.iter().filter(|part| !part.lock().is_empty());
        begun.cloned().collect()
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Which chunks are here.
    pub(super) fn had(&self) -> Bitfield {
        self.lock().clone()
    }

    /// Told when there is more, or will be no more.
    pub(super) fn grown(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// The chunks that are here and not in `told`, at most `limit` of them; they are put into it.
    pub(super) fn tell(&self, told: &mut Bitfield, limit: usize) -> Vec<u32> {
        let more: Vec<u32> = self.lock().iter_lacked_by(told).take(limit).collect();
        for &index in &more {
            told.set(index);
        }
        more
    }

    /// Whether nothing more will be here.
    pub(super) fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    /// Whether a chunk is here and may be given.
    pub(super) fn gives(&self, chunk: ChunkIndex) -> bool {
        let ended = match self.end.get() {
            None => false,
            Some(share) => share.as_ref().is_none_or(|share| share.is_changed()),
        };
        !ended && self.lock().get(chunk.get())
    }

    /// Reads a chunk; `None` if the file is not what it was any more. Blocks.
    pub(super) fn read_chunk(
        &self,
        chunk: ChunkIndex,
        pool: &BufferPool,
    ) -> io::Result<Option<Bytes>> {
        let bytes = self.source.read_chunk(self.layout, chunk, pool)?;
        Ok(match self.end.get() {
            // It is being written, but not where it was written already.
            None => Some(bytes),
            Some(Some(share)) if self.source.stamp_now()? == share.stamp => Some(bytes),
            Some(_) => None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Bitfield> {
        self.had.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serving {
    /// A chunk was verified and written.
    pub(super) fn add(&self, chunk: ChunkIndex) {
        let first = {
            let mut had = self.part.lock();
            let first = had.is_empty();
            had.set(chunk.get());
            first
        };
        self.part.grown.send_replace(());
        // Later ones are announced with the renewals: whoever is connected hears of them at once.
        if first {
            self.ongoing.library.notify();
        }
    }

    /// The download is complete, and its file shared as `share`, which is served from now on.
    pub(super) fn complete(self, share: Option<Arc<Share>>) {
        // Nobody else sets it.
        _ = self.part.end.set(share);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        _ = self.part.end.set(None);
        self.ongoing
            .parts()
            .retain(|part| !Arc::ptr_eq(part, &self.part));
        self.part.grown.send_replace(());
        self.ongoing.library.notify();
    }
}
