//! Where the trackers are: one address, and the list of them that operators and users write by hand.
//!
//! A [`TrackerList`] that exists is sound: it has at least one tracker, every port leaves room for the DHT port
//! 1000 above it, and no two entries claim the same port of the same host. Whatever is wrong with a text is
//! reported with the number of the line, since people edit these files.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::RingId;
use crate::limits::{DHT_PORT_OFFSET, FOUNDERS_MAX, HOST_BYTES_MAX};

/// Address of a tracker: a host and the port that its clients connect to.
///
/// The host is an IP address or a host name; names are kept in lower case and are not resolved here. The port is
/// between 1 and [`TrackerAddr::MAX_PORT`]. Written as `127.0.0.1:9000`, `[::1]:9000` or `tracker.example:9000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrackerAddr {
    host: Host,
    port: u16,
}

impl TrackerAddr {
    /// The highest port of a tracker: its DHT port lies 1000 above and has to exist too.
    pub const MAX_PORT: u16 = u16::MAX - DHT_PORT_OFFSET;

    /// The host as written: an IP address without brackets, or a host name.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that the other trackers connect to: 1000 above [`port`](Self::port).
    pub fn dht_port(&self) -> u16 {
        self.port + DHT_PORT_OFFSET
    }

    /// The socket address, unless the host is a name that has to be resolved first.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }

    /// Whether two trackers could not run at both addresses: same host, and a port that both would bind.
    fn collides_with(&self, other: &Self) -> bool {
        let distance = self.port.abs_diff(other.port);
        self.host == other.host && (distance == 0 || distance == DHT_PORT_OFFSET)
    }
}

impl fmt::Display for TrackerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for TrackerAddr {
    type Err = TrackerAddrError;

    fn from_str(text: &str) -> Result<Self, TrackerAddrError> {
        let (host, port) = text.rsplit_once(':').ok_or(TrackerAddrError::NoPort)?;
        let host = Host::parse(host)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse::<u32>() {
            Ok(port) if digits => port,
            _ => {
                return Err(TrackerAddrError::BadPort {
                    port: port.to_owned(),
                });
            }
        };
        Self::checked(host, port)
    }
}

impl TryFrom<String> for TrackerAddr {
    type Error = TrackerAddrError;

    fn try_from(text: String) -> Result<Self, TrackerAddrError> {
        text.parse()
    }
}

impl From<TrackerAddr> for String {
    fn from(addr: TrackerAddr) -> Self {
        addr.to_string()
    }
}

impl TryFrom<SocketAddr> for TrackerAddr {
    type Error = TrackerAddrError;

    fn try_from(addr: SocketAddr) -> Result<Self, TrackerAddrError> {
        Self::checked(Host::checked_ip(addr.ip())?, addr.port().into())
    }
}

impl TrackerAddr {
    fn checked(host: Host, port: u32) -> Result<Self, TrackerAddrError> {
        match u16::try_from(port) {
            Ok(port @ 1..=Self::MAX_PORT) => Ok(Self { host, port }),
            _ => Err(TrackerAddrError::PortOutOfRange { port }),
        }
    }
}

/// The trackers of one ring, as written in a `tracker_info.txt`.
///
/// One address a line. `#` begins a comment, blank lines are skipped, and a line `ring <id>` pins the ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackerList {
    addrs: Vec<TrackerAddr>,
    ring: Option<RingId>,
}

impl TrackerList {
    /// Most entries that a list may have.
    pub const MAX_LEN: usize = FOUNDERS_MAX;

    /// Reads a list.
    ///
    /// # Errors
    /// The first line that cannot be read, or that contradicts an earlier one; or that there is no tracker at all.
    pub fn parse(text: &str) -> Result<Self, TrackerListError> {
        let mut entries: Vec<(usize, TrackerAddr)> = Vec::new();
        let mut ring: Option<(usize, RingId)> = None;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (line, text) in (1..).zip(text.lines()) {
            let at_line = |problem| TrackerListError::Line { line, problem };
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            if let Some(id) = pinned_ring(text) {
                if let Some((first, _)) = ring {
                    return Err(at_line(LineProblem::SecondRing { first }));
                }
                let id = id
                    .parse()
                    .map_err(|error| at_line(LineProblem::BadRingId(error)))?;
                ring = Some((line, id));
                continue;
            }
            let addr: TrackerAddr = text.parse().map_err(|error| {
                at_line(LineProblem::BadAddress {
                    text: text.to_owned(),
                    error,
                })
            })?;
            if let Some((first, other)) =
                entries.iter().find(|(_, other)| other.collides_with(&addr))
            {
                return Err(at_line(LineProblem::Collision {
                    addr,
                    other: other.clone(),
                    first: *first,
                }));
            }
            if entries.len() == Self::MAX_LEN {
                return Err(at_line(LineProblem::TooMany));
            }
            entries.push((line, addr));
        }
        if entries.is_empty() {
            return Err(TrackerListError::Empty);
        }
        Ok(Self {
            addrs: entries.into_iter().map(|(_, addr)| addr).collect(),
            ring: ring.map(|(_, id)| id),
        })
    }

    /// The addresses, in the order of the text; at least one.
    pub fn addrs(&self) -> &[TrackerAddr] {
        &self.addrs
    }

    /// The id of the ring that these trackers have to belong to, where the text pins it.
    pub fn ring(&self) -> Option<RingId> {
        self.ring
    }

    /// The `n`-th address, counted from 1; comments, blank lines and the ring's line do not count.
    pub fn nth(&self, n: usize) -> Option<&TrackerAddr> {
        self.addrs.get(n.checked_sub(1)?)
    }
}

impl FromStr for TrackerList {
    type Err = TrackerListError;

    fn from_str(text: &str) -> Result<Self, TrackerListError> {
        Self::parse(text)
    }
}

/// Why a text is not the address of a tracker.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerAddrError {
    /// There is no `:` and port after the host.
    #[error("a port is missing (as in 127.0.0.1:9000)")]
    NoPort,
    /// What follows the last `:` is not a number.
    #[error("'{port}' is not a port number")]
    BadPort {
        /// The text in place of the port.
        port: String,
    },
    /// The port is 0, or so high that no DHT port fits above it.
    #[error(
        "port {port} is out of range: a tracker's port is 1 to {}, since its DHT port lies 1000 above",
        TrackerAddr::MAX_PORT
    )]
    PortOutOfRange {
        /// The port as written.
        port: u32,
    },
    /// The host is neither an IP address nor a host name.
    #[error("'{host}' is neither an IP address nor a host name")]
    BadHost {
        /// The text in place of the host.
        host: String,
    },
    /// An IPv6 address stands without the brackets that separate it from the port.
    #[error("an IPv6 address needs brackets (as in [::1]:9000)")]
    BareIpv6,
    /// The host is `0.0.0.0` or `[::]`, which nobody can connect to.
    #[error(
        "'{ip}' stands for every interface; a list needs an address that others can connect to"
    )]
    Unspecified {
        /// The address as written.
        ip: IpAddr,
    },
}

/// Why a text is not a list of trackers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerListError {
    /// One line is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// The number of the line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// Nothing but comments and blank lines.
    #[error("the list has no tracker in it")]
    Empty,
}

/// What is wrong with one line of a list.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// Not an address.
    #[error("'{text}' is not a tracker's address: {error}")]
    BadAddress {
        /// The line without its comment.
        text: String,
        /// What is wrong with it.
        error: TrackerAddrError,
    },
    /// Two trackers that would bind the same port of one host.
    #[error(
        "{addr} collides with {other} of line {first}: the ports of two trackers on one host must differ, and not by 1000"
    )]
    Collision {
        /// The address on this line.
        addr: TrackerAddr,
        /// The earlier address.
        other: TrackerAddr,
        /// The line of the earlier address.
        first: usize,
    },
    /// What follows `ring` is not a ring id.
    #[error("not a ring id: {0}")]
    BadRingId(<RingId as FromStr>::Err),
    /// The ring was already pinned.
    #[error("the ring is already given on line {first}")]
    SecondRing {
        /// The line that pinned it.
        first: usize,
    },
    /// More entries than a list may have.
    #[error("a list has at most {} trackers", TrackerList::MAX_LEN)]
    TooMany,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Host {
    fn parse(text: &str) -> Result<Self, TrackerAddrError> {
        let bad = || TrackerAddrError::BadHost {
            host: text.to_owned(),
        };
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(bad)?;
            return Self::checked_ip(IpAddr::V6(inner.parse().map_err(|_| bad())?));
        }
        if text.contains(':') {
            return Err(TrackerAddrError::BareIpv6);
        }
        if let Ok(ip) = text.parse() {
            return Self::checked_ip(IpAddr::V4(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // A name whose last label is a number is a mistyped IPv4 address.
        let last_is_number = name
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if name.len() > HOST_BYTES_MAX || last_is_number || !name.split('.').all(is_label) {
            return Err(bad());
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }

    fn checked_ip(ip: IpAddr) -> Result<Self, TrackerAddrError> {
        if ip.is_unspecified() {
            Err(TrackerAddrError::Unspecified { ip })
        } else {
            Ok(Self::Ip(ip))
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The rest of a line `ring <id>`.
fn pinned_ring(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("ring")?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> TrackerAddr {
        text.parse().unwrap()
    }

    fn problem(text: &str) -> (usize, String) {
        match TrackerList::parse(text).unwrap_err() {
            TrackerListError::Line { line, problem } => (line, problem.to_string()),
            TrackerListError::Empty => panic!("expected a bad line"),
        }
    }

    #[test]
    fn addresses_are_shown_as_they_are_read() {
        for text in [
            "127.0.0.1:9000",
            "[::1]:9000",
            "[2001:db8::1]:1",
            "tracker.example:64535",
            "localhost:9001",
        ] {
            assert_eq!(addr(text).to_string(), text);
        }
        assert_eq!(
            addr("Tracker.Example.:9000").to_string(),
            "tracker.example:9000"
        );
        assert_eq!(addr("[0:0:0:0:0:0:0:1]:9000"), addr("[::1]:9000"));
    }

    #[test]
    fn an_address_knows_its_parts() {
        let ip = addr("[::1]:9000");
        assert_eq!(
            (ip.host(), ip.port(), ip.dht_port()),
            ("::1".to_owned(), 9000, 10000)
        );
        assert_eq!(ip.socket_addr(), Some("[::1]:9000".parse().unwrap()));
        assert_eq!(addr("localhost:9000").socket_addr(), None);
        assert_eq!(
            TrackerAddr::try_from("127.0.0.1:9000".parse::<SocketAddr>().unwrap()),
            Ok(addr("127.0.0.1:9000"))
        );
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_its_reason() {
        let cases = [
            ("127.0.0.1", "a port is missing (as in 127.0.0.1:9000)"),
            ("127.0.0.1:", "'' is not a port number"),
            ("127.0.0.1:+9000", "'+9000' is not a port number"),
            ("127.0.0.1:ninety", "'ninety' is not a port number"),
            (
                "127.0.0.1:99999999999",
                "'99999999999' is not a port number",
            ),
            (
                "127.0.0.1:0",
                "port 0 is out of range: a tracker's port is 1 to 64535, since its DHT port lies 1000 above",
            ),
            (
                "a:64536",
                "port 64536 is out of range: a tracker's port is 1 to 64535, since its DHT port lies 1000 above",
            ),
            (
                "a:70000",
                "port 70000 is out of range: a tracker's port is 1 to 64535, since its DHT port lies 1000 above",
            ),
            (
                "256.0.0.1:9000",
                "'256.0.0.1' is neither an IP address nor a host name",
            ),
            (
                "1.2.3:9000",
                "'1.2.3' is neither an IP address nor a host name",
            ),
            (":9000", "'' is neither an IP address nor a host name"),
            (
                "a..b:9000",
                "'a..b' is neither an IP address nor a host name",
            ),
            ("-a:9000", "'-a' is neither an IP address nor a host name"),
            ("a b:9000", "'a b' is neither an IP address nor a host name"),
            (
                "[::1:9000",
                "'[::1' is neither an IP address nor a host name",
            ),
            (
                "[127.0.0.1]:9000",
                "'[127.0.0.1]' is neither an IP address nor a host name",
            ),
            (
                "::1:9000",
                "an IPv6 address needs brackets (as in [::1]:9000)",
            ),
            (
                "0.0.0.0:9000",
                "'0.0.0.0' stands for every interface; a list needs an address that others can connect to",
            ),
            (
                "[::]:9000",
                "'::' stands for every interface; a list needs an address that others can connect to",
            ),
        ];
        for (text, reason) in cases {
            assert_eq!(
                text.parse::<TrackerAddr>().unwrap_err().to_string(),
                reason,
                "{text}"
            );
        }
    }

    #[test]
    fn comments_blank_lines_and_the_ring_do_not_count() {
        let id = "ab".repeat(32);
        let text = format!(
            "\u{feff}# our ring\r\n\r\n  127.0.0.1:9000  # first\r\nring {id}\r\n\t[::1]:9000\r\n#127.0.0.1:9\nhost.name:9000"
        );
        let list: TrackerList = text.parse().unwrap();
        assert_eq!(
            list.addrs(),
            [
                addr("127.0.0.1:9000"),
                addr("[::1]:9000"),
                addr("host.name:9000")
            ]
        );
        assert_eq!(list.ring().unwrap().to_string(), id);
        assert_eq!(list.nth(2), Some(&addr("[::1]:9000")));
        assert_eq!((list.nth(0), list.nth(4)), (None, None));
    }

    #[test]
    fn a_list_without_a_tracker_is_refused() {
        for text in ["", "\n\n", "# 127.0.0.1:9000\n"] {
            assert_eq!(TrackerList::parse(text), Err(TrackerListError::Empty));
        }
        assert_eq!(
            TrackerListError::Empty.to_string(),
            "the list has no tracker in it"
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let (line, text) = problem("# one\n127.0.0.1:9000\n\nnonsense\n");
        assert_eq!(
            (line, text.as_str()),
            (
                4,
                "'nonsense' is not a tracker's address: a port is missing (as in 127.0.0.1:9000)"
            )
        );
        let (line, text) = problem("127.0.0.1:65000");
        assert_eq!(line, 1);
        assert!(text.contains("port 65000 is out of range"), "{text}");
        let whole = TrackerList::parse("a:1\nb").unwrap_err().to_string();
        assert!(whole.starts_with("line 2: 'b' is not"), "{whole}");
    }

    #[test]
    fn ports_that_collide_are_named_with_both_lines() {
        let rule = "the ports of two trackers on one host must differ, and not by 1000";
        let (line, text) = problem("127.0.0.1:9000\n127.0.0.1:9001\n# x\n127.0.0.1:9000");
        assert_eq!(
            (line, text),
            (
                4,
                format!("127.0.0.1:9000 collides with 127.0.0.1:9000 of line 1: {rule}")
            )
        );
        let (line, text) = problem("a:9000\na:10000");
        assert_eq!(
            (line, text),
            (2, format!("a:10000 collides with a:9000 of line 1: {rule}"))
        );
        let (line, _) = problem("a:10000\n\nA:9000");
        assert_eq!(line, 3);
        assert!(TrackerList::parse("a:9000\nb:9000\nb:10001\nc:10000").is_ok());
    }

    #[test]
    fn the_ring_is_pinned_once_and_readably() {
        let id = "00".repeat(32);
        let (line, text) = problem(&format!("a:1\nring {id}\nring {id}"));
        assert_eq!(
            (line, text.as_str()),
            (3, "the ring is already given on line 2")
        );
        for bad in ["ring", "ring abcd", "ring \txyz"] {
            let (line, text) = problem(&format!("a:1\n{bad}"));
            assert_eq!(line, 2);
            assert!(text.starts_with("not a ring id: "), "{text}");
        }
        // A host may be called `ring`, or begin so.
        assert_eq!(
            TrackerList::parse("ring:9000\nringo:9000")
                .unwrap()
                .addrs()
                .len(),
            2
        );
    }

    #[test]
    fn a_list_is_bounded() {
        let text: String = (0..=TrackerList::MAX_LEN)
            .map(|n| format!("host{n}:9000\n"))
            .collect();
        let (line, text) = problem(&text);
        assert_eq!(
            (line, text.as_str()),
            (TrackerList::MAX_LEN + 1, "a list has at most 128 trackers")
        );
    }
}
