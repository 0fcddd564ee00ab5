//! `logout`: ends the session and its background peer. What was shared and downloaded is kept for the next login.

use crate::context::{Connected, Context, unexpected};
use crate::control::{Outcome, Request};
use crate::failure::Failure;

pub(crate) async fn run(context: &Context) -> Result<String, Failure> {
    let Connected {
        identity,
        mut client,
    } = context.connect().await?;
    match client.ask(&Request::Logout).await? {
        Outcome::LoggedOut { user } => {
            client.wait_for_end().await;
            context.home.clear_current(&identity.folder);
            Ok(format!("Logged out {user}; peer server stopped"))
        }
        other => Err(unexpected(&other)),
    }
}
