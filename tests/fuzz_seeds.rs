//! What the fuzzers start from, on stable: every seed and a few thousand mutants of them run
//! through the body of their target. A failing mutant is printed with how to make it again.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

struct Target {
    name: &'static str,
    path: &'static str,
    body: fn(&[u8]),
}

macro_rules! target {
    ($name:literal, $body:path) => {
        Target { name: $name, path: stringify!($body), body: $body }
    };
}

/// One entry for each file in `fuzz/fuzz_targets`.
const TARGETS: [Target; 11] = [
    target!("ach", ringtill::ach::returned::fuzz),
    target!("codec", ringtill::media::codec::fuzz),
    target!("csv", ringtill::account::csv::fuzz),
    target!("rtcp", ringtill::rtp::rtcp::fuzz),
    target!("rtp", ringtill::rtp::packet::fuzz),
    target!("sip_auth", ringtill::sip::auth::fuzz),
    target!("sip_sdp", ringtill::sip::offer::fuzz),
    target!("sip_stream", ringtill::sip::wire::fuzz_stream),
    target!("sip_wire", ringtill::sip::wire::fuzz),
    target!("srtp", ringtill::rtp::srtp::fuzz),
    target!("telephone_event", ringtill::rtp::telephone_event::fuzz),
];

/// Of each target's seeds, unless the variable `MUTANTS` says how many.
const MUTANTS: u64 = 5_000;

#[test]
fn every_target_is_run_here_by_the_body_it_names() {
    let files = fs::read_dir(fuzz("fuzz_targets")).expect("fuzz/fuzz_targets");
    let files = files.map(|file| file.expect("an entry").path());
    let names: BTreeSet<String> =
        files.map(|path| path.file_stem().expect("a name").to_string_lossy().into()).collect();
    let here: BTreeSet<String> = TARGETS.iter().map(|target| target.name.into()).collect();
    assert_eq!(names, here, "fuzz/fuzz_targets, and TARGETS in this file");
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("fuzz/Cargo.toml");
    for Target { name, path, .. } in TARGETS {
        let text = fs::read_to_string(fuzz(&format!("fuzz_targets/{name}.rs"))).expect("a target");
        assert!(text.contains(&format!("{path}(bytes)")), "{name} does not run {path}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in Cargo.toml");
    }
}

#[test]
fn seeds_and_their_mutants_do_no_harm() {
    let mutants = std::env::var("MUTANTS").map_or(MUTANTS, |n| n.parse().expect("a number"));
    for target in TARGETS {
        let seeds = seeds(target.name);
        for (path, bytes) in &seeds {
            run(&target, bytes, &path.display().to_string());
        }
        for number in 0..mutants {
            let bytes = mutant(&seeds, number);
            run(&target, &bytes, &format!("{} mutant {number}", target.name));
        }
    }
}

/// The check that finds nothing must be able to find something, and mutants must differ.
#[test]
fn a_body_that_panics_is_reported_and_mutants_are_new() {
    let angry = Target { name: "csv", path: "", body: |bytes| assert!(bytes.len() < 3, "long") };
    run(&angry, b"12", "short");
    let caught = catch_unwind(AssertUnwindSafe(|| run(&angry, b"\x00\xff3", "three"))).unwrap_err();
    let message = caught.downcast_ref::<String>().expect("a message");
    assert!(message.contains("three: 00ff33"), "{message}");
    let seeds = seeds("sip_wire");
    let mutants: BTreeSet<Vec<u8>> = (0..500).map(|number| mutant(&seeds, number)).collect();
    assert!(mutants.len() > 450, "{} of 500", mutants.len());
    let new = |mutant: &&Vec<u8>| !seeds.iter().any(|(_, seed)| seed == *mutant);
    assert!(mutants.iter().filter(new).count() > 450);
    assert_eq!(mutant(&seeds, 7), mutant(&seeds, 7), "a number makes the same mutant again");
}

fn run(target: &Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.body)(bytes))).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{what}: {hex}");
    }
}

/// The seeds of a target by name, so that a mutant's number means the same everywhere.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz(&format!("seeds/{target}"));
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut seeds: Vec<_> = files
        .map(|file| file.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect();
    assert!(!seeds.is_empty(), "{folder:?} is empty");
    seeds.sort();
    seeds
}

/// A seed with one to eight changes.
fn mutant(seeds: &[(PathBuf, Vec<u8>)], number: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(number);
    let mut bytes = seeds[rng.random_range(0..seeds.len())].1.clone();
    for _ in 0..rng.random_range(1..=8) {
        let other = &seeds[rng.random_range(0..seeds.len())].1;
        change(&mut rng, &mut bytes, other);
    }
    bytes
}

/// Bytes that parsers stumble over, in text and in binary.
const ODD: [&[u8]; 16] = [
    b"\r\n",
    b"\n\n",
    b"\"",
    b";",
    b",",
    b" ",
    b"\0",
    b"%00",
    b"<",
    b":",
    b"-1",
    b"4294967296",
    b"\xff\xff",
    b"\x80",
    b"\x00\x00\x00\x00",
    b"99999999999999999999",
];

fn change(rng: &mut StdRng, bytes: &mut Vec<u8>, other: &[u8]) {
    let start = rng.random_range(0..=bytes.len());
    let end = rng.random_range(start..=bytes.len().min(start + 64));
    match rng.random_range(0..7) {
        0 if start < bytes.len() => bytes[start] ^= 1 << rng.random_range(0..8),
        1 if start < bytes.len() => bytes[start] = rng.random(),
        2 => drop(bytes.drain(start..end)),
        3 => {
            let again = bytes[start..end].to_vec();
            bytes.splice(start..start, again);
        }
        4 => {
            let odd = ODD[rng.random_range(0..ODD.len())];
            bytes.splice(start..end.min(start + odd.len()), odd.iter().copied());
        }
        5 => {
            let from = rng.random_range(0..=other.len());
            let upto = rng.random_range(from..=other.len().min(from + 256));
            bytes.splice(start..end, other[from..upto].iter().copied());
        }
        _ => bytes.truncate(start),
    }
}

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}
