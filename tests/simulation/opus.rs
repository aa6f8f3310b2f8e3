//! Calls over Opus from end to end. The test phone knows our prompts in G.711 alone: this caller
//! keys ahead and then agrees until he is heard.
#![cfg(feature = "opus")]

use ringtill::sip::offer::Codec;

use super::*;

const CALLS: u64 = 12;
/// Tones and Opus on a line without loss; with events it may be rough.
const KEYING: [(Method, Weather); 2] = [(Method::Events, ROUGH), (Method::InBand, CLEAR)];

#[test]
fn callers_pay_over_opus_with_events_of_its_clock_and_with_tones() {
    for (method, weather) in KEYING {
        for seed in 0..CALLS {
            pay(seed, method, weather);
        }
    }
}

fn pay(seed: u64, method: Method, weather: Weather) {
    let now = start();
    let mut server = Server::new(now, library().clone(), seed);
    // A trunk with both, and one with nothing else.
    server.codecs = vec![Codec::Opus, Codec::Pcmu];
    server.codecs.truncate(1 + seed as usize % 2);
    let mut network = Network::new(weather, seed);
    // The consent counts once it was asked for, 20 s after all was keyed.
    let agreeing = "pause 2000, key 1, ".repeat(10);
    let scenario = Scenario {
        name: "keys everything ahead",
        from: JAMES,
        script: format!(
            "pause 3000, key 1, key 5555555555554444#, key 1230 123 46201, {agreeing}wait-end 120"
        ),
        fault: None,
        expected: Expected::Paid { account: "1001", total: 32_372 },
    };
    let setup =
        Setup { codecs: vec![Codec::Pcma, Codec::Opus], ..phone(&scenario, &server, seed, method) };
    let mut call = Simulation { now, server, network: &mut network, phone: Phone::new(setup, now) };
    let reports = call.run(now + CALL_MAX);
    let context = format!("seed {seed}, {method:?}:\n{}", reports.join("\n"));
    assert!(reports.iter().any(|report| report.contains("answered, opus")), "{context}");
    call.check(&scenario, &context);
    call.die_out();
    assert_eq!(call.server.legs(), 0, "a leg is left behind\n{context}");
}
