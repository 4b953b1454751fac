//! Writing to a target. [`Loader`] is all that an author of a target reads;
//! the runner in `run.rs` owns the steps of a batch.

pub mod ask;
mod batch;
mod commit;
mod judge;
mod kill;
mod lanes;
mod orphans;
mod references;
mod run;
mod settle;
mod tables;
mod upstream;
mod work;

pub use kill::Step;
pub use run::run;

use std::future::Future;

use drover_schemas::{Datum, Entity};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::config::Problem;
use crate::error::{Error, Result};
use crate::http::HttpClient;
use crate::idempotency::{Lease, TargetId};
use crate::record::{AbsentReason, CanonicalKey, Millis, Order};

/// A target of records: a SaaS product's API, or a database.
///
/// # Contract
/// - **No loops**: no threads, acknowledgements, retries, Kafka or clock. The
///   runner calls, the loader answers.
/// - **Order.** The runner never has two versions of one key in the same batch,
///   and never applies two batches with the same key at the same time within
///   one process. Another process may still be sending an older version
///   (it was paused): a target that says [`EntitySupport::ordered`] refuses
///   what is older than what it has.
/// - **Concurrency.** Batches of different entities may be applied at once, and
///   so many of one entity as [`EntitySupport::concurrency`] says.
/// - **Durability.** [`Outcome::Applied`] means that the target will not forget
///   it. What is not sure is [`Outcome::Unknown`], never Applied or Rejected.
/// - **One bad record rejects only itself.** A loader whose target refuses a
///   whole batch finds the culprit and applies the others.
pub trait Loader: Sized + Send + Sync + 'static {
    /// The target's name: lower case, as in `targetType`.
    const NAME: &'static str;
    /// The shape of `targetConfig`. Secrets are filled in before it is parsed.
    type Config: DeserializeOwned + JsonSchema + Send;

    /// Builds the loader. Pure: no I/O; returns every problem at once.
    fn new(config: Self::Config, http: HttpClient) -> Result<Self, Vec<Problem>>;

    /// The names of the entities that the target takes, whatever its
    /// configuration: `spec` tells them, and `drover run --until synced` waits
    /// for no other. All of the hub's, unless the loader says less; must be
    /// those of [`entities`](Loader::entities).
    fn takes() -> Vec<String> {
        let all = drover_schemas::entities().iter();
        all.map(|entity| entity.name.clone()).collect()
    }

    /// What the target takes, by entity, and how it finds what we wrote. An
    /// entity that is not listed has no lane: its records stay in Kafka.
    fn entities(&self) -> Vec<EntitySupport>;

    /// One cheap live call that proves address, credentials and rights.
    fn check(&self) -> impl Future<Output = Result<()>> + Send;

    /// What [`Loader::prepare`] would create, one line each; empty when all is there.
    fn plan(&self) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Creates tables or fields. Safe to repeat and to run from two processes.
    fn prepare(&self) -> impl Future<Output = Result<()>> + Send;

    /// Whether what the target has for an entity is still as [`Loader::prepare`]
    /// made it, asked of an entity that was loaded before: at the start, before
    /// `prepare`, and now and then between batches. [`Code::TargetAltered`] when
    /// somebody took away or changed what holds loaded data, which `prepare`
    /// would only make anew without it. A target without a shape of its own has
    /// nothing to say.
    ///
    /// [`Code::TargetAltered`]: crate::error::Code::TargetAltered
    fn altered(&self, _entity: &Entity) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// Sends a batch of one entity. The outer error concerns the whole batch,
    /// of which nothing may have been applied (class Transient: try again;
    /// Operator: stop this lane); else one outcome an item, in order.
    fn apply(&self, batch: &[Item<'_>]) -> impl Future<Output = Result<Vec<Outcome>>> + Send;

    /// Looks up what the target has under our keys, in the order of `keys`.
    /// For [`crate::idempotency::Identity::None`] this searches the index, and
    /// the runner calls it only when the index delay has passed.
    fn find(
        &self,
        entity: &Entity,
        keys: &[&CanonicalKey],
    ) -> impl Future<Output = Result<Vec<Option<Found>>>> + Send;

    /// The records with those ids, for verification and before-images, as JSON.
    fn read(
        &self,
        entity: &Entity,
        ids: &[&TargetId],
    ) -> impl Future<Output = Result<Vec<Option<String>>>> + Send;
}

/// What a target takes of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct EntitySupport {
    /// The entity's name.
    pub entity: String,
    /// The most items of one `apply`.
    pub batch: usize,
    /// How many such batches of the entity it applies at once: so many parts the
    /// entity's lane has, each with partitions of its own.
    pub concurrency: usize,
    /// How it finds what we wrote, and how long a request may be on its way.
    pub lease: Lease,
    /// Whether the target itself refuses an older version of a key, and its
    /// row says that we created it. Only then is no Pending written.
    pub ordered: bool,
}

/// One record to apply.
#[derive(Debug)]
pub struct Item<'a> {
    /// Its key in the source.
    pub key: &'a CanonicalKey,
    /// Its entity.
    pub entity: &'static Entity,
    /// Where it stands among the key's versions.
    pub order: Order,
    /// The source's modification time.
    pub version: Millis,
    /// The target's id, where the key is known to have one.
    pub target_id: Option<&'a TargetId>,
    /// What to write.
    pub write: Write<'a>,
}

/// What to write.
#[derive(Debug)]
pub enum Write<'a> {
    /// Create the record, or bring it to this content.
    Upsert {
        /// The content. References hold canonical keys; see `links`.
        datum: &'a Datum<'a>,
        /// For each reference field that could be resolved, its place among the
        /// entity's fields and the target's id of what it points to. A
        /// reference field that is not listed is written as empty.
        links: Vec<(usize, TargetId)>,
    },
    /// Take the record away (how is the target's choice: a mark, an archive).
    Delete {
        /// Why.
        reason: AbsentReason,
    },
}

/// What became of an item.
#[derive(Debug)]
pub enum Outcome {
    /// The target has it, or has something newer for this key.
    Applied(Applied),
    /// The target refuses this record; the error becomes its dead letter.
    Rejected(Error),
    /// Sent, but no answer: it stays Pending and is recovered.
    Unknown(Error),
    /// Not sent at all; tried again.
    NotSent(Error),
}

/// What the target has for a key now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The record's id in the target; `None` when nothing was there to delete.
    pub id: Option<TargetId>,
    /// Whether this call created the record.
    pub created: bool,
    /// Whether the target already had something newer: our version is stale.
    pub newer: bool,
}

/// What the target has under one of our keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The record's id in the target.
    pub id: TargetId,
    /// The order that the target's row carries, where it carries one.
    pub order: Option<Order>,
}
