//! The command's side of background peers: finding the one of an identity, starting it, and bringing all of them
//! back after a reboot or a crash.

use std::process::Stdio;
use std::time::Duration;

use p2pshare::{RingId, TrackerAddr};
use rustix::process::{Signal, kill_process};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use crate::control::{Client, ConnectError, Outcome, PROTOCOL, Request, VERSION, read_frame};
use crate::failure::Failure;
use crate::home::{Home, Identity, IdentityFolder};
use crate::password;

/// How to start the background peer of one identity.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    pub(crate) folder: IdentityFolder,
    pub(crate) ring: RingId,
    pub(crate) trackers: Vec<TrackerAddr>,
}

impl From<&Identity> for Background {
    fn from(identity: &Identity) -> Self {
        Self {
            folder: identity.folder.clone(),
            ring: identity.file.ring,
            trackers: identity.file.trackers.clone(),
        }
    }
}

impl Background {
    /// Connects to the background peer, which is started if there is none, and replaced if it is of another version
    /// and has nothing under way.
    pub(crate) async fn connect(&self, home: &Home) -> Result<Client, Failure> {
        let client = match self.find().await? {
            Some(client) => client,
            None => self.start(home).await?,
        };
        let hello = client.hello();
        if hello.protocol == PROTOCOL && hello.version == VERSION {
            return Ok(client);
        }
        match (hello.transfers, hello.protocol == PROTOCOL) {
            (0, _) => {
                end(client).await;
                self.start(home).await
            }
            (_, true) => Ok(client),
            (transfers, false) => Err(Failure::failed(format!(
                "the background peer is of version {} and has {transfers} transfers running",
                hello.version
            ))
            .hint("repeat this once they have ended")),
        }
    }

    /// Like [`connect`](Self::connect), but also replaces one that was started with other trackers.
    pub(crate) async fn connect_with_these_trackers(&self, home: &Home) -> Result<Client, Failure> {
        let client = self.connect(home).await?;
        let trackers: Vec<_> = self.trackers.iter().map(ToString::to_string).collect();
        if client.hello().trackers == trackers || client.hello().transfers > 0 {
            return Ok(client);
        }
        end(client).await;
        self.start(home).await
    }

    /// Ends it if nobody is logged in or logging in; says whether there is none then. The caller holds the lock of the
    /// home.
    pub(crate) async fn retire(&self) -> Result<bool, Failure> {
        let Some(mut client) = self.find().await? else {
            return Ok(true);
        };
        match client.ask(&Request::Retire).await? {
            Outcome::Retired { ending: true } => {
                client.wait_for_end().await;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn find(&self) -> Result<Option<Client>, Failure> {
        match Client::connect(&self.folder).await {
            Ok(client) => Ok(Some(client)),
            Err(ConnectError::NotRunning) => Ok(None),
            Err(ConnectError::Broken(error)) => {
                let what = format!(
                    "the background peer in {} does not answer",
                    self.folder.path().display()
                );
                let failure = Failure::io(what, &error);
                Err(match self.folder.lock_holder() {
                    Ok(Some(pid)) => failure.hint(format!(
                        "if it hangs, end it: kill -9 {pid}; the next command starts it anew"
                    )),
                    _ => failure,
                })
            }
        }
    }

    /// Starts it, unless another command did so meanwhile, and waits until it serves.
    async fn start(&self, home: &Home) -> Result<Client, Failure> {
        let _lock = home.lock().await?;
        if let Some(client) = self.find().await? {
            return Ok(client);
        }
        self.spawn()?.wait().await?;
        self.find().await?.ok_or_else(|| {
            Failure::failed("the background peer ended right after its start").hint(SEE_LOG)
        })
    }

    fn spawn(&self) -> Result<Starting, Failure> {
        let failed = |error| Failure::io("cannot start the background peer", &error);
        let trackers: Vec<_> = self.trackers.iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .arg("__peer")
            .arg("--folder")
            .arg(self.folder.path())
            .args([
                "--ring",
                &self.ring.to_string(),
                "--tracker",
                &trackers.join(","),
            ])
            .env_remove(password::VARIABLE)
            .env_remove("P2PSHARE_HOME")
            .env_remove("P2PSHARE_TRACKERS")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        child
            .stdout
            .take()
            .map(Starting)
            .ok_or_else(|| Failure::failed("the background peer has no start-up pipe"))
    }
}

/// Starts the background peer of every identity that has none running. Returns those that failed.
pub(crate) async fn restore_all(
    home: &Home,
    identities: &[Identity],
) -> Vec<(IdentityFolder, Failure)> {
    let (mut missing, mut failed) = (Vec::new(), Vec::new());
    for identity in identities {
        let background = Background::from(identity);
        match background.find().await {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(background),
            Err(failure) => failed.push((background.folder, failure)),
        }
    }
    if missing.is_empty() {
        return failed;
    }
    let _lock = match home.lock().await {
        Ok(lock) => lock,
        Err(failure) => {
            failed.extend(missing.into_iter().map(|one| (one.folder, failure.clone())));
            return failed;
        }
    };
    let mut starting = Vec::new();
    for background in missing {
        // Another command may have restored it, or logged it out, while we waited for the lock.
        if background.folder.read_identity().is_some()
            && matches!(background.find().await, Ok(None))
        {
            let started = background.spawn();
            starting.push((background.folder, started));
        }
    }
    for (folder, started) in starting {
        let result = match started {
            Ok(starting) => starting.wait().await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = result {
            failed.push((folder, failure));
        }
    }
    failed
}

/// Ends a background peer gracefully; its session stays.
async fn end(client: Client) {
    if let Some(pid) = client.pid() {
        let _ = kill_process(pid, Signal::TERM);
    }
    client.wait_for_end().await;
}

/// A background peer that has not said yet that it serves.
struct Starting(ChildStdout);

impl Starting {
    async fn wait(mut self) -> Result<(), Failure> {
        match timeout(START_TIMEOUT, read_frame(&mut self.0)).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(Failure::failed("the background peer ended before it served").hint(SEE_LOG))
            }
            Err(_) => {
                Err(Failure::failed("the background peer takes too long to start").hint(SEE_LOG))
            }
        }
    }
}

const SEE_LOG: &str = "the identity's folder in the home has a peer.log";

/// How long a background peer may take until it serves; rechecking its database is in it.
const START_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Asked, Listener, ServerHello, accept};

    /// What [`Background::connect`] makes of a background peer that says this.
    async fn meet(protocol: u16, version: &str, transfers: u32) -> Result<Client, Failure> {
        let temp = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::at(temp.path().to_owned());
        let listener = Listener::bind(&folder).unwrap();
        let hello = ServerHello {
            protocol,
            version: version.to_owned(),
            transfers,
            trackers: Vec::new(),
        };
        let background = Background {
            folder,
            ring: RingId::from_bytes([0; 32]),
            trackers: Vec::new(),
        };
        let home = Home::locate(Some(temp.path())).unwrap();
        let serving = async {
            let stream = accept(&listener).await.unwrap();
            let _ = Asked::receive(stream, &hello).await;
            std::future::pending().await
        };
        tokio::select! {
            client = background.connect(&home) => client,
            never = serving => never,
        }
    }

    #[tokio::test]
    async fn a_background_peer_of_another_version_finishes_its_transfers_first() {
        assert!(meet(PROTOCOL, VERSION, 0).await.is_ok());
        assert!(meet(PROTOCOL, "0.0.1", 1).await.is_ok());
        let Err(failure) = meet(PROTOCOL + 1, "99.0.0", 2).await else {
            panic!("another protocol was spoken");
        };
        let text = "the background peer is of version 99.0.0 and has 2 transfers running";
        assert_eq!(failure.to_string(), text);
    }
}
