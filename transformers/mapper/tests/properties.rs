//! What holds for every record.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::LazyLock;

use common::{mapper, mapping, object, raw};
use drover_pipeline::Class;
use drover_pipeline::transform::Transformer;
use drover_schemas::{Datum, entity};
use drover_transformer_mapper::Mapper;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn subject() -> &'static Mapper {
    static SUBJECT: LazyLock<Mapper> = LazyLock::new(compiled);
    &SUBJECT
}

/// Every kind of field, three slots, filters and an empty slot.
fn compiled() -> Mapper {
    let mapping = mapping(json!({"objects": {
        "Thing": {"ignore": ["attributes"], "slots": {
            "company": {
                "entity": "company", "emptyWithout": ["Name", "Web"],
                "fields": {"name": "Name", "website": "Web", "employees": "Count", "annualRevenue": "Money",
                           "createdAt": "Created", "parentId": {"from": "Parent", "reference": "Thing#company"}}
            },
            "contact": {
                "entity": "contact", "where": {"Kind": ["a", 1, false, null]},
                "fields": {"lastName": "Last", "email": "Mail", "birthDate": "Born",
                           "companyId": {"from": "Parent", "reference": "Thing#company"}}
            },
            "deal": {"entity": "deal", "where": {"Closed": true},
                     "fields": {"name": {"constant": "$object"}, "closed": "Closed", "amount": "Money"}},
        }},
    }}));
    let fields = "Id: id, Name: string, Web: url, Count: int, Money: currency, Created: datetime, Parent: reference, \
                  Kind: anyType, Last: string, Mail: email, Born: date, Closed: boolean, Notes: textarea, Flag: boolean";
    mapper(&mapping, &[object("Thing", fields)])
}

const NAMES: &[&str] = &[
    "Id",
    "Name",
    "Web",
    "Count",
    "Money",
    "Created",
    "Parent",
    "Kind",
    "Last",
    "Mail",
    "Born",
    "Closed",
    "Notes",
    "Flag",
    "attributes",
    "New__c",
    "é",
    "a\"b",
    "",
];

/// Values as sources give them, good and bad ones.
fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>()
            .prop_filter("JSON has no such number", |f| f.is_finite())
            // serde_json reads some numbers as their neighbour; this test reads
            // records as trees, the mapper does not.
            .prop_filter("read back as another", |f| {
                serde_json::from_str::<f64>(&json!(f).to_string()).is_ok_and(|read| read == *f)
            })
            .prop_map(Json::from),
        any::<String>().prop_map(Json::from),
        "[a-z]{1,8}@[a-z]{1,8}\\.example".prop_map(Json::from),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]".prop_map(Json::from),
        "20[0-9]{2}-0[1-9]-[0-2][0-9]T0[0-9]:[0-5][0-9]:00\\.000(Z|\\+0000|-0530|\\+01:00|)"
            .prop_map(Json::from),
        "-?[0-9]{1,32}(\\.[0-9]{1,12})?([eE]-?[0-9]{1,3})?".prop_map(Json::from),
        prop::sample::select(vec!["", "a", "true", "001dM00003jU9GyQAK"]).prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn any_record() -> impl Strategy<Value = Vec<(&'static str, Json)>> {
    let names = prop::sample::subsequence(NAMES, 0..NAMES.len());
    names.prop_flat_map(|names| {
        let values = prop::collection::vec(any_value(), names.len());
        values.prop_map(move |values| names.iter().copied().zip(values).collect())
    })
}

fn compact(fields: &[(&str, Json)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{}:{value}", json!(name)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// The same content with white space around every token and every character
/// of texts and names escaped.
fn spread(value: &Json, space: &str) -> String {
    let text = |text: &str| -> String {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        format!("\"{}\"", units.collect::<String>())
    };
    match value {
        Json::String(string) => text(string),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| spread(item, space)).collect();
            format!(
                "[{space}{}{space}]",
                items.join(&format!("{space},{space}"))
            )
        }
        Json::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| {
                    format!("{}{space}:{space}{}", text(name), spread(value, space))
                })
                .collect();
            format!(
                "{{{space}{}{space}}}",
                fields.join(&format!("{space},{space}"))
            )
        }
        plain => plain.to_string(),
    }
}

fn outcome(mapper: &Mapper, body: &str) -> String {
    match mapper.transform(&raw("Thing", body)) {
        Ok(canonical) => format!("{canonical:?}"),
        Err(error) => format!("{error:?}"),
    }
}

fn quotes(error: &drover_pipeline::Error, word: &str) -> bool {
    format!("{error} {error:?}").contains(word)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn equal_content_gives_equal_bytes(
        record in any_record(), seed in any::<prop::sample::Index>(), space in "[ \t\r\n]{1,3}",
    ) {
        let mapper = subject();
        let first = outcome(mapper, &compact(&record));
        prop_assert_eq!(&first, &outcome(&compiled(), &compact(&record)), "by another mapper");
        let mut turned = record.clone();
        if !turned.is_empty() {
            let by = seed.index(turned.len());
            turned.rotate_left(by);
            turned.reverse();
        }
        prop_assert_eq!(&first, &outcome(mapper, &compact(&turned)), "in another order");
        let json: Json = serde_json::from_str(&compact(&record)).unwrap();
        let spread = format!("{space}{}{space}", spread(&json, &space));
        prop_assert_eq!(&first, &outcome(mapper, &spread), "written at large");
    }

    #[test]
    fn every_slot_comes_or_the_record_is_refused(record in any_record()) {
        match subject().transform(&raw("Thing", compact(&record))) {
            Ok(slots) => {
                let keys: Vec<_> = slots.iter().map(|slot| slot.key.parts().3).collect();
                prop_assert_eq!(keys, ["company", "contact", "deal"]);
                for slot in &slots {
                    if let drover_pipeline::record::Content::Upsert { datum, .. } = &slot.content {
                        let datum = Datum::decode(entity(&slot.entity).unwrap(), datum);
                        prop_assert!(datum.is_ok());
                    }
                }
            }
            Err(error) => prop_assert_eq!(error.class(), Class::Record, "{}", error),
        }
    }

    #[test]
    fn texts_of_records_stay_out_of_errors(word in "[k-z]{12}", name in prop::sample::select(NAMES), nested in any::<bool>()) {
        let value = if nested { json!({&word: [&word]}) } else { json!(word) };
        let body = compact(&[(name, value)]);
        if let Err(error) = subject().transform(&raw("Thing", &body)) {
            prop_assert!(!quotes(&error, &word));
        }
        let cut = &body[..body.len() - 1];
        let error = subject().transform(&raw("Thing", cut)).unwrap_err();
        prop_assert!(!quotes(&error, &word));
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = subject().transform(&raw("Thing", bytes)) {
            prop_assert_eq!(error.class(), Class::Record);
        }
    }

    #[test]
    fn nearly_json_is_taken_or_refused(record in any_record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = compact(&record).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = subject().transform(&raw("Thing", &bytes));
        bytes.truncate(at);
        prop_assert!(subject().transform(&raw("Thing", &bytes)).is_err());
    }

    #[test]
    fn any_text_is_an_address_or_not(text in ".{0,80}", at in "[a-z\"(<\\[]{0,3}@.{0,20}") {
        for text in [text, at] {
            let body = json!({"Last": "x", "Mail": text}).to_string();
            if let Err(error) = subject().transform(&raw("Thing", body)) {
                prop_assert_eq!(error.class(), Class::Record);
            }
        }
    }
}

#[test]
fn depth_is_no_danger() {
    for depth in [10, 200, 200_000] {
        let body = format!(
            "{{\"Last\":\"x\",\"New__c\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        );
        let _ = subject().transform(&raw("Thing", body));
    }
}
