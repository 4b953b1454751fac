//! Recorded real records through a mapping: nothing that is filled is lost.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{mapper, raw, rows};
use drover_pipeline::Class;
use drover_pipeline::extract::{Object, SourceField};
use drover_pipeline::transform::Mapping;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

const MAPPING: &str = "
objects:
  Account:
    ignore: [attributes, Id, SystemModstamp]
    slots:
      company:
        entity: company
        fields:
          name: Name
          phoneNumber: Phone
          website: Website
          type: Type
          billingCity: BillingCity
          billingCountry: BillingCountry
          createdAt: CreatedDate
  Contact:
    ignore: [attributes, Id, SystemModstamp]
    slots:
      contact:
        entity: contact
        fields:
          firstName: FirstName
          lastName: LastName
          email: Email
          phoneNumber: Phone
          title: Title
          companyId: { from: AccountId, reference: Account#company }
          createdAt: CreatedDate
  Opportunity:
    ignore: [attributes, Id, SystemModstamp]
    slots:
      deal:
        entity: deal
        fields:
          name: Name
          stage: StageName
          amount: Amount
          closeDate: CloseDate
          companyId: { from: AccountId, reference: Account#company }
  Case:
    ignore: [attributes, Id, SystemModstamp]
    slots:
      ticket:
        entity: ticket
        fields:
          number: CaseNumber
          subject: Subject
          status: Status
          closed: IsClosed
          closedAt: ClosedDate
          contactId: { from: ContactId, reference: Contact#contact }
";

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/records/salesforce"
    ));
    if !folder.exists() {
        println!("skipped: no recorded exchanges in {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The objects of the mapping as the real API described them.
fn described(folder: &std::path::Path) -> Vec<Object> {
    ["Account", "Contact", "Opportunity", "Case"]
        .iter()
        .map(|name| {
            let text =
                std::fs::read_to_string(folder.join(format!("describe/cumulusci_{name}.json")));
            let json: Json = serde_json::from_str(&text.unwrap()).unwrap();
            let fields = json["fields"]
                .as_array()
                .or(json["body"]["fields"].as_array());
            let field = |field: &Json| SourceField {
                name: field["name"].as_str().unwrap().into(),
                kind: field["type"].as_str().unwrap().into(),
                references: serde_json::from_value(field["referenceTo"].clone())
                    .unwrap_or_default(),
                ..SourceField::default()
            };
            Object {
                name: (*name).into(),
                custom: false,
                fields: fields.unwrap().iter().map(field).collect(),
                count: None,
                ..Object::default()
            }
        })
        .collect()
}

#[derive(Deserialize)]
struct Exchange<'a> {
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    records: Vec<&'a RawValue>,
}

#[test]
fn every_filled_field_is_typed_custom_or_ignored() {
    let Some(folder) = folder() else { return };
    let mapping = Mapping::parse("mapping.yaml", MAPPING).unwrap();
    let objects = described(&folder);
    let mapper = mapper(&mapping, &objects);
    let text = std::fs::read_to_string(folder.join("nango.jsonl")).unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut fields = 0;
    for line in text.lines() {
        let exchange: Exchange<'_> = serde_json::from_str(line).unwrap();
        let body = exchange.body.map(RawValue::get).unwrap_or_default();
        let Ok(answer) = serde_json::from_str::<Answer<'_>>(body) else {
            continue;
        };
        for record in answer.records {
            let json: Json = serde_json::from_str(record.get()).unwrap();
            let Some(object) = json["attributes"]["type"].as_str() else {
                continue;
            };
            let Some(rules) = mapping.objects.get(object) else {
                continue;
            };
            let rows = match rows(&mapper, &raw(object, record.get())) {
                Ok(rows) => rows,
                Err(error) => {
                    assert_eq!(error.class(), Class::Record);
                    let cause = format!("{} at {}", error.code, error.place.unwrap_or_default());
                    *refused.entry(cause).or_default() += 1;
                    continue;
                }
            };
            *seen.entry(object.to_owned()).or_default() += 1;
            let [row] = &rows[..] else {
                panic!("one slot an object");
            };
            let slot = rules.slots.values().next().unwrap();
            for (name, value) in json.as_object().unwrap() {
                let target = slot
                    .fields
                    .iter()
                    .find(|(_, rule)| rule.source_field() == Some(name));
                let filled = !value.is_null() && value != "";
                match target {
                    Some((target, _)) => {
                        let typed = row.fields.get(target);
                        assert_eq!(typed.is_some(), filled, "{object}.{name} -> {target}");
                        if let (Some(Json::String(typed)), Json::String(text)) = (typed, value) {
                            let is_id = typed == &format!("salesforce/Account/{text}#company")
                                || typed == &format!("salesforce/Contact/{text}#contact");
                            assert!(typed == text || is_id, "{object}.{name} is changed");
                        }
                        if let (Some(Json::String(typed)), Json::Number(number)) = (typed, value) {
                            assert_eq!(typed.parse::<f64>().ok(), number.as_f64());
                        }
                    }
                    None if rules.ignore.contains(name) => assert!(!row.custom.contains_key(name)),
                    None => {
                        let custom = row.custom.get(name);
                        assert_eq!(custom.is_some(), filled, "{object}.{name} is lost");
                        if let Some((kind, text)) = custom {
                            let described = objects.iter().find(|one| one.name == object).unwrap();
                            let declared =
                                described.fields.iter().find(|field| field.name == *name);
                            assert_eq!(kind, declared.map_or("unknown", |field| &field.kind));
                            assert_eq!(&serde_json::from_str::<Json>(text).unwrap(), value);
                        }
                    }
                }
                fields += usize::from(filled);
            }
            let known = json.as_object().unwrap();
            assert!(
                row.custom.keys().all(|name| known.contains_key(name)),
                "nothing is invented"
            );
        }
    }
    println!("{seen:?}, {fields} filled fields; refused: {refused:?}");
    assert_eq!(json!(refused), json!({}));
    assert!(
        seen["Account"] >= 4000
            && seen["Contact"] >= 200
            && seen["Case"] >= 50
            && seen["Opportunity"] >= 30
    );
}
