//! How a ring is, as one of its trackers sees it: for operators and users to look at, never to decide by.

use serde::{Deserialize, Serialize};

use crate::identity::{MemberId, TrackerAddr};

/// How a ring is, as one of its trackers sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RingStatus {
    /// How many trackers are in the ring, or are to found it.
    pub trackers: u32,
    /// How many of them, this one counted, can be reached.
    pub reachable: u32,
    /// Which list of members counts; it rises with each change of who is in the ring. 0 before there is one.
    pub epoch: u64,
    /// Whether there is a ring yet.
    pub founded: bool,
    /// Before there is one: the founders that have not answered.
    pub waiting_for: Vec<TrackerAddr>,
    /// Who is in the ring.
    pub members: Vec<MemberStatus>,
    /// How many rows this tracker has.
    pub rows: u64,
    /// How many of its rows are known to differ from those of another tracker, and not repaired yet.
    pub behind: u64,
    /// Whether this tracker has a say. It has none before there is a ring, and none while it learns again what
    /// it may have forgotten.
    pub votes: bool,
}

/// One tracker of a ring, as another one sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Who it is, for ever.
    pub id: MemberId,
    /// Where peers reach it, as far as that is known.
    pub addr: Option<TrackerAddr>,
    /// Whether it can be reached.
    pub alive: bool,
    /// Whether it is the one that says all this.
    pub is_self: bool,
    /// What is at its address is not taken for it, or refuses the one that says this: why.
    pub refused: Option<String>,
}
