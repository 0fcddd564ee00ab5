//! `limit`: how fast the background peer may send and fetch.

use p2pshare::{Limits, Rate};

use crate::args::Limit;
use crate::context::{Context, unexpected};
use crate::control::{Outcome, Request};
use crate::failure::Failure;
use crate::render;

pub(crate) async fn run(context: &Context, args: Limit) -> Result<String, Failure> {
    let Limit { upload, download } = args;
    match context.ask(&Request::Limit { upload, download }).await? {
        Outcome::Limits(limits) => Ok(show(limits)),
        other => Err(unexpected(&other)),
    }
}

fn show(limits: Limits) -> String {
    let show = |rate: Option<Rate>| match rate {
        Some(rate) => format!("{}/s", render::size(rate.bytes())),
        None => "none".to_owned(),
    };
    format!(
        "upload    {}\ndownload  {}",
        show(limits.upload),
        show(limits.download)
    )
}
