//! Tables of answers and what each means: `src/gateway/<name>/replies.txt`.
//!
//! ```text
//! # comment
//! [body]                       a body by name, up to the next line that begins a body or a case;
//! {"code": "<<code|100>>"}     <<name>> and <<name|default>> are put in; <<BOM>>, <<FF>>, <<OPEN>> are bytes
//! == sale 200 body code=200 -> declined_soft
//! ```
//!
//! What is asked: `verify`, `sale`, `authorize`, with `.account` or `.save`; `capture`, `void`,
//! `refund`; `lookup` or `lookup:STEP`. `~` in a value is a space, `-` alone is nothing.
//!
//! Beyond the table every body that is approved is cut off at every byte, and must not be approved.

use std::collections::HashMap;
use std::fs;

use ringtill::gateway::{
    self, Act, Charge, Exchange, Fixable, Found, Gateway, Lookup, Modified, Purpose, Verdict,
};
use ringtill::instrument::Method;

use super::Tally;
use super::bench::*;
use super::golden::folder;

pub fn check(name: &str, tally: &mut Tally) {
    let path = folder(name).join("replies.txt");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return tally.case("replies", Err(format!("{}: {error}", path.display()))),
    };
    let gateway = opened(name, gateway::variants(name)[0].1);
    let (bodies, cases) = read(&text);
    for case in &cases {
        let shown = format!("reply `{}`", case.line);
        let Some(body) = bodies.get(case.body.as_str()) else {
            tally.case(&shown, Err(format!("no body [{}]", case.body)));
            continue;
        };
        match filled(body, &case.values) {
            Ok(bytes) => {
                let got = meaning(&*gateway, &case.asked, case.status, &bytes);
                tally.case(&shown, ensure(got == case.wanted, || format!("got {got}")));
                if case.wanted.starts_with("approved") || case.wanted.starts_with("done") {
                    tally.case(&format!("{shown} cut"), cut(&*gateway, case, &bytes));
                }
            }
            Err(why) => tally.case(&shown, Err(why)),
        }
    }
    tally.case("replies without sense", nonsense(&*gateway));
}

struct Case {
    line: String,
    asked: String,
    status: u16,
    body: String,
    values: HashMap<String, String>,
    wanted: String,
}

fn read(text: &str) -> (HashMap<&str, String>, Vec<Case>) {
    let (mut bodies, mut cases) = (HashMap::<&str, String>::new(), Vec::new());
    let mut open = None;
    for line in text.lines() {
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(name) =
            name.filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        {
            open = Some(name);
            bodies.insert(name, String::new());
        } else if let Some(case) = line.strip_prefix("== ") {
            open = None;
            cases.push(read_case(case));
        } else if let Some(body) = open.and_then(|name| bodies.get_mut(name)) {
            if !body.is_empty() {
                body.push('\n');
            }
            body.push_str(line);
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "outside of a body: {line}");
        }
    }
    bodies.values_mut().for_each(|body| body.truncate(body.trim_end().len()));
    bodies.insert("-", String::new());
    (bodies, cases)
}

fn read_case(line: &str) -> Case {
    let (given, wanted) = line.split_once(" -> ").unwrap_or_else(|| panic!("no `->`: {line}"));
    let mut words = given.split_whitespace();
    let mut word = || words.next().unwrap_or_else(|| panic!("too short: {line}")).to_string();
    let (asked, status, body) = (word(), word().parse().unwrap(), word());
    let value = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("no `=`: {line}"));
        (name.to_string(), if value == "-" { String::new() } else { value.replace('~', " ") })
    };
    let values = words.map(value).collect();
    Case { line: line.into(), asked, status, body, values, wanted: wanted.trim().into() }
}

fn filled(body: &str, values: &HashMap<String, String>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = body;
    let mut used = Vec::new();
    while let Some((before, after)) = rest.split_once("<<") {
        out.extend(before.bytes());
        let (slot, after) = after.split_once(">>").ok_or("<< without >>")?;
        rest = after;
        let (name, default) = match slot.split_once('|') {
            Some((name, default)) => (name, Some(default)),
            None => (slot, None),
        };
        used.push(name);
        match (name, values.get(name).map(String::as_str).or(default)) {
            ("BOM", _) => out.extend(b"\xef\xbb\xbf"),
            ("FF", _) => out.push(0xff),
            ("OPEN", _) => out.push(b'<'),
            (_, Some(value)) => out.extend(value.bytes()),
            (_, None) => return Err(format!("no value for {name}")),
        }
    }
    out.extend(rest.bytes());
    match values.keys().find(|name| !used.contains(&name.as_str())) {
        Some(name) => Err(format!("the body has no place for {name}")),
        None => Ok(out),
    }
}

/// What an answer to `asked` means, in the words of the table.
fn meaning(gateway: &dyn Gateway, asked: &str, status: u16, body: &[u8]) -> String {
    let response = http::Response::builder().status(status).body(body.to_vec()).unwrap();
    let exchange = Exchange::Response(response);
    let (word, rest) = asked.split_once(['.', ':']).unwrap_or((asked, ""));
    let paid = match rest {
        "account" => checking(),
        "token" => token("9001/9002", Method::Card),
        _ => visa(),
    };
    let purpose = match word {
        "verify" => Purpose::Verify,
        "authorize" => Purpose::Authorize,
        _ => Purpose::Sale,
    };
    let act = match word {
        "capture" => Some(Act::Capture),
        "void" => Some(Act::Void),
        "refund" => Some(Act::Refund),
        _ => None,
    };
    if let Some(act) = act {
        let change = modification(act, "60198765432", 15_000, &paid);
        return modified(&gateway.modified(&change, &exchange));
    }
    if word == "lookup" {
        let asked = lookup(Purpose::Sale, REFERENCE, Method::Card);
        let asked = Lookup { step: rest.to_string(), ..asked };
        return found(gateway.found(&asked, &exchange));
    }
    let charge = Charge { save: rest == "save", ..charge(purpose, REFERENCE, &paid) };
    verdict(&gateway.verdict(&charge, &exchange))
}

fn verdict(verdict: &Verdict) -> String {
    let approval = match verdict {
        Verdict::Approved(approval) => approval,
        Verdict::DeclinedHard => return "declined_hard".into(),
        Verdict::DeclinedSoft => return "declined_soft".into(),
        Verdict::Fixable(Fixable::Number) => return "number".into(),
        Verdict::Fixable(Fixable::Expiry) => return "expiry".into(),
        Verdict::Fixable(Fixable::Cvv) => return "cvv".into(),
        Verdict::Fixable(Fixable::Zip) => return "zip".into(),
        Verdict::Fixable(Fixable::Routing) => return "routing".into(),
        Verdict::Fixable(Fixable::Account) => return "account".into(),
        Verdict::Held(_) => return "held".into(),
        Verdict::Duplicate { original: None } => return "duplicate".into(),
        Verdict::Duplicate { original: Some(id) } => return format!("duplicate {id}"),
        Verdict::NotSent(_) => return "not_sent".into(),
        Verdict::Unknown(_) => return "unknown".into(),
        Verdict::Config(_) => return "config".into(),
    };
    let mut text = format!("approved id={}", approval.gateway_reference);
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text += &format!(" {name}={}", value.replace(' ', "~"));
        }
    };
    put("auth", Some(approval.auth_code.clone()));
    put("avs", approval.avs.clone());
    put("cvv", approval.cvv.clone());
    put("partial", approval.partial.map(|money| money.decimal()));
    put("token", approval.token.as_ref().map(|token| token.expose().to_string()));
    text
}

fn modified(modified: &Modified) -> String {
    match modified {
        Modified::Done(id) => format!("done {id}"),
        Modified::Accepted(id) => format!("accepted {id}"),
        Modified::Refused(_) => "refused".into(),
        Modified::NotSent(_) => "not_sent".into(),
        Modified::Unknown(_) => "unknown".into(),
        Modified::Config(_) => "config".into(),
    }
}

fn found(found: Found) -> String {
    match found {
        Found::Settled(settled) => verdict(&settled),
        Found::Absent => "absent".into(),
        Found::NotYet => "not_yet".into(),
        Found::More(step) => format!("more {step}"),
    }
}

/// No beginning of an approval is one, unless all that is missing is white space at its end.
fn cut(gateway: &dyn Gateway, case: &Case, bytes: &[u8]) -> Result<(), String> {
    let whole = String::from_utf8_lossy(bytes).trim_end().len();
    for len in 0..whole {
        let got = meaning(gateway, &case.asked, case.status, &bytes[..len]);
        let open = ["unknown", "not_yet"].contains(&got.as_str());
        ensure(open, || format!("{len} of {} bytes give {got}", bytes.len()))?;
    }
    Ok(())
}

fn nonsense(gateway: &dyn Gateway) -> Result<(), String> {
    let asked =
        ["sale", "verify", "authorize", "sale.account", "capture", "void", "refund", "lookup"];
    for asked in asked {
        for status in [200, 201, 202, 204, 301, 302, 500, 502, 503, 504] {
            for body in
                [&b""[..], b"{", b"<html>", b"null", b"[]", b"{}", b"\xff\xfe", b"a=b", b"<a/>"]
            {
                let got = meaning(gateway, asked, status, body);
                let open = ["unknown", "not_yet"].contains(&got.as_str());
                let text = String::from_utf8_lossy(body);
                ensure(open, || format!("{asked}: HTTP {status} {text:?} gives {got}"))?;
            }
        }
    }
    Ok(())
}
