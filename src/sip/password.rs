//! A trunk's password, or where it is kept.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use crate::secret::Secret;

/// `"text"`, `{ file = "path" }` or `{ env = "NAME" }`. Never shown.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Written")]
pub enum Password {
    Known(Arc<Secret<String>>),
    File(PathBuf),
    Env(String),
}

impl Password {
    /// The password itself; `None` until it was fetched.
    pub fn known(&self) -> Option<&Arc<Secret<String>>> {
        match self {
            Password::Known(secret) => Some(secret),
            Password::File(_) | Password::Env(_) => None,
        }
    }
}

impl From<String> for Password {
    fn from(text: String) -> Password {
        Password::Known(Arc::new(Secret::new(text)))
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a password is text, { file = \"...\" } or { env = \"...\" }")]
enum Written {
    Text(String),
    File { file: PathBuf },
    Env { env: String },
}

impl From<Written> for Password {
    fn from(written: Written) -> Password {
        match written {
            Written::Text(text) => text.into(),
            Written::File { file } => Password::File(file),
            Written::Env { env } => Password::Env(env),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        password: Password,
    }

    #[test]
    fn passwords_come_in_three_ways_and_show_in_none() {
        let read = |text: &str| toml::from_str::<Holder>(text);
        let plain = read("password = 'tomato'").unwrap();
        assert_eq!(plain.password.known().unwrap().expose(), "tomato");
        assert!(!format!("{plain:?}").contains("tomato"));
        let file = read("password = { file = '/run/x' }").unwrap().password;
        assert!(matches!(file, Password::File(path) if path.ends_with("x")));
        assert!(matches!(read("password = { env = 'X' }").unwrap().password, Password::Env(_)));
        let error = read("password = 7").unwrap_err().to_string();
        assert!(error.contains("{ env ="), "{error}");
    }
}
