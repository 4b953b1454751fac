//! Which objects are migrated, and what they become.

use std::collections::{BTreeMap, BTreeSet};

use drover_pipeline::config::{Problem, nearest};
use drover_pipeline::extract::{Discovery, Object, Parity, Standing};
use drover_pipeline::transform::{Mapping, ObjectMapping};

/// The objects to migrate: those that are asked for, else every one that the
/// mapping covers; and what is wrong with the choice. `parity` says why an object of
/// the vendor's is not migrated.
pub(super) fn select(
    mapping: &Mapping,
    parity: Option<&Parity>,
    wanted: &[String],
    discovery: &Discovery,
) -> (Vec<Object>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut objects: Vec<Object> = Vec::new();
    for (index, name) in wanted.iter().enumerate() {
        let path = format!("objects[{index}]");
        let standings = parity.map_or_else(Vec::new, |parity| parity.standings(name));
        let refused = standings.iter().find_map(|standing| match standing {
            Standing::NotSupported(why) => Some(why),
            _ => None,
        });
        let found = discovery.objects.iter().find(|object| object.name == *name);
        match (found, refused) {
            (Some(object), _) if mapping.of(object).is_some() => objects.push(object.clone()),
            (_, Some(why)) => problems.push(Problem::at(
                path,
                format!("`{name}` is not migrated ({why})"),
                "remove it",
            )),
            (Some(_), None) => problems.push(Problem::at(
                path,
                format!("the connector's mapping has no `{name}`"),
                "remove it",
            )),
            // The vendor has it, so it is no other name written wrong.
            (None, None) if !standings.is_empty() => problems.push(Problem::at(
                path,
                format!("the source shows the migration's user no `{name}`"),
                "grant the right to see it, or remove it",
            )),
            (None, None) => {
                let known = discovery.objects.iter().map(|object| object.name.as_str());
                let advice = match nearest(name, known) {
                    Some(near) => format!("write `{near}`, or grant the right to see it"),
                    None => "remove it, or grant the right to see it".to_owned(),
                };
                problems.push(Problem::at(
                    path,
                    format!("the source has no `{name}`"),
                    advice,
                ));
            }
        }
    }
    if wanted.is_empty() {
        objects = (discovery.objects.iter())
            .filter(|object| mapping.covers(object))
            .cloned()
            .collect();
        if objects.is_empty() {
            problems.push(Problem::at(
                "objects",
                "the source shows no object that the mapping covers",
                "grant the right to see them",
            ));
        }
    }
    // Names that differ only in case would share a topic.
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    for object in objects.iter().filter(|object| !object.custom) {
        if let Some(other) = folded.insert(object.name.to_lowercase(), &object.name) {
            problems.push(Problem::at(
                "objects",
                format!("`{other}` and `{}` would share a topic", object.name),
                "list the objects, with one of the two",
            ));
        }
    }
    (objects, problems)
}

/// The canonical entities of an object.
pub(crate) fn entities_of(mapping: &Mapping, object: &Object) -> BTreeSet<String> {
    mapping
        .of(object)
        .into_iter()
        .flat_map(|rules| rules.slots.values())
        .map(|slot| slot.entity.clone())
        .collect()
}

/// Where two mappings differ: objects, and the fields of each.
pub(crate) fn differences(one: &Mapping, other: &Mapping) -> String {
    let names: BTreeSet<&String> = one.objects.keys().chain(other.objects.keys()).collect();
    let differ: Vec<String> = names
        .into_iter()
        .filter(|name| one.objects.get(*name) != other.objects.get(*name))
        .map(|name| {
            let rules = |mapping: &Mapping| mapping.objects.get(name).cloned();
            match (rules(one), rules(other)) {
                (Some(one), Some(other)) => match &fields(&one, &other)[..] {
                    [] => name.clone(),
                    fields => format!("{name} ({})", fields.join(", ")),
                },
                _ => name.clone(),
            }
        })
        .collect();
    if differ.is_empty() {
        "custom objects".to_owned()
    } else {
        differ.join(", ")
    }
}

/// The canonical fields that the mappings of one object fill by other rules, and
/// `$where` for another filter.
fn fields(one: &ObjectMapping, other: &ObjectMapping) -> Vec<String> {
    let slots: BTreeSet<&String> = one.slots.keys().chain(other.slots.keys()).collect();
    let mut differ = BTreeSet::new();
    for slot in slots {
        let (Some(one), Some(other)) = (one.slots.get(slot), other.slots.get(slot)) else {
            differ.insert(slot.clone());
            continue;
        };
        let names = one.fields.keys().chain(other.fields.keys());
        let rules = names.filter(|name| one.fields.get(*name) != other.fields.get(*name));
        differ.extend(rules.cloned());
        if one.filter != other.filter {
            differ.insert("$where".to_owned());
        }
    }
    differ.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use drover_pipeline::extract::NotSupported;
    use drover_pipeline::transform::{Convert, FieldRule, Slot};

    use super::*;

    fn object(name: &str, custom: bool) -> Object {
        Object {
            name: name.to_owned(),
            custom,
            fields: Vec::new(),
            count: None,
            ..Object::default()
        }
    }

    fn mapping() -> Mapping {
        let rules = ObjectMapping {
            slots: BTreeMap::from([(
                "contact".to_owned(),
                Slot {
                    entity: "contact".to_owned(),
                    ..Slot::default()
                },
            )]),
            ..ObjectMapping::default()
        };
        Mapping {
            objects: BTreeMap::from([
                ("Contact".to_owned(), rules.clone()),
                ("contact".to_owned(), rules.clone()),
                ("Lead".to_owned(), rules.clone()),
            ]),
            custom_objects: Some(rules),
        }
    }

    fn names((objects, problems): (Vec<Object>, Vec<Problem>)) -> (Vec<String>, Vec<String>) {
        (
            objects.into_iter().map(|object| object.name).collect(),
            problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn objects_are_those_asked_for_or_all_that_are_covered() {
        let discovery = Discovery {
            quota: None,
            objects: vec![
                object("Contact", false),
                object("Task", false),
                object("Invoice__c", true),
            ],
        };
        assert_eq!(
            names(select(&mapping(), None, &[], &discovery)),
            (
                vec!["Contact".to_owned(), "Invoice__c".to_owned()],
                Vec::new()
            )
        );
        let wanted = ["Contacts", "Task", "Invoice__c"].map(str::to_owned);
        // What no mapping lists is migrated when it is named.
        assert_eq!(
            names(select(&mapping(), None, &wanted[1..], &discovery)),
            (vec!["Task".to_owned(), "Invoice__c".to_owned()], Vec::new())
        );
        assert_eq!(
            names(select(&mapping(), None, &wanted, &discovery)),
            (vec!["Task".to_owned(), "Invoice__c".to_owned()], vec![
                "objects[0]: the source has no `Contacts`; write `Contact`, or grant the right to see it".to_owned(),
            ])
        );
        let twins = Discovery {
            quota: None,
            objects: vec![object("Contact", false), object("contact", false)],
        };
        assert_eq!(
            names(select(&mapping(), None, &[], &twins)).1,
            [
                "objects: `Contact` and `contact` would share a topic; list the objects, with one of the two"
            ]
        );
    }

    #[test]
    fn an_object_that_is_not_migrated_is_refused_with_the_reason() {
        let discovery = Discovery {
            quota: None,
            objects: vec![object("Contact", false)],
        };
        let parity = Parity {
            migrated: ["Contact", "Contract"].map(str::to_owned).into(),
            not_supported: vec![
                NotSupported {
                    why: "how the org is set up: nothing that a target takes".to_owned(),
                    objects: vec!["LeadStatus".to_owned()],
                },
                NotSupported {
                    why: "targets write a history of their own".to_owned(),
                    objects: vec!["*History".to_owned()],
                },
            ],
            ..Parity::default()
        };
        let wanted = [
            "AccountHistory",
            "LeadStatus",
            "Contract",
            "Contac",
            "Contact",
        ];
        let wanted = wanted.map(str::to_owned);
        let (objects, problems) = names(select(&mapping(), Some(&parity), &wanted, &discovery));
        assert_eq!(objects, ["Contact"]);
        assert_eq!(
            problems,
            [
                "objects[0]: `AccountHistory` is not migrated (targets write a history of their \
                 own); remove it",
                "objects[1]: `LeadStatus` is not migrated (how the org is set up: nothing that a \
                 target takes); remove it",
                "objects[2]: the source shows the migration's user no `Contract`; grant the right \
                 to see it, or remove it",
                "objects[3]: the source has no `Contac`; write `Contact`, or grant the right to \
                 see it",
            ]
        );
    }

    #[test]
    fn a_difference_names_the_fields_and_the_filter() {
        let before = mapping();
        let mut after = before.clone();
        assert_eq!(differences(&before, &after), "custom objects");
        let name = before.objects.keys().next().expect("an object").clone();
        let rules = after.objects.get_mut(&name).expect("an object");
        let slot = rules.slots.values_mut().next().expect("a slot");
        let rule = Convert {
            from: Some("Level__c".to_owned()),
            ..Convert::default()
        };
        slot.fields
            .insert("department".to_owned(), FieldRule::Rule(rule));
        slot.filter.insert("LeadSource".to_owned(), "Web".into());
        let told = format!("{name} ($where, department)");
        assert_eq!(differences(&before, &after), told);
        after.objects.remove(&name);
        assert_eq!(differences(&before, &after), name);
    }
}
