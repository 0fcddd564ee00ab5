//! What clients asked of the ring and were told, and what a single row that nothing ever happens to would
//! have told them.
//!
//! The row here is written down apart from the product's registers: it remembers every change it ever took,
//! so that a request is done at most once, and knows nothing of ballots or replicas. An answer that says
//! nothing certain leaves its operation open for ever; one that says that nothing was changed makes it an
//! operation that must never be seen.

use std::collections::BTreeMap;

use super::linearizable::{NoOrder, Sequential, Spanned, check};
use crate::wire::ring::{RequestKey, RowKey, RowState};

/// A row as a client saw it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) version: u64,
    pub(crate) value: Option<Vec<u8>>,
    /// Who made the last versions, the newest last.
    pub(crate) recent: Vec<RequestKey>,
}

impl From<RowState> for Seen {
    fn from(state: RowState) -> Self {
        let (version, value, recent) = state.into_parts();
        Self {
            version: version.as_u64(),
            value,
            recent,
        }
    }
}

/// One try of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Attempted {
    pub(crate) request: RequestKey,
    /// The version that the row must have; zero creates it.
    pub(crate) expected: u64,
    pub(crate) value: Option<Vec<u8>>,
}

/// One thing that a client did with a row and that may show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    /// It read the row.
    Read(Seen),
    /// It saw the row in a list, or did not.
    Listed(Option<Seen>),
    /// It was told that its change made this version, now or in an earlier try.
    Made(Attempted, u64),
    /// It was told that the row has another version.
    Conflict(Attempted, Seen),
    /// It was not told whether its change was made.
    Unknown(Attempted),
}

/// Everything that clients did, row by row.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    rows: BTreeMap<RowKey, Vec<Spanned<Operation>>>,
    moments: u64,
}

impl History {
    /// The next moment; no two are the same.
    pub(crate) fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    /// Records an operation that was called at a moment and returns now; one of unknown outcome never does.
    pub(crate) fn record(&mut self, key: &RowKey, called: u64, operation: Operation) {
        let returned = match operation {
            Operation::Unknown(_) => None,
            _ => Some(self.moment()),
        };
        self.rows.entry(key.clone()).or_default().push(Spanned {
            called,
            returned,
            operation,
        });
    }

    /// The rows that were asked for, and what was done with them.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&RowKey, &[Spanned<Operation>])> {
        self.rows.iter().map(|(key, row)| (key, row.as_slice()))
    }

    /// Of each row, the version that a client was told of last.
    pub(crate) fn acknowledged(&self) -> Vec<(RowKey, u64)> {
        let version = |span: &Spanned<Operation>| match &span.operation {
            Operation::Read(seen) => Some(seen.version),
            Operation::Made(_, version) => Some(*version),
            _ => None,
        };
        let last = |row: &[Spanned<Operation>]| row.iter().filter_map(version).max();
        let rows = self.rows();
        rows.filter_map(|(key, row)| Some((key.clone(), last(row)?)))
            .collect()
    }

    /// Looks at every row by itself for an order of what was done with it.
    pub(crate) fn check(&self) -> Vec<String> {
        self.rows()
            .filter_map(|(key, row)| check_row(row).err().map(|why| format!("{key:?}: {why}")))
            .collect()
    }
}

/// Looks for an order of the operations on one row; else says what cannot be ordered.
pub(crate) fn check_row(row: &[Spanned<Operation>]) -> Result<(), String> {
    check(&Row, Vec::new(), row).map_err(|NoOrder { longest }| {
        let ordered = longest
            .iter()
            .map(|place| format!("\n  ordered {}", describe(&row[*place])));
        let others = (0..row.len()).filter(|place| !longest.contains(place));
        let others = others.map(|place| format!("\n  cannot follow {}", describe(&row[place])));
        format!(
            "not linearizable:{}{}",
            ordered.collect::<String>(),
            others.collect::<String>()
        )
    })
}

fn describe(span: &Spanned<Operation>) -> String {
    let returned = span
        .returned
        .map_or("never".to_owned(), |at| at.to_string());
    let name = |request: &RequestKey| request.request.as_bytes()[15];
    let seen = |seen: &Seen| {
        let recent: Vec<_> = seen.recent.iter().map(name).collect();
        let value = seen
            .value
            .as_ref()
            .map(|value| value.escape_ascii().to_string());
        format!("version {} {value:?} by {recent:?}", seen.version)
    };
    let change = |change: &Attempted| {
        let value = change
            .value
            .as_ref()
            .map(|value| value.escape_ascii().to_string());
        format!(
            "request {} of {} to {value:?}",
            name(&change.request),
            change.expected
        )
    };
    let what = match &span.operation {
        Operation::Read(row) => format!("read {}", seen(row)),
        Operation::Listed(row) => format!("listed {:?}", row.as_ref().map(seen)),
        Operation::Made(attempted, version) => format!("{} made {version}", change(attempted)),
        Operation::Conflict(attempted, row) => format!("{} met {}", change(attempted), seen(row)),
        Operation::Unknown(attempted) => format!("{} unknown", change(attempted)),
    };
    format!("{}..{returned} {what}", span.called)
}

/// The row that nothing ever happens to: every change that it took, with the value that it left.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Row;

/// Who made which version, from the first on, and the value of it.
pub(crate) type Changes = Vec<(RequestKey, Option<Vec<u8>>)>;

impl Sequential for Row {
    type State = Changes;
    type Operation = Operation;

    fn step(&self, state: &Changes, operation: &Operation) -> Option<Changes> {
        let version = state.len() as u64;
        let made = |request| {
            state
                .iter()
                .position(|(maker, _)| *maker == request)
                .map(|at| at as u64 + 1)
        };
        let unchanged = |holds: bool| holds.then(|| state.clone());
        match operation {
            Operation::Read(seen) => unchanged(is(state, seen)),
            Operation::Listed(Some(seen)) => unchanged(is(state, seen)),
            Operation::Listed(None) => {
                unchanged(state.last().is_none_or(|(_, value)| value.is_none()))
            }
            Operation::Conflict(attempted, seen) => unchanged(
                is(state, seen)
                    && version != attempted.expected
                    && made(attempted.request).is_none(),
            ),
            Operation::Made(attempted, told) => match made(attempted.request) {
                Some(earlier) => unchanged(earlier == *told),
                None => change(state, attempted).filter(|next| next.len() as u64 == *told),
            },
            Operation::Unknown(attempted) => match made(attempted.request) {
                Some(_) => None,
                None => change(state, attempted),
            },
        }
    }
}

fn change(state: &Changes, attempted: &Attempted) -> Option<Changes> {
    (state.len() as u64 == attempted.expected).then(|| {
        let mut next = state.clone();
        next.push((attempted.request, attempted.value.clone()));
        next
    })
}

fn is(state: &Changes, seen: &Seen) -> bool {
    let value = state.last().and_then(|(_, value)| value.as_ref());
    let known = RowState::RECENT_MAX.min(state.len());
    seen.version == state.len() as u64
        && seen.value.as_ref() == value
        && seen
            .recent
            .iter()
            .eq(state[state.len() - known..].iter().map(|(maker, _)| maker))
}
