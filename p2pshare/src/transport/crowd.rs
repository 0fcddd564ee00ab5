//! Who has a place among the connections that are served. No address prefix has more than its share, and
//! where places run out, those make room on whose connections nobody has shown a right yet: the one who came
//! first, of the prefix that has most of them. One peer has few places by right, the others of his are a
//! stranger's. Where all are taken by right, whoever has most of them gives one up: a prefix of all, a peer of
//! its prefix. So nobody takes the places of those who belong here, and a newcomer has the time to show that he does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{close::CloseCode, connection::Connection};
use crate::{identity::PeerId, limits::TRUSTED_CONNECTIONS_PER_PEER_MAX};

/// Addresses that are taken for one party: one of IPv4, or a /64 of IPv6.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(crate) struct Prefix(IpAddr);

impl Prefix {
    /// The one of `address`.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        })
    }
}

/// The places. A cheap clone of the same.
#[derive(Clone)]
pub(crate) struct Crowd(Arc<Inner>);

struct Inner {
    max: usize,
    max_per_prefix: usize,
    guests: Mutex<Guests<Connection>>,
}

/// A place; given back when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Ticket>);

struct Ticket {
    crowd: Crowd,
    number: u64,
}

impl Crowd {
    /// `max` places, of which one prefix has at most `max_per_prefix`.
    pub(crate) fn new(max: usize, max_per_prefix: usize) -> Self {
        Self(Arc::new(Inner {
            max,
            max_per_prefix,
            guests: Mutex::default(),
        }))
    }

    /// A place for `connection`; another one may be closed for it. Without a place, it is closed itself.
    pub(crate) fn admit(&self, connection: &Connection) -> Option<Admission> {
        let prefix = Prefix::of(connection.remote_addr().ip());
        let (max, max_per_prefix) = (self.0.max, self.0.max_per_prefix);
        let mut guests = self.guests();
        let full = guests.is_full(prefix, max, max_per_prefix);
        let evicted = match full {
            Some(where_) => match guests.evict(where_) {
                Some(evicted) => Some(evicted),
                None => {
                    drop(guests);
                    tracing::debug!(?prefix, "refusing a connection: too many");
                    connection.close(CloseCode::TooManyRequests);
                    return None;
                }
            },
            None => None,
        };
        let number = guests.add(prefix, connection.remote_peer(), connection.clone());
        drop(guests);
        if let Some(evicted) = evicted {
            evicted.close(CloseCode::TooManyRequests);
        }
        let crowd = self.clone();
        Some(Admission(Arc::new(Ticket { crowd, number })))
    }

    fn guests(&self) -> MutexGuard<'_, Guests<Connection>> {
        self.0.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Says whether somebody has shown a right on this connection. Beyond
    /// [`TRUSTED_CONNECTIONS_PER_PEER_MAX`] the peer's oldest one counts as a stranger's again.
    pub(crate) fn set_trusted(&self, trusted: bool) {
        self.0.crowd.guests().set_trusted(self.0.number, trusted);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let gone = self.crowd.guests().remove(self.number);
        // Not under the lock: the last of a connection closes it.
        drop(gone);
    }
}

/// All who have a place, by the number of their coming.
struct Guests<C> {
    all: BTreeMap<u64, Guest<C>>,
    prefixes: BTreeMap<Prefix, Share>,
    next: u64,
}

struct Guest<C> {
    prefix: Prefix,
    peer: PeerId,
    trusted: bool,
    connection: C,
}

#[derive(Copy, Clone, Default)]
struct Share {
    guests: usize,
    strangers: usize,
}

/// Where there is no place left.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Full {
    Everywhere,
    At(Prefix),
}

impl<C> Default for Guests<C> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<C> Guests<C> {
    fn is_full(&self, prefix: Prefix, max: usize, max_per_prefix: usize) -> Option<Full> {
        let share = self.prefixes.get(&prefix).copied().unwrap_or_default();
        if share.guests >= max_per_prefix {
            Some(Full::At(prefix))
        } else {
            (self.all.len() >= max).then_some(Full::Everywhere)
        }
    }

    fn add(&mut self, prefix: Prefix, peer: PeerId, connection: C) -> u64 {
        let number = self.next;
        self.next += 1;
        let share = self.prefixes.entry(prefix).or_default();
        share.guests += 1;
        share.strangers += 1;
        let guest = Guest {
            prefix,
            peer,
            trusted: false,
            connection,
        };
        self.all.insert(number, guest);
        number
    }

    fn remove(&mut self, number: u64) -> Option<C> {
        let guest = self.all.remove(&number)?;
        if let Some(share) = self.prefixes.get_mut(&guest.prefix) {
            share.guests -= 1;
            share.strangers -= usize::from(!guest.trusted);
            if share.guests == 0 {
                self.prefixes.remove(&guest.prefix);
            }
        }
        Some(guest.connection)
    }

    fn set_trusted(&mut self, number: u64, trusted: bool) {
        let Some(guest) = self.all.get_mut(&number) else {
            return;
        };
        let (peer, newly) = (guest.peer, trusted && !guest.trusted);
        if let Some(share) = self.prefixes.get_mut(&guest.prefix)
            && guest.trusted != trusted
        {
            guest.trusted = trusted;
            if trusted {
                share.strangers -= 1;
            } else {
                share.strangers += 1;
            }
        }
        if newly {
            let of_peer = |(_, guest): &(&u64, &Guest<C>)| guest.trusted && guest.peer == peer;
            let mut oldest = self.all.iter().filter(of_peer).map(|(number, _)| *number);
            let first = oldest.next();
            if oldest.count() >= TRUSTED_CONNECTIONS_PER_PEER_MAX
                && let Some(first) = first
            {
                self.set_trusted(first, false);
            }
        }
    }

    /// Takes the place of the one who has to make room, if there is one.
    fn evict(&mut self, full: Full) -> Option<C> {
        let number = self.stranger(full).or_else(|| self.of_most(full))?;
        self.remove(number)
    }

    /// The first stranger of the prefix that has most of them.
    fn stranger(&self, full: Full) -> Option<u64> {
        let prefix = match full {
            Full::At(prefix) => prefix,
            Full::Everywhere => {
                let strangers = |(_, share): &(&Prefix, &Share)| share.strangers;
                *self.prefixes.iter().max_by_key(strangers)?.0
            }
        };
        let first = |guest: &Guest<C>| !guest.trusted && guest.prefix == prefix;
        self.first(first)
    }

    /// The first guest of whoever has most places, where that is more than one.
    fn of_most(&self, full: Full) -> Option<u64> {
        match full {
            Full::Everywhere => {
                let guests = |(_, share): &(&Prefix, &Share)| share.guests;
                let (most, share) = self.prefixes.iter().max_by_key(guests)?;
                (share.guests > 1).then(|| self.first(|guest| guest.prefix == *most))?
            }
            Full::At(prefix) => {
                let mut peers: BTreeMap<PeerId, usize> = BTreeMap::new();
                for guest in self.all.values().filter(|guest| guest.prefix == prefix) {
                    *peers.entry(guest.peer).or_default() += 1;
                }
                let (most, count) = peers.into_iter().max_by_key(|(_, count)| *count)?;
                let first = |guest: &Guest<C>| guest.prefix == prefix && guest.peer == most;
                (count > 1).then(|| self.first(first))?
            }
        }
    }

    fn first(&self, is: impl Fn(&Guest<C>) -> bool) -> Option<u64> {
        let first = self.all.iter().find(|(_, guest)| is(guest));
        first.map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(n: u8) -> Prefix {
        Prefix::of(IpAddr::from([127, 0, 0, n]))
    }

    const fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn prefixes() {
        let of = |address: &str| Prefix::of(address.parse().unwrap());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3:4:5"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn a_prefix_has_its_share_and_all_have_theirs() {
        let mut guests = Guests::default();
        for n in 0..3 {
            guests.add(prefix(1), peer(n), n);
        }
        assert_eq!(guests.is_full(prefix(1), 5, 3), Some(Full::At(prefix(1))));
        assert_eq!(guests.is_full(prefix(2), 5, 3), None);
        let number = guests.add(prefix(2), peer(3), 3);
        guests.add(prefix(3), peer(4), 4);
        assert_eq!(guests.is_full(prefix(4), 5, 3), Some(Full::Everywhere));
        assert_eq!(guests.remove(number), Some(3));
        assert_eq!(guests.remove(number), None);
        assert_eq!(guests.is_full(prefix(4), 5, 3), None);
    }

    #[test]
    fn the_first_stranger_of_the_largest_crowd_makes_room() {
        let mut guests = Guests::default();
        let first = guests.add(prefix(2), peer(0), 0);
        let numbers: Vec<u64> = (1..4).map(|n| guests.add(prefix(1), peer(n), n)).collect();
        guests.set_trusted(numbers[0], true);
        guests.set_trusted(numbers[0], true);
        assert_eq!(guests.evict(Full::Everywhere), Some(2));
        assert_eq!(guests.evict(Full::At(prefix(1))), Some(3));
        // Who belongs here stays, whatever comes.
        assert_eq!(guests.evict(Full::At(prefix(1))), None);
        assert_eq!(guests.evict(Full::Everywhere), Some(0));
        assert_eq!(guests.evict(Full::Everywhere), None);
        assert_eq!(guests.remove(first), None);
        guests.set_trusted(numbers[0], false);
        assert_eq!(guests.evict(Full::Everywhere), Some(1));
        assert!(guests.prefixes.is_empty());
    }

    #[test]
    fn a_peer_has_few_places_by_right() {
        let mut guests = Guests::default();
        let max = TRUSTED_CONNECTIONS_PER_PEER_MAX as u8;
        let other = guests.add(prefix(2), peer(9), 100);
        guests.set_trusted(other, true);
        let mut numbers = Vec::new();
        // From wherever they come.
        for n in 0..max + 2 {
            numbers.push(guests.add(prefix(10 + n), peer(1), n));
        }
        for number in &numbers {
            guests.set_trusted(*number, true);
            guests.set_trusted(*number, true);
        }
        let trusted = |guests: &Guests<u8>| -> Vec<bool> {
            let of = |number: &u64| guests.all[number].trusted;
            numbers.iter().map(of).collect()
        };
        assert_eq!(trusted(&guests), [false, false, true, true, true, true]);
        // An old one does not take the place of newer ones.
        guests.set_trusted(numbers[0], true);
        assert_eq!(trusted(&guests), [false, false, true, true, true, true]);
        guests.set_trusted(numbers[3], false);
        guests.set_trusted(numbers[1], true);
        assert_eq!(trusted(&guests), [false, true, true, false, true, true]);
        assert!(guests.all[&other].trusted);
    }

    #[test]
    fn where_all_have_a_right_whoever_has_most_makes_room() {
        let mut guests = Guests::default();
        for (host, of, n) in [(1, 1, 0), (2, 2, 1), (2, 3, 2), (2, 3, 3), (2, 4, 4)] {
            let number = guests.add(prefix(host), peer(of), n);
            guests.set_trusted(number, true);
        }
        // Of the prefix, the peer with most places; of all, the prefix.
        assert_eq!(guests.evict(Full::At(prefix(2))), Some(2));
        assert_eq!(guests.evict(Full::At(prefix(2))), None);
        assert_eq!(guests.evict(Full::Everywhere), Some(1));
        assert_eq!(guests.evict(Full::Everywhere), Some(3));
        assert_eq!(guests.evict(Full::Everywhere), None);
        assert_eq!(guests.all.len(), 2);
    }
}
