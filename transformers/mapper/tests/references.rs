//! References to whatever object an id tells, and what a rule does to a value:
//! the first filled field, maps of values, defaults, forms.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Row, mapper, mapping, object, raw, rows};
use drover_pipeline::extract::Object;
use drover_pipeline::record::AbsentReason;
use drover_pipeline::transform::{Mapping, Transformer};
use serde_json::json;

fn known() -> Vec<Object> {
    let known = |name: &str, prefix: &str, fields: &str| Object {
        id_prefix: Some(prefix.into()),
        ..object(name, fields)
    };
    let mut task = known(
        "Task",
        "00T",
        "Id: id, Subject: string, Kind: picklist, Who: reference, What: reference, Tags: multipicklist, \
         Phone: phone, Country: string, Status: picklist, Flag: boolean",
    );
    for field in &mut task.fields {
        match field.name.as_str() {
            "Tags" => field.separator = Some(';'),
            "Status" => field.values = vec!["Open".into(), "Lost".into()],
            _ => {}
        }
    }
    vec![
        task,
        known("Contact", "003", "Id: id, LastName: string"),
        known("Account", "001", "Id: id, Name: string"),
        known("Note", "002", "Id: id, About: reference"),
    ]
}

fn rules() -> Mapping {
    mapping(json!({"objects": {
        "Task": {"ignore": ["Id"], "slots": {
            "task": {"entity": "task", "where": {"Kind": {"not": "Call"}}, "fields": {
                "subject": "Subject",
                "personId": {"from": "Who", "reference": "*"},
                "aboutId": {"from": "What", "or": ["Who"], "reference": "*"},
                "status": {"from": "Status", "values": {"Open": "todo", "Void": null}, "default": "none"},
                "priority": {"from": "Tags", "values": {"A": "1", "B": "2", "C": null}},
                "type": {"from": "Phone", "as": "phone", "region": "US", "regionFrom": "Country"},
                "closed": {"from": "Flag", "default": "false"},
            }},
            "activity": {"entity": "activity", "where": {"Kind": "Call"}, "fields": {
                "type": {"constant": "call"},
            }},
        }},
        "Contact": {"slots": {"contact": {"entity": "contact", "fields": {"lastName": "LastName"}}}},
        "Account": {"slots": {"company": {"entity": "company", "fields": {"name": "Name"}}}},
        "Note": {"slots": {
            "activity": {"entity": "activity", "fields": {
                "type": {"constant": "note"}, "aboutId": {"from": "About", "reference": "*"},
            }},
            "old": {"entity": "comment", "retired": true, "fields": {}},
        }},
    }}))
}

fn task(body: &str) -> Row {
    let mapper = mapper(&rules(), &known());
    let slots = rows(&mapper, &raw("Task", body)).unwrap();
    slots.into_iter().find(|row| row.entity == "task").unwrap()
}

#[test]
fn an_id_finds_its_object() {
    let row = task(r#"{"Who": "003A", "What": "001B"}"#);
    assert_eq!(row.fields["personId"], "salesforce/Contact/003A#contact");
    assert_eq!(row.fields["personType"], "contact");
    assert_eq!(row.fields["aboutId"], "salesforce/Account/001B#company");
    assert_eq!(row.fields["aboutType"], "company");
}

#[test]
fn an_id_of_an_object_that_is_not_migrated_stays() {
    let row = task(r#"{"Who": "00QX", "What": "001B"}"#);
    assert!(!row.fields.contains_key("personId") && !row.fields.contains_key("personType"));
    assert_eq!(row.custom["Who"], ("reference".into(), "\"00QX\"".into()));
    assert!(!row.custom.contains_key("What"));
}

#[test]
fn where_several_slots_may_be_filled_each_is_named() {
    let mapper = mapper(&rules(), &known());
    let slots = rows(&mapper, &raw("Note", r#"{"About": "00TZ"}"#)).unwrap();
    assert_eq!(
        slots[0].fields["aboutId"],
        "salesforce/Task/00TZ#activity|task"
    );
    assert!(!slots[0].fields.contains_key("aboutType"));
    // What an earlier mapping gave is taken away.
    assert_eq!(slots[1].absent, Some(AbsentReason::SlotEmpty));
    assert_eq!(slots[1].key, "salesforce/Note/1#old");
}

#[test]
fn the_first_filled_field_counts() {
    let row = task(r#"{"Who": "003A", "What": null}"#);
    assert_eq!(row.fields["aboutId"], "salesforce/Contact/003A#contact");
    assert!(row.custom.is_empty(), "{:?}", row.custom);
}

#[test]
fn values_are_mapped_and_what_has_no_map_passes_and_is_told() {
    assert_eq!(task(r#"{"Status": "Open"}"#).fields["status"], "todo");
    assert_eq!(task(r#"{"Status": "Void"}"#).fields["status"], "none");
    assert_eq!(task(r#"{"Status": null}"#).fields["status"], "none");
    assert_eq!(task(r#"{"Status": "Lost"}"#).fields["status"], "Lost");
    assert_eq!(task(r#"{"Tags": "A;C;B"}"#).fields["priority"], "1;2");
    assert_eq!(task("{}").fields["closed"], false);
    let mapper = mapper(&rules(), &known());
    let told = |body: &str| {
        mapper.transform(&raw("Task", body)).unwrap()[1]
            .told
            .clone()
    };
    assert_eq!(
        told(r#"{"Status": "Lost"}"#).remarks,
        ["Status: no map for the value `Lost`"]
    );
    // Nobody's own words are told.
    assert_eq!(
        told(r#"{"Status": "my secret"}"#).remarks,
        ["Status: no map for a value that the source does not list"]
    );
    assert_eq!(told(r#"{"Country": "x"}"#).custom, 1);
}

#[test]
fn a_telephone_number_has_one_form_by_its_country() {
    let form = |body: &str| task(body).fields["type"].clone();
    assert_eq!(form(r#"{"Phone": "(312) 596-1000"}"#), "+13125961000");
    assert_eq!(
        form(r#"{"Phone": "030 901820", "Country": "Germany"}"#),
        "+4930901820"
    );
    assert_eq!(form(r#"{"Phone": "ask Bob"}"#), "ask Bob");
}

#[test]
fn several_values_without_a_rule_are_a_list() {
    let mut rules = rules();
    let slots = &mut rules.objects.get_mut("Task").unwrap().slots;
    slots.get_mut("task").unwrap().fields.remove("priority");
    let mapper = mapper(&rules, &known());
    let slots = rows(&mapper, &raw("Task", r#"{"Tags": "A;B"}"#)).unwrap();
    let custom = &slots[1].custom["Tags"];
    assert_eq!(custom, &("multipicklist".into(), r#"["A","B"]"#.into()));
}
