//! A caller speaks into a prompt while the line returns an echo of it: the prompt stops soon after
//! she has begun, and never by its echo alone.

use std::collections::VecDeque;

use super::*;

const CALLS: u64 = 36;
const PATH_MS: usize = 40;
/// What a room makes of the echo: delays in samples beyond the path, and their parts.
const ROOM: [(usize, f32); 3] = [(0, 0.8), (11, -0.4), (60, 0.2)];
/// From the caller's first sound to the end of the prompt.
const STOP_MAX: Duration = Duration::from_millis(300);
/// She speaks in the first prompt, which is longer than all of this together.
const BEGINS_MS: std::ops::Range<u64> = 3_000..10_000;
const SPEAKS_FOR: Duration = Duration::from_millis(2_000);
/// Parts of its peak below which the beginning of a word is not heard.
const ONSET: f32 = 0.05;

/// A voice, made of another.
struct Voice {
    said: &'static str,
    /// Pitch and formants.
    higher: f32,
    gain_db: f32,
}

impl Voice {
    fn of(seed: u64) -> Voice {
        let said = ["card", "yes", "one", "chat", "zip", "no"][(seed % 6) as usize];
        let higher = [0.85, 1.0, 1.2][(seed / 6 % 3) as usize];
        Voice { said, higher, gain_db: [-9.0, 0.0][(seed / 18 % 2) as usize] }
    }

    fn samples(&self) -> Vec<f32> {
        let whole: Vec<f32> = clip(self.said)
            .mu
            .iter()
            .map(|&code| f32::from(codec::decode(Law::Mu, code)))
            .collect();
        let gain = 10f32.powf(self.gain_db / 20.0);
        let len = (whole.len() as f32 / self.higher) as usize;
        (0..len.saturating_sub(2))
            .map(|n| {
                let at = n as f32 * self.higher;
                let (place, part) = (at as usize, at.fract());
                gain * (whole[place] * (1.0 - part) + whole[place + 1] * part)
            })
            .collect()
    }
}

/// The caller's end of the line: her voice, noise, and an echo of what comes.
struct Room {
    echo_gain: f32,
    noise: f32,
    rng: StdRng,
    ours: VecDeque<f32>,
    /// What she says, from its first audible sample on, and from when.
    voice: VecDeque<f32>,
    begins: Instant,
    began: Option<Instant>,
}

impl Room {
    fn hear(&mut self, packet: &[u8]) {
        if let Some(frame) = frame(packet) {
            self.ours.extend(frame.map(f32::from));
        }
        let kept = 8 * PATH_MS + 160 + ROOM[2].0;
        self.ours.drain(..self.ours.len().saturating_sub(kept));
    }

    /// Fills a packet of the phone's, which is silent by itself.
    fn fill(&mut self, now: Instant, packet: &mut [u8]) {
        if frame(packet).is_none() {
            return;
        }
        let speaks = now >= self.begins && !self.voice.is_empty();
        if speaks {
            self.began.get_or_insert(now);
        }
        let law = if packet[1] & 0x7f == 8 { Law::A } else { Law::Mu };
        for (n, code) in packet[12..].iter_mut().enumerate() {
            let echo: f32 = ROOM
                .iter()
                .filter_map(|(late, part)| {
                    let back = (8 * PATH_MS + late + 160).checked_sub(n)?;
                    Some(part * self.ours.get(self.ours.len().checked_sub(back)?)?)
                })
                .sum();
            let voice = if speaks { self.voice.pop_front().unwrap_or(0.0) } else { 0.0 };
            let noise = self.noise * self.rng.random_range(-1.0..1.0f32);
            let sum = voice + noise + self.echo_gain * echo;
            *code = codec::encode(law, sum.clamp(-32000.0, 32000.0) as i16);
        }
    }
}

/// How long after she began the prompt stopped; `None`: she said nothing, and it did not.
fn stops(seed: u64, echo_db: f32, speaks: bool) -> Result<Option<Duration>, String> {
    let now = start();
    let mut server = Server::new(now, library().clone(), seed);
    server.speech = Some(ringtill::speech::open("digits", None).unwrap());
    let mut network = Network::new(Weather { jitter: Duration::ZERO, ..CLEAR }, seed);
    let scenario = Scenario {
        name: "speaks into a prompt",
        from: JAMES,
        script: "wait-end 600".into(),
        fault: None,
        expected: Expected::NothingCharged,
    };
    let setup = phone(&scenario, &server, seed, Method::Events);
    let mut rng = StdRng::seed_from_u64(seed);
    let begins = now + Duration::from_millis(rng.random_range(BEGINS_MS));
    let mut voice = Voice::of(seed).samples();
    let peak = voice.iter().fold(0.0, |most: f32, sample| most.max(sample.abs()));
    voice.drain(..voice.iter().position(|sample| sample.abs() > ONSET * peak).unwrap());
    if !speaks {
        voice.clear();
    }
    // A quiet line, and one 25 dB below a voice.
    let noise = if seed.is_multiple_of(2) { 12.0 } else { 180.0 };
    let echo_gain = 10f32.powf(echo_db / 20.0);
    let (ours, voice, began) = (VecDeque::new(), voice.into(), None);
    let mut room = Room { echo_gain, noise, rng, ours, voice, begins, began };
    let mut call = Simulation { now, server, network: &mut network, phone: Phone::new(setup, now) };
    let end = begins + SPEAKS_FOR;
    while call.now < end && (call.server.cut.is_empty() || call.now < begins) {
        while let Some(output) = call.phone.poll() {
            let (source, destination, mut bytes) = match output {
                Output::Sip { destination, bytes } => {
                    ("192.0.2.9:5060", destination, bytes.to_vec())
                }
                Output::Rtp { destination, bytes } => {
                    ("192.0.2.9:30000", destination, bytes.to_vec())
                }
                Output::Sound(_) | Output::Report(_) => continue,
            };
            if source.ends_with(":30000") {
                room.fill(call.now, &mut bytes);
            }
            let source = source.parse().unwrap();
            call.network.send(call.now, Datagram { source, destination, bytes });
        }
        call.server.run(call.now, call.network);
        let next = [call.network.deadline(), call.phone.deadline(), call.server.deadline()];
        call.now = next.into_iter().flatten().min().unwrap().max(call.now);
        while let Some(datagram) = call.network.arrived(call.now) {
            match datagram.destination.to_string().as_str() {
                "192.0.2.9:5060" => {
                    call.phone.sip(call.now, datagram.source, datagram.bytes.into());
                }
                "192.0.2.9:30000" => {
                    room.hear(&datagram.bytes);
                    call.phone.rtp(call.now, datagram.source, &datagram.bytes);
                }
                _ => call.server.receive(call.now, &datagram),
            }
        }
        if call.phone.deadline().is_some_and(|at| at <= call.now) {
            call.phone.tick(call.now);
        }
    }
    let at = |cut: &Instant| cut.duration_since(now).as_millis();
    match (call.server.cut.first(), room.began) {
        (None, None) => Ok(None),
        (Some(cut), None) => Err(format!("its echo stopped the prompt at {} ms", at(cut))),
        (Some(cut), Some(began)) if *cut < began => {
            Err(format!("its echo stopped the prompt at {} ms, before she spoke", at(cut)))
        }
        (Some(cut), Some(began)) => Ok(Some(cut.duration_since(began))),
        (None, Some(_)) => Err("she is not heard".into()),
    }
}

#[test]
fn a_voice_stops_a_prompt_and_its_echo_does_not() {
    let mut problems = Vec::new();
    for echo_db in [-24.0, -12.0] {
        let mut all = Vec::new();
        for seed in 0..CALLS {
            let Voice { said, higher, gain_db } = Voice::of(seed);
            let who = format!("echo {echo_db} dB, seed {seed}: {said} x{higher} {gain_db} dB");
            match stops(seed, echo_db, true) {
                Ok(Some(stop)) => {
                    if stop > STOP_MAX {
                        problems.push(format!("{who}: stopped after {} ms", stop.as_millis()));
                    }
                    all.push(stop.as_millis());
                }
                Ok(None) => problems.push(format!("{who}: she said nothing")),
                Err(why) => problems.push(format!("{who}: {why}")),
            }
            if let Err(why) = stops(seed, echo_db, false) {
                problems.push(format!("{who}, silent: {why}"));
            }
        }
        all.sort_unstable();
        println!(
            "echo {echo_db} dB, {PATH_MS} ms: {} of {CALLS} prompts stopped by a voice, after \
             {:?}/{:?} ms (p50/max)",
            all.len(),
            all.get(all.len() / 2),
            all.last(),
        );
    }
    println!("{}", problems.join("\n"));
    assert!(problems.is_empty(), "{} problems", problems.len());
}
