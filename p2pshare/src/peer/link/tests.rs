//! Sessions that are renewed and replaced, at a tracker that is made for the test.

#![allow(clippy::unwrap_used)]

mod failover;

use tokio::sync::mpsc;

use super::*;
use crate::{
    identity::{MemberId, PeerId, SessionId, UserName, key::SigningKey, token::TrackerCertificate},
    transport::{
        Alpn, Bodies, EndpointConfig, Profile, ServeLimits, memory::Network, serve,
        serve::Responder,
    },
    wire::tracker::{Change, Welcome},
};

fn key(of: u8) -> SigningKey {
    SigningKey::from_seed(&[of; 32])
}

fn ring() -> RingId {
    key(7).verifying_key().into()
}

fn credential(peer: PeerId, issued: Timestamp) -> Signed<Credential> {
    let credential = Credential::V1 {
        ring: ring(),
        user: UserName::new("u").unwrap(),
        peer,
        session: SessionId::from_bytes([1; 16]),
        generation: 1,
        issued,
        expires: issued.saturating_add(CREDENTIAL_RENEWAL * 30),
    };
    Signed::sign(&credential, &key(8))
}

fn endpoint(network: &Network, host: u8, profile: Profile, alpn: &[Alpn]) -> Endpoint {
    let config = EndpointConfig::listener(key(host), profile, alpn.to_vec());
    let addr: SocketAddr = ([10, 0, 0, host], 9000).into();
    Endpoint::bind_on(network.bind(addr).unwrap(), config).unwrap()
}

/// A tracker that answers logged-in peers so, a peer's link to it, and what the tracker is asked, in that order.
fn world(
    network: &Network,
    answer: impl Fn(&Request) -> Response + Clone + Send + 'static,
) -> (Endpoint, TrackerLink, mpsc::Receiver<Request>) {
    let tracker = endpoint(network, 1, Profile::Tracker, &[Alpn::Tracker]);
    let peer = endpoint(network, 2, Profile::Peer, &[]);
    let certificate = TrackerCertificate::V1 {
        ring: ring(),
        member: MemberId::from_bytes([1; 16]),
        peer: tracker.peer_id(),
        token_key: key(8).verifying_key(),
        issued: BEGAN,
    };
    let welcome = Welcome {
        certificate: Signed::sign(&certificate, &key(7)),
        time: Some(BEGAN),
        observed: peer.local_addr(),
    };
    let (heard, requests) = mpsc::channel(16);
    let addr = tracker.local_addr().to_string().parse().unwrap();
    tokio::spawn(async move {
        let connection = tracker.accept().await.unwrap();
        let answer = move |request: Request, responder: Responder| {
            let response = match &request {
                Request::Hello => Response::Welcome(welcome.clone()),
                request => answer(request),
            };
            let heard = heard.clone();
            async move {
                heard.send(request).await.unwrap();
                let _ = responder.answer(&response).await;
            }
        };
        let limits = ServeLimits {
            at_once: 1,
            request_bytes: || usize::MAX,
            bodies: Bodies::default(),
        };
        serve(&connection, limits, answer).await;
    });
    let link = TrackerLink::new(peer.clone(), vec![addr], Some(ring()), None);
    (peer, link, requests)
}

fn logged_in(credential: &Signed<Credential>) -> Response {
    Response::LoggedIn {
        user: UserName::new("u").unwrap(),
        credential: credential.clone(),
    }
}

const BEGAN: Timestamp = Timestamp::from_millis(1_700_000_000_000);

#[tokio::test(start_paused = true)]
async fn a_session_is_not_over_while_somebody_logs_in() {
    let network = Network::new(1);
    let peer = key(2).verifying_key().into();
    let (first, second) = (
        credential(peer, BEGAN),
        credential(peer, BEGAN.saturating_add(Duration::from_secs(1))),
    );
    // To the tracker, the login has ended the first session already.
    let honoured = second.clone();
    let (_peer, link, mut requests) = world(&network, move |request| match request {
        Request::Authenticate { credential } if *credential == honoured => logged_in(&honoured),
        Request::Authenticate { .. } => Response::Refused(Refusal::NotLoggedIn),
        _ => Response::Done,
    });
    link.set_credential(Some(first.clone()));
    let entering = link.enter();
    let ask = link.ask(Request::ListGroups { cursor: Vec::new() });
    let mut ask = std::pin::pin!(ask);
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut ask).await;
    assert!(waited.is_err(), "{waited:?}");
    assert!(matches!(requests.recv().await, Some(Request::Hello)));
    let shown = requests.recv().await.unwrap();
    assert_eq!(
        shown,
        Request::Authenticate {
            credential: first.clone()
        }
    );
    assert_eq!(*link.credential().borrow(), Some(first));
    link.set_credential(Some(second));
    drop(entering);
    let answer = ask.await;
    assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");

    // Where nobody logs in, a session that is refused is over.
    link.set_credential(Some(credential(
        peer,
        BEGAN.saturating_add(CREDENTIAL_RENEWAL / 2),
    )));
    let answer = link.ask(Request::ListGroups { cursor: Vec::new() }).await;
    assert!(matches!(answer, Err(SessionError::LoggedOut)), "{answer:?}");
    assert_eq!(*link.credential().borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn who_turns_a_retry_away_does_not_say_that_nothing_was_done() {
    let network = Network::new(1);
    let peer = key(2).verifying_key().into();
    let shown = credential(peer, BEGAN);
    let honoured = shown.clone();
    let (_peer, link, mut requests) = world(&network, move |request| match request {
        Request::Authenticate { .. } => logged_in(&honoured),
        Request::Logout { change } if !change.retry => Response::Refused(Refusal::OutcomeUnknown),
        Request::Logout { .. } => Response::Refused(Refusal::Busy),
        _ => Response::Done,
    });
    link.set_credential(Some(shown));
    let change = Change::new(crate::identity::RequestId::from_bytes([1; 16]));
    let answer = link.ask(Request::Logout { change }).await;
    assert!(
        matches!(answer, Err(SessionError::OutcomeUnknown)),
        "{answer:?}"
    );
    requests.close();
    let mut tries = 0;
    while let Some(request) = requests.recv().await {
        tries += usize::from(matches!(request, Request::Logout { .. }));
    }
    assert_eq!(tries, TRACKER_ATTEMPTS);
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_renewed_on_a_connection_that_lasts() {
    let network = Network::new(1);
    let began = BEGAN;
    let peer = key(2).verifying_key().into();
    // The tracker renews whatever is shown, as of two days later.
    let renewed = credential(peer, began.saturating_add(CREDENTIAL_RENEWAL * 2));
    let renews = renewed.clone();
    let (_peer, link, mut requests) = world(&network, move |request| match request {
        Request::Authenticate { .. } => logged_in(&renews),
        _ => Response::Done,
    });
    let first = credential(peer, began);
    link.set_credential(Some(first.clone()));
    let ask = || link.ask(Request::ListGroups { cursor: Vec::new() });

    ask().await.unwrap();
    assert!(matches!(requests.recv().await, Some(Request::Hello)));
    let shown = requests.recv().await.unwrap();
    assert_eq!(shown, Request::Authenticate { credential: first });
    assert!(matches!(
        requests.recv().await,
        Some(Request::ListGroups { .. })
    ));
    assert_eq!(*link.credential().borrow(), Some(renewed.clone()));
    // It is shown again a day after it was issued, and not a minute before, on the same connection.
    let old = began.saturating_add(CREDENTIAL_RENEWAL * 3);
    link.update_clock(Timestamp::from_millis(old.as_millis() - 60_000));
    ask().await.unwrap();
    assert!(matches!(
        requests.recv().await,
        Some(Request::ListGroups { .. })
    ));
    link.update_clock(old);
    ask().await.unwrap();
    let shown = requests.recv().await.unwrap();
    assert_eq!(
        shown,
        Request::Authenticate {
            credential: renewed
        }
    );
    assert!(matches!(
        requests.recv().await,
        Some(Request::ListGroups { .. })
    ));
}
