//! The fuzz targets of what strangers may send and what people may write into files: nothing that is read panics,
//! and what was taken is what would be written.
//!
//! Numbers can be written in more bytes than they need, so that bytes that are taken need not be those that are
//! written; but those that are written are no longer, and are taken for the same.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::content::{Bitfield, Digest};
use crate::dht::parts::Rumours;
use crate::identity::key::SigningKey;
use crate::identity::ring_key::RingKey;
use crate::identity::token::{Claims, Credential, Grant, Signed, TrackerCertificate};
use crate::identity::{MemberId, PeerId, TrackerList};
use crate::limits::{GOSSIP_BYTES_MAX, RING_KEY_FILE_BYTES_MAX};
use crate::wire::frame::{HEADER_BYTES, Message, decode_body, decode_header, encode};
use crate::wire::peer::{
    ChunkHeader, ChunkPart, ChunkReader, Open, PageAnswer, SwarmAnswer, SwarmRequest,
};
use crate::wire::ring::{
    Hello, LeaseEntry, Life, ReplicaAnswers, ReplicaBatch, StoredRegister, Welcome,
};
use crate::wire::tracker::{Holding, Request, Response};

/// Of a stream of frames, each is of one kind, no longer than that allows, and comes back the same.
pub fn fuzz_frame(data: &[u8]) {
    let read = [
        read_frame::<Request>,
        read_frame::<Response>,
        read_frame::<Open>,
        read_frame::<PageAnswer>,
        read_frame::<SwarmAnswer>,
        read_frame::<SwarmRequest>,
        read_frame::<ReplicaBatch>,
        read_frame::<ReplicaAnswers>,
    ];
    let mut rest = data;
    while let Some((header, behind)) = rest.split_first_chunk() {
        let mut lengths = read.iter().filter_map(|read| read(*header, behind));
        let Some(length) = lengths.next() else {
            return;
        };
        assert_eq!(lengths.next(), None, "two kinds of frames have one number");
        match behind.get(length..) {
            Some(next) => rest = next,
            None => return,
        }
    }
}

/// The length of the body behind `header`, if it is that of an `M`.
fn read_frame<M: Message + PartialEq + Debug>(
    header: [u8; HEADER_BYTES],
    behind: &[u8],
) -> Option<usize> {
    let length = decode_header::<M>(header).ok()?;
    assert!(length <= M::BODY_BYTES_MAX);
    if let Some(body) = behind.get(..length) {
        there_and_back::<M>(body);
    }
    Some(length)
}

/// A request to a tracker comes back the same, and to mark it as a retry changes nothing else.
pub fn fuzz_tracker_request(data: &[u8]) {
    let Some(mut request) = there_and_back::<Request>(data) else {
        return;
    };
    let (change, frame) = (request.change(), encode(&request));
    request.mark_retry();
    let marked = request.change();
    assert_eq!(
        marked.map(|change| (change.request, change.retry)),
        change.map(|change| (change.request, true))
    );
    let (before, after) = (frame.map(|f| f.len()), encode(&request).map(|f| f.len()));
    assert_eq!(before, after);
}

/// A tracker's answer comes back the same; a welcome proves nothing that the ring did not sign.
pub fn fuzz_tracker_response(data: &[u8]) {
    match there_and_back::<Response>(data) {
        Some(Response::Welcome(welcome)) => {
            if let Ok(TrackerCertificate::V1 { ring, peer, .. }) = welcome.certificate.peek() {
                let signed = welcome.certificate.open(&ring.into()).is_ok();
                let proven = welcome.verify(peer).map(|(ring, _)| ring);
                assert_eq!(proven, signed.then_some(ring));
                let another = PeerId::from_bytes(peer.as_bytes().map(|byte| !byte));
                assert_eq!(welcome.verify(another), None);
            }
        }
        Some(Response::Refused(refusal)) => {
            assert!(!refusal.to_string().is_empty());
        }
        _ => {}
    }
}

/// What peers say to each other comes back the same; a bitfield is one of the file's chunks or none.
pub fn fuzz_peer_message(data: &[u8]) {
    there_and_back::<Open>(data);
    there_and_back::<PageAnswer>(data);
    there_and_back::<SwarmRequest>(data);
    if let Some(SwarmAnswer::Opened {
        holding: Holding::Partial(bits),
    }) = there_and_back::<SwarmAnswer>(data)
    {
        let chunks = bits.len() as u32 * 8;
        for chunks in chunks.saturating_sub(9)..=chunks + 1 {
            if let Ok(bitfield) = Bitfield::from_bytes(chunks, &bits) {
                assert_eq!(bitfield.to_bytes(), bits);
                assert!(bitfield.iter_set().all(|chunk| chunk < chunks));
            }
        }
    }
}

/// What trackers say to each other and keep comes back the same.
pub fn fuzz_ring_message(data: &[u8]) {
    there_and_back::<ReplicaBatch>(data);
    there_and_back::<ReplicaAnswers>(data);
    there_and_back::<Hello>(data);
    there_and_back::<Welcome>(data);
    value_there_and_back::<LeaseEntry>(data);
    value_there_and_back::<StoredRegister>(data);
}

/// Datagrams of a member, each behind a byte with its length: what is not taken changes nothing, and what is
/// leads to datagrams that others would take for no longer than they may be.
pub fn fuzz_gossip(data: &[u8]) {
    let mut rumours = listener();
    let mut now = Instant::now();
    let mut rest = data;
    while let Some((&length, behind)) = rest.split_first() {
        let (datagram, next) = behind.split_at(usize::from(length).min(behind.len()));
        let before = rumours.garbage();
        let taken = rumours.receive(now, GOSSIPER, datagram).is_ok();
        assert_eq!(rumours.garbage() - before, u64::from(!taken));
        assert!(taken || rumours.poll_send().is_none());
        now += Duration::from_millis(700);
        rumours.handle_timeout(now);
        while let Some((_, said)) = rumours.poll_send() {
            assert!(said.len() <= GOSSIP_BYTES_MAX);
        }
        assert!(
            rumours.dead().len() <= 2,
            "it thinks of itself, or of strangers"
        );
        rest = next;
    }
}

/// One of three members, who knows of no others than those.
fn listener() -> Rumours {
    let life = Life {
        member: MemberId::from_bytes([1; 16]),
        incarnation: 1,
    };
    let mut rumours = Rumours::new(life, StdRng::seed_from_u64(1));
    let members = (1..=3).map(|byte| MemberId::from_bytes([byte; 16]));
    rumours.set_members(Instant::now(), members.collect());
    rumours
}

/// Another of them.
const GOSSIPER: MemberId = MemberId::from_bytes([2; 16]);

/// A chunk stream is read the same wherever it is cut, and is what its headers and chunks are written as.
///
/// The first byte says into pieces of how many bytes it is cut.
pub fn fuzz_chunk_stream(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let (chunks, sound) = read_chunks(stream, stream.len().max(1));
    let cut = read_chunks(stream, usize::from(cut).max(1));
    assert_eq!(cut, (chunks.clone(), sound));
    let mut written = Vec::new();
    for (header, bytes) in chunks {
        let announced = match header {
            ChunkHeader::Chunk { length, .. } => length as usize,
            ChunkHeader::Lacking { .. }
            | ChunkHeader::Cancelled { .. }
            | ChunkHeader::Have { .. }
            | ChunkHeader::TurnOver => 0,
        };
        written.extend(header.encode());
        written.extend(&bytes);
        let is_last = written.len() == stream.len();
        assert!(bytes.len() == announced || is_last && bytes.len() < announced);
    }
    assert!(stream.starts_with(&written));
    if sound {
        assert!(stream.len() - written.len() < ChunkHeader::BYTES);
    }
}

/// The headers and the bytes behind each in a stream that comes in pieces of so many bytes, and whether all of its
/// headers made sense.
fn read_chunks(stream: &[u8], piece: usize) -> (Vec<(ChunkHeader, Vec<u8>)>, bool) {
    let (mut reader, mut chunks) = (ChunkReader::default(), Vec::new());
    for piece in stream.chunks(piece) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match (reader.next(&mut piece), chunks.last_mut()) {
                (Ok(Some(ChunkPart::Header(header))), _) => chunks.push((header, Vec::new())),
                (Ok(Some(ChunkPart::Bytes(bytes))), Some((_, chunk))) => chunk.extend(&bytes),
                (Ok(Some(ChunkPart::Bytes(_))), None) => panic!("a chunk without a header"),
                (Ok(None), _) => break,
                (Err(_), _) => return (chunks, false),
            }
        }
        assert!(piece.is_empty());
    }
    (chunks, true)
}

/// A token comes back the same, opens only if it is what the key's owner would have signed, and is of one kind.
pub fn fuzz_token(data: &[u8]) {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[7; 32]));
    let opened = [
        opens::<Credential>(data, &KEY),
        opens::<Grant>(data, &KEY),
        opens::<TrackerCertificate>(data, &KEY),
    ];
    assert!(opened.into_iter().filter(|opened| *opened).count() <= 1);
}

fn opens<T: Claims + PartialEq + Debug>(data: &[u8], key: &SigningKey) -> bool {
    let Some(token) = value_there_and_back::<Signed<T>>(data) else {
        return false;
    };
    let read = token.peek();
    let opened = token.open(&key.verifying_key());
    if let Ok(claims) = &opened {
        assert_eq!(opened, read);
        assert_eq!(Signed::sign(claims, key), token);
    }
    opened.is_ok()
}

/// A list of trackers that is taken keeps its promises, and is the same when it is written out.
pub fn fuzz_tracker_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let list = match TrackerList::parse(text) {
        Ok(list) => list,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!((1..=TrackerList::MAX_LEN).contains(&list.addrs().len()));
    let ring = list.ring().map(|ring| format!("ring {ring}"));
    let addrs = list.addrs().iter().map(ToString::to_string);
    let written: Vec<String> = ring.into_iter().chain(addrs).collect();
    assert_eq!(TrackerList::parse(&written.join("\n")), Ok(list.clone()));
    for (index, addr) in list.addrs().iter().enumerate() {
        assert_eq!(addr.to_string().parse().as_ref(), Ok(addr));
        assert!(addr.port() > 0 && addr.dht_port() > addr.port());
        let others = &list.addrs()[..index];
        let same_host = others.iter().filter(|other| other.host() == addr.host());
        for other in same_host {
            let ports = [addr.port(), addr.dht_port()];
            assert!(!ports.contains(&other.port()) && !ports.contains(&other.dht_port()));
        }
    }
}

/// A ring key that is taken is the same when it is written out.
///
/// The bytes are tried as the file, and as what stands in it before the check, which is made to fit.
pub fn fuzz_ring_key(data: &[u8]) {
    let digest = Digest::of(data).to_string();
    let sealed = [data, b"check ", &digest.as_bytes()[..16], b"\n"].concat();
    for file in [data, &sealed] {
        match RingKey::decode(file) {
            Ok(key) => {
                let written = key.encode();
                assert!(written.len() <= RING_KEY_FILE_BYTES_MAX);
                assert_eq!(RingKey::decode(written.as_bytes()), Ok(key));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// The message whose body this is, if it is one: it encodes into a frame of its kind that is no longer, and from
/// which it comes back.
fn there_and_back<M: Message + PartialEq + Debug>(body: &[u8]) -> Option<M> {
    let message = decode_body::<M>(body).ok()?;
    let frame = encode(&message);
    let frame = frame.unwrap_or_else(|error| panic!("{message:?} does not encode: {error}"));
    let Some((header, written)) = frame.split_first_chunk() else {
        panic!("a frame without a header");
    };
    assert!(written.len() <= body.len());
    assert_eq!(decode_header::<M>(*header), Ok(written.len()));
    let again = decode_body::<M>(written);
    assert_eq!(again.as_ref(), Ok(&message));
    assert_eq!(again.and_then(|again| encode(&again)), Ok(frame));
    Some(message)
}

/// As [`there_and_back`], of what is kept or travels within a message.
fn value_there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    bytes: &[u8],
) -> Option<T> {
    let Ok((value, [])) = postcard::take_from_bytes::<T>(bytes) else {
        return None;
    };
    let written = postcard::to_allocvec(&value);
    assert!(written.as_ref().is_ok_and(|w| w.len() <= bytes.len()));
    let again = written.and_then(|written| postcard::from_bytes::<T>(&written));
    assert_eq!(again.as_ref(), Ok(&value));
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_starts_from_holds() {
        type Target = (&'static str, fn(&[u8]));
        let targets: [Target; 10] = [
            ("frame", fuzz_frame),
            ("tracker_request", fuzz_tracker_request),
            ("tracker_response", fuzz_tracker_response),
            ("peer_message", fuzz_peer_message),
            ("ring_message", fuzz_ring_message),
            ("gossip", fuzz_gossip),
            ("chunk_stream", fuzz_chunk_stream),
            ("token", fuzz_token),
            ("tracker_list", fuzz_tracker_list),
            ("ring_key", fuzz_ring_key),
        ];
        for (target, fuzz) in targets {
            let corpus = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            let mut seeds = std::fs::read_dir(corpus).unwrap().peekable();
            assert!(seeds.peek().is_some(), "{target} has no seeds");
            for seed in seeds {
                fuzz(&std::fs::read(seed.unwrap().path()).unwrap());
            }
        }
    }

    /// Fuzzing starts from what is taken, or it would hardly find its way past the decoder.
    #[test]
    fn seeds_with_a_check_are_taken() {
        let seed = |path: &str| {
            let path = format!("{}/../fuzz/corpus/{path}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read(path).unwrap()
        };
        assert!(RingKey::decode(&seed("ring_key/file")).is_ok());
        for name in ["announce", "ping", "gossip_of_a_death"] {
            let seed = seed(&format!("gossip/{name}"));
            let taken = listener().receive(Instant::now(), GOSSIPER, &seed[1..]);
            assert_eq!(
                (seed.len() - 1, taken),
                (usize::from(seed[0]), Ok(())),
                "{name}"
            );
        }
        let key = SigningKey::from_seed(&[7; 32]);
        assert!(opens::<Credential>(
            &seed("token/token-signed-credential"),
            &key
        ));
        assert!(opens::<Grant>(&seed("token/token-signed-grant"), &key));
    }
}
