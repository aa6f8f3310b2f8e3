//! Bodies of requests, written member by member in the order given: JSON, forms, XML. Card data is
//! copied once, into memory that is zeroed on drop, and growing leaves nothing behind.

use std::fmt::{self, Write};

use zeroize::Zeroizing;

/// Bytes that are zeroed when dropped and when they move.
pub struct Body(Zeroizing<Vec<u8>>);

impl Body {
    pub fn new() -> Body {
        Body(Zeroizing::new(Vec::with_capacity(1_024)))
    }

    pub fn push(&mut self, text: &str) {
        let len = self.0.len() + text.len();
        if len > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * len));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(text.as_bytes());
    }

    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    fn push_char(&mut self, c: char) {
        let mut bytes = Zeroizing::new([0; 4]);
        self.push(c.encode_utf8(&mut *bytes));
    }
}

impl Default for Body {
    fn default() -> Body {
        Body::new()
    }
}

impl Write for Body {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// A JSON object.
pub fn json(members: impl FnOnce(&mut Object<'_>)) -> Zeroizing<Vec<u8>> {
    let mut body = Body::new();
    object(&mut body, members);
    body.into_bytes()
}

/// A JSON object that is being written.
pub struct Object<'a> {
    body: &'a mut Body,
    empty: bool,
}

/// A JSON array that is being written.
pub struct List<'a> {
    body: &'a mut Body,
    empty: bool,
}

impl Object<'_> {
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        string(self.body, value);
    }

    /// Leaves the member out if there is no value.
    pub fn some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub fn number(&mut self, name: &str, value: i64) {
        self.name(name);
        let _ = write!(self.body, "{value}");
    }

    pub fn flag(&mut self, name: &str, value: bool) {
        self.name(name);
        self.body.push(if value { "true" } else { "false" });
    }

    pub fn object(&mut self, name: &str, members: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        object(self.body, members);
    }

    pub fn list(&mut self, name: &str, items: impl FnOnce(&mut List<'_>)) {
        self.name(name);
        self.body.push("[");
        items(&mut List { body: self.body, empty: true });
        self.body.push("]");
    }

    fn name(&mut self, name: &str) {
        if !self.empty {
            self.body.push(",");
        }
        self.empty = false;
        string(self.body, name);
        self.body.push(":");
    }
}

impl List<'_> {
    pub fn text(&mut self, value: &str) {
        self.next();
        string(self.body, value);
    }

    pub fn object(&mut self, members: impl FnOnce(&mut Object<'_>)) {
        self.next();
        object(self.body, members);
    }

    fn next(&mut self) {
        if !self.empty {
            self.body.push(",");
        }
        self.empty = false;
    }
}

fn object(body: &mut Body, members: impl FnOnce(&mut Object<'_>)) {
    body.push("{");
    members(&mut Object { body, empty: true });
    body.push("}");
}

/// RFC 8259 section 7.
fn string(body: &mut Body, text: &str) {
    body.push("\"");
    for c in text.chars() {
        match c {
            '"' => body.push("\\\""),
            '\\' => body.push("\\\\"),
            c if c < ' ' => {
                let _ = write!(body, "\\u{:04x}", u32::from(c));
            }
            c => body.push_char(c),
        }
    }
    body.push("\"");
}

/// `application/x-www-form-urlencoded`, brackets in names as they are.
#[derive(Default)]
pub struct Form(Body);

impl Form {
    pub fn new() -> Form {
        Form::default()
    }

    pub fn field(&mut self, name: &str, value: &str) -> &mut Form {
        if !self.0.0.is_empty() {
            self.0.push("&");
        }
        self.0.push(name);
        self.0.push("=");
        percent(&mut self.0, value);
        self
    }

    pub fn some(&mut self, name: &str, value: Option<&str>) -> &mut Form {
        if let Some(value) = value {
            self.field(name, value);
        }
        self
    }

    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0.into_bytes()
    }
}

/// Percent-encoding of everything but RFC 3986 unreserved characters.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    percent(&mut out, text);
    out
}

fn percent(out: &mut impl Write, text: &str) {
    for byte in text.bytes() {
        let _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.write_char(char::from(byte))
            }
            other => write!(out, "%{other:02X}"),
        };
    }
}

/// An XML element that is being written.
pub struct Xml<'a>(&'a mut Body);

/// An XML document with one element.
pub fn xml(
    name: &str,
    attributes: &[(&str, &str)],
    children: impl FnOnce(&mut Xml<'_>),
) -> Zeroizing<Vec<u8>> {
    let mut body = Body::new();
    body.push("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    Xml(&mut body).element(name, attributes, children);
    body.into_bytes()
}

impl Xml<'_> {
    pub fn element(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        children: impl FnOnce(&mut Xml<'_>),
    ) {
        self.0.push("<");
        self.0.push(name);
        for (attribute, value) in attributes {
            self.0.push(" ");
            self.0.push(attribute);
            self.0.push("=\"");
            self.escaped(value);
            self.0.push("\"");
        }
        self.0.push(">");
        children(&mut Xml(self.0));
        self.0.push("</");
        self.0.push(name);
        self.0.push(">");
    }

    pub fn text(&mut self, name: &str, value: &str) {
        self.element(name, &[], |element| element.escaped(value));
    }

    /// Characters that XML 1.0 cannot hold become `?`.
    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.0.push("&amp;"),
                '<' => self.0.push("&lt;"),
                '>' => self.0.push("&gt;"),
                '"' => self.0.push("&quot;"),
                c if c < ' ' || c == '\u{fffe}' || c == '\u{ffff}' => self.0.push("?"),
                c => self.0.push_char(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_keeps_its_order_and_can_be_read() {
        let written = json(|all| {
            all.text("b", "q\"\\\n\u{1}ü");
            all.some("left_out", None);
            all.object("a", |inner| {
                inner.number("n", -7);
                inner.flag("t", true);
            });
            all.list("l", |list| {
                list.text("x");
                list.object(|_| {});
            });
        });
        let want =
            "{\"b\":\"q\\\"\\\\\\u000a\\u0001ü\",\"a\":{\"n\":-7,\"t\":true},\"l\":[\"x\",{}]}";
        assert_eq!(text(&written), want);
        let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(read["b"], "q\"\\\n\u{1}ü");
    }

    #[test]
    fn forms_and_xml_escape_what_must_be() {
        let mut form = Form::new();
        form.field("a[b]", "x y&z=ü").some("c", None).field("d", "");
        assert_eq!(text(&form.into_bytes()), "a[b]=x%20y%26z%3D%C3%BC&d=");
        let written = xml("a", &[("b", "\"<\"")], |a| a.text("c", "1 & \u{1}2"));
        let want = "<a b=\"&quot;&lt;&quot;\"><c>1 &amp; ?2</c></a>";
        assert_eq!(text(&written).lines().last(), Some(want));
    }

    #[test]
    fn a_long_body_is_whole() {
        let long = "4111".repeat(5_000);
        let written = json(|all| all.text("n", &long));
        assert_eq!(text(&written), format!("{{\"n\":\"{long}\"}}"));
    }
}
