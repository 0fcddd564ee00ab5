//! Benches of what a file is: each beside the least that the same bytes cost.
#![expect(clippy::expect_used, reason = "a bench without its input fails")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use p2pshare::CHUNK_SIZE;
use p2pshare::internals::{ArrivedPage, Picks, TwoBitfields, hash_chunk};

/// Chunks of a file of 1 TiB.
const CHUNKS: u32 = 1 << 21;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    chunk(&mut criterion);
    page(&mut criterion);
    bitfield(&mut criterion);
    picks(&mut criterion);
    criterion.final_summary();
}

/// Hashing a chunk, at once and in pieces as they come from the network, beside copying it.
fn chunk(criterion: &mut Criterion) {
    let chunk: Vec<u8> = (0..CHUNK_SIZE)
        .map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let mut copy = chunk.clone();
    let mut group = criterion.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    group.bench_function("hash whole", |b| {
        b.iter(|| hash_chunk(black_box(&chunk), chunk.len()))
    });
    group.bench_function("hash in pieces of 6400", |b| {
        b.iter(|| hash_chunk(black_box(&chunk), 6400))
    });
    group.bench_function("memcpy", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&chunk)))
    });
    group.finish();
}

/// Checking a full page of digests by its proof, beside hashing one of the 1,024 chunks that it answers for.
fn page(criterion: &mut Criterion) {
    let page = ArrivedPage::new().expect("a page of a file of 1 TiB");
    let chunk = vec![1; CHUNK_SIZE as usize];
    assert!(page.verify());
    let mut group = criterion.benchmark_group("page");
    group.bench_function("verify", |b| b.iter(|| black_box(&page).verify()));
    group.bench_function("hash one chunk", |b| {
        b.iter(|| hash_chunk(black_box(&chunk), chunk.len()))
    });
    group.finish();
}

/// What a swarm does with bitfields of 2^21 chunks, beside copying one.
fn bitfield(criterion: &mut Criterion) {
    let mut two = TwoBitfields::new(CHUNKS);
    let bytes = two
        .encode_and_decode()
        .expect("a bitfield comes back the same");
    let mut group = criterion.benchmark_group("bitfield");
    group.throughput(Throughput::Elements(CHUNKS.into()));
    group.bench_function("set and clear", |b| {
        b.iter(|| black_box(&mut two).set_and_clear())
    });
    group.bench_function("wanted", |b| b.iter(|| black_box(&two).sum_of_wanted()));
    group.bench_function("encode and decode", |b| {
        b.iter(|| black_box(&two).encode_and_decode())
    });
    group.bench_function("memcpy", |b| b.iter(|| black_box(&bytes).clone()));
    group.finish();
}

/// What to ask whom for next, of 2^21 chunks: at the beginning, and when a few are left that lie far apart.
fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("picks at 1 TiB");
    let begin = |missing| Picks::new(missing).expect("a layout of 1 TiB");
    group.throughput(Throughput::Elements(1));
    let mut picks = begin(None);
    group.bench_function("the first", |b| {
        b.iter(|| {
            if !picks.one() {
                picks = begin(None);
            }
        })
    });
    let last = 1_000;
    group.throughput(Throughput::Elements(last.into()));
    group.sample_size(10);
    group.bench_function("the last 1,000", |b| {
        b.iter_batched(|| begin(Some(last)), Picks::all, BatchSize::PerIteration)
    });
    group.finish();
}
