//! The file of this device's key: made once, readable by its owner only.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::failure::EngineError;
use super::identity::{self, Identity, KEY_BYTES};

/// More than a key of any kind that is read takes.
const FILE_BYTES_MAX: u64 = 1_024;

/// Reads the key, or makes one if there is none.
///
/// # Errors
/// The file cannot be read or made, holds no key, or can be read by others.
pub fn load_or_make(path: &Path) -> Result<Identity, EngineError> {
    let failed = |source: io::Error| EngineError::KeyFile { path: path.into(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(failed)?;
            File::open(path).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(EngineError::KeyOpen { path: path.into() });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Identity::from_private_key(&bytes).ok_or_else(|| EngineError::KeyBroken { path: path.into() })
}

/// Makes a key; whichever of two programs that start at once is first makes it for both.
fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut seed = [0; KEY_BYTES];
    getrandom::fill(&mut seed)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let made = write_new(&new, &identity::private_key(seed)).and_then(|()| std::fs::hard_link(&new, path));
    let _ = std::fs::remove_file(&new);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new").join("key");
        let first = load_or_make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(load_or_make(&path).unwrap().public_hex(), first.public_hex());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_ne!(load_or_make(&directory.path().join("other")).unwrap().public_hex(), first.public_hex());
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        load_or_make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_make(&path).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"not a key").unwrap();
        assert!(matches!(load_or_make(&path), Err(EngineError::KeyBroken { .. })));
    }
}
