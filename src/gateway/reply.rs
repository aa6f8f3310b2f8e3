//! Answers taken apart: JSON by pointer, XML as a small tree. What cannot be read gives nothing.

use std::borrow::Cow;

use http::StatusCode;
use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use serde_json::Value;

use super::Verdict;

/// A JSON document, with or without the byte order mark that some send before it.
pub fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(without_mark(body)).ok()
}

/// The text or number at a JSON pointer (RFC 6901), unless it is empty.
pub fn at<'v>(value: &'v Value, pointer: &str) -> Option<Cow<'v, str>> {
    match value.pointer(pointer)? {
        Value::String(text) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// The same, to be kept: printable, at most 64 characters. `None` for anything else, which is no
/// code, name or reference of a gateway.
pub fn kept(value: &Value, pointer: &str) -> Option<String> {
    at(value, pointer).and_then(|text| identifier(&text))
}

/// An identifier or code that can be believed.
pub fn identifier(text: &str) -> Option<String> {
    const LEN_MAX: usize = 64;
    let plain = |b: u8| (b' '..=b'~').contains(&b);
    let usable = (1..=LEN_MAX).contains(&text.len()) && text.bytes().all(plain);
    usable.then(|| text.to_string())
}

/// What a status alone says, for dialects that use it as HTTP means it; anything else may have
/// been processed.
pub fn by_status(status: StatusCode) -> Verdict {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Verdict::Config(format!("HTTP {status}: check the credentials and what they may do"))
        }
        StatusCode::TOO_MANY_REQUESTS => Verdict::NotSent("the gateway is busy".into()),
        other => Verdict::Unknown(format!("HTTP {other}")),
    }
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// An XML element with what is in it.
#[derive(Debug, Default)]
pub struct Element {
    pub name: String,
    attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Element>,
}

const DEPTH_MAX: usize = 24;
const ELEMENTS_MAX: usize = 20_000;

impl Element {
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of a child, unless it is empty.
    pub fn at(&self, name: &str) -> Option<&str> {
        let text = self.child(name)?.text.trim();
        (!text.is_empty()).then_some(text)
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(attribute, _)| attribute == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The root of a UTF-8 document without a DTD; `None` for anything else.
pub fn xml(body: &[u8]) -> Option<Element> {
    let text = std::str::from_utf8(without_mark(body)).ok()?;
    let mut reader = Reader::from_str(text);
    let mut open = vec![Element::default()];
    let mut elements = 0;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => {
                elements += 1;
                if open.len() > DEPTH_MAX || elements > ELEMENTS_MAX {
                    return None;
                }
                open.push(element(&tag)?);
            }
            Event::Empty(tag) => {
                elements += 1;
                if elements > ELEMENTS_MAX {
                    return None;
                }
                open.last_mut()?.children.push(element(&tag)?);
            }
            Event::End(_) => {
                let closed = open.pop()?;
                open.last_mut()?.children.push(closed);
            }
            Event::Text(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
            Event::CData(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
            Event::GeneralRef(name) => open.last_mut()?.text.push(character(&name)?),
            Event::DocType(_) => return None,
            Event::Eof => break,
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
        }
    }
    let mut document = open.pop().filter(|_| open.is_empty())?;
    let root = document.children.pop()?;
    document.children.is_empty().then_some(root)
}

fn element(tag: &BytesStart<'_>) -> Option<Element> {
    let mut found = Element { name: name(tag.local_name().as_ref())?, ..Element::default() };
    for attribute in tag.attributes() {
        let attribute = attribute.ok()?;
        let value = std::str::from_utf8(&attribute.value).ok()?;
        let value = quick_xml::escape::unescape(value).ok()?.into_owned();
        found.attributes.push((name(attribute.key.local_name().as_ref())?, value));
    }
    Some(found)
}

fn name(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// One of the five entities every document has, or a character by its number.
fn character(reference: &BytesRef<'_>) -> Option<char> {
    if let Some(c) = reference.resolve_char_ref().ok()? {
        return Some(c);
    }
    let name = reference.decode().ok()?;
    quick_xml::escape::resolve_xml_entity(&name)?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_is_read_with_its_attributes_and_entities() {
        let root = xml(
            b"\xef\xbb\xbf<?xml version=\"1.0\"?><!-- x --><n:a b=\"1&amp;2\"><c> x&lt;&#65; </c>\
            <c/><d><![CDATA[<]]></d></n:a>\n",
        )
        .unwrap();
        assert_eq!((root.name.as_str(), root.attribute("b")), ("a", Some("1&2")));
        assert_eq!((root.at("c"), root.all("c").count()), (Some("x<A"), 2));
        assert_eq!(root.at("d"), Some("<"));
    }

    #[test]
    fn xml_that_is_broken_or_too_much_gives_nothing() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        let wide = format!("<r>{}</r>", "<a/>".repeat(ELEMENTS_MAX + 1));
        for text in [
            "",
            "x",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<a>&x;</a>",
            "<a b></a>",
            &deep,
            &wide,
        ] {
            assert!(xml(text.as_bytes()).is_none(), "{}", &text[..text.len().min(60)]);
        }
        assert!(xml(b"<a>\xff</a>").is_none());
    }

    #[test]
    fn only_what_looks_like_an_identifier_is_kept() {
        let value =
            json(b"\xef\xbb\xbf{\"a\":{\"b\":\"x 1\",\"n\":7,\"e\":\"\",\"c\":\"\\n\"}}").unwrap();
        assert_eq!(kept(&value, "/a/b").as_deref(), Some("x 1"));
        assert_eq!(kept(&value, "/a/n").as_deref(), Some("7"));
        assert_eq!(
            (kept(&value, "/a/e"), kept(&value, "/a/c"), kept(&value, "/x")),
            (None, None, None)
        );
        assert_eq!(identifier(&"x".repeat(65)), None);
    }
}
