//! `accept_request`: lets somebody who asked into a group of the user's.

use p2pshare::{GroupName, UserName};

use crate::context::Context;
use crate::control::Request;
use crate::failure::Failure;

pub(crate) async fn run(
    context: &Context,
    group: GroupName,
    user: UserName,
) -> Result<String, Failure> {
    let text = format!("Accepted {user} into '{group}'");
    context.ask(&Request::Accept { group, user }).await?;
    Ok(text)
}
