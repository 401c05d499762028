//! Every moment at which the power may go, in one run: before each call that changes the simulated storage.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use parking_lot::Mutex;
use siltstone::fs::{FileSystem, SimFileSystem};

use crate::history::History;
use crate::hook::{HookFileSystem, Moment, Side};

/// How many moments may wait to be looked at. Each holds a copy of what changed since the one before.
const AHEAD: usize = 32;

/// What is known of a run while it goes on.
pub trait Known: Clone + Send + 'static {
    /// Grows with everything that becomes known.
    fn progress(&self) -> u64;
}

impl Known for () {
    fn progress(&self) -> u64 {
        0
    }
}

impl Known for History {
    fn progress(&self) -> u64 {
        self.notes()
    }
}

/// A moment in a run.
#[derive(Debug)]
pub struct Point<N> {
    /// How many calls had changed the storage.
    pub calls: u64,
    /// The filesystem as it was, with what was not durable apart from what was.
    pub sim: SimFileSystem,
    /// What was known then: anything acknowledged by then has happened, anything tried later has not begun.
    pub known: N,
}

/// Ends the stream of points, also when the run panics.
struct End<N>(SyncSender<Option<Point<N>>>);

impl<N> Drop for End<N> {
    fn drop(&mut self) {
        // Nobody listens any more if a check failed.
        let _ = self.0.send(None);
    }
}

/// Runs `run` on a filesystem that calls through to `sim`, and calls `check` with the state before each of its calls
/// that change the storage, and with that after the last. A cut at a call leaves what it finds before the call, so this
/// is the same as running again and again and stopping one call later each time. `known` is asked at each point, and
/// has to keep others from being acknowledged or tried while it is locked. Answers how many points there were.
///
/// # Panics
/// As `run` and `check` do.
pub fn each_call<N: Known>(
    sim: &SimFileSystem,
    known: &Arc<Mutex<N>>,
    run: impl FnOnce(Arc<dyn FileSystem>) + Send,
    mut check: impl FnMut(Point<N>),
) -> u64 {
    let (sender, points) = sync_channel(AHEAD);
    let take = {
        let (sim, known, sender) = (sim.clone(), known.clone(), sender.clone());
        let last = Mutex::new(None);
        move || {
            let mut last = last.lock();
            let known = known.lock();
            let calls = sim.call_count();
            let at = Some((calls, known.progress()));
            // Calls that change nothing come between.
            if *last == at {
                return;
            }
            *last = at;
            // A failed check ends the listening, and the run goes on to its end for nothing.
            let _ = sender.send(Some(Point { calls, sim: sim.fork(), known: known.clone() }));
        }
    };
    let take = Arc::new(take);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _end = End(sender);
            let hook = {
                let take = take.clone();
                move |moment: &Moment<'_>| {
                    if moment.side == Side::Before {
                        take();
                    }
                }
            };
            run(Arc::new(HookFileSystem::new(Arc::new(sim.clone()), hook)));
            take();
        });
        // Owned here, so that it goes with a failed check and nobody waits to be listened to.
        let listening = points;
        let mut count = 0;
        while let Ok(Some(point)) = listening.recv() {
            check(point);
            count += 1;
        }
        count
    })
}
