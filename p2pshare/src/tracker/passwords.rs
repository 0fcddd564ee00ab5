//! Passwords, hashed with Argon2id by the parameters that OWASP recommends (19 MiB, two passes, one lane:
//! the defaults of the `argon2` crate), off the async threads. At most [`HASHERS`] run at once, also of those
//! whose callers have gone away, and few wait, so that a flood of logins costs bounded memory and CPU.
//!
//! Who waits is served in turn: known peers and all others alternately, both by address prefix, and known peers of
//! one prefix by account. A flood of either kind delays the other by one hash, and fills none of its places.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
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
    idle: Vec<Memory>,
    known: FairQueue<Prefix, String, oneshot::Sender<Hasher>>,
    others: FairQueue<Other, (), oneshot::Sender<Hasher>>,
    /// Whether a known peer is next, where both kinds wait.
    known_first: bool,
}

/// What is done for others than known peers, from where: who makes accounts does not hold up who logs in.
#[derive(Copy, Clone, Eq, PartialEq, Hash)]
enum Other {
    Login(Prefix),
    Creation(Prefix),
}

/// The right to hash one password, with what it takes; handed on to the next who waits when dropped.
struct Hasher {
    inner: Arc<Inner>,
    memory: Memory,
}

/// The 19 MiB in which a password is hashed, from the first one on. They stay the same: as many allocations by
/// as many threads would leave the process several times of what it uses.
type Memory = Vec<Block>;

impl Passwords {
    pub(super) fn new() -> Result<Self, Refusal> {
        let random: [u8; 32] = rand::random();
        Ok(Self(Arc::new(Inner {
            desk: Mutex::new(Desk {
                idle: vec![Memory::new(); HASHERS],
                known: FairQueue::new(HASHERS_WAITING_MAX),
                others: FairQueue::new(HASHERS_WAITING_MAX),
                known_first: true,
            }),
            nobody: hash(&random, &mut Memory::new()).ok_or(Refusal::Internal)?,
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
        let hashed = self.run(attempt, move |_, memory| {
            hash(password.expose().as_bytes(), memory)
        });
        hashed.await?.ok_or(Refusal::Internal)
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
        self.run(attempt, move |inner, memory| {
            let hash = stored.as_deref().unwrap_or(&inner.nobody);
            let fits = fits(password.expose().as_bytes(), hash, memory);
            fits == Some(true) && stored.is_some()
        })
        .await
    }

    async fn run<R: Send + 'static>(
        &self,
        attempt: &Attempt,
        work: impl FnOnce(&Inner, &mut Memory) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.0.ask(attempt, sender);
        // Whoever lost his place hears nothing more.
        let mut hasher = receiver.await.map_err(|_| Refusal::Busy)?;
        // The work goes on when nobody waits for it any more, and the hasher is taken for as long.
        let working = tokio::task::spawn_blocking(move || {
            let Hasher { inner, memory } = &mut hasher;
            work(inner, memory)
        });
        working.await.map_err(|_| Refusal::Internal)
    }
}

impl Inner {
    fn ask(self: &Arc<Self>, attempt: &Attempt, sender: oneshot::Sender<Hasher>) {
        let mut desk = self.desk();
        if let Some(memory) = desk.idle.pop() {
            drop(desk);
            let inner = self.clone();
            // If the one who asked is gone already, it comes back at once.
            _ = sender.send(Hasher { inner, memory });
            return;
        }
        let lost = match attempt {
            Attempt::Known(user, _, prefix) => {
                enter(&mut desk.known, *prefix, user.clone(), sender)
            }
            Attempt::Stranger(_, prefix) => {
                enter(&mut desk.others, Other::Login(*prefix), (), sender)
            }
            Attempt::Creation(prefix) => {
                enter(&mut desk.others, Other::Creation(*prefix), (), sender)
            }
        };
        drop(desk);
        drop(lost);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets somebody wait, in the place of those who went away or of who has most places.
fn enter<G: Clone + Eq + Hash, K: Clone + Eq + Hash>(
    queue: &mut FairQueue<G, K, oneshot::Sender<Hasher>>,
    group: G,
    key: K,
    sender: oneshot::Sender<Hasher>,
) -> Option<oneshot::Sender<Hasher>> {
    if queue.is_full() {
        queue.retain(|waiting| !waiting.is_closed());
    }
    queue.push(group, key, sender)
}

impl Desk {
    /// Who is next, if anybody waits.
    fn next(&mut self) -> Option<oneshot::Sender<Hasher>> {
        let (known, others) = (&mut self.known, &mut self.others);
        let next = match self.known_first {
            true => known.pop().or_else(|| others.pop()),
            false => others.pop().or_else(|| known.pop()),
        };
        self.known_first = !self.known_first;
        next
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut desk = self.inner.desk();
        match desk.next() {
            Some(next) => {
                drop(desk);
                let inner = self.inner.clone();
                // One who went away meanwhile gives it back, and so hands it on.
                _ = next.send(Self { inner, memory });
            }
            None => desk.idle.push(memory),
        }
    }
}

/// The PHC string of a password with a new salt; `None` if the machine has no memory for it.
fn hash(password: &[u8], memory: &mut Memory) -> Option<String> {
    let salt: [u8; 16] = rand::random();
    let params = Params::default();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).ok()?,
        salt: Salt::new(&salt).ok(),
        hash: Some(output(&argon2, password, &salt, memory)?),
    };
    Some(hash.to_string())
}

/// Whether a password is the one of a PHC string; `None` if that cannot be read.
fn fits(password: &[u8], stored: &str, memory: &mut Memory) -> Option<bool> {
    let stored = PasswordHash::new(stored).ok()?;
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok()?;
    let version = Version::try_from(stored.version?).ok()?;
    let params = Params::try_from(&stored).ok()?;
    let argon2 = Argon2::new(algorithm, version, params);
    // Compared in constant time.
    Some(output(&argon2, password, &stored.salt?, memory)? == stored.hash?)
}

fn output(
    argon2: &Argon2<'_>,
    password: &[u8],
    salt: &[u8],
    memory: &mut Memory,
) -> Option<Output> {
    memory.resize(argon2.params().block_count(), Block::new());
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    argon2
        .hash_password_into_with_memory(password, salt, &mut output, memory)
        .ok()?;
    Output::new(&output).ok()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::{task::JoinHandle, time::timeout};

    use super::*;
    use crate::{identity::PeerId, limits::LOGIN_FAILURES_FREE_PREFIX};

    fn known(user: &str) -> Attempt {
        known_at(user, 9)
    }

    fn known_at(user: &str, host: u32) -> Attempt {
        Attempt::Known(user.to_owned(), PeerId::from_bytes([1; 32]), prefix(host))
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
        hold: Vec<mpsc::SyncSender<()>>,
        work: Vec<JoinHandle<Result<(), Refusal>>>,
    }

    impl Blocked {
        async fn new() -> Self {
            let passwords = Passwords::new().unwrap();
            let (mut hold, mut work) = (Vec::new(), Vec::new());
            for host in 0..HASHERS as u32 {
                let (release, held) = mpsc::sync_channel(0);
                hold.push(release);
                let passwords = passwords.clone();
                work.push(tokio::spawn(async move {
                    // It ends when the sender is dropped.
                    let wait = move |_: &Inner, _: &mut Memory| _ = held.recv();
                    passwords.run(&stranger(host), wait).await
                }));
            }
            let blocked = Self {
                passwords,
                hold,
                work,
            };
            blocked.until(|desk| desk.idle.is_empty()).await;
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
        // As the users that somebody made, each of whom is known here.
        for number in 0..full + 50 {
            blocked.ask(
                &known_at(&format!("mallory{number}"), 3),
                1,
                "mallory",
                &log,
            );
        }
        blocked.ask(&known("alice"), 1, "alice", &log);
        // What was over the top has been told so; nobody who came for himself was.
        blocked.hold.pop();
        blocked.until(|desk| desk.idle.len() == 1).await;
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
        assert!(
            blocked.passwords.0.desk().idle.is_empty(),
            "they still work"
        );
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
        blocked.until(|desk| desk.idle.len() == HASHERS).await;
        while log.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*log.lock().unwrap(), ["alice"]);
    }

    /// A prefix gets all of its free attempts hashed while others flood.
    const _: () = assert!((LOGIN_FAILURES_FREE_PREFIX as usize) < HASHERS_WAITING_MAX);
}
