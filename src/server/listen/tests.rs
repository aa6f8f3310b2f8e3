//! Recordings written to files, and what is printed of them.

use super::*;
use crate::prompt::clip::tests::{sine, wav};

fn printed(files: &[PathBuf], engine: &str) -> Result<(bool, String, String), String> {
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let whole = listen(files, Asked::Zip, engine, &mut out, &mut problems)
        .map_err(|error| error.to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ok((whole, text(out), text(problems)))
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let files = [
        file("silence.wav", &wav(8_000, 1, &[0; 8_000])),
        file("page.wav", b"<html>not found</html>"),
        folder.path().join("none.wav"),
        file("tone.wav", &wav(16_000, 1, &sine(16_000, 440.0, 0.3, 100, 900))),
    ];
    let (whole, out, problems) = printed(&files, "digits").unwrap();
    assert!(!whole);
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names = [0, 1].map(|nth| lines[nth]["file"].as_str().unwrap().to_string());
    assert_eq!(names, [0, 3].map(|nth: usize| files[nth].to_string_lossy().into_owned()));
    for line in &lines {
        assert_eq!((line["outcome"].as_str(), line["digits"].as_u64()), (Some("again"), Some(0)));
    }
    let told: Vec<&str> = problems.lines().collect();
    assert!(told[0].contains("page.wav: not readable as WAV"), "{problems}");
    assert!(told[1].contains("none.wav: No such file"), "{problems}");
}

#[test]
fn engines_that_cannot_be_opened_say_why() {
    let model = tempfile::NamedTempFile::new().unwrap();
    let whisper = format!("whisper:{}", model.path().display());
    for (engine, why) in [
        ("digts", "write one of: digits, whisper:PATH"),
        ("whisper", "write whisper:PATH"),
        ("whisper:/none/ggml.bin", "/none/ggml.bin: No such file"),
        #[cfg(not(feature = "whisper"))]
        (&whisper, "built without whisper"),
        #[cfg(feature = "whisper")]
        (&whisper, "is not a ggml model of Whisper"),
    ] {
        let error = printed(&[], engine).unwrap_err();
        assert!(error.contains(why), "{engine}: {error}");
    }
}

/// As recordings of single words are: cut where the word begins, and where it ends.
#[test]
fn a_word_at_the_very_beginning_is_heard() {
    let engine = open("digits").unwrap();
    let words: [(&[u8], Field, &str); 5] = [
        (include_bytes!("../demo/voice/card.flac"), Field::Card, "4111111111111111"),
        (include_bytes!("../demo/voice/one.flac"), Field::Digit, "1"),
        (include_bytes!("../demo/voice/two.flac"), Field::Digit, "2"),
        (include_bytes!("../demo/voice/yes.flac"), Field::YesNo, "yes"),
        (include_bytes!("../demo/voice/no.flac"), Field::YesNo, "no"),
    ];
    for (bytes, field, word) in words {
        let all = Converter::default().sound(bytes.into(), SECONDS_MAX).unwrap();
        let peak = all.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        let loud = |sample: &i16| sample.unsigned_abs() > peak / 50;
        let (begin, end) = (all.iter().position(loud), all.iter().rposition(loud));
        let cut = &all[begin.unwrap()..end.unwrap()];
        let codes: Vec<u8> = cut.iter().map(|&sample| codec::encode(Law::Mu, sample)).collect();
        let answer = hear(&codes, field, &*engine).answer.unwrap();
        assert_eq!(answer.best.as_ref().map(value).as_deref(), Some(word));
        assert_eq!(answer.outcome, Outcome::Accept, "{word}, {:.3}", answer.confidence);
    }
}
