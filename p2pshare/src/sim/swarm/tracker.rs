//! What the tracker knows of a swarm: what each peer announced last, until its lease ends. Whom it names to whoever asks,
//! and what it says of the rest, is for the product's own code to say.

use rand::rngs::SmallRng;

use crate::content::Bitfield;
use crate::identity::PeerId;
use crate::limits::{CROWD_KEPT, HOLDERS_SAMPLE_MAX};
use crate::tracker::SwarmCrowd;
use crate::wire::tracker::{Holder, Holding};

pub(super) struct Tracker {
    chunks: u32,
    /// By peer.
    leases: Vec<Option<Lease>>,
    /// What was found when somebody asked last, when, and of how many.
    crowd: Option<(f64, usize, SwarmCrowd)>,
}

struct Lease {
    holding: Holding,
    until: f64,
}

/// What somebody who asks is told.
pub(super) struct Told {
    /// Some others, and what they hold; `None` is everything.
    pub(super) holders: Vec<Known>,
    /// How many hold a part with each chunk, if anybody does.
    pub(super) counts: Vec<u16>,
}

/// A peer, and what it announced; `None` is everything.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) peer: usize,
    pub(super) had: Option<Bitfield>,
}

impl Tracker {
    pub(super) fn new(chunks: u32) -> Self {
        Self {
            chunks,
            leases: Vec::new(),
            crowd: None,
        }
    }

    /// A peer announces what it has; `None` is everything.
    pub(super) fn hear(&mut self, peer: usize, had: Option<&Bitfield>, until: f64) {
        if self.leases.len() <= peer {
            self.leases.resize_with(peer + 1, || None);
        }
        let holding = match had {
            Some(had) => Holding::Partial(had.to_bytes()),
            None => Holding::Complete,
        };
        self.leases[peer] = Some(Lease { holding, until });
    }

    /// `asking` asks for others.
    pub(super) fn tell(&mut self, rng: &mut SmallRng, asking: usize, now: f64) -> Told {
        let kept = self.crowd.take().filter(|(when, count, _)| {
            *count > HOLDERS_SAMPLE_MAX && now - when < CROWD_KEPT.as_secs_f64()
        });
        let (when, count, crowd) = kept.unwrap_or_else(|| self.look(now));
        let sample = crowd.sample(id(asking), rng).into_iter();
        let known = |holder: Holder| Known {
            peer: peer(holder.peer),
            had: match holder.holding {
                Holding::Partial(bits) => Bitfield::from_bytes(self.chunks, &bits).ok(),
                Holding::Complete | Holding::Nothing => None,
            },
        };
        let told = Told {
            holders: sample.map(known).collect(),
            counts: (crowd.availability().parts.iter().map(|&n| n.into())).collect(),
        };
        self.crowd = Some((when, count, crowd));
        told
    }

    fn look(&self, now: f64) -> (f64, usize, SwarmCrowd) {
        let holders = self.leases.iter().enumerate();
        let holders = holders.filter_map(|(peer, lease)| {
            let lease = lease.as_ref().filter(|lease| lease.until > now)?;
            Some(Holder {
                peer: id(peer),
                addrs: Vec::new(),
                holding: lease.holding.clone(),
            })
        });
        let holders: Vec<Holder> = holders.collect();
        let count = holders.len();
        (now, count, SwarmCrowd::new(holders, self.chunks))
    }
}

fn id(peer: usize) -> PeerId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(peer as u64).to_be_bytes());
    PeerId::from_bytes(id)
}

fn peer(id: PeerId) -> usize {
    let mut peer = [0; 8];
    peer.copy_from_slice(&id.as_bytes()[..8]);
    u64::from_be_bytes(peer) as usize
}
