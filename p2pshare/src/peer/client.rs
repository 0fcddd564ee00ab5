//! What can be asked of trackers before anybody has logged in, under a key that is thrown away.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{error::SessionError, link::TrackerLink, session::new_change};
use crate::{
    identity::{RingId, TrackerAddr, UserName, key::SigningKey},
    transport::{CloseCode, Endpoint, EndpointConfig},
    wire::tracker::{Password, Request, Response, RingStatus},
};

/// A connection to the trackers of a ring without an identity: to learn which ring it is, and to make an
/// account. Dropping it closes the connection.
#[derive(Debug)]
pub struct TrackerClient {
    endpoint: Endpoint,
    link: TrackerLink,
    ring: RingId,
    tracker: TrackerAddr,
}

impl TrackerClient {
    /// Connects to the first of `trackers` that answers. With a `ring`, only a tracker of that one will do;
    /// without, whichever ring it is of is trusted, and the caller decides what to think of that.
    ///
    /// # Errors
    /// [`SessionError::Unreachable`], [`SessionError::WrongRing`], [`SessionError::NotATracker`], and
    /// [`SessionError::Local`] if no socket can be opened.
    pub async fn connect(
        trackers: &[TrackerAddr],
        ring: Option<RingId>,
    ) -> Result<Self, SessionError> {
        let random = ring::rand::SystemRandom::new();
        let key = SigningKey::generate(&random).map_err(SessionError::local)?;
        let config = EndpointConfig::dialer(key);
        let endpoint = Endpoint::bind((Ipv6Addr::UNSPECIFIED, 0).into(), config.clone())
            .or_else(|_| Endpoint::bind((Ipv4Addr::UNSPECIFIED, 0).into(), config))
            .map_err(SessionError::local)?;
        let link = TrackerLink::new(endpoint.clone(), trackers.to_vec(), ring, None);
        let connected = link.connect().await?;
        Ok(Self {
            endpoint,
            ring: link.ring().ok_or(SessionError::Protocol)?,
            link,
            tracker: connected.tracker,
        })
    }

    /// The ring, as the tracker proved it.
    #[must_use]
    pub const fn ring_id(&self) -> RingId {
        self.ring
    }

    /// The tracker that answered.
    #[must_use]
    pub const fn tracker(&self) -> &TrackerAddr {
        &self.tracker
    }

    /// How the ring is, as the tracker sees it that is connected.
    ///
    /// # Errors
    /// What every request can meet.
    pub async fn ring_status(&self) -> Result<RingStatus, SessionError> {
        self.link.ring_status().await
    }

    /// Makes an account, and gives its name as the ring has it.
    ///
    /// # Errors
    /// [`Refusal::UserExists`](crate::Refusal::UserExists),
    /// [`Refusal::BadPassword`](crate::Refusal::BadPassword), and what every request can meet.
    pub async fn create_user(
        &self,
        user: &UserName,
        password: &Password,
    ) -> Result<UserName, SessionError> {
        let request = Request::CreateUser {
            change: new_change(),
            user: user.clone(),
            password: password.clone(),
        };
        match self.link.ask_as_nobody(request).await? {
            Response::UserCreated { user } => Ok(user),
            _ => Err(SessionError::Protocol),
        }
    }
}

impl Drop for TrackerClient {
    fn drop(&mut self) {
        self.endpoint.close(CloseCode::Done);
    }
}
