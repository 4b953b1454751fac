//! Values as PostgreSQL's binary COPY takes them: nothing to escape here, and
//! nothing to parse there.
//!
//! What has no exact binary form here (a decimal or an id that is no plain
//! number, a moment out of 64 bits) is left to the text form, where the server
//! judges it by name.
//! Source: PostgreSQL's manual, "COPY", binary format; the types' `*_recv`.

use drover_pipeline::load::Item;
use drover_pipeline::record::{Millis, Order};
use drover_schemas::{Custom, Datum, Value};

/// What stands before the first row.
pub(crate) const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands behind the last row.
pub(crate) const END: &[u8] = &(-1_i16).to_be_bytes();

/// 2000-01-01, PostgreSQL's day 0, in days since 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
/// The object id of the type `bigint`.
const BIGINT: i32 = 20;

/// Appends the start of a row of so many columns.
pub(crate) fn put_columns(out: &mut Vec<u8>, columns: usize) {
    out.extend_from_slice(&(columns as i16).to_be_bytes());
}

/// How many columns [`put_staged`] appends for an entity of so many fields:
/// `custom`, four parts of the key, version and order come behind the fields.
pub(crate) const fn staged(fields: usize) -> usize {
    fields + 7
}

/// Appends what a staged row holds: the fields, then `custom`, key, version and
/// order. `None` when a value has no binary form here.
pub(crate) fn put_staged(
    out: &mut Vec<u8>,
    item: &Item<'_>,
    datum: &Datum<'_>,
    links: &[(usize, String)],
) -> Option<()> {
    for (field, value) in datum.values.iter().enumerate() {
        match value {
            Value::Null => put_null(out),
            Value::String(text) => put_bytes(out, text.as_bytes()),
            Value::Boolean(value) => put_bytes(out, &[u8::from(*value)]),
            Value::Long(number) => put_long(out, *number),
            Value::Decimal(text) => put_sized(out, |out| put_decimal(out, text))?,
            Value::Date(days) => put_bytes(out, &days.checked_sub(EPOCH_DAYS)?.to_be_bytes()),
            Value::Datetime(millis) => put_long(out, micros(*millis)?),
            Value::Reference(_) => match links.iter().find(|(linked, _)| *linked == field) {
                Some((_, id)) => put_long(out, id.parse().ok()?),
                None => put_null(out),
            },
        }
    }
    put_sized(out, |out| put_custom(out, &datum.custom))?;
    let (source, object, id, slot) = item.key.parts();
    for part in [source, object, id, slot] {
        put_bytes(out, part.as_bytes());
    }
    put_long(out, micros(item.version)?);
    put_order(out, &item.order);
    Some(())
}

/// Appends a `bigint`, or a moment in microseconds as PostgreSQL counts them.
pub(crate) fn put_long(out: &mut Vec<u8>, number: i64) {
    put_bytes(out, &number.to_be_bytes());
}

fn put_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1_i32).to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a value whose length is known only when it is written.
fn put_sized(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<()> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out)?;
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// A moment in microseconds since 2000.
fn micros(millis: Millis) -> Option<i64> {
    millis.checked_mul(1000)?.checked_sub(EPOCH_MICROS)
}

fn put_order(out: &mut Vec<u8>, order: &Order) {
    let numbers = order.as_array();
    out.extend_from_slice(&(20 + 12 * numbers.len() as u32).to_be_bytes());
    // One dimension, no NULL, of bigint, so many, counted from 1.
    for number in [1, 0, BIGINT, numbers.len() as i32, 1] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for number in numbers {
        put_long(out, number);
    }
}

/// `{API name: value}` as `jsonb`: a version, then JSON; the values are JSON
/// texts already.
fn put_custom(out: &mut Vec<u8>, customs: &[Custom<'_>]) -> Option<()> {
    out.extend_from_slice(b"\x01{");
    for (nth, custom) in customs.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, &custom.name).ok()?;
        out.push(b':');
        out.extend_from_slice(custom.json.as_bytes());
    }
    out.push(b'}');
    Some(())
}

/// A `numeric`: digits to the base of 10,000, the weight of the first, the sign,
/// and how many decimal places are shown.
fn put_decimal(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let (negative, plain) = match text.strip_prefix('-') {
        Some(plain) => (true, plain),
        None => (false, text),
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // `1.` and `.5` are no decimals of ours; PostgreSQL stores up to 16,383 places.
    if whole.is_empty() || !digits(whole) || !digits(fraction) || plain.ends_with('.') {
        return None;
    }
    if plain.len() > 1000 {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let mut groups: Vec<i16> = Vec::with_capacity(plain.len() / 4 + 2);
    let group = |part: &[u8]| part.iter().fold(0, |sum, d| sum * 10 + i16::from(d - b'0'));
    let (first, rest) = whole.as_bytes().split_at(whole.len() % 4);
    if !first.is_empty() {
        groups.push(group(first));
    }
    groups.extend(rest.chunks(4).map(group));
    let mut weight = groups.len() as i16 - 1;
    for part in fraction.as_bytes().chunks(4) {
        groups.push(group(part) * 10_i16.pow(4 - part.len() as u32));
    }
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= zeros as i16;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if negative && !groups.is_empty() {
        0x4000
    } else {
        0
    };
    for number in [groups.len() as i16, weight, sign, fraction.len() as i16] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Option<Vec<i16>> {
        let mut out = Vec::new();
        put_decimal(&mut out, text)?;
        let pairs = out.as_chunks::<2>().0;
        Some(pairs.iter().map(|pair| i16::from_be_bytes(*pair)).collect())
    }

    #[test]
    fn decimals_are_groups_of_four_digits() {
        for (text, want) in [
            ("0", vec![0, 0, 0, 0]),
            ("-0.00", vec![0, 0, 0, 2]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("-12.50", vec![2, 0, 0x4000, 2, 12, 5000]),
            ("12345678.9", vec![3, 1, 0, 1, 1234, 5678, 9000]),
            ("10000", vec![1, 1, 0, 0, 1]),
            ("00012", vec![1, 0, 0, 0, 12]),
            ("0.00001234", vec![1, -2, 0, 8, 1234]),
        ] {
            assert_eq!(decimal(text), Some(want), "{text}");
        }
        for text in ["", "-", ".5", "1.", "1e5", "NaN", "+1", "1.2.3", " 1"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    #[test]
    fn moments_beyond_64_bits_are_left_to_the_server() {
        assert_eq!(micros(946_684_800_001), Some(1000));
        assert_eq!(micros(i64::MAX), None);
        assert_eq!(micros(i64::MIN), None);
    }
}
