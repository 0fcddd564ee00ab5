//! Grants to read groups, as the tracker minted them for this peer: kept, and renewed at half of their life.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{error::SessionError, link::TrackerLink};
use crate::{
    identity::{
        GroupName,
        token::{Grant, Signed},
    },
    limits::GRANT_LIFE,
    wire::tracker::{Request, Response},
};

/// The grants of a peer. A cheap clone.
#[derive(Clone)]
pub(super) struct Grants {
    link: TrackerLink,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    serial: u64,
    grants: HashMap<String, (HeldGrant, Instant)>,
}

/// A grant, and a number that differs from that of any other.
#[derive(Clone)]
pub(super) struct HeldGrant {
    pub(super) token: Signed<Grant>,
    pub(super) serial: u64,
}

impl Grants {
    pub(super) fn new(link: TrackerLink) -> Self {
        Self {
            link,
            held: Arc::default(),
        }
    }

    /// A grant to read `group`. One that is past half of its life is renewed first; if that fails for no
    /// reason of the group's, it is given as it is while it lasts.
    pub(super) async fn get(&self, group: &GroupName) -> Result<HeldGrant, SessionError> {
        let held = self.lock().grants.get(&group.folded()).cloned();
        if let Some((grant, since)) = &held
            && since.elapsed() < HALF_LIFE
        {
            return Ok(grant.clone());
        }
        match self.mint(group).await {
            Ok(grant) => Ok(grant),
            Err(error) => match held {
                Some((grant, since)) if error.is_transient() && since.elapsed() < GRANT_LIFE => {
                    Ok(grant)
                }
                _ => Err(error),
            },
        }
    }

    /// The grant to read `group` that was given last, if it may still count.
    pub(super) fn held(&self, group: &GroupName) -> Option<HeldGrant> {
        let held = self.lock();
        let (grant, since) = held.grants.get(&group.folded())?;
        (since.elapsed() < GRANT_LIFE).then(|| grant.clone())
    }

    /// Holds a grant that no tracker gave.
    #[cfg(test)]
    pub(super) fn plant(&self, group: &GroupName, token: Signed<Grant>) {
        let grant = HeldGrant { token, serial: 0 };
        let since = Instant::now();
        self.lock().grants.insert(group.folded(), (grant, since));
    }

    /// Forgets all of them: another user may be next.
    pub(super) fn clear(&self) {
        self.lock().grants.clear();
    }

    async fn mint(&self, group: &GroupName) -> Result<HeldGrant, SessionError> {
        let request = Request::Grant {
            group: group.clone(),
        };
        let Response::Granted { grant: token } = self.link.ask(request).await? else {
            return Err(SessionError::Protocol);
        };
        let mut held = self.lock();
        held.serial += 1;
        let grant = HeldGrant {
            token,
            serial: held.serial,
        };
        held.grants
            .retain(|_, (_, since)| since.elapsed() < GRANT_LIFE);
        held.grants
            .insert(group.folded(), (grant.clone(), Instant::now()));
        Ok(grant)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HALF_LIFE: Duration = Duration::from_secs(GRANT_LIFE.as_secs() / 2);
