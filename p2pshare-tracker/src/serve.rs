//! A tracker from its start to its clean end, and the lines that it prints; a script may rely on their order.

use std::io::{self, Write};
use std::net::SocketAddr;

use p2pshare::{Tracker, TrackerAddr, TrackerBindError};
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
            announce(&plan, &tracker);
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            tokio::select! {
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

fn announce(plan: &Plan, tracker: &Tracker) {
    let own = plan
        .own
        .as_ref()
        .map_or_else(|| tracker.addr().to_string(), ToString::to_string);
    let status = tracker.status();
    let lines = format!(
        "Using tracker address from config: {own}\n\
         Tracker DHT initialized on port {}\n\
         DHT initialized for tracker sync\n\
         Ring {}: {} of {} trackers reachable\n\
         Tracker listening on {}\n\
         {QUIT_HINT}\n",
        tracker.dht_addr().port(),
        tracker.ring_id(),
        status.reachable,
        status.trackers,
        tracker.addr(),
    );
    // A tracker whose output nobody reads any more serves all the same.
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(lines.as_bytes())
        .and_then(|()| stdout.flush());
}

fn on_signal(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(ServeError::Signals)
}
