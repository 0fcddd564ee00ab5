//! Anti-entropy: what this replica and another have accepted is compared, and the rows in which they differ are
//! named, to be repaired by a round of their own.
//!
//! Both are asked for the same node of their hash trees and, where the sums differ, for the nodes below it, down to
//! the rows of the leaves that differ. So two equal replicas cost one question, and the cost of two others grows with
//! what differs and not with what there is.
//!
//! **Invariant.** It changes nothing. A row that was changed while it was looked at may be named though it is equal by
//! then, and one that differs since then may be missed until the next time; both do no harm.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use serde::Serialize;

use super::machine::{Action, Input, Machine};
use super::placement::slice_of_row;
use super::row_key;
use crate::identity::MemberId;
use crate::limits::{EXCHANGE_ANSWER_TIMEOUT, EXCHANGE_QUESTIONS_MAX, EXCHANGE_ROWS_MAX};
use crate::wire::ring::{
    Ballot, Epoch, ReplicaAnswer, ReplicaCall, ReplicaRequest, RowKey, Slice, Sum, TreeNode,
};

/// The machine: one exchange with one other member.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// This member and the other.
    pair: [MemberId; 2],
    epoch: Epoch,
    /// Nodes that differ and whose children are yet to be compared; the deepest come first.
    nodes: Vec<Node>,
    /// What is being compared.
    open: BTreeMap<TreeNode, Open>,
    timeout: Instant,
    found: Vec<RowKey>,
    /// Whether rows were left out that a member cannot read.
    left_out: bool,
    cost: Cost,
    finished: bool,
    actions: VecDeque<Action<Exchanged>>,
}

/// What came of an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Exchanged {
    /// The member that compared, and the other.
    pub(crate) pair: [MemberId; 2],
    /// The rows whose accepted ballots differ, each once.
    pub(crate) rows: Vec<RowKey>,
    pub(crate) end: End,
    pub(crate) cost: Cost,
}

/// How far an exchange came.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// Everything was compared.
    Complete,
    /// Everything but some rows that a member cannot read on its disk.
    Partial,
    /// There may be more that differs than one exchange names.
    More,
    /// A member did not answer, or not in time.
    Silent(MemberId),
    /// A member knows a later epoch.
    StaleEpoch(Epoch),
}

/// What an exchange cost: what was sent to the other member and came from it.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cost {
    /// Questions; there are as many answers, but for the last if it ended early.
    pub(crate) questions: u64,
    /// Bytes of questions and answers, without the frames around them.
    pub(crate) bytes: u64,
}

/// Something to compare.
#[derive(Copy, Clone, Debug)]
enum Node {
    /// The children of a node.
    Below(TreeNode),
    /// The rows of some leaves of a slice.
    Rows(Slice, u64),
}

/// What is known of it so far, of this member and of the other.
#[derive(Debug)]
enum Open {
    Sums([Option<Vec<Sum>>; 2]),
    Rows { leaves: u64, sides: [Side; 2] },
}

/// The rows of one of the two.
#[derive(Debug)]
struct Side {
    /// Told, and not yet compared.
    rows: VecDeque<(RowKey, Ballot)>,
    /// Behind which row it was asked.
    after: Option<RowKey>,
    asked: bool,
    ended: bool,
}

impl Exchange {
    /// Begins an exchange of this member with another, in the epoch that this one knows.
    pub(crate) fn new(now: Instant, me: MemberId, other: MemberId, epoch: Epoch) -> Self {
        let mut this = Self {
            pair: [me, other],
            epoch,
            nodes: vec![Node::Below(TreeNode::Root)],
            open: BTreeMap::new(),
            timeout: now + EXCHANGE_ANSWER_TIMEOUT,
            found: Vec::new(),
            left_out: false,
            cost: Cost::default(),
            finished: false,
            actions: VecDeque::new(),
        };
        this.go_on();
        this
    }

    /// Opens as many questions as may be, and ends when there are none.
    fn go_on(&mut self) {
        if self.finished {
            return;
        }
        if self.found.len() >= EXCHANGE_ROWS_MAX {
            return self.finish(End::More);
        }
        while self.open.len() < EXCHANGE_QUESTIONS_MAX
            && let Some(node) = self.nodes.pop()
        {
            match node {
                Node::Below(node) => {
                    self.open.insert(node, Open::Sums([None, None]));
                    let [me, other] = self.pair;
                    self.ask(0, below(node, other));
                    self.ask(1, below(node, me));
                }
                Node::Rows(slice, leaves) => {
                    let sides = [Side::new(), Side::new()];
                    let rows = Open::Rows { leaves, sides };
                    self.open.insert(TreeNode::Slice(slice), rows);
                    self.ask_for_rows(slice);
                }
            }
        }
        if self.open.is_empty() {
            self.finish(match self.left_out {
                true => End::Partial,
                false => End::Complete,
            });
        }
    }

    fn on_sums(&mut self, side: usize, of: TreeNode, sums: Vec<Sum>) -> bool {
        let Some(Open::Sums(sides)) = self.open.get_mut(&of) else {
            return false;
        };
        sides[side] = Some(sums);
        let [Some(mine), Some(others)] = sides else {
            return true;
        };
        let pairs = mine.iter().zip(others.iter()).enumerate();
        let differ = pairs.filter(|(_, (mine, other))| mine != other);
        let differ: Vec<_> = differ.map(|(index, _)| index).collect();
        self.open.remove(&of);
        match of {
            TreeNode::Root => {
                let groups = differ.into_iter().filter_map(|at| u8::try_from(at).ok());
                let groups = groups.map(|group| Node::Below(TreeNode::Group(group)));
                self.nodes.extend(groups);
            }
            TreeNode::Group(group) => {
                let slices = Slice::of_group(group).enumerate();
                let slices = slices.filter(|(at, _)| differ.contains(at));
                let slices = slices.map(|(_, slice)| Node::Below(TreeNode::Slice(slice)));
                self.nodes.extend(slices);
            }
            TreeNode::Slice(slice) => {
                let leaves = differ.into_iter().fold(0, |leaves, at| leaves | 1 << at);
                if leaves != 0 {
                    self.nodes.push(Node::Rows(slice, leaves));
                }
            }
        }
        true
    }

    fn on_rows(
        &mut self,
        side: usize,
        slice: Slice,
        after: Option<RowKey>,
        rows: Vec<(RowKey, Ballot)>,
        next: Option<RowKey>,
    ) -> bool {
        let node = TreeNode::Slice(slice);
        let Some(Open::Rows { sides, .. }) = self.open.get_mut(&node) else {
            return false;
        };
        let told = &mut sides[side];
        if !told.asked || told.after != after {
            return false;
        }
        // Or it would never end.
        let is_further = |next: &RowKey| {
            let before = after.as_ref();
            slice_of_row(next) == slice
                && before.is_none_or(|before| disk_order(before, next).is_lt())
        };
        if !next.as_ref().is_none_or(is_further) {
            return false;
        }
        told.asked = false;
        told.ended = next.is_none();
        told.after = next;
        told.rows.extend(rows);
        let room = EXCHANGE_ROWS_MAX.saturating_sub(self.found.len());
        self.found.extend(differing(sides).take(room));
        match sides.iter().all(|side| side.ended && side.rows.is_empty()) {
            true => _ = self.open.remove(&node),
            false => self.ask_for_rows(slice),
        }
        true
    }

    /// One side cannot read rows of a slice: the rest of it is left out.
    fn on_unreadable(&mut self, side: usize, slice: Slice) -> bool {
        let node = TreeNode::Slice(slice);
        let asked = |open: &Open| matches!(open, Open::Rows { sides, .. } if sides[side].asked);
        if !self.open.get(&node).is_some_and(asked) {
            return false;
        }
        self.open.remove(&node);
        self.left_out = true;
        true
    }

    /// Asks each side for more of the rows that are compared, if it has shown all that it told.
    fn ask_for_rows(&mut self, slice: Slice) {
        let Some(Open::Rows { leaves, sides }) = self.open.get_mut(&TreeNode::Slice(slice)) else {
            return;
        };
        let leaves = *leaves;
        let mut asks = Vec::new();
        for (at, side) in sides.iter_mut().enumerate() {
            if side.rows.is_empty() && !side.ended && !side.asked {
                side.asked = true;
                let after = side.after.clone();
                let call = ReplicaCall::TreeRows {
                    slice,
                    leaves,
                    after,
                };
                asks.push((at, call));
            }
        }
        for (at, call) in asks {
            self.ask(at, call);
        }
    }

    fn ask(&mut self, side: usize, call: ReplicaCall) {
        let epoch = self.epoch;
        let request = ReplicaRequest { epoch, call };
        if side == OTHER {
            self.cost.questions += 1;
            self.cost.bytes += encoded_len(&request);
        }
        let to = self.pair[side];
        self.actions.push_back(Action::Send { to, request });
    }

    /// Who has not answered what is open.
    fn silent(&self) -> MemberId {
        let lacks = |side: usize| {
            self.open.values().any(|open| match open {
                Open::Sums(sides) => sides[side].is_none(),
                Open::Rows { sides, .. } => sides[side].asked,
            })
        };
        self.pair[if lacks(OTHER) { OTHER } else { ME }]
    }

    fn finish(&mut self, end: End) {
        self.finished = true;
        self.nodes.clear();
        self.open.clear();
        let rows = std::mem::take(&mut self.found);
        let cost = self.cost;
        self.actions.clear();
        let exchanged = Exchanged {
            pair: self.pair,
            rows,
            end,
            cost,
        };
        self.actions.push_back(Action::Finish(exchanged));
    }
}

impl Side {
    fn new() -> Self {
        Self {
            rows: VecDeque::new(),
            after: None,
            asked: false,
            ended: false,
        }
    }
}

impl Machine for Exchange {
    type Outcome = Exchanged;

    fn handle(&mut self, now: Instant, input: Input) {
        let (Input::Answer { from, .. } | Input::Failed { from }) = &input;
        let Some(side) = self.pair.iter().position(|member| member == from) else {
            return;
        };
        if self.finished {
            return;
        }
        let from = *from;
        let Input::Answer { answer, .. } = input else {
            return self.finish(End::Silent(from));
        };
        let bytes = if side == OTHER {
            encoded_len(&answer)
        } else {
            0
        };
        let counts = match answer {
            ReplicaAnswer::Sums { of, sums } => self.on_sums(side, of, sums),
            ReplicaAnswer::Stamps {
                slice,
                after,
                rows,
                next,
            } => self.on_rows(side, slice, after, rows, next),
            ReplicaAnswer::Unreadable { slice } => self.on_unreadable(side, slice),
            ReplicaAnswer::StaleEpoch { highest } => {
                return self.finish(End::StaleEpoch(highest));
            }
            ReplicaAnswer::Unavailable => return self.finish(End::Silent(from)),
            // Nothing else is asked for here.
            _ => false,
        };
        if counts {
            self.cost.bytes += bytes;
            self.timeout = now + EXCHANGE_ANSWER_TIMEOUT;
            self.go_on();
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if !self.finished && now >= self.timeout {
            let silent = self.silent();
            self.finish(End::Silent(silent));
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (!self.finished).then_some(self.timeout)
    }

    fn poll_action(&mut self) -> Option<Action<Exchanged>> {
        self.actions.pop_front()
    }
}

/// The rows that differ, as far as both sides have told; those are taken off.
fn differing(sides: &mut [Side; 2]) -> impl Iterator<Item = RowKey> {
    std::iter::from_fn(move || {
        loop {
            let [mine, other] = &mut *sides;
            let order = match (mine.rows.front(), other.rows.front()) {
                (Some((mine, _)), Some((other, _))) => disk_order(mine, other),
                (Some(_), None) if other.ended => Ordering::Less,
                (None, Some(_)) if mine.ended => Ordering::Greater,
                _ => return None,
            };
            let first = match order {
                Ordering::Less => mine.rows.pop_front(),
                Ordering::Greater => other.rows.pop_front(),
                Ordering::Equal => {
                    let other = other.rows.pop_front();
                    mine.rows
                        .pop_front()
                        .filter(|mine| other.as_ref() != Some(mine))
                }
            };
            if let Some((key, _)) = first {
                return Some(key);
            }
        }
    })
}

/// The order of two rows of one slice on disk.
fn disk_order(one: &RowKey, other: &RowKey) -> Ordering {
    row_key::encode_within(one).cmp(&row_key::encode_within(other))
}

/// The question for the children of a node, over what is shared with a member.
fn below(node: TreeNode, with: MemberId) -> ReplicaCall {
    match node {
        TreeNode::Root => ReplicaCall::TreeGroups { with },
        TreeNode::Group(group) => ReplicaCall::TreeSlices { with, group },
        TreeNode::Slice(slice) => ReplicaCall::TreeLeaves { slice },
    }
}

fn encoded_len<T: Serialize>(message: &T) -> u64 {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(message, size).unwrap_or(0) as u64
}

/// The places in a pair.
const ME: usize = 0;
const OTHER: usize = 1;
