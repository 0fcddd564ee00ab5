//! Rings of several members in one process, and what may happen to them.

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::world::*;
use super::*;
use crate::dht::links::Host as _;
use crate::dht::placement::slice_of_row;
use crate::dht::row_key;
use crate::limits::{LEASE_EXCHANGE_INTERVAL, TIME_NOTED_APART};
use crate::store::{MemoryDisk, Table};
use crate::wire::ring::{ReplicaAnswer, ReplicaCall, ReplicaRequest, RowKey};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod beginnings;
pub(crate) mod world;

const SOON: Duration = Duration::from_millis(500);
const MINUTE: Duration = Duration::from_secs(60);

/// How long a change takes.
async fn time_of(node: &DhtNode, number: u64) -> Duration {
    let began = Instant::now();
    let made = create(node, number).await.unwrap();
    assert!(matches!(made, RowChange::Applied { .. }), "{made:?}");
    began.elapsed()
}

/// Whether it says that the row was created by this very change, now or before.
fn is_made(made: &RowChange) -> bool {
    let version = Version::from_u64(1);
    *made == RowChange::Applied { version } || *made == RowChange::AlreadyApplied { version }
}

/// Asserts that a member lacks nothing: what it lists and scans is right although another one is cut off.
async fn lacks_nothing(world: &World, nodes: &[DhtNode], member: usize, rows: u64) {
    for other in (0..nodes.len()).filter(|other| *other != member) {
        world.cut_off(other);
        has(&nodes[member], 0..rows).await;
        world.network.heal();
    }
    all_reach(nodes, nodes.len()).await;
}

/// Asserts that nothing that counts can be told of a row. A repair that tries the same may be in between.
async fn cannot_be_told(node: &DhtNode, row: u64) {
    let refused = node.read(&key(row)).await;
    assert!(
        matches!(
            refused,
            Err(RowError::InsufficientReplicas { .. } | RowError::Contended)
        ),
        "{refused:?}"
    );
}

/// The rows that a member's own disk has.
fn rows_of(node: &DhtNode) -> u64 {
    node.status().rows
}

#[tokio::test(start_paused = true)]
async fn of_two_with_one_down_nothing_is_written_and_what_is_read_is_called_stale() {
    let (world, mut nodes) = World::founded(2).await;
    fill(&nodes, 0..10).await;
    world.kill(1, nodes.pop().unwrap()).await;
    let one = &nodes[0];
    reaches(one, 1).await;
    let began = Instant::now();
    let refused = create(one, 10).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "insufficient replicas for write quorum: 1 of 2 reachable, 2 needed"
    );
    let refused = one.read(&key(0)).await.unwrap_err();
    assert!(matches!(
        refused,
        RowError::InsufficientReplicas { reachable: 1, .. }
    ));
    assert!(began.elapsed() < SOON);
    let page = one.list(key(3).partition(), None, 10).await.unwrap();
    assert!(page.stale);
    assert_eq!(page.rows.len(), 1);

    nodes.push(world.start(1).await);
    all_reach(&nodes, 2).await;
    fill(&nodes, 10..12).await;
    let page = nodes[1].list(key(10).partition(), None, 10).await.unwrap();
    assert_eq!((page.stale, page.rows.len()), (false, 1));
}

#[tokio::test(start_paused = true)]
async fn clocks_an_hour_apart_show_one_time() {
    const HOUR: i64 = 3_600_000;
    for (skews, middle) in [
        (vec![0, HOUR, 0], 0),
        (vec![-HOUR, 0, 0], 0),
        (vec![-HOUR, 2 * HOUR], HOUR / 2),
    ] {
        let members = skews.len();
        let mut world = World::of(members);
        world.skews = skews;
        let mut nodes = Vec::new();
        for i in 0..members {
            nodes.push(world.start(i).await);
        }
        all_reach(&nodes, members).await;
        fill(&nodes, 0..6).await;
        let right = nodes[0].member.core.own_time().as_millis() as i64 - world.skews[0] + middle;
        for node in &nodes {
            let off = node.time().as_millis() as i64 - right;
            assert!(off.abs() < 1000, "{off} ms off with {:?}", world.skews);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_an_hour_apart_split_no_ring_while_the_third_is_late() {
    const HOUR: i64 = 3_600_000;
    // The clocks of the machine stand still while the paused one goes on, for a few minutes in all.
    const STANDS: i64 = HOUR / 10;
    for wrong in [HOUR, -HOUR] {
        let (mut world, nodes) = World::founded(3).await;
        for (i, node) in nodes.into_iter().enumerate() {
            world.kill(i, node).await;
        }
        world.skews = vec![0, 0, wrong];
        let mut nodes = vec![world.start(0).await, world.start(2).await];
        all_reach(&nodes, 2).await;
        let before = nodes.iter().map(DhtNode::time).max().unwrap();
        nodes.push(world.start(1).await);
        all_reach(&nodes, 3).await;
        // A member speaks with each other one within that time.
        pass(LEASE_EXCHANGE_INTERVAL * 2).await;
        let right = nodes[0].member.core.own_time().as_millis() as i64;
        for node in &nodes {
            let off = node.time().as_millis() as i64 - right;
            assert!(off.abs() < STANDS, "{off} ms off with {:?}", world.skews);
            assert!(node.time() > before, "it went back with {:?}", world.skews);
        }
        // One that begins anew while another is away has the time of those that have heard them all.
        world.kill(1, nodes.pop().unwrap()).await;
        world.kill(0, nodes.remove(0)).await;
        nodes.push(world.start(0).await);
        all_reach(&nodes, 2).await;
        let off = nodes[1].time().as_millis() as i64 - nodes[0].time().as_millis() as i64;
        assert!(off.abs() < STANDS, "{off} ms apart with {:?}", world.skews);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rings_time_does_not_go_back_when_two_of_three_begin_anew_and_one_is_late() {
    const HOUR: i64 = 3_600_000;
    for by_power in [true, false] {
        let (mut world, nodes) = World::founded(3).await;
        pass(MINUTE).await;
        let before = nodes.iter().map(DhtNode::time).max().unwrap();
        for (i, node) in nodes.into_iter().enumerate() {
            if !by_power {
                node.shutdown().await.unwrap();
            }
            world.kill(i, node).await;
            world.disks[i].lose_power();
        }
        world.skews = vec![-HOUR, 0, 0];
        let nodes = [world.start(0).await, world.start(1).await];
        all_reach(&nodes, 2).await;
        for node in &nodes {
            let back = before.saturating_since(node.time());
            assert!(back <= TIME_NOTED_APART, "back by {back:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_nobody_hears_costs_nothing_and_learns_what_it_missed() {
    let (world, nodes) = World::founded(3).await;
    fill(&nodes, 0..20).await;
    // It hears the others, and they do not hear it.
    world.mute(2);
    let slow = time_of(&nodes[0], 20)
        .await
        .max(time_of(&nodes[1], 21).await);
    assert!(slow < SOON, "{slow:?}");
    let through_it = create(&nodes[2], 22).await;
    assert!(matches!(
        through_it,
        Err(RowError::InsufficientReplicas { .. } | RowError::OutcomeUnknown)
    ));
    reaches(&nodes[0], 2).await;
    fill(&nodes[..2], 23..60).await;
    world.network.heal();
    all_reach(&nodes, 3).await;
    // Tried again, whether it was made or not.
    let again = create_again(&nodes[2], 22, 22).await;
    assert!(is_made(&again), "{again:?}");
    until("repair", || {
        rows_of(&nodes[2]) == 60 && nodes[2].status().behind == 0
    })
    .await;
    lacks_nothing(&world, &nodes, 2, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_does_not_make_the_others_slow() {
    let (world, nodes) = World::founded(3).await;
    fill(&nodes, 0..3).await;
    world.network.set_far(ip(2), Duration::from_millis(800));
    for number in 3..13 {
        let took = time_of(&nodes[number as usize % 2], number).await;
        assert!(took < Duration::from_millis(200), "{took:?}");
    }
    let began = Instant::now();
    has(&nodes[0], 0..13).await;
    assert!(began.elapsed() < 13 * Duration::from_millis(200));
    // It has everything in the end, also through itself.
    until("the slow one", || rows_of(&nodes[2]) == 13).await;
    has(&nodes[2], 12..13).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_for_a_minute_learns_what_it_missed() {
    let (world, nodes) = World::founded(3).await;
    fill(&nodes, 0..30).await;
    world.cut_off(2);
    fill(&nodes[..2], 30..60).await;
    pass(MINUTE).await;
    let value = Some(b"deleted and made anew".to_vec());
    let version = Version::from_u64(1);
    let row = key(0);
    let changed = nodes[0].compare_and_set(&row, version, value, request(99), Attempt::First);
    let changed = changed.await.unwrap();
    // What it lists meanwhile, it calls stale.
    let page = nodes[2].list(key(1).partition(), None, 10).await.unwrap();
    assert_eq!((page.stale, page.rows.len()), (true, 1));
    assert!(create(&nodes[2], 100).await.is_err());
    assert_eq!(rows_of(&nodes[2]), 30);

    world.network.heal();
    all_reach(&nodes, 3).await;
    let read = nodes[2].read(&key(0)).await.unwrap().unwrap();
    assert_eq!(
        changed,
        RowChange::Applied {
            version: read.version
        }
    );
    until("repair", || {
        rows_of(&nodes[2]) >= 60 && nodes[2].status().behind == 0
    })
    .await;
    world.cut_off(0);
    has(&nodes[2], 1..60).await;
    let page = nodes[2].list(key(1).partition(), None, 10).await.unwrap();
    assert!(!page.stale);
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_again_while_it_is_cut_off_lists_what_it_has_and_calls_it_stale() {
    let (world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..10).await;
    until("all rows", || rows_of(&nodes[2]) == 10).await;
    world.kill(2, nodes.pop().unwrap()).await;
    world.cut_off(2);
    let alone = world.start(2).await;
    assert!(!alone.status().votes);
    let page = alone.list(key(3).partition(), None, 10).await.unwrap();
    assert_eq!((page.stale, page.rows.len()), (true, 1));
    let (mut rows, mut cursor) = (0, None);
    loop {
        let page = alone.scan(cursor, 1000).await.unwrap();
        assert!(page.stale);
        rows += page.rows.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(rows, 10);
    // But nothing that counts.
    let refused = alone.read(&key(3)).await;
    assert!(
        matches!(refused, Err(RowError::InsufficientReplicas { .. })),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_row_costs_its_member_nothing_else_and_is_made_whole_by_the_others() {
    let (world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..10).await;
    until("all rows", || nodes.iter().all(|node| rows_of(node) == 10)).await;
    world.damage(2, &key(3));
    for node in &nodes {
        has(node, 0..10).await;
        let page = node.list(key(3).partition(), None, 10).await.unwrap();
        assert_eq!((page.stale, page.rows.len()), (false, 1));
    }
    // With one other it is a majority for every row but that one.
    world.kill(0, nodes.remove(0)).await;
    reaches(&nodes[1], 2).await;
    // It may have been made whole meanwhile.
    world.damage(2, &key(3));
    has(&nodes[1], 4..10).await;
    cannot_be_told(&nodes[1], 3).await;
    let page = nodes[1].list(key(3).partition(), None, 10).await.unwrap();
    assert_eq!((page.stale, page.unreadable), (false, true));
    nodes.insert(0, world.start(0).await);
    all_reach(&nodes, 3).await;
    let place = row_key::encode(&key(3));
    let row_of = |member: usize| {
        let mut rows = world.disks[member].rows(Table::Rows).into_iter();
        rows.find(|(key, _)| *key == place)
    };
    until("repair", || {
        row_of(2) == row_of(0) && row_of(1) == row_of(0)
    })
    .await;
    until("an end of the repair", || nodes[2].status().behind == 0).await;
    lacks_nothing(&world, &nodes, 2, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_damaged_for_good_costs_the_one_member_of_a_ring_nothing_else() {
    let (world, mut nodes) = World::founded(1).await;
    fill(&nodes, 0..5).await;
    world.damage(0, &key(3));
    for _ in 0..2 {
        let refused = nodes[0].read(&key(3)).await;
        assert!(
            matches!(refused, Err(RowError::InsufficientReplicas { .. })),
            "{refused:?}"
        );
        has(&nodes[0], 0..3).await;
        let page = nodes[0].list(key(3).partition(), None, 10).await.unwrap();
        assert_eq!((page.stale, page.unreadable), (false, true));
        assert_eq!(page.rows.len(), 0);
        world.kill(0, nodes.remove(0)).await;
        nodes.push(world.start(0).await);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_damaged_at_two_of_three_hold_up_no_page_that_they_are_in() {
    let (world, nodes) = World::founded(3).await;
    let row = |number: u64| RowKey::new("p", number.to_be_bytes()).unwrap();
    for number in 0..100 {
        let row = row(number);
        let made = nodes[0].create(&row, "v", request(number), Attempt::First);
        made.await.unwrap();
    }
    until("all rows", || nodes.iter().all(|node| rows_of(node) == 100)).await;
    for number in 0..90 {
        world.damage(1, &row(number));
        world.damage(2, &row(number));
    }
    for node in &nodes {
        let began = Instant::now();
        let page = node.list(b"p", None, 200).await.unwrap();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!((page.stale, page.unreadable), (false, true));
        let sound = page.rows.iter().rev().take(10).map(|(sort, _)| sort);
        let expected = (90..100u64)
            .rev()
            .map(|number| number.to_be_bytes().to_vec());
        assert!(sound.cloned().eq(expected), "{:?}", page.rows.len());
    }
}

/// However long it takes to look through the slice, and however often the row is asked for.
#[tokio::test(start_paused = true)]
async fn reads_of_a_damaged_row_are_answered_at_once_and_it_is_looked_into_once() {
    let (world, nodes) = World::founded(1).await;
    fill(&nodes, 0..5).await;
    world.damage(0, &key(3));
    let core = &nodes[0].member.core;
    let read = async || {
        let request = |number| ReplicaRequest {
            epoch: core.epoch(),
            call: ReplicaCall::Read { key: key(number) },
        };
        let requests = (0..5).map(request).collect();
        let answers = core.answer(core.life().member, requests).await;
        let unavailable = |answer: &_| *answer == ReplicaAnswer::Unavailable;
        let unavailable: Vec<_> = answers.iter().map(unavailable).collect();
        assert_eq!(unavailable, [false, false, false, true, false]);
    };
    let before = world.disks[0].snapshots();
    let (go_on, stalled) = std::sync::mpsc::sync_channel(1);
    world.disks[0].stall_snapshot(stalled);
    // If they wait for that after all, it is not for ever.
    let (answered, is_answered) = std::sync::mpsc::sync_channel(1);
    let in_time = std::thread::spawn(move || {
        let in_time = is_answered.recv_timeout(Duration::from_secs(10)).is_ok();
        drop(go_on);
        in_time
    });
    for _ in 0..10 {
        read().await;
    }
    answered.send(()).unwrap();
    assert!(in_time.join().unwrap());
    until("an end of the look", || core.ward.is_idle()).await;
    for _ in 0..10 {
        read().await;
    }
    until("an end of the look", || core.ward.is_idle()).await;
    assert_eq!(world.disks[0].snapshots(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_of_a_slice_keeps_no_other_from_repair_and_is_told_who_has_to_learn_it()
{
    let (mut world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..60).await;
    until("all rows", || nodes.iter().all(|node| rows_of(node) == 60)).await;
    let rotten = (0..60).map(key).max_by_key(slice_of_row).unwrap();
    world.disks[2].rot(Table::Rows, &row_key::encode(&rotten));
    world.cut_off(2);
    reaches(&nodes[0], 2).await;
    fill(&nodes[..2], 60..90).await;
    // In the slice that cannot be read too, which is compared before those below it.
    let beside = RowKey::new(rotten.partition(), "x").unwrap();
    let made = nodes[0].create(&beside, "v", request(100), Attempt::First);
    made.await.unwrap();
    pass(MINUTE).await;
    world.network.heal();
    all_reach(&nodes, 3).await;
    let (below, above): (Vec<_>, Vec<_>) = (60..90)
        .map(key)
        .partition(|key| slice_of_row(key) <= slice_of_row(&rotten));
    assert!(below.len() > 20, "{} above", above.len());
    until("repair", || rows_of(&nodes[2]) == 90).await;
    // Who has to learn what is there says who cannot tell it.
    world.kill(1, nodes.remove(1)).await;
    world.disks[1] = MemoryDisk::default();
    let wiped = world.start(1).await;
    until("what is wrong", || {
        let members = wiped.status().members;
        let refused = members.iter().find_map(|member| member.refused.clone());
        refused.is_some_and(|refused| refused.contains("cannot be read"))
    })
    .await;
    assert!(!wiped.status().votes);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_damaged_at_one_keeps_no_other_from_coming_back() {
    let (mut world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..10).await;
    until("all rows", || nodes.iter().all(|node| rows_of(node) == 10)).await;
    world.kill(2, nodes.pop().unwrap()).await;
    world.disks[2] = MemoryDisk::default();
    world.damage(0, &key(3));
    nodes.push(world.start(2).await);
    for _ in 0..2 {
        all_reach(&nodes, 3).await;
        // What the one who can read it has may be older than what the two had agreed on.
        cannot_be_told(&nodes[2], 3).await;
        for lost in [0, 1] {
            world.cut_off(lost);
            reaches(&nodes[2], 2).await;
            has(&nodes[2], 4..10).await;
            world.network.heal();
            all_reach(&nodes, 3).await;
        }
        assert_eq!(rows_of(&nodes[2]), 10);
        world.kill(2, nodes.pop().unwrap()).await;
        nodes.push(world.start(2).await);
    }
    // Wiped once the other's row is right again, it learns that one too.
    world.kill(2, nodes.pop().unwrap()).await;
    let place = row_key::encode(&key(3));
    let mut sound = world.disks[1].rows(Table::Rows).into_iter();
    let (_, value) = sound.find(|(key, _)| *key == place).unwrap();
    world.disks[0].plant(Table::Rows, &place, &value);
    world.disks[2] = MemoryDisk::default();
    nodes.push(world.start(2).await);
    all_reach(&nodes, 3).await;
    has(&nodes[2], 0..10).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_ends_its_member_and_no_other() {
    let (world, mut nodes) = World::founded(3).await;
    fill(&nodes, 0..5).await;
    world.disks[1].fail_commit(1);
    // Who is asked through the others learns nothing of it.
    assert!(time_of(&nodes[0], 5).await < SOON);
    let failed = timeout(MINUTE, nodes[1].failed()).await.unwrap();
    assert!(matches!(failed, StoreError::Poisoned { .. }), "{failed}");
    assert!(matches!(
        create(&nodes[1], 6).await,
        Err(RowError::Store(StoreError::Poisoned { .. }))
    ));
    for number in 7..20 {
        let took = time_of(&nodes[[0, 2][number as usize % 2]], number).await;
        assert!(took < SOON, "{took:?}");
    }
    // With a new life on the disk that is well again it is a member as before.
    world.kill(1, nodes.remove(1)).await;
    world.disks[1].lose_power();
    nodes.insert(1, world.start(1).await);
    all_reach(&nodes, 3).await;
    has(&nodes[1], 7..20).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_that_create_one_name_through_three_members_one_wins() {
    let (_world, nodes) = World::founded(3).await;
    for name in 0..3 {
        let mut racers = JoinSet::new();
        for i in 0..12u64 {
            let (node, number) = (nodes[i as usize % 3].clone(), 100 * name + i);
            racers.spawn(async move {
                let made = match create_as(&node, name, number, Attempt::First).await {
                    Ok(made) => made,
                    Err(_) => create_again(&node, name, number).await,
                };
                (number, made)
            });
        }
        let ended = racers.join_all().await;
        let winners: Vec<u64> = ended
            .iter()
            .filter(|(_, made)| is_made(made))
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(winners.len(), 1, "{ended:?}");
        for node in &nodes {
            let row = node.read(&key(name)).await.unwrap().unwrap();
            assert_eq!(row.value, Some(winners[0].to_string().into_bytes()));
            assert_eq!(row.version, Version::from_u64(1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_tried_again_through_another_member_is_made_once() {
    let (world, nodes) = World::founded(3).await;
    for (number, cut_off_after) in [5, 15, 25, 35, 45, 55].into_iter().enumerate() {
        let number = number as u64;
        let first = nodes[0].clone();
        let trying = tokio::spawn(async move { create(&first, number).await });
        pass(Duration::from_millis(cut_off_after)).await;
        world.cut_off(0);
        let again = create_again(&nodes[1], number, number).await;
        assert!(is_made(&again), "{again:?}");
        world.network.heal();
        // Whoever asked first is told the same, or that it is not known.
        match trying.await.unwrap() {
            Ok(made) => assert!(is_made(&made), "{made:?}"),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        all_reach(&nodes, 3).await;
        for node in &nodes {
            let row = node.read(&key(number)).await.unwrap().unwrap();
            assert_eq!(row.version, Version::from_u64(1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_of_five_gives_each_row_once_also_with_one_down() {
    let (world, mut nodes) = World::founded(5).await;
    fill(&nodes, 0..60).await;
    assert!(nodes.iter().all(|node| rows_of(node) < 60));
    for down in [None, Some(4)] {
        if let Some(down) = down {
            world.kill(down, nodes.remove(down)).await;
            all_reach(&nodes, 4).await;
        }
        let (mut seen, mut cursor) = (BTreeMap::new(), None);
        loop {
            let page = nodes[0].scan(cursor, 1000).await.unwrap();
            assert!(!page.stale);
            for (key, row) in page.rows {
                assert_eq!(seen.insert(key, row.value.unwrap()), None);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let all: BTreeSet<_> = (0..60).map(key).collect();
        assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), all);
    }
}
