//! Records to load: ordinary ones, and those that break careless code.

use drover_schemas::{Custom, Datum, Entity, Kind, Value};

/// A content with every field filled, different for each number. References
/// stay empty: they need a target's id.
pub fn full(entity: &Entity, number: i64) -> Datum<'static> {
    let values = entity
        .fields
        .iter()
        .map(|field| match field.kind {
            Kind::String => Value::String(format!("{} {number}", field.name).into()),
            Kind::Boolean => Value::Boolean(number % 2 == 0),
            Kind::Long => Value::Long(number * 1_000),
            Kind::Decimal => Value::Decimal(format!("{number}.50").into()),
            Kind::Date => Value::Date(19_000 + number as i32),
            Kind::Datetime => Value::Datetime(1_700_000_000_123 + number),
            Kind::Reference => Value::Null,
        })
        .collect();
    let custom = vec![
        custom("Active__c", "boolean", "true"),
        custom("Level__c", "string", &format!("\"level {number}\"")),
        custom("Score__c", "double", &format!("{number}.25")),
    ];
    Datum { values, custom }
}

/// A value without a mapping. A datum holds them sorted by name.
pub fn custom(name: &str, kind: &str, json: &str) -> Custom<'static> {
    Custom {
        name: name.to_owned().into(),
        kind: kind.to_owned().into(),
        json: json.to_owned().into(),
    }
}

/// Texts that get lost or changed on careless ways: separators and escapes of
/// CSV, COPY, SQL and JSON, line ends, foreign scripts, invisible characters,
/// and 32 KB at once.
pub fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        " leading and trailing ",
        "two\nlines",
        "two\r\nlines of Windows\r\n",
        "\r",
        "a\ttab",
        "back\\slash \\n \\t \\N \\.",
        "\\N",
        "\\.",
        "NULL",
        "null",
        "it's \"quoted\", {braced}, (bracketed)",
        "'; DROP TABLE contact; --",
        "{\"json\": \"\\u0041\"}",
        "a,b;c|d",
        "Zoë Åström-Müller",
        "e\u{301} is not \u{e9}",
        "山田太郎",
        "עברית ועוד",
        "👩‍👩‍👧‍👦 😀 \u{1F3F4}",
        "\u{feff}mark \u{200b}nothing\u{a0}hard",
        "\u{1}\u{7f}\u{9f}\u{fffd}",
        "\u{10ffff}",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("é\n\\\t😀".repeat(32 * 1024 / 9));
    texts
}

/// Decimals that no binary number can hold.
pub const DECIMALS: [&str; 8] = [
    "0",
    "0.10",
    "-0.01",
    "1234567890123456789.000001",
    "99999999999999999999999999.99",
    "0.000000000000000001",
    "-12.50",
    "1000000",
];

/// Days: before 1970, a leap day, the first and last of four digits.
pub const DATES: [i32; 7] = [0, -1, 11_016, 19_782, -25_567, -719_162, 2_932_896];

/// Moments in milliseconds: the same, to the last millisecond.
pub const MOMENTS: [i64; 7] = [
    0,
    -1,
    999,
    1_709_210_096_789,
    951_782_400_000,
    -62_135_596_800_000,
    253_402_300_799_999,
];

/// Values without a mapping, as the source's JSON.
pub const JSON: [&str; 9] = [
    "\"text\"",
    "\"with \\\"quotes\\\", \\\\ and\\nlines é 😀\"",
    "true",
    "12.50",
    "12345678901234567890.123456789",
    "-7",
    "{\"street\":\"1 Main St\\r\\nB\",\"geo\":{\"lat\":1.5,\"lon\":-2.25}}",
    "[\"a\",\"b;c\",[]]",
    "\"\"",
];
