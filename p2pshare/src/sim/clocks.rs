//! Clocks of the members' machines, which jump, and the ring's time that members make of them.
//!
//! What the product promises is looked at whenever a member is asked: in one life of a member the ring's time never
//! goes back and never stands still, it is never behind what another has told this member, and it is near the true
//! time if most clocks of the ring were right when this member heard them, or above it as far as others had carried
//! the ring. At the end, when all have heard each other, all have the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::world::World;
use crate::dht::sim::RingTime;
use crate::identity::MemberId;
use crate::time::{RingClock, Timestamp};
use crate::wire::ring::Clocks;

/// What one life of a member knows of clocks.
#[derive(Debug, Default)]
pub(super) struct Heard {
    time: RingTime,
    /// Of whom it heard something, and whether that clock was right.
    from: BTreeMap<MemberId, bool>,
    /// What it cannot be behind: what it told, or was told, and when.
    least: Option<(Timestamp, Instant)>,
    /// When it was asked last.
    asked: Option<Instant>,
}

/// What a member says of the time.
#[derive(Copy, Clone, Debug)]
pub(super) struct Said {
    pub(super) clocks: Clocks,
    /// Whether its clock is right.
    right: bool,
}

impl Heard {
    /// Keeps only what is known of these members.
    pub(super) fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.time.retain(&is_member);
        self.from.retain(|member, _| is_member(*member));
    }

    fn note(&mut self, time: Timestamp, now: Instant) {
        let least = self.least_now(now).max(time);
        self.least = Some((least, now));
    }

    /// What it is not behind now: time goes on at half its speed at least.
    fn least_now(&self, now: Instant) -> Timestamp {
        self.least.map_or(Timestamp::default(), |(time, at)| {
            time.saturating_add(now.duration_since(at) / 2)
        })
    }
}

/// The true time, and how far wrong clocks may have carried the ring's.
pub(super) fn carried(began: Instant) -> RingClock {
    RingClock::new(BEGINS, began)
}

impl World {
    /// What a member says of the time.
    pub(super) fn clocks(&mut self, host: usize) -> Said {
        let own = self.own_clock(host);
        let ring = self.ask_time(host);
        Said {
            clocks: Clocks { own, ring },
            right: self.hosts[host].clock_ahead == 0,
        }
    }

    fn own_clock(&self, host: usize) -> Timestamp {
        let time = self.true_time().as_millis();
        Timestamp::from_millis(time.saturating_add_signed(self.hosts[host].clock_ahead))
    }

    fn true_time(&self) -> Timestamp {
        BEGINS.saturating_add(self.now.duration_since(self.began))
    }

    /// A member hears a clock in an answer that was `round_trip` under way, as the product does: not its own, not of strangers,
    /// and not after it has given up waiting.
    pub(super) fn hear_clock(
        &mut self,
        host: usize,
        from: MemberId,
        said: Said,
        (round_trip, longest): (Duration, Duration),
    ) {
        let now = self.now;
        let is_itself = self.hosts[host].id == Some(from);
        let Some(life) = &mut self.hosts[host].life else {
            return;
        };
        let is_stranger = life
            .record()
            .is_some_and(|record| record.member(from).is_none());
        if is_itself || is_stranger || round_trip > longest {
            return;
        }
        life.heard_clocks
            .time
            .hear(from, said.clocks, round_trip, now);
        life.heard_clocks.from.insert(from, said.right);
        if let Some(ring) = said.clocks.ring {
            life.heard_clocks.note(ring, now);
        }
    }

    /// A member is asked for the ring's time.
    pub(super) fn ask_time(&mut self, host: usize) -> Option<Timestamp> {
        let (now, own, truth) = (self.now, self.own_clock(host), self.true_time());
        let is_right = self.hosts[host].clock_ahead == 0;
        let life = self.hosts[host].life.as_mut()?;
        let members = life
            .record()
            .map_or(usize::MAX, |record| record.members().len());
        let heard = &mut life.heard_clocks;
        let time = heard.time.now(own, now, members);
        let told = match (time, heard.least) {
            (None, None) => return None,
            // What it once knew, it knows for good.
            (time, _) => time.unwrap_or_default(),
        };
        let mut wrong = Vec::new();
        if told.saturating_add(ROUNDED) < heard.least_now(now) {
            let why = "went back, stood still, or is behind what another told";
            wrong.push(format!("the ring's time at member {host} {why}"));
        }
        heard.note(told, now);
        let right = heard.from.values().filter(|right| **right).count() + usize::from(is_right);
        let off = i128::from(told.as_millis()) - i128::from(truth.as_millis());
        let is_sure = right > members / 2;
        // What it goes by may have become more wrong since it was asked last, and nobody knows: it may have slept.
        let asleep = heard
            .asked
            .replace(now)
            .map_or(Duration::ZERO, |asked| now.duration_since(asked) / 2);
        let most = self
            .carried
            .now(now)
            .saturating_add(INEXACT + UNASKED + asleep);
        if is_sure && (told.saturating_add(INEXACT) < truth || told > most) {
            wrong.push(format!("the ring's time at member {host} is {off} ms off"));
        } else {
            self.carried.raise(told, now);
        }
        self.tally.tell("time");
        self.tally.violations.extend(wrong);
        time
    }

    /// All that serve have the same time, as far as answers can tell.
    pub(super) fn compare_times(&mut self) {
        let serving: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.serves(*host))
            .collect();
        let times = serving.iter().map(|host| self.ask_time(*host));
        let times: Vec<_> = times.map(Option::unwrap_or_default).collect();
        if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max())
            && last.saturating_since(*first) > INEXACT
        {
            let broken = format!("members that hear each other have different times: {times:?}");
            self.tally.violations.push(broken);
        }
    }
}

/// The true time when a world begins.
const BEGINS: Timestamp = Timestamp::from_millis(1_000_000_000_000);
/// How far the ring's time may be off: half of the longest round trip, and some more.
const INEXACT: Duration = Duration::from_secs(3);
/// How much more wrong it may be by what another told that was not asked for as long as the longest sleep: half of that.
const UNASKED: Duration = Duration::from_secs(10);
/// What is lost when milliseconds are counted.
const ROUNDED: Duration = Duration::from_millis(2);
/// The least by which a wrong clock is wrong, in milliseconds: more than could be taken for a slow answer.
pub(super) const WRONG_MIN: i64 = 60_000;
/// And the most.
pub(super) const WRONG_MAX: i64 = 3_600_000;
