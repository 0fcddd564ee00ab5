//! Each reason, and which one of several counts.

use super::*;

fn rate() -> Rate {
    Rate::per_second(20_000).unwrap()
}

/// Of somebody who knows a holder and whom a tracker answers.
fn facts() -> Facts {
    Facts {
        quiet: STALL_PATIENCE,
        tracker: true,
        known: 2,
        ..Facts::default()
    }
}

#[test]
fn there_is_a_reason_for_each_and_none_before_its_time() {
    let (of, peers) = (facts(), 2);
    let all = [
        (
            Facts {
                unwritten: true,
                asked: true,
                open: 1,
                ..of.clone()
            },
            Stall::Disk,
            "the disk is slow",
        ),
        (
            Facts {
                asked: true,
                open: 2,
                limiting: Some(rate()),
                ..of.clone()
            },
            Stall::Silent { peers },
            "nothing comes yet from the 2 peers that were asked",
        ),
        (
            Facts {
                open: 2,
                limiting: Some(rate()),
                unheld: Some((17, 1)),
                ..of.clone()
            },
            Stall::Limited { rate: rate() },
            "the download limit of 20000 B/s has no room for the next chunk yet",
        ),
        (
            Facts {
                open: 1,
                queued: 1,
                unheld: Some((17, 1)),
                ..of.clone()
            },
            Stall::NoHolder {
                chunk: 17,
                chunks: 1,
            },
            "nobody online has chunk 17",
        ),
        (
            Facts {
                unheld: Some((17, 12)),
                ..of.clone()
            },
            Stall::NoHolder {
                chunk: 17,
                chunks: 12,
            },
            "nobody online has 12 of the missing chunks",
        ),
        (
            Facts {
                queued: 2,
                connecting: 1,
                ..of.clone()
            },
            Stall::Busy { peers },
            "all 2 peers are busy; waiting for a place",
        ),
        (
            Facts {
                busy: 1,
                refusing: 1,
                ..of.clone()
            },
            Stall::Busy { peers: 1 },
            "the peer is busy; waiting for a place",
        ),
        (
            Facts {
                connecting: 2,
                refusing: 1,
                ..of.clone()
            },
            Stall::Connecting { peers },
            "connecting to 2 peers",
        ),
        (
            Facts {
                refusing: 1,
                unreachable: 1,
                ..of.clone()
            },
            Stall::Refused { peers: 1 },
            "the peer refuses: not a member of the group, or not shared there any more",
        ),
        (
            Facts {
                unreachable: 2,
                ..of.clone()
            },
            Stall::Unreachable { peers },
            "2 peers that have it cannot be reached",
        ),
        (
            Facts {
                open: 2,
                busy: 1,
                ..of.clone()
            },
            Stall::Useless { peers },
            "the 2 peers that are connected have nothing that is missing",
        ),
        (
            of.clone(),
            Stall::Failed { peers },
            "2 peers that have it failed, and are asked again soon",
        ),
        (
            Facts {
                known: 0,
                unheld: Some((0, 9)),
                ..of.clone()
            },
            Stall::Nobody,
            "nobody who has it is online",
        ),
        (
            Facts {
                known: 0,
                tracker: false,
                ..of
            },
            Stall::NoTracker,
            "no tracker can be reached, and no peer is known",
        ),
    ];
    for (facts, reason, text) in all {
        assert_eq!(facts.stall(), Some(reason), "{facts:?}");
        assert_eq!(reason.to_string(), text);
        let early = Facts {
            quiet: STALL_PATIENCE - Duration::from_millis(1),
            ..facts
        };
        assert_eq!(early.stall(), None);
    }
}

#[test]
fn what_nobody_holds_is_counted() {
    let of = |indexes: &[u32]| {
        let mut bits = Bitfield::new(10);
        indexes.iter().for_each(|&index| {
            bits.set(index);
        });
        bits
    };
    let had = of(&[0, 1]);
    assert_eq!(unheld(&had, &[]), Some((2, 8)));
    let holds = [of(&[0, 2, 3, 4]), of(&[6, 7, 8])];
    assert_eq!(unheld(&had, &holds), Some((5, 2)));
    assert_eq!(unheld(&had, &[Bitfield::full(10)]), None);
    assert_eq!(unheld(&Bitfield::full(10), &[]), None);
}

#[test]
fn quiet_counts_from_the_last_byte() {
    // To look at what an earlier run left takes its time, and is no silence.
    let second = Duration::from_secs(1);
    let mut quiet = Quiet::new(99 * second);
    let mut after = |bytes, now: u32| {
        quiet.note(bytes, false, now * second);
        quiet.time(now * second)
    };
    assert_eq!(after(0, 100), second);
    assert_eq!(after(5, 102), Duration::ZERO);
    assert_eq!(after(5, 109), 7 * second);
    assert_eq!(after(6, 109), Duration::ZERO);
}

#[test]
fn what_is_waited_for_is_hope() {
    for (facts, hope) in [
        (facts(), false),
        (
            Facts {
                open: 1,
                connecting: 1,
                refusing: 1,
                unreachable: 1,
                ..facts()
            },
            false,
        ),
        (
            Facts {
                asked: true,
                ..facts()
            },
            true,
        ),
        (
            Facts {
                unwritten: true,
                ..facts()
            },
            true,
        ),
        (
            Facts {
                limiting: Some(rate()),
                ..facts()
            },
            true,
        ),
        // Even if there is a chunk that nobody has.
        (
            Facts {
                queued: 1,
                unheld: Some((1, 1)),
                ..facts()
            },
            true,
        ),
        (Facts { busy: 1, ..facts() }, true),
    ] {
        assert_eq!(facts.give_hope(), hope, "{facts:?}");
    }
    let second = Duration::from_secs(1);
    let mut quiet = Quiet::new(7 * second);
    let mut after = |bytes, hope, now: u32| {
        quiet.note(bytes, hope, now * second);
        quiet.hopeless(now * second)
    };
    assert_eq!(after(0, false, 9), 2 * second);
    assert_eq!(after(0, true, 12), Duration::ZERO);
    assert_eq!(after(0, false, 15), 3 * second);
    assert_eq!(after(1, false, 16), Duration::ZERO);
    assert_eq!(after(1, false, 17), second);
}
