//! Plain quinn, as the measure of what a transfer could be: one stream, bytes from memory, dropped on
//! arrival, with the windows, socket buffers and path MTU that p2pshare uses.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use quinn::{
    Endpoint, EndpointConfig, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::{Outcome, process::Usage};

/// Sends `bytes` to the one who comes, after printing where and with which certificate; prints its usage.
///
/// # Errors
/// If anything fails.
pub fn send(bytes: u64) -> Outcome<()> {
    run(async move {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let mut config =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport());
        let endpoint = endpoint(Some(config))?;
        let certificate: String = made.cert.der().iter().map(|b| format!("{b:02x}")).collect();
        println!("{} {certificate}", endpoint.local_addr()?);
        let connection = endpoint.accept().await.ok_or("nobody came")?.await?;
        let mut stream = connection.open_uni().await?;
        let block = Bytes::from(vec![7; 512 * 1024]);
        for _ in 0..bytes / block.len() as u64 {
            stream.write_chunk(block.clone()).await?;
        }
        stream.finish()?;
        connection.closed().await;
        println!("{}", Usage::own()?);
        Ok(())
    })
}

/// Receives all that is sent from `addr`; prints its usage.
///
/// # Errors
/// If anything fails.
pub fn receive(addr: SocketAddr, certificate: &str) -> Outcome<()> {
    let digits = certificate.as_bytes().chunks(2);
    let der = digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect::<Outcome<Vec<u8>>>()?;
    run(async move {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(der))?;
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(transport());
        let endpoint = endpoint(None)?;
        let connection = endpoint.connect_with(config, addr, "localhost")?.await?;
        let mut stream = connection.accept_uni().await?;
        let mut pieces = [const { Bytes::new() }; 32];
        while stream.read_chunks(&mut pieces).await?.is_some() {}
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        println!("{}", Usage::own()?);
        Ok(())
    })
}

fn run(work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a crypto provider is there already")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn endpoint(server: Option<quinn::ServerConfig>) -> Outcome<Endpoint> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let buffers = socket2::SockRef::from(&socket);
    buffers.set_recv_buffer_size(4 << 20)?;
    buffers.set_send_buffer_size(4 << 20)?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(6500)?;
    Ok(Endpoint::new(
        config,
        server,
        socket,
        Arc::new(TokioRuntime),
    )?)
}

fn transport() -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(6500);
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(16 << 20))
        .receive_window(VarInt::from_u32(32 << 20))
        .send_window(64 << 20)
        .mtu_discovery_config(Some(mtu))
        .keep_alive_interval(Some(Duration::from_secs(5)));
    Arc::new(config)
}
