//! One field's rule: whether it can ever work, and what it compiles to.

use std::sync::Arc;

use drover_pipeline::extract::SourceField;
use drover_pipeline::transform::{
    ANY, Convert, Form, can_fill, can_take_form, form_fits, form_name, holds, kind_name,
};
use drover_schemas::{Entity, Field, Kind, Value};

use super::{Compiler, did_you_mean};
use crate::convert::convert;
use crate::plan::{More, ObjectPlan, Source};

impl Compiler<'_> {
    /// Where a field's value comes from, or nothing and a problem.
    pub(super) fn source(
        &mut self,
        path: &str,
        entity: &Entity,
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
        for name in std::iter::once(name).chain(&rule.or) {
            if !self.has(name) && !rule.optional {
                self.no_field(path.to_owned(), name);
            }
            // A map of values makes a text of whatever it maps.
            if rule.values.is_empty() {
                self.can_fill(path, name, entity, field);
            }
        }
        let place = plan.place(name)?;
        if field.kind != Kind::Reference {
            self.plain(path, field, rule);
            return Some(Source::Field(place));
        }
        let described = self.fields.iter().find(|field| field.name == *name);
        self.reference(path, (entity, field), rule, described, place)
    }

    fn can_fill(&mut self, path: &str, name: &str, entity: &Entity, field: &Field) {
        let described = self.fields.iter().find(|field| field.name == name);
        if let Some(described) = described
            && !can_fill(&described.kind, entity, field)
        {
            self.problem(
                path,
                format!(
                    "the source field {name} is declared as {}, and {} is {}",
                    described.kind,
                    field.name,
                    holds(entity, field)
                ),
                "map another source field, or leave it to `custom`",
            );
        }
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
        (entity, field): (&Entity, &Field),
        rule: &Convert,
        described: Option<&SourceField>,
        place: usize,
    ) -> Option<Source> {
        let due = field.entity.as_deref();
        let beside = field.type_field.as_deref();
        let beside = beside.and_then(|name| Some(entity.field(name)?.0));
        if rule.reference.as_deref() == Some(ANY) {
            if let Some(due) = due {
                self.problem(
                    format!("{path}.reference"),
                    format!("{} points to a {due}, and `*` to any entity", field.name),
                    "write `OBJECT#SLOT`",
                );
            }
            return Some(Source::Any {
                field: place,
                known: Arc::clone(self.prefixes),
                beside,
            });
        }
        let Some((object, slot)) = rule.points_to() else {
            self.problem(
                path,
                format!(
                    "{} is a reference to a {}, and the rule doesn't say to what",
                    field.name,
                    due.unwrap_or("record of any entity")
                ),
                match due {
                    Some(_) => "write `{ from: FIELD, reference: OBJECT#SLOT }`",
                    None => "write `{ from: FIELD, reference: \"*\" }`, or `OBJECT#SLOT`",
                },
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
        let given = entity.to_owned();
        if let Some(due) = due.filter(|due| given != *due) {
            self.problem(
                path,
                format!(
                    "{object}#{slot} gives a {given}, and {} points to a {due}",
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
            beside: beside.map(|place| (place, given)),
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
        let value = self.value_of(&format!("{path}.constant"), &json, field);
        value.map(Source::Constant)
    }

    /// A value that the mapping itself holds.
    fn value_of(&mut self, path: &str, json: &str, field: &Field) -> Option<Value<'static>> {
        match convert(json, field) {
            Ok(value) => Some(owned(&value)),
            Err(fault) => {
                let advice = format!("write {}", kind_name(field.kind));
                self.problem(path, fault.message, advice);
                None
            }
        }
    }

    /// What the rule says beside its source field; nothing for most rules.
    pub(super) fn more(
        &mut self,
        path: &str,
        (entity, field): (&Entity, &Field),
        rule: &Convert,
        plan: &ObjectPlan,
    ) -> Option<Box<More>> {
        let plain = Convert {
            from: rule.from.clone(),
            constant: rule.constant.clone(),
            reference: rule.reference.clone(),
            required: rule.required,
            optional: rule.optional,
            ..Convert::default()
        };
        if *rule == plain {
            return None;
        }
        self.no_use(path, field, rule);
        self.no_form(path, entity, field, rule);
        let described = rule
            .from
            .as_ref()
            .and_then(|from| self.fields.iter().find(|field| field.name == *from));
        let region_from = rule.region_from.as_deref().and_then(|name| {
            if !self.has(name) && !rule.optional {
                self.no_field(format!("{path}.regionFrom"), name);
            }
            plan.place(name)
        });
        Some(Box::new(More {
            or: (rule.or.iter())
                .filter_map(|name| Some((plan.place(name)?, true)))
                .collect(),
            default: rule.default.as_ref().and_then(|text| {
                let json = serde_json::Value::String(text.clone()).to_string();
                self.value_of(&format!("{path}.default"), &json, field)
            }),
            values: rule.values.clone().into_iter().collect(),
            listed: described
                .map(|field| field.values.iter().cloned().collect())
                .unwrap_or_default(),
            separator: described.and_then(|field| field.separator),
            form: rule.form,
            region: rule.region.clone(),
            region_from,
        }))
    }

    /// What a rule says and can't be.
    fn no_use(&mut self, path: &str, field: &Field, rule: &Convert) {
        let reads = rule.from.is_some();
        let text = field.kind == Kind::String;
        let reference = field.kind == Kind::Reference;
        let said = [
            ("or", !rule.or.is_empty(), reads),
            ("values", !rule.values.is_empty(), reads && !reference),
            ("default", rule.default.is_some(), reads && !reference),
            ("as", rule.form.is_some(), reads && text),
            (
                "region",
                rule.region.is_some(),
                rule.form == Some(Form::Phone),
            ),
            (
                "regionFrom",
                rule.region_from.is_some(),
                rule.form == Some(Form::Phone),
            ),
        ];
        for (name, said, fits) in said {
            if said && !fits {
                self.problem(
                    format!("{path}.{name}"),
                    format!(
                        "`{name}` has no use here: {} is {}",
                        field.name,
                        kind_name(field.kind)
                    ),
                    format!("remove `{name}`"),
                );
            }
        }
        for (value, mapped) in &rule.values {
            if let Some(mapped) = mapped {
                let json = serde_json::Value::String(mapped.clone()).to_string();
                self.value_of(&format!("{path}.values.{value}"), &json, field);
            }
        }
        if let Some(region) = &rule.region
            && crate::form::region(region).is_none()
        {
            self.problem(
                format!("{path}.region"),
                format!("`{region}` is no country"),
                "write two letters (ISO 3166), such as DE",
            );
        }
    }

    /// A form that the source field can't take, or that the canonical one never has.
    fn no_form(&mut self, path: &str, entity: &Entity, field: &Field, rule: &Convert) {
        let Some(form) = rule.form.filter(|_| field.kind == Kind::String) else {
            return;
        };
        let makes = format!("`as` makes {} of a text", form_name(form));
        if !form_fits(field, form) {
            let due = holds(entity, field);
            let what = format!("{makes}, and {}.{} is {due}", entity.name, field.name);
            self.problem(
                format!("{path}.as"),
                what,
                "remove `as`, or map another field",
            );
            return;
        }
        let fields = self.fields;
        let read = rule.from.iter().chain(&rule.or);
        let described = read.filter_map(|name| fields.iter().find(|field| field.name == *name));
        // A map of values makes a text of whatever it maps.
        for source in described.filter(|_| rule.values.is_empty()) {
            if !can_take_form(&source.kind, form) {
                let what = format!(
                    "{makes}, and the source field {} is declared as {}",
                    source.name, source.kind
                );
                self.problem(
                    format!("{path}.as"),
                    what,
                    "remove `as`, or map another field",
                );
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
