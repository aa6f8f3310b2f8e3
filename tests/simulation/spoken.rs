//! Callers who say what they are asked for, in noise, with the echo of our prompts on the line.
//! They key what is not understood twice. Whatever is heard: nobody pays with a card that is not
//! his.

use std::fmt::Write;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use ringtill::call::Telling;
use ringtill::dial::phone::Report;
use ringtill::media::{Clip, codec};
use ringtill::server::dial;

use super::*;

mod bank; // a bank account, said
mod barge_in; // a voice stops a prompt, its echo does not

const CALLS: u64 = 8;
/// Decibels between speech and noise; the first is a quiet line.
const LEVELS: [Option<f32>; 4] = [None, Some(25.0), Some(15.0), Some(8.0)];
/// What of our prompts comes back, and how late.
const ECHO_DB: f32 = -24.0;
const ECHO_FRAMES: usize = 4;
/// Of speech in the clips: -16 dBm0, full scale is +3.17.
const SPEECH_DB: f32 = -19.2;
/// What the caller owes, with its fee.
const TOTAL: i64 = 32_372;
const SPOKEN_CALL_MAX: Duration = Duration::from_secs(300);

const VOICE: [(&str, &[u8]); 12] = [
    ("one", include_bytes!("../../src/server/demo/voice/one.flac")),
    ("two", include_bytes!("../../src/server/demo/voice/two.flac")),
    ("chat", include_bytes!("../../src/server/demo/voice/chat.flac")),
    ("routing", include_bytes!("../../src/server/demo/voice/routing.flac")),
    ("account", include_bytes!("../../src/server/demo/voice/account.flac")),
    ("yes", include_bytes!("../../src/server/demo/voice/yes.flac")),
    ("no", include_bytes!("../../src/server/demo/voice/no.flac")),
    ("card", include_bytes!("../../src/server/demo/voice/card.flac")),
    ("card_amex", include_bytes!("../../src/server/demo/voice/card_amex.flac")),
    ("expiry", include_bytes!("../../src/server/demo/voice/expiry.flac")),
    ("cvv", include_bytes!("../../src/server/demo/voice/cvv.flac")),
    ("zip", include_bytes!("../../src/server/demo/voice/zip.flac")),
];

fn clip(name: &str) -> Clip {
    let (_, bytes) = VOICE.iter().find(|(known, _)| *known == name).unwrap();
    dial::sound((*bytes).into()).unwrap()
}

/// A question by its last words, what the caller says to it, and what he keys if he must.
fn answers(amex: bool) -> [(&'static str, &'static str, &'static str); 5] {
    let (card, keys) =
        if amex { ("card_amex", "378282246310005") } else { ("card", "4111111111111111#") };
    [
        ("say or press 3.", "one", "1"),
        ("your card number", card, keys),
        ("the year.", "expiry", "0930"),
        ("of your card.", "cvv", if amex { "3491" } else { "349" }),
        ("billing ZIP code of your card.", "zip", "75201"),
    ]
}

/// What the caller hears of the line, and what the line does to what he says.
struct Line {
    noise: Option<f32>,
    rng: StdRng,
    /// Our last frames, decoded, the newest last.
    ours: Vec<[i16; 160]>,
}

impl Line {
    fn heard(&mut self, packet: &[u8]) {
        if let Some(frame) = frame(packet) {
            self.ours.push(frame);
        }
        let old = self.ours.len().saturating_sub(ECHO_FRAMES);
        self.ours.drain(..old);
    }

    /// Adds noise and echo to a packet of the caller's.
    fn spoil(&mut self, packet: &mut [u8]) {
        let Some(frame) = frame(packet) else { return };
        let echo = if self.ours.len() == ECHO_FRAMES { self.ours.remove(0) } else { [0; 160] };
        let echo_gain = 10f32.powf(ECHO_DB / 20.0);
        let peak = self.noise.map_or(0.0, |snr| {
            // Even noise has a third of its peak's power.
            32768.0 * (3.0 * 10f32.powf((SPEECH_DB - snr) / 10.0)).sqrt()
        });
        let law = if packet[1] & 0x7f == 8 { Law::A } else { Law::Mu };
        for (n, code) in packet[12..].iter_mut().enumerate() {
            let noise = peak * self.rng.random_range(-1.0..1.0f32);
            let sum = f32::from(frame[n]) + noise + echo_gain * f32::from(echo[n]);
            *code = codec::encode(law, sum.clamp(-32000.0, 32000.0) as i16);
        }
    }
}

/// The sound of a packet of G.711.
fn frame(packet: &[u8]) -> Option<[i16; 160]> {
    let law = match packet.get(1)? & 0x7f {
        0 => Law::Mu,
        8 => Law::A,
        _ => return None,
    };
    let codes: &[u8; 160] = packet.get(12..)?.try_into().ok()?;
    Some(codes.map(|code| codec::decode(law, code)))
}

#[derive(Default)]
struct Figures {
    paid: u32,
    spoken: u32,
    keyed: u32,
    not_understood: u32,
    questions: u32,
}

impl Figures {
    /// What came of a call.
    fn count(&mut self, server: &Server) {
        self.paid += u32::from(matches!(server.outcome, Some(Outcome::Paid { .. })));
        let not_understood = |telling: &&Telling| matches!(telling, Telling::NotUnderstood { .. });
        self.not_understood += server.tellings.iter().filter(not_understood).count() as u32;
    }

    /// A question was answered.
    fn answered(&mut self, spoken: bool) {
        self.questions += 1;
        self.spoken += u32::from(spoken);
        self.keyed += u32::from(!spoken);
    }
}

#[test]
fn callers_who_speak_pay_with_their_own_card_or_none() {
    at_every_level("spoken calls, a synthetic voice", "paid", pay_by_voice);
}

/// Calls at every level of noise. On a quiet line, with a voice it knows, all must go well: then
/// it is no toy.
fn at_every_level(what: &str, done: &str, call: impl Fn(u64, Option<f32>, &mut Figures)) {
    let mut table = String::new();
    for noise in LEVELS {
        let mut figures = Figures::default();
        for seed in 0..CALLS {
            call(seed, noise, &mut figures);
        }
        let Figures { paid, spoken, keyed, not_understood, questions } = figures;
        let line = noise.map_or("quiet".to_string(), |snr| format!("{snr} dB"));
        let _ = writeln!(
            table,
            "  {line:>6}: {paid} of {CALLS} {done}; {questions} questions, {spoken} answered by \
             voice, {keyed} by keys, {not_understood} not understood"
        );
        let well = paid == CALLS as u32 && spoken > 2 * keyed;
        assert!(noise.is_some() || well, "\n{table}");
    }
    println!("{what}, echo {ECHO_DB} dB, seeds 0-{}:\n{table}", CALLS - 1);
}

fn pay_by_voice(seed: u64, noise: Option<f32>, figures: &mut Figures) {
    let amex = seed % 4 == 3;
    let react = |heard: &str| reaction(heard, amex);
    let (server, context) = speaking_call((seed, noise), |_| {}, react);
    let last4 = if amex { "0005" } else { "1111" };
    for sale in server.simulator.sales() {
        assert_eq!(
            sale.last4.as_ref().map(|four| four.as_str()),
            Some(last4),
            "a card that is not the caller's\n{context}"
        );
        assert_eq!(sale.total.minor, TOTAL, "{context}");
    }
    figures.count(&server);
    for telling in &server.tellings {
        if let Telling::Keyed { field, spoken, rejected: false, .. } = telling
            && *field != "consent"
        {
            figures.answered(*spoken);
        }
    }
}

/// A call by a caller who speaks, with a server that can hear: what the server made of it, and what
/// the caller heard. On a quiet line that is shown.
fn speaking_call(
    (seed, noise): (u64, Option<f32>),
    prepare: impl FnOnce(&mut Server),
    reaction: impl FnMut(&str) -> Option<Act>,
) -> (Server, String) {
    let now = start();
    let mut server = Server::new(now, library().clone(), seed);
    server.speech = Some(ringtill::speech::open("digits", None).unwrap());
    prepare(&mut server);
    // The line has an echo at a steady distance: it is not made of packets.
    let steady = Weather { jitter: Duration::ZERO, ..CLEAR };
    let mut network = Network::new(steady, seed);
    let scenario = Scenario {
        name: "speaks",
        from: JAMES,
        script: "wait-end 600".into(),
        fault: None,
        expected: Expected::Paid { account: "1001", total: TOTAL },
    };
    let setup = phone(&scenario, &server, seed, Method::Events);
    let setup = Setup { call_max: SPOKEN_CALL_MAX, ..setup };
    let mut line = Line { noise, rng: StdRng::seed_from_u64(seed), ours: vec![] };
    let mut call = Simulation { now, server, network: &mut network, phone: Phone::new(setup, now) };
    let reports = converse(&mut call, &mut line, reaction);
    let context = format!("seed {seed}, noise {noise:?}:\n{}", reports.join("\n"));
    if noise.is_none() {
        println!("{context}");
    }
    (call.server, context)
}

/// The caller answers what she hears, until the call is over.
fn converse(
    call: &mut Simulation<'_>,
    line: &mut Line,
    mut reaction: impl FnMut(&str) -> Option<Act>,
) -> Vec<String> {
    let (begin, mut reports, mut heard) = (call.now, Vec::new(), String::new());
    let mut due: Option<(Instant, Act)> = None;
    loop {
        while let Some(output) = call.phone.poll() {
            let (source, destination, bytes) = match output {
                Output::Sip { destination, bytes } => {
                    ("192.0.2.9:5060", destination, bytes.to_vec())
                }
                Output::Rtp { destination, bytes } => {
                    let mut bytes = bytes.to_vec();
                    line.spoil(&mut bytes);
                    ("192.0.2.9:30000", destination, bytes)
                }
                // Nobody is there to hear it.
                Output::Sound(_) => continue,
                Output::Report(report) => {
                    let at = call.now.duration_since(begin).as_secs_f32();
                    reports.push(format!("{at:7.2} {report}"));
                    if let Report::Heard { words, .. } = &report {
                        heard = format!("{heard} {words}");
                        if let Some(act) = reaction(&heard) {
                            due = Some((call.now + Duration::from_millis(400), act));
                            heard.clear();
                        }
                    }
                    continue;
                }
            };
            let source: SocketAddr = source.parse().unwrap();
            call.network.send(call.now, Datagram { source, destination, bytes });
        }
        call.server.run(call.now, call.network);
        if call.phone.finished().is_some() && call.server.outcome.is_some() {
            return reports;
        }
        let act_at = due.as_ref().map(|(at, _)| *at);
        let next = [call.network.deadline(), call.phone.deadline(), call.server.deadline(), act_at];
        call.now = next.into_iter().flatten().min().unwrap().max(call.now);
        assert!(call.now < begin + 2 * SPOKEN_CALL_MAX, "no end:\n{}", reports.join("\n"));
        while let Some(datagram) = call.network.arrived(call.now) {
            match datagram.destination.to_string().as_str() {
                "192.0.2.9:5060" => {
                    call.phone.sip(call.now, datagram.source, datagram.bytes.into());
                }
                "192.0.2.9:30000" => {
                    line.heard(&datagram.bytes);
                    call.phone.rtp(call.now, datagram.source, &datagram.bytes);
                }
                _ => call.server.receive(call.now, &datagram),
            }
        }
        if call.phone.deadline().is_some_and(|at| at <= call.now) {
            call.phone.tick(call.now);
        }
        if let Some((_, act)) = due.take_if(|(at, _)| *at <= call.now) {
            match act {
                Act::Say(name) => call.phone.say(call.now, name, clip(name)),
                Act::Key(keys) => call.phone.press(call.now, keys.bytes().collect()),
            }
        }
    }
}

enum Act {
    Say(&'static str),
    Key(&'static str),
}

/// What a caller does about the words she has just heard.
fn reaction(heard: &str, amex: bool) -> Option<Act> {
    let heard = heard.trim_end();
    if heard.ends_with("say no or press 2.") {
        let right = ["0930", "930", "75201", "1111", "0005"].contains(&&*read_back(heard));
        return Some(Act::Say(if right { "yes" } else { "no" }));
    }
    if heard.ends_with("To cancel, press 2.") {
        return Some(Act::Key("1"));
    }
    let keypad = heard.contains("Please use the keys") || heard.contains("Enter ");
    let menu = heard.ends_with("press 3.");
    if menu && heard.contains("To pay the full balance, press 1.") {
        return Some(Act::Key("1"));
    }
    let asked = match heard {
        _ if menu => 0,
        _ if heard.ends_with("digit by digit.")
            || heard.ends_with("start the entry again, press star.") =>
        {
            1
        }
        _ if heard.contains("card number, then press pound.") => 1,
        _ if heard.ends_with("for the year.") || heard.ends_with("0 9 3 0.") => 2,
        _ if heard.contains("security code") && heard.ends_with("of your card.") => 3,
        _ if heard.ends_with("billing ZIP code of your card.") => 4,
        _ => return None,
    };
    let (_, said, keyed) = answers(amex)[asked];
    // Four digits were never recorded.
    let keypad = keypad || (amex && said == "cvv");
    Some(if keypad { Act::Key(keyed) } else { Act::Say(said) })
}

/// The digits after "I heard".
fn read_back(heard: &str) -> String {
    let read = heard.rsplit("I heard").next().unwrap_or_default();
    let digits = read.split(".").next().unwrap_or_default();
    let number = |word: &str| {
        let names =
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
        let place = names.iter().position(|name| *name == word.trim_matches(','));
        place.map(|place| char::from(b'0' + place as u8))
    };
    digits.split_whitespace().filter_map(number).collect()
}
