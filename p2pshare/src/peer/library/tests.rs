//! What is kept of shares, and of the digests that go with them.

use super::*;
use crate::{
    content::page_root,
    golden::{Golden, variants},
    store::{MemoryDisk, StoreKind},
};

variants!(ShareRow { V1 });
variants!(PageRow { V1 });

#[test]
fn golden_bytes() {
    let (group, name) = names();
    let id = FileId::from_bytes([0x1d; 32]);
    let digest = Digest::from_bytes([0x5a; 32]);
    let share = ShareRow::V1 {
        group: group.clone(),
        name: name.clone(),
        id,
        sha256: digest,
        path: b"/home/alice/a.jpg".to_vec(),
        stamp: Stamp::from_parts(1_073_741_825, 1_700_000_000, 999_999_999),
        recorded: true,
    };
    let page = PageRow::V1 {
        digests: vec![digest; 2],
        proof: vec![page_root(&[digest])],
    };
    let mut golden = Golden::open("peer_library");
    golden.values("share", &[("of_alice", share)]);
    golden.values("page", &[("with_proof", page)]);
    golden.finish();
    assert_eq!(share_key(&group, &name), b"photos\0a.jpg");
    let key = [&[0x1d; 32][..], &[0, 0, 1, 44]].concat();
    assert_eq!(page_key(id, 300), key);
}

fn names() -> (GroupName, FileName) {
    (
        GroupName::new("Photos").unwrap(),
        FileName::new("a.jpg").unwrap(),
    )
}

fn share(group: &GroupName, name: &FileName, path: &std::path::Path) -> NewShare {
    NewShare {
        group: group.clone(),
        name: name.clone(),
        id: FileId::from_bytes([1; 32]),
        sha256: Digest::from_bytes([2; 32]),
        path: path.to_owned(),
        stamp: Stamp::of(&path.metadata().unwrap()),
        recorded: true,
    }
}

#[tokio::test]
async fn shares_survive_a_restart_and_pages_go_with_the_last_of_them() {
    let disk = MemoryDisk::default();
    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"content").unwrap();
    let ((group, name), other) = (names(), FileName::new("b.jpg").unwrap());
    let id = FileId::from_bytes([1; 32]);
    let page = PageRow::V1 {
        digests: vec![Digest::from_bytes([3; 32])],
        proof: Vec::new(),
    };
    let library = Library::load(store.clone()).await.unwrap();
    library
        .put_pages(id, vec![(0, page.clone())])
        .await
        .unwrap();
    library
        .add(share(&group, &name, file.path()))
        .await
        .unwrap();
    library
        .add(share(&group, &other, file.path()))
        .await
        .unwrap();
    store.shutdown().await.unwrap();

    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let library = Library::load(store).await.unwrap();
    assert_eq!(library.get(&group, &name).unwrap().path, file.path());
    assert_eq!(library.page(id, 0).await.unwrap(), Some(page.clone()));
    let another = FileId::from_bytes([9; 32]);
    assert!(!library.remove(&group, &name, another).await.unwrap());
    assert!(library.remove(&group, &name, id).await.unwrap());
    assert!(!library.remove(&group, &name, id).await.unwrap());
    assert_eq!(library.page(id, 0).await.unwrap(), Some(page));
    assert!(library.remove(&group, &other, id).await.unwrap());
    assert_eq!(library.page(id, 0).await.unwrap(), None);
}

#[tokio::test]
async fn pages_stay_while_somebody_is_at_work_with_them() {
    let store = Store::open_memory(&MemoryDisk::default(), StoreKind::Peer)
        .await
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"content").unwrap();
    let (group, name) = names();
    let library = Library::load(store).await.unwrap();
    let page = PageRow::V1 {
        digests: vec![Digest::from_bytes([3; 32])],
        proof: Vec::new(),
    };
    let new = || share(&group, &name, file.path());
    let id = new().id;
    library
        .put_pages(id, vec![(0, page.clone())])
        .await
        .unwrap();
    library.add(new()).await.unwrap();
    let pins = [library.pin(id), library.pin(id)];
    assert!(library.remove(&group, &name, id).await.unwrap());
    assert_eq!(library.page(id, 0).await.unwrap(), Some(page.clone()));
    let [one, other] = pins;
    drop(one);
    library.add(new()).await.unwrap();
    assert!(library.remove(&group, &name, id).await.unwrap());
    assert_eq!(library.page(id, 0).await.unwrap(), Some(page));
    drop(other);
    library.add(new()).await.unwrap();
    let before = library.get(&group, &name).unwrap();
    let id = FileId::from_bytes([9; 32]);
    library.add(NewShare { id, ..new() }).await.unwrap();
    assert!(before.is_changed(), "whoever reads it reads no further");
    assert_eq!(library.page(before.id, 0).await.unwrap(), None);
}

#[tokio::test]
async fn what_was_found_wrong_stays_so_until_it_is_found_right() {
    let disk = MemoryDisk::default();
    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"content").unwrap();
    let (group, name) = names();
    let library = Library::load(store.clone()).await.unwrap();
    let new = share(&group, &name, file.path());
    let (id, stamp) = (new.id, new.stamp);
    library.add(new).await.unwrap();
    let before = library.get(&group, &name).unwrap();
    let none = Stamp::of_none(stamp.size);
    assert!(library.restamp(&before, none).await.unwrap());
    assert!(library.find(&group, id).is_none() && library.announced().is_empty());
    store.shutdown().await.unwrap();

    let store = Store::open_memory(&disk, StoreKind::Peer).await.unwrap();
    let library = Library::load(store).await.unwrap();
    let share = library.get(&group, &name).unwrap();
    assert!(share.is_changed() && library.find(&group, id).is_none());
    assert!(library.restamp(&share, stamp).await.unwrap());
    assert_eq!(library.find(&group, id).unwrap().stamp, stamp);
    assert_eq!(library.announced().len(), 1);
    // Who stopped sharing it meanwhile does not share it again.
    assert!(library.remove(&group, &name, id).await.unwrap());
    assert!(!library.restamp(&share, stamp).await.unwrap());
    assert!(library.get(&group, &name).is_none());
}

#[tokio::test]
async fn a_name_is_reserved_once_at_a_time() {
    let store = Store::open_memory(&MemoryDisk::default(), StoreKind::Peer)
        .await
        .unwrap();
    let library = Library::load(store).await.unwrap();
    let (group, name) = names();
    let reserved = library.reserve(&group, &name).unwrap();
    let shouted = GroupName::new("PHOTOS").unwrap();
    assert!(library.reserve(&shouted, &name).is_none());
    drop(reserved);
    assert!(library.reserve(&shouted, &name).is_some());
}

#[tokio::test]
async fn a_file_is_served_as_it_was_recorded_and_never_once_it_was_wrong() {
    let store = Store::open_memory(&MemoryDisk::default(), StoreKind::Peer)
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"content").unwrap();
    let (group, name) = names();
    let library = Library::load(store).await.unwrap();
    library.add(share(&group, &name, &path)).await.unwrap();
    let id = FileId::from_bytes([1; 32]);
    let found = library.find(&group, id).unwrap();
    assert!(
        library
            .find(&GroupName::new("other").unwrap(), id)
            .is_none()
    );
    let shown = |library: &Library| {
        let status = &library.status()[0];
        let changes = *library.changes().borrow();
        (
            status.changed,
            status.unreadable,
            library.find(&group, id).is_some(),
            changes,
        )
    };
    library.look_at_files().await;
    assert_eq!(
        shown(&library),
        (false, false, true, 0),
        "nothing to announce"
    );
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    library.look_at_files().await;
    assert_eq!(shown(&library), (false, true, false, 1));
    std::fs::rename(dir.path().join("away"), &path).unwrap();
    library.look_at_files().await;
    assert_eq!(shown(&library), (false, false, true, 2));
    std::fs::write(&path, b"other and longer").unwrap();
    library.look_at_files().await;
    assert_eq!(shown(&library), (true, false, false, 3));
    library.note_found(&found, Found::AsRecorded);
    library.mark_wrong(&found);
    assert!(library.find(&group, id).is_none());
    library.note_found(&found, Found::AsRecorded);
    assert_eq!(shown(&library), (true, false, false, 5));
}
