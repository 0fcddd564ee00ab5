//! `list_groups`: a table of all groups.

use crate::context::{Context, unexpected};
use crate::control::{Outcome, Request};
use crate::failure::Failure;
use crate::render;

pub(crate) async fn run(context: &Context) -> Result<String, Failure> {
    let (groups, stale) = match context.ask(&Request::ListGroups).await? {
        Outcome::Groups { groups, stale } => (groups, stale),
        other => return Err(unexpected(&other)),
    };
    if stale {
        render::talk(render::STALE);
    }
    if groups.is_empty() {
        return Ok("No groups yet".to_owned());
    }
    let rows = groups.into_iter().map(|group| {
        let access = if group.open { "open" } else { "members" };
        [
            group.name.to_string(),
            group.owner.to_string(),
            access.to_owned(),
            group.members.to_string(),
            group.my_role,
        ]
    });
    Ok(render::table(
        ["group", "owner", "access", "members", "my role"],
        rows,
    ))
}
