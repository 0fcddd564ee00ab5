//! A sample of everything that peers can say to each other, and their golden bytes.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    content::{CHUNK_SIZE, PAGE, PROOF_NODES_MAX, page_root},
    golden::{Golden, assert_every_variant, variants},
    identity::token::samples as tokens,
    wire::frame::encode,
};

variants!(Open { Digests, Swarm });
variants!(PageAnswer { Page, Refused });
variants!(SwarmAnswer {
    Opened,
    Refused,
    Waits,
});
variants!(PeerRefusal { Denied, Busy });
variants!(SwarmRequest {
    Chunk,
    Cancel,
    Renew,
});
variants!(ChunkHeader {
    Chunk,
    Lacking,
    Cancelled,
    Have,
    TurnOver,
});

fn opens() -> [(&'static str, Open); 2] {
    let (group, id) = (
        GroupName::new("Photos").unwrap(),
        FileId::from_bytes([0x1d; 32]),
    );
    [
        (
            "digests",
            Open::Digests {
                grant: tokens::signed(&tokens::grant()),
                group: group.clone(),
                id,
                page: 300,
            },
        ),
        (
            "swarm",
            Open::Swarm {
                grant: tokens::signed(&tokens::grant()),
                group,
                id,
            },
        ),
    ]
}

fn refusals() -> [(&'static str, PeerRefusal); 2] {
    let refusals = [("denied", PeerRefusal::Denied), ("busy", PeerRefusal::Busy)];
    assert_every_variant(refusals.iter().map(|(_, refusal)| refusal));
    refusals
}

fn page(digests: usize, proof: usize) -> PageAnswer {
    let digest = Digest::from_bytes([0x5a; 32]);
    PageAnswer::Page {
        digests: vec![digest; digests],
        proof: vec![page_root(&[digest]); proof],
    }
}

fn page_answers() -> Vec<(&'static str, PageAnswer)> {
    let refused = refusals().map(|(name, refusal)| (name, PageAnswer::Refused(refusal)));
    [("page", page(2, 1)), ("page_of_small_file", page(1, 0))]
        .into_iter()
        .chain(refused)
        .collect()
}

fn swarm_answers() -> Vec<(&'static str, SwarmAnswer)> {
    let holdings = [
        ("nothing", Holding::Nothing),
        ("complete", Holding::Complete),
        ("partial", Holding::Partial(vec![0b101, 1])),
    ];
    assert_every_variant(holdings.iter().map(|(_, holding)| holding));
    let refused = refusals().map(|(name, refusal)| (name, SwarmAnswer::Refused(refusal)));
    holdings
        .map(|(name, holding)| (name, SwarmAnswer::Opened { holding }))
        .into_iter()
        .chain(refused)
        .chain([("waits", SwarmAnswer::Waits)])
        .collect()
}

fn swarm_requests() -> [(&'static str, SwarmRequest); 3] {
    let grant = tokens::signed(&tokens::grant());
    [
        ("chunk", SwarmRequest::Chunk { index: 300 }),
        ("cancel", SwarmRequest::Cancel { index: 300 }),
        ("renew", SwarmRequest::Renew { grant }),
    ]
}

fn headers() -> [(&'static str, ChunkHeader); 6] {
    let (index, short) = (300, 77);
    [
        (
            "chunk",
            ChunkHeader::Chunk {
                index,
                length: CHUNK_SIZE,
            },
        ),
        (
            "last_chunk",
            ChunkHeader::Chunk {
                index,
                length: short,
            },
        ),
        ("lacking", ChunkHeader::Lacking { index }),
        ("cancelled", ChunkHeader::Cancelled { index }),
        ("have", ChunkHeader::Have { index }),
        ("turn_over", ChunkHeader::TurnOver),
    ]
}

#[test]
fn golden_bytes() {
    let mut golden = Golden::open("peer");
    golden.messages("open", &opens());
    golden.messages("page_answer", &page_answers());
    golden.messages("swarm_answer", &swarm_answers());
    golden.messages("swarm_request", &swarm_requests());
    assert_every_variant(headers().iter().map(|(_, header)| header));
    for (name, header) in headers() {
        let again = |bytes: &[u8]| {
            let header = ChunkHeader::decode(bytes.try_into().ok()?).ok()?;
            Some(header.encode().to_vec())
        };
        let name = format!("chunk_header/{name}");
        golden.bytes(&name, &header, &header.encode(), again);
    }
    golden.finish();
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let header = |tag: u8, length: u32| {
        let [l0, l1, l2, l3] = length.to_le_bytes();
        ChunkHeader::decode([tag, 0, 0, 0, 0, l0, l1, l2, l3])
    };
    for length in [1, CHUNK_SIZE] {
        assert!(header(1, length).is_ok());
    }
    for length in [0, CHUNK_SIZE + 1, u32::MAX] {
        assert_eq!(header(1, length), Err(BadChunkHeader), "{length}");
    }
    for tag in [2, 3, 4, 5] {
        assert!(header(tag, 0).is_ok());
        assert_eq!(header(tag, 1), Err(BadChunkHeader), "{tag}");
    }
    for tag in [0, 6, u8::MAX] {
        assert_eq!(header(tag, 0), Err(BadChunkHeader), "{tag}");
    }
    let turn_over_of_a_chunk = ChunkHeader::decode([5, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(turn_over_of_a_chunk, Err(BadChunkHeader));
}

#[test]
fn the_largest_messages_fit_their_frames() {
    encode(&page(PAGE as usize, PROOF_NODES_MAX)).unwrap();
    let chunks_of_4_tib = (4u64 << 40) / u64::from(CHUNK_SIZE);
    let bits = vec![0xff; chunks_of_4_tib.div_ceil(8) as usize];
    let holding = Holding::Partial(bits);
    encode(&SwarmAnswer::Opened { holding }).unwrap();
}

/// Everything that a reader finds in a stream that comes in pieces of so many bytes.
fn read(stream: &[u8], cut: usize) -> Result<Vec<ChunkPart>, BadChunkHeader> {
    let (mut reader, mut parts) = (ChunkReader::default(), Vec::new());
    for piece in stream.chunks(cut) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(part) = reader.next(&mut piece)? {
            match (parts.last_mut(), part) {
                (Some(ChunkPart::Bytes(last)), ChunkPart::Bytes(more)) => {
                    *last = [last.as_ref(), more.as_ref()].concat().into();
                }
                (_, part) => parts.push(part),
            }
        }
        assert!(piece.is_empty());
    }
    Ok(parts)
}

#[test]
fn a_stream_is_read_the_same_wherever_it_is_cut() {
    let chunk = |index, length| ChunkHeader::Chunk { index, length };
    let lacking = ChunkHeader::Lacking { index: 1 };
    let stream = [
        &chunk(0, 3).encode()[..],
        b"abc",
        &lacking.encode(),
        &chunk(2, 12).encode(),
        b"defghijklmno",
        &[1, 2, 3],
    ]
    .concat();
    let parts = [
        ChunkPart::Header(chunk(0, 3)),
        ChunkPart::Bytes(Bytes::from_static(b"abc")),
        ChunkPart::Header(lacking),
        ChunkPart::Header(chunk(2, 12)),
        ChunkPart::Bytes(Bytes::from_static(b"defghijklmno")),
    ];
    for cut in 1..=stream.len() {
        assert_eq!(read(&stream, cut).as_deref(), Ok(&parts[..]), "{cut}");
    }
    let garbage = [&stream[..], &[0; 6]].concat();
    for cut in 1..=garbage.len() {
        assert_eq!(read(&garbage, cut), Err(BadChunkHeader), "{cut}");
    }
}
