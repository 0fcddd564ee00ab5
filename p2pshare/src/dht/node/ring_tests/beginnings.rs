//! How a ring comes to be, and how members come back to it that have forgotten something.

use super::*;
use crate::dht::DhtBindError;
use crate::dht::links::Refusal;
use crate::identity::TrackerAddr;
use crate::limits::NOTE_INTERVAL;
use crate::store::{MemoryDisk, StoreError};
use crate::wire::ring::{Hello, Standing};
use std::net::SocketAddr;
use tempfile::TempDir;

/// Asserts that these are one ring, and that each of them can do its work.
async fn are_one_ring(nodes: &[DhtNode], first: u64) {
    all_reach(nodes, nodes.len()).await;
    let members = |node: &DhtNode| -> Vec<_> {
        let members = node.status().members;
        members
            .into_iter()
            .map(|member| (member.id, member.addr))
            .collect()
    };
    for (i, node) in nodes.iter().enumerate() {
        assert_eq!(members(node), members(&nodes[0]));
        let own = (node.member_id(), Some(addr(i)));
        assert!(members(node).contains(&own));
        until("end of the waiting", || {
            node.status().waiting_for.is_empty()
        })
        .await;
    }
    fill(nodes, first..first + nodes.len() as u64).await;
    for node in nodes {
        has(node, first..first + nodes.len() as u64).await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_that_start_in_any_order_found_one_ring_and_not_before_all_have_met() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let world = World::of(3);
        let mut nodes = BTreeMap::new();
        for (started, i) in order.into_iter().enumerate() {
            nodes.insert(i, world.start(i).await);
            pass(MINUTE).await;
            let missing: Vec<_> = order[started + 1..].iter().map(|i| addr(*i)).collect();
            for node in nodes.values().filter(|_| !missing.is_empty()) {
                let status = node.status();
                let mut waiting_for = status.waiting_for;
                waiting_for.sort();
                let mut expected = missing.clone();
                expected.sort();
                assert_eq!((status.founded, waiting_for), (false, expected));
                let refused = create(node, 0).await;
                assert!(
                    matches!(refused, Err(RowError::NotFounded { .. })),
                    "{refused:?}"
                );
            }
        }
        are_one_ring(&nodes.into_values().collect::<Vec<_>>(), 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn founding_that_a_power_cut_interrupts_is_finished_later() {
    for commit in 1..=5 {
        let world = World::of(3);
        world.disks[1].fail_commit(commit);
        let mut nodes = vec![world.start(0).await, world.start(2).await];
        // Its disk fails before it has started, while it meets the others, or would soon after.
        if let Ok(node) = world.try_start(1).await {
            tokio::select! {
                _ = node.failed() => {}
                () = reaches(&node, 3) => {}
            }
            world.kill(1, node).await;
        }
        world.disks[1].lose_power();
        // The next life has a sound disk in any case.
        world.disks[1].fail_commit(0);
        nodes.insert(1, world.start(1).await);
        are_one_ring(&nodes, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_disk_was_lost_comes_back_lacks_nothing_and_votes() {
    let (mut world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..60).await;
    let id = nodes[2].member_id();
    world.kill(2, nodes.pop().unwrap()).await;
    fill(&nodes, 60..90).await;
    world.disks[2] = MemoryDisk::default();
    nodes.push(world.start(2).await);
    are_one_ring(&nodes, 90).await;
    assert_eq!(nodes[2].member_id(), id);
    assert!(rows_of(&nodes[2]) >= 90);
    // Whoever is met next hears of the epoch that this made.
    for node in &nodes {
        let Standing::Founded { record, .. } = node.member.core.hello().standing else {
            panic!()
        };
        assert!(record.epoch.returns > 0 && record.epoch == node.member.core.epoch());
    }
    for other in [0, 1] {
        world.cut_off(other);
        reaches(&nodes[2], 2).await;
        has(&nodes[2], 0..93).await;
        // Without its vote there is no majority.
        fill(&nodes[2..], 100 + other as u64..101 + other as u64).await;
        world.network.heal();
        all_reach(&nodes, 3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_two_of_three_disks_were_lost_nothing_is_founded_anew() {
    let (mut world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..10).await;
    for i in [2, 1, 0] {
        world.kill(i, nodes.pop().unwrap()).await;
    }
    for i in [1, 2] {
        world.disks[i] = MemoryDisk::default();
        nodes.push(world.start(i).await);
    }
    // Before they know that there was a ring they wait for whoever may.
    pass(MINUTE).await;
    for node in &nodes {
        let status = node.status();
        assert_eq!((status.founded, status.waiting_for), (false, vec![addr(0)]));
    }
    nodes.insert(0, world.start(0).await);
    pass(MINUTE).await;
    for (empty, other) in [(1, 2), (2, 1)] {
        let status = nodes[empty].status();
        assert_eq!(status.waiting_for, [addr(other)]);
        assert_eq!((status.epoch, status.rows), (1, 0));
        let refused = create(&nodes[empty], 10).await;
        assert!(
            matches!(refused, Err(RowError::InsufficientReplicas { .. })),
            "{refused:?}"
        );
    }
    // The two can be reached and have no say: that is said at once.
    assert_eq!(nodes[0].status().reachable, 1);
    let began = Instant::now();
    let refused = create(&nodes[0], 10).await.unwrap_err();
    assert!(began.elapsed() < SOON);
    let RowError::InsufficientReplicas {
        reachable: 1,
        members: 3,
        needed: 2,
    } = refused
    else {
        panic!("{refused}")
    };
    let page = nodes[0].list(key(3).partition(), None, 10).await.unwrap();
    assert_eq!((page.stale, page.rows.len()), (true, 1));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_run_as_one_member_the_earlier_ends_and_counts_nowhere() {
    let (world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..10).await;
    // An empty folder on another host, and the number of the third.
    let second = world.start_as(3, addr(2), &MemoryDisk::default()).await;
    let second = second.unwrap();
    let first = nodes.pop().unwrap();
    let failed = timeout(MINUTE, first.failed()).await.unwrap();
    assert!(matches!(failed, StoreError::Superseded), "{failed}");
    assert!(!first.status().votes);
    // It is still where the others dial, and has a vote as far as it knows.
    pass(MINUTE).await;
    for node in &nodes {
        assert_eq!(node.status().reachable, 2);
    }
    assert_eq!(first.status().reachable, 1);
    assert!(create(&first, 10).await.is_err());
    fill(&nodes, 10..12).await;
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_another_members_folder_is_refused() {
    let (world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..10).await;
    world.kill(2, nodes.pop().unwrap()).await;
    world.kill(1, nodes.pop().unwrap()).await;
    let refused = world.start_as(2, addr(2), &world.disks[1]).await;
    let Err(DhtBindError::OtherMember { of, asked, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((of, asked), (addr(1), addr(2)));
    for i in [1, 2] {
        nodes.push(world.start(i).await);
    }
    are_one_ring(&nodes, 10).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_tracker_of_another_ring_at_a_founders_address_nothing_is_founded() {
    let world = World::of(3);
    let other = World {
        network: world.network.clone(),
        ..World::of(3)
    };
    let nodes = [
        world.start(0).await,
        world.start(1).await,
        other.start(2).await,
    ];
    pass(MINUTE).await;
    for (node, waiting_for) in nodes.iter().zip([vec![addr(2)], vec![addr(2)], addrs(2)]) {
        let status = node.status();
        assert_eq!((status.founded, status.waiting_for), (false, waiting_for));
    }
    let [first, second, wrong] = nodes;
    other.kill(2, wrong).await;
    are_one_ring(&[first, second, world.start(2).await], 0).await;
}

/// The addresses that a tracker says are refused, in order.
fn refused(node: &DhtNode) -> Vec<Option<TrackerAddr>> {
    let members = node.status().members.into_iter();
    let refused = members.filter(|member| {
        let reason = member.refused.as_deref().unwrap_or_default();
        reason.contains("another ring was founded with this ring.key")
    });
    refused.map(|member| member.addr).collect()
}

#[tokio::test(start_paused = true)]
async fn two_rings_that_were_founded_with_one_key_refuse_each_other_and_say_so() {
    let (world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..5).await;
    let other = World {
        key: world.key.clone(),
        ..World::of(3)
    };
    let mut others = Vec::new();
    for i in 0..3 {
        others.push(other.start(i).await);
    }
    are_one_ring(&others, 0).await;
    // One tracker of each ring is started where the other ring lives.
    for i in [2, 1, 0] {
        other.kill(i, others.pop().unwrap()).await;
    }
    world.kill(2, nodes.pop().unwrap()).await;
    // A wiped member of either may be met in its former place, too.
    let astray = world.start_as(2, addr(2), &other.disks[2]).await.unwrap();
    for node in &nodes {
        until("a refusal", || refused(node) == [Some(addr(2))]).await;
        reaches(node, 2).await;
        has(node, 0..5).await;
    }
    until("two refusals", || {
        refused(&astray) == [Some(addr(0)), Some(addr(1))]
    })
    .await;
    pass(MINUTE).await;
    let status = astray.status();
    assert_eq!((status.votes, status.reachable), (false, 1));
    assert_eq!(nodes[0].status().reachable, 2);
    // Whoever is new and hears both belongs to neither.
    world.kill(1, nodes.pop().unwrap()).await;
    let disk = MemoryDisk::default();
    let new = world.start_as(1, addr(1), &disk).await.unwrap();
    until("both rings", || {
        let mut waiting_for = new.status().waiting_for;
        waiting_for.sort();
        waiting_for == [addr(0), addr(2)] && refused(&astray) == [Some(addr(0))]
    })
    .await;
    pass(MINUTE).await;
    assert_eq!((new.status().founded, rows_of(&new)), (false, 0));
    drop(new);
    drop(astray);
    nodes.push(world.start(1).await);
    nodes.push(world.start(2).await);
    are_one_ring(&nodes, 5).await;
    assert!(nodes.iter().all(|node| refused(node).is_empty()));
}

#[tokio::test(start_paused = true)]
async fn another_member_at_a_members_address_is_not_taken_for_it() {
    let (world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..5).await;
    let id = nodes[2].member_id();
    world.kill(2, nodes.pop().unwrap()).await;
    let stranger = World {
        network: world.network.clone(),
        key: world.key.clone(),
        ..World::of(4)
    };
    let disk = MemoryDisk::default();
    let wrong = stranger.start_as(2, addr(3), &disk).await.unwrap();
    pass(MINUTE).await;
    for node in &nodes {
        assert_eq!(node.status().reachable, 2);
        assert!(!node.member.core.is_up(id));
    }
    fill(&nodes, 5..10).await;
    assert!(!wrong.status().founded);
    assert_eq!(rows_of(&wrong), 0);
    assert!(matches!(
        create(&wrong, 10).await,
        Err(RowError::NotFounded { .. })
    ));
    drop(wrong);
    nodes.push(world.start(2).await);
    are_one_ring(&nodes, 10).await;
    has(&nodes[2], 0..10).await;
}

#[tokio::test(start_paused = true)]
async fn a_founder_that_heard_old_words_founds_no_second_ring() {
    let mut met = 0;
    for cut_after in (0..1000).step_by(20) {
        let mut world = World::of(3);
        world.network.set_far(ip(1), Duration::from_millis(60));
        let mut nodes = Vec::new();
        for i in 0..3 {
            nodes.push(world.start(i).await);
        }
        pass(Duration::from_millis(cut_after)).await;
        world.cut_off(2);
        pass(Duration::from_secs(20)).await;
        let votes: Vec<_> = nodes.iter().map(|node| node.status().votes).collect();
        if votes != [true, true, false] {
            // Nobody votes, or all do.
            assert_eq!(votes[0], votes[1], "cut off after {cut_after} ms");
            continue;
        }
        met += 1;
        let third = nodes.pop().unwrap();
        fill(&nodes, 0..5).await;
        // The disk of the second is lost while the first is down.
        world.kill(1, nodes.pop().unwrap()).await;
        world.cut_off(2);
        world.kill(0, nodes.pop().unwrap()).await;
        world.disks[1] = MemoryDisk::default();
        let second = world.start(1).await;
        pass(MINUTE).await;
        for node in [&second, &third] {
            assert!(!node.status().votes, "cut off after {cut_after} ms");
            assert!(create_as(node, 3, 777, Attempt::First).await.is_err());
        }
        let nodes = [world.start(0).await, second, third];
        are_one_ring(&nodes, 5).await;
        has(&nodes[2], 0..5).await;
    }
    assert!(met > 0);
}

/// A ring of three whose second member has lost the end of what it had synced, rows 10 to 20, which the third has, and
/// whose first remembers nothing of it. The first and the second are down.
async fn with_a_lost_tail() -> (World, DhtNode) {
    let (mut world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..10).await;
    let earlier = world.disks[1].copy();
    world.cut_off(0);
    reaches(&nodes[2], 2).await;
    fill(&nodes[1..], 10..20).await;
    let third = nodes.pop().unwrap();
    for i in [1, 0] {
        world.kill(i, nodes.pop().unwrap()).await;
    }
    world.disks[1] = earlier;
    (world, third)
}

#[tokio::test(start_paused = true)]
async fn a_lost_tail_that_only_the_slowest_remembers_is_known_before_the_member_votes() {
    let (world, third) = with_a_lost_tail().await;
    world.network.set_far(ip(2), Duration::from_millis(100));
    let nodes = [world.start(0).await, world.start(1).await, third];
    all_reach(&nodes, 3).await;
    assert!(nodes[1].member.core.epoch().returns > 0);
    for number in 10..20 {
        let again = create_as(&nodes[0], number, 777, Attempt::First).await;
        let conflict = matches!(again, Ok(RowChange::Conflict { .. }));
        assert!(conflict, "{again:?}");
    }
    are_one_ring(&nodes, 20).await;
}

/// A ring whose second member has a say, having lost its tail, before it hears the third, which knows of that.
async fn with_a_forgotten_vote() -> (World, [DhtNode; 3]) {
    let (world, third) = with_a_lost_tail().await;
    world.cut_off(2);
    let (first, second) = (world.start(0).await, world.start(1).await);
    for node in [&first, &second] {
        reaches(node, 2).await;
    }
    world.network.heal();
    (world, [first, second, third])
}

#[tokio::test(start_paused = true)]
async fn one_that_votes_ends_once_it_hears_that_it_has_forgotten_and_then_learns() {
    let (world, [first, second, third]) = with_a_forgotten_vote().await;
    let failed = timeout(MINUTE, second.failed()).await.unwrap();
    assert!(matches!(failed, StoreError::Forgotten), "{failed}");
    world.kill(1, second).await;
    let nodes = [first, world.start(1).await, third];
    all_reach(&nodes, 3).await;
    assert!(nodes[1].member.core.epoch().returns > 0);
    are_one_ring(&nodes, 20).await;
    has(&nodes[1], 0..20).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_heard_that_it_forgot_says_no_more_though_others_reach_it() {
    let (world, [first, second, third]) = with_a_forgotten_vote().await;
    timeout(MINUTE, second.failed()).await.unwrap();
    world.cut_off(2);
    let again = create_as(&first, 15, 777, Attempt::First).await;
    assert!(again.is_err(), "{again:?}");
    world.kill(1, second).await;
    let nodes = [first, world.start(1).await, third];
    are_one_ring(&nodes, 20).await;
    has(&nodes[0], 10..20).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_hears_while_it_begins_to_vote_that_it_forgot_does_not_and_learns() {
    let (world, third) = with_a_lost_tail().await;
    world.cut_off(2);
    let second = world.start(1).await;
    let core = &second.member.core;
    let from = SocketAddr::new(ip(1), 1);
    let told = third.member.core.welcome(from, core.hello()).await.unwrap();
    core.welcomed(addr(2), told).await.unwrap();
    let epoch = core.epoch();
    assert!(!core.begin_to_vote(epoch).await.unwrap());
    assert!(!second.status().votes);
    let first = world.start(0).await;
    world.network.heal();
    let nodes = [first, second, third];
    all_reach(&nodes, 3).await;
    assert!(nodes[1].member.core.epoch().returns > epoch.returns);
    are_one_ring(&nodes, 20).await;
    has(&nodes[1], 0..20).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_forgot_is_ended_by_whom_it_cannot_dial() {
    let (world, third) = with_a_lost_tail().await;
    third.shutdown().await.unwrap();
    world.kill(2, third).await;
    // It dials others, and they do not find it.
    let _third = world.start_as(3, addr(2), &world.disks[2]).await.unwrap();
    let (_first, second) = (world.start(0).await, world.start(1).await);
    let failed = timeout(MINUTE, second.failed()).await.unwrap();
    assert!(matches!(failed, StoreError::Forgotten), "{failed}");
    assert!(!second.status().votes);
}

#[tokio::test(start_paused = true)]
async fn a_life_with_fewer_commits_than_those_before_it_told_of_is_not_heard_as_a_voter() {
    let (_world, nodes) = World::founded(3).await;
    let late = nodes[1].member.core.hello();
    fill(&nodes, 0..40).await;
    let (core, from) = (&nodes[0].member.core, SocketAddr::new(ip(1), 1));
    let hear = async |hello: &Hello| core.welcome(from, hello.clone()).await;
    assert!(hear(&late).await.is_ok());
    let mut next = nodes[1].member.core.hello();
    next.life.incarnation += 1;
    next.commits -= 20;
    for _ in 0..2 {
        assert_eq!(hear(&next).await, Err(Refusal::Forgotten));
    }
    let mut silent = next.clone();
    let Standing::Founded { votes, .. } = &mut silent.standing else {
        panic!()
    };
    *votes = false;
    let told = hear(&silent).await.unwrap();
    assert!(told.commits > next.commits && next.commits > late.commits);
    let mut welcome = told;
    welcome.hello = next.clone();
    let dialed = core.welcomed(addr(1), welcome).await;
    assert_eq!(dialed, Err(Refusal::Forgotten));
    next.commits += 20;
    assert!(hear(&next).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_lost_all_its_disks_but_not_what_lay_beside_them_is_founded_anew() {
    let folder = TempDir::new().unwrap();
    let mut world = World::of(3);
    world.folder = Some(folder.path().into());
    for first in [0, 100] {
        let mut nodes = Vec::new();
        for i in 0..3 {
            world.disks[i] = MemoryDisk::default();
            nodes.push(world.start(i).await);
        }
        are_one_ring(&nodes, first).await;
        fill(&nodes, first + 10..first + 20).await;
        pass(NOTE_INTERVAL * 2).await;
        for (i, node) in nodes.into_iter().enumerate() {
            world.kill(i, node).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_tracker_that_is_no_member_nothing_is_kept() {
    let (world, nodes) = World::founded(3).await;
    let remembered = || {
        let rows = world.disks[0].rows(Table::Meta).into_iter();
        rows.filter(|(key, _)| key.starts_with(b"peer/")).count()
    };
    let (before, from) = (remembered(), SocketAddr::new(ip(1), 1));
    let mut hello = nodes[1].member.core.hello();
    for stranger in 100..103 {
        hello.life.member = MemberId::from_bytes([stranger; 16]);
        for at in [addr(1), addr(9)] {
            hello.addr = at;
            _ = nodes[0].member.core.welcome(from, hello.clone()).await;
        }
    }
    assert_eq!(remembered(), before);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_that_a_member_votes_before_its_disk_knows() {
    let mut failures = 0;
    for commit in 1..=8 {
        let world = World::of(3);
        world.disks[1].fail_commit(commit);
        let _others = [world.start(0).await, world.start(2).await];
        let Ok(node) = world.try_start(1).await else {
            continue;
        };
        if timeout(MINUTE, node.failed()).await.is_err() {
            break;
        }
        failures += 1;
        let votes = node.status().votes;
        let Standing::Founded { votes: told, .. } = node.member.core.hello().standing else {
            continue;
        };
        world.kill(1, node).await;
        world.disks[1].lose_power();
        let meta = world.disks[1].rows(Table::Meta);
        let knows = !meta.iter().any(|(key, _)| key == b"silent");
        assert_eq!((votes, told), (knows, knows), "commit {commit}");
    }
    assert!(failures > 2, "{failures}");
}
