//! What this peer shares: for each file of a group its path, its stamp and what it is, kept on disk, and the
//! digests of its chunks in pages. A file is shared in place; it is served, and announced, as long as its stamp
//! is the one that was recorded with its digests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::file::{Source, Stamp};
use crate::{
    content::{Digest, FileId, Layout, Node},
    identity::{FileName, GroupName},
    limits::{LEASE_RENEWAL, SCAN_PAGE_BYTES, SCAN_PAGE_ROWS, SHARES_LOOK_TIMEOUT},
    store::{KeyRange, PageLimit, Store, StoreError, Table},
};

/// The shares of a peer. A cheap clone.
#[derive(Clone, Debug)]
pub(super) struct Library(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    shares: Mutex<BTreeMap<Place, Arc<Share>>>,
    /// Names of which somebody is about to decide what they are.
    reserved: Mutex<BTreeSet<Place>>,
    /// How many are at work with the pages of a content.
    pins: Mutex<BTreeMap<FileId, usize>>,
    /// Counts the changes, for whoever announces them.
    changes: watch::Sender<u64>,
}

/// A file's group, folded, and its name in it.
type Place = (String, FileName);

/// One shared file.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) group: GroupName,
    pub(super) name: FileName,
    pub(super) id: FileId,
    pub(super) layout: Layout,
    /// Of the whole, as it was published.
    pub(super) sha256: Digest,
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    /// Whether its content was found to be another one than its digests say, whatever its stamp.
    wrong: AtomicBool,
    /// How its file was found when it was last looked at.
    found: Mutex<Found>,
    /// Whether the group has been told of it.
    published: AtomicBool,
    /// Whether the file's record in the group names this peer among those who keep it.
    recorded: AtomicBool,
}

/// A shared file, as it is shown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShareStatus {
    /// The group.
    pub group: GroupName,
    /// Its name there.
    pub name: FileName,
    /// What its content is.
    pub id: FileId,
    /// Bytes.
    pub size: u64,
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Whether it was found changed, and is not served for that.
    pub changed: bool,
    /// Whether it cannot be read now, and is not served until it can.
    pub unreadable: bool,
}

/// How the file of a share was found.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// With the stamp that was recorded.
    AsRecorded,
    /// With another one.
    Changed,
    /// Not at all: it is gone, or its disk is, or it may not be read. It may come back.
    Unreadable,
}

/// A share on disk.
#[derive(Debug, Serialize, Deserialize)]
enum ShareRow {
    V1 {
        group: GroupName,
        name: FileName,
        id: FileId,
        sha256: Digest,
        path: Vec<u8>,
        stamp: Stamp,
        recorded: bool,
    },
}

/// A page of digests on disk, with what proves it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum PageRow {
    V1 {
        digests: Vec<Digest>,
        proof: Vec<Node>,
    },
}

/// A name that was reserved, until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    library: Library,
    place: Place,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.library.reserved().remove(&self.place);
    }
}

/// The pages of a content stay, until this is dropped at least.
#[derive(Debug)]
pub(super) struct Pinned {
    library: Library,
    id: FileId,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.library.pins();
        if let Some(count) = pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.id);
            }
        }
    }
}

impl Share {
    /// Whether it was found changed, or not at all, or is shared no longer, and is not served for that.
    pub(super) fn is_changed(&self) -> bool {
        self.is_wrong() || self.found() != Found::AsRecorded
    }

    fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed)
    }

    fn found(&self) -> Found {
        *self.lock_found()
    }

    fn lock_found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a new share is made of.
pub(super) struct NewShare {
    pub(super) group: GroupName,
    pub(super) name: FileName,
    pub(super) id: FileId,
    pub(super) sha256: Digest,
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    /// Whether the file's record names this peer once the file is [published](Library::publish).
    pub(super) recorded: bool,
}

impl Library {
    /// Reads the shares that were kept.
    pub(super) async fn load(store: Store) -> Result<Self, StoreError> {
        let mut shares = BTreeMap::new();
        for (_, value) in read_all(&store, Table::Shares).await? {
            let share = Arc::new(decode(&value)?);
            shares.insert((share.group.folded(), share.name.clone()), share);
        }
        Ok(Self(Arc::new(Inner {
            store,
            shares: Mutex::new(shares),
            reserved: Mutex::default(),
            pins: Mutex::default(),
            changes: watch::Sender::new(0),
        })))
    }

    /// Takes a name for the one who is about to share, or to give up, a file under it; nobody else does so
    /// meanwhile. `None` while somebody else has it.
    pub(super) fn reserve(&self, group: &GroupName, name: &FileName) -> Option<Reserved> {
        let place = (group.folded(), name.clone());
        self.reserved().insert(place.clone()).then(|| Reserved {
            library: self.clone(),
            place,
        })
    }

    /// Keeps the pages of `id` for whoever is about to use or to share them, also if somebody else stops sharing
    /// that content meanwhile.
    pub(super) fn pin(&self, id: FileId) -> Pinned {
        *self.pins().entry(id).or_default() += 1;
        let library = self.clone();
        Pinned { library, id }
    }

    /// Serves a file from now on; its pages are kept already. It is announced once it is
    /// [published](Self::publish).
    pub(super) async fn add(&self, new: NewShare) -> Result<(), StoreError> {
        let row = ShareRow::V1 {
            group: new.group.clone(),
            name: new.name.clone(),
            id: new.id,
            sha256: new.sha256,
            path: path_bytes(&new.path),
            stamp: new.stamp,
            recorded: new.recorded,
        };
        let (key, value) = (share_key(&new.group, &new.name), encode(&row)?);
        self.0
            .store
            .write(move |tx| tx.put(Table::Shares, key, value))
            .await?;
        let share = Arc::new(from_row(row, false)?);
        let place = (share.group.folded(), share.name.clone());
        let replaced = self.shares().insert(place, share);
        match replaced {
            Some(replaced) => {
                // Streams that are open end with it.
                replaced.wrong.store(true, Ordering::Relaxed);
                self.drop_pages(&replaced).await
            }
            None => Ok(()),
        }
    }

    /// The group knows of a file, which is announced from now on.
    pub(super) fn publish(&self, group: &GroupName, name: &FileName) {
        if let Some(share) = self.get(group, name) {
            share.published.store(true, Ordering::Relaxed);
            self.notify();
        }
    }

    /// Shares the file `id` under that name no longer; another one that has taken the name stays. Its pages
    /// go when no other share has the same content, and nobody has [pinned](Self::pin) it.
    pub(super) async fn remove(
        &self,
        group: &GroupName,
        name: &FileName,
        id: FileId,
    ) -> Result<bool, StoreError> {
        let place = (group.folded(), name.clone());
        let removed = {
            let mut shares = self.shares();
            match shares.get(&place) {
                Some(share) if share.id == id => shares.remove(&place),
                _ => None,
            }
        };
        let Some(removed) = removed else {
            return Ok(false);
        };
        // Streams that are open end with it.
        removed.wrong.store(true, Ordering::Relaxed);
        self.notify();
        let key = share_key(group, name);
        self.0
            .store
            .write(move |tx| tx.remove(Table::Shares, key))
            .await?;
        self.drop_pages(&removed).await?;
        Ok(true)
    }

    /// Drops the pages of what was shared, unless another share has the same content, or somebody is at work with
    /// them.
    async fn drop_pages(&self, removed: &Share) -> Result<(), StoreError> {
        let (id, layout, library) = (removed.id, removed.layout, self.clone());
        self.0
            .store
            .write(move |tx| {
                // Asked here, after all that was written before.
                let is_pinned = library.pins().contains_key(&id);
                if is_pinned || library.shares().values().any(|share| share.id == id) {
                    return Ok(());
                }
                layout
                    .pages()
                    .try_for_each(|page| tx.remove(Table::DigestPages, page_key(id, page.get())))
            })
            .await
    }

    /// The share under that name.
    pub(super) fn get(&self, group: &GroupName, name: &FileName) -> Option<Arc<Share>> {
        self.shares().get(&(group.folded(), name.clone())).cloned()
    }

    /// A share in `group` of that content which was not found changed.
    pub(super) fn find(&self, group: &GroupName, id: FileId) -> Option<Arc<Share>> {
        let folded = group.folded();
        self.shares()
            .iter()
            .find(|((group, _), share)| *group == folded && share.id == id && !share.is_changed())
            .map(|(_, share)| share.clone())
    }

    /// The shares that are announced, by group and name.
    pub(super) fn announced(&self) -> Vec<Arc<Share>> {
        let shares = self.shares();
        let announced = shares
            .values()
            .filter(|share| share.published.load(Ordering::Relaxed) && !share.is_changed());
        announced.cloned().collect()
    }

    /// Those of them whose records do not name this peer yet.
    pub(super) fn unrecorded(&self) -> Vec<Arc<Share>> {
        let mut shares = self.announced();
        shares.retain(|share| !share.recorded.load(Ordering::Relaxed));
        shares
    }

    /// The record of the file of `share` names this peer.
    pub(super) async fn note_recorded(&self, share: &Share) -> Result<(), StoreError> {
        if share.recorded.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let (key, shared) = (share_key(&share.group, &share.name), share.id);
        self.0
            .store
            .write(move |tx| {
                let Some(value) = tx.get(Table::Shares, &key)? else {
                    return Ok(());
                };
                let mut row = decode_row(&value)?;
                let ShareRow::V1 { id, recorded, .. } = &mut row;
                // Another file may have taken the name meanwhile.
                *recorded |= *id == shared;
                tx.put(Table::Shares, key, encode(&row)?)
            })
            .await
    }

    /// The shares in a group.
    pub(super) fn of_group(&self, group: &GroupName) -> Vec<Arc<Share>> {
        let shares = self.shares();
        let of_group = shares.values().filter(|share| share.group == *group);
        of_group.cloned().collect()
    }

    /// Remembers that the content of `share` is not what its digests say, so that it is not served any more.
    pub(super) fn mark_wrong(&self, share: &Share) {
        if !share.wrong.swap(true, Ordering::Relaxed) {
            let (group, name, path) = (&share.group, &share.name, share.path.display());
            tracing::warn!(%group, %name, %path, "a shared file has other content than it had, and is not served");
            self.notify();
        }
    }

    /// Remembers that the file of `share` is not as it was recorded, so that it is not served until it is.
    pub(super) fn mark_changed(&self, share: &Share) {
        self.note_found(share, Found::Changed);
    }

    /// Notes how the file of `share` was found just now. It is served only as it was recorded, and again once
    /// it is as it was.
    pub(super) fn note_found(&self, share: &Share, found: Found) {
        let before = std::mem::replace(&mut *share.lock_found(), found);
        if before == found {
            return;
        }
        let (group, name, path) = (&share.group, &share.name, share.path.display());
        match found {
            Found::AsRecorded => {
                tracing::info!(%group, %name, %path, "a shared file is as it was, and served again");
            }
            Found::Changed => {
                tracing::warn!(%group, %name, %path, "a shared file changed on disk and is not served");
            }
            Found::Unreadable => {
                tracing::warn!(%group, %name, %path, "a shared file cannot be read and is not served");
            }
        }
        self.notify();
    }

    /// Looks at every shared file. Blocks.
    fn look(&self) {
        let shares: Vec<_> = self.shares().values().cloned().collect();
        for share in shares {
            self.note_found(&share, found_at(&share));
        }
    }

    /// Looks at every shared file; whoever waits for it does so for a while only, since a disk may hang.
    pub(super) async fn look_at_files(&self) {
        let library = self.clone();
        let look = tokio::task::spawn_blocking(move || library.look());
        if timeout(SHARES_LOOK_TIMEOUT, look).await.is_err() {
            tracing::warn!("a disk with shared files does not answer");
        }
    }

    /// Looks at every shared file now and then until `end`, so that nobody is sent to what is not there.
    pub(super) async fn watch_files(self, end: CancellationToken) {
        let mut looks = interval(LEASE_RENEWAL);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                _ = looks.tick() => self.look_at_files().await,
            }
        }
    }

    /// Takes note of how the file of `share` was found: right, with this stamp, so that it is served again; or
    /// with [`Stamp::of_none`] not right, so that it is not served any more, in the next life of the peer
    /// either. Nothing happens if it is not shared any more. Whether it is.
    pub(super) async fn restamp(&self, share: &Share, stamp: Stamp) -> Result<bool, StoreError> {
        let row = ShareRow::V1 {
            group: share.group.clone(),
            name: share.name.clone(),
            id: share.id,
            sha256: share.sha256,
            path: path_bytes(&share.path),
            stamp,
            recorded: share.recorded.load(Ordering::Relaxed),
        };
        let (key, value, id) = (
            share_key(&share.group, &share.name),
            encode(&row)?,
            share.id,
        );
        let is_same = |now: &Share| now.id == id && now.path == share.path;
        if !self
            .get(&share.group, &share.name)
            .is_some_and(|now| is_same(&now))
        {
            return Ok(false);
        }
        self.0
            .store
            .write(move |tx| match tx.get(Table::Shares, &key)? {
                // Whoever stops sharing it meanwhile removes it from memory first.
                Some(_) => tx.put(Table::Shares, key, value),
                None => Ok(()),
            })
            .await?;
        let restamped = Arc::new(from_row(row, true)?);
        let is_shared = {
            let mut shares = self.shares();
            match shares.get_mut(&(share.group.folded(), share.name.clone())) {
                Some(now) if is_same(now) => {
                    *now = restamped;
                    true
                }
                _ => false,
            }
        };
        self.notify();
        Ok(is_shared)
    }

    /// How often something changed; its changes can be waited for.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The shares as they are shown.
    pub(super) fn status(&self) -> Vec<ShareStatus> {
        let status = |share: &Arc<Share>| ShareStatus {
            group: share.group.clone(),
            name: share.name.clone(),
            id: share.id,
            size: share.layout.length(),
            path: share.path.clone(),
            changed: share.is_wrong() || share.found() == Found::Changed,
            unreadable: share.found() == Found::Unreadable,
        };
        self.shares().values().map(status).collect()
    }

    /// Keeps pages of digests.
    pub(super) async fn put_pages(
        &self,
        id: FileId,
        pages: Vec<(u32, PageRow)>,
    ) -> Result<(), StoreError> {
        let rows = pages
            .into_iter()
            .map(|(page, row)| Ok((page_key(id, page), encode(&row)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.0
            .store
            .write(move |tx| {
                rows.into_iter()
                    .try_for_each(|(key, value)| tx.put(Table::DigestPages, key, value))
            })
            .await
    }

    /// A page of digests, if it is kept.
    pub(super) async fn page(&self, id: FileId, page: u32) -> Result<Option<PageRow>, StoreError> {
        let value = self
            .0
            .store
            .get(Table::DigestPages, page_key(id, page))
            .await?;
        value
            .map(|value| match postcard::take_from_bytes(&value) {
                Ok((row, [])) => Ok(row),
                _ => Err(damaged(Table::DigestPages)),
            })
            .transpose()
    }

    fn reserved(&self) -> MutexGuard<'_, BTreeSet<Place>> {
        self.0
            .reserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn pins(&self) -> MutexGuard<'_, BTreeMap<FileId, usize>> {
        self.0.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that is to be announced.
    pub(super) fn notify(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn shares(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<Share>>> {
        self.0.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All rows of a table that one peer's own doings fill.
pub(super) async fn read_all(
    store: &Store,
    table: Table,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
    let limit = PageLimit {
        rows: SCAN_PAGE_ROWS,
        bytes: SCAN_PAGE_BYTES,
    };
    let (mut all, mut range) = (Vec::new(), KeyRange::all());
    loop {
        let page = store.range(table, range, limit).await?;
        all.extend(page.rows);
        match all.last() {
            Some((last, _)) if page.more => range = KeyRange::all().after(last),
            _ => return Ok(all),
        }
    }
}

/// The bytes of a path, which need not be text.
pub(super) fn path_bytes(path: &std::path::Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}

/// The path with these bytes.
pub(super) fn path_from(bytes: Vec<u8>) -> PathBuf {
    let path: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(bytes);
    path.into()
}

/// The error for a value of `table` that cannot be read.
pub(super) const fn damaged(table: Table) -> StoreError {
    StoreError::Corrupt {
        table: table.name(),
        what: "a value that cannot be read",
    }
}

/// The bytes of a value.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(value).map_err(|_| StoreError::Corrupt {
        table: "none",
        what: "a value that cannot be written",
    })
}

fn decode(value: &[u8]) -> Result<Share, StoreError> {
    // Whether the group was told is found out by telling.
    from_row(decode_row(value)?, true)
}

fn decode_row(value: &[u8]) -> Result<ShareRow, StoreError> {
    match postcard::take_from_bytes(value) {
        Ok((row, [])) => Ok(row),
        _ => Err(damaged(Table::Shares)),
    }
}

fn from_row(row: ShareRow, published: bool) -> Result<Share, StoreError> {
    let ShareRow::V1 {
        group,
        name,
        id,
        sha256,
        path,
        stamp,
        recorded,
    } = row;
    Ok(Share {
        group,
        name,
        id,
        layout: Layout::new(stamp.size).map_err(|_| damaged(Table::Shares))?,
        sha256,
        path: path_from(path),
        stamp,
        wrong: AtomicBool::new(stamp.is_of_none()),
        found: Mutex::new(Found::AsRecorded),
        published: AtomicBool::new(published),
        recorded: AtomicBool::new(recorded),
    })
}

fn found_at(share: &Share) -> Found {
    match Source::open(&share.path) {
        Ok(source) if source.stamp() == share.stamp => Found::AsRecorded,
        Ok(_) => Found::Changed,
        Err(_) => Found::Unreadable,
    }
}

fn share_key(group: &GroupName, name: &FileName) -> Vec<u8> {
    [group.folded().as_bytes(), b"\0", name.as_str().as_bytes()].concat()
}

fn page_key(id: FileId, page: u32) -> Vec<u8> {
    [id.as_bytes().as_slice(), &page.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
