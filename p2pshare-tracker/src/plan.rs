//! From the command line and the list to what the tracker needs to know, before anything is opened or written.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use p2pshare::{RingId, TrackerAddr, TrackerAddrError, TrackerList, TrackerListError};

use crate::args::Args;

/// Where a tracker listens, whom it founds its ring with, and where its files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// As the list has it; `None` where there is no list, and the listening address is its address.
    pub(crate) own: Option<TrackerAddr>,
    /// The address to bind, where it is known already; else `own` has to be resolved.
    pub(crate) listen: Option<SocketAddr>,
    /// All trackers of the list; empty where there is no list.
    pub(crate) founders: Vec<TrackerAddr>,
    /// The ring that the list pins.
    pub(crate) ring: Option<RingId>,
    pub(crate) data_dir: PathBuf,
    /// Beside the list, so that all of its trackers on this host share it; else with the data.
    pub(crate) ring_key: PathBuf,
}

impl Plan {
    /// Reads the list if there is one, and decides everything that can be decided without the network.
    pub(crate) fn new(args: &Args) -> Result<Self, PlanError> {
        match &args.list {
            Some(list) => Self::of_list(args, list),
            None => Self::alone(args),
        }
    }

    fn of_list(args: &Args, path: &Path) -> Result<Self, PlanError> {
        let list = read_list(path)?;
        let count = list.addrs().len();
        let number = match args.number {
            Some(number) => number,
            None if count == 1 => 1,
            None => return Err(PlanError::WhichOne { count }),
        };
        let own = nth(&list, number)?;
        let listen = args.listen.or(own.socket_addr());
        check_port(args.listen)?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let data_dir = args
            .data_dir
            .clone()
            .unwrap_or_else(|| beside.join(format!("tracker-{}", own.port())));
        let ring_key = beside.join(RING_KEY);
        if let (Some(ring), false) = (list.ring(), ring_key.exists()) {
            return Err(PlanError::NoKeyOfPinnedRing { ring, ring_key });
        }
        Ok(Self {
            own: Some(own.clone()),
            listen,
            founders: list.addrs().to_vec(),
            ring: list.ring(),
            data_dir,
            ring_key,
        })
    }

    fn alone(args: &Args) -> Result<Self, PlanError> {
        check_port(args.listen)?;
        let listen = args
            .listen
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9000)));
        let data_dir = match &args.data_dir {
            Some(data_dir) => data_dir.clone(),
            None if listen.port() == 0 => return Err(PlanError::PortZeroNeedsDataDir),
            None => platform_data_dir()?.join(format!("tracker-{}", listen.port())),
        };
        let ring_key = data_dir.join(RING_KEY);
        Ok(Self {
            own: None,
            listen: Some(listen),
            founders: Vec::new(),
            ring: None,
            data_dir,
            ring_key,
        })
    }
}

/// The list in a file.
pub(crate) fn read_list(path: &Path) -> Result<TrackerList, PlanError> {
    let text = fs::read_to_string(path).map_err(|cause| PlanError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    TrackerList::parse(&text).map_err(|cause| PlanError::BadList {
        path: path.to_owned(),
        cause,
    })
}

/// A tracker of a list, counted from 1.
pub(crate) fn nth(list: &TrackerList, number: usize) -> Result<&TrackerAddr, PlanError> {
    let count = list.addrs().len();
    list.nth(number)
        .ok_or(PlanError::OutOfRange { number, count })
}

/// Why the command line cannot be carried out. Nothing was opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("cannot read the list of trackers {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{}: {cause}", path.display())]
    BadList {
        path: PathBuf,
        cause: TrackerListError,
    },
    #[error(
        "the list has {count} trackers; say which of them this is, as a number from 1 to {count}"
    )]
    WhichOne { count: usize },
    #[error("number {number} is out of range: the list has {count} tracker{}", if *count == 1 { "" } else { "s" })]
    OutOfRange { number: usize, count: usize },
    #[error("--listen: {0}")]
    BadListen(TrackerAddrError),
    #[error(
        "with port 0 the place of the data does not follow from the port; choose one with --data-dir"
    )]
    PortZeroNeedsDataDir,
    #[error("the list pins ring {ring}, but its key {} is missing; copy it from a host of that ring", ring_key.display())]
    NoKeyOfPinnedRing { ring: RingId, ring_key: PathBuf },
    #[error("there is no place for the data: {0}; choose one with --data-dir")]
    NoPlatformFolder(etcetera::HomeDirError),
}

/// A tracker's port, or 0.
fn check_port(listen: Option<SocketAddr>) -> Result<(), PlanError> {
    match listen {
        Some(addr) if addr.port() > TrackerAddr::MAX_PORT => {
            Err(PlanError::BadListen(TrackerAddrError::PortOutOfRange {
                port: addr.port().into(),
            }))
        }
        _ => Ok(()),
    }
}

fn platform_data_dir() -> Result<PathBuf, PlanError> {
    let strategy =
        etcetera::base_strategy::choose_native_strategy().map_err(PlanError::NoPlatformFolder)?;
    Ok(strategy.data_dir().join("p2pshare"))
}

/// The name of the file with the ring's key.
const RING_KEY: &str = "ring.key";

#[cfg(test)]
mod tests {
    use super::*;

    fn with_list(text: &str, number: Option<usize>) -> (tempfile::TempDir, Args) {
        let temp = tempfile::tempdir().unwrap();
        let list = temp.path().join("tracker_info.txt");
        fs::write(&list, text).unwrap();
        (
            temp,
            Args {
                list: Some(list),
                number,
                ..Args::default()
            },
        )
    }

    #[test]
    fn the_files_of_a_tracker_of_a_list_lie_beside_the_list() {
        let (temp, args) = with_list("# one\n127.0.0.1:9000\n127.0.0.1:9001\n", Some(2));
        let plan = Plan::new(&args).unwrap();
        assert_eq!(plan.own.unwrap().to_string(), "127.0.0.1:9001");
        assert_eq!(plan.listen, Some("127.0.0.1:9001".parse().unwrap()));
        assert_eq!(plan.founders.len(), 2);
        assert_eq!(plan.data_dir, temp.path().join("tracker-9001"));
        assert_eq!(plan.ring_key, temp.path().join("ring.key"));
    }

    #[test]
    fn flags_override_the_list() {
        let (temp, mut args) = with_list("tracker.example:9000", None);
        assert_eq!(Plan::new(&args).unwrap().listen, None);
        args.listen = Some("0.0.0.0:9000".parse().unwrap());
        args.data_dir = Some(temp.path().join("elsewhere"));
        let plan = Plan::new(&args).unwrap();
        assert_eq!(
            (plan.listen, plan.data_dir),
            (args.listen, temp.path().join("elsewhere"))
        );
        assert_eq!(plan.ring_key, temp.path().join("ring.key"));
    }

    #[test]
    fn without_a_list_key_and_data_are_in_one_place() {
        let args = Args {
            data_dir: Some("data".into()),
            ..Args::default()
        };
        let plan = Plan::new(&args).unwrap();
        assert_eq!(
            (plan.own, plan.listen),
            (None, Some("127.0.0.1:9000".parse().unwrap()))
        );
        assert_eq!(
            (plan.data_dir, plan.ring_key),
            ("data".into(), "data/ring.key".into())
        );
    }

    #[test]
    fn what_cannot_be_carried_out_is_said() {
        let refusal = |text: &str, number| {
            let (temp, args) = with_list(text, number);
            let message = Plan::new(&args).unwrap_err().to_string();
            assert_eq!(
                fs::read_dir(temp.path()).unwrap().count(),
                1,
                "something was written"
            );
            message.replace(&temp.path().display().to_string(), "")
        };
        assert_eq!(
            refusal("a:1\nb:1", None),
            "the list has 2 trackers; say which of them this is, as a number from 1 to 2"
        );
        assert_eq!(
            refusal("a:1\nb:1", Some(3)),
            "number 3 is out of range: the list has 2 trackers"
        );
        assert_eq!(
            refusal("a:1", Some(0)),
            "number 0 is out of range: the list has 1 tracker"
        );
        assert!(refusal("\na", Some(1)).starts_with("/tracker_info.txt: line 2: "));
        assert!(refusal("a:64536", Some(1)).contains("port 64536 is out of range"));
        assert!(
            refusal(&format!("a:1\nring {}", "0".repeat(64)), Some(1))
                .contains("/ring.key is missing")
        );
        let listen = |addr: &str| {
            Plan::new(&Args {
                listen: Some(addr.parse().unwrap()),
                ..Args::default()
            })
            .unwrap_err()
            .to_string()
        };
        assert!(listen("127.0.0.1:64536").contains("port 64536 is out of range"));
        assert!(listen("127.0.0.1:0").contains("--data-dir"));
        let missing = Plan::new(&Args {
            list: Some("no/such".into()),
            ..Args::default()
        });
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .starts_with("cannot read the list of trackers no/such: ")
        );
    }
}
