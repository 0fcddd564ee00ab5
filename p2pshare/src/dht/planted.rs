//! Mistakes that can be planted in the ring, to see that its tests find each of them.
//!
//! Each place that could be wrong asks [`planted`], which the product answers with a constant `false`; only in
//! tests and in the simulator is there a switch, one for each thread.

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident,)*) => {
        /// A mistake.
        #[derive(Copy, Clone, Debug, Eq, PartialEq)]
        #[cfg_attr(
            not(any(test, feature = "__sim")),
            expect(dead_code, reason = "no mistake is made outside of tests")
        )]
        pub(crate) enum Fault {
            $($(#[$doc])* $fault,)*
        }

        #[cfg(any(test, feature = "__sim"))]
        impl Fault {
            /// Every mistake, with its name.
            pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$fault, stringify!($fault)),)*];
        }
    };
}

faults! {
    /// An answer goes out before what it says is on disk.
    AckBeforeSync,
    /// Whoever speaks in an epoch that is over is heard all the same.
    NoFence,
    /// Only promises look at the epoch.
    StaleEpochAccepted,
    /// The highest epoch is forgotten at a restart.
    FenceNotKept,
    /// A read of replicas that differ does not write back.
    NoWriteBack,
    /// One replica is enough for a read.
    ReadFromOne,
    /// One replica less than a majority is enough.
    QuorumTooSmall,
    /// Of the states that were accepted, any is taken for the newest.
    AnyAcceptedState,
    /// The incarnation does not rise at a restart, and a ballot is promised twice.
    BallotReused,
    /// A round is handed out twice, and promised twice.
    RoundReused,
    /// A request that made a version is not recognised.
    RequestForgotten,
    /// A retry counts as a first try.
    RetryAsFirst,
    /// A change that was proposed is called certainly not made.
    CertainAfterExposure,
    /// A replica takes what is below its promise.
    AcceptBelowPromise,
    /// A replica promises below its promise.
    PromiseBelowPromise,
    /// The ceiling of promises is not written.
    CeilingNotKept,
    /// Promises that are too many are forgotten.
    FloorNotRaised,
    /// A deletion removes the row.
    DeleteRemovesRow,
    /// The leaf of a row that changes stays as it is.
    LeafNotUpdated,
    /// A listing believes one replica where they differ.
    ListingIgnoresDisputes,
    /// Who returns does not raise the epoch.
    ReturnWithoutFence,
    /// Who returns pulls from one replica.
    PullFromOne,
    /// Who has forgotten votes at once.
    AmnesiacVotes,
    /// A founder does not wait for the others.
    FoundingAlone,
    /// A founder has a say once all others were empty, though not all have told of its list.
    StaleFoundingWord,
    /// A commit that others remember and the disk does not is not noticed.
    LostTailIgnored,
    /// Only this machine's own file tells of a lost tail, not what others remember.
    OthersMemoryIgnored,
    /// Commits of lives that never had a say make up for a tail that was lost.
    SilentLivesCount,
    /// Who dies before it has learnt again does not know of it in its next life.
    ReturnNotKept,
    /// Who returns takes what it is told, also where it has something newer.
    InstallOverwrites,
    /// An older lease replaces a newer one.
    LeaseNumbersIgnored,
    /// A lease is kept longer than it counts.
    LeaseNeverExpires,
    /// What another says of how long a lease still counts is taken as if the two had one clock, and no time had gone by
    /// since.
    LeaseClockShared,
    /// The ring's time is what a member's own clock says.
    OwnClockBelieved,
    /// The ring's time follows the clocks back.
    TimeGoesBack,
    /// What others make of the ring's time does not count.
    OthersTimeIgnored,
}

#[cfg(not(any(test, feature = "__sim")))]
#[inline(always)]
pub(crate) const fn planted(_fault: Fault) -> bool {
    false
}

/// How many of something there may be: `limit`, and in a small world only a few, so that it meets its limits.
#[cfg(not(any(test, feature = "__sim")))]
#[inline(always)]
pub(crate) const fn room_for(limit: usize) -> usize {
    limit
}

#[cfg(any(test, feature = "__sim"))]
pub(crate) use switch::{plant, planted, room_for};

#[cfg(any(test, feature = "__sim"))]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
        static SMALL: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether this mistake is made in this thread.
    pub(crate) fn planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// How many of something there may be.
    pub(crate) fn room_for(limit: usize) -> usize {
        if SMALL.get() { limit.min(FEW) } else { limit }
    }

    const FEW: usize = 3;

    /// Makes this thread a small world with a mistake, or none, until the guard is dropped.
    pub(crate) fn plant(fault: Option<Fault>) -> Planted {
        PLANTED.set(fault);
        SMALL.set(true);
        Planted
    }

    /// As long as it lives, the world is small and the mistake is made.
    #[must_use]
    pub(crate) struct Planted;

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
            SMALL.set(false);
        }
    }
}
