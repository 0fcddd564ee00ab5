//! How fast bytes may go: a clock that says when the next ones may, so that over any time no more go than the
//! rate allows, but for what makes up for a late timer and the piece that is begun. Pure: the time is an
//! argument, counted from whenever.

use std::{num::NonZeroU64, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    content::CHUNK_SIZE,
    limits::{PACE_SLACK, PACED_PIECE_BYTES, RATE_MIN},
};

/// Bytes of files in a second, at least [`Rate::MIN`].
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(NonZeroU64);

/// A rate at which a chunk would take longer than others wait for it.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a rate has to be at least {RATE_MIN} bytes a second")]
#[non_exhaustive]
pub struct RateTooLow;

/// How fast a peer may send and fetch, over all its transfers; the default is as fast as it can.
///
/// What is counted are bytes of files, and of what is told about their chunks; what QUIC adds to them is about 3 %
/// on a path of 1,500 bytes, and digests, of 32 bytes for a chunk, are not counted. Over any
/// time an upload limit lets no more go than its rate, 50 ms of it more, and one piece (16 KiB, or 10 ms of the
/// rate if that is more), and shares it equally among the peers that ask; a download limit holds for the
/// chunks that are asked for, so that a chunk comes as fast as its sender sends it, and the next is asked for
/// when the rate has room for it.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// The limit of what is sent to others.
    pub upload: Option<Rate>,
    /// The limit of what is fetched from others.
    pub download: Option<Rate>,
}

impl Rate {
    /// The lowest, in bytes a second.
    pub const MIN: u64 = RATE_MIN;

    /// So many bytes a second.
    ///
    /// # Errors
    /// [`RateTooLow`] below [`Rate::MIN`].
    pub fn per_second(bytes: u64) -> Result<Self, RateTooLow> {
        match NonZeroU64::new(bytes) {
            Some(rate) if bytes >= Self::MIN => Ok(Self(rate)),
            _ => Err(RateTooLow),
        }
    }

    /// Bytes a second.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }

    /// How long so many bytes take.
    pub(super) fn time_of(self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.bytes()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many bytes go in that time.
    pub(super) fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.bytes()) * time.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How many bytes are sent at once: few, so that they come steadily at a low rate, and more at a high one.
    pub(super) fn piece_bytes(self) -> usize {
        (self.bytes() / PIECES_PER_SECOND).clamp(PACED_PIECE_BYTES, CHUNK_SIZE.into()) as usize
    }
}

impl TryFrom<u64> for Rate {
    type Error = RateTooLow;

    fn try_from(bytes: u64) -> Result<Self, RateTooLow> {
        Self::per_second(bytes)
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.bytes()
    }
}

impl Limits {
    /// With [`Limits::upload`] as given.
    #[must_use]
    pub const fn upload(mut self, rate: Option<Rate>) -> Self {
        self.upload = rate;
        self
    }

    /// With [`Limits::download`] as given.
    #[must_use]
    pub const fn download(mut self, rate: Option<Rate>) -> Self {
        self.download = rate;
        self
    }
}

/// When the next bytes may go.
#[derive(Debug, Default)]
pub(super) struct Pace {
    rate: Option<Rate>,
    due: Duration,
}

impl Pace {
    pub(super) const fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Another rate from `now` on, at which the next bytes may go at once.
    pub(super) fn set_rate(&mut self, rate: Option<Rate>, now: Duration) {
        self.rate = rate;
        self.due = now;
    }

    /// How long the next bytes have to wait.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        match self.rate {
            Some(_) => self.due.saturating_sub(now),
            None => Duration::ZERO,
        }
    }

    /// So many bytes go, which did not have to wait any more.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) {
        if let Some(rate) = self.rate {
            let from = self.due.max(now.saturating_sub(PACE_SLACK));
            self.due = from.saturating_add(rate.time_of(bytes));
        }
    }

    /// So many bytes that were taken did not go after all.
    pub(super) fn give_back(&mut self, bytes: u64) {
        if let Some(rate) = self.rate {
            self.due = self.due.saturating_sub(rate.time_of(bytes));
        }
    }
}

/// How many pieces a second there are at a rate that is not low.
const PIECES_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests;
