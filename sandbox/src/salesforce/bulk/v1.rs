//! Bulk API 1.0, `/services/async/NN.0/job`: jobs of batches, in XML or JSON.
//! A batch is worked off when it arrives; the first look at it finds it done.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::csv::{self, Dialect};
use super::ingest::{self, Outcome};
use super::job::{Done, Job, Kind};
use super::query;
use crate::exchange::{Answer, Call};
use crate::salesforce::errors::JSON;
use crate::salesforce::id::Id;
use crate::salesforce::moment::{self, Millis};
use crate::salesforce::{Salesforce, auth, soap};

const SPACE: &str = "http://www.force.com/2009/06/asyncapi/dataload";

/// The jobs.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<BTreeMap<Id, Batched>>);

#[derive(Debug)]
struct Batched {
    job: Job,
    json: bool,
    state: &'static str,
    batches: Vec<Batch>,
}

#[derive(Debug)]
struct Batch {
    id: Id,
    made: Millis,
    request: Vec<u8>,
    done: Result<Worked, String>,
}

#[derive(Debug)]
enum Worked {
    Found { file: Vec<u8>, rows: usize },
    Written(Outcome),
}

impl Batch {
    /// Records looked at, and those of them that failed.
    fn counts(&self) -> (usize, usize) {
        match &self.done {
            Ok(Worked::Found { rows, .. }) => (*rows, 0),
            Ok(Worked::Written(outcome)) => outcome.counts(),
            Err(_) => (0, 0),
        }
    }
}

/// An error by its code and what happened.
type Refused = (&'static str, String);

impl Jobs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Id, Batched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a call.
pub fn answer(org: &Salesforce, call: &Call, version: &str, rest: &[&str]) -> Answer {
    let xml = !call
        .header("content-type")
        .or(call.header("accept"))
        .is_some_and(|kind| kind.contains("json"));
    let known = call
        .header("x-sfdc-session")
        .is_some_and(|token| org.auth.knows(token))
        || org.auth.allows(call);
    if !known {
        let error = ("InvalidSessionId", "Invalid session id".to_owned());
        return refused(error, xml);
    }
    if !org.usage.take() {
        let message = "ApiRequests Limit exceeded.".to_owned();
        return refused(("ExceededQuota", message), xml);
    }
    routed(org, call, version, rest, xml).unwrap_or_else(|error| refused(error, xml))
}

fn refused((code, message): Refused, xml: bool) -> Answer {
    let status = StatusCode::BAD_REQUEST;
    let fields = [
        ("exceptionCode", json!(code)),
        ("exceptionMessage", json!(message)),
    ];
    printed(status, "error", &fields, xml)
}

fn routed(
    org: &Salesforce,
    call: &Call,
    version: &str,
    rest: &[&str],
    xml: bool,
) -> Result<Answer, Refused> {
    let number = |text: &str| {
        Id::parse(text).ok_or_else(|| ("InvalidJob", format!("Invalid job id: {text}")))
    };
    let reads = call.method == Method::GET;
    match rest {
        ["job"] if !reads => create(org, call, version, xml),
        ["job", id, rest @ ..] => {
            let id = number(id)?;
            if let (["batch"], false) = (rest, reads) {
                return add(org, call, id);
            }
            let mut all = org.batches.all();
            let batched = all
                .get_mut(&id)
                .ok_or_else(|| ("InvalidJob", format!("Unable to find job: {id}")))?;
            let xml = xml && !batched.json;
            match (rest, reads) {
                ([], true) => {}
                ([], false) => {
                    batched.state = match said(call, "state").as_deref() {
                        Some("Closed") => "Closed",
                        Some("Aborted") => "Aborted",
                        other => {
                            let message = format!("Invalid state: {}", other.unwrap_or_default());
                            return Err(("InvalidJobState", message));
                        }
                    }
                }
                (["batch"], true) => return Ok(batches(batched, xml)),
                (["batch", batch, rest @ ..], true) => {
                    let batch = Id::parse(batch)
                        .and_then(|id| batched.batches.iter().find(|batch| batch.id == id))
                        .ok_or_else(|| {
                            ("InvalidBatch", format!("Unable to find batch: {batch}"))
                        })?;
                    return part(batched, batch, rest, xml);
                }
                _ => return Err(("InvalidUrl", "no such resource".to_owned())),
            }
            Ok(printed(StatusCode::OK, "jobInfo", &info(batched), xml))
        }
        _ => Err(("InvalidUrl", "no such resource".to_owned())),
    }
}

/// A value that a request says, in XML or in JSON.
fn said(call: &Call, name: &str) -> Option<String> {
    match serde_json::from_slice::<Value>(&call.body) {
        Ok(body) => body[name].as_str().map(str::to_owned),
        Err(_) => soap::text(&String::from_utf8_lossy(&call.body), name),
    }
}

fn create(org: &Salesforce, call: &Call, version: &str, xml: bool) -> Result<Answer, Refused> {
    let operation = said(call, "operation").unwrap_or_default();
    let name = said(call, "object").unwrap_or_default();
    let (known, key_known, object, key) = {
        let store = org.reading();
        let object = store.schema.number(&name);
        let described = object.map(|object| &store.schema.objects[object]);
        let key = said(call, "externalIdFieldName").filter(|name| !name.is_empty());
        let field = described.and_then(|it| it.field(key.as_deref().unwrap_or("Id")));
        (
            object.is_some(),
            field.is_some_and(|field| field.is_key()),
            described.map(|it| it.name.clone()).unwrap_or_default(),
            field.map(|field| field.name.clone()),
        )
    };
    let operations = [
        "insert",
        "update",
        "upsert",
        "delete",
        "hardDelete",
        "query",
        "queryAll",
    ];
    if !operations.contains(&operation.as_str()) {
        return Err(("InvalidJob", format!("Invalid operation: {operation}")));
    }
    if !known {
        return Err(("InvalidJob", format!("Unable to find object: {name}")));
    }
    if operation == "upsert" && !key_known {
        let message = format!(
            "External ID was blank for {name}. An External ID must be specified for upsert."
        );
        return Err(("InvalidJob", message));
    }
    let content = said(call, "contentType").unwrap_or_else(|| "XML".to_owned());
    if !["CSV", "JSON"].contains(&content.to_uppercase().as_str()) {
        let message = format!("the stand-in does not take {content}");
        return Err(("FeatureNotEnabled", message));
    }
    let kind = if operation.starts_with("query") {
        Kind::Query
    } else {
        Kind::Ingest
    };
    let dialect = Dialect::of(&Map::new()).map_err(|error| ("InvalidJob", error.message))?;
    let mut job = Job::new(kind, &operation, &object, version, dialect);
    job.id = org.jobs.next_id();
    job.external_id = key.filter(|_| operation == "upsert");
    let batched = Batched {
        job,
        json: content.eq_ignore_ascii_case("json"),
        state: "Open",
        batches: Vec::new(),
    };
    let answer = printed(StatusCode::CREATED, "jobInfo", &info(&batched), xml);
    org.batches.all().insert(batched.job.id, batched);
    Ok(answer)
}

/// Takes a batch and works it off.
fn add(org: &Salesforce, call: &Call, id: Id) -> Result<Answer, Refused> {
    let (mut job, json) = {
        let all = org.batches.all();
        let batched = all
            .get(&id)
            .ok_or_else(|| ("InvalidJob", format!("Unable to find job: {id}")))?;
        if batched.state != "Open" {
            return Err(("InvalidJobState", format!("Job is not open: {id}")));
        }
        (batched.job.clone(), batched.json)
    };
    let text = String::from_utf8_lossy(&call.body).into_owned();
    let done = match job.kind {
        Kind::Query if json => query::json(org, &text, job.operation == "queryAll", &job.version)
            .map(|(file, rows)| Worked::Found { file, rows }),
        Kind::Query => {
            job.query = text;
            match query::run(org, &job) {
                Done::Rows(rows) => rows
                    .whole()
                    .map(|file| Worked::Found {
                        file,
                        rows: rows.count(),
                    })
                    .map_err(|error| error.to_string()),
                Done::Failed(error) => Err(error),
                Done::Written(_) => Err("InvalidBatch".to_owned()),
            }
        }
        Kind::Ingest => {
            let read = if json {
                table(&call.body)
            } else {
                csv::read(&call.body, job.dialect)
            };
            read.and_then(|(header, rows)| ingest::write_rows(org, &job, header, rows))
                .map(Worked::Written)
        }
    };
    let mut all = org.batches.all();
    let batched = all
        .get_mut(&id)
        .ok_or_else(|| ("InvalidJob", format!("Unable to find job: {id}")))?;
    let batch = Batch {
        id: Id::numbered("751", org.jobs.next_number()),
        made: moment::second(moment::now()),
        request: call.body.to_vec(),
        done,
    };
    let fields = batch_info(batched, &batch, "Queued");
    let xml = !batched.json;
    batched.batches.push(batch);
    Ok(printed(StatusCode::CREATED, "batchInfo", &fields, xml))
}

/// Rows of a JSON array as those of a file.
fn table(body: &[u8]) -> Result<(Vec<String>, Vec<Vec<String>>), String> {
    let records: Vec<Map<String, Value>> =
        serde_json::from_slice(body).map_err(|error| format!("InvalidBatch : {error}"))?;
    let mut header: Vec<String> = Vec::new();
    for name in records.iter().flat_map(|record| record.keys()) {
        if name != "attributes" && !header.contains(name) {
            header.push(name.clone());
        }
    }
    let cell = |record: &Map<String, Value>, name: &String| match record.get(name) {
        None => String::new(),
        Some(Value::Null) => "#N/A".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let rows = records
        .iter()
        .map(|record| header.iter().map(|name| cell(record, name)).collect())
        .collect();
    Ok((header, rows))
}

type Fields = Vec<(&'static str, Value)>;

fn stamp(at: Millis, json: bool) -> Value {
    let text = moment::print(at);
    json!(if json {
        text
    } else {
        text.replace("+0000", "Z")
    })
}

fn info(batched: &Batched) -> Fields {
    let job = &batched.job;
    let counts: Vec<(usize, usize)> = batched.batches.iter().map(Batch::counts).collect();
    let failed = batched.batches.iter().filter(|it| it.done.is_err()).count();
    let mut fields = vec![
        ("id", json!(job.id.to_string())),
        ("operation", json!(job.operation)),
        ("object", json!(job.object)),
        ("createdById", json!(auth::user().to_string())),
        ("createdDate", stamp(job.created, batched.json)),
        ("systemModstamp", stamp(job.modstamp, batched.json)),
        ("state", json!(batched.state)),
    ];
    if let Some(key) = &job.external_id {
        fields.push(("externalIdFieldName", json!(key)));
    }
    fields.extend([
        ("concurrencyMode", json!("Parallel")),
        (
            "contentType",
            json!(if batched.json { "JSON" } else { "CSV" }),
        ),
        ("numberBatchesQueued", json!(0)),
        ("numberBatchesInProgress", json!(0)),
        (
            "numberBatchesCompleted",
            json!(batched.batches.len() - failed),
        ),
        ("numberBatchesFailed", json!(failed)),
        ("numberBatchesTotal", json!(batched.batches.len())),
        (
            "numberRecordsProcessed",
            json!(counts.iter().map(|it| it.0).sum::<usize>()),
        ),
        ("numberRetries", json!(0)),
        (
            "apiVersion",
            json!(job.version.parse::<f64>().unwrap_or_default()),
        ),
        (
            "numberRecordsFailed",
            json!(counts.iter().map(|it| it.1).sum::<usize>()),
        ),
        ("totalProcessingTime", json!(0)),
        ("apiActiveProcessingTime", json!(0)),
        ("apexProcessingTime", json!(0)),
    ]);
    fields
}

fn batch_info(batched: &Batched, batch: &Batch, state: &str) -> Fields {
    let (done, failed) = batch.counts();
    let fresh = state == "Queued";
    let mut fields = vec![
        ("id", json!(batch.id.to_string())),
        ("jobId", json!(batched.job.id.to_string())),
        ("state", json!(state)),
        ("createdDate", stamp(batch.made, batched.json)),
        ("systemModstamp", stamp(batch.made, batched.json)),
        (
            "numberRecordsProcessed",
            json!(if fresh { 0 } else { done }),
        ),
        ("numberRecordsFailed", json!(if fresh { 0 } else { failed })),
        ("totalProcessingTime", json!(0)),
        ("apiActiveProcessingTime", json!(0)),
        ("apexProcessingTime", json!(0)),
    ];
    if let (Err(error), false) = (&batch.done, fresh) {
        fields.insert(3, ("stateMessage", json!(error)));
    } else if batched.json {
        fields.insert(3, ("stateMessage", Value::Null));
    }
    fields
}

fn state(batch: &Batch) -> &'static str {
    if batch.done.is_ok() {
        "Completed"
    } else {
        "Failed"
    }
}

fn batches(batched: &Batched, xml: bool) -> Answer {
    let infos: Vec<Fields> = batched
        .batches
        .iter()
        .map(|batch| batch_info(batched, batch, state(batch)))
        .collect();
    if xml {
        let list: String = infos
            .iter()
            .map(|fields| format!(" <batchInfo>\n{} </batchInfo>\n", elements(fields, "  ")))
            .collect();
        return document(StatusCode::OK, "batchInfoList", &list);
    }
    let infos: Vec<Value> = infos.into_iter().map(object).collect();
    Answer::new(
        StatusCode::OK,
        JSON,
        json!({"batchInfo": infos}).to_string(),
    )
}

/// What there is to say of a batch.
fn part(batched: &Batched, batch: &Batch, rest: &[&str], xml: bool) -> Result<Answer, Refused> {
    let kind = if batched.json { JSON } else { "text/csv" };
    match (rest, &batch.done) {
        ([], _) => {
            let fields = batch_info(batched, batch, state(batch));
            Ok(printed(StatusCode::OK, "batchInfo", &fields, xml))
        }
        (["request"], _) => Ok(Answer::new(StatusCode::OK, kind, batch.request.clone())),
        (["result"], Ok(Worked::Found { .. })) => {
            let id = result_id(batch);
            if xml {
                let list = format!(" <result>{id}</result>\n");
                return Ok(document(StatusCode::OK, "result-list", &list));
            }
            Ok(Answer::new(StatusCode::OK, JSON, json!([id]).to_string()))
        }
        (["result"], Ok(Worked::Written(outcome))) if batched.json => {
            let list: Vec<Value> = outcome
                .in_order()
                .map(|row| match row {
                    Ok((id, created)) => {
                        json!({"success": true, "created": created, "id": id.to_string(), "errors": []})
                    }
                    Err((_, error)) => {
                        json!({"success": false, "created": false, "id": null, "errors": [error]})
                    }
                })
                .collect();
            Ok(Answer::new(
                StatusCode::OK,
                JSON,
                Value::from(list).to_string(),
            ))
        }
        (["result"], Ok(Worked::Written(outcome))) => {
            let mut out = Vec::new();
            let dialect = batched.job.dialect;
            dialect.line(["Id", "Success", "Created", "Error"], &mut out);
            for row in outcome.in_order() {
                match row {
                    Ok((id, created)) => {
                        let created = if created { "true" } else { "false" };
                        dialect.line([id.to_string().as_str(), "true", created, ""], &mut out);
                    }
                    Err((id, error)) => dialect.line([id, "false", "false", error], &mut out),
                }
            }
            Ok(Answer::new(StatusCode::OK, "text/csv", out))
        }
        (["result", id], Ok(Worked::Found { file, .. })) if *id == result_id(batch) => {
            Ok(Answer::new(StatusCode::OK, kind, file.clone()))
        }
        (["result", ..], _) => Err(("InvalidBatch", "there is no such result".to_owned())),
        _ => Err(("InvalidUrl", "no such resource".to_owned())),
    }
}

/// The id of a query batch's only result: fifteen characters, as the real one.
fn result_id(batch: &Batch) -> String {
    let id = batch.id.to_string();
    format!("752{}", &id[3..15])
}

fn object(fields: Fields) -> Value {
    let fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Value::Object(fields.collect())
}

fn elements(fields: &[(&'static str, Value)], indent: &str) -> String {
    fields
        .iter()
        .map(|(name, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            format!("{indent}<{name}>{text}</{name}>\n")
        })
        .collect()
}

fn document(status: StatusCode, root: &str, content: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><{root}\n   xmlns=\"{SPACE}\">\n{content}</{root}>\n"
    );
    Answer::new(status, "application/xml", body)
}

fn printed(status: StatusCode, root: &str, fields: &[(&'static str, Value)], xml: bool) -> Answer {
    if xml {
        return document(status, root, &elements(fields, " "));
    }
    Answer::new(status, JSON, object(fields.to_vec()).to_string())
}
