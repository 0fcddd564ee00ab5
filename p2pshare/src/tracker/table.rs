//! The ring's rows as typed values, and the one way in which a tracker changes any: read the row, decide
//! from its value alone, and compare-and-set; whoever lost a race reads and decides again.
//!
//! A change that its requester sent before is found by its request key and never decided twice. Where the row
//! has forgotten who made it, a retry is neither made nor refused: whether it was made before is unknown.
//!
//! **A refusal holds.** The tracker that was asked first may only be asleep, and decide by another row when it wakes. So
//! a retry of which nothing comes makes its request *void* before that is said: a version of the row that changes
//! nothing, by another name of the request. Who looked at the row before finds that version in its way, or that the
//! row has forgotten who made which since; who looks later finds the name. Only who looks first after sixteen changes
//! more finds neither, and that is a tracker whose connection was closed long ago, which ends what was asked on it.
//! Names that are taken are taken for ever, so that to be told so holds anyway; and who may not change the row does
//! not write to it, so that a retry of his is told by the service that its outcome is unknown.

use crate::{
    dht::{Attempt, DhtNode, Row, RowChange, RowError},
    identity::{PeerId, RequestId},
    limits::{CHANGE_RACES_MAX, KNOWN_PAGE_ROWS},
    tracker::rows::RowValue,
    wire::{
        ring::{RequestKey, RowKey, Version},
        tracker::{Change, Refusal},
    },
};

/// A change and the peer that asked for it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Request {
    pub(super) peer: PeerId,
    pub(super) change: Change,
}

impl Request {
    fn key(self) -> RequestKey {
        RequestKey {
            peer: self.peer,
            request: self.change.request,
        }
    }

    /// By what a row remembers that nothing comes of this request any more. Ids are random, so that it is no other's.
    fn void_key(self) -> RequestKey {
        let mut id = *self.change.request.as_bytes();
        for (byte, mask) in id.iter_mut().zip(VOID) {
            *byte ^= mask;
        }
        RequestKey {
            peer: self.peer,
            request: RequestId::from_bytes(id),
        }
    }

    fn attempt(self) -> Attempt {
        if self.change.retry {
            Attempt::Retry
        } else {
            Attempt::First
        }
    }
}

/// How the name by which a request is void differs from its own.
const VOID: &[u8; 16] = b"p2pshare/void/1\0";

/// What is to become of a row.
pub(super) enum Decision<T, R> {
    /// It stays, and this is the answer.
    Keep(R),
    /// It gets this value (`None` deletes it), and then this is the answer.
    Put(Option<T>, R),
}

/// The value of `key`, as a majority has it; `None` when there is none, or it was deleted.
pub(super) async fn read<T: RowValue>(dht: &DhtNode, key: &RowKey) -> Result<Option<T>, Refusal> {
    match dht.read(key).await? {
        Some(row) => value_of(&row),
        None => Ok(None),
    }
}

/// The value of `key` as this tracker knows it, whoever else can be reached: what was decided meanwhile, it may
/// lack. `None` says nothing of what the ring has.
pub(super) async fn known<T: RowValue>(dht: &DhtNode, key: &RowKey) -> Result<Option<T>, Refusal> {
    // A row lies behind every beginning of its key, and hardly anything between.
    let before = key.sort().split_last().map(|(_, before)| before.to_vec());
    let (mut after, mut found) = (before, None);
    loop {
        let page = dht.list(key.partition(), after, KNOWN_PAGE_ROWS).await?;
        for (sort, row) in &page.rows {
            if sort == key.sort() {
                found = value_of(row)?;
            }
        }
        match page.next {
            Some(next) if *next < *key.sort() => after = Some(next),
            _ => return Ok(found),
        }
    }
}

/// Whether `request` was carried out on the row at `key` before.
pub(super) async fn was_done(
    dht: &DhtNode,
    key: &RowKey,
    request: Request,
) -> Result<bool, Refusal> {
    match dht.read(key).await? {
        Some(row) => made(&row, request, None),
        None => Ok(false),
    }
}

/// Whether `request` made one of the versions of `row`. A first attempt made none up to `before`, at which it saw
/// the row first; since then a retry of it may have been faster.
fn made(row: &Row, request: Request, before: Option<u64>) -> Result<bool, Refusal> {
    if row.produced_by(&request.key()).is_some() {
        return Ok(true);
    }
    let before = match request.attempt() {
        Attempt::First => before.unwrap_or(row.version.as_u64()),
        Attempt::Retry => 0,
    };
    match row.has_forgotten_since(before) {
        true => Err(Refusal::OutcomeUnknown),
        false => Ok(false),
    }
}

/// The value in `row`; `None` when it was deleted.
pub(super) fn value_of<T: RowValue>(row: &Row) -> Result<Option<T>, Refusal> {
    let Some(bytes) = &row.value else {
        return Ok(None);
    };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(Some(value)),
        _ => {
            tracing::error!("a row of the ring cannot be read by this version");
            Err(Refusal::Internal)
        }
    }
}

/// Changes the row at `key` as `decide` says of its value, once for `request`. `again` answers for a
/// request that was carried out before, from the value as it is now. Of a retry that it answers without a change
/// nothing comes later either.
pub(super) async fn change<T: RowValue, R>(
    dht: &DhtNode,
    key: &RowKey,
    request: Request,
    decide: impl Fn(Option<T>) -> Result<Decision<T, R>, Refusal>,
    again: impl Fn(Option<T>) -> Result<R, Refusal>,
) -> Result<R, Refusal> {
    let mut before = None;
    for _ in 0..CHANGE_RACES_MAX {
        let row = dht.read(key).await?;
        let seen = row.as_ref().map_or(0, |row| row.version.as_u64());
        let before = *before.get_or_insert(seen);
        let value = match &row {
            Some(row) => value_of(row)?,
            None => None,
        };
        if let Some(row) = &row
            && made(row, request, Some(before))?
        {
            return again(value);
        }
        let version = row.as_ref().map_or(Version::NEVER, |row| row.version);
        let void = request.void_key();
        let is_void = row
            .as_ref()
            .and_then(|row| row.produced_by(&void))
            .is_some();
        let answer = match decide(value) {
            Ok(Decision::Put(..)) if is_void => Err(Refusal::OutcomeUnknown),
            Ok(Decision::Put(value, answer)) => {
                let value = value.map(|value| postcard::to_allocvec(&value));
                let value = value.transpose().map_err(|_| Refusal::Internal)?;
                match put(dht, key, version, value, (request.key(), request.attempt())).await? {
                    RowChange::Conflict { .. } => continue,
                    _ => return Ok(answer),
                }
            }
            Ok(Decision::Keep(answer)) => Ok(answer),
            Err(refusal) => Err(refusal),
        };
        let holds = match &answer {
            Err(refusal) => refusal.is_for_ever() || refusal.is_of_the_asker(),
            Ok(_) => false,
        };
        if request.attempt() == Attempt::First || is_void || holds {
            return answer;
        }
        let same = row.and_then(|row| row.value);
        match put(dht, key, version, same, (void, request.attempt())).await? {
            RowChange::Conflict { .. } => {}
            _ => return answer,
        }
    }
    Err(Refusal::Busy)
}

async fn put(
    dht: &DhtNode,
    key: &RowKey,
    expected: Version,
    value: Option<Vec<u8>>,
    (maker, attempt): (RequestKey, Attempt),
) -> Result<RowChange, Refusal> {
    let changed = dht.compare_and_set(key, expected, value, maker, attempt);
    changed.await.map_err(|error| match error {
        // Others may have taken it before the store of this tracker failed.
        RowError::Store(error) => {
            tracing::error!(%error, "the ring's store failed");
            Refusal::OutcomeUnknown
        }
        error => error.into(),
    })
}

impl From<RowError> for Refusal {
    fn from(error: RowError) -> Self {
        match error {
            RowError::InsufficientReplicas {
                reachable,
                members,
                needed,
            } => Self::InsufficientReplicas {
                reachable: count(reachable),
                members: count(members),
                needed: count(needed),
            },
            RowError::NotFounded { .. } => Self::NotFounded,
            RowError::OutcomeUnknown => Self::OutcomeUnknown,
            RowError::Contended | RowError::StaleEpoch => Self::Busy,
            error => {
                tracing::error!(%error, "the ring's store failed");
                Self::Internal
            }
        }
    }
}

fn count(replicas: usize) -> u32 {
    u32::try_from(replicas).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{GroupName, RequestId, RingId, SessionId},
        time::Timestamp,
        tracker::rows::{SessionRow, group_key},
    };

    fn request(i: u8, retry: bool) -> Request {
        let change = Change {
            request: RequestId::from_bytes([i; 16]),
            retry,
        };
        let peer = PeerId::from_bytes([1; 32]);
        Request { peer, change }
    }

    /// Makes the row if there is none, as whoever creates something does.
    async fn create(
        dht: &DhtNode,
        key: &RowKey,
        request: Request,
    ) -> Result<&'static str, Refusal> {
        let group = GroupName::new("g").unwrap();
        change(
            dht,
            key,
            request,
            |found: Option<SessionRow>| match found {
                Some(_) => Err(Refusal::GroupExists {
                    group: group.clone(),
                }),
                None => Ok(Decision::Put(Some(row(0)), "made")),
            },
            |_| Ok("was made"),
        )
        .await
    }

    fn row(begun: u64) -> SessionRow {
        SessionRow::V1 {
            session: SessionId::from_bytes([0; 16]),
            generation: 1,
            begun: Timestamp::from_millis(begun),
        }
    }

    #[tokio::test]
    async fn a_retry_that_the_row_has_forgotten_is_unknown_and_not_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ring = RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        let key = group_key(&GroupName::new("g").unwrap());
        assert_eq!(create(&dht, &key, request(0, false)).await, Ok("made"));
        let refused = Err(Refusal::GroupExists {
            group: GroupName::new("g").unwrap(),
        });
        for i in 1..=16 {
            // As long as the row knows all who changed it, it knows what to say.
            assert_eq!(create(&dht, &key, request(0, true)).await, Ok("was made"));
            assert_eq!(create(&dht, &key, request(99, true)).await, refused);
            change(
                &dht,
                &key,
                request(i, false),
                |_| Ok(Decision::Put(Some(row(i.into())), ())),
                |_| Ok(()),
            )
            .await
            .unwrap();
        }
        let unknown = Refusal::OutcomeUnknown;
        for forgotten in [request(0, true), request(99, true)] {
            let again = create(&dht, &key, forgotten).await;
            assert_eq!(again, Err(unknown.clone()));
            let done = was_done(&dht, &key, forgotten).await;
            assert_eq!(done, Err(unknown.clone()));
        }
        // What is remembered is still found, and what was never sent before is still decided.
        assert_eq!(was_done(&dht, &key, request(1, true)).await, Ok(true));
        assert_eq!(create(&dht, &key, request(99, false)).await, refused);
        let kept = read::<SessionRow>(&dht, &key).await.unwrap();
        assert_eq!(kept, Some(row(16)), "something was changed");
        dht.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_first_attempt_that_is_slower_than_its_retry_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let ring = RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        // Others change the row that often between its first look and its change, the last deletes it.
        let late = async |first: u8, others: u8, meanwhile: Option<Request>, key: &RowKey| {
            let looks = std::cell::Cell::new(0);
            let deletes_last = async || {
                if let Some(retry) = meanwhile {
                    create(&dht, key, retry).await.unwrap();
                }
                for i in 1..=others {
                    let value = (i < others).then(|| row(i.into()));
                    let decide = |_| Ok(Decision::Put(value.clone(), ()));
                    let other = request(first + i, false);
                    change(&dht, key, other, decide, |_| Ok(())).await.unwrap();
                }
            };
            let decide = |found: Option<SessionRow>| {
                looks.set(looks.get() + 1);
                if looks.get() == 1 {
                    let runtime = tokio::runtime::Handle::current();
                    tokio::task::block_in_place(|| runtime.block_on(deletes_last()));
                }
                assert!(found.is_none());
                Ok(Decision::Put(Some(row(99)), "made"))
            };
            let first = request(first, false);
            change(&dht, key, first, decide, |_| Ok("was made")).await
        };
        let key = |name: &str| group_key(&GroupName::new(name).unwrap());
        let retry = Some(request(0, true));
        let made = late(0, 3, retry, &key("found")).await;
        assert_eq!(made, Ok("made"));
        let made = late(0, 17, retry, &key("forgotten")).await;
        assert_eq!(made, Err(Refusal::OutcomeUnknown));
        let kept = read::<SessionRow>(&dht, &key("forgotten")).await.unwrap();
        assert_eq!(kept, None, "what was deleted is back");
        // A race that was lost is no more than that, however old the row is.
        for first in [40, 80, 120] {
            let key = key("old");
            assert_eq!(late(first, 9, None, &key).await, Ok("made"));
            let gone = |_| Ok(Decision::Put(None::<SessionRow>, ()));
            change(&dht, &key, request(first + 30, false), gone, |_| Ok(()))
                .await
                .unwrap();
        }
        dht.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_answered_without_a_change_is_not_done_by_a_first_attempt_that_wakes_later() {
        let folder = tempfile::tempdir().unwrap();
        let ring = RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        let refusal = Refusal::AlreadyMember {
            group: GroupName::new("g").unwrap(),
        };
        // Puts something where there is nothing; where there is, it is refused, or has nothing to do.
        let ask = async |key: &RowKey, keeps: bool, request: Request, sleep: &dyn Fn()| {
            let decide = |found: Option<SessionRow>| {
                sleep();
                match found {
                    Some(_) if keeps => Ok(Decision::Keep("is there")),
                    Some(_) => Err(refusal.clone()),
                    None => Ok(Decision::Put(Some(row(0)), "made")),
                }
            };
            change(&dht, key, request, decide, |_| Ok("was made")).await
        };
        let other = async |key: &RowKey, i: u8, value: Option<SessionRow>| {
            let decide = |_| Ok(Decision::Put(value.clone(), ()));
            let other = change(&dht, key, request(i, false), decide, |_| Ok(()));
            other.await.unwrap();
        };
        let (first, retry) = (request(0, false), request(0, true));
        for keeps in [true, false] {
            let key = |when: &str| group_key(&GroupName::new(&format!("{when}.{keeps}")).unwrap());
            let answered = match keeps {
                true => Ok("is there"),
                false => Err(refusal.clone()),
            };
            let meanwhile = async |key: &RowKey| {
                other(key, 1, Some(row(1))).await;
                assert_eq!(ask(key, keeps, retry, &|| {}).await, answered);
                // A retry of the retry is answered alike.
                assert_eq!(ask(key, keeps, retry, &|| {}).await, answered);
                other(key, 2, None).await;
            };
            let asleep = key("asleep");
            let sleeps = std::cell::Cell::new(true);
            let sleep = || {
                if sleeps.take() {
                    let runtime = tokio::runtime::Handle::current();
                    tokio::task::block_in_place(|| runtime.block_on(meanwhile(&asleep)));
                }
            };
            let late = ask(&asleep, keeps, first, &sleep).await;
            assert_eq!(late, Err(Refusal::OutcomeUnknown), "asleep, {keeps}");
            let unseen = key("unseen");
            meanwhile(&unseen).await;
            let late = ask(&unseen, keeps, first, &|| {}).await;
            assert_eq!(late, Err(Refusal::OutcomeUnknown), "unseen, {keeps}");
            for key in [asleep, unseen] {
                assert_eq!(read::<SessionRow>(&dht, &key).await, Ok(None));
                // Nobody else is kept from it.
                assert_eq!(
                    ask(&key, keeps, request(3, false), &|| {}).await,
                    Ok("made")
                );
            }
        }
        dht.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_row_is_known_whatever_stands_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let ring = RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        let key = |sort: String| RowKey::new("p", sort).unwrap();
        // More than a page of them before the one that is looked for.
        for i in 0..3 * KNOWN_PAGE_ROWS {
            let key = key(format!("bo{i:03}"));
            create(&dht, &key, request(0, false)).await.unwrap();
        }
        let found = async |sort: &str| known::<SessionRow>(&dht, &key(sort.into())).await;
        assert_eq!(found("bob").await, Ok(None));
        for sort in ["bob", "boc"] {
            let key = key(sort.into());
            create(&dht, &key, request(0, false)).await.unwrap();
        }
        for sort in ["bob", "bo000", "bo047"] {
            assert_eq!(found(sort).await, Ok(Some(row(0))), "{sort}");
        }
        assert_eq!(found("bo").await, Ok(None));
        dht.shutdown().await.unwrap();
    }
}
