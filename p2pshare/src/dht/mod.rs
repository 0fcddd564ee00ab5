//! The ring: a small replicated store of rows and leases, of which [`DhtNode`] is one member.
//!
//! **Rows** are durable and agreed: each, at a partition key and a sort key, is a register of its own
//! under per-key Paxos, so that a row is created once and changed by compare-and-set, and a change that
//! is asked for twice is made once. **Leases** are in memory and expire: each peer writes its own.
//!
//! The thinking is pure ([`placement`], [`quorum`], [`register`], [`coordinator`], [`lease`], [`row_key`]):
//! it takes time, randomness and messages as arguments. [`founding`], [`replica`] and [`member`] move the
//! bytes.

mod builder;
mod clock;
mod coordinator;
mod damage;
mod founding;
mod hash_tree;
mod host;
mod lease;
mod life;
mod links;
mod machine;
mod meetings;
mod member;
mod membership;
mod node;
mod paging;
mod placement;
mod planted;
mod ports;
mod promises;
mod quorum;
mod register;
mod rejoin;
mod repair;
mod replica;
mod row;
mod row_key;
mod seat;
mod secrets;
#[cfg(any(test, feature = "__internals"))]
mod small_ring;
mod startup;
mod task;
mod upkeep;

pub(crate) use builder::Started;
pub use builder::{DhtBindError, DhtNodeBuilder};
pub(crate) use host::Authority;
pub use lease::session::LeaseSession;
pub use lease::{Lease, LeaseError, LeasesPut};
pub use node::DhtNode;
pub use register::Attempt;
pub use row::{Listing, Row, RowChange, RowError, ScanCursor, ScanPage};

pub use crate::wire::ring::{KeyError, LeaseKey, LeaseNews, RequestKey, RowKey, Version};

/// A ring on a network in memory.
#[cfg(test)]
pub(crate) use node::ring_tests::world as test_ring;

/// What the measurements and the fuzz targets run.
#[cfg(feature = "__internals")]
pub(crate) mod parts {
    pub(crate) use crate::dht::coordinator::Coordinator;
    pub(crate) use crate::dht::lease::exchange::LeaseExchange;
    pub(crate) use crate::dht::lease::session::LeaseSession;
    pub(crate) use crate::dht::lease::table::LeaseTable;
    pub(crate) use crate::dht::machine::{Action, Input, Machine};
    pub(crate) use crate::dht::membership::Rumours;
    pub(crate) use crate::dht::membership::many::World as Gossips;
    pub(crate) use crate::dht::placement::{slice_of_lease, slice_of_row};
    pub(crate) use crate::dht::repair::{End, Exchange};
    pub(crate) use crate::dht::row_key::decode as decode_row_key;
    pub(crate) use crate::dht::small_ring::{SmallRing, ballot, faithful, id, key, state};
    pub(crate) use crate::dht::task::{Intent, Proposer, Rounds, Task};
}

/// What the simulator runs and looks at.
#[cfg(any(test, feature = "__sim"))]
pub(crate) mod sim {
    pub(crate) use crate::dht::clock::RingTime;
    pub(crate) use crate::dht::coordinator::Coordinator;
    pub(crate) use crate::dht::founding::{
        Beginning, Identity, Remembered, Step, begin, remember, remember_others, remembered,
        set_ahead, set_life, set_record, set_returning, set_voting,
    };
    pub(crate) use crate::dht::hash_tree::{HashTree, hash, leaf_of};
    pub(crate) use crate::dht::lease::exchange::LeaseExchange;
    pub(crate) use crate::dht::lease::session::LeaseSession;
    pub(crate) use crate::dht::lease::table::LeaseTable;
    pub(crate) use crate::dht::lease::write::LeaseWrite;
    pub(crate) use crate::dht::machine::{Action, Input, Machine};
    pub(crate) use crate::dht::paging::{Page, Paging};
    pub(crate) use crate::dht::placement::{Placement, slice_of, slice_of_row};
    pub(crate) use crate::dht::planted::{Fault, plant, planted};
    pub(crate) use crate::dht::quorum::majority;
    pub(crate) use crate::dht::register::{Attempt, Change, Register};
    pub(crate) use crate::dht::rejoin::{Return, Returned};
    pub(crate) use crate::dht::repair::{Exchange, Exchanged};
    pub(crate) use crate::dht::replica::{Replica, encode, register};
    #[cfg(test)]
    pub(crate) use crate::dht::small_ring::Node;
    pub(crate) use crate::dht::task::{Failure, Intent, Outcome, Proposer, Task};
}
