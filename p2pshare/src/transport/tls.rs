//! TLS 1.3 in which both ends present a self-signed Ed25519 certificate. The handshake proves that each
//! end holds the key that its certificate names, which is all that is asked of it: names, dates and issuers
//! are not read. A dialer that expects somebody breaks off before it has shown who it is itself.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as TlsCertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, PeerMisbehaved, SignatureScheme,
};

use super::settings::Alpn;
use crate::identity::certificate::{CertificateError, certificate_of, peer_id_of};
use crate::identity::id::PeerId;
use crate::identity::key::SigningKey;

/// Whom a dialer takes for an answer.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(crate) enum Expect {
    /// Whoever is there, to be told apart by what it says later.
    Any,
    /// This one and nobody else.
    Peer(PeerId),
}

/// Why the other end's certificate was refused.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// It names nobody.
    Certificate(CertificateError),
    /// It names somebody else.
    OtherPeer(PeerId),
}

/// This end's identity in TLS, and what it asks of others.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    client: rustls::ClientConfig,
}

impl Tls {
    /// # Errors
    ///
    /// If rustls refuses the settings, which it does not do.
    pub(super) fn new(key: &SigningKey) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let certificate = certificate_of(key);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
        let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(&provider, Expect::Any))
            .with_client_auth_cert(vec![certificate.clone()], key.clone_key())?;
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;
        Ok(Self {
            provider,
            certificate,
            key,
            client,
        })
    }

    /// For an endpoint that accepts these protocols.
    ///
    /// # Errors
    ///
    /// If rustls refuses the settings, which it does not do.
    pub(super) fn server(&self, accept: &[Alpn]) -> Result<QuicServerConfig, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Verifier::new(&self.provider, Expect::Any))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.alpn_protocols = accept.iter().map(|alpn| alpn.name().into()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map_err(no_initial_suite)
    }

    /// For one connection that is dialed, and where its verdict over the certificate will be.
    ///
    /// # Errors
    ///
    /// If rustls refuses the settings, which it does not do.
    pub(super) fn client(
        &self,
        alpn: Alpn,
        expect: Expect,
    ) -> Result<(QuicClientConfig, Arc<Verifier>), Error> {
        let verifier = Verifier::new(&self.provider, expect);
        let mut config = self.client.clone();
        config.alpn_protocols = vec![alpn.name().into()];
        config
            .dangerous()
            .set_certificate_verifier(verifier.clone());
        let config = QuicClientConfig::try_from(config).map_err(no_initial_suite)?;
        Ok((config, verifier))
    }
}

/// Who is at the other end of a connection, once the handshake is over; nobody, if the two agreed on no protocol.
pub(super) fn remote_of(connection: &quinn::Connection) -> Option<PeerId> {
    let certificates = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    let handshake = connection
        .handshake_data()?
        .downcast::<HandshakeData>()
        .ok()?;
    Alpn::from_name(handshake.protocol.as_deref()?)?;
    peer_id_of(certificates.first()?).ok()
}

/// Judges the certificate and the handshake's signature of the other end.
#[derive(Debug)]
pub(super) struct Verifier {
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
    refused: OnceLock<Refused>,
}

impl Verifier {
    fn new(provider: &CryptoProvider, expect: Expect) -> Arc<Self> {
        Arc::new(Self {
            expect,
            algorithms: provider.signature_verification_algorithms,
            refused: OnceLock::new(),
        })
    }

    /// Why the certificate was refused, if it was.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused.get().copied()
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let (refused, error) = match (peer_id_of(certificate), self.expect) {
            (Ok(_), Expect::Any) => return Ok(()),
            (Ok(found), Expect::Peer(expected)) if found == expected => return Ok(()),
            (Ok(found), Expect::Peer(_)) => (
                Refused::OtherPeer(found),
                TlsCertificateError::ApplicationVerificationFailure,
            ),
            (Err(error), _) => (
                Refused::Certificate(error),
                TlsCertificateError::Other(OtherError(Arc::new(error))),
            ),
        };
        // Each dial has a verifier of its own; the one of an accepting endpoint is shared, and there
        // nobody asks.
        _ = self.refused.set(refused);
        Err(error.into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// ring, with AES-128-GCM in front: it is the fastest where the processor helps with AES.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.tls13().is_some());
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

fn no_initial_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> Error {
    Error::General(error.to_string())
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;
    use crate::transport::close::CloseCode;
    use crate::transport::endpoint::ConnectError;
    use crate::transport::memory::Network;
    use crate::transport::{Endpoint, EndpointConfig, Profile};

    /// A self-signed certificate with an RSA key of 1,024 bits.
    const RSA: &str = "MIIB3jCCAUegAwIBAgIUeR8+BoD3C6+uPs0cpCIbUV1qFX8wDQYJKoZIhvcNAQELBQAwADAgFw0yNjExMjMxOTEz\
        MTdaGA8yMTI2MTAzMDE5MTMxN1owADCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEAtRJb5g41Us/He2A4ndvf\
        5HhHpRjFwEw7P73mCl1w4gK4x4ra7jGFdeEk045cFNI11Hyq1FFTRxLSP31sBZVbvYLD/jXIOXbvEcLmHu1TtCEI\
        l1CDg3VhCkKXc7TTe4lZSDSg6h9tAZK0JyeUBvSu/dwZ7JndiJD6hVwK44VRbZECAwEAAaNTMFEwHQYDVR0OBBYE\
        FH22VZzGbzK7NqLkGrSWW/4bqeedMB8GA1UdIwQYMBaAFH22VZzGbzK7NqLkGrSWW/4bqeedMA8GA1UdEwEB/wQF\
        MAMBAf8wDQYJKoZIhvcNAQELBQADgYEAT7wbz5/vAzIde3TyFXiAqKvoXBQO54Ikah3CY0K9Lfdxn5iV/7xTj8lL\
        KmmHlRu3zLuVs07zQx6EC36YkgHXTAb7I2dyLg9qYBsrlU9FoBRFp3+LcsiiNpZ6dt8ggpvQh9p0ePvSp4MIq2G5\
        /PlLN2rpToyZ/f3c72yV/Yr9nUU=";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn id(seed: u8) -> PeerId {
        key(seed).verifying_key().into()
    }

    fn tracker(network: &Network) -> Endpoint {
        let socket = network.bind(([10, 0, 0, 1], 9000).into()).unwrap();
        let config = EndpointConfig::listener(key(1), Profile::Tracker, vec![Alpn::Tracker]);
        Endpoint::bind_on(socket, config).unwrap()
    }

    fn ecdsa() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::default().self_signed(&pair).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        (certificate.der().clone(), key)
    }

    /// How a connection to a tracker ends that is dialed with these settings.
    async fn intrude(config: rustls::ClientConfig) -> quinn::ConnectionError {
        let network = Network::new(1);
        let tracker = tracker(&network);
        let mut config = config;
        config.alpn_protocols = vec![Alpn::Tracker.name().into()];
        let intruder = quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            None,
            network.bind(([10, 0, 0, 2], 9000).into()).unwrap(),
            Arc::new(quinn::TokioRuntime),
        )
        .unwrap();
        let config = QuicClientConfig::try_from(config).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(config));
        let dialed = intruder.connect_with(config, tracker.local_addr(), "x");
        let ending = async {
            match dialed.unwrap().await {
                Ok(connection) => connection.closed().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            connection = tracker.accept() => panic!("accepted {connection:?}"),
            error = ending => error,
        }
    }

    fn builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(&provider, Expect::Any);
        rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    }

    fn alert(error: &quinn::ConnectionError) -> u64 {
        match error {
            quinn::ConnectionError::ConnectionClosed(close) => {
                u64::from(close.error_code).wrapping_sub(0x100)
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_shows_no_certificate_is_refused() {
        let error = intrude(builder().with_no_client_auth()).await;
        assert_eq!(alert(&error), 116, "{error:?}"); // certificate_required
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_only_sign_with_ecdsa_is_refused() {
        let (certificate, key) = ecdsa();
        let config = builder().with_client_auth_cert(vec![certificate], key);
        let error = intrude(config.unwrap()).await;
        assert_eq!(alert(&error), 116, "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_copied_certificate_is_of_no_use_without_its_key() {
        #[derive(Debug)]
        struct Thief(Arc<rustls::sign::CertifiedKey>);
        impl rustls::client::ResolvesClientCert for Thief {
            fn resolve(
                &self,
                _: &[&[u8]],
                _: &[SignatureScheme],
            ) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(self.0.clone())
            }
            fn has_certs(&self) -> bool {
                true
            }
        }
        let own = PrivatePkcs8KeyDer::from(key(3).pkcs8_der().to_vec());
        let own = rustls::crypto::ring::sign::any_eddsa_type(&own).unwrap();
        let stolen = rustls::sign::CertifiedKey::new(vec![certificate_of(&key(2))], own);
        let config = builder().with_client_cert_resolver(Arc::new(Thief(Arc::new(stolen))));
        let error = intrude(config).await;
        assert_eq!(alert(&error), 51, "{error:?}"); // decrypt_error
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_without_an_ed25519_key_is_refused() {
        let network = Network::new(1);
        let (certificate, key_of_listener) = ecdsa();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key_of_listener)
            .unwrap();
        server.alpn_protocols = vec![Alpn::Peer.name().into()];
        let server = QuicServerConfig::try_from(server).unwrap();
        let listener = quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            Some(quinn::ServerConfig::with_crypto(Arc::new(server))),
            network.bind(([10, 0, 0, 1], 9000).into()).unwrap(),
            Arc::new(quinn::TokioRuntime),
        )
        .unwrap();
        let socket = network.bind(([10, 0, 0, 2], 9000).into()).unwrap();
        let dialer = Endpoint::bind_on(socket, EndpointConfig::dialer(key(2))).unwrap();
        let addr = listener.local_addr().unwrap();
        let dial = dialer.connect(addr, Alpn::Peer, Expect::Any);
        let (error, _) = tokio::join!(dial, async { listener.accept().await.unwrap().await });
        let error = error.unwrap_err();
        assert!(matches!(error, ConnectError::Failed { .. }), "{error}");
    }

    #[test]
    fn certificates_are_judged_by_their_key_alone() {
        let verdict = |certificate: &CertificateDer<'_>, expect| {
            let verifier = Verifier::new(&provider(), expect);
            match verifier.check(certificate) {
                Ok(()) => Ok(()),
                Err(_) => Err(verifier.refused().unwrap()),
            }
        };
        let one = certificate_of(&key(1));
        assert_eq!(verdict(&one, Expect::Any), Ok(()));
        assert_eq!(verdict(&one, Expect::Peer(id(1))), Ok(()));
        assert_eq!(
            verdict(&one, Expect::Peer(id(2))),
            Err(Refused::OtherPeer(id(1)))
        );
        let no_ed25519 = Err(Refused::Certificate(CertificateError::NotEd25519));
        assert_eq!(verdict(&ecdsa().0, Expect::Any), no_ed25519);
        let rsa = CertificateDer::from(BASE64.decode(RSA.as_bytes()).unwrap());
        assert_eq!(verdict(&rsa, Expect::Any), no_ed25519);
        assert_eq!(
            verdict(&CertificateDer::from(&b"garbage"[..]), Expect::Any),
            Err(Refused::Certificate(CertificateError::Malformed))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_expected_peer_is_told_apart_before_the_dialer_shows_itself() {
        let network = Network::new(1);
        let tracker = tracker(&network);
        let socket = network.bind(([10, 0, 0, 2], 9000).into()).unwrap();
        let dialer = Endpoint::bind_on(socket, EndpointConfig::dialer(key(2))).unwrap();
        let addr = tracker.local_addr();
        let error = tokio::select! {
            connection = tracker.accept() => panic!("accepted {connection:?}"),
            dialed = dialer.connect(addr, Alpn::Tracker, Expect::Peer(id(7))) => dialed.unwrap_err(),
        };
        let wrong = ConnectError::WrongPeer {
            addr,
            expected: id(7),
            found: id(1),
        };
        assert_eq!(error, wrong);
        assert_eq!(
            error.to_string(),
            format!("10.0.0.1:9000 is {}, where {} was expected", id(1), id(7))
        );
        tracker.close(CloseCode::Done);
        assert!(tracker.accept().await.is_none());
    }

    #[test]
    fn only_tls_13_and_aes_128_first() {
        let suites = provider().cipher_suites;
        assert!(suites.iter().all(|suite| suite.tls13().is_some()));
        assert_eq!(suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(suites.len(), 3);
    }
}
