//! What comes before an arranged payment: others, a person, the account file, and the clock.

use super::*;

/// What a card is charged while nobody knows whether another payment was made is charged twice.
#[tokio::test]
async fn a_payment_that_a_person_decides_comes_first() {
    for kind in [Kind::Once, Kind::AutoPay] {
        let mut bench = Bench::new().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.owes(5_000, Some(due.due));
        let instalments = if kind == Kind::Once { vec![due.clone()] } else { Vec::new() };
        bench.arrange(kind, instalments).await;
        let fingerprint = Fingerprint::parse(&"d".repeat(32));
        let by_phone = Intent {
            amount: Money::usd(4_000),
            fingerprint,
            created_ms: due.at_ms - 30 * HOUR_MS,
            ..sample::intent(2, "A1")
        };
        let id = by_phone.id.clone();
        bench.record(Entry::Consent(Box::new(by_phone)), NOW).await;
        for to in [State::Sending, State::Held("review".into(), None)] {
            bench.record(Entry::Move { id: id.clone(), to }, NOW).await;
        }
        bench.until(due.at_ms + 20 * HOUR_MS).await;
        assert_eq!((bench.sent, &*bench.state().await), (0, "active [waiting]"), "{kind:?}");
        bench.record(Entry::Move { id, to: State::Declined("no".into()) }, bench.now_ms).await;
        bench.pass(8).await;
        assert_eq!(bench.charged().len(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn autopay_takes_what_the_account_file_does_not_know_of_off_the_balance() {
    for (by_phone, want) in [(2_000, vec![3_000]), (5_000, vec![]), (6_000, vec![])] {
        let mut bench = Bench::new().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.owes(5_000, Some(due.due));
        bench.arrange(Kind::AutoPay, Vec::new()).await;
        let id = "intent-2".to_string();
        let paid = Intent {
            amount: Money::usd(by_phone),
            created_ms: due.at_ms - 30 * HOUR_MS,
            ..sample::intent(2, "A1")
        };
        bench.record(Entry::Consent(Box::new(paid)), NOW).await;
        for to in [State::Sending, State::Approved(sample::approval())] {
            bench.record(Entry::Move { id: id.clone(), to }, NOW).await;
        }
        bench.until(due.at_ms + 20 * HOUR_MS).await;
        let charged: Vec<i64> = bench.charged().iter().map(|(minor, _)| *minor).collect();
        assert_eq!(charged, want, "{by_phone}");
    }
}

#[tokio::test]
async fn nothing_is_charged_that_is_not_due_and_an_account_may_be_missing_for_a_while() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.owes(0, None);
    bench.until(due.at_ms + 2 * HOUR_MS).await;
    assert_eq!((bench.sent, &*bench.state().await), (0, "done [skipped]"));

    let mut bench = Bench::new().await;
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.directory.store(Arc::default());
    bench.until(due.at_ms + 5 * HOUR_MS).await;
    assert_eq!((bench.sent, &*bench.state().await), (0, "active [waiting]"));
    bench.owes(50_000, None);
    bench.pass(2).await;
    assert_eq!((bench.sent, &*bench.state().await), (1, "done [paid]"));
}

#[tokio::test]
async fn late_days_are_days_of_the_calendar() {
    for (hours, want) in [(0, "done [paid]"), (14, "done [paid]"), (15, "stopped [failed]")] {
        let mut bench = Bench::new().await;
        bench.settings.later.as_mut().unwrap().late_days_max = 0;
        bench.restart().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.arrange(Kind::Once, vec![due.clone()]).await;
        // Nine in the morning, and a little later.
        bench.now_ms = due.at_ms + hours * HOUR_MS + 30_000;
        bench.step().await.unwrap();
        assert!(bench.state().await.starts_with(want), "{hours}: {}", bench.state().await);
    }
}

/// A gateway that gives no answer for a minute: the minute counts from its end.
#[tokio::test]
async fn an_outcome_is_unknown_since_its_answer_was_lost() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    let now_ms = std::cell::Cell::new(due.at_ms);
    let send = |_: &Route, _| {
        now_ms.set(now_ms.get() + MINUTE_MS);
        std::future::ready(Exchange::NoAnswer("no answer within 60 s".into()))
    };
    bench.scheduler.step(&bench.routes, &|| now_ms.get(), send).await.unwrap();
    let later_ms = due.at_ms + 10 * MINUTE_MS;
    let unknown = bench.store.unresolved(later_ms).await.unwrap();
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].since_ms, due.at_ms + MINUTE_MS);
}

/// Nothing that a gateway quotes is written beside an instalment either.
#[tokio::test]
async fn a_card_that_a_gateway_quotes_is_masked() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    let quoted = |_: &Route, _| {
        std::future::ready(Exchange::NotSent("no route for 4111111111111111".into()))
    };
    let round = bench.scheduler.step(&bench.routes, &|| due.at_ms, quoted).await.unwrap();
    assert_eq!(round.again, 1);
    let listed = bench.store.list_arrangements(BILLER, None, true).await.unwrap();
    let detail = &listed[0].instalments[0].detail;
    assert!(detail.contains("no route") && !detail.contains("4111"), "{detail}");
}

/// A suspended machine, or one whose clock was wrong: each instalment is charged once, and none
/// that is later than the biller lets it be.
#[tokio::test]
async fn a_clock_that_jumps_charges_nothing_twice_and_nothing_too_late() {
    let days = [date(2026, 6, 5), date(2026, 7, 5), date(2026, 8, 5)];
    // Days the clock jumps by, each after some hours; and what is charged of the three.
    for (jumps, want) in [
        (vec![(100, 2), (6, -2), (200, 0)], 1),
        (vec![(100, -30), (24, 30), (1_800, 0)], 3),
        // To the day of the second, and back before it.
        (vec![(98, 30), (2, -30), (24 * 66, 0)], 3),
        // Over more days than one may be late.
        (vec![(90, 20), (2, -20), (24 * 10, 0)], 0),
        (vec![(98, 300), (2, -300), (24 * 63, 0)], 1),
        (vec![(98, -3), (72, -3), (72, -3), (24 * 70, 0)], 3),
    ] {
        for restarts in [false, true] {
            let mut bench = Bench::new().await;
            let all = days.into_iter().zip(1..);
            let all: Vec<_> = all.map(|(due, n)| bench.instalment(n, due)).collect();
            bench.arrange(Kind::Plan, all.clone()).await;
            for (hours, days) in &jumps {
                glide(&mut bench, *hours).await;
                bench.now_ms += days * DAY_MS;
                if restarts {
                    bench.restart().await;
                }
            }
            let charged = bench.charged();
            let state = bench.state().await;
            assert_eq!(charged.len(), want, "{jumps:?} {restarts} {state}");
            assert_eq!(state.matches("paid").count(), want, "{jumps:?} {restarts} {state}");
            for ((_, at_ms), due) in charged.iter().zip(&all) {
                let late = at_ms - due.at_ms;
                // At the latest on the third day after it, by the clock as it was.
                assert!((0..4 * DAY_MS).contains(&late), "{jumps:?} {restarts} {late}");
            }
        }
    }
}

#[tokio::test]
async fn autopay_charges_a_due_date_once_whatever_the_clock_does() {
    for jumps in [
        vec![(100, 2), (6, -2), (24 * 20, 0)],
        vec![(98, -3), (74, -3), (24 * 20, 0)],
        vec![(20, 3), (6, -30), (24 * 40, 0)],
    ] {
        let mut bench = Bench::new().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.owes(5_000, Some(due.due));
        bench.arrange(Kind::AutoPay, Vec::new()).await;
        for (hours, days) in &jumps {
            glide(&mut bench, *hours).await;
            bench.now_ms += days * DAY_MS;
        }
        assert_eq!(bench.charged().len(), 1, "{jumps:?} {}", bench.state().await);
        assert_eq!(bench.state().await, "active [paid]", "{jumps:?}");
    }
}

/// What is unknown since a clock that was wrong is looked up by the right one, and not in days.
#[tokio::test]
async fn a_clock_that_goes_back_puts_no_lookup_off() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.now_ms = due.at_ms;
    bench.simulator.fail_next(Fault::CloseAfterProcessing);
    bench.step().await.unwrap();
    assert_eq!(bench.charged().len(), 1);
    bench.now_ms -= 20 * DAY_MS;
    bench.pass(1).await;
    let id = intent_id(&sample::arrangement(1, Kind::Once, 1).id, 1, 0);
    assert_eq!(bench.store.intent(&id).await.unwrap().unwrap().1.name(), "approved");
    bench.until(due.at_ms + DAY_MS).await;
    assert_eq!((bench.charged().len(), &*bench.state().await), (1, "done [paid]"));
}

/// As [`Bench::pass`], and looks less often.
async fn glide(bench: &mut Bench, hours: i64) {
    for _ in 0..hours / 2 {
        bench.now_ms += 2 * HOUR_MS;
        let (simulator, now_ms) = (&mut bench.simulator, bench.now_ms);
        let send = |_: &Route, request| std::future::ready(simulator.exchange(now_ms, request));
        resolver::round(&bench.store, &bench.routes, now_ms, send).await.unwrap();
        bench.step().await.unwrap();
    }
}
