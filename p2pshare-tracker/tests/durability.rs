//! A tracker that is killed in the middle of many changes has every change that it acknowledged, and each of them
//! once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use p2pshare::{
    Access, GroupName, Password, Peer, Refusal, Session, SessionError, TrackerAddr, TrackerClient,
    UserName,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::watch;

/// How often the tracker is killed.
const KILLS: usize = 8;
/// Who changes things at the same time.
const USERS: usize = 4;

struct Tracker {
    child: Child,
    addr: String,
}

impl Tracker {
    fn start(dir: &Path, listen: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_p2pshare-tracker"))
            .args(["--listen", listen, "--data-dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.strip_prefix("Tracker listening on ")?.to_owned()));
        let addr = listening.expect("the tracker ended before it listened");
        Self { child, addr }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_is_there_after_kill_9() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("tracker");
    let mut tracker = Tracker::start(&data, "127.0.0.1:0");
    let addr = tracker.addr.clone();
    let mut sessions = Vec::new();
    for user in 0..USERS {
        sessions.push(login(dir.path(), &addr, &format!("user{user}")).await);
    }
    let acknowledged = watch::Sender::new(BTreeSet::new());
    let (next, (stop, _)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let workers: Vec<_> = sessions
        .iter()
        .map(|session| {
            let work = create_groups(
                session.clone(),
                next.clone(),
                acknowledged.clone(),
                stop.subscribe(),
            );
            tokio::spawn(work)
        })
        .collect();
    let mut progress = acknowledged.subscribe();
    for _ in 0..KILLS {
        // In the middle of the work: after so many more changes, whenever that is.
        let goal = progress.borrow().len() + rng.random_range(1..200);
        progress.wait_for(|done| done.len() >= goal).await.unwrap();
        tracker.kill();
        tracker = Tracker::start(&data, &addr);
    }
    stop.send_replace(true);
    for worker in workers {
        worker.await.unwrap();
    }
    tracker.kill();
    tracker = Tracker::start(&data, &addr);
    let groups = sessions[0].groups().await.unwrap();
    let names: BTreeSet<GroupName> = groups.iter().map(|group| group.name.clone()).collect();
    assert_eq!(names.len(), groups.len(), "a group is there twice");
    let acknowledged = acknowledged.borrow();
    let lost: Vec<_> = acknowledged.difference(&names).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    println!(
        "{} changes acknowledged over {KILLS} kills",
        acknowledged.len()
    );
    drop(tracker);
}

/// Creates one group after the other, and notes those that were acknowledged.
async fn create_groups(
    session: Session,
    next: Arc<AtomicUsize>,
    acknowledged: watch::Sender<BTreeSet<GroupName>>,
    stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let group = GroupName::new(&format!("group{number}")).unwrap();
        match session.create_group(&group, Access::Members).await {
            Ok(()) => {
                acknowledged.send_modify(|done| {
                    done.insert(group);
                });
            }
            // Nobody else ever asks for this name: it would have been created twice.
            Err(SessionError::Refused(Refusal::GroupExists { .. })) => {
                panic!("a retry of {group} was taken for another request")
            }
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
}

async fn login(dir: &Path, addr: &str, name: &str) -> Session {
    let trackers: [TrackerAddr; 1] = [addr.parse().unwrap()];
    let client = TrackerClient::connect(&trackers, None).await.unwrap();
    let (user, password) = (UserName::new(name).unwrap(), Password::new("pass123"));
    client.create_user(&user, &password).await.unwrap();
    let peer = Peer::builder(dir.join(name), client.ring_id())
        .trackers(trackers)
        .bind()
        .await
        .unwrap();
    peer.login(&user, &password).await.unwrap()
}
