//! A tracker and two peers in one process: Alice shares a file with a group, and Bob downloads it.
//!
//! `cargo run --release --example embedded -- FILE` shares that file; without one, this very source.

use std::{error::Error, path::PathBuf, time::Instant};

use p2pshare::{
    Access, DownloadOptions, GroupName, Password, Peer, Session, Tracker, TrackerAddr,
    TrackerClient, UserName,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/embedded.rs");
    let file = std::env::args_os().nth(1).map_or(source, PathBuf::from);
    let dir = tempfile::tempdir()?;
    let tracker = Tracker::builder(dir.path().join("tracker"))
        .listen(([127, 0, 0, 1], 0).into())
        .bind()
        .await?;
    println!("ring {} at {}", tracker.ring_id(), tracker.addr());

    let alice = login(&tracker, dir.path().join("alice"), "Alice").await?;
    let bob = login(&tracker, dir.path().join("bob"), "Bob").await?;
    let group = GroupName::new("friends")?;
    alice.create_group(&group, Access::Members).await?;
    bob.join(&group).await?;
    alice.accept(&group, bob.user()).await?;

    let started = Instant::now();
    let shared = alice.share(&file, &group, None).await?;
    let rate = shared.size as f64 / 1e6 / started.elapsed().as_secs_f64();
    println!(
        "shared {} ({} bytes, {rate:.0} MB/s): {}",
        shared.name,
        shared.size,
        shared.link()
    );

    let copy = dir.path().join("copy");
    let report = bob
        .download(&group, &shared.name, &copy, DownloadOptions::default())
        .await?;
    let rate = report.bytes as f64 / 1e6 / report.elapsed.as_secs_f64();
    println!(
        "{} has it: {} bytes, verified, {rate:.0} MB/s",
        bob.user(),
        report.bytes
    );

    bob.peer().shutdown().await?;
    alice.peer().shutdown().await?;
    tracker.shutdown().await?;
    Ok(())
}

/// Makes an account, and logs it in at a peer of its own.
async fn login(tracker: &Tracker, dir: PathBuf, name: &str) -> Result<Session, Box<dyn Error>> {
    let addrs: [TrackerAddr; 1] = [tracker.addr().to_string().parse()?];
    let (user, password) = (UserName::new(name)?, Password::new("correct horse"));
    let client = TrackerClient::connect(&addrs, Some(tracker.ring_id())).await?;
    client.create_user(&user, &password).await?;
    let peer = Peer::builder(dir, tracker.ring_id())
        .trackers(addrs)
        .bind()
        .await?;
    Ok(peer.login(&user, &password).await?)
}
