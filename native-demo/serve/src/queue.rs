//! The jobs that wait for the engine. Input: jobs of the HTTP side. Output: one job at a time.
//!
//! Callers take turns, and so do the users of one caller; the jobs of one user keep their order. A caller alone may use the
//! whole queue. When the queue is full, a caller with fewer jobs still gets in: the caller with the most jobs loses its newest
//! one. So no caller can keep another one out, also not by inventing users, and no share has to be reserved for callers that
//! may never come.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::job::{Job, JobEvent, Problem};

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Number of jobs.
    pub jobs: usize,
    /// Bytes of their pictures and texts.
    pub bytes: usize,
}

/// What [`Queue::next`] returns.
pub enum Next {
    /// The next job, and when it came.
    Job(Box<Job>, Instant),
    /// No job came in time.
    Timeout,
    /// The queue is closed.
    Closed,
}

/// A job that waits.
struct Waiting {
    job: Job,
    bytes: usize,
    since: Instant,
    /// A user has one job per round.
    round: usize,
}

/// The jobs of one caller; at least one.
struct Line {
    caller: String,
    /// By round.
    jobs: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    /// The caller whose turn it is comes first.
    lines: VecDeque<Line>,
    jobs: usize,
    bytes: usize,
    closed: bool,
}

/// Seconds after which a refused client should ask again.
const RETRY: u64 = 2;

/// The queue.
pub struct Queue {
    limits: QueueLimits,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Adds a job.
    ///
    /// # Errors
    /// [`Problem`] with status 429 if there is no room, 413 if the job alone is larger than the queue, and 503 after
    /// [`Queue::close`]. The job is dropped; its events get nothing.
    pub fn push(&self, job: Job) -> Result<(), Problem> {
        let bytes = job.bytes();
        if bytes > self.limits.bytes {
            let most = self.limits.bytes;
            let message = format!(
                "expected at most {most} bytes of pictures and text, got {bytes}; send fewer or smaller pictures"
            );
            return Err(Problem { status: 413, ..Problem::request("too_large", Some("messages"), message) });
        }
        let mut state = self.state();
        if state.closed {
            return Err(Problem::closing());
        }
        let mut dropped = Vec::new();
        if !state.fits(self.limits, bytes) {
            dropped = state.remove_over();
        }
        let room = state.make_room(self.limits, &job.client, bytes);
        let result = match room {
            Some(newest) => {
                let full = |waiting| (waiting, busy(self.limits));
                dropped.extend(newest.into_iter().map(full));
                let round = state.round(&job.client);
                state.add(Waiting { job, bytes, since: Instant::now(), round });
                self.changed.notify_one();
                Ok(())
            }
            None => Err(busy(self.limits)),
        };
        drop(state);
        fail(dropped);
        result
    }

    /// Waits for a job, at most for `patience`, and removes it. A job whose client has gone or whose time is over is never
    /// returned.
    pub fn next(&self, patience: Option<Duration>) -> Next {
        let end = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state();
        loop {
            if state.closed {
                return Next::Closed;
            }
            if let Some(Waiting { job, since, .. }) = state.take_first() {
                match job.is_over() {
                    // Its receiver does nothing that takes time, so the lock may be held.
                    Some(why) => {
                        job.send(JobEvent::Failed(why));
                    }
                    None => return Next::Job(Box::new(job), since),
                }
                continue;
            }
            state = match end {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Next::Timeout;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Fails the jobs whose time is over, so that they need not wait for their turn.
    pub fn expire(&self) {
        let over = self.state().remove_over();
        fail(over);
    }

    /// Fails all waiting jobs with status 503, and refuses new ones.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        (state.jobs, state.bytes) = (0, 0);
        let lines = std::mem::take(&mut state.lines);
        drop(state);
        self.changed.notify_all();
        fail(lines.into_iter().flat_map(|line| line.jobs).map(|waiting| (waiting, Problem::closing())).collect());
    }

    /// Number of waiting jobs.
    pub fn len(&self) -> usize {
        self.state().jobs
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the waiting jobs.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy(limits: QueueLimits) -> Problem {
    let QueueLimits { jobs, bytes } = limits;
    Problem::busy(format!("the queue is full (at most {jobs} requests and {bytes} bytes wait); ask again later"), RETRY)
}

/// The caller of a client.
pub(crate) fn caller(client: &str) -> &str {
    client.split('/').next().unwrap_or_default()
}

/// Ends jobs, outside of the lock.
fn fail(jobs: Vec<(Waiting, Problem)>) {
    for (waiting, why) in jobs {
        waiting.job.send(JobEvent::Failed(why));
    }
}

impl State {
    fn fits(&self, limits: QueueLimits, bytes: usize) -> bool {
        self.jobs < limits.jobs && self.bytes + bytes <= limits.bytes
    }

    fn add(&mut self, waiting: Waiting) {
        self.jobs += 1;
        self.bytes += waiting.bytes;
        let caller = caller(&waiting.job.client);
        match self.lines.iter_mut().find(|line| line.caller == caller) {
            Some(line) => {
                line.bytes += waiting.bytes;
                let at = line.jobs.partition_point(|other| other.round <= waiting.round);
                line.jobs.insert(at, waiting);
            }
            None => {
                let (caller, bytes) = (caller.to_owned(), waiting.bytes);
                self.lines.push_back(Line { caller, jobs: VecDeque::from([waiting]), bytes });
            }
        }
    }

    /// The round of the next job of a client: after the client's last one, or the current one.
    fn round(&self, client: &str) -> usize {
        let Some(line) = self.lines.iter().find(|line| line.caller == caller(client)) else { return 0 };
        let own = line.jobs.iter().rfind(|waiting| waiting.job.client == client);
        own.map_or_else(|| line.jobs.front().map_or(0, |first| first.round), |last| last.round + 1)
    }

    /// Removes the first job of the caller whose turn it is; that caller is then the last one.
    fn take_first(&mut self) -> Option<Waiting> {
        let mut line = self.lines.pop_front()?;
        let first = line.jobs.pop_front()?;
        line.bytes -= first.bytes;
        self.jobs -= 1;
        self.bytes -= first.bytes;
        if !line.jobs.is_empty() {
            self.lines.push_back(line);
        }
        Some(first)
    }

    /// Removes the jobs that must not run any more.
    fn remove_over(&mut self) -> Vec<(Waiting, Problem)> {
        let mut over = Vec::new();
        for line in &mut self.lines {
            let jobs = std::mem::take(&mut line.jobs);
            for waiting in jobs {
                match waiting.job.is_over() {
                    Some(why) => {
                        line.bytes -= waiting.bytes;
                        self.jobs -= 1;
                        self.bytes -= waiting.bytes;
                        over.push((waiting, why));
                    }
                    None => line.jobs.push_back(waiting),
                }
            }
        }
        self.lines.retain(|line| !line.jobs.is_empty());
        over
    }

    /// Makes room for a job of `client`: removes the newest jobs of the caller that has the most, as long as that one keeps at
    /// least as much as the caller of `client` will have. If both are the same caller, as long as they are jobs of users that
    /// have more than `client`. None if that is not enough; then nothing is removed.
    fn make_room(&mut self, limits: QueueLimits, client: &str, bytes: usize) -> Option<Vec<Waiting>> {
        if self.fits(limits, bytes) {
            return Some(Vec::new());
        }
        let (round, caller) = (self.round(client), caller(client));
        let own = self.lines.iter().find(|line| line.caller == caller);
        let (own_jobs, own_bytes) = own.map_or((1, bytes), |line| (line.jobs.len() + 1, line.bytes + bytes));
        let many = self.jobs >= limits.jobs;
        let line = self.lines.iter_mut().max_by_key(|line| if many { line.jobs.len() } else { line.bytes })?;
        let (mut removed, mut freed) = (0, 0);
        for waiting in line.jobs.iter().rev() {
            if self.jobs - removed < limits.jobs && self.bytes - freed + bytes <= limits.bytes {
                break;
            }
            removed += 1;
            freed += waiting.bytes;
        }
        let (left_jobs, left_bytes) = (line.jobs.len() - removed, line.bytes - freed);
        let enough = self.jobs - removed < limits.jobs && self.bytes - freed + bytes <= limits.bytes;
        let fair = match many {
            _ if line.caller == caller => line.jobs.range(left_jobs..).all(|waiting| waiting.round > round),
            true => left_jobs >= own_jobs,
            false => left_bytes >= own_bytes,
        };
        if !(enough && fair) {
            return None;
        }
        let newest = line.jobs.split_off(left_jobs);
        line.bytes = left_bytes;
        self.jobs -= removed;
        self.bytes -= freed;
        self.lines.retain(|line| !line.jobs.is_empty());
        Some(newest.into())
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use fovea_model::{AskOptions, Cancel, Messages};
    use fovea_openai::ChatRequest;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn job(client: &str, id: usize, bytes: usize) -> (Job, UnboundedReceiver<JobEvent>) {
        let (events, receiver) = unbounded_channel();
        let request = ChatRequest {
            model: None,
            messages: Messages::default(),
            pictures: Vec::new(),
            options: AskOptions::default(),
            stream: false,
            include_usage: false,
        };
        let pictures = vec![vec![0; bytes].into()];
        let until = Instant::now() + Duration::from_secs(60);
        let (id, client) = (id.to_string(), client.to_owned());
        (Job { id, client, request, pictures, until, cancel: Cancel::default(), events }, receiver)
    }

    fn failed(receiver: &mut UnboundedReceiver<JobEvent>) -> Option<Problem> {
        match receiver.try_recv() {
            Ok(JobEvent::Failed(why)) => Some(why),
            _ => None,
        }
    }

    fn pop(queue: &Queue) -> Option<Box<Job>> {
        match queue.next(None) {
            Next::Job(job, _) => Some(job),
            Next::Timeout | Next::Closed => None,
        }
    }

    fn order(queue: &Queue) -> Vec<String> {
        (0..queue.len()).map_while(|_| pop(queue)).map(|job| format!("{}{}", job.client, job.id)).collect()
    }

    #[test]
    fn clients_take_turns_and_one_client_keeps_its_order() {
        let queue = Queue::new(QueueLimits { jobs: 16, bytes: 1 << 20 });
        let mut receivers = Vec::new();
        for (client, id) in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("c", 2)] {
            let (job, receiver) = job(client, id, 1);
            queue.push(job).expect("room");
            receivers.push(receiver);
        }
        assert_eq!((queue.len(), queue.bytes()), (6, 6), "jobs and bytes (got, expected)");
        assert_eq!(order(&queue), ["a1", "b1", "c1", "a2", "c2", "a3"], "(got, expected)");
        assert!(queue.is_empty() && queue.bytes() == 0);
    }

    #[test]
    fn users_of_one_caller_share_its_turns() {
        let queue = Queue::new(QueueLimits { jobs: 5, bytes: 1 << 20 });
        let mut receivers = Vec::new();
        for (client, id) in [("a/x", 1), ("a/x", 2), ("a/x", 3), ("a/y", 1), ("b", 1)] {
            let (job, receiver) = job(client, id, 1);
            queue.push(job).expect("room");
            receivers.push(receiver);
        }
        // Another user of `a` gets in for the newest job of `a/x`; one more caller gets in for the next one.
        for client in ["a/z", "c"] {
            let (job, receiver) = job(client, 1, 1);
            queue.push(job).expect("room");
            receivers.push(receiver);
        }
        let lost: Vec<bool> = receivers.iter_mut().map(|receiver| failed(receiver).is_some()).collect();
        assert_eq!(lost, [false, true, true, false, false, false, false], "(got, expected)");
        assert_eq!(order(&queue), ["a/x1", "b1", "c1", "a/y1", "a/z1"], "(got, expected)");
    }

    #[test]
    fn invented_users_do_not_keep_another_caller_out() {
        let queue = Queue::new(QueueLimits { jobs: 3, bytes: 1 << 20 });
        let mut receivers = Vec::new();
        for client in ["a/1", "a/2", "a/3", "b"] {
            let (job, receiver) = job(client, 0, 1);
            queue.push(job).expect("room");
            receivers.push(receiver);
        }
        assert_eq!(order(&queue), ["a/10", "b0", "a/20"], "(got, expected)");
    }

    #[test]
    fn a_full_queue_refuses_a_client_that_has_the_most_and_admits_another() {
        let queue = Queue::new(QueueLimits { jobs: 4, bytes: 1 << 20 });
        let mut receivers: Vec<_> = (0..4)
            .map(|id| {
                let (job, receiver) = job("a", id, 1);
                queue.push(job).expect("room");
                receiver
            })
            .collect();
        let (more, _receiver) = job("a", 4, 1);
        let refused = queue.push(more).expect_err("no room");
        assert_eq!((refused.status, refused.retry_after), (429, Some(RETRY)), "(got, expected)");
        let mut others = Vec::new();
        for id in 0..2 {
            let (job, receiver) = job("b", id, 1);
            queue.push(job).expect("room for a client with fewer jobs");
            others.push(receiver);
        }
        // Both have two now.
        let (more, _receiver) = job("b", 2, 1);
        assert_eq!(queue.push(more).expect_err("no room").status, 429);
        let lost: Vec<bool> = receivers.iter_mut().map(|receiver| failed(receiver).is_some()).collect();
        assert_eq!(lost, [false, false, true, true], "the newest are lost (got, expected)");
        assert_eq!(order(&queue), ["a0", "b0", "a1", "b1"], "(got, expected)");
    }

    #[test]
    fn bytes_are_limited() {
        let queue = Queue::new(QueueLimits { jobs: 100, bytes: 100 });
        let (large, _receiver) = job("a", 0, 101);
        assert_eq!(queue.push(large).expect_err("too large").status, 413);
        let (first, mut lost) = job("a", 0, 60);
        let (second, mut kept) = job("b", 0, 40);
        queue.push(first).expect("room");
        queue.push(second).expect("room");
        // `a` would keep nothing, so nothing is removed.
        let (third, _receiver) = job("c", 0, 50);
        assert_eq!(queue.push(third).expect_err("no room").status, 429);
        assert!(failed(&mut lost).is_none() && failed(&mut kept).is_none());
        assert_eq!((queue.len(), queue.bytes()), (2, 100), "(got, expected)");
        let (small, _receiver) = job("c", 0, 20);
        assert_eq!(queue.push(small).expect_err("no room").status, 429);
        // With two jobs, `a` keeps one.
        let queue = Queue::new(QueueLimits { jobs: 100, bytes: 100 });
        let mut receivers = Vec::new();
        for (client, bytes) in [("a", 50), ("a", 40), ("c", 50)] {
            let (job, receiver) = job(client, 0, bytes);
            queue.push(job).expect("room");
            receivers.push(receiver);
        }
        assert_eq!((queue.len(), queue.bytes()), (2, 100), "(got, expected)");
        assert!(failed(&mut receivers[1]).is_some(), "the newest is lost");
    }

    #[test]
    fn jobs_that_are_over_do_not_run() {
        let queue = Queue::new(QueueLimits { jobs: 2, bytes: 100 });
        let (mut late, mut late_receiver) = job("a", 0, 1);
        late.until = Instant::now();
        let (gone, gone_receiver) = job("a", 1, 1);
        queue.push(late).expect("room");
        queue.push(gone).expect("room");
        drop(gone_receiver);
        // They make room, though the same client fills the queue.
        let (next, mut receiver) = job("a", 2, 1);
        let cancel = next.cancel.clone();
        queue.push(next).expect("room");
        assert_eq!(failed(&mut late_receiver).map(|why| why.code), Some("timeout"));
        cancel.cancel();
        assert!(matches!(queue.next(Some(Duration::from_millis(1))), Next::Timeout));
        assert_eq!(failed(&mut receiver).map(|why| why.code), Some("cancelled"));
        let (mut late, mut late_receiver) = job("a", 3, 1);
        late.until = Instant::now();
        queue.push(late).expect("room");
        queue.expire();
        assert_eq!(failed(&mut late_receiver).map(|why| why.status), Some(504));
        assert!(queue.is_empty() && queue.bytes() == 0);
    }

    #[test]
    fn closing_ends_waiting_jobs_and_the_wait_for_one() {
        let queue = Queue::new(QueueLimits { jobs: 2, bytes: 100 });
        let (waiting, mut receiver) = job("a", 0, 1);
        queue.push(waiting).expect("room");
        assert!(pop(&queue).is_some());
        let popper = {
            let queue = queue.clone();
            thread::spawn(move || pop(&queue).is_none())
        };
        thread::sleep(Duration::from_millis(20));
        let (waiting, mut other) = job("a", 1, 1);
        queue.close();
        assert!(popper.join().expect("no panic"), "expected None after close");
        assert_eq!(queue.push(waiting).expect_err("closed").status, 503);
        assert!(failed(&mut receiver).is_none() && failed(&mut other).is_none());
        let queue = Queue::new(QueueLimits { jobs: 2, bytes: 100 });
        let (waiting, mut receiver) = job("a", 0, 1);
        queue.push(waiting).expect("room");
        queue.close();
        assert_eq!(failed(&mut receiver).map(|why| why.status), Some(503));
        assert!(queue.is_empty() && queue.bytes() == 0);
    }
}
