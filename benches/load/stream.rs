//! A client's socket, in clear text or through TLS: either way reads and writes do as much as the system takes at once.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What all clients begin TLS with: they take the certificate in this file, and no other.
///
/// # Errors
/// The file is not there, or holds no certificate.
pub fn client_config(certificate: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let read = CertificateDer::from_pem_file(certificate);
    let mut roots = RootCertStore::empty();
    roots.add(read.with_context(|| format!("the server's certificate {}", certificate.display()))?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

pub struct Stream {
    pub socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    /// # Errors
    /// TLS cannot be done with the configuration.
    pub fn new(socket: TcpStream, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let Some(config) = tls else { return Ok(Self { socket, tls: None }) };
        // The name in certificates that the server makes.
        let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from("messenger")?)?;
        Ok(Self { socket, tls: Some(Box::new(connection)) })
    }

    /// Whether a read that did not fill its buffer has emptied the socket.
    pub fn is_read_at_once(&self) -> bool {
        self.tls.is_none()
    }

    /// # Errors
    /// Nothing is there (`WouldBlock`), or the connection is broken.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            let read = tls.read_tls(&mut self.socket);
            if read.is_ok() {
                tls.process_new_packets().map_err(io::Error::other)?;
            }
            send_records(&mut self.socket, tls)?;
            read?;
        }
    }

    /// # Errors
    /// It takes nothing now (`WouldBlock`), or the connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.write(bytes) };
        send_records(&mut self.socket, tls)?;
        let count = tls.writer().write(bytes)?;
        send_records(&mut self.socket, tls)?;
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// Sends records that wait, as far as the socket takes them.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |tls| send_records(&mut self.socket, tls))
    }
}

fn send_records(socket: &mut TcpStream, tls: &mut ClientConnection) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
