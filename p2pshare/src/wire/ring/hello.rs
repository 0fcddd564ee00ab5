//! How two members of a ring meet: each proves that it holds the ring's key and says what it knows.
//!
//! The first request on every connection of the ring is a [`Hello`], answered by a [`Welcome`]; nothing else is
//! said before it.

use serde::{Deserialize, Serialize};

use super::Epoch;
use crate::identity::token::{Signed, TrackerCertificate};
use crate::identity::{MemberId, TrackerAddr};
use crate::limits::FOUNDERS_MAX;
use crate::time::Timestamp;
use crate::wire::frame::Message;

/// One life of a member: the incarnation rises with each.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) member: MemberId,
    pub(crate) incarnation: u64,
}

/// A member and where it is.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub(crate) struct RingMember {
    pub(crate) id: MemberId,
    pub(crate) addr: TrackerAddr,
}

/// Who is in the ring, sorted by id, each once.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RingRecordForm")]
pub(crate) struct RingRecord {
    pub(crate) epoch: Epoch,
    members: Vec<RingMember>,
}

impl RingRecord {
    /// The record of these members, unless there are none, too many, or one twice.
    pub(crate) fn new(epoch: Epoch, mut members: Vec<RingMember>) -> Option<Self> {
        members.sort();
        let twice = members.iter().enumerate().any(|(i, one)| {
            members[..i]
                .iter()
                .any(|other| other.id == one.id || other.addr == one.addr)
        });
        let fits = (1..=FOUNDERS_MAX).contains(&members.len());
        (fits && !twice).then_some(Self { epoch, members })
    }

    /// The members, by id.
    pub(crate) fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// Whether this and the other record cannot be of one ring: the same list has other members.
    pub(crate) fn contradicts(&self, other: &Self) -> bool {
        self.epoch.list == other.epoch.list && self.members != other.members
    }

    /// The member with this id.
    pub(crate) fn member(&self, id: MemberId) -> Option<&RingMember> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member at this address.
    pub(crate) fn member_at(&self, addr: &TrackerAddr) -> Option<&RingMember> {
        self.members.iter().find(|member| member.addr == *addr)
    }
}

#[derive(Deserialize)]
struct RingRecordForm {
    epoch: Epoch,
    members: Vec<RingMember>,
}

impl TryFrom<RingRecordForm> for RingRecord {
    type Error = &'static str;

    fn try_from(form: RingRecordForm) -> Result<Self, Self::Error> {
        let sorted = form.members.is_sorted();
        Self::new(form.epoch, form.members)
            .filter(|_| sorted)
            .ok_or("a list of members that is none")
    }
}

/// What a member knows of its ring.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Nothing: it waits for the ring to be founded, or has lost everything.
    Empty,
    /// Who is in it.
    Founded {
        /// The members, and the highest epoch that it has seen of their list.
        record: RingRecord,
        /// Whether it takes part in decisions. Not while it catches up with what it may have forgotten.
        votes: bool,
    },
}

/// What a member says about itself first.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// By whose authority it speaks: it names the ring, the member and the key of the connection.
    pub(crate) certificate: Signed<TrackerCertificate>,
    /// Which of its lives this is; of an empty one, the first.
    pub(crate) life: Life,
    /// Where it is, as its list has it.
    pub(crate) addr: TrackerAddr,
    /// What it knows.
    pub(crate) standing: Standing,
    /// How many commits its disk has.
    pub(crate) commits: u64,
    pub(crate) clocks: Clocks,
}

impl Hello {
    /// Whether who says it takes part in decisions.
    pub(crate) fn votes(&self) -> bool {
        matches!(self.standing, Standing::Founded { votes: true, .. })
    }
}

/// What a member knows of the time.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clocks {
    /// What its own clock says.
    pub(crate) own: Timestamp,
    /// The ring's time, once it knows that.
    pub(crate) ring: Option<Timestamp>,
}

impl Message for Hello {
    const KIND: u16 = 0x0303;
    const BODY_BYTES_MAX: usize = 64 * 1024;
}

/// The answer: the same about the one who answers, and what it remembers of the one who asked.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) hello: Hello,
    /// The last life of that member that it knew before this one, zero if none.
    pub(crate) incarnation: u64,
    /// The most commits that it heard of that member, zero if none.
    pub(crate) commits: u64,
}

impl Message for Welcome {
    const KIND: u16 = 0x0304;
    const BODY_BYTES_MAX: usize = Hello::BODY_BYTES_MAX + 32;
}
