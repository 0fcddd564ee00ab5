//! `status`: who is logged in, and what the background peer does.

use p2pshare::RingStatus;

use crate::context::{Connected, Context, unexpected};
use crate::control::{Outcome, Request};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::render;

pub(crate) async fn run(context: &Context) -> Result<String, Failure> {
    let Some(Connected {
        identity,
        mut client,
    }) = context.connect_if_logged_in().await?
    else {
        return Ok(NOBODY.to_owned());
    };
    let status = match client.ask(&Request::Status).await {
        Ok(Outcome::Status(status)) => status,
        Ok(other) => return Err(unexpected(&other)),
        // The trackers have ended the session.
        Err(failure) if failure.code() == ExitCode::NotLoggedIn => return Ok(NOBODY.to_owned()),
        Err(failure) => return Err(failure),
    };
    let tracker = status.tracker.unwrap_or_else(|| {
        let tried: Vec<_> = identity
            .file
            .trackers
            .iter()
            .map(ToString::to_string)
            .collect();
        format!("none reached (of {})", tried.join(", "))
    });
    let mut text = format!("Logged in as {}\n", status.user);
    text += &format!("  tracker        {tracker}\n");
    text += &format!("  ring           {}\n", status.ring);
    if let Some(ring) = &status.trackers {
        text += &format!("  trackers       {}\n", trackers(ring));
    }
    text += &format!("  peer server    {} (pid {})\n", status.peer, status.pid);
    text += &format!("  files shared   {}", status.shared_files);
    if status.unserved_files > 0 {
        let unserved = status.unserved_files;
        text +=
            &format!(", of which {unserved} not as recorded and not served: see show_downloads");
    }
    text += "\n";
    let sent = render::size(status.sent_bytes);
    text += &format!("  sent           {sent} since it started\n");
    text += &format!("  transfers      {} running", status.transfers);
    for download in &status.downloads {
        text += &format!(
            "\n    {} of '{}': {}, {} of {}",
            download.name,
            download.group,
            download.state,
            render::percent(download.verified_bytes, download.size),
            render::size(download.size)
        );
        for left in &download.left {
            text += &format!("\n      {}", render::left(left));
        }
    }
    let others = context
        .home
        .identities()
        .logged_in
        .into_iter()
        .filter(|other| other.folder != identity.folder);
    let others: Vec<_> = others.map(|other| other.file.user.to_string()).collect();
    if !others.is_empty() {
        text += &format!("\nAlso logged in: {}", others.join(", "));
    }
    Ok(text)
}

/// How many there are and can be reached, and one line for each of a ring of several.
fn trackers(ring: &RingStatus) -> String {
    if !ring.founded {
        let waiting: Vec<_> = ring.waiting_for.iter().map(ToString::to_string).collect();
        return format!(
            "the ring is not founded; waiting for {}",
            waiting.join(", ")
        );
    }
    let mut text = format!(
        "{} of {} reachable, epoch {}",
        ring.reachable, ring.trackers, ring.epoch
    );
    for member in ring.members.iter().filter(|_| ring.trackers > 1) {
        let addr = member.addr.as_ref();
        let addr = addr.map_or_else(|| member.id.to_string(), ToString::to_string);
        let alive = if member.alive {
            "alive"
        } else {
            "not reachable"
        };
        text += &format!("\n    {addr} {alive}");
    }
    text
}

const NOBODY: &str = "Not logged in";
