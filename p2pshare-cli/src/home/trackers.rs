//! Where the list of trackers comes from: the flag or the environment, a file here, a file in the home, or the
//! one address that a tracker started without a list has.

use std::fs;
use std::io;
use std::path::Path;

use p2pshare::{TrackerAddr, TrackerList};

use super::Home;
use crate::failure::Failure;

/// The list in force; `chosen` is what the flag or the environment says, a file or addresses.
pub(crate) fn find_trackers(chosen: Option<&str>, home: &Home) -> Result<TrackerList, Failure> {
    if let Some(chosen) = chosen {
        return match read_list(Path::new(chosen))? {
            Some(list) => Ok(list),
            None => addresses(chosen),
        };
    }
    for file in [Path::new(LIST_FILE), &home.path().join(LIST_FILE)] {
        if let Some(list) = read_list(file)? {
            return Ok(list);
        }
    }
    parse(DEFAULT_TRACKER, "the default")
}

/// The list in a file; `None` where there is no such file.
fn read_list(path: &Path) -> Result<Option<TrackerList>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text, &path.display().to_string()).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::usage(format!(
            "cannot read the list of trackers {}: {error}",
            path.display()
        ))),
    }
}

fn addresses(chosen: &str) -> Result<TrackerList, Failure> {
    for addr in chosen.split(',') {
        if let Err(error) = addr.trim().parse::<TrackerAddr>() {
            let message = format!(
                "--trackers '{chosen}' is neither a file nor addresses of trackers: {error}"
            );
            return Err(Failure::usage(message));
        }
    }
    parse(&chosen.replace(',', "\n"), "--trackers")
}

fn parse(text: &str, source: &str) -> Result<TrackerList, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("{source}: {error}")))
}

/// What a list is called where nobody says otherwise.
const LIST_FILE: &str = "tracker_info.txt";

/// Where a tracker without a list listens.
const DEFAULT_TRACKER: &str = "127.0.0.1:9000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_home_and_the_home_before_the_default() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        let first = |chosen: Option<&str>| {
            find_trackers(chosen, &home).map(|list| list.addrs()[0].to_string())
        };
        assert_eq!(first(None).unwrap(), "127.0.0.1:9000");
        fs::write(
            temp.path().join("tracker_info.txt"),
            "# mine\nhome.example:9001\n",
        )
        .unwrap();
        assert_eq!(first(None).unwrap(), "home.example:9001");
        assert_eq!(
            first(Some("10.0.0.1:9002,[::1]:9003")).unwrap(),
            "10.0.0.1:9002"
        );
        let file = temp.path().join("other");
        fs::write(&file, "file.example:9004").unwrap();
        assert_eq!(first(file.to_str()).unwrap(), "file.example:9004");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        let message = find_trackers(Some("no_such_file"), &home)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("'no_such_file' is neither a file nor addresses"),
            "{message}"
        );
        fs::write(temp.path().join("tracker_info.txt"), "\n127.0.0.1\n").unwrap();
        let message = find_trackers(None, &home).unwrap_err().to_string();
        assert!(message.contains("tracker_info.txt: line 2: "), "{message}");
        assert!(find_trackers(Some(temp.path().to_str().unwrap()), &home).is_err());
    }
}
