//! How a length is cut into chunks, and chunks into pages: all of that arithmetic, in one place.
//!
//! Every chunk is [`CHUNK_SIZE`] bytes but the last, which has 1 to `CHUNK_SIZE`. The chunk digests of a file travel and
//! are stored in pages of [`PAGE`] digests, but the last. [`ChunkIndex`] and [`PageIndex`] are minted only by a
//! [`Layout`], so whoever holds one need not check it again, as long as it is used with the layout that it came from.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The position of a chunk in its file, counted from 0.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub(crate) struct ChunkIndex(u32);

impl ChunkIndex {
    /// The position as a number.
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

/// The position of a page of chunk digests in its file, counted from 0.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub(crate) struct PageIndex(u32);

impl PageIndex {
    /// The position as a number.
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

/// The length of a file that can be shared, and with it the place and length of each of its chunks.
///
/// Serialised as the length in bytes, and checked when it is read back.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct Layout {
    length: u64,
}

impl Layout {
    /// The layout of a file of `length` bytes.
    ///
    /// # Errors
    /// [`LayoutError::Empty`] for 0 bytes, [`LayoutError::TooLong`] above [`MAX_LENGTH`].
    pub(crate) const fn new(length: u64) -> Result<Self, LayoutError> {
        match length {
            0 => Err(LayoutError::Empty),
            1..=MAX_LENGTH => Ok(Self { length }),
            _ => Err(LayoutError::TooLong { length }),
        }
    }

    /// The length of the file in bytes, from 1 to [`MAX_LENGTH`].
    pub(crate) const fn length(self) -> u64 {
        self.length
    }

    /// How many chunks the file has, at least 1.
    pub(crate) const fn chunk_count(self) -> u32 {
        // Fits: `new` bounds the length by `u32::MAX` chunks.
        self.length.div_ceil(CHUNK_SIZE as u64) as u32
    }

    /// The chunk at `index`, if the file has it.
    pub(crate) const fn chunk(self, index: u32) -> Option<ChunkIndex> {
        if index < self.chunk_count() {
            Some(ChunkIndex(index))
        } else {
            None
        }
    }

    /// All chunks in order.
    pub(crate) fn chunks(self) -> impl DoubleEndedIterator<Item = ChunkIndex> {
        (0..self.chunk_count()).map(ChunkIndex)
    }

    /// Where `chunk` begins in the file, in bytes.
    pub(crate) const fn offset(self, chunk: ChunkIndex) -> u64 {
        chunk.0 as u64 * CHUNK_SIZE as u64
    }

    /// The length of `chunk` in bytes, from 1 to [`CHUNK_SIZE`].
    pub(crate) fn chunk_len(self, chunk: ChunkIndex) -> u32 {
        debug_assert!(
            chunk.0 < self.chunk_count(),
            "{chunk:?} is of another layout than {self:?}"
        );
        let left = self.length - self.offset(chunk);
        u32::try_from(left).map_or(CHUNK_SIZE, |left| left.min(CHUNK_SIZE))
    }

    /// How many pages of chunk digests the file has, at least 1.
    pub(crate) const fn page_count(self) -> u32 {
        self.chunk_count().div_ceil(PAGE)
    }

    /// The page at `index`, if the file has it.
    pub(crate) const fn page(self, index: u32) -> Option<PageIndex> {
        if index < self.page_count() {
            Some(PageIndex(index))
        } else {
            None
        }
    }

    /// All pages in order.
    pub(crate) fn pages(self) -> impl DoubleEndedIterator<Item = PageIndex> {
        (0..self.page_count()).map(PageIndex)
    }

    /// The page that holds the digest of `chunk`.
    pub(crate) const fn page_of(self, chunk: ChunkIndex) -> PageIndex {
        PageIndex(chunk.0 / PAGE)
    }

    /// The positions of the chunks whose digests `page` holds: [`PAGE`] of them, or fewer in the last page.
    pub(crate) fn chunks_of(self, page: PageIndex) -> Range<u32> {
        debug_assert!(
            page.0 < self.page_count(),
            "{page:?} is of another layout than {self:?}"
        );
        let first = page.0 * PAGE;
        first..self.chunk_count().min(first.saturating_add(PAGE))
    }
}

impl TryFrom<u64> for Layout {
    type Error = LayoutError;

    fn try_from(length: u64) -> Result<Self, Self::Error> {
        Self::new(length)
    }
}

impl From<Layout> for u64 {
    fn from(layout: Layout) -> Self {
        layout.length
    }
}

/// A length that no shared file can have.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LayoutError {
    /// A file of 0 bytes has no chunk to share.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// The file has more than `u32::MAX` chunks.
    #[error("the file is too long: {length} bytes, of at most {MAX_LENGTH}")]
    TooLong {
        /// The length refused, in bytes.
        length: u64,
    },
}

/// The length of every chunk of a file but the last, in bytes: 512 KiB.
pub const CHUNK_SIZE: u32 = 512 * 1024;

// limits

/// How many chunk digests a page holds: 1,024, which are 32 KiB. A power of two, so that a page is a subtree.
pub(crate) const PAGE: u32 = 1024;

/// The longest file that can be shared, in bytes: `u32::MAX` chunks, just under 2 PiB.
pub(crate) const MAX_LENGTH: u64 = u32::MAX as u64 * CHUNK_SIZE as u64;

const _: () = assert!(PAGE.is_power_of_two());

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;
    const TIB: u64 = 1024 * 1024 * 1024 * KIB;

    fn layout(length: u64) -> Layout {
        Layout::new(length).unwrap()
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert_eq!(Layout::new(0), Err(LayoutError::Empty));
        let length = MAX_LENGTH + 1;
        assert_eq!(Layout::new(length), Err(LayoutError::TooLong { length }));
        assert_eq!(
            Layout::new(u64::MAX),
            Err(LayoutError::TooLong { length: u64::MAX })
        );
        assert_eq!(
            LayoutError::Empty.to_string(),
            "the file is empty (0 bytes)"
        );
        assert_eq!(
            LayoutError::TooLong { length }.to_string(),
            "the file is too long: 2251799813160961 bytes, of at most 2251799813160960"
        );
    }

    #[test]
    fn counts_at_the_edges() {
        let chunk = u64::from(CHUNK_SIZE);
        let page = chunk * u64::from(PAGE);
        for (length, chunks, pages) in [
            (1, 1, 1),
            (chunk - 1, 1, 1),
            (chunk, 1, 1),
            (chunk + 1, 2, 1),
            (page, 1024, 1),
            (page + 1, 1025, 2),
            (TIB, 1 << 21, 1 << 11),
            (TIB + 1, (1 << 21) + 1, (1 << 11) + 1),
            (MAX_LENGTH, u32::MAX, 1 << 22),
        ] {
            let layout = layout(length);
            assert_eq!(
                (layout.chunk_count(), layout.page_count()),
                (chunks, pages),
                "{length}"
            );
            let last = layout.chunk(chunks - 1).unwrap();
            assert_eq!(
                layout.offset(last) + u64::from(layout.chunk_len(last)),
                length
            );
            assert_eq!(layout.chunk(chunks), None);
            assert_eq!(layout.page(pages), None);
            let last_page = layout.page(pages - 1).unwrap();
            assert_eq!(layout.page_of(last), last_page);
            assert_eq!(layout.chunks_of(last_page).end, chunks);
        }
    }

    #[test]
    fn the_longest_file_ends_in_a_page_that_lacks_one_chunk() {
        let layout = layout(MAX_LENGTH);
        let last = layout.pages().next_back().unwrap();
        assert_eq!(layout.chunks_of(last), u32::MAX - 1023..u32::MAX);
    }

    #[test]
    fn a_length_read_back_is_checked() {
        let bytes = postcard::to_stdvec(&layout(TIB)).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&TIB).unwrap());
        assert_eq!(postcard::from_bytes(&bytes), Ok(layout(TIB)));
        for wrong in [0, MAX_LENGTH + 1] {
            assert!(postcard::from_bytes::<Layout>(&postcard::to_stdvec(&wrong).unwrap()).is_err());
        }
    }

    proptest! {
        #[test]
        fn chunks_tile_the_file(length in 1..64 * u64::from(CHUNK_SIZE)) {
            let layout = layout(length);
            let mut end = 0;
            for (i, chunk) in layout.chunks().enumerate() {
                prop_assert_eq!(chunk.get() as usize, i);
                prop_assert_eq!(layout.chunk(chunk.get()), Some(chunk));
                prop_assert_eq!(layout.offset(chunk), end);
                prop_assert!((1..=CHUNK_SIZE).contains(&layout.chunk_len(chunk)));
                end += u64::from(layout.chunk_len(chunk));
            }
            prop_assert_eq!(end, length);
        }

        #[test]
        fn pages_tile_the_chunks(length in 1..5 * u64::from(PAGE) * u64::from(CHUNK_SIZE)) {
            let layout = layout(length);
            let mut end = 0;
            for page in layout.pages() {
                let chunks = layout.chunks_of(page);
                prop_assert_eq!(chunks.start, end);
                prop_assert!((1..=PAGE).contains(&(chunks.end - chunks.start)));
                for edge in [chunks.start, chunks.end - 1] {
                    prop_assert_eq!(layout.page_of(layout.chunk(edge).unwrap()), page);
                }
                end = chunks.end;
            }
            prop_assert_eq!(end, layout.chunk_count());
        }

        #[test]
        fn any_length_is_refused_or_tiled_to_its_end(length: u64) {
            if let Ok(layout) = Layout::new(length) {
                let last = layout.chunks().next_back().unwrap();
                prop_assert_eq!(layout.offset(last) + u64::from(layout.chunk_len(last)), length);
            } else {
                prop_assert!(length == 0 || length > MAX_LENGTH);
            }
        }
    }
}
