//! How failed logins are slowed: each lane allows some failures freely, and from then on makes the next
//! attempt wait twice as long as the one before. Pure: time is an argument.
//!
//! A stranger runs in the lane of the account and in that of its address prefix, so that neither many
//! addresses at one account nor one address at many accounts gets far. A peer that was logged in to the
//! account before has a lane of its own, so that the right user gets in there while others try. At a new
//! machine the right user gets in after the wait that was told: whoever has to wait for an account is given
//! a turn there, which nobody can take by asking more often.

use std::{
    cmp::Reverse,
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use crate::{
    identity::{PeerId, UserName},
    limits::{
        ACCOUNTS_FREE_PREFIX, LOGIN_FAILURES_FORGOTTEN, LOGIN_FAILURES_FREE_ACCOUNT,
        LOGIN_FAILURES_FREE_PREFIX, LOGIN_LANES_MAX, LOGIN_TURNS_APART_MAX, LOGIN_WAIT_MAX,
    },
    transport::Prefix,
};

/// An attempt, by the lanes in which it runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Attempt {
    /// To log in to this account, by anybody but a known peer.
    Stranger(String, Prefix),
    /// To log in, by a peer that was logged in to this account before, from wherever it is now.
    Known(String, PeerId, Prefix),
    /// To make an account.
    Creation(Prefix),
}

impl Attempt {
    /// The attempt of `peer` at `from` to log in as `user`.
    pub(super) fn login(user: &UserName, from: Prefix, peer: PeerId, known: bool) -> Self {
        match known {
            true => Self::Known(user.folded(), peer, from),
            false => Self::Stranger(user.folded(), from),
        }
    }
}

/// Failures of late. Lanes of one kind never make room for those of another.
pub(super) struct Throttle {
    accounts: Lanes<String>,
    prefixes: Lanes<Prefix>,
    known: Lanes<(String, PeerId)>,
    creations: Lanes<Prefix>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            accounts: Lanes::new(LOGIN_FAILURES_FREE_ACCOUNT),
            prefixes: Lanes::new(LOGIN_FAILURES_FREE_PREFIX),
            known: Lanes::new(LOGIN_FAILURES_FREE_PREFIX),
            creations: Lanes::new(ACCOUNTS_FREE_PREFIX),
        }
    }
}

impl Throttle {
    /// Lets an attempt go on and counts it, before its outcome is known, so that attempts at once cannot all
    /// be the first; or says how long it has to wait.
    pub(super) fn enter(&mut self, attempt: &Attempt, now: Instant) -> Result<(), Duration> {
        match attempt {
            Attempt::Stranger(user, prefix) => self.enter_stranger(user, prefix, now),
            Attempt::Known(user, peer, _) => self.known.enter(&(user.clone(), *peer), now),
            Attempt::Creation(prefix) => self.creations.enter(prefix, now),
        }
    }

    /// Takes back one attempt that went on and was no failure.
    pub(super) fn forgive(&mut self, attempt: &Attempt) {
        match attempt {
            Attempt::Stranger(user, prefix) => {
                self.accounts.forgive(user);
                self.prefixes.forgive(prefix);
            }
            Attempt::Known(user, peer, _) => self.known.forgive(&(user.clone(), *peer)),
            Attempt::Creation(prefix) => self.creations.forgive(prefix),
        }
    }

    fn enter_stranger(
        &mut self,
        user: &String,
        prefix: &Prefix,
        now: Instant,
    ) -> Result<(), Duration> {
        let wait = self.prefixes.wait(prefix, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.accounts.forget(user, now);
        match self.accounts.turn_of(user, prefix) {
            Some(due) if due > now => return Err(due - now),
            // It was counted in the lane of the prefix when it was given.
            Some(_) => self.accounts.end_turn(user, prefix),
            None => {
                let next = self.accounts.next_turn(user);
                if let Some(next) = next.filter(|next| *next > now) {
                    return Err(self.give_turn(user, prefix, next, now));
                }
                self.prefixes.count(prefix, now);
            }
        }
        self.accounts.count(user, now);
        Ok(())
    }

    /// Gives `prefix` the turn at `next`, and says how long that is. Where too many wait already, it gets the
    /// place of one that failed more often, if there is one, so that those who guess wait behind those who
    /// do not.
    fn give_turn(
        &mut self,
        user: &String,
        prefix: &Prefix,
        next: Instant,
        now: Instant,
    ) -> Duration {
        let Some(account) = self.accounts.lanes.get_mut(user) else {
            return Duration::ZERO;
        };
        let mut turn = Turn {
            prefix: *prefix,
            due: next,
        };
        if next - now > LOGIN_WAIT_MAX {
            let prefixes = &self.prefixes;
            let failures = |turn: &Turn| prefixes.failures(&turn.prefix);
            let own = failures(&turn) + 1;
            let waiting = account.turns.iter_mut().filter(|turn| turn.due > now);
            match waiting.max_by_key(|turn| (failures(turn), Reverse(turn.due))) {
                Some(worst) if failures(worst) > own => {
                    turn.due = worst.due;
                    *worst = turn;
                }
                _ => return LOGIN_WAIT_MAX,
            }
        } else {
            account.turns.push(turn);
        }
        // Also a turn that is never used counts.
        self.prefixes.count(prefix, now);
        turn.due - now
    }
}

/// The lanes of one kind.
struct Lanes<K> {
    lanes: HashMap<K, Failures>,
    /// Failures before the next attempt waits.
    free: u32,
}

struct Failures {
    count: u32,
    last: Instant,
    /// Of an account, those who wait for it, in their order.
    turns: Vec<Turn>,
}

/// When somebody at `prefix` may try; kept for [`LOGIN_WAIT_MAX`] beyond that.
#[derive(Copy, Clone)]
struct Turn {
    prefix: Prefix,
    due: Instant,
}

impl<K: Clone + Eq + Hash> Lanes<K> {
    fn new(free: u32) -> Self {
        Self {
            lanes: HashMap::new(),
            free,
        }
    }

    fn enter(&mut self, lane: &K, now: Instant) -> Result<(), Duration> {
        let wait = self.wait(lane, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.count(lane, now);
        Ok(())
    }

    fn wait(&self, lane: &K, now: Instant) -> Duration {
        self.lanes.get(lane).map_or(Duration::ZERO, |failures| {
            let until = failures.last + penalty(failures.count, self.free);
            until.saturating_duration_since(now)
        })
    }

    fn failures(&self, lane: &K) -> u32 {
        self.lanes.get(lane).map_or(0, |failures| failures.count)
    }

    fn count(&mut self, lane: &K, now: Instant) {
        self.forget(lane, now);
        if self.lanes.len() >= LOGIN_LANES_MAX && !self.lanes.contains_key(lane) {
            self.make_room(now);
        }
        let failures = self.lanes.entry(lane.clone()).or_insert(Failures {
            count: 0,
            last: now,
            turns: Vec::new(),
        });
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    fn forgive(&mut self, lane: &K) {
        if let Some(failures) = self.lanes.get_mut(lane) {
            failures.count = failures.count.saturating_sub(1);
        }
    }

    /// Drops what is over in that lane.
    fn forget(&mut self, lane: &K, now: Instant) {
        let Some(failures) = self.lanes.get_mut(lane) else {
            return;
        };
        if failures.is_forgotten(now) {
            self.lanes.remove(lane);
        } else {
            failures
                .turns
                .retain(|turn| now.saturating_duration_since(turn.due) < LOGIN_WAIT_MAX);
        }
    }

    /// Drops what is forgotten anyway, and if that is nothing, the lanes with the fewest failures: to wash his
    /// own away, somebody has to fail as often in each of [`LOGIN_LANES_MAX`] others.
    fn make_room(&mut self, now: Instant) {
        self.lanes.retain(|_, failures| !failures.is_forgotten(now));
        while self.lanes.len() >= LOGIN_LANES_MAX {
            let fewest = self.lanes.values().map(|failures| failures.count).min();
            self.lanes
                .retain(|_, failures| Some(failures.count) > fewest);
        }
    }

    fn turn_of(&self, lane: &K, prefix: &Prefix) -> Option<Instant> {
        let turns = &self.lanes.get(lane)?.turns;
        let own = turns.iter().find(|turn| turn.prefix == *prefix);
        own.map(|turn| turn.due)
    }

    fn end_turn(&mut self, lane: &K, prefix: &Prefix) {
        if let Some(failures) = self.lanes.get_mut(lane) {
            failures.turns.retain(|turn| turn.prefix != *prefix);
        }
    }

    /// When the next turn is that nobody has.
    fn next_turn(&self, lane: &K) -> Option<Instant> {
        let failures = self.lanes.get(lane)?;
        let turns = failures.turns.iter().map(|turn| turn.due);
        let last = turns.chain([failures.last]).max()?;
        // Those who wait will have tried by then.
        let count = failures.count + failures.turns.len() as u32;
        Some(last + penalty(count, self.free).min(LOGIN_TURNS_APART_MAX))
    }
}

impl Failures {
    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= LOGIN_FAILURES_FORGOTTEN
    }
}

fn penalty(count: u32, free: u32) -> Duration {
    match count.checked_sub(free) {
        None => Duration::ZERO,
        Some(over) => Duration::from_secs(1u64 << over.min(32)).min(LOGIN_WAIT_MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const FREE: u32 = LOGIN_FAILURES_FREE_PREFIX;

    fn at(address: &str, user: &str) -> Attempt {
        let from = Prefix::of(address.parse().unwrap());
        let user = UserName::new(user).unwrap();
        Attempt::login(&user, from, PeerId::from_bytes([1; 32]), false)
    }

    fn stranger(address: &str) -> Attempt {
        at(address, "Alice")
    }

    /// An address of which each has a prefix of its own.
    fn address(n: u32) -> String {
        IpAddr::from(n.to_be_bytes()).to_string()
    }

    /// Tries until it has to wait, and says how long.
    fn exhaust(throttle: &mut Throttle, attempt: &Attempt, now: Instant) -> Duration {
        let waits = (0..1000).map(|_| throttle.enter(attempt, now));
        waits.filter_map(Result::err).next().unwrap()
    }

    /// Makes strangers have to wait for the account of Alice.
    fn attack(throttle: &mut Throttle, now: Instant) {
        for n in 0..LOGIN_FAILURES_FREE_ACCOUNT {
            assert_eq!(throttle.enter(&stranger(&address(n)), now), Ok(()));
        }
    }

    #[test]
    fn waits_double_after_the_free_failures_and_end() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        let attempt = stranger("192.0.2.1");
        for _ in 1..FREE {
            assert_eq!(throttle.enter(&attempt, now), Ok(()));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert_eq!(throttle.enter(&attempt, now), Ok(()));
            let wait = Duration::from_secs(seconds);
            assert_eq!(throttle.enter(&attempt, now), Err(wait));
            now += wait - Duration::from_millis(1);
            let rest = Duration::from_millis(1);
            assert_eq!(throttle.enter(&attempt, now), Err(rest));
            now += rest;
        }
    }

    #[test]
    fn a_known_peer_is_not_slowed_by_strangers() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        attack(&mut throttle, now);
        exhaust(&mut throttle, &stranger("192.0.2.1"), now);
        let from = Prefix::of("192.0.2.1".parse().unwrap());
        let user = UserName::new("alice").unwrap();
        let known = Attempt::login(&user, from, PeerId::from_bytes([2; 32]), true);
        assert_eq!(throttle.enter(&known, now), Ok(()));
        // By itself it is.
        assert!(exhaust(&mut throttle, &known, now) > Duration::ZERO);
    }

    #[test]
    fn many_addresses_at_one_account_are_slowed() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        attack(&mut throttle, now);
        let fresh = stranger("198.51.100.7");
        assert!(throttle.enter(&fresh, now).is_err());
        // However many they are, they try one after the other.
        let mut tried = 0;
        for second in 0..3600 {
            let now = now + Duration::from_secs(second);
            let crowd = (0..100).map(|n| stranger(&address(1000 + n)));
            tried += crowd.filter(|a| throttle.enter(a, now).is_ok()).count() as u64;
        }
        let apart = LOGIN_TURNS_APART_MAX.as_secs();
        let most = 10 + 3600 / apart;
        assert!((2..most).contains(&tried), "{tried}");
    }

    #[test]
    fn whoever_comes_anew_gets_in_after_the_wait_that_was_told() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        attack(&mut throttle, start);
        let alice = stranger("198.51.100.7");
        // More attackers than there are turns, who ask all the time.
        let crowd: Vec<_> = (1000..1040).map(|n| stranger(&address(n))).collect();
        let mut now = start;
        for second in 0..1000 {
            now = start + Duration::from_secs(second);
            for attacker in &crowd {
                _ = throttle.enter(attacker, now);
            }
        }
        let others = crowd.iter().filter_map(|a| throttle.enter(a, now).err());
        let longest = others.max();
        assert_eq!(longest, Some(LOGIN_WAIT_MAX), "there is a turn left");
        let wait = throttle.enter(&alice, now).unwrap_err();
        assert!(wait <= LOGIN_WAIT_MAX, "{wait:?}");
        let due = now + wait;
        while now < due {
            for attacker in &crowd {
                _ = throttle.enter(attacker, now);
            }
            assert_eq!(throttle.enter(&alice, now), Err(due - now));
            now += Duration::from_millis(500);
        }
        // Also if she takes her time.
        let late = due + LOGIN_WAIT_MAX / 2;
        assert_eq!(throttle.enter(&alice, late), Ok(()));
        throttle.forgive(&alice);
    }

    #[test]
    fn neighbours_in_one_ipv6_prefix_are_one() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        exhaust(&mut throttle, &stranger("2001:db8::1"), now);
        assert!(throttle.enter(&at("2001:db8::2", "carol"), now).is_err());
        assert_eq!(throttle.enter(&at("2001:db8:0:1::2", "carol"), now), Ok(()));
    }

    #[test]
    fn accounts_are_made_on_a_budget_of_their_own() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let creation = Attempt::Creation(Prefix::of("192.0.2.1".parse().unwrap()));
        exhaust(&mut throttle, &creation, now);
        let login = stranger("192.0.2.1");
        assert_eq!(throttle.enter(&login, now), Ok(()));
        exhaust(&mut throttle, &login, now);
        let other = Attempt::Creation(Prefix::of("192.0.2.2".parse().unwrap()));
        assert_eq!(throttle.enter(&other, now), Ok(()));
    }

    #[test]
    fn successes_count_for_nothing_and_failures_are_forgotten() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let attempt = stranger("192.0.2.1");
        for _ in 0..100 {
            assert_eq!(throttle.enter(&attempt, now), Ok(()));
            throttle.forgive(&attempt);
        }
        attack(&mut throttle, now);
        exhaust(&mut throttle, &attempt, now);
        let later = now + LOGIN_FAILURES_FORGOTTEN;
        for _ in 0..FREE {
            assert_eq!(throttle.enter(&attempt, later), Ok(()));
        }
    }

    #[test]
    fn nobody_washes_failures_away_in_a_flood_of_others() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        attack(&mut throttle, now);
        let guesser = at("192.0.2.1", "Bob");
        let now = now + exhaust(&mut throttle, &guesser, now);
        assert_eq!(throttle.enter(&guesser, now), Ok(()));
        // Each from an address of its own, at an account of its own, as often as it is let.
        for n in 0..LOGIN_LANES_MAX as u32 + 10 {
            let attempt = at(&address(1 << 24 | n), &format!("x{n}"));
            for _ in 0..FREE {
                assert_eq!(throttle.enter(&attempt, now), Ok(()));
            }
            let from = Prefix::of(address(2 << 24 | n).parse().unwrap());
            for _ in 0..ACCOUNTS_FREE_PREFIX / 3 {
                assert_eq!(throttle.enter(&Attempt::Creation(from), now), Ok(()));
            }
        }
        for (len, kind) in [
            (throttle.accounts.lanes.len(), "accounts"),
            (throttle.prefixes.lanes.len(), "prefixes"),
            (throttle.creations.lanes.len(), "creations"),
        ] {
            assert!(len <= LOGIN_LANES_MAX, "{len} {kind}");
        }
        assert!(throttle.enter(&guesser, now).is_err(), "the prefix is kept");
        let kept = throttle.accounts.failures(&"alice".to_owned());
        assert_eq!(kept, LOGIN_FAILURES_FREE_ACCOUNT, "the account is kept");
    }
}
