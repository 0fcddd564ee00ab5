//! What was done once is so when it is asked for again, whatever has become of who asks: the answer of a tracker that
//! died, or was cut off, comes from another one.

#![allow(clippy::unwrap_used)]

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use tokio::{sync::Notify, task::JoinSet};

use super::{accounts::Accounts, files::Files, groups::Groups, table::Request};
use crate::{
    content::{Digest, FileId},
    dht::DhtNode,
    identity::{FileName, GroupName, PeerId, RequestId, RingId, Role, UserName, key::SigningKey},
    time::Timestamp,
    transport::Prefix,
    wire::tracker::{Access, Change, JoinOutcome, NewFile, Password, Refusal},
};

const NOW: Timestamp = Timestamp::from_millis(1);

/// Two trackers of one ring, which have nothing but its rows in common.
struct Trackers {
    groups: [Groups; 2],
    files: [Files; 2],
    accounts: [Accounts; 2],
    dht: DhtNode,
    _folder: tempfile::TempDir,
}

impl Trackers {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ring = RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        let accounts =
            || Accounts::new(dht.clone(), ring, SigningKey::from_seed(&[8; 32])).unwrap();
        Self {
            groups: [Groups::new(dht.clone()), Groups::new(dht.clone())],
            files: [Files::new(dht.clone()), Files::new(dht.clone())],
            accounts: [accounts(), accounts()],
            dht,
            _folder: folder,
        }
    }

    /// A group that Alice owns and Bob and Carol are members of.
    async fn group(&self, name: &str) -> GroupName {
        let name = GroupName::new(name).unwrap();
        let ([groups, _], alice) = (&self.groups, alice());
        let made = groups.create(new(), &alice, &name, Access::Members, NOW);
        made.await.unwrap();
        for user in [bob(), carol()] {
            self.let_in(&name, &user).await;
        }
        name
    }

    async fn let_in(&self, group: &GroupName, user: &UserName) {
        let ([groups, _], alice) = (&self.groups, alice());
        groups.join(new(), user, group, NOW).await.unwrap();
        let accepted = groups.decide(new(), &alice, group, user, true, NOW);
        accepted.await.unwrap();
    }

    async fn give(&self, group: &GroupName, to: &UserName) {
        let alice = alice();
        let given = self.groups[0].transfer(new(), &alice, group, to, NOW);
        given.await.unwrap();
    }

    async fn put_out(&self, group: &GroupName, user: &UserName) {
        let alice = alice();
        let removed = self.groups[0].remove(new(), &alice, group, user, NOW);
        removed.await.unwrap();
    }
}

fn alice() -> UserName {
    UserName::new("Alice").unwrap()
}

fn bob() -> UserName {
    UserName::new("Bob").unwrap()
}

fn carol() -> UserName {
    UserName::new("Carol").unwrap()
}

/// A change that was never asked for.
fn new() -> Request {
    Request {
        peer: PeerId::from_bytes([7; 32]),
        change: Change::new(RequestId::from_bytes(rand::random())),
    }
}

/// The same as it is asked for again.
fn again(request: Request) -> Request {
    let change = Change {
        retry: true,
        ..request.change
    };
    Request { change, ..request }
}

#[tokio::test]
async fn who_was_let_in_or_out_is_so_when_asked_again_after_the_group_has_another_owner() {
    let ring = Trackers::new().await;
    let [one, other] = &ring.groups;
    let (alice, bob, carol) = (alice(), bob(), carol());

    let name = GroupName::new("accepting").unwrap();
    let made = one.create(new(), &alice, &name, Access::Members, NOW);
    made.await.unwrap();
    one.join(new(), &bob, &name, NOW).await.unwrap();
    one.join(new(), &carol, &name, NOW).await.unwrap();
    let (accepting, rejecting) = (new(), new());
    let accept =
        async |at: &Groups, request| at.decide(request, &alice, &name, &bob, true, NOW).await;
    let reject =
        async |at: &Groups, request| at.decide(request, &alice, &name, &carol, false, NOW).await;
    accept(one, accepting).await.unwrap();
    reject(one, rejecting).await.unwrap();
    ring.give(&name, &bob).await;
    assert_eq!(accept(other, again(accepting)).await, Ok(()));
    assert_eq!(reject(other, again(rejecting)).await, Ok(()));
    // One that was never made is decided as things are.
    let not_owner = Err(Refusal::NotOwner {
        group: name.clone(),
    });
    assert_eq!(accept(other, again(new())).await, not_owner);

    let name = ring.group("removing").await;
    let removing = new();
    let remove = async |at: &Groups, request| at.remove(request, &alice, &name, &carol, NOW).await;
    remove(one, removing).await.unwrap();
    ring.give(&name, &bob).await;
    assert_eq!(remove(other, again(removing)).await, Ok(()));
    assert!(matches!(
        remove(other, again(new())).await,
        Err(Refusal::NotOwner { .. })
    ));

    let name = ring.group("giving").await;
    let giving = new();
    let give = async |at: &Groups, request| at.transfer(request, &alice, &name, &bob, NOW).await;
    give(one, giving).await.unwrap();
    assert_eq!(give(other, again(giving)).await, Ok(()));
    assert!(matches!(
        give(other, again(new())).await,
        Err(Refusal::NotOwner { .. })
    ));
    ring.dht.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_joined_or_left_is_told_so_again_also_as_the_owner() {
    let ring = Trackers::new().await;
    let [one, other] = &ring.groups;
    let (alice, bob) = (alice(), bob());

    let name = GroupName::new("joining").unwrap();
    let creating = new();
    let create =
        async |at: &Groups, request| at.create(request, &alice, &name, Access::Open, NOW).await;
    create(one, creating).await.unwrap();
    assert_eq!(create(other, again(creating)).await, Ok(()));
    assert!(matches!(
        create(other, again(new())).await,
        Err(Refusal::GroupExists { .. })
    ));
    let joining = new();
    let join = async |at: &Groups, request| at.join(request, &bob, &name, NOW).await;
    assert_eq!(join(one, joining).await, Ok(JoinOutcome::Joined));
    assert_eq!(join(other, again(joining)).await, Ok(JoinOutcome::Joined));
    ring.give(&name, &bob).await;
    assert_eq!(join(other, again(joining)).await, Ok(JoinOutcome::Joined));
    assert!(matches!(
        join(other, again(new())).await,
        Err(Refusal::AlreadyMember { .. })
    ));

    let name = ring.group("leaving").await;
    let leaving = new();
    let leave = async |at: &Groups, request| at.leave(request, &bob, &name, NOW).await;
    leave(one, leaving).await.unwrap();
    assert_eq!(leave(other, again(leaving)).await, Ok(()));
    assert!(matches!(
        leave(other, again(new())).await,
        Err(Refusal::NotAMember { .. })
    ));
    ring.let_in(&name, &bob).await;
    ring.give(&name, &bob).await;
    assert_eq!(leave(other, again(leaving)).await, Ok(()));
    assert!(matches!(
        leave(other, again(new())).await,
        Err(Refusal::OwnerCannotLeave { .. })
    ));
    ring.dht.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_published_kept_or_given_up_is_so_when_its_peer_asks_again_from_outside() {
    let ring = Trackers::new().await;
    let [one, other] = &ring.files;
    let (bob, group) = (bob(), ring.group("g").await);
    let (name, id) = (FileName::new("x").unwrap(), FileId::from_bytes([1; 32]));
    let publish = async |at: &Files, request| {
        let standing = ring.groups[0].standing(&bob, &group).await.unwrap();
        let file = NewFile {
            name: name.clone(),
            id,
            size: 1,
            sha256: Digest::from_bytes([2; 32]),
        };
        at.publish(request, &bob, &standing, file, NOW).await
    };
    let keep = async |at: &Files, request: Request| {
        let standing = ring.groups[0].standing(&bob, &group).await.unwrap();
        at.add_sharer(request, &bob, &standing, &name, id).await
    };
    let stop = async |at: &Files, request| {
        let standing = ring.groups[0].standing(&bob, &group).await.unwrap();
        at.stop(request, &bob, &standing, &name, false).await
    };
    let elsewhere = |request: Request| Request {
        peer: PeerId::from_bytes([8; 32]),
        ..request
    };
    let (publishing, keeping, stopping) = (new(), elsewhere(new()), new());
    publish(one, publishing).await.unwrap();
    keep(one, keeping).await.unwrap();
    assert_eq!(stop(one, stopping).await, Ok(false));
    assert_eq!(stop(other, again(stopping)).await, Ok(false));
    assert!(matches!(
        stop(other, again(new())).await,
        Err(Refusal::NotSharing { .. })
    ));
    ring.put_out(&group, &bob).await;
    assert_eq!(publish(other, again(publishing)).await, Ok(()));
    assert!(matches!(
        publish(other, again(new())).await,
        Err(Refusal::NotAMember { .. })
    ));
    assert_eq!(keep(other, again(keeping)).await, Ok(()));
    assert!(matches!(
        keep(other, again(new())).await,
        Err(Refusal::NotAMember { .. })
    ));
    ring.dht.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_login_that_is_sent_again_begins_no_other_session() {
    let ring = Trackers::new().await;
    let [one, other] = &ring.accounts;
    let user = alice();
    let from = || Prefix::of([192, 0, 2, 1].into());
    let password = || Password::new("pass123");
    let made = one.create(from(), new(), user.clone(), password(), NOW);
    made.await.unwrap();
    let login = async |at: &Accounts, request| {
        let entered = at.login(from(), request, user.clone(), password(), NOW);
        entered.await
    };
    let entering = new();
    let first = login(one, entering).await.unwrap();
    // As by a tracker that was away when the peer gave it up, and has only now come to it.
    let second = login(other, entering).await.unwrap();
    assert_eq!(first.session, second.session);
    let shown = other.authenticate(entering.peer, &first.credential, NOW);
    assert_eq!(shown.await.unwrap().session, first.session);

    let leaving = new();
    one.logout(leaving, &user, first.session).await.unwrap();
    let left = other.logout(again(leaving), &user, first.session).await;
    assert_eq!(left, Ok(()));
    // Nor does it bring one back that was ended.
    let late = login(one, again(entering)).await;
    assert!(matches!(late, Err(Refusal::NotLoggedIn)), "{late:?}");
    let next = login(one, new()).await.unwrap();
    assert_ne!(next.session, first.session);
    ring.dht.shutdown().await.unwrap();
}

/// Lets two requests go on in turns: each goes as far as its next question to the ring, and that is answered before
/// the other goes on. The bits of `turns` say whose turn it is, the last bit first; when one is done, the other goes on
/// alone.
async fn in_turns<A, B>(
    turns: u32,
    one: impl Future<Output = A>,
    other: impl Future<Output = B>,
) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut done, mut taken) = ((None, None), 0);
    loop {
        let is_others = turns.checked_shr(taken).unwrap_or_default() & 1 == 1;
        match &mut done {
            (Some(_), Some(_)) => break,
            (None, Some(_)) => done.0 = turn(one.as_mut()).await,
            (Some(_), None) => done.1 = turn(other.as_mut()).await,
            (None, None) if is_others => done.1 = turn(other.as_mut()).await,
            (None, None) => done.0 = turn(one.as_mut()).await,
        }
        taken += 1;
    }
    (done.0.unwrap(), done.1.unwrap())
}

/// Goes on with a future, and waits until it could go on once more.
async fn turn<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    struct Woken(Notify);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.notify_one();
        }
    }
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(woken.clone());
    let polled = poll_fn(|_| Poll::Ready(future.as_mut().poll(&mut Context::from_waker(&waker))));
    match polled.await {
        Poll::Ready(done) => Some(done),
        Poll::Pending => {
            woken.0.notified().await;
            None
        }
    }
}

/// One goes some turns, then the other some, then each on to its end.
fn schedules(first: u32, second: u32) -> impl Iterator<Item = u32> {
    // A set bit is the second one's turn: it begins, waits, and ends when the first has come so far.
    (0..second).flat_map(move |begun| {
        (0..first).map(move |meanwhile| ((1 << begun) - 1) | (u32::MAX << (begun + meanwhile)))
    })
}

/// Gives the group to Bob while `end` ends his membership, in every order of their questions: whichever comes first, and
/// also when both are done, nobody is stuck with the group, and who was let go is out once he has given it on.
async fn transfer_beside<F>(end: impl Fn(&'static Trackers, GroupName) -> F)
where
    F: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    let ring: &'static Trackers = Box::leak(Box::new(Trackers::new().await));
    let mut running = JoinSet::new();
    for (number, turns) in schedules(18, 6).enumerate() {
        let name = GroupName::new(&format!("g{number}")).unwrap();
        let ended = end(ring, name.clone());
        running.spawn(async move {
            let [one, other] = &ring.groups;
            let (alice, bob, carol) = (alice(), bob(), carol());
            let made = one.create(new(), &alice, &name, Access::Open, NOW);
            made.await.unwrap();
            for user in [&bob, &carol] {
                one.join(new(), user, &name, NOW).await.unwrap();
            }
            let given = one.transfer(new(), &alice, &name, &bob, NOW);
            let (given, ended) = in_turns(turns, given, ended).await;
            let who = other.standing(&bob, &name).await.unwrap().role;
            match (&given, &ended) {
                (Ok(()), Ok(()) | Err(_)) => assert_eq!(who, Some(Role::Owner), "{turns:b}"),
                (Err(Refusal::UserNotAMember { .. }), Ok(())) => {
                    assert_eq!(who, None, "{turns:b}");
                    return false;
                }
                other => panic!("{turns:b}: {other:?}"),
            }
            let on = other.transfer(new(), &bob, &name, &carol, NOW).await;
            assert_eq!(on, Ok(()), "{turns:b}: {ended:?}");
            let role = async |user| one.standing(user, &name).await.unwrap().role;
            assert_eq!(role(&carol).await, Some(Role::Owner));
            assert_eq!(role(&alice).await, Some(Role::Member));
            let still = ended.is_err().then_some(Role::Member);
            assert_eq!(role(&bob).await, still, "{turns:b}: {ended:?}");
            if ended.is_ok() {
                let back = other.join(new(), &bob, &name, NOW).await;
                assert_eq!(back, Ok(JoinOutcome::Joined), "{turns:b}");
            }
            assert_eq!(other.leave(new(), &bob, &name, NOW).await, Ok(()));
            ended.is_ok()
        });
    }
    let orders = running.join_all().await;
    let both = orders.iter().filter(|both| **both).count();
    println!("both were done in {both} of {} orders", orders.len());
    assert!(both > 0 && both < orders.len());
    ring.dht.shutdown().await.unwrap();
}

#[tokio::test]
async fn whoever_is_given_a_group_while_he_leaves_it_can_give_it_on() {
    let leave = |ring: &'static Trackers, name: GroupName| async move {
        ring.groups[1].leave(new(), &bob(), &name, NOW).await
    };
    transfer_beside(leave).await;
}

#[tokio::test]
async fn whoever_is_given_a_group_while_he_is_put_out_of_it_can_give_it_on() {
    let remove = |ring: &'static Trackers, name: GroupName| async move {
        let (alice, bob) = (alice(), bob());
        ring.groups[1].remove(new(), &alice, &name, &bob, NOW).await
    };
    transfer_beside(remove).await;
}

#[tokio::test]
async fn who_keeps_a_file_is_noted_at_the_second_try_too_however_many_were_before() {
    let ring = Trackers::new().await;
    let [one, other] = &ring.files;
    let (bob, name) = (bob(), FileName::new("x").unwrap());
    let group = ring.group("kept").await;
    let standing = ring.groups[0].standing(&bob, &group).await.unwrap();
    let id = FileId::from_bytes([1; 32]);
    let file = NewFile {
        name: name.clone(),
        id,
        size: 1,
        sha256: Digest::from_bytes([2; 32]),
    };
    one.publish(new(), &bob, &standing, file, NOW)
        .await
        .unwrap();
    let of = |peer| Request {
        peer: PeerId::from_bytes([peer; 32]),
        ..new()
    };
    let first = of(100);
    for request in (100..118).map(|peer| if peer == 100 { first } else { of(peer) }) {
        let kept = one.add_sharer(request, &bob, &standing, &name, id);
        assert_eq!(kept.await, Ok(()));
    }
    // One that was made and forgotten, and one that was not made.
    for request in [again(first), again(of(200))] {
        let kept = other.add_sharer(request, &bob, &standing, &name, id);
        assert_eq!(kept.await, Ok(()));
    }
    let kept = one.find(&standing, &name).await.unwrap();
    assert_eq!(kept.sharers, 1 + 18 + 1);
}

#[tokio::test]
async fn a_group_that_was_not_given_is_not_given_by_a_tracker_that_wakes_later() {
    let ring = Trackers::new().await;
    let [asleep, other] = &ring.groups;
    let (alice, bob, dave) = (alice(), bob(), UserName::new("Dave").unwrap());
    let group = ring.group("giving").await;
    let giving = new();
    let refused = other.transfer(again(giving), &alice, &group, &dave, NOW);
    let not_a_member = Refusal::UserNotAMember {
        group: group.clone(),
        user: dave.clone(),
    };
    assert_eq!(refused.await, Err(not_a_member));
    ring.let_in(&group, &dave).await;
    let woken = asleep.transfer(giving, &alice, &group, &dave, NOW).await;
    assert_eq!(woken, Err(Refusal::OutcomeUnknown));
    let standing = other.standing(&alice, &group).await.unwrap();
    assert_eq!(standing.owner, alice);
    // Whoever gives it anew does.
    ring.give(&group, &bob).await;
    ring.dht.shutdown().await.unwrap();
}
