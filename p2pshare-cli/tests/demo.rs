//! The demo: the whole of it in one process, which leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use world::Process;

#[test]
fn the_demo_works_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("mine.bin");
    fs::write(&file, vec![7; 3_000_000]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pshare"));
    command
        .arg("demo")
        .arg(&file)
        .env("TMPDIR", temp.path())
        .env("HOME", temp.path());
    let stdout = Process::spawn(command).wait().expect_ok(&["demo"]);
    let steps = [
        "p2pshare-tracker",
        "p2pshare create_user Alice",
        "p2pshare login Alice",
        "p2pshare create_group",
        "p2pshare upload_file",
        "p2pshare login Bob",
        "p2pshare join_group",
        "p2pshare --as Alice accept_request",
        "p2pshare download_file",
        "cmp ",
    ];
    let mut rest = stdout.as_str();
    for step in steps {
        rest = rest
            .split_once(&format!("$ {step}"))
            .unwrap_or_else(|| panic!("{step:?} is missing in\n{stdout}"))
            .1;
    }
    assert!(
        stdout.contains("MB/s") || stdout.contains("GB/s"),
        "{stdout}"
    );
    assert_eq!(
        fs::read_dir(temp.path()).unwrap().count(),
        1,
        "something was left behind"
    );
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind_either() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pshare"));
    command
        .arg("demo")
        .env("TMPDIR", temp.path())
        .env("HOME", temp.path());
    let mut demo = Process::spawn(command);
    demo.wait_for_line("p2pshare upload_file");
    demo.signal(Signal::INT);
    let finished = demo.wait();
    assert_eq!(finished.code, Some(130), "{}", finished.stderr);
    assert_eq!(
        fs::read_dir(temp.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}

#[test]
fn a_demo_of_a_missing_file_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pshare"));
    command.args(["demo", "/no/such/file"]);
    let finished = Process::spawn(command).wait();
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stderr.contains("error: cannot read /no/such/file"),
        "{}",
        finished.stderr
    );
}
