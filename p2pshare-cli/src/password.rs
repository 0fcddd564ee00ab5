//! Where a password comes from: the command line, standard input, the environment, or a prompt without
//! echo, in this order. It is never printed, and no process that p2pshare starts inherits it.

use std::env;
use std::io::{self, BufRead, IsTerminal};

use p2pshare::Password;

use crate::args::Account;
use crate::command::Caller;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::render;

/// The variable that a password may come from.
pub(crate) const VARIABLE: &str = "P2PSHARE_PASSWORD";

/// Finds the password for `account`; a prompt asks twice where `is_new`.
pub(crate) fn obtain(account: &Account, is_new: bool, caller: Caller) -> Result<Password, Failure> {
    if let Some(password) = &account.password {
        if caller == Caller::Process {
            render::talk(
                "note: other users of this machine can see a password on the command line",
            );
        }
        return Ok(Password::new(password.clone()));
    }
    if account.password_stdin {
        return first_line(io::stdin().lock()).map(Password::new);
    }
    if let Some(password) = env::var_os(VARIABLE) {
        let password = password
            .into_string()
            .map_err(|_| Failure::usage(format!("{VARIABLE} is not UTF-8")))?;
        return Ok(Password::new(password));
    }
    prompt(account, is_new)
}

fn first_line(input: impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    match input.take(LINE_BYTES_MAX).read_line(&mut line) {
        Ok(0) => Err(Failure::usage(
            "standard input has no line to read the password from",
        )),
        Ok(_) => Ok(line.trim_end_matches(['\n', '\r']).to_owned()),
        Err(error) => Err(Failure::usage(format!(
            "cannot read the password from standard input: {error}"
        ))),
    }
}

fn prompt(account: &Account, is_new: bool) -> Result<Password, Failure> {
    let missing = |error: io::Error| {
        if error.kind() == io::ErrorKind::Interrupted {
            return Failure::new(ExitCode::Interrupted, "interrupted; nothing was changed");
        }
        Failure::usage(format!(
            "there is no terminal to ask for the password on: {error}"
        ))
        .hint(format!(
            "give it as an argument, with --password-stdin, or in {VARIABLE}"
        ))
    };
    if !io::stderr().is_terminal() && !io::stdin().is_terminal() {
        return Err(missing(io::ErrorKind::NotConnected.into()));
    }
    let password =
        rpassword::prompt_password(format!("Password for {}: ", account.user)).map_err(missing)?;
    if is_new && rpassword::prompt_password("The same again: ").map_err(missing)? != password {
        return Err(Failure::usage(
            "the two passwords differ; nothing was changed",
        ));
    }
    Ok(Password::new(password))
}

/// Longest line that is read for a password; what a tracker accepts is shorter.
const LINE_BYTES_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_end() {
        assert_eq!(
            first_line(&b"pass 123 \r\nmore\n"[..]).unwrap(),
            "pass 123 "
        );
        assert_eq!(first_line(&b"no newline"[..]).unwrap(), "no newline");
        assert_eq!(first_line(&b"\n"[..]).unwrap(), "");
        assert!(first_line(&b""[..]).is_err());
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
