//! `create_group`: makes a group owned by the user.

use p2pshare::GroupName;

use crate::context::{Connected, Context};
use crate::control::Request;
use crate::failure::Failure;

pub(crate) async fn run(
    context: &Context,
    group: GroupName,
    open: bool,
) -> Result<String, Failure> {
    let Connected {
        identity,
        mut client,
    } = context.connect().await?;
    let access = if open {
        "open to everybody"
    } else {
        "members only"
    };
    let text = format!(
        "Group '{group}' created (owner: {}, {access})",
        identity.file.user
    );
    client.ask(&Request::CreateGroup { group, open }).await?;
    Ok(text)
}
