//! What commands did to rows of the ring, and whether it could have happened one after the other: for each row an order
//! is looked for in which every command is somewhere between its beginning and its end and was told what a single
//! tracker would have told it then. One whose outcome is unknown may have been done at any time later, or never.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// Whoever acts, by number.
pub(crate) type Who = usize;

/// A thing of which only one state is right at a time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Row {
    User(String),
    Group(String),
    /// In the group of all.
    File(String),
    /// Of that user in a group.
    Membership(String, Who),
}

/// What is done to one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// Makes a user, a group or a file.
    Make,
    /// Shares a file no longer.
    Stop,
    /// Asks to join a group that is not open.
    Ask,
    /// Joins an open one.
    Join,
    Accept,
    Reject,
    /// Leaves, or is put out.
    Part,
}

/// What was said in the end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Done,
    /// The state of the row does not allow it, or it is so already.
    NoNeed,
    /// It is asked already.
    Pending,
    /// Done, and what it was before is not said.
    Either,
    /// Certainly not done.
    Undone,
    Unknown,
}

/// How a row is.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum State {
    /// Not there, or not a member.
    None,
    /// It is of this one.
    Of(Who),
    Pending,
    Member,
}

/// Something that was done or seen.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Did(Who, Act, Told),
    Saw(State),
}

/// One command in the history of a row.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) row: Row,
    pub(crate) what: What,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Entry {
    pub(crate) fn took(&self) -> Duration {
        self.ended.duration_since(self.began)
    }

    fn is_unknown(&self) -> bool {
        matches!(self.what, What::Did(_, _, Told::Unknown))
    }
}

impl State {
    /// The state after this, if it fits to this one.
    fn after(self, what: What) -> Option<Self> {
        let (who, act, told) = match what {
            What::Saw(seen) => return (seen == self).then_some(self),
            What::Did(who, act, told) => (who, act, told),
        };
        let next = match (act, self) {
            (Act::Make, Self::None) => Self::Of(who),
            (Act::Stop, Self::Of(of)) if of == who => Self::None,
            (Act::Ask, Self::None) => Self::Pending,
            (Act::Join, Self::None) => Self::Member,
            (Act::Accept, Self::Pending) => Self::Member,
            (Act::Reject, Self::Pending) | (Act::Part, Self::Member) => Self::None,
            (Act::Ask, Self::Pending) => return (told == Told::Pending).then_some(self),
            _ => return matches!(told, Told::NoNeed | Told::Either).then_some(self),
        };
        matches!(told, Told::Done | Told::Either | Told::Unknown).then_some(next)
    }
}

/// Looks at each row by itself; what happened to one that has no order, if there is such a row.
pub(crate) fn disorder(history: &[Entry]) -> Option<String> {
    let mut rows: BTreeMap<&Row, Vec<&Entry>> = BTreeMap::new();
    for entry in history {
        // What was certainly not done shows by being seen nowhere.
        if !matches!(entry.what, What::Did(_, _, Told::Undone)) {
            rows.entry(&entry.row).or_default().push(entry);
        }
    }
    rows.into_iter().find_map(|(row, mut entries)| {
        entries.sort_by_key(|entry| entry.began);
        let orderly = is_orderly(&entries, &mut HashSet::new(), (Vec::new(), State::None));
        let spans = entries.iter().map(|entry| {
            let (began, took) = (entry.began.duration_since(entries[0].began), entry.took());
            format!("\n  {began:>12.3?}, for {took:>10.3?}: {:?}", entry.what)
        });
        (!orderly).then(|| format!("{row:?}: {}", spans.collect::<String>()))
    })
}

/// Whether what is left can be put into an order, after those that were `taken`, of which the first are left out.
fn is_orderly(
    entries: &[&Entry],
    tried: &mut HashSet<(Vec<usize>, State)>,
    (taken, state): (Vec<usize>, State),
) -> bool {
    let left = || (0..entries.len()).filter(|at| !taken.contains(at));
    let due = left().filter(|at| !entries[*at].is_unknown());
    let Some(first_end) = due.map(|at| entries[at].ended).min() else {
        return true;
    };
    let next: Vec<usize> = left()
        .filter(|at| entries[*at].began <= first_end)
        .collect();
    next.into_iter().any(|at| {
        let Some(state) = state.after(entries[at].what) else {
            return false;
        };
        let mut taken = taken.clone();
        let place = taken.partition_point(|other| *other < at);
        taken.insert(place, at);
        tried.insert((taken.clone(), state)) && is_orderly(entries, tried, (taken, state))
    })
}

#[test]
fn what_cannot_have_happened_is_seen() {
    let start = Instant::now();
    let entry = |what, began: u64, ended: u64| Entry {
        row: Row::Group("g".to_owned()),
        what,
        began: start + Duration::from_secs(began),
        ended: start + Duration::from_secs(ended),
    };
    let make = |who, told| What::Did(who, Act::Make, told);
    let is_fine = |history: Vec<Entry>| disorder(&history).is_none();
    let unknown = || entry(make(1, Told::Unknown), 0, 1);
    let seen = |of, at| entry(What::Saw(of), at, at + 1);
    assert!(is_fine(vec![
        unknown(),
        seen(State::None, 2),
        seen(State::Of(1), 4)
    ]));
    assert!(!is_fine(vec![
        unknown(),
        seen(State::Of(1), 2),
        seen(State::None, 4)
    ]));
    assert!(!is_fine(vec![
        entry(make(1, Told::Undone), 0, 1),
        seen(State::Of(1), 2)
    ]));
    let done = |who, began| entry(make(who, Told::Done), began, began + 3);
    assert!(!is_fine(vec![done(0, 0), done(1, 2)]));
    let exists = |began| entry(make(1, Told::NoNeed), began, began + 1);
    assert!(is_fine(vec![done(0, 2), exists(4)]));
    assert!(!is_fine(vec![done(0, 2), exists(0)]));
    let let_in = |act, told, began| entry(What::Did(1, act, told), began, began + 1);
    let ask = || let_in(Act::Ask, Told::Done, 0);
    let leave = || let_in(Act::Part, Told::Done, 4);
    assert!(is_fine(vec![
        ask(),
        let_in(Act::Accept, Told::Unknown, 2),
        leave()
    ]));
    assert!(!is_fine(vec![
        ask(),
        let_in(Act::Reject, Told::Unknown, 2),
        leave()
    ]));
}
