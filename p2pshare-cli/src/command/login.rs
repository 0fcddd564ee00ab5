//! `login`: proves who one is to the trackers, and leaves a background peer serving for that identity.
//!
//! A login that fails leaves no process and no folder that was not there before.

use p2pshare::Password;

use crate::args::Account;
use crate::background::Background;
use crate::context::{Context, unexpected};
use crate::control::{LoggedIn, Outcome, Request};
use crate::failure::Failure;
use crate::password;

pub(crate) async fn run(context: &Context, account: &Account) -> Result<String, Failure> {
    let password = password::obtain(account, false, context.caller)?;
    context.restore().await;
    let (client, list) = context.connect_to_tracker().await?;
    let ring = client.ring_id();
    drop(client);
    let background = Background {
        folder: context.home.folder(ring, &account.user),
        ring,
        trackers: list.addrs().to_vec(),
    };
    let is_new = background.folder.create()?;
    let logged_in = match log_in(context, &background, account, password).await {
        Ok(logged_in) => logged_in,
        Err(failure) => {
            undo(context, &background, is_new).await;
            return Err(failure);
        }
    };
    context.home.set_current(ring, &logged_in.user)?;
    let tracker = match logged_in.tracker {
        Some(tracker) => format!("Tracker {tracker} ok"),
        None => "Tracker lost again; looking for another".to_owned(),
    };
    Ok(format!(
        "Logged in as {}\n{tracker}\nPeer server {} (pid {})",
        logged_in.user, logged_in.peer, logged_in.pid
    ))
}

async fn log_in(
    context: &Context,
    background: &Background,
    account: &Account,
    password: Password,
) -> Result<LoggedIn, Failure> {
    let request = Request::Login {
        user: account.user.clone(),
        password,
    };
    for _ in 0..ATTEMPTS {
        let mut client = background
            .connect_with_these_trackers(&context.home)
            .await?;
        match client.ask(&request).await? {
            Outcome::LoggedIn(logged_in) => return Ok(logged_in),
            // Another command ended it meanwhile; the next one is ours.
            Outcome::Retired { .. } => client.wait_for_end().await,
            other => return Err(unexpected(&other)),
        }
    }
    Err(Failure::failed(
        "the background peer was ended again and again by other commands; nobody was logged in",
    ))
}

/// Ends a background peer in which nobody is logged in, and removes the folder if it was made for this login.
async fn undo(context: &Context, background: &Background, is_new: bool) {
    let Ok(_lock) = context.home.lock().await else {
        return;
    };
    match background.retire().await {
        Ok(true) if is_new && background.folder.read_identity().is_none() => {
            background.folder.remove()
        }
        _ => {}
    }
}

/// How many background peers may end under one login.
const ATTEMPTS: u32 = 3;
