//! The machines that write, read and compare leases, over tables in memory.

use super::*;

#[test]
fn a_write_is_finished_with_a_majority_and_goes_on_to_the_rest() {
    let now = Instant::now();
    let all = [member(0), member(1), member(2)];
    let news = session(1).change(1, LIFE, [(key("k"), say("a"))]).unwrap();
    let mut write = LeaseWrite::new(now, Epoch::FOUNDING, vec![news], |_| all.to_vec(), |_| true);
    let mut asked = Vec::new();
    while let Some(Action::Send { to, .. }) = write.poll_action() {
        asked.push(to);
    }
    assert_eq!(asked, all);
    let answer = |from, last| Input::Answer {
        from,
        answer: ReplicaAnswer::LeasesTaken {
            last,
            gaps: Vec::new(),
            refused: 0,
        },
    };
    let last = Some(slice_of_lease(&key("k")));
    // A stray answer, and one that came twice, count for nothing.
    write.handle(now, answer(member(0), None));
    write.handle(now, answer(member(0), last));
    write.handle(now, answer(member(0), last));
    write.handle(now, answer(member(9), last));
    assert_eq!(write.poll_action(), None);
    write.handle(now, answer(member(2), last));
    let put = LeasesPut {
        replicas: 2,
        ..LeasesPut::default()
    };
    assert_eq!(write.poll_action(), Some(Action::Finish(put)));
    assert_eq!(write.poll_timeout(), Some(now + LEASE_SILENCE_MAX));
    write.handle(now, answer(member(1), last));
    assert_eq!((write.poll_action(), write.poll_timeout()), (None, None));
}

#[test]
fn a_write_says_how_many_know_it_and_never_fails() {
    let mut ring = Ring::new(3);
    let mut first = session(1);
    let k = key("k");
    let start = ring.now;
    let put = ring.write(vec![
        first.change(1, LIFE, [(k.clone(), say("a"))]).unwrap(),
    ]);
    assert_eq!((put.replicas, put.is_complete()), (2, true));
    assert_eq!(ring.now, start);
    ring.down = BTreeSet::from([member(1), member(2)]);
    let put = ring.write(vec![first.renew(2, LIFE)]);
    assert_eq!(put.replicas, 1);
    // Those who are silent cost it a second, together.
    assert_eq!(ring.now - start, LEASE_SILENCE_MAX);
    ring.down.insert(member(0));
    assert_eq!(ring.write(vec![first.renew(3, LIFE)]).replicas, 0);
    // Nobody is asked who is known to be away.
    let (now, all) = (ring.now, ring.all());
    let news = vec![first.renew(4, LIFE)];
    let mut write = LeaseWrite::new(now, Epoch::FOUNDING, news, |_| all.clone(), |_| false);
    assert_eq!(
        write.poll_action(),
        Some(Action::Finish(LeasesPut::default()))
    );
    assert_eq!((write.poll_action(), write.poll_timeout()), (None, None));
    // Back again, two of three lack what they missed, and get it whole.
    ring.down.clear();
    let put = ring.write(vec![first.renew(5, LIFE)]);
    assert_eq!(put.replicas, 0);
    assert_eq!(put.lacking, BTreeSet::from([slice_of_lease(&k)]));
    let whole = first.again(LIFE, &put, [(k.clone(), say("a").unwrap())]);
    assert!(ring.write(vec![whole.unwrap()]).is_complete());
    assert_eq!(ring.known(0), ring.known(1));
    assert_eq!(ring.known(0), ring.known(2));
    assert_eq!(first.again(LIFE, &LeasesPut::default(), []), None);
}

#[test]
fn what_is_too_much_for_one_read_is_left_to_the_next() {
    let mut ring = Ring::new(1);
    let (now, keys) = (ring.now, [key("a"), key("b"), key("c")]);
    let large: Arc<[u8]> = vec![0; LEASE_PAYLOAD_BYTES_MAX].into();
    let enough = LEASE_READ_BYTES_MAX / LEASE_PAYLOAD_BYTES_MAX;
    for i in 0..enough {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&i.to_be_bytes());
        let peer = PeerId::from_bytes(id);
        let mut session = LeaseSession::new(peer, SessionId::from_bytes([1; 16]));
        let mut said = vec![(keys[0].clone(), Some(large.clone()))];
        if i == 0 {
            said.extend(keys[1..].iter().map(|key| (key.clone(), say("small"))));
        }
        let news = session.change(1, LIFE, said).unwrap();
        assert_eq!(put(ring.table(0), now, &news), taken());
    }
    let counts = |found: Vec<Vec<Lease>>| found.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(counts(ring.read(&keys)), [enough]);
    assert_eq!(counts(ring.read(&keys[1..])), [1, 1]);
}

#[test]
fn a_read_merges_what_the_replicas_know() {
    let mut ring = Ring::new(3);
    let (mut first, mut second) = (session(1), session(2));
    let (now, k, other) = (ring.now, key("k"), key("other"));
    let a = first.change(1, LIFE, [(k.clone(), say("a"))]).unwrap();
    let b = first.change(2, LIFE, [(k.clone(), say("b"))]).unwrap();
    let c = second.change(1, LIFE, [(k.clone(), say("c"))]).unwrap();
    let d = second.change(2, LIFE, [(k.clone(), say("d"))]).unwrap();
    for (i, news) in [(0, &a), (0, &b), (1, &a), (0, &c), (1, &c), (1, &d)] {
        put(ring.table(i), now, news);
    }
    let found = ring.read(&[other.clone(), k.clone()]);
    let payloads: Vec<_> = found[1].iter().map(|lease| &*lease.payload).collect();
    assert_eq!(payloads, [b"b", b"d"]);
    assert_eq!((found[0].len(), found[1][0].number), (0, 2));
    assert_eq!(found[1][0].expires_in, LIFE);
    // What was withdrawn, either way, is not read from the one that has not heard it.
    put(ring.table(1), now, &b);
    let gone = first.change(3, LIFE, [(k.clone(), None)]).unwrap();
    let none = second.whole(3, LIFE, []).unwrap();
    for (at, news, left) in [(1, &gone, 1), (0, &none, 0)] {
        put(ring.table(at), now, &d);
        put(ring.table(at), now, news);
        assert_eq!(ring.read(std::slice::from_ref(&k))[0].len(), left);
    }
    // One answer is enough after a little while, and with none it ends, empty.
    ring.down = BTreeSet::from([member(1), member(2)]);
    let start = ring.now;
    assert_eq!(ring.read(std::slice::from_ref(&k))[0].len(), 1);
    assert_eq!(ring.now - start, LEASE_READ_PATIENCE);
    ring.down.insert(member(0));
    let start = ring.now;
    assert_eq!(ring.read(std::slice::from_ref(&k)), [[]]);
    assert_eq!(ring.now - start, LEASE_SILENCE_MAX);
    let all = ring.all();
    let mut read = LeaseRead::new(
        ring.now,
        Epoch::FOUNDING,
        vec![k],
        |_| all.clone(),
        |_| false,
    );
    assert_eq!(read.poll_action(), Some(Action::Finish(vec![vec![]])));
}

#[test]
fn a_read_takes_every_page() {
    let mut ring = Ring::new(1);
    let now = ring.now;
    let keys: Vec<LeaseKey> = (0..crate::limits::LEASE_GET_KEYS_MAX + 3)
        .map(|i| key(&i.to_string()))
        .collect();
    let mut first = session(200);
    let all = keys.iter().map(|key| (key.clone(), say("x").unwrap()));
    let news = first.whole(1, LIFE, all).unwrap();
    assert!(ring.write(vec![news]).is_complete());
    let many = LEASES_PER_ANSWER_MAX + 10;
    for i in 0..many {
        let mut peer = [0; 32];
        peer[..8].copy_from_slice(&i.to_be_bytes());
        let mut nth = LeaseSession::new(PeerId::from_bytes(peer), SessionId::from_bytes([0; 16]));
        let news = nth.change(1, LIFE, [(keys[7].clone(), say("y"))]).unwrap();
        put(ring.table(0), now, &news);
    }
    let found = ring.read(&keys);
    let counts: Vec<usize> = found.iter().map(Vec::len).collect();
    let expected = (0..keys.len()).map(|i| if i == 7 { many + 1 } else { 1 });
    assert_eq!(counts, expected.collect::<Vec<_>>());
    assert_eq!(ring.read(&[]), Vec::<Vec<Lease>>::new());
}

#[test]
fn an_exchange_gives_a_member_that_forgot_everything_all_of_it_back() {
    let mut ring = Ring::new(2);
    for i in 1..4 {
        let (mut session, all) = holder(i, 3000);
        ring.write(vec![session.whole(i.into(), LIFE, all).unwrap()]);
    }
    assert_eq!(ring.known(0), ring.known(1));
    let slots = ring.known(0).len();
    *ring.table(1) = LeaseTable::default();
    ring.sent = 0;
    let all = Exchanged {
        slots,
        complete: true,
    };
    assert_eq!(ring.exchange(1, 0), all);
    assert_eq!(ring.known(0), ring.known(1));
    assert!((10..100).contains(&ring.sent), "{} messages", ring.sent);
    // There is nothing more to give, either way.
    let nothing = Exchanged { slots: 0, ..all };
    assert_eq!(ring.exchange(1, 0), nothing);
    assert_eq!(ring.exchange(0, 1), nothing);
    // Renewals alone are given too.
    let (mut session, all) = holder(9, 10);
    let news = session.whole(1, LIFE, all).unwrap();
    let renewed = session.renew(2, LIFE);
    let now = ring.now;
    put(ring.table(0), now, &news);
    put(ring.table(1), now, &news);
    put(ring.table(0), now, &renewed);
    assert_eq!(ring.exchange(1, 0).slots, renewed.slices.len());
    assert_eq!(ring.known(0), ring.known(1));
}

#[test]
fn an_exchange_ends_when_the_other_is_silent_and_strays_do_no_harm() {
    let mut ring = Ring::new(2);
    let (mut session, all) = holder(1, 10);
    let now = ring.now;
    let news = session.whole(1, LIFE, all).unwrap();
    put(ring.table(0), now, &news);
    let mut exchange = LeaseExchange::new(now, Epoch::FOUNDING, member(1), member(0));
    // Every answer comes twice, and each also from somebody else.
    let mut outcome = None;
    while let Some(action) = exchange.poll_action() {
        match action {
            Action::Finish(result) => outcome = Some(result),
            Action::Send { to, request } => {
                let answer = ring.answer(to, request);
                for from in [member(7), to, to] {
                    let answer = answer.clone();
                    exchange.handle(now, Input::Answer { from, answer });
                }
            }
        }
    }
    assert!(outcome.unwrap().complete);
    assert_eq!(ring.known(0), ring.known(1));
    ring.down.insert(member(0));
    assert!(!ring.exchange(1, 0).complete);
    let mut exchange = LeaseExchange::new(now, Epoch::FOUNDING, member(1), member(0));
    exchange.handle(now, Input::Failed { from: member(0) });
    let finished = std::iter::from_fn(|| exchange.poll_action()).last();
    assert!(matches!(
        finished,
        Some(Action::Finish(Exchanged {
            complete: false,
            ..
        }))
    ));
    assert_eq!(exchange.poll_timeout(), None);
}

#[test]
fn exchanges_keep_nothing_alive_whatever_the_clocks_say() {
    let mut ring = Ring::new(3);
    let (mut session, all) = holder(1, 20);
    let news = session.whole(1, LIFE, all).unwrap();
    let now = ring.now;
    put(ring.table(0), now, &news);
    // The clock of the third is an hour ahead of the others': it counts from when it heard.
    let ahead = Duration::from_secs(3600);
    let (start, mut late) = (ring.now, LeaseTable::default());
    put(&mut late, start + ahead, &news);
    assert_eq!(known(&mut late, start + ahead).len(), ring.known(0).len());
    for second in 0..200 {
        ring.now = start + Duration::from_secs(second);
        if second == 50 {
            *ring.table(0) = LeaseTable::default();
        }
        for (me, with) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            ring.exchange(me, with);
        }
        let is_there = second < LIFE.as_secs();
        assert_eq!(ring.known(1).is_empty(), !is_there, "after {second} s");
        let there = known(&mut late, ring.now + ahead);
        assert_eq!(there.is_empty(), !is_there, "after {second} s");
    }
    assert!(ring.tables.values().all(LeaseTable::is_empty));
}

// What becomes of any history.
