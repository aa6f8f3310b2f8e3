//! The recognizer pool: threads of ordinary priority that listen to what callers say, so that no
//! amount of it can delay media. A call has its seat at one of them.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::error;

use super::clock;
use crate::dialogue::Told;
use crate::media::{ListenId, Spoken};
use crate::secret::Keys;
use crate::speech::{Engine, Field, Frame, Heard, Listener};

/// Frames that may wait for a thread: what 80 callers say in two seconds.
const JOBS_MAX: usize = 8_192;
/// What waits longer is too old: the caller is asked again.
const LATE: Duration = Duration::from_millis(2_000);

/// The threads. They end once the pool and every seat are dropped.
pub struct Pool {
    engine: Arc<dyn Engine>,
    workers: Vec<Worker>,
    next: AtomicU64,
    counts: Arc<Counts>,
}

struct Worker {
    jobs: SyncSender<Job>,
    seats: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    late: AtomicU64,
    /// The longest time, in microseconds, that one frame has taken: the one that ends an answer.
    longest_us: AtomicU64,
}

/// What the pool has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub answers: u64,
    /// Answers lost because the threads did not keep up.
    pub late: u64,
    pub longest: Duration,
}

/// Where a recognizer's word goes.
pub type Reply = mpsc::Sender<(ListenId, Told)>;

enum Job {
    Listen { seat: u64, id: ListenId, field: Field, keyed: Keys, reply: Reply },
    Hear { seat: u64, at: Instant, spoken: Spoken },
    Lost { seat: u64, id: ListenId },
    Deaf { seat: u64 },
}

impl Pool {
    pub fn start(engine: Arc<dyn Engine>, threads: usize) -> io::Result<Pool> {
        let counts = Arc::new(Counts::default());
        let workers = (0..threads.max(1)).map(|nth| {
            let (jobs, inbox) = sync_channel(JOBS_MAX);
            let (engine, counts) = (engine.clone(), counts.clone());
            let name = format!("recognizer-{nth}");
            std::thread::Builder::new().name(name).spawn(move || run(&inbox, &*engine, &counts))?;
            Ok(Worker { jobs, seats: Arc::default() })
        });
        let workers = workers.collect::<io::Result<Vec<Worker>>>()?;
        Ok(Pool { engine, workers, next: AtomicU64::new(0), counts })
    }

    pub fn engine(&self) -> &'static str {
        self.engine.name()
    }

    /// A seat for one call, at the thread with the fewest.
    pub fn seat(&self) -> Option<Seat> {
        let load = |worker: &&Worker| worker.seats.load(Ordering::Relaxed);
        let worker = self.workers.iter().min_by_key(load)?;
        worker.seats.fetch_add(1, Ordering::Relaxed);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (jobs, seats) = (worker.jobs.clone(), worker.seats.clone());
        Some(Seat { id, jobs, seats })
    }

    pub fn totals(&self) -> Totals {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            answers: count(&self.counts.answers),
            late: count(&self.counts.late),
            longest: Duration::from_micros(count(&self.counts.longest_us)),
        }
    }
}

/// One call's place in the pool, as its task has it.
pub struct Seat {
    id: u64,
    jobs: SyncSender<Job>,
    seats: Arc<AtomicUsize>,
}

impl Seat {
    /// Listens from here on; whatever was listened for before is dropped. Whether there is room:
    /// if not, what is asked can only be keyed.
    pub fn listen(&self, id: ListenId, field: Field, keyed: Keys, reply: Reply) -> bool {
        let listen = Job::Listen { seat: self.id, id, field, keyed, reply };
        self.jobs.try_send(listen).is_ok()
    }

    pub fn deaf(&self) {
        // Without room it is dropped with what is listened for next, or with the seat.
        let _ = self.jobs.try_send(Job::Deaf { seat: self.id });
    }

    /// The end that the media thread puts sound into.
    pub fn inlet(&self) -> Inlet {
        Inlet { seat: self.id, jobs: self.jobs.clone(), lost: None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.fetch_sub(1, Ordering::Relaxed);
        self.deaf();
    }
}

/// Takes sound, never waits.
pub struct Inlet {
    seat: u64,
    jobs: SyncSender<Job>,
    /// Sound of this was lost: it is not to be recognized any more.
    lost: Option<ListenId>,
}

impl Inlet {
    pub fn hear(&mut self, at: Instant, spoken: Spoken) {
        let (seat, id) = (self.seat, spoken.id);
        let job = match self.lost {
            Some(lost) if lost == id => Job::Lost { seat, id },
            _ => Job::Hear { seat, at, spoken },
        };
        self.lost = self.jobs.try_send(job).is_err().then_some(id);
    }
}

/// What one seat listens to.
struct Listening {
    id: ListenId,
    listener: Listener,
    reply: Reply,
}

fn run(inbox: &Receiver<Job>, engine: &dyn Engine, counts: &Counts) {
    let mut all: HashMap<u64, Listening> = HashMap::new();
    while let Ok(job) = inbox.recv() {
        // A defect of an engine costs one answer, and nobody else's.
        let seat = job.seat();
        let worked = catch_unwind(AssertUnwindSafe(|| work(job, engine, &mut all, counts)));
        if worked.is_err() {
            error!(fault = "ringtill", "a recognizer was aborted by a defect");
            if let Some(listening) = all.remove(&seat) {
                listening.tell(Told::Late);
            }
        }
    }
}

fn work(job: Job, engine: &dyn Engine, all: &mut HashMap<u64, Listening>, counts: &Counts) {
    match job {
        Job::Listen { seat, id, field, keyed, reply } => {
            let listener = Listener::new(engine, field, &keyed);
            all.insert(seat, Listening { id, listener, reply });
        }
        Job::Deaf { seat } => drop(all.remove(&seat)),
        Job::Lost { seat, id } => late(seat, id, all, counts),
        Job::Hear { seat, at, spoken } => {
            let began = clock::now();
            if began.saturating_duration_since(at) > LATE {
                return late(seat, spoken.id, all, counts);
            }
            let listening = all.get_mut(&seat).filter(|listening| listening.id == spoken.id);
            let Some(listening) = listening else { return };
            let heard = listening.listener.hear(Frame::of(&spoken.sound), spoken.quiet_ms);
            let took = clock::now().saturating_duration_since(began).as_micros() as u64;
            counts.longest_us.fetch_max(took, Ordering::Relaxed);
            let Some(heard) = heard else { return };
            let told = match heard {
                Heard::Nothing => Told::Nothing,
                Heard::Answer(answers) => {
                    counts.answers.fetch_add(1, Ordering::Relaxed);
                    Told::Answer(answers)
                }
            };
            if let Some(listening) = all.remove(&seat) {
                listening.tell(told);
            }
        }
    }
}

fn late(seat: u64, id: ListenId, all: &mut HashMap<u64, Listening>, counts: &Counts) {
    if all.get(&seat).is_some_and(|listening| listening.id == id)
        && let Some(listening) = all.remove(&seat)
    {
        counts.late.fetch_add(1, Ordering::Relaxed);
        listening.tell(Told::Late);
    }
}

impl Listening {
    /// A call that takes no word has a deadline of its own.
    fn tell(self, told: Told) {
        let _ = self.reply.try_send((self.id, told));
    }
}

impl Job {
    fn seat(&self) -> u64 {
        match self {
            Job::Listen { seat, .. }
            | Job::Hear { seat, .. }
            | Job::Lost { seat, .. }
            | Job::Deaf { seat } => *seat,
        }
    }
}
