//! A network on a virtual clock: loses, delays and so reorders datagrams, by a seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub struct Datagram {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
pub struct Weather {
    pub loss: f64,
    pub delay: Duration,
    /// Added to the delay, evenly distributed from zero: packets overtake each other.
    pub jitter: Duration,
    pub duplicated: f64,
}

pub struct Network {
    weather: Weather,
    rng: StdRng,
    /// By time of arrival; the number keeps those of one instant in order.
    under_way: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    pub lost: u64,
}

impl Network {
    pub fn new(weather: Weather, seed: u64) -> Network {
        let rng = StdRng::seed_from_u64(seed);
        Network { weather, rng, under_way: BTreeMap::new(), sent: 0, lost: 0 }
    }

    pub fn send(&mut self, now: Instant, datagram: Datagram) {
        if self.rng.random_bool(self.weather.loss) {
            self.lost += 1;
            return;
        }
        if self.rng.random_bool(self.weather.duplicated) {
            let Datagram { source, destination, .. } = datagram;
            let copy = Datagram { source, destination, bytes: datagram.bytes.clone() };
            self.deliver(now, copy);
        }
        self.deliver(now, datagram);
    }

    fn deliver(&mut self, now: Instant, datagram: Datagram) {
        let jitter = self.weather.jitter.mul_f64(self.rng.random::<f64>());
        self.sent += 1;
        self.under_way.insert((now + self.weather.delay + jitter, self.sent), datagram);
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next datagram that has arrived by `now`.
    pub fn arrived(&mut self, now: Instant) -> Option<Datagram> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
