//! A sample of everything that a peer and a tracker can say to each other, and their golden bytes.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::{
    golden::{Golden, assert_every_variant, variants},
    identity::{MemberId, token::samples as tokens},
};

variants!(Request {
    Hello,
    CreateUser,
    Login,
    Authenticate,
    Logout,
    CreateGroup,
    ListGroups,
    JoinGroup,
    ListRequests,
    Decide,
    LeaveGroup,
    RemoveMember,
    TransferGroup,
    PublishFile,
    ListFiles,
    FindFile,
    AddSharer,
    StopSharing,
    Grant,
    Announce,
    Holders,
    Ring,
});

variants!(Response {
    Refused,
    Welcome,
    UserCreated,
    LoggedIn,
    Done,
    Groups,
    Joined,
    Users,
    Files,
    File,
    Stopped,
    Granted,
    Announced,
    Holders,
    Ring,
});

variants!(Refusal {
    UserExists,
    InvalidCredentials,
    TooManyAttempts,
    BadPassword,
    NotLoggedIn,
    GroupExists,
    GroupNotFound,
    AlreadyMember,
    NotOwner,
    NoPendingRequest,
    OwnerCannotLeave,
    NotAMember,
    UserNotAMember,
    FileExists,
    FileNotFound,
    FileReplaced,
    NotSharing,
    NotUploader,
    BadRequest,
    InsufficientReplicas,
    OutcomeUnknown,
    NotFounded,
    Busy,
    Internal,
    OwnerCannotBeRemoved,
});

variants!(JoinOutcome {
    Joined,
    Requested,
    AlreadyPending,
});

variants!(Access { Members, Open });

variants!(Role {
    Owner,
    Member,
    Guest,
});

variants!(Holding {
    Nothing,
    Complete,
    Partial,
});

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn group() -> GroupName {
    GroupName::new("Photos").unwrap()
}

fn name() -> FileName {
    FileName::new("día 1.jpg").unwrap()
}

fn id() -> FileId {
    FileId::from_bytes([0x1d; 32])
}

fn change() -> Change {
    Change::new(RequestId::from_bytes([0xcc; 16]))
}

fn password() -> Password {
    Password::new("pass123")
}

fn addrs() -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::new(192, 0, 2, 1), 41873).into(),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 41873).into(),
    ]
}

fn summary(access: Access, role: Option<Role>) -> GroupSummary {
    GroupSummary {
        name: group(),
        owner: user("Alice"),
        access,
        members: 300,
        pending: role.is_none(),
        role,
    }
}

fn file() -> FileSummary {
    FileSummary {
        name: name(),
        id: id(),
        size: 1_073_741_825,
        sha256: Digest::from_bytes([0x5a; 32]),
        uploader: user("Alice"),
        published: Timestamp::from_millis(1_700_000_000_000),
        holders_online: 2,
        sharers: 3,
    }
}

fn availability(chunks: u32, holders: u32, parts: Vec<u8>) -> Availability {
    Availability {
        chunks,
        holders,
        whole: holders / 2,
        untold: holders / 3,
        parts,
    }
}

fn announcement() -> Announcement {
    let entry = |holding| SwarmEntry {
        group: group(),
        name: name(),
        id: id(),
        holding,
    };
    Announcement {
        number: 1_700_000_000_000,
        addrs: addrs(),
        anew: true,
        swarms: vec![
            entry(Holding::Complete),
            entry(Holding::Partial(vec![0b101, 1])),
            entry(Holding::Nothing),
        ],
    }
}

/// Requests of every kind, by what they are called among the golden bytes.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    [account_requests(), group_requests(), file_requests()].concat()
}

fn account_requests() -> Vec<(&'static str, Request)> {
    vec![
        ("hello", Request::Hello),
        (
            "create_user",
            Request::CreateUser {
                change: change(),
                user: user("Alice"),
                password: password(),
            },
        ),
        (
            "create_user_again",
            Request::CreateUser {
                change: Change {
                    retry: true,
                    ..change()
                },
                user: user("Alice"),
                password: password(),
            },
        ),
        (
            "login",
            Request::Login {
                change: change(),
                user: user("Alice"),
                password: password(),
            },
        ),
        (
            "authenticate",
            Request::Authenticate {
                credential: tokens::signed(&tokens::credential()),
            },
        ),
        ("logout", Request::Logout { change: change() }),
    ]
}

fn group_requests() -> Vec<(&'static str, Request)> {
    let (change, group, alice, bob) = (change(), group(), user("Alice"), user("Bob"));
    let list_requests = |after| Request::ListRequests {
        group: GroupName::new("Photos").unwrap(),
        after,
    };
    vec![
        (
            "create_group",
            Request::CreateGroup {
                change,
                group: group.clone(),
                access: Access::Members,
            },
        ),
        (
            "create_open_group",
            Request::CreateGroup {
                change,
                group: group.clone(),
                access: Access::Open,
            },
        ),
        ("list_groups", Request::ListGroups { cursor: Vec::new() }),
        (
            "list_groups_on",
            Request::ListGroups {
                cursor: b"\x03g/agroup".to_vec(),
            },
        ),
        (
            "join_group",
            Request::JoinGroup {
                change,
                group: group.clone(),
            },
        ),
        ("list_requests", list_requests(None)),
        ("list_requests_on", list_requests(Some(alice.clone()))),
        (
            "accept",
            Request::Decide {
                change,
                group: group.clone(),
                user: bob.clone(),
                accept: true,
            },
        ),
        (
            "reject",
            Request::Decide {
                change,
                group: group.clone(),
                user: bob.clone(),
                accept: false,
            },
        ),
        (
            "leave_group",
            Request::LeaveGroup {
                change,
                group: group.clone(),
            },
        ),
        (
            "remove_member",
            Request::RemoveMember {
                change,
                group: group.clone(),
                user: bob.clone(),
            },
        ),
        (
            "transfer_group",
            Request::TransferGroup {
                change,
                group,
                to: bob,
            },
        ),
    ]
}

fn file_requests() -> Vec<(&'static str, Request)> {
    let (change, group, name) = (change(), group(), name());
    let list_files = |after| Request::ListFiles {
        group: GroupName::new("Photos").unwrap(),
        after,
    };
    let stop_sharing = |for_all| Request::StopSharing {
        change,
        group: GroupName::new("Photos").unwrap(),
        name: FileName::new("día 1.jpg").unwrap(),
        for_all,
    };
    vec![
        (
            "publish_file",
            Request::PublishFile {
                change,
                group: group.clone(),
                file: NewFile {
                    name: name.clone(),
                    id: id(),
                    size: 1_073_741_825,
                    sha256: Digest::from_bytes([0x5a; 32]),
                },
            },
        ),
        ("list_files", list_files(None)),
        ("list_files_on", list_files(Some(name.clone()))),
        (
            "find_file",
            Request::FindFile {
                group: group.clone(),
                name: name.clone(),
            },
        ),
        (
            "add_sharer",
            Request::AddSharer {
                change,
                group: group.clone(),
                name: name.clone(),
                id: id(),
            },
        ),
        ("stop_sharing", stop_sharing(false)),
        ("stop_sharing_for_all", stop_sharing(true)),
        (
            "grant",
            Request::Grant {
                group: group.clone(),
            },
        ),
        ("announce", Request::Announce(announcement())),
        ("holders", Request::Holders { group, name }),
        ("ring", Request::Ring),
    ]
}

fn responses() -> Vec<(&'static str, Response)> {
    let refusals = refusals().into_iter();
    refusals
        .map(|(name, refusal)| (name, Response::Refused(refusal)))
        .chain(account_responses())
        .chain(group_responses())
        .chain(file_responses())
        .chain([("ring", Response::Ring(ring_status()))])
        .collect()
}

fn ring_status() -> RingStatus {
    let member = |byte, addr: &str, alive| MemberStatus {
        id: MemberId::from_bytes([byte; 16]),
        addr: Some(addr.parse().unwrap()),
        alive,
        is_self: byte == 2,
        refused: (byte == 1).then(|| "another ring".to_owned()),
    };
    RingStatus {
        trackers: 3,
        reachable: 2,
        epoch: 1,
        founded: true,
        waiting_for: vec!["tracker.example:9002".parse().unwrap()],
        members: vec![
            member(1, "127.0.0.1:9000", false),
            member(2, "[::1]:9001", true),
        ],
        rows: 300,
        behind: 7,
        votes: true,
    }
}

fn account_responses() -> [(&'static str, Response); 4] {
    let welcome = Welcome {
        certificate: tokens::signed(&tokens::certificate()),
        time: Some(Timestamp::from_millis(1_700_000_000_000)),
        observed: addrs()[0],
    };
    [
        ("welcome", Response::Welcome(welcome)),
        (
            "user_created",
            Response::UserCreated {
                user: user("Alice"),
            },
        ),
        (
            "logged_in",
            Response::LoggedIn {
                user: user("Alice"),
                credential: tokens::signed(&tokens::credential()),
            },
        ),
        ("done", Response::Done),
    ]
}

fn group_responses() -> [(&'static str, Response); 8] {
    let joined = [
        JoinOutcome::Joined,
        JoinOutcome::Requested {
            owner: user("Alice"),
        },
        JoinOutcome::AlreadyPending {
            owner: user("Alice"),
        },
    ];
    assert_every_variant(&joined);
    let [now, requested, pending] = joined.map(Response::Joined);
    let groups = vec![
        summary(Access::Members, Some(Role::Owner)),
        summary(Access::Members, Some(Role::Member)),
        summary(Access::Open, Some(Role::Guest)),
        summary(Access::Open, None),
    ];
    assert_every_variant(groups.iter().map(|group| &group.access));
    assert_every_variant(groups.iter().filter_map(|group| group.role.as_ref()));
    let users = vec![user("Bob"), user("carol")];
    [
        (
            "groups",
            Response::Groups {
                groups,
                next: b"\x03g/agroup".to_vec(),
                stale: true,
            },
        ),
        (
            "groups_none",
            Response::Groups {
                groups: Vec::new(),
                next: Vec::new(),
                stale: false,
            },
        ),
        ("joined", now),
        ("join_requested", requested),
        ("join_pending", pending),
        (
            "users",
            Response::Users {
                next: users.last().cloned(),
                users,
            },
        ),
        (
            "users_none",
            Response::Users {
                users: Vec::new(),
                next: None,
            },
        ),
        (
            "granted",
            Response::Granted {
                grant: tokens::signed(&tokens::grant()),
            },
        ),
    ]
}

fn file_responses() -> [(&'static str, Response); 9] {
    let holder = |holding| Holder {
        peer: PeerId::from_bytes([0xee; 32]),
        addrs: addrs(),
        holding,
    };
    let holders = vec![
        holder(Holding::Complete),
        holder(Holding::Partial(vec![0b101, 1])),
        holder(Holding::Nothing),
    ];
    assert_every_variant(holders.iter().map(|holder| &holder.holding));
    let stopped = |entry_removed| Response::Stopped { entry_removed };
    let mut held = SetDigest::default();
    for entry in &announcement().swarms {
        held.add(&entry.place(), entry.id, &entry.holding);
    }
    [
        (
            "files",
            Response::Files {
                files: vec![file()],
                next: Some(name()),
                stale: true,
            },
        ),
        (
            "files_none",
            Response::Files {
                files: Vec::new(),
                next: None,
                stale: false,
            },
        ),
        ("file", Response::File(file())),
        ("stopped", stopped(false)),
        ("stopped_and_removed", stopped(true)),
        (
            "announced",
            Response::Announced {
                time: Some(Timestamp::from_millis(1_700_000_000_000)),
                gone: vec![(group(), name())],
                left_out: vec![(group(), name())],
                held,
            },
        ),
        (
            "holders",
            Response::Holders {
                holders,
                last_seen: None,
                availability: availability(2049, 3, vec![1, 0, 255]),
            },
        ),
        (
            "holders_none",
            Response::Holders {
                holders: Vec::new(),
                last_seen: Some(Timestamp::from_millis(1_700_000_000_000)),
                availability: availability(1, 0, Vec::new()),
            },
        ),
        (
            "holders_never",
            Response::Holders {
                holders: Vec::new(),
                last_seen: None,
                availability: availability(1, 0, Vec::new()),
            },
        ),
    ]
}

fn refusals() -> Vec<(&'static str, Refusal)> {
    let (group, name, user) = (group(), name(), user("Bob"));
    let refusals = vec![
        (
            "refused_user_exists",
            Refusal::UserExists { user: user.clone() },
        ),
        ("refused_invalid_credentials", Refusal::InvalidCredentials),
        (
            "refused_too_many_attempts",
            Refusal::TooManyAttempts {
                wait: Duration::from_millis(1500),
            },
        ),
        (
            "refused_bad_password",
            Refusal::BadPassword { min: 4, max: 1024 },
        ),
        ("refused_not_logged_in", Refusal::NotLoggedIn),
        (
            "refused_group_exists",
            Refusal::GroupExists {
                group: group.clone(),
            },
        ),
        (
            "refused_group_not_found",
            Refusal::GroupNotFound {
                group: group.clone(),
            },
        ),
        (
            "refused_already_member",
            Refusal::AlreadyMember {
                group: group.clone(),
            },
        ),
        (
            "refused_not_owner",
            Refusal::NotOwner {
                group: group.clone(),
            },
        ),
        (
            "refused_no_pending_request",
            Refusal::NoPendingRequest {
                group: group.clone(),
                user: user.clone(),
            },
        ),
        (
            "refused_owner_cannot_leave",
            Refusal::OwnerCannotLeave {
                group: group.clone(),
            },
        ),
        (
            "refused_not_a_member",
            Refusal::NotAMember {
                group: group.clone(),
            },
        ),
        (
            "refused_user_not_a_member",
            Refusal::UserNotAMember {
                group: group.clone(),
                user,
            },
        ),
        (
            "refused_file_exists",
            Refusal::FileExists {
                group: group.clone(),
                name: name.clone(),
            },
        ),
        (
            "refused_file_not_found",
            Refusal::FileNotFound {
                group: group.clone(),
                name: name.clone(),
            },
        ),
        (
            "refused_file_replaced",
            Refusal::FileReplaced {
                group: group.clone(),
                name: name.clone(),
            },
        ),
        (
            "refused_not_sharing",
            Refusal::NotSharing {
                group: group.clone(),
                name: name.clone(),
            },
        ),
        ("refused_not_uploader", Refusal::NotUploader { group, name }),
        ("refused_bad_request", Refusal::BadRequest),
        (
            "refused_insufficient_replicas",
            Refusal::InsufficientReplicas {
                reachable: 1,
                members: 3,
                needed: 2,
            },
        ),
        ("refused_outcome_unknown", Refusal::OutcomeUnknown),
        ("refused_not_founded", Refusal::NotFounded),
        ("refused_busy", Refusal::Busy),
        ("refused_internal", Refusal::Internal),
        (
            "refused_owner_cannot_be_removed",
            Refusal::OwnerCannotBeRemoved {
                group: GroupName::new("photos").unwrap(),
            },
        ),
    ];
    assert_every_variant(refusals.iter().map(|(_, refusal)| refusal));
    refusals
}

#[test]
fn golden_bytes() {
    let mut golden = Golden::open("tracker");
    golden.messages("request", &requests());
    golden.messages("response", &responses());
    golden.finish();
}
