//! `reject_request`: turns somebody who asked to join down; they may ask again.

use p2pshare::{GroupName, UserName};

use crate::context::Context;
use crate::control::Request;
use crate::failure::Failure;

pub(crate) async fn run(
    context: &Context,
    group: GroupName,
    user: UserName,
) -> Result<String, Failure> {
    let text = format!("Rejected {user}");
    context.ask(&Request::Reject { group, user }).await?;
    Ok(text)
}
