//! How failed logins are slowed: each lane allows some failures freely, and from then on makes the next
//! attempt wait twice as long as the one before. Pure: time is an argument.
//!
//! A stranger runs in the lane of the account and in that of its address prefix, so that neither many
//! addresses at one account nor one address at many accounts gets far. A peer that was logged in to the
//! account before has a lane of its own, so that the right user gets in while others try.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    identity::{PeerId, UserName},
    limits::{
        LOGIN_FAILURES_FORGOTTEN, LOGIN_FAILURES_FREE_ACCOUNT, LOGIN_FAILURES_FREE_PREFIX,
        LOGIN_LANES_MAX, LOGIN_WAIT_MAX,
    },
};

/// Failures of late, by lane.
#[derive(Default)]
pub(super) struct Throttle {
    lanes: HashMap<Lane, Failures>,
}

/// What failures are counted by.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(super) enum Lane {
    /// Everybody but known peers, at one account.
    Account(String),
    /// One /32 of IPv4 or /64 of IPv6.
    Prefix(IpAddr),
    /// A peer that was logged in to this account before.
    Known(String, PeerId),
    /// Accounts made from one prefix.
    Create(IpAddr),
}

#[derive(Copy, Clone)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Lane {
    /// The lanes in which `peer` at `from` tries to log in as `user`.
    pub(super) fn of_login(user: &UserName, from: IpAddr, peer: PeerId, known: bool) -> Vec<Self> {
        if known {
            vec![Self::Known(user.folded(), peer)]
        } else {
            vec![Self::Account(user.folded()), Self::Prefix(prefix(from))]
        }
    }

    /// The lane in which somebody at `from` makes accounts.
    pub(super) fn of_creation(from: IpAddr) -> Self {
        Self::Create(prefix(from))
    }

    fn free(&self) -> u32 {
        match self {
            Self::Account(_) => LOGIN_FAILURES_FREE_ACCOUNT,
            Self::Prefix(_) | Self::Known(..) => LOGIN_FAILURES_FREE_PREFIX,
            Self::Create(_) => crate::limits::ACCOUNTS_FREE_PREFIX,
        }
    }
}

impl Throttle {
    /// How long an attempt in these lanes has to wait at `now`; zero when it may go on.
    pub(super) fn wait(&self, lanes: &[Lane], now: Instant) -> Duration {
        let wait = |lane: &Lane| {
            let failures = self.lanes.get(lane)?;
            let until = failures.last + penalty(failures.count, lane.free());
            Some(until.saturating_duration_since(now))
        };
        lanes.iter().filter_map(wait).max().unwrap_or_default()
    }

    /// Counts an attempt in these lanes; made before its outcome is known, so that attempts at once
    /// cannot all be the first.
    pub(super) fn count(&mut self, lanes: &[Lane], now: Instant) {
        for lane in lanes {
            if self.lanes.len() >= LOGIN_LANES_MAX && !self.lanes.contains_key(lane) {
                self.make_room(now);
            }
            let failures = self.lanes.entry(lane.clone()).or_insert(Failures {
                count: 0,
                last: now,
            });
            if now.saturating_duration_since(failures.last) >= LOGIN_FAILURES_FORGOTTEN {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
    }

    /// Takes back one counted attempt, which was no failure.
    pub(super) fn forgive(&mut self, lanes: &[Lane]) {
        for lane in lanes {
            if let Some(failures) = self.lanes.get_mut(lane) {
                failures.count = failures.count.saturating_sub(1);
            }
        }
    }

    /// Drops what is forgotten anyway, and if that is nothing, the lanes with the fewest failures.
    fn make_room(&mut self, now: Instant) {
        self.lanes.retain(|_, failures| {
            now.saturating_duration_since(failures.last) < LOGIN_FAILURES_FORGOTTEN
        });
        let mut fewest = 0;
        while self.lanes.len() >= LOGIN_LANES_MAX {
            fewest += 1;
            self.lanes.retain(|_, failures| failures.count > fewest);
        }
    }
}

fn penalty(count: u32, free: u32) -> Duration {
    match count.checked_sub(free) {
        None | Some(0) => Duration::ZERO,
        Some(over) => Duration::from_secs(1u64 << (over - 1).min(32)).min(LOGIN_WAIT_MAX),
    }
}

fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> UserName {
        UserName::new("Alice").unwrap()
    }

    fn stranger(address: &str) -> Vec<Lane> {
        Lane::of_login(
            &user(),
            address.parse().unwrap(),
            PeerId::from_bytes([1; 32]),
            false,
        )
    }

    fn fail(throttle: &mut Throttle, lanes: &[Lane], now: Instant, times: u32) {
        for _ in 0..times {
            throttle.count(lanes, now);
        }
    }

    #[test]
    fn waits_double_after_the_free_failures_and_end() {
        let (mut throttle, now, lanes) =
            (Throttle::default(), Instant::now(), stranger("192.0.2.1"));
        fail(&mut throttle, &lanes, now, LOGIN_FAILURES_FREE_PREFIX);
        assert_eq!(throttle.wait(&lanes, now), Duration::ZERO);
        for seconds in [1, 2, 4, 8] {
            throttle.count(&lanes, now);
            assert_eq!(throttle.wait(&lanes, now), Duration::from_secs(seconds));
        }
        assert_eq!(
            throttle.wait(&lanes, now + Duration::from_secs(8)),
            Duration::ZERO
        );
        fail(&mut throttle, &lanes, now, 100);
        assert_eq!(throttle.wait(&lanes, now), LOGIN_WAIT_MAX);
    }

    #[test]
    fn a_known_peer_is_not_slowed_by_strangers() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        fail(&mut throttle, &stranger("192.0.2.1"), now, 1_000);
        let address = "192.0.2.1".parse().unwrap();
        let known = Lane::of_login(&user(), address, PeerId::from_bytes([2; 32]), true);
        assert_eq!(throttle.wait(&known, now), Duration::ZERO);
    }

    #[test]
    fn many_addresses_at_one_account_are_slowed() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..=LOGIN_FAILURES_FREE_ACCOUNT {
            throttle.count(&stranger(&format!("2001:db8:{n:x}::1")), now);
        }
        assert!(throttle.wait(&stranger("198.51.100.7"), now) > Duration::ZERO);
    }

    #[test]
    fn neighbours_in_one_ipv6_prefix_are_one() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let other = Lane::of_login(
            &UserName::new("carol").unwrap(),
            "2001:db8::2".parse().unwrap(),
            PeerId::from_bytes([1; 32]),
            false,
        );
        fail(
            &mut throttle,
            &stranger("2001:db8::1"),
            now,
            LOGIN_FAILURES_FREE_PREFIX + 1,
        );
        assert!(throttle.wait(&other, now) > Duration::ZERO);
    }

    #[test]
    fn successes_count_for_nothing_and_failures_are_forgotten() {
        let (mut throttle, now, lanes) =
            (Throttle::default(), Instant::now(), stranger("192.0.2.1"));
        for _ in 0..100 {
            throttle.count(&lanes, now);
            throttle.forgive(&lanes);
        }
        assert_eq!(throttle.wait(&lanes, now), Duration::ZERO);
        fail(&mut throttle, &lanes, now, 100);
        let later = now + LOGIN_FAILURES_FORGOTTEN.max(LOGIN_WAIT_MAX);
        throttle.count(&lanes, later);
        assert_eq!(throttle.wait(&lanes, later), Duration::ZERO);
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let lanes = stranger("192.0.2.1");
        fail(&mut throttle, &lanes, now, 50);
        for n in 0..LOGIN_LANES_MAX as u64 + 10 {
            throttle.count(&[Lane::Account(n.to_string())], now);
        }
        assert!(throttle.lanes.len() <= LOGIN_LANES_MAX);
        assert!(
            throttle.wait(&lanes, now) > Duration::ZERO,
            "the worst are kept"
        );
    }
}
