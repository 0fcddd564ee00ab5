//! What the two ends of a control socket may read: whatever bytes come, a frame is refused or is a message that would be
//! written so that it is read as the same. It is fuzzed, and starts from the golden bytes that are tested here.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "__internals")]
use super::frame::read_open_frame;
use super::frame::{read_frame, write_frame};
use super::message::{ClientHello, Event, Request, ServerHello};

/// Whatever stands in a stream of frames, nothing of it is read but messages that are written and read as the same.
#[cfg(feature = "__internals")]
pub fn fuzz_control(data: &[u8]) {
    let mut rest = data;
    // A hello may have grown, so that what follows its fields is not written again.
    if let Ok(hello) = at_once(read_open_frame::<ServerHello>(&mut rest)) {
        assert!(again(&hello).is_some());
    }
    let mut rest = data;
    if at_once(read_open_frame::<ClientHello>(&mut rest)).is_ok_and(|hello| again(&hello).is_some())
        && let Ok(request) = at_once(read_frame::<Request>(&mut rest))
    {
        assert!(again(&request).is_some());
    }
    let mut rest = data;
    while let Ok(event) = at_once(read_frame::<Event>(&mut rest)) {
        assert!(again(&event).is_some());
    }
}

/// The frame of `message`, if it is read as what is written in the same bytes.
fn again<T: Serialize + DeserializeOwned>(message: &T) -> Option<Vec<u8>> {
    let mut written = Vec::new();
    at_once(write_frame(&mut written, message)).ok()?;
    let read: T = at_once(read_frame(&mut written.as_slice())).ok()?;
    let mut twice = Vec::new();
    at_once(write_frame(&mut twice, &read)).ok()?;
    (written == twice).then_some(written)
}

/// What comes of a future that never waits, as none does that reads from memory.
fn at_once<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use p2pshare::{FileName, GroupName, Limits, Password, Rate, RingId, UserName};

    use super::super::message::{
        AvailabilityRow, DownloadRequest, Downloaded, FileRow, GroupRow, Joined, LeftRow, LoggedIn,
        Outcome, PeerStatus, Phase, Progress, RateSetting, TransferRow, UploadRequest, Uploaded,
        Verified, VerifyRequest,
    };
    use super::*;
    use crate::failure::Failure;

    fn group() -> GroupName {
        GroupName::new("photos").unwrap()
    }

    fn user() -> UserName {
        UserName::new("Alice").unwrap()
    }

    fn name() -> FileName {
        FileName::new("übersicht.iso").unwrap()
    }

    fn path() -> super::super::message::WirePath {
        Path::new("/home/alice/übersicht.iso").into()
    }

    fn requests() -> Vec<Request> {
        vec![
            Request::Login {
                user: user(),
                password: Password::new("pass123"),
            },
            Request::Logout,
            Request::Retire,
            Request::Status,
            Request::CreateGroup {
                group: group(),
                open: true,
            },
            Request::ListGroups,
            Request::JoinGroup { group: group() },
            Request::ListRequests { group: group() },
            Request::Accept {
                group: group(),
                user: user(),
            },
            Request::Reject {
                group: group(),
                user: user(),
            },
            Request::LeaveGroup { group: group() },
            Request::RemoveMember {
                group: group(),
                user: user(),
            },
            Request::TransferGroup {
                group: group(),
                user: user(),
            },
            Request::Upload(UploadRequest {
                path: path(),
                group: group(),
                name: Some(name()),
            }),
            Request::ListFiles { group: group() },
            Request::Download(DownloadRequest {
                group: group(),
                name: name(),
                dest: path(),
                force: false,
                sha256: true,
                wait: false,
                in_order: true,
            }),
            Request::ShowDownloads,
            Request::StopSharing {
                group: group(),
                name: name(),
                for_all: true,
            },
            Request::Verify(VerifyRequest {
                group: group(),
                name: name(),
                repair: true,
            }),
            Request::Availability {
                group: group(),
                name: name(),
            },
            Request::Limit {
                upload: Some(RateSetting::At(Rate::per_second(40_000_000).unwrap())),
                download: Some(RateSetting::Unlimited),
            },
        ]
    }

    fn request_name(request: &Request) -> &'static str {
        match request {
            Request::Login { .. } => "login",
            Request::Logout => "logout",
            Request::Retire => "retire",
            Request::Status => "status",
            Request::CreateGroup { .. } => "create_group",
            Request::ListGroups => "list_groups",
            Request::JoinGroup { .. } => "join_group",
            Request::ListRequests { .. } => "list_requests",
            Request::Accept { .. } => "accept",
            Request::Reject { .. } => "reject",
            Request::LeaveGroup { .. } => "leave_group",
            Request::RemoveMember { .. } => "remove_member",
            Request::TransferGroup { .. } => "transfer_group",
            Request::Upload(_) => "upload",
            Request::ListFiles { .. } => "list_files",
            Request::Download(_) => "download",
            Request::ShowDownloads => "show_downloads",
            Request::StopSharing { .. } => "stop_sharing",
            Request::Verify(_) => "verify",
            Request::Availability { .. } => "availability",
            Request::Limit { .. } => "limit",
        }
    }

    fn transfer() -> TransferRow {
        TransferRow {
            name: name(),
            group: group(),
            size: 600_000,
            verified_bytes: 524_288,
            state: "downloading".to_owned(),
            path: path(),
            left: vec![LeftRow {
                peer: "1a2b3c4d…".to_owned(),
                reason: "it sent a bad chunk 17".to_owned(),
            }],
        }
    }

    fn outcomes() -> Vec<Outcome> {
        let peer = "127.0.0.1:41873".parse().unwrap();
        vec![
            Outcome::Done,
            Outcome::LoggedIn(LoggedIn {
                user: user(),
                tracker: Some("127.0.0.1:9000".to_owned()),
                peer,
                pid: 4242,
            }),
            Outcome::LoggedOut { user: user() },
            Outcome::Retired { ending: true },
            Outcome::Status(Box::new(PeerStatus {
                user: user(),
                ring: RingId::from_bytes([0x11; 32]),
                tracker: None,
                peer,
                pid: 4242,
                shared_files: 3,
                transfers: 1,
                unserved_files: 1,
                downloads: vec![transfer()],
                trackers: None,
                sent_bytes: 5_000_000_000,
            })),
            Outcome::Groups {
                groups: vec![GroupRow {
                    name: group(),
                    owner: user(),
                    open: false,
                    members: 2,
                    my_role: "owner".to_owned(),
                }],
                stale: true,
            },
            Outcome::Joined(Joined::Requested { owner: user() }),
            Outcome::Users(vec![user()]),
            Outcome::Uploaded(Uploaded {
                name: name(),
                size: 600_000,
                chunks: 2,
                sha256: "ab".repeat(32),
                link: "p2pshare://".to_owned(),
                elapsed: Duration::from_millis(1500),
            }),
            Outcome::Files {
                files: vec![FileRow {
                    name: name(),
                    size: 600_000,
                    uploader: user(),
                    holders_online: 2,
                    sha256: "ab".repeat(32),
                }],
                stale: true,
            },
            Outcome::Downloaded(Downloaded {
                bytes: 600_000,
                chunks_total: 2,
                chunks_resumed: 1,
                elapsed: Duration::from_millis(1500),
                sha256_checked: true,
                was_there: false,
            }),
            Outcome::Transfers(vec![transfer()]),
            Outcome::Stopped {
                entry_removed: true,
            },
            Outcome::Verified(Verified {
                chunks: 2,
                sha256_checked: true,
                repaired: Some("1 of 2 chunks is bad: 0".to_owned()),
            }),
            Outcome::Availability(AvailabilityRow {
                chunks: 573,
                holders: 4,
                whole: 1,
                untold: 1,
                runs: vec![(500, 3), (73, 1)],
            }),
            Outcome::Limits(Limits::default().upload(Rate::per_second(40_000_000).ok())),
        ]
    }

    fn outcome_name(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Done => "done",
            Outcome::LoggedIn(_) => "logged_in",
            Outcome::LoggedOut { .. } => "logged_out",
            Outcome::Retired { .. } => "retired",
            Outcome::Status(_) => "status",
            Outcome::Groups { .. } => "groups",
            Outcome::Joined(_) => "joined",
            Outcome::Users(_) => "users",
            Outcome::Uploaded(_) => "uploaded",
            Outcome::Files { .. } => "files",
            Outcome::Downloaded(_) => "downloaded",
            Outcome::Transfers(_) => "transfers",
            Outcome::Stopped { .. } => "stopped",
            Outcome::Verified(_) => "verified",
            Outcome::Availability(_) => "availability",
            Outcome::Limits(_) => "limits",
        }
    }

    /// The frames by name: requests behind the hello that comes before each, and events.
    fn frames() -> Vec<(String, Vec<u8>)> {
        let hello = ClientHello {
            protocol: super::super::PROTOCOL,
            version: "0.1.0".to_owned(),
        };
        let hello = again(&hello).unwrap();
        let mut frames: Vec<_> = requests()
            .iter()
            .map(|request| {
                let frames = [hello.clone(), again(request).unwrap()].concat();
                (format!("request-{}", request_name(request)), frames)
            })
            .collect();
        frames.extend(outcomes().into_iter().map(|outcome| {
            let name = format!("outcome-{}", outcome_name(&outcome));
            (name, again(&Event::Done(Ok(outcome))).unwrap())
        }));
        let failure = Failure::not_logged_in();
        let progress = Progress {
            phase: Phase::Downloading,
            done_bytes: 524_288,
            total_bytes: 600_000,
            peers: 2,
            stall: Some("nobody online has chunk 17".to_owned()),
        };
        let server = ServerHello {
            protocol: super::super::PROTOCOL,
            version: "0.1.0".to_owned(),
            transfers: 1,
            trackers: vec!["127.0.0.1:9000".to_owned()],
        };
        frames.push((
            "failure".to_owned(),
            again(&Event::Done(Err(failure))).unwrap(),
        ));
        frames.push((
            "progress".to_owned(),
            again(&Event::Progress(progress)).unwrap(),
        ));
        frames.push(("server-hello".to_owned(), again(&server).unwrap()));
        frames
    }

    #[test]
    fn golden_bytes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/control");
        let writing = std::env::var_os("P2PSHARE_GOLDEN").is_some_and(|value| value == "write");
        for (name, frames) in frames() {
            let path = folder.join(&name);
            if writing {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(path, frames).unwrap();
            } else {
                let golden = std::fs::read(&path);
                assert_eq!(
                    golden.ok(),
                    Some(frames),
                    "{name}: when it is meant to be so, raise PROTOCOL, and write it with P2PSHARE_GOLDEN=write"
                );
            }
        }
    }

    #[test]
    fn every_message_has_a_sample_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            frames().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), frames().len());
        assert_eq!(names.len(), requests().len() + outcomes().len() + 3);
    }

    #[test]
    fn every_cut_of_a_request_is_refused() {
        for request in requests() {
            let frame = again(&request).unwrap();
            for cut in 0..frame.len() {
                let mut from = &frame[..cut];
                assert!(at_once(read_frame::<Request>(&mut from)).is_err());
            }
        }
    }
}
