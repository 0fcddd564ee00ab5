//! Journalling while chunks come: one write at a time, and what is written to the file meanwhile goes with the next.
//! So a disk that takes long holds up neither those who give nor whoever tells that it does.
//!
//! **Invariant.** At most as many chunks as may wait to be written are written and not journalled.

use std::{collections::BTreeSet, path::PathBuf};

use tokio::task::JoinSet;

use super::journal::{Journal, page_bits};
use crate::{
    content::{Bitfield, Layout, PageIndex},
    limits::WRITE_QUEUE_CHUNKS,
    store::StoreError,
};

/// What of a download is to be journalled.
pub(super) struct Noting {
    /// Under which path, unless nothing is.
    journal: Option<(Journal, PathBuf)>,
    layout: Layout,
    /// Pages with chunks that were written, and how many chunks.
    dirty: BTreeSet<PageIndex>,
    chunks: usize,
    under_way: JoinSet<Result<(), StoreError>>,
}

impl Noting {
    pub(super) fn new(journal: Option<(Journal, PathBuf)>, layout: Layout) -> Self {
        Self {
            journal,
            layout,
            dirty: BTreeSet::new(),
            chunks: 0,
            under_way: JoinSet::new(),
        }
    }

    /// A chunk of this page was written.
    pub(super) fn add(&mut self, page: PageIndex) {
        if self.journal.is_some() {
            self.dirty.insert(page);
            self.chunks += 1;
        }
    }

    /// Whether another chunk may be taken in.
    pub(super) const fn has_room(&self) -> bool {
        self.chunks < WRITE_QUEUE_CHUNKS
    }

    /// Whether there is something to journal, and nothing is being journalled.
    pub(super) fn is_due(&self) -> bool {
        self.under_way.is_empty() && !self.dirty.is_empty()
    }

    /// Begins to journal what of `had` is new.
    pub(super) fn begin(&mut self, had: &Bitfield) {
        let Some((journal, dest)) = self.journal.clone() else {
            return;
        };
        let pages = std::mem::take(&mut self.dirty).into_iter();
        let pages = pages
            .map(|page| page_bits(self.layout, had, page))
            .collect();
        self.chunks = 0;
        self.under_way
            .spawn(async move { journal.note(&dest, pages).await });
    }

    /// Waits until what was begun is journalled; `None` while nothing is. Cancel-safe.
    pub(super) async fn done(&mut self) -> Option<Result<(), StoreError>> {
        loop {
            if let Ok(noted) = self.under_way.join_next().await? {
                return Some(noted);
            }
        }
    }

    /// Journals all that is left.
    pub(super) async fn finish(mut self, had: &Bitfield) -> Result<(), StoreError> {
        loop {
            if self.is_due() {
                self.begin(had);
            }
            match self.done().await {
                Some(noted) => noted?,
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        content::{CHUNK_SIZE, FileId},
        identity::{FileName, GroupName},
        peer::download::journal::DownloadRow,
        store::{MemoryDisk, Store, StoreKind},
    };

    #[tokio::test]
    async fn while_one_write_is_under_way_the_next_gathers_and_in_the_end_all_is_journalled() {
        let store = Store::open_memory(&MemoryDisk::default(), StoreKind::Peer).await;
        let journal = Journal::new(store.unwrap());
        let dest = PathBuf::from("/somewhere/f");
        let size = 4000 * u64::from(CHUNK_SIZE);
        let layout = Layout::new(size).unwrap();
        let row = DownloadRow::V1 {
            group: GroupName::new("g").unwrap(),
            name: FileName::new("f").unwrap(),
            id: FileId::from_bytes([1; 32]),
            size,
            dest: b"/somewhere/f".to_vec(),
            complete: false,
        };
        journal.begin(row.clone(), layout, &dest).await.unwrap();
        let mut noting = Noting::new(Some((journal.clone(), dest.clone())), layout);
        let mut had = Bitfield::new(layout.chunk_count());
        let mut write = |noting: &mut Noting, index: u32| {
            had.set(index);
            noting.add(layout.page_of(layout.chunk(index).unwrap()));
            had.clone()
        };
        assert!(!noting.is_due());
        let now = write(&mut noting, 1);
        assert!(noting.is_due());
        noting.begin(&now);
        // As many as may wait to be written gather, and then no more are taken in.
        for index in 0..WRITE_QUEUE_CHUNKS as u32 {
            assert!(noting.has_room());
            write(&mut noting, 200 * index);
            assert!(!noting.is_due());
        }
        assert!(!noting.has_room());
        noting.done().await.unwrap().unwrap();
        assert!(noting.is_due() && noting.done().await.is_none());
        let now = write(&mut noting, 3999);
        noting.finish(&now).await.unwrap();
        let found = journal.begin(row, layout, &dest).await.unwrap();
        assert!(found == now);
    }
}
