//! A peer: the client of the trackers and the one end of every transfer. Everything of one identity (its
//! key, its session, what it shares and downloads) lives in one folder.
//!
//! This room knows trackers by their wire protocol alone.

mod client;
mod download;
mod error;
mod file;
mod grants;
mod intake;
mod library;
mod link;
mod ongoing;
mod pace;
mod picker;
mod presence;
mod seed;
mod session;
mod session_file;
mod share;
mod verify;

/// What the benches measure.
#[cfg(feature = "__internals")]
pub(crate) mod measured {
    pub(crate) use crate::peer::picker::{Order, Picker};
}

/// What the simulator of swarms runs.
#[cfg(any(test, feature = "__sim"))]
pub(crate) mod sim {
    pub(crate) use crate::peer::download::pause_between_looks;
    pub(crate) use crate::peer::picker::{Order, Picker, SourceId};
}

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use client::TrackerClient;
pub use download::{
    Download, DownloadEvent, DownloadEvents, DownloadOptions, DownloadProgress, DownloadReport,
    DownloadState, DownloadStatus, DownloadWatch, LeftPeer, Stall,
};
pub use error::{DownloadError, PeerBindError, SessionError, ShareError, VerifyError};
pub use library::ShareStatus;
pub use pace::{Limits, Rate, RateTooLow};
pub use session::{Listed, Session, StopOutcome};
pub use share::{SharedFile, Upload, UploadProgress, UploadWatch};
pub use verify::{Damage, Verify, VerifyReport};

use download::{Downloads, Journal};
use grants::Grants;
use intake::Intake;
use library::Library;
use link::TrackerLink;
use ongoing::Ongoing;
use presence::Presence;
use seed::Seeder;
use session::new_change;
use session_file::SessionFile;

use crate::{
    identity::{
        FileName, GroupName, PeerId, RingId, TrackerAddr, UserName,
        key::VerifyingKey,
        key_file,
        token::{Credential, Signed},
    },
    limits::{
        ANNOUNCED_TIMEOUT, FAREWELL_TIMEOUT, PEER_CONNECTIONS_MAX, PEER_CONNECTIONS_PER_PREFIX_MAX,
    },
    store::{ShutdownError, Store, StoreError, StoreKind, Table},
    transport::{Alpn, BindError, CloseCode, Crowd, Endpoint, EndpointConfig, Profile},
    wire::tracker::{Password, Request, Response},
};

/// A peer. A cheap clone; [`Peer::shutdown`] ends it, and dropping the last clone ends it without waiting.
///
/// It runs on the tokio runtime in which it was bound. Transfers are fastest on a current-thread runtime.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Inner>);

struct Inner {
    data_dir: PathBuf,
    ring: RingId,
    endpoint: Endpoint,
    store: Store,
    link: TrackerLink,
    library: Library,
    ongoing: Ongoing,
    journal: Journal,
    downloads: Downloads,
    grants: Grants,
    seeder: Seeder,
    intake: Intake,
    limits: Mutex<Limits>,
    /// Held by whoever changes the limits, so that those that are kept are those that hold.
    limiting: tokio::sync::Mutex<()>,
    /// Up to which change of the library the trackers know it.
    known: watch::Receiver<Option<u64>>,
    addrs: watch::Receiver<Vec<SocketAddr>>,
    user: Mutex<Option<UserName>>,
    /// Held by whoever logs in or out, so that the last one has the last word.
    entry: tokio::sync::Mutex<()>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    end: CancellationToken,
    _end_when_dropped: DropGuard,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.endpoint.peer_id())
            .field("listens", &self.endpoint.local_addr())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.endpoint.close(CloseCode::ShuttingDown);
    }
}

/// What a [`Peer`] is to be.
#[derive(Clone, Debug)]
pub struct PeerBuilder {
    data_dir: PathBuf,
    ring: RingId,
    trackers: Vec<TrackerAddr>,
    listen: Option<SocketAddr>,
}

impl PeerBuilder {
    /// The trackers of the ring, in the order in which they are tried. At least one.
    #[must_use]
    pub fn trackers(mut self, trackers: impl IntoIterator<Item = TrackerAddr>) -> Self {
        self.trackers = trackers.into_iter().collect();
        self
    }

    /// The UDP address to listen on. By default a free port of all addresses, the one it had last if that is
    /// free.
    #[must_use]
    pub const fn listen(mut self, listen: SocketAddr) -> Self {
        self.listen = Some(listen);
        self
    }

    /// Opens the folder, makes the peer's key if there is none, and starts to listen.
    ///
    /// # Errors
    /// [`PeerBindError`]; nothing runs then.
    pub async fn bind(self) -> Result<Peer, PeerBindError> {
        let (config, store) = self.open().await?;
        let endpoint = match self.listen {
            Some(listen) => Endpoint::bind(listen, config),
            None => bind_anywhere(&store, &config).await?,
        };
        let endpoint = endpoint.map_err(PeerBindError::socket)?;
        Peer::start(self, endpoint, store).await
    }

    /// The same, on a network in memory.
    #[cfg(test)]
    pub(crate) async fn bind_on(
        self,
        socket: Arc<dyn quinn::AsyncUdpSocket>,
    ) -> Result<Peer, PeerBindError> {
        let (config, store) = self.open().await?;
        let endpoint = Endpoint::bind_on(socket, config).map_err(PeerBindError::socket)?;
        Peer::start(self, endpoint, store).await
    }

    /// The key and the store in its folder.
    async fn open(&self) -> Result<(EndpointConfig, Store), PeerBindError> {
        if self.trackers.is_empty() {
            return Err(PeerBindError::NoTrackers);
        }
        let data_dir = self.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            key_file::create_private_dir(&data_dir)?;
            let key = key_file::load_or_create_identity(&data_dir.join("key"))?;
            Ok::<_, key_file::KeyFileError>(key)
        })
        .await;
        let key = match opened {
            Ok(Ok(key)) => key,
            Ok(Err(error)) => return Err(PeerBindError::folder(&self.data_dir, error)),
            Err(error) => return Err(PeerBindError::folder(&self.data_dir, error)),
        };
        let store = Store::open(&self.data_dir.join("db"), StoreKind::Peer).await?;
        let mut config = EndpointConfig::listener(key, Profile::Peer, vec![Alpn::Peer]);
        config.reset_keys = Some(self.data_dir.clone());
        Ok((config, store))
    }
}

impl Peer {
    /// A peer of the ring `ring` whose identity lives in `data_dir`.
    pub fn builder(data_dir: impl Into<PathBuf>, ring: RingId) -> PeerBuilder {
        PeerBuilder {
            data_dir: data_dir.into(),
            ring,
            trackers: Vec::new(),
            listen: None,
        }
    }

    async fn start(
        builder: PeerBuilder,
        endpoint: Endpoint,
        store: Store,
    ) -> Result<Self, PeerBindError> {
        let PeerBuilder {
            data_dir,
            ring,
            trackers,
            ..
        } = builder;
        let library = Library::load(store.clone()).await?;
        let journal = Journal::new(store.clone());
        let downloads = Downloads::load(journal.kept().await?);
        let token_key = match read_session(&data_dir).await {
            Ok(Some(SessionFile::V1 {
                ring: of,
                token_key,
                ..
            })) if of == ring => Some(token_key),
            _ => None,
        };
        let link = TrackerLink::new(endpoint.clone(), trackers, Some(ring), token_key);
        if let Some(good) = store.get(Table::Meta, TRACKER_KEY).await?
            && let Some(good) = String::from_utf8(good)
                .ok()
                .and_then(|addr| addr.parse().ok())
        {
            link.prefer(&good);
        }
        let ongoing = Ongoing::new(library.clone());
        let seeder = Seeder::new(library.clone(), ongoing.clone(), link.clone());
        let intake = Intake::default();
        let limits = kept_limits(&store).await?;
        seeder.set_rate(limits.upload);
        intake.set_rate(limits.download);
        let holdings = (library.clone(), ongoing.clone());
        let presence = Presence::new(link.clone(), holdings, endpoint.local_addr());
        let end = CancellationToken::new();
        let (known, addrs) = (presence.known(), presence.addrs());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(endpoint.clone(), seeder.clone(), end.clone()));
        tasks.spawn(presence.run(end.clone()));
        tasks.spawn(library.clone().watch_files(end.clone()));
        tasks.spawn(keep_session(link.clone(), data_dir.clone(), end.clone()));
        tasks.spawn(keep_tracker(link.clone(), store.clone(), end.clone()));
        Ok(Self(Arc::new(Inner {
            data_dir,
            ring,
            endpoint,
            store,
            grants: Grants::new(link.clone()),
            link,
            library,
            ongoing,
            journal,
            downloads,
            seeder,
            intake,
            limits: Mutex::new(limits),
            limiting: tokio::sync::Mutex::default(),
            known,
            addrs,
            user: Mutex::default(),
            entry: tokio::sync::Mutex::default(),
            tasks: tokio::sync::Mutex::new(tasks),
            _end_when_dropped: end.clone().drop_guard(),
            end,
        })))
    }

    /// Who this peer is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.0.endpoint.peer_id()
    }

    /// The ring that it is of.
    #[must_use]
    pub fn ring_id(&self) -> RingId {
        self.0.ring
    }

    /// The UDP address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.endpoint.local_addr()
    }

    /// The addresses at which others were told to reach it, the most useful first; empty until a tracker
    /// was reached.
    #[must_use]
    pub fn announced_addrs(&self) -> Vec<SocketAddr> {
        self.0.addrs.borrow().clone()
    }

    /// Waits until the trackers know where this peer is and what it holds; for ever if none can be reached or
    /// nobody is logged in. Cancel-safe.
    pub async fn announced(&self) {
        let mut known = self.0.known.clone();
        if known.wait_for(Option::is_some).await.is_err() {
            // The peer was shut down.
            std::future::pending().await
        }
    }

    /// The tracker that is connected now.
    #[must_use]
    pub fn tracker(&self) -> Option<TrackerAddr> {
        let connected = self.link().connected();
        let now = connected.borrow();
        now.as_ref().map(|now| now.tracker.clone())
    }

    /// Bytes of chunks that were sent to others since it started.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.0.seeder.sent_bytes()
    }

    /// How fast it may send and fetch.
    #[must_use]
    pub fn limits(&self) -> Limits {
        *self.0.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits how fast it sends and fetches, from now on, in transfers that are running as well, and in its next
    /// lives. So that each of those who are served gets a useful part of it, a low upload limit also limits how
    /// many they are; others wait for a place.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be kept; they are then as they were.
    pub async fn set_limits(&self, limits: Limits) -> Result<(), StoreError> {
        self.change_limits(|_| limits).await.map(drop)
    }

    /// Changes the limits from what they are at that moment, as [`Peer::set_limits`] does, and gives them as they
    /// are then: of two changes at once none is lost.
    ///
    /// # Errors
    /// As [`Peer::set_limits`].
    pub async fn change_limits(
        &self,
        change: impl FnOnce(Limits) -> Limits,
    ) -> Result<Limits, StoreError> {
        let _limiting = self.0.limiting.lock().await;
        let before = self.limits();
        let limits = change(before);
        if limits == before {
            return Ok(limits);
        }
        let value = encode_limits(limits);
        self.0
            .store
            .write(move |tx| tx.put(Table::Meta, LIMITS_KEY, value))
            .await?;
        *self.0.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.0.seeder.set_rate(limits.upload);
        self.0.intake.set_rate(limits.download);
        tracing::info!(?limits, "limits changed");
        Ok(limits)
    }

    /// Downloads that go on now.
    #[must_use]
    pub fn running_downloads(&self) -> usize {
        self.0.downloads.running()
    }

    /// The session, while somebody is logged in.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        let logged_in = self.link().credential().borrow().is_some();
        let user = self.user().clone().filter(|_| logged_in)?;
        Some(Session::new(self.clone(), user))
    }

    /// Logs a user in, and waits until the trackers know that this peer is online. It replaces an earlier
    /// session of the same user. A peer belongs to the first user who logs in at it.
    ///
    /// # Errors
    /// [`Refusal::InvalidCredentials`](crate::Refusal::InvalidCredentials),
    /// [`Refusal::TooManyAttempts`](crate::Refusal::TooManyAttempts), [`SessionError::OtherUser`], and what
    /// every request can meet; an earlier session goes on then, unless it is unknown what was done.
    pub async fn login(
        &self,
        user: &UserName,
        password: &Password,
    ) -> Result<Session, SessionError> {
        let _entry = self.0.entry.lock().await;
        if let Some(owner) = self.owner().await?.filter(|owner| owner != user) {
            return Err(SessionError::OtherUser { owner });
        }
        let request = Request::Login {
            change: new_change(),
            user: user.clone(),
            password: password.clone(),
        };
        let entering = self.link().enter();
        let Response::LoggedIn { user, credential } = self.link().ask_as_nobody(request).await?
        else {
            return Err(SessionError::Protocol);
        };
        self.set_owner(&user).await?;
        self.write_session(&credential).await?;
        *self.user() = Some(user.clone());
        self.link().set_credential(Some(credential));
        drop(entering);
        self.wait_until_known().await;
        Ok(Session::new(self.clone(), user))
    }

    /// Goes on with the session that was kept, if there is one; whether the trackers still honour it shows
    /// with the first request. No tracker has to be reachable: the peer serves, and keeps trying.
    ///
    /// # Errors
    /// [`SessionError::Local`] when the session's file cannot be read.
    pub async fn resume(&self) -> Result<Option<Session>, SessionError> {
        let kept = read_session(&self.0.data_dir)
            .await
            .map_err(SessionError::local)?;
        let Some(SessionFile::V1 {
            ring,
            user,
            credential,
            ..
        }) = kept
        else {
            return Ok(None);
        };
        if ring != self.0.ring {
            return Ok(None);
        }
        *self.user() = Some(user.clone());
        self.link().set_credential(Some(credential));
        Ok(Some(Session::new(self.clone(), user)))
    }

    /// Ends everything in order: takes leave of the trackers, closes all connections, and closes the store.
    /// Running downloads keep what they have. May be called again.
    ///
    /// # Errors
    /// [`ShutdownError`] when a task of the peer had panicked, or its store had failed.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let inner = &self.0;
        inner.end.cancel();
        let mut tasks = inner.tasks.lock().await;
        let mut panicked = false;
        while let Some(ended) = tasks.join_next().await {
            panicked |= ended.is_err_and(|error| error.is_panic());
        }
        inner.endpoint.close(CloseCode::ShuttingDown);
        inner.endpoint.wait_idle().await;
        inner.store.shutdown().await?;
        match panicked {
            true => Err(ShutdownError::Panicked),
            false => Ok(()),
        }
    }

    async fn logout(&self) -> Result<(), SessionError> {
        let _entry = self.0.entry.lock().await;
        let change = new_change();
        let ask = self.link().ask(Request::Logout { change });
        match timeout(FAREWELL_TIMEOUT, ask).await {
            Ok(Ok(_)) => {}
            _ => tracing::info!("no tracker heard the logout; the session ends there by itself"),
        }
        self.link().set_credential(None);
        self.0.grants.clear();
        *self.user() = None;
        let path = session_path(&self.0.data_dir);
        let deleted = tokio::task::spawn_blocking(move || SessionFile::delete(&path)).await;
        deleted
            .map_err(SessionError::local)?
            .map_err(SessionError::local)
    }

    /// A file of the library is in its group now: it is announced. Waits until the trackers know.
    async fn announce(&self, group: &GroupName, name: &FileName) {
        self.library().publish(group, name);
        self.wait_until_known().await;
    }

    /// Waits until the trackers know what this peer holds now; not for ever.
    async fn wait_until_known(&self) {
        let changes = *self.library().changes().borrow();
        let mut known = self.0.known.clone();
        let told = known.wait_for(|known| known.is_some_and(|known| known >= changes));
        if timeout(ANNOUNCED_TIMEOUT, told).await.is_err() {
            tracing::info!("the trackers do not know yet what is shared here");
        }
    }

    /// The user that this peer belongs to.
    async fn owner(&self) -> Result<Option<UserName>, StoreError> {
        let owner = self.0.store.get(Table::Meta, OWNER_KEY).await?;
        Ok(owner.and_then(|bytes| UserName::new(&String::from_utf8(bytes).ok()?).ok()))
    }

    async fn set_owner(&self, owner: &UserName) -> Result<(), StoreError> {
        let value = owner.as_str().to_owned();
        self.0
            .store
            .write(move |tx| tx.put(Table::Meta, OWNER_KEY, value))
            .await
    }

    async fn write_session(&self, credential: &Signed<Credential>) -> Result<(), SessionError> {
        let session = session_of(credential.clone(), self.link().token_key());
        let session = session.ok_or(SessionError::Protocol)?;
        let path = session_path(&self.0.data_dir);
        let written = tokio::task::spawn_blocking(move || session.write(&path)).await;
        written
            .map_err(SessionError::local)?
            .map_err(SessionError::local)
    }

    #[cfg(test)]
    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    fn link(&self) -> &TrackerLink {
        &self.0.link
    }

    fn library(&self) -> &Library {
        &self.0.library
    }

    fn ongoing(&self) -> &Ongoing {
        &self.0.ongoing
    }

    fn journal(&self) -> &Journal {
        &self.0.journal
    }

    fn downloads(&self) -> &Downloads {
        &self.0.downloads
    }

    fn intake(&self) -> &Intake {
        &self.0.intake
    }

    fn grants(&self) -> &Grants {
        &self.0.grants
    }

    fn user(&self) -> MutexGuard<'_, Option<UserName>> {
        self.0.user.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds all addresses, at the port of the last time if it is free: those who were connected learn of a
/// restart with their next packet, and find the peer where it was.
async fn bind_anywhere(
    store: &Store,
    config: &EndpointConfig,
) -> Result<Result<Endpoint, BindError>, StoreError> {
    let kept = store.get(Table::Meta, PORT_KEY).await?;
    let last = kept.and_then(|bytes| bytes.try_into().ok());
    let last = last.map(u16::from_be_bytes);
    // One socket for both families, where the machine has both.
    let bind = |port| {
        Endpoint::bind((Ipv6Addr::UNSPECIFIED, port).into(), config.clone())
            .or_else(|_| Endpoint::bind((Ipv4Addr::UNSPECIFIED, port).into(), config.clone()))
    };
    let endpoint = match last.map(bind) {
        Some(Ok(endpoint)) => endpoint,
        _ => match bind(0) {
            Ok(endpoint) => endpoint,
            Err(error) => return Ok(Err(error)),
        },
    };
    let port = endpoint.local_addr().port();
    if last != Some(port) {
        let value = port.to_be_bytes();
        store
            .write(move |tx| tx.put(Table::Meta, PORT_KEY, value))
            .await?;
    }
    Ok(Ok(endpoint))
}

/// The limits of the last life.
async fn kept_limits(store: &Store) -> Result<Limits, StoreError> {
    let kept = store.get(Table::Meta, LIMITS_KEY).await?;
    let Some(kept) = kept else {
        return Ok(Limits::default());
    };
    let limits = decode_limits(&kept);
    if limits.is_none() {
        tracing::warn!("the limits that were kept cannot be read: there are none");
    }
    Ok(limits.unwrap_or_default())
}

/// A version, and the rates in bytes a second, both little-endian; zero is none.
fn encode_limits(limits: Limits) -> Vec<u8> {
    let rate = |rate: Option<Rate>| rate.map_or(0, Rate::bytes).to_le_bytes();
    [&[1][..], &rate(limits.upload), &rate(limits.download)].concat()
}

fn decode_limits(bytes: &[u8]) -> Option<Limits> {
    let (upload, download) = bytes.strip_prefix(&[1])?.split_at_checked(8)?;
    let rate = |bytes: &[u8]| match u64::from_le_bytes(bytes.try_into().ok()?) {
        0 => Some(None),
        rate => Rate::per_second(rate).ok().map(Some),
    };
    let limits = Limits::default().upload(rate(upload)?);
    Some(limits.download(rate(download)?))
}

/// Takes connections from other peers, and serves each.
async fn accept(endpoint: Endpoint, seeder: Seeder, end: CancellationToken) {
    let crowd = Crowd::new(PEER_CONNECTIONS_MAX, PEER_CONNECTIONS_PER_PREFIX_MAX);
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            Some(_) = serving.join_next(), if !serving.is_empty() => {}
            connection = endpoint.accept() => {
                let Some(connection) = connection else { return };
                if let Some(place) = crowd.admit(&connection) {
                    serving.spawn(seeder.clone().serve(connection, place));
                }
            }
        }
    }
}

/// Keeps the session's file at what the trackers last said of the credential.
async fn keep_session(link: TrackerLink, data_dir: PathBuf, end: CancellationToken) {
    let mut credential = link.credential();
    loop {
        tokio::select! {
            // What was said last counts, also when it was said right before the end.
            biased;
            changed = credential.changed() => if changed.is_err() { return },
            () = end.cancelled() => return,
        }
        let now = credential.borrow_and_update().clone();
        let path = session_path(&data_dir);
        let session = now.map(|credential| session_of(credential, link.token_key()));
        let kept = tokio::task::spawn_blocking(move || match session {
            None => SessionFile::delete(&path),
            Some(Some(session)) => session.write(&path),
            Some(None) => Ok(()),
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%error, "the session's file cannot be kept up to date");
        }
    }
}

/// Keeps in mind which tracker answered last, so that the next life of this peer begins with it.
async fn keep_tracker(link: TrackerLink, store: Store, end: CancellationToken) {
    let mut connected = link.connected();
    let mut kept = None;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = connected.changed() => if changed.is_err() { return },
        }
        let now = connected.borrow_and_update().clone();
        let Some(now) = now
            .map(|now| now.tracker)
            .filter(|now| kept.as_ref() != Some(now))
        else {
            continue;
        };
        let value = now.to_string();
        let written = store.write(move |tx| tx.put(Table::Meta, TRACKER_KEY, value));
        match written.await {
            Ok(()) => kept = Some(now),
            Err(error) => tracing::debug!(%error, "the tracker that answered is not kept"),
        }
    }
}

/// What the file of a session says; `None` as long as that is not known.
fn session_of(
    credential: Signed<Credential>,
    token_key: Option<VerifyingKey>,
) -> Option<SessionFile> {
    let Credential::V1 { ring, user, .. } = credential.peek().ok()?;
    Some(SessionFile::V1 {
        ring,
        token_key: token_key?,
        user,
        credential,
    })
}

async fn read_session(
    data_dir: &Path,
) -> Result<Option<SessionFile>, session_file::SessionFileError> {
    let path = session_path(data_dir);
    tokio::task::spawn_blocking(move || SessionFile::read(&path))
        .await
        .map_err(std::io::Error::other)?
}

fn session_path(data_dir: &Path) -> PathBuf {
    data_dir.join("session")
}

const OWNER_KEY: &[u8] = b"owner";
const PORT_KEY: &[u8] = b"port";
const TRACKER_KEY: &[u8] = b"tracker";
const LIMITS_KEY: &[u8] = b"limits";
