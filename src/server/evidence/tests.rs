//! What is left of an authorisation on disk, and for how long.

use super::*;
use crate::instrument::{AccountKind, Last4};
use crate::media::SegmentId;
use crate::media::recording::wav_header;
use crate::money::Money;
use crate::payment::{Authorisation, Evidence};

const SIGNED_MS: i64 = 1_795_923_000_000;

fn kept(segment: Option<u16>) -> Kept {
    let date = jiff::civil::date(2026, 11, 28);
    let authorisation = Authorisation {
        signed_ms: SIGNED_MS,
        signed: "2026-11-28T22:30:00-05:00".into(),
        given: date,
        debit_from: date,
        company: "Acme Water".into(),
        phone: "+18005550100".into(),
        account_id: "1001".into(),
        holder: "James Walker".into(),
        kind: AccountKind::Checking,
        last4: Last4::parse("8901").unwrap(),
        amount: Money::usd(32_172),
        fee: Money::usd(200),
        total: Money::usd(32_372),
        said: Vec::new(),
        recorded: segment.is_some(),
    };
    let evidence = Evidence {
        reference: "01a".into(),
        confirmation: "657717443".into(),
        call_id: "abc".into(),
        authorisation,
    };
    let words = "Today, November 28, you authorize Acme Water".into();
    let length = Duration::from_secs(3);
    Kept { evidence, words, segment: segment.map(SegmentId), length }
}

fn evidences(folder: &Path, key: Option<Key>) -> Evidences {
    Evidences { folder: Some(folder.into()), key, years: 2 }
}

fn record(folder: &Path, name: &str, seconds: u32) -> Vec<u8> {
    let mut wav = wav_header(seconds * 50).to_vec();
    wav.extend((0..seconds as usize * SECOND).map(|at| (at % 251) as u8));
    fs::write(folder.join(format!("{name}.wav")), &wav).unwrap();
    wav
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn read(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

#[tokio::test]
async fn the_facts_stand_beside_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let wav = record(folder.path(), "call-2", 4);
    evidences(folder.path(), None).keep("call", &kept(Some(2))).await.unwrap();
    assert_eq!(names(folder.path()), ["call-2.json", "call-2.wav"]);
    let facts = read(folder.path(), "call-2.json");
    let sum = hex(digest::digest(&digest::SHA256, &wav).as_ref());
    assert_eq!(facts["recording"]["sha256"], sum);
    assert_eq!(facts["recording"]["milliseconds"], 4_000);
    for (key, want) in [
        ("standard_entry_class", "TEL"),
        ("reference", "01a"),
        ("authorised", "2026-11-28"),
        ("signed", "2026-11-28T22:30:00-05:00"),
        ("signed_by", "key 1"),
        ("debit_on_or_after", "2026-11-28"),
        ("company", "Acme Water"),
        ("phone", "+18005550100"),
        ("account_id", "1001"),
        ("holder", "James Walker"),
        ("total", "323.72"),
        ("fee", "2.00"),
        ("said", "Today, November 28, you authorize Acme Water"),
    ] {
        assert_eq!(facts[key], want, "{key}");
    }
    assert_eq!(facts["bank_account"]["ending"], "8901");
}

#[tokio::test]
async fn with_a_key_the_sound_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "k".repeat(64)).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let key = Key::read(&file, Purpose::Authorisations).unwrap();
    fs::remove_file(&file).unwrap();
    let wav = record(folder.path(), "call-1", 4);
    evidences(folder.path(), Some(key.clone())).keep("call", &kept(Some(1))).await.unwrap();
    assert_eq!(names(folder.path()), ["call-1.json", "call-1.wav.sealed"]);
    let sealed = fs::read(folder.path().join("call-1.wav.sealed")).unwrap();
    assert_eq!(*key.open("call-1", &sealed).unwrap(), wav);
    let facts = read(folder.path(), "call-1.json");
    assert_eq!(facts["recording"]["sealed"], true);
    let sidecar = find(folder.path(), "657717443").unwrap().unwrap().0;
    assert_eq!(find(folder.path(), "01a").unwrap().unwrap().0, sidecar);
    assert!(find(folder.path(), "01b").unwrap().is_none());
    assert_eq!(sound(&sidecar, &facts, Some(&key)).unwrap(), wav);
    let locked = sound(&sidecar, &facts, None).unwrap_err();
    assert!(locked.contains("set [recording] authorisations_key"), "{locked}");
    let mut other = facts.clone();
    other["recording"]["sha256"] = "00".into();
    let changed = sound(&sidecar, &other, Some(&key)).unwrap_err();
    assert!(changed.contains("is not what was signed"), "{changed}");
}

#[tokio::test]
async fn the_next_gateway_has_the_same_authorisation() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), "call-1", 4);
    let evidences = evidences(folder.path(), None);
    let mut kept = kept(Some(1));
    evidences.keep("call", &kept).await.unwrap();
    kept.evidence.reference = "01b".into();
    fs::remove_file(folder.path().join("call-1.wav")).unwrap(); // as if sealed
    evidences.keep("call", &kept).await.unwrap();
    let facts = read(folder.path(), "call-1.json");
    assert_eq!((&facts["reference"], &facts["not_charged"]), (&"01b".into(), &json!(["01a"])));
    assert_eq!(facts["recording"]["file"], "call-1.wav");
}

#[tokio::test]
async fn what_was_not_recorded_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let evidences = evidences(folder.path(), None);
    let late = evidences.keep("call", &kept(Some(1))).await.unwrap_err();
    assert!(late.contains("not written in time"), "{late}");
    record(folder.path(), "call-1", 1);
    let short = evidences.keep("call", &kept(Some(1))).await.unwrap_err();
    assert!(short.contains("only 1000 ms"), "{short}");
    assert!(evidences.keep("call", &kept(None)).await.is_err());
    assert_eq!(names(folder.path()), ["call-1.wav"]);
    // A written notice needs nothing of us.
    let notice = Evidences { folder: None, key: None, years: 2 };
    assert_eq!(notice.keep("call", &kept(None)).await, Ok(()));
}

#[tokio::test]
async fn evidence_is_deleted_after_its_years_and_no_day_before() {
    let folder = tempfile::tempdir().unwrap();
    let evidences = evidences(folder.path(), None);
    record(folder.path(), "call-1", 4);
    evidences.keep("call", &kept(Some(1))).await.unwrap();
    record(folder.path(), "other-1", 4);
    fs::write(folder.path().join("notes.json"), "{}").unwrap();
    fs::write(folder.path().join("list.csv"), "").unwrap();
    let now = clock::wall_ms();
    assert_eq!(evidences.sweep(now).unwrap(), 0);
    // A recording that nobody signed goes after a day.
    assert_eq!(evidences.sweep(now + UNSIGNED_MS + 60_000).unwrap(), 1);
    let all = ["call-1.json", "call-1.wav", "list.csv", "notes.json"];
    assert_eq!(names(folder.path()), all);
    assert_eq!(evidences.sweep(SIGNED_MS + 2 * 365 * 86_400_000).unwrap(), 0);
    assert_eq!(evidences.sweep(SIGNED_MS + 2 * YEAR_MS).unwrap(), 2);
    assert_eq!(names(folder.path()), ["list.csv", "notes.json"]);
}
