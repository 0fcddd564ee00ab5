//! `verify`: reads a file that is here, and says whether it still is what the group has. With `--repair` what is wrong is
//! fetched again; without, nothing on the disk is touched.

use crate::args::Verify;
use crate::context::{Context, unexpected};
use crate::control::{Outcome, Request, Verified, VerifyRequest};
use crate::failure::Failure;
use crate::transfer;

pub(crate) async fn run(context: &Context, args: Verify) -> Result<String, Failure> {
    let request = Request::Verify(VerifyRequest {
        group: args.group,
        name: args.name,
        repair: args.repair,
    });
    match transfer::ask_with_progress(context, &request).await? {
        Outcome::Verified(verified) => Ok(report(&verified)),
        other => Err(unexpected(&other)),
    }
}

fn report(verified: &Verified) -> String {
    let chunks = verified.chunks;
    let mut text = format!("verified: {chunks} of {chunks} chunks");
    if verified.sha256_checked {
        text += ", SHA-256 ok";
    }
    if let Some(damage) = &verified.repaired {
        text += &format!("\n  repaired; it was damaged: {damage}");
    }
    text
}
