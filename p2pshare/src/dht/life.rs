//! One life of a member, from an open store to its tasks.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::builder::DhtBindError;
use super::founding::{self, Beginning, Identity};
use super::host::{Authority, Core};
use super::links::Links;
use super::member::Member;
use super::node::DhtNode;
use super::{startup, upkeep};
use crate::identity::key::{NoRandomness, SigningKey};
use crate::identity::{MemberId, RingId, TrackerAddr};
use crate::store::{Store, StoreError};
use crate::transport::Endpoint;
use crate::wire::ring::RingMember;

/// The place of a member among the others.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// The address of this member, as the list has it.
    pub(super) own: TrackerAddr,
    /// The addresses of all founders, its own among them.
    pub(super) founders: Vec<TrackerAddr>,
    /// By what it proves that it is a member.
    pub(super) authority: Authority,
    /// On its DHT port; it accepts the protocol of the ring. None of a member that is alone.
    pub(super) endpoint: Option<Endpoint>,
    /// How far this machine's clock is off, in milliseconds, for tests.
    pub(super) skew: i64,
}

impl Surroundings {
    /// Of one that speaks to nobody: its keys are good for nothing, and its address is none.
    pub(super) fn alone() -> Result<Self, NoRandomness> {
        let key = SigningKey::generate(&ring::rand::SystemRandom::new())?;
        let own = NOWHERE.parse::<TrackerAddr>();
        #[expect(clippy::expect_used, reason = "an address and a port")]
        let own = own.expect("an address and a port");
        Ok(Self {
            founders: vec![own.clone()],
            own,
            authority: Authority {
                tokens: key.verifying_key(),
                peer: key.verifying_key().into(),
                ring: key,
            },
            endpoint: None,
            skew: 0,
        })
    }
}

/// Where a member is that nobody dials.
const NOWHERE: &str = "127.0.0.1:1";

/// Begins a life over an open store. `noted` is the file that remembers how many commits it had.
pub(super) async fn start(
    store: Store,
    path: PathBuf,
    ring: RingId,
    around: Surroundings,
    noted: Option<PathBuf>,
) -> Result<DhtNode, DhtBindError> {
    let commits = store.commits();
    let remembered = match &noted {
        Some(noted) => upkeep::read_commits(noted).await.unwrap_or(0),
        None => 0,
    };
    let Surroundings {
        own,
        founders,
        authority,
        endpoint,
        skew,
    } = around;
    let (newcomer, addr) = (MemberId::from_bytes(rand::random()), own.clone());
    let identity = store
        .write(move |tx| founding::begin(tx, ring, newcomer, &addr, commits, remembered))
        .await?;
    let identity = match identity {
        Ok(identity) => identity,
        Err(found) => {
            let expected = ring;
            return Err(DhtBindError::OtherRing {
                path,
                found,
                expected,
            });
        }
    };
    if let Some(of) = place_of_another(&identity, &own) {
        return Err(DhtBindError::OtherMember {
            path,
            of,
            asked: own,
        });
    }
    let me = RingMember {
        id: identity.life.member,
        addr: own.clone(),
    };
    let beginning = Beginning::new(&identity, own.clone(), founders.clone());
    if remembered > identity.commits
        && let Some(noted) = &noted
    {
        // The disk knows now.
        upkeep::write_commits(noted, identity.commits).await;
        tracing::error!(
            commits = identity.commits,
            remembered,
            "the disk of this tracker has lost what it had"
        );
    }
    let (returning, others) = (beginning.is_returning(), beginning.others());
    let core = Arc::new(Core::new(identity, own, store, authority, skew, beginning));
    let links = Links::new(endpoint, ring, me);
    let member = Arc::new(Member::new(core.clone(), links, founders.len()));
    match core.record() {
        Some(record) => {
            // Until it votes it answers nothing, but it knows its ring.
            core.become_member(record.clone(), core.life(), returning, core.ahead())
                .await?;
            member.links.set_members(record.members());
        }
        None => member.links.set_founders(&founders),
    }
    member.links.start(Arc::downgrade(&core));
    let mut tasks = JoinSet::new();
    if founders.len() == 1 && others.is_empty() {
        startup::begin(&member).await?;
    } else {
        let beginner = member.clone();
        let begun = async move {
            if let Err(error) = startup::begin(&beginner).await {
                beginner.core.fail(error);
            }
        };
        tasks.spawn(watched(core.clone(), begun));
    }
    tasks.spawn(watched(core.clone(), upkeep::repair(member.clone())));
    tasks.spawn(watched(
        core.clone(),
        upkeep::exchange_leases(member.clone()),
    ));
    tasks.spawn(watched(core.clone(), upkeep::scrub(member.clone())));
    tasks.spawn(watched(core, upkeep::note(member.clone(), noted)));
    Ok(DhtNode::new(member, tasks))
}

/// Where the member of a folder belongs, if another one belongs at `own`: the folder is a copy, or the numbers of two
/// trackers were taken for each other.
fn place_of_another(identity: &Identity, own: &TrackerAddr) -> Option<TrackerAddr> {
    let record = identity.record.as_ref()?;
    let belongs = record.member(identity.life.member)?;
    let other = record.member_at(own)?;
    (other.id != belongs.id).then(|| belongs.addr.clone())
}

/// A task of a member, whose panic is the end of it.
async fn watched(core: Arc<Core>, task: impl Future<Output = ()>) {
    struct Watch(Arc<Core>);
    impl Drop for Watch {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.fail(StoreError::JobPanicked);
            }
        }
    }
    let _watch = Watch(core);
    task.await;
}
