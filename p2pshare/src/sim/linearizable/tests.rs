//! The search against one that tries every order, on short histories of a row.

use proptest::prelude::*;

use super::*;
use crate::identity::{PeerId, RequestId};
use crate::sim::history::{Attempted, Changes, Operation, Row, Seen};
use crate::wire::ring::RequestKey;

fn request(i: u8) -> RequestKey {
    RequestKey {
        peer: PeerId::from_bytes([1; 32]),
        request: RequestId::from_bytes([i; 16]),
    }
}

fn attempted(i: u8, expected: u64) -> Attempted {
    Attempted {
        request: request(i),
        expected,
        value: (i != 3).then(|| vec![i]),
    }
}

fn seen(state: &Changes) -> Seen {
    Seen {
        version: state.len() as u64,
        value: state.last().and_then(|(_, value)| value.clone()),
        recent: state.iter().map(|(maker, _)| *maker).collect(),
    }
}

fn span(called: u64, returned: Option<u64>, operation: Operation) -> Spanned<Operation> {
    Spanned {
        called,
        returned,
        operation,
    }
}

/// Tries every order of every choice of those that never returned.
fn has_order(history: &[Spanned<Operation>], state: &Changes, taken: &mut Vec<usize>) -> bool {
    let left = |taken: &[usize]| {
        (0..history.len())
            .filter(|i| !taken.contains(i))
            .collect::<Vec<_>>()
    };
    if left(taken).iter().all(|i| history[*i].returned.is_none()) {
        return true;
    }
    left(taken).into_iter().any(|i| {
        let early = left(taken).iter().any(|j| {
            history[*j]
                .returned
                .is_some_and(|returned| returned < history[i].called)
        });
        let Some(next) = Row.step(state, &history[i].operation).filter(|_| !early) else {
            return false;
        };
        taken.push(i);
        let found = has_order(history, &next, taken);
        taken.pop();
        found
    })
}

/// What a true row answers, in the order of the list; each with how long before and after that moment it
/// was under way, and for one of them a lie.
fn history_of(steps: &[(u8, u8, u64, u64)], lie: Option<(usize, u64)>) -> Vec<Spanned<Operation>> {
    let mut state = Changes::new();
    let mut history = Vec::new();
    for (i, (kind, who, before, after)) in steps.iter().enumerate() {
        let at = 1000 * (i as u64 + 1);
        let attempted = attempted(*who, u64::from(kind % 3));
        let made = state
            .iter()
            .position(|(maker, _)| *maker == attempted.request);
        let fits = state.len() as u64 == attempted.expected;
        let operation = match (kind / 3, made) {
            (0, _) => Operation::Read(seen(&state)),
            (1, _) => Operation::Listed(seen(&state).value.is_some().then(|| seen(&state))),
            (2, Some(version)) => Operation::Made(attempted, version as u64 + 1),
            (2, None) if !fits => Operation::Conflict(attempted, seen(&state)),
            _ => {
                if made.is_none() && fits {
                    state.push((attempted.request, attempted.value.clone()));
                }
                match kind / 3 {
                    2 => Operation::Made(attempted, state.len() as u64),
                    _ => Operation::Unknown(attempted),
                }
            }
        };
        let known = !matches!(operation, Operation::Unknown(_));
        let i = i as u64;
        history.push(span(
            (at + i).saturating_sub(1000 * before),
            known.then_some(at + 100 + i + 1000 * after),
            operation,
        ));
    }
    if let Some((place, lie)) = lie {
        let place = place % history.len().max(1);
        match history.get_mut(place).map(|span| &mut span.operation) {
            Some(Operation::Read(seen) | Operation::Conflict(_, seen)) => {
                seen.version = lie;
                seen.recent.resize(lie as usize, request(9));
            }
            Some(Operation::Made(_, version)) => *version = lie,
            Some(listed @ Operation::Listed(Some(_))) => *listed = Operation::Listed(None),
            _ => {}
        }
    }
    history
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8, u64, u64)>> {
    proptest::collection::vec((0..12u8, 0..4u8, 0..4u64, 0..4u64), 0..7)
}

proptest! {
    #[test]
    fn what_a_row_answered_has_an_order(steps in steps()) {
        prop_assert_eq!(check(&Row, Changes::new(), &history_of(&steps, None)), Ok(()));
    }

    #[test]
    fn it_finds_what_a_search_of_every_order_finds(
        steps in steps(),
        lie in (0..7usize, 0..4u64),
    ) {
        let history = history_of(&steps, Some(lie));
        let found = check(&Row, Changes::new(), &history).is_ok();
        prop_assert_eq!(found, has_order(&history, &Changes::new(), &mut Vec::new()));
    }
}

#[test]
fn a_row_is_created_once_and_an_old_state_is_not_read_later() {
    let first: Changes = vec![(request(1), Some(vec![1]))];
    let check = |history: &[Spanned<Operation>]| check(&Row, Changes::new(), history).is_ok();
    let made =
        |i, called, returned| span(called, Some(returned), Operation::Made(attempted(i, 0), 1));
    assert!(!check(&[made(1, 0, 10), made(2, 1, 11)]));
    assert!(check(&[made(1, 0, 10), made(1, 11, 12)]));
    let read = |state: &Changes, called, returned| {
        span(called, Some(returned), Operation::Read(seen(state)))
    };
    // While a change is under way it may be seen, but once seen it stays.
    let unknown = span(0, None, Operation::Unknown(attempted(1, 0)));
    assert!(check(&[
        unknown.clone(),
        read(&Changes::new(), 1, 2),
        read(&first, 3, 4)
    ]));
    assert!(check(&[
        unknown.clone(),
        read(&first, 1, 9),
        read(&Changes::new(), 2, 8)
    ]));
    assert!(!check(&[
        unknown,
        read(&first, 1, 2),
        read(&Changes::new(), 3, 4)
    ]));
    // A change that failed for certain is not in a history, and nobody sees it.
    assert!(!check(&[read(&first, 1, 2)]));
}
