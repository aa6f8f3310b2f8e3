//! The key of the ledger's fingerprints: the operator's file, or one made beside the ledger.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rand::Rng;
use zeroize::Zeroizing;

use super::key_file;
use crate::config::Config;
use crate::instrument::FingerprintKey;

/// The configured key, made if there is none yet. Errors say what to do.
pub fn open(config: &Config) -> Result<FingerprintKey, String> {
    match &config.store.fingerprint_key {
        Some(key) => read(&key.file)
            .map_err(|why| format!("[store] fingerprint_key {}: {why}", key.file.display())),
        None => beside(&config.store.file).map_err(|why| format!("[store] file: {why}")),
    }
}

/// `<ledger>.key`, readable by us alone.
fn beside(ledger: &Path) -> Result<FingerprintKey, String> {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".key");
    let path = PathBuf::from(name);
    let wrong = |error: io::Error| format!("cannot make {}: {error}", path.display());
    if !path.exists() {
        make(&path).map_err(wrong)?;
    }
    read(&path).map_err(|why| format!("{}: {why}", path.display()))
}

/// Writes a new key whole or not at all; one that somebody else has just made stays.
fn make(path: &Path) -> io::Result<()> {
    let mut random = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(&mut *random);
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in random.iter() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let temporary = path.with_extension(format!("key.{}", std::process::id()));
    let mut file = options.open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn read(path: &Path) -> Result<FingerprintKey, String> {
    key_file::read(path, FingerprintKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::Pan;

    fn visa(key: &FingerprintKey) -> String {
        key.card(&Pan::parse("4111111111111111").unwrap()).to_string()
    }

    #[test]
    fn a_key_is_made_once_and_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ringtill.db");
        let first = visa(&beside(&ledger).unwrap());
        assert_eq!(visa(&beside(&ledger).unwrap()), first);
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let path = folder.path().join("ringtill.db.key");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            assert!(beside(&ledger).unwrap_err().contains("`chmod 600` it"));
        }
        let other = folder.path().join("other.db");
        assert_ne!(visa(&beside(&other).unwrap()), first);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_of_the_operators_is_long_enough() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(file.path(), "short\n").unwrap();
        assert!(read(file.path()).unwrap_err().contains("openssl rand -hex 32"));
        fs::write(file.path(), "k".repeat(32)).unwrap();
        let bare = visa(&read(file.path()).unwrap());
        fs::write(file.path(), format!("{}\n", "k".repeat(32))).unwrap();
        assert_eq!(visa(&read(file.path()).unwrap()), bare);
    }
}
