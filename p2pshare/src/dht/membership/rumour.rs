//! What one member thinks of the others, without a network and without a clock: `foca` with its timers and what
//! it sends kept until somebody asks for them.
//!
//! **Invariants.** A datagram is a version byte and what foca says, and has 1,100 bytes at most. Nothing is taken
//! from one that does not name its sender, or that speaks of anybody but members; it is counted and changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foca::{
    Config, Foca, Header, Identity, Member, NoCustomBroadcast, Notification, PeriodicParams,
    PostcardCodec, Runtime, Timer,
};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::identity::MemberId;
use crate::limits::{FOUNDERS_MAX, GOSSIP_BYTES_MAX, GOSSIP_TO_DEAD};
use crate::wire::ring::Life;

/// The rumours that one member hears and passes on in one life.
pub(crate) struct Rumours {
    foca: Foca<Who, PostcardCodec, StdRng, NoCustomBroadcast>,
    me: Life,
    members: BTreeSet<MemberId>,
    /// Lives that said hello before they were known to be members'.
    met: BTreeMap<MemberId, Life>,
    outbox: Outbox,
    garbage: u64,
}

/// Why nothing was taken from a datagram.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Garbage {
    /// It is longer than any can be.
    #[error("a datagram of {bytes} bytes, where {GOSSIP_BYTES_MAX} are the most")]
    TooLong { bytes: usize },
    /// It is of a version that this one does not speak, or empty.
    #[error("a datagram of another version")]
    OtherVersion,
    /// It cannot be read.
    #[error("a malformed datagram")]
    Malformed,
    /// It names another sender than the member whose connection it came on.
    #[error("a datagram that names another sender")]
    OtherSender,
    /// It speaks of somebody who is no member.
    #[error("a datagram about somebody who is no member")]
    Stranger,
}

/// A member as rumour has it. Of two of one member, the later counts.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Who {
    member: MemberId,
    incarnation: u64,
    /// How often it was thought dead in that life and spoke up again.
    returns: u32,
}

impl Who {
    fn of(life: Life) -> Self {
        Self {
            member: life.member,
            incarnation: life.incarnation,
            returns: 0,
        }
    }
}

impl Identity for Who {
    type Addr = MemberId;

    fn renew(&self) -> Option<Self> {
        let returns = self.returns.checked_add(1)?;
        Some(Self { returns, ..*self })
    }

    fn addr(&self) -> MemberId {
        self.member
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.incarnation, self.returns) > (other.incarnation, other.returns)
    }
}

impl Rumours {
    /// Those of a member that knows of no others yet.
    pub(crate) fn new(me: Life, dice: StdRng) -> Self {
        Self {
            foca: Foca::new(Who::of(me), config(1), dice, PostcardCodec),
            me,
            members: BTreeSet::new(),
            met: BTreeMap::new(),
            outbox: Outbox::default(),
            garbage: 0,
        }
    }

    /// Thinks of these members from now on.
    pub(crate) fn set_members(&mut self, now: Instant, members: BTreeSet<MemberId>) {
        self.outbox.now = Some(now);
        self.outbox.dead.retain(|member| members.contains(member));
        // It fails only where a period changes, and those are the same for any number.
        complain(self.foca.set_config(config(members.len())));
        self.members = members;
        for life in std::mem::take(&mut self.met).into_values() {
            self.meet(now, life);
        }
    }

    /// Hears that a member lives, from itself, on a connection.
    pub(crate) fn meet(&mut self, now: Instant, life: Life) {
        if life.member == self.me.member {
            return;
        }
        if !self.is_member(life.member) {
            if self.met.len() < FOUNDERS_MAX {
                self.met.insert(life.member, life);
            }
            return;
        }
        self.outbox.now = Some(now);
        let who = Who::of(life);
        let alive = std::iter::once(Member::alive(who));
        complain(self.foca.apply_many(alive, true, &mut self.outbox));
        // If either thinks the other dead, this is how that comes out.
        complain(self.foca.announce(who, &mut self.outbox));
    }

    /// Hears a datagram that came on a connection of `from`.
    ///
    /// # Errors
    ///
    /// If nothing was taken from it.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: MemberId,
        datagram: &[u8],
    ) -> Result<(), Garbage> {
        let checked = self.check(from, datagram);
        let said = checked.inspect_err(|_| self.garbage = self.garbage.saturating_add(1))?;
        self.outbox.now = Some(now);
        complain(self.foca.handle_data(said, &mut self.outbox));
        Ok(())
    }

    /// Lets time pass. Safe to call early, or twice.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.outbox.now = Some(now);
        while let Some(timer) = self.outbox.take_due(now) {
            complain(self.foca.handle_timer(timer, &mut self.outbox));
        }
    }

    /// When to call [`Rumours::handle_timeout`] next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ((due, _), _) = self.outbox.timers.first_key_value()?;
        Some(*due)
    }

    /// The next datagram to be sent, and to whom.
    pub(crate) fn poll_send(&mut self) -> Option<(MemberId, Bytes)> {
        self.outbox.datagrams.pop_front()
    }

    /// The members that are thought dead.
    pub(crate) fn dead(&self) -> &BTreeSet<MemberId> {
        &self.outbox.dead
    }

    /// Datagrams so far from which nothing was taken.
    pub(crate) fn garbage(&self) -> u64 {
        self.garbage
    }

    fn is_member(&self, member: MemberId) -> bool {
        self.members.contains(&member)
    }

    /// What foca says in a datagram, if all of it is sound.
    fn check<'a>(&self, from: MemberId, datagram: &'a [u8]) -> Result<&'a [u8], Garbage> {
        let bytes = datagram.len();
        if bytes > GOSSIP_BYTES_MAX {
            return Err(Garbage::TooLong { bytes });
        }
        let Some((&GOSSIP_VERSION, said)) = datagram.split_first() else {
            return Err(Garbage::OtherVersion);
        };
        let malformed = |_| Garbage::Malformed;
        let (header, mut rest) =
            postcard::take_from_bytes::<Header<Who>>(said).map_err(malformed)?;
        if header.src.member != from || from == self.me.member {
            return Err(Garbage::OtherSender);
        }
        if !self.is_member(from) {
            return Err(Garbage::Stranger);
        }
        if rest.is_empty() {
            return Ok(said);
        }
        let (count, members) = rest.split_first_chunk().ok_or(Garbage::Malformed)?;
        rest = members;
        for _ in 0..u16::from_be_bytes(*count) {
            let (member, behind) =
                postcard::take_from_bytes::<Member<Who>>(rest).map_err(malformed)?;
            if !self.is_member(member.id().member) {
                return Err(Garbage::Stranger);
            }
            rest = behind;
        }
        match rest {
            [] => Ok(said),
            _ => Err(Garbage::Malformed),
        }
    }
}

impl std::fmt::Debug for Rumours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rumours")
            .field("me", &self.me)
            .field("dead", &self.outbox.dead)
            .field("garbage", &self.garbage)
            .finish_non_exhaustive()
    }
}

/// What foca wants done.
#[derive(Debug, Default)]
struct Outbox {
    /// The time of the call under way.
    now: Option<Instant>,
    /// By when they are due, and of those in the order in which they were set.
    timers: BTreeMap<(Instant, u64), Timer<Who>>,
    set: u64,
    datagrams: VecDeque<(MemberId, Bytes)>,
    dead: BTreeSet<MemberId>,
}

impl Outbox {
    fn take_due(&mut self, now: Instant) -> Option<Timer<Who>> {
        let first = self.timers.first_entry()?;
        let (due, _) = *first.key();
        (due <= now).then(|| first.remove())
    }
}

impl Runtime<Who> for &mut Outbox {
    fn notify(&mut self, notification: Notification<'_, Who>) {
        match notification {
            Notification::MemberUp(who) => {
                self.dead.remove(&who.member);
            }
            Notification::MemberDown(who) => {
                self.dead.insert(who.member);
            }
            Notification::Rename(..)
            | Notification::Active
            | Notification::Idle
            | Notification::Defunct
            | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Who, said: &[u8]) {
        if self.datagrams.len() >= DATAGRAMS_WAITING_MAX {
            self.datagrams.pop_front();
        }
        let datagram = [&[GOSSIP_VERSION], said].concat();
        self.datagrams.push_back((to.member, datagram.into()));
    }

    fn submit_after(&mut self, timer: Timer<Who>, after: Duration) {
        let Some(now) = self.now else { return };
        self.set += 1;
        self.timers.insert((now + after, self.set), timer);
    }
}

/// The timings of a local network, which a ring of a few keeps over any; a death is known to all of three members
/// within 8 s.
fn config(members: usize) -> Config {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    let mut config = Config::new_lan(NonZeroU32::new(members).unwrap_or(NonZeroU32::MIN));
    if let Some(bytes) = NonZeroUsize::new(GOSSIP_BYTES_MAX - 1) {
        config.max_packet_size = bytes;
    }
    // Who was cut off is missed as soon as it can be reached again.
    config.periodic_announce_to_down_members = Some(PeriodicParams {
        frequency: GOSSIP_TO_DEAD,
        num_members: NonZeroUsize::MIN,
    });
    config
}

/// After a long sleep foca finds steps of its own left out; it goes on from where it is.
fn complain(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "gossip went wrong");
    }
}

/// The first byte of each datagram.
const GOSSIP_VERSION: u8 = 1;

/// Datagrams that wait to be sent; they are taken after each call.
const DATAGRAMS_WAITING_MAX: usize = 4 * FOUNDERS_MAX;
