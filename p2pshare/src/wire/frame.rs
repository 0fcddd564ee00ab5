//! A frame is a kind (u16), a length (u32), both little-endian, and that many bytes of postcard. The
//! length is checked against the bound of the kind before anything is allocated, and a body has to be used
//! up to its last byte.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes before the body of a frame.
pub(crate) const HEADER_BYTES: usize = 6;

/// What can be the body of a frame.
pub(crate) trait Message: Serialize + DeserializeOwned {
    /// The number that says on the wire which message this is.
    const KIND: u16;
    /// The most bytes that its body may have.
    const BODY_BYTES_MAX: usize;
}

/// Why bytes are not the frame that was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FrameError {
    /// Another kind of frame than the one that has its place here.
    #[error("a frame of kind {found:#06x} where {expected:#06x} belongs")]
    UnexpectedKind {
        /// The kind that belongs here.
        expected: u16,
        /// The kind that came.
        found: u16,
    },
    /// The body is longer than its kind allows.
    #[error("a frame of {bytes} bytes where at most {max} are allowed")]
    TooLong {
        /// How many bytes were announced.
        bytes: usize,
        /// How many the kind allows.
        max: usize,
    },
    /// The body is not a message of its kind, or bytes are left after it.
    #[error("a frame of kind {kind:#06x} whose body is malformed")]
    Malformed {
        /// The kind of the frame.
        kind: u16,
    },
}

/// The frame of `message`: its header and its body.
pub(crate) fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; HEADER_BYTES])
        .map_err(|_| FrameError::Malformed { kind: M::KIND })?;
    let bytes = frame.len() - HEADER_BYTES;
    let length = u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= M::BODY_BYTES_MAX)
        .ok_or(FrameError::TooLong {
            bytes,
            max: M::BODY_BYTES_MAX,
        })?;
    frame[..2].copy_from_slice(&M::KIND.to_le_bytes());
    frame[2..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// How long the body is that `header` announces.
pub(crate) fn decode_header<M: Message>(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    let [k0, k1, l0, l1, l2, l3] = header;
    let found = u16::from_le_bytes([k0, k1]);
    if found != M::KIND {
        return Err(FrameError::UnexpectedKind {
            expected: M::KIND,
            found,
        });
    }
    let bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if bytes > M::BODY_BYTES_MAX {
        return Err(FrameError::TooLong {
            bytes,
            max: M::BODY_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// The message whose body is exactly `body`.
pub(crate) fn decode_body<M: Message>(body: &[u8]) -> Result<M, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed { kind: M::KIND }),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Ping(String);

    impl Message for Ping {
        const KIND: u16 = 0x0102;
        const BODY_BYTES_MAX: usize = 4;
    }

    #[test]
    fn golden() {
        let frame = encode(&Ping("abc".into())).unwrap();
        assert_eq!(frame, [0x02, 0x01, 4, 0, 0, 0, 3, b'a', b'b', b'c']);
        let header = frame[..HEADER_BYTES].try_into().unwrap();
        assert_eq!(decode_header::<Ping>(header), Ok(4));
        assert_eq!(decode_body(&frame[HEADER_BYTES..]), Ok(Ping("abc".into())));
    }

    #[test]
    fn refuses_what_is_too_long_on_both_sides() {
        let too_long = FrameError::TooLong { bytes: 5, max: 4 };
        assert_eq!(encode(&Ping("abcd".into())), Err(too_long.clone()));
        assert_eq!(decode_header::<Ping>([2, 1, 5, 0, 0, 0]), Err(too_long));
        assert!(decode_header::<Ping>([2, 1, 255, 255, 255, 255]).is_err());
    }

    #[test]
    fn refuses_other_kinds_truncations_and_trailing_bytes() {
        assert!(matches!(
            decode_header::<Ping>([3, 1, 0, 0, 0, 0]),
            Err(FrameError::UnexpectedKind { .. })
        ));
        let malformed = Err(FrameError::Malformed { kind: 0x0102 });
        for body in [&b""[..], b"\x03ab", b"\x03abcd", b"\x03ab\xff"] {
            assert_eq!(decode_body::<Ping>(body), malformed, "{body:?}");
        }
    }
}
