//! A pool whose engine takes as long as a test lets it.

use std::sync::mpsc::{Receiver as Inbox, Sender};
use std::time::Duration;

use super::*;
use crate::media::frame::SAMPLES;
use crate::speech::{Answers, Extent, Progress, Recognizer};

const PATIENCE: Duration = Duration::from_secs(20);

/// Hears a word at once, and is quick or waits to be let go before each answer.
struct Slow {
    gate: Arc<Mutex<Inbox<()>>>,
    quick: bool,
    panics: bool,
}

struct Hears {
    gate: Arc<Mutex<Inbox<()>>>,
    quick: bool,
    panics: bool,
}

impl Engine for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn is_quick(&self) -> bool {
        self.quick
    }

    fn recognizer(&self, _: Field, _: &Keys) -> Box<dyn Recognizer> {
        let Slow { gate, quick, panics } = self;
        Box::new(Hears { gate: gate.clone(), quick: *quick, panics: *panics })
    }
}

impl Recognizer for Hears {
    fn take(&mut self, _: Frame<'_>) {}

    fn progress(&self) -> Progress {
        Progress { words: 5, extent: Extent::Full, quiet_ms: Some(5_000) }
    }

    fn answers(&mut self) -> Answers {
        assert!(!self.panics, "a defect");
        if !self.quick {
            self.gate.lock().unwrap().recv_timeout(PATIENCE).expect("the test lets it go on");
        }
        Answers::none(Field::Zip)
    }
}

struct Caller {
    seat: Seat,
    inlet: Inlet,
    told: mpsc::Receiver<(ListenId, Told)>,
}

fn pool(quick: bool, panics: bool) -> (Pool, Sender<()>) {
    let (go, gate) = std::sync::mpsc::channel();
    let engine = Slow { gate: Arc::new(Mutex::new(gate)), quick, panics };
    (Pool::start(Arc::new(engine), 1).unwrap(), go)
}

fn caller(pool: &Pool) -> Caller {
    let seat = pool.seat().unwrap();
    let inlet = seat.inlet();
    let (reply, told) = mpsc::channel(4);
    assert!(seat.listen(ListenId(1), Field::Zip, Keys::new(), reply));
    Caller { seat, inlet, told }
}

impl Caller {
    /// Says something that is over at once: its last word was long ago.
    fn speaks(&mut self) {
        let sound = Some(Box::new(zeroize::Zeroizing::new([0; SAMPLES])));
        self.inlet.hear(clock::now(), Spoken { id: ListenId(1), sound, quiet_ms: 0 });
    }

    fn told(&mut self) -> Told {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let told =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, self.told.recv()).await });
        told.expect("told in time").expect("a word").1
    }
}

#[test]
fn who_speaks_does_not_wait_for_an_answer_that_is_thought_about() {
    let (pool, go) = pool(false, false);
    let (mut first, mut second) = (caller(&pool), caller(&pool));
    first.speaks();
    // On the same thread, while the first answer is thought about: a listener is still replaced.
    let (reply, mut told) = mpsc::channel(4);
    assert!(second.seat.listen(ListenId(2), Field::Zip, Keys::new(), reply));
    second.inlet.hear(clock::now() - 2 * LATE, spoken(ListenId(2)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let late = runtime.block_on(async { tokio::time::timeout(PATIENCE, told.recv()).await });
    assert!(matches!(late.unwrap(), Some((ListenId(2), Told::Late))));
    assert!(matches!(first.told(), Told::Thinking));
    assert!(first.told.try_recv().is_err(), "not told before it was thought about");
    go.send(()).unwrap();
    assert!(matches!(first.told(), Told::Answer(_)));
    assert_eq!((pool.totals().answers, pool.totals().late), (1, 1));
}

#[test]
fn a_defect_costs_one_answer() {
    for quick in [true, false] {
        let (pool, _go) = pool(quick, true);
        for _ in 0..2 {
            let mut caller = caller(&pool);
            caller.speaks();
            assert!(quick || matches!(caller.told(), Told::Thinking));
            assert!(matches!(caller.told(), Told::Late), "quick: {quick}");
        }
    }
}

#[test]
fn a_quick_engine_answers_where_it_listens() {
    let (pool, _go) = pool(true, false);
    let mut caller = caller(&pool);
    caller.speaks();
    assert!(matches!(caller.told(), Told::Answer(_)));
}

fn spoken(id: ListenId) -> Spoken {
    Spoken { id, sound: None, quiet_ms: 0 }
}
