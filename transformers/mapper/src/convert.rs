//! From a field's JSON to a canonical value: each kind's rule and its codes.
//!
//! A message says kinds and lengths and never the value: it goes into logs and
//! dead letters.

use std::borrow::Cow;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate};
use drover_pipeline::Code;
use drover_schemas::{Field, Format, Kind, Value};
use email_address::{EmailAddress, Options};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::json::Json;
use crate::prefix::{Owner, Prefixes};

/// The longest id of any source.
const MAX_ID: usize = 255;

/// Why a field's value can't be taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What is wrong.
    pub code: Code,
    /// The same for a person, without the value.
    pub message: String,
}

impl Fault {
    /// A fault with its code and what is wrong.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Fault {
            code,
            message: message.into(),
        }
    }
}

type Result<T> = std::result::Result<T, Fault>;

/// Converts a filled field's JSON into a value of the entity's field.
/// References have their own function: [`reference`].
pub fn convert<'a>(raw: &'a str, field: &Field) -> Result<Value<'a>> {
    convert_json(Json::of(raw)?, field)
}

/// The same for a value that was looked at already.
pub fn convert_json<'a>(value: Json<'a>, field: &Field) -> Result<Value<'a>> {
    match field.kind {
        Kind::String => string(value, field).map(Value::String),
        Kind::Boolean => boolean(value).map(Value::Boolean),
        Kind::Long => long(value).map(Value::Long),
        Kind::Decimal => decimal(value).map(|number| Value::Decimal(number.into())),
        Kind::Date => date(&value).map(Value::Date),
        Kind::Datetime => datetime(&value).map(Value::Datetime),
        Kind::Reference => Err(Fault::new(
            Code::Invariant,
            "a reference without the object that it points to",
        )),
    }
}

/// Text stays as it is, without trimming; a number becomes its digits.
fn string<'a>(value: Json<'a>, field: &Field) -> Result<Cow<'a, str>> {
    let text = match value {
        Json::Text(text) => text,
        Json::Number(digits) => Cow::Borrowed(digits),
        other => return Err(wrong(&other, "a text")),
    };
    // A character has one byte at least, so most texts need no counting.
    if let Some(most) = field.max_length
        && text.len() > most
    {
        let length = text.chars().count();
        if length > most {
            return Err(Fault::new(
                Code::TooLong,
                format!("the text has {length} characters, and at most {most} are allowed"),
            ));
        }
    }
    if field.format == Some(Format::Email) && !is_email(&text) {
        return Err(Fault::new(
            Code::BadEmail,
            format!(
                "a text of {} characters is no e-mail address",
                text.chars().count()
            ),
        ));
    }
    if field.format == Some(Format::Currency) && !is_currency(&text) {
        return Err(Fault::new(
            Code::WrongType,
            format!(
                "a text of {} characters is no currency's code (three capital letters)",
                text.chars().count()
            ),
        ));
    }
    Ok(text)
}

fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn is_email(text: &str) -> bool {
    let options = Options::default().without_display_text();
    EmailAddress::parse_with_options(text, options).is_ok()
}

/// `true` and `false`, also as texts, which is how some sources print them.
fn boolean(value: Json<'_>) -> Result<bool> {
    match &value {
        Json::Bool(value) => Ok(*value),
        Json::Text(text) if text == "true" => Ok(true),
        Json::Text(text) if text == "false" => Ok(false),
        other => Err(wrong(other, "true or false")),
    }
}

/// A whole number of 64 bits, also written `100.0` or `1E2`.
fn long(value: Json<'_>) -> Result<i64> {
    let digits = digits(&value, "a whole number")?;
    if let Ok(number) = i64::from_str(digits) {
        return Ok(number);
    }
    let number = exact(digits).ok_or_else(|| inexact(digits))?;
    if !number.fract().is_zero() {
        return Err(Fault::new(
            Code::WrongType,
            "a number with a fraction where a whole number is due",
        ));
    }
    number.to_i64().ok_or_else(|| {
        Fault::new(
            Code::WrongType,
            "a number of more than 64 bits where a whole number is due",
        )
    })
}

/// A decimal number as plain text without exponent and trailing zeros.
fn decimal(value: Json<'_>) -> Result<String> {
    let digits = digits(&value, "a number")?;
    let number = exact(digits).ok_or_else(|| inexact(digits))?;
    // -0 is 0: equal content gives equal bytes.
    Ok(number.normalize().to_string())
}

fn inexact(digits: &str) -> Fault {
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    Fault::new(
        Code::WrongType,
        format!("a number written with {count} digits, which 28 decimal digits can't hold exactly"),
    )
}

/// The digits of a number, or of a text that is one.
fn digits<'v>(value: &'v Json<'_>, due: &str) -> Result<&'v str> {
    match value {
        Json::Number(digits) => Ok(digits),
        Json::Text(text) if is_number(text) => Ok(text),
        other => Err(wrong(other, due)),
    }
}

/// Whether a text is a number by JSON's grammar, save that zeros may lead.
fn is_number(text: &str) -> bool {
    let all_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    all_digits(whole) && all_digits(part) && all_digits(exponent)
}

/// The value of a JSON number, if 28 decimal digits hold it exactly: nothing is
/// ever rounded.
pub fn exact(number: &str) -> Option<Decimal> {
    let Some((mantissa, _)) = number.split_once(['e', 'E']) else {
        return Decimal::from_str_exact(number).ok();
    };
    // The reader of exponents rounds a mantissa that is too long.
    let mantissa = Decimal::from_str_exact(mantissa).ok()?;
    if mantissa.is_zero() {
        return Some(Decimal::ZERO);
    }
    Decimal::from_scientific(number).ok()
}

/// A day, `2026-03-31`. A moment is none: which day it is depends on where.
pub fn date(value: &Json<'_>) -> Result<i32> {
    let text = match value {
        Json::Text(text) => text.as_ref(),
        other => return Err(wrong(other, "a date")),
    };
    day(text)
        .map(|day| day.to_epoch_days())
        .ok_or_else(|| no_time(text, "no date (YYYY-MM-DD)"))
}

fn day(text: &str) -> Option<NaiveDate> {
    // chrono's own parser also takes one-digit months, signs and spaces.
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shape.then(|| civil(text.as_bytes())).flatten()
}

/// The day of `YYYY-MM-DD`, of which only the digits are looked at.
fn civil(bytes: &[u8]) -> Option<NaiveDate> {
    let year = i32::try_from(number(bytes.get(0..4)?)?).ok()?;
    NaiveDate::from_ymd_opt(year, number(bytes.get(5..7)?)?, number(bytes.get(8..10)?)?)
}

/// The value of decimal digits.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The milliseconds since 1970 of `YYYY-MM-DDTHH:MM:SS.mmm+0000` and of the same
/// with `Z`, which is how sources mostly print a moment: most moments need not go
/// through chrono's reader of all forms.
fn usual(bytes: &[u8]) -> Option<i64> {
    let shape = matches!(bytes.get(23..)?, b"+0000" | b"Z")
        && bytes
            .iter()
            .enumerate()
            .take(23)
            .all(|(at, byte)| match at {
                4 | 7 => *byte == b'-',
                10 => *byte == b'T',
                13 | 16 => *byte == b':',
                19 => *byte == b'.',
                _ => byte.is_ascii_digit(),
            });
    if !shape {
        return None;
    }
    let part = |from: usize, to: usize| number(bytes.get(from..to)?);
    // A leap second, `:60`, is none of these; chrono knows what to do with it.
    let moment = civil(bytes)?.and_hms_milli_opt(
        part(11, 13)?,
        part(14, 16)?,
        part(17, 19)?,
        part(20, 23)?,
    )?;
    Some(moment.and_utc().timestamp_millis())
}

/// A moment with its zone: RFC 3339, and the same with `+0000`. Digits behind
/// the milliseconds are cut off.
pub fn datetime(value: &Json<'_>) -> Result<i64> {
    let text = match value {
        Json::Text(text) => text.as_ref(),
        other => return Err(wrong(other, "a date with time and zone")),
    };
    let fault = || no_time(text, "no date with time and zone");
    let bytes = text.as_bytes();
    if let Some(moment) = usual(bytes) {
        return Ok(moment);
    }
    let moment = match bytes.len().checked_sub(5).map(|at| (at, bytes[at])) {
        // +0000 has no colon and so is no RFC 3339.
        Some((at, b'+' | b'-')) if at > 10 && text.is_ascii() => {
            let (local, zone) = text.split_at(at);
            DateTime::parse_from_rfc3339(&format!("{local}{}:{}", &zone[..3], &zone[3..]))
        }
        _ => DateTime::parse_from_rfc3339(text),
    };
    moment
        .map(|moment| moment.timestamp_millis())
        .map_err(|_| fault())
}

fn no_time(text: &str, what: &str) -> Fault {
    Fault::new(
        Code::WrongType,
        format!(
            "a text of {} characters that is {what}",
            text.chars().count()
        ),
    )
}

/// The canonical key of the record that the field's id names.
pub fn reference(raw: &str, source: &str, object: &str, slot: &str) -> Result<String> {
    let value = Json::of(raw)?;
    Ok(key(source, object, id(&value)?, slot))
}

/// The same where the id itself tells its object; `None` for an object that
/// isn't known.
pub fn any_reference<'k>(
    raw: &str,
    source: &str,
    known: &'k Prefixes,
) -> Result<Option<(String, &'k Owner)>> {
    let value = Json::of(raw)?;
    let id = id(&value)?;
    let owner = known.owner(id);
    Ok(owner.map(|owner| (key(source, &owner.object, id, &owner.slots), owner)))
}

fn id<'v>(value: &'v Json<'_>) -> Result<&'v str> {
    let id = match value {
        Json::Text(text) => text.as_ref(),
        Json::Number(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits,
        other => return Err(wrong(other, "an id")),
    };
    let length = id.chars().count();
    if id.is_empty() || length > MAX_ID || id.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Fault::new(
            Code::BadReference,
            format!("a text of {length} characters that is no id"),
        ));
    }
    Ok(id)
}

fn key(source: &str, object: &str, id: &str, slot: &str) -> String {
    let mut key = String::with_capacity(source.len() + object.len() + id.len() + slot.len() + 3);
    for part in [source, "/", object, "/", id, "#", slot] {
        key.push_str(part);
    }
    key
}

fn wrong(value: &Json<'_>, due: &str) -> Fault {
    let message = match value {
        Json::Text(text) => format!(
            "a text of {} characters where {due} is due",
            text.chars().count()
        ),
        other => format!("{} where {due} is due", other.kind()),
    };
    Fault::new(Code::WrongType, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every digit may be wrong: days that are none, hours above 23.
        #[test]
        fn the_usual_moment_is_what_chrono_reads(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}(\\+0000|Z)",
        ) {
            let standard = text.replace("+0000", "Z");
            let theirs = DateTime::parse_from_rfc3339(&standard).map(|moment| moment.timestamp_millis()).ok();
            match usual(text.as_bytes()) {
                Some(ours) => prop_assert_eq!(Some(ours), theirs),
                // A leap second is left to chrono.
                None => prop_assert!(theirs.is_none() || text.contains(":60.")),
            }
            prop_assert_eq!(datetime(&Json::Text(text.clone().into())).ok(), theirs);
        }

        #[test]
        fn a_day_is_what_chrono_reads(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]") {
            prop_assert_eq!(day(&text), NaiveDate::from_str(&text).ok());
        }
    }
}
