//! Accounts and sessions: who has an account, and which peers are logged in to it.
//!
//! A credential counts as long as it is signed, not over, and its session is the one in the row of its user
//! and peer, of the account's present generation. Logging in again from the same peer replaces the session.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::{
    passwords::Passwords,
    rows::{self, Account, SessionRow},
    table::{self, Decision, Request},
    throttle::{Attempt, Throttle},
};
use crate::{
    dht::DhtNode,
    identity::{
        PeerId, RequestId, RingId, SessionId, UserName,
        key::SigningKey,
        token::{Credential, Signed},
    },
    limits::{CREDENTIAL_LIFE, PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN},
    time::Timestamp,
    transport::Prefix,
    wire::tracker::{Change, Password, Refusal},
};

/// The accounts of a ring.
pub(super) struct Accounts {
    dht: DhtNode,
    ring: RingId,
    token_key: SigningKey,
    passwords: Passwords,
    throttle: Mutex<Throttle>,
}

/// A peer that is logged in.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) user: UserName,
    pub(super) credential: Signed<Credential>,
    pub(super) session: SessionId,
}

impl Accounts {
    pub(super) fn new(dht: DhtNode, ring: RingId, token_key: SigningKey) -> Result<Self, Refusal> {
        Ok(Self {
            dht,
            ring,
            token_key,
            passwords: Passwords::new()?,
            throttle: Mutex::default(),
        })
    }

    /// Makes an account. The name is taken once, ever.
    pub(super) async fn create(
        &self,
        from: Prefix,
        request: Request,
        user: UserName,
        password: Password,
        now: Timestamp,
    ) -> Result<UserName, Refusal> {
        check_length(&password)?;
        let key = rows::account_key(&user);
        // What was done is told whoever has to wait.
        if request.change.retry && table::was_done(&self.dht, &key, request).await? {
            return Ok(user);
        }
        let attempt = Attempt::Creation(from);
        self.enter(&attempt)?;
        let exists = || Refusal::UserExists { user: user.clone() };
        // A look before the expensive part; the change itself decides.
        if !request.change.retry && table::read::<Account>(&self.dht, &key).await?.is_some() {
            return Err(exists());
        }
        let password_hash = self.passwords.hash(&attempt, password).await?;
        let account = Account::V1 {
            name: user.clone(),
            password_hash,
            generation: 1,
            created: now,
        };
        table::change(
            &self.dht,
            &key,
            request,
            |found: Option<Account>| match found {
                Some(_) => Err(exists()),
                None => Ok(Decision::Put(Some(account.clone()), user.clone())),
            },
            |_| Ok(user.clone()),
        )
        .await
    }

    /// Logs `peer` in.
    pub(super) async fn login(
        &self,
        from: Prefix,
        peer: PeerId,
        user: UserName,
        password: Password,
        now: Timestamp,
    ) -> Result<Login, Refusal> {
        if password.is_too_long() {
            return Err(Refusal::InvalidCredentials);
        }
        let session_key = rows::session_key(&user, peer);
        let known = self.dht.read(&session_key).await?.is_some();
        let attempt = Attempt::login(&user, from, peer, known);
        self.enter(&attempt)?;
        let checked = self.check_password(&attempt, &user, password).await;
        // An attempt that was not looked at is no failure either.
        if checked != Err(Refusal::InvalidCredentials) {
            self.throttle().forgive(&attempt);
        }
        let Account::V1 {
            name, generation, ..
        } = checked?;
        let session = SessionId::from_bytes(rand::random());
        let row = SessionRow::V1 {
            session,
            generation,
            begun: now,
        };
        let request = Request {
            peer,
            change: Change {
                request: RequestId::from_bytes(rand::random()),
                retry: false,
            },
        };
        table::change(
            &self.dht,
            &session_key,
            request,
            |_: Option<SessionRow>| Ok(Decision::Put(Some(row.clone()), ())),
            |_| Ok(()),
        )
        .await?;
        Ok(self.issue(name, peer, session, generation, now))
    }

    /// The account of `user`, if `password` is its password; an unknown user's costs as much to find out.
    async fn check_password(
        &self,
        attempt: &Attempt,
        user: &UserName,
        password: Password,
    ) -> Result<Account, Refusal> {
        let account = table::read::<Account>(&self.dht, &rows::account_key(user)).await?;
        let stored = account
            .as_ref()
            .map(|Account::V1 { password_hash, .. }| password_hash.clone());
        let fits = self.passwords.verify(attempt, password, stored).await?;
        account.filter(|_| fits).ok_or(Refusal::InvalidCredentials)
    }

    /// Takes a credential for what it says, and renews it.
    pub(super) async fn authenticate(
        &self,
        peer: PeerId,
        credential: &Signed<Credential>,
        now: Timestamp,
    ) -> Result<Login, Refusal> {
        let claims = credential
            .open(&self.token_key.verifying_key())
            .map_err(|_| Refusal::NotLoggedIn)?;
        claims
            .check(self.ring, peer, now)
            .map_err(|_| Refusal::NotLoggedIn)?;
        let Credential::V1 {
            user,
            session,
            generation,
            ..
        } = claims;
        self.check_session(&user, peer, session).await?;
        let account = table::read::<Account>(&self.dht, &rows::account_key(&user)).await?;
        match account {
            Some(Account::V1 {
                name,
                generation: current,
                ..
            }) if current == generation => Ok(self.issue(name, peer, session, generation, now)),
            _ => Err(Refusal::NotLoggedIn),
        }
    }

    /// Whether `session` is still that of `user` at `peer`.
    pub(super) async fn check_session(
        &self,
        user: &UserName,
        peer: PeerId,
        session: SessionId,
    ) -> Result<(), Refusal> {
        let row = table::read::<SessionRow>(&self.dht, &rows::session_key(user, peer)).await?;
        match row {
            Some(SessionRow::V1 { session: known, .. }) if known == session => Ok(()),
            _ => Err(Refusal::NotLoggedIn),
        }
    }

    /// Ends the session of `user` at the peer that asks.
    pub(super) async fn logout(
        &self,
        request: Request,
        user: &UserName,
        session: SessionId,
    ) -> Result<(), Refusal> {
        table::change(
            &self.dht,
            &rows::session_key(user, request.peer),
            request,
            |found: Option<SessionRow>| match found {
                Some(SessionRow::V1 { session: known, .. }) if known == session => {
                    Ok(Decision::Put(None, ()))
                }
                _ => Ok(Decision::Keep(())),
            },
            |_| Ok(()),
        )
        .await
    }

    fn issue(
        &self,
        user: UserName,
        peer: PeerId,
        session: SessionId,
        generation: u64,
        now: Timestamp,
    ) -> Login {
        let claims = Credential::V1 {
            ring: self.ring,
            user: user.clone(),
            peer,
            session,
            generation,
            issued: now,
            expires: now.saturating_add(CREDENTIAL_LIFE),
        };
        Login {
            user,
            credential: Signed::sign(&claims, &self.token_key),
            session,
        }
    }

    /// Counts an attempt, unless it has to wait.
    fn enter(&self, attempt: &Attempt) -> Result<(), Refusal> {
        let entered = self.throttle().enter(attempt, Instant::now());
        entered.map_err(|wait| Refusal::TooManyAttempts { wait })
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_length(password: &Password) -> Result<(), Refusal> {
    if (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.expose().len()) {
        Ok(())
    } else {
        Err(Refusal::BadPassword {
            min: PASSWORD_BYTES_MIN as u32,
            max: PASSWORD_BYTES_MAX as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::limits::ACCOUNTS_FREE_PREFIX;

    #[tokio::test]
    async fn who_has_to_wait_hears_of_the_account_that_he_made() {
        let folder = tempfile::tempdir().unwrap();
        let ring = RingId::from_bytes([1; 32]);
        let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
        let accounts = Accounts::new(dht.clone(), ring, SigningKey::from_seed(&[8; 32])).unwrap();
        let user = UserName::new("Alice").unwrap();
        let create = async |request: u8, retry: bool| {
            let change = Change {
                request: RequestId::from_bytes([request; 16]),
                retry,
            };
            let peer = PeerId::from_bytes([2; 32]);
            let request = Request { peer, change };
            let from = Prefix::of([192, 0, 2, 1].into());
            let (password, now) = (Password::new("pass123"), Timestamp::from_millis(0));
            let user = user.clone();
            accounts.create(from, request, user, password, now).await
        };
        assert_eq!(create(1, false).await, Ok(user.clone()));
        let mut refused = create(2, false).await;
        for _ in 0..2 * ACCOUNTS_FREE_PREFIX {
            if let Err(Refusal::TooManyAttempts { .. }) = refused {
                break;
            }
            assert!(matches!(refused, Err(Refusal::UserExists { .. })));
            refused = create(2, false).await;
        }
        assert!(
            matches!(refused, Err(Refusal::TooManyAttempts { .. })),
            "{refused:?}"
        );
        assert_eq!(create(1, true).await, Ok(user.clone()));
        dht.shutdown().await.unwrap();
    }
}
