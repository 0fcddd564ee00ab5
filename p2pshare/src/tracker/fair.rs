//! Who is served next when many wait: each in turn, whatever the number that one of them has waiting. When
//! all places are taken, whoever has the most of them loses his last one to somebody who has fewer. Pure.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// What waits, by whom it is for.
pub(super) struct FairQueue<K, T> {
    waiting: HashMap<K, VecDeque<T>>,
    /// Who has something waiting, in the order of their turns.
    turns: VecDeque<K>,
    len: usize,
    max: usize,
}

impl<K: Clone + Eq + Hash, T> FairQueue<K, T> {
    /// A queue of `max` places.
    pub(super) fn new(max: usize) -> Self {
        Self {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
            max,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.max
    }

    /// Lets `item` wait for `key`, and gives what loses its place for it, which may be `item` itself.
    pub(super) fn push(&mut self, key: K, item: T) -> Option<T> {
        let of_key = self.waiting.entry(key.clone()).or_default();
        if of_key.is_empty() {
            self.turns.push_back(key.clone());
        }
        of_key.push_back(item);
        self.len += 1;
        if self.len <= self.max {
            return None;
        }
        let most = |(other, items): &(&K, &VecDeque<T>)| (items.len(), *other == &key);
        let (loser, _) = self.waiting.iter().max_by_key(most)?;
        let loser = loser.clone();
        let lost = self.waiting.get_mut(&loser)?.pop_back();
        self.len -= 1;
        self.tidy(&loser);
        lost
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<T> {
        let key = self.turns.pop_front()?;
        let item = self.waiting.get_mut(&key)?.pop_front();
        self.len -= 1;
        self.turns.push_back(key.clone());
        self.tidy(&key);
        item
    }

    /// Drops what does not wait any more.
    pub(super) fn retain(&mut self, mut waits: impl FnMut(&T) -> bool) {
        self.waiting.retain(|_, items| {
            items.retain(&mut waits);
            !items.is_empty()
        });
        self.turns.retain(|key| self.waiting.contains_key(key));
        self.len = self.waiting.values().map(VecDeque::len).sum();
    }

    /// Ends the turns of `key` if nothing of it waits.
    fn tidy(&mut self, key: &K) {
        if self.waiting.get(key).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(key);
            self.turns.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<&'static str, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn each_is_served_in_turn() {
        let mut queue = FairQueue::new(10);
        for (key, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            assert_eq!(queue.push(key, item), None);
        }
        assert_eq!(queue.pop(), Some(1));
        queue.push("d", 7);
        assert_eq!(drain(&mut queue), [4, 5, 2, 7, 6, 3]);
        assert!(queue.waiting.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn whoever_has_the_most_places_makes_room() {
        let mut queue = FairQueue::new(4);
        for item in 0..4 {
            assert_eq!(queue.push("flood", item), None);
        }
        assert!(queue.is_full());
        assert_eq!(queue.push("flood", 4), Some(4));
        assert_eq!(queue.push("a", 10), Some(3));
        assert_eq!(queue.push("b", 20), Some(2));
        // With as many as anybody else one gets no more.
        assert_eq!(queue.push("a", 11), Some(11));
        assert_eq!(queue.push("c", 30), Some(1));
        assert_eq!(queue.push("d", 40), Some(40));
        assert_eq!(drain(&mut queue), [0, 10, 20, 30]);
    }

    #[test]
    fn who_went_away_has_no_place() {
        let mut queue = FairQueue::new(4);
        for (key, item) in [("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
            queue.push(key, item);
        }
        queue.retain(|item| *item == 4);
        assert!(!queue.is_full());
        assert_eq!(queue.push("c", 5), None);
        assert_eq!(drain(&mut queue), [4, 5]);
    }
}
