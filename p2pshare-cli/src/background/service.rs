//! What a background peer holds, and how it takes requests: each on a task of its own, bounded in number, until a
//! logout or a signal; then transfers stop, keep what they have, and the peer is shut down. One at which nobody is
//! logged in, and of which nobody asks anything, ends too: the command that it was started for is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use p2pshare::{Peer, RingId, Session, TrackerAddr};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::perform;
use crate::control::{Asked, Listener, PROTOCOL, ServerHello, VERSION, accept};
use crate::failure::Failure;
use crate::home::IdentityFolder;

/// A background peer that serves.
pub(super) struct Service {
    shared: Arc<Shared>,
    listener: Listener,
}

/// What the tasks of the requests share.
pub(super) struct Shared {
    pub(super) peer: Peer,
    pub(super) folder: IdentityFolder,
    pub(super) ring: RingId,
    pub(super) trackers: Vec<TrackerAddr>,
    /// Held by whoever logs in or out, or ends the process because nobody is.
    pub(super) entry: tokio::sync::Mutex<()>,
    /// Uploads and downloads under way.
    pub(super) transfers: Gauge,
    stopping: watch::Sender<bool>,
}

impl Service {
    /// Binds the peer and the socket, and takes up the stored session.
    pub(super) async fn start(
        folder: IdentityFolder,
        ring: RingId,
        trackers: Vec<TrackerAddr>,
    ) -> Result<Self, Failure> {
        let peer = Peer::builder(folder.path(), ring)
            .trackers(trackers.clone())
            .bind()
            .await?;
        let session = match folder.read_identity() {
            Some(_) => peer.resume().await?,
            None => None,
        };
        if session.is_none() && folder.read_identity().is_some() {
            let _ = folder.remove_identity();
            let _ = peer.shutdown().await;
            return Err(Failure::not_logged_in());
        }
        if session.is_some() {
            settle(&peer).await;
        }
        let listener = Listener::bind(&folder)
            .map_err(|error| Failure::io("cannot open the control socket", &error))?;
        tracing::info!(peer = %peer.peer_id(), addr = %peer.local_addr(), pid = std::process::id(), "serving");
        let shared = Shared {
            peer,
            folder,
            ring,
            trackers,
            entry: tokio::sync::Mutex::default(),
            transfers: Gauge::default(),
            stopping: watch::Sender::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
            listener,
        })
    }

    /// Serves until it is told to end.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { shared, listener } = self;
        let mut stopping = shared.stopping.subscribe();
        let mut terminated = on_signal(SignalKind::terminate())?;
        let mut interrupted = on_signal(SignalKind::interrupt())?;
        let mut hung_up = on_signal(SignalKind::hangup())?;
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = accept(&listener), if tasks.len() < REQUESTS_MAX => match accepted {
                    Ok(stream) => { tasks.spawn(serve(shared.clone(), stream)); }
                    Err(error) => {
                        tracing::warn!(%error, "a command could not be heard");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = sleep(NOBODY_LIFE), if tasks.is_empty() && shared.session().is_err() => {
                    // What ended the session was no logout; there is nothing to come back for either.
                    let _ = shared.folder.remove_identity();
                    break;
                }
                _ = stopping.wait_for(|stopping| *stopping) => break,
                _ = terminated.recv() => break,
                _ = interrupted.recv() => break,
                _ = hung_up.recv() => break,
            }
        }
        tracing::info!("ending");
        shared.stop();
        drop(listener);
        let rest = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(REQUESTS_END_TIMEOUT, rest).await;
        tasks.shutdown().await;
        match timeout(PEER_END_TIMEOUT, shared.peer.shutdown()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::failed(error.to_string())),
            Err(_) => Err(Failure::failed("the peer did not shut down in time")),
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: UnixStream) {
    let hello = ServerHello {
        protocol: PROTOCOL,
        version: VERSION.to_owned(),
        transfers: shared.transfers.count(),
        trackers: shared.trackers.iter().map(ToString::to_string).collect(),
    };
    let Asked {
        request,
        mut reporter,
        cancelled,
    } = match Asked::receive(stream, &hello).await {
        Ok(asked) => asked,
        // A command that only looked whether somebody is here.
        Err(error) => return tracing::debug!(%error, "no request came"),
    };
    tracing::debug!(?request, "asked");
    let result = perform::perform(&shared, request, &mut reporter, cancelled).await;
    if let Err(failure) = &result {
        tracing::info!("refused: {failure}");
    }
    let connection = reporter.done(result).await;
    if shared.is_stopping() {
        // Only the end of the process closes it, and so the command sees that end.
        std::mem::forget(connection);
    }
}

impl Shared {
    /// The session of whoever is logged in.
    pub(super) fn session(&self) -> Result<Session, Failure> {
        self.peer.session().ok_or_else(Failure::not_logged_in)
    }

    /// Makes the process end once the requests under way have been answered.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the process is to end.
    pub(super) async fn stopping(&self) {
        // The sender is in `self`, so that it cannot be gone.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
    }
}

/// Waits until a tracker has been told of a restored peer, so that the command that brought it back finds it as it was
/// before; not for long, since it serves without a tracker too.
async fn settle(peer: &Peer) {
    let _ = timeout(SETTLE_TIMEOUT, peer.announced()).await;
}

/// How many of something are under way.
#[derive(Default)]
pub(super) struct Gauge(Arc<AtomicU32>);

impl Gauge {
    /// Counts one, until what this returns is dropped.
    pub(super) fn enter(&self) -> Entered {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.0.clone())
    }

    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is counted.
pub(super) struct Entered(Arc<AtomicU32>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn on_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::io("cannot listen for signals", &error))
}

/// How long a restored peer may take to reach a tracker before it is used all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a background peer lasts without anybody who is logged in or asks for anything.
const NOBODY_LIFE: Duration = Duration::from_secs(5);

/// Most requests at once; further commands wait.
const REQUESTS_MAX: usize = 256;

/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long requests under way may take to be cancelled and answered at the end.
const REQUESTS_END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the peer may take to shut down.
const PEER_END_TIMEOUT: Duration = Duration::from_secs(10);
