//! The fuzz targets of what members ask each other's replicas: whatever comes in whatever order, a replica says
//! nothing that breaks its word, and its hash tree stays that of its rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::dht::parts::{SmallRing, ballot, decode_row_key, key, slice_of_row, state};
use crate::limits::REPLICA_PAGE_ROWS;
use crate::store::Table;
use crate::wire::ring::{Ballot, Epoch, ReplicaAnswer, ReplicaCall, ReplicaRequest};

/// What is prepared, accepted and read of rows of one replica, over many of its lives, is as one who only
/// remembers the highest promise and the last acceptance of each row expects it.
///
/// Each three bytes are one step: what is done, to which row, and in which round.
pub fn fuzz_row_ops(data: &[u8]) {
    let Ok(mut ring) = SmallRing::new(1) else {
        return;
    };
    let (mut model, mut life) = (BTreeMap::<u32, Expected>::new(), 0u64);
    for step in data.as_chunks::<3>().0.iter().take(256) {
        let [what, row, low] = *step;
        let (row, key) = (u32::from(row % 8), key(u32::from(row % 8)));
        // The rounds of a life are above whatever was promised in the one before.
        let first = (life - u64::from(what & 0x80 != 0 && life > 0)) << 22;
        let ballot = ballot(first + 1 + u64::from(low));
        let of = model.entry(row).or_default();
        let call = match what & 7 {
            0 | 1 => ReplicaCall::Prepare { key, ballot },
            2..=4 => ReplicaCall::Accept {
                key,
                ballot,
                state: state(ballot.round),
            },
            5 | 6 => ReplicaCall::Read { key },
            _ => {
                ring.node(1).disk.crash(0);
                assert!(ring.restart(1).is_ok());
                ring.node(1).vote();
                life += 1;
                continue;
            }
        };
        let prepares = matches!(call, ReplicaCall::Prepare { .. });
        let answer = ring.ask(1, 1, Epoch::FOUNDING, call);
        of.hear(answer.ok(), ballot, prepares, life);
    }
}

/// What is known of a row.
struct Expected {
    promised: Ballot,
    accepted: Ballot,
}

impl Default for Expected {
    fn default() -> Self {
        let (promised, accepted) = (Ballot::ZERO, Ballot::ZERO);
        Self { promised, accepted }
    }
}

impl Expected {
    /// Takes the answer to a step with this ballot, in a life.
    fn hear(&mut self, answer: Option<ReplicaAnswer>, asked: Ballot, prepares: bool, life: u64) {
        match answer {
            Some(ReplicaAnswer::Promised {
                ballot, accepted, ..
            }) => {
                assert!(prepares && ballot == asked && asked > self.promised);
                assert_eq!(accepted, self.accepted);
                self.promised = asked;
            }
            Some(ReplicaAnswer::Accepted { ballot }) => {
                assert!(!prepares && ballot == asked && asked >= self.promised);
                (self.promised, self.accepted) = (asked, asked);
            }
            // It may refuse what it promised nothing above only if another life may have promised it.
            Some(ReplicaAnswer::Refused { ballot, promised }) => {
                assert!(ballot == asked && promised >= asked);
                let due = asked < self.promised || (prepares && asked == self.promised);
                assert!(due || asked.round < life << 22);
            }
            Some(ReplicaAnswer::Row { accepted, state }) => {
                assert_eq!(accepted, self.accepted);
                let value = (accepted > Ballot::ZERO).then(|| accepted.round.to_be_bytes());
                assert_eq!(state.value(), value.as_ref().map(|value| &value[..]));
            }
            answer => panic!("{answer:?}"),
        }
    }
}

/// Whatever members ask a replica, it answers what was asked, pages are no longer than they may be, its epoch never
/// falls, and its hash tree is that of its rows, in memory and on disk.
///
/// The data are requests, each behind a byte that says who asks whom.
pub fn fuzz_anti_entropy(data: &[u8]) {
    let Ok(mut ring) = SmallRing::new(3) else {
        return;
    };
    let mut rest = data;
    for _ in 0..64 {
        let Some((&who, behind)) = rest.split_first() else {
            break;
        };
        let Ok((request, behind)) = postcard::take_from_bytes::<ReplicaRequest>(behind) else {
            break;
        };
        rest = behind;
        let (to, from) = (1 + who % 2, 1 + who / 2 % 3);
        match who >> 6 {
            1 => assert!(ring.restart(to).is_ok()),
            2 => ring.node(to).vote(),
            _ => {}
        }
        let before = epoch(&mut ring, to);
        let call = request.call.clone();
        let Ok(answer) = ring.ask(to, from, request.epoch, request.call) else {
            panic!("a disk in memory failed");
        };
        assert!(epoch(&mut ring, to) >= before);
        let stale = matches!(answer, ReplicaAnswer::StaleEpoch { .. });
        assert!(Some(request.epoch) >= before || stale);
        check(&call, &answer);
    }
    for member in [1, 2] {
        check_tree(&mut ring, member);
    }
}

fn epoch(ring: &mut SmallRing, member: u8) -> Option<Epoch> {
    let replica = ring.node(member).replica.as_ref();
    replica.map(|replica| replica.epoch())
}

/// That an answer is one to this question.
fn check(call: &ReplicaCall, answer: &ReplicaAnswer) {
    match (call, answer) {
        (
            ReplicaCall::Pull { place, .. },
            ReplicaAnswer::Pulled {
                asked, rows, next, ..
            },
        ) => {
            assert!(asked == place && rows.len() <= usize::from(REPLICA_PAGE_ROWS));
            assert!(next.as_ref().is_none_or(|next| next != place));
        }
        (
            ReplicaCall::TreeRows { slice, after, .. },
            ReplicaAnswer::Stamps {
                slice: of,
                after: behind,
                rows,
                ..
            },
        ) => {
            assert!(of == slice && behind == after && rows.len() <= usize::from(REPLICA_PAGE_ROWS));
            assert!(rows.iter().all(|(key, _)| slice_of_row(key) == *slice));
        }
        (ReplicaCall::TreeGroups { .. }, ReplicaAnswer::Sums { sums, .. })
        | (ReplicaCall::TreeSlices { .. }, ReplicaAnswer::Sums { sums, .. }) => {
            assert_eq!(sums.len(), 128);
        }
        (ReplicaCall::TreeLeaves { .. }, ReplicaAnswer::Sums { sums, .. }) => {
            assert_eq!(sums.len(), 64);
        }
        (ReplicaCall::Fence { .. }, ReplicaAnswer::Fenced { .. })
        | (ReplicaCall::Install { .. }, ReplicaAnswer::Done)
        | (
            ReplicaCall::Pull { .. } | ReplicaCall::TreeRows { .. },
            ReplicaAnswer::Unreadable { .. },
        )
        | (_, ReplicaAnswer::StaleEpoch { .. } | ReplicaAnswer::Unavailable) => {}
        (call, answer) => assert!(is_of_rows(call), "{call:?}: {answer:?}"),
    }
}

fn is_of_rows(call: &ReplicaCall) -> bool {
    matches!(
        call,
        ReplicaCall::Prepare { .. }
            | ReplicaCall::Accept { .. }
            | ReplicaCall::Read { .. }
            | ReplicaCall::List { .. }
            | ReplicaCall::Scan { .. }
    )
}

/// That a scrub of every slice that has rows finds nothing.
fn check_tree(ring: &mut SmallRing, member: u8) {
    let node = ring.node(member);
    let keys = node.table(Table::Rows).into_iter();
    let slices: BTreeSet<_> = keys
        .filter_map(|(key, _)| Some(slice_of_row(&decode_row_key(&key)?)))
        .collect();
    let (disk, replica) = (&mut node.disk, node.replica.as_mut());
    if let Some(replica) = replica {
        for slice in slices {
            let mended = disk.write(|tx| replica.scrub(tx, slice));
            assert!(matches!(mended, Ok(0)), "{mended:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::parts::id;
    use crate::wire::ring::{PullPlace, ReplicaRow};

    fn corpus(target: &str, name: &str) -> String {
        format!(
            "{}/../fuzz/corpus/{target}/{name}",
            env!("CARGO_MANIFEST_DIR")
        )
    }

    /// A replica that is filled, asked about its tree, and pulled from.
    fn requests() -> Vec<u8> {
        let key = key(1);
        let leaves = u64::MAX;
        let slice = slice_of_row(&key);
        let row = ReplicaRow {
            key: key.clone(),
            accepted: ballot(7),
            state: state(7),
        };
        let with = id(2);
        let limit = 3;
        let calls = [
            (1 << 6, ReplicaCall::Install { rows: vec![row] }),
            (2 << 6 | 2, ReplicaCall::TreeGroups { with }),
            (
                2,
                ReplicaCall::TreeSlices {
                    with,
                    group: (slice.index() / crate::limits::TREE_SLICES_PER_GROUP) as u8,
                },
            ),
            (2, ReplicaCall::TreeLeaves { slice }),
            (
                2,
                ReplicaCall::TreeRows {
                    slice,
                    leaves,
                    after: None,
                },
            ),
            (2, ReplicaCall::Fence { incarnation: 2 }),
            (
                2,
                ReplicaCall::Pull {
                    with,
                    place: PullPlace::START,
                    limit,
                },
            ),
            (2, ReplicaCall::Read { key }),
        ];
        let mut bytes = Vec::new();
        let mut epoch = Epoch::FOUNDING;
        for (who, call) in calls {
            if matches!(call, ReplicaCall::Fence { .. }) {
                epoch = epoch.next_return();
            }
            bytes.push(who);
            bytes.extend(postcard::to_stdvec(&ReplicaRequest { epoch, call }).unwrap());
        }
        bytes
    }

    /// Fuzzing starts from sequences that make sense.
    #[test]
    fn the_corpus_holds_sequences_that_are_answered() {
        let seed = corpus("anti_entropy", "filled");
        if std::env::var_os("P2PSHARE_GOLDEN").is_some() {
            std::fs::create_dir_all(corpus("anti_entropy", "")).unwrap();
            std::fs::write(&seed, requests()).unwrap();
        }
        assert!(
            std::fs::read(&seed).unwrap() == requests(),
            "P2PSHARE_GOLDEN=write makes it anew"
        );
        fuzz_anti_entropy(&requests());
        for name in ["lives", "duel"] {
            fuzz_row_ops(&std::fs::read(corpus("row_ops", name)).unwrap());
        }
    }
}
