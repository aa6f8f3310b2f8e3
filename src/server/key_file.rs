//! Keys of the operator's, each in a file of its own.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a key file, which nobody else may read; `key` makes a key of its bytes, or `None` of too
/// few.
pub fn read<K>(path: &Path, key: impl FnOnce(&[u8]) -> Option<K>) -> Result<K, String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err("others may read this key: `chmod 600` it".into());
        }
    }
    let text = Zeroizing::new(fs::read(path).map_err(|error| error.to_string())?);
    let read = key(text.trim_ascii());
    read.ok_or_else(|| "it needs 32 bytes or more: `openssl rand -hex 32` makes them".into())
}
