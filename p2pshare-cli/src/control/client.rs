//! The command's end of the control socket.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::message::{ClientHello, Event, Outcome, Progress, Request, ServerHello};
use super::{PROTOCOL, frame, socket};
use crate::failure::Failure;
use crate::home::IdentityFolder;

/// A connection to a background peer that has said hello.
pub(crate) struct Client {
    stream: UnixStream,
    hello: ServerHello,
}

/// Why there is no background peer to talk to.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// None is running.
    NotRunning,
    /// Something is there and does not answer as it should.
    Broken(io::Error),
}

impl Client {
    /// Connects to the background peer of `folder` and waits for its hello.
    pub(crate) async fn connect(folder: &IdentityFolder) -> Result<Self, ConnectError> {
        let mut stream = socket::connect(folder)
            .await
            .map_err(|error| match error.kind() {
                // The last is of one that ends while we wait in its queue.
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset => ConnectError::NotRunning,
                _ => ConnectError::Broken(error),
            })?;
        match timeout(HELLO_TIMEOUT, frame::read_open_frame(&mut stream)).await {
            Ok(Ok(hello)) => Ok(Self { stream, hello }),
            // It ended between our connecting and its hello; one that was killed before it took the connection
            // resets it.
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::BrokenPipe
                ) =>
            {
                Err(ConnectError::NotRunning)
            }
            Ok(Err(error)) => Err(ConnectError::Broken(error)),
            Err(_) => Err(ConnectError::Broken(io::ErrorKind::TimedOut.into())),
        }
    }

    /// What the background peer said first.
    pub(crate) fn hello(&self) -> &ServerHello {
        &self.hello
    }

    /// The process at the other end.
    pub(crate) fn pid(&self) -> Option<rustix::process::Pid> {
        rustix::process::Pid::from_raw(self.stream.peer_cred().ok()?.pid()?)
    }

    /// Asks, and waits for the result.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Outcome, Failure> {
        let (_never, cancel) = watch::channel(false);
        self.ask_with_progress(request, cancel, |_| {}).await
    }

    /// Asks, hears of progress, and waits for the result. When `cancel` turns true the transfer is cancelled, and
    /// the result says so once it is.
    pub(crate) async fn ask_with_progress(
        &mut self,
        request: &Request,
        mut cancel: watch::Receiver<bool>,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<Outcome, Failure> {
        let hello = ClientHello {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
        };
        frame::write_frame(&mut self.stream, &hello)
            .await
            .map_err(|error| lost(&error))?;
        frame::write_frame(&mut self.stream, request)
            .await
            .map_err(|error| lost(&error))?;
        let (mut from, mut to) = self.stream.split();
        let events = async {
            loop {
                match frame::read_frame(&mut from)
                    .await
                    .map_err(|error| lost(&error))?
                {
                    Event::Progress(progress) => on_progress(progress),
                    Event::Done(result) => return result,
                }
            }
        };
        let cancelling = async {
            if cancel.wait_for(|cancelled| *cancelled).await.is_ok() {
                let _ = to.shutdown().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            result = events => result,
            () = cancelling => unreachable!("cancelling never ends by itself"),
        }
    }

    /// Waits until the process at the other end is gone, or has had its time.
    pub(crate) async fn wait_for_end(mut self) {
        // A background peer that ends does not wait for what will not be asked.
        let _ = self.stream.shutdown().await;
        let mut nowhere = tokio::io::sink();
        let end = tokio::io::copy(&mut self.stream, &mut nowhere);
        let _ = timeout(END_TIMEOUT, end).await;
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::failed(format!(
        "the background peer went away before it answered: {error}"
    ))
    .hint("its folder has a peer.log; whether the change was made is unknown")
}

/// The version of this binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a background peer may take to say hello.
const HELLO_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// How long a background peer may take to end after it was told to.
const END_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);
