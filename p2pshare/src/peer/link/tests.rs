//! A connection that lasts for days, to a tracker that is made for the test.

#![allow(clippy::unwrap_used)]

use tokio::sync::mpsc;

use super::*;
use crate::{
    identity::{MemberId, SessionId, UserName, key::SigningKey, token::TrackerCertificate},
    transport::{EndpointConfig, Profile, ServeLimits, memory::Network, serve, serve::Responder},
    wire::tracker::Welcome,
};

fn key(of: u8) -> SigningKey {
    SigningKey::from_seed(&[of; 32])
}

fn ring() -> RingId {
    key(7).verifying_key().into()
}

fn credential(peer: &Endpoint, issued: Timestamp) -> Signed<Credential> {
    let credential = Credential::V1 {
        ring: ring(),
        user: UserName::new("u").unwrap(),
        peer: peer.peer_id(),
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

#[tokio::test(start_paused = true)]
async fn a_credential_is_renewed_on_a_connection_that_lasts() {
    let network = Network::new(1);
    let tracker = endpoint(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    let peer = endpoint(&network, 2, Profile::Peer, &[]);
    let began = Timestamp::from_millis(1_700_000_000_000);
    let certificate = TrackerCertificate::V1 {
        ring: ring(),
        member: MemberId::from_bytes([1; 16]),
        peer: tracker.peer_id(),
        token_key: key(8).verifying_key(),
        issued: began,
    };
    let welcome = Welcome {
        certificate: Signed::sign(&certificate, &key(7)),
        time: began,
        observed: peer.local_addr(),
    };
    // The tracker renews whatever is shown, as of two days later, and says what it was asked.
    let renewed = credential(&peer, began.saturating_add(CREDENTIAL_RENEWAL * 2));
    let (heard, mut requests) = mpsc::channel(16);
    let (answers, renews) = (tracker.clone(), renewed.clone());
    tokio::spawn(async move {
        let connection = answers.accept().await.unwrap();
        let answer = move |request: Request, responder: Responder| {
            let response = match &request {
                Request::Hello => Response::Welcome(welcome.clone()),
                Request::Authenticate { .. } => Response::LoggedIn {
                    user: UserName::new("u").unwrap(),
                    credential: renews.clone(),
                },
                _ => Response::Done,
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
        };
        serve(&connection, limits, answer).await;
    });
    let addr = tracker.local_addr().to_string().parse().unwrap();
    let link = TrackerLink::new(peer.clone(), vec![addr], Some(ring()), None);
    let first = credential(&peer, began);
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
