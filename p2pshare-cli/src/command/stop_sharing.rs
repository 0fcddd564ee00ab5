//! `stop_sharing`: shares a file no longer. The file itself stays where it is.

use p2pshare::{FileName, GroupName};

use crate::context::{Context, unexpected};
use crate::control::{Outcome, Request};
use crate::failure::Failure;

pub(crate) async fn run(
    context: &Context,
    group: GroupName,
    name: FileName,
    for_all: bool,
) -> Result<String, Failure> {
    let mut text = format!("Stopped sharing {name} in '{group}'");
    match context
        .ask(&Request::StopSharing {
            group,
            name,
            for_all,
        })
        .await?
    {
        Outcome::Stopped {
            entry_removed: true,
        } => text += "\nNobody shares it any more: it is out of the group",
        Outcome::Stopped {
            entry_removed: false,
        } => {}
        other => return Err(unexpected(&other)),
    }
    Ok(text)
}
