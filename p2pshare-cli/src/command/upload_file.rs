//! `upload_file`: shares a file with a group, in place. The file is read once, and never copied.

use std::path::Path;

use p2pshare::{FileName, GroupName};

use crate::context::{Context, unexpected};
use crate::control::{Outcome, Request, UploadRequest};
use crate::failure::Failure;
use crate::{render, transfer};

pub(crate) async fn run(
    context: &Context,
    path: &Path,
    group: GroupName,
    name: Option<FileName>,
) -> Result<String, Failure> {
    let path = transfer::absolute(path)?;
    let request = Request::Upload(UploadRequest {
        path: path.as_path().into(),
        group: group.clone(),
        name,
    });
    let uploaded = match transfer::ask_with_progress(context, &request).await? {
        Outcome::Uploaded(uploaded) => uploaded,
        other => return Err(unexpected(&other)),
    };
    let mut text = format!("Uploaded {} to '{group}'\n", uploaded.name);
    text += &format!(
        "  size      {} ({} bytes)\n",
        render::size(uploaded.size),
        uploaded.size
    );
    text += &format!("  chunks    {}\n", uploaded.chunks);
    text += &format!("  SHA-256   {}\n", uploaded.sha256);
    text += &format!("  link      {}\n", uploaded.link);
    text += &format!(
        "  time      {}",
        render::moved(uploaded.size, uploaded.elapsed)
    );
    Ok(text)
}
