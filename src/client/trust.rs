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
        let was_told = self.demanded.is_some();
        let file = self.known.file();
        match self.known.set(&self.server, shown, self.pinned, was_told) {
            Ok(()) => {}
            // It is the one that was asked for, known or not.
            Err(error) if was_told => {
                self.pinned = Some(shown);
                return Ok(Some(format!(
                    "The key of {} could not be kept in {}: {error}.",
                    self.server,
                    file.display()
                )));
            }
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", file.display())));
            }
        }
        let before = self.pinned.replace(shown);
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

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// A certificate, and its key or another one.
    fn certified(has_its_key: bool) -> CertifiedKey {
        let (own, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let certificate = rcgen::CertificateParams::new([]).unwrap().self_signed(&own).unwrap();
        let key = PrivateKeyDer::try_from(if has_its_key { own } else { other }.serialize_der()).unwrap();
        CertifiedKey::new(vec![certificate.der().clone()], ring::sign::any_supported_type(&key).unwrap())
    }

    /// A handshake in memory: the client's word on it.
    fn shake_hands(trust: &Trust, server: &CertifiedKey) -> Result<(), Error> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(server.clone())));
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        let mut client = trust.connection().unwrap();
        while client.is_handshaking() {
            let mut records = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut records).unwrap();
            }
            server.read_tls(&mut records.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            client.read_tls(&mut answer.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn trust(directory: &tempfile::TempDir, demanded: Option<Fingerprint>) -> Trust {
        Trust::new("chat:5000", KnownServers::new(directory.path()), demanded).unwrap()
    }

    #[test]
    fn a_certificate_without_its_key_convinces_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (honest, thief) = (certified(true), certified(false));
        let known = key_of(&thief.cert[0]).unwrap();
        assert_eq!(shake_hands(&trust(&directory, None), &honest), Ok(()));
        for trust in [trust(&directory, None), trust(&directory, Some(known))] {
            let refused = shake_hands(&trust, &thief).unwrap_err();
            assert_eq!(refused, CertificateError::BadSignature.into());
        }
    }

    #[test]
    fn what_was_seen_first_is_wanted_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let (first, other) = (certified(true), certified(true));
        let [wanted, shown] = [&first, &other].map(|key| key_of(&key.cert[0]).unwrap());
        let mut seeing = trust(&directory, None);
        assert!(
            seeing.handle_connected(&first.cert[0]).unwrap().is_some_and(|news| news.contains(&wanted.to_string()))
        );
        assert_eq!(seeing.handle_connected(&first.cert[0]).unwrap(), None);
        for trust in [seeing, trust(&directory, None)] {
            assert_eq!(shake_hands(&trust, &first), Ok(()));
            let refused = shake_hands(&trust, &other).unwrap_err();
            assert_eq!(WrongKey::of(&refused), Some(WrongKey { wanted, shown }));
        }
        assert_eq!(shake_hands(&trust(&directory, Some(shown)), &other), Ok(()));
        assert!(shake_hands(&trust(&directory, Some(shown)), &first).is_err());
    }
}
