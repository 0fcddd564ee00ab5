//! `status`: who is logged in, and what the background peer does.

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
    text += &format!("  peer server    {} (pid {})\n", status.peer, status.pid);
    text += &format!("  files shared   {}", status.shared_files);
    if status.unserved_files > 0 {
        let unserved = status.unserved_files;
        text +=
            &format!(", of which {unserved} not as recorded and not served: see show_downloads");
    }
    text += "\n";
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

const NOBODY: &str = "Not logged in";
