//! Passwords, hashed with Argon2id by the parameters that OWASP recommends (19 MiB, two passes, one lane:
//! the defaults of the `argon2` crate), off the async threads. At most [`HASHERS`] run at once, also of those
//! whose callers have gone away, and few wait, so that a flood of logins costs bounded memory and CPU.
//!
//! Who waits is served in turn: known peers and all others alternately, known peers by account, others by
//! address prefix. A flood of either kind delays the other by one hash, and fills none of its places.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::oneshot;

use super::{fair::FairQueue, throttle::Attempt};
use crate::{
    limits::{HASHERS, HASHERS_WAITING_MAX},
    transport::Prefix,
    wire::tracker::{Password, Refusal},
};

/// Hashes and checks passwords. A cheap clone: all clones share the bound.
#[derive(Clone)]
pub(super) struct Passwords(Arc<Inner>);

struct Inner {
    desk: Mutex<Desk>,
    /// What an unknown user's password is compared with, at the same cost as a known one's.
    nobody: String,
}

/// Who waits for a hasher.
struct Desk {
    idle: usize,
    known: FairQueue<String, oneshot::Sender<Hasher>>,
    others: FairQueue<Other, oneshot::Sender<Hasher>>,
    /// Whether a known peer is next, where both kinds wait.
    known_first: bool,
}

/// What is done for others than known peers, from where: who makes accounts does not hold up who logs in.
#[derive(Copy, Clone, Eq, PartialEq, Hash)]
enum Other {
    Login(Prefix),
    Creation(Prefix),
}

/// The right to hash one password; handed on to the next who waits when dropped.
struct Hasher(Arc<Inner>);

impl Passwords {
    pub(super) fn new() -> Result<Self, Refusal> {
        let random: [u8; 32] = rand::random();
        Ok(Self(Arc::new(Inner {
            desk: Mutex::new(Desk {
                idle: HASHERS,
                known: FairQueue::new(HASHERS_WAITING_MAX),
                others: FairQueue::new(HASHERS_WAITING_MAX),
                known_first: true,
            }),
            nobody: hash(&random)?,
        })))
    }

    /// The PHC string of `password` with a new salt.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many wait.
    pub(super) async fn hash(
        &self,
        attempt: &Attempt,
        password: Password,
    ) -> Result<String, Refusal> {
        self.run(attempt, move |_| hash(password.expose().as_bytes()))
            .await?
    }

    /// Whether `password` is the one of `stored`; without a `stored` one it never is, but costs the same.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many wait.
    pub(super) async fn verify(
        &self,
        attempt: &Attempt,
        password: Password,
        stored: Option<String>,
    ) -> Result<bool, Refusal> {
        self.run(attempt, move |inner| {
            let hash = stored.as_deref().unwrap_or(&inner.nobody);
            let fits = PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.expose().as_bytes(), &hash)
                    .is_ok()
            });
            fits && stored.is_some()
        })
        .await
    }

    async fn run<R: Send + 'static>(
        &self,
        attempt: &Attempt,
        work: impl FnOnce(&Inner) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.0.ask(attempt, sender);
        // Whoever lost his place hears nothing more.
        let hasher = receiver.await.map_err(|_| Refusal::Busy)?;
        // The work goes on when nobody waits for it any more, and the hasher is taken for as long.
        tokio::task::spawn_blocking(move || work(&hasher.0))
            .await
            .map_err(|_| Refusal::Internal)
    }
}

impl Inner {
    fn ask(self: &Arc<Self>, attempt: &Attempt, sender: oneshot::Sender<Hasher>) {
        let mut desk = self.desk();
        if desk.idle > 0 {
            desk.idle -= 1;
            drop(desk);
            // If the one who asked is gone already, it comes back at once.
            _ = sender.send(Hasher(self.clone()));
            return;
        }
        let lost = match attempt {
            Attempt::Known(user, _) => enter(&mut desk.known, user.clone(), sender),
            Attempt::Stranger(_, prefix) => enter(&mut desk.others, Other::Login(*prefix), sender),
            Attempt::Creation(prefix) => enter(&mut desk.others, Other::Creation(*prefix), sender),
        };
        drop(desk);
        drop(lost);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets somebody wait, in the place of those who went away or of who has most places.
fn enter<K: Clone + Eq + std::hash::Hash>(
    queue: &mut FairQueue<K, oneshot::Sender<Hasher>>,
    key: K,
    sender: oneshot::Sender<Hasher>,
) -> Option<oneshot::Sender<Hasher>> {
    if queue.is_full() {
        queue.retain(|waiting| !waiting.is_closed());
    }
    queue.push(key, sender)
}

impl Desk {
    /// Who is next; a hasher without anybody is idle.
    fn next(&mut self) -> Option<oneshot::Sender<Hasher>> {
        let (known, others) = (&mut self.known, &mut self.others);
        let next = match self.known_first {
            true => known.pop().or_else(|| others.pop()),
            false => others.pop().or_else(|| known.pop()),
        };
        self.known_first = !self.known_first;
        if next.is_none() {
            self.idle += 1;
        }
        next
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        let next = self.0.desk().next();
        if let Some(next) = next {
            // One who went away meanwhile gives it back, and so hands it on.
            _ = next.send(Self(self.0.clone()));
        }
    }
}

fn hash(password: &[u8]) -> Result<String, Refusal> {
    let salt: [u8; 16] = rand::random();
    Argon2::default()
        .hash_password_with_salt(password, &salt)
        .map(|hash| hash.to_string())
        .map_err(|_| Refusal::Internal)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::{task::JoinHandle, time::timeout};

    use super::*;
    use crate::{identity::PeerId, limits::LOGIN_FAILURES_FREE_PREFIX};

    fn known(user: &str) -> Attempt {
        Attempt::Known(user.to_owned(), PeerId::from_bytes([1; 32]))
    }

    fn stranger(host: u32) -> Attempt {
        Attempt::Stranger("alice".to_owned(), prefix(host))
    }

    fn prefix(host: u32) -> Prefix {
        Prefix::of(std::net::IpAddr::from(host.to_be_bytes()))
    }

    #[tokio::test]
    async fn the_right_password_alone_fits() {
        let passwords = Passwords::new().unwrap();
        let (alice, password) = (known("alice"), Password::new("pass123"));
        let hash = passwords.hash(&alice, password).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        for (password, stored, expected) in [
            ("pass123", Some(hash.clone()), true),
            ("pass124", Some(hash), false),
            ("pass123", None, false),
            ("pass123", Some("garbage".into()), false),
        ] {
            let password = Password::new(password);
            let verified = passwords.verify(&alice, password, stored).await;
            assert_eq!(verified, Ok(expected));
        }
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let passwords = Passwords::new().unwrap();
        let alice = known("alice");
        let one = passwords.hash(&alice, Password::new("same")).await.unwrap();
        let two = passwords.hash(&alice, Password::new("same")).await.unwrap();
        assert_ne!(one, two);
    }

    /// All hashers, at work until they are let go.
    struct Blocked {
        passwords: Passwords,
        hold: Vec<mpsc::Sender<()>>,
        work: Vec<JoinHandle<Result<(), Refusal>>>,
    }

    impl Blocked {
        async fn new() -> Self {
            let passwords = Passwords::new().unwrap();
            let (mut hold, mut work) = (Vec::new(), Vec::new());
            for host in 0..HASHERS as u32 {
                let (release, held) = mpsc::channel();
                hold.push(release);
                let passwords = passwords.clone();
                work.push(tokio::spawn(async move {
                    // It ends when the sender is dropped.
                    let wait = move |_: &Inner| _ = held.recv();
                    passwords.run(&stranger(host), wait).await
                }));
            }
            let blocked = Self {
                passwords,
                hold,
                work,
            };
            blocked.until(|desk| desk.idle == 0).await;
            blocked
        }

        async fn until(&self, mut done: impl FnMut(&Desk) -> bool) {
            let waiting = async {
                while !done(&self.passwords.0.desk()) {
                    tokio::task::yield_now().await;
                }
            };
            let patience = Duration::from_secs(60);
            timeout(patience, waiting).await.expect("it comes to that");
        }

        /// Lets `count` ask; each says its `name` when it is served.
        fn ask(&self, attempt: &Attempt, count: usize, name: &'static str, log: &Log) {
            for _ in 0..count {
                let (sender, receiver) = oneshot::channel();
                self.passwords.0.ask(attempt, sender);
                let log = log.clone();
                tokio::spawn(async move {
                    let hasher = receiver.await;
                    log.lock().unwrap().push(match &hasher {
                        Ok(_) => name,
                        Err(_) => "busy",
                    });
                });
            }
        }
    }

    type Log = Arc<Mutex<Vec<&'static str>>>;

    #[tokio::test]
    async fn the_right_user_waits_for_few_whatever_others_do() {
        let mut blocked = Blocked::new().await;
        let log = Log::default();
        let full = HASHERS_WAITING_MAX;
        blocked.ask(&stranger(1), full + 50, "flood", &log);
        blocked.ask(&Attempt::Creation(prefix(1)), 2, "creation", &log);
        blocked.ask(&stranger(2), 1, "newcomer", &log);
        blocked.ask(&known("mallory"), full + 50, "mallory", &log);
        blocked.ask(&known("alice"), 1, "alice", &log);
        // What was over the top has been told so; nobody who came for himself was.
        blocked.hold.pop();
        blocked.until(|desk| desk.idle == 1).await;
        while log.lock().unwrap().len() < 2 * full + 104 {
            tokio::task::yield_now().await;
        }
        let log = log.lock().unwrap();
        let busy = log.iter().filter(|name| **name == "busy").count();
        assert_eq!(busy, 2 * 50 + 4);
        let place = |of| log.iter().filter(|n| **n != "busy").position(|n| *n == of);
        for right in ["alice", "newcomer", "creation"] {
            assert!(place(right) < Some(8), "{right}: {log:?}");
        }
    }

    #[tokio::test]
    async fn who_went_away_keeps_the_hasher_that_works_and_no_place() {
        let mut blocked = Blocked::new().await;
        let gone: Vec<_> = blocked.work.drain(..).collect();
        for task in gone {
            task.abort();
            assert!(task.await.is_err());
        }
        assert_eq!(blocked.passwords.0.desk().idle, 0, "they still work");
        let mut waiting = Vec::new();
        for _ in 0..HASHERS_WAITING_MAX {
            let (sender, receiver) = oneshot::channel();
            blocked.passwords.0.ask(&known("alice"), sender);
            waiting.push(receiver);
        }
        drop(waiting);
        let log = Log::default();
        blocked.ask(&known("alice"), 1, "alice", &log);
        blocked.hold.clear();
        blocked.until(|desk| desk.idle == HASHERS).await;
        while log.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*log.lock().unwrap(), ["alice"]);
    }

    /// A prefix gets all of its free attempts hashed while others flood.
    const _: () = assert!((LOGIN_FAILURES_FREE_PREFIX as usize) < HASHERS_WAITING_MAX);
}
