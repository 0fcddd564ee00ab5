//! `list_requests`: who asks to join a group, one a line.

use p2pshare::GroupName;

use crate::context::{Context, unexpected};
use crate::control::{Outcome, Request};
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, group: GroupName) -> Result<String, Failure> {
    let users = match context.ask(&Request::ListRequests { group }).await? {
        Outcome::Users(users) => users,
        other => return Err(unexpected(&other)),
    };
    if users.is_empty() {
        return Ok("No pending requests".to_owned());
    }
    Ok(users
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n"))
}
