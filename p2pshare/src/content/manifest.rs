//! From chunk digests, in order, to a file's id and the proofs of its pages.
//!
//! A [`ManifestBuilder`] hands out each page of digests once it is full, to be stored, and keeps its root alone, so that
//! a file of 1 TiB, with 64 MiB of digests, is taken in through 64 KiB. The invariant: a [`Manifest`] has as many page
//! roots as its layout has pages, and its id is the one they lead to.

use super::hash_tree::{self, Node, TreeTop};
use super::{ChunkIndex, Digest, FileId, Layout, PageIndex};

/// What is known of a complete file besides its digests: its layout, its id, and the proof of any page.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Manifest {
    layout: Layout,
    id: FileId,
    top: TreeTop,
}

impl Manifest {
    /// Builds the manifest from the roots of all pages, as [`page_roots`](Self::page_roots) gave them.
    ///
    /// # Errors
    /// [`ManifestError::WrongPageCount`] when the layout has another number of pages.
    pub(crate) fn new(layout: Layout, page_roots: Vec<Node>) -> Result<Self, ManifestError> {
        let needed = layout.page_count();
        if page_roots.len() != needed as usize {
            return Err(ManifestError::WrongPageCount {
                needed,
                found: page_roots.len(),
            });
        }
        let top = TreeTop::new(page_roots);
        let id = hash_tree::file_id(layout, top.root());
        Ok(Self { layout, id, top })
    }

    /// The length of the file, and with it the places of its chunks.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The id of the file.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// The roots of all pages in order: what to store.
    pub(crate) fn page_roots(&self) -> &[Node] {
        self.top.page_roots()
    }

    /// The proof of `page`, as [`verify_page`](hash_tree::verify_page) takes it.
    pub(crate) fn proof(&self, page: PageIndex) -> Vec<Node> {
        self.top.proof(page)
    }
}

/// Takes the digests of a file's chunks in order.
#[derive(Debug)]
pub(crate) struct ManifestBuilder {
    layout: Layout,
    taken: u32,
    page: Vec<Digest>,
    page_roots: Vec<Node>,
}

impl ManifestBuilder {
    /// A builder for a file of this layout that has taken no digest.
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            taken: 0,
            page: Vec::new(),
            page_roots: Vec::new(),
        }
    }

    /// The chunk whose digest comes next, until the last was taken.
    pub(crate) fn next_chunk(&self) -> Option<ChunkIndex> {
        self.layout.chunk(self.taken)
    }

    /// Takes the digest of the [`next_chunk`](Self::next_chunk) chunk. Returns its page if it was the last one of it.
    ///
    /// # Errors
    /// [`ManifestError::TooMany`] when all digests were taken before; nothing is changed by it.
    pub(crate) fn push(&mut self, digest: Digest) -> Result<Option<FinishedPage>, ManifestError> {
        let Some(chunk) = self.next_chunk() else {
            return Err(ManifestError::TooMany {
                needed: self.layout.chunk_count(),
            });
        };
        self.page.push(digest);
        self.taken += 1;
        let page = self.layout.page_of(chunk);
        if self.taken < self.layout.chunks_of(page).end {
            return Ok(None);
        }
        let digests = std::mem::take(&mut self.page);
        self.page_roots.push(hash_tree::page_root(&digests));
        Ok(Some(FinishedPage { page, digests }))
    }

    /// The manifest of the file, once the digests of all chunks were taken.
    ///
    /// # Errors
    /// [`ManifestError::TooFew`] when some are missing.
    pub(crate) fn finish(self) -> Result<Manifest, ManifestError> {
        let needed = self.layout.chunk_count();
        if self.taken < needed {
            return Err(ManifestError::TooFew {
                needed,
                found: self.taken,
            });
        }
        Manifest::new(self.layout, self.page_roots)
    }
}

/// A page of which all digests are known: one to store.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct FinishedPage {
    /// Which page of the file it is.
    pub(crate) page: PageIndex,
    /// The digests of its chunks, in order.
    pub(crate) digests: Vec<Digest>,
}

/// Digests or page roots that are not as many as the file has.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ManifestError {
    /// A digest beyond the last chunk.
    #[error("the file has no more than {needed} chunks")]
    TooMany {
        /// How many chunks the file has.
        needed: u32,
    },
    /// The end before the last chunk.
    #[error("only {found} of the file's {needed} chunks are there")]
    TooFew {
        /// How many chunks the file has.
        needed: u32,
        /// How many digests were taken.
        found: u32,
    },
    /// More or fewer page roots than pages.
    #[error("the file has {needed} pages of digests, not {found}")]
    WrongPageCount {
        /// How many pages the file has.
        needed: u32,
        /// How many roots there were.
        found: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::super::{CHUNK_SIZE, Hasher, PAGE, verify_page};
    use super::*;

    const CHUNK: u64 = CHUNK_SIZE as u64;
    const TIB: u64 = 1 << 40;

    fn layout(length: u64) -> Layout {
        Layout::new(length).unwrap()
    }

    /// The digest of `len` bytes, all `byte`.
    fn digest(byte: u8, len: u64) -> Digest {
        Digest::of(&vec![byte; len as usize])
    }

    /// Builds the manifest of a file with these digests, and checks what the builder says on the way.
    fn build(length: u64, digests: &[Digest]) -> (Manifest, Vec<FinishedPage>) {
        let mut builder = ManifestBuilder::new(layout(length));
        let mut pages = Vec::new();
        for (i, digest) in digests.iter().enumerate() {
            assert_eq!(builder.next_chunk().map(ChunkIndex::get), Some(i as u32));
            pages.extend(builder.push(*digest).unwrap());
        }
        assert_eq!(builder.next_chunk(), None);
        (builder.finish().unwrap(), pages)
    }

    /// A file of `length` zeros.
    fn zeros(length: u64) -> (Manifest, Vec<FinishedPage>) {
        let whole = digest(0, CHUNK);
        let last = digest(0, (length - 1) % CHUNK + 1);
        let mut digests = vec![whole; layout(length).chunk_count() as usize];
        *digests.last_mut().unwrap() = last;
        build(length, &digests)
    }

    /// The id of the file is the expected one, made by another implementation, and PROTOCOL.md has it beside its root.
    fn assert_vector(manifest: &Manifest, id: &str) {
        assert_eq!(manifest.id().to_string(), id);
        let row = format!("`{}` | `{id}` |\n", manifest.top.root());
        assert!(include_str!("../../../PROTOCOL.md").contains(&row), "{row}");
    }

    #[test]
    fn ids_of_small_files() {
        let (a, _) = build(1, &[Digest::of(b"a")]);
        assert_vector(
            &a,
            "40e11fa1f78317964a8515d60812b6bcaeced1c57356809172106d03f0479db8",
        );
        let (one, _) = zeros(CHUNK);
        assert_vector(
            &one,
            "3331ba30cb47ca5fdf51e0658713c2247ce051f3ec21c32de6220e50c45c9297",
        );
        let (two, _) = zeros(CHUNK + 1);
        assert_vector(
            &two,
            "b0ca06de65b15e2eeaee58ce792feb23a8b1334373d433ed2b3f7073d0c95448",
        );
    }

    #[test]
    fn id_of_five_chunks_that_differ() {
        let digests: Vec<_> = (0..5)
            .map(|i| digest(i, if i < 4 { CHUNK } else { 1 }))
            .collect();
        let (five, _) = build(4 * CHUNK + 1, &digests);
        assert_vector(
            &five,
            "c9a770c8311e3fc16be5c8405e5ca00f26db33f2042d1401eda9c3791f92db5c",
        );
    }

    #[test]
    fn ids_around_a_page() {
        let page = u64::from(PAGE) * CHUNK;
        let (one, _) = zeros(page);
        assert_vector(
            &one,
            "816d9d137c7855b5258ec7a28ae12fa45ec80636eb183f7c69f7ea611ffa533e",
        );
        let (two, _) = zeros(page + 1);
        assert_vector(
            &two,
            "37368914c462862bc88755507cec0837c11bb10e1b50efc9480c9106c835b3c2",
        );
        let (seven, _) = zeros(6 * page + 1);
        assert_vector(
            &seven,
            "530fe6976181654756f4e98a7c71e8c6879887090990603f2b5fb65a75fb4698",
        );
    }

    #[test]
    fn id_of_one_tebibyte() {
        let page = hash_tree::page_root(&vec![digest(0, CHUNK); PAGE as usize]);
        let manifest = Manifest::new(layout(TIB), vec![page; 2048]).unwrap();
        assert_vector(
            &manifest,
            "102826d26b427dd3ac31769bd9fecef5250f04dd66bdedf384b28fb59c68a811",
        );
        assert!(
            layout(TIB)
                .pages()
                .all(|page| manifest.proof(page).len() == 11)
        );
    }

    #[test]
    fn proofs_of_seven_pages() {
        let (manifest, pages) = zeros(6 * u64::from(PAGE) * CHUNK + 1);
        let text = |page: usize| -> Vec<String> {
            manifest
                .proof(pages[page].page)
                .iter()
                .map(Node::to_string)
                .collect()
        };
        let last = "d9de27625445003d8a9739a851e3ff8d41c0683630b4d63a88327a6aaa37c409";
        let two = "e75016cda5d306d7fb117ba8dbc4baad584ca0a6b387ad0a48f54f184d219828";
        let four = "00b50e37b200690596fd452a6b07dbbeeba4ec568b639a490371d0bd3acb21cb";
        let whole = "4a7c7ae97c7339df5b4d63fc1b051ec835625086952fa0020b4f88dcd48d5a80";
        assert_eq!(text(4), [whole, last, four]);
        assert_eq!(text(6), [two, four]);
    }

    #[test]
    fn pages_come_out_full_and_verify_by_the_manifest() {
        let chunks = 2 * PAGE + 3;
        let digests: Vec<_> = (0..chunks).map(|i| Digest::of(&i.to_le_bytes())).collect();
        let (manifest, pages) = build(u64::from(chunks) * CHUNK, &digests);
        let lens: Vec<_> = pages.iter().map(|page| page.digests.len()).collect();
        assert_eq!(lens, [1024, 1024, 3]);
        assert!(pages.iter().flat_map(|page| &page.digests).eq(&digests));
        for FinishedPage { page, digests } in pages {
            let proof = manifest.proof(page);
            let verified = verify_page(
                manifest.layout(),
                page,
                digests.clone(),
                proof.clone(),
                manifest.id(),
            )
            .unwrap();
            assert_eq!((verified.file(), verified.page()), (manifest.id(), page));
            assert_eq!(
                (verified.digests(), verified.proof()),
                (&digests[..], &proof[..])
            );
        }
        let again = Manifest::new(manifest.layout(), manifest.page_roots().to_vec());
        assert_eq!(again, Ok(manifest));
    }

    #[test]
    fn a_digest_too_many_and_one_too_few() {
        let digest = Digest::of(b"");
        let mut builder = ManifestBuilder::new(layout(2 * CHUNK));
        assert_eq!(builder.push(digest), Ok(None));
        let error = builder.finish().unwrap_err();
        assert_eq!(
            error,
            ManifestError::TooFew {
                needed: 2,
                found: 1
            }
        );
        assert_eq!(error.to_string(), "only 1 of the file's 2 chunks are there");

        let mut builder = ManifestBuilder::new(layout(2 * CHUNK));
        assert_eq!(builder.push(digest), Ok(None));
        assert!(builder.push(digest).unwrap().is_some());
        let error = builder.push(digest).unwrap_err();
        assert_eq!(error, ManifestError::TooMany { needed: 2 });
        assert_eq!(error.to_string(), "the file has no more than 2 chunks");
        assert!(builder.finish().is_ok());
    }

    #[test]
    fn page_roots_are_counted() {
        let root = hash_tree::page_root(&[]);
        for found in [0, 1, 3] {
            let error =
                Manifest::new(layout(u64::from(PAGE) * CHUNK + 1), vec![root; found]).unwrap_err();
            assert_eq!(error, ManifestError::WrongPageCount { needed: 2, found });
            assert_eq!(
                error.to_string(),
                format!("the file has 2 pages of digests, not {found}")
            );
        }
    }

    #[test]
    fn length_alone_changes_the_id() {
        let digest = Digest::of(b"same");
        let ids: Vec<_> = [1, 2, CHUNK]
            .map(|length| build(length, &[digest]).0.id())
            .to_vec();
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    }
}
