//! An etcd cluster on this machine, and as much of a client for it as the comparison needs: the calls `KV.Range` and
//! `KV.Txn` of its gRPC, in a few messages of protobuf that are written and read here by hand.
//!
//! **Invariant.** The members are children of this process, and end with their [`Cluster`].

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Version};
use tokio::net::TcpStream;

use crate::Outcome;
use crate::process::Running;

/// Members of one cluster, each a process with a folder of its own, as etcd is by default: every change is synced by
/// a majority before it is answered.
pub struct Cluster {
    members: Vec<Running>,
    addrs: Vec<SocketAddr>,
}

impl Cluster {
    /// Starts members on free ports of the loopback, with their folders beneath `dir`, and waits until each serves.
    ///
    /// # Errors
    /// If one does not start, or the cluster does not serve within half a minute; nothing runs then.
    pub async fn start(program: &Path, dir: &Path, members: usize) -> Outcome<Self> {
        let ports = (0..2 * members).map(|_| TcpListener::bind(("127.0.0.1", 0)));
        let ports: Vec<TcpListener> = ports.collect::<Result<_, _>>()?;
        let addrs = ports.iter().map(TcpListener::local_addr);
        let addrs: Vec<SocketAddr> = addrs.collect::<Result<_, _>>()?;
        drop(ports);
        let (clients, peers) = addrs.split_at(members);
        let cluster: Vec<String> = (peers.iter().enumerate())
            .map(|(number, peer)| format!("etcd{number}=http://{peer}"))
            .collect();
        let mut running = Vec::new();
        for (number, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
            let name = format!("etcd{number}");
            let log = File::create(dir.join(format!("{name}.log")))?;
            let mut command = Command::new(program);
            command
                .args(["--name", &name, "--data-dir"])
                .arg(dir.join(&name))
                .args(["--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &cluster.join(",")])
                .args(["--initial-cluster-state", "new"])
                .args(["--logger", "zap", "--log-level", "error"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            running.push(Running::spawn(&mut command)?);
        }
        let cluster = Self {
            members: running,
            addrs: clients.to_vec(),
        };
        for addr in &cluster.addrs {
            tokio::time::timeout(START_PATIENCE, serves(*addr))
                .await
                .map_err(|_| format!("the etcd at {addr} does not serve"))?;
        }
        Ok(cluster)
    }

    /// One new connection to each member.
    ///
    /// # Errors
    /// If one cannot be reached.
    pub async fn connect(&self) -> Outcome<Vec<Client>> {
        let mut clients = Vec::new();
        for addr in &self.addrs {
            clients.push(Client::connect(*addr).await?);
        }
        Ok(clients)
    }

    /// The processes of the members.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Running::pid).collect()
    }
}

/// Waits until a member answers a read, which takes a leader.
async fn serves(addr: SocketAddr) {
    let asked = async || Client::connect(addr).await?.range(b"no such key").await;
    while asked().await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A connection to one member; clones share it, as the clients of one process do in etcd's own client.
#[derive(Clone)]
pub struct Client {
    requests: SendRequest<Bytes>,
    addr: SocketAddr,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES);
        builder.initial_connection_window_size(WINDOW_BYTES);
        let (requests, connection) = builder.handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Self { requests, addr })
    }

    /// Sets a key if it was last changed at the revision `old`, 0 if it is not there; the revision of the change, or
    /// `None` if it was changed at another.
    ///
    /// # Errors
    /// If the member did not do it.
    pub async fn put_if(&self, key: &[u8], old: u64, value: &[u8]) -> Outcome<Option<u64>> {
        let answer = self.call("Txn", &encode_txn(key, old, value)).await?;
        decode_txn(&answer)
    }

    /// The value of a key and the revision of its last change, as a majority has it.
    ///
    /// # Errors
    /// If the member did not say.
    pub async fn range(&self, key: &[u8]) -> Outcome<Option<(Bytes, u64)>> {
        let mut request = BytesMut::new();
        put_bytes(&mut request, 1, key);
        decode_range(&self.call("Range", &request).await?)
    }

    async fn call(&self, method: &str, message: &[u8]) -> Outcome<Bytes> {
        let request = Request::post(format!("http://{}/etcdserverpb.KV/{method}", self.addr))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len())?);
        frame.put_slice(message);
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut stream) = requests.send_request(request, false)?;
        stream.send_data(frame.freeze(), true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut whole = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            whole.put_slice(&part);
        }
        match body.trailers().await? {
            Some(trailers) => check(&trailers)?,
            None => check(&head.headers)?,
        }
        if whole.len() < FRAME_HEADER_BYTES {
            return Err("etcd answered nothing".into());
        }
        Ok(whole.freeze().slice(FRAME_HEADER_BYTES..))
    }
}

/// Whether the call went well.
fn check(headers: &HeaderMap) -> Outcome<()> {
    match headers.get("grpc-status").map(|status| status.as_bytes()) {
        Some(b"0") => Ok(()),
        status => Err(format!("{status:?}: {:?}", headers.get("grpc-message")).into()),
    }
}

/// `TxnRequest`: compare, then on success put.
fn encode_txn(key: &[u8], old: u64, value: &[u8]) -> BytesMut {
    let mut compare = BytesMut::new();
    let (target, field) = if old == 0 { (1, 5) } else { (2, 6) };
    put_number(&mut compare, 2, target);
    put_bytes(&mut compare, 3, key);
    put_number(&mut compare, field, old);
    let mut put = BytesMut::new();
    put_bytes(&mut put, 1, key);
    put_bytes(&mut put, 2, value);
    let mut operation = BytesMut::new();
    put_bytes(&mut operation, 2, &put);
    let mut request = BytesMut::new();
    put_bytes(&mut request, 1, &compare);
    put_bytes(&mut request, 2, &operation);
    request
}

/// `TxnResponse`: the revision, if the change was made.
fn decode_txn(answer: &[u8]) -> Outcome<Option<u64>> {
    let (mut revision, mut made) = (0, false);
    for field in fields(answer)? {
        match field {
            (1, Value::Bytes(header)) => revision = number(header, 3)?,
            (2, Value::Number(succeeded)) => made = succeeded == 1,
            _ => {}
        }
    }
    Ok(made.then_some(revision))
}

/// `RangeResponse`: the first value, and the revision of its last change.
fn decode_range(answer: &[u8]) -> Outcome<Option<(Bytes, u64)>> {
    for field in fields(answer)? {
        if let (2, Value::Bytes(row)) = field {
            let value = fields(row)?.into_iter().find_map(|field| match field {
                (5, Value::Bytes(value)) => Some(Bytes::copy_from_slice(value)),
                _ => None,
            });
            return Ok(Some((value.unwrap_or_default(), number(row, 3)?)));
        }
    }
    Ok(None)
}

/// The number in a field of a message; 0 if it has none.
fn number(message: &[u8], wanted: u64) -> Outcome<u64> {
    let found = fields(message)?.into_iter().find_map(|field| match field {
        (field, Value::Number(number)) if field == wanted => Some(number),
        _ => None,
    });
    Ok(found.unwrap_or(0))
}

/// What a field of a message holds.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
fn fields(mut message: &[u8]) -> Outcome<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut message)?),
            2 => {
                let length = usize::try_from(take_varint(&mut message)?)?;
                let (bytes, rest) = message.split_at_checked(length).ok_or("cut short")?;
                message = rest;
                Value::Bytes(bytes)
            }
            kind => return Err(format!("a field of kind {kind}").into()),
        };
        fields.push((tag >> 3, value));
    }
    Ok(fields)
}

fn put_number(message: &mut BytesMut, field: u64, number: u64) {
    put_varint(message, field << 3);
    put_varint(message, number);
}

fn put_bytes(message: &mut BytesMut, field: u64, bytes: &[u8]) {
    put_varint(message, field << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.put_slice(bytes);
}

fn put_varint(message: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        message.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    message.put_u8(number as u8);
}

fn take_varint(message: &mut &[u8]) -> Outcome<u64> {
    let mut number = 0;
    for place in 0..10 {
        let (&byte, rest) = message.split_first().ok_or("cut short")?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number without an end".into())
}

/// How long members may take to elect their first leader.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// What may be under way on a connection, so that its windows never stop anything.
const WINDOW_BYTES: u32 = 16 << 20;
/// Before each message of gRPC: whether it is compressed, and its length.
const FRAME_HEADER_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the fields are those of etcd's `rpc.proto`.
    #[test]
    fn a_change_is_encoded_as_etcd_reads_it() {
        let create = encode_txn(b"k", 0, b"v");
        let compare = [0x10, 1, 0x1a, 1, b'k', 0x28, 0];
        let put = [0x12, 8, 0x12, 6, 0x0a, 1, b'k', 0x12, 1, b'v'];
        assert_eq!(create[..], [&[0x0a, 7][..], &compare, &put].concat());
        let update = encode_txn(b"k", 300, b"v");
        let compare = [0x10, 2, 0x1a, 1, b'k', 0x30, 0xac, 2];
        assert_eq!(update[..], [&[0x0a, 8][..], &compare, &put].concat());
    }

    #[test]
    fn answers_are_read() {
        let header = [0x0a, 5, 0x08, 9, 0x18, 0xac, 2];
        let made = [&header[..], &[0x10, 1]].concat();
        assert_eq!(decode_txn(&made).unwrap(), Some(300));
        assert_eq!(decode_txn(&header).unwrap(), None);
        let row = [0x12, 9, 0x0a, 1, b'k', 0x18, 0xac, 2, 0x2a, 1, b'v'];
        let found = decode_range(&[&header[..], &row].concat()).unwrap();
        assert_eq!(found, Some((Bytes::from_static(b"v"), 300)));
        assert_eq!(decode_range(&header).unwrap(), None);
        for length in 1..row.len() {
            assert!(fields(&row[..length]).is_err());
        }
        assert!(fields(&[0xff; 11]).is_err());
    }
}
