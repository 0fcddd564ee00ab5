//! A network in memory, for tests of everything above UDP: datagrams take their time, get lost by a seeded
//! dice, and stop at partitions. Under tokio's paused clock a minute of it passes in no time, and the same
//! seed loses the same datagrams. Links keep the order of datagrams, as most real ones do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, Sleep, sleep_until};

/// What happens to a datagram on its way.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Link {
    /// How long it takes, one way.
    pub(crate) latency: Duration,
    /// How many of them get lost, from 0 to 1.
    pub(crate) loss: f64,
    /// The bytes that it may have; longer ones get lost.
    pub(crate) mtu: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            loss: 0.0,
            mtu: 1472,
        }
    }
}

/// The network. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

struct State {
    dice: StdRng,
    link: Link,
    parted: BTreeSet<(IpAddr, IpAddr)>,
    /// Hosts to which and from which everything takes longer by so much.
    far: BTreeMap<IpAddr, Duration>,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    delivered: u64,
    dropped: u64,
}

#[derive(Default)]
struct Inbox {
    datagrams: VecDeque<Datagram>,
    reader: Option<Waker>,
}

struct Datagram {
    due: Instant,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Network {
    /// A network of perfect links of 10 ms.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice: StdRng::seed_from_u64(seed),
            link: Link::default(),
            parted: BTreeSet::new(),
            far: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            delivered: 0,
            dropped: 0,
        })))
    }

    /// A socket at `addr`, which is free again once the socket was dropped.
    ///
    /// # Errors
    ///
    /// If somebody has the address.
    pub(crate) fn bind(&self, addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.state();
        if state.inboxes.contains_key(&addr) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.inboxes.insert(addr, Inbox::default());
        Ok(Arc::new(Socket {
            network: self.clone(),
            addr,
            alarm: Mutex::new(None),
        }))
    }

    /// What happens to datagrams from now on.
    pub(crate) fn set_link(&self, link: Link) {
        self.state().link = link;
    }

    /// Cuts two hosts off from each other, both ways.
    pub(crate) fn part(&self, a: IpAddr, b: IpAddr) {
        self.mute(a, b);
        self.mute(b, a);
    }

    /// Loses what `from` sends to `to`.
    pub(crate) fn mute(&self, from: IpAddr, to: IpAddr) {
        self.state().parted.insert((from, to));
    }

    /// Moves a host away: what it sends and is sent takes longer by `more` from now on.
    pub(crate) fn set_far(&self, host: IpAddr, more: Duration) {
        self.state().far.insert(host, more);
    }

    /// Ends all partitions.
    pub(crate) fn heal(&self) {
        self.state().parted.clear();
    }

    /// Datagrams so far that reached an inbox, and that did not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.delivered, state.dropped)
    }

    /// Sends bytes as if from `from`, who need not exist.
    pub(crate) fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        let Link { latency, loss, mtu } = state.link;
        let lost = state.dice.random_bool(loss)
            || bytes.len() > mtu
            || state.parted.contains(&(from.ip(), to.ip()));
        let inbox = state.inboxes.get_mut(&to);
        let Some(inbox) = inbox.filter(|inbox| !lost && inbox.datagrams.len() < INBOX_MAX) else {
            state.dropped += 1;
            return;
        };
        state.delivered += 1;
        let farther = |host| state.far.get(&host).copied().unwrap_or_default();
        let soonest = Instant::now() + latency + farther(from.ip()) + farther(to.ip());
        let last = inbox.datagrams.iter().rfind(|last| last.from == from);
        let due = last.map_or(soonest, |last| last.due.max(soonest));
        let place = inbox.datagrams.partition_point(|other| other.due <= due);
        let bytes = bytes.to_vec();
        inbox.datagrams.insert(place, Datagram { due, from, bytes });
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Socket {
    network: Network,
    addr: SocketAddr,
    /// Rings when the first datagram of the inbox is due.
    alarm: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        for bytes in transmit.contents.chunks(segment.max(1)) {
            self.network.send(self.addr, transmit.destination, bytes);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.network.state();
        let Some(inbox) = state.inboxes.get_mut(&self.addr) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let now = Instant::now();
        let mut received = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            if inbox.datagrams.front().is_none_or(|first| first.due > now) {
                break;
            }
            let Some(datagram) = inbox.datagrams.pop_front() else {
                break;
            };
            let length = datagram.bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&datagram.bytes[..length]);
            *meta = RecvMeta {
                addr: datagram.from,
                len: length,
                stride: length,
                ..RecvMeta::default()
            };
            received += 1;
        }
        if received > 0 {
            return Poll::Ready(Ok(received));
        }
        inbox.reader = Some(context.waker().clone());
        let Some(due) = inbox.datagrams.front().map(|datagram| datagram.due) else {
            return Poll::Pending;
        };
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        alarm.as_mut().reset(due);
        if alarm.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.state().inboxes.remove(&self.addr);
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// limits

/// Datagrams that wait for one socket; further ones get lost.
const INBOX_MAX: usize = 4096;
