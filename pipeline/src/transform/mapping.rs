//! The mapping from a source's objects to canonical entities, as data. The
//! connector ships one (`mapping.yaml`), a migration adds to it, `drover init`
//! writes the result to the topic `control`, and the transformers compile it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::extract::Object;

/// The reference to whatever object the id tells.
pub const ANY: &str = "*";

/// All objects of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    /// By the object's API name.
    pub objects: BTreeMap<String, ObjectMapping>,
    /// What holds for objects that are not listed: custom ones, and those that
    /// a migration names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_objects: Option<ObjectMapping>,
}

/// One object: its slots, in a stable order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMapping {
    /// The slots, by name. Every transform yields each of them.
    pub slots: BTreeMap<String, Slot>,
    /// Fields of the source that no target needs (kept in the raw topic, left
    /// out of `custom`): technical ones, parts of compounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

/// One canonical output of an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slot {
    /// The canonical entity.
    pub entity: String,
    /// Only records whose fields have these values fill the slot; others are
    /// ABSENT with reason `filtered`. A list means any of its values, and
    /// `{not: …}` anything but these. `{atLeast: …, below: …}` compares numbers,
    /// dates and times. A field that is absent or an empty text counts as null.
    #[serde(default, rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub filter: BTreeMap<String, serde_json::Value>,
    /// The slot is ABSENT with reason `slot-empty` when all of these source
    /// fields are empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_without: Vec<String>,
    /// By the entity's field.
    pub fields: BTreeMap<String, FieldRule>,
    /// Whether filled source fields that no rule reads go to `custom`.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub custom: bool,
    /// Whether the slot is one of an earlier mapping: it has nothing any more,
    /// and says so for each record, so that what it gave is taken away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
}

fn yes() -> bool {
    true
}

/// Where a field's value comes from: the short form is the source field's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldRule {
    /// `phoneNumber: Phone`
    From(String),
    /// With a conversion or a reference.
    Rule(Convert),
}

/// The long form of a field's rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Convert {
    /// The source field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Further source fields, in order: the first filled one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub or: Vec<String>,
    /// A constant text instead of a source field; `$object` is the object's
    /// API name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<String>,
    /// The object and slot that the id in the source field points to, as
    /// `Account#company`; or `*`: the object that the id itself tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// For a reference: whether the record waits until what it points to is
    /// loaded (a required parent). Otherwise it is loaded without the link, and
    /// again with it as soon as the link is possible.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// For a reference: what becomes of the record when it is known that what
    /// it points to never comes. Without it: a dead letter where the reference
    /// is required, else the link is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_orphan: Option<OnOrphan>,
    /// The source may lack the field, as one that not every edition or account
    /// has: the rule then gives nothing, instead of being a problem.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What stands for each of the source's values; `null` empties the field. A
    /// value without a map passes as it is, and is reported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Option<String>>,
    /// What stands for an empty field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The form that a text is brought into. One that can't be read so passes as
    /// it is, and is reported.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// For a telephone number without a country's code: the country, as two
    /// letters (ISO 3166).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The same, by the source field that names the country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_from: Option<String>,
}

/// A form that texts are brought into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// A telephone number: `+4930123456` (E.164).
    Phone,
    /// A country: `DE`, from its name or one of its codes (ISO 3166).
    Country,
}

/// What becomes of a record whose parent never comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnOrphan {
    /// It is loaded without the link.
    DropLink,
    /// It becomes a dead letter, which names the parent and why it is missing.
    DeadLetter,
}

impl Convert {
    /// What becomes of the record when this reference's parent never comes.
    pub fn orphan(&self) -> OnOrphan {
        self.on_orphan.unwrap_or(match self.required {
            true => OnOrphan::DeadLetter,
            false => OnOrphan::DropLink,
        })
    }

    /// The object and the slot of a reference.
    pub fn points_to(&self) -> Option<(&str, &str)> {
        let text = self.reference.as_deref()?;
        Some(text.rsplit_once('#').unwrap_or((text, "")))
    }
}

impl Mapping {
    /// The mapping of an object: its own, or that of all that are not listed.
    pub fn of(&self, object: &Object) -> Option<&ObjectMapping> {
        self.objects
            .get(&object.name)
            .or(self.custom_objects.as_ref())
    }

    /// Whether the mapping of an object reads a field of it.
    pub fn reads(&self, object: &Object, field: &str) -> bool {
        let slots = self
            .of(object)
            .into_iter()
            .flat_map(|own| own.slots.values());
        slots.filter(|slot| !slot.retired).any(|slot| {
            slot.filter.contains_key(field)
                || slot.empty_without.iter().any(|one| one == field)
                || slot
                    .fields
                    .values()
                    .any(|rule| rule.source_fields().any(|one| one == field))
        })
    }

    /// Keeps the slots that only the mapping before has, as retired ones. Fails
    /// with the slots that gave another entity before: what they gave could not
    /// be taken away.
    pub fn retire(&mut self, before: &Mapping, objects: &[Object]) -> Result<(), Vec<String>> {
        let mut changed = Vec::new();
        for object in objects {
            let (Some(former), Some(mut rules)) = (before.of(object), self.of(object).cloned())
            else {
                continue;
            };
            let mut added = false;
            for (name, slot) in &former.slots {
                match rules.slots.get(name) {
                    Some(now) if now.entity != slot.entity => {
                        changed.push(format!("{}#{name}", object.name));
                    }
                    Some(_) => {}
                    None => {
                        let retired = Slot {
                            entity: slot.entity.clone(),
                            retired: true,
                            ..Slot::default()
                        };
                        rules.slots.insert(name.clone(), retired);
                        added = true;
                    }
                }
            }
            if added {
                self.objects.insert(object.name.clone(), rules);
            }
        }
        if changed.is_empty() {
            Ok(())
        } else {
            Err(changed)
        }
    }

    /// Whether an object is migrated when none is named: it has rules of its
    /// own, or the customer made it.
    pub fn covers(&self, object: &Object) -> bool {
        self.objects.contains_key(&object.name) || (object.custom && self.custom_objects.is_some())
    }
}

impl FieldRule {
    /// Every source field that the rule reads.
    pub fn source_fields(&self) -> impl Iterator<Item = &str> {
        let (first, long) = match self {
            FieldRule::From(field) => (Some(field.as_str()), None),
            FieldRule::Rule(rule) => (rule.from.as_deref(), Some(rule)),
        };
        let more = long.into_iter().flat_map(|rule| {
            let or = rule.or.iter().map(String::as_str);
            or.chain(rule.region_from.as_deref())
        });
        first.into_iter().chain(more)
    }

    /// The source field that the rule reads first, if any.
    pub fn source_field(&self) -> Option<&str> {
        match self {
            FieldRule::From(field) => Some(field),
            FieldRule::Rule(rule) => rule.from.as_deref(),
        }
    }

    /// The rule in its long form.
    pub fn long(&self) -> Convert {
        match self {
            FieldRule::From(field) => Convert {
                from: Some(field.clone()),
                ..Convert::default()
            },
            FieldRule::Rule(rule) => rule.clone(),
        }
    }
}
