//! Describes that were recorded from a real org (`--describe`) are served as
//! they stand; only the version in their addresses follows the request. What
//! they tell of that no table knows extends the schema, so that it can be
//! queried.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use serde_json::Value;

use super::describe;
use super::errors::{ApiError, JSON};
use super::field;
use super::schema::Schema;
use super::staged::{without_hidden, without_hidden_objects};
use super::store::Store;
use crate::exchange::{Answer, Call};

/// When the org's metadata changed last, as far as clients are told.
const MODIFIED: &str = "Wed, 6 May 2026 09:49:20 GMT";

/// Recorded describes.
#[derive(Debug, Default)]
pub struct Described {
    global: Option<String>,
    objects: HashMap<String, String>,
}

impl Described {
    /// Reads files, or all `.json` files of folders, in the order given.
    pub fn read(paths: &[PathBuf], store: &mut Store) -> Result<Described, String> {
        let mut described = Described::default();
        for path in paths {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            if !path.is_dir() {
                described.file(path, store)?;
                continue;
            }
            let mut files: Vec<PathBuf> = fs::read_dir(path)
                .map_err(failed)?
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.extension().is_some_and(|it| it == "json"))
                .collect();
            files.sort();
            for file in files {
                described.file(&file, store)?;
            }
        }
        Ok(described)
    }

    fn file(&mut self, path: &Path, store: &mut Store) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        let mut value: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        // A recorded exchange has the describe as its body.
        if value.get("fields").is_none() && value.get("body").is_some_and(Value::is_object) {
            value = value["body"].take();
        }
        if let Some(entries) = value["sobjects"].as_array() {
            for entry in entries {
                extend(store, entry);
            }
            self.global = Some(value.to_string());
            return Ok(());
        }
        let Some(name) = value["name"]
            .as_str()
            .filter(|_| value["fields"].is_array())
        else {
            return Err(failed(&"is neither a global describe nor one of an object"));
        };
        let name = name.to_owned();
        let object = extend(store, &value);
        for field in value["fields"].as_array().into_iter().flatten() {
            let known = field["name"].as_str().unwrap_or_default();
            if store.schema.objects[object].number(known).is_none()
                && let Some(field) = field::described(field)
            {
                store.schema.objects[object].add(field);
            }
        }
        self.objects.insert(name, value.to_string());
        Ok(())
    }

    /// The global describe.
    pub fn global(&self, call: &Call, schema: &Schema, base: &str) -> Result<Answer, ApiError> {
        let body = match &self.global {
            Some(text) => versioned(&without_hidden_objects(text, &schema.objects), base),
            None => describe::global(schema, base).to_string(),
        };
        Ok(cached(call, body))
    }

    /// The describe of an object.
    pub fn object(
        &self,
        call: &Call,
        store: &Store,
        number: usize,
        base: &str,
    ) -> Result<Answer, ApiError> {
        let object = &store.schema.objects[number];
        let body = match self.objects.get(&object.name) {
            Some(text) => versioned(&without_hidden(text, object), base),
            None => describe::object(store, number, base, &call.origin()).to_string(),
        };
        Ok(cached(call, body))
    }
}

/// An answer that clients may keep.
fn cached(call: &Call, body: String) -> Answer {
    let same = call.header("if-modified-since").is_some_and(|since| {
        let read = |text: &str| {
            chrono::NaiveDateTime::parse_from_str(text.trim(), "%a, %d %b %Y %H:%M:%S GMT").ok()
        };
        match (read(since), read(MODIFIED)) {
            (Some(since), Some(modified)) => since >= modified,
            _ => false,
        }
    });
    let answer = if same {
        Answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        Answer::new(StatusCode::OK, JSON, body)
    };
    answer
        .with("etag", "\"e8178a2d\"")
        .with("last-modified", MODIFIED)
}

/// A text whose addresses are of the version that was asked for.
fn versioned(text: &str, base: &str) -> String {
    const START: &str = "/services/data/v";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(START) {
        out.push_str(&rest[..at]);
        out.push_str(base);
        let behind = &rest[at + START.len()..];
        let end = behind.find(['/', '"']).unwrap_or(behind.len());
        rest = &behind[end..];
    }
    out.push_str(rest);
    out
}

/// The number of a described object; unknown ones are added.
fn extend(store: &mut Store, entry: &Value) -> usize {
    let name = entry["name"].as_str().unwrap_or_default();
    store
        .schema
        .number(name)
        .unwrap_or_else(|| store.extend(name, entry["keyPrefix"].as_str()))
}
