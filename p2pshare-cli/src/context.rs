//! What a command works with: the home, the trackers, and the background peer of the identity that it acts as.

use std::time::Duration;

use p2pshare::{SessionError, TrackerClient, TrackerList, UserName};
use tokio::time::{Instant, sleep, timeout};

use crate::args::Global;
use crate::background::{Background, restore_all};
use crate::command::Caller;
use crate::control::{Client, Outcome, Request};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::home::{Home, Identity, find_trackers};
use crate::render;

/// The surroundings of one command.
pub(crate) struct Context {
    pub(crate) home: Home,
    chosen_trackers: Option<String>,
    as_user: Option<UserName>,
    /// Who wants the command carried out.
    pub(crate) caller: Caller,
}

/// An identity, and a connection to its background peer.
pub(crate) struct Connected {
    pub(crate) identity: Identity,
    pub(crate) client: Client,
}

impl Context {
    pub(crate) fn new(global: Global, caller: Caller) -> Result<Self, Failure> {
        let home = Home::locate(global.home.as_deref())?;
        Ok(Self {
            home,
            chosen_trackers: global.trackers,
            as_user: global.as_user,
            caller,
        })
    }

    /// The list of trackers in force.
    pub(crate) fn trackers(&self) -> Result<TrackerList, Failure> {
        find_trackers(self.chosen_trackers.as_deref(), &self.home)
    }

    /// Connects to a tracker without an identity, the one first that answered last, and makes sure that its ring may be
    /// trusted. A tracker that is only just starting is given a moment.
    pub(crate) async fn connect_to_tracker(&self) -> Result<(TrackerClient, TrackerList), Failure> {
        let list = self.trackers()?;
        let mut addrs = list.addrs().to_vec();
        let good = self.home.good_tracker();
        if let Some(at) = addrs.iter().position(|addr| Some(addr) == good.as_ref()) {
            addrs.rotate_left(at);
        }
        let started = Instant::now();
        let client = loop {
            match TrackerClient::connect(&addrs, None).await {
                Err(SessionError::Unreachable { .. }) if started.elapsed() < TRACKER_PATIENCE => {
                    sleep(TRACKER_RETRY).await;
                }
                result => break result?,
            }
        };
        self.home
            .trust_ring(&list, client.tracker(), client.ring_id())
            .await?;
        if client.tracker() != &addrs[0] {
            self.home.set_good_tracker(client.tracker());
        }
        Ok((client, list))
    }

    /// Brings every background peer back that should run.
    pub(crate) async fn restore(&self) {
        warn(&restore_all(&self.home, &self.identities()).await);
    }

    /// Brings every background peer back that should run, and connects to that of the identity to act as.
    pub(crate) async fn connect(&self) -> Result<Connected, Failure> {
        match self.connect_if_logged_in().await? {
            Some(connected) => Ok(connected),
            None => Err(self.not_logged_in()),
        }
    }

    /// Like [`connect`](Self::connect); `None` if nobody is logged in.
    pub(crate) async fn connect_if_logged_in(&self) -> Result<Option<Connected>, Failure> {
        let identities = self.identities();
        let failed = restore_all(&self.home, &identities).await;
        let Some(identity) = self.choose(&identities)? else {
            warn(&failed);
            return Ok(None);
        };
        let (mine, others): (Vec<_>, Vec<_>) = failed
            .into_iter()
            .partition(|(folder, _)| *folder == identity.folder);
        warn(&others);
        if let Some((_, failure)) = mine.into_iter().next() {
            return Err(failure);
        }
        let client = Background::from(&identity).connect(&self.home).await?;
        Ok(Some(Connected { identity, client }))
    }

    /// Asks the background peer of the identity to act as, for commands that need nothing in between.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Outcome, Failure> {
        self.connect().await?.client.ask(request).await
    }

    /// Asks the background peer of the identity to act as, if it is running: nothing is started, or waited for longer
    /// than `patience`.
    pub(crate) async fn peek(&self, request: &Request, patience: Duration) -> Option<Outcome> {
        let identity = self.choose(&self.home.identities().logged_in).ok()??;
        let ask = async {
            let mut client = Client::connect(&identity.folder).await.ok()?;
            client.ask(request).await.ok()
        };
        timeout(patience, ask).await.ok()?
    }

    /// All identities that are logged in; what stands in their place and cannot be read is named.
    fn identities(&self) -> Vec<Identity> {
        let found = self.home.identities();
        for folder in found.broken {
            render::talk(format_args!(
                "warning: {} cannot be read, and counts as logged out; a login mends it",
                folder.identity_file().display()
            ));
        }
        found.logged_in
    }

    /// The identity to act as: the one named, or the current one; of the ring of the trackers in force, where that
    /// is known.
    fn choose(&self, identities: &[Identity]) -> Result<Option<Identity>, Failure> {
        let rings = self.home.rings_of(&self.trackers()?)?;
        let fits = |identity: &&Identity| rings.is_empty() || rings.contains(&identity.file.ring);
        let current = self.home.current();
        let found = match &self.as_user {
            Some(user) => identities
                .iter()
                .filter(fits)
                .find(|identity| identity.file.user == *user),
            None => identities
                .iter()
                .filter(fits)
                .find(|identity| Some(&identity.folder) == current.as_ref()),
        };
        Ok(found.cloned())
    }

    fn not_logged_in(&self) -> Failure {
        let users: Vec<_> = self
            .home
            .identities()
            .logged_in
            .into_iter()
            .map(|identity| identity.file.user.to_string())
            .collect();
        match &self.as_user {
            Some(user) => Failure::new(ExitCode::NotLoggedIn, format!("not logged in as {user}"))
                .hint(format!("log in with: p2pshare login {user}")),
            None if users.is_empty() => Failure::not_logged_in(),
            None => Failure::not_logged_in().hint(format!(
                "log in with: p2pshare login USER; or act as one who is logged in with --as ({})",
                users.join(", ")
            )),
        }
    }
}

fn warn(failed: &[(crate::home::IdentityFolder, Failure)]) {
    for (folder, failure) in failed {
        render::talk(format_args!(
            "warning: the background peer in {} was not restored: {failure}",
            folder.path().display(),
        ));
    }
}

/// The background peer answered with something else than what was asked for.
pub(crate) fn unexpected(outcome: &Outcome) -> Failure {
    Failure::failed(format!(
        "the background peer gave an answer that makes no sense: {outcome:?}"
    ))
}

/// How long a tracker that cannot be reached is tried again.
const TRACKER_PATIENCE: Duration = Duration::from_millis(1500);

/// How long until it is tried again.
const TRACKER_RETRY: Duration = Duration::from_millis(100);
