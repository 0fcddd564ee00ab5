//! `show_downloads`: a table of what is being downloaded, what was, and what is shared.

use crate::context::{Connected, Context, unexpected};
use crate::control::{Outcome, Request};
use crate::failure::Failure;
use crate::render;

pub(crate) async fn run(context: &Context) -> Result<String, Failure> {
    let Some(Connected { mut client, .. }) = context.connect_if_logged_in().await? else {
        render::talk("note: not logged in");
        return Ok(NONE.to_owned());
    };
    let transfers = match client.ask(&Request::ShowDownloads).await? {
        Outcome::Transfers(transfers) => transfers,
        other => return Err(unexpected(&other)),
    };
    if transfers.is_empty() {
        return Ok(NONE.to_owned());
    }
    let left: Vec<String> = transfers
        .iter()
        .flat_map(|transfer| {
            let (name, group) = (&transfer.name, &transfer.group);
            let line = move |left| format!("\n{name} of '{group}': {}", render::left(left));
            transfer.left.iter().map(line)
        })
        .collect();
    let rows = transfers.into_iter().map(|transfer| {
        [
            transfer.name.to_string(),
            transfer.group.to_string(),
            render::size(transfer.size),
            render::percent(transfer.verified_bytes, transfer.size),
            transfer.state,
            transfer.path.to_string(),
        ]
    });
    let header = ["file", "group", "size", "progress", "state", "path"];
    Ok(render::table(header, rows) + &left.concat())
}

const NONE: &str = "No downloads yet";
