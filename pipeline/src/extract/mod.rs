//! Reading a source. [`Extractor`] is all that an author of a source reads;
//! the runner in `run.rs` owns loops, Kafka, retries, clocks and metrics.

pub mod drift;
mod gone;
mod look;
mod others;
mod parity;
mod run;

pub use parity::{NotSupported, Parity, Standing};
pub use run::{Checkpoint, run};

use std::future::Future;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Problem;
use crate::error::{Error, Result};
use crate::http::HttpClient;
use crate::quota::Usage;
use crate::record::{Millis, Op};

/// A source of records: a SaaS product's API.
///
/// # Contract
/// - **No state that matters.** `fetch` is a function of the source and the
///   cursor. Two calls with the same cursor may differ only by what changed in
///   the source meanwhile. Anything an extractor keeps (a token, a describe)
///   can be lost at any moment.
/// - **No loops.** No threads, sleeps, retries, Kafka, metrics or clock. A call
///   sends few requests and returns; the runner calls again. An error is
///   returned at once with its [`crate::Code`]; the runner decides.
/// - **Concurrency.** The runner calls `fetch` for different objects at the
///   same time, never twice at once for the same object.
/// - **Durability.** A page's `next` cursor is committed in the same Kafka
///   transaction as its changes. After a crash `fetch` is called with the last
///   committed cursor: the page comes again, and that must be harmless.
/// - **Position before copy.** The first call (`from` is `None`) takes the
///   source's time before it reads anything and keeps it in the cursor, so that
///   the delta starts from a moment before the first page.
/// - **Same record, same bytes.** A version of a record has the same body by
///   whatever way it was read.
pub trait Extractor: Sized + Send + Sync + 'static {
    /// The source's name: lower case, as in `sourceType` and in every key.
    const NAME: &'static str;
    /// The shape of `sourceConfig`. Secrets are filled in before it is parsed.
    type Config: DeserializeOwned + JsonSchema + Send;
    /// Where a lane stands in its object; at most 16 KB as JSON.
    type Cursor: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync;

    /// The mapping of this source's objects to canonical entities, as YAML: the
    /// file `mapping.yaml` of the connector. See [`crate::transform::Mapping`].
    fn mapping() -> &'static str;

    /// What becomes of each object of the source, as YAML: the file
    /// `parity.yaml` of the connector. See [`Parity`].
    fn parity() -> Option<&'static str> {
        None
    }

    /// Builds the extractor. Pure: no I/O; returns every problem at once.
    fn new(config: Self::Config, http: HttpClient) -> Result<Self, Vec<Problem>>;

    /// One cheap live call that proves address and credentials.
    fn check(&self) -> impl Future<Output = Result<()>> + Send;

    /// What the source has: objects, with their fields and counts. `named` are
    /// the objects that the migration names: each is among the answer if the
    /// source shows it, even one that the connector's mapping does not list.
    fn discover(&self, named: &[String]) -> impl Future<Output = Result<Discovery>> + Send;

    /// The next page of an object's changes behind the cursor.
    fn fetch(
        &self,
        object: &Object,
        from: Option<&Self::Cursor>,
    ) -> impl Future<Output = Result<Page<Self::Cursor>>> + Send;

    /// The cursor of a lane that reads every record once more, for a field that
    /// the source has since; the changes still start where they would have, so
    /// that no delete is passed over. `None` where the source can't do that: then
    /// a record brings the field with its next change.
    fn again(&self, cursor: &Self::Cursor) -> Option<Self::Cursor> {
        let _ = cursor;
        None
    }

    /// The records with those ids as they stand now, in the order of `ids`;
    /// `None` for an id the source doesn't show.
    fn get(
        &self,
        object: &Object,
        ids: &[&str],
    ) -> impl Future<Output = Result<Vec<Option<Change>>>> + Send;

    /// Every live id of an object, page by page, for verification and sweeps.
    fn ids(&self, object: &Object, page: Option<&str>) -> impl Future<Output = Result<Ids>> + Send;
}

/// An object of the source, with what `discover` learnt of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The API name: `Contact`, `Invoice__c`.
    pub name: String,
    /// Whether the customer made it; such objects share one raw topic.
    #[serde(default)]
    pub custom: bool,
    /// Its fields, in the source's order.
    pub fields: Vec<SourceField>,
    /// About how many records it has, where the source tells cheaply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What the ids of its records begin with, where the source's ids tell their
    /// object: by it a reference to any of several objects finds its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_prefix: Option<String>,
    /// What else its connector has to know of it, in words of the connector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
}

/// A field of an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceField {
    /// The API name.
    pub name: String,
    /// The source's own type name: `currency`, `reference`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The objects that a reference may point to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// The values that the source offers for it, where it is an enumeration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// What stands between the values of a field that holds several as one text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<char>,
    /// Whether the source computes it: such a value changes without the record's
    /// modification time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub computed: bool,
}

/// What a source has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// The objects, every one that can be read.
    pub objects: Vec<Object>,
    /// What is left of the account's calls; the process adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Usage>,
}

/// One version of a record, as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The record's id in its one canonical form.
    pub id: String,
    /// Upsert or Delete.
    pub op: Op,
    /// The source's modification time; for a delete, the time of the delete.
    pub version: Millis,
    /// The record as JSON text; numbers keep their digits. `None` for a delete.
    pub body: Option<String>,
}

/// A page of changes.
#[derive(Debug)]
pub struct Page<C> {
    /// The changes, in any order.
    pub changes: Vec<Change>,
    /// Records that could not be read as a record (no id, no version): each
    /// becomes a dead letter, and the page goes on.
    pub bad: Vec<BadRecord>,
    /// Where to go on.
    pub next: C,
    /// How far this page got.
    pub reached: Reached,
    /// Whether the first, whole copy is complete with this page and all before it.
    pub snapshot_complete: bool,
    /// Something that went wrong in the source and that the extractor got over:
    /// shown in `status`, holds nothing up.
    pub notice: Option<Error>,
}

/// Something in a page that is no record.
#[derive(Debug, Clone, PartialEq)]
pub struct BadRecord {
    /// Its id if it has one, else where it stood (`page 3, record 17`).
    pub place: String,
    /// What is wrong.
    pub code: crate::Code,
    /// What is wrong, for a person; without the record's body.
    pub message: String,
    /// What stood there.
    pub body: String,
}

/// How far a page got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// There is more: call again at once.
    More,
    /// A job in the source is not ready: call again after this long.
    Later(Duration),
    /// Everything that was modified before `as_of` (the source's clock) and is
    /// visible has been returned: call again after the poll interval.
    Now {
        /// The source's time up to which the object is covered.
        as_of: Millis,
    },
}

/// A page of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The ids, in their one canonical form.
    pub ids: Vec<String>,
    /// The next page, if there is one.
    pub next: Option<String>,
}
