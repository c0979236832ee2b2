//! The threads that may sleep: bounded pools of `std` threads, made as work comes and kept.
//!
//! Disk I/O and third-party copies have pools of their own, so that copies, which last for hours and themselves wait
//! for I/O, never take the threads that I/O needs: no order of requests can block them all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::copy::CopyManager;
use crate::lu::{Executor, Work};
use crate::scsi::opcode::Home;
use crate::scsi::xcopy::MAX_CONCURRENT;

/// EXTENDED COPY commands that run at a time, and a few more that are told that there is no room.
const COPY_THREADS: usize = MAX_CONCURRENT as usize + 4;

/// The threads of an array.
pub(super) struct Threads {
    io: Pool<Work>,
    copies: Pool<Work>,
}

impl Threads {
    pub(super) fn new(io_threads: usize, manager: &Arc<CopyManager>) -> Arc<Self> {
        let (copying, answering) = (Arc::clone(manager), Arc::clone(manager));
        Arc::new(Self {
            io: Pool::new("cleave-io", io_threads, move |work: Work| match work.row().home {
                Home::Unit => work.run(),
                Home::CopyManager => answering.run(work),
            }),
            copies: Pool::new("cleave-copy", COPY_THREADS, move |work| copying.run(work)),
        })
    }

    /// Waits until nothing runs any more, at most until `deadline`. True if that came about.
    pub(super) fn drain(&self, deadline: Instant) -> bool {
        self.copies.drain(deadline) && self.io.drain(deadline)
    }
}

impl Executor for Threads {
    fn blocking(&self, work: Work) {
        self.io.submit(work);
    }

    fn third_party(&self, work: Work) {
        // Never here: the end of one command starts the next, and a thousand of them would stand on one stack.
        if CopyManager::is_quick(&work) {
            self.io.submit(work);
        } else {
            self.copies.submit(work);
        }
    }
}

/// A bounded pool that runs each job it is given by one function.
pub(super) struct Pool<J: Send + 'static> {
    shared: Arc<Shared<J>>,
}

struct Shared<J> {
    name: &'static str,
    limit: usize,
    run: Box<dyn Fn(J) + Send + Sync>,
    state: Mutex<State<J>>,
    wake: Condvar,
    quiet: Condvar,
}

struct State<J> {
    queue: VecDeque<J>,
    threads: usize,
    idle: usize,
    stopping: bool,
}

impl<J: Send + 'static> Pool<J> {
    /// A pool of at most `limit` threads, each doing `run` with one job after the other.
    pub(super) fn new(name: &'static str, limit: usize, run: impl Fn(J) + Send + Sync + 'static) -> Self {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0, stopping: false };
        let shared = Shared {
            name,
            limit: limit.max(1),
            run: Box::new(run),
            state: Mutex::new(state),
            wake: Condvar::new(),
            quiet: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Queues `job`. The queue's length is bounded by those who admit the jobs (the task sets).
    pub(super) fn submit(&self, job: J) {
        let mut state = self.shared.state.lock();
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= self.shared.limit {
            drop(state);
            self.shared.wake.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let spawned =
            std::thread::Builder::new().name(self.shared.name.to_owned()).spawn(move || serve(&shared));
        if let Err(error) = spawned {
            tracing::error!(pool = self.shared.name, %error, "no new worker thread");
            let mut state = self.shared.state.lock();
            state.threads -= 1;
            if state.threads == 0 {
                // Nobody else would ever run it: late is better than never.
                let job = state.queue.pop_front();
                drop(state);
                job.into_iter().for_each(|job| (self.shared.run)(job));
            }
        }
    }

    /// Waits until no job waits or runs, at most until `deadline`. True if that came about.
    pub(super) fn drain(&self, deadline: Instant) -> bool {
        let mut state = self.shared.state.lock();
        while !(state.queue.is_empty() && state.idle == state.threads) {
            if self.shared.quiet.wait_until(&mut state, deadline).timed_out() {
                return state.queue.is_empty() && state.idle == state.threads;
            }
        }
        true
    }
}

impl<J: Send + 'static> Drop for Pool<J> {
    /// Lets the threads end when the queue is empty; does not wait for them.
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_all();
    }
}

fn serve<J>(shared: &Shared<J>) {
    let mut state = shared.state.lock();
    loop {
        if let Some(job) = state.queue.pop_front() {
            drop(state);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (shared.run)(job)));
            if outcome.is_err() {
                // The job's own token has answered HARDWARE ERROR while it unwound.
                tracing::error!(pool = shared.name, "a job panicked");
            }
            state = shared.state.lock();
            continue;
        }
        if state.stopping {
            state.threads -= 1;
            return;
        }
        state.idle += 1;
        if state.idle == state.threads {
            shared.quiet.notify_all();
        }
        shared.wake.wait(&mut state);
        state.idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_job_runs_once_and_drain_waits_for_the_last() {
        let done = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&done);
        let pool = Pool::new("test", 3, move |()| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (0..1000).for_each(|_| pool.submit(()));
        assert!(pool.drain(Instant::now() + Duration::from_secs(20)));
        assert_eq!(done.load(Ordering::SeqCst), 1000);
    }

    #[test]
    fn as_many_jobs_run_at_once_as_the_limit_allows() {
        let (started, starts) = mpsc::channel();
        let pool = Pool::new("test", 2, move |gate: mpsc::Receiver<()>| {
            started.send(()).unwrap();
            let _ = gate.recv();
        });
        let gates: Vec<_> = (0..3)
            .map(|_| {
                let (open, gate) = mpsc::channel();
                pool.submit(gate);
                open
            })
            .collect();
        starts.recv_timeout(Duration::from_secs(20)).unwrap();
        starts.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(starts.try_recv().is_err(), "a third thread ran");
        assert!(!pool.drain(Instant::now()));
        drop(gates);
        assert!(pool.drain(Instant::now() + Duration::from_secs(20)));
    }

    #[test]
    fn a_panicking_job_costs_neither_the_thread_nor_the_next_job() {
        let (done, dones) = mpsc::channel();
        let pool = Pool::new("test", 1, move |fail: bool| {
            assert!(!fail, "meant to");
            done.send(()).unwrap();
        });
        pool.submit(true);
        pool.submit(false);
        dones.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
