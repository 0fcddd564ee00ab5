//! Passwords, hashed with Argon2id by the parameters that OWASP recommends (19 MiB, two passes, one lane:
//! the defaults of the `argon2` crate), off the async threads. At most [`HASHERS`] run at once and
//! [`HASHERS_WAITING_MAX`] wait, so that a flood of logins costs bounded memory and CPU.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use crate::{
    limits::{HASHERS, HASHERS_WAITING_MAX},
    wire::tracker::{Password, Refusal},
};

/// Hashes and checks passwords. A cheap clone: all clones share the bound.
#[derive(Clone)]
pub(super) struct Passwords(Arc<Inner>);

struct Inner {
    slots: Semaphore,
    waiting: AtomicUsize,
    /// What an unknown user's password is compared with, at the same cost as a known one's.
    nobody: String,
}

impl Passwords {
    pub(super) fn new() -> Result<Self, Refusal> {
        let random: [u8; 32] = rand::random();
        Ok(Self(Arc::new(Inner {
            slots: Semaphore::new(HASHERS),
            waiting: AtomicUsize::new(0),
            nobody: hash(&random)?,
        })))
    }

    /// The PHC string of `password` with a new salt.
    pub(super) async fn hash(&self, password: Password) -> Result<String, Refusal> {
        self.run(move |_| hash(password.expose().as_bytes()))
            .await?
    }

    /// Whether `password` is the one of `known`; without a `known` one it never is, but costs the same.
    pub(super) async fn verify(
        &self,
        password: Password,
        known: Option<String>,
    ) -> Result<bool, Refusal> {
        self.run(move |inner| {
            let hash = known.as_deref().unwrap_or(&inner.nobody);
            let fits = PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.expose().as_bytes(), &hash)
                    .is_ok()
            });
            fits && known.is_some()
        })
        .await
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let waiting = Waiting::enter(&self.0.waiting)?;
        let slot = self.0.slots.acquire().await;
        drop(waiting);
        let _slot = slot.map_err(|_| Refusal::Internal)?;
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|_| Refusal::Internal)
    }
}

/// One place in the queue, given back when dropped: also when the caller goes away while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, Refusal> {
        if count.fetch_add(1, Ordering::Relaxed) >= HASHERS_WAITING_MAX {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Busy);
        }
        Ok(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    use super::*;

    #[tokio::test]
    async fn the_right_password_alone_fits() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash(Password::new("pass123")).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        for (password, known, expected) in [
            ("pass123", Some(hash.clone()), true),
            ("pass124", Some(hash), false),
            ("pass123", None, false),
            ("pass123", Some("garbage".into()), false),
        ] {
            let verified = passwords.verify(Password::new(password), known).await;
            assert_eq!(verified, Ok(expected));
        }
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let passwords = Passwords::new().unwrap();
        let one = passwords.hash(Password::new("same")).await.unwrap();
        let two = passwords.hash(Password::new("same")).await.unwrap();
        assert_ne!(one, two);
    }

    #[test]
    fn the_queue_has_an_end() {
        let count = AtomicUsize::new(0);
        let places: Vec<_> = (0..HASHERS_WAITING_MAX)
            .map(|_| Waiting::enter(&count).unwrap())
            .collect();
        assert!(matches!(Waiting::enter(&count), Err(Refusal::Busy)));
        drop(places);
        assert!(Waiting::enter(&count).is_ok());
    }
}
