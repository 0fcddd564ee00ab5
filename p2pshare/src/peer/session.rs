//! A logged-in user: each command of the system is a method, and one question to the trackers. Lists come
//! whole, however many pages they took.

use std::{ops::Deref, path::PathBuf, sync::Arc};

use super::{
    Peer,
    download::{Download, DownloadOptions, DownloadStatus},
    error::SessionError,
    library::ShareStatus,
    share::Upload,
    verify::Verify,
};
use crate::{
    identity::{FileName, GroupName, RequestId, RingId, TrackerAddr, UserName},
    time::Timestamp,
    wire::tracker::{
        Access, Availability, Change, FileSummary, GroupSummary, Holder, JoinOutcome, Refusal,
        Request, Response, RingStatus,
    },
};

/// A logged-in user of a [`Peer`]. A cheap clone; it ends with [`Session::logout`], or when the trackers
/// end it, after which its methods fail as [`SessionError::LoggedOut`].
///
/// Every method that changes something does so once, even if a tracker dies in the middle and another one
/// is asked again. Dropping the future of one leaves it open whether it was done.
#[derive(Clone, Debug)]
pub struct Session {
    peer: Peer,
    user: Arc<UserName>,
}

/// What became of a wish to share a file no longer.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StopOutcome {
    /// Whether nobody is left who shares it, so that the group does not have the file any more.
    pub entry_removed: bool,
}

/// What a listing gave.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Listed<T> {
    /// What there is, in the order of the names.
    pub items: Vec<T>,
    /// Whether it comes from trackers that are cut off from the ring, and may lack what is newest.
    pub stale: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            stale: false,
        }
    }
}

impl<T> Deref for Listed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl Session {
    pub(super) fn new(peer: Peer, user: UserName) -> Self {
        Self {
            peer,
            user: Arc::new(user),
        }
    }

    /// Who is logged in, as the account was created.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// The peer that the user is logged in at.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The ring.
    #[must_use]
    pub fn ring_id(&self) -> RingId {
        self.peer.ring_id()
    }

    /// The tracker that is connected now.
    #[must_use]
    pub fn tracker(&self) -> Option<TrackerAddr> {
        self.peer.tracker()
    }

    /// How the ring is, as the tracker sees it that is connected.
    ///
    /// # Errors
    /// What every request can meet.
    pub async fn ring_status(&self) -> Result<RingStatus, SessionError> {
        self.peer.link().ring_status().await
    }

    /// Makes a group that this user owns.
    ///
    /// # Errors
    /// [`Refusal::GroupExists`], and what every request can meet.
    pub async fn create_group(
        &self,
        group: &GroupName,
        access: Access,
    ) -> Result<(), SessionError> {
        self.done(Request::CreateGroup {
            change: new_change(),
            group: group.clone(),
            access,
        })
        .await
    }

    /// All groups of the ring.
    ///
    /// # Errors
    /// What every request can meet.
    pub async fn groups(&self) -> Result<Listed<GroupSummary>, SessionError> {
        let (mut all, mut cursor) = (Listed::default(), Vec::new());
        loop {
            let answer = self.ask(Request::ListGroups { cursor }).await?;
            let Response::Groups {
                groups,
                next,
                stale,
            } = answer
            else {
                return Err(SessionError::Protocol);
            };
            all.items.extend(groups);
            all.stale |= stale;
            if next.is_empty() {
                all.items.sort_by(|a, b| a.name.cmp(&b.name));
                return Ok(all);
            }
            cursor = next;
        }
    }

    /// Asks to become a member of a group; of an open one the user is a member at once.
    ///
    /// # Errors
    /// [`Refusal::GroupNotFound`], [`Refusal::AlreadyMember`], and what every request can meet.
    pub async fn join(&self, group: &GroupName) -> Result<JoinOutcome, SessionError> {
        let request = Request::JoinGroup {
            change: new_change(),
            group: group.clone(),
        };
        match self.ask(request).await? {
            Response::Joined(outcome) => Ok(outcome),
            _ => Err(SessionError::Protocol),
        }
    }

    /// Who asked to become a member and was not answered; for the owner.
    ///
    /// # Errors
    /// [`Refusal::NotOwner`], [`Refusal::GroupNotFound`], and what every request can meet.
    pub async fn requests(&self, group: &GroupName) -> Result<Vec<UserName>, SessionError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let request = Request::ListRequests {
                group: group.clone(),
                after,
            };
            let Response::Users { users, next } = self.ask(request).await? else {
                return Err(SessionError::Protocol);
            };
            all.extend(users);
            if next.is_none() {
                return Ok(all);
            }
            after = next;
        }
    }

    /// Accepts a user who asked to become a member; for the owner.
    ///
    /// # Errors
    /// [`Refusal::NotOwner`], [`Refusal::NoPendingRequest`], and what every request can meet.
    pub async fn accept(&self, group: &GroupName, user: &UserName) -> Result<(), SessionError> {
        self.decide(group, user, true).await
    }

    /// Rejects a user who asked to become a member, and may ask again; for the owner.
    ///
    /// # Errors
    /// As [`Session::accept`].
    pub async fn reject(&self, group: &GroupName, user: &UserName) -> Result<(), SessionError> {
        self.decide(group, user, false).await
    }

    /// Ends the user's own membership, and stops sharing what was shared in the group.
    ///
    /// # Errors
    /// [`Refusal::NotAMember`], [`Refusal::OwnerCannotLeave`], and what every request can meet.
    pub async fn leave(&self, group: &GroupName) -> Result<(), SessionError> {
        self.done(Request::LeaveGroup {
            change: new_change(),
            group: group.clone(),
        })
        .await?;
        for share in self.peer.library().of_group(group) {
            // What this misses, the next announcement finds out.
            if let Err(error) = self.stop_sharing(group, &share.name, false).await {
                tracing::warn!(%group, name = %share.name, %error, "still noted as a sharer");
            }
        }
        Ok(())
    }

    /// Ends another's membership; for the owner. What that one reads ends within ten minutes.
    ///
    /// # Errors
    /// [`Refusal::NotOwner`], [`Refusal::UserNotAMember`], and what every request can meet.
    pub async fn remove_member(
        &self,
        group: &GroupName,
        user: &UserName,
    ) -> Result<(), SessionError> {
        self.done(Request::RemoveMember {
            change: new_change(),
            group: group.clone(),
            user: user.clone(),
        })
        .await
    }

    /// Makes a member the owner; for the owner, who stays a member.
    ///
    /// # Errors
    /// [`Refusal::NotOwner`], [`Refusal::UserNotAMember`], and what every request can meet.
    pub async fn transfer(&self, group: &GroupName, to: &UserName) -> Result<(), SessionError> {
        self.done(Request::TransferGroup {
            change: new_change(),
            group: group.clone(),
            to: to.clone(),
        })
        .await
    }

    /// Starts to share the file at `path` with a group, in place; for members. Its name is `name`, or else
    /// that of the file on disk.
    pub fn share(
        &self,
        path: impl Into<PathBuf>,
        group: &GroupName,
        name: Option<FileName>,
    ) -> Upload {
        Upload::start(self.clone(), path.into(), group.clone(), name)
    }

    /// The files of a group; for members, and for everybody if the group is open.
    ///
    /// # Errors
    /// [`Refusal::NotAMember`], [`Refusal::GroupNotFound`], and what every request can meet.
    pub async fn files(&self, group: &GroupName) -> Result<Listed<FileSummary>, SessionError> {
        let (mut all, mut after) = (Listed::default(), None);
        loop {
            let request = Request::ListFiles {
                group: group.clone(),
                after,
            };
            let Response::Files { files, next, stale } = self.ask(request).await? else {
                return Err(SessionError::Protocol);
            };
            all.items.extend(files);
            all.stale |= stale;
            if next.is_none() {
                return Ok(all);
            }
            after = next;
        }
    }

    /// How much of a file can be had from those who are online right now, before any of them is asked: who has it,
    /// how often each chunk is there, and whether all of it is. For those who may list the group's files.
    ///
    /// # Errors
    /// [`Refusal::FileNotFound`], [`Refusal::NotAMember`], [`Refusal::GroupNotFound`], and what every request can
    /// meet.
    pub async fn availability(
        &self,
        group: &GroupName,
        name: &FileName,
    ) -> Result<Availability, SessionError> {
        let (.., availability) = self.holders(group.clone(), name.clone()).await?;
        match availability.is_of(availability.chunks) {
            true => Ok(availability),
            false => Err(SessionError::Protocol),
        }
    }

    /// Some of those who are online with (part of) a file, or have begun to fetch it, when there last was one with all of it
    /// if nobody has anything, and what all of them have.
    pub(super) async fn holders(
        &self,
        group: GroupName,
        name: FileName,
    ) -> Result<(Vec<Holder>, Option<Timestamp>, Availability), SessionError> {
        match self.ask(Request::Holders { group, name }).await? {
            Response::Holders {
                holders,
                last_seen,
                availability,
            } => Ok((holders, last_seen, availability)),
            _ => Err(SessionError::Protocol),
        }
    }

    /// Starts to download a file of a group to `dest`, or goes on with it where it was left.
    pub fn download(
        &self,
        group: &GroupName,
        name: &FileName,
        dest: impl Into<PathBuf>,
        options: DownloadOptions,
    ) -> Download {
        Download::start(
            self.clone(),
            group.clone(),
            name.clone(),
            dest.into(),
            options,
        )
    }

    /// Starts to read the file of that name which this peer shares or has downloaded, to see whether it still is
    /// what the group has. If it is, it is served from then on, also if it was found changed before; if not, it
    /// is served no longer, and with `repair` what is wrong is fetched from others and put right where it is.
    /// Whatever else stands there instead of the published content is lost with that.
    pub fn verify(&self, group: &GroupName, name: &FileName, repair: bool) -> Verify {
        Verify::start(self.clone(), group.clone(), name.clone(), repair)
    }

    /// Stops sharing a file, or with `for_all` takes it from the group; that is for its uploader and the
    /// group's owner. The file itself stays where it is.
    ///
    /// # Errors
    /// [`Refusal::NotSharing`], [`Refusal::FileNotFound`], [`Refusal::NotUploader`], and what every request
    /// can meet.
    pub async fn stop_sharing(
        &self,
        group: &GroupName,
        name: &FileName,
        for_all: bool,
    ) -> Result<StopOutcome, SessionError> {
        let library = self.peer.library();
        let shared_here = library.get(group, name);
        let request = Request::StopSharing {
            change: new_change(),
            group: group.clone(),
            name: name.clone(),
            for_all,
        };
        let outcome = match self.ask(request).await {
            Ok(Response::Stopped { entry_removed }) => StopOutcome { entry_removed },
            Ok(_) => return Err(SessionError::Protocol),
            // What the trackers no longer know of, or never had room for, still ends here.
            Err(SessionError::Refused(
                Refusal::NotSharing { .. }
                | Refusal::FileNotFound { .. }
                | Refusal::NotAMember { .. },
            )) if shared_here.is_some() && !for_all => StopOutcome {
                entry_removed: false,
            },
            Err(error) => return Err(error),
        };
        if let Some(share) = shared_here {
            library.remove(group, name, share.id).await?;
        }
        Ok(outcome)
    }

    /// Looks at the files that this peer shares, as it does by itself now and then, so that
    /// [`shares`](Self::shares) tells how they are now. Cancel-safe.
    pub async fn look_at_shares(&self) {
        self.peer.library().look_at_files().await;
    }

    /// What this peer shares.
    #[must_use]
    pub fn shares(&self) -> Vec<ShareStatus> {
        self.peer.library().status()
    }

    /// The downloads of this peer: those under way, and those that ended since it was made.
    #[must_use]
    pub fn downloads(&self) -> Vec<DownloadStatus> {
        self.peer.downloads().status()
    }

    /// Ends the session, here at once, and at the trackers if one can be reached.
    ///
    /// # Errors
    /// [`SessionError::Local`] when the session's file cannot be deleted.
    pub async fn logout(&self) -> Result<(), SessionError> {
        self.peer.logout().await
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Response, SessionError> {
        self.peer.link().ask(request).await
    }

    pub(super) async fn done(&self, request: Request) -> Result<(), SessionError> {
        match self.ask(request).await? {
            Response::Done => Ok(()),
            _ => Err(SessionError::Protocol),
        }
    }

    async fn decide(
        &self,
        group: &GroupName,
        user: &UserName,
        accept: bool,
    ) -> Result<(), SessionError> {
        self.done(Request::Decide {
            change: new_change(),
            group: group.clone(),
            user: user.clone(),
            accept,
        })
        .await
    }
}

/// The identity of a change that is about to be asked for.
pub(super) fn new_change() -> Change {
    Change::new(RequestId::from_bytes(rand::random()))
}
