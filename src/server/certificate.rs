//! The server's certificate and its key: made at the first start and kept, or the operator's own.
//!
//! Clients pin the key, so a certificate of one's own signing is as good as any: names and dates in it mean nothing here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::{Error, ServerConfig};

use super::tls::server_config;
use crate::eventlog::storage::{make_directory, open_file};
use crate::protocol::Fingerprint;

/// More than a chain of certificates takes, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// The name in a certificate that is made here.
const OWN_NAME: &str = "messenger";

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The system refuses a file.
    #[error("{path} cannot be {done}: {source}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What was tried with it.
        done: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what} in PEM form: {why}")]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The key is another certificate's.
    #[error("the key {key} is not that of the certificate {certificate}: name two files that belong together")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// TLS cannot be done with it.
    #[error("the certificate {certificate} with the key {key} cannot be used: {why}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        why: Error,
    },
    /// The server's own key can be read by others.
    #[error("the key {0} can be read by others: take that away with chmod 600")]
    Open(PathBuf),
    /// The key of the server's own certificate is gone.
    #[error(
        "{certificate} is there, but its key {key} is not: put it back, or move the certificate elsewhere, and a new pair is made"
    )]
    NoKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The two files.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    /// Whether they are the server's own: then it makes them, and the key is nobody else's.
    is_own: bool,
}

/// What handshakes are made with.
#[derive(Debug)]
pub struct Certificate {
    /// For connections to come.
    pub config: Arc<ServerConfig>,
    /// Of the public key: what clients pin.
    pub fingerprint: Fingerprint,
}

impl CertificateFiles {
    /// Files of the operator.
    pub fn given(certificate: &Path, key: &Path) -> Self {
        Self { certificate: certificate.to_owned(), key: key.to_owned(), is_own: false }
    }

    /// Those that the server keeps in its data directory.
    pub fn own(data: &Path) -> Self {
        let directory = data.join("tls");
        Self { certificate: directory.join("cert.pem"), key: directory.join("key.pem"), is_own: true }
    }

    /// Reads the certificate and its key; the server's own are made where there are none.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn load(&self) -> Result<Certificate, CertificateError> {
        if self.is_own && !is_there(&self.certificate)? {
            self.make()?;
        }
        self.read()
    }

    /// Reads them again. None is made: whoever took them away did not ask for another key, which no client would know.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn read(&self) -> Result<Certificate, CertificateError> {
        let certificate = read_file(&self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| broken(&self.certificate, "certificate", &error))?;
        let Some(leaf) = chain.first() else {
            return Err(broken(&self.certificate, "certificate", &pem::Error::NoItemsFound));
        };
        let unreadable = |error: Error| CertificateError::Broken {
            path: self.certificate.clone(),
            what: "certificate",
            why: error.to_string(),
        };
        let public_key = ParsedCertificate::try_from(leaf).map_err(unreadable)?.subject_public_key_info();
        let fingerprint = Fingerprint::of(&public_key);
        let key = self.read_key()?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| broken(&self.key, "private key", &error))?;
        match server_config(chain, key) {
            Ok(config) => Ok(Certificate { config, fingerprint }),
            Err(Error::InconsistentKeys(_)) => {
                Err(CertificateError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() })
            }
            Err(why) => {
                Err(CertificateError::Unusable { certificate: self.certificate.clone(), key: self.key.clone(), why })
            }
        }
    }

    fn read_key(&self) -> Result<Vec<u8>, CertificateError> {
        if self.is_own {
            if !is_there(&self.key)? {
                return Err(CertificateError::NoKey { certificate: self.certificate.clone(), key: self.key.clone() });
            }
            let found = std::fs::metadata(&self.key).map_err(|source| disk(&self.key, "read", source))?;
            if found.mode() & 0o077 != 0 {
                return Err(CertificateError::Open(self.key.clone()));
            }
        }
        read_file(&self.key)
    }

    /// Makes a certificate, with the key that is there or a new one: a crash leaves no certificate without its key.
    fn make(&self) -> Result<(), CertificateError> {
        let directory = self.certificate.parent().unwrap_or(Path::new("."));
        make_directory(directory).map_err(|source| disk(directory, "made", source))?;
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |error: rcgen::Error| CertificateError::Broken { path, what: "private key", why: error.to_string() }
        };
        let key = if is_there(&self.key)? {
            let text = String::from_utf8_lossy(&self.read_key()?).into_owned();
            KeyPair::from_pem(&text).map_err(refused(&self.key))?
        } else {
            // ECDSA with P-256 and SHA-256: known to every client of TLS 1.3 (RFC 8446, section 9.1).
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(refused(&self.key))?;
            write_anew(&self.key, key.serialize_pem().as_bytes(), 0o600)?;
            key
        };
        let mut params = CertificateParams::new([OWN_NAME.to_owned()]).map_err(refused(&self.certificate))?;
        params.distinguished_name.push(DnType::CommonName, OWN_NAME);
        // It has no end (RFC 5280, section 4.1.2.5): clients know the key, and the operator changes it.
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        let certificate = params.self_signed(&key).map_err(refused(&self.certificate))?;
        write_anew(&self.certificate, certificate.pem().as_bytes(), 0o600)
    }
}

fn is_there(path: &Path) -> Result<bool, CertificateError> {
    // A link that leads nowhere is there: what it led to is not made anew.
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(disk(path, "read", error)),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    let read = open_file(OpenOptions::new().read(true), path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .and_then(|count| match count as u64 > FILE_BYTES_MAX {
            true => {
                Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {FILE_BYTES_MAX} bytes")))
            }
            false => Ok(()),
        });
    read.map(|()| bytes).map_err(|source| disk(path, "read", source))
}

/// Puts a file in its place, whole or not at all, and durably.
fn write_anew(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertificateError> {
    let new = path.with_extension("new");
    let written = || {
        let mut file = open_file(OpenOptions::new().write(true).create(true).truncate(true).mode(mode), &new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|source| disk(path, "written", source))
}

fn disk(path: &Path, done: &'static str, source: io::Error) -> CertificateError {
    CertificateError::Disk { path: path.to_owned(), done, source }
}

fn broken(path: &Path, what: &'static str, error: &pem::Error) -> CertificateError {
    let why = match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        error => error.to_string(),
    };
    CertificateError::Broken { path: path.to_owned(), what, why }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_its_owners_only() {
        let data = tempfile::tempdir().unwrap();
        let files = CertificateFiles::own(data.path());
        let first = files.load().unwrap().fingerprint;
        assert_eq!(mode(&data.path().join("tls")), 0o700);
        assert_eq!(mode(&files.key), 0o600);
        assert_eq!(fs::read_dir(data.path().join("tls")).unwrap().count(), 2);
        assert_eq!(files.load().unwrap().fingerprint, first);
        assert_ne!(CertificateFiles::own(&data.path().join("other")).load().unwrap().fingerprint, first);
    }

    #[test]
    fn a_certificate_that_is_gone_is_made_for_the_key_that_clients_know() {
        let data = tempfile::tempdir().unwrap();
        let files = CertificateFiles::own(data.path());
        let first = files.load().unwrap().fingerprint;
        fs::remove_file(&files.certificate).unwrap();
        assert_eq!(files.load().unwrap().fingerprint, first);
        fs::remove_file(&files.key).unwrap();
        assert!(matches!(files.load(), Err(CertificateError::NoKey { .. })));
    }

    #[test]
    fn what_does_not_belong_together_or_is_none_is_refused_by_name() {
        let data = tempfile::tempdir().unwrap();
        let one = CertificateFiles::own(&data.path().join("one"));
        let other = CertificateFiles::own(&data.path().join("other"));
        one.load().unwrap();
        other.load().unwrap();
        let said =
            |certificate: &Path, key: &Path| CertificateFiles::given(certificate, key).load().unwrap_err().to_string();
        assert!(said(&one.certificate, &other.key).contains("is not that of the certificate"));
        assert!(said(&one.key, &one.key).contains("one/tls/key.pem holds no certificate in PEM form: there is none"));
        assert!(said(&one.certificate, &one.certificate).contains("one/tls/cert.pem holds no private key"));
        assert!(said(&data.path().join("none"), &one.key).contains("none cannot be read: "));
        assert!(said(data.path(), &one.key).contains("cannot be read: "));
        let text = fs::read_to_string(&one.certificate).unwrap();
        fs::write(&one.certificate, text.replacen("MII", "AAA", 1)).unwrap();
        assert!(said(&one.certificate, &one.key).contains("one/tls/cert.pem holds no certificate"));
    }

    #[test]
    fn an_own_key_that_others_can_read_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let files = CertificateFiles::own(data.path());
        files.load().unwrap();
        fs::set_permissions(&files.key, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(files.load(), Err(CertificateError::Open(_))));
        assert!(
            CertificateFiles::given(&files.certificate, &files.key).load().is_ok(),
            "an operator's may be a group's"
        );
    }
}
