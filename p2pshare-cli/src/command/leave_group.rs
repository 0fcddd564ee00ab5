//! `leave_group`: ends the user's membership.

use p2pshare::GroupName;

use crate::context::Context;
use crate::control::Request;
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, group: GroupName) -> Result<String, Failure> {
    let text = format!("Left '{group}'");
    context.ask(&Request::LeaveGroup { group }).await?;
    Ok(text)
}
