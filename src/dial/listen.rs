//! Recognises our own prompts in received audio by their very bytes; of others, speech and quiet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::media::{Clip, codec};
use crate::prompt::Library;
use crate::sip::offer::Law;

/// Bytes that identify a place in a clip.
const WINDOW: usize = 32;
/// A place to recognise every 40 ms: a lost packet costs at most one of them.
const SPACING: usize = 320;
/// Fewer different codes than this in a window are silence or a tone, found everywhere.
const CODES_MIN: usize = 14;
/// How many of the last places of a clip must be missing before it counts as cut short.
const TAIL: usize = 4;
/// Size of the filter in front of the index, as a power of two.
const BITS: u32 = 18;
/// Multiplier of the rolling hash; any odd number with well-mixed bits will do.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;
const HEARD_MAX: usize = 256;

/// 20 ms frames louder than this hold speech: -40 dBm0 in 16-bit samples, squared.
const LOUD: i64 = 160 * 160;
const FRAME: usize = 160;
/// Frames of speech before it is reported, and of quiet before that is.
const SPEECH_FRAMES: u32 = 5;
const QUIET_FRAMES: u32 = 40;

/// All clips of a voice in one law, ready to be recognised. Shared by all calls.
pub struct Index {
    law: Law,
    sounds: Vec<Sound>,
    places: HashMap<u64, Vec<Place>>,
    /// Which hashes are worth a look in `places`.
    filter: Vec<u64>,
}

/// One recording, under one or more ids (`digit.4` and `num.4` may be the same).
struct Sound {
    ids: Vec<String>,
    text: String,
    bytes: Arc<[u8]>,
    /// Ends of its windows, in order.
    places: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Place {
    sound: usize,
    /// Where the window ends within the clip.
    end: usize,
}

impl Index {
    /// Everything a library has recorded.
    pub fn of(library: &Library, law: Law) -> Index {
        let text = |id| library.catalog().entry(id).map_or("", |entry| entry.text.as_str());
        let mut clips: Vec<_> = library.recorded().map(|(id, clip)| (id, text(id), clip)).collect();
        clips.extend(library.names());
        // The first id of equal recordings names them: let that not depend on the run.
        clips.sort_by_key(|(id, _, _)| *id);
        Index::new(law, clips.into_iter())
    }

    /// `clips` are id, what is said, and the recording.
    pub fn new<'a>(law: Law, clips: impl Iterator<Item = (&'a str, &'a str, &'a Clip)>) -> Index {
        let mut by_bytes: HashMap<Arc<[u8]>, usize> = HashMap::new();
        let mut sounds: Vec<Sound> = Vec::new();
        for (id, text, clip) in clips {
            let bytes = match law {
                Law::Mu => &clip.mu,
                Law::A => &clip.a,
            };
            let known = by_bytes.entry(bytes.clone()).or_insert_with(|| {
                let (text, bytes) = (text.to_string(), bytes.clone());
                sounds.push(Sound { ids: Vec::new(), text, bytes, places: Vec::new() });
                sounds.len() - 1
            });
            sounds[*known].ids.push(id.to_string());
        }
        let mut index = Index { law, sounds, places: HashMap::new(), filter: Vec::new() };
        index.choose_places();
        index
    }

    /// Ids that cannot be told from the rest: too short, or nothing but tone or silence.
    pub fn unrecognisable(&self) -> impl Iterator<Item = &str> {
        let sounds = self.sounds.iter().filter(|sound| sound.places.is_empty());
        sounds.flat_map(|sound| sound.ids.iter().map(String::as_str))
    }

    pub fn law(&self) -> Law {
        self.law
    }

    /// What is said in a sound.
    pub fn text(&self, sound: SoundId) -> &str {
        &self.sounds[sound.0].text
    }

    /// The first id of a sound.
    pub fn id(&self, sound: SoundId) -> &str {
        &self.sounds[sound.0].ids[0]
    }

    /// The sound recorded under an id.
    pub fn sound(&self, id: &str) -> Option<SoundId> {
        (0..self.sounds.len()).map(SoundId).find(|&sound| self.is(sound, id))
    }

    /// Whether the sound is recorded under this id, among others perhaps.
    pub fn is(&self, sound: SoundId, id: &str) -> bool {
        self.sounds[sound.0].ids.iter().any(|other| other == id)
    }

    /// Takes windows at even distances, and drops those that two clips, or two places of one
    /// clip, have in common.
    fn choose_places(&mut self) {
        let mut chosen: HashSet<u64> = HashSet::new();
        for sound in &self.sounds {
            for end in (WINDOW..=sound.bytes.len()).step_by(SPACING) {
                chosen.insert(Rolling::of(&sound.bytes[end - WINDOW..end]));
            }
        }
        // A second pass over every alignment: a window may also occur between the places.
        let mut seen: HashMap<u64, u32> = HashMap::new();
        for sound in &self.sounds {
            let mut rolling = Rolling::default();
            for (at, &code) in sound.bytes.iter().enumerate() {
                let left = at.checked_sub(WINDOW).map(|gone| sound.bytes[gone]);
                let hash = rolling.push(code, left);
                if at + 1 >= WINDOW && chosen.contains(&hash) {
                    *seen.entry(hash).or_default() += 1;
                }
            }
        }
        self.filter = vec![0; 1 << (BITS - 6)];
        for (number, sound) in self.sounds.iter_mut().enumerate() {
            for end in (WINDOW..=sound.bytes.len()).step_by(SPACING) {
                let window = &sound.bytes[end - WINDOW..end];
                let hash = Rolling::of(window);
                if seen.get(&hash) != Some(&1) || !distinctive(window) {
                    continue;
                }
                sound.places.push(end);
                self.places.entry(hash).or_default().push(Place { sound: number, end });
                let (word, bit) = filter_bit(hash);
                self.filter[word] |= bit;
            }
        }
    }

    fn places(&self, hash: u64) -> &[Place] {
        let (word, bit) = filter_bit(hash);
        if self.filter[word] & bit == 0 {
            return &[];
        }
        self.places.get(&hash).map_or(&[], Vec::as_slice)
    }
}

fn filter_bit(hash: u64) -> (usize, u64) {
    let bit = hash >> (64 - BITS);
    ((bit >> 6) as usize, 1 << (bit & 63))
}

fn distinctive(window: &[u8]) -> bool {
    let mut seen = [false; 256];
    window.iter().for_each(|&code| seen[usize::from(code)] = true);
    seen.iter().filter(|&&seen| seen).count() >= CODES_MIN
}

/// A polynomial hash of the last [`WINDOW`] bytes.
#[derive(Clone, Copy, Default)]
struct Rolling(u64);

impl Rolling {
    const GONE: u64 = {
        let (mut power, mut n) = (1u64, 0);
        while n < WINDOW {
            power = power.wrapping_mul(BASE);
            n += 1;
        }
        power
    };

    /// Adds a byte, takes out the one that leaves the window. Codes count from one, so that
    /// leading zeros matter.
    fn push(&mut self, code: u8, gone: Option<u8>) -> u64 {
        let gone = gone.map_or(0, |gone| (u64::from(gone) + 1).wrapping_mul(Rolling::GONE));
        self.0 = self.0.wrapping_mul(BASE).wrapping_add(u64::from(code) + 1).wrapping_sub(gone);
        self.0
    }

    fn of(window: &[u8]) -> u64 {
        let mut rolling = Rolling::default();
        window.iter().for_each(|&code| {
            rolling.push(code, None);
        });
        rolling.0
    }
}

/// A recording within an [`Index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SoundId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Started(SoundId),
    /// `complete` is false when its last part was not heard.
    Ended {
        sound: SoundId,
        complete: bool,
    },
    /// Sound of any kind has begun, and has been followed by quiet.
    Speech,
    Silence,
}

/// Listens to one call.
pub struct Listener {
    index: Arc<Index>,
    /// The last [`WINDOW`] bytes, as a ring.
    window: [u8; WINDOW],
    rolling: Rolling,
    /// Bytes heard since the call began.
    position: usize,
    playing: Option<Playing>,
    loudness: Loudness,
    heard: VecDeque<Heard>,
}

struct Playing {
    sound: usize,
    /// Position of its first byte; before the call began when negative.
    start: i64,
    /// The last place recognised.
    last: usize,
}

impl Listener {
    pub fn new(index: Arc<Index>) -> Listener {
        Listener {
            index,
            window: [0; WINDOW],
            rolling: Rolling::default(),
            position: 0,
            playing: None,
            loudness: Loudness::default(),
            heard: VecDeque::new(),
        }
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Received audio in the law of the index, in order.
    pub fn hear(&mut self, codes: &[u8]) {
        for &code in codes {
            let slot = self.position % WINDOW;
            let gone = (self.position >= WINDOW).then_some(self.window[slot]);
            self.window[slot] = code;
            self.position += 1;
            let hash = self.rolling.push(code, gone);
            if self.position >= WINDOW {
                self.look(hash);
            }
        }
        self.end_if_over();
        for frame in codes.chunks(FRAME) {
            if let Some(heard) = self.loudness.hear(self.index.law, frame) {
                self.report(heard);
            }
        }
    }

    /// The call is over: what was being heard ends here.
    pub fn finish(&mut self) {
        self.end();
    }

    /// What was heard, in order. Nobody polls: the oldest is forgotten.
    pub fn poll(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    /// The sound being heard now.
    pub fn playing(&self) -> Option<SoundId> {
        self.playing.as_ref().map(|playing| SoundId(playing.sound))
    }

    fn look(&mut self, hash: u64) {
        let index = Arc::clone(&self.index);
        for place in index.places(hash) {
            let bytes = &index.sounds[place.sound].bytes[place.end - WINDOW..place.end];
            let oldest = self.position % WINDOW;
            let (late, early) = self.window.split_at(oldest);
            if bytes[..early.len()] == *early && bytes[early.len()..] == *late {
                self.recognise(*place);
            }
        }
    }

    fn recognise(&mut self, place: Place) {
        let start = self.position as i64 - place.end as i64;
        if let Some(playing) = &mut self.playing
            && playing.sound == place.sound
            && playing.last < place.end
        {
            // A hole of unknown length moves what follows it.
            playing.start = start;
            playing.last = place.end;
            return;
        }
        self.end();
        self.report(Heard::Started(SoundId(place.sound)));
        self.playing = Some(Playing { sound: place.sound, start, last: place.end });
    }

    fn end_if_over(&mut self) {
        if let Some(playing) = &self.playing {
            let len = self.index.sounds[playing.sound].bytes.len() as i64;
            if self.position as i64 >= playing.start + len {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let Some(playing) = self.playing.take() else { return };
        let places = &self.index.sounds[playing.sound].places;
        let tail = places[places.len().saturating_sub(TAIL)];
        let complete = playing.last >= tail;
        self.report(Heard::Ended { sound: SoundId(playing.sound), complete });
    }

    fn report(&mut self, heard: Heard) {
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(heard);
    }
}

/// Tells speech from quiet by its level alone.
#[derive(Default)]
struct Loudness {
    speaking: bool,
    /// Frames in a row that speak against `speaking`.
    against: u32,
}

impl Loudness {
    fn hear(&mut self, law: Law, frame: &[u8]) -> Option<Heard> {
        let power = |&code: &u8| i64::from(codec::decode(law, code)).pow(2);
        let loud = frame.iter().map(power).sum::<i64>() > LOUD * frame.len() as i64;
        if loud == self.speaking {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = if self.speaking { QUIET_FRAMES } else { SPEECH_FRAMES };
        if self.against < enough {
            return None;
        }
        self.against = 0;
        self.speaking = loud;
        Some(if loud { Heard::Speech } else { Heard::Silence })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::money::Money;
    use crate::prompt::Prompt;
    use crate::prompt::clip::silence;
    use crate::prompt::library::tests::library;

    fn index(library: &Library, law: Law) -> Arc<Index> {
        Arc::new(Index::of(library, law))
    }

    fn bytes(law: Law, clips: &[Clip]) -> Vec<u8> {
        let side = |clip: &Clip| if law == Law::Mu { clip.mu.to_vec() } else { clip.a.to_vec() };
        clips.iter().flat_map(side).collect()
    }

    /// Ids in the order they started; those that did not end complete have a `!`.
    fn recognised(index: &Arc<Index>, codes: &[u8]) -> Vec<String> {
        let mut listener = Listener::new(Arc::clone(index));
        let mut ids = Vec::new();
        for frame in codes.chunks(FRAME) {
            listener.hear(frame);
            while let Some(heard) = listener.poll() {
                match heard {
                    Heard::Ended { sound, complete: true } => ids.push(index.id(sound).to_string()),
                    Heard::Ended { sound, .. } => ids.push(format!("{}!", index.id(sound))),
                    _ => {}
                }
            }
        }
        ids
    }

    fn confirmation() -> Vec<Prompt> {
        vec![
            Prompt::Phrase("consent.payment"),
            Prompt::Amount(Money::usd(32172)),
            Prompt::Phrase("result.confirmation"),
            Prompt::Groups { digits: "482915037".into(), slow: false },
            Prompt::Phrase("result.repeat"),
        ]
    }

    /// What [`recognised`] should say of [`confirmation`], each id as the index names it.
    fn expected(index: &Arc<Index>) -> Vec<String> {
        let spoken = ["consent.payment", "num.300", "num.21", "money.dollars_and", "num.72"]
            .into_iter()
            .chain(["money.cents", "result.confirmation"])
            .chain(["digit.4", "digit.8", "digit.2.final", "digit.9", "digit.1", "digit.5.final"])
            .chain(["digit.0", "digit.3", "digit.7.final", "result.repeat"]);
        spoken.map(|id| index.id(index.sound(id).unwrap()).to_string()).collect()
    }

    #[test]
    fn every_bundled_clip_can_be_told_from_all_others() {
        for law in [Law::Mu, Law::A] {
            let index = index(&library(), law);
            assert_eq!(index.unrecognisable().collect::<Vec<_>>(), Vec::<&str>::new());
            for sound in &index.sounds {
                let mut codes = sound.bytes.to_vec();
                codes.extend(bytes(law, &[silence(200)]));
                assert_eq!(recognised(&index, &codes), [sound.ids[0].clone()]);
            }
        }
    }

    #[test]
    fn clips_joined_without_a_gap_are_told_apart_at_any_alignment() {
        let library = library();
        let index = index(&library, Law::Mu);
        let clips = library.clips(&confirmation(), &|_| None);
        for lead in [0, 1, 7, 80, 159] {
            let mut codes = vec![0xFF; lead];
            codes.extend(bytes(Law::Mu, &clips));
            codes.extend([0xFF; 480]);
            assert_eq!(recognised(&index, &codes), expected(&index), "{lead}");
        }
    }

    #[test]
    fn lost_packets_do_not_hide_a_prompt() {
        let library = library();
        let index = index(&library, Law::A);
        let mut codes = bytes(Law::A, &library.clips(&confirmation(), &|_| None));
        codes.extend([0xD5; 480]);
        let want = expected(&index);
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let filled = seed % 2 == 0;
            let mut received = Vec::new();
            for frame in codes.chunks(FRAME) {
                match random.random_bool(0.05) {
                    false => received.extend_from_slice(frame),
                    true if filled => received.extend([0xD5; FRAME]),
                    true => {}
                }
            }
            assert_eq!(recognised(&index, &received), want, "seed {seed}");
        }
    }

    #[test]
    fn a_prompt_cut_short_says_so() {
        let library = library();
        let index = index(&library, Law::Mu);
        let clips = library.clips(&[Prompt::Phrase("card.ask")], &|_| None);
        let whole = bytes(Law::Mu, &clips);
        let mut codes = whole[..whole.len() / 2].to_vec();
        codes.extend(vec![0xFF; whole.len()]);
        assert_eq!(recognised(&index, &codes), ["card.ask!"]);
        let half = whole.len() / 2;
        let again: Vec<u8> = [&whole[..half], &whole[..], &[0xFF; 800]].concat();
        assert_eq!(recognised(&index, &again), ["card.ask!", "card.ask"]);
    }

    #[test]
    fn foreign_audio_is_speech_or_silence() {
        let index = index(&library(), Law::Mu);
        let mut listener = Listener::new(index);
        let mut random = StdRng::seed_from_u64(7);
        let mut told = Vec::new();
        for loud in [false, true, false, true] {
            for _ in 0..100 {
                let noise = |random: &mut StdRng| random.random_range(-2_000..2_000);
                let sample = |random: &mut StdRng| if loud { noise(random) } else { 0 };
                let code = |random: &mut StdRng| codec::encode(Law::Mu, sample(random));
                let frame: Vec<u8> = (0..FRAME).map(|_| code(&mut random)).collect();
                listener.hear(&frame);
                told.extend(std::iter::from_fn(|| listener.poll()));
            }
        }
        assert_eq!(told, [Heard::Speech, Heard::Silence, Heard::Speech]);
    }

    #[test]
    fn what_nobody_polls_is_bounded() {
        let library = library();
        let mut listener = Listener::new(index(&library, Law::Mu));
        let codes = bytes(Law::Mu, &library.clips(&confirmation(), &|_| None));
        for _ in 0..50 {
            listener.hear(&codes);
        }
        assert_eq!(listener.heard.len(), HEARD_MAX);
    }
}
