//! One record, kept small: a million of them must fit into memory.
//!
//! The stamps stand in the struct; every other value that is not null is
//! kept as the JSON text that the API prints, in one block of bytes:
//! `field number (2 bytes), length (LEB128), JSON text`, in the order of the
//! object's fields. Printing a record is copying.

use std::borrow::Cow;

use super::id::Id;
use super::moment::Millis;

/// A record as one object's table keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: Id,
    /// `CreatedDate`.
    pub created: Millis,
    /// `LastModifiedDate`.
    pub modified: Millis,
    /// `SystemModstamp`.
    pub modstamp: Millis,
    /// `IsDeleted`: in the recycle bin.
    pub deleted: bool,
    /// The other values.
    pub values: Box<[u8]>,
}

/// Values of a record that is being built or edited: field number and JSON
/// text, without nulls.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<(u16, String)>);

impl Values {
    /// No values.
    pub fn new() -> Values {
        Values::default()
    }

    /// The values of a record.
    pub fn of(record: &Record) -> Values {
        Values(
            record
                .entries()
                .map(|(field, text)| (field, text.to_owned()))
                .collect(),
        )
    }

    /// Sets the JSON text of a field; `null` removes it.
    pub fn set_json(&mut self, field: u16, json: impl Into<String>) {
        let json = json.into();
        match self.0.binary_search_by_key(&field, |entry| entry.0) {
            Ok(at) if json == "null" => {
                self.0.remove(at);
            }
            Ok(at) => self.0[at].1 = json,
            Err(_) if json == "null" => {}
            Err(at) => self.0.insert(at, (field, json)),
        }
    }

    /// Sets a field to a text; an empty one is null, as in the real store.
    pub fn set_text(&mut self, field: u16, text: &str) {
        if text.is_empty() {
            self.set_json(field, "null");
        } else {
            self.set_json(field, quote(text));
        }
    }

    /// The JSON text of a field.
    pub fn json(&self, field: u16) -> Option<&str> {
        self.0
            .binary_search_by_key(&field, |entry| entry.0)
            .ok()
            .map(|at| self.0[at].1.as_str())
    }

    /// The text of a field.
    pub fn text(&self, field: u16) -> Option<Cow<'_, str>> {
        self.json(field).and_then(unquote)
    }

    /// The block of bytes that a record keeps.
    pub fn pack(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(self.0.iter().map(|entry| entry.1.len() + 5).sum());
        for (field, json) in &self.0 {
            out.extend_from_slice(&field.to_le_bytes());
            let mut length = json.len();
            while length >= 0x80 {
                out.push((length as u8) | 0x80);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend_from_slice(json.as_bytes());
        }
        out.into_boxed_slice()
    }
}

impl Record {
    /// Field numbers and JSON texts of the values, in the order of fields.
    pub fn entries(&self) -> Entries<'_> {
        Entries(&self.values)
    }

    /// The JSON text of one field.
    pub fn json(&self, field: u16) -> Option<&str> {
        self.entries()
            .take_while(|entry| entry.0 <= field)
            .find(|entry| entry.0 == field)
            .map(|entry| entry.1)
    }

    /// The text of one field.
    pub fn text(&self, field: u16) -> Option<Cow<'_, str>> {
        self.json(field).and_then(unquote)
    }

    /// The id that a reference field holds.
    pub fn reference(&self, field: u16) -> Option<Id> {
        self.json(field)
            .and_then(|json| Id::parse(json.trim_matches('"')))
    }
}

/// Walks the values of a record.
pub struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (u16, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, mut rest) = self.0.split_first_chunk::<2>()?;
        let field = u16::from_le_bytes(*head);
        let mut length = 0;
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (json, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((field, std::str::from_utf8(json).unwrap_or("null")))
    }
}

/// A text as JSON.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text in a JSON string; nothing if the JSON is no string.
pub fn unquote(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A double as the API prints it, which is as Java does: `15000.0`, but
/// `1.39E8` from ten million on and `5.0E-4` below a thousandth.
pub fn double(number: f64) -> String {
    if number == 0.0 {
        return "0.0".to_owned();
    }
    let size = number.abs();
    if (1e-3..1e7).contains(&size) {
        let text = format!("{number}");
        return if text.contains('.') {
            text
        } else {
            text + ".0"
        };
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_packing() {
        let long = "ü".repeat(20_000);
        let mut values = Values::new();
        values.set_text(700, &long);
        values.set_text(3, "a \"quoted\" line\r\nand 🦀");
        values.set_json(5, "15000.0");
        values.set_text(4, "");
        values.set_json(6, "true");
        values.set_json(6, "null");
        let record = Record {
            id: Id::numbered("001", 1),
            created: 0,
            modified: 0,
            modstamp: 0,
            deleted: false,
            values: values.pack(),
        };
        assert_eq!(record.text(3).unwrap(), "a \"quoted\" line\r\nand 🦀");
        assert_eq!(record.text(700).unwrap(), long);
        assert_eq!(record.json(5), Some("15000.0"));
        assert_eq!(record.json(4), None);
        assert_eq!(record.json(6), None);
        assert_eq!(record.entries().count(), 3);
        assert_eq!(Values::of(&record).pack(), record.values);
    }

    #[test]
    fn doubles_print_as_the_api_prints_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (15000.0, "15000.0"),
            (139_000_000.0, "1.39E8"),
            (10_000_000.0, "1.0E7"),
            (9_999_999.99, "9999999.99"),
            (-2.5, "-2.5"),
            (0.001, "0.001"),
            (0.0005, "5.0E-4"),
            (1234567890.12, "1.23456789012E9"),
        ] {
            assert_eq!(double(number), text);
        }
    }
}
