//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Run a tracker: accounts, groups, and who has which file.
#[derive(Parser, Debug, Default)]
#[command(
    name = "p2pshare-tracker",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
#[command(
    after_help = "Without LIST it is a ring of one on 127.0.0.1:9000. SIGINT, SIGTERM, or 'quit' on its \
                        terminal stop it."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The list of the ring's trackers, one address a line
    pub(crate) list: Option<PathBuf>,
    /// Which of them this is, counted from 1; may be left out where there is only one
    pub(crate) number: Option<usize>,
    /// Where its data lies [default: tracker-PORT beside LIST, or in the platform's data folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The address to listen on where it is not that of the list; port 0 takes a free one (and that 1000 above)
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Look at the ring of trackers, or change who is in it
    #[command(subcommand)]
    Ring(RingCommand),
}

#[derive(Subcommand, Debug)]
pub(crate) enum RingCommand {
    /// Show who is in the ring, who of them can be reached, and what they have
    Status {
        /// The list of the ring's trackers [default: 127.0.0.1:9000]
        list: Option<PathBuf>,
        /// Ask only this one of them, counted from 1
        number: Option<usize>,
    },
    /// Make the trackers of LIST the ring
    Apply {
        /// The list of the trackers that are to be in the ring
        list: PathBuf,
    },
    /// Take back a change that has not come to its end
    Abort,
    /// Go on without those who are lost for good
    Recover {
        /// What only they had is lost
        #[arg(long)]
        accept_loss: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_list_comes_before_the_number() {
        let args = Args::try_parse_from(["p2pshare-tracker", "tracker_info.txt", "2"]).unwrap();
        assert_eq!(
            (args.list, args.number),
            (Some("tracker_info.txt".into()), Some(2))
        );
        assert!(Args::try_parse_from(["p2pshare-tracker", "tracker_info.txt", "one"]).is_err());
        let args = Args::try_parse_from(["p2pshare-tracker", "ring", "status", "list", "2"]);
        let Some(Command::Ring(RingCommand::Status { list, number })) = args.unwrap().command
        else {
            panic!("another command");
        };
        assert_eq!((list, number), (Some("list".into()), Some(2)));
        assert!(Args::try_parse_from(["p2pshare-tracker", "ring", "destroy"]).is_err());
    }
}
