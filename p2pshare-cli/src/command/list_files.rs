//! `list_files`: a table of the files of a group.

use p2pshare::GroupName;

use crate::context::{Context, unexpected};
use crate::control::{Outcome, Request};
use crate::failure::Failure;
use crate::render;

pub(crate) async fn run(context: &Context, group: GroupName) -> Result<String, Failure> {
    let (files, stale) = match context
        .ask(&Request::ListFiles {
            group: group.clone(),
        })
        .await?
    {
        Outcome::Files { files, stale } => (files, stale),
        other => return Err(unexpected(&other)),
    };
    if stale {
        render::talk(render::STALE);
    }
    if files.is_empty() {
        return Ok(format!("No files in '{group}'"));
    }
    let rows = files.into_iter().map(|file| {
        let sha256: String = file.sha256.chars().take(SHORT_DIGITS).collect();
        [
            file.name.to_string(),
            render::size(file.size),
            file.uploader.to_string(),
            file.holders_online.to_string(),
            sha256,
        ]
    });
    Ok(render::table(
        ["name", "size", "uploader", "online", "SHA-256"],
        rows,
    ))
}

/// Enough of a SHA-256 to tell files apart at a glance.
const SHORT_DIGITS: usize = 16;
