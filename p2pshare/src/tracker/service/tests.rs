//! Those who connect and do not log in, over the network in memory.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::{
    limits::TRACKER_ANSWER_TIMEOUT,
    transport::{Alpn, Crowd, Endpoint, EndpointConfig, Expect, Profile, memory::Network},
    wire::tracker::Password,
};

fn key(of: u8) -> SigningKey {
    SigningKey::from_seed(&[of; 32])
}

fn endpoint(network: &Network, host: u8, profile: Profile, alpn: &[Alpn]) -> Endpoint {
    let config = EndpointConfig::listener(key(host), profile, alpn.to_vec());
    let addr: SocketAddr = ([10, 0, 0, host], 9000).into();
    Endpoint::bind_on(network.bind(addr).unwrap(), config).unwrap()
}

async fn ask(connection: &Connection, request: Request) -> Response {
    let answer = connection.request(&request, TRACKER_ANSWER_TIMEOUT).await;
    answer.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_login_ends_after_a_minute() {
    let (network, folder) = (Network::new(1), tempfile::tempdir().unwrap());
    let ring = RingId::from_bytes([1; 32]);
    let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
    let tracker = endpoint(&network, 1, Profile::Tracker, &[Alpn::Tracker]);
    let authority = Authority {
        ring: key(7),
        tokens: key(8).verifying_key(),
        peer: tracker.peer_id(),
    };
    let service = Arc::new(Service::new(dht.clone(), authority, key(8)).unwrap());
    let (serving, crowd) = (tracker.clone(), Crowd::new(2, 2));
    tokio::spawn(async move {
        while let Some(connection) = serving.accept().await {
            let place = crowd.admit(&connection).unwrap();
            tokio::spawn(service.clone().serve(connection, place));
        }
    });
    let (one, two) = (
        endpoint(&network, 2, Profile::Peer, &[]),
        endpoint(&network, 3, Profile::Peer, &[]),
    );
    let dial = |from: Endpoint| {
        let to = tracker.local_addr();
        async move { from.connect(to, Alpn::Tracker, Expect::Any).await.unwrap() }
    };
    let user = UserName::new("u").unwrap();
    let password = Password::new("pass123");
    let member = dial(one.clone()).await;
    let change = Change::new(crate::identity::RequestId::from_bytes([1; 16]));
    let create = Request::CreateUser {
        change,
        user: user.clone(),
        password: password.clone(),
    };
    let created = ask(&member, create).await;
    assert!(
        matches!(created, Response::UserCreated { .. }),
        "{created:?}"
    );
    let logged_in = ask(&member, Request::Login { user, password }).await;
    assert!(
        matches!(logged_in, Response::LoggedIn { .. }),
        "{logged_in:?}"
    );

    let stranger = dial(two.clone()).await;
    let start = Instant::now();
    // To be answered is not to be known.
    let half = STRANGER_LIFE / 2;
    let early = tokio::time::timeout(half, stranger.closed()).await;
    assert!(early.is_err());
    assert!(matches!(
        ask(&stranger, Request::Hello).await,
        Response::Welcome(_)
    ));
    let lost = stranger.closed().await;
    assert_eq!(lost.code(), Some(CloseCode::Unauthenticated));
    let took = start.elapsed();
    assert!(took >= STRANGER_LIFE - Duration::from_secs(1), "{took:?}");
    assert!(took < STRANGER_LIFE + Duration::from_secs(1), "{took:?}");
    // Whoever logged in stays.
    assert!(
        tokio::time::timeout(STRANGER_LIFE, member.closed())
            .await
            .is_err()
    );
    // And is a stranger after logging out.
    let change = Change::new(crate::identity::RequestId::from_bytes([2; 16]));
    let logged_out = ask(&member, Request::Logout { change }).await;
    assert!(matches!(logged_out, Response::Done), "{logged_out:?}");
    let ended = tokio::time::timeout(2 * STRANGER_LIFE, member.closed()).await;
    assert_eq!(ended.unwrap().code(), Some(CloseCode::Unauthenticated));
    dht.shutdown().await.unwrap();
}
