//! The file as bytes, and what is refused of it.

use super::super::{Allocation, FeeFailure, sample};
use super::*;

fn posting() -> Posting {
    let mut approved = sample::intent(1, "A, \"1\"");
    approved.call_id = "line\nbreak@h".into();
    let rows = [
        (approved, State::Approved(sample::approval())),
        (sample::intent(2, "A2"), State::Declined("x".into())),
        (sample::intent(3, "A3"), State::NotCharged("x".into())),
        (sample::intent(4, "A4"), State::Posted(sample::approval())),
    ];
    let rows = rows.iter().flat_map(|(intent, state)| Row::of(intent, state)).collect();
    Posting { biller: "acme-water".into(), sequence: 7, created_ms: 1_780_272_000_123, rows }
}

#[test]
fn the_file_is_these_bytes() {
    let mut posting = posting();
    posting.rows.truncate(2);
    posting.rows[0].intent.call_id = "c1@h".into();
    let text = String::from_utf8(write(&posting)).unwrap();
    let rows = "\
HDR,5,acme-water,2026-06-01T00:00:00.123Z,7
PMT,100000017,intent-1,\"A, \"\"1\"\"\",321.72,2.00,323.72,USD,card,visa,1111,approved,A00001,bogus,\
sale_000001,Y,,c1@h,phone,2026-05-28T20:26:40.001Z,,,
PMT,100000025,intent-2,A2,321.72,2.00,323.72,USD,card,visa,1111,declined,,bogus,,,,\
call-2@example.invalid,phone,2026-05-28T20:26:40.002Z,,,
";
    let hash = sha256(rows.as_bytes());
    assert_eq!(text, format!("{rows}TRL,2,323.72,{hash}\n"));
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(b"abc"), abc);
}

#[test]
fn what_is_written_is_read_back() {
    let posting = posting();
    assert_eq!(read(&write(&posting)), Ok(posting.clone()));
    let empty = Posting { rows: Vec::new(), ..posting };
    assert_eq!(read(&write(&empty)), Ok(empty));
}

#[test]
fn what_was_given_back_has_a_row_of_its_own() {
    let intent = sample::intent(1, "A1");
    let change = |act, minor| Change {
        id: "change-1".into(),
        intent_id: intent.id.clone(),
        act,
        amount: Money::usd(minor),
        who: "ann".into(),
        why: "paid twice".into(),
        created_ms: intent.created_ms + 5,
    };
    let done = Progress::Done("void_1".into());
    let row = |act, minor, progress: &Progress| {
        Row::of_change(&intent, &change(act, minor), progress, Money::usd(0)).pop()
    };
    let void = row(Undo::Void, 32_372, &done).unwrap();
    let refund = row(Undo::Refund, 1_000, &Progress::Accepted("ref_1".into())).unwrap();
    assert_eq!(row(Undo::Void, 32_372, &Progress::Refused("late".into())), None);
    let mut rows = Row::of(&intent, &State::Posted(sample::approval()));
    rows.extend([void, refund]);
    let posting = Posting { rows, ..posting() };
    let file = write(&posting);
    assert_eq!(read(&file), Ok(posting.clone()));
    let text = String::from_utf8(file).unwrap();
    assert!(text.contains("TRL,3,-10.00,"), "{text}");
    let want = ",10.00,0.00,10.00,USD,card,visa,1111,refunded,,bogus,ref_1,,,";
    assert!(text.contains(want), "{text}");
    let returned = Progress::Done("R01 091000010000001".into());
    let back = row(Undo::Returned, 32_372, &returned).unwrap();
    let again = row(Undo::Represented, 32_372, &Progress::Done("482915031".into())).unwrap();
    let posting = Posting { rows: vec![back, again], ..posting };
    let file = write(&posting);
    let text = String::from_utf8(file.clone()).unwrap();
    let want = ",321.72,2.00,323.72,USD,card,visa,1111,returned,R01,bogus,091000010000001,";
    assert!(text.contains(want) && text.contains("TRL,2,0.00,"), "{text}");
    assert_eq!(read(&file), Ok(posting));
}

#[test]
fn a_surcharge_goes_back_by_its_share_and_in_the_end_whole() {
    let intent = Intent { split: Split::Surcharge, ..sample::intent(1, "A1") };
    // 321.72 and 2.00 of 323.72.
    let (mut before, mut fees) = (0, 0);
    for (back, want) in [(10_000, 62), (10_000, 62), (1, 0), (12_371, 76)] {
        let (amount, fee) = refunded(&intent, Money::usd(back), Money::usd(before)).unwrap();
        assert_eq!((fee.minor, amount.minor), (want, back - want));
        before += back;
        fees += fee.minor;
    }
    assert_eq!((before, fees), (32_372, 200));
    let plain = sample::intent(1, "A1");
    let told = refunded(&plain, Money::usd(100), Money::usd(0));
    assert_eq!(told, Some((Money::usd(100), Money::usd(0))));
}

#[test]
fn a_fee_charged_apart_has_a_row_of_its_own() {
    let (fee, none) = (Money::usd(200), Money::usd(0));
    let failure = FeeFailure::Void;
    let split = Split::Bill { fee, failure };
    let bill = Intent { fee: none, split, ..sample::intent(1, "A1") };
    let split = Split::FeeOf(bill.id.clone());
    let fee = Intent { amount: none, split, ..sample::intent(2, "A1") };
    let surcharge = Intent { split: Split::Surcharge, ..sample::intent(3, "A1") };
    let approved = State::Approved(sample::approval());
    let rows = [&bill, &fee, &surcharge].map(|intent| Row::of(intent, &approved));
    let posting = Posting { rows: rows.concat(), ..posting() };
    let file = write(&posting);
    assert_eq!(read(&file), Ok(posting));
    let text = String::from_utf8(file).unwrap();
    assert!(text.contains(",A1,321.72,0.00,321.72,USD"), "{text}");
    assert!(text.contains(",A1,0.00,2.00,2.00,USD"), "{text}");
    assert!(text.contains(".002Z,,intent-1,\n") && text.contains(".003Z,surcharge,,\n"), "{text}");
    assert!(text.contains("TRL,3,647.44,"), "{text}");
}

/// Files of before are still compared with the ledger.
#[test]
fn a_file_of_an_earlier_version_is_read() {
    for (version, end) in [("3", ""), ("4", ",,")] {
        let rows = format!(
            "HDR,{version},acme-water,2026-06-01T00:00:00.123Z,7\n\
             PMT,100000025,intent-2,A2,321.72,2.00,323.72,USD,card,visa,1111,declined,,bogus,,,,\
             call-2@example.invalid,phone,2026-05-28T20:26:40.002Z{end}\n"
        );
        let file = format!("{rows}TRL,1,0.00,{}\n", sha256(rows.as_bytes()));
        let row = Row::of(&sample::intent(2, "A2"), &State::Declined("x".into()));
        assert_eq!(read(file.as_bytes()).unwrap().rows, row);
        let wrong = rows.replace(&format!("HDR,{version}"), "HDR,5");
        let file = format!("{wrong}TRL,1,0.00,{}\n", sha256(wrong.as_bytes()));
        let cells = format!("23 cells, not {}", 20 + end.len());
        assert!(read(file.as_bytes()).unwrap_err().reason.contains(&cells));
    }
}

/// 321.72 for three accounts, with a fee of 2.00.
fn for_three() -> Intent {
    let part = |(account, minor): (&str, i64)| Allocation {
        account_id: account.into(),
        amount: Money::usd(minor),
    };
    let allocations = [("A1", 30_000), ("A2", 2_000), ("A3", 172)].map(part).to_vec();
    Intent { allocations, ..sample::intent(1, "A1") }
}

#[test]
fn a_payment_for_several_accounts_has_a_row_of_each() {
    let rows = Row::of(&for_three(), &State::Posted(sample::approval()));
    let posting = Posting { rows, ..posting() };
    let file = write(&posting);
    assert_eq!(read(&file), Ok(posting));
    let text = String::from_utf8(file).unwrap();
    let end = "USD,card,visa,1111,approved,A00001,bogus,sale_000001,Y,,\
               call-1@example.invalid,phone,2026-05-28T20:26:40.001Z,,";
    for (account, amounts, part) in [
        ("A1", "300.00,2.00,302.00", "1/3"),
        ("A2", "20.00,0.00,20.00", "2/3"),
        ("A3", "1.72,0.00,1.72", "3/3"),
    ] {
        let row = format!("PMT,100000017,intent-1,{account},{amounts},{end},{part}\n");
        assert!(text.contains(&row), "{row} is not in\n{text}");
    }
    assert!(text.contains("\nTRL,3,323.72,"), "{text}");
    let declined = Row::of(&for_three(), &State::Declined("no".into()));
    assert_eq!(declined.len(), 3);
    for wrong in ["3", "0/3", "4/3", "a/b"] {
        assert_eq!(Part::parse(wrong), None);
    }
}

/// Whatever is given back, in whatever pieces: what files say was received less what they say went
/// back is right for each account at every point.
#[test]
fn what_goes_back_of_several_accounts_is_told_of_each() {
    let change = |act, minor| Change {
        id: "change-1".into(),
        intent_id: "intent-1".into(),
        act,
        amount: Money::usd(minor),
        who: "ann".into(),
        why: "paid twice".into(),
        created_ms: 1,
    };
    let done = Progress::Done("undo_1".into());
    let told = |intent: &Intent, act, minor, before| {
        let rows = Row::of_change(intent, &change(act, minor), &done, Money::usd(before));
        let told = |row: &Row| {
            let Intent { account_id, amount, fee, .. } = &row.intent;
            format!("{account_id} {} {} {}", amount.minor, fee.minor, row.part.unwrap())
        };
        rows.iter().map(told).collect::<Vec<_>>().join(", ")
    };
    let plain = for_three();
    let whole = "A1 30000 200 1/3, A2 2000 0 2/3, A3 172 0 3/3";
    assert_eq!(told(&plain, Undo::Void, 32_372, 0), whole);
    assert_eq!(
        told(&plain, Undo::Refund, 32_372, 0),
        "A1 30000 0 1/3, A2 2000 0 2/3, A3 372 0 3/3"
    );
    assert_eq!(told(&plain, Undo::Refund, 29_999, 0), "A1 29999 0 1/3");
    assert_eq!(told(&plain, Undo::Refund, 2, 29_999), "A1 1 0 1/3, A2 1 0 2/3");
    assert_eq!(told(&plain, Undo::Refund, 2_371, 30_001), "A2 1999 0 2/3, A3 372 0 3/3");
    // Of a surcharge its share goes back with each piece.
    let surcharged = Intent { split: Split::Surcharge, ..for_three() };
    assert_eq!(told(&surcharged, Undo::Refund, 10_000, 0), "A1 9938 62 1/3");
    assert_eq!(told(&surcharged, Undo::Refund, 20_185, 10_000), "A1 20061 124 1/3");
    assert_eq!(
        told(&surcharged, Undo::Refund, 2_187, 30_185),
        "A1 1 14 1/3, A2 2000 0 2/3, A3 172 0 3/3"
    );
}

#[test]
fn every_changed_byte_is_noticed() {
    let file = write(&posting());
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(read(&changed).is_err(), "byte {at}");
        assert!(read(&file[..at]).is_err(), "cut at {at}");
    }
    let mut longer = file;
    longer.extend_from_within(..);
    assert!(read(&longer).is_err());
}

#[test]
fn open_payments_have_no_row() {
    for state in sample::states() {
        let rows = Row::of(&sample::intent(1, "A1"), &state);
        let last = !state.is_open() && !matches!(state, State::Held(..) | State::Manual);
        assert_eq!(rows.len(), usize::from(last), "{}", state.name());
    }
}

#[test]
fn names_are_safe_for_any_file_system() {
    let name = file_name("acme_1", 42, 1_780_272_000_000);
    assert_eq!(name.as_deref(), Some("payments-acme_1-20260601-000042.csv"));
    for biller in ["", "../x", "a b", "é"] {
        assert_eq!(file_name(biller, 1, 0), None);
    }
}
