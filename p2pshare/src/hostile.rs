//! Who does not belong gets nothing, and who breaks the rules hurts nobody but himself: a real tracker and real
//! peers over loopback, against attackers who speak the same QUIC and the same frames and say with them
//! whatever they want.

#![allow(clippy::unwrap_used)]

mod announcers;
mod cancels;
mod clocks;
mod crowds;
mod frames;
mod holders;
mod impostors;
mod lapses;
mod publishers;
mod readers;
mod requests;
mod stalls;
mod swarms;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::mpsc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{
    Access, DownloadOptions, FileId, FileName, GroupName, JoinOutcome, Password, Peer, PeerId,
    Refusal, RequestId, RingId, Role, Session, SessionId, Timestamp, Tracker, TrackerAddr,
    TrackerClient, UserName,
    content::{Digest, Layout, Manifest, ManifestBuilder},
    identity::{
        key::SigningKey,
        key_file,
        ring_key::RingKey,
        token::{Claims, Credential, Grant, Signed},
    },
    store::{StoreError, Transaction},
    transport::{Alpn, Connection, Endpoint, EndpointConfig, Expect, Profile},
    wire::tracker::{Change, Request, Response},
};

/// A peer whose store writes nothing, until it goes on.
struct HeldUp {
    goes_on: mpsc::SyncSender<()>,
    writes: JoinHandle<Result<(), StoreError>>,
}

impl HeldUp {
    fn new(peer: &Peer) -> Self {
        let (goes_on, waits) = mpsc::sync_channel::<()>(1);
        let store = peer.store().clone();
        let wait = move |_: &mut Transaction<'_>| {
            // Until the other end is dropped.
            _ = waits.recv();
            Ok(())
        };
        let writes = tokio::spawn(async move { store.write(wait).await });
        Self { goes_on, writes }
    }

    async fn goes_on(self) {
        drop(self.goes_on);
        self.writes.await.unwrap().unwrap();
    }
}

/// A ring of one, and the folder of everything.
struct World {
    dir: TempDir,
    tracker: Tracker,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tracker = Tracker::builder(dir.path().join("tracker"))
            .listen(loopback())
            .bind()
            .await
            .unwrap();
        Self { dir, tracker }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn trackers(&self) -> [TrackerAddr; 1] {
        [self.tracker.addr().to_string().parse().unwrap()]
    }

    fn ring(&self) -> RingId {
        self.tracker.ring_id()
    }

    /// What an attacker can have of the ring's key only in a test: to sign what the ring would never sign.
    fn ring_key(&self) -> RingKey {
        let path = self.path("tracker/ring.key");
        key_file::read_ring_key(&path).unwrap().unwrap()
    }

    async fn create_user(&self, name: &str) {
        let ring = Some(self.ring());
        let client = TrackerClient::connect(&self.trackers(), ring).await;
        let client = client.unwrap();
        client.create_user(&user(name), &password()).await.unwrap();
    }

    async fn peer(&self, name: &str) -> Peer {
        Peer::builder(self.path(name), self.ring())
            .trackers(self.trackers())
            .listen(loopback())
            .bind()
            .await
            .unwrap()
    }

    /// A new user at a peer of the user's own.
    async fn login(&self, name: &str) -> Session {
        self.create_user(name).await;
        let peer = self.peer(name).await;
        peer.login(&user(name), &password()).await.unwrap()
    }

    /// A new user with a group for members alone, and a file in it that its peer serves.
    async fn sharer(&self, name: &str, of: &GroupName, file: &TestFile) -> Session {
        let session = self.login(name).await;
        session.create_group(of, Access::Members).await.unwrap();
        self.share(&session, of, file).await;
        session
    }

    async fn share(&self, session: &Session, group: &GroupName, file: &TestFile) {
        let path = self.path(file.name.as_str());
        std::fs::write(&path, &file.content).unwrap();
        let shared = session.share(path, group, None).await.unwrap();
        assert_eq!(shared.id, file.id());
    }

    /// Somebody without an account.
    fn stranger(&self) -> Stranger {
        Stranger::new(self.tracker.addr())
    }

    /// A new user who is not at a peer, but speaks for himself.
    async fn raw_user(&self, name: &str) -> RawUser {
        self.create_user(name).await;
        RawUser::login(self.stranger(), name).await
    }
}

/// An endpoint of nobody in particular.
struct Stranger {
    endpoint: Endpoint,
    tracker: SocketAddr,
}

impl Stranger {
    fn new(tracker: SocketAddr) -> Self {
        let endpoint = Endpoint::bind(loopback(), Self::config()).unwrap();
        Self { endpoint, tracker }
    }

    fn config() -> EndpointConfig {
        let key = SigningKey::from_seed(&rand::random());
        let protocols = vec![Alpn::Peer, Alpn::Tracker];
        EndpointConfig::listener(key, Profile::Peer, protocols)
    }

    async fn dial_tracker(&self) -> Connection {
        self.dial(self.tracker, Alpn::Tracker).await
    }

    async fn dial_peer(&self, peer: &Peer) -> Connection {
        self.dial(peer.local_addr(), Alpn::Peer).await
    }

    async fn dial(&self, addr: SocketAddr, alpn: Alpn) -> Connection {
        let dialed = self.endpoint.connect(addr, alpn, Expect::Any).await;
        dialed.unwrap()
    }
}

/// Somebody with an account, who is logged in on a connection to the tracker.
struct RawUser {
    stranger: Stranger,
    name: UserName,
    credential: Signed<Credential>,
    connection: Connection,
}

impl RawUser {
    async fn login(stranger: Stranger, name: &str) -> Self {
        let connection = stranger.dial_tracker().await;
        let (name, password) = (user(name), password());
        let user = name.clone();
        let change = change();
        let login = Request::Login {
            change,
            user,
            password,
        };
        let answer = ask(&connection, login).await;
        let Response::LoggedIn { credential, .. } = answer else {
            panic!("not logged in: {answer:?}");
        };
        Self {
            stranger,
            name,
            credential,
            connection,
        }
    }

    fn peer_id(&self) -> PeerId {
        self.stranger.endpoint.peer_id()
    }

    async fn ask(&self, request: Request) -> Response {
        ask(&self.connection, request).await
    }

    async fn refused(&self, request: Request) -> Refusal {
        refused(&self.connection, request).await
    }

    async fn done(&self, request: Request) {
        assert_eq!(self.ask(request).await, Response::Done);
    }

    async fn create_group(&self, group: &GroupName) {
        let (change, group) = (change(), group.clone());
        let access = Access::Members;
        self.done(Request::CreateGroup {
            change,
            group,
            access,
        })
        .await;
    }

    /// Becomes a member of a group that `owner` owns.
    async fn join(&self, group: &GroupName, owner: &Session) {
        let request = Request::JoinGroup {
            change: change(),
            group: group.clone(),
        };
        let requested = Response::Joined(JoinOutcome::Requested {
            owner: owner.user().clone(),
        });
        assert_eq!(self.ask(request).await, requested);
        owner.accept(group, &self.name).await.unwrap();
    }

    /// The grant that the tracker gives.
    async fn grant(&self, group: &GroupName) -> Signed<Grant> {
        let group = group.clone();
        match self.ask(Request::Grant { group }).await {
            Response::Granted { grant } => grant,
            other => panic!("no grant: {other:?}"),
        }
    }

    /// What a grant to this user says that ends then.
    fn claims(&self, ring: RingId, group: &GroupName, expires: Timestamp) -> Grant {
        Grant::V1 {
            ring,
            group: group.clone(),
            user: self.name.clone(),
            peer: self.peer_id(),
            role: Role::Member,
            expires,
        }
    }
}

/// A file, and what is true of it.
struct TestFile {
    name: FileName,
    content: Vec<u8>,
    manifest: Manifest,
    digests: Vec<Digest>,
}

impl TestFile {
    /// Of so many bytes, which differ from name to name.
    fn new(name: &str, bytes: usize) -> Self {
        Self::of(name, name.bytes().cycle().zip(0..bytes).map(mix).collect())
    }

    fn of(name: &str, content: Vec<u8>) -> Self {
        let layout = Layout::new(content.len() as u64).unwrap();
        let mut builder = ManifestBuilder::new(layout);
        let chunks = content.chunks(crate::CHUNK_SIZE as usize);
        let digests: Vec<Digest> = chunks.map(Digest::of).collect();
        for digest in &digests {
            builder.push(*digest).unwrap();
        }
        Self {
            name: file_name(name),
            content,
            manifest: builder.finish().unwrap(),
            digests,
        }
    }

    fn id(&self) -> FileId {
        self.manifest.id()
    }

    fn chunk(&self, index: u32) -> &[u8] {
        let mut chunks = self.content.chunks(crate::CHUNK_SIZE as usize);
        chunks.nth(index as usize).unwrap()
    }
}

fn mix((byte, at): (u8, usize)) -> u8 {
    byte ^ (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

async fn ask(connection: &Connection, request: Request) -> Response {
    connection.request(&request, WITHIN).await.unwrap()
}

async fn refused(connection: &Connection, request: Request) -> Refusal {
    match ask(connection, request).await {
        Response::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// What the ring signs, under whatever kind of token the claims are.
fn signed<T: Claims>(claims: &T, key: &SigningKey) -> Signed<T> {
    Signed::sign(claims, key)
}

/// Bytes of one token as if they were of another.
fn disguised<T: Claims, U: Claims>(token: &Signed<T>) -> Signed<U> {
    postcard::from_bytes(&postcard::to_allocvec(token).unwrap()).unwrap()
}

/// The ring's time, since the only tracker is on this machine.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(0).saturating_add(since)
}

fn change() -> Change {
    Change::new(RequestId::from_bytes(rand::random()))
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn file_name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

fn password() -> Password {
    Password::new("pass123")
}

/// How long anything may take that has to happen.
const WITHIN: Duration = Duration::from_secs(30);
