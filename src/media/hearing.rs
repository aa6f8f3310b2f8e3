//! What the caller says while an answer is listened for: 20 ms frames in order, our echo and keys
//! taken out, from shortly before speech began. Wiped once handed over.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::frame::SAMPLES;
use super::voice::{Line, Voice};

/// Numbers what is listened for, so that late words about it are told from those about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenId(pub u64);

/// 20 ms of what a caller says.
pub struct Spoken {
    pub id: ListenId,
    /// 8 kHz; `None`: the packet never came.
    pub sound: Option<Sound>,
    /// Milliseconds since the last speech.
    pub quiet_ms: u32,
}

/// On the heap, so that moving it leaves no copy.
pub type Sound = Box<Zeroizing<[i16; SAMPLES]>>;

/// Hears one caller: follows the line all the time, and hands over speech while it is wanted.
pub struct Hearing {
    voice: Voice,
    listening: Option<ListenId>,
    /// Speech has begun since it is listened for.
    begun: bool,
    frame: Zeroizing<[i16; SAMPLES]>,
    filled: usize,
    /// A key may sound in the frame being filled.
    tone: bool,
    /// Mean square of what we send meanwhile.
    sent: f32,
    /// Before speech begins the last frames; from then on what nobody has taken yet.
    frames: VecDeque<(Option<Sound>, u32)>,
    /// Turns since a frame came, and frames put in meanwhile.
    idle: u32,
    made_up: usize,
    lost: u64,
}

/// Frames kept from before speech is known to have begun: 700 ms.
const BEFORE: usize = 35;
/// Frames that may wait to be taken: more than come in one turn.
const WAITING_MAX: usize = 2 * BEFORE;
/// After so many turns without a frame the peer is taken to say nothing: some send no silence.
const IDLE_MAX: u32 = 10;

impl Hearing {
    pub fn new() -> Hearing {
        Hearing {
            voice: Voice::new(),
            listening: None,
            begun: false,
            frame: Zeroizing::new([0; SAMPLES]),
            filled: 0,
            tone: false,
            sent: 0.0,
            frames: VecDeque::with_capacity(WAITING_MAX),
            idle: 0,
            made_up: 0,
            lost: 0,
        }
    }

    /// Listens for an answer from here on, or no more. What was said in the last moments before
    /// belongs to it: callers answer while they are asked.
    pub fn listen(&mut self, id: Option<ListenId>) {
        if self.begun {
            self.frames.clear();
        }
        (self.listening, self.begun) = (id, false);
    }

    /// Another source speaks.
    pub fn reset(&mut self) {
        let listening = self.listening;
        *self = Hearing { listening, sent: self.sent, lost: self.lost, ..Hearing::new() };
    }

    /// Mean square of the frame we send in this turn.
    pub fn sent(&mut self, power: f32) {
        self.sent = power;
    }

    /// Takes sound of any length, full scale is 1, without our echo; `tone`: a key may be in it.
    /// The answer that speech has begun for, once.
    pub fn hear(&mut self, mut sound: &[f32], tone: bool) -> Option<ListenId> {
        let mut begun = None;
        self.tone |= tone;
        while !sound.is_empty() {
            let (now, later) = sound.split_at(sound.len().min(SAMPLES - self.filled));
            let places = &mut self.frame[self.filled..self.filled + now.len()];
            for (place, sample) in places.iter_mut().zip(now) {
                *place = (sample * 32768.0) as i16;
            }
            self.filled += now.len();
            sound = later;
            if self.filled == SAMPLES {
                begun = self.hear_frame(tone).or(begun);
            }
        }
        begun
    }

    /// So many samples never came.
    pub fn lose(&mut self, samples: usize) {
        self.filled = 0;
        let frames = (samples / SAMPLES).saturating_sub(std::mem::take(&mut self.made_up));
        (0..frames).for_each(|_| self.lose_frame());
    }

    /// Call once in 20 ms, whether something came or not.
    pub fn turn(&mut self) {
        self.idle += 1;
        if self.begun && self.idle > IDLE_MAX {
            self.made_up += 1;
            self.lose_frame();
        }
    }

    /// The next frame of what is listened for, once speech has begun.
    pub fn take(&mut self) -> Option<Spoken> {
        let id = self.listening.filter(|_| self.begun)?;
        let (sound, quiet_ms) = self.frames.pop_front()?;
        Some(Spoken { id, sound, quiet_ms })
    }

    /// Frames that nobody took in time.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn lose_frame(&mut self) {
        self.voice.lose();
        self.keep(None);
    }

    fn hear_frame(&mut self, tone: bool) -> Option<ListenId> {
        let tone = std::mem::replace(&mut self.tone, tone);
        (self.filled, self.idle) = (0, 0);
        self.voice.hear(&self.frame, Line { tone, sent: self.sent });
        // Keys are not words, and what they are is nobody's business here.
        let mut sound = Box::new(Zeroizing::new([0; SAMPLES]));
        if !tone {
            sound.copy_from_slice(&*self.frame);
        }
        self.keep(Some(sound));
        let id = self.listening.filter(|_| !self.begun && self.voice.has_begun())?;
        self.begun = true;
        Some(id)
    }

    fn keep(&mut self, sound: Option<Sound>) {
        let room = if self.begun { WAITING_MAX } else { BEFORE };
        while self.frames.len() >= room {
            self.lost += u64::from(self.begun);
            self.frames.pop_front();
        }
        self.frames.push_back((sound, self.voice.quiet_ms()));
    }
}

impl Default for Hearing {
    fn default() -> Hearing {
        Hearing::new()
    }
}
