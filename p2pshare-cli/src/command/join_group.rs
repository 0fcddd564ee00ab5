//! `join_group`: asks to become a member; of an open group the user is one at once.

use p2pshare::GroupName;

use crate::context::{Connected, Context, unexpected};
use crate::control::{Joined, Outcome, Request};
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, group: GroupName) -> Result<String, Failure> {
    let Connected {
        identity,
        mut client,
    } = context.connect().await?;
    match client
        .ask(&Request::JoinGroup {
            group: group.clone(),
        })
        .await?
    {
        Outcome::Joined(Joined::Member) => Ok(format!(
            "{} is a member of '{group}' now",
            identity.file.user
        )),
        Outcome::Joined(Joined::Requested { owner }) => Ok(format!(
            "Join request sent to '{group}'; {owner} has to accept it"
        )),
        Outcome::Joined(Joined::AlreadyPending { owner }) => Ok(format!(
            "A join request to '{group}' is already pending; {owner} has to accept it"
        )),
        other => Err(unexpected(&other)),
    }
}
