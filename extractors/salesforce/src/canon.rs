//! The one way in which a value stands in a body, however it was printed.
//!
//! REST answers JSON, Bulk answers CSV (`reference/salesforce.md` section 2):
//! `+0000` or `Z`, `100` or `100.0`, `null` or nothing, a number or a text of
//! digits. What a text means, only the describe says. The canonical form is
//! REST's: moments with `+0000`, text fields as the shortest JSON string, no
//! text as null (the source knows no empty text), numbers in plain digits.

use std::borrow::Cow;

use crate::{id, time};

/// The most zeros that a number's exponent may stand for; beyond that the
/// number stays as it was printed. A double needs 324.
const ZEROS: i32 = 400;

/// What the values of a field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ids of records.
    Id,
    /// `true` or `false`.
    Boolean,
    /// Whole numbers.
    Whole,
    /// Other numbers.
    Decimal,
    /// Moments; dates and times of day are texts.
    Moment,
    /// Texts.
    Text,
    /// Anything: a CSV can't tell what.
    Any,
}

impl Kind {
    /// The kind of a type of the describe (`reference/salesforce.md` section 4).
    pub fn of(name: &str) -> Self {
        match name {
            "id" | "reference" => Kind::Id,
            "boolean" => Kind::Boolean,
            "int" | "long" => Kind::Whole,
            "double" | "currency" | "percent" => Kind::Decimal,
            "datetime" => Kind::Moment,
            "string"
            | "picklist"
            | "multipicklist"
            | "combobox"
            | "textarea"
            | "phone"
            | "url"
            | "email"
            | "encryptedstring"
            | "date"
            | "time"
            | "datacategorygroupreference" => Kind::Text,
            _ => Kind::Any,
        }
    }

    /// Appends a value that REST printed as this JSON.
    pub fn push_json(self, json: &str, out: &mut String) {
        match json.as_bytes().first() {
            Some(b'"') => match plain(json) {
                Some(text) => self.push_text(&text, out),
                None => out.push_str(json),
            },
            Some(b'-' | b'0'..=b'9') if matches!(self, Kind::Whole | Kind::Decimal) => {
                if !self.push_number(json, out) {
                    out.push_str(json);
                }
            }
            _ => out.push_str(json),
        }
    }

    /// Appends a value that Bulk printed as this cell; `false` if the cell is
    /// none of this kind.
    pub fn push_cell(self, cell: &str, out: &mut String) -> bool {
        match self {
            _ if cell.is_empty() => out.push_str("null"),
            Kind::Boolean if matches!(cell, "true" | "false") => out.push_str(cell),
            Kind::Boolean | Kind::Any => return false,
            Kind::Whole | Kind::Decimal => return self.push_number(cell, out),
            Kind::Id | Kind::Moment | Kind::Text => self.push_text(cell, out),
        }
        true
    }

    fn push_text(self, text: &str, out: &mut String) {
        let text = match self {
            _ if text.is_empty() => return out.push_str("null"),
            Kind::Moment => moment(text),
            // What is no id stays as it is.
            Kind::Id => id::normalise(text).map_or(Cow::Borrowed(text), Cow::Owned),
            _ => Cow::Borrowed(text),
        };
        // A text always serialises.
        out.push_str(&serde_json::to_string(text.as_ref()).unwrap_or_default());
    }

    /// Appends a number in plain digits, `12` or `12.0` by the field's type.
    /// Exact: nothing is rounded.
    fn push_number(self, text: &str, out: &mut String) -> bool {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (digits, exponent) = match rest.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()),
            None => (rest, Some(0)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let Some(exponent) = exponent.filter(|exponent| exponent.abs() <= ZEROS) else {
            return false;
        };
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || whole.len() + fraction.len() == 0 {
            return false;
        }
        let mut digits = [whole, fraction].concat();
        // Where the point stands in the digits.
        let mut point = whole.len() as i32 + exponent;
        while point <= 0 {
            digits.insert(0, '0');
            point += 1;
        }
        while digits.len() < point as usize {
            digits.push('0');
        }
        let (whole, fraction) = digits.split_at(point as usize);
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let fraction = fraction.trim_end_matches('0');
        if negative && (whole != "0" || !fraction.is_empty()) {
            out.push('-');
        }
        out.push_str(whole);
        match (self, fraction) {
            (Kind::Decimal, "") => out.push_str(".0"),
            (_, "") => {}
            (_, fraction) => {
                out.push('.');
                out.push_str(fraction);
            }
        }
        true
    }
}

/// The text of a JSON string.
fn plain(json: &str) -> Option<Cow<'_, str>> {
    if !json.contains('\\') {
        return json.get(1..json.len() - 1).map(Cow::Borrowed);
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

fn moment(text: &str) -> Cow<'_, str> {
    if text.len() == 28 && text.as_bytes()[19] == b'.' && text.ends_with("+0000") {
        return Cow::Borrowed(text);
    }
    match time::parse(text) {
        Some(moment) => Cow::Owned(time::print_as_rest(moment)),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(kind: Kind, text: &str) -> String {
        let mut out = String::new();
        kind.push_json(text, &mut out);
        out
    }

    fn cell(kind: Kind, text: &str) -> Option<String> {
        let mut out = String::new();
        kind.push_cell(text, &mut out).then_some(out)
    }

    #[test]
    fn both_ways_of_printing_give_the_same_bytes() {
        for (kind, rest, bulk, expected) in [
            ("string", r#""Zo\u00eb""#, "Zoë", r#""Zoë""#),
            ("string", "null", "", "null"),
            ("string", r#""""#, "", "null"),
            ("string", r#""12""#, "12", r#""12""#),
            ("string", r#"" a ""#, " a ", r#"" a ""#),
            (
                "textarea",
                r#""a\r\n\"b\",\u2028c\/d""#,
                "a\r\n\"b\",\u{2028}c/d",
                "\"a\\r\\n\\\"b\\\",\u{2028}c/d\"",
            ),
            ("textarea", r#""\u0001\t""#, "\u{1}\t", r#""\u0001\t""#),
            ("boolean", "true", "true", "true"),
            ("int", "12", "12", "12"),
            ("int", "12", "12.0", "12"),
            ("int", "-0", "0", "0"),
            ("currency", "15000.0", "15000", "15000.0"),
            ("currency", "15000", "15000.00", "15000.0"),
            ("double", "1.2345678E7", "12345678.0", "12345678.0"),
            ("double", "1.5e-3", "0.0015", "0.0015"),
            ("double", "-0.50", "-.5", "-0.5"),
            (
                "double",
                "123456789012345678.25",
                "123456789012345678.250",
                "123456789012345678.25",
            ),
            ("percent", "null", "", "null"),
            ("date", r#""2026-03-31""#, "2026-03-31", r#""2026-03-31""#),
            (
                "time",
                r#""09:15:00.000Z""#,
                "09:15:00.000Z",
                r#""09:15:00.000Z""#,
            ),
            (
                "datetime",
                r#""2026-03-31T09:15:00.000+0000""#,
                "2026-03-31T09:15:00.000Z",
                r#""2026-03-31T09:15:00.000+0000""#,
            ),
            (
                "reference",
                r#""001dM00003kS5tZ""#,
                "001dM00003kS5tZQAS",
                r#""001dM00003kS5tZQAS""#,
            ),
        ] {
            let kind = Kind::of(kind);
            assert_eq!(json(kind, rest), expected, "{kind:?} by REST");
            assert_eq!(
                cell(kind, bulk).as_deref(),
                Some(expected),
                "{kind:?} by Bulk"
            );
        }
    }

    #[test]
    fn a_cell_of_another_kind_is_none() {
        for (kind, text) in [
            (Kind::Boolean, "yes"),
            (Kind::Whole, "twelve"),
            (Kind::Whole, "-"),
            (Kind::Decimal, "1.2.3"),
            (Kind::Decimal, "1e"),
            (Kind::Decimal, "NaN"),
            (Kind::Any, "1"),
        ] {
            assert_eq!(cell(kind, text), None, "{kind:?} {text}");
        }
        // REST's own token stays, whatever the describe says.
        assert_eq!(json(Kind::Text, "12.50"), "12.50");
        assert_eq!(json(Kind::Decimal, "1e999"), "1e999");
        assert_eq!(json(Kind::Any, r#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(json(Kind::Moment, r#""soon""#), r#""soon""#);
    }
}
