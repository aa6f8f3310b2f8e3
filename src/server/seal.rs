//! What is kept sealed, recordings and account numbers: AES-256-GCM under a key of the operator's,
//! bound to a name.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::server::key_file;

/// Of a sealed recording, after `.wav`.
pub const ENDING: &str = ".sealed";
/// Opens what is sealed; then the nonce, then the content with its tag.
const MAGIC: &[u8; 8] = b"RTSEAL1\n";
const KEY_BYTES_MIN: usize = 32;

/// What a key is for: the same file gives another key for each.
#[derive(Clone, Copy)]
pub enum Purpose {
    Authorisations,
    Accounts,
}

/// Seals and opens.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// Reads a key file, which nobody else may read: 32 bytes or more, in any form.
    pub fn read(path: &Path, purpose: Purpose) -> Result<Key, String> {
        key_file::read(path, |secret| Key::new(secret, purpose))
    }

    pub fn new(secret: &[u8], purpose: Purpose) -> Option<Key> {
        if secret.len() < KEY_BYTES_MIN {
            return None;
        }
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(match purpose {
            Purpose::Authorisations => b"ringtill authorisation\0",
            Purpose::Accounts => b"ringtill bank account\0",
        });
        context.update(secret);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(context.finish().as_ref());
        Some(Key(key))
    }

    /// It opens under this name and no other.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        let mut sealed = plain.to_vec();
        let nonce = self.aead()?.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed);
        let nonce = nonce.map_err(|_| "sealing failed")?;
        Ok([&MAGIC[..], nonce.as_ref(), &sealed].concat())
    }

    /// Whatever of it was changed, or under another key, it does not open.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let rest = sealed.strip_prefix(MAGIC).ok_or("this was not sealed by us")?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or("it was cut short")?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| "no nonce")?;
        let mut content = Zeroizing::new(rest.to_vec());
        let plain = self.aead()?.open_in_place(nonce, Aad::from(name.as_bytes()), &mut content);
        let len = plain.map_err(|_| "another key sealed it, or it was changed or renamed")?.len();
        content.truncate(len);
        Ok(content)
    }

    fn aead(&self) -> Result<RandomizedNonceKey, String> {
        RandomizedNonceKey::new(&AES_256_GCM, &*self.0).map_err(|_| "no such key".into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_and_name_alone() {
        let key = Key::new(&[7; 32], Purpose::Authorisations).unwrap();
        let sealed = key.seal("a-1", b"sound").unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"sound"));
        assert_ne!(sealed, key.seal("a-1", b"sound").unwrap(), "the same nonce twice");
        assert_eq!(*key.open("a-1", &sealed).unwrap(), b"sound");
        assert!(key.open("a-2", &sealed).unwrap_err().contains("renamed"));
        assert!(Key::new(&[8; 32], Purpose::Authorisations).unwrap().open("a-1", &sealed).is_err());
        let other = Key::new(&[7; 32], Purpose::Accounts).unwrap();
        assert!(other.open("a-1", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open("a-1", &changed).is_err(), "{at}");
        }
        assert!(key.open("a-1", &sealed[..10]).unwrap_err().contains("cut short"));
        assert!(Key::new(&[7; 31], Purpose::Accounts).is_none());
    }

    #[test]
    #[cfg(unix)]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "k".repeat(64)).unwrap();
        let mode = |mode| fs::set_permissions(file.path(), fs::Permissions::from_mode(mode));
        mode(0o644).unwrap();
        assert!(Key::read(file.path(), Purpose::Accounts).err().unwrap().contains("chmod 600"));
        mode(0o600).unwrap();
        assert!(Key::read(file.path(), Purpose::Accounts).is_ok());
        fs::write(file.path(), "short").unwrap();
        assert!(Key::read(file.path(), Purpose::Accounts).err().unwrap().contains("openssl rand"));
    }
}
