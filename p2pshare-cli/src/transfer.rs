//! What the two commands that move files have in common: progress, and Ctrl-C, which cancels at first and ends the
//! command at once the second time.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::context::{Connected, Context};
use crate::control::{Outcome, Request};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::progress::ProgressView;
use crate::render;

/// The path from the root, which means the same to the background peer.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("'{}' is no path: {error}", path.display())))
}

/// Resolves at Ctrl-C, with what to say of the command that it ends.
pub(crate) async fn interrupted() -> Failure {
    match signal(SignalKind::interrupt()) {
        Ok(mut interrupts) => {
            interrupts.recv().await;
            Failure::new(ExitCode::Interrupted, "interrupted")
        }
        Err(error) => Failure::io("cannot listen for Ctrl-C", &error),
    }
}

/// Asks for a transfer, shows its progress, and waits for its end.
pub(crate) async fn ask_with_progress(
    context: &Context,
    request: &Request,
) -> Result<Outcome, Failure> {
    let (cancel, cancelled) = watch::channel(false);
    let mut view = ProgressView::new();
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| Failure::io("cannot listen for Ctrl-C", &error))?;
    let interrupted = async {
        interrupts.recv().await;
        render::talk("\ncancelling; Ctrl-C again ends at once");
        cancel.send_replace(true);
        interrupts.recv().await;
        Failure::new(ExitCode::Interrupted, "interrupted")
    };
    let result = async {
        let Connected { mut client, .. } = context.connect().await?;
        client
            .ask_with_progress(request, cancelled, |progress| view.show(progress))
            .await
    };
    tokio::select! {
        result = result => result,
        failure = interrupted => Err(failure),
    }
}
