//! Where requests of ours go: DNS asked for the servers of a trunk, registrations begun.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::dns::Locator;
use super::sip::Commands;
use crate::sip::locate::Hop;
use crate::sip::model::Uri;
use crate::sip::password::Password;
use crate::sip::profile::Profile;
use crate::sip::transport::numeric;
use crate::sip::{Command, Peer, Transport};

/// After a server's name led nowhere.
const AGAIN: Duration = Duration::from_secs(30);

/// Ways to the servers of trunks. Cheap to clone.
#[derive(Clone)]
pub struct Routes {
    /// `None`: this machine has no name servers; addresses in numbers work all the same.
    locator: Option<Locator>,
    commands: Commands,
}

impl Routes {
    pub fn new(locator: Option<Locator>, commands: Commands) -> Routes {
        Routes { locator, commands }
    }

    /// All servers that a URI leads to, first choice first, at least one.
    pub async fn servers(&self, uri: &str) -> Result<Vec<Peer>, String> {
        let parsed = Uri::parse(uri).ok_or_else(|| format!("{uri} is no URI"))?;
        let hops = match &self.locator {
            Some(locator) => {
                locator.locate(&parsed).await.map_err(|error| format!("{uri}: {error}"))?
            }
            None => {
                let transport = Transport::of(&parsed).unwrap_or(Transport::Udp);
                let address = numeric(&parsed, transport)
                    .ok_or_else(|| format!("{uri}: this machine has no name servers"))?;
                vec![Hop { transport, address, name: None }]
            }
        };
        let peers: Vec<Peer> = hops.iter().filter_map(|hop| self.commands.peer(hop)).collect();
        match peers.is_empty() {
            false => Ok(peers),
            true => Err(format!("{uri}: no [sip] listen has its transport and family")),
        }
    }

    /// Where a call of ours to a trunk goes: its proxy, or where its own call came from.
    pub async fn to_trunk(&self, trunk: &Profile, source: Peer) -> Result<Vec<Peer>, String> {
        match &trunk.proxy {
            Some(proxy) => self.servers(proxy).await,
            None => Ok(vec![source]),
        }
    }

    /// Finds the trunk's proxy and has the agent watch it; tried until it is found.
    pub async fn watch(self, trunk: Arc<Profile>) {
        let Some(proxy) = &trunk.proxy else { return };
        let server = self.found(&trunk, proxy).await[0];
        let _ = self.commands.send(Command::Watch { trunk: trunk.clone(), server }).await;
    }

    /// Finds the trunk's registrar and has the agent register there; tried until it is found.
    pub async fn register(self, trunk: Arc<Profile>) {
        let Some(register) = &trunk.register else { return };
        let servers = self.found(&trunk, &register.registrar).await;
        info!(trunk = trunk.name, first = %servers[0], servers = servers.len(), "registering");
        // A SIP core that has stopped registers nowhere.
        let _ = self.commands.send(Command::Register { trunk: trunk.clone(), servers }).await;
    }

    /// The servers of a URI, however long it takes until its name leads somewhere.
    async fn found(&self, trunk: &Profile, uri: &str) -> Vec<Peer> {
        let mut told = None;
        loop {
            match self.servers(uri).await {
                Ok(servers) => return servers,
                Err(why) => {
                    if told.as_ref() != Some(&why) {
                        warn!(trunk = trunk.name, why, "its server cannot be found");
                        told = Some(why);
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Reads the passwords of trunks from where they are kept. The error names the trunk.
pub fn passwords(trunks: &mut [Profile]) -> Result<(), String> {
    for trunk in trunks {
        let name = trunk.name.clone();
        for password in trunk.passwords() {
            let text = match &*password {
                Password::Known(_) => continue,
                Password::File(file) => std::fs::read_to_string(file)
                    .map_err(|error| format!("trunk `{name}`: {}: {error}", file.display()))?,
                Password::Env(variable) => std::env::var(variable)
                    .map_err(|_| format!("trunk `{name}`: ${variable} is not set"))?,
            };
            *password = text.trim_end_matches(['\r', '\n']).to_string().into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_read_from_where_they_are_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "tomato\n").unwrap();
        let path = file.path().display();
        let text = format!(
            "name = 'pbx'\n[account]\nusername = 'us'\npassword = {{ file = '{path}' }}\n\
             [[users]]\nusername = 'them'\npassword = 'plain'"
        );
        let mut trunks = [Profile::parse(&text).unwrap()];
        passwords(&mut trunks).unwrap();
        let known: Vec<String> = trunks[0]
            .passwords()
            .map(|password| password.known().unwrap().expose().clone())
            .collect();
        assert_eq!(known, ["plain", "tomato"]);
        let missing = "name = 'x'\n[account]\nusername = 'u'\npassword = { env = 'RINGTILL_NO' }";
        let why = passwords(&mut [Profile::parse(missing).unwrap()]).unwrap_err();
        assert_eq!(why, "trunk `x`: $RINGTILL_NO is not set");
    }
}
