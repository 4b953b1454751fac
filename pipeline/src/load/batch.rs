//! One batch of one lane, step by step: judge → Pending → apply → outcome.
//! The steps are [`super::Step`]; each can be a crash, and each crash is
//! harmless because of what was committed before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_schemas::Entity;

use super::commit::{Changes, KillPoints, OUTCOME, PENDING};
use super::judge::Plan;
use super::kill::kill_point;
use super::lanes::{Batch, Message};
use super::run::Shared;
use super::work::Work;
use super::{EntitySupport, Found, Item, Loader, Outcome, Step, Write};
use crate::deadletter::FailureShare;
use crate::error::{Class, Code, Error, Result};
use crate::idempotency::{Entry, Identity, State};
use crate::kafka::Place;
use crate::kafka::producer::Failure;
use crate::record::{CanonicalKey, Order};
use crate::retry::Backoff;
use crate::status::now;

/// How often the target's shape is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How a batch ended without success.
pub(super) enum Dropped {
    /// Its partitions are gone, or the process stops: another one does it.
    Gone,
    /// A person must act; the lane is blocked.
    Blocked(Error),
    /// The process can't go on.
    Dead(Error),
}

/// Works on the batches of one lane's part.
pub(super) struct Worker<L: Loader> {
    pub(super) shared: Arc<Shared<L>>,
    pub(super) entity: &'static Entity,
    /// Which part of the entity's lane.
    pub(super) part: usize,
    pub(super) support: EntitySupport,
    pub(super) share: FailureShare,
    /// When the target's shape was looked at last.
    pub(super) looked: Option<Instant>,
}

impl<L: Loader> Worker<L> {
    /// Does a batch to its end. On success everything of it is committed and
    /// in memory; on an error nothing of it counts as done.
    pub(super) async fn batch(&mut self, mut batch: Batch) -> Result<(), Dropped> {
        kill_point(Step::Taken);
        self.look_at_target().await?;
        let next = next_offsets(&batch.messages);
        let mut changes = Changes::default();
        let mut works = self.works(&mut batch, &mut changes)?;
        self.fetch(&batch, &mut works).await?;
        let _emptying = self.ask_before_emptying(&works)?;
        let mut plans = self.judge(&works, &mut changes);
        kill_point(Step::Judged);
        self.recover(&batch, &works, &mut plans).await?;
        self.send(&batch, &works, &mut plans).await?;
        kill_point(Step::Applied);
        let dead = self.settle(&works, plans, &mut changes);
        // A batch of released records only moves no offset; the committed ones
        // are sent again, because only offsets are fenced.
        let mut offsets = batch.starts.clone();
        offsets.extend(next);
        self.commit(&batch, offsets, changes, &OUTCOME).await?;
        if let Some(seen) = works.iter().map(|work| work.extracted_at).max() {
            // Not over what another part of the lane was stopped by.
            let (shared, name) = (&self.shared, &self.entity.name);
            let runs = || shared.status.lane_runs(name, Some(seen));
            shared.lanes.unless_held(name, runs);
        }
        for failed in dead {
            self.share.note(failed).map_err(Dropped::Blocked)?;
        }
        Ok(())
    }

    /// Whether the target is still as it was made: one that was altered may take
    /// our records and say nothing. What passes is met by the batch itself.
    async fn look_at_target(&mut self) -> Result<(), Dropped> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        match self.shared.loader.altered(self.entity).await {
            Err(error) if error.class() == Class::Operator => Err(Dropped::Blocked(error)),
            _ => Ok(()),
        }
    }

    /// Asks the target what became of earlier requests.
    async fn recover(
        &self,
        batch: &Batch,
        works: &[Work],
        plans: &mut [Plan<'_>],
    ) -> Result<(), Dropped> {
        let places: Vec<usize> = (0..plans.len())
            .filter(|place| matches!(&plans[*place], Plan::Send(sending) if sending.recover))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let keys: Vec<&CanonicalKey> = places.iter().map(|place| &works[*place].key).collect();
        let mut backoff = Backoff::default();
        let found: Vec<Option<Found>> = loop {
            match self.shared.loader.find(self.entity, &keys).await {
                Ok(found) if found.len() == keys.len() => break found,
                Ok(found) => {
                    return Err(Dropped::Dead(Error::new(
                        Code::Invariant,
                        format!("find answered {} of {} keys", found.len(), keys.len()),
                    )));
                }
                Err(error) => self.wait_or_drop(batch, &error, &mut backoff).await?,
            }
        };
        for (place, found) in places.into_iter().zip(found) {
            let Plan::Send(sending) = &mut plans[place] else {
                continue;
            };
            match found {
                Some(found) => sending.target_id = Some(found.id),
                // Nothing was there after the lease and the index delay: the
                // request never had an effect. A known id that is gone stays
                // known only where the target says so itself.
                None if !matches!(self.support.lease.identity, Identity::Upsert) => {
                    sending.target_id = sending.before.as_ref().and_then(|e| e.target_id.clone());
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Writes Pending where the target needs it, and applies.
    async fn send(
        &self,
        batch: &Batch,
        works: &[Work],
        plans: &mut [Plan<'_>],
    ) -> Result<(), Dropped> {
        let mut open: Vec<usize> = (0..plans.len())
            .filter(|place| matches!(plans[*place], Plan::Send(_)))
            .collect();
        let mut backoff = Backoff::default();
        while !open.is_empty() {
            let pending_since = Instant::now();
            if !self.support.ordered {
                self.commit_pending(batch, works, plans, &open).await?;
            }
            let mut left = Vec::new();
            let mut trouble = None;
            for chunk in open.chunks(self.support.batch.max(1)) {
                // A request must not leave so late that its Pending's lease may
                // lapse at another loader before the target is through with it.
                let fresh = self.support.ordered
                    || matches!(self.support.lease.identity, Identity::Upsert)
                    || pending_since.elapsed() < self.support.lease.length / 2;
                if !fresh || trouble.is_some() {
                    left.extend_from_slice(chunk);
                    continue;
                }
                if self.gone(batch) {
                    return Err(Dropped::Gone);
                }
                if !self.shared.lanes.heard_lately() {
                    // Paused for long: the partitions may be another's by now.
                    left.extend_from_slice(chunk);
                    trouble = Some(Error::new(
                        Code::KafkaBusy,
                        "this process has not heard of its group for a while",
                    ));
                    continue;
                }
                let items: Vec<Item<'_>> = chunk
                    .iter()
                    .filter_map(|place| self.item(&works[*place], &plans[*place]))
                    .collect();
                match self.shared.loader.apply(&items).await {
                    Ok(outcomes) if outcomes.len() == items.len() => {
                        drop(items);
                        for (place, outcome) in chunk.iter().zip(outcomes) {
                            match outcome {
                                Outcome::NotSent(error) => {
                                    left.push(*place);
                                    trouble.get_or_insert(error);
                                }
                                outcome => {
                                    if let Plan::Send(sending) = &mut plans[*place] {
                                        sending.outcome = Some(outcome);
                                    }
                                }
                            }
                        }
                    }
                    Ok(outcomes) => {
                        return Err(Dropped::Dead(Error::new(
                            Code::Invariant,
                            format!("apply answered {} of {}", outcomes.len(), items.len()),
                        )));
                    }
                    Err(error) => {
                        left.extend_from_slice(chunk);
                        trouble = Some(error);
                    }
                }
            }
            open = left;
            if let Some(error) = trouble {
                self.wait_or_drop(batch, &error, &mut backoff).await?;
            }
        }
        Ok(())
    }

    fn item<'i>(&self, work: &'i Work, plan: &'i Plan<'_>) -> Option<Item<'i>> {
        let Plan::Send(sending) = plan else {
            return None;
        };
        Some(Item {
            key: &work.key,
            entity: self.entity,
            order: Order {
                // The same version with more of its links is newer to a target
                // that orders: a killed sender may have written it with fewer.
                reapply: match self.support.ordered {
                    true => work.order.reapply + sending.links.len() as u32,
                    false => work.order.reapply,
                },
                ..work.order
            },
            version: work.version,
            target_id: sending.target_id.as_ref(),
            write: match &sending.datum {
                Some(datum) => Write::Upsert {
                    datum,
                    links: sending.links.clone(),
                },
                None => Write::Delete {
                    reason: work.reason,
                },
            },
        })
    }

    /// Makes the Pending entries durable, in a transaction that also sends the
    /// batch's *start* offsets: they change nothing, but Kafka refuses them,
    /// and with them the Pending, when the partitions are no longer ours.
    async fn commit_pending(
        &self,
        batch: &Batch,
        works: &[Work],
        plans: &[Plan<'_>],
        open: &[usize],
    ) -> Result<(), Dropped> {
        let since = now();
        let entries: Vec<(CanonicalKey, Option<Entry>)> = open
            .iter()
            .filter_map(|place| {
                let Plan::Send(sending) = &plans[*place] else {
                    return None;
                };
                let work = &works[*place];
                let entry = Entry {
                    state: State::Pending {
                        owner: self.shared.owner.clone(),
                        since,
                        before: sending.before.clone().map(Box::new),
                    },
                    target_id: sending.target_id.clone(),
                    ..self.fresh(work, sending.before.as_ref())
                };
                Some((work.key.clone(), Some(entry)))
            })
            .collect();
        let changes = Changes {
            entries,
            ..Changes::default()
        };
        self.commit(batch, batch.starts.clone(), changes, &PENDING)
            .await?;
        Ok(())
    }

    /// Commits changes with offsets and puts them into memory; tried again until
    /// it is known to have happened, or not to be ours any more.
    async fn commit(
        &self,
        batch: &Batch,
        offsets: HashMap<Place, i64>,
        changes: Changes,
        points: &'static KillPoints,
    ) -> Result<(), Dropped> {
        let mut backoff = Backoff::default();
        let changes = Arc::new(changes);
        loop {
            // Without offsets nothing would fence the transaction.
            if self.gone(batch) || offsets.is_empty() {
                return Err(Dropped::Gone);
            }
            let shared = Arc::clone(&self.shared);
            let (changes, offsets) = (Arc::clone(&changes), offsets.clone());
            let (group, epoch) = (Arc::clone(&batch.group), batch.epoch);
            let entity = self.entity;
            let written = tokio::task::spawn_blocking(move || {
                shared.commit(&entity.name, epoch, &group, &offsets, &changes, points)
            })
            .await;
            match written {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Failure::Dead(error))) => return Err(Dropped::Dead(error)),
                Ok(Err(Failure::Aborted(error))) if error.code == Code::Fenced => {
                    tracing::info!(%error, "the batch is no longer ours");
                    return Err(Dropped::Gone);
                }
                Ok(Err(Failure::Aborted(error))) => {
                    self.wait_or_drop(batch, &error, &mut backoff).await?;
                }
                Err(panic) => {
                    return Err(Dropped::Dead(Error::new(
                        Code::Invariant,
                        format!("a transaction panicked: {panic}"),
                    )));
                }
            }
        }
    }

    fn gone(&self, batch: &Batch) -> bool {
        self.shared.lanes.epoch() != batch.epoch
    }

    /// Waits before another try, or says why there is none.
    pub(super) async fn wait_or_drop(
        &self,
        batch: &Batch,
        error: &Error,
        backoff: &mut Backoff,
    ) -> Result<(), Dropped> {
        match error.class() {
            Class::Transient | Class::Throttled => {}
            Class::Bug => return Err(Dropped::Dead(clone(error))),
            Class::Operator | Class::Record => return Err(Dropped::Blocked(clone(error))),
        }
        let wait = backoff.after(error);
        self.shared
            .status
            .lane_failed(&self.entity.name, error, Some(wait));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            let closing = self.shared.lanes.closing() || self.shared.stop.is_cancelled();
            if self.gone(batch) || closing {
                return Err(Dropped::Gone);
            }
            let step = until
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(100));
            tokio::select! {
                () = tokio::time::sleep(step) => {}
                () = self.shared.stop.cancelled() => {}
            }
        }
        Ok(())
    }
}

fn clone(error: &Error) -> Error {
    Error {
        code: error.code,
        message: error.message.clone(),
        source_code: error.source_code.clone(),
        place: error.place.clone(),
        retry_after: error.retry_after,
    }
}

/// By partition, the offset behind the last of these messages.
pub(super) fn next_offsets(messages: &[Message]) -> HashMap<Place, i64> {
    let mut next = HashMap::new();
    // Messages come in runs of one partition.
    for run in messages.chunk_by(|one, other| one.place == other.place) {
        if let Some(last) = run.last() {
            next.insert(Place::clone(&last.place), last.offset + 1);
        }
    }
    next
}
