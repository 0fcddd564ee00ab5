//! Every bound of the system in one place, with the relations between them asserted at compile time.
//! Nothing that somebody else can make grow (a name, a frame, a queue, a table, a wait) is without one.

use std::time::Duration;

/// Bytes in the name of a user or a group.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Bytes in the name of a file: what the common file systems take.
pub(crate) const FILE_NAME_BYTES_MAX: usize = 255;
/// Bytes in a signed token's claims.
pub(crate) const TOKEN_BYTES_MAX: usize = 512;
/// How far two parties' ideas of the ring's time may differ before a token counts as expired.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Bytes in a password; the fewest that an account takes.
pub(crate) const PASSWORD_BYTES_MIN: usize = 4;
/// Bytes in a password; more would only be work for whoever hashes it.
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;

/// Bytes in the body of a request to a tracker: an announcement is the longest.
pub(crate) const TRACKER_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes in the body of a tracker's answer: a page of files or of holders is the longest.
pub(crate) const TRACKER_RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes in the body of a peer's request to a peer.
pub(crate) const PEER_REQUEST_BYTES_MAX: usize = 1024;
/// Bytes in the answer that opens a swarm: the bitfield of a file of 4 TiB, and what frames it.
pub(crate) const SWARM_ANSWER_BYTES_MAX: usize = 1024 * 1024 + 16;
/// Chunk requests of one swarm stream that are not answered yet.
pub(crate) const CHUNK_REQUESTS_MAX: usize = 256;

/// Addresses that one peer announces.
pub(crate) const ANNOUNCED_ADDRS_MAX: usize = 8;
/// Files in one announcement.
pub(crate) const ANNOUNCED_SWARMS_MAX: usize = 256;
/// Bytes in the bitfield of one announced file: enough for 64 GiB.
pub(crate) const ANNOUNCED_BITFIELD_BYTES_MAX: usize = 16 * 1024;
/// Bytes in the bitfields of all files that one peer announces; what is beyond is not kept.
pub(crate) const ANNOUNCED_BYTES_PER_PEER_MAX: usize = 8 * 1024 * 1024;
/// What one announced file takes beside its bitfield, roughly, at its tracker and at each replica of its lease.
pub(crate) const ANNOUNCED_ENTRY_BYTES: usize = 512;
/// Bytes of all that is announced at one tracker, so that the tables of the replicas have room for what all trackers
/// say. Beyond that whoever announces most makes room for who announces less.
pub(crate) const ANNOUNCED_BYTES_MAX: usize = LEASE_TABLE_BYTES_MAX / REPLICAS_MAX;
/// Bits of a lease's number below that of the announcement: what a tracker itself does about a peer's leases
/// between two announcements is counted there.
pub(crate) const ANNOUNCEMENT_STEP_BITS: u32 = 16;
/// The highest number of an announcement: milliseconds since 1970 for four thousand years.
pub(crate) const ANNOUNCEMENT_NUMBER_MAX: u64 = u64::MAX >> (ANNOUNCEMENT_STEP_BITS + 1);
/// Peers whose announcements one tracker keeps.
pub(crate) const ANNOUNCING_PEERS_MAX: usize = 16 * 1024;
/// Holders in one answer: a random sample of them when there are more.
pub(crate) const HOLDERS_SAMPLE_MAX: usize = 50;
/// Of that many in such a sample, one has the whole; the others have parts, if there are as many of them.
pub(crate) const HOLDERS_WHOLE_SHARE: usize = 4;
/// For how long a tracker goes on with what it found when it was asked for a swarm that is larger than a sample, or
/// that says more than [`CROWD_LIGHT_BYTES_MAX`].
pub(crate) const CROWD_KEPT: Duration = Duration::from_secs(2);
/// Bytes in the leases of a swarm that is counted at once, in less than a millisecond.
pub(crate) const CROWD_LIGHT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of such swarms, of all together.
pub(crate) const CROWDS_KEPT_BYTES_MAX: usize = 64 << 20;
/// How long a lease counts after it was announced.
pub(crate) const LEASE_LIFE: Duration = Duration::from_secs(60);
/// How often a peer renews its leases.
pub(crate) const LEASE_RENEWAL: Duration = Duration::from_secs(20);

/// Durable sharers in the row of a file.
pub(crate) const SHARERS_MAX: usize = 32;

/// Passwords hashed at once: each takes 19 MiB and one core.
pub(crate) const HASHERS: usize = 2;
/// Passwords that wait to be hashed, of known peers, and as many of others.
pub(crate) const HASHERS_WAITING_MAX: usize = 64;
/// Failed logins at one account, from strangers, before the next one waits.
pub(crate) const LOGIN_FAILURES_FREE_ACCOUNT: u32 = 20;
/// Failed logins from one address prefix, or from a known peer, before the next one waits.
pub(crate) const LOGIN_FAILURES_FREE_PREFIX: u32 = 5;
/// Accounts made from one address prefix before the next one waits.
pub(crate) const ACCOUNTS_FREE_PREFIX: u32 = 100;
/// The longest that one attempt to log in waits for the next.
pub(crate) const LOGIN_WAIT_MAX: Duration = Duration::from_secs(300);
/// How long after the last failure all of a lane are forgotten.
pub(crate) const LOGIN_FAILURES_FORGOTTEN: Duration = Duration::from_secs(900);
/// How far apart strangers try at one account, at most, when they have to wait for each other.
pub(crate) const LOGIN_TURNS_APART_MAX: Duration = Duration::from_secs(15);
/// Lanes of failures that a tracker remembers, of each kind.
pub(crate) const LOGIN_LANES_MAX: usize = 16 * 1024;

/// How often a change that lost a race for its row is tried again.
pub(crate) const CHANGE_RACES_MAX: usize = 32;
/// Rows that a tracker cut off from the ring looks at a time when it looks for one that it knows.
pub(crate) const KNOWN_PAGE_ROWS: usize = 16;
/// Rows in one page of a scan or listing.
pub(crate) const SCAN_PAGE_ROWS: usize = 1024;
/// Groups in one answer; the members of each are counted for it.
pub(crate) const GROUPS_PAGE_MAX: usize = 100;
/// Files in one answer.
pub(crate) const FILES_PAGE_MAX: usize = 500;
/// How long a credential counts after it was given or renewed.
pub(crate) const CREDENTIAL_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How old a credential is when it is renewed on a connection that lasts.
pub(crate) const CREDENTIAL_RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// How long a grant counts.
pub(crate) const GRANT_LIFE: Duration = Duration::from_secs(600);
/// Files that one peer announces.
pub(crate) const SWARMS_PER_PEER_MAX: usize = 100_000;
/// Old announcements that a tracker looks up again at each renewal of a peer's leases.
pub(crate) const SWARMS_CHECKED_PER_RENEWAL: usize = 16;
/// Swarms of which a tracker remembers when they last had a holder.
pub(crate) const SWARMS_SEEN_MAX: usize = 100_000;
/// Requests of one connection that a tracker works on at once.
pub(crate) const REQUESTS_AT_ONCE: usize = 16;
/// Of these, those that list, or announce.
pub(crate) const LONG_REQUESTS_AT_ONCE: usize = 2;
/// Bytes in the body of a request on a connection on which nobody is logged in.
pub(crate) const STRANGER_REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Bytes of longer requests, over all connections, that have arrived at a tracker and are not done with.
pub(crate) const REQUEST_BODIES_BYTES_MAX: usize = 64 << 20;
/// Bytes of answers, over all connections, that are not on their way yet because those who asked do not read.
pub(crate) const UNDELIVERED_BYTES_MAX: usize = 64 << 20;
/// How long who asked may take to read the answer.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Files of one announcement that a tracker looks up at once: each is a read of a majority.
pub(crate) const LOOKUPS_AT_ONCE: usize = 32;
/// How long a peer waits for a tracker's answer before it asks again.
pub(crate) const TRACKER_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a peer sends one request, for each tracker that it knows.
pub(crate) const TRACKER_ATTEMPTS: usize = 4;
/// How long a tracker that was spoken to may give no sign of life before the next one is dialed.
pub(crate) const TRACKER_SILENCE: Duration = Duration::from_millis(400);
/// How long a peer looks for another tracker when one answers that it cannot do what it was asked.
pub(crate) const SECOND_OPINION_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes in one page of a scan or listing.
pub(crate) const SCAN_PAGE_BYTES: usize = 1024 * 1024;
/// Chunk buffers that a peer keeps for the next read.
pub(crate) const BUFFERS_KEPT: usize = 32;
/// Chunks read ahead of what is being hashed, while a file is taken in.
pub(crate) const SHARE_READ_AHEAD: usize = 8;
/// Pages of digests written to disk at once.
pub(crate) const PAGES_PER_WRITE: usize = 32;
/// How long a peer waits for a request on a stream that was opened.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Swarm streams that a peer serves at once; each may hold a stream's window and the chunks read ahead.
pub(crate) const SEED_STREAMS_MAX: usize = 64;
/// Swarm streams that one other peer may have of these.
pub(crate) const SEED_STREAMS_PER_PEER_MAX: usize = 8;
/// Swarm streams that wait for one of these places.
pub(crate) const SEED_WAITING_MAX: usize = 64;
/// Swarm streams of one other peer that wait.
pub(crate) const SEED_WAITING_PER_PEER_MAX: usize = 2;
/// How long a swarm stream waits for a place before it is told that there is none.
pub(crate) const SEED_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long a swarm stream has its place for itself when others wait for it.
pub(crate) const SEED_TURN: Duration = Duration::from_secs(30);
/// At a limit, in what time it is everybody's turn to be sent something, if turns can be so short.
pub(crate) const SEED_ROUND_MAX: Duration = Duration::from_secs(2);
/// Bytes of chunks, of all streams, that were read and have not all arrived; one peer may have half of it, and each
/// one chunk beyond it.
pub(crate) const SEED_UNDER_WAY_BYTES_MAX: u64 = 64 << 20;
/// The lowest limit of what is sent or fetched, in bytes a second, and the least that each stream gets of one: a
/// chunk takes 66 s of the [`CHUNK_DEADLINE`].
pub(crate) const RATE_MIN: u64 = 8_000;
/// The fewest bytes that are sent at once under a limit: at the lowest one they take 2 s.
pub(crate) const PACED_PIECE_BYTES: u64 = 16 * 1024;
/// How much of what a limit allows may be made up for after a pause: timers are late.
pub(crate) const PACE_SLACK: Duration = Duration::from_millis(50);
/// How long a turn has to last for the next one to be waited for at once.
pub(crate) const TURN_WORTH: Duration = Duration::from_secs(1);
/// How long the one who asked may take no byte of a chunk before a peer gives his place away.
pub(crate) const SEED_STALL_MAX: Duration = Duration::from_secs(60);
/// How long a connection may last on which nobody showed any right: no login at a tracker, no grant at a peer.
pub(crate) const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// Chunks that are read from disk ahead of what is being sent, on one swarm stream.
pub(crate) const SEED_READ_AHEAD: usize = 4;
/// Chunks that were read and then cancelled, by which these may be more on one swarm stream than those that were
/// given: what is cancelled beyond that is sent.
pub(crate) const CANCELLED_READS_MAX: u32 = 8;
/// How often it is looked whether who is served still has the right to be.
pub(crate) const RIGHT_LOOK: Duration = Duration::from_secs(1);
/// Bytes of the bitfield of a part that count under a limit: at the lowest they take 4 s, and whoever opens a stream
/// has to hear of it within [`PEER_ANSWER_TIMEOUT`].
pub(crate) const OPENED_BYTES_PACED_MAX: usize = 32 * 1024;
/// How long a swarm stream may be silent before the one who serves it gives its place away.
pub(crate) const STREAM_IDLE_MAX: Duration = Duration::from_secs(120);
/// How long beyond its end a grant counts on a stream opened before, for a peer that reaches no tracker.
pub(crate) const GRANT_GRACE_CUT_OFF: Duration = Duration::from_secs(6 * 3600);
/// How long a peer waits for another's answer to anything but a chunk.
pub(crate) const PEER_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one chunk may take from a source, while others wait for it: below 4.4 kB/s a source is of no use.
pub(crate) const CHUNK_DEADLINE: Duration = Duration::from_secs(120);
/// How long no byte may come from a source that was asked for chunks.
pub(crate) const SOURCE_SILENCE_MAX: Duration = Duration::from_secs(15);
/// By how many the chunks that a source said it has, and then lacks, may be more than those that it gives. One whose
/// file has just changed, or whose grant ended, lacks all that it is asked for at that moment.
pub(crate) const BROKEN_WORDS_MAX: u32 = 8;
/// How long one that did so again is not asked any more.
pub(crate) const BROKEN_WORDS_REST: Duration = Duration::from_secs(600);
/// How far, in chunks for each of its sources, a download in the order of the file may be from that order where others
/// fetch the same: 16 MiB.
pub(crate) const IN_ORDER_NEAR: u32 = 32;
/// Chunks asked of one source at once: 16 MiB, a stream's window, which a path of 100 ms fills at 1.3 Gbit/s.
pub(crate) const CHUNK_WINDOW: usize = 32;
/// Chunks asked at once of a source that has given none yet: few, as those who begin together with one seeder ask for them
/// before they know of each other.
pub(crate) const CHUNK_WINDOW_FIRST: usize = 2;
/// For how long, beside two round trips, a source has to do with what is asked of it at once: what a busy
/// machine takes to come to ask for more.
pub(crate) const CHUNK_WINDOW_SLACK: Duration = Duration::from_millis(16);
/// How much longer the last chunk of a slow source may take before a faster one, which has nothing else to do,
/// is asked for it as well.
pub(crate) const SLOW_SOURCE_PATIENCE: Duration = Duration::from_secs(2);
/// The same at the end, where it would mean more bytes twice than [`DUPLICATE_BYTES_SHARE_MAX`]; before it, in the order
/// of the file, it is [`SOURCE_SILENCE_MAX`], but for the first chunk.
pub(crate) const STUCK_SOURCE_PATIENCE: Duration = Duration::from_secs(5);
/// Of how many bytes of a file one may be asked for twice to be sooner at the end, or with what is waited for.
pub(crate) const DUPLICATE_BYTES_SHARE_MAX: u64 = 128;
/// How long a source may go on with a chunk that another has given meanwhile.
pub(crate) const OUTRUN_PATIENCE: Duration = Duration::from_secs(1);
/// How often a source that has nothing to do looks whether another has become slow.
pub(crate) const IDLE_SOURCE_LOOK: Duration = Duration::from_millis(250);
/// How long a source that is itself downloading may have nothing that is missing before its place is given away.
pub(crate) const SOURCE_IDLE_MAX: Duration = Duration::from_secs(20);
/// How often a holder tells on one swarm stream which chunks it has got.
pub(crate) const HAVE_INTERVAL: Duration = Duration::from_millis(50);
/// How often a download sees to it that its grant is renewed in time.
pub(crate) const GRANT_LOOK: Duration = Duration::from_secs(20);
/// Peers that a download shows as dropped, and why.
pub(crate) const LEFT_PEERS_SHOWN_MAX: usize = 16;
/// Pieces of a stream taken at once.
pub(crate) const CHUNK_PIECES_AT_ONCE: usize = 32;
/// Pieces in which a chunk waits to be written: twice as many as there are of the smallest packets.
pub(crate) const CHUNK_PIECES_MAX: usize = 1024;
/// Chunks that wait to be written.
pub(crate) const WRITE_QUEUE_CHUNKS: usize = 16;
/// Pages of digests that a download keeps in memory, of 32 KiB each.
pub(crate) const DIGEST_PAGES_CACHED: usize = 64;
/// Sources that one download uses at once.
pub(crate) const SOURCES_MAX: usize = 8;
/// Sources that one download has at all: beside those it uses, those where it waits for a place, and those that it
/// gave up and that still give what they were asked for.
pub(crate) const SOURCES_HELD_MAX: usize = 2 * SOURCES_MAX;
/// How long a source has to show how much comes from it before another may get its place.
pub(crate) const SOURCE_TRIED: Duration = Duration::from_secs(5);
/// How often the source from which the least comes makes place for another.
pub(crate) const EXCHANGE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a peer rests that gave up its place to another.
pub(crate) const RETIRED_REST: Duration = Duration::from_secs(30);
/// When a download asks for holders for the second time: those who began at the same moment have been announced by then.
pub(crate) const HOLDERS_REFRESH_FIRST: Duration = Duration::from_millis(250);
/// How often it asks for holders while it is young, or nothing is to be hoped for from those it knows.
pub(crate) const HOLDERS_REFRESH: Duration = Duration::from_secs(5);
/// Later it asks as often again each time that it has become older by this share,
pub(crate) const HOLDERS_REFRESH_SHARE: u32 = 8;
/// and at least so often.
pub(crate) const HOLDERS_REFRESH_LONGEST: Duration = Duration::from_secs(30);
/// After how long without a byte a download says why none comes.
pub(crate) const STALL_PATIENCE: Duration = Duration::from_secs(3);
/// How often a download looks whether bytes come.
pub(crate) const STALL_LOOK: Duration = Duration::from_secs(1);
/// How long a download goes on without any source before it gives up, unless it is to wait.
pub(crate) const NO_SOURCE_PATIENCE: Duration = Duration::from_secs(30);
/// Events of a download kept for a reader that is behind.
pub(crate) const DOWNLOAD_EVENTS_KEPT: usize = 1024;
/// Runs of bad chunks that are named when a file is found damaged; further ones are only counted.
pub(crate) const DAMAGE_SHOWN_MAX: usize = 16;
/// Downloads that a peer shows, the ended ones among them.
pub(crate) const DOWNLOADS_SHOWN_MAX: usize = 1000;
/// How long a peer that ends waits for a tracker to hear it.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer that shares something new waits until the trackers know that it is online with it.
pub(crate) const ANNOUNCED_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the disks may take to show how shared files are.
pub(crate) const SHARES_LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of other peers that a peer serves at once.
pub(crate) const PEER_CONNECTIONS_MAX: usize = 256;
/// Of these, those from one address prefix.
pub(crate) const PEER_CONNECTIONS_PER_PREFIX_MAX: usize = 128;
/// Bytes in the file of a session.
pub(crate) const SESSION_FILE_BYTES_MAX: usize = 4096;
/// Connections of peers that a tracker serves at once.
pub(crate) const TRACKER_CONNECTIONS_MAX: usize = 4096;
/// Of these, those from one address prefix: a large office behind one address has room.
pub(crate) const TRACKER_CONNECTIONS_PER_PREFIX_MAX: usize = 1024;

/// Connections of one peer, by its key, that keep their places when places run out.
pub(crate) const TRUSTED_CONNECTIONS_PER_PEER_MAX: usize = 4;

/// How far the DHT port of a tracker lies above its port.
pub(crate) const DHT_PORT_OFFSET: u16 = 1000;
/// Longest host name in bytes, as DNS has it.
pub(crate) const HOST_BYTES_MAX: usize = 253;
/// Trackers that can found a ring together: as many as a list can name.
pub(crate) const FOUNDERS_MAX: usize = 128;
/// Bytes in the file of a ring key.
pub(crate) const RING_KEY_FILE_BYTES_MAX: usize =
    FOUNDERS_MAX * (HOST_BYTES_MAX + "founder []:65535\n".len()) + 256;

/// The longest key, in bytes; the shortest is one.
pub(crate) const STORE_KEY_BYTES_MAX: usize = 1024;
/// The longest value, in bytes.
pub(crate) const STORE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Jobs that wait for the writer or are in it; the next caller waits for a place.
pub(crate) const STORE_JOBS_WAITING_MAX: usize = 4096;
/// Jobs that share one commit.
pub(crate) const STORE_BATCH_JOBS_MAX: usize = 1024;
/// Bytes of keys and values after which a batch takes no further job.
pub(crate) const STORE_BATCH_BYTES_MAX: usize = 4 << 20;
/// Reads under way at once, each on a blocking thread.
pub(crate) const STORE_READS_MAX: usize = 32;

/// Bytes that are set aside for a body before any of it has arrived.
pub(crate) const BODY_BYTES_AT_ONCE: usize = 16 * 1024;
/// Characters that are kept of the other side's reason for closing.
pub(crate) const CLOSE_REASON_CHARS_MAX: usize = 200;
/// How long a dial may take: the first packet and two repetitions of it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the handshake of somebody who dials in may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way beyond which newcomers have to prove their address first.
pub(crate) const HANDSHAKES_UNPROVEN_MAX: usize = 32;
/// Handshakes under way beyond which the one that began first is given up for a new one.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// Handshakes under way from one address prefix beyond which its others have to try again. More than can be
/// under way without a proven address, so that nobody uses them up in another's name.
pub(crate) const HANDSHAKES_PER_PREFIX_MAX: usize = 64;
/// How long closing connections are waited for.
pub(crate) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes in a UDP datagram, once discovery has found that the path carries them. A send of ten
/// datagrams at once has to fit into 65,500 bytes.
pub(crate) const UDP_PAYLOAD_BYTES_MAX: u16 = 6500;
/// Bytes that are asked for each of a socket's two buffers.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Bytes of datagrams, one way, that wait on a connection of the ring.
pub(crate) const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;
/// After how long a dialer says something on a connection that is otherwise quiet.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// After how long without a word a connection is lost.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The round trip that is assumed before one was measured: what is lost of a handshake is sent again
/// after three of them.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Bytes that may be under way before anything was acknowledged: what QUIC recommends, and beside it one probe
/// of the path with [`UDP_PAYLOAD_BYTES_MAX`] and a datagram of that size. With less, a probe under way holds
/// back everything else, and quinn 0.11 even a close: it is then never sent, and so says to nobody why.
pub(crate) const INITIAL_WINDOW_BYTES: u64 = 12_000 + 2 * UDP_PAYLOAD_BYTES_MAX as u64;
/// Connection attempts that wait to be looked at.
pub(crate) const INCOMING_MAX: usize = 256;
/// Bytes that are kept of one such attempt.
pub(crate) const INCOMING_BYTES_MAX: u64 = 16 << 10;

/// How long one read or change may take before it is given up.
pub(crate) const ROW_DEADLINE: Duration = Duration::from_secs(5);
/// How long the replicas have to answer one round.
pub(crate) const ROW_PHASE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a read waits for the last replicas when those that answered do not agree.
pub(crate) const ROW_READ_PATIENCE: Duration = Duration::from_millis(50);
/// How long after it a replica that failed to give a page is asked again, if it is thought alive.
pub(crate) const PAGE_PAUSE: Duration = Duration::from_millis(50);
/// The first pause after a refusal, at most.
pub(crate) const DUEL_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// Any later pause, at most.
pub(crate) const DUEL_PAUSE_LONGEST: Duration = Duration::from_millis(320);
/// Replicas of a slice, in a ring that has as many members.
pub(crate) const REPLICAS_MAX: usize = 3;
/// Points of one member on the circle: with as many, the busiest of three members holds about a tenth
/// more than its share.
pub(crate) const TOKENS_PER_MEMBER: u16 = 256;
/// Rows in one page of a listing or a scan.
pub(crate) const REPLICA_PAGE_ROWS: u16 = 1000;
/// Bytes in one page of a listing or a scan, more or less one row.
pub(crate) const REPLICA_PAGE_BYTES: usize = 256 * 1024;
/// Pages that a scan reads for one answer.
pub(crate) const SCAN_PAGES_MAX: usize = 16;
/// Sets of replicas of which a member knows in which epoch they are.
pub(crate) const SETTLED_SETS_MAX: usize = 4096;
/// Answers that wait for one machine of the ring.
pub(crate) const MACHINE_INPUTS_MAX: usize = 2 * FOUNDERS_MAX;
/// Rows of a page on which replicas differ that are read at once.
pub(crate) const DISPUTED_AT_ONCE: usize = 16;
/// Rows that are repaired at once.
pub(crate) const REPAIRS_AT_ONCE: usize = 32;
/// How soon a member compares with another again if not all came of it; twice as late each time.
pub(crate) const MEETING_RETRY_FIRST: Duration = Duration::from_secs(1);
/// How often a member compares what it has with another.
pub(crate) const REPAIR_INTERVAL: Duration = Duration::from_secs(60);
/// How often a member holds a slice of its disk against the hash tree: all of them in about a day.
pub(crate) const SCRUB_INTERVAL: Duration = Duration::from_secs(5);
/// How often a member notes how far its disk and the others' are.
pub(crate) const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// By how much a member that returned tells of more commits than anybody remembers of it: more than it can have
/// made since it told the one who remembers the most and was not heard.
pub(crate) const RETURNED_COMMITS_AHEAD: u64 = 1 << 40;
/// How many commits of another member go unnoted at most.
pub(crate) const REMEMBERED_COMMITS_APART: u64 = 64;
/// By how much the ring's time goes on before a member notes it again: a ring that begins anew is behind what it was
/// by no more.
pub(crate) const TIME_NOTED_APART: Duration = Duration::from_secs(30);
/// How long a member that has heard enough of the others waits for the rest of them before it votes: one of those
/// may be the only one who remembers what its disk has lost.
pub(crate) const VOTE_PATIENCE: Duration = Duration::from_secs(1);
/// Requests in one batch between members of a ring.
pub(crate) const REPLICA_BATCH_REQUESTS_MAX: usize = 1024;
/// Bytes in one batch of requests between members of a ring.
pub(crate) const REPLICA_BATCH_BYTES_MAX: usize = 1 << 20;
/// Requests that wait for a lane to a member; further ones fail at once.
pub(crate) const REPLICA_QUEUE_MAX: usize = 4096;
/// Batches under way at once on a lane to a member.
pub(crate) const REPLICA_BATCHES_UNDER_WAY: usize = 8;
/// How long a batch may go unanswered.
pub(crate) const REPLICA_BATCH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a batch goes unanswered before it is asked whether anybody listens where the member was.
pub(crate) const REPLICA_BATCH_PATIENCE: Duration = Duration::from_millis(500);
/// How long a hello may take, from the connection to the answer.
pub(crate) const RING_HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause before a member is dialed again.
pub(crate) const RING_REDIAL_FIRST: Duration = Duration::from_millis(100);
/// Any later pause, at most.
pub(crate) const RING_REDIAL_LONGEST: Duration = Duration::from_secs(2);
/// A link that was up for so long is dialed again after the first pause.
pub(crate) const RING_LINK_STEADY: Duration = Duration::from_secs(2);
/// Connections that others may have to the DHT port at once: one of each member, and strangers.
pub(crate) const RING_CONNECTIONS_MAX: usize = FOUNDERS_MAX + 32;
/// Datagrams and hellos that wait for the membership.
pub(crate) const RING_NEWS_MAX: usize = 1024;
/// Bytes in a datagram between members: what fits into the smallest packet of QUIC, with some to spare.
pub(crate) const GOSSIP_BYTES_MAX: usize = 1100;
/// How often a member that is thought dead is spoken to.
pub(crate) const GOSSIP_TO_DEAD: Duration = Duration::from_secs(3);
/// Promises that a replica keeps in memory, beside the floor beneath all rows.
pub(crate) const PROMISES_MAX: usize = 64 * 1024;
/// The highest round of a ballot: as many as no ring ever uses, and far from where numbers end.
pub(crate) const BALLOT_ROUND_MAX: u64 = 1 << 60;
/// By how many rounds a ballot may be above all that a replica has seen. A ring that makes a hundred thousand changes
/// a second has used as many after 89 years; whoever is further ahead errs, and is not followed.
pub(crate) const BALLOT_ROUNDS_APART_MAX: u64 = 1 << 48;
/// By how many returns of members an epoch may be above what one knows of. Whoever is further ahead errs, and is not
/// followed.
pub(crate) const EPOCH_RETURNS_APART_MAX: u64 = 1 << 32;
/// Rows that others could not read which a member that comes back has for damaged too. With more it waits: the disk
/// there is not one to learn from.
pub(crate) const RETURN_LOST_ROWS_MAX: usize = 1000;
/// Rows whose damage on disk a replica remembers at once; it finds again what it forgets.
pub(crate) const DAMAGED_ROWS_MAX: usize = 4096;
/// By how many rounds the ceiling of promises is raised at once: each raise is a write.
pub(crate) const PROMISE_ROUNDS_AT_ONCE: u64 = 1 << 20;
/// Leaves of a hash tree below each slice.
pub(crate) const TREE_LEAVES_PER_SLICE: u8 = 64;
/// Slices below each group of a hash tree.
pub(crate) const TREE_SLICES_PER_GROUP: u16 = 128;
/// Rows that one exchange between two replicas finds at most to differ; the next one goes on.
pub(crate) const EXCHANGE_ROWS_MAX: usize = 4096;
/// Questions that an exchange has open at once.
pub(crate) const EXCHANGE_QUESTIONS_MAX: usize = 8;
/// How long both replicas have to answer a question of an exchange.
pub(crate) const EXCHANGE_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a replica has to answer a member that comes back, before it is asked again.
pub(crate) const RETURN_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// When a member that comes back asks a replica again that could not answer.
pub(crate) const RETURN_REST: Duration = Duration::from_millis(500);
/// By how much one that comes back lets another go first that does so too, at first.
pub(crate) const RETURN_PAUSE_FIRST: Duration = Duration::from_millis(250);
/// And at most: longer than it takes to learn millions of rows.
pub(crate) const RETURN_PAUSE_LONGEST: Duration = Duration::from_secs(600);
/// The longest that a lease counts.
pub(crate) const LEASE_LIFE_MAX: Duration = Duration::from_secs(120);
/// Bytes in what a lease says.
pub(crate) const LEASE_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes in what one session says in one slice, keys and payloads, so that all of it fits one message.
pub(crate) const LEASE_SLOT_BYTES_MAX: usize = 128 * 1024;
/// Leases of one session in one slice, those withdrawn lately among them.
pub(crate) const LEASE_SLOT_ENTRIES_MAX: usize = 1024;
/// Sessions that say something under one key.
pub(crate) const LEASES_PER_KEY_MAX: usize = 16 * 1024;
/// Bytes of all leases, as they are counted; in memory they take twice that, and five times where most sessions have one.
pub(crate) const LEASE_TABLE_BYTES_MAX: usize = 512 << 20;
/// Bytes in one message about leases, more or less one slot.
pub(crate) const LEASE_PAGE_BYTES: usize = 128 * 1024;
/// Bytes in one message about leases, at most.
pub(crate) const LEASE_MESSAGE_BYTES_MAX: usize =
    LEASE_PAGE_BYTES + LEASE_SLOT_BYTES_MAX + 32 * 1024;
/// How often a member compares its leases with each other member's.
pub(crate) const LEASE_EXCHANGE_INTERVAL: Duration = Duration::from_secs(20);
/// Slots that are looked at for one page of their numbers.
pub(crate) const LEASE_PAGE_SLOTS: usize = 64 * 1024;
/// Slots in one list of a message: one for each slice.
pub(crate) const LEASE_SLICES_PER_LIST_MAX: usize = 16 * 1024;
/// Keys in one question for leases.
pub(crate) const LEASE_GET_KEYS_MAX: usize = 512;
/// Leases in one answer.
pub(crate) const LEASES_PER_ANSWER_MAX: usize = 4096;
/// Reads of leases for one listing, when those of all its files do not fit one.
pub(crate) const COUNT_READS_MAX: usize = 16;
/// Bytes of leases after which a read asks for no more of them.
pub(crate) const LEASE_READ_BYTES_MAX: usize = 32 << 20;
/// How long a read waits for a majority of the replicas when there is one answer.
pub(crate) const LEASE_READ_PATIENCE: Duration = Duration::from_millis(250);
/// How long replicas that are told or asked about leases may be silent.
pub(crate) const LEASE_SILENCE_MAX: Duration = Duration::from_secs(1);
/// The same, in an exchange.
pub(crate) const LEASE_EXCHANGE_SILENCE_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(HANDSHAKES_UNPROVEN_MAX < HANDSHAKES_PER_PREFIX_MAX);
const _: () = assert!(2 * HANDSHAKES_PER_PREFIX_MAX < HANDSHAKES_MAX);
const _: () = assert!(2 * TRACKER_CONNECTIONS_PER_PREFIX_MAX < TRACKER_CONNECTIONS_MAX);
const _: () = assert!(2 * PEER_CONNECTIONS_PER_PREFIX_MAX <= PEER_CONNECTIONS_MAX);
const _: () = assert!(2 * TRACKER_RESPONSE_BYTES_MAX < UNDELIVERED_BYTES_MAX);
const _: () = assert!(128 * TRACKER_REQUEST_BYTES_MAX < REQUEST_BODIES_BYTES_MAX);
const _: () = assert!(STRANGER_REQUEST_BYTES_MAX > 4 * PASSWORD_BYTES_MAX);
const _: () = assert!(UDP_PAYLOAD_BYTES_MAX as usize * 10 <= 65_500);
const _: () = assert!(KEEP_ALIVE.as_millis() * 2 < IDLE_TIMEOUT.as_millis());
const _: () = assert!(TRACKER_SILENCE.as_millis() * 4 < TRACKER_ANSWER_TIMEOUT.as_millis());
const _: () = assert!(ROW_PHASE_TIMEOUT.as_millis() * 2 < ROW_DEADLINE.as_millis());
const _: () = assert!(PROMISE_ROUNDS_AT_ONCE < BALLOT_ROUNDS_APART_MAX);
const _: () = assert!(BALLOT_ROUNDS_APART_MAX < BALLOT_ROUND_MAX);
const _: () = assert!(TOKEN_BYTES_MAX > 4 * NAME_BYTES_MAX);
const _: () = assert!(2 * LEASE_RENEWAL.as_secs() < LEASE_LIFE.as_secs());
const _: () = assert!(TOKEN_BYTES_MAX + 256 < PEER_REQUEST_BYTES_MAX);
const _: () = assert!(LOGIN_WAIT_MAX.as_secs() < LOGIN_FAILURES_FORGOTTEN.as_secs());
const _: () = assert!(CHUNK_WINDOW <= CHUNK_REQUESTS_MAX);
const _: () = assert!(CHUNK_WINDOW_FIRST <= CHUNK_WINDOW);
const _: () = assert!(SOURCE_IDLE_MAX.as_secs() < NO_SOURCE_PATIENCE.as_secs());
const _: () = assert!(512 * 1024 < RATE_MIN * CHUNK_DEADLINE.as_secs());
const _: () = assert!(SEED_ROUND_MAX.as_secs() < STALL_PATIENCE.as_secs());
const _: () = assert!(2 * PACED_PIECE_BYTES < RATE_MIN * SOURCE_SILENCE_MAX.as_secs());
const _: () = assert!(1024 * 1024 * (SEED_STREAMS_MAX as u64) <= SEED_UNDER_WAY_BYTES_MAX);
const _: () = assert!(SEED_TURN.as_secs() < SEED_WAIT_MAX.as_secs());
const _: () = assert!(TIME_NOTED_APART.as_secs() < CLOCK_TOLERANCE.as_secs());
const _: () =
    assert!(2 * OPENED_BYTES_PACED_MAX as u64 <= RATE_MIN * PEER_ANSWER_TIMEOUT.as_secs());
const _: () = assert!(GRANT_LOOK.as_secs() * 4 < GRANT_LIFE.as_secs());
// Beside the bitfields and addresses of a sample, an answer has a byte for each of as many chunks as a bitfield.
const _: () = assert!(
    HOLDERS_SAMPLE_MAX * (ANNOUNCED_BITFIELD_BYTES_MAX + 32 + 32 * ANNOUNCED_ADDRS_MAX)
        + 8 * ANNOUNCED_BITFIELD_BYTES_MAX
        + 1024
        <= TRACKER_RESPONSE_BYTES_MAX
);
const _: () = assert!(LEASE_PAYLOAD_BYTES_MAX + 255 <= LEASE_SLOT_BYTES_MAX);
const _: () = assert!(FILES_PAGE_MAX <= LEASE_GET_KEYS_MAX);
const _: () = assert!(LEASE_READ_PATIENCE.as_millis() < LEASE_SILENCE_MAX.as_millis());
const _: () = assert!(LEASE_LIFE.as_millis() <= LEASE_LIFE_MAX.as_millis());
const _: () = assert!(LEASE_MESSAGE_BYTES_MAX < REPLICA_BATCH_BYTES_MAX);
