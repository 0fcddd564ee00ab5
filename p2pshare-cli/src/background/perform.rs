//! Each request, carried out on the session, and its answer in the words of the control protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use p2pshare::{
    Access, FileSummary, GroupSummary, JoinOutcome, Limits, Password, Peer, RingStatus, Role,
    Session, UserName,
};
use tokio::time::timeout;

use super::service::Shared;
use super::transfer;
use crate::control::{
    AvailabilityRow, Cancelled, FileRow, GroupRow, Joined, LoggedIn, Outcome, PeerStatus, Reporter,
    Request,
};
use crate::failure::Failure;
use crate::home::IdentityFile;

/// Carries out one request.
pub(super) async fn perform(
    shared: &Shared,
    request: Request,
    reporter: &mut Reporter,
    cancelled: Cancelled,
) -> Result<Outcome, Failure> {
    match request {
        Request::Login { user, password } => return login(shared, &user, &password).await,
        Request::Logout => return logout(shared).await,
        Request::Retire => return Ok(retire(shared).await),
        Request::Upload(request) => {
            return transfer::upload(shared, request, reporter, cancelled).await;
        }
        Request::Download(request) => {
            return transfer::download(shared, request, reporter, cancelled).await;
        }
        Request::Verify(request) => {
            return transfer::verify(shared, request, reporter, cancelled).await;
        }
        _ => {}
    }
    let session = shared.session()?;
    Ok(match request {
        Request::Login { .. }
        | Request::Logout
        | Request::Retire
        | Request::Upload(_)
        | Request::Download(_)
        | Request::Verify(_) => Outcome::Done,
        Request::Status => {
            session.look_at_shares().await;
            let ring = timeout(RING_STATUS_TIMEOUT, session.ring_status()).await;
            Outcome::Status(Box::new(status(
                shared,
                &session,
                ring.ok().and_then(Result::ok),
            )))
        }
        Request::CreateGroup { group, open } => {
            let access = if open { Access::Open } else { Access::Members };
            session.create_group(&group, access).await?;
            Outcome::Done
        }
        Request::ListGroups => {
            let listed = session.groups().await?;
            Outcome::Groups {
                groups: listed.items.into_iter().map(group_row).collect(),
                stale: listed.stale,
            }
        }
        Request::JoinGroup { group } => Outcome::Joined(joined(session.join(&group).await?)?),
        Request::ListRequests { group } => Outcome::Users(session.requests(&group).await?),
        Request::Accept { group, user } => {
            session.accept(&group, &user).await?;
            Outcome::Done
        }
        Request::Reject { group, user } => {
            session.reject(&group, &user).await?;
            Outcome::Done
        }
        Request::LeaveGroup { group } => {
            session.leave(&group).await?;
            Outcome::Done
        }
        Request::RemoveMember { group, user } => {
            session.remove_member(&group, &user).await?;
            Outcome::Done
        }
        Request::TransferGroup { group, user } => {
            session.transfer(&group, &user).await?;
            Outcome::Done
        }
        Request::ListFiles { group } => {
            let listed = session.files(&group).await?;
            Outcome::Files {
                files: listed.items.into_iter().map(file_row).collect(),
                stale: listed.stale,
            }
        }
        Request::Availability { group, name } => {
            let availability = session.availability(&group, &name).await?;
            Outcome::Availability(AvailabilityRow {
                chunks: availability.chunks,
                holders: availability.holders,
                whole: availability.whole,
                untold: availability.untold,
                runs: availability.runs(),
            })
        }
        Request::ShowDownloads => {
            session.look_at_shares().await;
            Outcome::Transfers(transfer::rows(&session))
        }
        Request::Limit { upload, download } => {
            let change = |limits: Limits| {
                let upload = upload.map_or(limits.upload, |upload| upload.rate());
                let download = download.map_or(limits.download, |download| download.rate());
                limits.upload(upload).download(download)
            };
            let changed = shared.peer.change_limits(change).await;
            Outcome::Limits(changed.map_err(|error| Failure::failed(error.to_string()))?)
        }
        Request::StopSharing {
            group,
            name,
            for_all,
        } => {
            let stopped = session.stop_sharing(&group, &name, for_all).await?;
            Outcome::Stopped {
                entry_removed: stopped.entry_removed,
            }
        }
    })
}

async fn login(shared: &Shared, user: &UserName, password: &Password) -> Result<Outcome, Failure> {
    let _entry = shared.entry.lock().await;
    if shared.is_stopping() {
        return Ok(Outcome::Retired { ending: true });
    }
    let session = shared.peer.login(user, password).await?;
    let file = IdentityFile {
        user: session.user().clone(),
        ring: shared.ring,
        trackers: shared.trackers.clone(),
    };
    if let Err(error) = shared.folder.write_identity(&file) {
        let _ = session.logout().await;
        return Err(Failure::io(
            "cannot record the login; it was undone",
            &error,
        ));
    }
    let tracker = session.tracker();
    let logged_in = LoggedIn {
        user: session.user().clone(),
        peer: address(&shared.peer),
        tracker: tracker.map(|tracker| tracker.to_string()),
        pid: std::process::id(),
    };
    tracing::info!(user = %file.user, "logged in");
    Ok(Outcome::LoggedIn(logged_in))
}

/// Ends the session and the process; the process also where the trackers have ended the session before.
async fn logout(shared: &Shared) -> Result<Outcome, Failure> {
    let _entry = shared.entry.lock().await;
    let session = shared.session();
    if let Ok(session) = &session {
        session.logout().await?;
    }
    shared
        .folder
        .remove_identity()
        .map_err(|error| Failure::io("cannot record the logout", &error))?;
    shared.stop();
    Ok(Outcome::LoggedOut {
        user: session?.user().clone(),
    })
}

async fn retire(shared: &Shared) -> Outcome {
    let _entry = shared.entry.lock().await;
    let ending = shared.session().is_err();
    if ending {
        shared.stop();
    }
    Outcome::Retired { ending }
}

fn status(shared: &Shared, session: &Session, trackers: Option<RingStatus>) -> PeerStatus {
    let tracker = session.tracker();
    let shares = session.shares();
    let unserved = shares
        .iter()
        .filter(|share| share.changed || share.unreadable);
    PeerStatus {
        user: session.user().clone(),
        ring: shared.ring,
        peer: address(&shared.peer),
        tracker: tracker.map(|tracker| tracker.to_string()),
        pid: std::process::id(),
        shared_files: count(shares.len()),
        transfers: shared.transfers.count(),
        unserved_files: count(unserved.count()),
        downloads: transfer::running(session),
        trackers,
        sent_bytes: shared.peer.sent_bytes(),
    }
}

fn count(files: usize) -> u32 {
    u32::try_from(files).unwrap_or(u32::MAX)
}

/// The address at which others reach the peer best; on this machine, as long as no tracker was told of it.
fn address(peer: &Peer) -> SocketAddr {
    let mut local = peer.local_addr();
    if local.ip().is_unspecified() {
        local.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    peer.announced_addrs().first().copied().unwrap_or(local)
}

fn group_row(group: GroupSummary) -> GroupRow {
    let my_role = match group.role {
        Some(Role::Owner) => "owner",
        Some(Role::Member) => "member",
        _ if group.pending => "pending",
        _ => "",
    };
    GroupRow {
        name: group.name,
        owner: group.owner,
        open: group.access == Access::Open,
        members: group.members,
        my_role: my_role.to_owned(),
    }
}

fn joined(outcome: JoinOutcome) -> Result<Joined, Failure> {
    match outcome {
        JoinOutcome::Joined => Ok(Joined::Member),
        JoinOutcome::Requested { owner } => Ok(Joined::Requested { owner }),
        JoinOutcome::AlreadyPending { owner } => Ok(Joined::AlreadyPending { owner }),
        _ => Err(Failure::failed(
            "the tracker gave an answer that this version does not know",
        )),
    }
}

fn file_row(file: FileSummary) -> FileRow {
    FileRow {
        name: file.name,
        size: file.size,
        uploader: file.uploader,
        holders_online: file.holders_online,
        sha256: file.sha256.to_string(),
    }
}

/// How long `status` waits for a tracker to say how the ring is: another one may have to be found first.
const RING_STATUS_TIMEOUT: Duration = Duration::from_secs(2);
