//! What every stand-in gives to the server around it.

use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;

use crate::exchange::{Answer, Call};

/// Records of one object and writes to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that are not deleted.
    pub records: u64,
    /// Deleted records that can still be seen.
    pub deleted: u64,
    /// Records made since the start.
    pub creates: u64,
    /// Records changed since the start.
    pub edits: u64,
    /// Records deleted since the start.
    pub deletes: u64,
}

/// An answer that refuses, in the vendor's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests.
    RateLimit,
    /// The service is down.
    ServerError,
    /// The service is down, says a page for people.
    HtmlPage,
    /// Success, with a body that is no JSON.
    NotJson,
    /// The token may no longer do this.
    LostScope,
}

/// A stand-in of one API.
pub trait System: Debug + Send + Sync + 'static {
    /// Starts what goes on by itself: live changes.
    fn start(self: Arc<Self>);

    /// Answers a request of the API.
    fn answer(&self, call: &Call) -> Answer;

    /// The path under which a request is counted: without ids.
    fn label(&self, call: &Call) -> String;

    /// Counts by object.
    fn counts(&self) -> Vec<(String, Counts)>;

    /// The truth about an object, a JSON record a line: one piece of it, and
    /// what to ask the next piece with. Nothing if there is no such object.
    fn records(&self, object: &str, after: Option<&str>) -> Option<(Vec<u8>, Option<String>)>;

    /// Edits a record behind the API's back.
    fn edit(&self, request: &Value) -> Result<Value, String>;

    /// Makes the system read-only, or writable again.
    fn freeze(&self, frozen: bool);

    /// Refuses a request.
    fn refuse(&self, refusal: Refusal, call: &Call, retry_after_s: Option<u64>) -> Answer;

    /// From now on the token of this request is expired.
    fn expire(&self, call: &Call);

    /// Lets a job fail, or end as if somebody had aborted it: the one that a
    /// call names or that its answer tells of. False if there is none.
    fn end_job(&self, call: &Call, answer: Option<&Answer>, aborted: bool) -> bool;

    /// Answers a control request that only this system knows, by the parts of
    /// its path behind `/_sandbox`.
    fn control(&self, call: &Call, parts: &[&str]) -> Option<Answer>;
}
