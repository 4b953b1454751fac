//! One field's rule: whether it can ever work, and what it compiles to.

use drover_pipeline::extract::SourceField;
use drover_pipeline::transform::{Convert, can_become, kind_name};
use drover_schemas::{Field, Kind, Value};

use super::{Compiler, did_you_mean};
use crate::convert::convert;
use crate::plan::{ObjectPlan, Source};

impl Compiler<'_> {
    /// Where a field's value comes from, or nothing and a problem.
    pub(super) fn source(
        &mut self,
        path: &str,
        field: &Field,
        rule: &Convert,
        plan: &ObjectPlan,
    ) -> Option<Source> {
        let name = match (&rule.from, &rule.constant) {
            (Some(name), None) => name,
            (None, Some(constant)) => return self.constant(path, field, rule, constant),
            _ => {
                self.problem(
                    path,
                    "needs a source field or a constant, one of the two",
                    "write `from: FIELD` or `constant: TEXT`",
                );
                return None;
            }
        };
        if !self.has(name) && !rule.optional {
            self.no_field(path.to_owned(), name);
        }
        let described = self.fields.iter().find(|field| field.name == *name);
        if let Some(described) = described
            && !can_become(&described.kind, field.kind)
        {
            self.problem(
                path,
                format!(
                    "the source field {name} is declared as {}, and {} is {}",
                    described.kind,
                    field.name,
                    kind_name(field.kind)
                ),
                "map another source field, or leave it to `custom`",
            );
        }
        let place = plan.place(name)?;
        if field.kind != Kind::Reference {
            self.plain(path, field, rule);
            return Some(Source::Field(place));
        }
        self.reference(path, field, rule, described, place)
    }

    /// A rule of a field that is no reference must not say where it points.
    fn plain(&mut self, path: &str, field: &Field, rule: &Convert) {
        if rule.reference.is_some() || rule.required || rule.on_orphan.is_some() {
            let what = match (&rule.reference, rule.required) {
                (Some(_), _) => "reference",
                (None, true) => "required",
                (None, false) => "onOrphan",
            };
            self.problem(
                path,
                format!(
                    "`{what}` is for references, and {} is {}",
                    field.name,
                    kind_name(field.kind)
                ),
                format!("remove `{what}`"),
            );
        }
    }

    fn reference(
        &mut self,
        path: &str,
        field: &Field,
        rule: &Convert,
        described: Option<&SourceField>,
        place: usize,
    ) -> Option<Source> {
        let due = field.entity.as_deref().unwrap_or_default();
        let Some((object, slot)) = rule.points_to() else {
            self.problem(
                path,
                format!(
                    "{} is a reference to a {due}, and the rule doesn't say to what",
                    field.name
                ),
                "write `{ from: FIELD, reference: OBJECT#SLOT }`",
            );
            return None;
        };
        let path = format!("{path}.reference");
        let Some(entity) = self.entity_of(object, slot) else {
            let text = rule.reference.as_deref().unwrap_or_default();
            let known = self.all_slots();
            self.problem(
                path,
                format!("the mapping has no object and slot `{text}`"),
                did_you_mean(text, known.iter().map(String::as_str)),
            );
            return None;
        };
        if entity != due {
            self.problem(
                path,
                format!(
                    "{object}#{slot} gives a {entity}, and {} points to a {due}",
                    field.name
                ),
                format!("name an object and slot that gives a {due}"),
            );
        } else if let Some(described) = described
            && !described.references.is_empty()
            && !described.references.iter().any(|one| one == object)
        {
            self.problem(
                path,
                format!(
                    "the source field {} never points to {object}, but to {}",
                    described.name,
                    described.references.join(", ")
                ),
                "name one of those objects",
            );
        }
        Some(Source::Reference {
            field: place,
            object: object.to_owned(),
            slot: slot.to_owned(),
        })
    }

    fn constant(
        &mut self,
        path: &str,
        field: &Field,
        rule: &Convert,
        text: &str,
    ) -> Option<Source> {
        if field.kind == Kind::Reference {
            self.problem(path, "a reference can't be constant", "write `from: FIELD`");
            return None;
        }
        self.plain(path, field, rule);
        let text = text.replace("$object", self.name);
        let json = serde_json::Value::String(text).to_string();
        match convert(&json, field) {
            Ok(value) => Some(Source::Constant(owned(&value))),
            Err(fault) => {
                self.problem(
                    format!("{path}.constant"),
                    fault.message,
                    format!("write {}", kind_name(field.kind)),
                );
                None
            }
        }
    }

    fn entity_of(&self, object: &str, slot: &str) -> Option<&str> {
        let custom = || {
            let described = self.objects.iter().find(|one| one.name == object)?;
            self.mapping.of(described)
        };
        let rules = self.mapping.objects.get(object).or_else(custom)?;
        rules.slots.get(slot).map(|slot| slot.entity.as_str())
    }

    fn all_slots(&self) -> Vec<String> {
        let objects = self.mapping.objects.iter();
        objects
            .flat_map(|(name, rules)| rules.slots.keys().map(move |slot| format!("{name}#{slot}")))
            .collect()
    }
}

fn owned(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::String(text) => Value::String(text.clone().into_owned().into()),
        Value::Decimal(text) => Value::Decimal(text.clone().into_owned().into()),
        Value::Reference(text) => Value::Reference(text.clone().into_owned().into()),
        Value::Boolean(value) => Value::Boolean(*value),
        Value::Long(value) => Value::Long(*value),
        Value::Date(value) => Value::Date(*value),
        Value::Datetime(value) => Value::Datetime(*value),
    }
}
