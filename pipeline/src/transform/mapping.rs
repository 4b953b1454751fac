//! The mapping from a source's objects to canonical entities, as data. The
//! connector ships one (`mapping.yaml`), a migration adds to it, `drover init`
//! writes the result to the topic `control`, and the transformers compile it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::extract::Object;

/// All objects of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    /// By the object's API name.
    pub objects: BTreeMap<String, ObjectMapping>,
    /// What holds for custom objects that are not listed.
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
    /// ABSENT with reason `filtered`. A list means any of its values. A field
    /// that is absent or an empty text counts as null.
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
    /// A constant text instead of a source field; `$object` is the object's
    /// API name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<String>,
    /// The object and slot that the id in the source field points to, as
    /// `Account#company`.
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
    /// The mapping of an object: its own, or that of custom objects.
    pub fn of(&self, object: &Object) -> Option<&ObjectMapping> {
        self.objects
            .get(&object.name)
            .or_else(|| self.custom_objects.as_ref().filter(|_| object.custom))
    }
}

impl FieldRule {
    /// The source field that the rule reads, if any.
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
