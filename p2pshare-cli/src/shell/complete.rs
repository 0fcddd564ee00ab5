//! What TAB offers: what can stand where the cursor is, by the grammar of the command line itself. Groups and files are
//! asked of the background peer, and whoever does not answer soon has nothing to offer: the line is never held up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use clap::{Arg, CommandFactory};
use p2pshare::GroupName;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use tokio::runtime::Runtime;

use super::words;
use crate::args::{Cli, Global};
use crate::command::Caller;
use crate::context::Context;
use crate::control::{Outcome, Request};

/// Completes one line. What was asked of the background peer holds until the line was run.
pub(super) struct Completion {
    runtime: Rc<Runtime>,
    global: Global,
    /// The groups under `None`, and the files of each group.
    asked: RefCell<HashMap<Option<String>, Vec<String>>>,
}

/// What can stand in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// One of these.
    OneOf(Vec<String>),
    Group,
    FileOf(String),
    Path,
    User,
    /// Something that nobody can guess.
    Anything,
}

impl Completion {
    pub(super) fn new(runtime: Rc<Runtime>, global: &Global) -> Self {
        Self {
            runtime,
            global: global.clone(),
            asked: RefCell::default(),
        }
    }

    fn candidates(&self, wanted: Wanted, typed: &str) -> Vec<String> {
        let all = match wanted {
            Wanted::OneOf(these) => these,
            Wanted::Group => self.ask(None),
            Wanted::FileOf(group) => self.ask(Some(group)),
            Wanted::Path => paths(typed),
            Wanted::User => self.context().map_or_else(Vec::new, |context| {
                let identities = context.home.identities().logged_in.into_iter();
                identities.map(|of| of.file.user.to_string()).collect()
            }),
            Wanted::Anything => Vec::new(),
        };
        all.into_iter()
            // What has a control character in it cannot be typed.
            .filter(|one| one.starts_with(typed) && !one.contains(char::is_control))
            .take(CANDIDATES_MAX)
            .collect()
    }

    /// The groups, or the files of one, if the background peer says them in time.
    fn ask(&self, group: Option<String>) -> Vec<String> {
        if let Some(known) = self.asked.borrow().get(&group) {
            return known.clone();
        }
        let names = self.ask_peer(group.as_deref()).unwrap_or_default();
        let mut asked = self.asked.borrow_mut();
        if asked.len() >= ASKED_MAX {
            asked.clear();
        }
        asked.insert(group, names.clone());
        names
    }

    fn ask_peer(&self, group: Option<&str>) -> Option<Vec<String>> {
        let request = match group {
            None => Request::ListGroups,
            Some(group) => Request::ListFiles {
                group: GroupName::new(group).ok()?,
            },
        };
        let context = self.context()?;
        let outcome = self.runtime.block_on(context.peek(&request, PATIENCE))?;
        match outcome {
            Outcome::Groups { groups, .. } => {
                Some(groups.iter().map(|of| of.name.to_string()).collect())
            }
            Outcome::Files { files, .. } => {
                Some(files.iter().map(|of| of.name.to_string()).collect())
            }
            _ => None,
        }
    }

    fn context(&self) -> Option<Context> {
        Context::new(self.global.clone(), Caller::Shell).ok()
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (words, start, typed) = words::split_typed(&line[..pos]);
        let candidates = self.candidates(wanted(&words, &typed), &typed);
        let is_only = candidates.len() == 1;
        let pair = |display: String| {
            let mut replacement = words::escape(&display);
            if is_only && !display.ends_with('/') {
                replacement.push(' ');
            }
            Pair {
                display,
                replacement,
            }
        };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}

impl Validator for Completion {}

impl rustyline::Helper for Completion {}

/// What can stand behind `words`, of which `typed` is there already.
fn wanted(words: &[String], typed: &str) -> Wanted {
    let mut root = Cli::command();
    root.build();
    let mut command = None::<&clap::Command>;
    let (mut positionals, mut awaited) = (Vec::new(), None::<&Arg>);
    for word in words {
        if awaited.take().is_some() {
            continue;
        }
        let now = command.unwrap_or(&root);
        match (word.strip_prefix("--"), command) {
            (Some(flag), _) if !flag.contains('=') => {
                let of_that_name = |arg: &&Arg| arg.get_long() == Some(flag);
                let flag = now.get_arguments().find(of_that_name);
                awaited = flag.filter(|flag| flag.get_action().takes_values());
            }
            (Some(_), _) => {}
            (None, None) => match root.find_subcommand(word) {
                Some(found) => command = Some(found),
                None => return Wanted::Anything,
            },
            (None, Some(_)) if word.starts_with('-') => {}
            (None, Some(_)) => positionals.push(word),
        }
    }
    if let Some(flag) = awaited {
        return value_of(flag, &positionals);
    }
    let now = command.unwrap_or(&root);
    if typed.starts_with('-') {
        let flags = now.get_arguments().filter(|flag| !flag.is_hide_set());
        let flags = flags.filter_map(|flag| Some(format!("--{}", flag.get_long()?)));
        return Wanted::OneOf(flags.collect());
    }
    match command {
        None => {
            let mut commands = commands(&root);
            commands.extend(["exit", "quit"].map(str::to_owned));
            Wanted::OneOf(commands)
        }
        Some(help) if help.get_name() == "help" && positionals.is_empty() => {
            Wanted::OneOf(commands(&root))
        }
        Some(command) => match command.get_positionals().nth(positionals.len()) {
            Some(place) => value_of(place, &positionals),
            None => Wanted::Anything,
        },
    }
}

/// The commands that are shown.
fn commands(root: &clap::Command) -> Vec<String> {
    let shown = root.get_subcommands().filter(|one| !one.is_hide_set());
    shown.map(|one| one.get_name().to_owned()).collect()
}

/// What an argument of that name is, given the places before it.
fn value_of(argument: &Arg, before: &[&String]) -> Wanted {
    match (argument.get_id().as_str(), before) {
        ("group", _) => Wanted::Group,
        ("name", [group]) if argument.is_positional() => Wanted::FileOf((*group).clone()),
        ("path" | "dest" | "file" | "home" | "trackers", _) => Wanted::Path,
        ("as_user", _) => Wanted::User,
        _ => Wanted::Anything,
    }
}

/// The paths that begin with what is typed; folders end in `/`.
fn paths(typed: &str) -> Vec<String> {
    let (folder, name) = match typed.rfind('/') {
        Some(at) => typed.split_at(at + 1),
        None => ("", typed),
    };
    let place = if folder.is_empty() { "." } else { folder };
    let Ok(entries) = fs::read_dir(Path::new(place)) else {
        return Vec::new();
    };
    let mut paths: Vec<String> = entries
        .take(ENTRIES_READ_MAX)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let found = entry.file_name().into_string().ok()?;
            // Hidden ones only for whoever begins to type them.
            if !found.starts_with(name) || (found.starts_with('.') && name.is_empty()) {
                return None;
            }
            let is_folder = fs::metadata(entry.path()).is_ok_and(|of| of.is_dir());
            let end = if is_folder { "/" } else { "" };
            Some(format!("{folder}{found}{end}"))
        })
        .collect();
    paths.sort();
    paths
}

/// How long the background peer may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Candidates that are offered.
const CANDIDATES_MAX: usize = 1000;

/// Entries of a folder that are looked at.
const ENTRIES_READ_MAX: usize = 10_000;

/// Groups whose files are remembered for one line.
const ASKED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_at(typed: &str) -> Wanted {
        let (words, _, last) = words::split_typed(typed);
        wanted(&words, &last)
    }

    fn offered(typed: &str) -> Vec<String> {
        let (_, _, last) = words::split_typed(typed);
        match wanted_at(typed) {
            Wanted::OneOf(these) => {
                let fitting = these.into_iter().filter(|one| one.starts_with(&last));
                fitting.collect()
            }
            other => panic!("{typed}: {other:?}"),
        }
    }

    #[test]
    fn what_is_wanted_follows_from_the_grammar() {
        assert_eq!(offered("list_f"), ["list_files"]);
        assert_eq!(offered("qu"), ["quit"]);
        assert_eq!(offered("help up"), ["upload_file"]);
        assert_eq!(offered("download_file g x --sh"), ["--sha256"]);
        assert_eq!(offered("--tr"), ["--trackers"]);
        assert!(!offered("").iter().any(|one| one.starts_with("__")));
        let file = Wanted::FileOf("my group".to_owned());
        for (typed, expected) in [
            ("list-files ", Wanted::Group),
            ("--as Bob list_files ph", Wanted::Group),
            ("download_file 'my group' ", file.clone()),
            ("verify --repair my\\ group fi", file.clone()),
            ("availability 'my group' ", file),
            ("download_file g x ", Wanted::Path),
            ("upload_file ", Wanted::Path),
            ("upload_file a.txt ", Wanted::Group),
            ("status --home ", Wanted::Path),
            ("status --as ", Wanted::User),
            ("login ", Wanted::Anything),
            ("status x ", Wanted::Anything),
            ("nonsense ", Wanted::Anything),
        ] {
            assert_eq!(wanted_at(typed), expected, "{typed}");
        }
    }

    #[test]
    fn paths_are_those_that_begin_so() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().display();
        fs::create_dir(temp.path().join("films")).unwrap();
        for name in ["file one", ".hidden"] {
            fs::write(temp.path().join(name), "").unwrap();
        }
        let at = |typed: &str| paths(&format!("{folder}/{typed}"));
        let both = ["file one", "films/"].map(|name| format!("{folder}/{name}"));
        assert_eq!(at("fi"), both);
        assert_eq!(at(""), both);
        assert_eq!(at("."), [format!("{folder}/.hidden")]);
        assert!(at("nowhere/x").is_empty());
    }
}
