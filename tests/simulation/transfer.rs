//! A caller passed on to an agent, the world played by hand.

use std::time::Duration;

use ringtill::call::{Input, SecondLeg, Way};
use ringtill::media;
use ringtill::payment::Outcome;
use ringtill::sip::offer;
use ringtill::sip::profile::{Profile, SensitiveMedia, Transfer};
use ringtill::sip::{Cause, Command, Event, Leg, Peer};

use crate::routing::{LEG, World, local};

const AGENT: &str = "sip:agents@pbx.example";
const SECOND: Leg = Leg(2);

/// A caller who asks for an agent; the agent is sought as the profile says.
fn asked(profile: Profile) -> World {
    let mut world = World::with(Some(AGENT), profile);
    world.answered();
    world.key("0");
    world
}

fn refer(world: &World) -> &[(String, String)] {
    let last = world.commands.last();
    let Some(Command::Refer { target, headers, .. }) = last else { panic!("no REFER") };
    assert_eq!(target, AGENT);
    headers
}

fn referred(world: &mut World, status: u16) {
    world.give(Input::Sip(Event::Referred { leg: LEG, status }));
}

/// The REFER is refused, a way to the agent is found, and the agent is called.
fn bridging() -> World {
    let mut world = asked(Profile::default());
    referred(&mut world, 405);
    found(&mut world);
    world
}

fn found(world: &mut World) {
    let serial = world.ways.pop().expect("a way is sought");
    let way = Way {
        local: local(20_002),
        destinations: vec![Peer::udp("192.0.2.9:5060".parse().unwrap())],
        us: "192.0.2.1:5060".parse().unwrap(),
    };
    world.give(Input::Way(serial, Some(way)));
}

fn placed(world: &mut World) -> Vec<(String, String)> {
    match world.orders.remove(0) {
        SecondLeg::Place(placement) => {
            assert_eq!(placement.target, AGENT);
            assert_eq!(placement.from, "<sip:+13175550123@192.0.2.1:5060>");
            placement.headers
        }
        _ => panic!("the agent is not called"),
    }
}

fn answer(world: &mut World) {
    let sdp = offer::answer(&offer::offer(&local(20_002)), &local(5_000)).unwrap().0;
    world.give(Input::Second(Event::Answered { leg: SECOND, sdp }));
}

fn names(orders: &[SecondLeg]) -> Vec<&'static str> {
    let name = |order: &SecondLeg| match order {
        SecondLeg::Place(_) => "place",
        SecondLeg::Answer(_) => "answer",
        SecondLeg::Reject(_) => "reject",
        SecondLeg::Media(media::Command::Negotiated(_)) => "negotiated",
        SecondLeg::Media(_) => "media",
        SecondLeg::Join => "join",
        SecondLeg::Close => "close",
    };
    orders.iter().map(name).collect()
}

/// Nobody took over: the caller was told so, and the call goes on.
fn back(world: &World) -> bool {
    world.said.contains("No agent is available") && world.ended.is_empty() && world.hangups == 0
}

#[test]
fn the_contact_center_takes_the_caller_with_what_happened() {
    let mut world = asked(Profile::default());
    let headers = refer(&world);
    let value = |wanted: &str| headers.iter().find(|(n, _)| n == wanted).map(|(_, v)| v.as_str());
    assert_eq!(value("X-Ringtill-Result"), Some("unpaid"));
    assert_eq!(value("X-Ringtill-Account"), Some("1001"));
    assert!(value("Reason").is_some() && value("User-to-User").is_some());
    referred(&mut world, 100);
    referred(&mut world, 180);
    assert!(world.ended.is_empty() && world.hangups == 0);
    referred(&mut world, 200);
    assert_eq!((&world.ended[..], world.hangups), (&[Outcome::Transferred][..], 1));
}

#[test]
fn a_transfer_that_fails_brings_the_caller_back() {
    let mut world = asked(Profile::default());
    referred(&mut world, 100);
    referred(&mut world, 486);
    world.pass(Duration::from_secs(1));
    assert!(world.ways.is_empty(), "it was taken, and failed there");
    assert!(back(&world), "{} {:?}", world.said, world.ended);
    // The same question again, and the payment goes on.
    world.key("1");
    assert!(world.said.contains("card number"), "{}", world.said);
    // Somebody who asks again and again is told, and the call ends.
    let mut world = asked(Profile { transfer: Transfer::Refer, ..Profile::default() });
    referred(&mut world, 603);
    world.key("0");
    referred(&mut world, 603);
    assert!(back(&world));
    world.key("0");
    referred(&mut world, 603);
    assert!(matches!(world.ended[..], [Outcome::Failed("no agent")]), "{:?}", world.ended);
}

#[test]
fn a_refused_refer_becomes_a_call_of_our_own() {
    let mut world = bridging();
    let headers = placed(&mut world);
    assert!(headers.iter().any(|(name, value)| name == "X-Ringtill-Result" && value == "unpaid"));
    world.give(Input::Second(Event::Progress { leg: SECOND, status: 180, sdp: None }));
    answer(&mut world);
    assert_eq!(names(&world.orders), ["negotiated", "join"]);
    assert!(world.ended.is_empty() && world.hangups == 0, "caller and agent talk");
    // Hold by the agent's phone does not end it.
    world.orders.clear();
    let held = String::from_utf8(offer::offer(&local(5_000))).unwrap();
    let held = held.replace("a=sendrecv", "a=sendonly").into_bytes();
    world.give(Input::Second(Event::Reoffered { leg: SECOND, sdp: Some(held) }));
    assert_eq!(names(&world.orders), ["answer", "negotiated"]);
    world.pass(Duration::from_secs(3_000));
    assert!(world.ended.is_empty(), "longer than a call without an agent may be");
    world.give(Input::Second(Event::Ended { leg: SECOND, cause: Cause::PeerHungUp }));
    assert_eq!((&world.ended[..], world.hangups), (&[Outcome::Transferred][..], 1));
    assert_eq!(names(&world.orders).last(), Some(&"close"));
}

#[test]
fn the_caller_hangs_up_on_the_agent() {
    let mut world = bridging();
    placed(&mut world);
    answer(&mut world);
    world.give(Input::Sip(Event::Ended { leg: LEG, cause: Cause::PeerHungUp }));
    assert_eq!(names(&world.orders), ["negotiated", "join", "close"]);
    assert_eq!((&world.ended[..], world.hangups), (&[Outcome::Transferred][..], 0));
}

#[test]
fn the_caller_hangs_up_while_the_agent_is_called() {
    let mut world = bridging();
    placed(&mut world);
    world.give(Input::Sip(Event::Ended { leg: LEG, cause: Cause::PeerHungUp }));
    assert_eq!(names(&world.orders), ["close"]);
    assert_eq!(world.ended.len(), 1);
}

#[test]
fn an_agent_who_does_not_answer_or_cannot_be_called() {
    let mut world = bridging();
    placed(&mut world);
    let cause = Cause::Refused { status: 486, reason: "Busy Here".into() };
    world.give(Input::Second(Event::Ended { leg: SECOND, cause }));
    assert!(back(&world) && names(&world.orders) == ["close"]);
    let mut world = bridging();
    world.pass(Duration::from_secs(61));
    assert!(back(&world) && names(&world.orders).last() == Some(&"close"), "it rang too long");
    let mut world = asked(Profile { transfer: Transfer::Bridge, ..Profile::default() });
    let serial = world.ways.pop().expect("no REFER at all");
    world.give(Input::Way(serial, None));
    assert!(back(&world) && world.orders.is_empty());
    let mut world = asked(Profile { transfer: Transfer::Refer, ..Profile::default() });
    referred(&mut world, 405);
    assert!(back(&world) && world.ways.is_empty(), "by REFER only");
}

#[test]
fn early_sound_of_the_agents_side_is_heard() {
    let mut world = bridging();
    placed(&mut world);
    let sdp = offer::answer(&offer::offer(&local(20_002)), &local(5_000)).unwrap().0;
    let early = Event::Progress { leg: SECOND, status: 183, sdp: Some(sdp) };
    world.give(Input::Second(early));
    answer(&mut world);
    assert_eq!(names(&world.orders), ["negotiated", "join", "negotiated"]);
}

#[test]
fn card_data_needs_srtp_where_the_trunk_says_so() {
    let profile = Profile { sensitive_media: SensitiveMedia::Srtp, ..Profile::default() };
    let mut world = World::with(None, profile);
    world.settle();
    let Some(Command::Reject { status: 488, reason, .. }) = world.commands.last() else {
        panic!("taken in the clear");
    };
    assert!(reason.contains("SRTP"), "{reason}");
}

#[test]
fn sound_before_the_answer_where_the_trunk_asks_for_it() {
    let mut world = World::with(None, Profile { early_media: true, ..Profile::default() });
    world.settle();
    let names: Vec<&str> = world
        .commands
        .iter()
        .map(|command| match command {
            Command::Early { .. } => "early",
            Command::Answer { .. } => "answer",
            _ => "other",
        })
        .collect();
    assert_eq!(names, ["early", "answer"]);
}
