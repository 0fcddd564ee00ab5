//! How a ring comes to be, and how members come back to it that have forgotten something.

use super::*;
use crate::dht::DhtBindError;
use crate::dht::links::Host as _;
use crate::identity::TrackerAddr;
use crate::store::{MemoryDisk, StoreError};
use crate::wire::ring::Standing;

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
