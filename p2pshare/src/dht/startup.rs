//! How a member comes to have a say: it hears the others, founds or joins the ring, or learns again what it may
//! have forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::founding::Step;
use super::host::now;
use super::member::Member;
use super::rejoin::Return;
use crate::limits::VOTE_PATIENCE;
use crate::store::StoreError;
use crate::wire::ring::{Epoch, Life, RingRecord};

/// Runs until the member votes.
pub(super) async fn begin(member: &Arc<Member>) -> Result<(), StoreError> {
    let core = &member.core;
    // Until when it waits for those whom it need not hear: they may be the ones who remember what it has forgotten.
    let mut patience = None;
    while let Some(step) = core.step() {
        let mut wakes = None;
        match step {
            Step::Wait(addrs) => core.set_waiting_for(addrs),
            Step::Propose(record) => {
                propose(member, &record).await?;
                core.has_proposed(record);
                continue;
            }
            Step::Join(record, silent) => {
                let until = *patience.get_or_insert(Instant::now() + VOTE_PATIENCE);
                if silent.is_empty() || until <= Instant::now() {
                    if join(member, record).await? {
                        return Ok(());
                    }
                    // It has heard meanwhile that it forgot something.
                    continue;
                }
                core.set_waiting_for(silent);
                wakes = Some(until);
            }
            Step::Return {
                record,
                life,
                ahead,
            } => return come_back(member, record, life, ahead).await,
            Step::NotAMember(record) => {
                tracing::error!(own = %core.own, "the ring has been founded without this tracker");
                let members = record.members().iter();
                core.set_waiting_for(members.map(|m| m.addr.clone()).collect());
            }
            Step::TwoRings(addrs) => {
                tracing::error!(
                    ?addrs,
                    "two rings were founded with this key; all but one have to be stopped"
                );
                core.set_waiting_for(addrs);
            }
        }
        let woken = async {
            match wakes {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = core.spoken() => {}
            () = woken => {}
        }
    }
    Ok(())
}

/// Has a list on disk by which nobody has a say yet, and tells all others.
async fn propose(member: &Arc<Member>, record: &RingRecord) -> Result<(), StoreError> {
    let core = &member.core;
    core.become_member(record.clone(), core.life(), false, core.ahead())
        .await?;
    member.links.set_members(record.members());
    member.links.speak_anew();
    Ok(())
}

/// Takes part in the ring. Returns whether it does: it may have heard in between that it forgot something.
async fn join(member: &Arc<Member>, record: RingRecord) -> Result<bool, StoreError> {
    let core = &member.core;
    let epoch = record.epoch;
    core.become_member(record.clone(), core.life(), false, core.ahead())
        .await?;
    member.links.set_members(record.members());
    member.gossip();
    let votes = vote(member, epoch).await?;
    if votes {
        tracing::info!(
            members = record.members().len(),
            "this tracker takes part in its ring"
        );
    }
    Ok(votes)
}

/// Has a say from now on, and lets all others hear so at once. Returns whether it has.
async fn vote(member: &Arc<Member>, epoch: Epoch) -> Result<bool, StoreError> {
    let votes = member.core.begin_to_vote(epoch).await?;
    if votes {
        member.core.set_waiting_for(Vec::new());
        member.links.speak_anew();
    }
    Ok(votes)
}

async fn come_back(
    member: &Arc<Member>,
    record: RingRecord,
    life: Life,
    ahead: u64,
) -> Result<(), StoreError> {
    let core = &member.core;
    core.learns();
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
        core.set_unreadable(returning.unreadable());
    });
    let epoch = returned.await.epoch;
    core.set_unreadable(BTreeSet::new());
    vote(member, epoch).await?;
    tracing::info!(
        ?epoch,
        "this tracker has learnt again what it had forgotten"
    );
    Ok(())
}
