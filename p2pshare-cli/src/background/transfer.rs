//! Uploads and downloads on behalf of a command: they report how far they are, and are cancelled with the command or
//! with the background peer itself.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use p2pshare::{
    DownloadError, DownloadOptions, DownloadProgress, DownloadState, DownloadStatus, Session,
    ShareError, ShareStatus, UploadProgress, VerifyError,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::service::Shared;
use crate::control::{
    Cancelled, DownloadRequest, Downloaded, LeftRow, Outcome, Phase, Progress, Reporter,
    TransferRow, UploadRequest, Uploaded, Verified, VerifyRequest,
};
use crate::failure::Failure;

/// Shares a file with a group.
pub(super) async fn upload(
    shared: &Shared,
    request: UploadRequest,
    reporter: &mut Reporter,
    cancelled: Cancelled,
) -> Result<Outcome, Failure> {
    let session = shared.session()?;
    let _entered = shared.transfers.enter();
    let started = Instant::now();
    let upload = session.share(PathBuf::from(request.path), &request.group, request.name);
    let mut watch = upload.watch();
    let ended = async move { while watch.next().await.is_some() {} };
    follow(
        shared,
        ended,
        || upload_progress(upload.progress()),
        || upload.cancel(),
        reporter,
        cancelled,
    )
    .await;
    let file = match upload.await {
        Ok(file) => file,
        Err(ShareError::Cancelled) if shared.is_stopping() => return Err(stopped()),
        Err(error) => return Err(error.into()),
    };
    Ok(Outcome::Uploaded(Uploaded {
        link: file.link(),
        name: file.name,
        size: file.size,
        chunks: file.chunks,
        sha256: file.sha256.to_string(),
        elapsed: started.elapsed(),
    }))
}

/// Downloads a file of a group.
pub(super) async fn download(
    shared: &Shared,
    request: DownloadRequest,
    reporter: &mut Reporter,
    cancelled: Cancelled,
) -> Result<Outcome, Failure> {
    let session = shared.session()?;
    let _entered = shared.transfers.enter();
    let options = DownloadOptions::default()
        .force(request.force)
        .check_sha256(request.sha256)
        .wait(request.wait)
        .in_order(request.in_order);
    let download = session.download(
        &request.group,
        &request.name,
        PathBuf::from(request.dest),
        options,
    );
    let mut watch = download.watch();
    let ended = async move { while watch.next().await.is_some() {} };
    follow(
        shared,
        ended,
        || download_progress(&download.progress()),
        || download.cancel(),
        reporter,
        cancelled,
    )
    .await;
    let report = match download.await {
        Ok(report) => report,
        Err(DownloadError::Cancelled) if shared.is_stopping() => return Err(stopped()),
        Err(error) => return Err(error.into()),
    };
    Ok(Outcome::Downloaded(Downloaded {
        bytes: report.bytes,
        chunks_total: report.chunks,
        chunks_resumed: report.chunks_resumed,
        elapsed: report.elapsed,
        sha256_checked: report.sha256_checked,
        was_there: report.was_there,
    }))
}

/// Reads a file that is here, and mends it if that was asked for.
pub(super) async fn verify(
    shared: &Shared,
    request: VerifyRequest,
    reporter: &mut Reporter,
    cancelled: Cancelled,
) -> Result<Outcome, Failure> {
    let session = shared.session()?;
    let _entered = shared.transfers.enter();
    let verify = session.verify(&request.group, &request.name, request.repair);
    let mut watch = verify.watch();
    let ended = async move { while watch.next().await.is_some() {} };
    follow(
        shared,
        ended,
        || download_progress(&verify.progress()),
        || verify.cancel(),
        reporter,
        cancelled,
    )
    .await;
    let report = match verify.await {
        Ok(report) => report,
        Err(VerifyError::Cancelled) if shared.is_stopping() => return Err(stopped()),
        Err(error) => return Err(error.into()),
    };
    Ok(Outcome::Verified(Verified {
        chunks: report.chunks,
        sha256_checked: report.sha256_checked,
        repaired: report.repaired.map(|damage| damage.to_string()),
    }))
}

/// The downloads of a session, and the files that it shares otherwise.
pub(super) fn rows(session: &Session) -> Vec<TransferRow> {
    let mut shares = session.shares();
    let mut rows = Vec::new();
    for download in session.downloads() {
        let progress = &download.progress;
        let is_share = |share: &ShareStatus| {
            (&share.group, &share.name, &share.path)
                == (&download.group, &download.name, &download.dest)
        };
        let is_complete = progress.state == DownloadState::Complete;
        let mut row = download_row(download.clone());
        if let Some(at) = shares.iter().position(is_share)
            && is_complete
        {
            row.state = format!("complete, {}", describe_share(&shares.remove(at)));
        }
        rows.push(row);
    }
    rows.extend(shares.into_iter().map(|share| TransferRow {
        state: describe_share(&share).to_owned(),
        name: share.name,
        group: share.group,
        size: share.size,
        verified_bytes: share.size,
        path: share.path.as_path().into(),
        left: Vec::new(),
    }));
    rows
}

/// The downloads of a session that are running.
pub(super) fn running(session: &Session) -> Vec<TransferRow> {
    let downloads = session.downloads().into_iter();
    let running = downloads.filter(|download| download.progress.state.is_active());
    running.map(download_row).collect()
}

fn download_row(download: DownloadStatus) -> TransferRow {
    let progress = download.progress;
    let mut state = describe(&progress.state);
    if let Some(stall) = progress.stall {
        state = format!("{state}; {stall}");
    }
    let left = progress.left.into_iter().map(|left| LeftRow {
        peer: format!("{}…", left.peer.to_string().split_at(PEER_DIGITS).0),
        reason: left.reason.to_string(),
    });
    TransferRow {
        name: download.name,
        group: download.group,
        size: progress.total_bytes,
        verified_bytes: progress.verified_bytes,
        state,
        path: download.dest.as_path().into(),
        left: left.collect(),
    }
}

/// Reports a transfer until it has ended, and cancels it when the command or the process ends first.
async fn follow(
    shared: &Shared,
    ended: impl Future<Output = ()>,
    progress: impl Fn() -> Progress,
    cancel: impl Fn(),
    reporter: &mut Reporter,
    mut cancelled: Cancelled,
) {
    let mut ended = pin!(ended);
    let mut is_cancelled = false;
    let mut reported = None;
    let mut ticks = interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = &mut ended => return,
            () = cancelled.wait(), if !is_cancelled => {
                is_cancelled = true;
                cancel();
            }
            () = shared.stopping(), if !is_cancelled => {
                is_cancelled = true;
                cancel();
            }
            _ = ticks.tick() => {
                let now = Some(progress());
                if now != reported {
                    reported.clone_from(&now);
                    if let Some(now) = now {
                        reporter.progress(now).await;
                    }
                }
            }
        }
    }
}

fn upload_progress(progress: UploadProgress) -> Progress {
    Progress {
        phase: Phase::Hashing,
        done_bytes: progress.hashed_bytes,
        total_bytes: progress.total_bytes,
        peers: 0,
        stall: None,
    }
}

fn download_progress(progress: &DownloadProgress) -> Progress {
    let phase = match progress.state {
        DownloadState::Verifying => Phase::Verifying,
        DownloadState::Waiting => Phase::Waiting,
        DownloadState::Running => Phase::Downloading,
        DownloadState::Finishing | DownloadState::Complete => Phase::Finishing,
        _ => Phase::Preparing,
    };
    Progress {
        phase,
        done_bytes: progress.verified_bytes,
        total_bytes: progress.total_bytes,
        peers: u32::try_from(progress.peers).unwrap_or(u32::MAX),
        stall: progress.stall.map(|stall| stall.to_string()),
    }
}

fn describe(state: &DownloadState) -> String {
    match state {
        DownloadState::Preparing => "preparing".to_owned(),
        DownloadState::Waiting => "waiting for peers".to_owned(),
        DownloadState::Running => "downloading".to_owned(),
        DownloadState::Finishing => "finishing".to_owned(),
        DownloadState::Complete => "complete".to_owned(),
        DownloadState::Stopped => "stopped".to_owned(),
        DownloadState::Failed(why) => format!("failed: {why}"),
        _ => "unknown".to_owned(),
    }
}

fn describe_share(share: &ShareStatus) -> &'static str {
    if share.changed {
        "changed on disk, not shared"
    } else if share.unreadable {
        "cannot be read now, not shared"
    } else {
        "shared"
    }
}

fn stopped() -> Failure {
    Failure::failed("the background peer was stopped; what is verified is kept")
        .hint("the same command starts it again, and goes on from there")
}

/// How much is shown of a peer's id.
const PEER_DIGITS: usize = 8;

/// How often a command hears of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
