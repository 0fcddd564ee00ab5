//! stub
use super::machine::*;
use super::placement::Placement;
use crate::identity::MemberId;
use crate::wire::ring::{Epoch, Life};
use std::time::Instant;
pub(crate) struct Return(Epoch);
pub(crate) struct Returned { pub(crate) epoch: Epoch }
impl Return { pub(crate) fn new(_: Instant, _: &Placement, _: Life, e: Epoch, _: u64) -> Self { Self(e) }
 pub(crate) fn waiting_for(&self) -> Vec<MemberId> { Vec::new() } }
impl Machine for Return {
    type Outcome = Returned;
    fn handle(&mut self, _: Instant, _: Input) {}
    fn handle_timeout(&mut self, _: Instant) {}
    fn poll_timeout(&self) -> Option<Instant> { None }
    fn poll_action(&mut self) -> Option<Action<Self::Outcome>> { Some(Action::Finish(Returned { epoch: self.0 })) }
}
