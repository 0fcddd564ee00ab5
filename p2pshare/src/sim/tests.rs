//! A few worlds, and the same for each mistake that can be planted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{mistakes, run};

#[test]
fn nothing_is_lost_or_doubled_whatever_breaks() {
    for seed in 1..=SEEDS {
        let report = run(seed, None).unwrap();
        assert_eq!(report.violations(), [] as [&str; 0], "seed {seed}");
    }
}

#[test]
fn a_seed_lives_through_the_same_again() {
    for seed in 1..=4 {
        let (one, other) = (run(seed, None).unwrap(), run(seed, None).unwrap());
        assert_eq!(one.trace(), other.trace(), "seed {seed}");
        assert_ne!(
            one.trace(),
            run(seed + 1, None).unwrap().trace(),
            "seed {seed}"
        );
    }
}

#[test]
fn whatever_mistake_is_planted_is_found() {
    let (all, next, table) = (mistakes(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let look = || {
        while let Some(mistake) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = mistake.name;
            let found = |seed: &u64| !run(*seed, Some(name)).unwrap().violations().is_empty();
            let first = (1..=SEEDS_OF_MISTAKES).find(found);
            table.lock().unwrap().push((name, mistake.worlds, first));
        }
    };
    thread::scope(|scope| {
        scope.spawn(look);
        scope.spawn(look);
    });
    let table = table.into_inner().unwrap();
    for (name, worlds, first) in &table {
        println!("{name:<24} {worlds:<12} in seed {first:?} first");
    }
    assert!(table.iter().all(|(.., first)| first.is_some()), "{table:?}");
}

/// As many worlds as fit into a few seconds without optimisation.
const SEEDS: u64 = 30;
/// So many worlds are looked at until a mistake shows; most show in the first few, all in one of thirty or so.
const SEEDS_OF_MISTAKES: u64 = 300;
