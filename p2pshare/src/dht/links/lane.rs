//! What waits to be asked of one member. Whatever has queued while earlier batches are under way is the next
//! batch, so that the busier a member is, the less each ask costs.
//!
//! **Invariants.** Each ask that is taken is answered once, by an [`Input`] of the member. Reads never wait for
//! writes: each member has a lane for either. A batch and its answers fit into their frames.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::time::{Instant, timeout};

use super::{Host, Shared};
use crate::dht::machine::Input;
use crate::identity::MemberId;
use crate::limits::{
    LEASE_MESSAGE_BYTES_MAX, REPLICA_BATCH_BYTES_MAX, REPLICA_BATCH_PATIENCE,
    REPLICA_BATCH_REQUESTS_MAX, REPLICA_BATCH_TIMEOUT, REPLICA_BATCHES_UNDER_WAY,
    REPLICA_PAGE_BYTES, REPLICA_QUEUE_MAX,
};
use crate::transport::{CloseCode, Connection, RequestError};
use crate::wire::frame::Message;
use crate::wire::ring::{
    ReplicaAnswer, ReplicaAnswers, ReplicaBatch, ReplicaCall, ReplicaRequest, RowKey, RowState,
};

/// The two lanes to one member. Dropping them fails what waits.
pub(super) struct Lanes {
    reads: mpsc::Sender<Ask>,
    writes: mpsc::Sender<Ask>,
}

/// The connection over which a member is asked, while there is one, and the incarnation at its end.
#[derive(Default)]
pub(super) struct Wire(Mutex<Option<(u64, Connection)>>);

impl Wire {
    pub(super) fn set(&self, connection: Option<(u64, Connection)>) {
        let before = {
            let mut wire = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *wire, connection)
        };
        // Not under the lock: the last of a connection closes it.
        drop(before);
    }

    pub(super) fn get(&self) -> Option<Connection> {
        self.life().map(|(_, connection)| connection)
    }

    pub(super) fn is_up(&self) -> bool {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire.as_ref()
            .is_some_and(|(_, connection)| connection.close_reason().is_none())
    }

    /// Closes the connection if it leads to a life before this one, which is over.
    pub(super) fn outlive(&self, incarnation: u64) {
        if let Some((before, connection)) = self.life()
            && before < incarnation
        {
            connection.close_with(
                CloseCode::Superseded,
                "a later life of the member has spoken",
            );
        }
    }

    fn life(&self) -> Option<(u64, Connection)> {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire.as_ref()
            .filter(|(_, connection)| connection.close_reason().is_none())
            .cloned()
    }
}

/// How a batch gets to the member and its answers back.
#[derive(Clone)]
pub(super) enum Way {
    /// It is this member.
    Itself,
    /// Over the network.
    Over(Arc<Wire>),
}

/// One request, and who waits for its answer.
struct Ask {
    request: ReplicaRequest,
    reply: mpsc::Sender<Input>,
}

impl Lanes {
    /// Lanes to `member`, of the links `shared`.
    pub(super) fn new<H: Host>(shared: &Arc<Shared<H>>, member: MemberId, way: &Way) -> Self {
        let lane = || {
            let (sender, receiver) = mpsc::channel(REPLICA_QUEUE_MAX);
            let queue = Arc::new(Queue(AsyncMutex::new((receiver, None))));
            for _ in 0..REPLICA_BATCHES_UNDER_WAY {
                let carrier = Carrier {
                    shared: Arc::downgrade(shared),
                    member,
                    way: way.clone(),
                };
                shared.spawn(carrier.run(queue.clone()));
            }
            sender
        };
        Self {
            reads: lane(),
            writes: lane(),
        }
    }

    /// Queues a request, or says at once that it failed.
    pub(super) fn ask(&self, from: MemberId, request: ReplicaRequest, reply: &mpsc::Sender<Input>) {
        let lane = match is_write(&request.call) {
            true => &self.writes,
            false => &self.reads,
        };
        match lane.try_reserve() {
            Ok(place) => place.send(Ask {
                request,
                reply: reply.clone(),
            }),
            Err(_) => fail(reply, from),
        }
    }
}

/// Says that a member will not answer. It is dropped where nobody waits any more.
pub(super) fn fail(reply: &mpsc::Sender<Input>, from: MemberId) {
    _ = reply.try_send(Input::Failed { from });
}

/// Asks in the order in which they came, and the one that did not fit into the last batch.
struct Queue(AsyncMutex<(mpsc::Receiver<Ask>, Option<Ask>)>);

impl Queue {
    /// What waits, as far as it fits into one batch; `None` once nobody can ask any more.
    async fn next_batch(&self) -> Option<Vec<Ask>> {
        let mut queue = self.0.lock().await;
        let (receiver, left_over) = &mut *queue;
        let first = match left_over.take() {
            Some(ask) => ask,
            None => receiver.recv().await?,
        };
        // Whoever is about to ask gets onto the same batch.
        tokio::task::yield_now().await;
        let mut room = Room::new();
        // Alone it goes even where it takes more than all of the room.
        room.take(&first.request);
        let mut batch = vec![first];
        while let Ok(ask) = receiver.try_recv() {
            if !room.take(&ask.request) {
                *left_over = Some(ask);
                break;
            }
            batch.push(ask);
        }
        Some(batch)
    }
}

/// What is left of a batch and of its answers.
struct Room {
    requests: usize,
    bytes: usize,
    answer_bytes: usize,
}

impl Room {
    fn new() -> Self {
        Self {
            requests: REPLICA_BATCH_REQUESTS_MAX,
            bytes: REPLICA_BATCH_BYTES_MAX - BATCH_BYTES,
            answer_bytes: ReplicaAnswers::BODY_BYTES_MAX - BATCH_BYTES,
        }
    }

    /// Takes room for a request, if there is enough of it.
    fn take(&mut self, request: &ReplicaRequest) -> bool {
        // Plain data has a size.
        let bytes = postcard::experimental::serialized_size(request).unwrap_or(usize::MAX);
        let answer_bytes = answer_bytes_max(&request.call);
        let (Some(requests), Some(bytes), Some(answer_bytes)) = (
            self.requests.checked_sub(1),
            self.bytes.checked_sub(bytes),
            self.answer_bytes.checked_sub(answer_bytes),
        ) else {
            return false;
        };
        *self = Self {
            requests,
            bytes,
            answer_bytes,
        };
        true
    }
}

/// One of those who carry the batches of a lane, one at a time each.
struct Carrier<H> {
    shared: Weak<Shared<H>>,
    member: MemberId,
    way: Way,
}

impl<H: Host> Carrier<H> {
    async fn run(self, queue: Arc<Queue>) {
        while let Some(batch) = queue.next_batch().await {
            let (requests, waiting): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|ask| (ask.request, ask.reply))
                .unzip();
            let from = self.member;
            match self.carry(requests).await {
                Some(answers) => {
                    for (reply, answer) in waiting.iter().zip(answers) {
                        _ = reply.try_send(Input::Answer { from, answer });
                    }
                }
                None => waiting.iter().for_each(|reply| fail(reply, from)),
            }
        }
    }

    /// The answers to a batch, one for each request.
    async fn carry(&self, requests: Vec<ReplicaRequest>) -> Option<Vec<ReplicaAnswer>> {
        let host = self.shared.upgrade()?.host()?;
        let wire = match &self.way {
            Way::Over(wire) => wire,
            Way::Itself => {
                let asked = requests.len();
                let answers = host.answer(self.member, requests);
                let answers = timeout(REPLICA_BATCH_TIMEOUT, answers).await.ok()?;
                return (answers.len() == asked).then_some(answers);
            }
        };
        let connection = wire.get()?;
        let fitting: Vec<Fits> = requests.iter().map(|request| fits(&request.call)).collect();
        let batch = ReplicaBatch::new(requests)?;
        let began = Instant::now();
        let asked = connection.request::<_, ReplicaAnswers>(&batch, REPLICA_BATCH_TIMEOUT);
        let answered = tokio::select! {
            biased;
            answered = asked => answered,
            () = self.desert(&connection) => return None,
        };
        let ReplicaAnswers {
            answers,
            commits,
            clocks,
        } = match answered {
            Ok(answered) => answered,
            Err(error) => {
                self.complain(&error);
                return None;
            }
        };
        let right = answers.len() == fitting.len()
            && fitting
                .iter()
                .zip(&answers)
                .all(|(fits, answer)| fits(answer));
        if !right {
            tracing::warn!(member = %self.member, "closing a link: the answers do not fit what was asked");
            connection.close_with(CloseCode::ProtocolError, "the answers do not fit");
            return None;
        }
        host.heard(self.member, clocks, began.elapsed(), commits);
        Some(answers)
    }

    /// Closes the connection, and resolves, once a batch has waited for long and nobody listens at the other end
    /// any more. A process that was killed says no goodbye, and its silence alone would tell much later.
    async fn desert(&self, connection: &Connection) {
        tokio::time::sleep(REPLICA_BATCH_PATIENCE).await;
        let endpoint = self.shared.upgrade().and_then(|shared| shared.endpoint());
        let Some(endpoint) = endpoint else {
            return std::future::pending().await;
        };
        let reason = endpoint.is_deserted(connection).await;
        tracing::info!(member = %self.member, reason, "closing a link: the member is gone");
        connection.close(CloseCode::Done);
    }

    fn complain(&self, error: &RequestError) {
        let member = self.member;
        match error {
            RequestError::Unsendable(error) => {
                tracing::error!(%member, %error, "a batch cannot be sent");
            }
            error => tracing::debug!(%member, %error, "a batch has no answers"),
        }
    }
}

/// Whether the call changes something, so that its answer waits for the disk.
fn is_write(call: &ReplicaCall) -> bool {
    match call {
        ReplicaCall::Prepare { .. }
        | ReplicaCall::Accept { .. }
        | ReplicaCall::Fence { .. }
        | ReplicaCall::Install { .. } => true,
        ReplicaCall::Read { .. }
        | ReplicaCall::List { .. }
        | ReplicaCall::Scan { .. }
        | ReplicaCall::Pull { .. }
        | ReplicaCall::TreeGroups { .. }
        | ReplicaCall::TreeSlices { .. }
        | ReplicaCall::TreeLeaves { .. }
        | ReplicaCall::TreeRows { .. }
        | ReplicaCall::LeasePut(_)
        | ReplicaCall::LeaseGet { .. }
        | ReplicaCall::LeaseVectors { .. }
        | ReplicaCall::LeaseLacking { .. } => false,
    }
}

type Fits = fn(&ReplicaAnswer) -> bool;

/// What can be the answer to a call.
fn fits(call: &ReplicaCall) -> Fits {
    use ReplicaAnswer as Answer;
    macro_rules! one_of {
        ($($pattern:pat_param)|+) => {
            |answer| matches!(answer, $($pattern)|+ | Answer::StaleEpoch { .. } | Answer::Unavailable)
        };
    }
    match call {
        ReplicaCall::Prepare { .. } => one_of!(Answer::Promised { .. } | Answer::Refused { .. }),
        ReplicaCall::Accept { .. } => one_of!(Answer::Accepted { .. } | Answer::Refused { .. }),
        ReplicaCall::Read { .. } => one_of!(Answer::Row { .. }),
        ReplicaCall::List { .. } => one_of!(Answer::Rows { .. }),
        ReplicaCall::Scan { .. } => one_of!(Answer::Scanned { .. }),
        ReplicaCall::Fence { .. } => one_of!(Answer::Fenced { .. }),
        ReplicaCall::Install { .. } => one_of!(Answer::Done),
        ReplicaCall::Pull { .. } => one_of!(Answer::Pulled { .. } | Answer::Unreadable { .. }),
        ReplicaCall::TreeGroups { .. }
        | ReplicaCall::TreeSlices { .. }
        | ReplicaCall::TreeLeaves { .. } => one_of!(Answer::Sums { .. }),
        ReplicaCall::TreeRows { .. } => one_of!(Answer::Stamps { .. } | Answer::Unreadable { .. }),
        ReplicaCall::LeasePut(_) => one_of!(Answer::LeasesTaken { .. }),
        ReplicaCall::LeaseGet { .. } => one_of!(Answer::Leases { .. }),
        ReplicaCall::LeaseVectors { .. } => one_of!(Answer::LeaseVectors { .. }),
        ReplicaCall::LeaseLacking { .. } => one_of!(Answer::LeasesLacking { .. }),
    }
}

/// The most bytes that the answer to a call can have.
fn answer_bytes_max(call: &ReplicaCall) -> usize {
    match call {
        ReplicaCall::Prepare { .. } | ReplicaCall::Read { .. } => ROW_BYTES_MAX,
        ReplicaCall::Accept { .. } | ReplicaCall::Fence { .. } | ReplicaCall::Install { .. } => {
            SMALL_BYTES_MAX
        }
        ReplicaCall::List { .. }
        | ReplicaCall::Scan { .. }
        | ReplicaCall::Pull { .. }
        | ReplicaCall::TreeRows { .. } => REPLICA_PAGE_BYTES + 2 * ROW_BYTES_MAX,
        ReplicaCall::TreeGroups { .. }
        | ReplicaCall::TreeSlices { .. }
        | ReplicaCall::TreeLeaves { .. } => SUMS_BYTES_MAX,
        ReplicaCall::LeasePut(_)
        | ReplicaCall::LeaseGet { .. }
        | ReplicaCall::LeaseVectors { .. }
        | ReplicaCall::LeaseLacking { .. } => LEASE_MESSAGE_BYTES_MAX,
    }
}

/// Beside the requests or the answers.
const BATCH_BYTES: usize = 64;
/// An answer without a row.
const SMALL_BYTES_MAX: usize = 128;
/// An answer with one row, or a page's part of one: its key, its value, what it remembers, and ballots.
const ROW_BYTES_MAX: usize = RowKey::PARTITION_BYTES_MAX
    + RowKey::SORT_BYTES_MAX
    + RowState::VALUE_BYTES_MAX
    + RowState::RECENT_MAX * 64
    + SMALL_BYTES_MAX;
/// An answer of the sums of 128 nodes, each of which is a number of up to 19 bytes.
const SUMS_BYTES_MAX: usize = 128 * 19 + SMALL_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ring::Epoch;

    #[test]
    fn a_fence_is_answered_by_one_that_was_taken() {
        let fits = fits(&ReplicaCall::Fence { incarnation: 1 });
        let epoch = Epoch::FOUNDING;
        assert!(fits(&ReplicaAnswer::Fenced { epoch }));
        assert!(!fits(&ReplicaAnswer::Done));
    }
}
