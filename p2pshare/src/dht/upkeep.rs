//! What a member does by itself once it votes: it compares what it has with each other member, now and then and
//! whenever one comes back, repairs rows that differ and gets the leases that it lacks, and notes how far its disk and the others' are, and the
//! ring's time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use super::host::now;
use super::lease::exchange::LeaseExchange;
use super::meetings::Meetings;
use super::member::Member;
use super::repair::{End, Exchange};
use crate::identity::MemberId;
use crate::limits::{
    LEASE_EXCHANGE_INTERVAL, NOTE_INTERVAL, REMEMBERED_COMMITS_APART, REPAIR_INTERVAL,
    REPAIRS_AT_ONCE, SCRUB_INTERVAL,
};
use crate::store::StoreError;
use crate::wire::ring::{RingRecord, Slice};

/// Compares and repairs rows for ever.
pub(super) async fn repair(member: Arc<Member>) {
    let compare = |member: Arc<Member>, with| async move { compare(&member, with).await };
    meet(member, REPAIR_INTERVAL, compare).await;
}

/// Gets for ever what others know of leases and this member does not.
pub(super) async fn exchange_leases(member: Arc<Member>) {
    let exchange = |member: Arc<Member>, with| async move {
        let (me, epoch) = (member.core.life().member, member.core.epoch());
        let exchange = LeaseExchange::new(now(), epoch, me, with);
        let exchanged = member.drive(exchange).await;
        tracing::trace!(?with, ?exchanged, "compared leases");
        exchanged.complete
    };
    meet(member, LEASE_EXCHANGE_INTERVAL, exchange).await;
}

/// Does something with each other member that is within reach, one at a time, as [`Meetings`] says. `what` tells
/// whether all came of it.
async fn meet<F: Future<Output = bool>>(
    member: Arc<Member>,
    every: Duration,
    what: impl Fn(Arc<Member>, MemberId) -> F,
) {
    let mut changes = member.core.changes.subscribe();
    let mut meetings = Meetings::new(every);
    loop {
        meetings.reach(now(), &reachable(&member));
        let next = meetings.next();
        let due = async {
            match next {
                Some((at, with)) => {
                    sleep_until(at.into()).await;
                    with
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            with = due => {
                let whole = what(member.clone(), with).await;
                meetings.over(now(), with, whole, rand::random_range(0.75..1.25));
            }
        }
    }
}

/// The other members that can be asked.
fn reachable(member: &Member) -> BTreeSet<MemberId> {
    let me = member.core.life().member;
    let record = member.core.record();
    let members = record.iter().flat_map(RingRecord::members);
    members
        .map(|other| other.id)
        .filter(|id| *id != me && member.is_reachable(*id))
        .collect()
}

/// Compares with one member, and repairs, until nothing is left that differs or cannot be repaired now. Returns
/// whether nothing is left.
async fn compare(member: &Arc<Member>, with: MemberId) -> bool {
    loop {
        let (me, epoch) = (member.core.life().member, member.core.epoch());
        let found = member.drive(Exchange::new(now(), me, with, epoch)).await;
        let mut left = found.rows.len() as u64;
        if left > 0 {
            tracing::info!(rows = left, ?with, "rows differ between two trackers");
        }
        if matches!(found.end, End::Complete | End::Partial | End::More) {
            member.core.set_behind(with, left);
        }
        let (pair, mut rows) = (found.pair, found.rows.into_iter());
        let mut repairing = JoinSet::new();
        let mut failed = 0;
        loop {
            while repairing.len() < REPAIRS_AT_ONCE
                && let Some(key) = rows.next()
            {
                let member = member.clone();
                repairing.spawn(async move { member.repair(&key, pair).await });
            }
            let Some(repaired) = repairing.join_next().await else {
                break;
            };
            failed += u64::from(!matches!(repaired, Ok(Ok(()))));
            left -= 1;
            member.core.set_behind(with, left + failed);
        }
        if found.end != End::More || failed > 0 {
            return found.end == End::Complete && failed == 0;
        }
    }
}

/// Holds the rows on disk against the hash tree for ever, a slice at a time.
pub(super) async fn scrub(member: Arc<Member>) {
    let mut ticks = interval(SCRUB_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for slice in Slice::all().collect::<Vec<_>>().into_iter().cycle() {
        ticks.tick().await;
        match member.core.ward.scrub(slice).await {
            Ok(()) => {}
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, ?slice, "a row on disk is damaged");
            }
            Err(_) => return,
        }
    }
}

/// Notes for ever, each second, how many commits this member's disk has, in a file beside it, and now and then
/// how many the others' have, and what the ring's time is.
pub(super) async fn note(member: Arc<Member>, file: Option<PathBuf>) {
    let mut ticks = interval_at(Instant::now() + NOTE_INTERVAL, NOTE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted = 0;
    loop {
        ticks.tick().await;
        let (votes, commits) = (member.core.votes(), member.core.store.commits());
        // A life that has no say may be one after a loss that it does not know of yet.
        if let Some(file) = &file
            && votes
            && commits > noted
        {
            write_commits(file, commits).await;
            noted = commits;
        }
        if member
            .core
            .note_others_and_time(REMEMBERED_COMMITS_APART)
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The number of commits that is noted in a file, if there is one.
pub(super) async fn read_commits(file: &Path) -> Option<u64> {
    let text = tokio::fs::read_to_string(file).await.ok()?;
    text.trim().parse().ok()
}

/// Notes it. A file that cannot be written costs no more than what it would have been good for.
pub(super) async fn write_commits(file: &Path, commits: u64) {
    let fresh = file.with_extension("new");
    let written = async {
        tokio::fs::write(&fresh, format!("{commits}\n")).await?;
        tokio::fs::rename(&fresh, file).await
    };
    if let Err(error) = written.await {
        tracing::debug!(%error, "the number of commits was not noted");
    }
}
