//! A page of a Bulk job's file: its rows, or refused as a whole.
#![no_main]

use drover_extractor_salesforce::query::Selection;
use drover_extractor_salesforce::rows::Text;
use drover_extractor_salesforce::sheet;
use drover_pipeline::extract::{Object, SourceField};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((count, file)) = bytes.split_first() else {
        return;
    };
    let fields = [
        ("Id", "id"),
        ("IsDeleted", "boolean"),
        ("Name", "string"),
        ("Amount", "currency"),
        ("CloseDate", "date"),
        ("SystemModstamp", "datetime"),
    ];
    let field = |(name, kind): (&str, &str)| SourceField {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ..SourceField::default()
    };
    let object = Object {
        name: "Opportunity".to_owned(),
        fields: fields.map(field).to_vec(),
        ..Object::default()
    };
    let selection = Selection::of(&object).expect("a sound object");
    // The source says how many rows a page has.
    if let Ok(rows) = sheet::read(&Text::of(file), usize::from(*count), &selection, "start") {
        assert_eq!(rows.len(), usize::from(*count));
        for change in rows.iter().filter_map(|row| row.content.as_ref().ok()) {
            let body = change.body.as_deref().unwrap_or("{}");
            assert!(
                serde_json::from_str::<serde_json::Map<_, _>>(body).is_ok(),
                "{body}"
            );
        }
    }
});
