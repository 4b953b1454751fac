//! The mapping that the connector ships fits the schemas of the entities.

use drover_extractor_salesforce::{Salesforce, describe::STANDARD};
use drover_pipeline::extract::Extractor;
use drover_pipeline::transform::{ANY, FieldRule, Mapping, ObjectMapping};

use drover_schemas::{Kind, entity};

fn mapping() -> Mapping {
    Mapping::parse("mapping.yaml", Salesforce::mapping()).expect("a mapping without problems")
}

#[test]
fn every_field_exists_and_every_required_one_is_filled() {
    let mapping = mapping();
    let custom = mapping
        .custom_objects
        .as_ref()
        .map(|object| ("custom objects", object));
    let listed = mapping
        .objects
        .iter()
        .map(|(name, object)| (name.as_str(), object));
    for (name, object) in listed.chain(custom) {
        for (slot, rules) in &object.slots {
            let entity =
                entity(&rules.entity).unwrap_or_else(|| panic!("{name}: {}", rules.entity));
            for (field, rule) in &rules.fields {
                let place = format!("{name}#{slot}.{field}");
                let (_, known) = entity
                    .field(field)
                    .unwrap_or_else(|| panic!("{place} is unknown"));
                let points_to = match rule {
                    FieldRule::Rule(rule) => rule.reference.as_deref(),
                    FieldRule::From(_) => None,
                };
                assert_eq!(
                    known.kind == Kind::Reference,
                    points_to.is_some(),
                    "{place}"
                );
                let target = points_to.and_then(|text| text.split_once('#'));
                let target =
                    target.map(|(parent, slot)| &mapping.objects[parent].slots[slot].entity);
                match (points_to, &known.type_field) {
                    (None, _) => {}
                    (Some(ANY), beside) => assert!(beside.is_some(), "{place}"),
                    (_, Some(_)) => assert!(target.is_some(), "{place}"),
                    (_, None) => assert_eq!(target, known.entity.as_ref(), "{place}"),
                }
            }
            for field in entity.fields.iter().filter(|field| field.required) {
                assert!(
                    rules.fields.contains_key(&field.name),
                    "{name}#{slot} leaves {} empty",
                    field.name
                );
            }
        }
    }
}

#[test]
fn the_mapped_objects_are_the_discovered_ones() {
    let mapping = mapping();
    let mut names: Vec<&str> = mapping.objects.keys().map(String::as_str).collect();
    let mut standard = STANDARD.to_vec();
    names.sort_unstable();
    standard.sort_unstable();
    assert_eq!(names, standard);
    assert!(mapping.custom_objects.is_some());
}

/// No source field is both ignored and read, or read twice into one slot.
#[test]
fn every_source_field_has_one_place() {
    let mapping = mapping();
    for (name, object) in &mapping.objects {
        let ObjectMapping { slots, ignore } = object;
        for rules in slots.values() {
            let mut read: Vec<&str> = rules
                .fields
                .values()
                .filter_map(FieldRule::source_field)
                .collect();
            assert!(
                read.iter()
                    .all(|field| !ignore.iter().any(|other| other == field)),
                "{name}"
            );
            let count = read.len();
            read.sort_unstable();
            read.dedup();
            assert_eq!(read.len(), count, "{name}");
        }
    }
}
