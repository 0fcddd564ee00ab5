//! What a script learns from how a command ended: one number for each kind of failure, and no other numbers.

use serde::{Deserialize, Serialize};

/// How a command ended. Part of the control protocol as well, so new kinds go to the end.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum ExitCode {
    /// Something that no other code names.
    Failed,
    /// The command line cannot be understood.
    Usage,
    /// No identity is logged in, or its session has ended.
    NotLoggedIn,
    /// Known, and not allowed.
    Denied,
    /// There is no such user, group, file or request.
    NotFound,
    /// No tracker or no peer that could have done it was reached.
    Unreachable,
    /// What was received or read is not what it should be.
    Integrity,
    /// Ctrl-C.
    Interrupted,
}

impl ExitCode {
    /// The number that the process exits with; never 0.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotLoggedIn => 3,
            Self::Denied => 4,
            Self::NotFound => 5,
            Self::Unreachable => 6,
            Self::Integrity => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}
