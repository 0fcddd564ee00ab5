//! An uploader who publishes what is not true of his file.

use super::*;
use crate::{DownloadError, VerifyError, wire::tracker::NewFile};

#[tokio::test]
async fn a_false_sha256_is_found_by_whoever_checks_it() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1_200_000));
    let alice = world.sharer("alice", &photos, &file).await;
    let mallory = world.raw_user("mallory").await;
    mallory.join(&photos, &alice).await;
    let lie = file_name("lie");
    let published = NewFile {
        name: lie.clone(),
        id: file.id(),
        size: file.content.len() as u64,
        sha256: Digest::of(b"something else"),
    };
    let (change, of) = (change(), photos.clone());
    mallory
        .done(Request::PublishFile {
            change,
            group: of,
            file: published,
        })
        .await;
    let bob = world.login("bob").await;
    bob.join(&photos).await.unwrap();
    alice.accept(&photos, bob.user()).await.unwrap();

    let (dest, plain) = (world.path("got"), DownloadOptions::default());
    let checked = plain.check_sha256(true);
    for _ in 0..2 {
        let refused = bob.download(&photos, &lie, &dest, checked).await;
        let is_mismatch =
            matches!(&refused, Err(DownloadError::Sha256Mismatch { name }) if *name == lie);
        assert!(is_mismatch, "{refused:?}");
        assert!(!dest.exists(), "it was put in place");
        assert!(bob.shares().is_empty());
    }
    // The content is what the group has: whoever does not ask for more gets it, and it goes on being served.
    let report = bob.download(&photos, &lie, &dest, plain).await.unwrap();
    assert_eq!((report.chunks_resumed, report.sha256_checked), (3, false));
    assert_eq!(std::fs::read(&dest).unwrap(), file.content);
    let found = bob.verify(&photos, &lie, true).await;
    assert!(
        matches!(found, Err(VerifyError::Sha256Mismatch { .. })),
        "{found:?}"
    );
    assert!(!bob.shares()[0].changed);
    let again = bob.download(&photos, &lie, &dest, checked).await;
    assert!(
        matches!(again, Err(DownloadError::Sha256Mismatch { .. })),
        "{again:?}"
    );
    // Of what the honest one published it is true.
    let honest = bob.download(&photos, &file.name, &dest, checked).await;
    assert!(honest.unwrap().sha256_checked);
}
