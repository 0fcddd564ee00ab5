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
    limits::ANNOUNCED_BITFIELD_BYTES_MAX,
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
        if part.is_announced() {
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

    /// All of them, those of which most is here last.
    pub(super) fn all(&self) -> Vec<Arc<Part>> {
        let mut all = self.parts().clone();
        all.sort_by_cached_key(|part| part.lock().count());
        all
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

    /// Whether others are told of it: if there is something, and before that if there will be something to trade, and it can
    /// be said that nothing is here yet.
    pub(super) fn is_announced(&self) -> bool {
        let had = self.lock();
        !had.is_empty() || (2..=8 * ANNOUNCED_BITFIELD_BYTES_MAX).contains(&(had.len() as usize))
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
        let count = {
            let mut had = self.part.lock();
            had.set(chunk.get());
            had.count()
        };
        self.part.grown.send_replace(());
        // Whoever is connected hears of each at once. For the others it is announced anew whenever it has become twice as
        // much, beside the renewals: what is known of the young would be worth nothing.
        if count.is_power_of_two() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryDisk, Store, StoreKind};

    #[tokio::test]
    async fn of_one_file_that_goes_to_two_places_what_has_got_farther_is_told_and_served() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"x").unwrap();
        let store = Store::open_memory(&MemoryDisk::default(), StoreKind::Peer).await;
        let library = Library::load(store.unwrap()).await.unwrap();
        let ongoing = Ongoing::new(library);
        let group = GroupName::new("g").unwrap();
        let id = FileId::from_bytes([1; 32]);
        let layout = Layout::new(9 * u64::from(crate::content::CHUNK_SIZE)).unwrap();
        let serve = |chunks: u32| {
            let mut had = Bitfield::new(9);
            (0..chunks).for_each(|index| {
                had.set(index);
            });
            let of = (group.clone(), FileName::new("f").unwrap(), id);
            ongoing.serve(of, layout, had, Source::open(&path).unwrap())
        };
        let _all = [5, 2, 0, 7, 3].map(serve);
        let all = ongoing.all().into_iter().map(|part| part.had().count());
        assert_eq!(all.collect::<Vec<_>>(), [0, 2, 3, 5, 7]);
        assert_eq!(ongoing.find(&group, id).unwrap().had().count(), 7);
    }

    #[tokio::test]
    async fn a_download_is_announced_when_it_begins_and_when_it_has_twice_as_much() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"x").unwrap();
        let store = Store::open_memory(&MemoryDisk::default(), StoreKind::Peer).await;
        let library = Library::load(store.unwrap()).await.unwrap();
        let ongoing = Ongoing::new(library.clone());
        let mut changes = library.changes();
        let all_bits = 8 * ANNOUNCED_BITFIELD_BYTES_MAX as u64;
        for (chunks, begins) in [
            (1, false),
            (9, true),
            (all_bits, true),
            (all_bits + 1, false),
        ] {
            let of = (GroupName::new("g").unwrap(), FileName::new("f").unwrap());
            let layout = Layout::new(chunks * u64::from(crate::content::CHUNK_SIZE)).unwrap();
            let had = Bitfield::new(layout.chunk_count());
            let source = Source::open(&path).unwrap();
            let of = (of.0, of.1, FileId::from_bytes([1; 32]));
            let serving = ongoing.serve(of, layout, had, source);
            assert_eq!(was_told(&mut changes), begins, "{chunks}");
            assert_eq!(serving.part.is_announced(), begins, "{chunks}");
            let told = (0..9_u32.min(layout.chunk_count())).filter(|&index| {
                serving.add(layout.chunk(index).unwrap());
                assert!(serving.part.is_announced());
                was_told(&mut changes)
            });
            let told: Vec<u32> = told.collect();
            let expected: &[u32] = if chunks == 1 { &[0] } else { &[0, 1, 3, 7] };
            assert_eq!(told, expected, "{chunks}");
            // Its end is told of too, and not looked at here.
            drop(serving);
            changes.mark_unchanged();
        }
    }

    /// Whether there was something to announce since that was asked last.
    fn was_told(changes: &mut watch::Receiver<u64>) -> bool {
        let was_told = changes.has_changed().unwrap();
        changes.mark_unchanged();
        was_told
    }
}
