//! The seam between the script and the world: the script awaits a [`Line`], whoever runs the
//! [`Flow`] answers its requests one at a time. No runtime is involved: the flow is polled by hand.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Evidence, Note, Outcome, phrases};
use crate::account::{Account, Query};
use crate::dialogue::{Field, Grammar, Heard, Question};
use crate::gateway::{self, Exchange};
use crate::ledger::{Entry, Recorded, Screened, Screening, Wallet};
use crate::prompt::Prompt;

/// What the script wants next; each is answered by the [`Reply`] of the same name.
pub enum Request {
    Ask(Question),
    Say {
        prompts: Vec<Prompt>,
        barge_in: bool,
    },
    Lookup(Query),
    /// Have this name ready to be spoken.
    Name(String),
    /// What the ledger knows against a payment.
    Screen(Screening),
    /// What is kept for an account.
    Wallet {
        biller: String,
        account_id: String,
    },
    Record(Entry),
    /// Keep what shows that a debit was authorised, the last recorded answer with it.
    Keep(Box<Evidence>),
    /// Send to the gateway of this id; no answer within `limit` is [`Exchange::NoAnswer`].
    Send {
        gateway: Arc<str>,
        request: gateway::Request,
        limit: Duration,
    },
    Wait(Duration),
    /// Hand the caller to the agent.
    Transfer,
}

pub enum Reply {
    Ask(Heard),
    Say,
    Lookup(Vec<Account>),
    /// Whether the name can be spoken.
    Name(bool),
    /// `None`: the ledger could not be read.
    Screen(Option<Screened>),
    /// `None`: the ledger could not be read.
    Wallet(Option<Wallet>),
    Record(Recorded),
    /// Whether it is durable.
    Keep(bool),
    Send(Exchange),
    Wait,
    /// Whether the agent took the call.
    Transfer(bool),
}

/// Why the script leaves a question without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Back,
    /// An agent took the call.
    HandedOver,
    /// The caller asks for an agent again and again, and nobody is there.
    Agent,
    /// Three attempts, or too many questions in all.
    Failed,
    Hangup,
}

/// The script's end of the seam.
pub struct Line {
    slot: Arc<Mutex<Slot>>,
    pub(super) rng: StdRng,
    questions_left: u16,
    /// Somebody can take callers over.
    agent: bool,
    agent_calls_left: u8,
}

#[derive(Default)]
struct Slot {
    request: Option<Request>,
    reply: Option<Reply>,
    notes: VecDeque<Note>,
    wall_ms: i64,
}

/// A call asks no more questions than this, wrong entries apart: nobody goes round for ever.
pub const QUESTIONS_MAX: u16 = 60;
/// How often a caller may ask for an agent in vain and is asked on; then the call ends.
pub const AGENT_CALLS_MAX: u8 = 2;

impl Line {
    /// Asks until the answer is valid or the caller leaves the question.
    pub async fn ask<G>(&mut self, field: &Field<G>) -> Result<G::Value, Leave>
    where
        G: Grammar + Clone + Send + 'static,
    {
        loop {
            self.questions_left = self.questions_left.checked_sub(1).ok_or(Leave::Failed)?;
            let Reply::Ask(heard) = self.exchange(Request::Ask(field.question())).await else {
                mismatch()
            };
            return match heard {
                Heard::Keyed(keys) => field.grammar.parse(keys.expose()).map_err(|_| Leave::Failed),
                Heard::Back => Err(Leave::Back),
                Heard::Agent => {
                    self.agent_wanted().await?;
                    continue;
                }
                Heard::Failed => Err(Leave::Failed),
                Heard::Hangup => Err(Leave::Hangup),
            };
        }
    }

    /// The caller pressed 0. If no agent takes the call it goes on with the same question.
    async fn agent_wanted(&mut self) -> Result<(), Leave> {
        self.agent_calls_left = self.agent_calls_left.checked_sub(1).ok_or(Leave::Agent)?;
        if self.hand_over(Vec::new()).await {
            return Err(Leave::HandedOver);
        }
        self.tell(phrases(["agent.unavailable"])).await;
        Ok(())
    }

    /// Whether an agent took the caller; nobody is told to hold where nobody is.
    pub async fn hand_over(&mut self, mut before: Vec<Prompt>) -> bool {
        self.note(Note::Step("agent"));
        if self.agent {
            before.extend(phrases(["agent.transfer"]));
        }
        if !before.is_empty() {
            self.tell(before).await;
        }
        self.agent && self.transfer().await
    }

    /// Says whether somebody can take callers over. Nobody, unless told.
    pub fn has_agent(&mut self, agent: bool) {
        self.agent = agent;
    }

    /// Says something a key may cut short.
    pub async fn say(&mut self, prompts: Vec<Prompt>) {
        self.exchange(Request::Say { prompts, barge_in: true }).await;
    }

    /// Says something that must be heard in full.
    pub async fn tell(&mut self, prompts: Vec<Prompt>) {
        self.exchange(Request::Say { prompts, barge_in: false }).await;
    }

    pub async fn lookup(&mut self, query: Query) -> Vec<Account> {
        let Reply::Lookup(found) = self.exchange(Request::Lookup(query)).await else { mismatch() };
        found
    }

    /// Whether `name` can be spoken on this call.
    pub async fn name(&mut self, name: &str) -> bool {
        let Reply::Name(ready) = self.exchange(Request::Name(name.to_string())).await else {
            mismatch()
        };
        ready
    }

    /// `None`: the ledger could not be read, and nothing may be paid.
    pub async fn screen(&mut self, screening: Screening) -> Option<Screened> {
        let Reply::Screen(found) = self.exchange(Request::Screen(screening)).await else {
            mismatch()
        };
        found
    }

    /// What is kept for an account; `None`: the ledger could not be read.
    pub async fn wallet(&mut self, biller: &str, account_id: &str) -> Option<Wallet> {
        let (biller, account_id) = (biller.to_string(), account_id.to_string());
        let wallet = Request::Wallet { biller, account_id };
        let Reply::Wallet(found) = self.exchange(wallet).await else { mismatch() };
        found
    }

    /// Durable when this returns [`Recorded::Stored`].
    pub async fn record(&mut self, entry: Entry) -> Recorded {
        let Reply::Record(recorded) = self.exchange(Request::Record(entry)).await else {
            mismatch()
        };
        recorded
    }

    /// Whether the evidence is durable: nothing may be debited if it is not.
    pub async fn keep(&mut self, evidence: Evidence) -> bool {
        let Reply::Keep(kept) = self.exchange(Request::Keep(Box::new(evidence))).await else {
            mismatch()
        };
        kept
    }

    pub async fn send(
        &mut self,
        gateway: &Arc<str>,
        request: gateway::Request,
        limit: Duration,
    ) -> Exchange {
        let send = Request::Send { gateway: gateway.clone(), request, limit };
        let Reply::Send(exchange) = self.exchange(send).await else { mismatch() };
        exchange
    }

    pub async fn wait(&mut self, time: Duration) {
        self.exchange(Request::Wait(time)).await;
    }

    async fn transfer(&mut self) -> bool {
        let Reply::Transfer(taken) = self.exchange(Request::Transfer).await else { mismatch() };
        taken
    }

    /// Tells whoever watches the call; never card data.
    pub fn note(&mut self, note: Note) {
        lock(&self.slot).notes.push_back(note);
    }

    /// Unix milliseconds, UTC, as of the last reply.
    pub fn wall_ms(&self) -> i64 {
        lock(&self.slot).wall_ms
    }

    fn exchange(&mut self, request: Request) -> Pending<'_> {
        Pending { slot: &self.slot, request: Some(request) }
    }
}

struct Pending<'a> {
    slot: &'a Mutex<Slot>,
    request: Option<Request>,
}

impl Future for Pending<'_> {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reply> {
        let mut slot = lock(self.slot);
        if let Some(request) = self.request.take() {
            slot.request = Some(request);
            return Poll::Pending;
        }
        slot.reply.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What the flow does when it is run. Requests are large and steps are not kept: no box.
#[expect(clippy::large_enum_variant)]
pub enum Step {
    Request(Request),
    Ended(Outcome),
}

/// A running script.
pub struct Flow {
    script: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    slot: Arc<Mutex<Slot>>,
}

impl Flow {
    /// `seed` decides confirmation numbers and references.
    pub fn new<S, F>(seed: [u8; 32], script: S) -> Flow
    where
        S: FnOnce(Line) -> F,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let slot = Arc::new(Mutex::new(Slot::default()));
        let rng = StdRng::from_seed(seed);
        let line = Line {
            slot: slot.clone(),
            rng,
            questions_left: QUESTIONS_MAX,
            agent: false,
            agent_calls_left: AGENT_CALLS_MAX,
        };
        Flow { script: Box::pin(script(line)), slot }
    }

    /// Runs to the first request. Call once, before [`Flow::resume`].
    pub fn start(&mut self, wall_ms: i64) -> Step {
        lock(&self.slot).wall_ms = wall_ms;
        self.run()
    }

    /// Answers the request of the last step and runs on. Not after [`Step::Ended`].
    pub fn resume(&mut self, wall_ms: i64, reply: Reply) -> Step {
        {
            let mut slot = lock(&self.slot);
            slot.wall_ms = wall_ms;
            slot.reply = Some(reply);
        }
        self.run()
    }

    /// Notes made since the last time, oldest first.
    pub fn notes(&mut self) -> VecDeque<Note> {
        std::mem::take(&mut lock(&self.slot).notes)
    }

    fn run(&mut self) -> Step {
        let mut context = Context::from_waker(Waker::noop());
        match self.script.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => Step::Ended(outcome),
            Poll::Pending => {
                let request = lock(&self.slot).request.take();
                Step::Request(request.expect("a script awaits nothing but its line"))
            }
        }
    }
}

/// A panic elsewhere cannot leave a slot half written: its fields are set whole.
fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mismatch() -> ! {
    panic!("a request was answered by the reply of another")
}
