//! Messages on streams. A frame is read as its bytes arrive: a header that promises much and delivers
//! nothing costs nothing. A stream that is dropped before it was finished says so to the other side, which
//! can therefore never take a part for the whole.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::timeout;

use super::close::{CloseCode, ConnectionLost, ReceivedCode};
use super::connection::Connection;
use crate::limits::BODY_BYTES_AT_ONCE;
use crate::wire::frame::{FrameError, HEADER_BYTES, Message, decode_body, decode_header, encode};

/// The writing half of a stream. Dropping it unfinished resets it with [`CloseCode::Cancelled`].
#[derive(Debug)]
pub(crate) struct SendStream {
    quinn: quinn::SendStream,
    over: bool,
}

impl SendStream {
    pub(super) fn new(quinn: quinn::SendStream) -> Self {
        Self { quinn, over: false }
    }

    /// Sends one message. Not cancel-safe: the stream is of no use after half a frame.
    ///
    /// # Errors
    ///
    /// If the message is too long (nothing was sent), the other side takes no more, or the connection
    /// is lost.
    pub(crate) async fn send<M: Message>(&mut self, message: &M) -> Result<(), SendError> {
        let frame = encode(message)?;
        self.send_bytes(Bytes::from(frame)).await
    }

    /// Sends raw bytes, without copying them. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// If the other side takes no more, or the connection is lost.
    pub(crate) async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), SendError> {
        Ok(self.quinn.write_chunk(bytes).await?)
    }

    /// Says that this was all. The bytes are still under way.
    pub(crate) fn finish(&mut self) {
        self.over = true;
        // Of the two ways to fail, one is that the other side stopped the stream, which whoever reads
        // its answer hears there; the other is that the stream is over already.
        _ = self.quinn.finish();
    }

    /// Gives the stream up: the other side gets `code` instead of what was not yet delivered.
    pub(crate) fn reset(&mut self, code: CloseCode) {
        self.over = true;
        // It fails only on a stream that is over already.
        _ = self.quinn.reset(code.number());
    }

    /// Waits until the other side has all bytes of a finished stream (`None`), or wants no more of them
    /// (its code). Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(crate) async fn stopped(&self) -> Result<Option<ReceivedCode>, ConnectionLost> {
        match self.quinn.stopped().await {
            Ok(code) => Ok(code.map(Into::into)),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(no_early_data()),
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.over {
            self.reset(CloseCode::Cancelled);
        }
    }
}

/// The reading half of a stream. Dropping it before its end tells the other side to stop.
#[derive(Debug)]
pub(crate) struct RecvStream(quinn::RecvStream);

impl RecvStream {
    pub(super) fn new(quinn: quinn::RecvStream) -> Self {
        Self(quinn)
    }

    /// Receives one message. Not cancel-safe: half a frame that was read is gone.
    ///
    /// # Errors
    ///
    /// If what comes is not that message, or the stream or the connection ends.
    pub(crate) async fn receive<M: Message>(&mut self) -> Result<M, ReceiveError> {
        self.receive_or_end().await?.ok_or(ReceiveError::Truncated)
    }

    /// Receives one message, or `None` where the stream ends instead. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub(crate) async fn receive_or_end<M: Message>(&mut self) -> Result<Option<M>, ReceiveError> {
        match self.receive_header::<M>(usize::MAX).await? {
            Some(length) => self.receive_body(length).await.map(Some),
            None => Ok(None),
        }
    }

    /// Receives the beginning of a message whose body has at most `max` bytes: how many follow, or `None` where
    /// the stream ends instead. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub(super) async fn receive_header<M: Message>(
        &mut self,
        max: usize,
    ) -> Result<Option<usize>, ReceiveError> {
        let mut header = [0; HEADER_BYTES];
        let mut filled = 0;
        while filled < HEADER_BYTES {
            match self.0.read(&mut header[filled..]).await? {
                Some(bytes) => filled += bytes,
                None if filled == 0 => return Ok(None),
                None => return Err(ReceiveError::Truncated),
            }
        }
        let length = decode_header::<M>(header)?;
        if length > max {
            return Err(FrameError::TooLong { bytes: length, max }.into());
        }
        Ok(Some(length))
    }

    async fn receive_body<M: Message>(&mut self, length: usize) -> Result<M, ReceiveError> {
        let mut body = Vec::with_capacity(length.min(BODY_BYTES_AT_ONCE));
        while body.len() < length {
            let chunk = self.0.read_chunk(length - body.len(), true).await?;
            body.extend_from_slice(&chunk.ok_or(ReceiveError::Truncated)?.bytes);
        }
        Ok(decode_body(&body)?)
    }

    /// Receives the one message of a stream, which has to end after it. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive), and if anything follows the message.
    pub(crate) async fn receive_last<M: Message>(&mut self) -> Result<M, ReceiveError> {
        let length = self.receive_header::<M>(usize::MAX).await?;
        let length = length.ok_or(ReceiveError::Truncated)?;
        self.receive_last_body(length).await
    }

    /// As [`receive_last`](Self::receive_last), of a message whose header has come and promised so many bytes.
    ///
    /// # Errors
    ///
    /// As [`receive_last`](Self::receive_last).
    pub(super) async fn receive_last_body<M: Message>(
        &mut self,
        length: usize,
    ) -> Result<M, ReceiveError> {
        let message = self.receive_body(length).await?;
        match self.0.read_chunk(1, true).await? {
            None => Ok(message),
            Some(_) => Err(ReceiveError::Trailing),
        }
    }

    /// The next pieces of the stream, as they arrived and without copying them: how many of `pieces` were
    /// filled, or `None` at the stream's end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the stream or the connection ends early.
    pub(crate) async fn receive_bytes(
        &mut self,
        pieces: &mut [Bytes],
    ) -> Result<Option<usize>, ReceiveError> {
        Ok(self.0.read_chunks(pieces).await?)
    }

    /// Tells the other side to send no more, and why.
    pub(crate) fn stop(&mut self, code: CloseCode) {
        // It fails only on a stream that is over already.
        _ = self.0.stop(code.number());
    }
}

impl Connection {
    /// Sends `request` on a stream of its own and receives the answer. A side that answers something else
    /// loses the connection. Dropping the future cancels the request, which may have been acted upon.
    ///
    /// # Errors
    ///
    /// [`RequestError::may_have_arrived`] says whether the other side can have seen the request.
    pub(crate) async fn request<Q: Message, A: Message>(
        &self,
        request: &Q,
        within: Duration,
    ) -> Result<A, RequestError> {
        let mut opened = false;
        let exchange = async {
            let frame = encode(request).map_err(RequestError::Unsendable)?;
            let (mut send, mut receive) = self.open().await.map_err(RequestError::NotSent)?;
            opened = true;
            match send.send_bytes(Bytes::from(frame)).await {
                Ok(()) => send.finish(),
                // The answer says why the other side did not want to hear it all.
                Err(SendError::Stopped(_)) => {}
                Err(SendError::Frame(error)) => return Err(RequestError::Unsendable(error)),
                Err(SendError::Finished) => return Err(ReceiveError::Stopped.into()),
                Err(SendError::Lost(lost)) => return Err(ReceiveError::Lost(lost).into()),
            }
            let answer = receive.receive_last().await;
            if let Some(code) = answer.as_ref().err().and_then(CloseCode::for_fault) {
                self.close(code);
            }
            Ok(answer?)
        };
        match timeout(within, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(RequestError::TimedOut {
                after: within,
                opened,
            }),
        }
    }
}

/// Why a message was not sent.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum SendError {
    /// It is longer than its kind allows. Nothing was sent.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side takes no more on this stream.
    #[error("the other side takes no more: {0}")]
    Stopped(ReceivedCode),
    /// This side has finished or reset the stream.
    #[error("the stream was finished already")]
    Finished,
    /// The connection is no more.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
}

impl From<quinn::WriteError> for SendError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(code.into()),
            quinn::WriteError::ConnectionLost(error) => Self::Lost(error.into()),
            quinn::WriteError::ClosedStream => Self::Finished,
            quinn::WriteError::ZeroRttRejected => Self::Lost(no_early_data()),
        }
    }
}

/// Why no message was received. [`CloseCode::for_fault`] says which of these break the protocol.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum ReceiveError {
    /// What came is not the message that belongs here.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended where a message, or the rest of one, belongs.
    #[error("the stream ended before its message did")]
    Truncated,
    /// Something came after the last message.
    #[error("the stream went on after its last message")]
    Trailing,
    /// The other side gave the stream up.
    #[error("the other side gave the stream up: {0}")]
    Reset(ReceivedCode),
    /// This side has stopped the stream.
    #[error("the stream was stopped on this side")]
    Stopped,
    /// The connection is no more.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
}

impl From<quinn::ReadError> for ReceiveError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(code.into()),
            quinn::ReadError::ConnectionLost(error) => Self::Lost(error.into()),
            // Nothing here reads out of order.
            quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead => Self::Stopped,
            quinn::ReadError::ZeroRttRejected => Self::Lost(no_early_data()),
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum RequestError {
    /// It is longer than its kind allows. Nothing was sent.
    #[error(transparent)]
    Unsendable(FrameError),
    /// The connection was lost before anything was sent.
    #[error(transparent)]
    NotSent(ConnectionLost),
    /// It was sent, at least in part, and then no answer came.
    #[error(transparent)]
    Unanswered(#[from] ReceiveError),
    /// It took too long.
    #[error("no answer within {} ms", after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// Whether a part of it can have been sent.
        opened: bool,
    },
}

impl RequestError {
    /// Whether the other side can have seen the request, and acted upon it.
    pub(crate) fn may_have_arrived(&self) -> bool {
        match self {
            Self::Unsendable(_) | Self::NotSent(_) => false,
            Self::Unanswered(_) => true,
            Self::TimedOut { opened, .. } => *opened,
        }
    }
}

/// There is none of it here, so that nobody can refuse it either.
fn no_early_data() -> ConnectionLost {
    ConnectionLost::Transport {
        reason: "early data was refused".to_owned(),
    }
}
