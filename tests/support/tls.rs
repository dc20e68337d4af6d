//! A client's side of TLS: the certificate of a server is the only one it takes.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// After this long without a byte a test has failed: nothing is ever waited for by it.
const HANG: Duration = Duration::from_secs(20);

/// The beginning of a connection to a server whose certificate is in this file.
pub fn handshake(certificate: &Path) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("messenger").unwrap()).unwrap()
}

/// A socket on which nothing was said yet.
pub fn socket(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

/// An address of this machine that is not loopback, if there is one.
pub fn outer_ip() -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap();
    interfaces.iter().map(if_addrs::Interface::ip).find(|ip| ip.is_ipv4() && !ip.is_loopback())
}

/// One connection, encrypted.
pub struct TlsClient {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl TlsClient {
    /// Connects to a server whose certificate is in this file.
    pub fn connect(address: SocketAddr, certificate: &Path) -> Self {
        Self::new(socket(address), handshake(certificate))
    }

    pub fn new(stream: TcpStream, tls: ClientConnection) -> Self {
        Self { reader: BufReader::new(StreamOwned::new(tls, stream)) }
    }

    /// Sends a line; its line feed is added.
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
        self.reader.get_mut().flush().unwrap();
    }

    /// The next line, without its line feed; empty at the end of the connection, which must not be cut off.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the server says another line, or goodbye");
        line.trim_end_matches('\n').to_owned()
    }

    /// The next line that is a frame of a type; those before it are passed over.
    pub fn frame_of(&mut self, kind: &str) -> serde_json::Value {
        loop {
            let line = self.line();
            let frame: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?} is no frame: {error}"));
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Says that nothing more will be sent: in TLS, and with `of_socket` by the socket, too.
    pub fn end_input(&mut self, of_socket: bool) {
        let stream = self.reader.get_mut();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        if of_socket {
            stream.sock.shutdown(Shutdown::Write).unwrap();
        }
    }

    /// Ends the sending side of the socket without a goodbye.
    pub fn cut_input(&mut self) {
        self.reader.get_mut().sock.shutdown(Shutdown::Write).unwrap();
    }

    /// Bytes as they are on the way: what is sent through it is no record.
    pub fn raw(&mut self) -> &mut TcpStream {
        &mut self.reader.get_mut().sock
    }

    /// The bytes to come until the server ends the connection; whether it said goodbye.
    pub fn rest(mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let end = self.reader.read_to_end(&mut bytes);
        (bytes, end.is_ok())
    }
}
