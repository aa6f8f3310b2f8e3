//! Questions driven by hand on a virtual clock.

use super::grammar::{AccountNumber, Amount, CardNumber, Menu};
use super::*;
use crate::instrument::Brand;
use crate::money::Money;

struct Conversation {
    dialogue: Dialogue,
    now: Instant,
}

/// What came out, in a form tests can compare.
#[derive(Debug, PartialEq)]
enum Out {
    Play(Vec<Prompt>, bool),
    Entered(String, bool),
    NoInput,
    NoMatch,
    Listen(speech::Field, String),
    Deaf,
    Sensitive(bool),
    Segment(bool),
    Keyed(String),
    Back,
    Agent,
    Failed,
    Said,
}

impl Conversation {
    #[allow(clippy::disallowed_methods)]
    fn new() -> Conversation {
        Conversation { dialogue: Dialogue::new(Settings::default()), now: Instant::now() }
    }

    fn ask<G: Grammar + Clone + Send + 'static>(&mut self, field: Field<G>) -> Vec<Out> {
        self.dialogue.ask(self.now, field.question());
        self.drain()
    }

    fn key(&mut self, keys: &str) -> Vec<Out> {
        for key in keys.chars() {
            self.now += Duration::from_millis(200);
            self.dialogue.timeout(self.now);
            self.dialogue.key(self.now, Digit::from_key(key).expect("a key"));
        }
        self.drain()
    }

    /// The prompt that plays last runs to its end.
    fn played(&mut self) -> Vec<Out> {
        self.now += Duration::from_secs(3);
        let id = PlayId(self.dialogue.plays);
        self.dialogue.play_ended(self.now, id);
        self.drain()
    }

    fn wait_ms(&mut self, wait_ms: u64) -> Vec<Out> {
        self.now += Duration::from_millis(wait_ms);
        self.dialogue.timeout(self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Out> {
        std::iter::from_fn(|| self.dialogue.poll())
            .map(|output| match output {
                Output::Play { prompts, barge_in, .. } => Out::Play(prompts, barge_in),
                Output::Sensitive(on) => Out::Sensitive(on),
                Output::Segment(on) => Out::Segment(on),
                Output::Entered { shown, rejected, .. } => Out::Entered(shown, rejected),
                Output::NoInput { .. } => Out::NoInput,
                Output::NoMatch { .. } => Out::NoMatch,
                Output::Listen { field, keyed, .. } => Out::Listen(field, keyed.expose().into()),
                Output::Deaf => Out::Deaf,
                Output::Said => Out::Said,
                Output::Heard(Heard::Keyed(keys)) => Out::Keyed(keys.expose().into()),
                Output::Heard(Heard::Back) => Out::Back,
                Output::Heard(Heard::Agent) => Out::Agent,
                Output::Heard(Heard::Failed | Heard::Hangup) => Out::Failed,
            })
            .collect()
    }
}

fn menu() -> Field<Menu<bool>> {
    Field::menu("menu", phrase("menu.amount"), Menu(vec![('1', true), ('2', false)]))
}

fn account() -> Field<AccountNumber> {
    Field::number("account", "account.ask", AccountNumber { len_max: 12 }).masked()
}

fn card() -> Field<CardNumber> {
    let accepted = Brand::ALL.to_vec();
    Field::number("card", "card.ask", CardNumber { accepted }).sensitive()
}

fn phrase(id: &'static str) -> Vec<Prompt> {
    vec![Prompt::Phrase(id)]
}

fn phrases(ids: [&'static str; 2]) -> Vec<Prompt> {
    ids.into_iter().map(Prompt::Phrase).collect()
}

#[test]
fn a_key_answers_while_the_prompt_plays() {
    let mut c = Conversation::new();
    assert_eq!(c.ask(menu()), [Out::Play(phrase("menu.amount"), true)]);
    assert_eq!(c.key("2"), [Out::Entered("2".into(), false), Out::Keyed("2".into())]);
}

#[test]
fn pound_ends_an_entry_and_star_clears_it() {
    let mut c = Conversation::new();
    c.ask(account());
    let cleared = Out::Play(phrase("error.star_cleared"), true);
    assert_eq!(c.key("999*"), [cleared]);
    assert_eq!(c.key("1001#"), [Out::Entered("••••".into(), false), Out::Keyed("1001".into())]);
}

#[test]
fn star_goes_back_and_zero_reaches_the_agent() {
    let mut c = Conversation::new();
    c.ask(account());
    assert_eq!(c.key("*"), [Out::Back]);
    c.ask(menu());
    assert_eq!(c.key("0"), [Out::Agent]);
    c.ask(account());
    assert_eq!(c.key("0#"), [Out::Agent]);
}

#[test]
fn nine_repeats_without_costing_an_attempt() {
    let mut c = Conversation::new();
    c.ask(menu());
    for _ in 0..5 {
        assert_eq!(c.key("9"), [Out::Play(phrase("menu.amount"), true)]);
    }
    assert_eq!(c.key("1").last(), Some(&Out::Keyed("1".into())));
}

#[test]
fn three_silences_with_rising_help_then_failure() {
    let mut c = Conversation::new();
    c.ask(menu());
    for noinput in ["error.noinput1", "error.noinput2"] {
        assert_eq!(c.played(), []);
        assert_eq!(c.wait_ms(7_999), []);
        let again = Out::Play(phrases([noinput, "menu.amount"]), true);
        assert_eq!(c.wait_ms(1), [Out::NoInput, again]);
    }
    c.played();
    assert_eq!(c.wait_ms(8_000), [Out::NoInput, Out::Failed]);
}

#[test]
fn a_wrong_number_is_named_hidden_and_asked_again() {
    let mut c = Conversation::new();
    assert_eq!(c.ask(card()).first(), Some(&Out::Sensitive(true)));
    let hidden = Out::Entered("•".repeat(16), true);
    let again = Out::Play(phrases(["card.invalid", "card.ask"]), true);
    assert_eq!(c.key("4111111111111112#"), [hidden, again]);
    let heard = c.key("4111111111111111#");
    assert_eq!(
        heard[1..],
        [Out::Sensitive(false), Out::Keyed("4111111111111111".into())],
        "the recording goes on once the number is in"
    );
}

#[test]
fn a_sixteen_digit_visa_ends_by_itself_but_thirteen_digits_wait_for_more() {
    let mut c = Conversation::new();
    c.ask(card());
    c.key("4222222222222");
    assert_eq!(c.wait_ms(4_999), [], "the first 13 digits pass the checksum: no short timer");
    c.dialogue.cancel();
    c.ask(card());
    c.key("4111111111111111");
    assert_eq!(c.wait_ms(1_499), []);
    assert_eq!(c.wait_ms(1).last(), Some(&Out::Keyed("4111111111111111".into())));
}

#[test]
fn keys_pressed_ahead_answer_the_next_questions_without_prompts() {
    let mut c = Conversation::new();
    c.ask(menu());
    c.key("11001#2");
    assert_eq!(c.ask(account()), [Out::Entered("••••".into(), false), Out::Keyed("1001".into())]);
    assert_eq!(c.ask(menu()).last(), Some(&Out::Keyed("2".into())));
}

#[test]
fn consent_cannot_be_typed_ahead() {
    let mut c = Conversation::new();
    c.ask(menu());
    c.key("1111");
    let consent = menu().notice(phrase("consent.total"));
    assert_eq!(c.ask(consent), [Out::Play(phrase("consent.total"), false)]);
    assert_eq!(c.key("1"), [], "keys pressed during the notice are thrown away");
    assert_eq!(c.played(), [Out::Play(phrase("menu.amount"), true)]);
    assert_eq!(c.key("1").last(), Some(&Out::Keyed("1".into())));
}

#[test]
fn a_habitual_pound_after_a_full_entry_harms_nothing() {
    let mut c = Conversation::new();
    c.ask(card());
    assert_eq!(c.key("5555555555554444").last(), Some(&Out::Keyed("5555555555554444".into())));
    assert_eq!(c.key("#"), [], "between two questions");
    c.ask(menu());
    assert_eq!(c.key("#"), [Out::Play(phrase("menu.amount"), true)], "the prompt it cut is said");
    assert_eq!(c.key("1").last(), Some(&Out::Keyed("1".into())));
}

#[test]
fn a_key_cuts_an_announcement_and_counts_for_the_question_after_it() {
    let mut c = Conversation::new();
    c.dialogue.say(phrase("greet.welcome"), true);
    assert_eq!(c.drain(), [Out::Play(phrase("greet.welcome"), true)]);
    assert_eq!(c.key("1"), [Out::Said]);
    assert_eq!(c.ask(menu()).last(), Some(&Out::Keyed("1".into())));
    c.dialogue.say(phrase("result.approved"), false);
    c.drain();
    assert_eq!(c.key("2"), []);
    assert_eq!(c.played(), [Out::Said]);
    assert_eq!(c.ask(menu()), [Out::Play(phrase("menu.amount"), true)]);
}

#[test]
fn a_card_number_keyed_at_the_wrong_question_is_never_shown() {
    let mut c = Conversation::new();
    let (min, max) = (Money::usd(100), Money::usd(50_000));
    c.ask(Field::number("amount", "amount.ask", Amount::within(min, max)));
    let shown: Vec<Out> = c.key("4111111111111111#");
    let dots_only = |out: &Out| match out {
        Out::Entered(shown, _) => shown.chars().all(|c| c == '•'),
        _ => true,
    };
    assert!(shown.iter().any(|out| matches!(out, Out::Entered(_, true))), "{shown:?}");
    assert!(shown.iter().all(dots_only), "{shown:?}");
}

#[test]
fn what_authorises_is_recorded_from_its_notice_to_its_key() {
    let mut c = Conversation::new();
    c.key("1");
    let field = menu().notice(phrase("consent.payment")).recorded(true);
    let notice = Out::Play(phrase("consent.payment"), false);
    assert_eq!(c.ask(field), [Out::Segment(true), notice]);
    assert_eq!(c.key("1"), [], "signed before it was heard");
    assert_eq!(c.played(), [Out::Play(phrase("menu.amount"), true)]);
    assert_eq!(
        c.key("1"),
        [Out::Entered("1".into(), false), Out::Segment(false), Out::Keyed("1".into())]
    );
    c.ask(menu().recorded(true));
    assert!(c.key("*").contains(&Out::Segment(false)));
}
