//! Which gateway a charge goes to: the first of the operator's list that takes what is paid with,
//! unless it has failed too often of late.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Exchange, Gateway};
use crate::instrument::{Brand, Means};

/// One gateway as the operator configured it.
pub struct Route {
    /// The operator's name for it: what the ledger keeps.
    pub id: Arc<str>,
    pub gateway: Arc<dyn Gateway>,
    pub takes: Takes,
    /// No answer within this time is an unknown outcome.
    pub limit: Duration,
    breaker: Mutex<Breaker>,
}

/// What is charged at a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takes {
    pub cards: Vec<Brand>,
    pub bank: bool,
    /// Cards are kept there for the next payments.
    pub save: bool,
}

impl Takes {
    /// Whatever the gateway can.
    pub fn all(gateway: &dyn Gateway) -> Takes {
        let able = gateway.capabilities();
        Takes { cards: Brand::ALL.to_vec(), bank: able.bank, save: able.tokens }
    }

    pub fn takes(&self, means: Means) -> bool {
        match means {
            Means::Card(brand) => self.cards.contains(&brand),
            Means::Bank(_) => self.bank,
        }
    }
}

/// When a gateway that fails is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Charges in a row that did not reach it or got no answer.
    pub failures_max: u32,
    /// After that nothing is sent for so long; then one charge tries whether it is back.
    pub rest: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { failures_max: 5, rest: Duration::from_secs(30) }
    }
}

/// How long a gateway has for its answer.
pub const LIMIT: Duration = Duration::from_secs(45);

impl Route {
    pub fn new(id: &str, gateway: Arc<dyn Gateway>) -> Route {
        let takes = Takes::all(&*gateway);
        let breaker = Mutex::new(Breaker::new(Patience::default()));
        Route { id: id.into(), gateway, takes, limit: LIMIT, breaker }
    }

    pub fn patience(self, patience: Patience) -> Route {
        Route { breaker: Mutex::new(Breaker::new(patience)), ..self }
    }

    /// Whether a charge may go there at `now_ms` (Unix). Who is told yes reports what came of it.
    pub fn admits(&self, now_ms: i64) -> bool {
        self.breaker(|breaker| breaker.admits(now_ms))
    }

    /// What came of a charge: counted against the gateway, or in its favour.
    pub fn report(&self, exchange: &Exchange, now_ms: i64) {
        let failed = match exchange {
            Exchange::Response(response) => {
                let status = response.status();
                status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS
            }
            Exchange::NotSent(_) | Exchange::NoAnswer(_) => true,
        };
        self.breaker(|breaker| breaker.report(failed, now_ms));
    }

    fn breaker<T>(&self, with: impl FnOnce(&mut Breaker) -> T) -> T {
        with(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The gateways of one biller, in the order they are tried.
pub struct Routes(Vec<Route>);

impl Routes {
    pub fn new(routes: Vec<Route>) -> Routes {
        Routes(routes)
    }

    /// One gateway for everything, under its own name.
    pub fn one(gateway: Arc<dyn Gateway>) -> Routes {
        Routes(vec![Route::new(gateway.name(), gateway)])
    }

    pub fn all(&self) -> &[Route] {
        &self.0
    }

    /// The gateway that the ledger knows by this id.
    pub fn by_id(&self, id: &str) -> Option<&Route> {
        self.0.iter().find(|route| &*route.id == id)
    }

    /// Those that take it, first choice first.
    pub fn of(&self, means: Means) -> impl Iterator<Item = &Route> {
        self.0.iter().filter(move |route| route.takes.takes(means))
    }
}

/// A circuit breaker that is told the time.
struct Breaker {
    patience: Patience,
    failures: u32,
    /// When the last rest began.
    rested_ms: i64,
}

impl Breaker {
    fn new(patience: Patience) -> Breaker {
        Breaker { patience, failures: 0, rested_ms: i64::MIN }
    }

    fn admits(&mut self, now_ms: i64) -> bool {
        if self.failures < self.patience.failures_max {
            return true;
        }
        // A clock set back must not make it rest for hours: only the time after the failure counts.
        let rest = i64::try_from(self.patience.rest.as_millis()).unwrap_or(i64::MAX);
        let rests = (self.rested_ms..self.rested_ms.saturating_add(rest)).contains(&now_ms);
        if !rests {
            // This charge finds out; until it is known or the time is over the others go elsewhere.
            self.rested_ms = now_ms;
        }
        !rests
    }

    fn report(&mut self, failed: bool, now_ms: i64) {
        if !failed {
            self.failures = 0;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.patience.failures_max {
            self.rested_ms = now_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway;
    use crate::instrument::AccountKind;

    fn bogus() -> Arc<dyn Gateway> {
        let mut table: toml::Table = gateway::example("bogus").unwrap().parse().unwrap();
        table.insert("api_key".into(), toml::Value::String("sk_1".into()));
        gateway::open("bogus", table).unwrap()
    }

    fn lost() -> Exchange {
        Exchange::NoAnswer("reset".into())
    }

    fn answer(status: u16) -> Exchange {
        Exchange::Response(http::Response::builder().status(status).body(Vec::new()).unwrap())
    }

    #[test]
    fn a_gateway_that_keeps_failing_rests_and_is_tried_by_one_charge() {
        let patience = Patience { failures_max: 3, rest: Duration::from_secs(30) };
        let route = Route::new("main", bogus()).patience(patience);
        for now in [0, 1, 2] {
            assert!(route.admits(now));
            route.report(&lost(), now);
        }
        assert!(!route.admits(3) && !route.admits(30_001));
        // One at a time finds out.
        assert!(route.admits(30_002) && !route.admits(30_003));
        route.report(&answer(503), 30_500);
        assert!(!route.admits(60_499) && route.admits(60_500));
        route.report(&answer(402), 60_600);
        assert!(route.admits(60_601) && route.admits(60_602));
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let route = Route::new("main", bogus());
        for now in 0..100 {
            assert!(route.admits(now));
            let exchange = match now % 5 {
                4 => answer(200),
                3 => answer(429),
                2 => Exchange::NotSent("refused".into()),
                _ => lost(),
            };
            route.report(&exchange, now);
        }
        route.report(&lost(), 100);
        assert!(route.admits(101));
    }

    #[test]
    fn a_charge_that_tells_nothing_keeps_nobody_out_for_ever() {
        let patience = Patience { failures_max: 1, rest: Duration::from_secs(10) };
        let route = Route::new("main", bogus()).patience(patience);
        route.report(&lost(), 0);
        assert!(route.admits(10_000) && !route.admits(19_999) && route.admits(20_000));
        // The clock was set back.
        assert!(route.admits(-5));
    }

    #[test]
    fn a_charge_goes_to_the_first_that_takes_it() {
        let taking = |id: &str, cards: &[Brand], bank| Route {
            takes: Takes { cards: cards.to_vec(), bank, save: true },
            ..Route::new(id, bogus())
        };
        let routes = Routes::new(vec![
            taking("amex", &[Brand::Amex], false),
            taking("visa", &[Brand::Visa], false),
            taking("rest", &Brand::ALL, true),
        ]);
        let ids = |means| routes.of(means).map(|route| &*route.id).collect::<Vec<_>>();
        assert_eq!(ids(Means::Card(Brand::Amex)), ["amex", "rest"]);
        assert_eq!(ids(Means::Card(Brand::Jcb)), ["rest"]);
        assert_eq!(ids(Means::Bank(AccountKind::Checking)), ["rest"]);
        assert!(routes.by_id("visa").is_some() && routes.by_id("bogus").is_none());
    }
}
