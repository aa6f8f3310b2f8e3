//! TOML to [`Config`]: every key is tried by itself, so that all problems are reported at once.

use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{AUTHORISATIONS_YEARS_MIN, Config, LOOPBACK, Listen, Problem, Sip, Speech};
use crate::sip::Transport;
use crate::sip::profile::Profile;
use crate::speech::{self, Fields};

mod fees; // where they are charged
mod gateways; // one gateway or several, and what they take
mod trunks; // what trunks ask of the rest

const SECTIONS: [&str; 14] = [
    "sip",
    "media",
    "recording",
    "store",
    "accounts",
    "posting",
    "prompts",
    "dialogue",
    "payment",
    "gateway",
    "agent",
    "speech",
    "log",
    "trunk",
];

pub(super) fn config(
    text: &str,
    profile: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, table: document.into_inner(), problems: Vec::new() };
    for error in errors {
        reader.syntax(error.span(), error.message());
    }
    // A broken line makes the rest of its section unreliable: say that first.
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    reader.sections();
    let config = Config {
        sip: reader.section("sip"),
        media: reader.section("media"),
        recording: reader.section("recording"),
        store: reader.section("store"),
        accounts: reader.section("accounts"),
        posting: reader.section("posting"),
        prompts: reader.section("prompts"),
        dialogue: reader.section("dialogue"),
        payment: reader.section("payment"),
        gateways: reader.gateways(),
        agent: reader.section("agent"),
        speech: reader.section("speech"),
        log: reader.section("log"),
        trunks: reader.trunks(profile),
    };
    reader.cross_check(&config);
    reader.problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
    if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
}

struct Reader<'t> {
    text: &'t str,
    table: DeTable<'t>,
    problems: Vec<Problem>,
}

impl<'t> Reader<'t> {
    fn syntax(&mut self, span: Option<Range<usize>>, message: &str) {
        let problem = Problem::new(span.clone(), message);
        let line = span.and_then(|span| line_at(self.text, span.start));
        // `listen = 0.0.0.0:5060` is read as a number gone wrong.
        let unquoted = line.and_then(|line| line.split_once('=')).is_some_and(|(_, value)| {
            let value = value.trim();
            !value.starts_with(['"', '\'', '[', '{']) && value.contains(['.', ':', '/'])
        });
        self.problems.push(match unquoted {
            true => problem.instead("put text in quotes: \"...\""),
            false => problem,
        });
    }

    fn sections(&mut self) {
        let names: Vec<_> =
            self.table.keys().map(|k| (k.get_ref().to_string(), k.span())).collect();
        for (name, span) in names.into_iter().filter(|(name, _)| !SECTIONS.contains(&&**name)) {
            let problem = Problem::new(Some(span), format!("unknown section `{name}`"));
            self.problems.push(problem.instead(suggestion(&name, &SECTIONS)));
        }
    }

    /// A section, or its default with the problems noted.
    fn section<S: DeserializeOwned + Default>(&mut self, name: &str) -> S {
        let Some(value) = self.table.get(name).cloned() else { return S::default() };
        match value.get_ref().as_table() {
            Some(table) => self.keys(name, table, &value),
            None => {
                let message = format!("`{name}` is a section");
                let problem = Problem::new(Some(value.span()), message);
                self.problems.push(problem.instead(format!("write [{name}] on a line of its own")));
                S::default()
            }
        }
    }

    fn keys<S>(&mut self, section: &str, table: &DeTable<'t>, whole: &Spanned<DeValue<'t>>) -> S
    where
        S: DeserializeOwned + Default,
    {
        // What is right counts, so that a typo here does not bring up problems that are none.
        let mut right = DeTable::new();
        for (key, value) in table.iter() {
            let mut one = DeTable::new();
            one.insert(key.clone(), value.clone());
            let one = Spanned::new(whole.span(), DeValue::Table(one));
            match S::deserialize(ValueDeserializer::from(one)) {
                Ok(_) => {
                    right.insert(key.clone(), value.clone());
                }
                Err(error) => {
                    self.problems.push(key_problem(section, key, value, error.message()));
                }
            }
        }
        let right = Spanned::new(whole.span(), DeValue::Table(right));
        S::deserialize(ValueDeserializer::from(right)).unwrap_or_else(|error| {
            self.problems.push(Problem::new(error.span(), error.message()));
            S::default()
        })
    }

    /// `[[trunk]]`: a profile by name, with keys of its own on top.
    fn trunks(&mut self, profile: &dyn Fn(&str) -> Option<String>) -> Vec<Profile> {
        let Some(value) = self.table.get("trunk").cloned() else {
            let mut generic = self.profile("generic", None, profile).unwrap_or_default();
            generic.sources = vec![LOOPBACK.into()];
            return vec![generic];
        };
        let Some(trunks) = value.get_ref().as_array() else {
            let problem = Problem::new(Some(value.span()), "`trunk` is a list of trunks");
            self.problems.push(problem.instead("write [[trunk]], once for each trunk"));
            return Vec::new();
        };
        trunks.iter().filter_map(|trunk| self.trunk(trunk, profile)).collect()
    }

    fn trunk(
        &mut self,
        trunk: &Spanned<DeValue<'t>>,
        profile: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Profile> {
        let Some(table) = trunk.get_ref().as_table() else {
            let problem = Problem::new(Some(trunk.span()), "a trunk is a section");
            self.problems.push(problem.instead("write [[trunk]] on a line of its own"));
            return None;
        };
        let mut table = table.clone();
        let base = match table.remove("profile") {
            None => "generic".to_string(),
            Some(name) => match name.get_ref().as_str() {
                Some(text) => {
                    self.profile(text, Some(name.span()), profile)?;
                    text.to_string()
                }
                None => {
                    self.problems.push(Problem::new(Some(name.span()), "`profile` is a name"));
                    return None;
                }
            },
        };
        let before = self.problems.len();
        let whole = Spanned::new(trunk.span(), DeValue::Table(table.clone()));
        let _: Profile = self.keys("trunk", &table, &whole);
        if self.problems.len() > before {
            return None;
        }
        let merged = merged(&profile(&base)?, &table, &whole);
        let profile = merged.map_err(|problem| self.problems.push(problem)).ok()?;
        if profile.sources.is_empty() && profile.certificates.is_empty() && profile.users.is_empty()
        {
            let message = "this trunk has no `sources`: no call would match it";
            let problem = Problem::new(Some(trunk.span()), message);
            self.problems.push(problem.instead("add sources = [\"203.0.113.0/24\"]"));
        }
        Some(profile)
    }

    fn profile(
        &mut self,
        name: &str,
        span: Option<Range<usize>>,
        profile: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Profile> {
        let Some(text) = profile(name) else {
            let problem = Problem::new(span, format!("there is no trunk profile `{name}`"));
            let instead = "`ringtill trunk list` names them; or write the path of a .toml file";
            self.problems.push(problem.instead(instead));
            return None;
        };
        match toml::from_str(&text) {
            Ok(profile) => Some(profile),
            Err(error) => {
                let message = format!("trunk profile `{name}`: {}", error.message());
                self.problems.push(Problem::new(span, message));
                None
            }
        }
    }

    /// What no single key can say.
    fn cross_check(&mut self, config: &Config) {
        self.check_ranges(config);
        self.check_addresses(config);
        self.check_payment(config);
        self.check_gateways(config);
        self.check_fees(config);
        self.problems.extend(trunks::problems(config));
        let synthesis = config.prompts.synthesis.iter().flat_map(|synthesis| synthesis.problems());
        for (key, what) in synthesis {
            let message = format!("prompts.synthesis.{key}: {what}");
            self.note("prompts", "synthesis", &message, "see `ringtill prompts check`");
        }
        self.check_speech(&config.speech);
        if config.agent.uri.as_deref().is_some_and(|uri| !is_sip_uri(uri)) {
            self.note(
                "agent",
                "uri",
                "the agent is reached by a SIP URI",
                "write uri = \"sip:agents@pbx.example.com\"",
            );
        }
        if let Some(part) = config.log.level.split(',').find(|part| !is_level(part)) {
            let message = format!("log.level: `{}` is no level", part.trim());
            let levels = "use error, warn, info, debug or trace, alone or as `ringtill::sip=debug`";
            self.note("log", "level", &message, levels);
        }
    }

    /// Numbers with which no server can run, or no call can end.
    fn check_ranges(&mut self, config: &Config) {
        let Config { sip, media, posting, dialogue, payment, .. } = config;
        let whole = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        const DAY_MINUTES: u64 = 24 * 60;
        for (section, key, value, range) in [
            ("sip", "calls_max", whole(sip.calls_max), 1..=100_000),
            ("sip", "calls_per_second", sip.calls_per_second.into(), 1..=100_000),
            ("sip", "messages_per_second", sip.messages_per_second.into(), 20..=1_000_000),
            ("sip", "call_minutes_max", sip.call_minutes_max, 1..=DAY_MINUTES),
            ("sip", "drain_minutes", sip.drain_minutes, 0..=DAY_MINUTES),
            ("sip", "connections_max", whole(sip.connections_max), 1..=65_000),
            ("sip", "connections_per_source", whole(sip.connections_per_source), 1..=65_000),
            ("sip", "idle_minutes", sip.idle_minutes, 1..=DAY_MINUTES),
            ("speech", "threads", whole(config.speech.threads), 1..=64),
            ("media", "threads", whole(media.threads.unwrap_or(1)), 1..=64),
            ("media", "late_ms", media.late_ms, 0..=1_000),
            (
                "recording",
                "authorisations_years",
                config.recording.authorisations_years.into(),
                AUTHORISATIONS_YEARS_MIN.into()..=20,
            ),
            ("posting", "interval_s", posting.interval_s, 1..=86_400),
            ("dialogue", "first_key_ms", dialogue.first_key_ms, 1_000..=60_000),
            ("dialogue", "inter_key_ms", dialogue.inter_key_ms, 500..=60_000),
            ("dialogue", "complete_ms", dialogue.complete_ms, 100..=60_000),
            ("dialogue", "attempts", dialogue.attempts.into(), 1..=10),
            // Keys are kept in a bounded buffer; see `secret::Keys`.
            ("payment", "account_len_max", whole(payment.account_len_max), 1..=32),
            ("payment", "declines_max", payment.declines_max.into(), 1..=10),
            ("payment", "authentications_max", payment.authentications_max.into(), 1..=10),
            // Three tries must end before the resolver takes the call for lost.
            ("payment", "gateway_limit_ms", payment.gateway_limit_ms, 1_000..=60_000),
        ] {
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                let message = format!("{section}.{key} must be {least} to {most}");
                self.note(section, key, &message, "leave it out for the default");
            }
        }
        let [first, last] = media.ports;
        if first >= last || last - first < 3 {
            self.note(
                "media",
                "ports",
                "media.ports: the first port must be well below the last",
                "2 ports a call: 500 calls need 1,000 ports, such as [20000, 20999]",
            );
        }
    }

    fn check_addresses(&mut self, config: &Config) {
        self.check_listeners(&config.sip);
        let told = config.public_media_address();
        if config.media.address == told && told.is_some_and(|address| address.is_unspecified()) {
            self.note(
                "media",
                "address",
                "media.address is no address of this machine",
                "name one, or leave it out to use that of [sip] listen",
            );
        }
        let sip = &config.sip;
        let nowhere = sip.listen.iter().any(|one| sip.inner_address_of(one.address).is_none());
        if !sip.local_networks.is_empty() && nowhere {
            self.note(
                "sip",
                "local_networks",
                "these networks cannot be told an address of ours",
                "add local_address = \"10.0.0.5\" (ours in these networks) to [sip]",
            );
        }
        if config.sip.public_address.is_some_and(|address| address.is_unspecified()) {
            self.note(
                "sip",
                "public_address",
                "nobody can send to this address",
                "name the address peers reach us at",
            );
        }
    }

    fn check_listeners(&mut self, sip: &Sip) {
        const REMEDY: &str = "listen on one address, or add public_address = \"...\" to [sip]";
        match sip.listen.iter().find(|listen| sip.public_address_of(listen.address).is_none()) {
            Some(first) if first.address == sip.address() => {
                let message = "callers cannot be told where to send their audio";
                self.note("sip", "listen", message, REMEDY);
            }
            Some(listen) => {
                let message = format!("peers cannot be told how to reach {listen}");
                self.note("sip", "listen", &message, REMEDY);
            }
            None => {}
        }
        if sip.listen.is_empty() {
            let remedy = "write listen = \"udp:192.0.2.7:5060\"";
            self.note("sip", "listen", "nobody could call", remedy);
        }
        let socket = |listen: &Listen| (listen.transport == Transport::Udp, listen.address);
        let twice = sip.listen.iter().enumerate().find(|(index, listen)| {
            let before = &sip.listen[..*index];
            listen.address.port() != 0 && before.iter().any(|one| socket(one) == socket(listen))
        });
        if let Some((_, listen)) = twice {
            let message = format!("{listen}: this port is taken by another one of the list");
            self.note("sip", "listen", &message, "TLS usually listens on 5061");
        }
        if sip.listens(Transport::Tls) && sip.tls.is_none() {
            let remedy = "add [sip.tls] with certificate_file and key_file";
            self.note("sip", "listen", "TLS needs a certificate", remedy);
        }
        if sip.tls.as_ref().is_some_and(|tls| tls.client_required && tls.client_ca_file.is_none()) {
            let message = "client_required, but nobody who could sign such a certificate";
            self.note("sip", "tls", message, "add client_ca_file = \"...\" to [sip.tls]");
        }
        if sip.connections_per_source > sip.connections_max {
            let message = "sip.connections_per_source is above sip.connections_max";
            self.note("sip", "connections_per_source", message, "make it the smaller one");
        }
    }

    fn check_speech(&mut self, speech: &Speech) {
        let Some((name, model)) = speech.engine() else { return };
        if let Err(why) = speech::check(name, model.is_some()) {
            let remedy = "use \"off\", \"digits\" or \"whisper:PATH\"";
            self.note("speech", "engine", &why.to_string(), remedy);
        }
        let unknown = speech.fields.iter().flatten().find(|name| Fields::named(name).is_none());
        if let Some(name) = unknown {
            let message = format!("nothing that is asked for is called `{name}`");
            self.note("speech", "fields", &message, &format!("write some of: {}", Fields::names()));
        }
    }

    fn check_payment(&mut self, config: &Config) {
        let payment = &config.payment;
        if payment.min_payment.minor > payment.max_payment.minor {
            self.note(
                "payment",
                "min_payment",
                "min_payment is above max_payment",
                "make min_payment the smaller one",
            );
        }
        let least = payment.partial.min.map_or(0, |min| min.minor);
        if least > payment.max_payment.minor {
            self.note(
                "payment",
                "partial",
                "payment.partial.min is above max_payment",
                "make it the smaller one",
            );
        }
        if payment.several_accounts && payment.cards.is_empty() {
            self.note(
                "payment",
                "several_accounts",
                "bank accounts pay one account at a time, and no card is taken",
                "write false, or cards in `cards`",
            );
        }
        if payment.max_payment.minor == 0 {
            self.note("payment", "max_payment", "nothing could be paid", "write \"5000.00\"");
        }
        let recorded = config.recording.authorisations.is_some();
        if payment.bank.as_ref().is_some_and(|bank| !bank.written_notice && !recorded) {
            self.note(
                "payment",
                "bank",
                "nothing would show that callers authorised a debit",
                "add authorisations = \"FOLDER\" to [recording], or, if you send each of them a \
                 written notice before it settles, written_notice = true to [payment.bank]",
            );
        }
        if payment.later.is_some() && payment.saved.is_none() {
            self.note(
                "payment",
                "later",
                "a payment on a later date is charged to a kept card, and none is kept",
                "add [payment.saved], or leave [payment.later] out",
            );
        }
        if payment.cards.is_empty() && payment.bank.is_none() {
            self.note(
                "payment",
                "cards",
                "nothing would be accepted",
                "leave `cards` out to take all brands, or add [payment.bank]",
            );
        }
        if !is_short_name(&payment.biller) {
            self.note(
                "payment",
                "biller",
                "the biller's name goes into file names",
                "use 1 to 32 letters, digits and `-`",
            );
        }
    }

    fn note(&mut self, section: &str, key: &str, message: &str, instead: &str) {
        let section_value = self.table.get(section);
        let value = section_value
            .and_then(|section| section.get_ref().as_table()?.get(key))
            .or(section_value);
        let span = value.map(Spanned::span);
        self.problems.push(Problem::new(span, message).instead(instead));
    }
}

/// The profile's keys, overridden by the trunk's own.
fn merged(base: &str, own: &DeTable<'_>, whole: &Spanned<DeValue<'_>>) -> Result<Profile, Problem> {
    let failed = |error: toml::de::Error| Problem::new(Some(whole.span()), error.message());
    let mut table = DeTable::parse(base).map_err(failed)?.into_inner();
    for (key, value) in own.iter() {
        table.insert(key.clone(), value.clone());
    }
    let table = Spanned::new(whole.span(), DeValue::Table(table));
    Profile::deserialize(ValueDeserializer::from(table)).map_err(failed)
}

/// serde names the keys it expected; the nearest one is what was probably meant.
fn key_problem(
    section: &str,
    key: &Spanned<toml::de::DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    message: &str,
) -> Problem {
    let name = key.get_ref();
    if message.starts_with(&format!("unknown field `{name}`")) {
        let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        let problem =
            Problem::new(Some(key.span()), format!("unknown key `{name}` in [{section}]"));
        return problem.instead(suggestion(name, &known));
    }
    Problem::new(Some(value.span()), format!("{section}.{name}: {message}"))
}

fn suggestion(written: &str, known: &[&str]) -> String {
    const LIKENESS_MIN: f64 = 0.7;
    let likeness = |name: &&&str| strsim::jaro_winkler(written, name);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|name| likeness(name) >= LIKENESS_MIN) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

fn line_at(text: &str, at: usize) -> Option<&str> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    text.get(start..)?.lines().next()
}

fn is_short_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=32).contains(&name.len()) && name.bytes().all(fits)
}

/// `level` or `target=level`: a level misspelt would be taken for a target, and silence all else.
fn is_level(directive: &str) -> bool {
    let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
    level.parse::<tracing::level_filters::LevelFilter>().is_ok() && !level.is_empty()
}

fn is_sip_uri(uri: &str) -> bool {
    let rest = uri.strip_prefix("sip:").or(uri.strip_prefix("sips:"));
    let clean = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"');
    rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(clean))
}
