//! Headers as carriers, PBXs and contact centers send them.

use super::*;

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn users(pairs: &[(&str, &str)], wanted: &[&str]) -> Vec<String> {
    let headers = headers(pairs);
    let all = identities(&headers, wanted.iter().copied());
    all.map(|identity| identity.user.unwrap_or_default()).collect()
}

#[test]
fn identities_come_in_the_order_wanted_and_then_as_written() {
    let pairs = [
        ("From", "<sip:3@h>;tag=1"),
        ("P-Asserted-Identity", "\"A, B\" <sip:+1@h>, <tel:+2>"),
        ("remote-party-id", "<sip:4@h>;party=calling"),
        ("Remote-Party-ID", "<sip:5@h>;party=called"),
        ("P-Asserted-Identity", "<sip:6@h>"),
        ("P-Asserted-Identity", "broken <"),
    ];
    assert_eq!(
        users(&pairs, &["P-Asserted-Identity", "Remote-Party-ID", "From"]),
        ["+1", "+2", "6", "4", "3"]
    );
    assert_eq!(users(&pairs, &["From"]), ["3"]);
    let flood = ["<sip:1@h>"; 100].join(",");
    assert_eq!(users(&[("From", &flood)], &["From"]).len(), ELEMENTS_MAX);
}

#[test]
fn a_remote_party_says_what_may_be_shown() {
    for (params, withheld, screened) in [
        (";party=calling;privacy=full;screen=yes", true, Some(true)),
        (";privacy=Name", true, None),
        (";privacy=uri-network", true, None),
        (";privacy=off;screen=no", false, Some(false)),
        (";privacy=off-network", false, None),
        ("", false, None),
    ] {
        let headers = headers(&[("Remote-Party-ID", &format!("<sip:1@h>{params}"))]);
        let all: Vec<Identity> = identities(&headers, ["Remote-Party-ID"]).collect();
        assert_eq!((all[0].withheld, all[0].screened), (withheld, screened), "{params}");
        assert_eq!(is_withheld(&headers), withheld, "{params}");
    }
}

#[test]
fn privacy_and_an_anonymous_from() {
    for (pairs, withheld) in [
        (vec![("Privacy", "id")], true),
        (vec![("Privacy", "critical; Header")], true),
        (vec![("Privacy", "none")], false),
        (vec![("Privacy", "session;identity")], false),
        (vec![("From", "Anonymous <sip:+13175550142@h>;tag=1")], true),
        (vec![("From", "<sip:x@anonymous.invalid>;tag=1")], true),
        (vec![("From", "\"anonymous\" <sip:anonymous@h>")], true),
        (vec![("From", "Anna <sip:anonymous1@h>")], false),
        (vec![("P-Asserted-Identity", "Jim <sip:+13175550142@h>")], false),
        (vec![], false),
    ] {
        assert_eq!(is_withheld(&headers(&pairs)), withheld, "{pairs:?}");
    }
}

#[test]
fn verstat_wherever_it_is_put() {
    use Attestation::{Full, Gateway, Partial};
    use Verification::{Failed, Passed, Unknown};
    for (value, verstat) in [
        ("<sip:+1;verstat=TN-Validation-Passed@h;user=phone>", Some(Passed(None))),
        ("<tel:+1;verstat=TN-Validation-Passed-A>", Some(Passed(Some(Full)))),
        ("<sip:+1@h;verstat=TN-Validation-Passed-C>", Some(Passed(Some(Gateway)))),
        ("<sip:+1@h>;tag=1;Verstat=tn-validation-passed-b", Some(Passed(Some(Partial)))),
        ("<sip:+1;verstat=TN-Validation-Failed@h>", Some(Failed)),
        ("<sip:+1;verstat=No-TN-Validation@h>", Some(Unknown)),
        ("<sip:+1;verstat=Fine@h>", None),
        ("<sip:+1@h>", None),
    ] {
        let headers = headers(&[("From", value)]);
        let identity = identities(&headers, ["From"]).next().unwrap();
        assert_eq!((identity.verstat, identity.user.as_deref()), (verstat, Some("+1")), "{value}");
    }
    for (value, found) in [
        ("A", Some(Passed(Some(Full)))),
        (" b;origid=1", Some(Passed(Some(Partial)))),
        ("\"TN-Validation-Failed-A\"", Some(Failed)),
        ("D", None),
        ("", None),
        ("TN-Validation-Passed-é", Some(Passed(None))),
    ] {
        assert_eq!(Verification::parse(value), found, "{value}");
    }
}

#[test]
fn of_several_verifications_the_worst_counts() {
    use Attestation::{Full, Partial};
    use Verification::{Failed, Passed, Unknown};
    for (statements, all) in [
        (vec![], Unknown),
        (vec![Passed(None), Passed(Some(Full))], Passed(Some(Full))),
        (vec![Passed(Some(Full)), Passed(Some(Partial))], Passed(Some(Partial))),
        (vec![Passed(Some(Full)), Unknown], Unknown),
        (vec![Failed, Passed(Some(Full)), Unknown], Failed),
    ] {
        assert_eq!(Verification::of(statements.clone()), all, "{statements:?}");
    }
}

#[test]
fn trust_is_a_matter_of_the_trunk_and_of_verification() {
    use Attestation::{Full, Gateway, Partial};
    use Verification::{Failed, Passed, Unknown};
    let read = |text: &str| {
        let table: toml::Table = format!("trust = {text}").parse().unwrap();
        table["trust"].clone().try_into::<Trust>().map_err(|error| error.to_string())
    };
    let all = [
        Unknown,
        Failed,
        Passed(None),
        Passed(Some(Full)),
        Passed(Some(Partial)),
        Passed(Some(Gateway)),
    ];
    for (text, holds) in [
        ("false", [false; 6]),
        ("true", [true, false, true, true, true, true]),
        ("\"attested\"", [false, false, false, true, false, false]),
        ("\"validated\"", [false, false, true, true, false, false]),
    ] {
        let trust = read(text).unwrap();
        assert_eq!(all.map(|verification| trust.holds(verification)), holds, "{text}");
    }
    assert!(read("\"yes\"").unwrap_err().contains("\"attested\""));
    assert!(read("1").is_err());
}

#[test]
fn several_diversions_in_order() {
    let headers = headers(&[
        ("Diversion", "\"Desk\" <sip:+13175550111@h>;reason=No-Answer;counter=2;privacy=off"),
        ("Diversion", "<tel:+13175550100>;reason=\"unconditional\", <sip:100@h;user=phone>"),
    ]);
    let all = diversions(&headers);
    let seen: Vec<_> = all
        .iter()
        .map(|one| (one.user.as_deref().unwrap(), one.reason.as_deref(), one.counter))
        .collect();
    assert_eq!(
        seen,
        [
            ("+13175550111", Some("no-answer"), 2),
            ("+13175550100", Some("unconditional"), 1),
            ("100", None, 1)
        ]
    );
    assert_eq!(all[0].name.as_deref(), Some("Desk"));
}

#[test]
fn history_tells_the_stations() {
    let headers = headers(&[(
        "History-Info",
        "<sip:+13175550100@h?Reason=SIP%3Bcause%3D486%3Btext%3D%22Busy%22&privacy=none>;index=1;foo,\
         <sip:+13175550111@h;cause=302?Privacy=history>;index=1.1;mp=1, <sip:us@h>;index=1.2",
    )]);
    let all: Vec<_> = history(&headers)
        .into_iter()
        .map(|one| (one.user.unwrap(), one.index, one.cause, one.private))
        .collect();
    assert_eq!(
        all,
        [
            ("+13175550100".into(), "1".into(), Some(486), false),
            ("+13175550111".into(), "1.1".into(), Some(302), true),
            ("us".into(), "1.2".into(), None, false),
        ]
    );
}

#[test]
fn user_to_user_in_hex_and_in_clear() {
    for (value, text) in [
        ("6163636f756e743d31303031;encoding=hex", Some("account=1001")),
        ("6163636f756e743d31303031", Some("account=1001")),
        ("006163636F756E743D31303031;encoding=hex;purpose=isdn-uui", Some("account=1001")),
        ("0431303031;encoding=hex", Some("1001")),
        ("account=1001", Some("account=1001")),
        ("account%3D1001;encoding=ascii", Some("account=1001")),
        ("\"a=1;b=2\";encoding=ascii", Some("a=1;b=2")),
        ("48291503", Some("48291503")), // hex by its looks, but of no text
        ("zz;encoding=hex", Some("zz")),
        ("00ff;encoding=hex", None),
        ("\"\"", None),
    ] {
        let all = user_to_user(&headers(&[("User-to-User", value)]), "user-to-user");
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].text.as_deref(), text, "{value}");
    }
    let all = user_to_user(
        &headers(&[("User-to-User", "00ff;encoding=HEX;purpose=x, 3141"), ("User-to-User", "a")]),
        "User-to-User",
    );
    assert_eq!((all.len(), all[0].content.as_slice()), (3, [0, 0xff].as_slice()));
    assert_eq!(all[0].purpose.as_deref(), Some("x"));
    assert_eq!(all[0].encoding.as_deref(), Some("hex"));
}

#[test]
fn pairs_within_user_to_user() {
    let pairs = |text: &str| {
        let value = format!("\"{text}\";encoding=ascii");
        let one = user_to_user(&headers(&[("X-UUI", &value)]), "X-UUI").remove(0);
        let own = |(key, value): (&str, &str)| (key.to_string(), value.to_string());
        one.pairs().into_iter().map(own).collect::<Vec<_>>()
    };
    let both = [("account".into(), "1001".into()), ("name".into(), "Jim".into())];
    for text in ["account=1001&name=Jim", "account=1001; name = Jim;", "account:1001|name:Jim"] {
        assert_eq!(pairs(text), both, "{text}");
    }
    assert!(pairs("hello").is_empty() && pairs("a=1;hello").is_empty());
    assert!(pairs("a b=1").is_empty());
    assert_eq!(pairs(&vec!["a=1"; 99].join(";")).len(), ELEMENTS_MAX);
}
