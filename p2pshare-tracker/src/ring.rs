//! `ring`: what an operator asks of the ring as a whole. Looking changes nothing, and needs no more than any client has:
//! every tracker tells whoever asks how it sees its ring.

use std::time::Duration;

use p2pshare::{RingId, RingStatus, SessionError, TrackerAddr, TrackerClient, TrackerList};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::args::RingCommand;
use crate::plan::{PlanError, nth, read_list};

/// Carries out one command.
pub(crate) async fn run(command: RingCommand) -> Result<(), RingError> {
    let command = match command {
        RingCommand::Status { list, number } => {
            let list = match list {
                Some(path) => read_list(&path)?,
                None => {
                    TrackerList::parse(DEFAULT_TRACKER).map_err(|cause| PlanError::BadList {
                        path: DEFAULT_TRACKER.into(),
                        cause,
                    })?
                }
            };
            return status(&list, number).await;
        }
        RingCommand::Apply { .. } => "apply",
        RingCommand::Abort => "abort",
        RingCommand::Recover { .. } => "recover",
    };
    Err(RingError::NotYet { command })
}

/// Why it was not done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("{0}")]
    Unanswered(SessionError),
    #[error(
        "this version cannot change who is in a ring: 'ring {command}' is not there yet; nothing was changed"
    )]
    NotYet { command: &'static str },
}

/// What one tracker said.
type Said = Result<(RingId, RingStatus), SessionError>;

async fn status(list: &TrackerList, number: Option<usize>) -> Result<(), RingError> {
    let asked = match number {
        Some(number) => vec![nth(list, number)?.clone()],
        None => list.addrs().to_vec(),
    };
    let mut asking = JoinSet::new();
    for (at, addr) in asked.iter().cloned().enumerate() {
        let ring = list.ring();
        asking.spawn(async move { (at, ask(addr, ring).await) });
    }
    let mut said: Vec<Option<Said>> = asked.iter().map(|_| None).collect();
    while let Some(Ok((at, answer))) = asking.join_next().await {
        said[at] = Some(answer);
    }
    print!("{}", show(&asked, said)?);
    Ok(())
}

async fn ask(addr: TrackerAddr, ring: Option<RingId>) -> Said {
    let unreachable = SessionError::Unreachable {
        tried: vec![addr.clone()],
    };
    let ask = async {
        let client = TrackerClient::connect(&[addr], ring).await?;
        Ok((client.ring_id(), client.ring_status().await?))
    };
    timeout(PATIENCE, ask).await.unwrap_or(Err(unreachable))
}

/// The ring as the first tracker sees it that answered, and a line for each of those that were asked and each
/// member that was not.
fn show(asked: &[TrackerAddr], said: Vec<Option<Said>>) -> Result<String, RingError> {
    let mut text = String::new();
    let mut lines = String::new();
    let mut seen: Option<RingStatus> = None;
    let mut error = None;
    for (addr, said) in asked.iter().zip(said) {
        match said {
            Some(Ok((ring, status))) => {
                lines += &format!("  {addr}  {}\n", here(&status));
                if seen.is_none() {
                    text = format!("Ring {ring}: {}\n", summary(&status));
                    seen = Some(status);
                }
            }
            Some(Err(cause)) => {
                lines += &format!("  {addr}  {}\n", trouble(&cause));
                error.get_or_insert(cause);
            }
            None => {}
        }
    }
    let Some(status) = seen else {
        let tried = || SessionError::Unreachable {
            tried: asked.to_vec(),
        };
        return Err(RingError::Unanswered(match error {
            Some(SessionError::Unreachable { .. }) | None => tried(),
            Some(error) => error,
        }));
    };
    for member in &status.members {
        match &member.addr {
            Some(addr) if member.refused.is_some() => {
                let reason = member.refused.as_deref().unwrap_or_default();
                lines += &format!("  {addr}  refused: {reason}\n");
            }
            Some(addr) if !asked.contains(addr) => {
                let alive = if member.alive {
                    "alive"
                } else {
                    "not reachable"
                };
                lines += &format!("  {addr}  {alive}\n");
            }
            _ => {}
        }
    }
    Ok(text + &lines)
}

fn summary(status: &RingStatus) -> String {
    if !status.founded {
        let waiting: Vec<_> = status.waiting_for.iter().map(ToString::to_string).collect();
        return format!("not founded, waiting for {}", waiting.join(", "));
    }
    format!(
        "{} of {} trackers reachable, epoch {}",
        status.reachable, status.trackers, status.epoch
    )
}

/// What a tracker says of itself.
fn here(status: &RingStatus) -> String {
    let lag = match (status.votes, status.behind) {
        (false, _) if status.founded => "learning what it may have forgotten".to_owned(),
        (_, 0) => "up to date".to_owned(),
        (_, rows) => format!("{rows} rows to repair"),
    };
    format!("alive, {} rows, {lag}", status.rows)
}

fn trouble(cause: &SessionError) -> String {
    match cause {
        SessionError::Unreachable { .. } => "no answer".to_owned(),
        cause => cause.to_string(),
    }
}

/// Where a tracker without a list listens.
const DEFAULT_TRACKER: &str = "127.0.0.1:9000";

/// How long one tracker may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
