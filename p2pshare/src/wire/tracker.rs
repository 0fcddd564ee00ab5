//! What a peer says to a tracker, and what it answers: one [`Request`] and one [`Response`] a stream.
//!
//! The first request of a connection is [`Request::Hello`]: its answer proves that this is a tracker of the
//! ring before any secret is sent to it. [`Request::Login`] or [`Request::Authenticate`] then makes the
//! connection that of a user; all others but [`Request::CreateUser`] need that. Whatever changes something
//! carries a [`Change`], the same in every retry, so that it is done once at whichever tracker it arrives.

mod status;
mod swarm;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

pub use status::{MemberStatus, RingStatus};
pub use swarm::Availability;
pub(crate) use swarm::{Announcement, Holder, Holding, SetDigest, SwarmEntry, SwarmPlace};

use super::frame::Message;
use crate::{
    content::{Digest, FileId},
    identity::{
        FileName, GroupName, PeerId, RequestId, RingId, Role, UserName,
        token::{Credential, Grant, Signed, TrackerCertificate},
    },
    limits::{PASSWORD_BYTES_MAX, TRACKER_REQUEST_BYTES_MAX, TRACKER_RESPONSE_BYTES_MAX},
    time::Timestamp,
};

/// What a peer asks of a tracker.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Who are you, and of which ring? Answered by [`Response::Welcome`].
    Hello,
    /// Makes an account. [`Response::UserCreated`].
    CreateUser {
        change: Change,
        user: UserName,
        password: Password,
    },
    /// Logs this connection's peer in. [`Response::LoggedIn`].
    Login {
        change: Change,
        user: UserName,
        password: Password,
    },
    /// Makes this connection that of the credential's user, and renews the credential.
    /// [`Response::LoggedIn`].
    Authenticate { credential: Signed<Credential> },
    /// Ends this peer's session. [`Response::Done`].
    Logout { change: Change },
    /// Makes a group, owned by the user. [`Response::Done`].
    CreateGroup {
        change: Change,
        group: GroupName,
        access: Access,
    },
    /// All groups, a page at a time: `cursor` is empty at first, then what the page before gave.
    /// [`Response::Groups`].
    ListGroups { cursor: Vec<u8> },
    /// Asks to become a member. [`Response::Joined`].
    JoinGroup { change: Change, group: GroupName },
    /// Who asked to become a member, after the user `after`. [`Response::Users`].
    ListRequests {
        group: GroupName,
        after: Option<UserName>,
    },
    /// Accepts or rejects one who asked. [`Response::Done`].
    Decide {
        change: Change,
        group: GroupName,
        user: UserName,
        accept: bool,
    },
    /// Ends the user's own membership. [`Response::Done`].
    LeaveGroup { change: Change, group: GroupName },
    /// Ends another's membership. [`Response::Done`].
    RemoveMember {
        change: Change,
        group: GroupName,
        user: UserName,
    },
    /// Makes a member the owner. [`Response::Done`].
    TransferGroup {
        change: Change,
        group: GroupName,
        to: UserName,
    },
    /// Makes a file known to a group, with this peer as its first sharer. [`Response::Done`].
    PublishFile {
        change: Change,
        group: GroupName,
        file: NewFile,
    },
    /// The files of a group after `after`. [`Response::Files`].
    ListFiles {
        group: GroupName,
        after: Option<FileName>,
    },
    /// One file of a group. [`Response::File`].
    FindFile { group: GroupName, name: FileName },
    /// This peer has the whole of the file too, and keeps it. [`Response::Done`].
    AddSharer {
        change: Change,
        group: GroupName,
        name: FileName,
        id: FileId,
    },
    /// This peer, or with `for_all` everybody, no longer shares the file. [`Response::Stopped`].
    StopSharing {
        change: Change,
        group: GroupName,
        name: FileName,
        for_all: bool,
    },
    /// A grant to read a group. [`Response::Granted`].
    Grant { group: GroupName },
    /// Where this peer can be reached and what it holds. [`Response::Announced`].
    Announce(Announcement),
    /// Who holds (part of) a file and is online. [`Response::Holders`].
    Holders { group: GroupName, name: FileName },
    /// How the ring is, as the tracker sees it; for anybody. [`Response::Ring`].
    Ring,
}

/// The answer of a tracker.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Response {
    /// It was not done, and this is why.
    Refused(Refusal),
    /// Who the tracker is, and the time.
    Welcome(Welcome),
    /// The account exists now, with this name.
    UserCreated { user: UserName },
    /// The connection is now that of this user.
    LoggedIn {
        user: UserName,
        credential: Signed<Credential>,
    },
    /// It is done.
    Done,
    /// A page of groups; an empty `next` ends the list.
    Groups {
        groups: Vec<GroupSummary>,
        next: Vec<u8>,
        stale: bool,
    },
    /// What became of the wish to join.
    Joined(JoinOutcome),
    /// A page of users; there may be more after `next`.
    Users {
        users: Vec<UserName>,
        next: Option<UserName>,
    },
    /// A page of files; there may be more after `next`.
    Files {
        files: Vec<FileSummary>,
        next: Option<FileName>,
        stale: bool,
    },
    /// The file.
    File(FileSummary),
    /// It is not shared by this peer any more; `entry_removed` when it was the last sharer.
    Stopped { entry_removed: bool },
    /// The grant.
    Granted { grant: Signed<Grant> },
    /// The announcement counts until [`crate::limits::LEASE_LIFE`] from now. What is in `gone` is not a
    /// file of its group any more, or never was one that this user may share; for what is in `left_out` there
    /// was no room. Neither is kept, and `held` is the digest of all that is.
    Announced {
        time: Option<Timestamp>,
        gone: Vec<(GroupName, FileName)>,
        left_out: Vec<(GroupName, FileName)>,
        held: SetDigest,
    },
    /// Holders other than the one who asks, at most [`crate::limits::HOLDERS_SAMPLE_MAX`]; if there are none,
    /// when there last was one; and what all of them have together.
    Holders {
        holders: Vec<Holder>,
        last_seen: Option<Timestamp>,
        availability: Availability,
    },
    /// How the ring is.
    Ring(RingStatus),
}

impl Message for Request {
    const KIND: u16 = 0x0101;
    const BODY_BYTES_MAX: usize = TRACKER_REQUEST_BYTES_MAX;
}

impl Message for Response {
    const KIND: u16 = 0x0102;
    const BODY_BYTES_MAX: usize = TRACKER_RESPONSE_BYTES_MAX;
}

/// The identity of one change: with the peer that sends it, it names the change for ever.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Random, and the same in each retry.
    pub(crate) request: RequestId,
    /// Whether this may have been sent before.
    pub(crate) retry: bool,
}

/// A password on its way. Wiped from memory when dropped, and never shown.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
pub struct Password(String);

impl Password {
    /// The password `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password in the clear.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is longer than any tracker takes.
    pub(crate) fn is_too_long(&self) -> bool {
        self.0.len() > PASSWORD_BYTES_MAX
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Who the tracker is, under the ring's own signature, and what it sees.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// Signed by the ring's authority; names the tracker's TLS key.
    pub(crate) certificate: Signed<TrackerCertificate>,
    /// The ring's time, unless the tracker has yet to learn it.
    pub(crate) time: Option<Timestamp>,
    /// The address from which the tracker sees the peer.
    pub(crate) observed: SocketAddr,
}

/// Who may read a group.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Access {
    /// The owner and the members that the owner accepted.
    Members,
    /// Everybody with an account; who asks to join is a member at once.
    Open,
}

/// A group as everybody sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupSummary {
    /// Its name, as it was created.
    pub name: GroupName,
    /// Who owns it.
    pub owner: UserName,
    /// Who may read it.
    pub access: Access,
    /// How many are in it, the owner counted.
    pub members: u32,
    /// What the asking user is in it; `None` for neither member nor owner.
    pub role: Option<Role>,
    /// Whether the asking user has a request to join that waits for the owner.
    pub pending: bool,
}

/// What became of the wish to join a group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JoinOutcome {
    /// The group is open: the user is a member now.
    Joined,
    /// The owner has to accept it.
    Requested {
        /// Who that is.
        owner: UserName,
    },
    /// The user had asked before; the owner has not decided yet.
    AlreadyPending {
        /// Who that is.
        owner: UserName,
    },
}

/// A file that is to become known to a group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct NewFile {
    pub(crate) name: FileName,
    pub(crate) id: FileId,
    /// Bytes; more than none.
    pub(crate) size: u64,
    /// Of the whole file, as the uploader computed it.
    pub(crate) sha256: Digest,
}

/// A file as the readers of its group see it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileSummary {
    /// Its name in the group.
    pub name: FileName,
    /// What its content is.
    pub id: FileId,
    /// Bytes.
    pub size: u64,
    /// Of the whole file, as its uploader published it.
    pub sha256: Digest,
    /// Who published it.
    pub uploader: UserName,
    /// When, in the ring's time.
    pub published: Timestamp,
    /// How many peers hold (part of) it and are online.
    pub holders_online: u32,
    /// How many peers promised to keep the whole of it, online or not; counted up to 32.
    pub sharers: u32,
}

/// Why a tracker did not do what it was asked. Nothing was changed, but where it says so.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An account of that name exists.
    #[error("user '{user}' already exists")]
    UserExists {
        /// The name.
        user: UserName,
    },
    /// No such user, or another password.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// Too many failed logins, or new accounts; the next attempt is looked at after the wait.
    #[error("too many attempts; try again in {} s", whole_seconds(wait))]
    TooManyAttempts {
        /// How long to wait, told in whole milliseconds.
        #[serde(with = "crate::time::millis")]
        wait: Duration,
    },
    /// The password is shorter or longer than trackers take.
    #[error("a password has {min} to {max} bytes")]
    BadPassword {
        /// The fewest bytes.
        min: u32,
        /// The most bytes.
        max: u32,
    },
    /// The connection is not that of a logged-in user, or its session has ended.
    #[error("not logged in")]
    NotLoggedIn,
    /// A group of that name exists.
    #[error("group '{group}' already exists")]
    GroupExists {
        /// The name.
        group: GroupName,
    },
    /// There is no such group.
    #[error("group '{group}' not found")]
    GroupNotFound {
        /// The name.
        group: GroupName,
    },
    /// The user is in the group.
    #[error("already a member of '{group}'")]
    AlreadyMember {
        /// The group.
        group: GroupName,
    },
    /// Only the owner may do this.
    #[error("not the owner of '{group}'")]
    NotOwner {
        /// The group.
        group: GroupName,
    },
    /// That user has not asked to join, or it was decided.
    #[error("no pending request from '{user}' in '{group}'")]
    NoPendingRequest {
        /// The group.
        group: GroupName,
        /// The user.
        user: UserName,
    },
    /// A group always has its owner.
    #[error("the owner cannot leave '{group}'")]
    OwnerCannotLeave {
        /// The group.
        group: GroupName,
    },
    /// Only members may do this, and the user is none.
    #[error("not a member of '{group}'")]
    NotAMember {
        /// The group.
        group: GroupName,
    },
    /// That user is not a member.
    #[error("'{user}' is not a member of '{group}'")]
    UserNotAMember {
        /// The group.
        group: GroupName,
        /// The user.
        user: UserName,
    },
    /// The group has a file of that name.
    #[error("file '{name}' already exists in '{group}'")]
    FileExists {
        /// The group.
        group: GroupName,
        /// The name.
        name: FileName,
    },
    /// The group has no file of that name.
    #[error("file '{name}' not found in '{group}'")]
    FileNotFound {
        /// The group.
        group: GroupName,
        /// The name.
        name: FileName,
    },
    /// The file of that name is not the one that was meant any more.
    #[error("file '{name}' in '{group}' is another one now")]
    FileReplaced {
        /// The group.
        group: GroupName,
        /// The name.
        name: FileName,
    },
    /// This peer does not share that file.
    #[error("not sharing '{name}' in '{group}'")]
    NotSharing {
        /// The group.
        group: GroupName,
        /// The name.
        name: FileName,
    },
    /// Only the file's uploader and the group's owner may do this.
    #[error("only the uploader of '{name}' and the owner of '{group}' can stop it for all")]
    NotUploader {
        /// The group.
        group: GroupName,
        /// The name.
        name: FileName,
    },
    /// The request breaks a rule that a right client keeps.
    #[error("the tracker could not make sense of the request")]
    BadRequest,
    /// Too few trackers can be reached to be sure of anything. Nothing was sent to any.
    #[error(
        "insufficient replicas for write quorum: {reachable} of {members} reachable, {needed} needed"
    )]
    InsufficientReplicas {
        /// Trackers of this record that can be reached.
        reachable: u32,
        /// Trackers of this record.
        members: u32,
        /// How many are needed.
        needed: u32,
    },
    /// It may have been done, or may yet be: too few trackers answered in time.
    #[error("the outcome is unknown: too few trackers answered in time")]
    OutcomeUnknown,
    /// The ring has not been founded yet.
    #[error("the ring is not founded yet")]
    NotFounded,
    /// The tracker has as much to do as it takes on.
    #[error("the tracker is busy; try again")]
    Busy,
    /// The tracker failed in itself; its log says more.
    #[error("the tracker failed; its log says why")]
    Internal,
    /// A group always has its owner.
    #[error("the owner cannot be removed from '{group}'")]
    OwnerCannotBeRemoved {
        /// The group.
        group: GroupName,
    },
}

impl Refusal {
    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::TooManyAttempts { .. }
                | Self::InsufficientReplicas { .. }
                | Self::OutcomeUnknown
                | Self::NotFounded
                | Self::Busy
                | Self::Internal
        )
    }

    /// Whether it says how that one tracker is, and another one may be better off.
    pub(crate) const fn is_of_the_tracker(&self) -> bool {
        matches!(
            self,
            Self::InsufficientReplicas { .. } | Self::NotFounded | Self::Busy | Self::Internal
        )
    }

    /// Whether it was decided by what the change found, and not before anybody looked. Only so it says of a change
    /// that was sent before that it was not done then either.
    pub(crate) const fn is_of_the_row(&self) -> bool {
        !self.is_transient() && !matches!(self, Self::NotLoggedIn)
    }

    /// Whether nothing that anybody does later makes it another one.
    pub(crate) const fn is_for_ever(&self) -> bool {
        matches!(self, Self::UserExists { .. } | Self::GroupExists { .. })
    }

    /// Whether who asks may change nothing there, whatever there is.
    pub(crate) const fn is_of_the_asker(&self) -> bool {
        matches!(
            self,
            Self::GroupNotFound { .. } | Self::NotOwner { .. } | Self::NotAMember { .. }
        )
    }
}

/// So many that the wait is over after them.
fn whole_seconds(wait: &Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1) as u64
}

impl Request {
    /// Whether it takes a tracker much work, or many bytes.
    pub(crate) fn is_long(&self) -> bool {
        matches!(
            self,
            Self::ListGroups { .. }
                | Self::ListRequests { .. }
                | Self::ListFiles { .. }
                | Self::Holders { .. }
                | Self::Announce(_)
        )
    }

    /// The change that it asks for, if it asks for one that is told from others.
    pub(crate) fn change(&self) -> Option<Change> {
        self.clone().change_mut().copied()
    }

    /// Whether it changes rows, so that without an answer it may have been done.
    pub(crate) fn changes_rows(&self) -> bool {
        self.change().is_some()
    }

    /// Says that it may have been sent before.
    pub(crate) fn mark_retry(&mut self) {
        if let Some(change) = self.change_mut() {
            change.retry = true;
        }
    }

    fn change_mut(&mut self) -> Option<&mut Change> {
        match self {
            Self::CreateUser { change, .. }
            | Self::Login { change, .. }
            | Self::Logout { change }
            | Self::CreateGroup { change, .. }
            | Self::JoinGroup { change, .. }
            | Self::Decide { change, .. }
            | Self::LeaveGroup { change, .. }
            | Self::RemoveMember { change, .. }
            | Self::TransferGroup { change, .. }
            | Self::PublishFile { change, .. }
            | Self::AddSharer { change, .. }
            | Self::StopSharing { change, .. } => Some(change),
            Self::Hello
            | Self::Authenticate { .. }
            | Self::ListGroups { .. }
            | Self::ListRequests { .. }
            | Self::ListFiles { .. }
            | Self::FindFile { .. }
            | Self::Grant { .. }
            | Self::Announce(_)
            | Self::Holders { .. }
            | Self::Ring => None,
        }
    }
}

impl Response {
    /// Whether the tracker said it from its own memory alone, cut off from the ring.
    pub(crate) const fn is_stale(&self) -> bool {
        matches!(
            self,
            Self::Groups { stale: true, .. } | Self::Files { stale: true, .. }
        )
    }
}

impl Change {
    /// A new change, not sent yet.
    pub(crate) const fn new(request: RequestId) -> Self {
        Self {
            request,
            retry: false,
        }
    }
}

impl Welcome {
    /// The ring and the key that signs its tokens, if the ring's authority says that the tracker on this
    /// connection, whose TLS key is `peer`, is one of its trackers.
    pub(crate) fn verify(
        &self,
        peer: PeerId,
    ) -> Option<(RingId, crate::identity::key::VerifyingKey)> {
        let TrackerCertificate::V1 {
            ring,
            peer: of_peer,
            token_key,
            ..
        } = self.certificate.open_as_own_ring().ok()?;
        (of_peer == peer).then_some((ring, token_key))
    }
}
