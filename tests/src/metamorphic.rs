//! Metamorphic runs: one list of operations under many configurations. Every answer has to be the model's, and the
//! histories of all answers have to be the same under every configuration. A list that fails is reduced and printed as
//! a test.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;

use rand::RngExt;
use siltstone::Durability;

use crate::answer::Answer;
use crate::model::{Mistake, Model};
use crate::options::{Between, Config, KEYSPACES};
use crate::runner::Runner;
use crate::steps::{Step, list, rng};
use crate::{bounds, configurations, evidence, reduce, source};

/// How many operations a list has.
const LIST_STEPS: usize = 150;

/// How many lists a round runs.
const ROUND_LISTS: u64 = 1;

/// How often a reduction may run a list.
const MAX_ATTEMPTS: usize = 4000;

/// An operation to run.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What.
    pub step: Step,
    /// Whether it stands in the list; what a configuration does in between does not.
    pub listed: bool,
}

/// What a list was answered, operation after operation: a digest each, or none where what was asked is lost by a
/// reopening, which configurations do on their own.
pub type History = Vec<Option<u64>>;

/// Why a run ended early.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What two faults that are alike have in common: where the panic was, or which kind of answer was wrong.
    pub sort: String,
    /// All there is to say.
    pub message: String,
}

thread_local! {
    /// Whether panics on this thread are expected and reported by who catches them.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where the last one was.
    static CAUGHT_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Runs `work`; a panic comes back as a fault, and is not printed.
fn caught<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                CAUGHT_AT.with(|caught| *caught.borrow_mut() = place);
            } else {
                print(info);
            }
        }));
    });
    let before = CATCHING.replace(true);
    let answer = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(before);
    answer.unwrap_or_else(|payload| {
        let place = CAUGHT_AT.with(RefCell::take);
        let message = format!("panicked at {place}: {}", text(&*payload));
        Err(Fault { sort: format!("a panic at {place}"), message })
    })
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// A database and its model, in step.
struct Pair {
    runner: Runner,
    model: Model,
}

impl Pair {
    fn new(config: &Config, mistake: Option<Mistake>) -> Self {
        let model = Model::new(config.durability != Durability::NoLog, mistake);
        Pair { runner: Runner::new(config.clone()), model }
    }

    /// Runs one operation on both; the digest of its answer.
    fn step(&mut self, step: &Step) -> Result<Option<u64>, Fault> {
        let place = self.model.place();
        let expected = self.model.step(step);
        let found = self.runner.step(step, &place);
        if !expected.allows(&found) {
            return Err(self.wrong(&expected, &found));
        }
        bounds::check(&self.runner, &self.model, step);
        let portable = self.model.portable(&expected, found);
        let mut hasher = DefaultHasher::new();
        portable.hash(&mut hasher);
        Ok((portable != Answer::Lost).then(|| hasher.finish()))
    }

    fn wrong(&self, expected: &Answer, found: &Answer) -> Fault {
        let sort = format!("{} instead of {}", found.kind(), expected.kind());
        let reason = self.runner.db().metrics().read_only_reason;
        let reason = reason.map(|reason| format!(" (read-only: {reason})")).unwrap_or_default();
        Fault { sort, message: format!("{}{reason}", difference(expected, found)) }
    }
}

/// Two answers that are not the same, as short as that can be told.
fn difference(expected: &Answer, found: &Answer) -> String {
    fn first<T: PartialEq + std::fmt::Debug>(expected: &[T], found: &[T]) -> String {
        let at = expected.iter().zip(found).take_while(|(expected, found)| expected == found).count();
        let lens = (found.len(), expected.len());
        format!("at {at}: {:?} instead of {:?} (of {} and {})", found.get(at), expected.get(at), lens.0, lens.1)
    }
    match (expected, found) {
        (Answer::Calls(expected), Answer::Calls(found)) => first(expected, found),
        (Answer::Values(expected), Answer::Values(found)) => first(expected, found),
        (Answer::Changes(expected) | Answer::Retained(expected), Answer::Changes(found)) => first(expected, found),
        _ => format!("{found:.2000?} instead of {expected:.2000?}"),
    }
}

/// The list of a configuration: what it does between the operations of `steps` becomes a part of it.
pub fn plan(config: &Config, seed: u64, steps: &[Step]) -> Vec<Planned> {
    let rng = &mut rng(seed ^ 0x6265_7477_6565_6e00);
    let mut planned = Vec::with_capacity(2 * steps.len());
    for step in steps {
        planned.push(Planned { step: step.clone(), listed: true });
        let keyspace = rng.random_range(0..KEYSPACES);
        let reopening = [Step::CloseAndOpen, Step::DropAndOpen, Step::OpenReadOnly];
        let upkeep = [
            Step::Flush { keyspace },
            Step::FlushAll,
            Step::Compact { keyspace },
            Step::Sync,
            Step::WaitForCompaction,
            Step::Verify,
            Step::Metrics,
        ];
        let between = match config.between {
            Between::Nothing => None,
            Between::Close => Some(&reopening[0]),
            Between::Drop => Some(&reopening[1]),
            Between::Reopen => reopening.get(rng.random_range(0..20)),
            Between::Upkeep => upkeep.get(rng.random_range(0..12)),
        };
        planned.extend(between.map(|step| Planned { step: step.clone(), listed: false }));
    }
    planned
}

/// Runs a list, and then asks for everything there is, before and after a reopening.
///
/// # Errors
/// The first answer that is not the model's, or the first panic.
pub fn run(config: &Config, steps: &[Planned], mistake: Option<Mistake>) -> Result<History, Fault> {
    let at = Cell::new(0);
    let answer = caught(|| {
        let mut pair = Pair::new(config, mistake);
        let mut history = History::new();
        for planned in steps {
            let digest = pair.step(&planned.step)?;
            if planned.listed {
                history.push(digest);
            }
            at.set(at.get() + 1);
        }
        // Each of these can only be known once the one before has been run.
        pair.model.everything().iter().try_for_each(|step| pair.step(step).map(drop))?;
        pair.step(&Step::CloseAndOpen)?;
        pair.model.everything().iter().try_for_each(|step| pair.step(step).map(drop))?;
        Ok(history)
    });
    answer.map_err(|fault| {
        let what = match steps.get(at.get()) {
            Some(planned) => format!("operation {}, {}", at.get(), source::brief(&planned.step)),
            None => format!("after all {} operations", steps.len()),
        };
        Fault { message: format!("{what}: {}", fault.message), ..fault }
    })
}

/// A fault with the smallest list found that shows one of its sort, as a test.
#[derive(Debug)]
pub struct Reduced {
    /// What is wrong.
    pub fault: Fault,
    /// What is left of the list.
    pub steps: Vec<Step>,
    /// The test's text.
    pub test: String,
}

/// Reduces a list that gave `fault`.
pub fn reduced(config: &Config, steps: &[Planned], fault: &Fault, mistake: Option<Mistake>) -> Reduced {
    let mut last = fault.clone();
    let steps: Vec<Step> = steps.iter().map(|planned| planned.step.clone()).collect();
    let mut left = MAX_ATTEMPTS;
    let mut fails_like_it = |steps: &[Step], tries: usize| {
        for _ in 0..tries.min(left) {
            left -= 1;
            match run(config, &listed(steps), mistake) {
                Err(fault) if fault.sort == last.sort => {
                    last = fault;
                    return true;
                }
                _ => {}
            }
        }
        false
    };
    // Threads may meet in another way the next time: what fails seldom is tried more often.
    let often = (0..5).filter(|_| fails_like_it(&steps, 1)).count();
    let tries = [20, 20, 10, 5, 3, 1][often];
    let steps = reduce::reduce(steps, |steps| fails_like_it(steps, tries));
    let test = source::test("reduced", config, &steps);
    Reduced { fault: last, steps, test }
}

fn listed(steps: &[Step]) -> Vec<Planned> {
    steps.iter().map(|step| Planned { step: step.clone(), listed: true }).collect()
}

/// Runs a list as it is printed when it fails.
///
/// # Panics
/// If it fails.
pub fn replay(config: &Config, steps: &[Step]) {
    if let Err(fault) = run(config, &listed(steps), None) {
        panic!("{config:?}: {}", fault.message);
    }
}

/// Runs the list of a seed under one configuration.
///
/// # Panics
/// If it fails, with the reduced list as a test.
pub fn run_seed(config: &Config, seed: u64, len: usize) -> History {
    let steps = plan(config, seed, &list(seed, len));
    run(config, &steps, None).unwrap_or_else(|fault| {
        evidence::record("wrong", 1);
        let mut text = format!("seed {seed}, {len} operations, {config:?}: {}\n", fault.message);
        // It may take minutes, and be ended by somebody who has seen enough.
        eprintln!("{text}reducing it ..");
        let reduced = reduced(config, &steps, &fault, None);
        let _ = writeln!(text, "reduced to {}: {}", reduced.steps.len(), reduced.fault.message);
        panic!("{text}\n{}", reduced.test);
    })
}

/// Runs the list of `seed` under all of `configs`, some at a time; answers how many operations that were.
///
/// # Panics
/// As [`run_seed`], and if two histories differ.
pub fn run_all(configs: &[Config], seed: u64, len: usize) -> u64 {
    let (next, histories) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from).min(4) {
            scope.spawn(|| {
                while let Some(config) = configs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let history = run_seed(config, seed, len);
                    histories.lock().unwrap().push((config, history));
                }
            });
        }
    });
    let histories = histories.into_inner().unwrap();
    let Some((first, expected)) = histories.first() else { return 0 };
    for (config, history) in &histories {
        if let Some(at) = first_difference(history, expected) {
            evidence::record("wrong", 1);
            let step = source::brief(&list(seed, len)[at]);
            panic!("seed {seed}, operation {at}: {config:?} and {first:?} differ on {step}");
        }
    }
    histories.iter().map(|(config, _)| plan(config, seed, &list(seed, len)).len() as u64).sum()
}

/// Where two histories of one list differ, what one of them lost aside.
pub fn first_difference(one: &History, other: &History) -> Option<usize> {
    let differ = |(one, other): (&Option<u64>, &Option<u64>)| one.is_some() && other.is_some() && one != other;
    one.iter().zip(other).position(differ)
}

/// A bounded piece of work for a soak: lists made from `seed` under all named configurations and some random ones.
///
/// # Panics
/// At the first violation, with the seed, the configuration and the reduced list as a test.
pub fn round(seed: u64) {
    let mut configs = configurations::all();
    configs.extend((0..10).map(|n| Config::seeded(seed.wrapping_mul(10).wrapping_add(n))));
    for at in 0..ROUND_LISTS {
        let operations = run_all(&configs, seed.wrapping_mul(ROUND_LISTS).wrapping_add(at), LIST_STEPS);
        evidence::record("metamorphic_operations", operations);
    }
    evidence::record("metamorphic_lists", ROUND_LISTS);
    evidence::record("wrong", 0);
}
