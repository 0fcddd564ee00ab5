//! The background peer: one process for each identity that is logged in, which serves its files and carries out
//! what the commands ask.
//!
//! It is this program run again, in a session of its own without a terminal, holding the lock of the identity's
//! folder, so that there is never a second. As long as somebody is logged in it ends by logout or by a signal, and
//! never by itself. The command that starts it learns over a pipe when it serves, or why it does not.

mod perform;
mod service;
mod start;
mod transfer;

use std::fs::File;
use std::io;
use std::process::ExitCode;
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process, setsid};
use tokio::io::AsyncWriteExt;
use tracing_subscriber::EnvFilter;

pub(crate) use start::{Background, restore_all};

use crate::args::BackgroundPeer;
use crate::control::write_frame;
use crate::failure::Failure;
use crate::home::IdentityFolder;
use crate::log::RotatingLog;
use service::Service;

/// Runs a background peer until it is told to end.
pub(crate) fn run(args: BackgroundPeer) -> ExitCode {
    // Fails only where this process leads its group already, and then it has no terminal to lose.
    let _ = setsid();
    let result =
        StartPipe::take().map_err(|error| Failure::io("cannot take the start-up pipe", &error));
    let result = result.and_then(|pipe| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::io("cannot start", &error))?;
        runtime.block_on(serve(args, pipe))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            failure.code().into()
        }
    }
}

async fn serve(args: BackgroundPeer, pipe: StartPipe) -> Result<(), Failure> {
    let started = start(args).await;
    let said = started.as_ref().map(|_| ()).map_err(Failure::clone);
    pipe.say(said).await;
    let (service, _lock) = started?;
    service.run().await
}

/// Everything that can fail before the first command is served.
async fn start(args: BackgroundPeer) -> Result<(Service, File), Failure> {
    let folder = IdentityFolder::at(args.folder);
    let lock = take_over(&folder)?;
    start_log(&folder).map_err(|error| Failure::io("cannot write the log", &error))?;
    let service = Service::start(folder, args.ring, args.tracker).await?;
    Ok((service, lock))
}

/// Takes the lock of the folder. The command that started us found nobody listening, so whoever still holds the
/// lock is either ending or has lost its socket, and is told to end.
fn take_over(folder: &IdentityFolder) -> Result<File, Failure> {
    let failed = |error| Failure::io(format!("cannot lock {}", folder.path().display()), &error);
    if let Some(holder) = folder
        .lock_holder()
        .map_err(failed)?
        .and_then(Pid::from_raw)
    {
        let _ = kill_process(holder, Signal::TERM);
    }
    folder.lock().map_err(failed)
}

fn start_log(folder: &IdentityFolder) -> io::Result<()> {
    let mut log = RotatingLog::open(folder.path())?;
    log.take_stderr()?;
    let filter = EnvFilter::try_from_env("P2PSHARE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(filter)
        .with_writer(Mutex::new(log))
        .init();
    Ok(())
}

/// What standard output is at first: the way to tell the command that started us how it went.
struct StartPipe(File);

impl StartPipe {
    /// Takes the pipe, and leaves nothing on standard output.
    fn take() -> io::Result<Self> {
        let pipe = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
        rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
        Ok(Self(pipe.into()))
    }

    async fn say(self, result: Result<(), Failure>) {
        let mut pipe = tokio::fs::File::from_std(self.0);
        // Whoever started us may have been killed meanwhile.
        let _ = write_frame(&mut pipe, &result).await;
        let _ = pipe.shutdown().await;
    }
}
