//! What every gateway must do, whatever its dialect: the same cases over the whole list. A gateway
//! that is added to the list is picked up here, and must bring its simulator (`Dialect`), its
//! golden requests (`src/gateway/<name>/golden/`) and its table of replies
//! (`src/gateway/<name>/replies.txt`).
#![allow(clippy::unwrap_used)]

mod bench; // gateways, cards, accounts and charges of the tests
mod golden; // requests, byte by byte, and what may be logged of them
mod replies; // tables of answers
mod rules; // conversations with the simulators
mod host; // the simulators on real sockets, with a network that fails
mod faults; // thirteen ways to lose an answer
mod seeded; // faults drawn by seed
mod calls; // whole calls, drawn by seed
mod verify; // `ringtill gateway test`

use ringtill::gateway;

/// Golden and fault cases that every gateway must have.
const CASES_MIN: usize = 90;

/// What was checked for one gateway, and what was wrong.
#[derive(Default)]
pub struct Tally {
    cases: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// One case; `wrong` tells what is not as it should be.
    fn case(&mut self, name: &str, wrong: Result<(), String>) {
        self.cases += 1;
        if let Err(why) = wrong {
            self.wrong.push(format!("{name}: {why}"));
        }
    }
}

#[test]
fn every_gateway_conforms() {
    let mut wrong = Vec::new();
    println!(
        "{:16} {:>7} {:>8} {:>6} {:>7} {:>6}",
        "gateway", "golden", "replies", "rules", "faults", "all"
    );
    for name in gateway::NAMES {
        let mut tally = Tally::default();
        let mut counts = Vec::new();
        for part in [golden::check, replies::check, rules::check, faults::check] {
            let before = tally.cases;
            part(name, &mut tally);
            counts.push(tally.cases - before);
        }
        let all = tally.cases;
        let [golden, replies, rules, faults] = counts[..] else { panic!("four parts") };
        println!("{name:16} {golden:>7} {replies:>8} {rules:>6} {faults:>7} {all:>6}");
        if all < CASES_MIN {
            wrong.push(format!("{name}: {all} cases, {CASES_MIN} are wanted"));
        }
        wrong.extend(tally.wrong.iter().map(|why| format!("{name}: {why}")));
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}
