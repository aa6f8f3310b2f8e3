//! Vectors of the standards and our own, and client against server.

use super::super::model::Headers;
use super::*;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in pairs {
        headers.push(*name, *value);
    }
    headers
}

fn challenges(values: &[&str]) -> Headers {
    headers(&values.iter().map(|value| ("WWW-Authenticate", *value)).collect::<Vec<_>>())
}

fn alice() -> [Credentials; 1] {
    [Credentials::new("alice", "s3cret".into(), None)]
}

/// A client that took this challenge, and its next header.
fn answered(challenge: &str) -> Result<String, Refused> {
    let mut client = Client::default();
    client.challenged(401, &challenges(&[challenge]), &alice())?;
    let uri = "sip:example.com";
    let mut answers =
        client.authorize(&Method::Known(rsip::Method::Register), uri, b"v=0\r\n", "c0nce");
    Ok(answers.pop().expect("an answer").1)
}

fn read(answer: &str) -> Answer {
    let fields = Fields::parse(answer);
    assert_eq!(fields.len(), 1, "{answer}");
    Answer::read(&fields[0]).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn the_examples_of_the_standards() {
    let get = Method::parse("GET").unwrap();
    let http_auth = r#"username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, qop=auth,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;
    for (credentials, response, password) in [
        // RFC 2617 §3.5
        (
            r#"username="Mufasa", realm="testrealm@host.com", uri="/dir/index.html", qop=auth,
               nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", nc=00000001, cnonce="0a4f113b",
               opaque="5ccc069c403ebaf9f0171e9517f40e41""#
                .to_string(),
            "6629fae49393a05397450978507c4ef1",
            "Circle Of Life",
        ),
        // RFC 7616 §3.9.1
        (
            format!("{http_auth}, algorithm=MD5"),
            "8ca523f5e9506fed4657c9700eebdbec",
            "Circle of Life",
        ),
        (
            format!("{http_auth}, algorithm=SHA-256"),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            "Circle of Life",
        ),
        // RFC 7616 §3.9.2 with the user name in clear; the response is that of erratum 4897, the
        // printed one being from a draft of SHA-512/256.
        (
            r#"username="Jäsøn Doe", realm="api@example.org", uri="/doe.json", nc=00000001,
               nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", qop=auth,
               cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", algorithm=SHA-512-256"#
                .to_string(),
            "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5",
            "Secret, or not?",
        ),
    ] {
        let mut answer = read(&format!("Digest {credentials}, response=\"{response}\""));
        assert_eq!(answer.expected(password, &get, b"").as_str(), response);
        assert!(answer.proves(password, &get, b""));
        assert!(!answer.proves("circle of life", &get, b""));
        assert!(!answer.proves(password, &Method::INVITE, b""));
        answer.response.pop();
        assert!(!answer.proves(password, &get, b""));
    }
}

/// Expected responses are from Python's hashlib: H = hashlib.new(name, text).hexdigest() over the
/// texts that RFC 7616 §3.4.1 to §3.4.3 define, for user alice, realm example.com, password
/// s3cret, nonce n0nce, cnonce c0nce, REGISTER sip:example.com and the body "v=0\r\n".
#[test]
fn every_algorithm_with_every_protection() {
    for (algorithm, none, auth, auth_int) in [
        (
            "MD5",
            "38d85182c15df48886e646128cf7126c",
            "50cb18d6f469cd885ec60894d5783bfc",
            "2b9e10345695ff866bcb573ec3c23192",
        ),
        (
            "MD5-sess",
            "99bb0b0282e98dbacb2b232b2d50a1f9",
            "b6b46c496d37e2ca39c4874b32a5d048",
            "a2725b8a9bfdf3eb102c39dcb9be6804",
        ),
        (
            "SHA-256",
            "555c66814e4a7b5987a65e7cd3409fb944190235dec7a0b1fb2bd499b2e7fc94",
            "ee27e7c82d8b2a4b40dbdca4e572eb8c689ec7e7513695f40d4d9a234f4df454",
            "769cd5bafbae4ca71ea53e2efb55f005c9eda6b7d0c0918e17982b2a8c564d95",
        ),
        (
            "SHA-256-sess",
            "84678bd7cf36fa0cb557230cf50ece8ce6de21c66219cfb14741248fad8f0884",
            "e6f17354149c1522147b3f6723b4612c542ddf3f97eb95757721c2346274509f",
            "ae140435dc9d871d99ee2423417fd702cdbd2b8af0604b0b8a7854a431869a98",
        ),
        (
            "SHA-512-256",
            "9dd56ce1d57bb48155b452d49623e391aac200402d34a8d95df35fc2e679685d",
            "392bea7adeceebcc21df15514bac41d2d6ffa39567dce1211fdd9c471cc4acfd",
            "c548a79136c0588f50e7095bab07c58f30df754c2ecb077cd6bffc23b9befb36",
        ),
        (
            "SHA-512-256-sess",
            "86f5f26425d82d4d8c26f24524453143a48b434b740d569593bb42240b817440",
            "f7641dc6bb1ef1d36cfbabf732e40fffe3178ade5cdcf0a7d58e6228c890f6a9",
            "475fa38c72c814bed4095d583d648b7a4eb8bdb5eccaec9db743cc3b0eb3d17c",
        ),
    ] {
        for (qop, response) in
            [("", none), (", qop=\"auth\"", auth), (", qop=\"auth-int\"", auth_int)]
        {
            let challenge = format!(
                "Digest realm=\"example.com\", nonce=\"n0nce\", algorithm={algorithm}{qop}"
            );
            let answer = answered(&challenge).unwrap();
            assert_eq!(read(&answer).response, response, "{challenge}");
            assert!(answer.contains(&format!("algorithm={algorithm}")), "{answer}");
        }
    }
}

#[test]
fn what_client_answers_server_accepts() {
    for name in ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess", "SHA-512-256", "SHA-512-256-sess"] {
        for qops in [vec![], vec![Qop::Auth], vec![Qop::AuthInt], vec![Qop::AuthInt, Qop::Auth]] {
            let algorithm = Algorithm::parse(name).unwrap();
            let realm = "our \"realm\" \\ here, too";
            let settings = Settings {
                algorithms: vec![algorithm],
                qops: qops.clone(),
                ..Settings::new(realm)
            };
            let users = [Credentials::new("al \"ice\"", "s3\\cret:".into(), Some(realm))];
            let mut server = Server::new(settings, &[1; 32]);
            let mut client = Client::default();
            let mut challenge = Headers::default();
            for (name, value) in server.challenge(5, false) {
                challenge.push(name, value);
            }
            client.challenged(401, &challenge, &users).unwrap();
            let mut verify = |now_s, answer: &str, body: &[u8]| {
                server.verify(now_s, [answer], &Method::INVITE, body, &users)
            };
            for now_s in [5, 100] {
                let answers = client.authorize(&Method::INVITE, "sip:bob@h", b"body", "c0nce");
                let [(header, answer)] = answers.as_slice() else { panic!("{answers:?}") };
                assert_eq!(*header, "Authorization");
                if qops == [Qop::AuthInt] {
                    assert_eq!(verify(now_s, answer, b"other"), Verdict::Wrong);
                }
                let once = qops.is_empty() && now_s > 5; // no count, so one request a nonce
                let expected =
                    if once { Verdict::Replayed } else { Verdict::Ok("al \"ice\"".into()) };
                assert_eq!(verify(now_s, answer, b"body"), expected, "{answer}");
                assert_eq!(verify(now_s, answer, b"body"), Verdict::Replayed, "{answer}");
            }
            let late = client.authorize(&Method::INVITE, "sip:bob@h", b"body", "c0nce");
            assert_eq!(verify(126, &late[0].1, b"body"), Verdict::Stale);
        }
    }
}

#[test]
fn of_several_challenges_the_strongest_counts() {
    let realm = |algorithm: &str| format!("Digest realm=\"r\", nonce=\"n\", {algorithm}");
    let md5 = realm("algorithm=MD5");
    let plain = realm("qop=\"auth,auth-int\"");
    let sha256 = realm("algorithm=SHA-256, qop=\"auth\"");
    let sha512 = realm("algorithm=SHA-512-256");
    let unknown = realm("algorithm=SHA3-512");
    let no_qop_we_know = realm("algorithm=SHA-256, qop=\"auth-conf\"");
    let joined = format!("Negotiate, {md5} , NTLM abc==, {sha256}");
    for (values, algorithm) in [
        (vec![&sha256, &md5], "algorithm=SHA-256"),
        (vec![&md5, &sha256], "algorithm=SHA-256"),
        (vec![&md5, &sha512, &sha256], "algorithm=SHA-512-256"),
        (vec![&sha256, &sha512], "algorithm=SHA-256"),
        (vec![&unknown, &no_qop_we_know, &md5], "algorithm=MD5"),
        (vec![&joined], "algorithm=SHA-256"),
        (vec![&plain], "qop=auth,"),
    ] {
        let values: Vec<&str> = values.into_iter().map(String::as_str).collect();
        let mut client = Client::default();
        client.challenged(401, &challenges(&values), &alice()).unwrap();
        let answers = client.authorize(&Method::INVITE, "sip:b@h", b"", "c");
        assert_eq!(answers.len(), 1);
        assert!(format!("{},", answers[0].1).contains(algorithm), "{values:?}: {answers:?}");
        assert_eq!(answers[0].1.contains("algorithm="), algorithm.starts_with("algorithm"));
    }
    for hopeless in [
        unknown.as_str(),
        &no_qop_we_know,
        "Basic realm=\"r\"",
        "Digest realm=\"r\"",
        "Digest nonce=\"n\"",
        "Digest realm=\"r, nonce=\"n\"",
        "Digest realm=\"r\", realm=\"s\", nonce=\"n\"",
        "",
    ] {
        assert_eq!(answered(hopeless), Err(Refused::Unsupported), "{hopeless}");
    }
}

#[test]
fn the_challenge_is_echoed_as_it_was_meant() {
    let answer = answered(
        r#"digest REALM = "a \"b\", c", Nonce="n,=\\", opaque="o\"p", algorithm=md5, stale=FALSE"#,
    )
    .unwrap();
    assert!(answer.starts_with(r#"Digest username="alice", realm="a \"b\", c", nonce="n,=\\","#));
    assert!(answer.contains(r#", opaque="o\"p""#), "{answer}");
    assert!(answer.contains(r#"uri="sip:example.com""#), "{answer}");
    assert!(!answer.contains("cnonce") && !answer.contains("nc="), "RFC 2069: {answer}");
}

#[test]
fn counts_go_up_for_each_nonce() {
    let mut client = Client::default();
    let count = |client: &mut Client| {
        let answers = client.authorize(&Method::INVITE, "sip:b@h", b"", "c");
        (read(&answers[0].1).nonce, read(&answers[0].1).nc)
    };
    let challenge = |nonce: &str| {
        challenges(&[&format!("Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\", stale=true")])
    };
    client.challenged(401, &challenge("one"), &alice()).unwrap();
    assert_eq!((count(&mut client), count(&mut client)), (("one".into(), 1), ("one".into(), 2)));
    let mut inherited = client.clone();
    client.challenged(401, &challenge("two"), &alice()).unwrap();
    assert_eq!(count(&mut client), ("two".into(), 1));
    assert_eq!(count(&mut inherited), ("one".into(), 3));
    client.accepted(&headers(&[("Authentication-Info", "qop=auth, nextnonce=\"three\"")]));
    assert_eq!(count(&mut client), ("three".into(), 1));
}

#[test]
fn a_wrong_password_ends_and_an_old_nonce_does_not() {
    let challenge = |nonce: &str, stale: &str| {
        challenges(&[&format!("Digest realm=\"r\", nonce=\"{nonce}\"{stale}")])
    };
    let rejected = Err(Refused::Rejected { realm: "r".into() });
    let mut client = Client::default();
    client.challenged(401, &challenge("1", ""), &alice()).unwrap();
    let mut other = client.clone();
    assert_eq!(client.challenged(401, &challenge("1", ""), &alice()), rejected);
    // A new nonce is worth one more try, unless the last one had been accepted.
    other.challenged(401, &challenge("2", ""), &alice()).unwrap();
    assert_eq!(other.challenged(401, &challenge("3", ""), &alice()), rejected);
    other.accepted(&Headers::default());
    other.challenged(401, &challenge("4", ""), &alice()).unwrap();
    // Stale says nothing of the password, but does not go on for ever.
    let mut stale = Client::default();
    let tries = (0..10).take_while(|n| {
        let nonce = n.to_string();
        stale.challenged(401, &challenge(&nonce, ", stale=true"), &alice()).is_ok()
    });
    assert_eq!(tries.count(), 4);
}

#[test]
fn several_realms_and_proxies_at_once() {
    let mut client = Client::default();
    let credentials = [
        Credentials::new("alice", "a".into(), Some("server")),
        Credentials::new("proxy-user", "b".into(), Some("proxy \"1\"")),
    ];
    let proxies = headers(&[
        ("Proxy-Authenticate", r#"Digest realm="nobody's", nonce="x""#),
        ("Proxy-Authenticate", r#"Digest realm="proxy \"1\"", nonce="p", qop="auth""#),
    ]);
    client.challenged(407, &proxies, &credentials).unwrap();
    client
        .challenged(401, &challenges(&[r#"Digest realm="server", nonce="s""#]), &credentials)
        .unwrap();
    let answers = client.authorize(&Method::INVITE, "sip:b@h", b"", "c");
    let seen: Vec<_> =
        answers.iter().map(|(name, value)| (*name, read(value).username, read(value).nc)).collect();
    assert_eq!(
        seen,
        [("Proxy-Authorization", "proxy-user".into(), 1), ("Authorization", "alice".into(), 0)]
    );
    let nobody = challenges(&[r#"Digest realm="nobody's", nonce="x""#]);
    let refused = client.challenged(401, &nobody, &credentials);
    assert_eq!(refused, Err(Refused::NoCredentials { realm: "nobody's".into() }));
    assert_eq!(client.challenged(407, &Headers::default(), &alice()), Err(Refused::Unsupported));
    for number in 0..50 {
        let realm = challenges(&[&format!("Digest realm=\"{number}\", nonce=\"n\"")]);
        client.challenged(401, &realm, &alice()).unwrap();
    }
    assert_eq!(client.authorize(&Method::INVITE, "sip:b@h", b"", "c").len(), 8);
}

#[test]
fn the_server_challenges_strongest_first_and_never_twice_the_same() {
    let mut server = Server::new(
        Settings {
            algorithms: vec![Algorithm::MD5, Algorithm::SHA_256],
            ..Settings::new("example.com")
        },
        &[1; 32],
    );
    let values: Vec<_> = server.challenge(1, false).into_iter().map(|(_, value)| value).collect();
    assert!(values[0].contains("algorithm=SHA-256, qop=\"auth\""), "{values:?}");
    assert!(values[1].contains("algorithm=MD5") && !values[1].contains("stale"), "{values:?}");
    let again = server.challenge(1, true);
    assert!(again[0].1.ends_with(", stale=true"));
    assert_ne!(again[0].1.strip_suffix(", stale=true"), Some(values[0].as_str()));
}

/// The header a client makes for this server's challenge.
fn answer(server: &mut Server, now_s: u64, credentials: &[Credentials]) -> String {
    let mut challenge = Headers::default();
    for (name, value) in server.challenge(now_s, false) {
        challenge.push(name, value);
    }
    let mut client = Client::default();
    client.challenged(401, &challenge, credentials).unwrap();
    client.authorize(&Method::INVITE, "sip:bob@h", b"", "c0nce").remove(0).1
}

#[test]
fn the_server_lets_nobody_else_in() {
    let mut server = Server::new(Settings::new("example.com"), &[1; 32]);
    let mut elsewhere = Server::new(Settings::new("example.com"), &[2; 32]);
    let users = alice();
    let good = answer(&mut server, 0, &users);
    let foreign = answer(&mut elsewhere, 0, &users);
    let unknown = answer(&mut server, 0, &[Credentials::new("mallory", "s3cret".into(), None)]);
    let wrong = answer(&mut server, 0, &[Credentials::new("alice", "guess".into(), None)]);
    let nc = good.replace("nc=00000001", "nc=00000002");
    let mut weaker = Server::new(
        Settings { algorithms: vec![Algorithm::MD5], ..Settings::new("example.com") },
        &[1; 32],
    );
    let md5 = answer(&mut weaker, 0, &users);
    let mut strict = Server::new(
        Settings { algorithms: vec![Algorithm::SHA_256], ..Settings::new("example.com") },
        &[1; 32],
    );
    let refused = strict.verify(0, [md5.as_str()], &Method::INVITE, b"", &users);
    assert_eq!(refused, Verdict::Missing, "an algorithm that was not offered");
    for (value, verdict) in [
        ("", Verdict::Missing),
        ("Basic YWxpY2U6czNjcmV0", Verdict::Missing),
        (&good.replace("realm=\"example.com\"", "realm=\"other\""), Verdict::Missing),
        (&good.replace("nc=00000001", "nc=1"), Verdict::Malformed),
        (&good.replace("nc=00000001", "nc=00000000"), Verdict::Malformed),
        (&good.replace("uri=\"sip:bob@h\", ", ""), Verdict::Malformed),
        (&good.replace("qop=auth", "qop=best"), Verdict::Malformed),
        (&format!("{good}, nonce=\"again\""), Verdict::Malformed),
        (&unknown, Verdict::Wrong),
        (&wrong, Verdict::Wrong),
        (&nc, Verdict::Wrong),
        (&good.replace("sip:bob@h", "sip:eve@h"), Verdict::Wrong),
        (&foreign, Verdict::Stale),
        (&good, Verdict::Ok("alice".into())),
        (&good, Verdict::Replayed),
    ] {
        let given = server.verify(1, [value], &Method::INVITE, b"", &users);
        assert_eq!(given, verdict, "{value}");
    }
    let other = good.replace("realm=\"example.com\"", "realm=\"other\"");
    let fresh = answer(&mut server, 1, &users);
    let both = [other.as_str(), fresh.as_str()];
    assert_eq!(
        server.verify(1, both, &Method::INVITE, b"", &users),
        Verdict::Ok("alice".into()),
        "the header for our realm is found among others"
    );
    let elsewhere = [Credentials::new("alice", "s3cret".into(), Some("other"))];
    let fresh = answer(&mut server, 1, &users);
    let verdict = server.verify(1, [fresh.as_str()], &Method::INVITE, b"", &elsewhere);
    assert_eq!(verdict, Verdict::Wrong, "credentials of another realm");
}

#[test]
fn passwords_stay_unprinted() {
    let credentials = Credentials::new("alice", "s3cret".into(), None);
    let mut client = Client::default();
    let challenge = challenges(&["Digest realm=\"r\", nonce=\"n\""]);
    client.challenged(401, &challenge, std::slice::from_ref(&credentials)).unwrap();
    let shown = format!("{credentials:?} {client:?}");
    assert!(shown.contains("***") && !shown.contains("s3cret"), "{shown}");
}
