//! What the settings of all gateways have in common: where it is, and secrets that are real ones.

use http::{HeaderValue, Uri};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Which of a processor's two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    Sandbox,
    Live,
}

/// For `#[serde(deserialize_with = "...")]`.
pub fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(text).map(Secret::new)
}

/// The same, where the key may be left out: add `default`.
pub fn secret_if_any<'de, D: Deserializer<'de>>(
    text: D,
) -> Result<Option<Secret<String>>, D::Error> {
    Ok(Some(secret(text)?))
}

/// `https://host[:port]` of the environment, or the address the operator gave instead.
pub fn base_url(
    environment: Option<Environment>,
    given: Option<&str>,
    sandbox: &str,
    live: &str,
) -> Result<String, String> {
    match (environment, given) {
        (Some(Environment::Sandbox), None) => Ok(sandbox.to_string()),
        (Some(Environment::Live), None) => Ok(live.to_string()),
        (_, Some(given)) => address("base_url", given, false),
        (None, None) => {
            Err("environment: write environment = \"sandbox\" or environment = \"live\"".into())
        }
    }
}

/// An HTTPS address without a slash at its end.
pub fn address(key: &str, given: &str, may_have_path: bool) -> Result<String, String> {
    let trimmed = given.trim_end_matches('/');
    let bare = |uri: &Uri| uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let usable = |uri: &Uri| {
        uri.scheme_str() == Some("https")
            && uri.authority().is_some_and(|host| !host.as_str().contains('@'))
            && uri.query().is_none()
            && (may_have_path || bare(uri))
    };
    if trimmed.parse().is_ok_and(|uri: Uri| usable(&uri)) {
        return Ok(trimmed.to_string());
    }
    let path = if may_have_path { "[/path]" } else { "" };
    Err(format!("{key}: `{given}` is no HTTPS address; write https://host[:port]{path}"))
}

/// Refuses what is empty, not plain ASCII, or stands where a real value has yet to be put.
pub fn credential(key: &str, value: &str) -> Result<(), String> {
    const PLACEHOLDERS: [&str; 13] = [
        "your",
        "changeme",
        "change-me",
        "change_me",
        "placeholder",
        "example",
        "todo",
        "xxx",
        "...",
        "insert",
        "replace",
        "<",
        "secret",
    ];
    let lower = Zeroizing::new(value.to_ascii_lowercase());
    if value.is_empty() || PLACEHOLDERS.iter().any(|start| lower.starts_with(start)) {
        return Err(format!("{key}: put the value your gateway gave you here"));
    }
    if !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{key}: it must be plain ASCII on one line, without spaces"));
    }
    Ok(())
}

/// A header that is not printed.
pub fn sensitive(key: &str, value: &str) -> Result<HeaderValue, String> {
    let mut header = HeaderValue::from_str(value)
        .map_err(|_| format!("{key}: it must be plain ASCII on one line"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_credentials() {
        for value in ["", "your-key", "CHANGEME", "<key>", "xxxxxxxx", "...", "a b", "schlüssel"] {
            assert!(credential("key", value).unwrap_err().starts_with("key: "), "{value}");
        }
        assert_eq!(credential("key", "5KP3u95bQpv"), Ok(()));
    }

    #[test]
    fn addresses_are_https_and_bare() {
        let base = |environment, given| base_url(environment, given, "https://s", "https://l");
        assert_eq!(base(Some(Environment::Live), None).as_deref(), Ok("https://l"));
        assert_eq!(base(Some(Environment::Sandbox), None).as_deref(), Ok("https://s"));
        assert_eq!(base(None, Some("https://h:1/")).as_deref(), Ok("https://h:1"));
        assert!(base(None, None).unwrap_err().contains("environment = \"sandbox\""));
        for wrong in ["http://h", "h", "https://", "https://h/p", "https://u:p@h", "https://h?x"] {
            assert!(address("base_url", wrong, false).is_err(), "{wrong}");
        }
        assert_eq!(address("url", "https://h/p", true).as_deref(), Ok("https://h/p"));
    }
}
