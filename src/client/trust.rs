//! Whom a client takes for its server: the key it was told of, the key it saw first, or, the first time, any.
//!
//! Names and dates of certificates are not looked at: the key is what is known. That the server has it is what its
//! signature in the handshake shows.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, OtherError, SignatureScheme,
};

use super::known_servers::KnownServers;
use crate::protocol::Fingerprint;

/// A server showed another key than the one that is known of it, or was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's key is {shown}, not {wanted}")]
pub struct WrongKey {
    wanted: Fingerprint,
    shown: Fingerprint,
}

impl WrongKey {
    /// The one that ended a handshake, if it was that.
    pub(super) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => other.downcast_ref().copied(),
            _ => None,
        }
    }
}

/// What is known of a server's key.
#[derive(Debug)]
pub struct Trust {
    /// `HOST:PORT`, under which the key is kept.
    server: String,
    known: KnownServers,
    /// The key the user asks for: of the public key, or of the whole certificate.
    demanded: Option<Fingerprint>,
    /// The key that was kept.
    pinned: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// What is known of a server; `demanded` is what the user says.
    ///
    /// # Errors
    /// What was kept cannot be read.
    pub fn new(server: &str, known: KnownServers, demanded: Option<Fingerprint>) -> io::Result<Self> {
        let pinned = known.get(server)?;
        Ok(Self { server: server.to_owned(), known, demanded, pinned, provider: Arc::new(ring::default_provider()) })
    }

    /// A connection on which only the right server is spoken to.
    pub(super) fn connection(&self) -> Result<ClientConnection, Error> {
        let wanted = match (self.demanded, self.pinned) {
            (Some(demanded), _) => Wanted::KeyOrCertificate(demanded),
            (None, Some(pinned)) => Wanted::Key(pinned),
            (None, None) => Wanted::Any,
        };
        let verifier = Verifier { wanted, provider: Arc::clone(&self.provider) };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // Each connection is to prove the key, and says to nobody on the way whom it is for.
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // No name is looked at; any will do.
        let name = ServerName::from(std::net::Ipv4Addr::UNSPECIFIED);
        ClientConnection::new(Arc::new(config), name)
    }

    /// Takes the certificate that a handshake has ended with, and keeps its key; gives a notice where that is news.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(super) fn handle_connected(&mut self, certificate: &CertificateDer<'_>) -> io::Result<Option<String>> {
        let shown = key_of(certificate).map_err(io::Error::other)?;
        if self.pinned == Some(shown) {
            return Ok(None);
        }
        self.known.set(&self.server, shown)?;
        let was_told = self.demanded.is_some();
        let before = self.pinned.replace(shown);
        let file = self.known.file();
        Ok(match (was_told, before) {
            // The user knows it.
            (true, None) => None,
            (_, Some(before)) => Some(format!(
                "The key of {} is {shown} from now on, as you say; {before} in {} gave way.",
                self.server,
                file.display()
            )),
            (false, None) => Some(format!(
                "The key of {} was not known yet: it is {shown}, and kept in {}. Compare it with the fingerprint that the \
                 server says at its start.",
                self.server,
                file.display()
            )),
        })
    }

    /// Words for a wrong key.
    pub(super) fn refusal(&self, wrong: WrongKey) -> String {
        let WrongKey { wanted, shown } = wrong;
        let server = &self.server;
        if self.demanded.is_some() {
            return format!(
                "{server} shows the key {shown}, and --tls-fingerprint asks for {wanted}: nothing was sent. Ask the \
                 operator for the fingerprint, for somebody else may be answering."
            );
        }
        format!(
            "THE KEY OF {server} HAS CHANGED: {wanted} is known, it shows {shown}, and nothing was sent. Somebody else may \
             be answering. If the operator says that the new key is right, connect once with --tls-fingerprint {shown}; the \
             old one is in {}.",
            self.known.file().display()
        )
    }
}

/// Which keys are taken.
#[derive(Debug)]
enum Wanted {
    Any,
    Key(Fingerprint),
    KeyOrCertificate(Fingerprint),
}

#[derive(Debug)]
struct Verifier {
    wanted: Wanted,
    provider: Arc<CryptoProvider>,
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    Ok(Fingerprint::of(&ParsedCertificate::try_from(certificate)?.subject_public_key_info()))
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
        let shown = key_of(end_entity)?;
        let wanted = match self.wanted {
            Wanted::Any => return Ok(ServerCertVerified::assertion()),
            Wanted::KeyOrCertificate(wanted) if wanted == Fingerprint::of(end_entity) => {
                return Ok(ServerCertVerified::assertion());
            }
            Wanted::Key(wanted) | Wanted::KeyOrCertificate(wanted) => wanted,
        };
        if wanted == shown {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::Other(OtherError(Arc::new(WrongKey { wanted, shown }))).into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
