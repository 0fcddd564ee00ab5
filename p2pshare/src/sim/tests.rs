//! A few worlds, and the same for each mistake that can be planted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{faults, run};

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
    let (all, next, missed) = (faults(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let look = || {
        while let Some(fault) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            if RARE.contains(fault) {
                continue;
            }
            let found = |seed: &u64| !run(*seed, Some(fault)).unwrap().violations().is_empty();
            if !(1..=SEEDS_OF_MISTAKES).any(|seed| found(&seed)) {
                missed.lock().unwrap().push(*fault);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(look);
        scope.spawn(look);
    });
    assert_eq!(missed.into_inner().unwrap(), [] as [&str; 0]);
}

/// As many worlds as fit into a few seconds without optimisation.
const SEEDS: u64 = 30;
/// So many worlds are looked at until a mistake shows; most show in the first few.
const SEEDS_OF_MISTAKES: u64 = 60;
/// Mistakes that show in one of some hundred worlds, which takes an optimised build: `ring_sim --faults` looks
/// for them too.
const RARE: &[&str] = &[
    "CertainAfterExposure",
    "InstallOverwrites",
    "ListingIgnoresDisputes",
    "NoWriteBack",
    "PullFromOne",
    "RetryAsFirst",
];
