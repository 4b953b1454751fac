//! The files of Bulk API: every value in quotes, null as an empty one, dates
//! with a `Z`.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::salesforce::errors::ApiError;
use crate::salesforce::record::unquote;
use crate::salesforce::schema::Type;

/// What stands between columns, by its name in the API.
const DELIMITERS: [(&str, u8); 6] = [
    ("COMMA", b','),
    ("BACKQUOTE", b'`'),
    ("CARET", b'^'),
    ("PIPE", b'|'),
    ("SEMICOLON", b';'),
    ("TAB", b'\t'),
];

/// How a job's files look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    delimiter: usize,
    crlf: bool,
}

impl Dialect {
    /// The one that a job asks for; comma and line feed when it says nothing.
    pub fn of(request: &Map<String, Value>) -> Result<Dialect, ApiError> {
        let text = |name: &str, or: &'static str| {
            request
                .get(name)
                .and_then(Value::as_str)
                .map_or(or.to_owned(), str::to_uppercase)
        };
        let unknown = |what: &str, value: &str| {
            ApiError::bad("INVALIDJOB", format!("Invalid {what}: {value}"))
        };
        let content = text("contentType", "CSV");
        if content != "CSV" {
            return Err(unknown("content type", &content));
        }
        let wanted = text("columnDelimiter", "COMMA");
        let delimiter = DELIMITERS
            .iter()
            .position(|known| known.0 == wanted)
            .ok_or_else(|| unknown("columnDelimiter", &wanted))?;
        let crlf = match text("lineEnding", "LF").as_str() {
            "LF" => false,
            "CRLF" => true,
            other => return Err(unknown("lineEnding", other)),
        };
        Ok(Dialect { delimiter, crlf })
    }

    /// `columnDelimiter`.
    pub fn column_delimiter(self) -> &'static str {
        DELIMITERS[self.delimiter].0
    }

    /// `lineEnding`.
    pub fn line_ending(self) -> &'static str {
        if self.crlf { "CRLF" } else { "LF" }
    }

    /// The delimiter itself.
    pub fn delimiter(self) -> u8 {
        DELIMITERS[self.delimiter].1
    }

    /// Ends a line.
    pub fn end_line(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.crlf { b"\r\n" } else { b"\n" });
    }

    /// Appends a line of texts.
    pub fn line<'a>(self, cells: impl IntoIterator<Item = &'a str>, out: &mut Vec<u8>) {
        for (at, cell) in cells.into_iter().enumerate() {
            if at > 0 {
                out.push(self.delimiter());
            }
            push(cell, out);
        }
        self.end_line(out);
    }
}

/// Appends a text in quotes.
pub fn push(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.extend_from_slice(b"\"\"");
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// Appends the value that REST prints as this JSON.
pub fn push_json(json: &str, kind: Type, out: &mut Vec<u8>) {
    let text = match json {
        "null" => Cow::Borrowed(""),
        json => unquote(json).unwrap_or(Cow::Borrowed(json)),
    };
    match text.strip_suffix("+0000") {
        Some(moment) if kind == Type::Datetime => push(&format!("{moment}Z"), out),
        _ => push(&text, out),
    }
}

/// The lines of a file: its header and its rows. Rows have as many cells as
/// the file says, right or wrong.
pub fn read(data: &[u8], dialect: Dialect) -> Result<(Vec<String>, Vec<Vec<String>>), String> {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(dialect.delimiter())
        .flexible(true)
        .has_headers(false)
        .from_reader(data);
    let mut lines = Vec::new();
    for line in reader.records() {
        let line = line.map_err(|error| format!("InvalidBatch : {error}"))?;
        lines.push(line.iter().map(str::to_owned).collect::<Vec<_>>());
    }
    if lines.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let rows = lines.split_off(1);
    Ok((lines.remove(0), rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(json: &str, kind: Type) -> String {
        let mut out = Vec::new();
        push_json(json, kind, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_printed_as_bulk_prints_them() {
        let table = [
            ("null", Type::String, "\"\""),
            (r#""a \"b\" c""#, Type::String, "\"a \"\"b\"\" c\""),
            (r#""l1\r\nl2""#, Type::Textarea, "\"l1\r\nl2\""),
            ("15000.0", Type::Currency, "\"15000.0\""),
            ("12", Type::Int, "\"12\""),
            ("false", Type::Boolean, "\"false\""),
            (
                r#""2026-03-31T09:15:00.000+0000""#,
                Type::Datetime,
                "\"2026-03-31T09:15:00.000Z\"",
            ),
            (r#""2026-03-31""#, Type::Date, "\"2026-03-31\""),
            (
                r#""2026-03-31T09:15:00.000+0000""#,
                Type::String,
                "\"2026-03-31T09:15:00.000+0000\"",
            ),
        ];
        for (json, kind, expected) in table {
            assert_eq!(cell(json, kind), expected);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for request in [
            serde_json::json!({}),
            serde_json::json!({"columnDelimiter": "PIPE", "lineEnding": "CRLF"}),
            serde_json::json!({"columnDelimiter": "TAB"}),
        ] {
            let dialect = Dialect::of(request.as_object().unwrap()).unwrap();
            let mut out = Vec::new();
            dialect.line(["A", "B,|\t"], &mut out);
            dialect.line(["1\n2\r\n3", "\"q\" ü"], &mut out);
            dialect.line(["", "x"], &mut out);
            let (header, rows) = read(&out, dialect).unwrap();
            assert_eq!(header, ["A", "B,|\t"]);
            assert_eq!(rows, [["1\n2\r\n3", "\"q\" ü"], ["", "x"]]);
        }
        let bad = serde_json::json!({"columnDelimiter": "DOT"});
        assert_eq!(
            Dialect::of(bad.as_object().unwrap()).unwrap_err().code,
            "INVALIDJOB"
        );
    }
}
