//! Who makes room for whom, when what all peers announce at a tracker comes to as much as there may be.
//!
//! **Invariant.** A user who announces less than another is not turned away for it, however many peers that one has:
//! room is made by the largest peer of the user who has most, and only for one who has less then.

use std::collections::HashMap;

use crate::identity::PeerId;

/// What one peer announced.
#[derive(Copy, Clone, Debug)]
pub(super) struct Share<'a> {
    pub(super) peer: PeerId,
    pub(super) user: &'a str,
    pub(super) bytes: usize,
}

/// Those who go, so that `newcomer` may have so many bytes `more` where there are `most` of them; and how much it may
/// have then, in all.
pub(super) fn make_room(
    mut all: Vec<Share<'_>>,
    (newcomer, user): (PeerId, &str),
    more: usize,
    most: usize,
) -> (Vec<PeerId>, usize) {
    let mut sum: usize = all.iter().map(|share| share.bytes).sum();
    let mut gone = Vec::new();
    if sum.saturating_add(more) > most {
        let mut users: HashMap<&str, usize> = HashMap::new();
        for share in &all {
            *users.entry(share.user).or_default() += share.bytes;
        }
        let wanted = users.get(user).copied().unwrap_or(0).saturating_add(more);
        while sum.saturating_add(more) > most
            && let Some((largest, bytes)) = users.iter_mut().max_by_key(|(_, bytes)| **bytes)
            && *bytes > wanted
            && *largest != user
            && let Some(at) = (0..all.len())
                .filter(|at| all[*at].user == *largest)
                .max_by_key(|at| all[*at].bytes)
        {
            let share = all.swap_remove(at);
            *bytes -= share.bytes;
            sum -= share.bytes;
            gone.push(share.peer);
        }
    }
    let own = all.iter().find(|share| share.peer == newcomer);
    let own = own.map_or(0, |share| share.bytes);
    (gone, own + most.saturating_sub(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(i: u8) -> PeerId {
        PeerId::from_bytes([i; 32])
    }

    fn share(i: u8, user: &str, bytes: usize) -> Share<'_> {
        let peer = peer(i);
        Share { peer, user, bytes }
    }

    #[test]
    fn whoever_has_most_makes_room_for_who_has_less_and_for_nobody_else() {
        // One user with many peers, and two with one.
        let all = || {
            let mut all: Vec<_> = (10..19).map(|i| share(i, "greedy", 10)).collect();
            all.extend([share(1, "one", 5), share(2, "two", 5)]);
            all
        };
        let room = |newcomer, more| make_room(all(), newcomer, more, 100);
        let (gone, may) = room((peer(1), "one"), 12);
        assert!(gone.len() == 2 && gone.iter().all(|gone| *gone >= peer(10)));
        assert_eq!(may, 25);
        let (gone, may) = room((peer(3), "three"), 1);
        assert_eq!((gone.len(), may), (1, 10));
        // Not for more than it has itself, nor for one more peer of its own.
        assert_eq!(room((peer(3), "three"), 91), (vec![], 0));
        assert_eq!(room((peer(9), "greedy"), 1), (vec![], 0));
        assert_eq!(room((peer(10), "greedy"), 1), (vec![], 10));
        // Who asks for nothing more takes nothing, and where there is room nobody goes.
        assert_eq!(room((peer(1), "one"), 0), (vec![], 5));
        let one = vec![share(1, "one", 99)];
        assert_eq!(make_room(one, (peer(2), "two"), 1, 100), (vec![], 1));
    }
}
