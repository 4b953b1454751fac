//! Slots: every transform yields each of them, filled or ABSENT with its
//! reason; and what becomes of the fields that no rule reads.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Row, mapper, mapping, object, one, raw, rows};
use drover_pipeline::Code;
use drover_pipeline::record::{AbsentReason, Op};
use drover_pipeline::transform::Mapping;
use serde_json::json;

fn lead() -> Mapping {
    mapping(json!({"objects": {"Lead": {
        "ignore": ["attributes", "Id", "SystemModstamp"],
        "slots": {
            "contact": {
                "entity": "contact",
                "where": {"IsConverted": [false, null]},
                "fields": {
                    "firstName": "FirstName", "lastName": "LastName", "phoneNumber": "Phone",
                    "companyId": {"from": "Id", "reference": "Lead#company"}
                }
            },
            "company": {
                "entity": "company",
                "emptyWithout": ["Company", "Website"],
                "fields": {"name": "Company", "website": "Website", "industry": "Industry"}
            }
        }
    }}}))
}

fn transform(body: &str) -> Vec<Row> {
    let fields = "Id: id, FirstName: string, LastName: string, Phone: phone, IsConverted: boolean, Company: string, \
                  Website: url, Industry: picklist, Rating: picklist, Budget__c: currency, SystemModstamp: datetime";
    let mapper = mapper(&lead(), &[object("Lead", fields)]);
    rows(&mapper, &raw("Lead", body)).unwrap()
}

fn absent(rows: &[Row]) -> Vec<(&str, Option<AbsentReason>)> {
    rows.iter()
        .map(|row| (row.key.as_str(), row.absent))
        .collect()
}

const COMPANY: &str = "salesforce/Lead/1#company";
const CONTACT: &str = "salesforce/Lead/1#contact";

#[test]
fn both_slots_are_filled() {
    let rows = transform(
        r#"{"attributes":{"type":"Lead"},"Id":"1","FirstName":null,"LastName":"Ada","Phone":"","Company":"ACME","Website":null,
            "Industry":"Energy","Rating":"Hot","Budget__c":1.50,"IsConverted":false,"SystemModstamp":"x","New__c":[1, 2]}"#,
    );
    assert_eq!(absent(&rows), [(COMPANY, None), (CONTACT, None)]);
    let [company, contact] = &rows[..] else {
        panic!("two slots")
    };
    assert_eq!(
        json!(company.fields),
        json!({"name": "ACME", "industry": "Energy"})
    );
    assert_eq!(
        json!(contact.fields),
        json!({"lastName": "Ada", "companyId": COMPANY})
    );
    // What no rule reads goes to both; what the other slot's rule reads, to none.
    let custom = json!({
        "Budget__c": ["currency", "1.50"], "IsConverted": ["boolean", "false"],
        "New__c": ["unknown", "[1,2]"], "Rating": ["picklist", "\"Hot\""],
    });
    assert_eq!(json!(company.custom), custom);
    assert_eq!(json!(contact.custom), custom);
}

#[test]
fn a_filtered_slot_is_absent_and_its_fields_stay_in_the_other() {
    let rows = transform(r#"{"Id":"1","LastName":"Ada","Company":"ACME","IsConverted":true}"#);
    assert_eq!(
        absent(&rows),
        [(COMPANY, None), (CONTACT, Some(AbsentReason::Filtered))]
    );
    assert_eq!(
        rows[0].custom["LastName"],
        ("string".into(), "\"Ada\"".into())
    );
}

#[test]
fn a_missing_field_counts_as_null_in_a_filter() {
    let rows = transform(r#"{"Id":"1","LastName":"Ada","Company":"ACME"}"#);
    assert_eq!(absent(&rows), [(COMPANY, None), (CONTACT, None)]);
}

#[test]
fn an_empty_slot_is_absent_before_its_required_fields_are_missed() {
    for body in [
        r#"{"Id":"1","LastName":"Ada","Industry":"Energy"}"#,
        r#"{"Id":"1","LastName":"Ada","Industry":"Energy","Company":null,"Website":""}"#,
    ] {
        let rows = transform(body);
        assert_eq!(
            absent(&rows),
            [(COMPANY, Some(AbsentReason::SlotEmpty)), (CONTACT, None)]
        );
        assert!(rows[1].custom.contains_key("Industry"), "nothing is lost");
    }
}

#[test]
fn one_of_the_fields_is_enough_to_fill_a_slot() {
    let fields = "Id: id, LastName: string, FirstName: string, Phone: phone, IsConverted: boolean, Company: string, \
                  Website: url, Industry: picklist";
    let mapper = mapper(&lead(), &[object("Lead", fields)]);
    let body = r#"{"Id":"1","LastName":"Ada","Website":"acme.example"}"#;
    let error = rows(&mapper, &raw("Lead", body)).unwrap_err();
    assert_eq!(error.code, Code::RequiredMissing);
    assert_eq!(error.place.as_deref(), Some("Lead.Company -> company.name"));
}

#[test]
fn a_delete_empties_every_slot() {
    let mut record = raw("Lead", "");
    record.op = Op::Delete;
    record.body = None;
    let rows = rows(&mapper(&lead(), &[]), &record).unwrap();
    assert_eq!(
        absent(&rows),
        [
            (COMPANY, Some(AbsentReason::Deleted)),
            (CONTACT, Some(AbsentReason::Deleted))
        ]
    );
    assert_eq!([&*rows[0].entity, &*rows[1].entity], ["company", "contact"]);
}

#[test]
fn custom_objects_share_their_rules() {
    let mapping = mapping(json!({
        "objects": {"Listed__c": {"slots": {"main": {"entity": "contact", "fields": {"lastName": "Name"}}}}},
        "customObjects": {"ignore": ["Id"], "slots": {"record": {"entity": "record", "fields": {
            "type": {"constant": "$object"}, "name": "Name"
        }}}},
    }));
    let objects = [
        object("Invoice__c", "Id: id, Name: string, Total__c: currency"),
        object("Nameless__c", "Id: id"),
        object("Listed__c", "Name: string"),
    ];
    let mapper = mapper(&mapping, &objects);
    let row = |object, body| rows(&mapper, &raw(object, body)).unwrap().remove(0);
    let invoice = row("Invoice__c", r#"{"Id":"1","Name":"I-1","Total__c":100.0}"#);
    assert_eq!(invoice.key, "salesforce/Invoice__c/1#record");
    assert_eq!(
        json!(invoice.fields),
        json!({"type": "Invoice__c", "name": "I-1"})
    );
    assert_eq!(
        json!(invoice.custom),
        json!({"Total__c": ["currency", "100.0"]})
    );
    assert_eq!(row("Nameless__c", "{}").fields["type"], "Nameless__c");
    assert_eq!(row("Listed__c", r#"{"Name":"x"}"#).entity, "contact");
    let error = rows(&mapper, &raw("Other__c", "{}")).unwrap_err();
    assert_eq!(error.code, Code::Invariant);
}

#[test]
fn custom_can_be_left_out() {
    let mut mapping = one("contact", json!({"lastName": "LastName"}));
    let thing = mapping.objects.get_mut("Thing").unwrap();
    thing.slots.get_mut("main").unwrap().custom = false;
    let rows = rows(
        &mapper(&mapping, &[]),
        &raw("Thing", r#"{"LastName":"a","X":1}"#),
    )
    .unwrap();
    assert!(rows[0].custom.is_empty());
}

#[test]
fn of_a_name_that_comes_twice_the_last_value_counts() {
    let mapper = mapper(&one("contact", json!({"lastName": "LastName"})), &[]);
    let body = r#"{"LastName":"a","X":1,"Y":2,"LastName":"b","X":3,"Y":null,"\u0058":4}"#;
    let rows = rows(&mapper, &raw("Thing", body)).unwrap();
    assert_eq!(rows[0].fields["lastName"], "b");
    assert_eq!(json!(rows[0].custom), json!({"X": ["unknown", "4"]}));
}
