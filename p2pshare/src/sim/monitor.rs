//! What every member has said, over all its lives, and whether it ever took its word back.
//!
//! Histories show only what clients could see. Whoever breaks its word mostly gets away with it: nobody else
//! happened to need it at that moment. So each answer is compared with those before it.

use std::collections::BTreeMap;

use crate::wire::ring::{
    Ballot, Epoch, ReplicaAnswer, ReplicaCall, ReplicaRequest, RowKey, RowState,
};

/// What one member has said since it last lost its memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    /// The highest ballot that it promised or accepted.
    promised: BTreeMap<RowKey, Ballot>,
    /// The highest epoch in which it answered.
    epoch: Option<Epoch>,
    /// The highest epoch in which any of its lives answered, also those that are forgotten.
    former: Option<Epoch>,
    /// Whether it has forgotten what it said, and not learnt it again.
    forgotten: bool,
    /// Of each row, the version that was acknowledged before it began to return.
    pub(super) owed: Vec<(RowKey, u64)>,
}

impl Word {
    /// It has lost its memory.
    pub(super) fn forget(&mut self) {
        self.promised.clear();
        self.epoch = None;
        self.forgotten = true;
    }

    /// It knows again what it may have forgotten.
    pub(super) fn is_learnt(&mut self) {
        self.forgotten = false;
    }

    /// It answers this. Returns how it breaks its word, if it does.
    pub(super) fn says(
        &mut self,
        request: &ReplicaRequest,
        answer: &ReplicaAnswer,
    ) -> Option<&'static str> {
        let refused = matches!(
            answer,
            ReplicaAnswer::StaleEpoch { .. } | ReplicaAnswer::Unavailable
        );
        // What it tells itself while it learns again is no word given.
        if refused || matches!(request.call, ReplicaCall::Install { .. }) {
            return None;
        }
        if self.epoch.is_some_and(|epoch| request.epoch < epoch) {
            return Some("answered in an epoch that it had left");
        }
        self.former = self.former.max(Some(request.epoch));
        if let ReplicaAnswer::Fenced { epoch } = answer {
            self.epoch = Some(*epoch);
            return None;
        }
        let (ReplicaCall::Prepare { key, .. } | ReplicaCall::Accept { key, .. }) = &request.call
        else {
            // What only reads may overtake what waits for the disk.
            return None;
        };
        self.epoch = Some(request.epoch);
        let promised = self.promised.get(key).copied().unwrap_or(Ballot::ZERO);
        match answer {
            ReplicaAnswer::Promised { ballot, .. } if *ballot <= promised => {
                Some("promised what it could not")
            }
            ReplicaAnswer::Accepted { ballot } if *ballot < promised => {
                Some("took what is below its promise")
            }
            ReplicaAnswer::Promised { ballot, .. } | ReplicaAnswer::Accepted { ballot } => {
                self.promised.insert(key.clone(), *ballot);
                None
            }
            _ => None,
        }
    }

    /// Whether none of its lives has ever answered anything.
    pub(super) fn is_silent(&self) -> bool {
        self.former.is_none()
    }

    /// It votes again in this epoch, maybe after it had forgotten what it said. Returns whether it may.
    pub(super) fn may_return_in(&self, epoch: Epoch) -> bool {
        !self.forgotten || self.former.is_none_or(|former| former < epoch)
    }
}

/// Every proposal that was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Proposals(BTreeMap<(RowKey, Ballot), RowState>);

impl Proposals {
    /// This is sent. Returns whether another proposal had its ballot.
    pub(super) fn share_a_ballot(&mut self, request: &ReplicaRequest) -> bool {
        let ReplicaCall::Accept { key, ballot, state } = &request.call else {
            return false;
        };
        let first = self
            .0
            .entry((key.clone(), *ballot))
            .or_insert_with(|| state.clone());
        first != state
    }
}
