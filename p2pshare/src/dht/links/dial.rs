//! The side of the links that dials: one task for each address, which keeps one connection to the tracker there.
//!
//! **Invariant.** A link is up exactly while its connection has answered a hello, the tracker at its end is the
//! member that belongs there, and the connection is not known to be broken; each change of that is told at once.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::greeting::check;
use super::lane::Wire;
use super::{Host, Refusal, Shared, Trouble};
use crate::identity::{MemberId, TrackerAddr};
use crate::limits::{RING_HELLO_TIMEOUT, RING_LINK_STEADY, RING_REDIAL_FIRST, RING_REDIAL_LONGEST};
use crate::transport::{Alpn, CloseCode, Connection, Expect};
use crate::wire::ring::Welcome;

/// What belongs at an address.
#[derive(Clone)]
pub(super) struct Place {
    /// The member, once there is a list, and where its connection is put.
    pub(super) member: Option<(MemberId, Arc<Wire>)>,
    /// As whom this member speaks; a change of it ends the connection.
    pub(super) era: u64,
    /// Which hello is said; where that changes, a connection on which the new one was said takes the place of the one
    /// before.
    pub(super) word: u64,
}

/// Keeps a connection to `addr` until nothing belongs there any more.
pub(super) struct Dialer<H> {
    pub(super) shared: Arc<Shared<H>>,
    pub(super) addr: TrackerAddr,
    pub(super) place: watch::Receiver<Place>,
    /// What was told last.
    pub(super) trouble: Option<Trouble>,
}

impl<H: Host> Dialer<H> {
    pub(super) async fn run(mut self) {
        let mut pause = RING_REDIAL_FIRST;
        loop {
            let began = Instant::now();
            let said = self.place.borrow_and_update().clone();
            match self.meet().await {
                Ok((connection, welcome)) => self.keep(connection, welcome, said).await,
                Err(trouble) => self.tell(Some(trouble)),
            }
            // One that was good for a while is missed at once; one that fails each time is left alone longer.
            if began.elapsed() >= RING_LINK_STEADY {
                pause = RING_REDIAL_FIRST;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (2 * pause).min(RING_REDIAL_LONGEST),
                changed = self.place.changed() => match changed {
                    Ok(()) => pause = RING_REDIAL_FIRST,
                    Err(_) => return,
                },
            }
        }
    }

    /// Dials and exchanges hellos. Also ends when nothing belongs here any more.
    async fn meet(&mut self) -> Result<(Connection, Welcome), Trouble> {
        let mut place = self.place.clone();
        let gone = async move { while place.changed().await.is_ok() {} };
        tokio::select! {
            met = self.dial() => met,
            () = gone => Err(Trouble::unreachable("it is not dialed any more")),
        }
    }

    async fn dial(&self) -> Result<(Connection, Welcome), Trouble> {
        let mut trouble = Trouble::unreachable("its name leads to no address");
        let endpoint = self.shared.endpoint();
        let endpoint = endpoint.ok_or_else(|| Trouble::unreachable("this member is alone"))?;
        for addr in resolve(&self.addr).await? {
            let dialed = endpoint.connect(addr, Alpn::Ring, Expect::Any);
            match dialed.await {
                Ok(connection) => match self.greet(&connection).await {
                    Ok(welcome) => return Ok((connection, welcome)),
                    Err(other) => trouble = other,
                },
                Err(error) => trouble = Trouble::unreachable(error),
            }
        }
        Err(trouble)
    }

    /// Says hello; what comes back is what this member may go on with.
    async fn greet(&self, connection: &Connection) -> Result<Welcome, Trouble> {
        let host = self.shared.host();
        let host = host.ok_or_else(|| Trouble::unreachable("this member ends"))?;
        let hello = host.hello();
        let me = hello.life;
        let began = Instant::now();
        let welcome: Welcome = match connection.request(&hello, RING_HELLO_TIMEOUT).await {
            Ok(welcome) => welcome,
            Err(error) => {
                let lost = connection.close_reason();
                if let Some(why) = lost.as_ref().and_then(Refusal::of) {
                    host.refused(me, why).await;
                }
                return Err(error.into());
            }
        };
        let round_trip = began.elapsed();
        let other = &welcome.hello;
        if let Err(unproved) = check(other, self.shared.ring, connection.remote_peer()) {
            connection.close_with(unproved.code(), &unproved.to_string());
            return Err(unproved.into());
        }
        let itself = self.shared.endpoint().map(|endpoint| endpoint.peer_id());
        if Some(connection.remote_peer()) == itself || other.life.member == me.member {
            connection.close(CloseCode::Done);
            return Err(Trouble::Itself);
        }
        // Its commits are noted with its life, once that is known not to be over.
        host.heard(other.life.member, other.clocks, round_trip, 0);
        Ok(welcome)
    }

    /// Keeps the connection for as long as it lives and the one at its end belongs here.
    async fn keep(&mut self, mut connection: Connection, welcome: Welcome, mut said: Place) {
        let mut found = welcome.hello.life;
        if let Err(trouble) = self.take(&connection, welcome).await {
            return self.tell(Some(trouble));
        }
        self.tell(None);
        let mut up: Option<Arc<Wire>> = None;
        let mut say_at = Instant::now();
        loop {
            let place = self.place.borrow_and_update().clone();
            if place.era != said.era {
                connection.close_with(CloseCode::Superseded, "this member goes on as another");
                break;
            }
            let unsaid = place.word != said.word;
            if unsaid && say_at <= Instant::now() {
                // Said again, if it fails.
                say_at = Instant::now() + RING_REDIAL_LONGEST;
                if let Ok((newer, welcome)) = self.meet().await {
                    let life = welcome.hello.life;
                    if life.member == found.member && self.take(&newer, welcome).await.is_ok() {
                        (said.word, say_at) = (place.word, Instant::now());
                        if let Some(wire) = &up {
                            wire.set(Some((life.incarnation, newer.clone())));
                        }
                        let older = std::mem::replace(&mut connection, newer);
                        older.close_with(
                            CloseCode::Superseded,
                            "a newer connection takes its place",
                        );
                        found = life;
                    }
                }
                continue;
            }
            if let Err(trouble) = self.belongs(found.member) {
                connection.close_with(CloseCode::NotAMember, "another member belongs here");
                self.tell(Some(trouble));
                break;
            }
            if let (None, Some((member, wire))) = (&up, &place.member)
                && connection.close_reason().is_none()
            {
                wire.set(Some((found.incarnation, connection.clone())));
                up = Some(wire.clone());
                self.shared.link_changed(*member, true);
            }
            tokio::select! {
                lost = connection.closed() => {
                    tracing::debug!(tracker = %self.addr, %lost, "a link broke");
                    break;
                }
                changed = self.place.changed() => if changed.is_err() {
                    connection.close(CloseCode::Done);
                    break;
                },
                () = tokio::time::sleep_until(say_at), if unsaid => {}
            }
        }
        if let Some(wire) = up {
            wire.set(None);
            self.shared.link_changed(found.member, false);
        }
        if let Some(host) = self.shared.host() {
            host.parted(&self.addr);
        }
    }

    /// Hears the welcome on a connection. One of somebody who does not belong here is closed.
    async fn take(&self, connection: &Connection, welcome: Welcome) -> Result<(), Trouble> {
        let found = welcome.hello.life;
        if let Err(trouble) = self.belongs(found.member) {
            connection.close_with(CloseCode::NotAMember, "another member belongs here");
            return Err(trouble);
        }
        if let Some(host) = self.shared.host()
            && let Err(refusal) = host.welcomed(self.addr.clone(), welcome).await
        {
            connection.close_with(refusal.code(), &refusal.to_string());
            return Err(match refusal {
                Refusal::Outlived => Trouble::Earlier,
                other => Trouble::unreachable(other),
            });
        }
        self.shared.meet(found);
        Ok(())
    }

    fn belongs(&self, found: MemberId) -> Result<(), Trouble> {
        match &self.place.borrow().member {
            Some((expected, _)) if *expected != found => Err(Trouble::OtherMember {
                expected: *expected,
                found,
            }),
            _ => Ok(()),
        }
    }

    /// Tells of trouble that is new, or over.
    fn tell(&mut self, trouble: Option<Trouble>) {
        if self.trouble == trouble {
            return;
        }
        match &trouble {
            Some(trouble) => tracing::info!(tracker = %self.addr, %trouble, "no link to a tracker"),
            None => tracing::info!(tracker = %self.addr, "linked to a tracker again"),
        }
        if let Some(host) = self.shared.host() {
            host.trouble(&self.addr, trouble.as_ref());
        }
        self.trouble = trouble;
    }
}

/// Where the DHT port of a tracker is.
async fn resolve(addr: &TrackerAddr) -> Result<Vec<SocketAddr>, Trouble> {
    if let Some(found) = addr.socket_addr() {
        return Ok(vec![SocketAddr::new(found.ip(), addr.dht_port())]);
    }
    let found = tokio::net::lookup_host((addr.host(), addr.dht_port()))
        .await
        .map_err(Trouble::unreachable)?;
    Ok(found.collect())
}
