//! Callers waiting for the commit lock, combined into groups.
//!
//! Flat combining (Hendler et al., SPAA 2010): a waiting caller leaves its batch in a ticket; whoever holds the lock
//! commits the tickets it finds. A caller that gets the lock itself while waiting does the same. No caller depends on
//! another one being scheduled: the holder wakes one waiter after it let go of the lock, and each waiter tries the lock
//! before it sleeps.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::options::Durability;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{IS_MODEL, Mutex, MutexGuard, hint, thread_local};

/// A batch as the commit path takes it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) encoded: Vec<u8>,
    /// Numbered operations.
    pub(crate) count: u32,
    pub(crate) durability: Durability,
    /// For a batch that brings its own numbers (it comes from another database's log): its first.
    pub(crate) first_seqno: Option<SeqNo>,
}

/// What commits requests: the state behind the commit lock.
pub(crate) trait Commit {
    /// Commits one request; the sequence number of its last operation.
    fn commit(&mut self, request: &Request) -> Result<SeqNo>;

    /// A panic left the state half changed: nothing may be committed on it any more.
    fn in_doubt(&mut self);
}

/// Tells the state when its change does not come to an end.
struct Change<'s, S: Commit>(&'s mut S);

impl<S: Commit> Change<'_, S> {
    #[inline]
    fn run<R>(state: &mut S, change: impl FnOnce(&mut S) -> R) -> R {
        let unfinished = Change(state);
        let answer = change(&mut *unfinished.0);
        std::mem::forget(unfinished);
        answer
    }
}

impl<S: Commit> Drop for Change<'_, S> {
    fn drop(&mut self) {
        self.0.in_doubt();
    }
}

/// The commit lock, held. However it is let go of, the first of those that wait is woken after it.
struct Held<'q, S: Commit> {
    // In this order: fields are dropped from first to last.
    state: MutexGuard<'q, S>,
    _wake: WakeFirst<'q, S>,
}

struct WakeFirst<'q, S: Commit>(&'q CommitQueue<S>);

impl<S: Commit> Drop for WakeFirst<'_, S> {
    #[inline]
    fn drop(&mut self) {
        // Pairs with the fence of a caller that waits.
        fence(Ordering::SeqCst);
        if self.0.waiting_count.load(Ordering::Relaxed) > 0 {
            self.0.wake_first();
        }
    }
}

/// A waiting caller's batch and, afterwards, the answer; none if committing it panicked.
struct Ticket {
    body: Mutex<Body>,
    /// Set, with release, after the answer was stored.
    done: AtomicBool,
    thread: Thread,
}

#[derive(Default)]
struct Body {
    request: Option<Request>,
    answer: Option<Result<SeqNo>>,
}

/// Ends the wait for a ticket, also when committing it panicked.
struct Done<'t>(&'t Ticket);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let thread = self.0.thread.clone();
        self.0.done.store(true, Ordering::Release);
        thread.unpark();
    }
}

thread_local! {
    /// Each thread waits on one ticket at a time and uses the same one again.
    static TICKET: RefCell<Option<Arc<Ticket>>> = const { RefCell::new(None) };
}

/// How often a waiter looks before it sleeps: about as long as a commit takes, less than a sleep and a wake-up cost. In
/// a model it sleeps at once: a spin gives way to the others until they are through, and hides what happens meanwhile.
const SPINS: u32 = if IS_MODEL { 0 } else { 200 };

/// The commit lock with its waiting callers.
pub(crate) struct CommitQueue<S: Commit> {
    state: Mutex<S>,
    waiting: Mutex<VecDeque<Arc<Ticket>>>,
    /// The length of `waiting`, so that the uncontended path does not lock it.
    waiting_count: AtomicUsize,
}

impl<S: Commit> CommitQueue<S> {
    pub(crate) fn new(state: S) -> Self {
        CommitQueue { state: Mutex::new(state), waiting: Mutex::default(), waiting_count: AtomicUsize::new(0) }
    }

    /// Takes the lock for something that is not a batch (sealing a memtable, closing).
    pub(crate) fn with_state<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let mut held = self.held(self.state.lock());
        let answer = Change::run(&mut *held.state, change);
        self.serve(&mut held);
        answer
    }

    /// Commits `request`, here or in the group of another caller, and gives it back with the answer (so that its memory
    /// can be used again).
    pub(crate) fn commit(&self, request: Request) -> (Request, Result<SeqNo>) {
        if let Some(state) = self.state.try_lock() {
            let mut held = self.held(state);
            let answer = Change::run(&mut *held.state, |state| state.commit(&request));
            self.serve(&mut held);
            drop(held);
            return (request, answer);
        }
        self.commit_in_group(request)
    }

    #[inline]
    fn held<'q>(&'q self, state: MutexGuard<'q, S>) -> Held<'q, S> {
        Held { state, _wake: WakeFirst(self) }
    }

    #[cold]
    fn commit_in_group(&self, request: Request) -> (Request, Result<SeqNo>) {
        let ticket = TICKET.with(|mine| mine.borrow_mut().take()).unwrap_or_else(|| {
            Arc::new(Ticket { body: Mutex::default(), done: AtomicBool::new(false), thread: thread::current() })
        });
        // Relaxed: the ticket is handed over by the queue's lock below.
        ticket.done.store(false, Ordering::Relaxed);
        *ticket.body.lock() = Body { request: Some(request), answer: None };
        self.change_waiting(|waiting| waiting.push_back(ticket.clone()));
        // Pairs with the fence in `WakeFirst`: either the holder sees this ticket after it let go, or the `try_lock`
        // below sees the lock free.
        fence(Ordering::SeqCst);
        let mut spins = 0;
        while !ticket.done.load(Ordering::Acquire) {
            if let Some(state) = self.state.try_lock() {
                self.serve(&mut self.held(state));
            } else if spins < SPINS {
                spins += 1;
                hint::spin_loop();
            } else {
                thread::park();
            }
        }
        let mut body = ticket.body.lock();
        let (request, answer) = (body.request.take(), body.answer.take());
        drop(body);
        TICKET.with(|mine| *mine.borrow_mut() = Some(ticket));
        let panicked = || Err(Error::ReadOnly { reason: "a thread panicked while it committed".to_owned() });
        match request {
            Some(request) => (request, answer.unwrap_or_else(panicked)),
            None => unreachable!("the request stays in the body"),
        }
    }

    /// Commits everything that waits.
    fn serve(&self, held: &mut Held<'_, S>) {
        while let Some(ticket) = self.pop() {
            let done = Done(&ticket);
            let mut body = ticket.body.lock();
            if let Some(request) = &body.request {
                let answer = Change::run(&mut *held.state, |state| state.commit(request));
                body.answer = Some(answer);
            }
            drop(body);
            drop(done);
        }
    }

    fn pop(&self) -> Option<Arc<Ticket>> {
        // Relaxed: a ticket missed here is found by the check in `WakeFirst`.
        if self.waiting_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.change_waiting(VecDeque::pop_front)
    }

    /// Changes the queue and its length together. A ticket that is queued but not counted yet could be served in the place
    /// of another one that is counted: that one would be left behind with a count of zero, and its caller asleep.
    fn change_waiting<R>(&self, change: impl FnOnce(&mut VecDeque<Arc<Ticket>>) -> R) -> R {
        let mut waiting = self.waiting.lock();
        let answer = change(&mut waiting);
        // Relaxed: the fences in `commit_in_group` and `WakeFirst` order it against the commit lock.
        self.waiting_count.store(waiting.len(), Ordering::Relaxed);
        answer
    }

    #[cold]
    fn wake_first(&self) {
        let first = self.waiting.lock().front().map(|ticket| ticket.thread.clone());
        if let Some(thread) = first {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that one commit runs at a time and that numbers are given without gaps.
    #[derive(Default)]
    struct Counter {
        last: SeqNo,
        log: Vec<u8>,
        in_doubt: bool,
    }
    impl Commit for Counter {
        fn commit(&mut self, request: &Request) -> Result<SeqNo> {
            if self.in_doubt {
                return Err(Error::Closed);
            }
            self.last += SeqNo::from(request.count);
            self.log.extend_from_slice(&request.encoded);
            assert!(request.encoded != PANICS, "as asked for");
            Ok(self.last)
        }

        fn in_doubt(&mut self) {
            self.in_doubt = true;
        }
    }

    /// A request that panics once it is half committed.
    const PANICS: [u8; 1] = [0xff];

    fn request(encoded: Vec<u8>) -> Request {
        Request { encoded, count: 1, durability: Durability::Buffered, first_seqno: None }
    }

    /// The panic came up in whoever served the group; the others were never woken, or went on with a half changed
    /// state.
    #[test]
    fn a_panic_leaves_nobody_waiting_and_nothing_is_committed_after_it() {
        const EACH: usize = if cfg!(miri) { 20 } else { 2000 };
        let queue = CommitQueue::new(Counter::default());
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let queue = &queue;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let encoded = if thread == 0 && n == EACH / 2 { PANICS.to_vec() } else { vec![thread] };
                        let commit = || queue.commit(request(encoded)).1.is_ok();
                        let _panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(commit));
                    }
                });
            }
        });
        queue.with_state(|state| {
            assert!(state.in_doubt);
            assert_eq!(state.log.last(), Some(&PANICS[0]), "something was committed on a half changed state");
        });
    }

    #[test]
    fn a_caller_whose_request_panicked_in_the_group_of_another_is_told() {
        let queue = CommitQueue::new(Counter::default());
        std::thread::scope(|scope| {
            let mut held = queue.held(queue.state.lock());
            let caller = scope.spawn(|| queue.commit(request(PANICS.to_vec())).1);
            wait_for_callers(&queue, 1);
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.serve(&mut held)));
            assert!(served.is_err(), "it comes up in whoever serves");
            drop(held);
            assert!(matches!(caller.join().unwrap(), Err(Error::ReadOnly { .. })));
        });
    }

    #[test]
    fn every_request_of_every_thread_is_committed_once_in_its_order() {
        const EACH: u32 = if cfg!(miri) { 20 } else { 20_000 };
        let queue = CommitQueue::new(Counter::default());
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let queue = &queue;
                scope.spawn(move || {
                    let mut last = 0;
                    let mut encoded = Vec::new();
                    for _ in 0..EACH {
                        encoded.clear();
                        encoded.push(thread);
                        let (request, answer) = queue.commit(request(encoded));
                        encoded = request.encoded;
                        let seqno = answer.unwrap();
                        assert!(seqno > last, "an own write never gets an older number than the one before");
                        last = seqno;
                    }
                });
            }
        });
        queue.with_state(|state| {
            assert_eq!(state.last, 4 * SeqNo::from(EACH));
            for thread in 0..4u8 {
                assert_eq!(state.log.iter().filter(|&&t| t == thread).count(), EACH as usize);
            }
        });
    }

    fn numbers(count: u32) -> Request {
        Request { count, ..request(Vec::new()) }
    }

    /// Waits until `n` callers stand in the queue, and then until they gave up spinning.
    fn wait_for_callers<S: Commit>(queue: &CommitQueue<S>, n: usize) {
        while queue.waiting_count.load(Ordering::SeqCst) < n {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    #[test]
    fn the_holder_of_the_lock_commits_for_those_that_wait() {
        let queue = CommitQueue::new(Counter::default());
        let mut held = queue.held(queue.state.lock());
        std::thread::scope(|scope| {
            let callers = [(); 3].map(|()| scope.spawn(|| queue.commit(numbers(1)).1.unwrap()));
            wait_for_callers(&queue, 3);
            queue.serve(&mut held);
            assert_eq!(held.state.last, 3, "before the lock is free");
            let mut answers = callers.map(|caller| caller.join().unwrap());
            answers.sort_unstable();
            assert_eq!(answers, [1, 2, 3]);
            drop(held);
        });
        assert!(queue.pop().is_none() && queue.waiting_count.load(Ordering::SeqCst) == 0);
    }

    #[test]
    fn a_caller_that_came_too_late_to_be_served_is_woken() {
        let queue = CommitQueue::new(Counter::default());
        let held = queue.state.lock();
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| queue.commit(numbers(1)).1.unwrap());
            wait_for_callers(&queue, 1);
            // As if it had come after the last look: let go of without being served.
            drop(held);
            queue.wake_first();
            assert_eq!(caller.join().unwrap(), 1);
        });
    }

    #[test]
    fn whatever_held_the_lock_serves_those_that_wait() {
        let queue = CommitQueue::new(Counter::default());
        std::thread::scope(|scope| {
            let caller = queue.with_state(|state| {
                let caller = scope.spawn(|| queue.commit(numbers(2)).1.unwrap());
                wait_for_callers(&queue, 1);
                state.last = 10;
                caller
            });
            assert_eq!(caller.join().unwrap(), 12);
        });
    }
}
