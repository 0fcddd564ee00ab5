//! What is remembered of a download across lives of the process: its record, and which chunks were written.
//!
//! A chunk is journalled after its data was written, in one small row for each page of chunks, without a sync:
//! what the death of the process leaves is at most the chunks in flight, and whatever the death of the machine
//! leaves is hashed again before it is believed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    DownloadProgress, DownloadState, DownloadStatus,
    partial::{Known, Mark},
};
use crate::{
    content::{Bitfield, Digest, FileId, Layout, PageIndex},
    identity::{FileName, GroupName},
    peer::library::{damaged, encode, path_bytes, path_from, read_all},
    store::{KeyRange, PageLimit, Store, StoreError, Table},
};

/// The downloads on disk. A cheap clone.
#[derive(Clone, Debug)]
pub(in crate::peer) struct Journal {
    store: Store,
    under_way: UnderWay,
}

/// The destinations of downloads under way. A cheap clone.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<Mutex<BTreeSet<PathBuf>>>);

/// A destination that one download has for itself, until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    under_way: UnderWay,
    dest: PathBuf,
    released: CancellationToken,
    _release: DropGuard,
}

impl Reserved {
    /// Is cancelled once the destination is free again.
    pub(super) fn released(&self) -> CancellationToken {
        self.released.clone()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.dest);
    }
}

impl UnderWay {
    pub(super) fn reserve(&self, dest: &Path) -> Option<Reserved> {
        if !self.lock().insert(dest.to_owned()) {
            return None;
        }
        let released = CancellationToken::new();
        Some(Reserved {
            under_way: self.clone(),
            dest: dest.to_owned(),
            _release: released.clone().drop_guard(),
            released,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a download is of.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum DownloadRow {
    V1 {
        group: GroupName,
        name: FileName,
        id: FileId,
        size: u64,
        dest: Vec<u8>,
        complete: bool,
    },
}

/// A page, and a bit for each of its chunks.
pub(super) type PageBits = (PageIndex, Vec<u8>);

/// The bits of a page, of the chunks that are `had`.
pub(super) fn page_bits(layout: Layout, had: &Bitfield, page: PageIndex) -> PageBits {
    let chunks = layout.chunks_of(page);
    let mut bits = vec![0u8; chunks.len().div_ceil(8)];
    for (offset, chunk) in chunks.enumerate() {
        bits[offset / 8] |= u8::from(had.get(chunk)) << (offset % 8);
    }
    (page, bits)
}

/// A file that was downloaded, whether it is still shared or not.
pub(in crate::peer) struct Finished {
    pub(in crate::peer) id: FileId,
    pub(in crate::peer) layout: Layout,
    pub(in crate::peer) path: PathBuf,
}

impl Journal {
    pub(in crate::peer) fn new(store: Store) -> Self {
        Self {
            store,
            under_way: UnderWay::default(),
        }
    }

    /// Takes a destination for one download, whose record nobody else changes meanwhile. `None` while another
    /// one has it.
    pub(super) fn reserve(&self, dest: &Path) -> Option<Reserved> {
        self.under_way.reserve(dest)
    }

    /// All downloads that were kept, for display.
    pub(in crate::peer) async fn kept(&self) -> Result<Vec<DownloadStatus>, StoreError> {
        let mut kept: Vec<DownloadStatus> = Vec::new();
        for (key, value) in read_all(&self.store, Table::Downloads).await? {
            if key.len() == RECORD_KEY_BYTES {
                kept.push(shown(decode(&value)?));
            } else if key.len() == PAGE_KEY_BYTES
                && let Some(DownloadStatus { progress, .. }) = kept.last_mut()
            {
                let ones: u32 = value.iter().map(|byte| byte.count_ones()).sum();
                let bytes = u64::from(ones) * u64::from(crate::content::CHUNK_SIZE);
                progress.verified_bytes =
                    (progress.verified_bytes + bytes).min(progress.total_bytes);
            }
        }
        Ok(kept)
    }

    /// What the downloads of `name` that came to their end led to, and whether there is one that did not.
    pub(in crate::peer) async fn find(
        &self,
        group: &GroupName,
        name: &FileName,
    ) -> Result<(Vec<Finished>, bool), StoreError> {
        let (mut finished, mut begun) = (Vec::new(), false);
        for (key, value) in read_all(&self.store, Table::Downloads).await? {
            if key.len() != RECORD_KEY_BYTES {
                continue;
            }
            let DownloadRow::V1 {
                group: of,
                name: named,
                id,
                size,
                dest,
                complete,
            } = decode(&value)?;
            if of != *group || named != *name {
                continue;
            }
            begun |= !complete;
            if complete {
                let layout = Layout::new(size).map_err(|_| damaged(Table::Downloads))?;
                let path = path_from(dest);
                finished.push(Finished { id, layout, path });
            }
        }
        Ok((finished, begun))
    }

    /// Begins, or goes on with, a download to `dest`: the chunks that were written, if it is the same one.
    pub(super) async fn begin(
        &self,
        row: DownloadRow,
        layout: Layout,
        dest: &Path,
    ) -> Result<Bitfield, StoreError> {
        let key = record_key(dest);
        let known = match self.store.get(Table::Downloads, key.clone()).await? {
            Some(value) => decode(&value)? == row,
            None => false,
        };
        let mut had = Bitfield::new(layout.chunk_count());
        let pages = self.pages(&key).await?;
        if known {
            for (page, bits) in &pages {
                for (offset, chunk) in layout.chunks_of(*page).enumerate() {
                    if bits
                        .get(offset / 8)
                        .is_some_and(|byte| byte >> (offset % 8) & 1 == 1)
                    {
                        had.set(chunk);
                    }
                }
            }
            return Ok(had);
        }
        self.replace(
            key,
            row,
            pages.into_iter().map(|(page, _)| page.get()).collect(),
        )
        .await?;
        Ok(had)
    }

    /// The partial file of a download to `dest` that was begun and did not come to its end.
    pub(super) async fn known(&self, dest: &Path) -> Result<Known, StoreError> {
        let key = record_key(dest);
        let record = self.store.get(Table::Downloads, key.clone()).await?;
        match record.map(|value| decode(&value)).transpose()? {
            Some(DownloadRow::V1 {
                complete: false, ..
            }) => {}
            _ => return Ok(Known::None),
        }
        let mark = self.store.get(Table::Downloads, mark_key(&key)).await?;
        match mark {
            Some(mark) => match postcard::take_from_bytes(&mark) {
                Ok((mark, [])) => Ok(Known::Made(mark)),
                _ => Err(damaged(Table::Downloads)),
            },
            None => Ok(Known::Begun),
        }
    }

    /// Whether the record of `dest` is of the file `id`.
    pub(super) async fn is_of(&self, dest: &Path, id: FileId) -> Result<bool, StoreError> {
        let record = self.store.get(Table::Downloads, record_key(dest)).await?;
        let row = record.map(|value| decode(&value)).transpose()?;
        Ok(row.is_some_and(|DownloadRow::V1 { id: of, .. }| of == id))
    }

    /// Notes by what the partial file of the download to `dest` is known again.
    pub(super) async fn mark(&self, dest: &Path, mark: Mark) -> Result<(), StoreError> {
        let (key, value) = (mark_key(&record_key(dest)), encode(&mark)?);
        self.store
            .write(move |tx| tx.put(Table::Downloads, key, value))
            .await
    }

    /// The download to `dest` was not begun after all.
    pub(super) async fn forget(&self, dest: &Path) -> Result<(), StoreError> {
        let key = record_key(dest);
        self.store
            .write(move |tx| tx.remove(Table::Downloads, key))
            .await
    }

    /// Notes which chunks of some pages were written.
    pub(super) async fn note(&self, dest: &Path, pages: Vec<PageBits>) -> Result<(), StoreError> {
        let key = record_key(dest);
        let rows: Vec<_> = pages
            .into_iter()
            .map(|(page, bits)| (page_key(&key, page.get()), bits))
            .collect();
        self.store
            .write_unsynced(move |tx| {
                rows.into_iter()
                    .try_for_each(|(key, bits)| tx.put(Table::Downloads, key, bits))
            })
            .await
    }

    /// The download is complete; which chunks were written matters no longer.
    pub(super) async fn complete(&self, row: DownloadRow, dest: &Path) -> Result<(), StoreError> {
        let DownloadRow::V1 {
            group,
            name,
            id,
            size,
            dest: dest_bytes,
            ..
        } = row;
        let row = DownloadRow::V1 {
            group,
            name,
            id,
            size,
            dest: dest_bytes,
            complete: true,
        };
        let key = record_key(dest);
        let pages = self.pages(&key).await?;
        self.replace(
            key,
            row,
            pages.into_iter().map(|(page, _)| page.get()).collect(),
        )
        .await
    }

    async fn replace(
        &self,
        key: Vec<u8>,
        row: DownloadRow,
        pages: Vec<u32>,
    ) -> Result<(), StoreError> {
        let value = encode(&row)?;
        let DownloadRow::V1 { complete, .. } = row;
        self.store
            .write(move |tx| {
                for page in pages {
                    tx.remove(Table::Downloads, page_key(&key, page))?;
                }
                if complete {
                    tx.remove(Table::Downloads, mark_key(&key))?;
                }
                tx.put(Table::Downloads, key, value)
            })
            .await
    }

    /// The rows of pages under the record `key`, whatever layout they were written for.
    async fn pages(&self, key: &[u8]) -> Result<Vec<(PageIndex, Vec<u8>)>, StoreError> {
        // A layout that has every page, since the keys say which there are.
        let every =
            Layout::new(crate::content::MAX_LENGTH).map_err(|_| damaged(Table::Downloads))?;
        let limit = PageLimit {
            rows: usize::MAX,
            bytes: usize::MAX,
        };
        let rows = self
            .store
            .range(Table::Downloads, KeyRange::prefix(key), limit)
            .await?
            .rows;
        let pages = rows.into_iter().filter_map(|(row_key, bits)| {
            let index = row_key.get(RECORD_KEY_BYTES..)?.try_into().ok()?;
            Some((every.page(u32::from_be_bytes(index))?, bits))
        });
        Ok(pages.collect())
    }
}

fn shown(row: DownloadRow) -> DownloadStatus {
    let DownloadRow::V1 {
        group,
        name,
        size,
        dest,
        complete,
        ..
    } = row;
    let dest: PathBuf = path_from(dest);
    let (state, verified_bytes) = match complete {
        true => (DownloadState::Complete, size),
        false => (DownloadState::Stopped, 0),
    };
    DownloadStatus {
        group,
        name,
        dest,
        progress: DownloadProgress {
            state,
            verified_bytes,
            resumed_bytes: 0,
            total_bytes: size,
            peers: 0,
            out_of_reach: 0,
            stall: None,
            left: Vec::new(),
        },
    }
}

fn decode(value: &[u8]) -> Result<DownloadRow, StoreError> {
    match postcard::take_from_bytes(value) {
        Ok((row, [])) => Ok(row),
        _ => Err(damaged(Table::Downloads)),
    }
}

/// Of a path that may be longer than a key.
fn record_key(dest: &Path) -> Vec<u8> {
    Digest::of(&path_bytes(dest)).as_bytes().to_vec()
}

fn page_key(record: &[u8], page: u32) -> Vec<u8> {
    [record, &page.to_be_bytes()].concat()
}

/// Shorter than that of any page.
fn mark_key(record: &[u8]) -> Vec<u8> {
    [record, b"m"].concat()
}

const RECORD_KEY_BYTES: usize = Digest::LEN;
const PAGE_KEY_BYTES: usize = RECORD_KEY_BYTES + size_of::<u32>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        content::CHUNK_SIZE,
        golden::{Golden, variants},
        store::{MemoryDisk, StoreKind},
    };

    variants!(DownloadRow { V1 });
    variants!(Mark { V1 });

    #[test]
    fn golden_bytes() {
        let DownloadRow::V1 {
            group,
            name,
            id,
            size,
            dest,
            ..
        } = row(1);
        let complete = DownloadRow::V1 {
            group,
            name,
            id,
            size,
            dest,
            complete: true,
        };
        let mut golden = Golden::open("peer_journal");
        golden.values("download", &[("begun", row(1)), ("complete", complete)]);
        let (inode, born) = (4711, Some(1_700_000_000_999_999_999));
        let marks = [
            ("made", Mark::V1 { inode, born }),
            ("made_once", Mark::V1 { inode, born: None }),
        ];
        golden.values("mark", &marks);
        golden.finish();
    }

    fn row(id: u8) -> DownloadRow {
        DownloadRow::V1 {
            group: GroupName::new("photos").unwrap(),
            name: FileName::new("x").unwrap(),
            id: FileId::from_bytes([id; 32]),
            size: u64::from(CHUNK_SIZE) * 1030,
            dest: b"/tmp/x".to_vec(),
            complete: false,
        }
    }

    #[tokio::test]
    async fn what_was_noted_is_there_again_but_not_for_another_file() {
        let disk = MemoryDisk::default();
        let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
        let (journal, dest) = (Journal::new(store), Path::new("/tmp/x"));
        let layout = Layout::new(u64::from(CHUNK_SIZE) * 1030).unwrap();
        let mut had = journal.begin(row(1), layout, dest).await.unwrap();
        assert!(had.is_empty());
        for chunk in [0, 9, 1023, 1024, 1029] {
            had.set(chunk);
        }
        let pages = layout.pages().map(|page| page_bits(layout, &had, page));
        journal.note(dest, pages.collect()).await.unwrap();
        assert_eq!(journal.begin(row(1), layout, dest).await.unwrap(), had);
        assert_eq!(journal.known(dest).await.unwrap(), Known::Begun);
        let mark = Mark::V1 {
            inode: u64::MAX,
            born: None,
        };
        journal.mark(dest, mark).await.unwrap();
        let kept = journal.kept().await.unwrap();
        assert_eq!(kept[0].progress.verified_bytes, 5 * u64::from(CHUNK_SIZE));
        assert_eq!(kept[0].progress.state, DownloadState::Stopped);

        assert!(
            journal
                .begin(row(2), layout, dest)
                .await
                .unwrap()
                .is_empty()
        );
        assert!(
            journal
                .begin(row(2), layout, dest)
                .await
                .unwrap()
                .is_empty()
        );
        // The partial file is the same one.
        assert_eq!(journal.known(dest).await.unwrap(), Known::Made(mark));
        journal.complete(row(2), dest).await.unwrap();
        assert_eq!(journal.known(dest).await.unwrap(), Known::None);
        let kept = journal.kept().await.unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].progress.state, DownloadState::Complete);
        journal.begin(row(1), layout, dest).await.unwrap();
        assert_eq!(journal.known(dest).await.unwrap(), Known::Begun);
    }

    #[tokio::test]
    async fn a_destination_is_for_one_download_until_all_of_it_is_over() {
        let under_way = UnderWay::default();
        let (one, other) = (Path::new("/tmp/x"), Path::new("/tmp/y"));
        let reserved = under_way.reserve(one).unwrap();
        assert!(under_way.reserve(one).is_none());
        assert!(under_way.reserve(other).is_some());
        let released = reserved.released();
        assert!(!released.is_cancelled());
        drop(reserved);
        released.cancelled().await;
        assert!(under_way.reserve(one).is_some());
    }
}
