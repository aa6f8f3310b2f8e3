//! Calls on a virtual clock.

use super::*;

mod authentication; // digest on both sides, registration, who is let in
mod interop; // the problems trunks and PBXs are known for
mod link; // two agents over a link that loses
mod peer; // a peer whose messages are written out
mod replaced; // one call in the place of another
mod scripted; // one agent and that peer
mod sessions; // 100rel, session timers, re-INVITE and UPDATE

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                     m=audio 4000 RTP/AVP 0\r\n";
const PEER: &str = "192.0.2.1:5060";
const US: &str = "192.0.2.2:5060";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn settings(contact: &str) -> Settings {
    Settings::new(address(contact), "Ringtill/test", 4)
}

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn hang_up(leg: Leg) -> Command {
    Command::Hangup { leg, reason: None }
}
