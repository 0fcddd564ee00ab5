//! How a member comes to have a say: it hears the others, founds or joins the ring, or learns again what it may
//! have forgotten.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::founding::{Beginning, Step};
use super::host::now;
use super::member::Member;
use super::rejoin::Return;
use crate::identity::TrackerAddr;
use crate::store::StoreError;
use crate::wire::ring::{Epoch, Life, RingRecord, Welcome};

/// What others said when they were met.
pub(super) type Welcomes = mpsc::Receiver<(TrackerAddr, Welcome)>;

/// Runs until the member votes.
pub(super) async fn begin(
    member: &Arc<Member>,
    mut beginning: Beginning,
    mut welcomes: Welcomes,
) -> Result<(), StoreError> {
    // What was said when links came up may be old by the time that the last one has spoken: whoever is about to
    // found has all say it again.
    let mut sure = beginning.others().is_empty();
    loop {
        let founds = beginning.founds();
        match beginning.step() {
            Step::Wait(addrs) => member.core.set_waiting_for(addrs),
            Step::Join(_) if founds && !sure => {
                sure = true;
                beginning.ask_again();
                member.links.become_member(member.core.life().member);
            }
            Step::Join(record) => {
                drop(welcomes);
                return join(member, record).await;
            }
            Step::Return {
                record,
                life,
                ahead,
            } => {
                drop(welcomes);
                return come_back(member, record, life, ahead).await;
            }
            Step::NotAMember(record) => {
                tracing::error!(
                    own = %member.core.own,
                    "the ring has been founded without this tracker"
                );
                let members = record.members().iter();
                member
                    .core
                    .set_waiting_for(members.map(|m| m.addr.clone()).collect());
            }
            Step::TwoRings(addrs) => {
                tracing::error!(
                    ?addrs,
                    "two rings were founded with this key; all but one have to be stopped"
                );
                member.core.set_waiting_for(addrs);
            }
        }
        match welcomes.recv().await {
            Some((addr, welcome)) => beginning.hear(addr, welcome),
            None => return Ok(()),
        }
    }
}

async fn join(member: &Arc<Member>, record: RingRecord) -> Result<(), StoreError> {
    let core = &member.core;
    let epoch = record.epoch;
    core.become_member(record.clone(), core.life(), false, core.ahead())
        .await?;
    member.links.set_members(record.members());
    member.gossip();
    vote(member, epoch).await?;
    tracing::info!(
        members = record.members().len(),
        "this tracker takes part in its ring"
    );
    Ok(())
}

/// Has a say from now on, and lets all others hear so at once.
async fn vote(member: &Arc<Member>, epoch: Epoch) -> Result<(), StoreError> {
    member.core.begin_to_vote(epoch).await?;
    member.core.set_waiting_for(Vec::new());
    member.links.speak_anew();
    Ok(())
}

async fn come_back(
    member: &Arc<Member>,
    record: RingRecord,
    life: Life,
    ahead: u64,
) -> Result<(), StoreError> {
    let core = &member.core;
    // Whatever others know of earlier lives, this one is later.
    let life = Life {
        incarnation: life
            .incarnation
            .saturating_add(u64::from(rand::random::<u32>())),
        ..life
    };
    tracing::warn!(
        ?life,
        "this tracker may have forgotten something, and learns it again"
    );
    core.become_member(record.clone(), life, true, ahead)
        .await?;
    member.links.become_member(life.member);
    member.links.set_members(record.members());
    member.gossip();
    let placement = core.placement();
    let returning = Return::new(now(), &placement, life, core.epoch(), rand::random());
    let returned = member.drive_watched(returning, |returning: &Return| {
        core.set_waiting_for_members(&returning.waiting_for());
    });
    let epoch = returned.await.epoch;
    vote(member, epoch).await?;
    tracing::info!(
        ?epoch,
        "this tracker has learnt again what it had forgotten"
    );
    Ok(())
}
