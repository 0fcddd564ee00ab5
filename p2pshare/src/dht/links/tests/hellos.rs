//! What a connection is worth before its hello, and what a hello has to prove.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hello_that_proves_nothing_ends_the_connection_and_says_why() {
    let world = World::new();
    let mut one = world.member(1);
    let rogue = Rogue(world.endpoint(9));
    let peer = tls_key(9).verifying_key().into();
    let other_ring = World::new();
    let forged = {
        // Names this ring, signed by another.
        let certificate = TrackerCertificate::V1 {
            ring: world.key.ring_id(),
            member: id(9),
            peer,
            token_key: world.key.token_key().verifying_key(),
            issued: Timestamp::from_millis(1),
        };
        let certificate = Signed::sign(&certificate, &other_ring.key.authority());
        Hello {
            certificate,
            ..world.hello(9, 1)
        }
    };
    let stolen = world.hello(2, 1);
    let other_member = Hello {
        life: Life {
            member: id(2),
            incarnation: 1,
        },
        ..world.hello(9, 1)
    };
    use CloseCode::{Unauthenticated, WrongRing};
    for (hello, code, why) in [
        (other_ring.hello(9, 1), WrongRing, "of another ring"),
        (forged, Unauthenticated, "did not sign"),
        (stolen, Unauthenticated, "of another key"),
        (other_member, Unauthenticated, "of another member"),
    ] {
        let lost = rogue.greet(&hello).await.unwrap_err();
        let (found, said) = closed_with(&lost);
        assert_eq!(found, code, "{said}");
        assert!(said.contains(why), "{said}");
    }
    // Nobody was told of any of them.
    assert!(one.events.try_recv().is_err());
    assert!(rogue.greet(&world.hello(9, 1)).await.is_ok());
    let life = world.hello(9, 1).life;
    assert_eq!(one.next().await, Event::Hello(life));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_before_the_hello() {
    let world = World::new();
    let mut one = world.member(1);
    let rogue = Rogue(world.endpoint(9));
    let batch = ReplicaBatch::new(vec![read()]).unwrap();
    let connection = rogue.dial(1).await;
    let answers = connection.request::<_, ReplicaAnswers>(&batch, RING_HELLO_TIMEOUT);
    assert!(answers.await.is_err());
    let (code, _) = closed_with(&connection.closed().await);
    assert_eq!(code, CloseCode::ProtocolError);
    // Garbage, a hello that is cut off, and one that would be too long.
    let frame = crate::wire::frame::encode(&world.hello(9, 1)).unwrap();
    let too_long = [&frame[..2], &[0xff; 4][..]].concat();
    for (bytes, code) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), CloseCode::ProtocolError),
        (frame[..40].to_vec(), CloseCode::ProtocolError),
        (too_long, CloseCode::FrameTooLong),
    ] {
        let connection = rogue.dial(1).await;
        let (mut send, _receive) = connection.open().await.unwrap();
        send.send_bytes(bytes.into()).await.unwrap();
        send.finish();
        let (found, said) = closed_with(&connection.closed().await);
        assert_eq!(found, code, "{said}");
    }
    // Datagrams, and silence.
    let connection = rogue.dial(1).await;
    let news = one.links.news();
    connection
        .send_datagram(Bytes::from_static(b"\x01x"))
        .unwrap();
    let began = Instant::now();
    let (code, _) = closed_with(&connection.closed().await);
    assert_eq!(code, CloseCode::TooSlow);
    assert!(began.elapsed() < 2 * RING_HELLO_TIMEOUT);
    assert!(news.is_empty() && one.events.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_is_no_member_is_told_who_is_and_nothing_else() {
    let world = World::new();
    let mut one = world.member(1);
    let mut news = one.links.news();
    let rogue = Rogue(world.endpoint(9));
    let (connection, welcome) = rogue.greet(&world.hello(9, 1)).await.unwrap();
    assert_eq!(welcome.hello.life.member, id(1));
    let batch = ReplicaBatch::new(vec![read()]).unwrap();
    let ask = async |connection: &Connection| {
        let answers = connection.request::<_, ReplicaAnswers>(&batch, RING_HELLO_TIMEOUT);
        answers.await.map(|answers| answers.answers)
    };
    // Before there is a list, whoever holds the ring's key is answered.
    assert_eq!(
        ask(&connection).await.unwrap(),
        [ReplicaAnswer::Unavailable]
    );
    one.links.set_members(&list(2));
    assert!(ask(&connection).await.is_err());
    let (code, said) = closed_with(&connection.closed().await);
    assert_eq!(code, CloseCode::NotAMember, "{said}");

    let (connection, _) = rogue.greet(&world.hello(9, 1)).await.unwrap();
    connection.send_datagram(Bytes::from_static(b"x")).unwrap();
    let (code, _) = closed_with(&connection.closed().await);
    assert_eq!(code, CloseCode::NotAMember);
    let met = News::Met(world.hello(9, 1).life);
    assert_eq!(news.try_recv().unwrap(), met);
    assert_eq!(news.try_recv().unwrap(), met);
    assert!(news.try_recv().is_err());
    let batches = std::iter::from_fn(|| one.events.try_recv().ok())
        .filter(|event| matches!(event, Event::Batch(..)))
        .count();
    assert_eq!(batches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_members_garbage_ends_its_connection_and_its_datagrams_are_passed_on() {
    let world = World::new();
    let mut one = world.member(1);
    let mut news = one.links.news();
    one.links.set_members(&[ring_member(1), ring_member(9)]);
    let rogue = Rogue(world.endpoint(9));
    let (connection, _) = rogue.greet(&world.hello(9, 1)).await.unwrap();
    for bytes in [b"".as_slice(), b"\x01garbage", &[7; 1100]] {
        connection
            .send_datagram(Bytes::copy_from_slice(bytes))
            .unwrap();
    }
    assert_eq!(news.recv().await, Some(News::Met(world.hello(9, 1).life)));
    for length in [0, 8, 1100] {
        match news.recv().await {
            Some(News::Datagram { from, bytes }) => {
                assert_eq!((from, bytes.len()), (id(9), length))
            }
            other => panic!("{other:?}"),
        }
    }
    let (mut send, _receive) = connection.open().await.unwrap();
    send.send_bytes(Bytes::from_static(b"\x01\x03\x05\0\0\0abcde"))
        .await
        .unwrap();
    send.finish();
    let (code, _) = closed_with(&connection.closed().await);
    assert_eq!(code, CloseCode::ProtocolError);
    // An earlier life does not take the place of a later one, but the other way round.
    let (later, _) = rogue.greet(&world.hello(9, 3)).await.unwrap();
    let lost = rogue.greet(&world.hello(9, 2)).await.unwrap_err();
    assert_eq!(closed_with(&lost).0, CloseCode::Outlived);
    assert_eq!(later.close_reason(), None);
    let (_latest, _) = rogue.greet(&world.hello(9, 4)).await.unwrap();
    assert_eq!(closed_with(&later.closed().await).0, CloseCode::Superseded);
    assert!(!one.links.is_up(id(9)));
    while one.events.try_recv().is_ok() {}
}
