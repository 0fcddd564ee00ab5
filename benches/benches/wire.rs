//! Benches of what is on the wire: each beside the least that the same bytes cost.
#![expect(clippy::expect_used, reason = "a bench without its input fails")]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use p2pshare::CHUNK_SIZE;
use p2pshare::internals::{ChunkStream, Frames};

/// Chunks of the stream: as many as a downloader asks for at once.
const CHUNKS: u32 = 16;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    chunks(&mut criterion);
    frames(&mut criterion);
    criterion.final_summary();
}

/// Taking a swarm stream apart, in pieces as the smallest and the largest packets bring them, beside copying it.
fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk stream");
    group.throughput(Throughput::Bytes(u64::from(CHUNKS * CHUNK_SIZE)));
    group.bench_function("write headers", |b| {
        b.iter(|| {
            (0..CHUNKS).for_each(|index| _ = black_box(ChunkStream::header(black_box(index))))
        })
    });
    let mut copy = Vec::new();
    for piece in [1_200, 6_400] {
        let stream = ChunkStream::new(CHUNKS, piece);
        let all = (CHUNKS as usize, (CHUNKS * CHUNK_SIZE) as usize);
        assert_eq!(stream.read(), Some(all));
        group.bench_function(format!("read in pieces of {piece}"), |b| {
            b.iter(|| black_box(&stream).read())
        });
        group.bench_function(format!("memcpy in pieces of {piece}"), |b| {
            b.iter(|| black_box(&stream).copy(black_box(&mut copy)))
        });
    }
    group.finish();
}

/// Encoding and decoding messages as frames, beside postcard alone.
fn frames(criterion: &mut Criterion) {
    for message in Frames::all().expect("messages within their bounds") {
        assert!(message.frame() > 0 && message.frame() == message.bare());
        let mut group = criterion.benchmark_group(message.name);
        group.throughput(Throughput::Bytes(message.bytes as u64));
        group.bench_function("frame", |b| b.iter(|| black_box(&message).frame()));
        group.bench_function("bare postcard", |b| b.iter(|| black_box(&message).bare()));
        group.finish();
    }
}
