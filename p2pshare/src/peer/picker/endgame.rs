//! Who does what when little is left: the slow are asked for no more than they give in time, and what they owe
//! is asked of those who are through. It is time that decides, not how rare a chunk is.

use std::time::Duration;

use super::{Order, Picker, SourceId};
use crate::{
    content::CHUNK_SIZE,
    limits::{
        DUPLICATE_BYTES_SHARE_MAX, SLOW_SOURCE_PATIENCE, SOURCE_SILENCE_MAX, STUCK_SOURCE_PATIENCE,
    },
};

impl Picker {
    /// Whether faster sources, which are all at work, would be through with everything before `source` were
    /// with `index`, which one of them has as well.
    pub(super) fn would_hold_up(&self, source: SourceId, index: u32, now: Duration) -> bool {
        let Some(asked) = self.sources.get(&source) else {
            return false;
        };
        let own = asked.chunk_time(now);
        let (mut chunks_per_second, mut held) = (0.0, false);
        for (id, other) in &self.sources {
            let time = other.chunk_time(now);
            let faster = *id != source && !other.queue.is_empty() && time > 0.0;
            if faster && time * CLEARLY_SLOWER <= own {
                chunks_per_second += 1.0 / time;
                held |= other.holds.get(index);
            }
        }
        let missing = self.layout.chunk_count() - self.taken.count();
        let rest = f64::from(missing) + self.asked.len() as f64;
        held && own * (asked.queue.len() + 1) as f64 > rest / chunks_per_second
    }

    /// What `source`, which is not asked for anything, is to take over: of what it would sooner give, what would come
    /// last.
    pub(super) fn take_over(&mut self, source: SourceId, now: Duration) -> Option<u32> {
        let is_idle = self.sources.get(&source)?.queue.is_empty();
        is_idle.then(|| self.take_from_slower(source, now, |_| true))?
    }

    /// In the order of the file somebody waits for the first chunk that is awaited from others: whether `source`, busy
    /// as it may be, is to take it over.
    pub(super) fn take_over_front(&mut self, source: SourceId, now: Duration) -> Option<u32> {
        if self.order != Order::OfTheFile {
            return None;
        }
        let of_others = self.asked.iter().filter(|(_, of)| **of != source);
        let front = *of_others.map(|(index, _)| index).min()?;
        let is_asked = self.sources.get(&source)?.queue.contains(&front);
        (!is_asked).then(|| self.take_from_slower(source, now, |index| index == front))?
    }

    /// A chunk `of` those that are expected of a source so slow that `source` would be sooner: the one that would come
    /// last. What has not begun to come is left to the faster one. What may have is asked of both where it is waited for,
    /// in the end or in the order of the file; and more than [`DUPLICATE_BYTES_SHARE_MAX`] of that, of which a small file
    /// has nothing, only where it hardly comes from the slow one, and `source` has nothing else to do: in the end,
    /// and before that one chunk, or what hardly comes at all.
    fn take_from_slower(
        &mut self,
        source: SourceId,
        now: Duration,
        of: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let asked = self.sources.get(&source)?;
        let (holds, is_idle) = (&asked.holds, asked.queue.is_empty());
        let own = asked.pace.chunk_time().unwrap_or(CHUNK_TIME_GUESSED);
        // It comes after what it is asked for already.
        let until = own * (asked.queue.len() + 1) as f64;
        let chunk = u64::from(CHUNK_SIZE);
        let allowed = self.risked_bytes + chunk <= self.layout.length() / DUPLICATE_BYTES_SHARE_MAX;
        let is_end = self.taken.is_complete();
        let is_waited_for = is_end || self.order == Order::OfTheFile;
        let stuck_after = match is_end || self.risked_bytes == 0 {
            _ if !(is_idle && is_waited_for) => None,
            true => Some(STUCK_SOURCE_PATIENCE),
            false => Some(SOURCE_SILENCE_MAX),
        };
        let patience = SLOW_SOURCE_PATIENCE.as_secs_f64();
        let mut latest: Option<(f64, SourceId, bool, u32)> = None;
        for (&victim, asked) in self.sources.iter().filter(|(id, _)| **id != source) {
            let (rest, time) = (asked.rest(now), asked.chunk_time(now));
            let stuck = stuck_after.is_some_and(|after| rest >= after.as_secs_f64());
            if time < own * CLEARLY_SLOWER {
                continue;
            }
            let queue = asked.queue.iter().enumerate();
            for (place, &index) in queue.filter(|(_, index)| of(**index)) {
                let due = rest + place as f64 * time;
                let sooner = match place {
                    0 => {
                        let long = due >= patience.max(until * CLEARLY_SLOWER);
                        long && allowed && is_waited_for
                    }
                    _ => due - time >= until * MARGIN && (allowed || time >= patience),
                };
                let may_come = place == 0 || time < patience;
                if (sooner || stuck)
                    && self.asked.get(&index) == Some(&victim)
                    && holds.get(index)
                    && latest.is_none_or(|(latest, ..)| due > latest)
                {
                    latest = Some((due, victim, may_come, index));
                }
            }
        }
        let (_, victim, may_come, index) = latest?;
        let risked = if may_come { chunk } else { 0 };
        self.risked_bytes += risked;
        *self.doubled.entry(index).or_default() += risked;
        let asked = self.sources.get_mut(&victim)?;
        if asked.queue.front() != Some(&index) {
            asked.unwanted.push(index);
            self.news = true;
        }
        Some(index)
    }
}

/// How often as long as another's a chunk takes from one that is clearly slower.
const CLEARLY_SLOWER: f64 = 2.0;
/// How often the time that it should take a chunk has before it would come in vain.
const MARGIN: f64 = 1.5;
/// Seconds that a chunk is thought to take from a source that gave none yet.
const CHUNK_TIME_GUESSED: f64 = 0.5;
