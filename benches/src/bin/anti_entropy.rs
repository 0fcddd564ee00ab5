//! What it costs two replicas to find the rows in which they differ and to mend them: bytes between them, and time
//! of one thread, with disks in memory. `cargo run --release -p p2pshare-benches --bin anti_entropy -- [ROWS]`

use std::time::Instant;

use p2pshare::internals::{Traffic, TwoReplicas};

fn main() {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok());
    let rows = rows.unwrap_or(1_000_000);
    if measure(rows).is_none() {
        eprintln!("the replicas were not made equal");
        std::process::exit(1);
    }
}

fn measure(rows: u32) -> Option<()> {
    println!("{rows} rows");
    let mut replicas = TwoReplicas::new(rows)?;
    let begun = Instant::now();
    report("equal", replicas.find()?.0, begun);
    for (name, step) in [("one row", rows as usize), ("0.1 %", 1000)] {
        replicas.change(rows, step)?;
        let begun = Instant::now();
        let (traffic, differing) = replicas.find()?;
        report(&format!("{name} differs: found"), traffic, begun);
        let begun = Instant::now();
        report(
            &format!("{name} differs: mended"),
            replicas.mend(differing)?,
            begun,
        );
        if replicas.find()?.0.rows > 0 {
            return None;
        }
    }
    Some(())
}

fn report(what: &str, traffic: Traffic, begun: Instant) {
    let Traffic {
        rows,
        questions,
        bytes,
    } = traffic;
    let time = begun.elapsed();
    println!("{what}: {rows} rows, {questions} questions, {bytes} bytes, {time:.1?}");
}
