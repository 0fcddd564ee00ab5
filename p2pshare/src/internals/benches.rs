//! What the benches measure: each hot path on something of the size that it has in life.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::PageClaim;
use crate::content::{Bitfield, Digest, Hasher, Layout, PAGE};
use crate::limits::{ANNOUNCED_SWARMS_MAX, FILES_PAGE_MAX};
use crate::peer::measured::{Order, Picker};
use crate::wire::frame::{HEADER_BYTES, Message, decode_body, decode_header, encode};
use crate::wire::peer::{ChunkHeader, ChunkPart, ChunkReader, SwarmRequest};
use crate::wire::tracker::{Announcement, FileSummary, Holding, Request, Response, SwarmEntry};
use crate::{CHUNK_SIZE, FileId, FileName, GroupName, Timestamp, UserName};

/// The digest of a chunk that arrives in pieces of `piece` bytes.
pub fn hash_chunk(chunk: &[u8], piece: usize) -> Digest {
    let mut hasher = Hasher::new();
    chunk.chunks(piece).for_each(|piece| hasher.update(piece));
    hasher.finish()
}

/// A full page of digests of a file of 1 TiB, with its proof, as it arrives.
pub struct ArrivedPage {
    claim: PageClaim,
    id: FileId,
}

impl ArrivedPage {
    /// The last of the 2,048 pages.
    pub fn new() -> Option<Self> {
        let (claim, id) = PageClaim::true_of(2048, PAGE)?;
        Some(Self { claim, id })
    }

    /// Checks the page; true, as it is the true one.
    pub fn verify(&self) -> bool {
        self.claim.is_believed(self.id)
    }
}

/// The bitfields of two holders of one file: this side's, and another's.
pub struct TwoBitfields {
    ours: Bitfield,
    theirs: Bitfield,
}

impl TwoBitfields {
    /// Bitfields of `len` chunks: this side lacks every third chunk, the other every second.
    pub fn new(len: u32) -> Self {
        let [ours, theirs] = [3, 2].map(|step| {
            let mut bitfield = Bitfield::full(len);
            (0..len).step_by(step).for_each(|index| {
                bitfield.clear(index);
            });
            bitfield
        });
        Self { ours, theirs }
    }

    /// Sets and clears every bit; returns how many are set then.
    pub fn set_and_clear(&mut self) -> u32 {
        for index in 0..self.ours.len() {
            if !self.ours.set(index) {
                self.ours.clear(index);
            }
        }
        self.ours.count()
    }

    /// Goes over every chunk that this side lacks and the other has; returns the sum of their positions.
    pub fn sum_of_wanted(&self) -> u64 {
        self.theirs.iter_lacked_by(&self.ours).map(u64::from).sum()
    }

    /// Encodes and decodes this side's bitfield; returns its bytes, or none if it did not come back the same.
    pub fn encode_and_decode(&self) -> Option<Vec<u8>> {
        let bytes = postcard::to_stdvec(&self.ours).ok()?;
        let again: Bitfield = postcard::from_bytes(&bytes).ok()?;
        (black_box(again) == self.ours).then_some(bytes)
    }
}

/// What is asked of whom, in a download of 1 TiB from four who have everything and four who have a quarter each, which
/// are told apart by how rare they are.
pub struct Picks {
    picker: Picker,
    source: u64,
    now: Duration,
}

impl Picks {
    /// At its beginning, or with only so many chunks missing, far from each other.
    pub fn new(missing: Option<u32>) -> Option<Self> {
        let layout = Layout::new(1 << 40).ok()?;
        let count = layout.chunk_count();
        let apart = missing.map(|missing| count / missing);
        let of = |wanted: &dyn Fn(u32) -> bool| {
            let mut bits = Bitfield::new(count);
            (0..count).filter(|&index| wanted(index)).for_each(|index| {
                bits.set(index);
            });
            bits
        };
        let had = of(&|index| apart.is_some_and(|apart| index % apart != 0));
        let mut picker = Picker::new(layout, had, Order::RarestFirst, 1);
        let quarter = |index: u32| index / apart.unwrap_or(1) % 4;
        let counts: Vec<u16> = (0..count).map(|i| 1 + quarter(i) as u16).collect();
        picker.note_availability(&counts);
        for source in 0..4 {
            picker.join(source, of(&|index| u64::from(quarter(index)) == source));
            picker.join(4 + source, Bitfield::full(count));
        }
        Some(Self {
            picker,
            source: 0,
            now: Duration::ZERO,
        })
    }

    /// The next source is asked for a chunk, gives it, and it is written. False once there is nothing more to ask it for.
    pub fn one(&mut self) -> bool {
        (self.source, self.now) = ((self.source + 1) % 8, self.now + Duration::from_micros(500));
        let Some(chunk) = self.picker.pick(self.source, self.now) else {
            return false;
        };
        self.picker.deliver(self.source, chunk, self.now) && self.picker.have(chunk)
    }

    /// Goes on to the end.
    pub fn all(mut self) {
        while !self.picker.is_complete() {
            self.one();
        }
    }
}

/// Chunks on a swarm stream, in the pieces in which it arrives.
pub struct ChunkStream {
    pieces: Vec<Bytes>,
}

impl ChunkStream {
    /// `chunks` chunks, in pieces of `piece` bytes.
    pub fn new(chunks: u32, piece: usize) -> Self {
        let mut stream = BytesMut::new();
        for index in 0..chunks {
            stream.extend_from_slice(&Self::header(index));
            stream.resize(stream.len() + CHUNK_SIZE as usize, index as u8);
        }
        let stream = stream.freeze();
        let ends = (0..stream.len()).step_by(piece);
        let pieces = ends.map(|at| stream.slice(at..stream.len().min(at + piece)));
        Self {
            pieces: pieces.collect(),
        }
    }

    /// What stands before the bytes of a chunk.
    pub fn header(index: u32) -> [u8; 9] {
        let length = CHUNK_SIZE;
        ChunkHeader::Chunk { index, length }.encode()
    }

    /// Takes headers and chunks apart; returns how many of the first there were and how long the others are
    /// together, or `None` if it made no sense.
    pub fn read(&self) -> Option<(usize, usize)> {
        let mut reader = ChunkReader::default();
        let (mut headers, mut bytes) = (0, 0);
        for piece in &self.pieces {
            let mut piece = piece.clone();
            while let Some(part) = reader.next(&mut piece).ok()? {
                match part {
                    ChunkPart::Header(_) => headers += 1,
                    ChunkPart::Bytes(part) => bytes += black_box(part).len(),
                }
            }
        }
        Some((headers, bytes))
    }

    /// Copies all pieces into `to`, one after the other.
    pub fn copy(&self, to: &mut Vec<u8>) {
        to.clear();
        for piece in &self.pieces {
            to.extend_from_slice(piece);
        }
    }
}

/// A message, as a frame and bare.
pub struct Frames {
    /// What it is.
    pub name: &'static str,
    /// Bytes of its frame.
    pub bytes: usize,
    frame: Box<dyn Fn() -> usize>,
    bare: Box<dyn Fn() -> usize>,
}

impl Frames {
    /// The shortest message that there are many of, and the longest ones.
    pub fn all() -> Option<[Self; 3]> {
        Some([
            Self::of("request of a chunk", SwarmRequest::Chunk { index: 70_000 })?,
            Self::of("announcement", Request::Announce(announcement()?))?,
            Self::of("page of files", files()?)?,
        ])
    }

    fn of<M: Message + Clone + 'static>(name: &'static str, message: M) -> Option<Self> {
        let bytes = encode(&message).ok()?.len();
        let again = message.clone();
        Some(Self {
            name,
            bytes,
            frame: Box::new(move || frame_there_and_back(&message).unwrap_or(0)),
            bare: Box::new(move || there_and_back(&again).unwrap_or(0)),
        })
    }

    /// Encodes the message as a frame and decodes it; returns the bytes of its body.
    pub fn frame(&self) -> usize {
        (self.frame)()
    }

    /// The same in postcard alone.
    pub fn bare(&self) -> usize {
        (self.bare)()
    }
}

fn frame_there_and_back<M: Message>(message: &M) -> Option<usize> {
    let frame = encode(message).ok()?;
    let (header, body) = frame.split_first_chunk::<HEADER_BYTES>()?;
    let length = decode_header::<M>(*header).ok()?;
    black_box(decode_body::<M>(body.get(..length)?).ok()?);
    Some(length)
}

fn there_and_back<M: Serialize + DeserializeOwned>(message: &M) -> Option<usize> {
    let bytes = postcard::to_stdvec(message).ok()?;
    black_box(postcard::from_bytes::<M>(&bytes).ok()?);
    Some(bytes.len())
}

fn announcement() -> Option<Announcement> {
    let entry = |n: usize| {
        Some(SwarmEntry {
            group: GroupName::new("photos").ok()?,
            name: FileName::new(&format!("{n}.jpg")).ok()?,
            id: FileId::from_bytes([7; 32]),
            holding: Holding::Complete,
        })
    };
    Some(Announcement {
        number: 70_000,
        addrs: vec![SocketAddr::from(([192, 0, 2, 1], 41_873)); 2],
        anew: true,
        swarms: (0..ANNOUNCED_SWARMS_MAX)
            .map(entry)
            .collect::<Option<_>>()?,
    })
}

fn files() -> Option<Response> {
    let file = |n: usize| {
        Some(FileSummary {
            name: FileName::new(&format!("{n}.jpg")).ok()?,
            id: FileId::from_bytes([7; 32]),
            size: 3 << 20,
            sha256: Digest::from_bytes([8; 32]),
            uploader: UserName::new("alice").ok()?,
            published: Timestamp::from_millis(1_700_000_000_000),
            holders_online: 3,
            sharers: 2,
        })
    };
    Some(Response::Files {
        files: (0..FILES_PAGE_MAX).map(file).collect::<Option<_>>()?,
        next: None,
        stale: false,
    })
}
