//! Who seems to be alive, by rumour: SWIM (Das, Gupta and Motivala, 2002) with suspicion, over the datagrams of
//! the links.
//!
//! **Invariant.** It steers where requests are sent and nothing else: a lie about a member costs routing, never a
//! decision. The thinking is in [`rumour`], which takes time and datagrams as arguments.

#[cfg(any(test, feature = "__internals"))]
pub(super) mod many;
mod rumour;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::rumour::Rumours;
use super::links::{Host, Links, News};
use crate::identity::MemberId;
use crate::wire::ring::{Life, RingMember};

/// The membership of one life. Dropping it ends its task.
#[derive(Debug)]
pub(crate) struct Membership {
    members: watch::Sender<BTreeSet<MemberId>>,
    dead: watch::Receiver<BTreeSet<MemberId>>,
    _task: AbortOnDropHandle<()>,
}

impl Membership {
    /// Gossips over `links` as `me`. Call again (a new one) when this member takes another id or life.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn start<H: Host>(links: &Links<H>, me: Life) -> Self {
        let (members, listed) = watch::channel(BTreeSet::new());
        let (thought, dead) = watch::channel(BTreeSet::new());
        let driver = Driver {
            links: links.clone(),
            rumours: Rumours::new(me, StdRng::from_seed(rand::random())),
            news: links.news(),
            listed,
            thought,
        };
        let _task = AbortOnDropHandle::new(tokio::spawn(driver.run()));
        Self {
            members,
            dead,
            _task,
        }
    }

    /// Whom to think about; others are forgotten.
    pub(crate) fn set_members(&self, members: &[RingMember]) {
        let members = members.iter().map(|member| member.id).collect();
        self.members.send_replace(members);
    }

    /// Whether the member is thought to be alive; also who was not heard of yet is.
    pub(crate) fn alive(&self, member: MemberId) -> bool {
        !self.dead.borrow().contains(&member)
    }

    /// Wakes whenever somebody is thought dead, or alive again: the members thought dead.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeSet<MemberId>> {
        self.dead.clone()
    }
}

/// Gives the rumours the time and the datagrams, and sends what they want sent.
struct Driver<H> {
    links: Links<H>,
    rumours: Rumours,
    news: mpsc::Receiver<News>,
    listed: watch::Receiver<BTreeSet<MemberId>>,
    thought: watch::Sender<BTreeSet<MemberId>>,
}

impl<H: Host> Driver<H> {
    async fn run(mut self) {
        loop {
            while let Some((to, datagram)) = self.rumours.poll_send() {
                self.links.datagram(to, datagram);
            }
            self.tell();
            let alarm = self.rumours.poll_timeout().map(Instant::from_std);
            tokio::select! {
                news = self.news.recv() => match news {
                    Some(News::Met(life)) => self.rumours.meet(now(), life),
                    Some(News::Datagram { from, bytes }) => {
                        if let Err(garbage) = self.rumours.receive(now(), from, &bytes) {
                            let ignored = self.rumours.garbage();
                            tracing::debug!(member = %from, %garbage, ignored, "ignoring a datagram");
                        }
                    }
                    // Another has taken its place.
                    None => return,
                },
                changed = self.listed.changed() => match changed {
                    Ok(()) => {
                        let members = self.listed.borrow_and_update().clone();
                        self.rumours.set_members(now(), members);
                    }
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {
                    self.rumours.handle_timeout(now());
                }
            }
        }
    }

    fn tell(&self) {
        let dead = self.rumours.dead();
        self.thought.send_if_modified(|before| {
            if before == dead {
                return false;
            }
            for member in dead.difference(before) {
                tracing::info!(%member, "a member is thought dead");
            }
            for member in before.difference(dead) {
                tracing::info!(%member, "a member is thought alive again");
            }
            before.clone_from(dead);
            true
        });
    }
}

/// The monotonic clock of tokio, which tests can pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
