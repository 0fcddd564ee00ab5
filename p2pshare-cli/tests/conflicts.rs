//! Two who want the same: the same new name at the same moment, the same place on disk, the same content under two
//! names, and a file of one who was put out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;

use world::{Finished, Process, World, same_content};

const FAILED: i32 = 1;
const DENIED: i32 = 4;

/// How many of those who have a file `list_files` shows to be online.
fn online(world: &World, user: &str, name: &str) -> u32 {
    let files = world.ok_as(user, &["list_files", "g"]);
    let line = files
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name))
        .expect(&files);
    line.split_whitespace()
        .rev()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Uploads that are started at the same time: `(user, path)` each.
fn upload_at_once(world: &World, name: &str, uploads: [(&str, &str); 2]) -> [Finished; 2] {
    uploads
        .map(|(user, path)| {
            let args = ["upload_file", path, "g", "--name", name, "--as", user];
            Process::spawn(world.command(&args))
        })
        .map(|mut process| process.wait())
}

#[test]
fn of_two_uploads_of_one_new_name_one_succeeds() {
    let world = World::new();
    world.users(&["Alice", "Bob", "Carol"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Bob", &["join_group", "g"]);
    for (pair, uploads) in [
        [("Alice", "a.bin"), ("Alice", "a.bin")],
        [("Alice", "a.bin"), ("Alice", "b.bin")],
        [("Alice", "a.bin"), ("Bob", "b.bin")],
    ]
    .into_iter()
    .enumerate()
    {
        for round in 0..3 {
            let name = format!("new-{pair}-{round}");
            // New content too: those who have it under another name would count as online.
            for path in ["a.bin", "b.bin"] {
                let content = world.write_file(&format!("{name}-{path}"), 1_300_000);
                fs::rename(content, world.work(path)).unwrap();
            }
            let finished = upload_at_once(&world, &name, uploads);
            let winners: Vec<_> = (0..2).filter(|&i| finished[i].code == Some(0)).collect();
            assert_eq!(winners.len(), 1, "{uploads:?} {finished:?}");
            let [winner] = winners[..] else {
                unreachable!()
            };
            let loser = &finished[1 - winner];
            assert_eq!(loser.code, Some(FAILED), "{loser:?}");
            assert_eq!(online(&world, "Carol", &name), 1, "{uploads:?}");
            let copy = format!("copy-{name}");
            world.ok_as("Carol", &["download_file", "g", &name, &copy]);
            assert!(same_content(
                &world.work(uploads[winner].1),
                &world.work(&copy)
            ));
        }
    }
}

#[test]
fn a_file_of_the_user_where_the_partial_file_would_be_is_left_alone() {
    let world = World::new();
    world.write_file("x", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "x", "g"]);
    fs::create_dir(world.work("bob")).unwrap();
    let partial = world.work("bob/x.p2part");
    // Shorter than the file, as long, and longer.
    for len in [4, 600_000, 700_000] {
        let mine = vec![b'm'; len];
        fs::write(&partial, &mine).unwrap();
        let refused = world.run(&["download_file", "g", "x", "bob/x", "--as", "Bob"]);
        assert_eq!(refused.code, Some(FAILED), "{len}: {refused:?}");
        let line = refused
            .stderr
            .lines()
            .find(|line| line.starts_with("error: "));
        assert!(
            line.is_some_and(|line| line.contains("x.p2part")),
            "{refused:?}"
        );
        assert!(fs::read(&partial).unwrap() == mine, "{len}: it was changed");
        assert!(!world.work("bob/x").exists());
    }
    fs::remove_file(&partial).unwrap();
    world.ok_as("Bob", &["download_file", "g", "x", "bob/x"]);
    assert!(same_content(&world.work("x"), &world.work("bob/x")));
}

#[test]
fn an_uploader_who_was_put_out_withdraws_nothing_for_all() {
    let world = World::new();
    world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g"]);
    world.ok_as("Bob", &["join_group", "g"]);
    world.ok_as("Alice", &["accept_request", "g", "Bob"]);
    world.ok_as("Bob", &["upload_file", "a.bin", "g"]);
    world.ok_as("Alice", &["download_file", "g", "a.bin", "alice.bin"]);
    world.ok_as("Alice", &["remove_member", "g", "Bob"]);
    let refused = world.run(&["stop_sharing", "g", "a.bin", "--for-all", "--as", "Bob"]);
    assert_eq!(refused.code, Some(DENIED), "{refused:?}");
    assert!(world.ok_as("Alice", &["list_files", "g"]).contains("a.bin"));
}

#[test]
fn one_content_under_two_names_is_shared_and_stopped_by_name() {
    let world = World::new();
    world.write_file("x1", 600_000);
    fs::copy(world.work("x1"), world.work("x2")).unwrap();
    world.users(&["Alice", "Bob", "Carol"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    fs::create_dir(world.work("bob")).unwrap();
    for name in ["x1", "x2"] {
        world.ok_as("Alice", &["upload_file", name, "g"]);
        let dest = format!("bob/{name}");
        world.ok_as("Bob", &["download_file", "g", name, &dest]);
        assert_eq!(online(&world, "Carol", name), 2);
    }
    world.ok_as("Bob", &["stop_sharing", "g", "x1"]);
    world.ok_as("Alice", &["logout"]);
    assert_eq!(online(&world, "Carol", "x2"), 1);
    world.ok_as("Carol", &["download_file", "g", "x2", "carol"]);
    assert!(same_content(&world.work("x1"), &world.work("carol")));
}
