//! stub
use super::machine::*;
use crate::identity::MemberId;
use crate::wire::ring::{Epoch, RowKey};
use std::time::Instant;
pub(crate) struct Exchange;
pub(crate) struct Found { pub(crate) differing: Vec<RowKey>, pub(crate) more: bool }
impl Exchange { pub(crate) fn new(_: Instant, _: MemberId, _: MemberId, _: Epoch) -> Self { Self } }
impl Machine for Exchange {
    type Outcome = Result<Found, ()>;
    fn handle(&mut self, _: Instant, _: Input) {}
    fn handle_timeout(&mut self, _: Instant) {}
    fn poll_timeout(&self) -> Option<Instant> { None }
    fn poll_action(&mut self) -> Option<Action<Self::Outcome>> { Some(Action::Finish(Err(()))) }
}
