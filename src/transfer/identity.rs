//! Who a device is: its Ed25519 key, and TLS 1.3 with raw public keys (RFC 7250), both sides pinned to known keys.

use std::fmt;
use std::sync::Arc;

use noq_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::message::PROTOCOL;

/// Bytes of an Ed25519 public key, and of the seed of a private one.
pub const KEY_BYTES: usize = 32;

/// PKCS#8 of an Ed25519 private key, before its seed (RFC 8410, section 7).
const PRIVATE_PREFIX: [u8; 16] = [0x30, 0x2E, 2, 1, 0, 0x30, 5, 6, 3, 0x2B, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// SubjectPublicKeyInfo of an Ed25519 key, before the key itself (RFC 8410, section 4).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2A, 0x30, 5, 6, 3, 0x2B, 0x65, 0x70, 3, 0x21, 0];

/// The public key of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerKey([u8; KEY_BYTES]);

impl PeerKey {
    /// A key that nobody holds.
    pub const NOBODY: Self = Self([0; KEY_BYTES]);

    /// Reads a key from its 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        // The hash type's own parser: it takes exactly 64 digits.
        Some(Self(*blake3::Hash::from_hex(text).ok()?.as_bytes()))
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        certificate.strip_prefix(&PUBLIC_PREFIX).is_some_and(|key| key == self.0)
    }
}

/// PKCS#8 of a new key with this random seed.
pub fn private_key(seed: [u8; KEY_BYTES]) -> Vec<u8> {
    [PRIVATE_PREFIX.as_slice(), &seed].concat()
}

/// This device's key, ready for handshakes.
pub struct Identity {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    public_hex: String,
}

impl Identity {
    /// Reads a key from its PKCS#8 form; `None` if it is no Ed25519 key.
    pub fn from_private_key(pkcs8: &[u8]) -> Option<Self> {
        let provider = Arc::new(provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let key = provider.key_provider.load_private_key(private).ok()?;
        let public = key.public_key()?;
        let public_key: [u8; KEY_BYTES] = public.strip_prefix(&PUBLIC_PREFIX)?.try_into().ok()?;
        // With raw keys the place of the certificate holds the key's SubjectPublicKeyInfo.
        let certificate = CertificateDer::from(public.to_vec());
        let public_hex = blake3::Hash::from_bytes(public_key).to_hex().to_string();
        Some(Self { provider, key: Arc::new(CertifiedKey::new(vec![certificate], key)), public_hex })
    }

    /// The public key, in hexadecimal.
    pub fn public_hex(&self) -> &str {
        &self.public_hex
    }

    /// What a sender needs to connect to the holder of `peer`, and to nobody else.
    pub fn client_config(&self, peer: PeerKey) -> Result<QuicClientConfig, Error> {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.pinned(peer)))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key))));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.try_into().map_err(|_| Error::General("the cipher of first packets is missing".into()))
    }

    /// What a receiver needs to let in the holder of `peer`, and nobody else.
    pub fn server_config(&self, peer: PeerKey) -> Result<QuicServerConfig, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(self.pinned(peer)))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key))));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.send_tls13_tickets = 0;
        config.try_into().map_err(|_| Error::General("the cipher of first packets is missing".into()))
    }

    fn pinned(&self, peer: PeerKey) -> Pinned {
        Pinned { peer, provider: Arc::clone(&self.provider) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.public_hex).finish_non_exhaustive()
    }
}

/// `ring`, with the cipher first that its AES instructions make cheapest.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_first =
        |suite: &rustls::SupportedCipherSuite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| !is_first(suite));
    provider
}

/// Accepts one key, for either side.
#[derive(Debug)]
struct Pinned {
    peer: PeerKey,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.peer.matches(certificate) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(certificate.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }
}

/// TLS 1.2 is never negotiated.
fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("only TLS 1.3 is spoken".into()))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_key_of_rfc_8032() {
        // RFC 8032, section 7.1, test 1.
        let seed = blake3::Hash::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let identity = Identity::from_private_key(&private_key(*seed.as_bytes())).unwrap();
        assert_eq!(identity.public_hex(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(Identity::from_private_key(b"").is_none());
        assert!(Identity::from_private_key(&private_key([7; 32])[..40]).is_none());
        assert_eq!(PeerKey::from_hex("d75a98"), None);
        assert_eq!(PeerKey::from_hex(&"x".repeat(64)), None);
    }
}
