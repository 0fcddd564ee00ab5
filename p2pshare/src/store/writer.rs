//! The writer: the queue of jobs, their batches, and what becomes of them when one fails.
//!
//! Every job holds a place in the queue until it is answered, so holding all places means that the
//! writer is idle, which is how shutdown waits for it. A job that can no longer be answered is dropped,
//! and its caller then learns the failure that was the cause.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::spawn_blocking;
use tracing::error;

use super::backend::{Backend, Changes, Durability};
use super::transaction::Transaction;
use super::{StoreError, Table, format};
use crate::limits::{
    STORE_BATCH_BYTES_MAX, STORE_BATCH_JOBS_MAX, STORE_JOBS_WAITING_MAX, STORE_READS_MAX,
};

/// The state that all clones of a store share.
pub(super) struct Inner {
    /// Taken out at shutdown.
    engine: RwLock<Option<Arc<dyn Backend>>>,
    tables: &'static [Table],
    queue: Mutex<Queue>,
    /// Places in the queue.
    places: Arc<Semaphore>,
    /// Places for reads; holding all means that no read is under way.
    reads: Arc<Semaphore>,
    /// The first failure, once there is one.
    failure: watch::Sender<Option<StoreError>>,
    /// Commits that are on disk.
    commits: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Whether a writer is running, or about to.
    writing: bool,
    /// Whether something was committed since the last sync.
    unsynced: bool,
}

struct Job {
    durability: Durability,
    work: Work,
    place: OwnedSemaphorePermit,
}

/// Runs in the transaction and returns how to tell the caller what came of it.
type Work = Box<dyn FnOnce(&mut Transaction<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// A job that is done, and on disk, but whose caller does not know it yet.
struct Answered {
    answer: Answer,
    _place: OwnedSemaphorePermit,
}

impl Inner {
    pub(super) fn new(engine: Arc<dyn Backend>, tables: &'static [Table], commits: u64) -> Self {
        Self {
            engine: RwLock::new(Some(engine)),
            tables,
            queue: Mutex::default(),
            places: Arc::new(Semaphore::new(STORE_JOBS_WAITING_MAX)),
            reads: Arc::new(Semaphore::new(STORE_READS_MAX)),
            failure: watch::Sender::new(None),
            commits: AtomicU64::new(commits),
        }
    }

    pub(super) fn tables(&self) -> &'static [Table] {
        self.tables
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    pub(super) async fn submit<R, F>(
        this: &Arc<Self>,
        durability: Durability,
        job: F,
    ) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let place = this
            .places
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| this.why())?;
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let outcome = job(transaction);
            if outcome.is_err() {
                transaction.roll_back();
            }
            // The caller may have gone away; the job is done all the same.
            Box::new(move || drop(sender.send(outcome)))
        });
        {
            let mut queue = this.lock_queue();
            if this.failure.borrow().is_some() {
                return Err(this.why());
            }
            queue.jobs.push_back(Job {
                durability,
                work,
                place,
            });
            if !queue.writing {
                queue.writing = true;
                let turn = Turn {
                    inner: this.clone(),
                    done: false,
                };
                spawn_blocking(move || turn.run());
            }
        }
        match receiver.await {
            Ok(outcome) => outcome,
            // A job is dropped unanswered only on the way to a failure.
            Err(_) => Err(this.failed().await),
        }
    }

    pub(super) async fn read<R: Send + 'static>(
        &self,
        table: Table,
        read: impl FnOnce(&dyn Backend) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        if table != Table::Header && !self.tables.contains(&table) {
            return Err(StoreError::NoSuchTable {
                table: table.name(),
            });
        }
        let place = self
            .reads
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| self.why())?;
        let engine = self.engine()?;
        let task = spawn_blocking(move || {
            let outcome = read(&*engine);
            drop(engine);
            drop(place);
            outcome
        });
        task.await
            .map_err(|panic| StoreError::io("read from the store", panic))?
    }

    pub(super) async fn failed(&self) -> StoreError {
        let mut failure = self.failure.subscribe();
        // The sender lives in `self`, so waiting ends only with a failure.
        let closed = failure.wait_for(Option::is_some).await.is_err();
        debug_assert!(!closed);
        self.why()
    }

    pub(super) async fn shutdown(&self) -> Result<(), StoreError> {
        let (Ok(places), Ok(reads)) = (
            u32::try_from(STORE_JOBS_WAITING_MAX),
            u32::try_from(STORE_READS_MAX),
        ) else {
            return Err(StoreError::Closed);
        };
        // Whoever asks while the places are being collected stands behind this in line, as does a
        // second shutdown, and finds them closed at the end. The closing task holds the places, so
        // that this stays true when the future is dropped.
        let writer = self.places.clone().acquire_many_owned(places).await;
        let readers = self.reads.clone().acquire_many_owned(reads).await;
        if let (Ok(writer), Ok(readers)) = (writer, readers) {
            let engine = self
                .engine
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let failed = self.failure.borrow().is_some();
            let closing = spawn_blocking(move || {
                let synced = match &engine {
                    Some(engine) if !failed => engine.sync(),
                    _ => Ok(()),
                };
                drop(engine);
                writer.semaphore().close();
                readers.semaphore().close();
                synced
            });
            if let Err(cause) = closing
                .await
                .map_err(|panic| StoreError::io("close the store", panic))
                .flatten()
            {
                self.fail(cause);
            }
        }
        match &*self.failure.borrow() {
            Some(_) => Err(self.why()),
            None => Ok(()),
        }
    }

    /// Does a batch that begins with `first`. When that fails, so does the store, and nobody is
    /// answered.
    fn do_batch(&self, first: Job) -> Vec<Answered> {
        let outcome = match self.engine() {
            Ok(engine) => catch_unwind(AssertUnwindSafe(|| self.run_batch(&*engine, first)))
                .unwrap_or(Err(StoreError::JobPanicked)),
            Err(closed) => Err(closed),
        };
        outcome.unwrap_or_else(|cause| {
            self.fail(cause);
            Vec::new()
        })
    }

    /// The next job, or the end of this writer's turn.
    fn next_job(&self) -> Option<Job> {
        let mut queue = self.lock_queue();
        let job = queue.jobs.pop_front();
        queue.writing = job.is_some();
        job
    }

    fn run_batch(&self, engine: &dyn Backend, first: Job) -> Result<Vec<Answered>, StoreError> {
        let mut changes = Changes::default();
        let mut durability = Durability::Buffered;
        let mut answers = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            let mut transaction = Transaction::new(engine, self.tables, &mut changes);
            let answer = (job.work)(&mut transaction);
            bytes += transaction.written();
            durability = durability.max(job.durability);
            answers.push(Answered {
                answer,
                _place: job.place,
            });
            let full = answers.len() >= STORE_BATCH_JOBS_MAX || bytes >= STORE_BATCH_BYTES_MAX;
            next = if full {
                None
            } else {
                self.lock_queue().jobs.pop_front()
            };
        }
        let unsynced = self.lock_queue().unsynced;
        let must_sync = durability == Durability::Synced && unsynced;
        if !changes.is_empty() || must_sync {
            let commits = self.commits() + 1;
            format::count(&mut changes, commits);
            engine.commit(&changes, durability)?;
            self.commits.store(commits, Ordering::Release);
            self.lock_queue().unsynced = durability == Durability::Buffered;
        }
        Ok(answers)
    }

    /// Poisons the store: the first cause stays, and every waiting job is dropped.
    fn fail(&self, cause: StoreError) {
        let first = self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| cause.clone());
            first
        });
        if first {
            error!(%cause, "the store failed");
        }
        let unanswered = std::mem::take(&mut self.lock_queue().jobs);
        drop(unanswered);
    }

    /// Why nothing more is done: the failure, or the end.
    fn why(&self) -> StoreError {
        match &*self.failure.borrow() {
            Some(cause) => StoreError::Poisoned {
                cause: Arc::new(cause.clone()),
            },
            None => StoreError::Closed,
        }
    }

    pub(super) fn engine(&self) -> Result<Arc<dyn Backend>, StoreError> {
        if self.failure.borrow().is_some() {
            return Err(self.why());
        }
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        engine.clone().ok_or(StoreError::Closed)
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One turn of the writer. Dropped before its end, by a runtime that stops, it fails the store rather
/// than leave callers waiting.
struct Turn {
    inner: Arc<Inner>,
    done: bool,
}

impl Turn {
    fn run(mut self) {
        let mut answers = Vec::new();
        while let Some(first) = self.inner.next_job() {
            answer(answers);
            answers = self.inner.do_batch(first);
        }
        // The last callers are answered when this turn no longer keeps the store open: whoever drops
        // the last handle then may open the folder again at once.
        self.done = true;
        drop(self);
        answer(answers);
    }
}

fn answer(answers: Vec<Answered>) {
    for Answered { answer, _place } in answers {
        answer();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.done {
            self.inner.fail(StoreError::WriterLost);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a stopping runtime does to a turn that has not begun.
    pub(in crate::store) fn lose_turn(inner: &Arc<Inner>) {
        drop(Turn {
            inner: inner.clone(),
            done: false,
        });
    }
}
