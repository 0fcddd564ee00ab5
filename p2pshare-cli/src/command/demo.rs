//! `demo`: the whole of p2pshare in one process: a tracker on free ports and two peers, from accounts to a verified
//! copy. Each step is printed as the command that a user would have typed. Nothing is left behind, however it ends.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use p2pshare::{
    Access, DownloadOptions, FileName, GroupName, Password, Peer, Session, SharedFile, Tracker,
    TrackerAddr, TrackerClient, UserName,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::render;

/// Runs the demo with `file`, or with a made one.
pub(crate) async fn run(file: Option<PathBuf>) -> Result<String, Failure> {
    let signals = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [mut interrupted, mut terminated, mut hung_up] = signals.map(signal);
    let temp = tempfile::Builder::new()
        .prefix("p2pshare-demo-")
        .tempdir()
        .map_err(|error| Failure::io("cannot make a temporary folder", &error))?;
    let mut stage = Stage {
        temp,
        tracker: None,
        peers: Vec::new(),
    };
    let began = Instant::now();
    let result = tokio::select! {
        result = stage.play(file) => result,
        () = received(&mut interrupted) => Err(stopped()),
        () = received(&mut terminated) => Err(stopped()),
        () = received(&mut hung_up) => Err(stopped()),
    };
    stage.clear().await?;
    result?;
    Ok(format!(
        "\nDone in {}; nothing is left behind.",
        render::time(began.elapsed())
    ))
}

/// All that the demo has running, and the folder with all that it wrote.
struct Stage {
    temp: TempDir,
    tracker: Option<Tracker>,
    peers: Vec<Peer>,
}

impl Stage {
    async fn play(&mut self, file: Option<PathBuf>) -> Result<(), Failure> {
        let file = match file {
            Some(file) => file,
            None => self.make_file().await?,
        };
        // Before anything else, since a missing file is the likeliest mistake.
        let size = File::open(&file)
            .and_then(|opened| opened.metadata())
            .map_err(|error| Failure::io(format!("cannot read {}", file.display()), &error))?
            .len();
        let group = GroupName::new("testgroup").map_err(broken)?;

        self.start_tracker().await?;
        let alice = self.enter("Alice", "pass123").await?;
        let step = Step::begin(format_args!("p2pshare create_group {group}"));
        alice.create_group(&group, Access::Members).await?;
        step.end(format_args!(
            "Group '{group}' created (owner: Alice, members only)"
        ));
        let shared = upload(&alice, &file, &group, size).await?;
        let bob = self.enter("Bob", "pass456").await?;
        join(&alice, &bob, &group).await?;
        let copy = self.download(&bob, &shared).await?;
        compare(&file, &copy).await
    }

    async fn start_tracker(&mut self) -> Result<(), Failure> {
        let step = Step::begin("p2pshare-tracker &");
        let tracker = Tracker::builder(self.temp.path().join("tracker"))
            .listen(free_port())
            .bind()
            .await
            .map_err(broken)?;
        step.end(format_args!("Tracker listening on {}", tracker.addr()));
        self.tracker = Some(tracker);
        Ok(())
    }

    /// Makes an account, and logs it in at a peer of its own.
    async fn enter(&mut self, name: &str, password: &str) -> Result<Session, Failure> {
        let Some(tracker) = &self.tracker else {
            return Err(Failure::failed("there is no tracker"));
        };
        let addr = TrackerAddr::try_from(tracker.addr()).map_err(broken)?;
        let (user, secret) = (
            UserName::new(name).map_err(broken)?,
            Password::new(password),
        );
        let step = Step::begin(format_args!("p2pshare create_user {user} {password}"));
        let client = TrackerClient::connect(std::slice::from_ref(&addr), None).await?;
        client.create_user(&user, &secret).await?;
        step.end(format_args!("User created: {user}"));

        let step = Step::begin(format_args!("p2pshare login {user} {password}"));
        let peer = Peer::builder(self.temp.path().join(name), tracker.ring_id())
            .trackers([addr])
            .listen(free_port())
            .bind()
            .await?;
        self.peers.push(peer.clone());
        let session = peer.login(&user, &secret).await?;
        step.end(format_args!(
            "Logged in as {user}, peer server {}",
            peer.local_addr()
        ));
        Ok(session)
    }

    async fn download(&self, bob: &Session, shared: &SharedFile) -> Result<PathBuf, Failure> {
        let copy = self
            .temp
            .path()
            .join(format!("downloaded_{}", short(&shared.name)));
        let step = Step::begin(format_args!(
            "p2pshare download_file {} {} {}",
            shared.group,
            shared.name,
            copy.display()
        ));
        let report = bob
            .download(
                &shared.group,
                &shared.name,
                &copy,
                DownloadOptions::default(),
            )
            .await?;
        step.end(format_args!(
            "Download complete: {}, file id verified",
            render::moved(report.bytes, report.elapsed)
        ));
        Ok(copy)
    }

    /// A file of random bytes.
    async fn make_file(&self) -> Result<PathBuf, Failure> {
        let path = self.temp.path().join("alice.bin");
        let failed = |error| Failure::io(format!("cannot write {}", path.display()), &error);
        let step = Step::begin(format_args!(
            "head -c {MADE_BYTES} /dev/urandom > {}",
            path.display()
        ));
        let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
        let mut block = vec![0; MADE_BLOCK_BYTES];
        for _ in 0..MADE_BYTES / MADE_BLOCK_BYTES as u64 {
            rand::fill(&mut block[..]);
            file.write_all(&block).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        step.end(format_args!("made {}", render::size(MADE_BYTES)));
        Ok(path)
    }

    /// Ends everything and removes the folder.
    async fn clear(self) -> Result<(), Failure> {
        for peer in self.peers {
            peer.shutdown().await.map_err(broken)?;
        }
        if let Some(tracker) = self.tracker {
            tracker.shutdown().await.map_err(broken)?;
        }
        let path = self.temp.path().to_owned();
        self.temp
            .close()
            .map_err(|error| Failure::io(format!("cannot remove {}", path.display()), &error))
    }
}

async fn upload(
    alice: &Session,
    file: &Path,
    group: &GroupName,
    size: u64,
) -> Result<SharedFile, Failure> {
    let step = Step::begin(format_args!(
        "p2pshare upload_file {} {group}",
        file.display()
    ));
    let began = Instant::now();
    let shared = alice.share(file, group, None).await?;
    step.end(format_args!(
        "Uploaded {} to '{group}': {}",
        shared.name,
        render::moved(size, began.elapsed())
    ));
    Ok(shared)
}

async fn join(alice: &Session, bob: &Session, group: &GroupName) -> Result<(), Failure> {
    let step = Step::begin(format_args!("p2pshare join_group {group}"));
    bob.join(group).await?;
    step.end(format_args!(
        "Join request sent to '{group}'; Alice has to accept it"
    ));
    let step = Step::begin(format_args!(
        "p2pshare --as Alice accept_request {group} Bob"
    ));
    alice.accept(group, bob.user()).await?;
    step.end(format_args!("Accepted Bob into '{group}'"));
    let step = Step::begin(format_args!("p2pshare list_files {group}"));
    for file in bob.files(group).await?.items {
        let (size, uploader) = (render::size(file.size), &file.uploader);
        step.end(format_args!(
            "{}, {size}, from {uploader}, {} online",
            file.name, file.holders_online
        ));
    }
    Ok(())
}

async fn compare(file: &Path, copy: &Path) -> Result<(), Failure> {
    let step = Step::begin(format_args!("cmp {} {}", file.display(), copy.display()));
    let (file, copy) = (file.to_owned(), copy.to_owned());
    let same = tokio::task::spawn_blocking(move || same_content(&file, &copy))
        .await
        .map_err(broken)?;
    if !same.map_err(|error| Failure::io("cannot compare the two files", &error))? {
        return Err(Failure::new(
            ExitCode::Integrity,
            "the copy differs from the file",
        ));
    }
    step.end("the same, byte for byte");
    Ok(())
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let mut rest = a.metadata()?.len();
    if rest != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut block_a, mut block_b) = (vec![0; MADE_BLOCK_BYTES], vec![0; MADE_BLOCK_BYTES]);
    while rest > 0 {
        let length =
            usize::try_from(rest).map_or(MADE_BLOCK_BYTES, |rest| rest.min(MADE_BLOCK_BYTES));
        a.read_exact(&mut block_a[..length])?;
        b.read_exact(&mut block_b[..length])?;
        if block_a[..length] != block_b[..length] {
            return Ok(false);
        }
        rest -= length as u64;
    }
    Ok(true)
}

/// One step, shown as a command and what it said.
struct Step(Instant);

impl Step {
    fn begin(command: impl Display) -> Self {
        // A reader who went away ends the output, not the demo.
        let _ = render::print(&format!("$ {command}"));
        Self(Instant::now())
    }

    fn end(&self, said: impl Display) {
        let _ = render::print(&format!("  {said}   [{}]", render::time(self.0.elapsed())));
    }
}

async fn received(signal: &mut io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

fn stopped() -> Failure {
    Failure::new(
        ExitCode::Interrupted,
        "the demo was interrupted; nothing is left behind",
    )
}

fn broken(error: impl Display) -> Failure {
    Failure::failed(error.to_string())
}

/// A name of which the copy's name, which is longer, can be made.
fn short(name: &FileName) -> String {
    name.as_str().chars().take(SHORT_NAME_CHARS).collect()
}

fn free_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// The size of the made file.
const MADE_BYTES: u64 = 64 * 1024 * 1024;

/// How much of a file is made or compared at a time.
const MADE_BLOCK_BYTES: usize = 1024 * 1024;

/// With what is put before and after it, within what file systems take even if each takes four bytes.
const SHORT_NAME_CHARS: usize = 50;
