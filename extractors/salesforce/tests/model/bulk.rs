//! Query jobs of the model. Their files are printed by hand, not from what REST
//! prints: the two must differ where the real ones do.

use drover_pipeline::testing::extractor::Write;
use rand::Rng;
use serde_json::{Value, json};

use super::api::stamp;
use super::{Millis, State, Version, soql};

/// A job.
pub struct Job {
    query: String,
    all: bool,
    polls: u32,
    created: Millis,
    rows: Option<Vec<(String, Version)>>,
    state: &'static str,
}

/// How a job is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// It ends as `Failed` or `Aborted`.
    Ends(&'static str),
    /// It is not there any more, nor is its file.
    Deleted,
    /// The locators of its file are good no more.
    Expired,
}

/// What a request about a job gives.
pub enum Bulk {
    Json(String),
    File(usize, String, String),
    Refused(u16, &'static str),
}

impl State {
    pub fn create_job(&mut self, body: &str) -> Result<String, &'static str> {
        let wanted: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            (&wanted["contentType"], &wanted["lineEnding"]),
            (&json!("CSV"), &json!("LF"))
        );
        let query = wanted["query"].as_str().expect("a query").to_owned();
        if self.no_bulk {
            return Err("the entity is not supported by the Bulk API");
        }
        assert!(
            !query.contains("ORDER") && !query.contains("LIMIT"),
            "{query}"
        );
        let id = format!("750{:012}AAA", self.jobs.len());
        let job = Job {
            query,
            all: wanted["operation"] == "queryAll",
            polls: self.polls,
            created: self.now,
            rows: None,
            state: "UploadComplete",
        };
        let text = describe(&id, &job);
        self.jobs.insert(id, job);
        Ok(text)
    }

    /// Ends every job that there is.
    pub fn doom(&mut self, doom: Doom) {
        self.expired += u32::from(doom == Doom::Expired);
        match doom {
            Doom::Ends(state) => self.jobs.values_mut().for_each(|job| job.state = state),
            Doom::Deleted => self.jobs.values_mut().for_each(|job| job.state = "gone"),
            Doom::Expired => {}
        }
    }

    pub fn job(&mut self, rest: &str, most: Option<usize>, locator: Option<&str>) -> Bulk {
        let (id, file) = match rest.split_once('/') {
            Some((id, "results")) => (id.to_owned(), true),
            None => (rest.to_owned(), false),
            other => panic!("{other:?}"),
        };
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state != "gone") else {
            return Bulk::Refused(404, "NOT_FOUND");
        };
        if !file {
            if matches!(job.state, "UploadComplete" | "InProgress") {
                job.state = "InProgress";
                if job.polls == 0 {
                    job.state = "JobComplete";
                    let (query, all) = (soql::parse(&job.query), job.all);
                    let rows = self.find(&query, all);
                    self.jobs.get_mut(&id).expect("it").rows = Some(rows);
                } else {
                    job.polls -= 1;
                }
            }
            return Bulk::Json(describe(&id, &self.jobs[&id]));
        }
        if job.state != "JobComplete" {
            return Bulk::Refused(412, "JOB_NOT_COMPLETE");
        }
        let fields = soql::parse(&job.query).fields;
        let rows = job.rows.clone().expect("rows");
        let expired = self.expired;
        let from = match locator.map(|text| text.split_once('x').expect("a locator")) {
            None => 0,
            Some((_, generation)) if generation != expired.to_string() => {
                return Bulk::Refused(400, "INVALID_QUERY_LOCATOR");
            }
            Some((from, _)) => from.parse().expect("a number"),
        };
        let mut count = most.unwrap_or(usize::MAX).min(rows.len() - from);
        if self.short && count > 1 && self.rng.random_bool(0.3) {
            count = self.rng.random_range(1..count);
        }
        let end = from + count;
        let next = if end < rows.len() {
            format!("{end}x{expired}")
        } else {
            "null".to_owned()
        };
        let line = |cells: Vec<String>| {
            let quoted = cells
                .iter()
                .map(|cell| format!("\"{}\"", cell.replace('"', "\"\"")));
            quoted.collect::<Vec<_>>().join(",") + "\n"
        };
        let mut body = line(fields.clone());
        for (id, version) in &rows[from..end] {
            body += &line(
                fields
                    .iter()
                    .map(|field| cell(id, version, self.formula, field))
                    .collect(),
            );
        }
        Bulk::File(count, next, body)
    }

    /// How often each job can still be asked for before it is done.
    pub fn polls_of_jobs(&self) -> Vec<u32> {
        self.jobs.values().map(|job| job.polls).collect()
    }

    /// Writes what a test wants at a moment inside a copy.
    pub fn edit(&mut self, object: &str, id: &str) {
        self.write(object, Write::Edit(id)).expect("an edit");
    }
}

fn describe(id: &str, job: &Job) -> String {
    let mut said = json!({
        "id": id, "operation": "query", "state": job.state, "createdDate": stamp(job.created),
    });
    if job.state == "Failed" {
        said["errorMessage"] = json!("QUERY_TIMEOUT");
    }
    said.to_string()
}

/// A value as Bulk prints it.
fn cell(id: &str, version: &Version, formula: u32, field: &str) -> String {
    match field {
        "Id" => id.to_owned(),
        "IsDeleted" => version.deleted.to_string(),
        "Name" => format!("Zoë, \"🦀\"\r\n{}", version.value),
        "Amount__c" => {
            let thousandths = (version.value % 100) * 1_000 + version.value % 1_000;
            format!("{}.{:02}", thousandths / 100, thousandths % 100)
        }
        "Count__c" => format!("{}.0", version.value % 1_000),
        "Open__c" => version.value.is_multiple_of(2).to_string(),
        "Nothing__c" => String::new(),
        "Formula__c" => format!("= {formula}"),
        "CreatedDate" | "SystemModstamp" => stamp(version.stamp).replace("+0000", "Z"),
        wide if wide.starts_with("Wide") => format!("{} {wide}", version.value),
        other => panic!("field {other}"),
    }
}
