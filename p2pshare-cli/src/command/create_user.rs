//! `create_user`: makes an account. The tracker is asked directly; nothing of this machine becomes that user's.

use p2pshare::TrackerClient;

use crate::args::Account;
use crate::context::Context;
use crate::failure::Failure;
use crate::password;

pub(crate) async fn run(context: &Context, account: &Account) -> Result<String, Failure> {
    let password = password::obtain(account, true)?;
    let list = context.trackers()?;
    let client = TrackerClient::connect(list.addrs(), None).await?;
    context
        .home
        .trust_ring(&list, client.tracker(), client.ring_id())?;
    let user = client.create_user(&account.user, &password).await?;
    Ok(format!("User created: {user}"))
}
