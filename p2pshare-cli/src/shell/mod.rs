//! The shell: commands one after another, from a prompt or from a script on standard input. A line is what a command
//! line is, and no line ends the shell but `quit`, the end of the input, or the first failure where that was asked for.

mod complete;
mod history;
mod words;

use std::io::{self, BufRead, IsTerminal, Read};
use std::rc::Rc;
use std::thread;

use rustyline::config::{Behavior, BellStyle};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::args::{self, Cli, Command, Global, NoCommand};
use crate::command::{self, Caller};
use crate::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::render;
use complete::Completion;
use history::History;

/// Runs a shell until its end, and gives the number to exit with: at a prompt 0, for a script that of the last line
/// that failed, and with `stop_on_error` that of the first.
pub(crate) fn run(global: Global, args: &args::Shell) -> u8 {
    let ended = start(global, args.stop_on_error).and_then(|mut shell| {
        if io::stdin().is_terminal() {
            shell.converse()
        } else {
            shell.run_script()
        }
    });
    ended.unwrap_or_else(|failure| {
        failure.report();
        failure.code().number()
    })
}

fn start(global: Global, stop_on_error: bool) -> Result<Shell, Failure> {
    let context = Context::new(global.clone(), Caller::Shell)?;
    context.home.check_guarded()?;
    let failed = |error: io::Error| Failure::io("cannot start the shell", &error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    // From here on Ctrl-C ends no process, but the command that listens for it.
    let interrupts = {
        let _entered = runtime.enter();
        signal(SignalKind::interrupt()).map_err(failed)?
    };
    Ok(Shell {
        global,
        stop_on_error,
        context,
        runtime: Rc::new(runtime),
        interrupts,
    })
}

struct Shell {
    /// The flags that hold for every line.
    global: Global,
    stop_on_error: bool,
    /// With these flags, as they were at the start.
    context: Context,
    /// For what the shell itself waits for; each command has one of its own.
    runtime: Rc<Runtime>,
    interrupts: Signal,
}

/// What a line was.
enum Line {
    /// There is nothing in it to run.
    Empty,
    /// The shell is to end.
    Quit,
    /// Something that was run, or that could not be, and the number that its process would have exited with.
    Ran {
        code: u8,
        /// The form in which the line may be kept for a later shell.
        keep: Option<String>,
    },
}

impl Shell {
    /// Reads lines from the terminal.
    fn converse(&mut self) -> Result<u8, Failure> {
        let failed = |error| Failure::failed(format!("the terminal cannot be used: {error}"));
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .bell_style(BellStyle::None)
            // What commands print may go to a file; the line is edited on the terminal.
            .behavior(Behavior::PreferTerm)
            .max_history_size(history::LINES_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .build();
        let mut history = History::at(&self.context.home);
        let memory = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, memory).map_err(failed)?;
        for line in history.load() {
            let _ = editor.add_history_entry(line);
        }
        editor.set_helper(Some(Completion::new(self.runtime.clone(), &self.global)));
        loop {
            let lines = match editor.readline(PROMPT) {
                Ok(lines) => lines,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(0),
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    not_text().report();
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            // Several that were pasted at once come at once.
            for line in lines.lines() {
                self.forget_interrupts();
                match self.run_line(line) {
                    Line::Empty => {}
                    Line::Quit => return Ok(0),
                    Line::Ran { code, keep } => {
                        if !line.starts_with(' ') {
                            let _ = editor.add_history_entry(keep.as_deref().unwrap_or(line));
                            history.keep(keep.as_deref());
                        }
                        if code != 0 && self.stop_on_error {
                            return Ok(code);
                        }
                    }
                }
            }
            editor.set_helper(Some(Completion::new(self.runtime.clone(), &self.global)));
        }
    }

    /// Forgets a Ctrl-C that came when there was no command to listen for it, lest it end the next.
    fn forget_interrupts(&mut self) {
        let interrupts = &mut self.interrupts;
        self.runtime.block_on(async {
            // What has arrived is noticed while nothing else is to be done.
            tokio::task::yield_now().await;
            tokio::select! {
                biased;
                _ = interrupts.recv() => {}
                () = std::future::ready(()) => {}
            }
        });
    }

    /// Runs the lines of standard input. Ctrl-C ends the script.
    fn run_script(&mut self) -> Result<u8, Failure> {
        let (mut exit_code, mut read) = (0, 0_u64);
        loop {
            let Some(line) = self.next_line()? else {
                return Ok(exit_code);
            };
            read += 1;
            let number = read;
            let mut understood = self.understand(&line);
            if wants_password(&line, &understood) {
                read += 1;
                let password = self.next_line()?;
                understood = understood.and_then(|cli| with_password(cli, password));
            }
            let ran = match understood {
                Ok(cli) => self.carry_out(cli),
                Err(Line::Empty) => continue,
                Err(Line::Quit) => return Ok(exit_code),
                Err(Line::Ran { code, .. }) => code,
            };
            if ran == 0 {
                continue;
            }
            exit_code = ran;
            render::talk(format_args!("note: that was line {number} of the script"));
            if self.stop_on_error || exit_code == ExitCode::Interrupted.number() {
                return Ok(exit_code);
            }
        }
    }

    /// The next line of the script; `None` at its end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let interrupts = &mut self.interrupts;
        self.runtime.block_on(async {
            let (sender, line) = oneshot::channel();
            // A read cannot be ended, and unlike the threads of a runtime nobody waits for this one.
            let reading = thread::Builder::new()
                .spawn(move || sender.send(read_line(&mut io::stdin().lock())));
            let read = match reading {
                Ok(_) => tokio::select! {
                    biased;
                    _ = interrupts.recv() => {
                        return Err(Failure::new(ExitCode::Interrupted, "interrupted"));
                    }
                    line = line => line.unwrap_or_else(|panicked| Err(io::Error::other(panicked))),
                },
                Err(error) => Err(error),
            };
            read.map_err(|error| Failure::io("cannot read the script", &error))
        })
    }

    fn run_line(&mut self, line: &str) -> Line {
        match self.understand(line.as_bytes()) {
            Ok(cli) => {
                let keep = Some(history::without_password(line, &cli.command));
                let code = self.carry_out(cli);
                Line::Ran { code, keep }
            }
            Err(line) => line,
        }
    }

    /// The command in a line; what there is none in is done with, and said to be what it was.
    fn understand(&self, line: &[u8]) -> Result<Cli, Line> {
        if line.len() > LINE_BYTES_MAX {
            return Err(failed(&too_long()));
        }
        let line = str::from_utf8(line).map_err(|_| failed(&not_text()))?;
        if line.trim_start().starts_with('#') {
            return Err(Line::Empty);
        }
        let mut words = words::split(line)
            .map_err(|unfinished| failed(&Failure::usage(unfinished.to_string())))?;
        // As it comes along when a command line is pasted.
        if words.first().is_some_and(|word| word == "p2pshare") {
            words.remove(0);
        }
        match words.first().map(String::as_str) {
            None => return Err(Line::Empty),
            Some("quit" | "exit") if words.len() == 1 => return Err(Line::Quit),
            Some("help") if words.len() == 1 => render::talk(HELP),
            _ => {}
        }
        args::parse_line(&words, &self.global).map_err(|no_command| {
            let keep = matches!(&no_command, NoCommand::Help(_)) && words[0] == "help";
            Line::Ran {
                code: no_command.report(),
                keep: keep.then(|| line.to_owned()),
            }
        })
    }

    /// Carries out a command, and gives the number that its process would have exited with.
    fn carry_out(&mut self, cli: Cli) -> u8 {
        let is_here =
            cli.global.home == self.global.home && cli.global.trackers == self.global.trackers;
        let logging_in = match &cli.command {
            // Whoever logs in elsewhere is nobody here.
            Command::Login(account) if is_here => Some(account.user.clone()),
            _ => None,
        };
        match command::execute(cli, Caller::Shell) {
            Ok(()) => {
                if logging_in.is_some() {
                    self.global.as_user = logging_in;
                }
                0
            }
            Err(failure) => {
                failure.report();
                failure.code().number()
            }
        }
    }
}

/// Whether the line after this one is its password, which must not be run even if this one cannot be.
fn wants_password(line: &[u8], understood: &Result<Cli, Line>) -> bool {
    match understood {
        Ok(cli) => match &cli.command {
            Command::CreateUser(account) | Command::Login(account) => account.password_stdin,
            _ => false,
        },
        Err(Line::Ran { .. }) => String::from_utf8_lossy(line).contains("--password-stdin"),
        Err(Line::Empty | Line::Quit) => false,
    }
}

/// The command with the password that was read for it. At the end of the script the command finds that there is none.
fn with_password(mut cli: Cli, password: Option<Vec<u8>>) -> Result<Cli, Line> {
    let (Some(password), Command::CreateUser(account) | Command::Login(account)) =
        (password, &mut cli.command)
    else {
        return Ok(cli);
    };
    if password.len() > LINE_BYTES_MAX {
        return Err(failed(&too_long()));
    }
    let password = String::from_utf8(password).map_err(|_| failed(&not_text()))?;
    account.password = Some(password);
    Ok(cli)
}

/// The next line without its end, and of one that is longer than allowed so much that it shows; `None` after the last.
/// Blocks.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let bound = LINE_BYTES_MAX as u64 + 1;
    input.by_ref().take(bound).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() && line.len() > LINE_BYTES_MAX {
        input.skip_until(b'\n')?;
        return Ok(Some(line));
    }
    line.pop_if(|last| *last == b'\r');
    Ok(Some(line))
}

fn failed(failure: &Failure) -> Line {
    failure.report();
    Line::Ran {
        code: failure.code().number(),
        keep: None,
    }
}

fn too_long() -> Failure {
    Failure::usage(format!("the line is longer than {LINE_BYTES_MAX} bytes"))
}

fn not_text() -> Failure {
    Failure::usage("the line is not UTF-8")
}

const PROMPT: &str = "p2p> ";

/// Bytes in a line, its end not counted.
const LINE_BYTES_MAX: usize = 64 * 1024;

const HELP: &str = "\
In the shell: TAB completes, Up recalls, Ctrl-C clears the line or ends the command that runs.
`help COMMAND` explains one, `quit` or Ctrl-D ends the shell.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_line_by_line_whatever_is_in_it() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let script = [
            b"status\r\n\n".as_slice(),
            long.as_bytes(),
            b"\n",
            long.as_bytes(),
            b"yz\ncaf\xe9\nlast",
        ]
        .concat();
        let mut input = script.as_slice();
        let mut next = || read_line(&mut input).unwrap();
        let line = |line: &[u8]| Some(line.to_owned());
        assert_eq!(next(), line(b"status"));
        assert_eq!(next(), line(b""));
        assert_eq!(next(), line(long.as_bytes()));
        assert_eq!(next().unwrap().len(), LINE_BYTES_MAX + 1);
        assert_eq!(next(), line(b"caf\xe9"));
        assert_eq!(next(), line(b"last"));
        assert_eq!(next(), None);
    }
}
