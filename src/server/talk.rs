//! `ringtill talk`: a call in person, or an answer to the recognizer, with this machine's
//! microphone, loudspeaker and keyboard.

use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use super::dial::Person;
use super::headset::{Headset, HeadsetError, Pace, Sound, Trouble};
use super::listen::{self, Asked, Listening};
use crate::media::codec;
use crate::media::frame::SAMPLES;
use crate::secret::Keys;
use crate::sip::offer::Law;

/// Lines typed ahead.
const LINES_MAX: usize = 8;
/// How often the microphone is looked at while nothing comes: half a frame.
const PAUSE: Duration = Duration::from_millis(10);

/// Who sits at this machine.
pub struct Here {
    headset: Headset,
    typed: Receiver<Keys>,
}

impl Here {
    /// Opens the headset, and reads keys from standard input: digits, `*` and `#`, pressed when the
    /// line is ended. Other characters are passed over.
    pub fn open() -> Result<Here, HeadsetError> {
        let headset = Headset::open(Pace::Clock)?;
        let (tell, typed) = sync_channel(LINES_MAX);
        // It ends with the process: a blocked read cannot be called off.
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let keys = keys(&line);
                if !keys.expose().is_empty() && tell.send(keys).is_err() {
                    return;
                }
            }
        });
        Ok(Here { headset, typed })
    }
}

impl Drop for Here {
    /// Whoever was not understood wants to know whether it was this machine.
    fn drop(&mut self) {
        let (said, heard) = self.headset.gaps();
        if said > 0 {
            eprintln!("warning: {said} gaps in what you said: this machine's sound came unevenly");
        }
        if heard > 0 {
            eprintln!("warning: {heard} gaps in what you heard: sound or network were uneven");
        }
    }
}

fn keys(line: &str) -> Keys {
    let mut keys = Keys::new();
    let pressed = line.bytes().filter(|key| key.is_ascii_digit() || b"*#".contains(key));
    // A line with more than an entry can hold is cut.
    let _ = pressed.map(|key| keys.push(key)).take_while(|taken| *taken).count();
    keys
}

impl Person for Here {
    fn spoken(&mut self) -> Option<Box<Sound>> {
        self.headset.hear()
    }

    fn play(&mut self, sound: &Sound) {
        self.headset.play(sound);
    }

    fn pressed(&mut self) -> Option<Keys> {
        self.typed.try_recv().ok()
    }

    fn lost(&mut self) -> Option<String> {
        lost(&mut self.headset).map(|error| error.to_string())
    }
}

/// Why there is no sound any more; tells what else is wrong.
fn lost(headset: &mut Headset) -> Option<HeadsetError> {
    match headset.trouble()? {
        Trouble::Gone(error) => return Some(error),
        Trouble::Warning(what) => eprintln!("warning: {what}"),
    }
    None
}

/// Prints a line of JSON for each answer the microphone hears, until interrupted.
pub fn answer(asked: Asked, engine: &str, out: &mut dyn Write) -> Result<(), listen::Error> {
    let engine = listen::open(engine)?;
    let mut headset = Headset::open(Pace::Leisure).map_err(listen::Error::Headset)?;
    let mut listening = Listening::new(asked.field(), &*engine);
    let mut result = Ok(());
    while result.is_ok() {
        if let Some(error) = lost(&mut headset) {
            return Err(listen::Error::Headset(error));
        }
        let Some(sound) = headset.hear() else {
            thread::sleep(PAUSE);
            continue;
        };
        let codes: [u8; SAMPLES] = sound.map(|sample| codec::encode(Law::Mu, sample));
        listening.hear(&codes, &mut |answers| {
            let told = listen::line("microphone", answers.judge());
            result = told.and_then(|line| writeln!(out, "{line}").map_err(listen::Error::Output));
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_keys() {
        assert_eq!(keys("4111 1111-1111 1111#\r").expose(), "4111111111111111#");
        assert_eq!(keys("hello").expose(), "");
        let most = keys(&"1".repeat(1_000));
        assert!((20..1_000).contains(&most.expose().len()));
    }
}
