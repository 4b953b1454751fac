//! The source's own description of an object changes while it is migrated: a
//! field is added, taken away, hidden from our user or made another type; the
//! whole object is hidden. Here it is decided what that means for a lane; nothing
//! of it passes unseen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Object, SourceField};
use crate::error::{Code, Error};

/// What is done about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// The lane goes on with what it knows; a field that is gone is no longer
    /// asked for.
    Ignore,
    /// The lane stops and asks for a person.
    Stop,
    /// The lane waits until the difference is gone, and then goes on by itself.
    Park,
    /// The lane goes on with what the source has now; of a new field, the values
    /// of all records are read once more.
    Apply,
}

impl Policy {
    /// Every one, by its name in a configuration.
    pub const ALL: [(&'static str, Policy); 4] = [
        ("ignore", Policy::Ignore),
        ("stop", Policy::Stop),
        ("park", Policy::Park),
        ("apply", Policy::Apply),
    ];
}

/// What is done about each kind of difference; nothing said means the default:
/// additions are applied; what is gone, hidden or of another type stops the lane
/// if the mapping reads it, and is applied otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// A field that is new.
    pub added: Option<Policy>,
    /// A field, or the object, that is gone or hidden.
    pub removed: Option<Policy>,
    /// A field of another type.
    pub retyped: Option<Policy>,
}

/// When the source is asked how it describes itself, and what is done about
/// what has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// How often the source is asked.
    pub every: Duration,
    /// What holds for every object.
    pub rules: Rules,
    /// What holds for an object, where it says anything.
    pub objects: BTreeMap<String, Rules>,
}

impl Default for Drift {
    fn default() -> Self {
        Drift {
            every: Duration::from_secs(3_600),
            rules: Rules::default(),
            objects: BTreeMap::new(),
        }
    }
}

impl Drift {
    /// The rules of an object.
    pub fn of(&self, object: &str) -> Rules {
        let own = self.objects.get(object).copied().unwrap_or_default();
        Rules {
            added: own.added.or(self.rules.added),
            removed: own.removed.or(self.rules.removed),
            retyped: own.retyped.or(self.rules.retyped),
        }
    }
}

/// What a lane does from now on.
#[derive(Debug, Default)]
pub struct Settled {
    /// Fields that are read from now on and were not before.
    pub added: Vec<SourceField>,
    /// Fields that are no longer asked for.
    pub dropped: Vec<String>,
    /// Fields whose type is another one.
    pub retyped: Vec<SourceField>,
    /// What a person should see, one text a difference, each with its place.
    pub remarks: Vec<String>,
    /// The object is not there to be asked for: its lane rests until it is back.
    pub gone: bool,
    /// Why the lane does not go on, and whether it waits for the difference to
    /// go away (`Park`) or for a person (`Stop`).
    pub halt: Option<(Policy, Error)>,
}

/// Compares an object as it is read with what the source says of it now; `None`
/// is an object that it no longer shows. `used` tells whether the mapping reads
/// a field.
pub fn settle(
    known: &Object,
    now: Option<&Object>,
    rules: Rules,
    used: impl Fn(&str) -> bool,
) -> Settled {
    let mut settled = Settled::default();
    let Some(now) = now else {
        let what = "the source no longer shows the object, or this user may not see it";
        match rules.removed.unwrap_or(Policy::Stop) {
            // Neither takes away what was read.
            Policy::Ignore | Policy::Apply => {
                settled.remark(known, "", what, "not asked for until it is back");
                settled.gone = true;
            }
            Policy::Stop => settled.halt(Policy::Stop, known, "", what),
            Policy::Park => settled.halt(Policy::Park, known, "", what),
        }
        return settled;
    };
    let field_of = |object: &'_ Object, name: &str| -> Option<SourceField> {
        let mut fields = object.fields.iter();
        fields.find(|field| field.name == name).cloned()
    };
    for field in &now.fields {
        match field_of(known, &field.name) {
            None => {
                let what = "the source has a new field";
                match rules.added.unwrap_or(Policy::Apply) {
                    Policy::Ignore => settled.remark(known, &field.name, what, "ignored"),
                    Policy::Apply => {
                        settled.remark(
                            known,
                            &field.name,
                            what,
                            "read from now on, of all records",
                        );
                        settled.added.push(field.clone());
                    }
                    halt => settled.halt(halt, known, &field.name, what),
                }
            }
            Some(before) if before.kind != field.kind => {
                let what = format!("its type was `{}` and is `{}`", before.kind, field.kind);
                match rules.retyped.unwrap_or(default(used(&field.name))) {
                    Policy::Ignore => settled.remark(known, &field.name, &what, "ignored"),
                    Policy::Apply => {
                        settled.remark(known, &field.name, &what, "applied");
                        settled.retyped.push(field.clone());
                    }
                    halt => settled.halt(halt, known, &field.name, &what),
                }
            }
            Some(_) => {}
        }
    }
    for field in &known.fields {
        if field_of(now, &field.name).is_some() {
            continue;
        }
        let what = "the source no longer shows the field, or this user may not see it";
        let is_used = used(&field.name);
        match rules.removed.unwrap_or(default(is_used)) {
            // Asked for, it would be refused: both leave it out.
            policy @ (Policy::Ignore | Policy::Apply) => {
                let done = match policy {
                    Policy::Ignore => "ignored",
                    _ => "left out from now on",
                };
                let emptied = match is_used {
                    true => "; what is mapped from it is emptied when its record changes",
                    false => "",
                };
                settled.remark(known, &field.name, what, &format!("{done}{emptied}"));
                settled.dropped.push(field.name.clone());
            }
            halt => settled.halt(halt, known, &field.name, what),
        }
    }
    settled
}

/// What is done about what is gone or changed where nothing is said.
fn default(used: bool) -> Policy {
    if used { Policy::Stop } else { Policy::Apply }
}

/// A field of an object, or the object as a whole.
fn place(object: &Object, field: &str) -> String {
    match field {
        "" => object.name.clone(),
        field => format!("{}.{field}", object.name),
    }
}

impl Settled {
    fn remark(&mut self, object: &Object, field: &str, what: &str, done: &str) {
        let place = place(object, field);
        self.remarks.push(format!("{place}: {what} ({done})"));
    }

    /// A stop is stronger than a wait; of equals the first one is told.
    fn halt(&mut self, how: Policy, object: &Object, field: &str, what: &str) {
        if let Some((Policy::Stop, _)) = self.halt {
            return;
        }
        if how == Policy::Park && self.halt.is_some() {
            return;
        }
        let error = Error::new(Code::SourceChanged, what).at(place(object, field));
        self.halt = Some((how, error));
    }

    /// The object as it is read from now on.
    pub fn apply(&self, object: &mut Object) {
        object
            .fields
            .retain(|field| !self.dropped.contains(&field.name));
        for changed in &self.retyped {
            let mut fields = object.fields.iter_mut();
            if let Some(field) = fields.find(|field| field.name == changed.name) {
                field.clone_from(changed);
            }
        }
        read_also(&mut object.fields, &self.added);
    }
}

/// Adds fields to those that are read, each once: one that was hidden and is back is
/// new to the lane, and not to who described the object first.
pub(super) fn read_also(known: &mut Vec<SourceField>, added: &[SourceField]) {
    for field in added {
        if !known.iter().any(|one| one.name == field.name) {
            known.push(field.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(fields: &[(&str, &str)]) -> Object {
        let field = |(name, kind): &(&str, &str)| SourceField {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            ..SourceField::default()
        };
        Object {
            name: "Contact".to_owned(),
            fields: fields.iter().map(field).collect(),
            ..Object::default()
        }
    }

    fn names(object: &Object) -> Vec<String> {
        let fields = object.fields.iter();
        fields
            .map(|field| format!("{} {}", field.name, field.kind))
            .collect()
    }

    const BEFORE: &[(&str, &str)] = &[("Id", "id"), ("Email", "email"), ("Old", "string")];

    #[test]
    fn nothing_is_done_where_nothing_changed() {
        let settled = settle(
            &object(BEFORE),
            Some(&object(BEFORE)),
            Rules::default(),
            |_| true,
        );
        assert!(settled.remarks.is_empty() && settled.halt.is_none());
    }

    #[test]
    fn additions_are_read_and_what_nobody_uses_may_go() {
        let now = object(&[("Id", "id"), ("Email", "email"), ("New__c", "double")]);
        let mut known = object(BEFORE);
        let settled = settle(&known, Some(&now), Rules::default(), |field| {
            field == "Email"
        });
        assert!(settled.halt.is_none());
        assert_eq!(
            settled.remarks,
            [
                "Contact.New__c: the source has a new field (read from now on, of all records)",
                "Contact.Old: the source no longer shows the field, or this user may not see it (left out \
                 from now on)"
            ]
        );
        settled.apply(&mut known);
        assert_eq!(names(&known), ["Id id", "Email email", "New__c double"]);
    }

    #[test]
    fn what_the_mapping_reads_stops_the_lane() {
        let told = |now: Option<&Object>, rules| {
            let settled = settle(&object(BEFORE), now, rules, |field| field == "Email");
            let (how, error) = settled.halt?;
            Some((how, error.code, error.place.unwrap_or_default()))
        };
        let halts = |how, place: &str| Some((how, Code::SourceChanged, place.to_owned()));
        let gone = object(&[("Id", "id"), ("Old", "string")]);
        let retyped = object(&[("Id", "id"), ("Email", "double"), ("Old", "string")]);
        let none = Rules::default();
        assert_eq!(
            told(Some(&gone), none),
            halts(Policy::Stop, "Contact.Email")
        );
        assert_eq!(
            told(Some(&retyped), none),
            halts(Policy::Stop, "Contact.Email")
        );
        assert_eq!(told(None, none), halts(Policy::Stop, "Contact"));
        for policy in [Policy::Ignore, Policy::Apply] {
            let rules = Rules {
                removed: Some(policy),
                retyped: Some(policy),
                ..none
            };
            assert_eq!(told(Some(&gone), rules), None);
            assert_eq!(told(Some(&retyped), rules), None);
            assert_eq!(told(None, rules), None);
            assert!(settle(&object(BEFORE), None, rules, |_| true).gone);
            let told = settle(&object(BEFORE), Some(&gone), rules, |_| true).remarks;
            let emptied = "; what is mapped from it is emptied when its record changes)";
            assert!(told[0].ends_with(emptied), "{told:?}");
            assert!(!settle(&object(BEFORE), Some(&gone), rules, |_| true).gone);
        }
        let park = Rules {
            removed: Some(Policy::Park),
            ..none
        };
        assert_eq!(
            told(Some(&gone), park),
            halts(Policy::Park, "Contact.Email")
        );
        assert_eq!(told(None, park), halts(Policy::Park, "Contact"));
        let strict = Rules {
            added: Some(Policy::Stop),
            ..none
        };
        let more = object(&[
            ("Id", "id"),
            ("Email", "email"),
            ("Old", "string"),
            ("X", "int"),
        ]);
        assert_eq!(told(Some(&more), strict), halts(Policy::Stop, "Contact.X"));
    }

    #[test]
    fn an_object_has_its_own_rules_over_those_of_all() {
        let drift = Drift {
            rules: Rules {
                added: Some(Policy::Ignore),
                removed: Some(Policy::Park),
                retyped: None,
            },
            objects: [(
                "Contact".to_owned(),
                Rules {
                    added: Some(Policy::Stop),
                    ..Rules::default()
                },
            )]
            .into(),
            ..Drift::default()
        };
        let contact = drift.of("Contact");
        assert_eq!(contact.added, Some(Policy::Stop));
        assert_eq!(contact.removed, Some(Policy::Park));
        assert_eq!(drift.of("Lead").added, Some(Policy::Ignore));
    }
}
