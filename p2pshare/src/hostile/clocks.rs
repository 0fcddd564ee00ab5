//! Clocks that are an hour off: of a tracker among three, either way. Nobody's credential or grant notices.

use std::net::UdpSocket;

use super::*;

/// How far the clock of one tracker is off.
const HOUR_MILLIS: i64 = 3_600_000;

/// An address with the port between trackers free above it.
fn free_place() -> TrackerAddr {
    loop {
        let lower = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
        let upper = lower.port().checked_add(1000);
        if let Some(upper) = upper
            && UdpSocket::bind((lower.ip(), upper)).is_ok()
        {
            return lower.to_string().parse().unwrap();
        }
    }
}

async fn ring_with_one_clock_off(dir: &TempDir, off: i64) -> (Vec<Tracker>, Vec<TrackerAddr>) {
    let places: Vec<TrackerAddr> = (0..3).map(|_| free_place()).collect();
    let mut trackers = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let mut builder = Tracker::builder(dir.path().join(number.to_string()))
            .ring_key(dir.path().join("ring.key"))
            .listen(place.socket_addr().unwrap())
            .address(place.clone())
            .founders(places.clone());
        if number == 2 {
            builder = builder.clock_off_by(off);
        }
        trackers.push(builder.bind().await.unwrap());
    }
    for tracker in &trackers {
        loop {
            let changed = tracker.status_changed();
            if tracker.status().reachable == 3 && tracker.status().founded {
                break;
            }
            changed.await;
        }
    }
    (trackers, places)
}

#[tokio::test]
async fn a_tracker_whose_clock_is_an_hour_off_gives_and_takes_what_the_others_do() {
    for off in [HOUR_MILLIS, -HOUR_MILLIS] {
        let dir = tempfile::tempdir().unwrap();
        let (trackers, places) = ring_with_one_clock_off(&dir, off).await;
        let ring = trackers[0].ring_id();
        let group = GroupName::new("photos").unwrap();
        let file = TestFile::new("a.bin", 700_000);
        // One logs in at the tracker whose clock is off, the other at one whose clock is right.
        let peer = async |name: &str, at: &TrackerAddr| {
            let client = TrackerClient::connect(std::slice::from_ref(at), Some(ring)).await;
            let created = client.unwrap().create_user(&user(name), &password()).await;
            created.unwrap();
            let peer = Peer::builder(dir.path().join(name), ring).trackers([at.clone()]);
            let peer = peer.listen(loopback()).bind().await.unwrap();
            let session = peer.login(&user(name), &password()).await.unwrap();
            (peer, session)
        };
        let (_one, alice) = peer("alice", &places[2]).await;
        let (_other, bob) = peer("bob", &places[0]).await;
        alice.create_group(&group, Access::Open).await.unwrap();
        let path = dir.path().join(file.name.as_str());
        std::fs::write(&path, &file.content).unwrap();
        alice.share(path, &group, None).await.unwrap();
        bob.join(&group).await.unwrap();
        let to = dir.path().join("copy");
        let options = DownloadOptions::default();
        let download = bob.download(&group, &file.name, &to, options).await;
        download.unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), file.content, "{off} ms");
        for tracker in trackers {
            tracker.shutdown().await.unwrap();
        }
    }
}
