//! `create_user`: makes an account. The tracker is asked directly; nothing of this machine becomes that user's.

use crate::args::Account;
use crate::context::Context;
use crate::failure::Failure;
use crate::password;

pub(crate) async fn run(context: &Context, account: &Account) -> Result<String, Failure> {
    let password = password::obtain(account, true, context.caller)?;
    context.restore().await;
    let (client, _) = context.connect_to_tracker().await?;
    let user = client.create_user(&account.user, &password).await?;
    Ok(format!("User created: {user}"))
}
