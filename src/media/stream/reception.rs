//! What a stream does with datagrams: believed, decrypted, told apart, put in order, heard.

use super::*;

/// A missing packet is waited for three times the jitter, within these.
const HOLD_JITTERS: u32 = 3;
const HOLD_MIN: Duration = Duration::from_millis(40);
const HOLD_MAX: Duration = Duration::from_millis(120);
/// Packets from one look at the jitter to the next.
const HOLD_EVERY: u16 = 16;

impl Stream {
    /// A datagram that arrived on the call's RTP port.
    pub fn receive(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        if !self.shield.is_on() {
            return self.receive_plain(now, source, bytes);
        }
        // Only what authenticates may prove an address or take a number of the window.
        if self.gate.is_stranger(now, source) {
            self.counters.foreign += 1;
            return;
        }
        let plain = match is_rtcp(bytes) {
            true => self.shield.unprotect_control(bytes),
            false => self.shield.unprotect(bytes),
        };
        match plain {
            Ok(plain) => self.receive_plain(now, source, &plain),
            Err(refused) => self.count_refused(refused),
        }
    }

    pub(super) fn count_refused(&mut self, refused: Refused) {
        match refused {
            Refused::Malformed => self.counters.malformed += 1,
            Refused::Unauthentic => self.counters.unauthentic += 1,
            Refused::Replayed => self.counters.replayed += 1,
        }
    }

    fn receive_plain(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        if is_rtcp(bytes) {
            // Some peers send it here without having agreed on it.
            match self.gate.admits_control(source, true) {
                true => self.hear_report(now, source, bytes),
                false => self.counters.foreign += 1,
            }
            return;
        }
        let Some(packet) = Packet::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let agreed = match self.agreed {
            Some(agreed) if self.gate.admit(now, source, packet.header.sequence) => agreed,
            _ => {
                self.counters.foreign += 1;
                return;
            }
        };
        self.counters.received += 1;
        self.hear_life(now);
        let header = &packet.header;
        let is_audio = agreed.is_audio(header.payload_type);
        if is_audio && self.relay.is_none() && self.reorder.passes(header, packet.payload) {
            // As nearly always: it is the next, and needs not be kept.
            self.heard.note(now, header, true);
            self.look_at_jitter(header);
            let Header { payload_type, timestamp, .. } = *header;
            let unit = Unit::Audio { payload_type, timestamp, payload: packet.payload };
            return self.listening().1.hear(now, agreed.law, unit);
        }
        let arrival = loop {
            let arrival = match is_audio {
                true => self.reorder.insert(now, header, packet.payload),
                false => self.reorder.skip(now, header),
            };
            if arrival != Arrival::Full {
                break arrival;
            }
            // What is held comes out, gap by gap, until there is room.
            self.reorder.give_up();
            self.drain(now);
        };
        self.count(arrival);
        if arrival != Arrival::Refused {
            self.heard.note(now, header, is_audio);
        }
        if self.relay.is_none() {
            self.look_at_jitter(header);
        }
        let events = agreed.events_in.filter(|(kind, _)| *kind == header.payload_type);
        if let Some((_, clock)) = events {
            let heard = self.keys.receive(&packet.header, packet.payload);
            match (&mut self.relay, heard) {
                (Some(relay), Heard::Pressed(_) | Heard::Again) => {
                    let again = heard == Heard::Again;
                    if agreed.listens() && arrival != Arrival::Duplicate {
                        let timestamp = self.inward.at(header.timestamp);
                        relay.hear(Kind::Key { clock, again }, timestamp, packet.payload);
                    }
                }
                _ => self.key(agreed, clock, heard),
            }
        } else if !is_audio && header.payload_type != COMFORT_NOISE {
            self.counters.unknown_type += 1;
        }
        self.drain(now);
    }

    /// A gap is waited for as long as packets are late here.
    fn look_at_jitter(&mut self, header: &Header) {
        if header.sequence.is_multiple_of(HOLD_EVERY) {
            let hold = self.heard.jitter() * HOLD_JITTERS;
            self.reorder.set_hold(hold.clamp(HOLD_MIN, HOLD_MAX));
        }
    }

    fn count(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Taken | Arrival::Full => {}
            Arrival::NewSource => {
                self.heard.restart();
                // The first source of a call is not a change.
                self.counters.ssrc_changes += u64::from(self.counters.received > 1);
                self.ear.reset();
            }
            Arrival::Late => self.counters.late += 1,
            Arrival::Duplicate => self.counters.duplicate += 1,
            Arrival::Refused => self.counters.malformed += 1,
        }
    }

    fn key(&mut self, agreed: Agreed, clock: u32, heard: Heard) {
        if let (Heard::Pressed(_) | Heard::Again, Some(recorder)) = (&heard, &mut self.recorder) {
            recorder.key();
        }
        match heard {
            Heard::Pressed(press) => {
                let Some(digit) = Digit::from_event(press.event) else { return };
                // Only on the audio's clock can a press be compared with a tone.
                let alike = clock == agreed.codec.clock();
                let duration = if alike { press.duration / (clock / RATE).max(1) } else { 0 };
                if self.merger.event(digit, self.inward.at(press.start), duration) {
                    self.outbox.key(digit, Source::Event, &mut self.playout);
                }
            }
            Heard::Malformed => self.counters.malformed += 1,
            Heard::Again | Heard::Late | Heard::Other => {}
        }
    }

    /// Hears whatever is due.
    pub(super) fn drain(&mut self, now: Instant) {
        let Some(agreed) = self.agreed else { return };
        let law = agreed.law;
        if self.relay.is_some() {
            return self.drain_joined(now, law, agreed.listens());
        }
        let (reorder, mut listening) = self.listening();
        while let Some(unit) = reorder.take(now) {
            listening.hear(now, law, unit);
        }
    }

    fn listening(&mut self) -> (&mut Reorder, Listening<'_>) {
        let listening = Listening {
            transcoder: &mut self.transcoder,
            inward: &mut self.inward,
            ear: &mut self.ear,
            merger: &mut self.merger,
            recorder: self.recorder.as_mut(),
            outbox: &mut self.outbox,
            playout: &mut self.playout,
            counters: &mut self.counters,
            speech_stops: self.speech_stops,
        };
        (&mut self.reorder, listening)
    }

    pub(super) fn hear_life(&mut self, now: Instant) {
        self.last_heard = now;
        self.told_silent = false;
    }

    pub(super) fn watch_silence(&mut self, now: Instant, agreed: Agreed) {
        // A peer that holds us may send music, or nothing.
        if !agreed.reachable || agreed.direction != Direction::SendRecv {
            self.last_heard = now;
        } else if now.saturating_duration_since(self.last_heard) >= SILENCE && !self.told_silent {
            self.told_silent = true;
            self.outbox.push(Event::Silent);
        }
    }
}

/// What of a stream hears the peer's sound, and what that changes.
struct Listening<'a> {
    transcoder: &'a mut Option<Transcoder>,
    inward: &'a mut Inward,
    ear: &'a mut Ear,
    merger: &'a mut Merger,
    recorder: Option<&'a mut Recorder>,
    outbox: &'a mut Outbox,
    playout: &'a mut Playout,
    counters: &'a mut Counters,
    speech_stops: bool,
}

impl Listening<'_> {
    /// The next unit in order.
    fn hear(&mut self, now: Instant, law: Law, unit: Unit<'_>) {
        let Listening { ear, merger, recorder, outbox, playout, speech_stops, .. } = self;
        inside(self.transcoder, self.inward, self.counters, unit, |unit| {
            let wants_tones = merger.wants_tones();
            ear.hear(unit, law, wants_tones, recorder.as_deref_mut(), |sound| match sound {
                Sound::Tone { digit, start } => {
                    if merger.tone(now, digit, start) {
                        outbox.key(digit, Source::Tone, playout);
                    }
                }
                Sound::Begun => outbox.ended(playout.barge_in(), false),
                Sound::Speech(id) => {
                    outbox.push(Event::Speech(id));
                    if *speech_stops {
                        outbox.ended(playout.barge_in(), false);
                    }
                }
                Sound::Frame(frame) => outbox.heard(frame),
            });
            if let Some(recorder) = recorder.as_mut().filter(|_| ear.hears_key()) {
                recorder.key();
            }
        });
    }
}

/// Gives `each` a unit as it is inside: G.711 on a clock of 8,000, whatever the codec. Before a
/// packet goes what it holds of a lost one, at the time when that was said. What is no packet of
/// the codec is a loss of none.
pub(super) fn inside(
    transcoder: &mut Option<Transcoder>,
    inward: &mut Inward,
    counters: &mut Counters,
    unit: Unit<'_>,
    mut each: impl FnMut(Unit<'_>),
) {
    let (wire_type, timestamp, payload) = match unit {
        Unit::Audio { payload_type, timestamp, payload } => (payload_type, timestamp, payload),
        Unit::Lost { packets } => {
            counters.lost += u64::from(packets);
            if let Some(transcoder) = transcoder {
                transcoder.lose(packets);
            }
            return each(unit);
        }
    };
    let payload_type = Codec::from(Law::Mu).payload_type();
    let plain = codec::law_of(wire_type).is_some();
    match transcoder {
        // Between packets of a codec whose packets may be longer.
        _ if plain && payload.len() <= PAYLOAD_MAX => return each(unit),
        Some(transcoder) if !plain => {
            let start = inward.at(timestamp);
            if let Some(payload) = transcoder.recover(payload, inward.missing(start)) {
                counters.recovered += 1;
                let timestamp = start.wrapping_sub(payload.len() as u32);
                each(Unit::Audio { payload_type, timestamp, payload });
            }
            if let Some(payload) = transcoder.decode(payload) {
                let timestamp = inward.pass(timestamp, payload.len());
                return each(Unit::Audio { payload_type, timestamp, payload });
            }
        }
        // Too long, or of a codec that was agreed on before.
        _ => {}
    }
    counters.malformed += 1;
    each(Unit::Lost { packets: 0 });
}
