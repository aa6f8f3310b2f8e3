//! Calls on a virtual clock.

use super::*;

mod link; // two agents over a link that loses
mod scripted; // one agent and a peer whose messages are written out

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
