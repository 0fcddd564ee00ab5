//! What a world is like: mostly a bit of everything, and now and then all that makes one rare thing frequent.

use super::trouble::Kind;
use crate::dht::sim::Fault;

/// What a world is like.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Temper {
    /// Anything may break, and clients do what they like.
    Any,
    /// The same in a ring of two, which does nothing while one of them is down.
    Pair,
    /// Messages are lost, and nearly everybody reads and lists.
    Readers,
    /// Members stop, and go on when nobody waits for them any more.
    Sleepers,
    /// Members forget, while others miss what is said.
    Forgetters,
    /// Members forget and return while what was asked before is still under way.
    Stragglers,
    /// Members forget, and die again before they have heard the others.
    Restless,
    /// All change one row, and try again when it may have forgotten.
    Late,
    /// Members forget and miss each other while they found the ring.
    Founders,
}

impl Temper {
    /// One of them, mostly one in which anything may break.
    pub(super) const DRAWN: [Self; 13] = [
        Self::Any,
        Self::Any,
        Self::Any,
        Self::Any,
        Self::Pair,
        Self::Pair,
        Self::Readers,
        Self::Sleepers,
        Self::Forgetters,
        Self::Stragglers,
        Self::Restless,
        Self::Late,
        Self::Founders,
    ];

    /// In which worlds a mistake shows that hardly ever does in others.
    pub(super) fn shows(fault: Fault) -> Option<Self> {
        Some(match fault {
            Fault::NoWriteBack | Fault::ListingIgnoresDisputes => Self::Readers,
            Fault::CertainAfterExposure => Self::Sleepers,
            Fault::InstallOverwrites | Fault::PullFromOne => Self::Forgetters,
            Fault::StaleEpochAccepted | Fault::FenceNotKept => Self::Stragglers,
            Fault::SilentLivesCount | Fault::OthersMemoryIgnored => Self::Restless,
            Fault::RetryAsFirst => Self::Late,
            Fault::StaleFoundingWord => Self::Founders,
            _ => return None,
        })
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Pair => "pair",
            Self::Readers => "readers",
            Self::Sleepers => "sleepers",
            Self::Forgetters => "forgetters",
            Self::Stragglers => "stragglers",
            Self::Restless => "restless",
            Self::Late => "late",
            Self::Founders => "founders",
        }
    }

    /// What breaks, unless it is anything.
    pub(super) fn kinds(self) -> Option<&'static [Kind]> {
        match self {
            Self::Any | Self::Pair => None,
            Self::Readers => Some(&[Kind::Loss, Kind::OneWay, Kind::CrashAtSync]),
            Self::Sleepers => Some(&[Kind::Pause, Kind::Pause, Kind::Slow, Kind::Partition]),
            Self::Forgetters => Some(&[Kind::Wipe, Kind::LoseTail, Kind::Loss, Kind::OneWay]),
            Self::Stragglers => Some(&[Kind::Wipe, Kind::Wipe, Kind::Slow, Kind::Crash]),
            Self::Restless => Some(&[
                Kind::LoseTail,
                Kind::Crash,
                Kind::Crash,
                Kind::Partition,
                Kind::Slow,
            ]),
            Self::Late => Some(&[Kind::Crash, Kind::CrashAtSync, Kind::Loss]),
            Self::Founders => Some(&[
                Kind::Wipe,
                Kind::Wipe,
                Kind::LoseTail,
                Kind::Crash,
                Kind::Partition,
                Kind::OneWay,
                Kind::Loss,
            ]),
        }
    }

    /// Of a hundred things that a client does, so many are lists, and so many lists or reads.
    pub(super) fn lists_and_reads(self) -> (u32, u32) {
        match self {
            Self::Readers => (25, 75),
            Self::Late => (2, 10),
            _ => (8, 35),
        }
    }

    /// How often of a hundred times a client is at the first row, whatever it does.
    pub(super) fn at_first_row(self) -> u32 {
        match self {
            Self::Late => 90,
            Self::Readers => 70,
            _ => 40,
        }
    }

    /// How often of a hundred times a change that is given up is tried again much later.
    pub(super) fn tries_late(self) -> u32 {
        match self {
            Self::Late => 80,
            _ => 10,
        }
    }
}
