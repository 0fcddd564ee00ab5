//! The commands: one module each, and here which one carries out what was typed.
//!
//! A command returns what goes to standard output; talk and progress go to standard error meanwhile.

mod accept_request;
mod availability;
mod create_group;
mod create_user;
mod demo;
mod download_file;
mod join_group;
mod leave_group;
mod limit;
mod list_files;
mod list_groups;
mod list_requests;
mod login;
mod logout;
mod reject_request;
mod remove_member;
mod show_downloads;
mod status;
mod stop_sharing;
mod transfer_group;
mod upload_file;
mod verify;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::background;
use crate::context::Context;
use crate::failure::Failure;
use crate::{render, shell, transfer};

/// Carries out what was typed, and says how it ended.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Peer(args) => return background::run(args),
        Command::Shell(args) => return shell::run(cli.global, &args).into(),
        _ => execute(cli, Caller::Process),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.code().into()
        }
    }
}

/// Who wants a command carried out.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    /// The process, which is there for this one command, and which Ctrl-C ends.
    Process,
    /// A shell, which goes on after it; Ctrl-C ends the command alone.
    Shell,
}

/// Carries out one command and prints what it led to. What Ctrl-C ends in a shell has told the trackers or has not;
/// the same command tells.
pub(crate) fn execute(cli: Cli, caller: Caller) -> Result<(), Failure> {
    run_command(cli, caller).and_then(|text| render::print(&text))
}

fn run_command(cli: Cli, caller: Caller) -> Result<String, Failure> {
    let mut runtime = match cli.command {
        // Two peers and a tracker, which would otherwise share one thread.
        Command::Demo { .. } => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start", &error))?;
    let result = runtime.block_on(async {
        let context = Context::new(cli.global, caller)?;
        // The only command that has no use for a home.
        if !matches!(cli.command, Command::Demo { .. }) {
            context.home.check_guarded()?;
        }
        let is_cut_off = caller == Caller::Shell && !minds_interrupts(&cli.command);
        let command = dispatch(&context, cli.command);
        if !is_cut_off {
            return command.await;
        }
        tokio::select! {
            biased;
            interrupted = transfer::interrupted() => Err(interrupted),
            result = command => result,
        }
    });
    runtime.shutdown_background();
    result
}

/// Whether a command ends in its own way on Ctrl-C.
fn minds_interrupts(command: &Command) -> bool {
    matches!(
        command,
        Command::UploadFile { .. } | Command::DownloadFile(_) | Command::Verify(_)
    )
}

async fn dispatch(context: &Context, command: Command) -> Result<String, Failure> {
    match command {
        Command::CreateUser(account) => create_user::run(context, &account).await,
        Command::Login(account) => login::run(context, &account).await,
        Command::Logout => logout::run(context).await,
        Command::Status => status::run(context).await,
        Command::CreateGroup { group, open } => create_group::run(context, group, open).await,
        Command::ListGroups => list_groups::run(context).await,
        Command::JoinGroup { group } => join_group::run(context, group).await,
        Command::ListRequests { group } => list_requests::run(context, group).await,
        Command::AcceptRequest { group, user } => accept_request::run(context, group, user).await,
        Command::RejectRequest { group, user } => reject_request::run(context, group, user).await,
        Command::LeaveGroup { group } => leave_group::run(context, group).await,
        Command::RemoveMember { group, user } => remove_member::run(context, group, user).await,
        Command::TransferGroup { group, user } => transfer_group::run(context, group, user).await,
        Command::UploadFile { path, group, name } => {
            upload_file::run(context, &path, group, name).await
        }
        Command::ListFiles { group } => list_files::run(context, group).await,
        Command::Availability { group, name } => availability::run(context, group, name).await,
        Command::DownloadFile(args) => download_file::run(context, args).await,
        Command::ShowDownloads => show_downloads::run(context).await,
        Command::Limit(args) => limit::run(context, args).await,
        Command::StopSharing {
            group,
            name,
            for_all,
        } => stop_sharing::run(context, group, name, for_all).await,
        Command::Verify(args) => verify::run(context, args).await,
        Command::Demo { file } => demo::run(file).await,
        Command::Shell(_) => Err(Failure::usage("this is the shell already")),
        Command::Peer(_) => Err(Failure::usage("a background peer is not a command")),
    }
}
