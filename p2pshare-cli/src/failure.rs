//! Why a command failed, as its user reads it: one line, a hint that helps, and the exit code for scripts.

use std::fmt;
use std::io;

use clap::builder::styling::AnsiColor;
use serde::{Deserialize, Serialize};

use crate::exit_code::ExitCode;
use crate::render;

/// The one error type of the command line; it also travels from the background peer to the command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    code: ExitCode,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// What no other code names.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Failed, message)
    }

    /// The command line cannot be acted on.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// An operation on a file or a socket of this machine failed.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::failed(format!("{what}: {error}"))
    }

    /// Nobody is logged in who could do this.
    pub(crate) fn not_logged_in() -> Self {
        Self::new(ExitCode::NotLoggedIn, "not logged in").hint("log in with: p2pshare login USER")
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it on standard error.
    pub(crate) fn report(&self) {
        let (error, hint) = (
            AnsiColor::Red.on_default().bold(),
            AnsiColor::Cyan.on_default(),
        );
        render::talk(format_args!("{error}error:{error:#} {}", self.message));
        if let Some(text) = &self.hint {
            render::talk(format_args!("{hint}hint:{hint:#} {text}"));
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
