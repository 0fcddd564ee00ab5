//! Who is served next when many wait: each group in turn, and in a group each of its members, whatever the number
//! that one of them has waiting. When all places are taken, the group that has the most of them gives one up, and in
//! it the member that has the most: his last one. So nobody gets more by coming as many. Pure.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// What waits, by the group and the member of it that it is for.
pub(super) struct FairQueue<G, K, T> {
    groups: Turns<G, Turns<K, VecDeque<T>>>,
    len: usize,
    max: usize,
}

/// Those who have something waiting, in the order of their turns.
struct Turns<K, C> {
    all: HashMap<K, C>,
    order: VecDeque<K>,
}

impl<G: Clone + Eq + Hash, K: Clone + Eq + Hash, T> FairQueue<G, K, T> {
    /// A queue of `max` places.
    pub(super) fn new(max: usize) -> Self {
        Self {
            groups: Turns::default(),
            len: 0,
            max,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.max
    }

    /// Lets `item` wait for `key` of `group`, and gives what loses its place for it, which may be `item` itself.
    pub(super) fn push(&mut self, group: G, key: K, item: T) -> Option<T> {
        let keys = self.groups.of(group.clone());
        keys.of(key.clone()).push_back(item);
        self.len += 1;
        if self.len <= self.max {
            return None;
        }
        let loser = self.groups.most(&group, Turns::total)?;
        let keys = self.groups.all.get_mut(&loser)?;
        let lost = keys.most(&key, VecDeque::len).and_then(|key| {
            let lost = keys.all.get_mut(&key)?.pop_back();
            keys.tidy(&key, VecDeque::is_empty);
            lost
        });
        self.groups.tidy(&loser, Turns::is_empty);
        self.len -= 1;
        lost
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<T> {
        let next_of =
            |keys: &mut Turns<K, VecDeque<T>>| keys.turn(VecDeque::pop_front, VecDeque::is_empty);
        let next = self.groups.turn(next_of, Turns::is_empty)?;
        self.len -= 1;
        Some(next)
    }

    /// Drops what does not wait any more.
    pub(super) fn retain(&mut self, mut waits: impl FnMut(&T) -> bool) {
        for keys in self.groups.all.values_mut() {
            keys.all
                .values_mut()
                .for_each(|items| items.retain(&mut waits));
            keys.tidy_all(VecDeque::is_empty);
        }
        self.groups.tidy_all(Turns::is_empty);
        self.len = self.groups.all.values().map(Turns::total).sum();
    }
}

impl<K: Clone + Eq + Hash, C> Turns<K, C> {
    /// What waits for `key`, whose turn is the last if nothing did.
    fn of(&mut self, key: K) -> &mut C
    where
        C: Default,
    {
        let order = &mut self.order;
        self.all.entry(key.clone()).or_insert_with(|| {
            order.push_back(key);
            C::default()
        })
    }

    /// Takes from the one whose turn it is.
    fn turn<T>(
        &mut self,
        take: impl FnOnce(&mut C) -> Option<T>,
        is_empty: impl Fn(&C) -> bool,
    ) -> Option<T> {
        let key = self.order.pop_front()?;
        let taken = self.all.get_mut(&key).and_then(take);
        self.order.push_back(key.clone());
        self.tidy(&key, is_empty);
        taken
    }

    /// Who has the most; the newcomer, if he has as many as anybody.
    fn most(&self, newcomer: &K, len: impl Fn(&C) -> usize) -> Option<K> {
        let most = self.all.iter();
        let most = most.max_by_key(|(key, waiting)| (len(waiting), *key == newcomer));
        most.map(|(key, _)| key.clone())
    }

    /// Ends the turns of `key` if nothing of it waits.
    fn tidy(&mut self, key: &K, is_empty: impl Fn(&C) -> bool) {
        if self.all.get(key).is_some_and(is_empty) {
            self.all.remove(key);
            self.order.retain(|other| other != key);
        }
    }

    fn tidy_all(&mut self, is_empty: impl Fn(&C) -> bool) {
        self.all.retain(|_, waiting| !is_empty(waiting));
        self.order.retain(|key| self.all.contains_key(key));
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl<K, T> Turns<K, VecDeque<T>> {
    fn total(&self) -> usize {
        self.all.values().map(VecDeque::len).sum()
    }
}

impl<K, C> Default for Turns<K, C> {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<&'static str, &'static str, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn each_is_served_in_turn() {
        let mut queue = FairQueue::new(10);
        for (key, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            assert_eq!(queue.push(key, key, item), None);
        }
        assert_eq!(queue.pop(), Some(1));
        queue.push("d", "", 7);
        assert_eq!(drain(&mut queue), [4, 5, 2, 7, 6, 3]);
        assert!(queue.groups.is_empty() && queue.groups.order.is_empty());
    }

    #[test]
    fn whoever_has_the_most_places_makes_room() {
        let mut queue = FairQueue::new(4);
        for item in 0..4 {
            assert_eq!(queue.push("flood", "", item), None);
        }
        assert!(queue.is_full());
        assert_eq!(queue.push("flood", "", 4), Some(4));
        assert_eq!(queue.push("a", "", 10), Some(3));
        assert_eq!(queue.push("b", "", 20), Some(2));
        // With as many as anybody else one gets no more.
        assert_eq!(queue.push("a", "", 11), Some(11));
        assert_eq!(queue.push("c", "", 30), Some(1));
        assert_eq!(queue.push("d", "", 40), Some(40));
        assert_eq!(drain(&mut queue), [0, 10, 20, 30]);
    }

    #[test]
    fn who_comes_as_many_gets_no_more() {
        let mut queue = FairQueue::new(6);
        for (item, member) in ["m1", "m2", "m3", "m4", "m5", "m6"].into_iter().enumerate() {
            queue.push("mallory's", member, item as u32);
        }
        assert_eq!(queue.push("mallory's", "m7", 6), Some(6));
        assert!(
            queue
                .push("alice's", "alice", 10)
                .is_some_and(|lost| lost < 6)
        );
        // The neighbour of many finds a place if one of them has several.
        let mut queue = FairQueue::new(4);
        for item in 0..4 {
            queue.push("house", "m", item);
        }
        assert_eq!(queue.push("house", "alice", 10), Some(3));
        assert_eq!(drain(&mut queue), [0, 10, 1, 2]);
    }

    #[test]
    fn who_went_away_has_no_place() {
        let mut queue = FairQueue::new(4);
        for (key, item) in [("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
            queue.push(key, key, item);
        }
        queue.retain(|item| *item == 4);
        assert!(!queue.is_full());
        assert_eq!(queue.push("c", "", 5), None);
        assert_eq!(drain(&mut queue), [4, 5]);
    }
}
