//! Thirteen ways to lose an answer, over real HTTPS through the HTTP client of the server. Never a
//! second charge, never a lost approval, and the verdict says no more than is known.

use std::sync::Arc;
use std::time::Duration;

use ringtill::gateway::simulator::SECRET;
use ringtill::gateway::{
    self, Charge, Exchange, Found, Gateway, Operation, Purpose, Repeat, Search, Verdict,
};
use ringtill::instrument::Method;
use ringtill::server::http_client::{Connections, HttpClient};

use super::Tally;
use super::bench::*;
use super::host::{Host, LATER_MS, Wire};

type Checked = Result<(), String>;

/// What must come of a fault: the kind of verdict, and how many charges there are after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Approved,
    Unknown,
    NotSent,
}

/// Faults on an open connection; refused connections and certificates are tried apart.
const WIRES: [(Wire, Comes, usize); 12] = [
    (Wire::Works, Comes::Approved, 1),
    (Wire::CloseUnread, Comes::Unknown, 0),
    (Wire::CloseUnanswered, Comes::Unknown, 1),
    (Wire::CloseMidReply, Comes::Unknown, 1),
    (Wire::Stall, Comes::Unknown, 1),
    (Wire::Trickle, Comes::Unknown, 1),
    (Wire::ErrorAfter, Comes::Unknown, 1),
    (Wire::ErrorBefore, Comes::Unknown, 0),
    (Wire::Truncated, Comes::Unknown, 1),
    (Wire::Charset, Comes::Unknown, 1),
    (Wire::Twice, Comes::Approved, 1),
    (Wire::Late, Comes::Unknown, 0),
];

pub fn check(name: &str, tally: &mut Tally) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let line = gateway::variants(name)[0].1;
        let running = WIRES.map(|(wire, comes, charges)| {
            let (name, line) = (name.to_string(), line.to_string());
            (wire, tokio::spawn(async move { wired(&name, &line, wire, comes, charges).await }))
        });
        for (wire, checked) in running {
            tally.case(&format!("fault {wire:?}"), checked.await.unwrap());
        }
        tally.case("fault Mark", marked(name, line).await);
        tally.case("fault refused connection", refused(name, line).await);
        tally.case("fault unknown certificate", untrusted(name, line, "127.0.0.1", false).await);
        tally.case(
            "fault certificate of another",
            untrusted(name, line, "other.example", true).await,
        );
    });
}

/// Longer than a machine is paused for.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    host: Host,
    gateway: Arc<dyn Gateway>,
    client: HttpClient,
}

impl Bench {
    async fn new(name: &str, line: &str) -> Bench {
        let host = Host::start(gateway::simulator(name, 1).unwrap(), "127.0.0.1").await;
        let gateway = open(name, line, Some(&host.base()), SECRET);
        let client =
            HttpClient::new(std::slice::from_ref(&host.certificate), Connections::to(&*gateway))
                .unwrap();
        Bench { host, gateway, client }
    }

    async fn charge(&self) -> Verdict {
        let paid = visa();
        let charge = charge(Purpose::Sale, REFERENCE, &paid);
        self.gateway.verdict(&charge, &self.send(&charge, PATIENCE).await)
    }

    async fn send(&self, charge: &Charge<'_>, limit: Duration) -> Exchange {
        let request = self.gateway.charge(charge).unwrap();
        self.client.send(request, limit).await
    }

    async fn find(&self) -> Found {
        let mut search =
            Search::new(&*self.gateway, lookup(Purpose::Sale, REFERENCE, Method::Card));
        while let Some(request) = search.request() {
            search.answered(&self.client.send(request, Duration::from_secs(5)).await);
        }
        search.found()
    }
}

fn comes(verdict: &Verdict, wanted: Comes) -> Checked {
    let got = match verdict {
        Verdict::Approved(_) => Some(Comes::Approved),
        Verdict::Unknown(_) => Some(Comes::Unknown),
        Verdict::NotSent(_) => Some(Comes::NotSent),
        _ => None,
    };
    ensure(got == Some(wanted), || format!("{verdict:?} instead of {wanted:?}"))
}

async fn wired(name: &str, line: &str, wire: Wire, wanted: Comes, charges: usize) -> Checked {
    let bench = Bench::new(name, line).await;
    bench.host.next(wire);
    // Only what never ends in time is to end by the limit, however busy this machine is.
    let limit = match wire {
        Wire::Stall | Wire::Trickle => Duration::from_millis(700),
        _ => PATIENCE,
    };
    let paid = visa();
    let sale = charge(Purpose::Sale, REFERENCE, &paid);
    let verdict = bench.gateway.verdict(&sale, &bench.send(&sale, limit).await);
    comes(&verdict, wanted)?;
    let standing = bench.host.standing();
    ensure(standing == charges, || format!("{standing} charges"))?;
    if wire == Wire::Late && bench.gateway.capabilities().can(Operation::Lookup) {
        let early = bench.find().await;
        ensure(matches!(early, Found::Absent | Found::NotYet), || format!("early: {early:?}"))?;
    }
    bench.host.simulator.lock().unwrap().advance(LATER_MS);
    let processed = charges == 1 || wire == Wire::Late;
    recovered(&bench, processed).await?;
    let standing = bench.host.standing();
    ensure(standing <= 1, || format!("{standing} charges in the end"))
}

/// What a lookup, or a repeat that the gateway replays, says in the end.
async fn recovered(bench: &Bench, processed: bool) -> Checked {
    let capabilities = bench.gateway.capabilities();
    if capabilities.can(Operation::Lookup) {
        return match bench.find().await {
            Found::Settled(Verdict::Approved(approval)) if processed => {
                let entries = bench.host.simulator.lock().unwrap().entries();
                ensure(entries[0].id == approval.gateway_reference, || format!("{approval:?}"))
            }
            Found::Absent | Found::NotYet if !processed => Ok(()),
            found => Err(format!("found {found:?}, processed: {processed}")),
        };
    }
    if capabilities.repeat == Repeat::Replays {
        let verdict = bench.charge().await;
        approved(&verdict)?;
    }
    Ok(())
}

/// A byte order mark changes nothing where it is known to come, and is not understood elsewhere.
async fn marked(name: &str, line: &str) -> Checked {
    let bench = Bench::new(name, line).await;
    bench.host.next(Wire::Mark);
    let verdict = bench.charge().await;
    let right = matches!(verdict, Verdict::Approved(_) | Verdict::Unknown(_));
    ensure(right, || format!("{verdict:?}"))?;
    recovered(&bench, true).await?;
    ensure(bench.host.standing() == 1, || "not one charge".into())
}

async fn refused(name: &str, line: &str) -> Checked {
    let bench = Bench::new(name, line).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", gone.local_addr().unwrap());
    drop(gone);
    let gateway = open(name, line, Some(&base), SECRET);
    let bench = Bench { gateway, ..bench };
    comes(&bench.charge().await, Comes::NotSent)?;
    ensure(bench.host.standing() == 0, || "charged".into())
}

/// A certificate nobody vouches for, or of another host.
async fn untrusted(name: &str, line: &str, of: &str, trusted: bool) -> Checked {
    let host = Host::start(gateway::simulator(name, 1).unwrap(), of).await;
    let gateway = open(name, line, Some(&host.base()), SECRET);
    let stranger = Host::start(gateway::simulator(name, 1).unwrap(), of).await;
    let root = if trusted { &host.certificate } else { &stranger.certificate };
    let client = HttpClient::new(std::slice::from_ref(root), Connections::to(&*gateway)).unwrap();
    let bench = Bench { host, gateway, client };
    comes(&bench.charge().await, Comes::NotSent)?;
    ensure(bench.host.standing() == 0, || "charged".into())
}
