//! `remove_member`: puts a member out of a group of the user's.

use p2pshare::{GroupName, UserName};

use crate::context::Context;
use crate::control::Request;
use crate::failure::Failure;

pub(crate) async fn run(
    context: &Context,
    group: GroupName,
    user: UserName,
) -> Result<String, Failure> {
    let text = format!("Removed {user} from '{group}'");
    context.ask(&Request::RemoveMember { group, user }).await?;
    Ok(text)
}
