//! Connections kept for reuse: at most one to each (address, protocol, expected peer), dialed by whoever
//! first needs it while the others wait for the same dial, and dialed again once it is dead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::connection::Connection;
use super::endpoint::{ConnectError, Endpoint};
use super::settings::Alpn;
use super::tls::Expect;
use crate::limits::POOLED_CONNECTIONS_MAX;

/// Connections of one endpoint. Clones are the same pool.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    endpoint: Endpoint,
    slots: Arc<Mutex<BTreeMap<Key, Slot>>>,
}

type Key = (SocketAddr, Alpn, Expect);
type Dial = watch::Receiver<Option<Result<Connection, ConnectError>>>;

#[derive(Debug)]
enum Slot {
    Dialing(Dial),
    Live(Connection),
}

impl Pool {
    /// A pool of connections dialed from `endpoint`.
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            slots: Arc::default(),
        }
    }

    /// A live connection, dialed if there is none. Dropping the future leaves the dial to the others who
    /// wait for it, and to the next who comes. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the dial fails; the next call dials again.
    pub(crate) async fn get(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Expect,
    ) -> Result<Connection, ConnectError> {
        let mut dial = match self.live_or_dial((addr, alpn, expect)) {
            Ok(connection) => return Ok(connection),
            Err(dial) => dial,
        };
        match dial.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The runtime is on its way out, and has dropped the task.
            _ => Err(ConnectError::Closed),
        }
    }

    fn live_or_dial(&self, key: Key) -> Result<Connection, Dial> {
        let mut slots = self.slots();
        match slots.get(&key) {
            Some(Slot::Live(live)) if live.close_reason().is_none() => return Ok(live.clone()),
            // A dial that will say no more is one whose task was dropped.
            Some(Slot::Dialing(dial)) if dial.has_changed().is_ok() => return Err(dial.clone()),
            _ => {}
        }
        slots.retain(|_, slot| match slot {
            Slot::Live(connection) => connection.close_reason().is_none(),
            Slot::Dialing(_) => true,
        });
        let (outcome, dial) = watch::channel(None);
        let keep = slots.len() < POOLED_CONNECTIONS_MAX;
        if keep {
            slots.insert(key, Slot::Dialing(dial.clone()));
        }
        let pool = self.clone();
        tokio::spawn(async move {
            let (addr, alpn, expect) = key;
            let dialed = pool.endpoint.connect(addr, alpn, expect).await;
            if keep {
                match &dialed {
                    Ok(live) => pool.slots().insert(key, Slot::Live(live.clone())),
                    Err(_) => pool.slots().remove(&key),
                };
            }
            outcome.send_replace(Some(dialed));
        });
        Err(dial)
    }

    /// No call leaves the slots half changed.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
