//! A model of the right shape whose weights are noise says nothing sensible, yet everything that
//! is done with a real one is done with it. Real weights are the operator's.

use super::*;
use crate::speech::Outcome;

const STATE: i32 = 8;
const VOCABULARY: i32 = 51_864;
const WAVE: &[u8] = include_bytes!("../../../tests/vectors/speech/wave.i16");

/// Writes a file as whisper.cpp's converter does.
struct File {
    bytes: Vec<u8>,
    seed: u32,
}

impl File {
    fn numbers(&mut self, numbers: &[i32]) {
        self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }

    /// Weights of noise, or ones where a layer is scaled by them. Matrices have 16 bits.
    fn weights(&mut self, name: &str, sizes: &[i32]) {
        let short = sizes.len() > 1 && name.ends_with("weight");
        self.numbers(&[sizes.len() as i32, name.len() as i32, i32::from(short)]);
        self.numbers(sizes);
        self.bytes.extend(name.as_bytes());
        for _ in 0..sizes.iter().product::<i32>() {
            self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (self.seed >> 8) as f32 / (1 << 23) as f32 - 1.0;
            let value = if name.ends_with("ln.weight") { 1.0 } else { noise };
            if short {
                // A quarter to a half, of either sign.
                let half = 0x3400 | (self.seed >> 20) as u16 & 0x83ff;
                self.bytes.extend(half.to_le_bytes());
            } else {
                self.bytes.extend(value.to_le_bytes());
            }
        }
    }

    fn scaled(&mut self, name: &str) {
        self.weights(&format!("{name}.weight"), &[STATE]);
        self.weights(&format!("{name}.bias"), &[STATE]);
    }

    fn attention(&mut self, name: &str) {
        for part in ["query", "value", "out"] {
            self.weights(&format!("{name}.{part}.weight"), &[STATE, STATE]);
            self.weights(&format!("{name}.{part}.bias"), &[STATE]);
        }
        self.weights(&format!("{name}.key.weight"), &[STATE, STATE]);
        self.scaled(&format!("{name}_ln"));
    }

    fn perceptron(&mut self, name: &str) {
        self.scaled(&format!("{name}.mlp_ln"));
        self.weights(&format!("{name}.mlp.0.weight"), &[STATE, 4 * STATE]);
        self.weights(&format!("{name}.mlp.0.bias"), &[4 * STATE]);
        self.weights(&format!("{name}.mlp.2.weight"), &[4 * STATE, STATE]);
        self.weights(&format!("{name}.mlp.2.bias"), &[STATE]);
    }
}

/// The tokens that a file lists; those after them are made up by the loader.
fn listed() -> Vec<String> {
    let digits = (0..10).map(|digit| format!(" {digit}"));
    let words = [" Yes", " No", " yes", " no", " Agent", " back", "x"].map(String::from);
    digits.chain(words).collect()
}

/// Everything before the weights.
fn head() -> File {
    let mut file = File { bytes: vec![], seed: 7 };
    file.numbers(&[0x6767_6d6c, VOCABULARY, 1_500, STATE, 1, 1, 448, STATE, 1, 1, 80, 1]);
    file.numbers(&[80, 201]);
    for bin in 0..80 * 201 {
        // Each band has some of the spectrum.
        let value: f32 = if bin % 201 / 2 == bin / 201 { 0.02 } else { 0.0 };
        file.bytes.extend(value.to_le_bytes());
    }
    file.numbers(&[listed().len() as i32]);
    for token in listed() {
        file.numbers(&[token.len() as i32]);
        file.bytes.extend(token.as_bytes());
    }
    file
}

fn model() -> Vec<u8> {
    let mut file = head();
    file.weights("encoder.positional_embedding", &[STATE, 1_500]);
    file.weights("encoder.conv1.weight", &[3, 80, STATE]);
    file.weights("encoder.conv1.bias", &[1, STATE]);
    file.weights("encoder.conv2.weight", &[3, STATE, STATE]);
    file.weights("encoder.conv2.bias", &[1, STATE]);
    file.attention("encoder.blocks.0.attn");
    file.perceptron("encoder.blocks.0");
    file.weights("encoder.ln_post.weight", &[STATE]);
    file.weights("encoder.ln_post.bias", &[STATE]);
    file.weights("decoder.positional_embedding", &[STATE, 448]);
    file.weights("decoder.token_embedding.weight", &[STATE, VOCABULARY]);
    file.attention("decoder.blocks.0.attn");
    file.attention("decoder.blocks.0.cross_attn");
    file.perceptron("decoder.blocks.0");
    file.scaled("decoder.ln");
    file.bytes
}

fn fault(bytes: &[u8]) -> Option<String> {
    Whisper::open(bytes).err().map(|fault| fault.to_string())
}

fn answers(engine: &Whisper, field: Field) -> Answers {
    let mut listening = engine.recognizer(field, &Keys::new());
    let sound: Vec<i16> =
        WAVE.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    sound.as_chunks().0.iter().for_each(|sound| listening.take(Frame::Sound(sound)));
    listening.take(Frame::Lost);
    listening.answers()
}

#[test]
fn a_model_is_asked_for_nothing_but_answers() {
    let engine = Whisper::open(&model()).unwrap();
    let field = Field::Digits { min: 1, max: 3 };
    let first = answers(&engine, field);
    assert!(!first.list().is_empty());
    for known in first.list() {
        assert!((1..=3).contains(&known.keys().len()), "{} digits", known.keys().len());
        assert!(known.score().is_finite() && known.score() < 0.0, "{}", known.score());
    }
    assert_eq!(first.ear(), Ear::Whisper);
    // What it kept of one answer has no part in the next.
    let again = answers(&engine, field);
    let scores =
        |answers: &Answers| answers.list().iter().map(Hypothesis::score).collect::<Vec<_>>();
    assert_eq!(scores(&first), scores(&again));
    assert_eq!(engine.shared.states.lock().unwrap().len(), 1);
}

/// Of several tokens told at once whisper-rs shows what follows the first.
#[test]
fn a_text_told_at_once_is_as_likely_as_one_told_token_by_token() {
    let engine = Whisper::open(&model()).unwrap();
    let text = [3, 1, 4];
    let told = engine.shared.ask(&[100; 8_000], |asking| {
        asking.start = engine.shared.start.clone();
        let at_once = asking.after(&text)?.to_vec();
        asking.told.zeroize();
        let mut last = vec![];
        for length in 0..=text.len() {
            last = asking.after(&text[..length])?.to_vec();
        }
        // And back to an earlier place.
        let earlier = asking.after(&text[..1])?.to_vec();
        Ok((at_once, last, earlier))
    });
    let ((at_once, last, earlier), _) = told.unwrap();
    assert!(apart(&at_once, &last) < 0.01, "{}", apart(&at_once, &last));
    assert!(apart(&earlier, &last) > 0.1, "{}", apart(&earlier, &last));
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_state_knows_nothing_once_it_is_given_back() {
    let engine = Whisper::open(&model()).unwrap();
    let first = |state: &mut WhisperState| {
        state.decode(&engine.shared.start[..1], 0, THREADS).unwrap();
        state.get_logits().unwrap().to_vec()
    };
    let sound: Vec<i16> =
        WAVE.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    let ((), mut used) = engine.shared.ask(&sound, |_| Ok(())).unwrap();
    let said = first(used.state.as_mut().unwrap());
    drop(used);
    let mut state = engine.shared.states.lock().unwrap().pop().unwrap();
    let mut silent = engine.shared.context.create_state().unwrap();
    let places = places(sound.len());
    hear(&mut silent, &vec![0.0; places * PLACE], places).unwrap();
    let silence = first(&mut silent);
    assert_eq!(first(&mut state), silence);
    // Noise for weights makes little of what is said, and still something.
    assert!(apart(&said, &silence) > 1e-4, "{}", apart(&said, &silence));
}

#[test]
fn sums_are_the_built_in_networks() {
    let engine = Whisper::open(&model()).unwrap();
    assert_eq!(answers(&engine, Field::Amount).ear(), Ear::BuiltIn);
}

#[test]
fn silence_is_asked_nobody() {
    let engine = Whisper::open(&model()).unwrap();
    let mut listening = engine.recognizer(Field::Zip, &Keys::new());
    (0..60).for_each(|_| listening.take(Frame::Sound(&[0; SAMPLES])));
    assert_eq!(listening.answers().judge().outcome, Outcome::Again);
    assert!(engine.shared.states.lock().unwrap().is_empty());
}

#[test]
fn what_is_no_whole_model_is_refused() {
    let whole = model();
    let not_ggml = "is not a ggml model of Whisper; write the path of one, such as ggml-base.bin";
    assert_eq!(fault(b"").as_deref(), Some(not_ggml));
    assert_eq!(fault(b"RIFF....WAVE").as_deref(), Some(not_ggml));
    let empty = fault(&head().bytes).unwrap();
    assert!(empty.contains("no weights"), "{empty}");
    for cut in [5, 40, 60, 64_000, 70_000, whole.len() / 2, whole.len() - 1] {
        let fault = fault(&whole[..cut]).unwrap();
        assert!(fault.contains("ends within its") && fault.contains("again"), "{cut}: {fault}");
    }
    let mut vast = whole.clone();
    vast[12..16].copy_from_slice(&i32::MAX.to_le_bytes());
    assert!(fault(&vast).unwrap().contains("2147483647 values a place of sound"));
    // Whole, and the layers are not those it says it has.
    let mut other = whole.clone();
    other[20..24].copy_from_slice(&2i32.to_le_bytes());
    assert!(fault(&other).unwrap().contains("refused by whisper.cpp"));
    // Whisper.cpp would end the whole process at the first word.
    let mut other = whole.clone();
    let name = b"encoder.conv1.weight";
    let named = other.windows(name.len()).position(|bytes| bytes == name).unwrap();
    other.splice(named - 16..named - 12, 0i32.to_le_bytes());
    let wide =
        other[named + name.len()..].chunks(2).next().unwrap().repeat(3 * 80 * STATE as usize);
    other.splice(named + name.len()..named + name.len(), wide);
    assert!(fault(&other).unwrap().contains("convolutions of 32 bits"));
    let mut other = whole;
    let listed = other.windows(2).position(|two| two == b" 7").unwrap();
    other[listed + 1] = b'y';
    assert_eq!(fault(&other).as_deref(), Some("has no tokens for English digits"));
}

#[test]
fn both_opinions_count() {
    let mut built_in = Answers::none(Field::Zip);
    let [a, b] = ["12345", "12355"].map(|keys| grammar::Meaning::of(keys, None));
    built_in.add(Hypothesis::new(a, -0.2, 5, [100, 200, 300, 400, 500].into_iter()));
    built_in.add(Hypothesis::new(b, -6.2, 5, [100, 200, 300, 400, 500].into_iter()));
    built_in.finish(Evidence::default());
    let texts = |lead: f32| {
        [
            Text { meaning: a, words: 5, score: -1.0 - lead, behind: lead },
            Text { meaning: b, words: 5, score: -1.0, behind: 0.0 },
        ]
    };
    let told = |lead: f32| together(&built_in, &texts(lead)).list()[0].keys().expose().to_string();
    assert_eq!(told(0.5), "12345", "what the network is sure of");
    assert_eq!(told(5.0), "12355", "what Whisper is sure of");
    // None of both thought of what the other did.
    let [Text { .. }, alone] = texts(0.0);
    let both = together(&built_in, std::slice::from_ref(&alone));
    assert_eq!(both.list()[0].times_ms(), [100, 200, 300, 400, 500]);
}

/// Tells the same whatever came before.
struct Fixed(Vec<f32>);

impl Teller for Fixed {
    type Error = ();
    fn after(&mut self, _: &[i32]) -> Result<&[f32], ()> {
        Ok(&self.0)
    }
}

#[test]
fn texts_are_as_likely_as_their_tokens() {
    use crate::speech::word::Word;
    use vocabulary::Choice;
    let choices: Vec<Choice> = (0..10)
        .map(|digit| Choice { token: digit, words: vec![Word::Digit(digit as u8)] })
        .collect();
    // Ten digits, the end, and something that is no answer and likelier than all.
    let mut told: Vec<f32> = (0..10).map(|digit| 0.1 * digit as f32).collect();
    told.extend([0.5, 2.0]);
    let whole: f32 = told.iter().map(|value| value.exp()).sum::<f32>().ln();
    let field = Field::Digits { min: 2, max: 2 };
    let grammar = grammar::of(field, &Keys::new());
    let found = search(&mut Fixed(told), &choices, 10, &*grammar, |meaning| {
        [2, 1].starts_with(meaning.digits())
    });
    let mut found = found.unwrap();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    assert_eq!(found[0].meaning.digits(), [9, 9]);
    assert!((found[0].score - (0.9 + 0.9 + 0.5 - 3.0 * whole)).abs() < 1e-4);
    assert!((found[0].behind - (1.1 + 1.1 + 1.5)).abs() < 1e-4);
    // Far from the likeliest, and asked about.
    assert!(found.iter().any(|text| text.meaning.digits() == [2, 1]));
    assert!(!found.iter().any(|text| text.meaning.digits() == [2, 2]));
}

/// whisper.cpp's own test file, where the recordings to measure with are.
#[test]
fn a_file_for_tests_is_no_model() {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/whisper");
    let Ok(bytes) = std::fs::read(format!("{shared}/for-tests-ggml-tiny.en.bin")) else {
        return println!("skipped: no {shared}");
    };
    let fault = fault(&bytes).unwrap();
    assert!(fault.contains("no weights"), "{fault}");
}

#[test]
fn a_date_is_written_in_several_ways() {
    use crate::speech::word::Word;
    let digits = (0..10).map(|digit| format!(" {digit}"));
    let listed: Vec<String> =
        digits.chain([" 03", " 12", " 20", " 27", " March"].map(String::from)).collect();
    let find = |text: &str| listed.iter().position(|known| known == text).map(|n| n as i32);
    let vocabulary = Vocabulary::find(find).unwrap();
    let said = |text: &str| {
        let choices = &vocabulary.dates.choices;
        let choice = choices.iter().find(|choice| Some(choice.token) == find(text));
        choice.map(|choice| choice.words.clone()).unwrap_or_default()
    };
    assert_eq!(said(" 03"), [Word::Digit(0), Word::Digit(3)]);
    assert_eq!(said(" 12"), [Word::Teen(12)]);
    assert_eq!(said(" 27"), [Word::Tens(20), Word::Digit(7)]);
    assert_eq!(said(" 20"), [Word::Tens(20)]);
    assert_eq!(said(" March"), [Word::Month(3)]);
    assert_eq!(said(" 3"), [Word::Digit(3)]);
    assert_eq!(said(" 0"), [], "no month is a zero");
    assert!(Vocabulary::find(|text| find(text).filter(|_| text != " 4")).is_none());
}
