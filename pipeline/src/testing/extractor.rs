//! The suite that every extractor passes.
//!
//! An author implements [`Source`] for a stand-in of the system and writes, in
//! `tests/suite.rs`, `drover_pipeline::extractor_suite!(MySource);`. Each check
//! of [`checks`] and [`faults`] becomes a test of its own. They drive the
//! extractor as the runner does, page by page, and compare what arrives with
//! the truth of the stand-in; they panic with what was lost.
//!
//! Time is the source's: a check asks the stand-in to let it pass and never
//! sleeps itself.

pub mod checks;
pub mod faults;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;

use serde_json::{Map, Value};

use crate::error::{Code, Error};
use crate::extract::{Change, Extractor, Object, Page, Reached};
use crate::record::{Millis, Op};

/// The most bytes of a cursor as JSON.
pub const CURSOR: usize = 16 * 1024;

/// A stand-in of the extractor's system, whose truth is known.
pub trait Source: Sized + Send + Sync {
    /// The extractor under test.
    type Extractor: Extractor;

    /// The objects that are tested, by their API names.
    const OBJECTS: &'static [&'static str];
    /// Records per page, as [`Source::extractor`] is configured.
    const PAGE: usize;
    /// The most requests that an object's idle poll may take.
    const IDLE: u64;

    /// A fresh stand-in.
    fn start(setup: Setup) -> impl Future<Output = Self> + Send;

    /// A new extractor, as after a restart of its process.
    fn extractor(&self) -> Self::Extractor;

    /// An extractor whose credentials are wrong.
    fn intruder(&self) -> Self::Extractor;

    /// Writes into the source and gives the record's id; nothing if the system
    /// knows no such write, or refuses it for this record.
    fn write(&self, object: &str, what: Write<'_>) -> impl Future<Output = Option<String>> + Send;

    /// Lets the source's time pass until every write shows and lies behind it.
    fn settle(&self) -> impl Future<Output = ()> + Send;

    /// Makes requests fail from the `at`-th on (1 is the next one), `times` of
    /// them, and forgets faults that were set before.
    fn fault(&self, fault: Fault, at: u64, times: u64) -> impl Future<Output = ()> + Send;

    /// Requests that were answered, or cut, since the start.
    fn requests(&self) -> impl Future<Output = u64> + Send;

    /// The records of an object as they stand, by id; deleted ones as `None`.
    /// A field that is not there counts as null.
    fn truth(
        &self,
        object: &str,
    ) -> impl Future<Output = BTreeMap<String, Option<Map<String, Value>>>> + Send;
}

/// How a stand-in starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Records of each tested object, at least.
    pub records: usize,
    /// Whether writes show only some time after their stamp.
    pub late: bool,
}

/// A write into the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write<'a> {
    /// A new record.
    Create,
    /// Another value in a field that is not a reference.
    Edit(&'a str),
    /// Into the recycle bin, where there is one.
    Delete(&'a str),
    /// Out of the recycle bin.
    Undelete(&'a str),
    /// Gone for good, past any recycle bin.
    Purge(&'a str),
}

/// What can go wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The vendor's refusal when its limit is reached.
    RateLimit,
    /// The vendor's answer when it has a fault.
    ServerError,
    /// The connection breaks before the request is read.
    CutBefore,
    /// The connection breaks when the request was done, before its answer.
    CutAfter,
    /// The answer takes its time.
    Slow,
    /// The token has expired.
    ExpiredToken,
    /// A page for people instead of the API's answer, whatever its status.
    HtmlPage,
    /// Status 200, JSON's content type, and no JSON.
    NotJson,
    /// Status 200, and half of the JSON.
    Truncated,
}

/// What the runner would know of an object: the changes that arrived, newest
/// last, the cursor, and nothing else.
pub struct Reader<E: Extractor> {
    object: Object,
    /// Where it stands; nothing before the first page.
    pub cursor: Option<E::Cursor>,
    /// What arrived last of each record.
    pub known: BTreeMap<String, (Millis, Option<String>)>,
    /// The changes of the last page.
    pub page: Vec<Change>,
    /// Pages of the first copy so far.
    pub snapshot_pages: usize,
    /// Whether the first copy is complete.
    pub complete: bool,
    seen: HashSet<(String, Millis, bool, Option<String>)>,
}

impl<E: Extractor> Reader<E> {
    /// A reader that has read nothing.
    pub fn new(object: Object) -> Self {
        Reader {
            object,
            cursor: None,
            known: BTreeMap::new(),
            page: Vec::new(),
            snapshot_pages: 0,
            complete: false,
            seen: HashSet::new(),
        }
    }

    /// A reader that goes on from a cursor with what another one knew.
    pub fn resume(
        object: Object,
        cursor: Option<E::Cursor>,
        known: BTreeMap<String, (Millis, Option<String>)>,
    ) -> Self {
        Reader {
            cursor,
            known,
            ..Reader::new(object)
        }
    }

    /// The object that is read.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Reads one page and takes it, as a runner that commits it.
    pub async fn step(&mut self, extractor: &E) -> Result<Reached, Error> {
        let page = extractor.fetch(&self.object, self.cursor.as_ref()).await?;
        let reached = page.reached;
        self.take(page);
        Ok(reached)
    }

    /// Takes a page: what is new in it, in the order of versions, the later of
    /// two equal ones last.
    pub fn take(&mut self, page: Page<E::Cursor>) {
        let name = &self.object.name;
        assert!(page.bad.is_empty(), "{name}: bad records: {:?}", page.bad);
        self.snapshot_pages += usize::from(!self.complete);
        assert!(
            page.snapshot_complete || !self.complete,
            "{name}: the first copy was complete and is not any more"
        );
        self.complete = page.snapshot_complete;
        self.cursor = Some(through_json::<E>(&page.next));
        for change in &page.changes {
            assert_eq!(
                change.op == Op::Upsert,
                change.body.is_some(),
                "{name} {}: an upsert has a body, a delete has none",
                change.id
            );
            // The lookback brings rows again; the runner drops what it has seen.
            let mark = (
                change.id.clone(),
                change.version,
                change.op == Op::Delete,
                change.body.clone(),
            );
            if !self.seen.insert(mark) {
                continue;
            }
            let newer = self
                .known
                .get(&change.id)
                .is_none_or(|known| known.0 <= change.version);
            if newer {
                let value = (change.version, change.body.clone());
                self.known.insert(change.id.clone(), value);
            }
        }
        self.page = page.changes;
    }

    /// Reads until the source says that this is all there is now, and gives up
    /// to when that is.
    pub async fn catch_up(&mut self, extractor: &E) -> Millis {
        for _ in 0..10_000 {
            match self.step(extractor).await {
                Ok(Reached::Now { as_of }) => return as_of,
                Ok(Reached::More | Reached::Later(_)) => {}
                Err(error) => panic!("{}: {error}", self.object.name),
            }
        }
        panic!("{}: no end after 10,000 pages", self.object.name);
    }

    /// Panics unless what is known is the truth.
    pub fn compare(&self, truth: &BTreeMap<String, Option<Map<String, Value>>>, context: &str) {
        let name = &self.object.name;
        for (id, expected) in truth {
            match (expected, self.known.get(id).map(|known| &known.1)) {
                (Some(expected), Some(Some(body))) => {
                    if let Err(why) = same(expected, body) {
                        panic!("{context}: {name} {id} is not as in the source: {why}");
                    }
                }
                (Some(_), Some(None)) => panic!("{context}: {name} {id} lives and was deleted"),
                (Some(_), None) => panic!("{context}: {name} {id} was lost"),
                (None, Some(Some(_))) => panic!("{context}: the delete of {name} {id} was lost"),
                // Deleted, and we know it or never saw it alive.
                (None, Some(None) | None) => {}
            }
        }
        for (id, (_, body)) in &self.known {
            assert!(
                truth.contains_key(id) || body.is_none(),
                "{context}: {name} {id} is not in the source"
            );
        }
    }
}

/// A cursor as the next process would find it.
pub fn through_json<E: Extractor>(cursor: &E::Cursor) -> E::Cursor {
    let text = serde_json::to_string(cursor).expect("a cursor serialises");
    assert!(text.len() <= CURSOR, "a cursor of {} bytes", text.len());
    let back: E::Cursor = serde_json::from_str(&text).expect("a cursor parses");
    assert!(
        &back == cursor,
        "the cursor is another one after JSON: {text}"
    );
    back
}

/// Whether a body says of every field what the source says; null and missing
/// are the same.
pub fn same(expected: &Map<String, Value>, body: &str) -> Result<(), String> {
    let found: Map<String, Value> =
        serde_json::from_str(body).map_err(|error| format!("no JSON object: {error}"))?;
    let null = Value::Null;
    for name in expected.keys().chain(found.keys()) {
        let (left, right) = (
            expected.get(name).unwrap_or(&null),
            found.get(name).unwrap_or(&null),
        );
        // Which fields an extractor leaves out, its own tests say.
        if left != right && found.contains_key(name) {
            return Err(format!("field {name} differs"));
        }
    }
    Ok(())
}

/// The object with this name, as the extractor discovers it.
pub async fn object<E: Extractor>(extractor: &E, name: &str) -> Object {
    let discovery = extractor.discover(&[]).await.expect("discover");
    discovery
        .objects
        .into_iter()
        .find(|object| object.name == name)
        .unwrap_or_else(|| panic!("{name} was not discovered"))
}

/// The code that a failure of this kind may have; nothing where the extractor
/// is to get over it by itself.
pub fn expected(fault: Fault) -> &'static [Code] {
    match fault {
        Fault::RateLimit => &[Code::Throttled, Code::QuotaExhausted],
        Fault::ServerError => &[Code::ServerError],
        Fault::CutBefore | Fault::CutAfter => &[Code::Connection, Code::AnswerLost],
        Fault::Slow | Fault::ExpiredToken => &[],
        Fault::HtmlPage => &[Code::BadAnswer, Code::ServerError],
        Fault::NotJson => &[Code::BadAnswer],
        Fault::Truncated => &[Code::BadAnswer, Code::AnswerLost],
    }
}

/// Makes a test of each check of the suite, for one source.
#[macro_export]
macro_rules! extractor_suite {
    ($source:ty) => {
        $crate::extractor_suite!(@checks $source:
            every_record_once
            every_page_is_a_restart_point
            changes_during_the_first_copy
            equal_stamps_on_a_page_boundary
            late_records
            same_record_same_bytes
            every_id
            idle_is_quiet
            wrong_credentials
        );
        $crate::extractor_suite!(@faults $source:
            fault_rate_limit RateLimit
            fault_server_error ServerError
            fault_cut_before CutBefore
            fault_cut_after CutAfter
            fault_slow Slow
            fault_expired_token ExpiredToken
            fault_html_page HtmlPage
            fault_not_json NotJson
            fault_truncated Truncated
        );

        #[tokio::test]
        async fn token_refused_again() {
            $crate::testing::extractor::faults::token_refused_again::<$source>().await;
        }
    };
    (@checks $source:ty: $($check:ident)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                $crate::testing::extractor::checks::$check::<$source>().await;
            }
        )*
    };
    (@faults $source:ty: $($name:ident $fault:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                use $crate::testing::extractor::{Fault, faults};
                faults::at_every_request::<$source>(Fault::$fault).await;
            }
        )*
    };
}
