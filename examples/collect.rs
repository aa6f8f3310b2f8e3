//! The library without the payments: a small IVR that answers every call, plays a recording,
//! collects 16 keys, plays another and hangs up. Keys are written to a file, one line a call.
//!
//! `cargo run --release --example collect -- --listen 127.0.0.1:5060 --prompt1 a.wav --prompt2
//! b.wav --log FILE`; whoever dials `fast` is hung up on as soon as the call is up, and whoever
//! dials `speak` says a card number instead.
#![allow(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use rand::Rng;
use ringtill::dialogue::Told;
use ringtill::media::{Clip, Command as Play, Event as Heard, ListenId, PlayId, Setup};
use ringtill::prompt::clip::Converter;
use ringtill::secret::Keys;
use ringtill::server::media::{Folders, Media, OpenCall, Session, Settings as MediaSettings};
use ringtill::server::recognizer::{Pool, Seat};
use ringtill::server::sip::{Commands, Offer, Sip};
use ringtill::sip::agent::Settings;
use ringtill::sip::offer::{self, Codec, Local, Silence, SrtpPolicy, SrtpSeed};
use ringtill::sip::profile::Latch;
use ringtill::sip::{Command, Event, Leg};
use ringtill::speech::{self, Field};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How many keys a caller is asked for, and how long we wait for each.
const KEYS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(30);
/// No recording is longer.
const PROMPT_MAX: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// Where calls come in, by UDP
    #[arg(long, default_value = "127.0.0.1:5060")]
    listen: SocketAddr,
    /// Asks for the keys: WAV or FLAC, mono
    #[arg(long)]
    prompt1: PathBuf,
    /// Played once they are in
    #[arg(long)]
    prompt2: PathBuf,
    /// Gets a line `DIGITS <caller> <keys>` for each call, or `SAID <caller> <Unix ms> <digits>`,
    /// of what was said the last four digits
    #[arg(long)]
    log: PathBuf,
    /// Calls that may be up at a time
    #[arg(long, default_value_t = 10_000)]
    calls_max: usize,
    /// Media threads: one per 1,250 calls
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Threads that listen to what is said
    #[arg(long, default_value_t = 1)]
    listeners: usize,
}

/// What all calls share.
struct Ivr {
    media: Media,
    recognizers: Pool,
    commands: Commands,
    prompts: [Clip; 2],
    log: File,
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let media = Media::start(MediaSettings {
        address: arguments.listen.ip(),
        ports: 10_000..=59_999,
        threads: arguments.threads,
        recordings: Folders::default(),
    })?;
    let prompts = [clip(&arguments.prompt1)?, clip(&arguments.prompt2)?];
    let log = File::options().create(true).append(true).open(&arguments.log)?;
    let settings = Settings::new(arguments.listen, "collect", arguments.calls_max);
    let (sip, mut offers) = Sip::bind(arguments.listen, settings, seed()).await?;
    let recognizers = Pool::start(speech::open("digits", None)?, arguments.listeners)?;
    let ivr = Arc::new(Ivr { media, recognizers, commands: sip.commands(), prompts, log });
    println!("taking calls at {}", sip.local());
    while let Some(offer) = offers.recv().await {
        let ivr = ivr.clone();
        tokio::spawn(async move {
            let leg = offer.leg;
            if let Err(why) = ivr.serve(offer).await {
                eprintln!("call {}: {why}", leg.0);
            }
            // One that is over already is left alone.
            let _ = ivr.commands.send(Command::Hangup { leg, reason: None }).await;
        });
    }
    Ok(())
}

impl Ivr {
    /// One call; its error is why it went otherwise than planned.
    async fn serve(&self, offer: Offer) -> Result<(), Box<dyn Error>> {
        let Offer { leg, invitation, mut events } = offer;
        let (sound, mut heard) = mpsc::channel(256);
        let speaks = invitation.dialled == "speak";
        let seat = speaks.then(|| self.recognizers.seat()).flatten();
        let call = OpenCall {
            name: format!("{}", leg.0),
            setup: setup(),
            latch: Latch::Strict,
            networks: Vec::new(),
            events: sound,
            inlet: seat.as_ref().map(Seat::inlet),
        };
        let session = match self.media.open(call) {
            Ok(session) => session,
            Err(full) => return self.refuse(leg, 503, full.to_string()).await,
        };
        let offer = invitation.offer.as_deref().unwrap_or_default();
        let (sdp, negotiated) = match offer::answer(offer, &local(&invitation.local, &session)) {
            Ok(agreed) => agreed,
            Err(refusal) => return self.refuse(leg, refusal.status(), refusal.to_string()).await,
        };
        session.command(Play::Negotiated(negotiated));
        self.commands.send(Command::Answer { leg, sdp }).await?;
        match events.recv().await {
            Some(Event::Established { .. }) => {}
            _ => return Err("the caller hung up at once".into()),
        }
        if invitation.dialled == "fast" {
            return Ok(());
        }
        let caller = header(&invitation.headers, "From");
        // Whatever the peer signals from here on, a BYE above all, ends the call.
        let collected = async {
            match &seat {
                Some(seat) => self.listen(caller, &session, seat).await?,
                None => self.collect(caller, &session, &mut heard).await?,
            }
            self.end(&session, &mut heard).await
        };
        tokio::select! {
            done = collected => done,
            _ = events.recv() => Err("the caller hung up".into()),
        }
    }

    async fn collect(
        &self,
        caller: &str,
        session: &Session,
        heard: &mut mpsc::Receiver<Heard>,
    ) -> Result<(), Box<dyn Error>> {
        session.command(self.play(1));
        let mut keys = String::new();
        while keys.len() < KEYS {
            match timeout(PATIENCE, heard.recv()).await? {
                Some(Heard::Key { digit, .. }) => keys.push(char::from(digit.expose())),
                Some(Heard::Silent) | None => return Err("nothing is heard of the caller".into()),
                Some(_) => {}
            }
        }
        writeln!(&self.log, "DIGITS {} {keys}", user(caller))?;
        Ok(())
    }

    /// What a caller says; a voice stops the prompt.
    async fn listen(
        &self,
        caller: &str,
        session: &Session,
        seat: &Seat,
    ) -> Result<(), Box<dyn Error>> {
        let (reply, mut told) = mpsc::channel(1);
        let Play::Play { id, clips, .. } = self.play(1) else { return Ok(()) };
        session.command(Play::Play { id, clips, barge_in: true });
        let said = loop {
            let id = ListenId(0);
            if !seat.listen(id, Field::Card, Keys::new(), reply.clone()) {
                return Err("nobody listens".into());
            }
            session.command(Play::Listen { id, stops: true });
            match timeout(PATIENCE, told.recv()).await? {
                Some((_, Told::Answer(answers))) => {
                    let best = answers.judge().best.map(|best| best.keys());
                    // A card number never reaches a file.
                    let last =
                        |keys: &Keys| keys.expose()[keys.len().saturating_sub(4)..].to_string();
                    break best.as_ref().map_or("?".into(), last);
                }
                Some((_, Told::Nothing | Told::Thinking)) => {}
                Some((_, Told::Late)) | None => break "late".to_string(),
            }
        };
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        writeln!(&self.log, "SAID {} {at} {said}", user(caller))?;
        Ok(())
    }

    /// Says goodbye.
    async fn end(
        &self,
        session: &Session,
        heard: &mut mpsc::Receiver<Heard>,
    ) -> Result<(), Box<dyn Error>> {
        session.command(self.play(2));
        let ended = async {
            while let Some(event) = heard.recv().await {
                if matches!(event, Heard::PlayEnded { id: PlayId(2), .. }) {
                    break;
                }
            }
        };
        Ok(timeout(PROMPT_MAX, ended).await?)
    }

    fn play(&self, nth: u64) -> Play {
        let clips = vec![self.prompts[nth as usize - 1].clone()];
        Play::Play { id: PlayId(nth), clips, barge_in: false }
    }

    async fn refuse(&self, leg: Leg, status: u16, reason: String) -> Result<(), Box<dyn Error>> {
        let why = reason.clone();
        self.commands.send(Command::Reject { leg, status, reason, retry_after_s: None }).await?;
        Err(why.into())
    }
}

fn clip(path: &Path) -> Result<Clip, Box<dyn Error>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let converted = Converter::default().convert(Cow::Owned(bytes));
    let (clip, _) = converted.map_err(|error| format!("{} {error}", path.display()))?;
    Ok(clip)
}

/// The user part of a From.
fn user(caller: &str) -> &str {
    let (_, user) = caller.split_once("sip:").unwrap_or_default();
    user.split('@').next().unwrap_or_default()
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
}

fn local(us: &SocketAddr, session: &Session) -> Local {
    Local {
        address: us.ip(),
        port: session.port(),
        codecs: vec![Codec::Pcmu, Codec::Pcma],
        silence: Silence::Packets,
        events: true,
        session_id: rand::rng().next_u64() >> 1,
        session_version: 1,
        srtp: SrtpPolicy::Off,
        keys: SrtpSeed::new(seed()),
    }
}

fn setup() -> Setup {
    let mut rng = rand::rng();
    Setup {
        ssrc: rng.next_u32(),
        sequence: rng.next_u32() as u16,
        timestamp: rng.next_u32(),
        chance: u128::from(rng.next_u64()),
        record: false,
        listen: false,
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}
