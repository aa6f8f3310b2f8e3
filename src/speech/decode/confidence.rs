//! How often an answer with such evidence is right. The numbers were fitted by
//! `training/calibrate.py` on speakers that the network measured had never heard, and tested on
//! other answers of theirs (`training/MODEL.md`); a checksum alone has no say in it.

use super::answer::{Evidence, Outcome};
use crate::speech::Field;

/// What heard an answer: each is sure in a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ear {
    BuiltIn,
    /// The built-in network and a Whisper model together.
    Whisper,
}

/// A field's logistic regression, and what is sure enough.
struct Calibration {
    bias: f32,
    /// Of how much the first answer is ahead of the second.
    margin: f32,
    /// Of how far it is behind the likeliest sequence of any words.
    behind: f32,
    /// Of how likely a word of it is.
    word: f32,
    accept: f32,
    confirm: f32,
}

/// Beyond this, more margin says nothing more.
const MARGIN_MAX: f32 = 12.0;
const BEHIND_MAX: f32 = 12.0;
const WORD_MAX: f32 = 3.0;

/// The outcome, and how often such an answer is right.
pub fn judge(ear: Ear, field: Field, evidence: &Evidence) -> (Outcome, f32) {
    let calibration = match ear {
        Ear::BuiltIn => calibration(field),
        Ear::Whisper => whisper(field),
    };
    let [margin, behind, word] = features(evidence);
    let Calibration { bias, accept, confirm, .. } = *calibration;
    let sum =
        bias + calibration.margin * margin + calibration.behind * behind + calibration.word * word;
    let confidence = 1.0 / (1.0 + (-sum).exp());
    let outcome = match confidence {
        sure if sure >= accept => Outcome::Accept,
        sure if sure >= confirm => Outcome::Confirm,
        _ => Outcome::Again,
    };
    (outcome, confidence)
}

/// What the regression sees of the evidence.
pub fn features(evidence: &Evidence) -> [f32; 3] {
    let behind = (evidence.anything - evidence.best).clamp(0.0, BEHIND_MAX);
    let word = -evidence.best / evidence.words.max(1) as f32;
    [evidence.margin.clamp(0.0, MARGIN_MAX), behind, word.clamp(0.0, WORD_MAX)]
}

fn calibration(field: Field) -> &'static Calibration {
    match field {
        Field::Card | Field::Routing => &CHECKED,
        Field::Zip | Field::Cvv(_) => &PLAIN,
        Field::Digits { min, .. } if min >= LONG => &FREE_LONG,
        Field::Digits { .. } | Field::Amount => &FREE,
        Field::Expiry(_) => &DATE,
        Field::Digit => &DIGIT,
        Field::YesNo => &YES_NO,
    }
}

/// The same for both ears together: `ggml-base.bin` beside a network, on 287 answers of speakers
/// unheard by the network.
fn whisper(field: Field) -> &'static Calibration {
    match field {
        Field::Card | Field::Routing => &BOTH_CHECKED,
        Field::Zip | Field::Cvv(_) => &BOTH_PLAIN,
        Field::Digits { min, .. } if min >= LONG => &BOTH_FREE_LONG,
        Field::Digits { .. } => &BOTH_FREE,
        Field::Expiry(_) => &BOTH_DATE,
        Field::Digit => &BOTH_DIGIT,
        // Too few were heard to fit anything, and all were right.
        Field::YesNo => &BOTH_YES_NO,
        // No sum is asked of Whisper.
        Field::Amount => &FREE,
    }
}

/// Numbers with a checksum.
const CHECKED: Calibration =
    Calibration { bias: 0.43, margin: 0.2, behind: -0.27, word: -1.52, accept: 0.9, confirm: 0.5 };
/// As many digits as were asked for.
const PLAIN: Calibration = Calibration {
    bias: -0.59,
    margin: 0.65,
    behind: -0.64,
    word: -1.23,
    accept: 0.97,
    confirm: 0.5,
};
/// Any number of digits: whoever speaks of something else says one, sooner or later.
const FREE: Calibration =
    Calibration { bias: -0.32, margin: 0.16, behind: 0.0, word: -2.84, accept: 0.98, confirm: 0.7 };
/// Whoever speaks of something else does not say so many digits: worth a question sooner.
const LONG: u8 = 4;
const FREE_LONG: Calibration = Calibration { confirm: 0.5, ..FREE };
const BOTH_FREE_LONG: Calibration = Calibration { confirm: 0.5, ..BOTH_FREE };
const DATE: Calibration =
    Calibration { bias: 2.0, margin: 0.11, behind: -0.43, word: 0.0, accept: 0.93, confirm: 0.5 };
const DIGIT: Calibration =
    Calibration { bias: 1.37, margin: 0.11, behind: -0.42, word: -0.55, accept: 0.9, confirm: 0.5 };
/// Fitted to yes and no among announcements and other words, nine in ten of what is said where it
/// is asked being one of both: who says something else is behind what was really said.
const YES_NO: Calibration =
    Calibration { bias: 0.46, margin: 0.31, behind: -0.82, word: -1.01, accept: 0.8, confirm: 0.5 };

const BOTH_CHECKED: Calibration = Calibration {
    bias: -2.11,
    margin: 0.82,
    behind: -0.01,
    word: -0.22,
    accept: 0.95,
    confirm: 0.5,
};
const BOTH_PLAIN: Calibration =
    Calibration { bias: 0.49, margin: 0.55, behind: 0.0, word: -0.74, accept: 0.95, confirm: 0.5 };
const BOTH_FREE: Calibration =
    Calibration { bias: -0.29, margin: 0.56, behind: 0.0, word: -1.45, accept: 0.98, confirm: 0.7 };
const BOTH_DATE: Calibration = Calibration {
    bias: -2.94,
    margin: 1.31,
    behind: -0.6,
    word: -0.25,
    accept: 0.97,
    confirm: 0.5,
};
const BOTH_YES_NO: Calibration = Calibration {
    bias: -2.44,
    margin: 1.32,
    behind: -0.1,
    word: -0.41,
    accept: 0.95,
    confirm: 0.5,
};
const BOTH_DIGIT: Calibration =
    Calibration { bias: 2.93, margin: 0.47, behind: 0.0, word: -0.77, accept: 0.98, confirm: 0.5 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_of_any_kind_lowers_the_confidence() {
        let sure = Evidence { best: -0.1, margin: 8.0, anything: -0.1, words: 16 };
        let confidence = |evidence: &Evidence| judge(Ear::BuiltIn, Field::Card, evidence).1;
        let whole = confidence(&sure);
        let both = |evidence: &Evidence| judge(Ear::Whisper, Field::Card, evidence).1;
        for doubtful in [
            Evidence { margin: 0.5, ..sure },
            Evidence { best: -6.1, ..sure },
            Evidence { best: -20.0, anything: -20.0, ..sure },
        ] {
            assert!(confidence(&doubtful) < whole, "{doubtful:?}");
            assert!(both(&doubtful) < both(&sure), "{doubtful:?}");
        }
        let rival = Evidence { margin: 0.01, ..sure };
        assert_ne!(judge(Ear::BuiltIn, Field::Card, &rival).0, Outcome::Accept);
    }
}
