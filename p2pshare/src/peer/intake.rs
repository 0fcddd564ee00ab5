//! How fast a peer fetches, over all its downloads: a chunk is asked for only when there is room for it in the limit. So
//! whoever sends it is never held up, is not taken for slow, and needs to be told nothing.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::pace::{Pace, Rate};

/// What may be asked for. A cheap clone.
#[derive(Clone, Debug)]
pub(super) struct Intake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    pace: Mutex<Pace>,
    /// Told when there may be room sooner than it seemed.
    changed: watch::Sender<()>,
}

impl Default for Intake {
    fn default() -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            pace: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }
}

impl Intake {
    pub(super) fn set_rate(&self, rate: Option<Rate>) {
        let now = self.now();
        self.pace().set_rate(rate, now);
        self.0.changed.send_replace(());
    }

    /// The limit, if there is no room in it now.
    pub(super) fn limiting(&self) -> Option<Rate> {
        let now = self.now();
        let pace = self.pace();
        pace.rate().filter(|_| !pace.wait(now).is_zero())
    }

    /// A chunk of so many bytes is asked for.
    pub(super) fn take(&self, bytes: u32) {
        let now = self.now();
        self.pace().take(bytes.into(), now);
    }

    /// A chunk of so many bytes does not come after all.
    pub(super) fn give_back(&self, bytes: u32) {
        self.pace().give_back(bytes.into());
        self.0.changed.send_replace(());
    }

    /// Waits until there is room for a chunk, which others may take. Cancel-safe.
    pub(super) async fn room(&self) {
        let mut changed = self.0.changed.subscribe();
        loop {
            let wait = self.pace().wait(self.now());
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(wait) => {}
                _ = changed.changed() => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.0.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
