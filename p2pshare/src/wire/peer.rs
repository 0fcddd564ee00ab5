//! What peers say to each other. Every stream begins with an [`Open`], which carries the grant that says
//! by what right.
//!
//! A *digests* stream is one [`Open::Digests`] and one [`PageAnswer`]. A *swarm* stream lives as long as a
//! download: after [`SwarmAnswer::Opened`] the downloader sends [`SwarmRequest`] frames, as many as
//! [`crate::limits::CHUNK_REQUESTS_MAX`] unanswered, and the holder answers the chunk requests in their
//! order, each by a [`ChunkHeader`] and, if it has the chunk, its bytes raw. A chunk is never in postcard. In
//! between it says, by [`ChunkHeader::Have`], what others ask it for, and what it has got if it is itself
//! downloading; and it may end by [`ChunkHeader::TurnOver`].

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{frame::Message, tracker::Holding};
use crate::{
    content::{Digest, FileId, Node},
    identity::{
        GroupName,
        token::{Grant, Signed},
    },
    limits::{PEER_REQUEST_BYTES_MAX, SWARM_ANSWER_BYTES_MAX},
};

/// The first frame of a stream.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Open {
    /// A page of the file's chunk digests.
    Digests {
        grant: Signed<Grant>,
        group: GroupName,
        id: FileId,
        page: u32,
    },
    /// Chunks of the file.
    Swarm {
        grant: Signed<Grant>,
        group: GroupName,
        id: FileId,
    },
}

/// The answer to [`Open::Digests`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum PageAnswer {
    /// The digests of the page's chunks, and the proof that the file id commits to them.
    Page {
        digests: Vec<Digest>,
        proof: Vec<Node>,
    },
    /// No.
    Refused(PeerRefusal),
}

/// The answer to [`Open::Swarm`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum SwarmAnswer {
    /// The stream is open; the holder has this much.
    Opened { holding: Holding },
    /// No.
    Refused(PeerRefusal),
    /// It serves as many as it can, and the stream has a place in the queue: once it is its turn, or that takes
    /// too long, another answer follows, which is not this one.
    Waits,
}

/// Why a peer gives nothing.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum PeerRefusal {
    /// The grant does not allow it, or the file is not here: the two are not told apart, so that nobody
    /// learns who has what by asking.
    #[error("the peer refuses: no such file for this grant")]
    Denied,
    /// It serves as many as it can.
    #[error("the peer is busy")]
    Busy,
}

/// What a downloader says on an open swarm stream.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum SwarmRequest {
    /// Send this chunk.
    Chunk { index: u32 },
    /// Do not send this chunk, if nothing of it was sent. Whoever cancels too often what was read gets it all the same.
    Cancel { index: u32 },
    /// The right to go on.
    Renew { grant: Signed<Grant> },
}

impl Message for Open {
    const KIND: u16 = 0x0201;
    const BODY_BYTES_MAX: usize = PEER_REQUEST_BYTES_MAX;
}

impl Message for PageAnswer {
    const KIND: u16 = 0x0202;
    /// A full page, the longest proof, and what postcard adds.
    const BODY_BYTES_MAX: usize = 1024 * Digest::LEN + 32 * Digest::LEN + 16;
}

impl Message for SwarmAnswer {
    const KIND: u16 = 0x0203;
    const BODY_BYTES_MAX: usize = SWARM_ANSWER_BYTES_MAX;
}

impl Message for SwarmRequest {
    const KIND: u16 = 0x0204;
    const BODY_BYTES_MAX: usize = PEER_REQUEST_BYTES_MAX;
}

/// What stands before the bytes of a chunk on a swarm stream: nine bytes, a tag, the chunk's index and
/// how many bytes follow, both u32 and little-endian.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum ChunkHeader {
    /// Tag 1: the chunk follows, in so many bytes.
    Chunk { index: u32, length: u32 },
    /// Tag 2, length 0: the holder does not have (or no longer has) this chunk.
    Lacking { index: u32 },
    /// Tag 3, length 0: the request was cancelled before anything of it was sent.
    Cancelled { index: u32 },
    /// Tag 4, length 0: no answer; the holder, who said that it had a part, has got this chunk as well, or, if it
    /// had it, was asked for it by somebody else.
    Have { index: u32 },
    /// Tag 5, index and length 0: no answer; others wait for the place, and no more answers come. Whoever opens
    /// another stream waits with them.
    TurnOver,
}

/// Bytes that are no [`ChunkHeader`].
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a chunk header that makes no sense")]
pub(crate) struct BadChunkHeader;

impl ChunkHeader {
    /// Bytes of a header.
    pub(crate) const BYTES: usize = 9;

    /// The header's bytes.
    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let (tag, index, length) = match self {
            Self::Chunk { index, length } => (1, index, length),
            Self::Lacking { index } => (2, index, 0),
            Self::Cancelled { index } => (3, index, 0),
            Self::Have { index } => (4, index, 0),
            Self::TurnOver => (5, 0, 0),
        };
        let [i0, i1, i2, i3] = u32::to_le_bytes(index);
        let [l0, l1, l2, l3] = u32::to_le_bytes(length);
        [tag, i0, i1, i2, i3, l0, l1, l2, l3]
    }

    /// The header with these bytes.
    pub(crate) fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, BadChunkHeader> {
        let [tag, i0, i1, i2, i3, l0, l1, l2, l3] = bytes;
        let index = u32::from_le_bytes([i0, i1, i2, i3]);
        match (tag, u32::from_le_bytes([l0, l1, l2, l3])) {
            (1, length) if (1..=crate::content::CHUNK_SIZE).contains(&length) => {
                Ok(Self::Chunk { index, length })
            }
            (2, 0) => Ok(Self::Lacking { index }),
            (3, 0) => Ok(Self::Cancelled { index }),
            (4, 0) => Ok(Self::Have { index }),
            (5, 0) if index == 0 => Ok(Self::TurnOver),
            _ => Err(BadChunkHeader),
        }
    }
}

/// Takes headers and chunks out of the pieces in which a swarm stream comes, wherever it was cut. The bytes
/// of a chunk are passed on as they came, and never more of them than their header announced.
#[derive(Debug, Default)]
pub(crate) struct ChunkReader {
    /// The header that is being received, and how much of it is there.
    header: [u8; ChunkHeader::BYTES],
    filled: usize,
    /// Bytes that are still to come of the chunk whose header came last.
    missing: usize,
}

/// What a [`ChunkReader`] finds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ChunkPart {
    /// A header. If it announces a chunk, that many bytes of it follow.
    Header(ChunkHeader),
    /// The next bytes of the chunk; at least one.
    Bytes(Bytes),
}

impl ChunkReader {
    /// Takes the next part from the front of `piece`; `None` once nothing is left there.
    pub(crate) fn next(&mut self, piece: &mut Bytes) -> Result<Option<ChunkPart>, BadChunkHeader> {
        if piece.is_empty() {
            return Ok(None);
        }
        if self.missing > 0 {
            let bytes = piece.split_to(piece.len().min(self.missing));
            self.missing -= bytes.len();
            return Ok(Some(ChunkPart::Bytes(bytes)));
        }
        let lacking = &mut self.header[self.filled..];
        let taken = piece.split_to(piece.len().min(lacking.len()));
        lacking[..taken.len()].copy_from_slice(&taken);
        self.filled += taken.len();
        if self.filled < ChunkHeader::BYTES {
            return Ok(None);
        }
        self.filled = 0;
        let header = ChunkHeader::decode(self.header)?;
        if let ChunkHeader::Chunk { length, .. } = header {
            self.missing = length as usize;
        }
        Ok(Some(ChunkPart::Header(header)))
    }
}
