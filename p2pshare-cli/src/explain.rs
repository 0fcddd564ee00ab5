//! The errors of the library in the words of the command line: which exit code, and what the user can do.

use p2pshare::{DownloadError, PeerBindError, Refusal, SessionError, ShareError, VerifyError};

use crate::exit_code::ExitCode;
use crate::failure::Failure;

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let (code, hint) = match &error {
            SessionError::Refused(refusal) => explain_refusal(refusal),
            SessionError::Unreachable { .. } => (ExitCode::Unreachable, Some(FIND_TRACKERS)),
            SessionError::OutcomeUnknown => (ExitCode::Unreachable, None),
            SessionError::WrongRing { .. } => (ExitCode::Denied, Some(OTHER_RING)),
            SessionError::NotATracker { .. } => (ExitCode::Denied, None),
            SessionError::LoggedOut => (ExitCode::NotLoggedIn, Some(LOG_IN)),
            _ => (ExitCode::Failed, None),
        };
        failure(code, &error, hint)
    }
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::Session(error) => error.into(),
            ShareError::Cancelled => Self::new(
                ExitCode::Interrupted,
                "the upload was cancelled; nothing was shared",
            ),
            ShareError::Name(_) => failure(
                ExitCode::Usage,
                &error,
                Some("choose the name in the group with --name"),
            ),
            ShareError::Changed { .. } => failure(
                ExitCode::Integrity,
                &error,
                Some("repeat it once nobody writes to the file"),
            ),
            _ => failure(ExitCode::Failed, &error, None),
        }
    }
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        let (code, hint) = match error {
            DownloadError::Session(error) => return error.into(),
            DownloadError::Cancelled => {
                return Self::new(
                    ExitCode::Interrupted,
                    "the download was cancelled; what is verified is kept",
                )
                .hint("the same command goes on from there");
            }
            DownloadError::NoPeersOnline { .. } => (
                ExitCode::Unreachable,
                Some("--wait waits for somebody who has it"),
            ),
            DownloadError::NoUsablePeer { .. } => (ExitCode::Unreachable, None),
            DownloadError::NotAllOnline { .. } => (
                ExitCode::Unreachable,
                Some("what is verified is kept; --wait waits for somebody who has the rest"),
            ),
            DownloadError::DestinationExists { .. } => (
                ExitCode::Failed,
                Some("--force replaces it; DEST names another place"),
            ),
            DownloadError::DestinationTaken { .. } => (
                ExitCode::Failed,
                Some(
                    "move it away and repeat the command, or repeat it with --force; nothing is fetched again",
                ),
            ),
            DownloadError::NoSpace { .. } => (
                ExitCode::Failed,
                Some("make room and repeat the command: it goes on with what is there"),
            ),
            DownloadError::Sha256Mismatch { .. } => (
                ExitCode::Integrity,
                Some("it was not put in place; without --sha256 it would be"),
            ),
            _ => (ExitCode::Failed, None),
        };
        failure(code, &error, hint)
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let (code, hint) = match &error {
            VerifyError::Session(error) => return error.clone().into(),
            VerifyError::NotRepaired(
                DownloadError::NoPeersOnline { .. } | DownloadError::NoUsablePeer { .. },
            ) => (
                ExitCode::Unreachable,
                "the file stays damaged, and is not served; repeat it when somebody who has it is online",
            ),
            VerifyError::NotRepaired(error) => return error.clone().into(),
            VerifyError::NotHere { .. } => (
                ExitCode::NotFound,
                "p2pshare show_downloads shows what is here",
            ),
            VerifyError::Incomplete { .. } => (
                ExitCode::Failed,
                "p2pshare download_file goes on with it, and verifies what is there",
            ),
            VerifyError::Damaged { .. } => (
                ExitCode::Integrity,
                "it is not served any more; --repair puts back what the group has, from others who have it",
            ),
            VerifyError::Changed { .. } => (
                ExitCode::Integrity,
                "repeat it once nobody writes to the file",
            ),
            VerifyError::Sha256Mismatch { .. } => (
                ExitCode::Integrity,
                "ask its uploader which of the two is right",
            ),
            VerifyError::Cancelled => {
                return Self::new(ExitCode::Interrupted, "the verification was cancelled")
                    .hint("a repair goes on from there when it is repeated");
            }
            _ => return failure(ExitCode::Failed, &error, None),
        };
        failure(code, &error, Some(hint))
    }
}

impl From<PeerBindError> for Failure {
    fn from(error: PeerBindError) -> Self {
        failure(ExitCode::Failed, &error, None)
    }
}

fn explain_refusal(refusal: &Refusal) -> (ExitCode, Option<&'static str>) {
    match refusal {
        Refusal::NotLoggedIn => (ExitCode::NotLoggedIn, Some(LOG_IN)),
        Refusal::OwnerCannotLeave { .. } | Refusal::OwnerCannotBeRemoved { .. } => (
            ExitCode::Denied,
            Some("make another member the owner first: p2pshare transfer_group GROUP USER"),
        ),
        Refusal::NotAMember { .. } => (
            ExitCode::Denied,
            Some("ask to become one: p2pshare join_group GROUP"),
        ),
        Refusal::InvalidCredentials
        | Refusal::TooManyAttempts { .. }
        | Refusal::NotOwner { .. }
        | Refusal::NotUploader { .. } => (ExitCode::Denied, None),
        Refusal::GroupNotFound { .. } => (
            ExitCode::NotFound,
            Some("p2pshare list_groups shows what there is"),
        ),
        Refusal::FileNotFound { .. } => (
            ExitCode::NotFound,
            Some("p2pshare list_files GROUP shows what there is"),
        ),
        Refusal::NoPendingRequest { .. } => (
            ExitCode::NotFound,
            Some("p2pshare list_requests GROUP shows who asks"),
        ),
        Refusal::UserNotAMember { .. } | Refusal::NotSharing { .. } => (ExitCode::NotFound, None),
        Refusal::InsufficientReplicas { .. }
        | Refusal::OutcomeUnknown
        | Refusal::NotFounded
        | Refusal::Busy => (ExitCode::Unreachable, None),
        Refusal::FileExists { .. } => (
            ExitCode::Failed,
            Some("choose another name in the group with --name"),
        ),
        _ => (ExitCode::Failed, None),
    }
}

fn failure(code: ExitCode, error: &dyn std::error::Error, hint: Option<&str>) -> Failure {
    let failure = Failure::new(code, error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

const LOG_IN: &str = "log in with: p2pshare login USER";

const OTHER_RING: &str = "nothing was sent to it: somebody may be posing as the tracker; if the ring was founded anew on purpose, p2pshare login USER says what to do";

const FIND_TRACKERS: &str = "is a tracker running there? The list is taken from --trackers, P2PSHARE_TRACKERS or tracker_info.txt";
