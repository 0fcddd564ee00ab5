//! The side of the links that is dialed: it hears hellos, answers batches, and passes datagrams on.
//!
//! **Invariant.** On a connection the hello comes first, and what follows it is taken only from a member, or from
//! whoever holds the ring's key as long as there is no list of members. Each member has one such connection: a
//! new one takes the place of the one before, unless that was of a later life.

use std::sync::Arc;

use tokio::time::timeout;

use super::greeting::check;
use super::{Host, News, Refusal, Shared};
use crate::identity::MemberId;
use crate::limits::{REPLICA_BATCH_BYTES_MAX, REPLICA_BATCHES_UNDER_WAY, RING_HELLO_TIMEOUT};
use crate::transport::close::ConnectionLost;
use crate::transport::{
    CloseCode, Connection, Crowd, Endpoint, ReceiveError, Responder, ServeLimits, serve,
};
use crate::wire::ring::{Hello, Life, ReplicaAnswers, ReplicaBatch};

/// Takes connections until the endpoint is closed.
pub(super) async fn accept<H: Host>(shared: Arc<Shared<H>>, endpoint: Endpoint, crowd: Crowd) {
    while let Some(connection) = endpoint.accept().await {
        let Some(admission) = crowd.admit(&connection) else {
            continue;
        };
        let this = shared.clone();
        shared.spawn(async move {
            let heard = timeout(RING_HELLO_TIMEOUT, hear(&this, &connection)).await;
            match heard {
                Ok(Some((life, own))) => {
                    admission.set_trusted(true);
                    let lost = attend(&this, &connection, life.member).await;
                    this.leave(life.member, &connection);
                    if let (Some(why), Some(host)) = (Refusal::of(&lost), this.host()) {
                        host.refused(own, why).await;
                    }
                }
                Ok(None) => {}
                Err(_) => connection.close_with(CloseCode::TooSlow, "no hello came"),
            }
        });
    }
}

/// Hears the hello and answers it: who it is, and as whom it was answered. Otherwise the connection is closed.
async fn hear<H: Host>(shared: &Shared<H>, connection: &Connection) -> Option<(Life, Life)> {
    let (mut send, mut receive) = connection.accept().await.ok()?;
    let hello: Hello = match receive.receive_last().await {
        Ok(hello) => hello,
        Err(error) => {
            refuse(connection, fault(&error), &error.to_string());
            return None;
        }
    };
    if let Err(unproved) = check(&hello, shared.ring, connection.remote_peer()) {
        refuse(connection, unproved.code(), &unproved.to_string());
        return None;
    }
    let (life, from) = (hello.life, connection.remote_addr());
    let welcome = match shared.host()?.welcome(from, hello).await {
        Ok(welcome) if shared.enter(life, connection) => welcome,
        Ok(_) => {
            let refusal = Refusal::Outlived;
            refuse(connection, refusal.code(), &refusal.to_string());
            return None;
        }
        Err(refusal) => {
            refuse(connection, refusal.code(), &refusal.to_string());
            return None;
        }
    };
    if let Err(error) = send.send(&welcome).await {
        tracing::debug!(%from, %error, "a welcome was not sent");
        connection.close(CloseCode::Internal);
        shared.leave(life.member, connection);
        return None;
    }
    send.finish();
    shared.meet(life);
    Some((life, welcome.hello.life))
}

/// Answers what a member asks, and takes its datagrams, until the connection ends, which it returns.
async fn attend<H: Host>(
    shared: &Arc<Shared<H>>,
    connection: &Connection,
    from: MemberId,
) -> ConnectionLost {
    let limits = ServeLimits {
        // As many as one that keeps to the bounds has under way.
        at_once: 2 * REPLICA_BATCHES_UNDER_WAY,
        request_bytes: || REPLICA_BATCH_BYTES_MAX,
        bodies: shared.bodies.clone(),
    };
    let asked = connection.clone();
    let this = shared.clone();
    let handler = move |batch: ReplicaBatch, responder: Responder| {
        let (this, asked) = (this.clone(), asked.clone());
        async move { answer(&this, &asked, from, batch, responder).await }
    };
    let serving = serve(connection, limits, handler);
    let lost = tokio::select! {
        lost = serving => lost,
        lost = listen(shared, connection, from) => lost,
    };
    tracing::debug!(member = %from, %lost, "a member's connection ended");
    lost
}

async fn answer<H: Host>(
    shared: &Shared<H>,
    connection: &Connection,
    from: MemberId,
    batch: ReplicaBatch,
    responder: Responder,
) {
    if !shared.admits(from) {
        return refuse(connection, CloseCode::NotAMember, NOT_A_MEMBER);
    }
    let Some(host) = shared.host() else { return };
    let requests = batch.into_requests();
    let answers = host.answer(from, requests).await;
    let (clocks, commits) = host.clocks_and_commits();
    let answers = ReplicaAnswers {
        answers,
        commits,
        clocks,
    };
    if let Err(error) = responder.answer(&answers).await {
        tracing::debug!(member = %from, %error, "answers were not sent");
    }
}

/// Passes datagrams on. There is no place for those that nobody has read yet.
async fn listen<H: Host>(
    shared: &Shared<H>,
    connection: &Connection,
    from: MemberId,
) -> ConnectionLost {
    loop {
        match connection.receive_datagram().await {
            Ok(bytes) if shared.admits(from) => shared.tell(News::Datagram { from, bytes }),
            Ok(_) => refuse(connection, CloseCode::NotAMember, NOT_A_MEMBER),
            Err(lost) => return lost,
        }
    }
}

fn fault(error: &ReceiveError) -> CloseCode {
    CloseCode::for_fault(error).unwrap_or(CloseCode::ProtocolError)
}

fn refuse(connection: &Connection, code: CloseCode, reason: &str) {
    let (peer, from) = (connection.remote_peer(), connection.remote_addr());
    tracing::info!(%peer, %from, reason, "refusing a connection of the ring");
    connection.close_with(code, reason);
}

impl Refusal {
    /// What a connection ended with, if it was this.
    pub(super) fn of(lost: &ConnectionLost) -> Option<Self> {
        match lost.code()? {
            CloseCode::Outlived => Some(Self::Outlived),
            CloseCode::Forgotten => Some(Self::Forgotten),
            _ => None,
        }
    }

    pub(super) fn code(&self) -> CloseCode {
        match self {
            Self::Outlived => CloseCode::Outlived,
            Self::Forgotten => CloseCode::Forgotten,
            Self::OtherFounding => CloseCode::NotAMember,
            Self::Unavailable => CloseCode::Internal,
        }
    }
}

const NOT_A_MEMBER: &str = "not a member of the ring";
