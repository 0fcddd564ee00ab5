//! What can be typed: the flags and the commands, and nothing of what they do.
//!
//! Commands are spelled with `_` as they always were, and answer to `-` too. Names of files are brought to Unicode's
//! normalization form C, in which groups have them: a keyboard or a completion may give another.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use p2pshare::{FileName, GroupName, RingId, TrackerAddr, UserName};

use crate::control::RateSetting;
use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// What was typed, where it is no command to carry out.
pub(crate) enum NoCommand {
    /// Help or the version was asked for.
    Help(clap::Error),
    /// It cannot be understood.
    Wrong(clap::Error),
    /// There is no such command.
    Unknown(Failure),
    /// There is nothing but flags, which is answered with the help.
    Missing,
}

impl NoCommand {
    /// Says it, and gives the number to exit with.
    pub(crate) fn report(&self) -> u8 {
        match self {
            // Whoever asked for help and does not read it has had enough of it.
            Self::Help(text) => {
                let _ = text.print();
                return 0;
            }
            Self::Wrong(error) => {
                let _ = error.print();
            }
            Self::Unknown(failure) => failure.report(),
            Self::Missing => {
                let help = Cli::command().render_help();
                let _ = write!(anstream::stderr(), "{}", help.ansi());
            }
        }
        ExitCode::Usage.number()
    }
}

/// Reads a command line, the name of the program first.
///
/// # Errors
/// [`NoCommand`], of which nothing was printed yet.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, NoCommand> {
    let matches = Cli::command().try_get_matches_from(words);
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(no_command)
}

/// Reads a line of a shell. What it does not say itself of home, trackers and identity is what the `shell` was told,
/// and only then what the environment says.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_line(words: &[String], shell: &Global) -> Result<Cli, NoCommand> {
    let words = ["p2pshare"]
        .into_iter()
        .chain(words.iter().map(String::as_str));
    let matches = Cli::command()
        .try_get_matches_from(words)
        .map_err(no_command)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(no_command)?;
    let says = |flag| matches.value_source(flag) == Some(ValueSource::CommandLine);
    let global = &mut cli.global;
    if !says("home") {
        global.home = shell.home.clone().or(global.home.take());
    }
    if !says("trackers") {
        global.trackers = shell.trackers.clone().or(global.trackers.take());
    }
    if !says("as_user") {
        global.as_user = shell.as_user.clone();
    }
    Ok(cli)
}

fn no_command(error: clap::Error) -> NoCommand {
    match error.kind() {
        ErrorKind::InvalidSubcommand => NoCommand::Unknown(unknown_command(&error)),
        // Which of the two it is depends on whether there is a flag or a variable of the environment.
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            NoCommand::Missing
        }
        _ if error.use_stderr() => NoCommand::Wrong(error),
        _ => NoCommand::Help(error),
    }
}

fn unknown_command(error: &clap::Error) -> Failure {
    let typed = error
        .get(ContextKind::InvalidSubcommand)
        .map(ToString::to_string);
    let failure = Failure::usage(format!("unknown command '{}'", typed.unwrap_or_default()));
    // Those that are similar, the most similar last.
    let nearest = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(nearest)) => Some(nearest),
        Some(ContextValue::Strings(similar)) => similar.last(),
        _ => None,
    };
    match nearest {
        Some(nearest) => failure.hint(format!("did you mean {}?", nearest.replace('-', "_"))),
        None => failure.hint("p2pshare --help lists the commands"),
    }
}

/// Share large files within groups, directly from machine to machine.
#[derive(Parser, Debug)]
#[command(name = "p2pshare", version, max_term_width = 100)]
#[command(after_help = "Commands may be spelled with '-' for '_'.\n\
                        Exit codes: 0 done, 1 failed, 2 usage, 3 not logged in, 4 denied, 5 not found, \
                        6 unreachable, 7 integrity, 130 interrupted.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// Folder of the identities [default: the platform's data folder]
    #[arg(long, global = true, value_name = "DIR", env = "P2PSHARE_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// The trackers: a list file, or addresses separated by commas
    /// [default: ./tracker_info.txt, then that of the home, else 127.0.0.1:9000]
    #[arg(long, global = true, value_name = "LIST", env = "P2PSHARE_TRACKERS")]
    pub(crate) trackers: Option<String>,
    /// Act as this user of the home rather than the one who logged in last
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) as_user: Option<UserName>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make an account
    #[command(name = "create_user", alias = "create-user")]
    CreateUser(Account),
    /// Log in, start the background peer, and be the current identity
    Login(Account),
    /// End the session and stop the background peer
    Logout,
    /// Who is logged in, and what the background peer does
    Status,
    /// Make a group that you own
    #[command(name = "create_group", alias = "create-group")]
    CreateGroup {
        group: GroupName,
        /// Let every user list and download without joining, and join without being accepted
        #[arg(long)]
        open: bool,
    },
    /// List all groups
    #[command(name = "list_groups", alias = "list-groups")]
    ListGroups,
    /// Ask to become a member
    #[command(name = "join_group", alias = "join-group")]
    JoinGroup { group: GroupName },
    /// Who asks to join a group of yours
    #[command(name = "list_requests", alias = "list-requests")]
    ListRequests { group: GroupName },
    /// Let somebody into a group of yours
    #[command(name = "accept_request", alias = "accept-request")]
    AcceptRequest { group: GroupName, user: UserName },
    /// Turn a request to join down
    #[command(name = "reject_request", alias = "reject-request")]
    RejectRequest { group: GroupName, user: UserName },
    /// Leave a group
    #[command(name = "leave_group", alias = "leave-group")]
    LeaveGroup { group: GroupName },
    /// Put a member out of a group of yours
    #[command(name = "remove_member", alias = "remove-member")]
    RemoveMember { group: GroupName, user: UserName },
    /// Make another member the owner of a group of yours
    #[command(name = "transfer_group", alias = "transfer-group")]
    TransferGroup { group: GroupName, user: UserName },
    /// Share a file with a group, in place
    #[command(name = "upload_file", alias = "upload-file")]
    UploadFile {
        path: PathBuf,
        group: GroupName,
        /// What the group sees it called [default: the name of the file]
        #[arg(long, value_parser = FileName::normalized)]
        name: Option<FileName>,
    },
    /// List the files of a group
    #[command(name = "list_files", alias = "list-files")]
    ListFiles { group: GroupName },
    /// How much of a file can be had right now: who is online with it, and how often each chunk is there
    ///
    /// The bar stands for the file from its beginning to its end; where several chunks share a column, the rarest of
    /// them counts. The lines below it go from the rarest chunks to the most common.
    Availability {
        group: GroupName,
        #[arg(value_parser = FileName::normalized)]
        name: FileName,
    },
    /// Fetch a file, resuming where an earlier attempt stopped, and seed it from then on
    #[command(name = "download_file", alias = "download-file")]
    DownloadFile(DownloadFile),
    /// Downloads and shared files, and how far they are
    #[command(name = "show_downloads", alias = "show-downloads")]
    ShowDownloads,
    /// Show the limits of what is sent and fetched, over all transfers, or set them
    ///
    /// They hold at once, for transfers that are running as well, and are kept over restarts. With a low upload limit
    /// fewer are served at once, so that each gets a useful part of it, and others wait for a place.
    Limit(Limit),
    /// Share a file no longer; the file itself stays
    #[command(name = "stop_sharing", alias = "stop-sharing")]
    StopSharing {
        group: GroupName,
        #[arg(value_parser = FileName::normalized)]
        name: FileName,
        /// Withdraw it for everybody; for its uploader and the group's owner
        #[arg(long)]
        for_all: bool,
    },
    /// Read a downloaded or shared file whole, and see whether it still is what the group has
    ///
    /// A file that is right is served from then on, also if it was found changed before. Of one that is not, the bad
    /// chunks are named, and it is served no longer; --repair puts back what the group has.
    Verify(Verify),
    /// Type commands at a prompt with completion and history, or run a script from standard input
    ///
    /// At the prompt, TAB completes commands, flags, groups, files and paths; Ctrl-C clears the line, or ends the
    /// command that runs; `quit` or Ctrl-D ends the shell. --home, --trackers and --as hold for all lines, and a login
    /// for the lines after it.
    ///
    /// Of a script, blank lines and lines that begin with # are skipped, and all others are run; what a command reads
    /// from standard input is the next line. The exit code is that of the last line that failed, or 0.
    Shell(Shell),
    /// See it all at work: a tracker, two peers and a transfer, in this process, leaving nothing behind
    Demo {
        /// The file to send [default: a made one of 64 MiB]
        file: Option<PathBuf>,
    },
    /// The background peer of one identity; started by the other commands
    #[command(name = "__peer", hide = true)]
    Peer(BackgroundPeer),
}

#[derive(Args, Debug)]
pub(crate) struct Account {
    pub(crate) user: UserName,
    /// Asked for without echo if left out here, on standard input and in P2PSHARE_PASSWORD
    pub(crate) password: Option<String>,
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "password")]
    pub(crate) password_stdin: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DownloadFile {
    pub(crate) group: GroupName,
    #[arg(value_parser = FileName::normalized)]
    pub(crate) name: FileName,
    /// Where to write it: a file, or a folder to keep its name [default: ./NAME]
    pub(crate) dest: Option<PathBuf>,
    /// Replace DEST if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Check the SHA-256 that the uploader published as well
    #[arg(long)]
    pub(crate) sha256: bool,
    /// Wait for somebody who has the file to come online
    #[arg(long)]
    pub(crate) wait: bool,
    /// Fetch it from its beginning to its end, for who reads NAME.p2part meanwhile; others who download it get less
    #[arg(long)]
    pub(crate) in_order: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    pub(crate) group: GroupName,
    #[arg(value_parser = FileName::normalized)]
    pub(crate) name: FileName,
    /// Fetch what is wrong from others who have the file, and put it right in place; what else was written
    /// to the file is lost
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Limit {
    /// Bytes a second that are sent at most, as 40MB, 500KB or 2MiB; 0 for none
    #[arg(long, value_name = "RATE")]
    pub(crate) upload: Option<RateSetting>,
    /// Bytes a second that are fetched at most
    #[arg(long, value_name = "RATE")]
    pub(crate) download: Option<RateSetting>,
}

#[derive(Args, Debug)]
pub(crate) struct Shell {
    /// End at the first line that fails, with its exit code
    #[arg(long, short = 'e')]
    pub(crate) stop_on_error: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BackgroundPeer {
    #[arg(long)]
    pub(crate) folder: PathBuf,
    #[arg(long)]
    pub(crate) ring: RingId,
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) tracker: Vec<TrackerAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_answers_to_both_spellings() {
        for command in Cli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let dashed = command.get_name().replace('_', "-");
            let aliases: Vec<_> = command.get_all_aliases().collect();
            let expected = if dashed == command.get_name() {
                vec![]
            } else {
                vec![dashed.as_str()]
            };
            assert_eq!(aliases, expected);
        }
    }

    #[test]
    fn flags_may_follow_the_command() {
        let cli =
            Cli::try_parse_from(["p2pshare", "leave-group", "photos", "--as", "Bob"]).unwrap();
        assert_eq!(cli.global.as_user.unwrap().as_str(), "Bob");
        assert!(matches!(cli.command, Command::LeaveGroup { group } if group.as_str() == "photos"));
    }

    #[test]
    fn a_line_has_the_flags_of_its_shell_but_for_its_own() {
        let shell = Global {
            home: Some("/h".into()),
            trackers: Some("t:1".to_owned()),
            as_user: Some(UserName::new("Alice").unwrap()),
        };
        let global = |line: &[&str]| {
            let words: Vec<_> = line.iter().map(|&word| word.to_owned()).collect();
            let Ok(cli) = parse_line(&words, &shell) else {
                panic!("{line:?}");
            };
            let Global {
                home,
                trackers,
                as_user,
            } = cli.global;
            let user = as_user.unwrap().to_string();
            (home.unwrap().display().to_string(), trackers.unwrap(), user)
        };
        let all = |home: &str, trackers: &str, user: &str| {
            (home.to_owned(), trackers.to_owned(), user.to_owned())
        };
        assert_eq!(global(&["status"]), all("/h", "t:1", "Alice"));
        assert_eq!(global(&["status", "--as", "Bob"]), all("/h", "t:1", "Bob"));
        let before = ["--home=/i", "--trackers", "u:2", "status"];
        assert_eq!(global(&before), all("/i", "u:2", "Alice"));
    }

    #[test]
    fn an_unknown_command_is_answered_with_the_nearest() {
        let answer = |typed: &str| {
            let error = Cli::try_parse_from(["p2pshare", typed, "x"]).unwrap_err();
            format!("{:?}", unknown_command(&error))
        };
        for (typed, nearest) in [
            ("creat_group", "create_group"),
            ("create-grup", "create_group"),
            ("list_file", "list_files"),
            ("dowload_file", "download_file"),
            ("logn", "login"),
        ] {
            let answer = answer(typed);
            assert!(
                answer.contains(&format!("unknown command '{typed}'")),
                "{answer}"
            );
            assert!(
                answer.contains(&format!("did you mean {nearest}?")),
                "{answer}"
            );
        }
        assert!(answer("xyzzy").contains("--help"));
    }

    #[test]
    fn a_name_of_a_file_is_brought_to_the_form_that_groups_have() {
        for typed in ["caf\u{e9}.txt", "cafe\u{301}.txt"] {
            for args in [
                ["download_file", "g", typed, "x"],
                ["stop_sharing", "g", typed, "--for-all"],
                ["availability", "g", typed, "--as=Bob"],
                ["upload_file", "x", "g", &format!("--name={typed}")],
            ] {
                let cli = Cli::try_parse_from([&["p2pshare"], &args[..]].concat()).unwrap();
                let name = match cli.command {
                    Command::DownloadFile(download) => download.name,
                    Command::StopSharing { name, .. } | Command::Availability { name, .. } => name,
                    Command::UploadFile { name, .. } => name.unwrap(),
                    other => panic!("{other:?}"),
                };
                assert_eq!(name.as_str(), "caf\u{e9}.txt");
            }
        }
        let error = Cli::try_parse_from(["p2pshare", "stop_sharing", "g", "a/b"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_bad_name_is_an_error_of_usage() {
        let error = Cli::try_parse_from(["p2pshare", "create_group", "a b"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("cannot contain ' '"), "{error}");
    }
}
