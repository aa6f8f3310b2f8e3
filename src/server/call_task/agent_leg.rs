//! The leg to an agent: a media port beside the caller's, and a call of our own.

use tokio::sync::mpsc;
use tracing::info;

use super::{LegGuard, Task, media_setup, random_u64, seed};
use crate::call::{Input, SecondLeg, Serial, Way};
use crate::server::media::{OpenCall, Session};
use crate::sip::offer::{Local, Silence, SrtpSeed};
use crate::sip::{Cause, Command, Event};

/// What the task holds of that leg.
pub(super) struct AgentLeg {
    session: Session,
    /// From when it is called.
    called: Option<(LegGuard, mpsc::Receiver<Event>)>,
}

impl AgentLeg {
    /// The next event; never, before it is called.
    pub(super) async fn event(&mut self) -> Event {
        let Some((guard, events)) = &mut self.called else { return std::future::pending().await };
        let leg = guard.leg;
        match events.recv().await {
            Some(event) => {
                guard.ended |= matches!(event, Event::Ended { .. });
                event
            }
            // The SIP core gave it up.
            None => Event::Ended { leg, cause: Cause::PeerHungUp },
        }
    }
}

impl Task {
    /// Opens a port beside the caller's and looks for where the agent is.
    pub(super) fn find_way(&mut self, serial: Serial) {
        // Nobody listens for keys and prompts on that leg.
        let (events, _) = mpsc::channel(1);
        let setup = media_setup(false);
        let (name, latch) = (format!("{}-agent", self.id), self.trunk.latch);
        let networks = self.trunk.media_sources.clone();
        let opened = OpenCall { name, setup, latch, networks, events, inlet: None };
        let session = match self.shared.media.open_beside(&self.session, opened) {
            Ok(session) => session,
            Err(full) => {
                info!(call = self.id, %full, "no media port for the agent");
                return self.reply(async move { Input::Way(serial, None) });
            }
        };
        let local = Local {
            address: self.media_address,
            port: session.port(),
            codecs: Vec::new(),
            silence: Silence::Packets,
            events: true,
            session_id: random_u64() >> 1,
            session_version: 1,
            srtp: self.trunk.srtp,
            keys: SrtpSeed::new(seed()),
        };
        self.agent = Some(AgentLeg { session, called: None });
        let (routes, trunk) = (self.shared.routes.clone(), self.trunk.clone());
        let (id, source, us) = (self.id.clone(), self.source, self.us);
        self.reply(async move {
            match routes.to_trunk(&trunk, source).await {
                Ok(destinations) => Input::Way(serial, Some(Way { local, destinations, us })),
                Err(why) => {
                    info!(call = id, trunk = trunk.name, why, "no way to the agent");
                    Input::Way(serial, None)
                }
            }
        });
    }

    pub(super) async fn second(&mut self, order: SecondLeg) {
        let Some(agent) = &mut self.agent else { return };
        let leg = agent.called.as_ref().map(|(guard, _)| guard.leg);
        let command = match (order, leg) {
            (SecondLeg::Place(placement), _) => {
                info!(call = self.id, "calling the agent");
                // A SIP core that has stopped has closed our own mailbox too.
                let Ok((leg, events)) = self.shared.commands.invite(*placement).await else {
                    return;
                };
                let commands = self.shared.commands.clone();
                agent.called = Some((LegGuard { commands, leg, ended: false }, events));
                return;
            }
            (SecondLeg::Media(command), _) => return agent.session.command(command),
            (SecondLeg::Join, _) => return self.session.bridge(&agent.session),
            (SecondLeg::Close, _) => {
                self.session.part();
                // Its guard hangs it up.
                self.agent = None;
                return;
            }
            (SecondLeg::Answer(sdp), Some(leg)) => Command::Answer { leg, sdp },
            (SecondLeg::Reject(status), Some(leg)) => {
                let (reason, retry_after_s) = (String::new(), None);
                Command::Reject { leg, status, reason, retry_after_s }
            }
            (SecondLeg::Answer(_) | SecondLeg::Reject(_), None) => return,
        };
        let _ = self.shared.commands.send(command).await;
    }
}
