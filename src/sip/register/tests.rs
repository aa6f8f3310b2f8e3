//! The registrar is played by hand, on a virtual clock.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn registration(now: Instant, servers: usize) -> Registration {
    let settings = Settings {
        registrar: "sip:example.com".into(),
        aor: "sip:alice@example.com".into(),
        contact: "sip:alice@192.0.2.1:5070".into(),
        expires_s: 3600,
        servers,
        credentials: vec![Credentials::new("alice", "s3cret".into(), None)],
    };
    Registration::new(now, settings, 1)
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in pairs {
        headers.push(*name, *value);
    }
    headers
}

fn none() -> Headers {
    Headers::default()
}

fn value<'a>(ask: &'a Ask, name: &str) -> Option<&'a str> {
    ask.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// Waits for the next ask; says how long that took.
fn wait(registration: &mut Registration, now: &mut Instant) -> (Duration, Ask) {
    let began = *now;
    *now = registration.deadline().expect("a deadline").max(*now);
    let ask = registration.poll(*now).expect("an ask at the deadline");
    assert_eq!(registration.poll(*now), None, "one ask at a time");
    (*now - began, ask)
}

#[test]
fn a_binding_is_asked_for_and_refreshed_in_time() {
    let mut now = start();
    let mut registration = registration(now, 1);
    let (waited, first) = wait(&mut registration, &mut now);
    assert_eq!((waited, first.server, first.uri.as_str()), (secs(0), 0, "sip:example.com"));
    assert_eq!(value(&first, "To"), Some("<sip:alice@example.com>"));
    assert!(value(&first, "From").unwrap().starts_with("<sip:alice@example.com>;tag="));
    let contact = value(&first, "Contact");
    assert_eq!(contact, Some("<sip:alice@192.0.2.1:5070>;expires=3600"));
    assert_eq!((value(&first, "Expires"), value(&first, "Authorization")), (Some("3600"), None));
    registration.answered(now, 100, &none());
    registration.answered(now, 200, &headers(&[("Service-Route", "<sip:a;lr>, <sip:b;lr>")]));
    assert_eq!(registration.state(), &State::Registered { until: now + secs(3600) });
    assert_eq!(registration.service_route(), ["<sip:a;lr>", "<sip:b;lr>"]);
    let (waited, second) = wait(&mut registration, &mut now);
    assert_eq!(waited, secs(3060));
    assert_eq!(value(&second, "Call-ID"), value(&first, "Call-ID"));
    let numbers = (value(&first, "CSeq"), value(&second, "CSeq"));
    assert_eq!(numbers, (Some("1 REGISTER"), Some("2 REGISTER")));
}

#[test]
fn the_registrar_says_how_long() {
    let ours = "\"x\" <sip:alice@192.0.2.1:5070;transport=udp>;q=1;expires=100";
    let other = "<sip:alice@192.0.2.9>;expires=900";
    for (given, refresh_s, until_s) in [
        (vec![("Contact", other), ("Contact", ours), ("Expires", "50")], 85, 100),
        (vec![("Contact", "<sip:rewritten@198.51.100.1:1>;expires=200")], 170, 200),
        (vec![("Contact", "<sip:a@h>;expires=7, <sip:b@h>;expires=8"), ("Expires", "60")], 51, 60),
        (vec![("Expires", " 120 ")], 102, 120),
        (vec![("Expires", "soon")], 3060, 3600),
        (vec![("Expires", "20")], 30, 20),
        (vec![("Expires", "99999999999")], 73_440, 86_400),
    ] {
        let mut now = start();
        let mut registration = registration(now, 1);
        wait(&mut registration, &mut now);
        registration.answered(now, 200, &headers(&given));
        let until = now + secs(until_s);
        assert_eq!(registration.state(), &State::Registered { until }, "{given:?}");
        let (waited, _) = wait(&mut registration, &mut now);
        assert_eq!(waited, secs(refresh_s), "{given:?}");
        let lapsed = until <= now;
        assert_eq!(registration.state() == &State::Unregistered, lapsed, "{given:?}");
    }
    let now = start();
    let mut registration = registration(now, 1);
    registration.poll(now);
    registration.answered(now, 200, &headers(&[("Expires", "0")]));
    assert!(matches!(registration.state(), State::Failed { status: Some(200), .. }));
}

fn challenge(nonce: &str, stale: &str) -> Headers {
    let value = format!("Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\"{stale}");
    headers(&[("WWW-Authenticate", &value)])
}

#[test]
fn a_challenge_is_answered_and_a_wrong_password_waits_long() {
    let mut now = start();
    let mut registration = registration(now, 2);
    wait(&mut registration, &mut now);
    registration.answered(now, 401, &challenge("one", ""));
    let (waited, ask) = wait(&mut registration, &mut now);
    assert_eq!((waited, ask.server), (secs(0), 0));
    let answer = value(&ask, "Authorization").unwrap();
    assert!(answer.contains("nonce=\"one\"") && answer.contains("nc=00000001"), "{answer}");
    registration.answered(now, 200, &none());
    let (_, refresh) = wait(&mut registration, &mut now);
    assert!(value(&refresh, "Authorization").unwrap().contains("nc=00000002"));
    registration.answered(now, 401, &challenge("two", ", stale=true"));
    let (waited, ask) = wait(&mut registration, &mut now);
    assert_eq!(waited, secs(0));
    assert!(value(&ask, "Authorization").unwrap().contains("nonce=\"two\""));
    registration.answered(now, 401, &challenge("two", ""));
    assert!(matches!(registration.state(), State::Failed { status: Some(401), .. }));
    let (waited, ask) = wait(&mut registration, &mut now);
    assert!(waited >= secs(1600), "{waited:?}");
    assert_eq!(value(&ask, "Authorization"), None, "starts anew");
}

#[test]
fn an_interval_too_brief_is_raised_once() {
    let mut now = start();
    let mut registration = registration(now, 1);
    wait(&mut registration, &mut now);
    registration.answered(now, 423, &headers(&[("Min-Expires", "7200")]));
    let (waited, ask) = wait(&mut registration, &mut now);
    assert_eq!((waited, value(&ask, "Expires")), (secs(0), Some("7200")));
    registration.answered(now, 200, &none());
    assert_eq!(registration.state(), &State::Registered { until: now + secs(7200) });
    let (_, ask) = wait(&mut registration, &mut now);
    assert_eq!(value(&ask, "Expires"), Some("7200"), "remembered");
    registration.answered(now, 423, &headers(&[("Min-Expires", "7201")]));
    wait(&mut registration, &mut now);
    registration.answered(now, 423, &headers(&[("Min-Expires", "7202")]));
    assert!(wait(&mut registration, &mut now).0 > secs(60), "no ping-pong");
    for unreasonable in ["10", "86401", "99999999999", "x", ""] {
        registration.answered(now, 423, &headers(&[("Min-Expires", unreasonable)]));
        assert!(wait(&mut registration, &mut now).0 > secs(60), "{unreasonable}");
    }
}

#[test]
fn pauses_double_up_to_five_minutes() {
    let mut now = start();
    let mut registration = registration(now, 1);
    wait(&mut registration, &mut now);
    let mut longest = 4;
    for round in 0..40 {
        match round % 3 {
            0 => registration.answered(now, 500, &none()),
            1 => registration.answered(now, 302, &headers(&[("Contact", "<sip:x@h>")])),
            _ => registration.unanswered(now),
        }
        let status = [Some(500), Some(302), None][round % 3];
        let State::Failed { status: shown, until } = *registration.state() else { panic!() };
        assert_eq!((shown, Some(until)), (status, registration.deadline()));
        let (waited, _) = wait(&mut registration, &mut now);
        assert!(waited >= secs(longest) / 2 && waited <= secs(longest), "{round}: {waited:?}");
        longest = (longest * 2).min(300);
    }
    registration.answered(now, 200, &none());
    wait(&mut registration, &mut now);
    registration.answered(now, 408, &none());
    assert!(wait(&mut registration, &mut now).0 <= secs(4), "a success starts over");
    for status in [403, 404, 603] {
        registration.answered(now, status, &none());
        assert!(wait(&mut registration, &mut now).0 >= secs(1600), "{status}");
    }
}

#[test]
fn jitter_differs_by_seed() {
    let now = start();
    let mut pauses: Vec<Duration> = (0..20)
        .map(|seed| {
            let settings = registration(now, 1).settings;
            let mut registration = Registration::new(now, settings, seed);
            registration.poll(now);
            registration.unanswered(now);
            registration.deadline().unwrap() - now
        })
        .collect();
    pauses.sort();
    pauses.dedup();
    assert!(pauses.len() > 15, "{pauses:?}");
}

#[test]
fn retry_after_is_honoured_within_bounds() {
    for (value, least_s, most_s) in [
        ("120 (busy);duration=9", 120, 120),
        ("999999999999", 1800, 1800),
        ("1", 2, 4),
        ("tomorrow", 2, 4),
    ] {
        let mut now = start();
        let mut registration = registration(now, 1);
        wait(&mut registration, &mut now);
        registration.answered(now, 503, &headers(&[("Retry-After", value)]));
        let (waited, _) = wait(&mut registration, &mut now);
        assert!(waited >= secs(least_s) && waited <= secs(most_s), "{value}: {waited:?}");
    }
}

#[test]
fn another_server_takes_over_and_keeps_the_binding() {
    let mut now = start();
    let mut registration = registration(now, 3);
    wait(&mut registration, &mut now);
    registration.answered(now, 200, &none());
    let until = now + secs(3600);
    assert_eq!(wait(&mut registration, &mut now).1.server, 0);
    registration.answered(now, 503, &headers(&[("Retry-After", "600")]));
    assert_eq!(registration.state(), &State::Registered { until }, "the old binding holds");
    let (waited, ask) = wait(&mut registration, &mut now);
    assert_eq!((waited, ask.server), (secs(0), 1));
    registration.answered(now, 401, &challenge("its own", ""));
    let (_, ask) = wait(&mut registration, &mut now);
    assert_eq!(ask.server, 1);
    registration.unanswered(now);
    let (waited, ask) = wait(&mut registration, &mut now);
    assert_eq!((waited, ask.server), (secs(0), 2));
    assert_eq!(value(&ask, "Authorization"), None, "a nonce stays with its server");
    registration.answered(now, 200, &none());
    assert_eq!(wait(&mut registration, &mut now).1.server, 2, "success sticks");
    for server in [0, 1] {
        registration.unanswered(now);
        let (waited, ask) = wait(&mut registration, &mut now);
        assert_eq!((waited, ask.server), (secs(0), server));
    }
    registration.answered(now, 503, &headers(&[("Retry-After", "600")]));
    let (waited, ask) = wait(&mut registration, &mut now);
    assert!((secs(2)..=secs(4)).contains(&waited), "all three failed: {waited:?}");
    assert_eq!(ask.server, 2);
    registration.unanswered(now);
    assert_eq!(wait(&mut registration, &mut now).1.server, 0);
    registration.unanswered(now);
    let (waited, ask) = wait(&mut registration, &mut now);
    assert!(waited >= secs(4) && ask.server == 2, "1 asked to be left alone: {waited:?}");
}

#[test]
fn silence_of_the_sender_is_a_failure_too() {
    let mut now = start();
    let mut registration = registration(now, 1);
    wait(&mut registration, &mut now);
    now += PATIENCE;
    assert_eq!(registration.poll(now), None);
    assert!(matches!(registration.state(), State::Failed { status: None, .. }));
    registration.answered(now, 200, &none());
    assert!(matches!(registration.state(), State::Failed { .. }), "too late");
}

#[test]
fn unregistering_asks_once_more_and_ends() {
    let mut now = start();
    let mut fresh = registration(now, 1);
    fresh.unregister(now);
    assert_eq!((fresh.poll(now + DAY), fresh.deadline()), (None, None));

    let mut bound = registration(now, 1);
    wait(&mut bound, &mut now);
    bound.answered(now, 200, &none());
    bound.unregister(now);
    let (waited, ask) = wait(&mut bound, &mut now);
    assert_eq!((waited, value(&ask, "Expires")), (secs(0), Some("0")));
    assert!(value(&ask, "Contact").unwrap().ends_with(";expires=0"));
    bound.answered(now, 401, &challenge("one", ""));
    let (_, ask) = wait(&mut bound, &mut now);
    assert!(value(&ask, "Authorization").is_some());
    assert_eq!(value(&ask, "Expires"), Some("0"));
    bound.answered(now, 200, &none());
    assert_eq!((bound.state(), bound.deadline()), (&State::Unregistered, None));

    let mut asking = registration(now, 1);
    wait(&mut asking, &mut now);
    asking.unregister(now);
    asking.answered(now, 200, &none());
    assert_eq!(value(&wait(&mut asking, &mut now).1, "Expires"), Some("0"));
    asking.unanswered(now);
    assert_eq!((asking.state(), asking.deadline()), (&State::Unregistered, None));
}
