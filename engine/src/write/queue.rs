//! Callers waiting for the commit lock, combined into groups.
//!
//! Flat combining (Hendler et al., SPAA 2010): a waiting caller leaves its batch in a ticket; whoever holds the lock
//! commits the tickets it finds. A caller that gets the lock itself while waiting does the same. No caller depends on
//! another one being scheduled: the holder wakes one waiter after it let go of the lock, and each waiter tries the lock
//! before it sleeps.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::thread::Thread;

use parking_lot::{Mutex, MutexGuard};

use crate::error::Result;
use crate::key::SeqNo;
use crate::options::Durability;

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
}

/// A waiting caller's batch and, afterwards, the answer.
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

thread_local! {
    /// Each thread waits on one ticket at a time and uses the same one again.
    static TICKET: RefCell<Option<Arc<Ticket>>> = const { RefCell::new(None) };
}

/// How often a waiter looks before it sleeps: about as long as a commit takes, less than a sleep and a wake-up cost.
const SPINS: u32 = 200;

/// The commit lock with its waiting callers.
pub(crate) struct CommitQueue<S> {
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
        let mut state = self.state.lock();
        let answer = change(&mut state);
        self.release(state);
        answer
    }

    /// Commits `request`, here or in the group of another caller, and gives it back with the answer (so that its memory
    /// can be used again).
    pub(crate) fn commit(&self, request: Request) -> (Request, Result<SeqNo>) {
        if let Some(mut state) = self.state.try_lock() {
            let answer = state.commit(&request);
            self.release(state);
            return (request, answer);
        }
        self.commit_in_group(request)
    }

    #[cold]
    fn commit_in_group(&self, request: Request) -> (Request, Result<SeqNo>) {
        let ticket = TICKET.with_borrow_mut(|mine| mine.take()).unwrap_or_else(|| {
            Arc::new(Ticket { body: Mutex::default(), done: AtomicBool::new(false), thread: std::thread::current() })
        });
        // Relaxed: the ticket is handed over by the queue's lock below.
        ticket.done.store(false, Ordering::Relaxed);
        *ticket.body.lock() = Body { request: Some(request), answer: None };
        self.waiting.lock().push_back(ticket.clone());
        self.waiting_count.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `release`: either the holder sees this ticket after it let go, or the `try_lock`
        // below sees the lock free.
        fence(Ordering::SeqCst);
        let mut spins = 0;
        while !ticket.done.load(Ordering::Acquire) {
            if let Some(state) = self.state.try_lock() {
                self.release(self.serve(state));
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
        let mut body = ticket.body.lock();
        let (request, answer) = (body.request.take(), body.answer.take());
        drop(body);
        TICKET.with_borrow_mut(|mine| *mine = Some(ticket));
        match (request, answer) {
            (Some(request), Some(answer)) => (request, answer),
            _ => unreachable!("`done` is set only after the answer was stored, and the request stays in the body"),
        }
    }

    /// Commits everything that waits.
    fn serve<'s>(&self, mut state: MutexGuard<'s, S>) -> MutexGuard<'s, S> {
        while let Some(ticket) = self.pop() {
            let mut body = ticket.body.lock();
            if let Some(request) = &body.request {
                let answer = state.commit(request);
                body.answer = Some(answer);
            }
            drop(body);
            let thread = ticket.thread.clone();
            ticket.done.store(true, Ordering::Release);
            thread.unpark();
        }
        state
    }

    fn pop(&self) -> Option<Arc<Ticket>> {
        // Relaxed: a ticket missed here is found by the check in `release`.
        if self.waiting_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let ticket = self.waiting.lock().pop_front()?;
        self.waiting_count.fetch_sub(1, Ordering::Relaxed);
        Some(ticket)
    }

    /// Serves the waiting callers, lets go of the lock, and wakes one that came too late to be served, if there is one.
    #[inline]
    fn release(&self, state: MutexGuard<'_, S>) {
        drop(self.serve(state));
        fence(Ordering::SeqCst);
        if self.waiting_count.load(Ordering::Relaxed) > 0 {
            self.wake_first();
        }
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
    }
    impl Commit for Counter {
        fn commit(&mut self, request: &Request) -> Result<SeqNo> {
            self.last += SeqNo::from(request.count);
            self.log.extend_from_slice(&request.encoded);
            Ok(self.last)
        }
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
                        let request =
                            Request { encoded, count: 1, durability: Durability::Buffered, first_seqno: None };
                        let (request, answer) = queue.commit(request);
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

    fn request(count: u32) -> Request {
        Request { encoded: Vec::new(), count, durability: Durability::Buffered, first_seqno: None }
    }

    /// Waits until `n` callers stand in the queue, and then until they gave up spinning.
    fn wait_for_callers<S>(queue: &CommitQueue<S>, n: usize) {
        while queue.waiting_count.load(Ordering::SeqCst) < n {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    #[test]
    fn the_holder_of_the_lock_commits_for_those_that_wait() {
        let queue = CommitQueue::new(Counter::default());
        let held = queue.state.lock();
        std::thread::scope(|scope| {
            let callers = [(); 3].map(|()| scope.spawn(|| queue.commit(request(1)).1.unwrap()));
            wait_for_callers(&queue, 3);
            let served = queue.serve(held);
            assert_eq!(served.last, 3, "before the lock is free");
            let mut answers = callers.map(|caller| caller.join().unwrap());
            answers.sort_unstable();
            assert_eq!(answers, [1, 2, 3]);
            drop(served);
        });
        assert!(queue.pop().is_none() && queue.waiting_count.load(Ordering::SeqCst) == 0);
    }

    #[test]
    fn a_caller_that_came_too_late_to_be_served_is_woken() {
        let queue = CommitQueue::new(Counter::default());
        let held = queue.state.lock();
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| queue.commit(request(1)).1.unwrap());
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
                let caller = scope.spawn(|| queue.commit(request(2)).1.unwrap());
                wait_for_callers(&queue, 1);
                state.last = 10;
                caller
            });
            assert_eq!(caller.join().unwrap(), 12);
        });
    }
}
