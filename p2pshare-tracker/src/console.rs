//! `quit` on the terminal. Standard input is read only while this process is in the foreground process group of
//! its terminal: a tracker started with `&` is never stopped for reading, and takes no line that was meant for the
//! shell. What is not a terminal is never read, so that its end stops nothing.

use std::io::{self, IsTerminal};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use tokio::sync::oneshot;

/// Resolves when somebody types `quit`; never, where there is no terminal.
pub(crate) async fn quit_typed() {
    let (typed, quit) = oneshot::channel();
    if io::stdin().is_terminal() {
        // A thread, since a terminal can only be waited for by blocking; the process does not wait for it to end.
        thread::spawn(move || {
            if read_until_quit() {
                let _ = typed.send(());
            }
        });
        if quit.await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// Returns whether `quit` was typed before the terminal went away.
fn read_until_quit() -> bool {
    let stdin = io::stdin();
    let mut line = [0; 1024];
    loop {
        if !in_foreground() {
            let _ = poll(&mut [], Some(&LOOK_AGAIN));
            continue;
        }
        let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut waiting, Some(&LOOK_AGAIN)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return false,
        }
        let hung_up = waiting[0]
            .revents()
            .intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        if !in_foreground() {
            continue;
        }
        match rustix::io::read(&stdin, &mut line) {
            Ok(0) if hung_up => return false,
            // Ctrl-D; more may be typed after it.
            Ok(0) => {}
            Ok(length) if line[..length].trim_ascii() == b"quit" => return true,
            Ok(_) => println!("{QUIT_HINT}"),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
}

fn in_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == getpgrp())
}

/// What tells a user how to stop the tracker.
pub(crate) const QUIT_HINT: &str = "Type 'quit' to stop the tracker";

/// How soon a tracker that is brought to the foreground notices.
const LOOK_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};
