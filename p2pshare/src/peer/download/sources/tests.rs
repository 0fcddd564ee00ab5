//! Sources that break off, are busy, or have everybody wait, over the network in memory, where minutes pass in no time.

#![allow(clippy::unwrap_used)]

use tokio::time::interval;

use super::{
    super::{
        partial::Write,
        source::tests::{CHUNKS, Manner, download_of, serve},
    },
    *,
};
use crate::{
    limits::{SEED_WAIT_MAX, SOURCE_SILENCE_MAX, STALL_LOOK},
    transport::memory::Network,
};

/// What became of a download.
#[derive(Debug)]
enum Course {
    /// It has everything.
    Complete,
    GivenUp,
}

/// Goes on as a download does which is not to wait, until its end; and when that is.
async fn go_on(sources: &mut Sources, writes: &mut mpsc::Receiver<Write>) -> (Course, Duration) {
    let (start, shared) = (Instant::now(), sources.shared().clone());
    let mut ticks = interval(STALL_LOOK);
    loop {
        assert!(start.elapsed() < LONG_ENOUGH, "it neither ends nor goes on");
        tokio::select! {
            _ = ticks.tick() => {
                if sources.is_given_up() {
                    return (Course::GivenUp, start.elapsed());
                }
                sources.fill();
            }
            Some(ended) = sources.next_ended() => sources.ended(&ended),
            Some(write) = writes.recv() => {
                shared.unwritten.fetch_sub(1, Ordering::Relaxed);
                shared.pick(|picker, _| picker.have(write.chunk));
            }
        }
        if shared.pick(|picker, _| picker.is_complete()) {
            return (Course::Complete, start.elapsed());
        }
    }
}

/// How long none of these downloads takes.
const LONG_ENOUGH: Duration = Duration::from_secs(3600);

/// What becomes of a download of so many chunks that only one has.
async fn with_one(manner: Manner, chunks: u32) -> (Course, u64) {
    let network = Network::new(1);
    let (shared, mut writes) = download_of(&network, chunks).await;
    let mut sources = Sources::new(shared, mpsc::channel(SOURCES_MAX).0);
    sources.start(vec![serve(&network, 2, manner)]);
    let (course, took) = go_on(&mut sources, &mut writes).await;
    sources.end().await;
    (course, took.as_secs())
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_wait_is_not_alone() {
    // Longer than one goes on without any source, and as long as anybody has to wait.
    let seconds = SEED_WAIT_MAX.as_secs() - 1;
    assert!(seconds > NO_SOURCE_PATIENCE.as_secs());
    for manner in [Manner::TakesTurns(seconds), Manner::IsBusy(seconds)] {
        let (course, took) = with_one(manner, CHUNKS).await;
        assert!(matches!(course, Course::Complete), "{manner:?}: {took} s");
        assert!(took >= seconds, "{manner:?}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_off_again_and_again_and_gives_in_between_is_worth_asking() {
    let chunks = 12;
    let (course, took) = with_one(Manner::Breaks, chunks).await;
    assert!(matches!(course, Course::Complete), "{took} s");
    // It rests for a second each time.
    assert!(took <= 3 * u64::from(chunks), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_nothing_is_given_up_in_the_end() {
    let (course, took) = with_one(Manner::IsSilent, CHUNKS).await;
    assert!(matches!(course, Course::GivenUp), "{took} s");
    // It is asked six times, and rests longer each time.
    let asked = 6 * SOURCE_SILENCE_MAX.as_secs();
    assert!(took >= asked && took <= asked + 75, "{took} s");
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_of_them_than_it_is_said() {
    let network = Network::new(1);
    let (shared, _writes) = download_of(&network, CHUNKS).await;
    let mut sources = Sources::new(shared, mpsc::channel(SOURCES_MAX).0);
    let have_wait = |host| serve(&network, host, Manner::TakesTurns(1_000_000));
    let holders: Vec<Holder> = (2..42).map(have_wait).collect();
    for _ in 0..20 {
        sources.start(holders.clone());
        sources.fill();
        assert!(sources.active.len() <= SOURCES_HELD_MAX);
        tokio::time::sleep(HOLDERS_REFRESH).await;
    }
    // Others are waited for besides those that have it wait.
    assert_eq!(sources.count(Standing::Queued), SOURCES_HELD_MAX);
    let told = sources.look();
    let peers = SOURCES_HELD_MAX;
    assert_eq!(told, Some(Stall::Busy { peers }));
    sources.end().await;
}

#[tokio::test(start_paused = true)]
async fn those_who_have_just_begun_are_met_where_there_is_something_to_have() {
    let network = Network::new(1);
    let (shared, _writes) = download_of(&network, CHUNKS).await;
    let mut sources = Sources::new(shared, mpsc::channel(SOURCES_MAX).0);
    let mut beginner = serve(&network, 2, Manner::TakesTurns(1_000_000));
    beginner.holding = Holding::Partial(Bitfield::new(CHUNKS).to_bytes());
    sources.start(vec![beginner.clone()]);
    assert!(sources.is_empty());
    assert!(sources.is_hopeless(std::slice::from_ref(&beginner)));
    tokio::time::sleep(STALL_PATIENCE).await;
    assert_eq!(sources.look(), Some(Stall::Nobody));
    let holder = serve(&network, 3, Manner::TakesTurns(1_000_000));
    sources.start(vec![beginner.clone(), holder.clone()]);
    assert_eq!(sources.active.keys().collect::<Vec<_>>(), [&holder.peer]);
    sources.joined();
    sources.fill();
    assert!(sources.active.contains_key(&beginner.peer));
    sources.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_known_is_asked_again_when_no_tracker_answers() {
    let network = Network::new(1);
    let (shared, _writes) = download_of(&network, CHUNKS).await;
    let mut sources = Sources::new(shared, mpsc::channel(SOURCES_MAX).0);
    sources.not_answered();
    tokio::time::sleep(STALL_PATIENCE).await;
    assert_eq!(sources.look(), Some(Stall::NoTracker));
    sources.start(vec![serve(&network, 2, Manner::Breaks)]);
    let ended = sources.next_ended().await.unwrap();
    sources.ended(&ended);
    sources.not_answered();
    assert!(sources.is_empty(), "it rests");
    tokio::time::sleep(Duration::from_secs(1)).await;
    sources.not_answered();
    let ended = sources.next_ended().await.unwrap();
    assert!(ended.gave);
    sources.end().await;
}

#[test]
fn the_tracker_is_asked_less_often_as_time_goes_by() {
    let pause = |seconds| pause_between_looks(Duration::from_secs(seconds)).as_millis();
    let pauses = [0, 1, 2, 4, 8, 40, 80, 240, 100_000].map(pause);
    assert_eq!(
        pauses,
        [
            250, 1_000, 2_000, 4_000, 5_000, 5_000, 10_000, 30_000, 30_000
        ]
    );
}

#[test]
fn who_failed_rests_and_who_lied_is_not_asked_again() {
    let now = Instant::now();
    let lacking = SourceEnd::Lacking { index: 3 };
    let pause = |rest: &Rest| rest.until.map(|until| (until - now).as_secs());
    let mut rest = Rest::default();
    for expected in [1, 2, 4, 8, 16, 32, 32] {
        rest.begin(&SourceEnd::Unreachable, false, now);
        assert_eq!(pause(&rest), Some(expected));
    }
    // Who gave something in between has not failed again.
    rest.begin(&SourceEnd::Silent, true, now);
    assert_eq!(pause(&rest), Some(1));
    rest.begin(&SourceEnd::Silent, false, now);
    assert_eq!(pause(&rest), Some(2));
    // A file that changes may be a reason, once.
    rest.begin(&lacking, false, now);
    assert_eq!(pause(&rest), Some(4));
    rest.begin(&lacking, false, now);
    assert_eq!(pause(&rest), Some(BROKEN_WORDS_REST.as_secs()));
    rest.begin(&SourceEnd::Silent, false, now);
    assert_eq!(pause(&rest), Some(16));
    rest.begin(&SourceEnd::BadDigests, false, now);
    assert_eq!(pause(&rest), None);
}
