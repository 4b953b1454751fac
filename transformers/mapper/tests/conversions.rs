//! Each kind's conversion: what it takes, what it makes of it, and its codes.
#![allow(clippy::unwrap_used)]

mod common;

use common::{mapper, one, raw, rows};
use drover_pipeline::{Class, Code};
use serde_json::{Value as Json, json};

/// What a lead-like record's field gives for a JSON text.
fn field(entity: &str, name: &str, text: &str) -> Result<Json, Code> {
    let reference = match name {
        "companyId" => json!({"from": "X", "reference": "Thing#main"}),
        _ => json!("X"),
    };
    // `record` has but one required field, which is constant here.
    let rules = match entity {
        "contact" => json!({"lastName": {"constant": "L"}, name: reference}),
        _ => json!({"name": {"constant": "N"}, name: reference}),
    };
    let mapping = match name {
        "companyId" => common::mapping(json!({"objects": {
            "Thing": {"slots": {"main": {"entity": "company", "fields": {"name": {"constant": "N"}}}}},
            "Other": {"slots": {"main": {"entity": entity, "fields": rules}}},
        }})),
        _ => one(entity, rules),
    };
    let object = if name == "companyId" {
        "Other"
    } else {
        "Thing"
    };
    let body = format!("{{\"Id\":\"1\",\"X\":{text}}}");
    match rows(&mapper(&mapping, &[]), &raw(object, body)) {
        Ok(rows) => Ok(rows[0].fields.get(name).cloned().unwrap_or(Json::Null)),
        Err(error) => {
            assert_eq!(error.code.class(), Class::Record, "{error}");
            let place = format!("{object}.X -> {entity}.{name}");
            assert_eq!(error.place, Some(place));
            Err(error.code)
        }
    }
}

fn check(entity: &str, name: &str, table: &[(&str, Result<Json, Code>)]) {
    for (text, expected) in table {
        assert_eq!(&field(entity, name, text), expected, "{name} of {text}");
    }
}

const WRONG: Result<Json, Code> = Err(Code::WrongType);

#[test]
fn null_and_the_empty_text_are_empty_for_every_kind() {
    for (entity, name) in [
        ("contact", "firstName"),
        ("contact", "email"),
        ("deal", "closed"),
        ("company", "employees"),
        ("deal", "amount"),
        ("contact", "birthDate"),
        ("contact", "createdAt"),
        ("contact", "companyId"),
    ] {
        check(
            entity,
            name,
            &[("null", Ok(Json::Null)), ("\"\"", Ok(Json::Null))],
        );
    }
}

#[test]
fn strings() {
    check(
        "contact",
        "firstName",
        &[
            (r#""Zoë""#, Ok(json!("Zoë"))),
            (r#"" a\r\n\tb ""#, Ok(json!(" a\r\n\tb "))),
            (r#""\u0041\ud83d\ude00""#, Ok(json!("A😀"))),
            (r#""a\u0000b""#, Ok(json!("a\0b"))),
            ("12.50", Ok(json!("12.50"))),
            ("1E400", Ok(json!("1E400"))),
            ("-7", Ok(json!("-7"))),
            ("true", WRONG),
            ("{}", WRONG),
            ("[\"a\"]", WRONG),
            (r#""\ud83d""#, Err(Code::InvalidUtf8)),
        ],
    );
}

#[test]
fn length_counts_characters_and_not_bytes() {
    let text = |character: &str, times| format!("\"{}\"", character.repeat(times));
    for character in ["a", "é", "😀", "\\n"] {
        assert!(field("contact", "salutation", &text(character, 64)).is_ok());
        assert_eq!(
            field("contact", "salutation", &text(character, 65)),
            Err(Code::TooLong)
        );
    }
    let mapper = mapper(&one("contact", json!({"lastName": "X"})), &[]);
    let body = format!("{{\"X\":{}}}", text("é", 300));
    let error = rows(&mapper, &raw("Thing", body)).unwrap_err();
    assert_eq!(
        error.message,
        "the text has 300 characters, and at most 255 are allowed"
    );
}

#[test]
fn e_mail_addresses() {
    for good in [
        "a@b.example",
        "first.last+tag@sub.example.org",
        "o'brien@example.com",
        "josé@bücher.example",
    ] {
        let text = json!(good).to_string();
        assert_eq!(field("contact", "email", &text), Ok(json!(good)));
    }
    for bad in [
        "a",
        "a@",
        "@b.example",
        "a b@c.example",
        "Ann <a@b.example>",
        "a@b..example",
        " a@b.example",
    ] {
        let text = json!(bad).to_string();
        assert_eq!(
            field("contact", "email", &text),
            Err(Code::BadEmail),
            "{bad}"
        );
    }
    assert_eq!(field("contact", "email", "true"), WRONG);
}

#[test]
fn booleans() {
    check(
        "deal",
        "closed",
        &[
            ("true", Ok(json!(true))),
            ("false", Ok(json!(false))),
            ("\"true\"", Ok(json!(true))),
            ("\"false\"", Ok(json!(false))),
            ("\"True\"", WRONG),
            ("\"yes\"", WRONG),
            ("1", WRONG),
            ("[]", WRONG),
        ],
    );
}

#[test]
fn whole_numbers() {
    check(
        "company",
        "employees",
        &[
            ("145000", Ok(json!(145000))),
            ("100.0", Ok(json!(100))),
            ("1.0E7", Ok(json!(10_000_000))),
            ("1e2", Ok(json!(100))),
            ("100E-2", Ok(json!(1))),
            ("-0", Ok(json!(0))),
            ("\"42\"", Ok(json!(42))),
            ("\"12.0\"", Ok(json!(12))),
            ("9223372036854775807", Ok(json!(i64::MAX))),
            ("-9223372036854775808", Ok(json!(i64::MIN))),
            ("9223372036854775808", WRONG),
            ("1e20", WRONG),
            ("1e999999999", WRONG),
            ("1.5", WRONG),
            ("\"twelve\"", WRONG),
            ("\"1_000\"", WRONG),
            ("\"+5\"", WRONG),
            ("true", WRONG),
        ],
    );
}

#[test]
fn decimals_are_exact_and_have_one_form() {
    check(
        "deal",
        "amount",
        &[
            ("125000", Ok(json!("125000"))),
            ("100.0", Ok(json!("100"))),
            ("12.50", Ok(json!("12.5"))),
            ("0.10", Ok(json!("0.1"))),
            ("-12.05", Ok(json!("-12.05"))),
            ("-0.0", Ok(json!("0"))),
            ("0e5", Ok(json!("0"))),
            ("1.39E8", Ok(json!("139000000"))),
            ("5.6e-3", Ok(json!("0.0056"))),
            ("1e+3", Ok(json!("1000"))),
            ("9007199254740993", Ok(json!("9007199254740993"))),
            ("999999999999999999.99", Ok(json!("999999999999999999.99"))),
            (
                "0.1234567890123456789012345678",
                Ok(json!("0.1234567890123456789012345678")),
            ),
            ("0.12345678901234567890123456789", WRONG),
            ("123456789012345678901234567890", WRONG),
            ("1.2345678901234567890123456789012e3", WRONG),
            ("1e30", WRONG),
            ("1e999999999", WRONG),
            ("1e99999999999", WRONG),
            ("1e-99999999999", WRONG),
            ("\"12.50\"", Ok(json!("12.5"))),
            ("\"12,50\"", WRONG),
            ("\".5\"", WRONG),
            ("\"5.\"", WRONG),
            ("\"1e\"", WRONG),
            ("\"NaN\"", WRONG),
            ("false", WRONG),
        ],
    );
}

#[test]
fn dates_are_never_shifted() {
    check(
        "contact",
        "birthDate",
        &[
            ("\"1970-01-01\"", Ok(json!(0))),
            ("\"2026-03-31\"", Ok(json!(20543))),
            ("\"1969-12-31\"", Ok(json!(-1))),
            ("\"2024-02-29\"", Ok(json!(19782))),
            ("\"2026-02-29\"", WRONG),
            ("\"2026-13-01\"", WRONG),
            ("\"0000-00-00\"", WRONG),
            ("\"2026-3-31\"", WRONG),
            ("\"31.03.2026\"", WRONG),
            ("\"+2026-03-1\"", WRONG),
            ("\"2026-03-31T00:00:00.000+0000\"", WRONG),
            ("\"2026-03-31T09:15:00Z\"", WRONG),
            ("20260331", WRONG),
        ],
    );
}

#[test]
fn moments_need_their_zone() {
    let at = 1_774_948_500_000_i64; // 2026-03-31T09:15:00Z
    check(
        "contact",
        "createdAt",
        &[
            ("\"2026-03-31T09:15:00.000+0000\"", Ok(json!(at))),
            ("\"2026-03-31T09:15:00.000Z\"", Ok(json!(at))),
            ("\"2026-03-31T09:15:00Z\"", Ok(json!(at))),
            ("\"2026-03-31T11:15:00+02:00\"", Ok(json!(at))),
            ("\"2026-03-31T04:15:00-0500\"", Ok(json!(at))),
            ("\"2026-03-31T14:45:00.000+0530\"", Ok(json!(at))),
            ("\"2026-03-31T09:15:00.123456Z\"", Ok(json!(at + 123))),
            ("\"1969-12-31T23:59:59.999Z\"", Ok(json!(-1))),
            ("\"2026-03-31T09:15:00\"", WRONG),
            ("\"2026-03-31T09:15:00.000\"", WRONG),
            ("\"2026-03-31\"", WRONG),
            ("\"2026-03-31T25:15:00Z\"", WRONG),
            ("\"2026-03-31T09:15:00+0é0\"", WRONG),
            ("\"yesterday\"", WRONG),
            ("1774948500000", WRONG),
            ("true", WRONG),
        ],
    );
}

#[test]
fn references_become_canonical_keys() {
    check(
        "contact",
        "companyId",
        &[
            (
                "\"001dM00003jU9GyQAK\"",
                Ok(json!("salesforce/Thing/001dM00003jU9GyQAK#main")),
            ),
            (
                "\"001dM00003jU9Gy\"",
                Ok(json!("salesforce/Thing/001dM00003jU9Gy#main")),
            ),
            ("77", Ok(json!("salesforce/Thing/77#main"))),
            ("\"a/b#c\"", Ok(json!("salesforce/Thing/a/b#c#main"))),
            ("\"two words\"", Err(Code::BadReference)),
            ("\" \"", Err(Code::BadReference)),
            ("\"a\\nb\"", Err(Code::BadReference)),
            ("\"a\\u0000\"", Err(Code::BadReference)),
            ("\"a\\u00a0b\"", Err(Code::BadReference)),
            ("-7", WRONG),
            ("7.5", WRONG),
            ("{\"Id\":\"1\"}", WRONG),
            ("true", WRONG),
        ],
    );
    let long = format!("\"{}\"", "x".repeat(256));
    assert_eq!(
        field("contact", "companyId", &long),
        Err(Code::BadReference)
    );
}

#[test]
fn required_fields() {
    let mapper = mapper(&one("contact", json!({"lastName": "LastName"})), &[]);
    for body in [r#"{"LastName":null}"#, r#"{"LastName":""}"#, "{}"] {
        let error = rows(&mapper, &raw("Thing", body)).unwrap_err();
        assert_eq!(error.code, Code::RequiredMissing);
        assert_eq!(
            error.place.as_deref(),
            Some("Thing.LastName -> contact.lastName")
        );
    }
}

#[test]
fn constants() {
    let mapping = one(
        "record",
        json!({"type": {"constant": "the $object"}, "createdAt": {"constant": "2026-03-31T09:15:00Z"}}),
    );
    let rows = rows(&mapper(&mapping, &[]), &raw("Thing", "{}")).unwrap();
    assert_eq!(rows[0].fields["type"], "the Thing");
    assert_eq!(rows[0].fields["createdAt"], 1_774_948_500_000_i64);
}

#[test]
fn bodies_that_are_no_json_object() {
    let mapper = mapper(&one("contact", json!({"lastName": "LastName"})), &[]);
    for (body, code) in [
        (&b""[..], Code::InvalidBody),
        (b"null", Code::InvalidBody),
        (b"[{}]", Code::InvalidBody),
        (b"\"hush-hush\"", Code::InvalidBody),
        (b"{\"LastName\":\"hush-hush\"", Code::InvalidBody),
        (b"{\"LastName\":hush-hush}", Code::InvalidBody),
        (b"{\"LastName\":\"a\"} hush-hush", Code::InvalidBody),
        (b"<html>hush-hush</html>", Code::InvalidBody),
        (b"\xEF\xBB\xBF{}", Code::InvalidBody),
        (b"{\"LastName\":\"hush-hush\xFF\"}", Code::InvalidUtf8),
    ] {
        let error = rows(&mapper, &raw("Thing", body)).unwrap_err();
        assert_eq!(error.code, code, "{}", String::from_utf8_lossy(body));
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    let mut empty = raw("Thing", "");
    empty.body = None;
    assert_eq!(rows(&mapper, &empty).unwrap_err().code, Code::InvalidBody);
}

#[test]
fn an_error_counts_all_problems_and_holds_no_value() {
    let rules = json!({
        "name": "Name", "employees": "A", "annualRevenue": "B", "createdAt": "C", "fax": "D", "type": "E",
        "industry": "F", "website": "G"
    });
    let mapper = mapper(&one("company", rules), &[]);
    let body = r#"{"Name":"hush-hush","A":"hush-hush","B":"hush-hush","C":"hush-hush","D":{"hush":1},
                   "E":["hush"],"F":"hush\ud800","G":true}"#;
    let error = rows(&mapper, &raw("Thing", body)).unwrap_err();
    assert_eq!(error.code, Code::WrongType);
    assert_eq!(error.place.as_deref(), Some("Thing.G -> company.website"));
    assert_eq!(
        error.message,
        "a boolean where a text is due; and 6 more: WRONG_TYPE at Thing.D -> company.fax, \
         INVALID_UTF8 at Thing.F -> company.industry, WRONG_TYPE at Thing.E -> company.type, \
         WRONG_TYPE at Thing.B -> company.annualRevenue, WRONG_TYPE at Thing.A -> company.employees, …"
    );
    assert!(!error.to_string().contains("hush"), "{error}");
}
