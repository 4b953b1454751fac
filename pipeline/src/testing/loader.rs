//! The conformance suite of loaders: what the runner relies on, asked of a
//! real target.
//!
//! A loader's author implements [`Harness`] and writes, in `tests/suite.rs`,
//! `drover_pipeline::loader_suite!(MyHarness);`. Each check becomes a test of
//! its own, in a target of its own. The harness looks at the target by its own
//! means, never through the loader.

pub mod checks;
pub mod content;
mod driver;

use std::collections::BTreeMap;
use std::future::Future;

use drover_schemas::{Datum, Entity, Value};

use crate::idempotency::TargetId;
use crate::load::Loader;

pub use driver::{Driver, Record, applied, contact, order, rejected};

/// What the suite needs of a target besides its loader.
pub trait Harness: Sized + Send + Sync + 'static {
    /// The loader under test.
    type Loader: Loader;

    /// An empty target that no other test sees, or `None` with the reason on
    /// stderr when this machine can't have one.
    fn fresh() -> impl Future<Output = Option<Self>> + Send;

    /// A loader of this target, as a new process would have it.
    fn loader(&self) -> Self::Loader;

    /// Every record the target has of that entity.
    fn rows(&self, entity: &'static Entity) -> impl Future<Output = Vec<Row>> + Send;

    /// How many records of that entity were ever created.
    fn creates(&self, entity: &'static Entity) -> impl Future<Output = usize> + Send;

    /// Returns when all that was applied can be found.
    fn settle(&self) -> impl Future<Output = ()> + Send;

    /// Changes a good content into one that the target refuses.
    fn spoil(&self, datum: &mut Datum<'static>);

    /// Restarts the target, or does what looks like it to the loader: every
    /// connection breaks, nothing that was applied is lost. Returns when the
    /// target answers again.
    fn restart(&self) -> impl Future<Output = ()> + Send;
}

/// A record in the target.
#[derive(Debug, Clone)]
pub struct Row {
    /// The canonical key that it stands for.
    pub key: String,
    /// Its id in the target.
    pub id: TargetId,
    /// Whether it is taken away.
    pub deleted: bool,
    /// The entity's fields; a reference holds the target's id.
    pub values: Vec<Value<'static>>,
    /// Everything else, by name, as JSON texts.
    pub custom: BTreeMap<String, String>,
}

/// Makes a test of each check of the suite, for one harness.
#[macro_export]
macro_rules! loader_suite {
    ($harness:ty) => {
        $crate::loader_suite!(@each $harness:
            describes_itself
            an_empty_batch_is_nothing
            creates_and_returns_ids
            applying_twice_is_applying_once
            newer_replaces_older
            older_is_refused_where_the_target_is_ordered
            deletes_and_comes_back
            links_are_the_targets_ids
            every_field_of_every_entity_arrives
            foreign_texts_arrive_unchanged
            numbers_and_times_are_exact
            empty_fields_empty_the_target
            one_bad_record_rejects_only_itself
            many_bad_records_reject_only_themselves
            finds_what_was_applied_and_nothing_else
            reads_by_id
            a_batch_of_the_largest_size
            entities_side_by_side
            prepares_twice_and_at_once
            survives_a_restart_of_the_target
        );
    };
    (@each $harness:ty: $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                use $crate::testing::loader::{Harness, checks};
                if let Some(harness) = <$harness as Harness>::fresh().await {
                    checks::$check(harness).await;
                }
            }
        )*
    };
}
