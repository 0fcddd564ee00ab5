//! Getting through to a tracker: whoever of several proves first that it is one. The next of them is dialed when the
//! one before has failed, or has been silent for a while, so that a dead one costs little and a slow one nothing.

use std::{future::Future, net::SocketAddr, pin::Pin};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    identity::{RingId, TrackerAddr, key::VerifyingKey},
    limits::{TRACKER_ANSWER_TIMEOUT, TRACKER_SILENCE},
    peer::error::SessionError,
    time::Timestamp,
    transport::{Alpn, CloseCode, Connection, Endpoint, Expect, RequestError},
    wire::tracker::{Request, Response},
};

/// A connection to a tracker, and what it proved and said.
pub(super) struct Dialed {
    /// The place in the list.
    pub(super) tracker: usize,
    pub(super) connection: Connection,
    pub(super) ring: RingId,
    pub(super) token_key: VerifyingKey,
    pub(super) time: Option<Timestamp>,
    /// As what address it sees this peer.
    pub(super) observed: SocketAddr,
}

/// One way to what is wanted.
type Attempt<T> = Pin<Box<dyn Future<Output = Result<T, SessionError>> + Send>>;

/// Connects to whoever of `order`, places in the list, is the first to prove that it is a tracker and to
/// be `accepted`. Dropping the future gives all dials up.
pub(super) async fn first_of(
    endpoint: &Endpoint,
    trackers: &[TrackerAddr],
    order: &[usize],
    accepted: impl Fn(&Dialed) -> Result<(), SessionError> + Clone + Send + 'static,
) -> Result<Dialed, SessionError> {
    let mut attempts: Vec<Attempt<Dialed>> = Vec::new();
    for &tracker in order {
        let dialed = dial(endpoint.clone(), tracker, trackers[tracker].clone());
        let accepted = accepted.clone();
        attempts.push(Box::pin(async move {
            let dialed = dialed.await?;
            match accepted(&dialed) {
                Ok(()) => Ok(dialed),
                Err(error) => {
                    dialed.connection.close(CloseCode::WrongRing);
                    Err(error)
                }
            }
        }));
    }
    match hedge(attempts).await {
        Ok(dialed) => Ok(dialed),
        Err(refused) => Err(refused.unwrap_or_else(|| SessionError::Unreachable {
            tried: order.iter().map(|&at| trackers[at].clone()).collect(),
        })),
    }
}

/// What succeeds first of some attempts, each of which begins when the one before has failed or taken
/// [`TRACKER_SILENCE`]. If none does, what the last one said that was more than that nobody answers.
async fn hedge<T: Send + 'static>(attempts: Vec<Attempt<T>>) -> Result<T, Option<SessionError>> {
    let mut attempts = attempts.into_iter();
    let mut running = JoinSet::new();
    let mut refused = None;
    loop {
        if let Some(next) = attempts.next() {
            running.spawn(next);
        } else if running.is_empty() {
            return Err(refused);
        }
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => match ended {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(SessionError::Unreachable { .. })) | Err(_) => {}
                Ok(Err(error)) => refused = Some(error),
            },
            () = sleep(TRACKER_SILENCE), if attempts.len() > 0 => {}
        }
    }
}

async fn dial(
    endpoint: Endpoint,
    tracker: usize,
    addr: TrackerAddr,
) -> Result<Dialed, SessionError> {
    let unreachable = || SessionError::Unreachable {
        tried: vec![addr.clone()],
    };
    let found = tokio::net::lookup_host((addr.host(), addr.port()))
        .await
        .map_err(|_| unreachable())?;
    let mut attempts: Vec<Attempt<Dialed>> = Vec::new();
    for socket in found {
        let greeted = greet(endpoint.clone(), tracker, addr.clone(), socket);
        attempts.push(Box::pin(greeted));
    }
    match hedge(attempts).await {
        Ok(dialed) => Ok(dialed),
        Err(refused) => Err(refused.unwrap_or_else(unreachable)),
    }
}

/// Connects, and hears who is there.
async fn greet(
    endpoint: Endpoint,
    tracker: usize,
    addr: TrackerAddr,
    socket: SocketAddr,
) -> Result<Dialed, SessionError> {
    let unreachable = || SessionError::Unreachable {
        tried: vec![addr.clone()],
    };
    let connected = endpoint.connect(socket, Alpn::Tracker, Expect::Any).await;
    let connection = connected.map_err(|error| {
        tracing::debug!(%error, tracker = %addr, "cannot connect");
        unreachable()
    })?;
    let said = connection
        .request(&Request::Hello, TRACKER_ANSWER_TIMEOUT)
        .await;
    let proven = match &said {
        Ok(Response::Welcome(welcome)) => welcome
            .verify(connection.remote_peer())
            .map(|proof| (proof, welcome)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, tracker = %addr, "no welcome");
            return Err(unreachable());
        }
    };
    let Some(((ring, token_key), welcome)) = proven else {
        connection.close(CloseCode::ProtocolError);
        return Err(SessionError::NotATracker { tracker: addr });
    };
    Ok(Dialed {
        tracker,
        ring,
        token_key,
        time: welcome.time,
        observed: welcome.observed,
        connection,
    })
}

/// Comes back once the other side has let [`TRACKER_SILENCE`] pass, or four round trips if they take longer, without
/// a word, or then without the answer to a greeting, which takes it no time. To be called when something was just sent.
/// Cancel-safe.
pub(super) async fn silence(connection: &Connection) {
    let patience = TRACKER_SILENCE.max(connection.round_trip() * 4);
    let heard = connection.received();
    sleep(patience).await;
    if connection.received() == heard {
        return;
    }
    // What comes from there need not mean that anything arrives there.
    loop {
        let next = Instant::now() + patience;
        let greeted = connection.request::<_, Response>(&Request::Hello, patience);
        match greeted.await {
            Ok(_) => sleep_until(next).await,
            Err(RequestError::TimedOut { opened: true, .. }) => return,
            // There was no room for another request.
            Err(RequestError::TimedOut { opened: false, .. }) => {}
            // Whoever waits for an answer hears it too.
            Err(_) => return std::future::pending().await,
        }
    }
}
