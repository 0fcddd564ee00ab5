//! The connections of one member to the others, over which all that members ask each other goes.
//!
//! **Invariants.** Nothing but a hello is said to anybody who has not proved that he speaks for the ring, and
//! nothing else is taken from him. An ask is answered once, by an answer or by the news that none will come, and
//! an ask to a member whose link is broken fails at once.
//!
//! Each member dials every other one and asks over the connection that it dialed; over those that it accepted it
//! answers. What is asked of a member while earlier batches are under way goes as the next batch ([`lane`]).

mod dial;
mod greeting;
mod lane;
mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::machine::Input;
use crate::identity::{MemberId, RingId, TrackerAddr};
use crate::time::Timestamp;
use crate::transport::Endpoint;
use crate::wire::ring::{Hello, Life, ReplicaAnswer, ReplicaRequest, RingMember, Welcome};

/// What the links ask of the member whose they are. Signatures and names of certificates have been checked
/// before anything is handed over.
pub(crate) trait Host: Send + Sync + 'static {
    /// What is said first on every connection; built afresh each time.
    fn hello(&self) -> Hello;

    /// Judges the hello of somebody who dialed in from `from`, holds the ring's key and is whom he says he is,
    /// and remembers his life. He may be none of the members, or an empty one at a member's address; then he is
    /// told who is in the ring, and nothing else is taken from him once there is a list.
    fn welcome(
        &self,
        from: SocketAddr,
        hello: Hello,
    ) -> impl Future<Output = Result<Welcome, Refusal>> + Send;

    /// Hears what the tracker dialed at `addr` says about itself and this one, each time that the link to it
    /// comes up, before [`Host::link_changed`]. With a list it is the member that is expected there.
    fn welcomed(&self, addr: TrackerAddr, welcome: Welcome) -> impl Future<Output = ()> + Send;

    /// Answers a batch of a member, or of this one: one answer for each request, in their order.
    fn answer(
        &self,
        from: MemberId,
        requests: Vec<ReplicaRequest>,
    ) -> impl Future<Output = Vec<ReplicaAnswer>> + Send;

    /// The link to a member came up or broke.
    fn link_changed(&self, member: MemberId, up: bool);

    /// A dial of `addr` failed; told when what is wrong there is not what was wrong before, and with `None` once
    /// it is right.
    fn trouble(&self, addr: &TrackerAddr, trouble: Option<&Trouble>);

    /// The time on this member's own clock, and how many commits its disk has.
    fn clock_and_commits(&self) -> (Timestamp, u64);

    /// What the clock of another member showed and how many commits its disk had, at some time within the round
    /// trip that just ended.
    fn heard(&self, from: MemberId, clock: Timestamp, round_trip: Duration, commits: u64);
}

/// Why a hello is answered by the end of the connection, beside what the links check themselves.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A later life of the member has spoken.
    #[error("a later life of this member has spoken")]
    Superseded,
    /// The fault is here: the store has failed, or the process ends.
    #[error("this member cannot answer")]
    Unavailable,
}

/// The links. Clones are the same; when the last is dropped nothing is dialed, asked or answered any more.
pub(crate) struct Links<H> {
    shared: Arc<Shared<H>>,
}

impl<H: Host> Links<H> {
    /// The links of the member `me` of `ring`, over an endpoint on its DHT port that accepts `Alpn::Ring`.
    /// Nothing happens before [`Links::start`].
    pub(crate) fn new(endpoint: Endpoint, ring: RingId, me: RingMember) -> Self;

    /// Accepts, and dials whomever it was or is told to, for `host` as long as it lives. Called once.
    pub(crate) fn start(&self, host: Weak<H>);

    /// Dials the founders at these addresses, this one left out, and keeps the links up. For as long as there is
    /// no list of members.
    pub(crate) fn set_founders(&self, founders: &[TrackerAddr]);

    /// Dials these members, this one left out, keeps the links up, and answers nobody else from now on. Links
    /// that are up to the right member stay up.
    pub(crate) fn set_members(&self, members: &[RingMember]);

    /// This member goes on as another: asks to itself carry that id, and all connections are closed and dialed
    /// again, so that everybody hears a new hello.
    pub(crate) fn become_member(&self, id: MemberId);

    /// Asks a member, which may be this one. Never waits. Exactly one [`Input`] is sent to `reply`, unless that
    /// is full: at once where the link is down or too much waits for it already.
    pub(crate) fn ask(&self, to: MemberId, request: ReplicaRequest, reply: &mpsc::Sender<Input>);

    /// Whether there is a connection to the member. True of this one.
    pub(crate) fn is_up(&self, member: MemberId) -> bool;

    /// Sends a datagram, which may get lost; it does where there is no connection.
    pub(crate) fn datagram(&self, to: MemberId, datagram: Bytes);

    /// What is for the membership: the datagrams of members and the lives that said hello. The last who called
    /// this gets it.
    pub(crate) fn news(&self) -> mpsc::Receiver<News>;

    /// Closes everything, and tells the others that this member is shutting down.
    pub(crate) async fn close(&self);
}

/// What the links hear that is for the membership.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum News {
    /// A member said hello, or welcome.
    Met(Life),
    /// A member sent a datagram.
    Datagram { from: MemberId, bytes: Bytes },
}

/// Why there is no link to an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Trouble {
    /// It cannot be reached, or what is there is no tracker of this version.
    #[error("{reason}")]
    Unreachable { reason: String },
    /// A tracker is there that holds another ring's key.
    #[error("the tracker there is of another ring: its ring.key differs")]
    OtherRing,
    /// What is there shows a certificate that is not its own.
    #[error("what answers there does not prove that it is a tracker of this ring")]
    NotProved,
    /// Another member is there than the list says; an empty one, if it was wiped.
    #[error("the tracker there is {found}, where {expected} belongs")]
    OtherMember { expected: MemberId, found: MemberId },
    /// It is this tracker itself.
    #[error("the address leads back to this tracker")]
    Itself,
    /// It closed the connection and said why.
    #[error("the tracker there refuses this one: {reason}")]
    Refused { reason: String },
}
