//! Somebody who answers where a tracker should: he is told nothing but hello.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    SessionError,
    identity::token::TrackerCertificate,
    transport::{Bodies, CloseCode, Responder, ServeLimits, serve},
    wire::tracker::Welcome,
};

/// An endpoint that answers every hello with one response, and remembers whatever else it is told.
struct Impostor {
    stranger: Stranger,
    told: Arc<Mutex<Vec<Request>>>,
    /// With what the connections that it got were closed.
    closed: Arc<Mutex<Vec<Option<CloseCode>>>>,
}

impl Impostor {
    fn new() -> Self {
        Self {
            stranger: Stranger::new(loopback()),
            told: Arc::default(),
            closed: Arc::default(),
        }
    }

    fn answer_with(&self, response: Response) {
        let endpoint = self.stranger.endpoint.clone();
        let (told, closed) = (self.told.clone(), self.closed.clone());
        tokio::spawn(async move {
            while let Some(connection) = endpoint.accept().await {
                let (response, told) = (response.clone(), told.clone());
                let limits = ServeLimits {
                    at_once: 8,
                    request_bytes: || usize::MAX,
                    bodies: Bodies::default(),
                };
                let lost = serve(
                    &connection,
                    limits,
                    move |request: Request, to: Responder| {
                        told.lock().unwrap().push(request);
                        let response = response.clone();
                        async move { to.answer(&response).await.unwrap() }
                    },
                )
                .await;
                closed.lock().unwrap().push(lost.code());
            }
        });
    }

    fn certificate(&self, ring: RingId) -> TrackerCertificate {
        TrackerCertificate::V1 {
            ring,
            member: crate::MemberId::from_bytes([1; 16]),
            peer: self.stranger.endpoint.peer_id(),
            token_key: SigningKey::from_seed(&[7; 32]).verifying_key(),
            issued: now(),
        }
    }

    fn addr(&self) -> [TrackerAddr; 1] {
        let addr = self.stranger.endpoint.local_addr();
        [addr.to_string().parse().unwrap()]
    }
}

fn welcome(certificate: Signed<TrackerCertificate>) -> Response {
    Response::Welcome(Welcome {
        certificate,
        time: Some(now()),
        observed: loopback(),
    })
}

#[tokio::test]
async fn who_is_no_tracker_of_the_ring_is_told_no_secret() {
    let world = World::new().await;
    let stranger = world.stranger();
    let connection = stranger.dial_tracker().await;
    let real = ask(&connection, Request::Hello).await;
    let key = SigningKey::from_seed(&[7; 32]);
    let own_ring = RingId::from(key.verifying_key());
    type Answer = fn(&Impostor, RingId, RingId, &SigningKey) -> Response;
    let answers: [(&str, Answer, CloseCode); 3] = [
        (
            "of the right ring, signed by himself",
            |impostor, ring, _, key| welcome(signed(&impostor.certificate(ring), key)),
            CloseCode::ProtocolError,
        ),
        (
            "of a ring of his own",
            |impostor, _, own, key| welcome(signed(&impostor.certificate(own), key)),
            CloseCode::WrongRing,
        ),
        (
            "something else than a welcome",
            |_, _, _, _| Response::Done,
            CloseCode::ProtocolError,
        ),
    ];
    let mut impostors = vec![("a tracker's certificate", real, CloseCode::ProtocolError)];
    let mut all = Vec::new();
    for (what, answer, code) in answers {
        let impostor = Impostor::new();
        let response = answer(&impostor, world.ring(), own_ring, &key);
        all.push((impostor, what, response, code));
    }
    let (what, response, code) = impostors.remove(0);
    all.push((Impostor::new(), what, response, code));

    for (index, (impostor, what, response, code)) in all.into_iter().enumerate() {
        impostor.answer_with(response);
        let client = TrackerClient::connect(&impostor.addr(), Some(world.ring())).await;
        let peer = Peer::builder(world.path(&format!("peer{index}")), world.ring())
            .trackers(impostor.addr())
            .listen(loopback())
            .bind()
            .await
            .unwrap();
        let login = peer.login(&user("alice"), &password()).await;
        for error in [client.err().unwrap(), login.err().unwrap()] {
            match code {
                CloseCode::WrongRing => {
                    assert!(matches!(error, SessionError::WrongRing { .. }), "{what}");
                }
                _ => assert!(matches!(error, SessionError::NotATracker { .. }), "{what}"),
            }
        }
        peer.shutdown().await.unwrap();
        let told = impostor.told.lock().unwrap().clone();
        assert!(told.len() >= 2, "{what}");
        assert!(told.iter().all(|told| *told == Request::Hello), "{what}");
        let closed = impostor.closed.lock().unwrap().clone();
        assert!(closed.contains(&Some(code)), "{what}: {closed:?}");
    }
}
