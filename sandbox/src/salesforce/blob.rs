//! The bytes of files: `/sobjects/Attachment/{id}/Body` and its kin.
//!
//! What clients write is kept as they sent it, in base64. The files of a
//! generated org are made again from their id whenever somebody asks, so that
//! many of them need no memory.

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Salesforce;
use super::errors::ApiError;
use super::id::Id;
use super::record::Record;
use super::schema::{Object, Source};
use crate::exchange::Answer;

/// Whether a path names the bytes of a file.
pub fn is_one(org: &Salesforce, object: &str, field: &str) -> bool {
    let store = org.reading();
    store.schema.number(object).is_some_and(|object| {
        store.schema.objects[object]
            .field(field)
            .is_some_and(|field| field.source == Source::Blob)
    })
}

/// Answers with the bytes.
pub fn answer(org: &Salesforce, object: &str, id: &str, field: &str) -> Result<Answer, ApiError> {
    let store = org.reading();
    let object = store
        .schema
        .number(object)
        .ok_or_else(ApiError::not_found)?;
    let record = Id::parse(id)
        .and_then(|id| store.table(object).row(id))
        .filter(|record| !record.deleted)
        .ok_or_else(ApiError::not_found)?;
    let body = bytes(&store.schema.objects[object], record, field);
    Ok(Answer::new(StatusCode::OK, "application/octetstream", body))
}

/// The bytes of a record's file.
fn bytes(object: &Object, record: &Record, field: &str) -> Vec<u8> {
    let stored = object
        .number(field)
        .and_then(|number| record.text(number))
        .and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    stored.unwrap_or_else(|| {
        let size = ["ContentSize", "BodyLength"]
            .iter()
            .find_map(|name| record.json(object.number(name)?)?.parse().ok());
        generated(record.id, size.unwrap_or(0))
    })
}

/// The bytes of a generated file.
pub fn generated(id: Id, size: usize) -> Vec<u8> {
    let line = format!("{id} the quick brown fox jumps over the lazy dog\n");
    line.bytes().cycle().take(size).collect()
}

/// The sum that `Checksum` tells.
pub fn checksum(bytes: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
