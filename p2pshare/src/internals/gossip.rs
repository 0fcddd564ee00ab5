//! What gossip costs each of many members, in virtual time.

use std::time::{Duration, Instant};

use crate::dht::parts::Gossips;

/// What a member sends and thinks, and when all know of a death.
#[derive(Copy, Clone, Debug)]
pub struct GossipCost {
    /// Bytes that a member sends in a second, without those of QUIC.
    pub bytes: f64,
    /// Datagrams that a member sends in a second.
    pub datagrams: f64,
    /// The share of one core that a member takes, with what it takes to simulate the network.
    pub cpu: f64,
    /// How long it was until all knew that one is dead.
    pub death: Duration,
}

/// Lets so many members gossip for `time` while nothing happens, then one dies.
///
/// # Panics
///
/// If anybody is thought dead before, or the death is not known to all within a minute.
pub fn gossip_of(members: usize, time: Duration) -> GossipCost {
    let mut world = Gossips::new(members, 1);
    // All have met, and the news of that dies down.
    world.pass(Duration::from_secs(20));
    let (bytes, sent, began) = (world.bytes, world.sent, Instant::now());
    world.pass(time);
    let each = time.as_secs_f64() * members as f64;
    let cpu = began.elapsed().as_secs_f64() / each;
    assert!(world.nobody_is_thought_dead());
    let (bytes, sent) = (world.bytes - bytes, world.sent - sent);
    world.nodes[0].running = false;
    let death = world.until(Duration::from_secs(60), |world| world.all_think_dead(0));
    GossipCost {
        bytes: bytes as f64 / each,
        datagrams: sent as f64 / each,
        cpu,
        death,
    }
}
