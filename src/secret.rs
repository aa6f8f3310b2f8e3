//! Values that must never be shown: card numbers, security codes, keys the caller pressed.
//! They print as `***`, cannot be serialised, and are overwritten when dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// A value that prints as `***` and is zeroed on drop. It lives on the heap, so that moving it
/// leaves no copy on the stack. It is deliberately neither `Clone` nor `Serialize`.
pub struct Secret<T: Zeroize>(Box<Zeroizing<T>>);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Secret<T> {
        Secret(Box::new(Zeroizing::new(value)))
    }

    /// The value itself. Every use is a place to review: it must end at the gateway.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The longest entry a caller can key: 19 digits of a card, with room for a slip.
pub const KEYS_MAX: usize = 40;

/// Keys in the order they were pressed: ASCII `0`-`9`, `*`, `#`, `A`-`D`. Bounded, zeroed on drop.
pub struct Keys {
    bytes: Box<Zeroizing<[u8; KEYS_MAX]>>,
    len: usize,
}

impl Keys {
    pub fn new() -> Keys {
        Keys { bytes: Box::new(Zeroizing::new([0; KEYS_MAX])), len: 0 }
    }

    /// Adds a key; false when the entry is full and the key was not taken.
    pub fn push(&mut self, key: u8) -> bool {
        if self.len == KEYS_MAX {
            return false;
        }
        self.bytes[self.len] = key;
        self.len += 1;
        true
    }

    /// Takes the oldest key out, as a type-ahead buffer does.
    pub fn take_first(&mut self) -> Option<u8> {
        if self.len == 0 {
            return None;
        }
        let first = self.bytes[0];
        self.bytes.copy_within(1..self.len, 0);
        self.len -= 1;
        self.bytes[self.len] = 0;
        Some(first)
    }

    pub fn clear(&mut self) {
        self.bytes.zeroize();
        self.len = 0;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The keys as text. Every use is a place to review.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Default for Keys {
    fn default() -> Keys {
        Keys::new()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromIterator<u8> for Keys {
    /// Takes the first [`KEYS_MAX`] keys.
    fn from_iter<I: IntoIterator<Item = u8>>(keys: I) -> Keys {
        let mut all = Keys::new();
        for key in keys {
            all.push(key);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_nothing_of_the_value() {
        let secret = Secret::new("4111111111111111".to_string());
        let keys: Keys = b"4111".iter().copied().collect();
        assert_eq!(format!("{secret} {secret:?} {keys:?}"), "*** *** ***");
        assert_eq!(secret.expose(), "4111111111111111");
    }

    #[test]
    fn keys_are_bounded_and_leave_in_order() {
        let mut keys = Keys::new();
        for _ in 0..KEYS_MAX {
            assert!(keys.push(b'7'));
        }
        assert!(!keys.push(b'8'));
        keys.clear();
        assert_eq!(keys.take_first(), None);
        keys.push(b'1');
        keys.push(b'2');
        assert_eq!((keys.take_first(), keys.expose()), (Some(b'1'), "2"));
    }
}
