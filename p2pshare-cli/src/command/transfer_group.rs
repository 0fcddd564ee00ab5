//! `transfer_group`: makes another member the owner of a group of the user's.

use p2pshare::{GroupName, UserName};

use crate::context::Context;
use crate::control::Request;
use crate::failure::Failure;

pub(crate) async fn run(
    context: &Context,
    group: GroupName,
    user: UserName,
) -> Result<String, Failure> {
    let text = format!("Group '{group}' belongs to {user} now");
    context.ask(&Request::TransferGroup { group, user }).await?;
    Ok(text)
}
