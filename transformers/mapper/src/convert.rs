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
    shape.then(|| NaiveDate::from_str(text).ok()).flatten()
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
