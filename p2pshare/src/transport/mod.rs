//! QUIC between peers and trackers: who is at the other end is proved before anything else is said, and
//! one request is one stream.
//!
//! * [`endpoint`] binds a UDP port, dials from it and accepts on it; [`settings`] holds every number and
//!   choice of QUIC, [`tls`] what is asked of a certificate, [`reset`] what lets a restarted process be
//!   noticed at once, and [`probe`] what lets a dead port on this machine be.
//! * [`connection`] is one connection, [`message`] the frames on its streams, [`mod@serve`] the side that
//!   answers, [`bodies`] what it holds of long requests, [`crowd`] who has
//!   a place where many come, and [`close`] why they end.
//! * `memory` is a network without a machine, for tests.
//!
//! What a remote can make this room hold is bounded by [`settings::Windows`] and the stream and connection
//! counts beside it, and by [`bodies`]; a frame costs memory as its bytes arrive, not as its header promises.

mod bodies;
pub(crate) mod close;
pub(crate) mod connection;
mod crowd;
pub(crate) mod endpoint;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod message;
mod probe;
mod reset;
pub(crate) mod serve;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use bodies::Bodies;
pub(crate) use close::CloseCode;
pub(crate) use connection::Connection;
pub(crate) use crowd::{Admission, Crowd, Prefix};
pub(crate) use endpoint::{BindError, Endpoint, EndpointConfig};
pub(crate) use message::{ReceiveError, RecvStream, RequestError, SendError, SendStream};
pub(crate) use serve::{Responder, ServeLimits, serve};
pub(crate) use settings::{Alpn, Profile};
pub(crate) use tls::Expect;
