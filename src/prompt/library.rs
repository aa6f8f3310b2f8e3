//! Catalogue and clips of one language put together: prompts in, clips and words out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::catalog::{Catalog, FILES, Problem, Severity};
use super::clip::{Converter, Level, silence};
use super::numerals::{Numerals, Piece, numerals, pieces, written};
use super::{Prompt, catalog};
use crate::media::Clip;

/// Files of one language folder: `phrases.toml`, `numerals.toml`, `clips/<id>.flac` or `.wav`,
/// `names/<name>.flac` or `.wav`.
pub struct Layer {
    /// Where they come from, put before the path in problems, for example `prompts/en-US`.
    pub origin: String,
    /// By path within the folder, with `/`.
    pub files: BTreeMap<String, Cow<'static, [u8]>>,
}

/// Phrases and clips of one language, loaded once.
pub struct Library {
    catalog: Catalog,
    numerals: &'static dyn Numerals,
    clips: HashMap<String, Clip>,
    names: HashMap<String, Name>,
    warnings: Vec<Problem>,
}

struct Name {
    id: String,
    written: String,
    clip: Clip,
}

/// More silence than this before the first sound delays every prompt.
const LEADING_MS_MAX: usize = 250;
const TRAILING_MS_MAX: usize = 1000;
/// What callers find neither faint nor shouted, around the usual -16 dBm0.
const SPEECH_DBM0: std::ops::RangeInclusive<f32> = -24.0..=-9.0;
/// A pause longer than this is a mistake.
const PAUSE_MS_MAX: u16 = 10_000;

impl Library {
    /// Puts layers together; the first is the bundled one, and files of later ones take the place
    /// of the same phrase in earlier ones. All problems are found at once; without an error among
    /// them the rest is kept as [`Library::warnings`].
    pub fn load(language: &str, layers: &[Layer]) -> Result<Library, Vec<Problem>> {
        let Some(numerals) = numerals(language) else {
            let what = format!("nobody has taught us to say numbers in {language} yet: use en-US");
            return Err(vec![Problem::error(language, None, what)]);
        };
        let mut problems = Vec::new();
        let (catalog, spoken_anew) = catalogue(language, layers, &mut problems);
        let mut recordings = Recordings { layers, converter: Converter::default() };
        let mut clips = HashMap::new();
        for entry in catalog.entries() {
            match recordings.take(&format!("clips/{}", entry.id), &mut problems) {
                Found::Clip { clip, layer } => {
                    if spoken_anew.get(&entry.id).is_some_and(|&text| text > layer) {
                        let file = &layers[layer].origin;
                        let what = format!(
                            "`{}` has a new text but not a new clip: add clips/{}.wav",
                            entry.id, entry.id
                        );
                        problems.push(Problem::warning(file, None, what));
                    }
                    clips.insert(entry.id.clone(), clip);
                }
                Found::Unusable => {}
                Found::Nothing => {
                    let file = format!("{}/clips/{}.wav", origin(layers), entry.id);
                    let what = format!("no such file: record \"{}\"", entry.text);
                    problems.push(Problem::error(&file, None, what));
                }
            }
        }
        for id in numerals.inventory().iter().filter(|id| catalog.entry(id).is_none()) {
            let file = format!("{}/{}", origin(layers), FILES[1]);
            let what = format!("`{id}` is missing, which numbers in {language} are made of");
            problems.push(Problem::error(&file, None, what));
        }
        let names = recordings.names(&mut problems);
        problems.extend(unused(layers, &catalog));
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(problems);
        }
        Ok(Library { catalog, numerals, clips, names, warnings: problems })
    }

    /// What is not as it should be, but can be lived with.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Every recorded phrase and piece with its id, in no order.
    pub fn recorded(&self) -> impl Iterator<Item = (&str, &Clip)> {
        self.clips.iter().map(|(id, clip)| (id.as_str(), clip))
    }

    /// Every recorded name: its id `name.james`, how it is written, and the recording.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str, &Clip)> {
        self.names.values().map(|name| (name.id.as_str(), name.written.as_str(), &name.clip))
    }

    /// What to play. A name that is not recorded is asked of `names`, or left out.
    pub fn clips(&self, prompts: &[Prompt], names: &dyn Fn(&str) -> Option<Clip>) -> Vec<Clip> {
        let clip = |piece: Piece| match piece {
            Piece::Clip(id) => self.clip(&id).cloned(),
            Piece::Pause { ms } => Some(silence(ms.min(PAUSE_MS_MAX))),
            Piece::Name(name) => self.name(&name).or_else(|| names(&name)),
        };
        prompts.iter().flat_map(|prompt| pieces(self.numerals, prompt)).filter_map(clip).collect()
    }

    /// The recording of one phrase or piece.
    pub fn clip(&self, id: &str) -> Option<&Clip> {
        let clip = self.clips.get(id);
        if clip.is_none() {
            tracing::error!(id, "no such phrase in the catalogue");
        }
        clip
    }

    /// A recorded name, whatever its case.
    pub fn name(&self, name: &str) -> Option<Clip> {
        self.names.get(&name.trim().to_lowercase()).map(|name| name.clip.clone())
    }

    /// Takes a name up for good, as if it had been recorded.
    pub fn add_name(&mut self, written: &str, clip: Clip) {
        let key = written.trim().to_lowercase();
        let name = Name { id: format!("name.{key}"), written: written.trim().into(), clip };
        self.names.insert(key, name);
    }

    /// The prompts as a person reads them: `Your balance is $321.72, due June 5.`
    pub fn words(&self, prompts: &[Prompt]) -> String {
        let mut text = String::new();
        let mut after_value = false;
        for prompt in prompts {
            let (part, value) = match prompt {
                Prompt::Pause { .. } => continue,
                Prompt::Phrase(id) => (self.catalog.entry(id).map_or(*id, |e| &e.written), false),
                other => (&*written(self.numerals, other), true),
            };
            // A sentence that ends in a number or a name has no full stop of its own.
            if after_value && part.starts_with(|c: char| c.is_uppercase()) && !value {
                text.push('.');
            }
            if !text.is_empty() && !part.starts_with([',', '.']) {
                text.push(' ');
            }
            text.push_str(part);
            after_value = value;
        }
        if text.ends_with(|c: char| c.is_alphanumeric()) {
            text.push('.');
        }
        text
    }

    /// The prompts as they are said: numbers in words, without punctuation of our own.
    pub fn spoken(&self, prompts: &[Prompt]) -> String {
        let said = |piece: Piece| match piece {
            Piece::Clip(id) => self.catalog.entry(&id).map(|entry| entry.text.clone()),
            Piece::Name(name) => Some(name),
            Piece::Pause { .. } => None,
        };
        let pieces = prompts.iter().flat_map(|prompt| pieces(self.numerals, prompt));
        pieces.filter_map(said).collect::<Vec<_>>().join(" ")
    }
}

/// The catalogue of all layers, and for each phrase whose text a later layer changed, which.
fn catalogue(
    language: &str,
    layers: &[Layer],
    problems: &mut Vec<Problem>,
) -> (Catalog, HashMap<String, usize>) {
    let mut catalog = Catalog::default();
    let mut changed = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        for name in FILES {
            let path = format!("{}/{name}", layer.origin);
            let Some(bytes) = layer.files.get(name) else {
                if index == 0 {
                    problems.push(Problem::error(&path, None, "no such file"));
                }
                continue;
            };
            let Ok(text) = std::str::from_utf8(bytes) else {
                problems.push(Problem::error(&path, None, "is not UTF-8 text: save it as UTF-8"));
                continue;
            };
            let before: HashMap<String, String> = catalog.entries().iter().map(text_of).collect();
            problems.extend(catalog.add(language, &path, text));
            let differs = |entry: &&catalog::Entry| {
                before.get(&entry.id).is_some_and(|text| *text != entry.text)
            };
            changed.extend(catalog.entries().iter().filter(differs).map(|e| (e.id.clone(), index)));
        }
    }
    (catalog, changed)
}

fn text_of(entry: &catalog::Entry) -> (String, String) {
    (entry.id.clone(), entry.text.clone())
}

struct Recordings<'a> {
    layers: &'a [Layer],
    converter: Converter,
}

enum Found {
    Clip { clip: Clip, layer: usize },
    Unusable,
    Nothing,
}

impl Recordings<'_> {
    /// The clip at `path` without its ending, of the last layer that has it.
    fn take(&mut self, path: &str, problems: &mut Vec<Problem>) -> Found {
        for (index, layer) in self.layers.iter().enumerate().rev() {
            for ending in ["wav", "flac"] {
                let path = format!("{path}.{ending}");
                let Some(bytes) = layer.files.get(&path) else { continue };
                let file = format!("{}/{path}", layer.origin);
                return match self.converter.convert(bytes.clone()) {
                    Ok((clip, level)) => {
                        problems.extend(faults(&file, &level));
                        Found::Clip { clip, layer: index }
                    }
                    Err(error) => {
                        problems.push(Problem::error(&file, None, error.to_string()));
                        Found::Unusable
                    }
                };
            }
        }
        Found::Nothing
    }

    fn names(&mut self, problems: &mut Vec<Problem>) -> HashMap<String, Name> {
        let mut names = HashMap::new();
        let paths = self.layers.iter().flat_map(|layer| layer.files.keys());
        for path in paths.filter_map(|path| sound_in(path, "names/")) {
            if names.contains_key(path) {
                continue;
            }
            if let Found::Clip { clip, .. } = self.take(&format!("names/{path}"), problems) {
                let initial = path.chars().next().into_iter().flat_map(char::to_uppercase);
                let written = initial.chain(path.chars().skip(1)).collect();
                let name = Name { id: format!("name.{path}"), written, clip };
                names.insert(path.to_string(), name);
            }
        }
        names
    }
}

/// `card.ask` of `clips/card.ask.flac`; `None` for what is no sound in `folder`.
fn sound_in<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let name = path.strip_prefix(folder)?;
    name.strip_suffix(".flac").or_else(|| name.strip_suffix(".wav"))
}

fn origin(layers: &[Layer]) -> &str {
    layers.last().map_or("prompts", |layer| &layer.origin)
}

fn faults(file: &str, level: &Level) -> Vec<Problem> {
    let mut faults = Vec::new();
    if level.clipped > 0 {
        faults.push(format!(
            "{} samples are at the limit and will sound distorted: record with less gain",
            level.clipped
        ));
    }
    if !SPEECH_DBM0.contains(&level.speech_dbm0) {
        faults.push(format!(
            "speech is at {:.0} dBm0: bring it to about -16 dBm0",
            level.speech_dbm0
        ));
    }
    if level.leading_ms > LEADING_MS_MAX {
        faults.push(format!(
            "begins with {} ms of silence: cut it to less than {LEADING_MS_MAX} ms",
            level.leading_ms
        ));
    }
    if level.trailing_ms > TRAILING_MS_MAX {
        faults.push(format!(
            "ends with {} ms of silence: cut it to less than {TRAILING_MS_MAX} ms",
            level.trailing_ms
        ));
    }
    faults.into_iter().map(|what| Problem::warning(file, None, what)).collect()
}

/// Files that nothing asks for: mostly a misspelt id.
fn unused(layers: &[Layer], catalog: &Catalog) -> Vec<Problem> {
    let mut problems = Vec::new();
    for layer in layers {
        for path in layer.files.keys() {
            let used = match (sound_in(path, "clips/"), sound_in(path, "names/")) {
                (Some(id), _) => catalog.entry(id).is_some(),
                (None, Some(name)) => name == name.to_lowercase(),
                (None, None) => FILES.contains(&path.as_str()) || path.ends_with(".md"),
            };
            if !used {
                let file = format!("{}/{path}", layer.origin);
                let what = if path.starts_with("names/") {
                    "is never used: write the name in small letters, ending in .wav or .flac"
                } else {
                    "is never used: no phrase has this id (`ringtill prompts export` lists them)"
                };
                problems.push(Problem::warning(&file, None, what));
            }
        }
    }
    problems
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, OnceLock};

    use rust_embed::Embed;

    use super::*;
    use crate::money::Money;
    use crate::prompt::clip::tests::{sine, wav};

    #[derive(Embed)]
    #[folder = "prompts/en-US"]
    struct Prompts;

    #[derive(Embed)]
    #[folder = "src"]
    struct Sources;

    fn bundled() -> Layer {
        let file = |path: Cow<'static, str>| {
            let bytes = Prompts::get(&path).unwrap().data;
            (path.into_owned(), bytes)
        };
        Layer { origin: "prompts/en-US".into(), files: Prompts::iter().map(file).collect() }
    }

    /// The bundled library, loaded once for all tests.
    pub(crate) fn library() -> Arc<Library> {
        static LIBRARY: OnceLock<Arc<Library>> = OnceLock::new();
        let load = || Arc::new(Library::load("en-US", &[bundled()]).ok().unwrap());
        LIBRARY.get_or_init(load).clone()
    }

    #[test]
    fn the_bundled_voice_has_no_fault() {
        let told: Vec<String> = match Library::load("en-US", &[bundled()]) {
            Ok(library) => library.warnings().iter().map(Problem::to_string).collect(),
            Err(problems) => problems.iter().map(Problem::to_string).collect(),
        };
        assert_eq!(told, Vec::<String>::new());
    }

    /// Every phrase named in the sources, and every id built from a card brand.
    #[test]
    fn every_phrase_in_the_source_is_in_the_catalogue() {
        let library = library();
        let call = ["Phrase", "(\""].concat();
        let mut asked = 0;
        for path in Sources::iter().filter(|path| path.ends_with(".rs")) {
            let source = Sources::get(&path).unwrap().data;
            let source = String::from_utf8(source.into_owned()).unwrap();
            for part in source.split(&call).skip(1) {
                let id = part.split('"').next().unwrap();
                asked += 1;
                assert!(library.catalog.entry(id).is_some(), "{path}: {id}");
            }
        }
        assert!(asked > 5, "the search has lost its way");
        for brand in crate::instrument::Brand::ALL {
            let id = format!("brand.{}", brand.name());
            assert!(library.catalog.entry(&id).is_some(), "{id}");
        }
    }

    fn greeting() -> Vec<Prompt> {
        vec![
            Prompt::Phrase("greet.hello"),
            Prompt::Name("James".into()),
            Prompt::Phrase("greet.balance"),
            Prompt::Amount(Money::usd(32172)),
            Prompt::Phrase("greet.due"),
            Prompt::Date(jiff::civil::date(2026, 6, 5)),
        ]
    }

    #[test]
    fn words_are_what_a_person_reads() {
        let library = library();
        let words = |prompts: &[Prompt]| library.words(prompts);
        assert_eq!(words(&greeting()), "Hello James. Your balance is $321.72, due June 5.");
        let confirmation = [
            Prompt::Phrase("result.approved"),
            Prompt::Phrase("result.confirmation"),
            Prompt::Groups { digits: "482915037".into(), slow: false },
            Prompt::Pause { ms: 300 },
            Prompt::Phrase("result.repeat"),
        ];
        assert_eq!(
            words(&confirmation),
            "Your payment was approved. Your confirmation number is 482 915 037. \
             To hear it again, press 9. Otherwise, you may hang up."
        );
        let total = [
            Prompt::Phrase("consent.total"),
            Prompt::Phrase("brand.visa"),
            Prompt::Phrase("card.ending"),
            Prompt::Digits("1111".into()),
            Prompt::Phrase("consent.will_be"),
            Prompt::Amount(Money::usd(20200)),
        ];
        let want = "The total charged to your Visa ending in 1111 will be $202.00.";
        assert_eq!(words(&total), want);
    }

    #[test]
    fn amounts_are_said_in_words() {
        assert_eq!(
            library().spoken(&greeting()),
            "Hello James Your balance is three hundred twenty-one dollars and seventy-two cents \
             due June fifth"
        );
    }

    #[test]
    fn an_unknown_name_is_left_out_or_taken_from_the_caller_of_clips() {
        let library = library();
        let say = |name: &str| [Prompt::Phrase("greet.hello"), Prompt::Name(name.into())];
        let none = |_: &str| None;
        assert_eq!(library.clips(&say("JAMES"), &none).len(), 2);
        assert_eq!(library.clips(&say("Xanthippe"), &none).len(), 1);
        let made = library.clips(&say("Xanthippe"), &|name| {
            assert_eq!(name, "Xanthippe");
            Some(silence(20))
        });
        assert_eq!(made.iter().map(|clip| clip.mu.len()).next_back(), Some(160));
    }

    fn with(path: &str, bytes: Vec<u8>) -> Vec<Problem> {
        let own = Layer {
            origin: "/etc/voice".into(),
            files: BTreeMap::from([(path.to_string(), Cow::Owned(bytes))]),
        };
        match Library::load("en-US", &[bundled(), own]) {
            Ok(library) => library.warnings,
            Err(problems) => problems,
        }
    }

    #[test]
    fn every_fault_of_a_recording_is_named() {
        let tone = |amplitude, lead| wav(16_000, 1, &sine(16_000, 440.0, amplitude, lead, 300));
        let text = b"language = \"en-US\"\n[[phrases]]\nid = \"bye.plain\"\ntext = \"Bye.\"\n";
        for (path, bytes, want) in [
            ("clips/bye.plain.wav", tone(0.15, 0), ""),
            ("clips/bye.plain.wav", tone(0.15, 400), "warning: 400 ms of silence"),
            ("clips/bye.plain.wav", tone(0.02, 0), "warning: speech is at -31 dBm0"),
            ("clips/bye.plain.wav", tone(1.5, 0), "warning: at the limit"),
            ("clips/bye.plain.wav", b"RIFFnothing".to_vec(), "error: not readable"),
            ("clips/by.plain.wav", tone(0.15, 0), "warning: no phrase has this id"),
            ("names/James.wav", tone(0.15, 0), "warning: small letters"),
            ("phrases.toml", b"language = 7".to_vec(), "error: invalid type"),
            ("phrases.toml", vec![0xFF], "error: UTF-8"),
            ("phrases.toml", text.to_vec(), "warning: new text but not a new clip"),
        ] {
            let told: Vec<String> = with(path, bytes).iter().map(Problem::to_string).collect();
            let (severity, what) = want.split_once(": ").unwrap_or(("", ""));
            let fits = |line: &String| line.starts_with(severity) && line.contains(what);
            assert_eq!(told.is_empty(), want.is_empty(), "{want}: {told:?}");
            assert!(want.is_empty() || told.iter().any(fits), "{want}: {told:?}");
        }
    }

    #[test]
    fn a_missing_clip_is_an_error_that_names_the_text() {
        let mut layer = bundled();
        layer.files.remove("clips/bye.plain.flac");
        let problems = Library::load("en-US", &[layer]).err().unwrap();
        let want = "error: prompts/en-US/clips/bye.plain.wav: no such file: record \"Goodbye.\"";
        assert_eq!(problems.iter().map(Problem::to_string).collect::<Vec<_>>(), [want]);
        assert!(Library::load("tlh", &[bundled()]).is_err());
    }
}
