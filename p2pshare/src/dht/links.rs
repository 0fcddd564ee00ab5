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

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::dial::{Dialer, Place};
use self::lane::{Lanes, Way, Wire};
use super::machine::Input;
use crate::identity::{MemberId, RingId, TrackerAddr};
use crate::limits::{FOUNDERS_MAX, RING_CONNECTIONS_MAX, RING_NEWS_MAX};
use crate::transport::close::ConnectionLost;
use crate::transport::{
    Bodies, CloseCode, Connection, Crowd, Endpoint, ReceiveError, RequestError,
};
use crate::wire::ring::{Clocks, Hello, Life, ReplicaAnswer, ReplicaRequest, RingMember, Welcome};

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
    /// comes up, before [`Host::link_changed`]. With a list it is the member that is expected there; it may be
    /// refused as a life of it that is over, or that has forgotten something.
    fn welcomed(
        &self,
        addr: TrackerAddr,
        welcome: Welcome,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The connection broke over which the tracker dialed at `addr` was [welcomed](Host::welcomed) last.
    fn parted(&self, addr: &TrackerAddr);

    /// Another member has refused what this life said of itself, over a connection that either of them dialed.
    fn refused(&self, life: Life, why: Refusal) -> impl Future<Output = ()> + Send;

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

    /// What this member knows of the time, and how many commits its disk has.
    fn clocks_and_commits(&self) -> (Clocks, u64);

    /// What the clock of another member showed and how many commits its disk had, at some time within the round
    /// trip that just ended.
    fn heard(&self, from: MemberId, clocks: Clocks, round_trip: Duration, commits: u64);
}

/// Why a hello is answered by the end of the connection, beside what the links check themselves.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A later life of the member has spoken.
    #[error("a later life of this member has spoken")]
    Outlived,
    /// It votes, and its disk has less than its earlier lives told of.
    #[error("this member has told of more than its disk has")]
    Forgotten,
    /// It is a member of another ring, though that has the same key.
    #[error("another ring was founded with this ring.key, and this member is of that one")]
    OtherFounding,
    /// The fault is here: the store has failed, or the process ends.
    #[error("this member cannot answer")]
    Unavailable,
}

/// The links. Clones are the same; when the last is dropped nothing is dialed, asked or answered any more.
pub(crate) struct Links<H> {
    shared: Arc<Shared<H>>,
    /// Ends the tasks, which hold `shared` too.
    alive: Arc<DropGuard>,
}

impl<H> Clone for Links<H> {
    fn clone(&self) -> Self {
        let (shared, alive) = (self.shared.clone(), self.alive.clone());
        Self { shared, alive }
    }
}

impl<H: Host> Links<H> {
    /// The links of the member `me` of `ring`, over an endpoint on its DHT port that accepts [`Alpn::Ring`]; without
    /// one it asks itself alone.
    /// Nothing happens before [`Links::start`].
    ///
    /// [`Alpn::Ring`]: crate::transport::Alpn::Ring
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn new(endpoint: Option<Endpoint>, ring: RingId, me: RingMember) -> Self {
        let stop = CancellationToken::new();
        let alive = Arc::new(stop.clone().drop_guard());
        let own = me.id;
        let shared = Arc::new(Shared {
            endpoint: Mutex::new(endpoint),
            tasks: TaskTracker::new(),
            ring,
            host: OnceLock::new(),
            bodies: Bodies::default(),
            news: Mutex::new(None),
            table: RwLock::new(Table::of(me)),
            stop,
        });
        let itself = Lanes::new(&shared, own, &Way::Itself);
        shared.change().itself = Some(itself);
        Self { shared, alive }
    }

    /// Accepts, and dials whomever it was or is told to, for `host` as long as it lives. Called once.
    pub(crate) fn start(&self, host: Weak<H>) {
        if self.shared.host.set(host).is_err() {
            return;
        }
        if let Some(endpoint) = self.shared.endpoint() {
            let crowd = Crowd::new(RING_CONNECTIONS_MAX, RING_CONNECTIONS_MAX);
            self.shared
                .spawn(serve::accept(self.shared.clone(), endpoint, crowd));
        }
        let waiting = std::mem::take(&mut self.shared.change().waiting);
        for (addr, place) in waiting {
            self.shared.dial(addr, place);
        }
    }

    /// Dials the founders at these addresses, this one left out, and keeps the links up. For as long as there is
    /// no list of members.
    pub(crate) fn set_founders(&self, founders: &[TrackerAddr]) {
        let mut table = self.shared.change();
        if table.listed {
            return;
        }
        let addrs: Vec<_> = founders.iter().map(|addr| (addr.clone(), None)).collect();
        self.shared.place(&mut table, addrs);
    }

    /// Dials these members, this one left out, keeps the links up, and answers nobody else from now on. Links
    /// that are up to the right member stay up.
    pub(crate) fn set_members(&self, members: &[RingMember]) {
        let mut table = self.shared.change();
        table.listed = true;
        let mut before = std::mem::take(&mut table.links);
        let mut places = Vec::new();
        for RingMember { id, addr } in members {
            if *id == table.me.id {
                continue;
            }
            let kept = before.remove(id).filter(|link| link.addr == *addr);
            let link = kept.unwrap_or_else(|| Link::new(&self.shared, *id, addr.clone()));
            places.push((addr.clone(), Some((*id, link.wire.clone()))));
            table.links.insert(*id, link);
        }
        self.shared.place(&mut table, places);
    }

    /// This member goes on as another: asks to itself carry that id, and all connections are closed and dialed
    /// again, so that everybody hears a new hello.
    pub(crate) fn become_member(&self, id: MemberId) {
        let lanes = Lanes::new(&self.shared, id, &Way::Itself);
        let mut table = self.shared.change();
        table.me.id = id;
        table.itself = Some(lanes);
        table.era += 1;
        let era = table.era;
        for place in table.places.values() {
            place.send_modify(|place| place.era = era);
        }
        let served = std::mem::take(&mut table.served);
        drop(table);
        for (_, connection) in served.into_values() {
            connection.close_with(CloseCode::Superseded, "this member goes on as another");
        }
    }

    /// This member has something new to say of itself: all hear a new hello, without an end of the links on which it
    /// asks.
    pub(crate) fn speak_anew(&self) {
        let mut table = self.shared.change();
        table.word += 1;
        let word = table.word;
        for place in table.places.values() {
            place.send_modify(|place| place.word = word);
        }
        // Whoever cannot be dialed dials again, and hears it in the welcome.
        let served = std::mem::take(&mut table.served);
        drop(table);
        for (_, connection) in served.into_values() {
            connection.close_with(
                CloseCode::Superseded,
                "this member has something new to say",
            );
        }
    }

    /// Asks a member, which may be this one. Never waits. Exactly one [`Input`] is sent to `reply`, unless that
    /// is full: at once where the link is down or too much waits for it already.
    pub(crate) fn ask(&self, to: MemberId, request: ReplicaRequest, reply: &mpsc::Sender<Input>) {
        let table = self.shared.table();
        let lanes = match table.links.get(&to) {
            Some(link) if link.wire.is_up() => Some(&link.lanes),
            Some(_) => None,
            None => table.itself.as_ref().filter(|_| to == table.me.id),
        };
        match lanes {
            Some(lanes) => lanes.ask(to, request, reply),
            None => lane::fail(reply, to),
        }
    }

    /// Whether there is a connection to the member. True of this one.
    #[cfg(test)]
    pub(crate) fn is_up(&self, member: MemberId) -> bool {
        let table = self.shared.table();
        let link = table.links.get(&member);
        link.map_or(member == table.me.id, |link| link.wire.is_up())
    }

    /// Sends a datagram, which may get lost; it does where there is no connection.
    pub(crate) fn datagram(&self, to: MemberId, datagram: Bytes) {
        let connection = {
            let table = self.shared.table();
            table.links.get(&to).and_then(|link| link.wire.get())
        };
        if let Some(connection) = connection
            && let Err(error) = connection.send_datagram(datagram)
        {
            tracing::debug!(member = %to, %error, "a datagram was not sent");
        }
    }

    /// What is for the membership: the datagrams of members and the lives that say hello, those included that
    /// did so before. The last who called this gets it.
    pub(crate) fn news(&self) -> mpsc::Receiver<News> {
        let (sender, receiver) = mpsc::channel(RING_NEWS_MAX);
        for (member, incarnation) in &self.shared.table().met {
            let (member, incarnation) = (*member, *incarnation);
            // There is room for all of them.
            _ = sender.try_send(News::Met(Life {
                member,
                incarnation,
            }));
        }
        *self
            .shared
            .news
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Closes everything, and tells the others that this member is shutting down. Not cancel-safe: they may not
    /// be told.
    pub(crate) async fn close(&self) {
        self.shared.stop.cancel();
        let endpoint = self.shared.take_endpoint();
        if let Some(endpoint) = endpoint {
            endpoint.close(CloseCode::ShuttingDown);
            endpoint.wait_idle().await;
        }
        // They hold the endpoint too, whose port is free once nobody does.
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl<H> fmt::Debug for Links<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("endpoint", &self.shared.endpoint)
            .finish_non_exhaustive()
    }
}

/// What the tasks of the links share.
struct Shared<H> {
    /// Until it is closed.
    endpoint: Mutex<Option<Endpoint>>,
    tasks: TaskTracker,
    ring: RingId,
    host: OnceLock<Weak<H>>,
    bodies: Bodies,
    news: Mutex<Option<mpsc::Sender<News>>>,
    table: RwLock<Table>,
    stop: CancellationToken,
}

/// Who is where.
struct Table {
    me: RingMember,
    /// Counts as whom this member has spoken.
    era: u64,
    /// Counts the hellos that it has had to say anew, as the same.
    word: u64,
    /// Whether there is a list of members.
    listed: bool,
    links: HashMap<MemberId, Link>,
    itself: Option<Lanes>,
    places: BTreeMap<TrackerAddr, watch::Sender<Place>>,
    /// What is to be dialed once there is a host.
    waiting: Vec<(TrackerAddr, watch::Receiver<Place>)>,
    /// The connections that members dialed, with the incarnation that said hello.
    served: HashMap<MemberId, (u64, Connection)>,
    /// The last incarnation of each that said hello or welcome.
    met: BTreeMap<MemberId, u64>,
}

/// An address that is to be dialed, and the member that belongs there, once that is known.
type Wanted = (TrackerAddr, Option<(MemberId, Arc<Wire>)>);

/// The link to another member.
struct Link {
    addr: TrackerAddr,
    wire: Arc<Wire>,
    lanes: Lanes,
}

impl Link {
    fn new<H: Host>(shared: &Arc<Shared<H>>, member: MemberId, addr: TrackerAddr) -> Self {
        let wire = Arc::new(Wire::default());
        let lanes = Lanes::new(shared, member, &Way::Over(wire.clone()));
        Self { addr, wire, lanes }
    }
}

impl Table {
    fn of(me: RingMember) -> Self {
        Self {
            me,
            era: 0,
            word: 0,
            listed: false,
            links: HashMap::new(),
            itself: None,
            places: BTreeMap::new(),
            waiting: Vec::new(),
            served: HashMap::new(),
            met: BTreeMap::new(),
        }
    }
}

impl<H: Host> Shared<H> {
    /// The member, as long as it lives.
    fn host(&self) -> Option<Arc<H>> {
        self.host.get()?.upgrade()
    }

    fn link_changed(&self, member: MemberId, up: bool) {
        if let Some(host) = self.host() {
            host.link_changed(member, up);
        }
    }

    /// Runs `task` until it or the links end.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(stop.run_until_cancelled_owned(task));
    }

    /// The endpoint, until it is closed.
    fn endpoint(&self) -> Option<Endpoint> {
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        endpoint.clone()
    }

    fn take_endpoint(&self) -> Option<Endpoint> {
        let mut endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        endpoint.take()
    }

    /// Makes `wanted` what is dialed, apart from this member itself.
    fn place(self: &Arc<Self>, table: &mut Table, wanted: Vec<Wanted>) {
        let mut before = std::mem::take(&mut table.places);
        for (addr, member) in wanted {
            if addr == table.me.addr || table.places.contains_key(&addr) {
                continue;
            }
            let place = Place {
                member,
                era: table.era,
                word: table.word,
            };
            let sender = match before.remove(&addr) {
                Some(sender) => {
                    sender.send_replace(place);
                    sender
                }
                None => {
                    let (sender, receiver) = watch::channel(place);
                    match self.host.get() {
                        Some(_) => self.dial(addr.clone(), receiver),
                        None => table.waiting.push((addr.clone(), receiver)),
                    }
                    sender
                }
            };
            table.places.insert(addr, sender);
        }
    }

    fn dial(self: &Arc<Self>, addr: TrackerAddr, place: watch::Receiver<Place>) {
        let dialer = Dialer {
            shared: self.clone(),
            addr,
            place,
            trouble: None,
        };
        self.spawn(dialer.run());
    }

    /// Whether anything but a hello is taken from `member`.
    fn admits(&self, member: MemberId) -> bool {
        let table = self.table();
        !table.listed || table.links.contains_key(&member)
    }

    /// Puts the connection of a life in the place of an earlier one of the member; false if that was of a later
    /// life.
    fn enter(&self, life: Life, connection: &Connection) -> bool {
        let Life {
            member,
            incarnation,
        } = life;
        let mut table = self.change();
        let later = |(before, _): &(u64, Connection)| *before > incarnation;
        if table.served.get(&member).is_some_and(later) {
            return false;
        }
        let before = table
            .served
            .insert(member, (incarnation, connection.clone()));
        drop(table);
        if let Some((_, before)) = before {
            before.close_with(CloseCode::Superseded, "a newer connection takes its place");
        }
        true
    }

    /// Forgets a connection of `enter`.
    fn leave(&self, member: MemberId, connection: &Connection) {
        let mut table = self.change();
        let served = table.served.get(&member);
        if served.is_some_and(|(_, served)| served.is_same(connection)) {
            table.served.remove(&member);
        }
    }

    /// Remembers who was met, tells the membership, and gives up the connection to an earlier life of it.
    fn meet(&self, life: Life) {
        let mut table = self.change();
        if let Some(link) = table.links.get(&life.member) {
            link.wire.outlive(life.incarnation);
        }
        let known = table.met.get(&life.member).copied();
        let counts = match table.listed {
            true => table.me.id == life.member || table.links.contains_key(&life.member),
            false => known.is_some() || table.met.len() < FOUNDERS_MAX,
        };
        if counts {
            let latest = known.unwrap_or(0).max(life.incarnation);
            table.met.insert(life.member, latest);
        }
        drop(table);
        self.tell(News::Met(life));
    }

    /// Tells the membership, unless it has too much to hear already.
    fn tell(&self, news: News) {
        let sender = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref() {
            // What is lost here is said again.
            _ = sender.try_send(news);
        }
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
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
    Unreachable {
        /// In words.
        reason: String,
    },
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
    /// It is an earlier life of the member than one that has spoken since: there are two that run as it, or its
    /// disk was put back.
    #[error("the tracker there is an earlier life of one that runs elsewhere too")]
    Earlier,
    /// It closed the connection and said why.
    #[error("the tracker there refuses this one: {reason}")]
    Refused { reason: String },
}

impl Trouble {
    fn unreachable(reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self::Unreachable { reason }
    }
}

/// What the end of a hello means.
impl From<RequestError> for Trouble {
    fn from(error: RequestError) -> Self {
        let lost = match &error {
            RequestError::NotSent(lost) | RequestError::Unanswered(ReceiveError::Lost(lost)) => {
                lost
            }
            _ => return Self::unreachable(error),
        };
        match (lost.code(), lost) {
            (Some(CloseCode::WrongRing), _) => Self::OtherRing,
            (_, ConnectionLost::ClosedByPeer { .. }) => Self::Refused {
                reason: lost.to_string(),
            },
            _ => Self::unreachable(lost),
        }
    }
}
