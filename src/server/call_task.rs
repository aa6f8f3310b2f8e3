//! One call's task: waits for the leg, the media, replies of the world and deadlines; hands each
//! to the call and carries out what it answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::clock;
use super::media::{OpenCall, Session};
use super::recognizer::{Pool, Reply, Seat};
use super::sip::{Commands, Offer};
use super::{Shared, Watched};
use crate::call::{self, Call, Input, Output, Telling};
use crate::dialogue::Told;
use crate::ledger::Recorded;
use crate::media::{self, ListenId};
use crate::payment::{Note, Outcome};
use crate::secret::Keys;
use crate::sip::offer::{Local, Silence, SrtpSeed};
use crate::sip::profile::Profile;
use crate::sip::{Command, Leg, Peer};
use crate::speech::Field;

use self::agent_leg::AgentLeg;

mod agent_leg; // the leg to an agent

/// Keys, ends of prompts: a caller cannot make more in the time a task needs to wake up.
const MEDIA_EVENTS_MAX: usize = 256;
/// A call has one request to the world at a time; room for late replies.
const REPLIES_MAX: usize = 8;
/// It listens to one answer at a time; room for words about earlier ones.
const TOLD_MAX: usize = 8;

/// Serves one offered call to its end.
pub(super) async fn run(shared: Arc<Shared>, offer: Offer) {
    let (source, profile) = (offer.invitation.source, offer.invitation.trunk.clone());
    let id = call_id();
    let (media_events, media_inbox) = mpsc::channel(MEDIA_EVENTS_MAX);
    let setup = media_setup(shared.config.recording.directory.is_some());
    let name = recording_name(&id);
    let seat = shared.recognizers.as_ref().and_then(Pool::seat);
    let opened = OpenCall {
        name: name.clone(),
        setup,
        latch: profile.latch,
        networks: profile.media_sources.clone(),
        events: media_events,
        inlet: seat.as_ref().map(Seat::inlet),
    };
    let session = match shared.media.open(opened) {
        Ok(session) => session,
        Err(full) => {
            warn!(call = id, %full, "call refused: no media port");
            let (leg, reason) = (offer.leg, "No media port free");
            return reject(&shared.commands, leg, 503, reason, Some(10)).await;
        }
    };
    info!(call = id, trunk = profile.name, %source, "call offered");
    let task = Task::new(shared, (id, name), offer, profile, session, seat);
    task.serve(media_inbox).await;
}

/// A SIP core that has stopped needs no refusal.
async fn reject(
    commands: &Commands,
    leg: Leg,
    status: u16,
    reason: &str,
    retry_after_s: Option<u32>,
) {
    let reason = reason.to_string();
    let _ = commands.send(Command::Reject { leg, status, reason, retry_after_s }).await;
}

struct Task {
    shared: Arc<Shared>,
    id: String,
    /// Of its recordings.
    name: String,
    call: Call,
    session: Session,
    seat: Option<Seat>,
    /// What recognizers tell.
    told: (Reply, mpsc::Receiver<(ListenId, Told)>),
    /// Hangs the leg up if the task ends otherwise than by its call, in a panic above all.
    guard: LegGuard,
    leg_events: mpsc::Receiver<crate::sip::Event>,
    replies: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    trunk: Arc<Profile>,
    /// Where the call came from, and our SIP address there.
    source: Peer,
    us: SocketAddr,
    media_address: IpAddr,
    agent: Option<AgentLeg>,
}

struct LegGuard {
    commands: Commands,
    leg: Leg,
    ended: bool,
}

impl Drop for LegGuard {
    fn drop(&mut self) {
        if !self.ended {
            let reason = Some("SIP;cause=500;text=\"call aborted\"".to_string());
            let (commands, leg) = (self.commands.clone(), self.leg);
            tokio::spawn(async move { commands.send(Command::Hangup { leg, reason }).await });
        }
    }
}

impl Task {
    fn new(
        shared: Arc<Shared>,
        (id, name): (String, String),
        offer: Offer,
        profile: Arc<Profile>,
        session: Session,
        seat: Option<Seat>,
    ) -> Task {
        let (source, us) = (offer.invitation.source, offer.invitation.local);
        let address = shared.config.media_address_for(source.address.ip(), us.ip());
        let local = Local {
            address,
            port: session.port(),
            codecs: Vec::new(),
            silence: Silence::Packets,
            events: true,
            session_id: random_u64() >> 1,
            session_version: 1,
            srtp: profile.srtp,
            keys: SrtpSeed::new(seed()),
        };
        let trunk = profile.clone();
        let guard = LegGuard { commands: shared.commands.clone(), leg: offer.leg, ended: false };
        let setup = call::Setup {
            id: id.clone(),
            leg: offer.leg,
            invitation: offer.invitation,
            profile,
            local,
            library: shared.library.clone(),
            routes: shared.gateways.routes.clone(),
            policy: shared.policy.clone(),
            seed: seed(),
        };
        let call = Call::new(clock::now(), setup);
        let replies = mpsc::channel(REPLIES_MAX);
        let leg_events = offer.events;
        let (media_address, agent) = (address, None);
        Task {
            shared,
            id,
            name,
            call,
            session,
            seat,
            told: mpsc::channel(TOLD_MAX),
            guard,
            leg_events,
            replies,
            trunk,
            source,
            us,
            media_address,
            agent,
        }
    }

    async fn serve(mut self, mut media_inbox: mpsc::Receiver<media::Event>) {
        let (mut leg_open, mut media_open) = (true, true);
        loop {
            if let Some(outcome) = self.carry_out().await {
                self.guard.ended = true;
                return self.conclude(&outcome);
            }
            let deadline = self.call.deadline().unwrap_or_else(far_future);
            let input = tokio::select! {
                event = self.leg_events.recv(), if leg_open => match event {
                    Some(event) => Some(Input::Sip(event)),
                    None => {
                        // The SIP core gave the leg up: it has ended, whatever we missed.
                        leg_open = false;
                        let cause = crate::sip::Cause::PeerHungUp;
                        let leg = self.guard.leg;
                        Some(Input::Sip(crate::sip::Event::Ended { leg, cause }))
                    }
                },
                event = media_inbox.recv(), if media_open => {
                    // A media thread that is gone has taken its calls along: nobody is heard.
                    media_open = event.is_some();
                    Some(Input::Media(event.unwrap_or(media::Event::Silent)))
                }
                Some(reply) = self.replies.1.recv() => Some(reply),
                Some((id, told)) = self.told.1.recv() => Some(Input::Told(id, told)),
                event = next_of(&mut self.agent) => Some(Input::Second(event)),
                () = tokio::time::sleep_until(deadline.into()) => None,
            };
            let (now, wall_ms) = (clock::now(), clock::wall_ms());
            match input {
                Some(input) => self.call.handle(now, wall_ms, input),
                None => self.call.timeout(now, wall_ms),
            }
        }
    }

    /// Does what the call asks for; its outcome once it has ended.
    async fn carry_out(&mut self) -> Option<Outcome> {
        while let Some(output) = self.call.poll() {
            match output {
                Output::Sip(command) => {
                    // A SIP core that has stopped has closed our mailbox too: `serve` sees it.
                    let _ = self.shared.commands.send(command).await;
                }
                Output::Media(command) => self.session.command(command),
                Output::Listen { id, field, keyed } => self.listen(id, field, keyed),
                Output::Deaf => self.seat.iter().for_each(Seat::deaf),
                Output::Lookup(serial, query) => {
                    let found = self.shared.directory.load().answer(&query);
                    self.reply(async move { Input::Found(serial, found) });
                }
                Output::Screen(serial, screening) => {
                    let (shared, call) = (self.shared.clone(), self.id.clone());
                    self.reply(async move {
                        let found = shared.store.screen(&screening).await;
                        let found = found
                            .inspect_err(|error| error!(call, %error, "the ledger was not read"));
                        Input::Screened(serial, found.ok())
                    });
                }
                Output::Wallet(serial, biller, account) => {
                    let (shared, call) = (self.shared.clone(), self.id.clone());
                    self.reply(async move {
                        let found = shared.store.wallet(&biller, &account).await;
                        let found = found
                            .inspect_err(|error| error!(call, %error, "kept cards were not read"));
                        Input::Wallet(serial, found.ok())
                    });
                }
                Output::Record(serial, entry) => {
                    let (shared, call) = (self.shared.clone(), self.id.clone());
                    self.reply(async move {
                        let recorded = shared.store.record(entry, clock::wall_ms()).await;
                        if let Recorded::Failed(why) = &recorded {
                            error!(call, why, "the ledger did not take an entry");
                        }
                        Input::Recorded(serial, recorded)
                    });
                }
                Output::Keep(serial, kept) => self.keep(serial, kept),
                Output::Send(serial, gateway, request, limit) => {
                    let shared = self.shared.clone();
                    self.reply(async move {
                        let exchange = shared.gateways.send(&gateway, request, limit).await;
                        Input::Exchanged(serial, exchange)
                    });
                }
                Output::Synthesize(serial, name) => {
                    let shared = self.shared.clone();
                    self.reply(async move {
                        Input::Named(serial, shared.synthesizer.name(&name).await)
                    });
                }
                Output::Way(serial) => self.find_way(serial),
                Output::Second(order) => self.second(order).await,
                Output::Tell(telling) => self.tell(telling),
                Output::Ended(outcome) => return Some(outcome),
            }
        }
        None
    }

    fn keep(&self, serial: call::Serial, kept: Box<call::Kept>) {
        let (shared, call, name) = (self.shared.clone(), self.id.clone(), self.name.clone());
        self.reply(async move {
            let done = shared.evidences.keep(&name, &kept).await;
            if let Err(why) = &done {
                error!(call, why, "an authorisation was not kept: nothing is debited");
            }
            Input::Kept(serial, done.is_ok())
        });
    }

    /// Without room nothing is heard, and the caller is asked to key.
    fn listen(&self, id: ListenId, field: Field, keyed: Keys) {
        let reply = || self.told.0.clone();
        let taken = self.seat.as_ref().is_some_and(|seat| seat.listen(id, field, keyed, reply()));
        if !taken {
            let _ = reply().try_send((id, Told::Late));
        }
    }

    /// Runs a request to the world beside the call. Its reply may find the call gone: a charge
    /// whose call has ended is in the ledger, and the resolver finds it there.
    fn reply(&self, work: impl Future<Output = Input> + Send + 'static) {
        let replies = self.replies.0.clone();
        tokio::spawn(async move {
            let input = work.await;
            let _ = replies.send(input).await;
        });
    }

    fn tell(&self, telling: Telling) {
        if let Telling::Note(note) = &telling {
            self.log(note);
        }
        self.shared.watch(Watched { call: self.id.clone(), telling });
    }

    /// Steps and outcomes, by our own ids: nothing a caller said or keyed.
    fn log(&self, note: &Note) {
        let call = &self.id;
        match note {
            Note::Step(step) => tracing::debug!(call, step, "step"),
            Note::Identified { by, .. } => info!(call, by, "caller identified"),
            Note::Again { confirmation, again } => {
                info!(call, confirmation, again, "there is a payment like this");
            }
            Note::Locked { counted, until_ms } => {
                let until = super::payments::time(*until_ms);
                tracing::warn!(call, counted, until, "too much was tried: no payment until then");
            }
            Note::Consent { total, .. } => info!(call, %total, "consent"),
            Note::Keep { agreed, .. } => info!(call, agreed, "to be kept for the next payments"),
            Note::Dropped { .. } => info!(call, "a kept card was refused for good: dropped"),
            Note::NotKnown { gateway, .. } => tracing::warn!(
                call,
                gateway = &**gateway,
                "the gateway does not know a kept card: are its keys of the same merchant as \
                 before? If it was deleted there, `ringtill cards delete` it here"
            ),
            Note::Arranged { kind, number } => info!(call, kind, number, "arranged for later"),
            Note::Disarranged { number } => info!(call, number, "cancelled by the caller"),
            Note::Charging { reference, gateway } => {
                info!(call, reference, gateway = &**gateway, "charging");
            }
            Note::Verifying { reference, gateway } => {
                info!(call, reference, gateway = &**gateway, "verifying a card");
            }
            Note::Resting { gateway } => {
                let gateway = &**gateway;
                tracing::warn!(call, gateway, "not asked: it has failed too often of late");
            }
            Note::Verdict(verdict) => info!(call, verdict, "verdict"),
            Note::Confirmation(confirmation) => info!(call, confirmation, "confirmed"),
        }
    }

    fn conclude(&self, outcome: &Outcome) {
        info!(call = self.id, outcome = ?outcome, "call ended");
    }
}

async fn next_of(agent: &mut Option<AgentLeg>) -> crate::sip::Event {
    match agent {
        Some(agent) => agent.event().await,
        None => std::future::pending().await,
    }
}

fn media_setup(record: bool) -> media::Setup {
    let mut rng = rand::rng();
    media::Setup {
        ssrc: rng.next_u32(),
        sequence: rng.next_u32() as u16,
        timestamp: rng.next_u32(),
        chance: u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()),
        record,
        listen: false,
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}

fn random_u64() -> u64 {
    rand::rng().next_u64()
}

/// Letters only: an id can never be taken for a card number.
fn call_id() -> String {
    let letter = |bits: u64| char::from(b'a' + (bits % 26) as u8);
    let mut bits = random_u64();
    let mut next = || {
        let c = letter(bits);
        bits /= 26;
        c
    };
    std::iter::repeat_with(&mut next).take(10).collect()
}

fn recording_name(id: &str) -> String {
    format!("{}-{id}", clock::file_stamp())
}

fn far_future() -> Instant {
    clock::now() + Duration::from_secs(86_400)
}
