//! What becomes of partial files whatever the disk, or somebody else, does to them.

use super::*;
use crate::{content::CHUNK_SIZE, peer::download::journal::UnderWay};

fn layout(bytes: u64) -> Layout {
    Layout::new(bytes).unwrap()
}

fn open(dest: &Path, layout: Layout, known: Known) -> Result<Partial, DownloadError> {
    let reserved = UnderWay::default().reserve(dest).unwrap();
    Partial::open(dest, layout, known, reserved)
}

fn is_in_the_way(opened: &Result<Partial, DownloadError>) -> bool {
    matches!(opened, Err(DownloadError::InTheWay { .. }))
}

#[tokio::test]
async fn chunks_in_pieces_land_where_they_belong() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("f");
    let content: Vec<u8> = (0..CHUNK_SIZE as usize + 999)
        .map(|i| (i % 251) as u8)
        .collect();
    let layout = layout(content.len() as u64);
    let partial = open(&dest, layout, Known::None).unwrap();
    let (writes, mut written) = partial.start_writer();
    for chunk in layout.chunks().rev() {
        let start = layout.offset(chunk) as usize;
        let end = start + layout.chunk_len(chunk) as usize;
        let pieces = content[start..end]
            .chunks(700)
            .map(Bytes::copy_from_slice)
            .collect();
        writes.send(Write { chunk, pieces }).await.unwrap();
        assert_eq!(written.recv().await.unwrap().unwrap(), chunk);
    }
    let all = Bitfield::full(layout.chunk_count());
    let digest = |chunk: ChunkIndex| {
        let start = layout.offset(chunk) as usize;
        let end = start + layout.chunk_len(chunk) as usize;
        (chunk.get() == 0).then(|| Digest::of(&content[start..end]))
    };
    let verified = partial.verify(&all, digest).unwrap();
    assert_eq!(verified.iter_set().collect::<Vec<_>>(), [0]);
    assert_eq!(
        partial.sha256(&CancellationToken::new()).unwrap(),
        Digest::of(&content)
    );
    partial.put_in_place(false).unwrap();
    assert_eq!(std::fs::read(&dest).unwrap(), content);
    assert!(!partial_path(&dest).exists());
}

#[test]
fn a_destination_is_replaced_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("f");
    let partial = open(&dest, layout(5), Known::None).unwrap();
    std::fs::write(&dest, b"mine").unwrap();
    assert!(matches!(
        partial.put_in_place(false),
        Err(DownloadError::DestinationTaken { partial, .. }) if partial == partial_path(&dest)
    ));
    assert_eq!(std::fs::read(&dest).unwrap(), b"mine");
    let partial = open(&dest, layout(5), Known::Begun).unwrap();
    partial.put_in_place(true).unwrap();
    assert_eq!(std::fs::read(&dest).unwrap(), [0; 5]);
}

#[test]
fn one_download_at_a_time_and_no_links() {
    let dir = tempfile::tempdir().unwrap();
    let (dest, victim) = (dir.path().join("f"), dir.path().join("victim"));
    let first = open(&dest, layout(5), Known::None).unwrap();
    assert!(matches!(
        open(&dest, layout(5), Known::Begun),
        Err(DownloadError::AlreadyRunning { .. })
    ));
    drop(first);
    std::fs::write(&victim, b"precious").unwrap();
    std::fs::remove_file(partial_path(&dest)).unwrap();
    std::os::unix::fs::symlink(&victim, partial_path(&dest)).unwrap();
    assert!(is_in_the_way(&open(&dest, layout(5), Known::Begun)));
    std::fs::remove_file(partial_path(&dest)).unwrap();
    std::fs::hard_link(&victim, partial_path(&dest)).unwrap();
    assert!(is_in_the_way(&open(&dest, layout(5), Known::Begun)));
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    std::fs::remove_file(partial_path(&dest)).unwrap();
    std::fs::create_dir(partial_path(&dest)).unwrap();
    assert!(is_in_the_way(&open(&dest, layout(5), Known::Begun)));
}

#[test]
fn a_file_put_in_the_place_of_the_partial_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("f");
    let partial = open(&dest, layout(5), Known::None).unwrap();
    let mark = partial.mark().unwrap();
    write_all_at(partial.file(), &[Bytes::from_static(b"right")], 0).unwrap();
    drop(partial);
    // It is known again, however short it was cut.
    let again = open(&dest, layout(9), Known::Made(mark)).unwrap();
    assert!(!again.is_doubtful());
    assert_eq!(
        std::fs::read(partial_path(&dest)).unwrap(),
        b"right\0\0\0\0"
    );
    drop(again);

    std::fs::rename(partial_path(&dest), dir.path().join("old")).unwrap();
    std::fs::write(partial_path(&dest), b"mine").unwrap();
    for known in [Known::Begun, Known::Made(mark)] {
        let mut foreign = open(&dest, layout(9), known).unwrap();
        let refused = foreign.claim(&Bitfield::new(1)).map(|()| foreign);
        assert!(is_in_the_way(&refused));
        assert_eq!(std::fs::read(partial_path(&dest)).unwrap(), b"mine");
    }
    Partial::discard(&dest, mark);
    assert!(partial_path(&dest).exists());
    // Unless it has what the download has, as a copy does.
    let mut copy = open(&dest, layout(9), Known::Made(mark)).unwrap();
    copy.claim(&Bitfield::full(1)).unwrap();
    assert_eq!(std::fs::read(partial_path(&dest)).unwrap().len(), 9);
    Partial::discard(&dest, copy.mark().unwrap());
    assert!(!partial_path(&dest).exists());
}

#[test]
fn a_file_that_is_not_known_to_be_partial_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("f");
    std::fs::write(partial_path(&dest), b"mine").unwrap();
    assert!(matches!(
        open(&dest, layout(5), Known::None),
        Err(DownloadError::InTheWay { .. })
    ));
    assert_eq!(std::fs::read(partial_path(&dest)).unwrap(), b"mine");
}

#[test]
fn what_took_the_place_of_a_partial_file_is_neither_read_nor_put_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (dest, aside) = (dir.path().join("f"), dir.path().join("aside"));
    std::fs::write(&dest, b"old ok").unwrap();
    let take_its_place: [fn(&Path, &Path); 2] = [
        |path, _| std::fs::write(path, b"wrong").unwrap(),
        |path, aside| std::os::unix::fs::symlink(aside, path).unwrap(),
    ];
    for take_its_place in take_its_place {
        let partial = open(&dest, layout(5), Known::None).unwrap();
        write_all_at(partial.file(), &[Bytes::from_static(b"right")], 0).unwrap();
        let path = partial_path(&dest);
        std::fs::rename(&path, &aside).unwrap();
        take_its_place(&path, &aside);
        let digest = |_| Some(Digest::of(b"right"));
        assert!(partial.verify(&Bitfield::full(1), digest).is_err());
        assert!(partial.sha256(&CancellationToken::new()).is_err());
        let put = partial.put_in_place(true);
        assert!(
            matches!(put, Err(DownloadError::InTheWay { .. })),
            "{put:?}"
        );
        assert_eq!(std::fs::read(&dest).unwrap(), b"old ok");
        assert_eq!(std::fs::read(&aside).unwrap(), b"right");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_repair_takes_nothing_away_before_all_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("f");
    let open = || {
        let reserved = UnderWay::default().reserve(&dest).unwrap();
        Partial::open_in_place(&dest, layout(5), reserved).unwrap()
    };
    std::fs::write(&dest, b"rigXt and more").unwrap();
    let partial = open();
    assert_eq!(std::fs::read(&dest).unwrap(), b"rigXt and more");
    let (chunk, pieces) = (layout(5).chunk(0).unwrap(), [Bytes::from_static(b"right")]);
    partial.write(chunk, &pieces).unwrap();
    partial.cut().unwrap();
    assert_eq!(std::fs::read(&dest).unwrap(), b"right");
    drop(partial);
    // What was gone is made, and kept if anything came.
    for is_written in [false, true] {
        std::fs::remove_file(&dest).unwrap();
        let partial = open();
        assert_eq!(std::fs::read(&dest).unwrap(), [0; 5]);
        if is_written {
            partial.write(chunk, &pieces).unwrap();
        }
        drop(partial);
        assert_eq!(dest.exists(), is_written);
        std::fs::write(&dest, b"").unwrap();
    }
    // What was there is kept in any case.
    drop(open());
    assert!(dest.exists());
}

#[test]
fn no_space_is_said_before_anything_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("f");
    let huge = layout(crate::content::MAX_LENGTH);
    assert!(matches!(
        open(&dest, huge, Known::None),
        Err(DownloadError::NoSpace { .. })
    ));
    assert!(!partial_path(&dest).exists());
}

#[tokio::test]
async fn a_disk_that_fails_is_named_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (dest, content) = (dir.path().join("f"), Bytes::from_static(b"right"));
    let chunk = layout(5).chunk(0).unwrap();
    let write = || Write {
        chunk,
        pieces: vec![content.clone()],
    };
    let partial = open(&dest, layout(5), Known::None).unwrap();
    let mark = partial.mark().unwrap();
    partial.faults.plan(Step::Write, Errno::NOSPC);
    let (writes, mut written) = partial.start_writer();
    writes.send(write()).await.unwrap();
    match written.recv().await.unwrap() {
        Err(DownloadError::NoSpace { needed: 5, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(written.recv().await.is_none(), "nothing more is written");
    partial.faults.plan(Step::Write, Errno::IO);
    let (writes, mut written) = partial.start_writer();
    writes.send(write()).await.unwrap();
    let failed = written.recv().await.unwrap().unwrap_err().to_string();
    let path = partial_path(&dest);
    assert!(
        failed.starts_with(&format!("cannot write {}: ", path.display())),
        "{failed}"
    );
    drop((writes, partial));
    while written.recv().await.is_some() {}

    for (step, errno) in [
        (Step::Write, Errno::NOSPC),
        (Step::Sync, Errno::IO),
        (Step::Sync, Errno::NOSPC),
        (Step::Rename, Errno::IO),
        (Step::Rename, Errno::ACCESS),
    ] {
        let partial = open(&dest, layout(5), Known::Made(mark)).unwrap();
        partial.write(chunk, &write().pieces).unwrap();
        partial.faults.plan(step, errno);
        let failed = match step {
            Step::Write => partial.write(chunk, &write().pieces).map(|_| ()),
            _ => partial.put_in_place(false),
        };
        let no_space = matches!(failed, Err(DownloadError::NoSpace { .. }));
        assert!(
            failed.is_err() && no_space == (errno == Errno::NOSPC),
            "{failed:?}"
        );
        assert!(!dest.exists());
        assert_eq!(std::fs::read(&path).unwrap(), b"right");
    }
    let partial = open(&dest, layout(5), Known::Made(mark)).unwrap();
    partial.faults.plan(Step::SyncFolder, Errno::IO);
    // It is in its place, and perhaps not for ever: that is said, and a repetition finds it there.
    assert!(partial.put_in_place(false).is_err());
    assert_eq!(std::fs::read(&dest).unwrap(), b"right");
}

#[test]
fn a_folder_that_is_gone_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("gone").join("f");
    std::fs::create_dir(dest.parent().unwrap()).unwrap();
    let partial = open(&dest, layout(5), Known::None).unwrap();
    std::fs::remove_dir_all(dest.parent().unwrap()).unwrap();
    assert!(matches!(
        partial.put_in_place(false),
        Err(DownloadError::BadDestination { .. })
    ));
}

#[test]
fn long_names_get_partial_names_that_fit_and_differ() {
    let (one, two) = ("x".repeat(255), "x".repeat(254) + "y");
    let partials = [one, two].map(|name| partial_path(&Path::new("/d").join(name)));
    assert_ne!(partials[0], partials[1]);
    for partial in partials {
        assert_eq!(partial.file_name().unwrap().len(), 255);
        assert_eq!(partial.parent().unwrap(), Path::new("/d"));
    }
    assert_eq!(partial_path(Path::new("/d/a")), Path::new("/d/a.p2part"));
    // A character is left out whole.
    let accented = format!("{}x", "é".repeat(127));
    let partial = partial_path(Path::new(&accented));
    assert_eq!(partial.to_str().unwrap().len(), 254);
}
