//! The side that answers. Each stream that the other side opens carries one request and gets one answer
//! from a task of its own; how many run at once is bounded, and all end with the call that runs them. Who
//! sends what is no request loses the connection, and nobody else notices.

use std::future::Future;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bodies::Bodies;
use super::close::{CloseCode, ConnectionLost};
use super::connection::Connection;
use super::crowd::Prefix;
use super::message::{ReceiveError, RecvStream, SendError, SendStream};
use crate::limits::REQUEST_TIMEOUT;
use crate::wire::frame::{Message, encode};

/// How much is taken from the other side of one connection.
#[derive(Clone, Debug)]
pub(crate) struct ServeLimits<L> {
    /// Requests that are worked on at once.
    pub(crate) at_once: usize,
    /// Bytes in the body of the next request, if its kind does not allow fewer.
    pub(crate) request_bytes: L,
    /// The room for long requests, which this connection shares with others.
    pub(crate) bodies: Bodies,
}

/// Hands every request of `connection` to `handler`, within `limits`, until the connection is lost. Dropping
/// the future abandons the handlers under way.
pub(crate) async fn serve<Q, L, H, F>(
    connection: &Connection,
    limits: ServeLimits<L>,
    handler: H,
) -> ConnectionLost
where
    Q: Message + Send + 'static,
    L: Fn() -> usize,
    H: Fn(Q, Responder) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // What a handler that panicked leaves is a stream that was reset.
            Some(_) = running.join_next(), if !running.is_empty() => {}
            stream = connection.accept(), if running.len() < limits.at_once.max(1) => {
                let (send, receive) = match stream {
                    Ok(stream) => stream,
                    Err(lost) => return lost,
                };
                let bytes_max = (limits.request_bytes)();
                let connection = connection.clone();
                let (bodies, handler) = (limits.bodies.clone(), handler.clone());
                running.spawn(answer(connection, send, receive, bytes_max, bodies, handler));
            }
            lost = connection.closed() => return lost,
        }
    }
}

/// The place for the answer to a request. Dropping it unanswered tells the one who asked that the fault
/// is here.
#[derive(Debug)]
pub(crate) struct Responder {
    stream: Option<SendStream>,
}

impl Responder {
    /// Sends the answer.
    ///
    /// # Errors
    ///
    /// If the answer is too long, the one who asked no longer wants it, or the connection is lost.
    pub(crate) async fn answer<A: Message>(self, answer: &A) -> Result<(), SendError> {
        match encode(answer) {
            Ok(frame) => self.answer_frame(frame).await,
            Err(error) => Err(error.into()),
        }
    }

    /// As [`answer`](Self::answer), with an answer that is encoded already.
    ///
    /// # Errors
    ///
    /// As [`answer`](Self::answer).
    pub(crate) async fn answer_frame(self, frame: Vec<u8>) -> Result<(), SendError> {
        let mut stream = self.into_stream();
        let sent = stream.send_bytes(frame.into()).await;
        match sent {
            Ok(()) => stream.finish(),
            Err(_) => stream.reset(CloseCode::Internal),
        }
        sent
    }

    /// The stream itself, for an answer of many messages or of raw bytes.
    pub(crate) fn into_stream(mut self) -> SendStream {
        #[expect(
            clippy::expect_used,
            reason = "only this takes the stream, and it consumes the responder"
        )]
        self.stream.take().expect("a responder has its stream")
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.reset(CloseCode::Internal);
        }
    }
}

async fn answer<Q, H, F>(
    connection: Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    bytes_max: usize,
    bodies: Bodies,
    handler: H,
) where
    Q: Message,
    H: Fn(Q, Responder) -> F,
    F: Future<Output = ()>,
{
    let mut held = None;
    let receiving = async {
        let bytes = receive.receive_header::<Q>(bytes_max).await?;
        let bytes = bytes.ok_or(ReceiveError::Truncated)?;
        let prefix = Prefix::of(connection.remote_addr().ip());
        let body = held.insert(bodies.begin(prefix, bytes));
        tokio::select! {
            request = receive.receive_last_body(bytes) => request,
            () = body.given_up() => Err(ReceiveError::Stopped),
        }
    };
    match timeout(REQUEST_TIMEOUT, receiving).await {
        Ok(Ok(request)) => {
            let stream = Some(send);
            let handling = handler(request, Responder { stream });
            match held {
                None => handling.await,
                Some(body) => tokio::select! {
                    () = handling => {}
                    () = body.given_up() => {}
                },
            }
        }
        Ok(Err(error)) => abandon(&connection, send, &error),
        Err(_) => {
            send.reset(CloseCode::TooSlow);
            receive.stop(CloseCode::TooSlow);
        }
    }
}

fn abandon(connection: &Connection, mut send: SendStream, error: &ReceiveError) {
    match CloseCode::for_fault(error) {
        Some(code) => {
            tracing::debug!(peer = %connection.remote_peer(), %error, "closing a connection");
            connection.close(code);
        }
        None if *error == ReceiveError::Stopped => send.reset(CloseCode::TooManyRequests),
        None => send.reset(CloseCode::Cancelled),
    }
}
