//! What the model answers: the token endpoint, describes, queries and the log
//! of deletes.

use chrono::{DateTime, SecondsFormat};
use drover_pipeline::testing::extractor::Fault;
use rand::Rng;
use serde_json::{Value, json};

use super::bulk::Bulk;
use super::http::{self, JSON, Reply, Request};
use super::{Millis, State, Version, soql};

impl State {
    fn date(&mut self) -> String {
        let skew = if self.skew > 0 {
            self.rng.random_range(-self.skew..=self.skew)
        } else {
            0
        };
        DateTime::from_timestamp_millis(self.now + skew)
            .expect("a time")
            .format("%a, %d %b %Y %H:%M:%S GMT")
            .to_string()
    }

    pub fn handle(&mut self, request: &Request) -> Reply {
        if let Some(mut chaos) = self.chaos.take() {
            chaos(self);
            self.chaos = Some(chaos);
        }
        self.advance();
        self.requests += 1;
        let date = self.date();
        let json =
            |status, body: Value| Reply::Answer(status, JSON, date.clone(), body.to_string());
        let refused = |status, code: &str, message: &str| {
            json(status, json!([{"message": message, "errorCode": code}]))
        };
        let mut half = false;
        match self.struck() {
            Some(Fault::RateLimit) => {
                return refused(
                    403,
                    "REQUEST_LIMIT_EXCEEDED",
                    "TotalRequests Limit exceeded.",
                );
            }
            Some(Fault::ServerError) => {
                return refused(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred.");
            }
            Some(Fault::CutBefore | Fault::CutAfter) => return Reply::Cut,
            Some(Fault::HtmlPage) => {
                return Reply::Answer(200, "text/html", date, "<html>Sorry</html>".to_owned());
            }
            Some(Fault::NotJson) => {
                return Reply::Answer(200, JSON, date, "gateway says hello".to_owned());
            }
            Some(Fault::Truncated) => half = true,
            Some(Fault::ExpiredToken) if request.method == "GET" => self.token += 1,
            Some(Fault::ExpiredToken | Fault::Slow) | None => {}
        }
        if request.path == "/services/oauth2/token" {
            let form = http::form(&request.body);
            let has =
                |name: &str, value: &str| form.iter().any(|pair| pair.0 == name && pair.1 == value);
            assert!(has("grant_type", "client_credentials"), "{form:?}");
            if !has("client_id", "id") || !has("client_secret", "hush") {
                let body = json!({"error": "invalid_client", "error_description": "invalid client credentials"});
                return json(400, body);
            }
            if half {
                return Reply::Half(date, "{}".to_owned());
            }
            self.logins += 1;
            return json(
                200,
                json!({"access_token": format!("token {}", self.token), "instance_url": self.origin, "token_type": "Bearer"}),
            );
        }
        if request.token.as_deref() != Some(&format!("token {}", self.token)) {
            return refused(401, "INVALID_SESSION_ID", "Session expired or invalid");
        }
        let Some(path) = request.path.strip_prefix("/services/data/v67.0") else {
            return refused(404, "NOT_FOUND", "The requested resource does not exist");
        };
        let parameter = |name: &str| {
            request
                .query
                .iter()
                .find(|pair| pair.0 == name)
                .map(|pair| pair.1.as_str())
        };
        let body = match path {
            "/limits" => json!({"DailyApiRequests": {"Max": 100, "Remaining": 50}}).to_string(),
            "/limits/recordCount" => return refused(403, "INSUFFICIENT_ACCESS", "View Setup"),
            "/sobjects" => self.global().to_string(),
            "/jobs/query" => match self.create_job(&request.body) {
                Ok(body) => body,
                Err(message) => return refused(400, "API_ERROR", message),
            },
            _ if path.starts_with("/jobs/query/") => {
                let most = parameter("maxRecords").map(|most| most.parse().expect("a number"));
                match self.job(&path["/jobs/query/".len()..], most, parameter("locator")) {
                    Bulk::Json(body) => body,
                    Bulk::Refused(status, code) => return refused(status, code, "no"),
                    Bulk::File(rows, locator, body) if !half => {
                        return Reply::File(date, rows, locator, body);
                    }
                    Bulk::File(_, _, body) if self.requests.is_multiple_of(2) => {
                        return Reply::Half(date, body);
                    }
                    Bulk::File(rows, locator, body) => {
                        let end = (0..body.len() * 2 / 3)
                            .rev()
                            .find(|at| body.is_char_boundary(*at));
                        let cut = body[..end.unwrap_or(0)].to_owned();
                        return Reply::File(date, rows, locator, cut);
                    }
                }
            }
            // As the real host does with a request line of more than 16 KB.
            _ if request.length > 16_000 => {
                return Reply::Answer(414, "text/html", date, "URI Too Long".to_owned());
            }
            "/query" | "/queryAll" => self.query(parameter("q").expect("q"), path == "/queryAll"),
            _ if path.ends_with("/describe") => describe().to_string(),
            _ if path.starts_with("/query/") => match self.locator(path) {
                Some(body) => body,
                None => return refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator"),
            },
            _ => match path
                .strip_prefix("/sobjects/")
                .and_then(|rest| rest.strip_suffix("/deleted/"))
            {
                Some(object) => match self.deleted(
                    object,
                    parameter("start").expect("start"),
                    parameter("end").expect("end"),
                ) {
                    Ok(body) => body,
                    Err(code) => return refused(400, code, "no"),
                },
                None => return refused(404, "NOT_FOUND", "The requested resource does not exist"),
            },
        };
        // The answer is sent when the work is done, by the same clock.
        match (half, self.requests % 2) {
            (false, _) => Reply::Answer(200, JSON, date, body),
            // Cut on the way, or cut where it was made.
            (true, 0) => Reply::Half(date, body),
            (true, _) => {
                let end = (0..body.len() / 2)
                    .rev()
                    .find(|at| body.is_char_boundary(*at));
                Reply::Answer(200, JSON, date, body[..end.unwrap_or(0)].to_owned())
            }
        }
    }

    fn struck(&mut self) -> Option<Fault> {
        let (fault, at, times) = self.fault.as_mut()?;
        if *at > 1 {
            *at -= 1;
            return None;
        }
        *times = times.checked_sub(1)?;
        Some(*fault)
    }

    fn global(&self) -> Value {
        let entry = |name: &&str| json!({"name": name, "custom": name.ends_with("__c"), "customSetting": false, "queryable": true});
        json!({"sobjects": self.tables.keys().map(entry).collect::<Vec<_>>()})
    }

    /// The records that a query finds, in its order.
    pub fn find(&self, query: &soql::Query, all: bool) -> Vec<(String, Version)> {
        let mut found: Vec<(String, Version)> = Vec::new();
        for (id, row) in &self.tables[query.object.as_str()].rows {
            let Some(version) = &row.shown else { continue };
            let value = |field: &str| match field {
                "Id" => id.clone(),
                "SystemModstamp" => format!("{:020}", version.stamp),
                "IsDeleted" => version.deleted.to_string(),
                other => panic!("a filter by {other}"),
            };
            if (all || !version.deleted)
                && query
                    .filter
                    .as_ref()
                    .is_none_or(|filter| filter.holds(&value))
            {
                found.push((id.clone(), version.clone()));
            }
        }
        match query.order.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["Id"] => {}
            ["SystemModstamp", "Id"] => {
                found.sort_by(|a, b| (a.1.stamp, &a.0).cmp(&(b.1.stamp, &b.0)))
            }
            ref other => panic!("order by {other:?}"),
        }
        if !query.count {
            found.retain(|(id, _)| !self.hidden.contains(id));
        }
        found.truncate(query.limit.unwrap_or(usize::MAX));
        found
    }

    fn query(&mut self, text: &str, all: bool) -> String {
        let query = soql::parse(text);
        let fields: Vec<&str> = query.fields.iter().map(String::as_str).collect();
        let found = self.find(&query, all);
        if query.count {
            let total = found.len();
            return format!(r#"{{"totalSize":{total},"done":true,"records":[]}}"#);
        }
        let rows = found
            .iter()
            .map(|(id, version)| {
                let without = self.without.get(id).copied();
                let kept = fields
                    .iter()
                    .copied()
                    .filter(|field| Some(*field) != without);
                record(id, version, self.formula, &kept.collect::<Vec<_>>())
            })
            .collect();
        self.answer(rows)
    }

    fn answer(&mut self, mut rows: Vec<String>) -> String {
        let total = rows.len();
        let mut more = String::new();
        if self.short && rows.len() > 1 && self.rng.random_bool(0.3) {
            let rest = rows.split_off(self.rng.random_range(1..rows.len()));
            let name = format!("01g{:012}-{}", self.locators.len(), rows.len());
            more = format!(r#""nextRecordsUrl":"/services/data/v67.0/query/{name}","#);
            self.locators.insert(name, rest);
        }
        format!(
            r#"{{"totalSize":{total},"done":{},{more}"records":[{}]}}"#,
            more.is_empty(),
            rows.join(",")
        )
    }

    fn locator(&mut self, path: &str) -> Option<String> {
        let rows = self.locators.remove(&path["/query/".len()..]);
        if std::mem::take(&mut self.forget_locators) {
            return None;
        }
        Some(self.answer(rows.expect("a locator")))
    }

    fn deleted(&self, object: &str, start: &str, end: &str) -> Result<String, &'static str> {
        let moment = |text: &str| {
            DateTime::parse_from_rfc3339(text)
                .expect("a time")
                .timestamp_millis()
        };
        let (start, end) = (moment(start), moment(end));
        assert!(
            start % 60_000 == 0 && end % 60_000 == 0 && end > start,
            "whole minutes"
        );
        if start < self.now - 30 * 86_400_000 {
            return Err("INVALID_REPLICATION_DATE");
        }
        let table = &self.tables[object];
        // Undeleted records stay in the log: the extractor must look.
        let records: Vec<Value> = table
            .log
            .iter()
            .filter(|(at, _)| (start..end).contains(at))
            .map(|(at, id)| json!({"id": id, "deletedDate": stamp(*at)}))
            .collect();
        if records.len() > self.most_deletes {
            return Err("EXCEEDED_ID_LIMIT");
        }
        let open = table
            .rows
            .values()
            .filter_map(|row| row.pending.as_ref())
            .map(|pending| pending.1)
            .min();
        let covered = if self.honest {
            open.unwrap_or(self.now).min(self.now)
        } else {
            self.now
        };
        let said = json!({
            "deletedRecords": records,
            "earliestDateAvailable": stamp(self.log_start),
            "latestDateCovered": stamp((covered - covered % 60_000).min(end)),
        });
        Ok(said.to_string())
    }
}

/// The fields of every object; the compound one is not asked for.
pub const FIELDS: [&str; 10] = [
    "Id",
    "IsDeleted",
    "Name",
    "Amount__c",
    "Count__c",
    "Open__c",
    "Nothing__c",
    "Formula__c",
    "CreatedDate",
    "SystemModstamp",
];

fn describe() -> Value {
    let kind = |name: &str| match name {
        "Id" => "id",
        "IsDeleted" | "Open__c" => "boolean",
        "Name" => "textarea",
        "Amount__c" => "currency",
        "Count__c" => "int",
        "CreatedDate" | "SystemModstamp" => "datetime",
        _ => "string",
    };
    let mut fields: Vec<Value> = FIELDS
        .iter()
        .map(|name| json!({"name": name, "type": kind(name), "calculated": *name == "Formula__c"}))
        .collect();
    fields.insert(3, json!({"name": "BillingAddress", "type": "address"}));
    json!({"fields": fields})
}

pub fn stamp(at: Millis) -> String {
    DateTime::from_timestamp_millis(at)
        .expect("a time")
        .to_rfc3339_opts(SecondsFormat::Millis, true)
        .replace('Z', "+0000")
}

/// A record as the API prints it.
pub fn record(id: &str, version: &Version, formula: u32, fields: &[&str]) -> String {
    let value = |field: &str| match field {
        "Id" => format!("{id:?}"),
        "IsDeleted" => version.deleted.to_string(),
        "Name" => format!(r#""Zo\u00eb, \"🦀\"\r\n{}""#, version.value),
        "Amount__c" => format!("{}.{:03}E1", version.value % 100, version.value % 1_000),
        "Count__c" => (version.value % 1_000).to_string(),
        "Open__c" => version.value.is_multiple_of(2).to_string(),
        "Nothing__c" => "null".to_owned(),
        "Formula__c" => format!("\"= {formula}\""),
        "CreatedDate" | "SystemModstamp" => format!("{:?}", stamp(version.stamp)),
        wide if wide.starts_with("Wide") => format!("\"{} {wide}\"", version.value),
        other => panic!("field {other}"),
    };
    let values: Vec<String> = fields
        .iter()
        .map(|field| format!("{field:?}:{}", value(field)))
        .collect();
    format!(r#"{{"attributes":{{"type":"X"}},{}}}"#, values.join(","))
}
