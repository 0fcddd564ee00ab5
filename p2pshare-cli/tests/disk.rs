//! Disks as they are: full, unwritable, gone; names of every kind; and shared files that change, or vanish and come
//! back. What is written is right or not there, and what stands in the way is left alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, TrySendError};

use rustix::fs::{FileType, Mode};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use world::{Finished, Process, World, same_content};

const MIB: u64 = 1024 * 1024;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 6;
const CHANGED: i32 = 7;
const LINE: &[u8] = b"one more line\n";

/// What somebody does to a file.
type Change = fn(&Path);

/// Alice shares `a.bin` in an open group, and Bob is logged in at another home, so that nothing of his brings back
/// Alice.
fn alice_shares(bytes: usize) -> World {
    let world = World::new();
    world.write_file("a.bin", bytes);
    world.users(&["Alice"]);
    world.ok(&["create_group", "g", "--open"]);
    world.ok(&["upload_file", "a.bin", "g"]);
    world
}

fn log_in_bob(world: &World) {
    bob(world, &["create_user", "Bob", "pass123"]).expect_ok(&["create_user"]);
    bob(world, &["login", "Bob", "pass123"]).expect_ok(&["login"]);
}

fn bob<S: AsRef<OsStr>>(world: &World, args: &[S]) -> Finished {
    Process::spawn(bobs(world, args)).wait()
}

fn bobs<S: AsRef<OsStr>>(world: &World, args: &[S]) -> Command {
    let mut command = world.command_at_home("bob", &[]);
    command.args(args);
    command
}

/// A command of a logged-in Bob has to fail like this.
#[track_caller]
fn bob_is_refused(world: &World, args: &[&str], code: i32, message: &str) -> String {
    let finished = bob(world, args);
    let line = finished
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("error: "));
    assert_eq!(
        (finished.code, line),
        (Some(code), Some(message)),
        "{}",
        finished.stderr
    );
    finished.stderr
}

/// Begins a download of Bob's, and does something to the disk before the first byte comes: Alice stands still
/// meanwhile.
fn begin_and<R>(world: &World, dest: &str, do_something: impl FnOnce() -> R) -> (Process, R) {
    let alice = world.lock_holder("alice");
    kill_process(alice, Signal::STOP).unwrap();
    let mut running = Process::spawn(bobs(
        world,
        &["download_file", "g", "a.bin", dest, "--wait"],
    ));
    let partial = world.work(&format!("{dest}.p2part"));
    running.run_until(|| fs::metadata(&partial).is_ok_and(|partial| partial.len() > 0));
    let done = do_something();
    kill_process(alice, Signal::CONT).unwrap();
    (running, done)
}

#[test]
fn a_full_disk_is_named_and_the_download_goes_on_once_there_is_room() {
    let world = alice_shares(16 * MIB as usize);
    let small = world.work("small");
    fs::create_dir(&small).unwrap();
    // A disk of 24 MiB, that only Bob's background peer sees.
    let script = "mount -t tmpfs -o size=24m tmpfs small && exec \"$@\"";
    if !can_mount(&small) {
        println!("skipped: this machine does not let a test mount a disk");
        return;
    }
    bob(&world, &["create_user", "Bob", "pass123"]).expect_ok(&["create_user"]);
    let login = bobs(&world, &["login", "Bob", "pass123"]);
    let mount = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
    ];
    Process::spawn(within(&mount, &login))
        .wait()
        .expect_ok(&["login"]);
    let bobs_root = PathBuf::from(format!(
        "/proc/{}/root",
        world.lock_holder("bob").as_raw_pid()
    ));
    let disk = bobs_root.join(small.strip_prefix("/").unwrap());
    let ballast = disk.join("ballast");
    let fill = |bytes: u64| fs::write(&ballast, vec![1; bytes as usize]);

    // Up front.
    fill(12 * MIB).unwrap();
    let dest = small.join("a.bin");
    let hint = bob_is_refused(
        &world,
        &["download_file", "g", "a.bin", "small/a.bin"],
        1,
        &format!(
            "no space left for {}: {} bytes needed, {} available",
            dest.display(),
            16 * MIB,
            12 * MIB
        ),
    );
    assert!(hint.contains("make room"), "{hint}");
    assert!(!disk.join("a.bin.p2part").exists());
    fs::remove_file(&ballast).unwrap();

    // In the middle, by somebody else.
    let alice = world.lock_holder("alice");
    kill_process(alice, Signal::STOP).unwrap();
    let mut running = Process::spawn(bobs(
        &world,
        &["download_file", "g", "a.bin", "small/a.bin", "--wait"],
    ));
    let partial = disk.join("a.bin.p2part");
    running.run_until(|| fs::metadata(&partial).is_ok_and(|partial| partial.len() > 0));
    fill(16 * MIB).unwrap();
    kill_process(alice, Signal::CONT).unwrap();
    let finished = running.wait();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let error = format!("error: no space left for {}: ", dest.display());
    assert!(finished.stderr.contains(&error), "{}", finished.stderr);
    let shown = bob(&world, &["show_downloads"]).expect_ok(&["show_downloads"]);
    assert!(shown.contains("failed: no space left for "), "{shown}");
    let kept = fs::metadata(&partial).unwrap().blocks() * 512;
    assert!(kept > 0 && kept <= 8 * MIB, "{kept}");

    fs::remove_file(&ballast).unwrap();
    let said =
        bob(&world, &["download_file", "g", "a.bin", "small/a.bin"]).expect_ok(&["download_file"]);
    assert!(said.contains("resumed: skipped "), "{said}");
    assert!(same_content(&world.work("a.bin"), &disk.join("a.bin")));
}

#[test]
fn a_destination_that_cannot_be_is_refused_and_one_that_is_taken_is_left_alone() {
    let world = alice_shares(3 * MIB as usize);
    bob(&world, &["create_user", "Bob", "pass123"]).expect_ok(&["create_user"]);
    let login = bobs(&world, &["login", "Bob", "pass123"]);
    let held_to_permissions = hold_to_permissions(&login);
    Process::spawn(held_to_permissions.unwrap_or(login))
        .wait()
        .expect_ok(&["login"]);
    let shut = world.work("shut");
    fs::create_dir(&shut).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).unwrap();
    let path = shut.join("a.bin.p2part");
    let message = format!(
        "cannot write {}: Permission denied (os error 13)",
        path.display()
    );
    bob_is_refused(
        &world,
        &["download_file", "g", "a.bin", "shut/"],
        1,
        &message,
    );
    let dest = world.work("none/a.bin");
    let message = format!(
        "cannot write to {}: its folder does not exist",
        dest.display()
    );
    bob_is_refused(
        &world,
        &["download_file", "g", "a.bin", "none/a.bin"],
        1,
        &message,
    );

    // The folder goes in the middle, and comes back empty.
    let gone = world.work("gone");
    fs::create_dir(&gone).unwrap();
    let (mut running, ()) = begin_and(&world, "gone/a.bin", || fs::remove_dir_all(&gone).unwrap());
    let finished = running.wait();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let message = format!(
        "error: cannot write to {}: its folder, or the partial file in it, is gone with what was downloaded\n",
        gone.join("a.bin").display()
    );
    assert!(finished.stderr.contains(&message), "{}", finished.stderr);
    fs::create_dir(&gone).unwrap();
    bob(&world, &["download_file", "g", "a.bin", "gone/a.bin"]).expect_ok(&["download_file"]);
    assert!(same_content(&world.work("a.bin"), &gone.join("a.bin")));
    bob(&world, &["stop_sharing", "g", "a.bin"]).expect_ok(&["stop_sharing"]);

    // Somebody makes the destination in the middle.
    let dest = world.work("taken.bin");
    let (mut running, ()) = begin_and(&world, "taken.bin", || fs::write(&dest, "mine").unwrap());
    let finished = running.wait();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let partial = world.work("taken.bin.p2part");
    let message = format!(
        "error: {} exists now; all that was downloaded is in {}\n",
        dest.display(),
        partial.display()
    );
    assert!(finished.stderr.contains(&message), "{}", finished.stderr);
    assert!(finished.stderr.contains("--force"), "{}", finished.stderr);
    assert_eq!(fs::read(&dest).unwrap(), b"mine");
    assert!(same_content(&world.work("a.bin"), &partial));
    // As the hint says, and with nothing fetched again.
    let args = ["download_file", "g", "a.bin", "taken.bin", "--force"];
    let said = bob(&world, &args).expect_ok(&args);
    assert!(said.contains("resumed: skipped 6 of 6 chunks"), "{said}");
    assert!(same_content(&world.work("a.bin"), &dest) && !partial.exists());

    // What is nobody's partial file is left alone.
    let foreign = world.work("other.bin.p2part");
    fs::write(&foreign, "mine").unwrap();
    let message = format!(
        "{} is in the way, and not known to be a partial download; move it away",
        foreign.display()
    );
    bob_is_refused(
        &world,
        &["download_file", "g", "a.bin", "other.bin"],
        1,
        &message,
    );
    assert_eq!(fs::read(&foreign).unwrap(), b"mine");
}

#[test]
fn files_of_every_name_go_from_one_to_the_other() {
    let world = alice_shares(600_000);
    log_in_bob(&world);
    let long = format!("{}.bin", "é".repeat(125) + "x");
    assert_eq!(long.len(), 255);
    let names = [
        long.as_str(),
        "with spaces  and tabs no.bin",
        "-leading dash",
        "~",
        "$HOME `id` \"quotes\" 'and' \\no",
        "🦀🧪.bin",
        "*?[a]",
        "ends with a dot.",
        "%2e%2e",
    ];
    fs::create_dir(world.work("got")).unwrap();
    for name in names {
        let name = name.replace('\\', "");
        world.write_file(&name, 700_000);
        let path = world.work(&name);
        world.ok(&["upload_file", path.to_str().unwrap(), "g"]);
        bob(&world, &["download_file", "g", "--", &name, "got/"])
            .expect_ok(&["download_file", &name]);
        assert!(same_content(&path, &world.work("got").join(&name)));
    }
    // A name in another normal form is the same name.
    fs::write(world.work("e\u{301}.bin"), "decomposed").unwrap();
    assert!(
        world
            .ok(&["upload_file", "e\u{301}.bin", "g"])
            .contains("Uploaded \u{e9}.bin")
    );
    bob(&world, &["download_file", "g", "\u{e9}.bin"]).expect_ok(&["download_file"]);
    assert_eq!(fs::read(world.work("\u{e9}.bin")).unwrap(), b"decomposed");
    // On disk anything goes, and in a group what can be shown.
    for (name, message) in [
        ("two\nlines", "a file name cannot contain '\\n'"),
        ("back\\slash", "a file name cannot contain '\\\\'"),
        (
            "mirror\u{202e}gpj.exe",
            "a file name cannot contain '\\u{202e}'",
        ),
    ] {
        fs::write(world.work(name), "content").unwrap();
        world.refused(&["upload_file", name, "g"], USAGE, message);
        world.ok(&["upload_file", name, "g", "--name", &name.len().to_string()]);
    }
    // A destination need not be text; on some systems it has to be.
    let odd = OsString::from_vec(b"odd \xff\xfe".to_vec());
    if fs::write(world.work("probe").with_file_name(&odd), b"").is_ok() {
        fs::remove_file(world.work("probe").with_file_name(&odd)).unwrap();
        let args = [
            OsStr::new("download_file"),
            OsStr::new("g"),
            OsStr::new("a.bin"),
            &odd,
        ];
        bob(&world, &args).expect_ok(&args);
        assert!(same_content(
            &world.work("a.bin"),
            &world.work("probe").with_file_name(&odd)
        ));
    }
    let dest = long.replace(".bin", ".two");
    bob(&world, &["download_file", "g", "a.bin", &dest]).expect_ok(&["download_file", &dest]);
    assert!(same_content(&world.work("a.bin"), &world.work(&dest)));
}

#[test]
fn a_shared_file_that_changes_is_not_served_and_its_owner_is_told() {
    let world = World::new();
    world.users(&["Alice"]);
    world.ok(&["create_group", "g", "--open"]);
    log_in_bob(&world);
    let changes: [(&str, Change); 4] = [
        ("shrinks", |path| {
            fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(9)
                .unwrap()
        }),
        ("grows", |path| {
            fs::File::options()
                .append(true)
                .open(path)
                .unwrap()
                .write_all(b"more")
                .unwrap();
        }),
        ("is replaced", |path| {
            fs::write(path.with_extension("new"), vec![7; 900_000]).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("changes in place", |path| {
            fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .write_all_at(b"other", 600_000)
                .unwrap();
        }),
    ];
    for (name, change) in changes {
        let path = world.write_file(name, 900_000);
        world.ok(&["upload_file", name, "g"]);
        change(&path);
    }
    let away = world.write_file("goes away", 900_000);
    world.ok(&["upload_file", "goes away", "g"]);
    let elsewhere = world.path("unmounted");
    fs::rename(&away, &elsewhere).unwrap();

    let status = world.ok(&["status"]);
    assert!(
        status.contains("files shared   5, of which 5 not as recorded"),
        "{status}"
    );
    let shown = world.ok(&["show_downloads"]);
    assert_eq!(
        shown.matches("changed on disk, not shared").count(),
        4,
        "{shown}"
    );
    assert_eq!(
        shown.matches("cannot be read now, not shared").count(),
        1,
        "{shown}"
    );
    let folders = world.identity_folders();
    let alices = folders.iter().find(|folder| folder.ends_with("alice"));
    let log = fs::read_to_string(alices.unwrap().join("peer.log")).unwrap();
    assert_eq!(
        log.matches("a shared file changed on disk and is not served")
            .count(),
        4,
        "{log}"
    );
    for (name, _) in changes {
        let refused = bob(&world, &["download_file", "g", name, "got"]);
        assert_eq!(refused.code, Some(UNREACHABLE), "{}", refused.stderr);
        assert!(!world.work("got").exists());
    }
    // What went away comes back, and is served as before.
    fs::rename(&elsewhere, &away).unwrap();
    let shown = world.ok(&["show_downloads"]);
    assert!(!shown.contains("cannot be read now"), "{shown}");
    bob(
        &world,
        &["download_file", "g", "goes away", "back", "--wait"],
    )
    .expect_ok(&["download_file"]);
    assert!(same_content(&away, &world.work("back")));
    // A changed file can be shared again once it is given up.
    world.ok(&["stop_sharing", "g", "grows"]);
    world.ok(&["upload_file", "grows", "g"]);
}

#[test]
fn a_file_that_changes_while_it_is_fetched_comes_from_another_holder() {
    let world = alice_shares(32 * MIB as usize);
    log_in_bob(&world);
    let original = world.work("original");
    fs::copy(world.work("a.bin"), &original).unwrap();
    world.ok(&["create_user", "Carol", "pass123"]);
    world.ok(&["login", "Carol", "pass123"]);
    world.ok_as("Carol", &["download_file", "g", "a.bin", "carol.bin"]);
    let (mut running, ()) = begin_and(&world, "got.bin", || {
        let file = fs::File::options()
            .write(true)
            .open(world.work("a.bin"))
            .unwrap();
        for chunk in 0..64 {
            file.write_all_at(b"other", chunk * 512 * 1024).unwrap();
        }
    });
    running.wait().expect_ok(&["download_file"]);
    assert!(same_content(&original, &world.work("got.bin")));
    assert!(
        world
            .ok_as("Alice", &["show_downloads"])
            .contains("changed on disk, not shared")
    );
}

#[test]
fn what_cannot_be_shared_is_refused_with_the_reason() {
    let world = World::new();
    world.write_file("a.bin", 700_000);
    world.ok(&["create_user", "Alice", "pass123"]);
    let login = world.command(&["login", "Alice", "pass123"]);
    let held_to_permissions = hold_to_permissions(&login);
    Process::spawn(held_to_permissions.unwrap_or(login))
        .wait()
        .expect_ok(&["login"]);
    world.ok(&["create_group", "g"]);
    let work = world.work("x").parent().unwrap().canonicalize().unwrap();
    let none = world.work("none");
    world.refused(
        &["upload_file", "none", "g"],
        1,
        &format!(
            "cannot read {}: No such file or directory (os error 2)",
            none.display()
        ),
    );
    fs::create_dir(world.work("folder")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.work("pipe"),
        FileType::Fifo,
        Mode::RUSR,
        0,
    )
    .unwrap();
    symlink(world.work("dangling target"), world.work("dangling")).unwrap();
    for name in ["folder", "pipe"] {
        let message = format!("{} is not a file", work.join(name).display());
        world.refused(&["upload_file", name, "g"], 1, &message);
    }
    world.refused(
        &["upload_file", "/dev/null", "g"],
        1,
        "/dev/null is not a file",
    );
    assert_eq!(world.run(&["upload_file", "dangling", "g"]).code, Some(1));
    fs::write(world.work("empty"), b"").unwrap();
    world.refused(
        &["upload_file", "empty", "g"],
        1,
        "cannot upload an empty file (0 bytes)",
    );
    #[cfg(target_os = "linux")]
    world.refused(
        &["upload_file", "/proc/cpuinfo", "g"],
        1,
        "cannot upload an empty file (0 bytes)",
    );
    fs::set_permissions(world.work("a.bin"), fs::Permissions::from_mode(0o000)).unwrap();
    let path = work.join("a.bin");
    let message = format!(
        "cannot read {}: Permission denied (os error 13)",
        path.display()
    );
    world.refused(&["upload_file", "a.bin", "g"], 1, &message);
    fs::set_permissions(world.work("a.bin"), fs::Permissions::from_mode(0o600)).unwrap();
    // A link is followed, and what it led to is shared.
    symlink("a.bin", world.work("link.bin")).unwrap();
    assert!(
        world
            .ok(&["upload_file", "link.bin", "g"])
            .contains("Uploaded link.bin")
    );
    assert!(
        world
            .ok(&["show_downloads"])
            .contains(&work.join("a.bin").display().to_string())
    );

    // A file that somebody writes to.
    let (_folder, path, log) = log_to_write_to(&world);
    let (writes, written) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        // The writing ends with this end of the channel, whatever comes of the test.
        let written = written;
        scope.spawn(move || {
            while log.write_all_at(LINE, 0).is_ok()
                && writes.try_send(()) != Err(TrySendError::Disconnected(()))
            {}
        });
        written.recv().unwrap();
        let message = format!("{} changed while it was read", path.display());
        let finished = world.run(&["upload_file", path.to_str().unwrap(), "g"]);
        assert_eq!(finished.code, Some(CHANGED), "{}", finished.stderr);
        assert!(finished.stderr.contains(&message), "{}", finished.stderr);
    });
    assert_eq!(
        world.ok(&["list_files", "g"]).lines().count(),
        2,
        "the header, and the link"
    );
}

/// A file long enough to be written to many times while it is read, with nothing in it but a line, so that it takes no
/// room: in memory, where the writing waits for no disk, or else in the folder of the world.
fn log_to_write_to(world: &World) -> (TempDir, PathBuf, fs::File) {
    let log_in = |folder: &Path| -> io::Result<_> {
        let folder = tempfile::Builder::new()
            .prefix("p2pshare-")
            .tempdir_in(folder)?;
        let path = folder.path().canonicalize()?.join("log");
        let log = fs::File::create(&path)?;
        log.set_len(256 * MIB)?;
        log.write_all_at(LINE, 0)?;
        Ok((folder, path, log))
    };
    log_in(Path::new("/dev/shm")).unwrap_or_else(|_| log_in(world.temp.path()).unwrap())
}

/// The command as one whom permissions bind, which they do not bind the superuser; `None` if they do anyway.
fn hold_to_permissions(command: &Command) -> Option<Command> {
    let drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| within(&drop, command))
}

/// The command, run by another program.
fn within(outer: &[&str], command: &Command) -> Command {
    let mut within = Command::new(outer[0]);
    within
        .args(&outer[1..])
        .arg(command.get_program())
        .args(command.get_args());
    within
        .current_dir(command.get_current_dir().unwrap())
        .env_clear();
    within.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    within
}

/// Whether this machine lets a test mount a disk that nobody else sees.
fn can_mount(at: &Path) -> bool {
    let probe = [
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
    ];
    let probed = Command::new("unshare").args(probe).arg(at).output();
    probed.is_ok_and(|output| output.status.success())
}
