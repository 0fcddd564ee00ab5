//! Whether a history of concurrent operations can be put into one order that a sequential machine would
//! have produced, with each operation somewhere between its call and its return.
//!
//! The search is that of Wing and Gong (1993) with the memory of Lowe (2017): operations are taken one after
//! the other, only those that no other returned before they were called, and a set of operations that led
//! nowhere with some state of the machine is not tried again. An operation that never returned may be taken
//! at any time after its call, or never.

use std::collections::HashSet;
use std::hash::Hash;

/// A machine that does one operation at a time.
pub(crate) trait Sequential {
    /// What it remembers.
    type State: Clone + Eq + Hash;
    /// One thing that is asked, with what came of it.
    type Operation;

    /// The state after the operation, if what came of it is what the machine would have answered.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation and when it was under way. No two moments of a history are the same.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<O> {
    pub(crate) called: u64,
    /// `None` if it never returned.
    pub(crate) returned: Option<u64>,
    pub(crate) operation: O,
}

/// There is no such order. These operations, by their places in the history, could be put into one; nothing
/// can follow them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NoOrder {
    pub(crate) longest: Vec<usize>,
}

/// Looks for an order of `history`, beginning with `initial`.
pub(crate) fn check<M: Sequential>(
    machine: &M,
    initial: M::State,
    history: &[Spanned<M::Operation>],
) -> Result<(), NoOrder> {
    let mut by_call: Vec<usize> = (0..history.len()).collect();
    by_call.sort_by_key(|place| history[*place].called);
    let mut search = Search {
        machine,
        history,
        by_call,
        taken: vec![0; history.len().div_ceil(64)],
        left: history
            .iter()
            .filter(|span| span.returned.is_some())
            .count(),
        order: Vec::new(),
        longest: Vec::new(),
        tried: HashSet::new(),
    };
    match search.found(&initial) {
        true => Ok(()),
        false => Err(NoOrder {
            longest: search.longest,
        }),
    }
}

struct Search<'a, M: Sequential> {
    machine: &'a M,
    history: &'a [Spanned<M::Operation>],
    by_call: Vec<usize>,
    /// One bit for each operation.
    taken: Vec<u64>,
    /// Operations that returned and are not taken.
    left: usize,
    order: Vec<usize>,
    longest: Vec<usize>,
    tried: HashSet<(Vec<u64>, M::State)>,
}

impl<M: Sequential> Search<'_, M> {
    fn found(&mut self, state: &M::State) -> bool {
        if self.left == 0 {
            return true;
        }
        if !self.tried.insert((self.taken.clone(), state.clone())) {
            return false;
        }
        if self.order.len() > self.longest.len() {
            self.longest = self.order.clone();
        }
        let mut next = Vec::new();
        for place in self.candidates() {
            match self.machine.step(state, &self.history[place].operation) {
                // What changes nothing can come first wherever else it could come.
                Some(same) if same == *state => return self.found_after(place, &same),
                Some(other) => next.push((place, other)),
                None => {}
            }
        }
        next.into_iter()
            .any(|(place, state)| self.found_after(place, &state))
    }

    fn found_after(&mut self, place: usize, state: &M::State) -> bool {
        let returned = usize::from(self.history[place].returned.is_some());
        self.taken[place / 64] |= 1 << (place % 64);
        self.order.push(place);
        self.left -= returned;
        let found = self.found(state);
        self.left += returned;
        self.order.pop();
        self.taken[place / 64] &= !(1 << (place % 64));
        found
    }

    /// The operations that may come next: those called before any other returned.
    fn candidates(&self) -> Vec<usize> {
        let open = || self.by_call.iter().filter(|place| !self.is_taken(**place));
        let first_return = open()
            .filter_map(|place| self.history[*place].returned)
            .min();
        let first_return = first_return.unwrap_or(u64::MAX);
        open()
            .copied()
            .take_while(|place| self.history[*place].called < first_return)
            .collect()
    }

    fn is_taken(&self, place: usize) -> bool {
        self.taken[place / 64] & (1 << (place % 64)) != 0
    }
}

#[cfg(test)]
mod tests;
