//! The upload of one peer, shared by the streams that have something to send: each gets an equal part of the rate.

use std::collections::BTreeMap;

/// A stream of the uplink.
pub(super) type StreamId = usize;

/// An uplink, on which time is told in seconds and each stream's progress in bytes.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    /// Bytes a second, of all streams together.
    pub(super) rate: f64,
    /// What a stream that has been sending all the time would have sent.
    sent: f64,
    /// Until when that is told.
    until: f64,
    /// Those that send, by what `sent` will be when their chunk is through.
    sending: BTreeMap<(u64, StreamId), f64>,
    /// Bytes that left so far.
    pub(super) total: f64,
    /// Raised with each change, so that what was foretold before it is known to be void.
    pub(super) version: u64,
}

impl Uplink {
    pub(super) fn new(rate: f64) -> Self {
        Self {
            rate,
            ..Self::default()
        }
    }

    /// A stream has a chunk to send.
    pub(super) fn send(&mut self, now: f64, stream: StreamId, bytes: f64) {
        self.advance(now);
        let end = self.sent + bytes;
        self.sending.insert((end.to_bits(), stream), end);
    }

    /// Ends what the stream sends or was to send.
    pub(super) fn abort(&mut self, now: f64, stream: StreamId) {
        self.advance(now);
        self.sending.retain(|(_, sending), _| *sending != stream);
    }

    /// The stream whose chunk is through by now, if one is.
    pub(super) fn finish(&mut self, now: f64) -> Option<StreamId> {
        self.advance(now);
        let (&(_, stream), &end) = self.sending.first_key_value()?;
        if end > self.sent + NOTHING {
            return None;
        }
        self.sending.pop_first();
        Some(stream)
    }

    /// When the next chunk is through, if nothing changes.
    pub(super) fn next(&self) -> Option<f64> {
        let end = self.sending.values().next()?;
        let rest = (end - self.sent).max(0.0);
        Some(self.until + rest * self.sending.len() as f64 / self.rate)
    }

    fn advance(&mut self, now: f64) {
        let time = (now - self.until).max(0.0);
        if !self.sending.is_empty() {
            self.sent += time * self.rate / self.sending.len() as f64;
            self.total += time * self.rate;
        }
        self.until = now;
        self.version += 1;
    }
}

/// Bytes that rounding may leave.
const NOTHING: f64 = 1e-3;
