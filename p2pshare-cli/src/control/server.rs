//! The background peer's end of the control socket.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::timeout;

use super::message::{ClientHello, Event, Outcome, Progress, Request, ServerHello};
use super::socket::Listener;
use super::{PROTOCOL, frame};
use crate::failure::Failure;

/// A request that has arrived, and the way to answer it.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) reporter: Reporter,
    pub(crate) cancelled: Cancelled,
}

/// Resolves when the client cancels or dies.
pub(crate) struct Cancelled(OwnedReadHalf);

impl Cancelled {
    /// Waits for the client's end of stream. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        let mut byte = [0];
        while matches!(self.0.read(&mut byte).await, Ok(1..)) {}
    }
}

/// The way back to the client. What cannot be sent is dropped: the client is gone then.
pub(crate) struct Reporter(OwnedWriteHalf);

impl Reporter {
    pub(crate) async fn progress(&mut self, progress: Progress) {
        let _ = timeout(
            SEND_TIMEOUT,
            frame::write_frame(&mut self.0, &Event::Progress(progress)),
        )
        .await;
    }

    /// Sends the result. The connection lasts as long as what this returns.
    pub(crate) async fn done(mut self, result: Result<Outcome, Failure>) -> OwnedWriteHalf {
        let sent = timeout(
            SEND_TIMEOUT,
            frame::write_frame(&mut self.0, &Event::Done(result)),
        )
        .await;
        if let Ok(Err(error)) = sent {
            tracing::debug!(%error, "a command did not wait for its result");
        }
        self.0
    }
}

/// Accepts the next connection of this user.
pub(crate) async fn accept(listener: &Listener) -> io::Result<UnixStream> {
    listener.accept().await
}

impl Asked {
    /// Says hello, and reads the client's hello and request.
    pub(crate) async fn receive(stream: UnixStream, hello: &ServerHello) -> io::Result<Self> {
        timeout(RECEIVE_TIMEOUT, async {
            let (mut from, mut to) = stream.into_split();
            frame::write_frame(&mut to, hello).await?;
            let client: ClientHello = frame::read_open_frame(&mut from).await?;
            if client.protocol != PROTOCOL {
                let message = format!(
                    "version {} of the command line speaks another control protocol",
                    client.version
                );
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            let request = frame::read_frame(&mut from).await?;
            Ok(Self {
                request,
                reporter: Reporter(to),
                cancelled: Cancelled(from),
            })
        })
        .await?
    }
}

/// How long a client may take to ask.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to read an event.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
