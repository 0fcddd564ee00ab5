//! The chunk digests of the file that is being downloaded, a page at a time: from memory, from disk, or from
//! a peer with a proof. A page is kept only once the proof has led from it to the file id, so that whoever
//! gave it need not be trusted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    content::{ChunkIndex, Digest, FileId, Layout, Node, PageIndex, VerifiedPage, verify_page},
    limits::DIGEST_PAGES_CACHED,
    peer::library::{Library, PageRow, Pinned},
    store::StoreError,
};

/// The pages of one file.
#[derive(Debug)]
pub(in crate::peer) struct Pages {
    library: Library,
    layout: Layout,
    id: FileId,
    /// What is in memory is on disk too, for whoever asks for it.
    _pinned: Pinned,
    /// The pages used last, by when.
    cached: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    uses: u64,
    pages: BTreeMap<PageIndex, (u64, VerifiedPage)>,
}

/// A page that does not prove to be of the file.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a page of digests that is not of the file")]
pub(super) struct BadPage;

impl Pages {
    pub(in crate::peer) fn new(library: Library, layout: Layout, id: FileId) -> Self {
        Self {
            _pinned: library.pin(id),
            library,
            layout,
            id,
            cached: Mutex::default(),
        }
    }

    pub(super) const fn id(&self) -> FileId {
        self.id
    }

    pub(in crate::peer) const fn layout(&self) -> Layout {
        self.layout
    }

    /// The digest of a chunk, if its page is in memory.
    pub(in crate::peer) fn digest(&self, chunk: ChunkIndex) -> Option<Digest> {
        let page = self.layout.page_of(chunk);
        let mut cache = self.cache();
        cache.uses += 1;
        let uses = cache.uses;
        let (used, page) = cache.pages.get_mut(&page)?;
        *used = uses;
        page.digest(chunk)
    }

    /// Brings a page into memory, if it is on disk. Whether it is in memory now.
    pub(in crate::peer) async fn load(&self, page: PageIndex) -> Result<bool, StoreError> {
        if self.cache().pages.contains_key(&page) {
            return Ok(true);
        }
        let Some(PageRow::V1 { digests, proof }) = self.library.page(self.id, page.get()).await?
        else {
            return Ok(false);
        };
        // The disk may have been tampered with; what is not right is fetched again.
        let Ok(verified) = verify_page(self.layout, page, digests, proof, self.id) else {
            return Ok(false);
        };
        self.remember(verified);
        Ok(true)
    }

    /// Takes a page from a peer, if it is right, and keeps it.
    pub(super) async fn accept(
        &self,
        page: PageIndex,
        digests: Vec<Digest>,
        proof: Vec<Node>,
    ) -> Result<Result<(), BadPage>, StoreError> {
        let Ok(verified) = verify_page(self.layout, page, digests, proof, self.id) else {
            return Ok(Err(BadPage));
        };
        let row = PageRow::V1 {
            digests: verified.digests().to_vec(),
            proof: verified.proof().to_vec(),
        };
        self.remember(verified);
        self.library
            .put_pages(self.id, vec![(page.get(), row)])
            .await?;
        Ok(Ok(()))
    }

    fn remember(&self, page: VerifiedPage) {
        let mut cache = self.cache();
        cache.uses += 1;
        let uses = cache.uses;
        if cache.pages.len() >= DIGEST_PAGES_CACHED
            && let Some(oldest) = cache
                .pages
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(page, _)| *page)
        {
            cache.pages.remove(&oldest);
        }
        cache.pages.insert(page.page(), (uses, page));
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
