//! What a tracker does with each request: it settles who asks, whether that one may, and leaves the doing to
//! the room that it concerns. This is where "who may" is decided; peers decide it once more by the grants
//! that are minted here.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use tokio::sync::Semaphore;

use super::{
    accounts::{Accounts, Login},
    backlog::Backlog,
    files::Files,
    groups::{Groups, Standing},
    swarms::{Swarms, Taken},
    table::Request as Author,
};
use crate::{
    content::Layout,
    dht::{Authority, DhtNode},
    identity::{
        FileName, GroupName, PeerId, RingId, UserName,
        key::SigningKey,
        token::{Credential, Grant, Signed, TrackerCertificate},
    },
    limits::{
        GRANT_LIFE, LONG_REQUESTS_AT_ONCE, LOOKUPS_AT_ONCE, REQUESTS_AT_ONCE, STRANGER_LIFE,
        STRANGER_REQUEST_BYTES_MAX, TRACKER_REQUEST_BYTES_MAX,
    },
    time::Timestamp,
    transport::{Admission, Bodies, CloseCode, Connection, Prefix, ServeLimits, serve},
    wire::tracker::{
        Announcement, Change, Holding, Refusal, Request, Response, SwarmEntry, Welcome,
    },
};

/// Answers the requests of all connections.
pub(super) struct Service {
    ring: RingId,
    token_key: SigningKey,
    authority: Authority,
    dht: DhtNode,
    accounts: Accounts,
    groups: Groups,
    files: Files,
    swarms: Swarms,
    backlog: Backlog,
    bodies: Bodies,
}

/// One connection, and who is logged in on it.
struct Caller {
    connection: Connection,
    peer: PeerId,
    from: SocketAddr,
    login: Mutex<Option<Login>>,
    place: Admission,
    /// For the requests that take much work, or many bytes.
    long: Semaphore,
}

impl Service {
    pub(super) fn new(
        dht: DhtNode,
        authority: Authority,
        token_key: SigningKey,
    ) -> Result<Self, Refusal> {
        let ring = dht.ring_id();
        Ok(Self {
            ring,
            token_key: token_key.clone(),
            authority,
            dht: dht.clone(),
            accounts: Accounts::new(dht.clone(), ring, token_key)?,
            groups: Groups::new(dht.clone()),
            files: Files::new(dht.clone()),
            swarms: Swarms::new(dht),
            backlog: Backlog::default(),
            bodies: Bodies::default(),
        })
    }

    /// Serves a connection until it is closed. Breaking the protocol closes it, and so does staying without
    /// logging in, or not taking the answers.
    pub(super) async fn serve(self: Arc<Self>, connection: Connection, place: Admission) {
        let caller = Arc::new(Caller {
            connection: connection.clone(),
            peer: connection.remote_peer(),
            from: connection.remote_addr(),
            login: Mutex::default(),
            place,
            long: Semaphore::new(LONG_REQUESTS_AT_ONCE),
        });
        let (stranger, asking) = (caller.clone(), caller.clone());
        let limits = ServeLimits {
            at_once: REQUESTS_AT_ONCE,
            request_bytes: move || match asking.login() {
                Ok(_) => TRACKER_REQUEST_BYTES_MAX,
                Err(_) => STRANGER_REQUEST_BYTES_MAX,
            },
            bodies: self.bodies.clone(),
        };
        let serving = serve(&connection, limits, move |request, responder| {
            let (service, caller) = (self.clone(), caller.clone());
            async move {
                let response = service.answer(&caller, request).await;
                let delivered = service
                    .backlog
                    .deliver(&caller.connection, responder, response);
                if let Err(error) = delivered.await {
                    tracing::debug!(peer = %caller.peer, %error, "an answer was not delivered");
                }
            }
        });
        tokio::select! {
            lost = serving => {
                tracing::debug!(peer = %connection.remote_peer(), %lost, "a peer's connection ended");
            }
            () = stranger.stays_a_stranger() => connection.close(CloseCode::Unauthenticated),
        }
    }

    /// That this tracker is the member that it is now.
    fn certificate(&self) -> Signed<TrackerCertificate> {
        let certificate = TrackerCertificate::V1 {
            ring: self.ring,
            member: self.dht.member_id(),
            peer: self.authority.peer,
            token_key: self.authority.tokens,
            issued: self.dht.time(),
        };
        Signed::sign(&certificate, &self.authority.ring)
    }

    async fn answer(&self, caller: &Caller, request: Request) -> Response {
        let now = self.dht.time();
        let is_retry = request.change().is_some_and(|change| change.retry);
        let answer = match request {
            Request::Hello => Ok(Response::Welcome(Welcome {
                certificate: self.certificate(),
                time: self.dht.ring_time(),
                observed: caller.from,
            })),
            Request::Ring => Ok(Response::Ring(self.dht.status())),
            Request::CreateUser {
                change,
                user,
                password,
            } => self
                .accounts
                .create(
                    Prefix::of(caller.from.ip()),
                    caller.author(change),
                    user,
                    password,
                    now,
                )
                .await
                .map(|user| Response::UserCreated { user }),
            Request::Login {
                change,
                user,
                password,
            } => self
                .accounts
                .login(
                    Prefix::of(caller.from.ip()),
                    caller.author(change),
                    user,
                    password,
                    now,
                )
                .await
                .map(|login| caller.log_in(login)),
            Request::Authenticate { credential } => self
                .authenticate(caller.peer, &credential, now)
                .await
                .map(|login| caller.log_in(login)),
            request => match caller.login() {
                Ok(login) if login.confirmed => {
                    self.answer_user(caller, &login, request, now).await
                }
                Ok(known) => self.answer_unconfirmed(caller, known, request, now).await,
                Err(refusal) => Err(refusal),
            },
        };
        answer.unwrap_or_else(|refusal| match refusal {
            // A tracker that was asked before, and wakes, may find that he may.
            refusal if is_retry && refusal.is_of_the_asker() => {
                Response::Refused(Refusal::OutcomeUnknown)
            }
            refusal => Response::Refused(refusal),
        })
    }

    async fn authenticate(
        &self,
        peer: PeerId,
        credential: &Signed<Credential>,
        now: Timestamp,
    ) -> Result<Login, Refusal> {
        match self.accounts.authenticate(peer, credential, now).await {
            Err(refusal @ Refusal::InsufficientReplicas { .. }) => {
                let known = self.accounts.recognize(peer, credential, now).await?;
                known.ok_or(refusal)
            }
            certain => certain,
        }
    }

    /// Answers one whom this tracker, cut off, took for who he says. As long as it is cut off he is shown what it knows,
    /// and for all else it has to be certain of him first.
    async fn answer_unconfirmed(
        &self,
        caller: &Caller,
        known: Login,
        request: Request,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let listed = match &request {
            Request::ListGroups { .. } => {
                let listed = self.answer_group(caller, &known.user, request.clone(), now);
                Some(listed.await?)
            }
            Request::ListFiles { group, after } => {
                self.known_files(&known.user, group, after.as_ref()).await?
            }
            _ => None,
        };
        if let Some(listed) = listed.filter(Response::is_stale) {
            return Ok(listed);
        }
        let credential = &known.credential;
        let login = self
            .accounts
            .authenticate(caller.peer, credential, now)
            .await;
        if login.as_ref().err() == Some(&Refusal::NotLoggedIn) {
            caller.log_out(&known);
        }
        if let Request::Announce(announcement) = &request
            && let Err(Refusal::InsufficientReplicas { .. }) = login
        {
            let renewal = caller.renewal(announcement)?;
            let session = known.session;
            self.swarms.renew(caller.peer, session, renewal).await;
        }
        let login = login?;
        caller.log_in(login.clone());
        self.answer_user(caller, &login, request, now).await
    }

    async fn answer_user(
        &self,
        caller: &Caller,
        login: &Login,
        request: Request,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let user = &login.user;
        let _turn = match request.is_long() {
            // It is never closed.
            true => caller.long.acquire().await.ok(),
            false => None,
        };
        match request {
            Request::Logout { change } => {
                self.accounts
                    .logout(caller.author(change), user, login.session)
                    .await?;
                self.swarms.leave(caller.peer).await;
                caller.log_out(login);
                Ok(Response::Done)
            }
            Request::Announce(announcement) => {
                self.announce(caller, login, announcement, now).await
            }
            Request::Grant { group } => {
                self.check_session(caller, login).await?;
                self.grant(caller.peer, user, &group).await
            }
            request @ (Request::PublishFile { .. }
            | Request::ListFiles { .. }
            | Request::FindFile { .. }
            | Request::AddSharer { .. }
            | Request::StopSharing { .. }
            | Request::Holders { .. }) => self.answer_file(caller, user, request, now).await,
            request => self.answer_group(caller, user, request, now).await,
        }
    }

    async fn answer_group(
        &self,
        caller: &Caller,
        user: &UserName,
        request: Request,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let groups = &self.groups;
        match request {
            Request::CreateGroup {
                change,
                group,
                access,
            } => groups
                .create(caller.author(change), user, &group, access, now)
                .await
                .map(done),
            Request::ListGroups { cursor } => {
                let page = groups.list(user, &cursor).await?;
                Ok(Response::Groups {
                    groups: page.groups,
                    next: page.next,
                    stale: page.stale,
                })
            }
            Request::JoinGroup { change, group } => groups
                .join(caller.author(change), user, &group, now)
                .await
                .map(Response::Joined),
            Request::ListRequests { group, after } => groups
                .requests(user, &group, after.as_ref())
                .await
                .map(|(users, next)| Response::Users { users, next }),
            Request::Decide {
                change,
                group,
                user: of,
                accept,
            } => groups
                .decide(caller.author(change), user, &group, &of, accept, now)
                .await
                .map(done),
            Request::LeaveGroup { change, group } => groups
                .leave(caller.author(change), user, &group, now)
                .await
                .map(done),
            Request::RemoveMember {
                change,
                group,
                user: of,
            } => groups
                .remove(caller.author(change), user, &group, &of, now)
                .await
                .map(done),
            Request::TransferGroup { change, group, to } => groups
                .transfer(caller.author(change), user, &group, &to, now)
                .await
                .map(done),
            _ => Err(Refusal::BadRequest),
        }
    }

    async fn answer_file(
        &self,
        caller: &Caller,
        user: &UserName,
        request: Request,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let (files, groups) = (&self.files, &self.groups);
        match request {
            Request::PublishFile {
                change,
                group,
                file,
            } => {
                let standing = groups.standing(user, &group).await?;
                files
                    .publish(caller.author(change), user, &standing, file, now)
                    .await
                    .map(done)
            }
            Request::ListFiles { group, after } => {
                self.list_files(user, &group, after.as_ref()).await
            }
            Request::FindFile { group, name } => {
                let standing = groups.standing(user, &group).await?;
                let mut file = files.find(&standing, &name).await?;
                let counts = self.swarms.counts(&standing.name, &[file.id]).await;
                file.holders_online = counts.into_iter().sum();
                Ok(Response::File(file))
            }
            Request::AddSharer {
                change,
                group,
                name,
                id,
            } => {
                let standing = groups.standing(user, &group).await?;
                files
                    .add_sharer(caller.author(change), user, &standing, &name, id)
                    .await
                    .map(done)
            }
            Request::StopSharing {
                change,
                group,
                name,
                for_all,
            } => {
                let standing = groups.standing(user, &group).await?;
                let entry_removed = files
                    .stop(caller.author(change), user, &standing, &name, for_all)
                    .await?;
                self.swarms.forget(caller.peer, &group, &name).await;
                Ok(Response::Stopped { entry_removed })
            }
            Request::Holders { group, name } => {
                let standing = groups.standing(user, &group).await?;
                let file = files.find(&standing, &name).await?;
                let layout = Layout::new(file.size).map_err(|_| Refusal::Internal)?;
                let of = (&group, file.id);
                let holders = self
                    .swarms
                    .holders(caller.peer, of, layout.chunk_count())
                    .await;
                let (holders, availability) = holders;
                let is_held = holders.iter().any(|h| h.holding.is_something());
                let last_seen = match is_held {
                    true => None,
                    false => self.swarms.last_seen(&group, file.id),
                };
                Ok(Response::Holders {
                    holders,
                    last_seen,
                    availability,
                })
            }
            _ => Err(Refusal::BadRequest),
        }
    }

    /// A page of a group's files. Cut off from the ring, it is what this tracker knows, for whom it knows as a reader.
    async fn list_files(
        &self,
        user: &UserName,
        group: &GroupName,
        after: Option<&FileName>,
    ) -> Result<Response, Refusal> {
        match self.groups.standing(user, group).await {
            Ok(standing) => self.files_of(&standing, after).await,
            Err(refusal @ Refusal::InsufficientReplicas { .. }) => {
                let known = self.known_files(user, group, after).await?;
                known.filter(Response::is_stale).ok_or(refusal)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// The same by what this tracker knows of the group; `None` if it does not know the user as a reader.
    async fn known_files(
        &self,
        user: &UserName,
        group: &GroupName,
        after: Option<&FileName>,
    ) -> Result<Option<Response>, Refusal> {
        let standing = self.groups.known_standing(user, group).await?;
        match standing.filter(|standing| standing.reader().is_ok()) {
            Some(standing) => self.files_of(&standing, after).await.map(Some),
            None => Ok(None),
        }
    }

    async fn files_of(
        &self,
        standing: &Standing,
        after: Option<&FileName>,
    ) -> Result<Response, Refusal> {
        let page = self.files.list(standing, after).await?;
        let mut files = page.files;
        let ids: Vec<_> = files.iter().map(|file| file.id).collect();
        let counts = self.swarms.counts(&standing.name, &ids).await;
        for (file, count) in files.iter_mut().zip(counts) {
            file.holders_online = count;
        }
        Ok(Response::Files {
            files,
            next: page.next,
            stale: page.stale,
        })
    }

    /// Mints a grant, after majority reads that began after the request came.
    async fn grant(
        &self,
        peer: PeerId,
        user: &UserName,
        group: &GroupName,
    ) -> Result<Response, Refusal> {
        let standing = self.groups.standing(user, group).await?;
        let claims = Grant::V1 {
            ring: self.ring,
            group: standing.name.clone(),
            user: user.clone(),
            peer,
            role: standing.reader()?,
            expires: self.dht.time().saturating_add(GRANT_LIFE),
        };
        Ok(Response::Granted {
            grant: Signed::sign(&claims, &self.token_key),
        })
    }

    /// Takes in what a peer announces. Cut off from the ring, it renews what was confirmed before, and refuses all the
    /// same, so that the peer looks for a tracker that can do more.
    async fn announce(
        &self,
        caller: &Caller,
        login: &Login,
        announcement: Announcement,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let renewal = caller.renewal(&announcement)?;
        let announced = self.announce_confirmed(caller, login, announcement, now);
        let announced = announced.await;
        if let Err(Refusal::InsufficientReplicas { .. }) = announced {
            let session = login.session;
            self.swarms.renew(caller.peer, session, renewal).await;
        }
        announced
    }

    /// Takes in what a peer announces, but for what it may not share; also looks some of what it announced
    /// earlier up again.
    async fn announce_confirmed(
        &self,
        caller: &Caller,
        login: &Login,
        mut announcement: Announcement,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        self.check_session(caller, login).await?;
        caller.keep_useful(&mut announcement.addrs);
        let mut gone = Vec::new();
        let (mut right, new): (Vec<_>, Vec<_>) = announcement
            .swarms
            .into_iter()
            .partition(|entry| entry.holding == Holding::Nothing);
        let may = self.may_hold(login, &new).await?;
        for (mut entry, may) in new.into_iter().zip(may) {
            if !may {
                gone.push((entry.group.clone(), entry.name.clone()));
                // What was announced there before is there no more either.
                entry.holding = Holding::Nothing;
            }
            right.push(entry);
        }
        announcement.swarms = right;
        let Taken { to_check, left_out } = self
            .swarms
            .announce(caller.peer, (&login.user, login.session), announcement, now)
            .await?;
        let may = self.may_hold(login, &to_check).await?;
        for (entry, may) in to_check.into_iter().zip(may) {
            if !may {
                self.swarms
                    .forget(caller.peer, &entry.group, &entry.name)
                    .await;
                gone.push((entry.group, entry.name));
            }
        }
        Ok(Response::Announced {
            time: self.dht.ring_time(),
            gone,
            left_out,
            held: self.swarms.digest(caller.peer),
        })
    }

    /// Refuses whoever has logged out since, or in again, on another connection: what is given here is good
    /// for longer than this one.
    async fn check_session(&self, caller: &Caller, login: &Login) -> Result<(), Refusal> {
        let checked = self
            .accounts
            .check_session(&login.user, caller.peer, login.session)
            .await;
        if checked == Err(Refusal::NotLoggedIn) {
            caller.log_out(login);
        }
        checked
    }

    /// Which of these files a user may be a holder of now, of as much as he says. Each is a question to a majority, so that several are
    /// asked at once; announcements come sorted by group.
    async fn may_hold(&self, login: &Login, entries: &[SwarmEntry]) -> Result<Vec<bool>, Refusal> {
        let mut may = Vec::with_capacity(entries.len());
        for of_group in entries.chunk_by(|a, b| a.group == b.group) {
            let group = &of_group[0].group;
            let standing = match self.groups.standing(&login.user, group).await {
                Ok(standing) => standing,
                Err(Refusal::GroupNotFound { .. }) => {
                    may.extend(of_group.iter().map(|_| false));
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            for some in of_group.chunks(LOOKUPS_AT_ONCE) {
                let mut lookups = Vec::with_capacity(some.len());
                for entry in some {
                    let lookup = self.files.layout(&standing, &entry.name, entry.id);
                    lookups.push(Box::pin(lookup));
                }
                for (entry, layout) in some.iter().zip(side_by_side(lookups).await) {
                    may.push(match layout {
                        Ok(Some(layout)) => entry.holding.is_of(layout.chunk_count()),
                        Ok(None) => false,
                        Err(Refusal::NotAMember { .. }) => false,
                        Err(refusal) => return Err(refusal),
                    });
                }
            }
        }
        Ok(may)
    }
}

/// What comes of futures that run at the same time, in their order.
async fn side_by_side<F: Future>(futures: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut outcomes: Vec<_> = futures.iter().map(|_| None).collect();
    let mut running: Vec<_> = futures.into_iter().enumerate().collect();
    poll_fn(|context| {
        running.retain_mut(|(at, future)| match future.as_mut().poll(context) {
            Poll::Ready(outcome) => {
                outcomes[*at] = Some(outcome);
                false
            }
            Poll::Pending => true,
        });
        match running.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}

impl Caller {
    const fn author(&self, change: Change) -> Author {
        Author {
            peer: self.peer,
            change,
        }
    }

    fn login(&self) -> Result<Login, Refusal> {
        self.slot().clone().ok_or(Refusal::NotLoggedIn)
    }

    /// Of an announcement, what needs no look into the ring: where the peer is, and what it holds no more.
    fn renewal(&self, announcement: &Announcement) -> Result<Announcement, Refusal> {
        if !announcement.is_within_bounds() {
            return Err(Refusal::BadRequest);
        }
        let ended = announcement.swarms.iter();
        let ended = ended.filter(|entry| entry.holding == Holding::Nothing);
        let mut addrs = announcement.addrs.clone();
        self.keep_useful(&mut addrs);
        Ok(Announcement {
            number: announcement.number,
            addrs,
            anew: false,
            swarms: ended.cloned().collect(),
        })
    }

    fn keep_useful(&self, addrs: &mut Vec<SocketAddr>) {
        let loopback = self.from.ip().to_canonical().is_loopback();
        addrs.retain(|addr| is_useful(addr, loopback));
    }

    fn log_in(&self, login: Login) -> Response {
        let response = Response::LoggedIn {
            user: login.user.clone(),
            credential: login.credential.clone(),
        };
        *self.slot() = Some(login);
        self.place.set_trusted(true);
        response
    }

    /// Comes back if nobody is logged in [`STRANGER_LIFE`] after the connection's beginning, or at two looks
    /// with that between them.
    async fn stays_a_stranger(&self) {
        let mut stranger = true;
        loop {
            tokio::time::sleep(STRANGER_LIFE).await;
            if stranger && self.login().is_err() {
                return;
            }
            stranger = self.login().is_err();
        }
    }

    /// Ends `login`, unless another one has taken its place.
    fn log_out(&self, login: &Login) {
        let ended = self.slot().take_if(|now| now.session == login.session);
        if ended.is_some() {
            self.place.set_trusted(false);
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Login>> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done((): ()) -> Response {
    Response::Done
}

/// Whether others can do anything with an announced address: loopback only from where it means the same.
fn is_useful(addr: &SocketAddr, from_loopback: bool) -> bool {
    let ip = addr.ip().to_canonical();
    addr.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && (from_loopback || !ip.is_loopback())
}

#[cfg(test)]
pub(super) mod tests;
