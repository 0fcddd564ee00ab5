//! Why connections and streams end. Every code that p2pshare sends is named here, and one function
//! says which fault of the other side is answered with which: nobody chooses a code on the spot.

use std::fmt;

use thiserror::Error;

use super::message::ReceiveError;
use crate::limits::CLOSE_REASON_CHARS_MAX;
use crate::wire::frame::FrameError;

/// What is said with a closed connection, a reset stream or a stopped one. Append-only: the number is on
/// the wire.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
#[repr(u32)]
pub(crate) enum CloseCode {
    /// Nothing more to say. Also what a connection says that is dropped without a word.
    Done = 0,
    /// The process is about to end.
    ShuttingDown = 1,
    /// What was sent is not what belongs there.
    ProtocolError = 2,
    /// A frame was announced that is longer than its kind allows.
    FrameTooLong = 3,
    /// Something was asked for that takes a login or membership first.
    Unauthenticated = 4,
    /// The two ends are of different rings.
    WrongRing = 5,
    /// More was asked for than is given to one.
    TooManyRequests = 6,
    /// A message did not arrive in time.
    TooSlow = 7,
    /// A newer connection takes the place of this one.
    Superseded = 8,
    /// A fault of the side that closes.
    Internal = 9,
    /// The one who asked no longer wants it.
    Cancelled = 10,
    /// Who asks is no member of the ring, or not the one that is expected.
    NotAMember = 11,
    /// A later life of the member that says hello has spoken.
    Outlived = 12,
    /// The member that says hello has told of more than its disk has.
    Forgotten = 13,
}

impl CloseCode {
    const ALL: [Self; 14] = [
        Self::Done,
        Self::ShuttingDown,
        Self::ProtocolError,
        Self::FrameTooLong,
        Self::Unauthenticated,
        Self::WrongRing,
        Self::TooManyRequests,
        Self::TooSlow,
        Self::Superseded,
        Self::Internal,
        Self::Cancelled,
        Self::NotAMember,
        Self::Outlived,
        Self::Forgotten,
    ];

    /// The code with this number, if this version knows it.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        usize::try_from(number)
            .ok()
            .and_then(|index| Self::ALL.get(index).copied())
    }

    /// The code to close the connection with after `error`; `None` where the other side broke no rule.
    pub(crate) fn for_fault(error: &ReceiveError) -> Option<Self> {
        match error {
            ReceiveError::Frame(FrameError::TooLong { .. }) => Some(Self::FrameTooLong),
            ReceiveError::Frame(
                FrameError::UnexpectedKind { .. } | FrameError::Malformed { .. },
            )
            | ReceiveError::Truncated
            | ReceiveError::Trailing => Some(Self::ProtocolError),
            ReceiveError::Reset(_) | ReceiveError::Stopped | ReceiveError::Lost(_) => None,
        }
    }

    pub(super) fn number(self) -> quinn::VarInt {
        quinn::VarInt::from_u32(self as u32)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::ShuttingDown => "shutting down",
            Self::ProtocolError => "protocol error",
            Self::FrameTooLong => "frame too long",
            Self::Unauthenticated => "not authenticated",
            Self::WrongRing => "wrong ring",
            Self::TooManyRequests => "too many requests",
            Self::TooSlow => "too slow",
            Self::Superseded => "superseded",
            Self::Internal => "internal error",
            Self::Cancelled => "cancelled",
            Self::NotAMember => "not a member",
            Self::Outlived => "outlived",
            Self::Forgotten => "forgotten",
        })
    }
}

/// A code as it came from the other side, which may know more of them than this version.
#[derive(Copy, Clone, Eq, PartialEq)]
pub(crate) struct ReceivedCode(u64);

impl ReceivedCode {
    /// The code, if this version knows it.
    pub(crate) fn known(self) -> Option<CloseCode> {
        CloseCode::from_number(self.0)
    }
}

impl From<quinn::VarInt> for ReceivedCode {
    fn from(number: quinn::VarInt) -> Self {
        Self(number.into_inner())
    }
}

impl fmt::Display for ReceivedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(code) => code.fmt(f),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for ReceivedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(code) => write!(f, "{code:?}"),
            None => write!(f, "Unknown({})", self.0),
        }
    }
}

/// Why a connection is no more.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum ConnectionLost {
    /// The other side closed it.
    #[error("the other side closed the connection: {code}{}", in_brackets(reason))]
    ClosedByPeer {
        /// What it said.
        code: ReceivedCode,
        /// What it said in words, if it did.
        reason: String,
    },
    /// This side closed it.
    #[error("the connection was closed on this side")]
    ClosedHere,
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the other side for {} s", crate::limits::IDLE_TIMEOUT.as_secs())]
    TimedOut,
    /// The other side does not know the connection: it was restarted.
    #[error("the other side was restarted")]
    Restarted,
    /// One of the two ends broke the rules of QUIC or of TLS.
    #[error("the connection broke down: {reason}")]
    Transport {
        /// In QUIC's words.
        reason: String,
    },
}

impl ConnectionLost {
    /// What the other side said when it closed the connection, if it did and this version knows the code.
    pub(crate) fn code(&self) -> Option<CloseCode> {
        match self {
            Self::ClosedByPeer { code, .. } => code.known(),
            _ => None,
        }
    }
}

impl From<quinn::ConnectionError> for ConnectionLost {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quinn;
        match error {
            Quinn::ApplicationClosed(close) => Self::ClosedByPeer {
                code: close.error_code.into(),
                reason: printable(&close.reason),
            },
            Quinn::LocallyClosed => Self::ClosedHere,
            Quinn::TimedOut => Self::TimedOut,
            Quinn::Reset => Self::Restarted,
            Quinn::VersionMismatch
            | Quinn::TransportError(_)
            | Quinn::ConnectionClosed(_)
            | Quinn::CidsExhausted => Self::Transport {
                reason: printable(error.to_string().as_bytes()),
            },
        }
    }
}

/// Text from the other side, fit for a log: short, and without control characters.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CLOSE_REASON_CHARS_MAX)
        .collect()
}

fn in_brackets(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_they_were() {
        for (number, code) in CloseCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
            assert_eq!(CloseCode::from_number(number as u64), Some(code));
        }
        assert_eq!(CloseCode::from_number(14), None);
        assert_eq!(CloseCode::from_number(u64::MAX), None);
    }

    #[test]
    fn faults_have_codes_and_losses_have_none() {
        let code = |error| CloseCode::for_fault(&error);
        let too_long = FrameError::TooLong { bytes: 2, max: 1 };
        assert_eq!(code(too_long.into()), Some(CloseCode::FrameTooLong));
        assert_eq!(
            code(ReceiveError::Truncated),
            Some(CloseCode::ProtocolError)
        );
        assert_eq!(code(ReceiveError::Lost(ConnectionLost::TimedOut)), None);
    }

    #[test]
    fn reasons_are_fit_to_print() {
        let lost = ConnectionLost::ClosedByPeer {
            code: ReceivedCode(77),
            reason: printable(b"a\x1b[2Jb\n\xff"),
        };
        assert_eq!(
            lost.to_string(),
            "the other side closed the connection: code 77 (a [2Jb \u{fffd})"
        );
        assert_eq!(printable(&[b'x'; 5000]).len(), CLOSE_REASON_CHARS_MAX);
        let lost = ConnectionLost::ClosedByPeer {
            code: CloseCode::ShuttingDown.number().into(),
            reason: String::new(),
        };
        assert_eq!(
            lost.to_string(),
            "the other side closed the connection: shutting down"
        );
        assert_eq!(lost.code(), Some(CloseCode::ShuttingDown));
    }
}
