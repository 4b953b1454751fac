//! The suite of every loader, and how it looks at this target by its own means.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate};
use drover_loader_dummy::{Config, Dummy};
use drover_pipeline::http::HttpClient;
use drover_pipeline::load::Loader;
use drover_pipeline::testing::loader::{Harness, Row};
use drover_schemas::{Datum, Entity, Kind, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

struct Folder(tempfile::TempDir);

#[derive(Deserialize)]
struct Stored {
    id: String,
    key: String,
    deleted: bool,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    fields: BTreeMap<String, serde_json::Value>,
    /// Digit by digit, as it stands in the file.
    custom: BTreeMap<String, Box<RawValue>>,
}

impl Folder {
    fn files(&self, entity: &Entity) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.0.path().join(&entity.name)).expect("a folder");
        let files = files.map(|file| file.expect("a file").path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        files.collect()
    }
}

impl Harness for Folder {
    type Loader = Dummy;

    async fn fresh() -> Option<Self> {
        Some(Folder(tempfile::tempdir().expect("a folder")))
    }

    fn loader(&self) -> Dummy {
        let config = Config {
            folder: self.0.path().to_owned(),
        };
        let http = HttpClient::new().expect("a client");
        Dummy::new(config, http).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    async fn rows(&self, entity: &'static Entity) -> Vec<Row> {
        let rows = self.files(entity).into_iter().map(|path| {
            let text = std::fs::read_to_string(path).expect("a record");
            let stored: Stored = serde_json::from_str(&text).expect("a record");
            Row {
                key: stored.key,
                id: stored.id,
                deleted: stored.deleted,
                values: entity
                    .fields
                    .iter()
                    .map(|field| value(field.kind, &stored.content.fields[&field.name]))
                    .collect(),
                custom: stored
                    .content
                    .custom
                    .into_iter()
                    .map(|(name, json)| (name, json.get().to_owned()))
                    .collect(),
            }
        });
        rows.collect()
    }

    /// A file is never taken away, so each is one create.
    async fn creates(&self, entity: &'static Entity) -> usize {
        self.files(entity).len()
    }

    /// What is written can be found at once.
    async fn settle(&self) {}

    fn spoil(&self, datum: &mut Datum<'static>) {
        datum.values[0] = Value::String("x".repeat(2 << 20).into());
    }

    /// A folder has no connections that could break.
    async fn restart(&self) {}
}

fn value(kind: Kind, json: &serde_json::Value) -> Value<'static> {
    if json.is_null() {
        return Value::Null;
    }
    let text = || json.as_str().expect("a text").to_owned();
    match kind {
        Kind::String => Value::String(text().into()),
        Kind::Decimal => Value::Decimal(text().into()),
        Kind::Reference => Value::Reference(text().into()),
        Kind::Boolean => Value::Boolean(json.as_bool().expect("a boolean")),
        Kind::Long => Value::Long(json.as_i64().expect("a number")),
        Kind::Date => {
            let day: NaiveDate = text().parse().expect("a day");
            let since = day - DateTime::UNIX_EPOCH.date_naive();
            Value::Date(i32::try_from(since.num_days()).expect("a day"))
        }
        Kind::Datetime => {
            let time = DateTime::parse_from_rfc3339(&text()).expect("a moment");
            Value::Datetime(time.timestamp_millis())
        }
    }
}

drover_pipeline::loader_suite!(Folder);
