//! Somebody who speaks QUIC and the frames of trackers by himself, from whatever address of this machine he wants.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};

/// An endpoint with a key of its own.
pub(crate) struct Attacker {
    pub(crate) endpoint: Endpoint,
    config: ClientConfig,
    tracker: SocketAddr,
}

impl Attacker {
    /// One at `127.0.x.y`, for `host` = 256 x + y.
    pub(crate) fn new(host: u16, tracker: SocketAddr) -> Self {
        Self::reading(host, tracker, VarInt::from_u32(1 << 20))
    }

    /// One that takes no more than so many bytes of each answer.
    pub(crate) fn reading(host: u16, tracker: SocketAddr, window: VarInt) -> Self {
        let endpoint = Endpoint::client((address(host), 0).into()).unwrap();
        let config = client_config(window);
        Self {
            endpoint,
            config,
            tracker,
        }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    pub(crate) async fn connect(&self) -> Result<Connection, quinn::ConnectionError> {
        self.connect_to(self.tracker).await
    }

    pub(crate) async fn connect_to(
        &self,
        addr: SocketAddr,
    ) -> Result<Connection, quinn::ConnectionError> {
        let config = self.config.clone();
        let connecting = self.endpoint.connect_with(config, addr, "x").unwrap();
        connecting.await
    }
}

/// `127.0.x.y`, for `host` = 256 x + y: each is a prefix of its own.
pub(crate) fn address(host: u16) -> Ipv4Addr {
    let [x, y] = host.to_be_bytes();
    Ipv4Addr::new(127, 0, x, y)
}

/// The kinds of requests, by their place in the enum.
pub(crate) mod request {
    pub(crate) const HELLO: &[u8] = &[0];
    pub(crate) const LIST_GROUPS: &[u8] = &[6, 0];

    pub(crate) fn create_user(user: &str, password: &str) -> Vec<u8> {
        let change = super::change();
        [&[1][..], &change, &text(user), &text(password)].concat()
    }

    pub(crate) fn login(user: &str, password: &str) -> Vec<u8> {
        [&[2][..], &super::change(), &text(user), &text(password)].concat()
    }

    /// A group for members alone.
    pub(crate) fn create_group(group: &str) -> Vec<u8> {
        [&[5][..], &super::change(), &text(group), &[0]].concat()
    }

    pub(crate) fn publish(group: &str, name: &str) -> Vec<u8> {
        let content = [&[1; 32][..], &[1], &[2; 32]].concat();
        [
            &[13][..],
            &super::change(),
            &text(group),
            &text(name),
            &content,
        ]
        .concat()
    }

    pub(crate) fn list_files(group: &str) -> Vec<u8> {
        [&[14][..], &text(group), &[0]].concat()
    }

    /// Of so many files, with as long a bitfield as fits.
    pub(crate) fn announce(files: usize, group: &str) -> Vec<u8> {
        let bits = 250_000 / files;
        let mut body = vec![19, 0, 0, 1, files as u8 | 0x80, (files >> 7) as u8];
        for n in 0..files {
            let length = [bits as u8 | 0x80, (bits >> 7) as u8];
            body.extend(
                [
                    &text(group),
                    &text(&n.to_string()),
                    &[7; 32][..],
                    &[2],
                    &length,
                ]
                .concat(),
            );
            body.resize(body.len() + bits, 0xff);
        }
        body
    }

    fn text(text: &str) -> Vec<u8> {
        let (low, high) = (text.len() & 0x7f, text.len() >> 7);
        let length = match high {
            0 => vec![low as u8],
            high => vec![low as u8 | 0x80, high as u8],
        };
        [&length, text.as_bytes()].concat()
    }
}

/// What a tracker says, by its place in the enum.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    InvalidCredentials,
    TooManyAttempts,
    Busy,
    LoggedIn,
    Other(Vec<u8>),
}

impl Answer {
    fn of(body: &[u8]) -> Self {
        match body {
            [0, 1, ..] => Self::InvalidCredentials,
            [0, 2, ..] => Self::TooManyAttempts,
            [0, 22, ..] => Self::Busy,
            [3, ..] => Self::LoggedIn,
            other => Self::Other(other.to_vec()),
        }
    }
}

/// Asks and gives the answer, or `None` if the connection is lost.
pub(crate) async fn ask(connection: &Connection, body: &[u8]) -> Option<Answer> {
    let (_send, mut receive) = send(connection, body).await?;
    let answer = receive.read_to_end(2 << 20).await.ok()?;
    Some(Answer::of(answer.get(HEADER_BYTES..)?))
}

/// Asks, and reads nothing.
pub(crate) async fn send(connection: &Connection, body: &[u8]) -> Option<(SendStream, RecvStream)> {
    let (mut send, receive) = connection.open_bi().await.ok()?;
    send.write_all(&frame(body)).await.ok()?;
    send.finish().ok()?;
    Some((send, receive))
}

pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&[1, 1][..], &length, body].concat()
}

fn change() -> Vec<u8> {
    [&rand::random::<[u8; 16]>()[..], &[0]].concat()
}

fn client_config(window: VarInt) -> ClientConfig {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(vec![certificate.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"p2pshare-tracker/1".to_vec()];
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(window)
        .keep_alive_interval(Some(Duration::from_secs(5)));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

/// Takes every tracker for the right one.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

const HEADER_BYTES: usize = 6;
