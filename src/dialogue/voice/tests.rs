//! Everything that callers, recognizers and timers can do at a question that may be answered by
//! voice: in every order for a while, then by chance until it ends.

use super::*;
use crate::dialogue::grammar::{AccountNumber, CardNumber, Grammar, Menu, SecurityCode, ZipCode};
use crate::dialogue::{Field, PlayId, Settings};
use crate::instrument::Brand;
use crate::media::Digit;
use crate::speech::decode::grammar::Meaning;

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Key(char),
    Begin,
    /// The right value, or another that the grammar takes too.
    Says(bool, Outcome),
    Answers(Spoken, Outcome),
    Nothing,
    Late,
    Thinks,
    Played,
    Waits,
}

const ACTS: [Act; 17] = [
    Act::Begin,
    Act::Says(true, Outcome::Accept),
    Act::Says(true, Outcome::Confirm),
    Act::Says(false, Outcome::Confirm),
    Act::Says(true, Outcome::Again),
    Act::Answers(Spoken::Yes, Outcome::Accept),
    Act::Answers(Spoken::No, Outcome::Accept),
    Act::Answers(Spoken::Yes, Outcome::Confirm),
    Act::Answers(Spoken::Command(Command::Agent), Outcome::Accept),
    Act::Nothing,
    Act::Late,
    Act::Thinks,
    Act::Played,
    Act::Waits,
    Act::Key('1'),
    Act::Key('*'),
    Act::Key('#'),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Card,
    /// Of a bank account.
    Account,
    Zip,
    Cvv,
    Menu,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Card, Kind::Account, Kind::Zip, Kind::Cvv, Kind::Menu];

    fn values(self) -> [&'static str; 2] {
        match self {
            Kind::Card => ["4111111111111111", "378282246310005"],
            Kind::Account => ["738491620", "109876543"],
            Kind::Zip => ["46201", "75201"],
            Kind::Cvv => ["349", "926"],
            Kind::Menu => ["1", "2"],
        }
    }

    fn question(self) -> crate::dialogue::Question {
        match self {
            Kind::Card => {
                let accepted = Brand::ALL.to_vec();
                self.field(Field::number("card", "card.ask", CardNumber { accepted }).sensitive())
            }
            Kind::Account => {
                let grammar = AccountNumber { len_max: 17 };
                self.field(Field::number("account", "bank.account_ask", grammar).sensitive())
            }
            Kind::Zip => self.field(Field::number("zip", "zip.ask", ZipCode).sensitive()),
            Kind::Cvv => {
                let grammar = SecurityCode { brand: Brand::Visa };
                self.field(Field::number("cvv", "cvv.ask_three", grammar).sensitive())
            }
            Kind::Menu => {
                let prompt = vec![Prompt::Phrase("menu.amount")];
                self.field(Field::menu("choice", prompt, Menu(vec![('1', 1), ('2', 2)])))
            }
        }
    }

    fn field<G: Grammar + Clone + Send + 'static>(
        self,
        field: Field<G>,
    ) -> crate::dialogue::Question {
        let (spoken, read_back) = match self {
            Kind::Card => (speech::Field::Card, ReadBack::LastFour),
            Kind::Account => (speech::Field::Digits { min: 4, max: 17 }, ReadBack::Ending),
            Kind::Zip => (speech::Field::Zip, ReadBack::Always),
            Kind::Cvv => (speech::Field::Cvv((3, 3)), ReadBack::Never),
            Kind::Menu => (speech::Field::Digit, ReadBack::Never),
        };
        field.spoken(Voice { field: spoken, read_back, prompt: "said" }).question()
    }
}

struct Caller {
    kind: Kind,
    dialogue: Dialogue,
    now: Instant,
    playing: Option<PlayId>,
    listening: Option<(ListenId, speech::Field, bool)>,
    /// Digits of the last prompt that had any.
    read: String,
    /// Keys since the last answer by voice.
    keyed: bool,
    /// The last value said, and whether it was sure.
    said: Option<(&'static str, bool)>,
    confirmed: bool,
    heard: Option<Heard>,
    path: Vec<Act>,
}

impl Caller {
    fn new(kind: Kind, agent: bool, now: Instant) -> Caller {
        let mut dialogue = Dialogue::new(Settings::default());
        dialogue.offer_voice(speech::Fields::ALL);
        dialogue.has_agent(agent);
        dialogue.ask(now, kind.question());
        let mut caller = Caller {
            kind,
            dialogue,
            now,
            playing: None,
            listening: None,
            read: String::new(),
            keyed: false,
            said: None,
            confirmed: false,
            heard: None,
            path: vec![],
        };
        caller.settle();
        caller
    }

    /// Whether it makes any difference.
    fn act(&mut self, act: Act) -> bool {
        self.path.push(act);
        self.now += Duration::from_millis(100);
        let now = self.now;
        match (act, self.listening) {
            (Act::Key(key), _) => {
                // A key is a digit of the answer, or says whether what was read back is right.
                match self.read.is_empty() {
                    true => (self.keyed, self.confirmed) = (true, false),
                    false => self.confirmed = key == '1',
                }
                self.dialogue.key(now, Digit::from_key(key).unwrap());
            }
            (Act::Begin, Some((id, _, stops))) => {
                self.dialogue.speech_begun(now, id);
                if let Some(playing) = self.playing.take_if(|_| stops) {
                    self.dialogue.play_ended(now, playing);
                }
            }
            (Act::Played, _) => match self.playing.take() {
                Some(playing) => self.dialogue.play_ended(now, playing),
                None => return false,
            },
            (Act::Waits, _) => match self.dialogue.deadline() {
                Some(until) => {
                    self.now = until;
                    self.dialogue.timeout(until);
                }
                None => return false,
            },
            (_, None) => return false,
            (act, Some((id, field, _))) => {
                let Some(told) = self.told(act, field) else { return false };
                if !matches!(told, Told::Thinking) {
                    self.listening = None;
                }
                self.dialogue.told(now, id, told);
            }
        }
        self.settle();
        true
    }

    fn told(&mut self, act: Act, field: speech::Field) -> Option<Told> {
        let answers = |keys, word, outcome| {
            Told::Answer(Answers::judged(field, Meaning::of(keys, word), outcome))
        };
        let asks_yes = field == speech::Field::YesNo;
        match act {
            Act::Nothing => Some(Told::Nothing),
            Act::Late => Some(Told::Late),
            Act::Thinks => Some(Told::Thinking),
            Act::Says(right, outcome) if !asks_yes => {
                let value = self.kind.values()[usize::from(!right)];
                let sure = outcome == Outcome::Accept;
                (self.keyed, self.confirmed) = (false, false);
                self.said = Some((value, sure));
                Some(answers(value, None, outcome))
            }
            Act::Answers(word @ Spoken::Command(_), outcome) => {
                Some(answers("", Some(word), outcome))
            }
            Act::Answers(word, outcome) if asks_yes => {
                self.confirmed = (word, outcome) == (Spoken::Yes, Outcome::Accept);
                Some(answers("", Some(word), outcome))
            }
            _ => None,
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.dialogue.poll() {
            match output {
                Output::Play { id, prompts, .. } => {
                    self.playing = Some(id);
                    self.hear(&prompts);
                }
                Output::Listen { id, field, stops, .. } => {
                    assert!(self.listening.is_none(), "listened twice: {:?}", self.path);
                    self.listening = Some((id, field, stops));
                }
                Output::Deaf => self.listening = None,
                Output::Heard(heard) => self.heard = Some(heard),
                _ => {}
            }
        }
        match &self.heard {
            Some(_) => assert_eq!(self.listening, None, "listens on: {:?}", self.path),
            None => assert!(
                self.playing.is_some() || self.dialogue.deadline().is_some(),
                "waits for nothing: {:?}",
                self.path
            ),
        }
        self.check();
    }

    fn hear(&mut self, prompts: &[Prompt]) {
        self.read.clear();
        for prompt in prompts {
            match prompt {
                Prompt::Digits(digits) => self.read.push_str(digits),
                Prompt::Private(digits) => self.read.push_str(digits.expose()),
                _ => {}
            }
        }
        let most = match self.kind {
            Kind::Card | Kind::Account => 4,
            Kind::Zip => 5,
            // Never aloud.
            Kind::Cvv | Kind::Menu => 0,
        };
        assert!(self.read.len() <= most, "{} digits aloud: {:?}", self.read.len(), self.path);
    }

    /// A value is taken only as it may be.
    fn check(&self) {
        let Some(Heard::Keyed(keys)) = &self.heard else { return };
        assert!(self.kind.question().grammar.check(keys.expose()).is_ok(), "{:?}", self.path);
        if self.keyed {
            return;
        }
        let Some((said, sure)) = self.said else { panic!("out of nothing: {:?}", self.path) };
        let sure = sure && keys.expose() == said;
        let read = match self.kind {
            Kind::Card | Kind::Account => {
                keys.expose().ends_with(&self.read) && self.read.len() == 4
            }
            _ => keys.expose() == self.read,
        };
        let right = match self.kind {
            Kind::Card => sure || (self.confirmed && read),
            Kind::Account | Kind::Zip => self.confirmed && read,
            Kind::Cvv | Kind::Menu => sure,
        };
        assert!(right, "it was taken: {:?}", self.path);
    }
}

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn replay(kind: Kind, agent: bool, path: &[Act]) -> Option<Caller> {
    let mut caller = Caller::new(kind, agent, start());
    for act in path {
        if caller.heard.is_some() || !caller.act(*act) {
            return None;
        }
    }
    Some(caller)
}

/// Walks on from `path` in every way.
fn walk(kind: Kind, agent: bool, path: &mut Vec<Act>, depth: u32, paths: &mut u64) {
    let Some(caller) = replay(kind, agent, path) else { return };
    *paths += 1;
    if depth == 0 || caller.heard.is_some() {
        return;
    }
    for act in ACTS {
        path.push(act);
        walk(kind, agent, path, depth - 1, paths);
        path.pop();
    }
}

#[test]
fn nothing_is_taken_that_may_not_be_whatever_happens() {
    const DEPTH: u32 = 4;
    let mut paths = 0;
    for kind in Kind::ALL {
        for agent in [false, true] {
            walk(kind, agent, &mut Vec::new(), DEPTH, &mut paths);
        }
    }
    println!("{paths} ways to answer");
    assert!(paths > 50_000, "{paths}");
}

#[test]
fn every_question_ends() {
    for seed in 0..4_000u64 {
        let kind = Kind::ALL[(seed % 5) as usize];
        let mut caller = Caller::new(kind, seed % 10 < 5, start());
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut acts = 0;
        while caller.heard.is_none() {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            // From some time on the caller is silent, and must not be asked for ever.
            let act = match acts {
                0..60 => ACTS[(chance >> 8) as usize % ACTS.len()],
                _ if acts % 2 == 0 => Act::Played,
                _ => Act::Waits,
            };
            caller.act(act);
            acts += 1;
            assert!(acts < 100, "seed {seed}: {:?}", caller.path);
        }
    }
}

#[test]
fn after_two_failures_the_keypad_is_offered_and_after_three_the_agent() {
    for agent in [false, true] {
        let mut caller = Caller::new(Kind::Zip, agent, start());
        for right in [true, false] {
            assert!(caller.listening.is_some());
            assert!(caller.act(Act::Begin) && caller.act(Act::Says(right, Outcome::Again)));
        }
        assert!(caller.listening.is_none(), "only keys count from here on");
        let mut silences = 0;
        while caller.heard.is_none() {
            caller.act(Act::Played);
            caller.act(Act::Waits);
            silences += 1;
        }
        // Who has nobody to go to has the tries that keys always have.
        assert_eq!(silences, if agent { 1 } else { 3 });
    }
}

#[test]
fn two_tries_that_agree_are_worth_a_question() {
    let mut caller = Caller::new(Kind::Zip, false, start());
    caller.act(Act::Begin);
    caller.act(Act::Says(true, Outcome::Again));
    assert!(caller.read.is_empty());
    caller.act(Act::Begin);
    caller.act(Act::Says(true, Outcome::Again));
    assert_eq!((caller.read.as_str(), caller.heard.is_none()), ("46201", true));
}

#[test]
fn a_denied_value_is_not_proposed_again() {
    let mut caller = Caller::new(Kind::Card, false, start());
    caller.act(Act::Begin);
    caller.act(Act::Says(false, Outcome::Confirm));
    assert_eq!(caller.read, "0005");
    caller.act(Act::Begin);
    caller.act(Act::Answers(Spoken::No, Outcome::Accept));
    assert_eq!((caller.read.as_str(), caller.heard.is_none()), ("", true));
    caller.act(Act::Begin);
    caller.act(Act::Says(true, Outcome::Confirm));
    assert_eq!(caller.read, "1111");
    caller.act(Act::Key('1'));
    assert!(matches!(&caller.heard, Some(Heard::Keyed(k)) if k.expose() == "4111111111111111"));
}

#[test]
fn keyed_digits_come_before_spoken_ones() {
    let mut dialogue = Dialogue::new(Settings::default());
    dialogue.offer_voice(speech::Fields::ALL);
    let now = start();
    dialogue.ask(now, Kind::Zip.question());
    for key in ['4', '6'] {
        dialogue.key(now, Digit::from_key(key).unwrap());
    }
    let listens = std::iter::from_fn(|| dialogue.poll()).filter_map(|output| match output {
        Output::Listen { keyed, .. } => Some(keyed.expose().to_string()),
        _ => None,
    });
    assert_eq!(listens.collect::<Vec<_>>(), ["", "4", "46"]);
}

#[test]
fn what_callers_may_not_say_is_asked_for_by_key() {
    let mut dialogue = Dialogue::new(Settings::default());
    dialogue.offer_voice(speech::Fields::named("zip").unwrap());
    for (kind, may) in [(Kind::Card, false), (Kind::Zip, true), (Kind::Cvv, false)] {
        let question = kind.question();
        let voice = question.voice.unwrap().prompt;
        dialogue.ask(start(), question);
        let outputs: Vec<Output> = std::iter::from_fn(|| dialogue.poll()).collect();
        let listens = outputs.iter().any(|output| matches!(output, Output::Listen { .. }));
        let says = outputs.iter().any(|output| {
            let Output::Play { prompts, .. } = output else { return false };
            prompts.iter().any(|prompt| matches!(prompt, Prompt::Phrase(id) if *id == voice))
        });
        assert_eq!((listens, says), (may, may), "{voice}");
    }
}

#[test]
fn who_waits_for_an_answer_to_be_thought_about_is_told_so() {
    let mut dialogue = Dialogue::new(Settings::default());
    dialogue.offer_voice(speech::Fields::ALL);
    let now = start();
    dialogue.ask(now, Kind::Zip.question());
    let id = ListenId(0);
    dialogue.speech_begun(now, id);
    dialogue.told(now, id, Told::Thinking);
    let mut said = Vec::new();
    let mut drain = |dialogue: &mut Dialogue, at: Instant| {
        while let Some(output) = dialogue.poll() {
            if let Output::Play { prompts, .. } = output
                && prompts == [Prompt::Phrase("speech.one_moment")]
            {
                said.push(at.duration_since(now).as_millis());
            }
        }
    };
    drain(&mut dialogue, now);
    let mut at = now;
    while at < now + Duration::from_secs(9) {
        at = dialogue.deadline().unwrap();
        dialogue.timeout(at);
        drain(&mut dialogue, at);
    }
    assert_eq!(said, [1_500, 7_500, 13_500]);
    let answers = Answers::judged(speech::Field::Zip, Meaning::of("46201", None), Outcome::Accept);
    dialogue.told(at, id, Told::Answer(answers));
    assert!(dialogue.is_confirming());
    // What is said once need not be waited for.
    assert!(dialogue.deadline().is_none());
}
