//! The recognizer pool: threads of ordinary priority that listen to what callers say, so that no
//! amount of it can delay media. A call has its seat at one of them. Engines that think about an
//! answer once it is over do so on other threads, so that nobody's words wait for it.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
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
/// Answers that may wait to be thought about; each holds half a minute of sound at most.
const THOUGHTS_MAX: usize = 256;
/// The same for an answer that is to be thought about: callers are used to a pause then.
const THOUGHT_LATE: Duration = Duration::from_millis(4_000);

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
    /// The longest time, in microseconds, that one frame or one answer has taken.
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
        let thinkers = if engine.is_quick() { 0 } else { threads.max(1) };
        let thinking = think(thinkers, &counts)?;
        let workers = (0..threads.max(1)).map(|nth| {
            let (jobs, inbox) = sync_channel(JOBS_MAX);
            let (engine, counts, thinking) = (engine.clone(), counts.clone(), thinking.clone());
            let mut desk = Desk { all: HashMap::new(), thinking, counts };
            let name = format!("recognizer-{nth}");
            std::thread::Builder::new().name(name).spawn(move || desk.run(&inbox, &*engine))?;
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

/// An answer that is over and is to be thought about, and since when.
type Thought = (Instant, Listening);

/// Starts threads that think about answers; `None`: none is needed.
fn think(threads: usize, counts: &Arc<Counts>) -> io::Result<Option<SyncSender<Thought>>> {
    if threads == 0 {
        return Ok(None);
    }
    let (thinking, thoughts) = sync_channel::<Thought>(THOUGHTS_MAX);
    let thoughts = Arc::new(Mutex::new(thoughts));
    for nth in 0..threads {
        let (thoughts, counts) = (thoughts.clone(), counts.clone());
        let next = move || thoughts.lock().ok().and_then(|thoughts| thoughts.recv().ok());
        std::thread::Builder::new().name(format!("answers-{nth}")).spawn(move || {
            while let Some((since, listening)) = next() {
                if clock::now().saturating_duration_since(since) > THOUGHT_LATE {
                    listening.late(&counts);
                } else {
                    listening.answer(&counts);
                }
            }
        })?;
    }
    Ok(Some(thinking))
}

/// What one thread listens to, by seat.
struct Desk {
    all: HashMap<u64, Listening>,
    /// Where answers are thought about; `None`: here, it takes no time.
    thinking: Option<SyncSender<Thought>>,
    counts: Arc<Counts>,
}

impl Desk {
    fn run(&mut self, inbox: &Receiver<Job>, engine: &dyn Engine) {
        while let Ok(job) = inbox.recv() {
            // A defect of an engine costs one answer, and nobody else's.
            let seat = job.seat();
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(job, engine)));
            if worked.is_err() {
                error!(fault = "ringtill", "a recognizer was aborted by a defect");
                if let Some(listening) = self.all.remove(&seat) {
                    listening.tell(Told::Late);
                }
            }
        }
    }

    fn work(&mut self, job: Job, engine: &dyn Engine) {
        match job {
            Job::Listen { seat, id, field, keyed, reply } => {
                let listener = Listener::new(engine, field, &keyed);
                self.all.insert(seat, Listening { id, listener, reply });
            }
            Job::Deaf { seat } => drop(self.all.remove(&seat)),
            Job::Lost { seat, id } => self.late(seat, id),
            Job::Hear { seat, at, spoken } => self.hear(seat, at, &spoken),
        }
    }

    fn hear(&mut self, seat: u64, at: Instant, spoken: &Spoken) {
        let began = clock::now();
        if began.saturating_duration_since(at) > LATE {
            return self.late(seat, spoken.id);
        }
        let listening = self.all.get_mut(&seat).filter(|listening| listening.id == spoken.id);
        let Some(listening) = listening else { return };
        let heard = listening.listener.hear(Frame::of(&spoken.sound), spoken.quiet_ms);
        self.counts.took(began);
        let Some(heard) = heard else { return };
        let Some(listening) = self.all.remove(&seat) else { return };
        match (heard, &self.thinking) {
            (Heard::Nothing, _) => listening.tell(Told::Nothing),
            (Heard::Answer, None) => listening.answer(&self.counts),
            (Heard::Answer, Some(thinking)) => {
                let _ = listening.reply.try_send((listening.id, Told::Thinking));
                if let Err(full) = thinking.try_send((began, listening)) {
                    let (TrySendError::Full((_, listening))
                    | TrySendError::Disconnected((_, listening))) = full;
                    listening.late(&self.counts);
                }
            }
        }
    }

    fn late(&mut self, seat: u64, id: ListenId) {
        if self.all.get(&seat).is_some_and(|listening| listening.id == id)
            && let Some(listening) = self.all.remove(&seat)
        {
            listening.late(&self.counts);
        }
    }
}

impl Counts {
    fn took(&self, began: Instant) {
        let took = clock::now().saturating_duration_since(began).as_micros() as u64;
        self.longest_us.fetch_max(took, Ordering::Relaxed);
    }
}

impl Listening {
    fn late(self, counts: &Counts) {
        counts.late.fetch_add(1, Ordering::Relaxed);
        self.tell(Told::Late);
    }

    /// Tells what was said. A defect of the engine costs this answer alone.
    fn answer(mut self, counts: &Counts) {
        let began = clock::now();
        let answers = catch_unwind(AssertUnwindSafe(|| self.listener.answers()));
        counts.took(began);
        match answers {
            Ok(answers) => {
                counts.answers.fetch_add(1, Ordering::Relaxed);
                self.tell(Told::Answer(answers));
            }
            Err(_) => {
                error!(fault = "ringtill", "a recognizer was aborted by a defect");
                self.tell(Told::Late);
            }
        }
    }

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

#[cfg(test)]
mod tests;
