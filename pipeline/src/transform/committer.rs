//! A thread that commits one batch while the next one is made.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::batch::{Batch, Sinks, Touched};
use crate::error::{Code, Error, Result};
use crate::kafka::Place;
use crate::kafka::producer::{Failure, Offsets, TransactionalProducer};

/// Whether a batch is being committed.
#[derive(Default)]
pub(super) struct Busy {
    busy: Mutex<bool>,
    changed: Condvar,
}

impl Busy {
    fn set(&self, busy: bool) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = busy;
        self.changed.notify_all();
    }

    /// Waits until nothing is being committed, at most that long.
    pub fn wait(&self, limit: Duration) {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(busy, limit, |busy| *busy)
            .unwrap_or_else(PoisonError::into_inner);
        drop(waited);
    }
}

/// A batch and how its transaction ended.
///
/// Success brings the ends of the partitions written.
pub(super) type Outcome = (Batch, Result<HashMap<Place, i64>, Failure>);

/// Commits batches, one at a time.
pub(super) struct Committer {
    producer: Arc<TransactionalProducer>,
    busy: Arc<Busy>,
    /// What the batch that is being committed does to dead letters.
    under_way: Option<Touched>,
    batches: Option<Sender<Batch>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub fn start(
        producer: TransactionalProducer,
        sinks: Arc<Sinks>,
        busy: Arc<Busy>,
    ) -> Result<Self> {
        let producer = Arc::new(producer);
        let (batches, to_commit) = channel::<Batch>();
        let (done, outcomes) = channel();
        let (shared, still) = (Arc::clone(&producer), Arc::clone(&busy));
        let work = move || {
            for batch in to_commit {
                let result = commit(&shared, &sinks, &batch);
                still.set(false);
                if done.send((batch, result)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("commit".into())
            .spawn(work);
        Ok(Committer {
            producer,
            busy,
            under_way: None,
            batches: Some(batches),
            outcomes,
            thread: Some(
                thread.map_err(|e| Error::new(Code::Invariant, format!("no thread: {e}")))?,
            ),
        })
    }

    /// Whether nothing is under way, so that a batch may be handed over.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// Hands a batch over. Only when idle: the batch after one that fails must
    /// never be committed.
    pub fn commit(&mut self, mut batch: Batch) -> Result<()> {
        self.under_way = Some(std::mem::take(&mut batch.touched));
        self.busy.set(true);
        let batches = self.batches.as_ref();
        match batches.is_some_and(|batches| batches.send(batch).is_ok()) {
            true => Ok(()),
            false => Err(gone()),
        }
    }

    /// What the batch under way does to dead letters.
    pub fn touched(&self) -> Option<&Touched> {
        self.under_way.as_ref()
    }

    /// How the batch under way has ended, if there is one; waits for it if told to.
    pub fn outcome(&mut self, wait: bool) -> Result<Option<Outcome>> {
        if self.is_idle() {
            return Ok(None);
        }
        let outcome = if wait {
            Some(self.outcomes.recv().map_err(|_| gone())?)
        } else {
            match self.outcomes.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(std::sync::mpsc::TryRecvError::Empty) => None,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Err(gone()),
            }
        };
        if outcome.is_some() {
            self.under_way = None;
        }
        Ok(outcome)
    }

    /// The producer, for a transaction without records. Only when idle.
    pub fn producer(&self) -> &TransactionalProducer {
        &self.producer
    }
}

impl Drop for Committer {
    /// Lets the batch under way come to its end.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where its outcome was missed.
            let _ = thread.join();
        }
    }
}

fn commit(
    producer: &TransactionalProducer,
    sinks: &Sinks,
    batch: &Batch,
) -> Result<HashMap<Place, i64>, Failure> {
    let Some(group) = batch.group.as_deref() else {
        let error = Error::new(Code::Invariant, "a batch without a group");
        return Err(Failure::Dead(error));
    };
    let mut next = batch.fence.clone();
    next.extend(
        batch
            .spans
            .iter()
            .map(|span| (span.place.clone(), span.next)),
    );
    let offsets = Offsets {
        next: &next,
        metadata: &HashMap::new(),
        group,
    };
    producer.transaction(
        |transaction| batch.send(sinks, transaction),
        Some(offsets),
        |_| {},
    )
}

fn gone() -> Error {
    Error::new(Code::Invariant, "the committing thread has ended")
}
