//! Faults drawn by seed, over every gateway: a sale that goes wrong, and lookups that go wrong too,
//! until something is known. `RINGTILL_SEED=<seed>` replays one, `RINGTILL_RUNS=<n>` makes n for each
//! gateway.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringtill::gateway::simulator::{Case, Fault, LATE_MS};
use ringtill::gateway::{self, Charge, Found, Lookup, Operation, Purpose, Verdict};

use super::bench::*;

const RUNS: u64 = 2_000;
const LOOKUPS: usize = 12;

#[test]
fn nothing_is_charged_twice_and_no_approval_is_lost() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (one, runs) = (number("RINGTILL_SEED"), number("RINGTILL_RUNS").unwrap_or(RUNS));
    for name in gateway::NAMES {
        for seed in one.map_or(0..runs, |seed| seed..seed + 1) {
            if let Err(why) = run(name, seed) {
                panic!("{name}, RINGTILL_SEED={seed}: {why}");
            }
        }
    }
}

fn run(name: &str, seed: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let variants = gateway::variants(name);
    let mut pair = Pair::new(name, variants[rng.random_range(0..variants.len())].1);
    let case = Case::ALL[rng.random_range(0..Case::ALL.len())];
    let trigger = pair.simulator.trigger(case).filter(|trigger| !trigger.bank).unwrap_or_default();
    let asked = asked(trigger);
    let charge = Charge { total: asked.total, ..charge(Purpose::Sale, REFERENCE, &asked.paid) };
    maybe_fail(&mut pair, &mut rng);
    let told = pair.charge(&charge);
    let lookups = pair.gateway.capabilities().can(Operation::Lookup);
    let mut known = settled(&told);
    for _ in 0..LOOKUPS {
        if known.is_some() || !lookups {
            break;
        }
        pair.now_ms += rng.random_range(1_000..20_000);
        maybe_fail(&mut pair, &mut rng);
        let method = asked.paid.instrument().method();
        let asked = lookup(Purpose::Sale, REFERENCE, method);
        let found = pair.find(Lookup { total: charge.total, ..asked });
        // Absence is believed only when nothing can be on its way any more.
        known = match found {
            Found::Absent if pair.now_ms - NOW > 2 * LATE_MS => Some(false),
            found => found.verdict().as_ref().and_then(settled),
        };
    }
    pair.now_ms += 10 * LATE_MS;
    maybe_late(&mut pair);
    let standing = pair.standing();
    ensure(standing <= 1, || format!("{standing} charges after {told:?}"))?;
    let right = known.is_none_or(|approved| approved == (standing == 1));
    ensure(right, || format!("told {told:?}, known {known:?}, {standing} charges"))
}

fn maybe_fail(pair: &mut Pair, rng: &mut StdRng) {
    if rng.random_range(0..2) == 0 {
        pair.simulator.fail_next(Fault::ALL[rng.random_range(0..Fault::ALL.len())]);
    }
}

/// What is still on its way arrives with the next request.
fn maybe_late(pair: &mut Pair) {
    let request =
        pair.gateway.lookup(&lookup(Purpose::Sale, "nobody", ringtill::instrument::Method::Card));
    if let Ok(request) = request {
        pair.exchange(request);
    }
}

/// Whether it is approved; `None` while that is not known.
fn settled(verdict: &Verdict) -> Option<bool> {
    match verdict {
        Verdict::Approved(_) => Some(true),
        Verdict::Unknown(_) | Verdict::Duplicate { .. } => None,
        _ => Some(false),
    }
}
