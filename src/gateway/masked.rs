//! A request as it may be logged: names of members as they are, values only of those the dialect
//! calls harmless. Whatever cannot be read is hidden.

use std::fmt::{self, Write};

use http::header::CONTENT_TYPE;

use super::Request;

const HIDDEN: &str = "***";

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.head;
        writeln!(f, "{} {}", head.method, head.uri)?;
        for (name, value) in &head.headers {
            let value = value.to_str().ok().filter(|_| !value.is_sensitive()).unwrap_or(HIDDEN);
            writeln!(f, "{name}: {value}")?;
        }
        f.write_str("\n")?;
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let Ok(body) = std::str::from_utf8(&self.body) else { return f.write_str(HIDDEN) };
        match kind.unwrap_or_default() {
            _ if body.is_empty() => Ok(()),
            kind if kind.starts_with("application/json") => json(f, body, self.shown),
            kind if kind.starts_with("application/x-www-form-urlencoded") => {
                form(f, body, self.shown)
            }
            kind if kind.contains("xml") => xml(f, body, self.shown),
            _ => f.write_str(HIDDEN),
        }
    }
}

/// Strings and numbers belong to the member named last; anything else is structure.
fn json(out: &mut impl Write, text: &str, shown: &[&str]) -> fmt::Result {
    let mut rest = text;
    let mut name = "";
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            '"' => rest.split_at(string_len(rest)),
            '{' | '}' | '[' | ']' | ':' | ',' | ' ' | '\n' => rest.split_at(1),
            _ => rest.split_at(rest.find(['}', ']', ',', '"']).unwrap_or(rest.len())),
        };
        rest = after;
        match first {
            '"' if rest.starts_with(':') => {
                name = token.trim_matches('"');
                out.write_str(token)?;
            }
            '{' | '}' | '[' | ']' | ':' | ',' | ' ' | '\n' => out.write_str(token)?,
            _ if shown.contains(&name) => out.write_str(token)?,
            '"' => write!(out, "\"{HIDDEN}\"")?,
            _ => out.write_str(HIDDEN)?,
        }
    }
    Ok(())
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn form(out: &mut impl Write, text: &str, shown: &[&str]) -> fmt::Result {
    for (index, pair) in text.split('&').enumerate() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = if shown.contains(&name) { value } else { HIDDEN };
        write!(out, "{}{name}={value}", if index == 0 { "" } else { "&" })?;
    }
    Ok(())
}

/// Text belongs to the element opened last, attributes to their name.
fn xml(out: &mut impl Write, text: &str, shown: &[&str]) -> fmt::Result {
    let mut name = "";
    for part in text.split_inclusive('>') {
        let Some((content, tag)) = part.split_once('<') else {
            return out.write_str(if part.trim().is_empty() { part } else { HIDDEN });
        };
        let visible = content.trim().is_empty() || shown.contains(&name);
        out.write_str(if visible { content } else { HIDDEN })?;
        out.write_str("<")?;
        name = tag.split([' ', '>', '/']).next().unwrap_or_default();
        attributes(out, tag, shown)?;
    }
    Ok(())
}

/// What stands between `<` and `>`, the latter included.
fn attributes(out: &mut impl Write, tag: &str, shown: &[&str]) -> fmt::Result {
    let mut rest = tag;
    while let Some((before, value)) = rest.split_once("=\"") {
        let Some((value, after)) = value.split_once('"') else { return out.write_str(HIDDEN) };
        let name = before.rsplit(' ').next().unwrap_or_default();
        let value = if shown.contains(&name) { value } else { HIDDEN };
        write!(out, "{before}=\"{value}\"")?;
        rest = after;
    }
    out.write_str(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(kind: &str, body: &str) -> String {
        let head = http::Request::post("https://h/p").header(CONTENT_TYPE, kind).body(()).unwrap();
        let (mut head, ()) = head.into_parts();
        let mut key = http::HeaderValue::from_static("Bearer sk_live");
        key.set_sensitive(true);
        head.headers.insert("authorization", key);
        let shown = &["amount", "order", "id"];
        let request = Request { head, body: body.as_bytes().to_vec().into(), shown };
        let text = format!("{request:?}");
        assert!(!text.contains("sk_live") && text.contains("authorization: ***"), "{text}");
        text.split_once("\n\n").unwrap().1.to_string()
    }

    #[test]
    fn only_what_is_called_harmless_is_shown() {
        for (kind, body, want) in [
            (
                "application/json",
                r#"{"amount":12,"card":{"number":"41\"11","month":9,"x":[true,"order"]},"order":"a"}"#,
                r#"{"amount":12,"card":{"number":"***","month":***,"x":[***,"***"]},"order":"a"}"#,
            ),
            ("application/json; charset=utf-8", "[4111,null]", "[***,***]"),
            ("application/json", r#"{"number":"4111"#, r#"{"number":"***""#),
            ("application/json", "4111 1111", "***"),
            (
                "application/x-www-form-urlencoded",
                "amount=1.00&ccnumber=4111&x&order=7",
                "amount=1.00&ccnumber=***&x=***&order=7",
            ),
            (
                "text/xml; charset=utf-8",
                "<?xml version=\"1.0\"?><sale id=\"7\" customer=\"9\"><amount>1</amount>\
                 <card><number>4111</number></card><order/></sale>",
                "<?xml version=\"***\"?><sale id=\"7\" customer=\"***\"><amount>1</amount>\
                 <card><number>***</number></card><order/></sale>",
            ),
            ("text/xml", "4111", "***"),
            ("text/plain", "4111", "***"),
            ("text/plain", "", ""),
        ] {
            assert_eq!(masked(kind, body), want, "{body}");
        }
    }
}
