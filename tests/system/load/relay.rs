//! A network that loses datagrams, between a server and a caller on this machine. Each knows the
//! other by an address of the relay's: what they put into Via and Contact leads through it too.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How long a direction waits before it looks whether it is told to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// Loses datagrams both ways until it is dropped.
pub struct Relay {
    passed: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    directions: Vec<JoinHandle<()>>,
}

/// One side: where it really is, and the address of the relay's that the other knows it by.
#[derive(Clone, Copy)]
pub struct Side {
    pub real: SocketAddr,
    pub known_as: SocketAddr,
}

impl Relay {
    /// `loss` is the share of datagrams lost, each way by a seed of its own.
    pub fn between(sides: [Side; 2], loss: f64, seed: u64) -> Relay {
        let mut relay = Relay {
            passed: Arc::default(),
            lost: Arc::default(),
            stop: Arc::default(),
            directions: Vec::new(),
        };
        let sockets = sides.map(|side| {
            let socket = UdpSocket::bind(side.known_as).expect("the relay's address is free");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            Arc::new(socket)
        });
        for (from, to) in [(0, 1), (1, 0)] {
            // What is sent to one side arrives where it is known, and leaves as from the other.
            let (inlet, outlet) = (sockets[to].clone(), sockets[from].clone());
            let (passed, lost) = (relay.passed.clone(), relay.lost.clone());
            let (stop, destination) = (relay.stop.clone(), sides[to].real);
            let mut rng = StdRng::seed_from_u64(seed + from as u64);
            relay.directions.push(thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, _)) = inlet.recv_from(&mut buffer) else { continue };
                    let lose = rng.random_bool(loss);
                    let counter = if lose { &lost } else { &passed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    if !lose {
                        let _ = outlet.send_to(&buffer[..length], destination);
                    }
                }
            }));
        }
        relay
    }

    /// Datagrams that came through, and those that did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for direction in self.directions.drain(..) {
            let _ = direction.join();
        }
    }
}
