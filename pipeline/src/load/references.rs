//! What the mapping says of references: which a record must wait for, what
//! becomes of it when the parent never comes, and which lanes wait for which
//! objects during the first copy.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::control::Plan;
use crate::extract::Object;
use crate::record::CanonicalKey;
use crate::transform::{FieldRule, Mapping, OnOrphan, Slot};

/// A reference field's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// The record waits for what the field refers to.
    pub(super) required: bool,
    /// What becomes of the record when that never comes.
    pub(super) orphan: OnOrphan,
}

impl Rule {
    /// Of a link that the record can do without.
    pub(super) const OPTIONAL: Rule = Rule {
        required: false,
        orphan: OnOrphan::DropLink,
    };
}

type Fields = HashMap<(String, String), Rule>;

/// The references of a migration.
pub(super) struct References {
    /// By object, the rules of its slots and fields.
    listed: HashMap<String, Fields>,
    custom: Fields,
    /// By object, its slots that this target takes.
    migrated: HashMap<String, HashSet<String>>,
    /// By lane, what of the first copy it waits for.
    parents: BTreeMap<String, BTreeSet<Parent>>,
}

/// What a lane waits for: an object's records, as far as they are of one entity.
/// What else the object gives may wait for that very lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parent {
    /// The object in the source.
    pub(super) object: String,
    /// The entity, which is the lane's name.
    pub(super) entity: String,
}

impl References {
    /// Those of a plan, for a target that takes these entities.
    pub(super) fn of(plan: &Plan, entities: &[&str]) -> Self {
        let mapping = &plan.mapping;
        let fields = |slots: &BTreeMap<String, Slot>| -> Fields {
            let all = slots.iter().flat_map(|(name, slot)| {
                slot.fields.iter().filter_map(move |(field, rule)| {
                    let FieldRule::Rule(rule) = rule else {
                        return None;
                    };
                    rule.reference.as_ref()?;
                    let key = (name.clone(), field.clone());
                    Some((
                        key,
                        Rule {
                            required: rule.required,
                            orphan: rule.orphan(),
                        },
                    ))
                })
            });
            all.collect()
        };
        let migrated = plan.objects.iter().filter_map(|object| {
            let slots = mapping.of(object)?.slots.iter();
            let taken = slots.filter(|(_, slot)| entities.contains(&slot.entity.as_str()));
            let taken = taken.map(|(name, _)| name.clone()).collect();
            Some((object.name.clone(), taken))
        });
        References {
            listed: mapping
                .objects
                .iter()
                .map(|(object, rules)| (object.clone(), fields(&rules.slots)))
                .collect(),
            custom: mapping
                .custom_objects
                .as_ref()
                .map(|rules| fields(&rules.slots))
                .unwrap_or_default(),
            migrated: migrated.collect(),
            parents: parents(mapping, &plan.objects, entities),
        }
    }

    /// The rule of a field of that record.
    pub(super) fn rule(&self, key: &CanonicalKey, field: &str) -> Rule {
        let (_, object, _, slot) = key.parts();
        self.listed
            .get(object)
            .unwrap_or(&self.custom)
            .get(&(slot.to_owned(), field.to_owned()))
            .copied()
            .unwrap_or(Rule::OPTIONAL)
    }

    /// Whether records of that key's object and slot come into this target.
    pub(super) fn migrates(&self, key: &CanonicalKey) -> bool {
        let (_, object, _, slot) = key.parts();
        self.migrated
            .get(object)
            .is_some_and(|slots| slots.contains(slot))
    }

    /// What of the first copy that entity's lane waits for.
    pub(super) fn parents(&self, entity: &str) -> impl Iterator<Item = &Parent> {
        self.parents.get(entity).into_iter().flatten()
    }
}

/// By entity, what its records require. What entities require of
/// each other in a circle, themselves included, is left out: parking sees to
/// it, and no lane waits for one that waits for it.
fn parents(
    mapping: &Mapping,
    objects: &[Object],
    entities: &[&str],
) -> BTreeMap<String, BTreeSet<Parent>> {
    let entity_of = |name: &str, slot: &str| {
        let object = objects.iter().find(|object| object.name == name)?;
        let slot = mapping.of(object)?.slots.get(slot)?;
        Some(slot.entity.as_str()).filter(|entity| entities.contains(entity))
    };
    // (child's entity, parent's object, parent's entity)
    let mut edges: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for object in objects {
        let Some(rules) = mapping.of(object) else {
            continue;
        };
        for slot in rules.slots.values() {
            for rule in slot.fields.values() {
                let FieldRule::Rule(rule) = rule else {
                    continue;
                };
                if let (true, Some((parent, of))) = (rule.required, rule.points_to())
                    && let Some(entity) = entity_of(parent, of)
                {
                    edges.insert((&slot.entity, parent, entity));
                }
            }
        }
    }
    let leads_to = |from: &str, to: &str| {
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(entity) = open.pop() {
            if entity == to {
                return true;
            }
            for (_, _, next) in edges.iter().filter(|(child, ..)| *child == entity) {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    };
    let mut parents: BTreeMap<String, BTreeSet<Parent>> = BTreeMap::new();
    for (child, object, entity) in &edges {
        if !leads_to(entity, child) {
            let parent = Parent {
                object: (*object).to_owned(),
                entity: (*entity).to_owned(),
            };
            parents
                .entry((*child).to_owned())
                .or_default()
                .insert(parent);
        }
    }
    parents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::{Convert, ObjectMapping};

    /// A plan of objects `o<entity>`, each with the required references named.
    fn plan(edges: &[(&str, &str)]) -> Plan {
        let names: BTreeSet<&str> = edges.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let object = |name: &str| {
            let fields = edges
                .iter()
                .filter(|(child, _)| *child == name)
                .map(|(_, parent)| {
                    let rule = Convert {
                        from: Some("x".into()),
                        reference: Some(format!("o{parent}#main")),
                        required: true,
                        ..Convert::default()
                    };
                    (format!("{parent}Id"), FieldRule::Rule(rule))
                });
            let slot = Slot {
                entity: name.into(),
                fields: fields.collect(),
                ..Slot::default()
            };
            ObjectMapping {
                slots: BTreeMap::from([("main".to_owned(), slot)]),
                ..ObjectMapping::default()
            }
        };
        Plan {
            generation: 1,
            mapping: Mapping {
                objects: names
                    .iter()
                    .map(|name| (format!("o{name}"), object(name)))
                    .collect(),
                custom_objects: None,
            },
            objects: names
                .iter()
                .map(|name| {
                    serde_json::from_value(serde_json::json!({
                        "name": format!("o{name}"), "custom": false, "fields": []
                    }))
                    .expect("an object")
                })
                .collect(),
            entities: names.iter().map(|name| (*name).to_owned()).collect(),
            incarnations: BTreeMap::new(),
            ..Plan::default()
        }
    }

    fn waits(edges: &[(&str, &str)], taken: &[&str], lane: &str) -> Vec<String> {
        References::of(&plan(edges), taken)
            .parents(lane)
            .map(|parent| format!("{}#{}", parent.object, parent.entity))
            .collect()
    }

    #[test]
    fn a_lane_waits_for_the_objects_that_its_records_require() {
        let edges = [
            ("ticket", "contact"),
            ("contact", "company"),
            ("ticket", "company"),
        ];
        let all = ["ticket", "contact", "company"];
        assert_eq!(
            waits(&edges, &all, "ticket"),
            ["ocompany#company", "ocontact#contact"]
        );
        assert_eq!(waits(&edges, &all, "contact"), ["ocompany#company"]);
        assert!(waits(&edges, &all, "company").is_empty());
        // A target that takes no companies has nothing to wait for.
        assert_eq!(
            waits(&edges, &["ticket", "contact"], "ticket"),
            ["ocontact#contact"]
        );
    }

    #[test]
    fn no_lane_waits_for_one_that_waits_for_it() {
        let edges = [
            ("a", "a"),
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("c", "d"),
            ("e", "a"),
        ];
        let all = ["a", "b", "c", "d", "e"];
        assert!(waits(&edges, &all, "a").is_empty());
        assert!(waits(&edges, &all, "b").is_empty());
        assert_eq!(waits(&edges, &all, "c"), ["od#d"]);
        assert_eq!(waits(&edges, &all, "e"), ["oa#a"]);
    }

    /// A person's account gives a company and a contact: contacts wait for the
    /// companies of accounts, and not for the contacts, which are their own lane.
    #[test]
    fn a_lane_waits_for_one_slot_of_an_object_and_not_for_the_others() {
        let mut plan = plan(&[("contact", "company")]);
        let slots = |plan: &mut Plan, object: &str, name: &str, slot: Slot| {
            let objects = &mut plan.mapping.objects;
            let rules = objects.get_mut(object).expect("an object");
            rules.slots.insert(name.to_owned(), slot);
        };
        let person = Slot {
            entity: "contact".into(),
            ..Slot::default()
        };
        slots(&mut plan, "ocompany", "person", person);
        let references = References::of(&plan, &["contact", "company"]);
        let parents: Vec<&Parent> = references.parents("contact").collect();
        let companies = Parent {
            object: "ocompany".into(),
            entity: "company".into(),
        };
        assert_eq!(parents, [&companies]);
        assert_eq!(references.parents("company").count(), 0);
    }

    #[test]
    fn what_becomes_of_orphans_is_the_mappings_choice() {
        let mut plan = plan(&[("contact", "company")]);
        let key = CanonicalKey::parse("s/ocontact/1#main").expect("a key");
        let rule = References::of(&plan, &["contact"]).rule(&key, "companyId");
        assert_eq!((rule.required, rule.orphan), (true, OnOrphan::DeadLetter));
        let fields = &mut plan
            .mapping
            .objects
            .get_mut("ocontact")
            .and_then(|o| o.slots.get_mut("main"))
            .expect("a slot")
            .fields;
        if let Some(FieldRule::Rule(rule)) = fields.get_mut("companyId") {
            rule.on_orphan = Some(OnOrphan::DropLink);
        }
        let references = References::of(&plan, &["contact"]);
        assert_eq!(
            references.rule(&key, "companyId").orphan,
            OnOrphan::DropLink
        );
        assert_eq!(references.rule(&key, "managerId"), Rule::OPTIONAL);
        assert!(references.migrates(&key));
        let company = CanonicalKey::parse("s/ocompany/1#main").expect("a key");
        assert!(
            !references.migrates(&company),
            "the target takes no company"
        );
    }
}
