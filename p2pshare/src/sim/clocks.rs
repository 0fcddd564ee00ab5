//! Clocks of the members' machines, which jump, and the ring's time that members make of them.
//!
//! What the product promises is looked at whenever a member is asked: the ring's time never goes back in a life
//! of a member that has heard the others, or waited for them, and as long as most of the clocks that it knows of are right, it is near the true time, or where
//! wrong ones had carried it before.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::World;
use crate::dht::sim::RingTime;
use crate::identity::MemberId;
use crate::time::Timestamp;

/// What one life of a member knows of clocks.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    time: RingTime,
    /// Of whom it heard something, and whether that clock was right.
    heard: BTreeMap<MemberId, bool>,
    told: Timestamp,
    /// How far wrong clocks have carried the ring's time.
    carried: Timestamp,
}

/// What a clock said.
#[derive(Copy, Clone, Debug)]
pub(super) struct Said {
    pub(super) time: Timestamp,
    pub(super) right: bool,
}

impl Clocks {
    /// Keeps only what is known of these members.
    pub(super) fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.time.retain(&is_member);
        self.heard.retain(|member, _| is_member(*member));
    }
}

impl World {
    /// What a member's own clock says.
    pub(super) fn clock(&self, host: usize) -> Said {
        let ahead = self.hosts[host].clock_ahead;
        let time = self.true_time().saturating_add_signed(ahead);
        Said {
            time: Timestamp::from_millis(time),
            right: ahead == 0,
        }
    }

    fn true_time(&self) -> u64 {
        BEGINS + self.now.duration_since(self.began).as_millis() as u64
    }

    /// A member hears a clock in an answer that was `round_trip` under way, as the product does: not of strangers,
    /// and not after it has given up waiting.
    pub(super) fn hear_clock(
        &mut self,
        host: usize,
        from: MemberId,
        said: Said,
        (round_trip, longest): (Duration, Duration),
    ) {
        let now = self.now;
        let Some(life) = &mut self.hosts[host].life else {
            return;
        };
        let is_stranger = life
            .record()
            .is_some_and(|record| record.member(from).is_none());
        if is_stranger || round_trip > longest {
            return;
        }
        life.clocks.time.hear(from, said.time, round_trip, now);
        life.clocks.heard.insert(from, said.right);
    }

    /// A member is asked for the ring's time.
    pub(super) fn ask_time(&mut self, host: usize) {
        let (now, own, truth) = (self.now, self.clock(host), self.true_time());
        let Some(life) = &mut self.hosts[host].life else {
            return;
        };
        let members = life
            .record()
            .map_or(usize::MAX, |record| record.members().len());
        let clocks = &mut life.clocks;
        let time = clocks.time.now(own.time, now, members);
        let is_settled = clocks.time.is_settled(now, members);
        let right = clocks.heard.values().filter(|right| **right).count() + usize::from(own.right);
        let is_sure = 2 * right > clocks.heard.len() + 1;
        let mut wrong = Vec::new();
        if time < clocks.told {
            wrong.push(format!("the ring's time went back at member {host}"));
        }
        if !is_sure {
            clocks.carried = clocks.carried.max(time);
        } else if time.as_millis() + INEXACT < truth
            || time.as_millis() > clocks.carried.as_millis().max(truth + INEXACT)
        {
            let off = i128::from(time.as_millis()) - i128::from(truth);
            wrong.push(format!("the ring's time at member {host} is {off} ms off"));
        }
        if is_settled {
            clocks.told = time;
        }
        self.tally.tell("time");
        self.tally.violations.extend(wrong);
    }
}

/// The true time when a world begins, in milliseconds.
const BEGINS: u64 = 1_000_000_000_000;
/// How far the ring's time may be off, in milliseconds: half of the longest round trip, and some more.
const INEXACT: u64 = 3_000;
/// The least by which a wrong clock is wrong, in milliseconds: more than could be taken for a slow answer.
pub(super) const WRONG_MIN: i64 = 60_000;
/// And the most.
pub(super) const WRONG_MAX: i64 = 3_600_000;
