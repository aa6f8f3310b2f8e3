//! A key as a tone is heard before it is certain: its beginning alone ends the prompt.

use std::sync::Arc;

use super::*;
use crate::media::digit::{HIGH_HZ, LOW_HZ};

/// Of a tone, what tells that a key seems to begin: 12.5 ms.
const BEGINNING: usize = 100;

/// One caller who sends sound of our making, packet by packet, and what became of it.
struct Caller {
    now: Instant,
    stream: Stream,
    turn: u32,
    keys: usize,
    /// Packets sent to the stream when the prompt ended, and when the key was told.
    ended_after: Option<u32>,
    told_after: Option<u32>,
    /// How many of our samples were the prompt's, of each packet.
    prompt: Vec<usize>,
}

const PROMPT: u8 = 0x90;

impl Caller {
    fn new(barge_in: bool) -> Caller {
        let now = Instant::now();
        let mut stream = Stream::new(setup(2), Latch::Strict, now);
        stream.command(now, Command::Negotiated(negotiated(A)));
        let sound: Arc<[u8]> = [PROMPT; 80_000].into();
        let clips = vec![Clip::new(Arc::clone(&sound), sound)];
        stream.command(now, Command::Play { id: PlayId(7), clips, barge_in });
        let (ended_after, told_after, prompt) = (None, None, vec![]);
        Caller { now, stream, turn: 0, keys: 0, ended_after, told_after, prompt }
    }

    /// 20 ms of the caller reach us, and 20 ms of ours go out.
    fn turn(&mut self, payload: &[u8]) {
        let header = Header {
            marker: false,
            payload_type: 0,
            sequence: self.turn as u16,
            timestamp: self.turn * SAMPLES as u32,
            ssrc: 1,
        };
        self.turn += 1;
        self.stream.receive(self.now, A.into(), &[&header.bytes(), payload].concat());
        while let Some(event) = self.stream.poll() {
            match event {
                Event::Key { .. } => {
                    self.keys += 1;
                    self.told_after = Some(self.turn);
                }
                Event::PlayEnded { id: PlayId(7), completed: false } => {
                    self.ended_after = Some(self.turn);
                }
                _ => {}
            }
        }
        let mut packet = [0; PACKET_MAX];
        let len = self.stream.transmit(self.now, &mut packet).unwrap();
        let sent = Packet::parse(&packet[..len]).unwrap();
        self.prompt.push(sent.payload.iter().filter(|&&code| code == PROMPT).count());
        self.now += TURN;
    }
}

/// A second of nothing and then, `start` samples later, the key 5 for this many samples.
fn key(start: usize, samples: usize) -> Vec<u8> {
    let mut sound = vec![0xff; 8_000 + start];
    sound.extend((0..samples).map(|n| {
        let sine = |hz: f32| (n as f32 * hz * std::f32::consts::TAU / 8000.0).sin();
        codec::encode(Law::Mu, ((sine(LOW_HZ[1]) + sine(HIGH_HZ[1])) * 5_000.0) as i16)
    }));
    sound.resize(sound.len().next_multiple_of(SAMPLES) + 1_600, 0xff);
    sound
}

#[test]
fn a_tone_that_begins_ends_the_prompt_before_it_is_a_key() {
    let (mut early, starts) = (0, (0..SAMPLES).step_by(8));
    let all = starts.len();
    for start in starts {
        let mut caller = Caller::new(true);
        for payload in key(start, 480).chunks(SAMPLES) {
            caller.turn(payload);
        }
        let ended = caller.ended_after.unwrap_or_else(|| panic!("{start}: it goes on"));
        // The packet that completes the beginning.
        let complete = (8_000 + start + BEGINNING).div_ceil(SAMPLES) as u32;
        assert_eq!(ended, complete, "{start}");
        // Here and there the packet that completes the beginning is enough for the key too.
        early += usize::from(ended < caller.told_after.unwrap());
        assert_eq!(caller.keys, 1);
        let ended = ended as usize;
        assert!(caller.prompt[..ended - 1].iter().all(|&samples| samples == SAMPLES));
        // What goes out in that very turn is silence.
        assert!(caller.prompt[ended - 1..].iter().all(|&samples| samples == 0), "{start}");
    }
    assert!(early * 2 >= all, "before the key {early} of {all} times");
}

#[test]
fn a_beginning_that_becomes_no_key_ends_the_prompt_all_the_same() {
    let mut caller = Caller::new(true);
    for payload in key(0, 160).chunks(SAMPLES) {
        caller.turn(payload);
    }
    assert_eq!((caller.ended_after.is_some(), caller.keys), (true, 0));
}

#[test]
fn a_prompt_that_is_not_to_be_interrupted_goes_on() {
    let mut caller = Caller::new(false);
    for payload in key(40, 480).chunks(SAMPLES) {
        caller.turn(payload);
    }
    assert_eq!((caller.ended_after, caller.keys), (None, 1));
    assert!(caller.prompt.iter().all(|&samples| samples == SAMPLES));
}
