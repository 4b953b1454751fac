//! Query jobs: what they refuse, and how they run.

use serde_json::{Map, Value};

use super::csv::{self, Dialect};
use super::job::{Done, Job, Kind};
use super::result::Rows;
use crate::salesforce::Salesforce;
use crate::salesforce::errors::ApiError;
use crate::salesforce::id::Id;
use crate::salesforce::moment;
use crate::salesforce::plan::Plan;
use crate::salesforce::print::Printer;
use crate::salesforce::reach::{Reach, Scope};
use crate::salesforce::run;
use crate::salesforce::schema::{Lack, Schema, Type};
use crate::salesforce::soql::{self, Query, Selected};

/// Rows that are printed before others may use the store.
const PIECE: usize = 10_000;

/// Standard objects whose queries the service cuts into ranges of ids.
const CHUNKED: [&str; 14] = [
    "Account",
    "Asset",
    "Campaign",
    "CampaignMember",
    "Case",
    "CaseHistory",
    "Contact",
    "Event",
    "EventRelation",
    "Lead",
    "LoginHistory",
    "Opportunity",
    "Task",
    "User",
];

/// What a query job prints, and of which records.
struct Compiled {
    plan: Plan,
    columns: Vec<(String, Reach, Type)>,
}

/// Reads a request for a query job.
pub fn create(org: &Salesforce, request: &Map<String, Value>, base: &str) -> Result<Job, ApiError> {
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let operation = text("operation").unwrap_or_default();
    if !matches!(operation, "query" | "queryAll") {
        return Err(ApiError::bad(
            "INVALIDJOB",
            format!("Unable to parse Job: invalid operation: {operation}"),
        ));
    }
    let query = text("query").unwrap_or_default();
    let dialect = Dialect::of(request)?;
    let store = org.reading();
    let compiled = compile(&store.schema, query)?;
    let object = &store.schema.objects[compiled.plan.object];
    let version = base.rsplit_once('v').map_or("", |(_, version)| version);
    let mut job = Job::new(Kind::Query, operation, &object.name, version, dialect);
    job.query = query.to_owned();
    job.chunked = object.is_custom() || CHUNKED.contains(&object.name.as_str());
    Ok(job)
}

fn compile(schema: &Schema, text: &str) -> Result<Compiled, ApiError> {
    let query = soql::parse(text)?;
    let unsupported = |what: &str| Err(ApiError::bad("API_ERROR", what));
    for item in &query.select {
        match item {
            Selected::Children(_) => {
                return unsupported(
                    "Aggregate Relationships not supported in Bulk V2 Query with CSV content type",
                );
            }
            Selected::TypeOf { .. } => {
                return unsupported("TYPEOF clauses not supported in Bulk Query");
            }
            Selected::CountAll | Selected::Aggregate { .. } => {
                return unsupported("Aggregate functions not supported in Bulk Query");
            }
            Selected::Field(..) | Selected::Fields(_) => {}
        }
    }
    if !query.group_by.is_empty() {
        return unsupported("GROUP BY not supported in Bulk Query");
    }
    if query.offset > 0 {
        return unsupported("OFFSET not supported in Bulk Query");
    }
    let plan = Plan::compile(schema, &query, text)?;
    let object = &schema.objects[plan.object];
    if !object.can(Lack::Bulk) {
        return Err(ApiError::bad(
            "INVALIDENTITY",
            format!("Entity '{}' is not supported by the Bulk API.", object.name),
        ));
    }
    let columns = columns(schema, &query, &plan, text)?;
    for (_, _, kind) in &columns {
        match kind {
            Type::Address => {
                return unsupported("Selecting compound data not supported in Bulk Query");
            }
            Type::Base64 => {
                return unsupported(
                    "Blob field not supported in Bulk V2 Query with CSV content type",
                );
            }
            _ => {}
        }
    }
    Ok(Compiled { plan, columns })
}

/// The columns in the order of the SELECT list, each by its whole name.
fn columns(
    schema: &Schema,
    query: &Query,
    plan: &Plan,
    text: &str,
) -> Result<Vec<(String, Reach, Type)>, ApiError> {
    let scope = Scope {
        schema,
        object: plan.object,
        alias: query.alias.as_deref(),
        text,
    };
    let mut columns = Vec::new();
    for item in &query.select {
        match item {
            Selected::Field(path, _) => {
                let reach = scope.reach(path)?;
                let kind = reach.field(schema).kind;
                columns.push((reach.name(schema), reach, kind));
            }
            Selected::Fields(group) => {
                for (number, field) in schema.objects[plan.object].fields.iter().enumerate() {
                    if group.has(field.is_custom()) {
                        let reach = Reach::of(plan.object, number as u16);
                        columns.push((field.name.clone(), reach, field.kind));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(columns)
}

/// Runs a query job.
pub fn run(org: &Salesforce, job: &Job) -> Done {
    let deleted = job.operation == "queryAll";
    let (compiled, ids) = {
        let store = org.reading();
        let compiled = match compile(&store.schema, &job.query) {
            Ok(compiled) => compiled,
            // The object changed since the job was made.
            Err(error) => {
                let message = format!(
                    "InvalidBatch : Failed to process query: {}: {}",
                    error.code, error.message
                );
                return Done::Failed(message);
            }
        };
        let ids = run::ids(&store, &compiled.plan, deleted);
        (compiled, ids)
    };
    let written = print(org, job, &compiled, &ids, deleted);
    written.map_or_else(|error| Done::Failed(error.to_string()), Done::Rows)
}

fn print(
    org: &Salesforce,
    job: &Job,
    compiled: &Compiled,
    ids: &[Id],
    deleted: bool,
) -> std::io::Result<Rows> {
    let names: Vec<&str> = compiled.columns.iter().map(|it| it.0.as_str()).collect();
    let mut rows = Rows::new(job.dialect, &names)?;
    let delimiter = job.dialect.delimiter();
    let (mut out, mut ends, mut json) = (Vec::new(), Vec::new(), Vec::new());
    for piece in ids.chunks(PIECE) {
        out.clear();
        ends.clear();
        let store = org.reading();
        let table = store.table(compiled.plan.object);
        for id in piece {
            let Some(record) = table.row(*id).filter(|row| deleted || !row.deleted) else {
                continue;
            };
            for (at, (_, reach, kind)) in compiled.columns.iter().enumerate() {
                if at > 0 {
                    out.push(delimiter);
                }
                json.clear();
                reach.push_json(&store, record, &mut json);
                csv::push_json(
                    std::str::from_utf8(&json).unwrap_or("null"),
                    *kind,
                    &mut out,
                );
            }
            job.dialect.end_line(&mut out);
            ends.push(out.len());
        }
        drop(store);
        rows.append(&out, &ends)?;
    }
    Ok(rows)
}

/// The records of a query as a JSON array, with moments as milliseconds, and
/// how many they are: what Bulk API 1.0 gives.
pub fn json(
    org: &Salesforce,
    text: &str,
    deleted: bool,
    version: &str,
) -> Result<(Vec<u8>, usize), String> {
    let failed = |code: &str, message: &str| {
        format!("InvalidBatch : Failed to process query: {code}: {message}")
    };
    let store = org.reading();
    let query = soql::parse(text).map_err(|error| failed(error.code, &error.message))?;
    let plan = Plan::compile(&store.schema, &query, text)
        .map_err(|error| failed(error.code, &error.message))?;
    let ids = run::ids(&store, &plan, deleted);
    let base = format!("/services/data/v{version}");
    let mut out = vec![b'['];
    Printer::new(&store, &base, deleted).records(&plan, &ids, &mut out, |_| false);
    out.push(b']');
    let mut records: Vec<Map<String, Value>> =
        serde_json::from_slice(&out).map_err(|error| error.to_string())?;
    for record in &mut records {
        for (name, value) in record {
            let dated = store.schema.objects[plan.object]
                .field(name)
                .is_some_and(|field| field.kind == Type::Datetime);
            if let (true, Some(at)) = (dated, value.as_str().and_then(moment::parse)) {
                *value = Value::from(at);
            }
        }
    }
    let count = records.len();
    Ok((serde_json::to_vec(&records).unwrap_or_default(), count))
}
