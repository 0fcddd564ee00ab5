//! A tracker from its start to its clean end, and the lines that it prints; a script may rely on their order.

use std::io::{self, Write};
use std::net::SocketAddr;

use p2pshare::{RingId, RingStatus, Tracker, TrackerAddr, TrackerBindError};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Args;
use crate::console::{QUIT_HINT, quit_typed};
use crate::plan::{Plan, PlanError};

/// Serves until it is told to stop.
pub(crate) async fn run(args: Args) -> Result<(), ServeError> {
    let plan = Plan::new(&args)?;
    // Before anything can be interrupted half-way.
    let mut interrupted = on_signal(SignalKind::interrupt())?;
    let mut terminated = on_signal(SignalKind::terminate())?;
    let mut hung_up = on_signal(SignalKind::hangup())?;
    let tracker = bind(&plan).await?;
    let result = match plan.ring {
        Some(pinned) if pinned != tracker.ring_id() => {
            let (found, key) = (tracker.ring_id(), plan.ring_key.display().to_string());
            Err(ServeError::OtherRing {
                pinned: pinned.to_string(),
                found: found.to_string(),
                key,
            })
        }
        _ => {
            let said = announce(&plan, &tracker);
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            tokio::select! {
                () = follow(&plan, &tracker, said) => Ok(()),
                _ = interrupted.recv() => Ok(()),
                _ = terminated.recv() => Ok(()),
                _ = hung_up.recv() => Ok(()),
                () = quit_typed() => Ok(()),
                error = tracker.failed() => Err(ServeError::Failed(error.to_string())),
            }
        }
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let stopped = tracker.shutdown().await;
    result?;
    stopped.map_err(|error| ServeError::Failed(error.to_string()))
}

/// Why a tracker did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("cannot resolve {addr}: {cause}")]
    Resolve { addr: TrackerAddr, cause: io::Error },
    #[error("{addr} has no address")]
    NoAddress { addr: TrackerAddr },
    #[error(transparent)]
    Bind(#[from] TrackerBindError),
    #[error("the list pins ring {pinned}, but {key} is the key of ring {found}")]
    OtherRing {
        pinned: String,
        found: String,
        key: String,
    },
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("the tracker failed: {0}")]
    Failed(String),
}

async fn bind(plan: &Plan) -> Result<Tracker, ServeError> {
    let mut builder = Tracker::builder(&plan.data_dir).ring_key(plan.ring_key.clone());
    if let Some(listen) = listen_addr(plan).await? {
        builder = builder.listen(listen);
    }
    if let Some(own) = &plan.own {
        builder = builder.address(own.clone());
    }
    if !plan.founders.is_empty() {
        builder = builder.founders(plan.founders.clone());
    }
    Ok(builder.bind().await?)
}

async fn listen_addr(plan: &Plan) -> Result<Option<SocketAddr>, ServeError> {
    let (None, Some(own)) = (plan.listen, &plan.own) else {
        return Ok(plan.listen);
    };
    let mut found = tokio::net::lookup_host((own.host(), own.port()))
        .await
        .map_err(|cause| ServeError::Resolve {
            addr: own.clone(),
            cause,
        })?;
    found
        .next()
        .map(Some)
        .ok_or_else(|| ServeError::NoAddress { addr: own.clone() })
}

/// Says that the tracker serves, and how its ring is; gives what was said of that.
fn announce(plan: &Plan, tracker: &Tracker) -> String {
    let own = plan
        .own
        .as_ref()
        .map_or_else(|| tracker.addr().to_string(), ToString::to_string);
    let ring = ring_line(tracker.ring_id(), &tracker.status());
    let lines = format!(
        "Using tracker address from config: {own}\n\
         Tracker DHT initialized on port {}\n\
         DHT initialized for tracker sync\n\
         {ring}\n\
         Tracker listening on {}\n\
         {QUIT_HINT}\n",
        tracker.dht_addr().port(),
        tracker.addr(),
    );
    say(&lines);
    ring
}

/// Says how the ring is whenever that is not what was `said` last, for ever.
async fn follow(plan: &Plan, tracker: &Tracker, mut said: String) {
    let mut is_compared = false;
    loop {
        let changed = tracker.status_changed();
        let status = tracker.status();
        let line = ring_line(tracker.ring_id(), &status);
        if line != said {
            say(&format!("{line}\n"));
            said = line;
        }
        if status.founded && !is_compared {
            is_compared = true;
            compare(&plan.founders, &status);
        }
        changed.await;
    }
}

fn ring_line(ring: RingId, status: &RingStatus) -> String {
    match status.founded {
        true => format!(
            "Ring {ring}: {} of {} trackers reachable",
            status.reachable, status.trackers
        ),
        false => format!(
            "waiting for {} to found the ring",
            listed(&status.waiting_for)
        ),
    }
}

/// Warns of a list that is not, or not any more, who is in the ring: only `ring apply` changes that.
fn compare(list: &[TrackerAddr], status: &RingStatus) {
    let mut members: Vec<_> = status
        .members
        .iter()
        .filter_map(|member| member.addr.clone())
        .collect();
    let mut listed_ones = list.to_vec();
    members.sort();
    listed_ones.sort();
    if !list.is_empty() && !members.is_empty() && members != listed_ones {
        eprintln!(
            "warning: the list has {}, and the ring consists of {}; a list changes nothing by itself",
            listed(list),
            listed(&members)
        );
    }
}

fn listed(addrs: &[TrackerAddr]) -> String {
    let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
    addrs.join(", ")
}

/// A tracker whose output nobody reads any more serves all the same.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

fn on_signal(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(ServeError::Signals)
}
