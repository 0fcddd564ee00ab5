//! Why nothing comes. A download from which no byte came for a while is never just waiting: of what is known of it
//! the one reason is chosen that has to change first. Pure: facts in, reason out.

use std::{fmt, time::Duration};

use crate::{content::Bitfield, limits::STALL_PATIENCE, peer::pace::Rate};

/// Why nothing comes, when nothing came for a few seconds.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stall {
    /// The disk has not taken yet what came.
    Disk,
    /// The download limit of this peer has no room yet.
    Limited {
        /// The limit.
        rate: Rate,
    },
    /// Peers were asked, perhaps just now, and nothing comes yet.
    Silent {
        /// How many.
        peers: usize,
    },
    /// Peers are connected, and have nothing that is missing.
    Useless {
        /// How many.
        peers: usize,
    },
    /// Nobody who is online has what is missing.
    NoHolder {
        /// The first chunk that nobody has.
        chunk: u32,
        /// How many chunks nobody has.
        chunks: u32,
    },
    /// All peers serve as many as they can; this one waits for a place.
    Busy {
        /// How many.
        peers: usize,
    },
    /// No connection is there yet.
    Connecting {
        /// To how many peers.
        peers: usize,
    },
    /// All peers that have the file refuse: to them this user is not a member, or they stopped sharing.
    Refused {
        /// How many.
        peers: usize,
    },
    /// Peers that have the file cannot be reached.
    Unreachable {
        /// How many.
        peers: usize,
    },
    /// Peers that have the file broke off or gave nothing, and are soon asked again.
    Failed {
        /// How many.
        peers: usize,
    },
    /// Nobody who has the file is online.
    Nobody,
    /// No tracker can be reached, and no peer that has the file is known.
    NoTracker,
}

/// What is known of a download.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Since when no byte has come.
    pub(super) quiet: Duration,
    /// Whether something that came is not written yet.
    pub(super) unwritten: bool,
    /// The download limit, if it is why nothing is asked for.
    pub(super) limiting: Option<Rate>,
    /// Whether any chunk is expected of anybody.
    pub(super) asked: bool,
    /// Peers from which chunks can come.
    pub(super) open: usize,
    /// Peers where this one waits for a place.
    pub(super) queued: usize,
    /// Peers that are being connected.
    pub(super) connecting: usize,
    /// Whether the tracker answered when it was asked last who holds the file.
    pub(super) tracker: bool,
    /// Those who hold it, and were not found to lie.
    pub(super) known: usize,
    /// Of these, those that said last that they are busy, that they refuse, and those that could not be reached.
    pub(super) busy: usize,
    pub(super) refusing: usize,
    pub(super) unreachable: usize,
    /// The first missing chunk that none of them has, and how many there are.
    pub(super) unheld: Option<(u32, u32)>,
}

impl Facts {
    /// Whether bytes are to come without anybody else: they were asked for, or it is not for want of a source that
    /// they were not. Whoever is told to wait is neither forgotten nor alone.
    pub(super) const fn give_hope(&self) -> bool {
        self.asked || self.unwritten || self.limiting.is_some() || self.queued > 0 || self.busy > 0
    }

    /// Why nothing comes, if nothing has come for long enough to be asked.
    pub(super) fn stall(&self) -> Option<Stall> {
        if self.quiet < STALL_PATIENCE {
            return None;
        }
        Some(match *self {
            _ if self.unwritten => Stall::Disk,
            Self { asked: true, .. } => Stall::Silent {
                peers: self.open.max(1),
            },
            Self {
                limiting: Some(rate),
                ..
            } => Stall::Limited { rate },
            Self {
                unheld: Some((chunk, chunks)),
                known: 1..,
                ..
            } => Stall::NoHolder { chunk, chunks },
            Self {
                queued: peers @ 1..,
                ..
            } => Stall::Busy { peers },
            Self {
                connecting: peers @ 1..,
                ..
            } => Stall::Connecting { peers },
            Self {
                open: peers @ 1.., ..
            } => Stall::Useless { peers },
            Self {
                busy: peers @ 1.., ..
            } => Stall::Busy { peers },
            Self {
                refusing: peers @ 1..,
                ..
            } => Stall::Refused { peers },
            Self {
                unreachable: peers @ 1..,
                ..
            } => Stall::Unreachable { peers },
            Self {
                known: peers @ 1.., ..
            } => Stall::Failed { peers },
            Self { tracker: false, .. } => Stall::NoTracker,
            _ => Stall::Nobody,
        })
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Disk => f.write_str("the disk is slow"),
            Self::Limited { rate } => write!(
                f,
                "the download limit of {} B/s has no room for the next chunk yet",
                rate.bytes()
            ),
            Self::Silent { peers: 1 } => {
                f.write_str("nothing comes yet from the peer that was asked")
            }
            Self::Silent { peers } => {
                write!(
                    f,
                    "nothing comes yet from the {peers} peers that were asked"
                )
            }
            Self::Useless { peers: 1 } => {
                f.write_str("the peer that is connected has nothing that is missing")
            }
            Self::Useless { peers } => {
                write!(
                    f,
                    "the {peers} peers that are connected have nothing that is missing"
                )
            }
            Self::NoHolder { chunk, chunks: 1 } => {
                write!(f, "nobody online has chunk {chunk}")
            }
            Self::NoHolder { chunks, .. } => {
                write!(f, "nobody online has {chunks} of the missing chunks")
            }
            Self::Busy { peers: 1 } => f.write_str("the peer is busy; waiting for a place"),
            Self::Busy { peers } => write!(f, "all {peers} peers are busy; waiting for a place"),
            Self::Connecting { peers: 1 } => f.write_str("connecting to 1 peer"),
            Self::Connecting { peers } => write!(f, "connecting to {peers} peers"),
            Self::Refused { peers: 1 } => f.write_str(
                "the peer refuses: not a member of the group, or not shared there any more",
            ),
            Self::Refused { peers } => write!(
                f,
                "all {peers} peers refuse: not a member of the group, or not shared there any more"
            ),
            Self::Unreachable { peers: 1 } => f.write_str("the peer that has it cannot be reached"),
            Self::Unreachable { peers } => {
                write!(f, "{peers} peers that have it cannot be reached")
            }
            Self::Failed { peers: 1 } => {
                f.write_str("the peer that has it failed, and is asked again soon")
            }
            Self::Failed { peers } => {
                write!(
                    f,
                    "{peers} peers that have it failed, and are asked again soon"
                )
            }
            Self::Nobody => f.write_str("nobody who has it is online"),
            Self::NoTracker => f.write_str("no tracker can be reached, and no peer is known"),
        }
    }
}

/// The first of the chunks that are not `had` and that nobody `holds`, and how many these are.
pub(super) fn unheld(had: &Bitfield, holds: &[Bitfield]) -> Option<(u32, u32)> {
    let mut unheld = had
        .iter_missing()
        .filter(|&index| !holds.iter().any(|holds| holds.get(index)));
    let first = unheld.next()?;
    Some((first, 1 + unheld.count() as u32))
}

/// Since when no bytes have come, and since when nothing gives hope for any.
#[derive(Debug)]
pub(super) struct Quiet {
    bytes: u64,
    since: Duration,
    hopeless_since: Duration,
}

impl Quiet {
    /// Counts from now on.
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            bytes: 0,
            since: now,
            hopeless_since: now,
        }
    }

    /// So many bytes have come until `now`, and whether there is [hope](Facts::give_hope) for more.
    pub(super) fn note(&mut self, bytes: u64, hope: bool, now: Duration) {
        let came = bytes != self.bytes;
        if came {
            (self.bytes, self.since) = (bytes, now);
        }
        if came || hope {
            self.hopeless_since = now;
        }
    }

    /// For how long no bytes have come.
    pub(super) fn time(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// For how long neither bytes nor hope.
    pub(super) fn hopeless(&self, now: Duration) -> Duration {
        now.saturating_sub(self.hopeless_since)
    }
}

#[cfg(test)]
mod tests;
