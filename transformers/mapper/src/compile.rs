//! Compiles a mapping into plans and finds everything that is wrong with it:
//! objects and slots here, one field's rule in `compile/rule.rs`.

mod rule;

use std::collections::HashMap;
use std::sync::Arc;

use drover_pipeline::config::{Problem, nearest};
use drover_pipeline::extract::{Object, SourceField};
use drover_pipeline::transform::{Mapping, ObjectMapping, Slot};
use drover_schemas::{Entity, entities, entity};

use crate::filter::{Asked, Condition};
use crate::plan::{MAX_SLOTS, ObjectPlan, Rule, SlotPlan};
use crate::prefix::Prefixes;

/// The plans of all objects, by name; or every problem.
pub fn compile(
    mapping: &Mapping,
    objects: &[Object],
) -> Result<HashMap<String, ObjectPlan>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut plans = HashMap::new();
    let prefixes = Arc::new(Prefixes::of(mapping, objects));
    for (name, rules) in &mapping.objects {
        let mut compiler = Compiler {
            mapping,
            objects,
            prefixes: &prefixes,
            name,
            fields: fields_of(objects, name),
            template: false,
            problems: &mut problems,
        };
        let plan = compiler.object(&format!("objects.{name}"), rules);
        plans.insert(name.clone(), plan);
    }
    if let Some(rules) = &mapping.custom_objects {
        let customs = objects
            .iter()
            .filter(|object| !mapping.objects.contains_key(&object.name));
        let mut found = Vec::new();
        for object in customs {
            let mut compiler = Compiler {
                mapping,
                objects,
                prefixes: &prefixes,
                name: &object.name,
                fields: &object.fields,
                template: true,
                problems: &mut found,
            };
            let plan = compiler.object("customObjects", rules);
            plans.insert(object.name.clone(), plan);
        }
        if plans.len() == mapping.objects.len() {
            // No custom object yet; the rules are judged all the same.
            let mut compiler = Compiler {
                mapping,
                objects,
                prefixes: &prefixes,
                name: "customObjects",
                fields: &[],
                template: true,
                problems: &mut found,
            };
            compiler.object("customObjects", rules);
        }
        // One problem of the rules, not one for each object.
        for problem in found {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    if problems.is_empty() {
        Ok(plans)
    } else {
        Err(problems)
    }
}

/// A field that only stands behind others in a rule goes to `custom` where it is
/// passed over; one that another rule reads does not.
fn keep_what_is_passed_over(rules: &mut [Rule]) {
    let first: Vec<usize> = rules
        .iter()
        .filter_map(|rule| rule.source.field())
        .collect();
    for more in rules.iter_mut().filter_map(|rule| rule.more.as_mut()) {
        for (field, spare) in &mut more.or {
            *spare = !first.contains(field);
        }
    }
}

fn fields_of<'a>(objects: &'a [Object], name: &str) -> &'a [SourceField] {
    let object = objects.iter().find(|object| object.name == name);
    object.map_or(&[], |object| &object.fields)
}

struct Compiler<'a> {
    mapping: &'a Mapping,
    objects: &'a [Object],
    prefixes: &'a Arc<Prefixes>,
    /// The object that is compiled.
    name: &'a str,
    /// Its fields as described; empty when the source wasn't asked.
    fields: &'a [SourceField],
    /// Whether the rules are those of all custom objects, which differ in
    /// what fields they have.
    template: bool,
    problems: &'a mut Vec<Problem>,
}

impl Compiler<'_> {
    fn object(&mut self, path: &str, rules: &ObjectMapping) -> ObjectPlan {
        let described = self.fields.iter().map(|f| (&*f.name, &*f.kind));
        let mapped = rules.slots.values().flat_map(|slot| {
            let read = slot.fields.values().flat_map(|rule| rule.source_fields());
            let asked = slot.filter.keys().chain(&slot.empty_without);
            read.chain(asked.map(String::as_str))
        });
        // An ignored field is known too, so that it costs one look-up.
        let mapped = mapped.chain(rules.ignore.iter().map(String::as_str));
        let fields = described.chain(mapped.map(|name| (name, "unknown")));
        let mut plan = ObjectPlan::new(self.name, fields);
        for field in self.fields {
            if let Some(place) = plan.place(&field.name) {
                plan.fields[place].separator = field.separator;
            }
        }
        if rules.slots.is_empty() || rules.slots.len() > MAX_SLOTS {
            self.problem(
                format!("{path}.slots"),
                format!("the object has {} slots", rules.slots.len()),
                format!("give it one to {MAX_SLOTS}, or leave the object out"),
            );
        }
        for (at, (name, slot)) in rules.slots.iter().take(MAX_SLOTS).enumerate() {
            let path = format!("{path}.slots.{name}");
            if name.is_empty() || name.contains(['#', '/', '|']) {
                self.problem(
                    path.clone(),
                    "the slot's name is empty or has `#`, `/` or `|` in it",
                    "use letters, digits and hyphens",
                );
            }
            if let Some(slot) = self.slot(&path, name, slot, &plan) {
                for field in slot.rules.iter().flat_map(Rule::fields) {
                    plan.fields[field].typed |= 1 << at;
                }
                plan.slots.push(slot);
            }
        }
        for name in &rules.ignore {
            if let Some(place) = plan.place(name) {
                plan.fields[place].ignored = true;
            }
        }
        plan
    }

    fn slot(&mut self, path: &str, name: &str, slot: &Slot, plan: &ObjectPlan) -> Option<SlotPlan> {
        let Some(entity) = entity(&slot.entity) else {
            let known = entities().iter().map(|entity| entity.name.as_str());
            self.problem(
                format!("{path}.entity"),
                format!("there is no canonical entity `{}`", slot.entity),
                did_you_mean(&slot.entity, known),
            );
            return None;
        };
        let conditions = self.conditions(path, slot, plan);
        let mut empty_without = Vec::new();
        for field in &slot.empty_without {
            if !self.has(field) {
                self.no_field(format!("{path}.emptyWithout"), field);
            }
            empty_without.extend(plan.place(field));
        }
        let mut rules = Vec::new();
        for (target, rule) in &slot.fields {
            let path = format!("{path}.fields.{target}");
            let Some((index, field)) = entity.field(target) else {
                let known = entity.fields.iter().map(|field| field.name.as_str());
                self.problem(
                    path,
                    format!("the entity {} has no field `{target}`", entity.name),
                    did_you_mean(target, known),
                );
                continue;
            };
            let rule = rule.long();
            if let Some(source) = self.source(&path, entity, field, &rule, plan) {
                let more = self.more(&path, (entity, field), &rule, plan);
                rules.push(Rule {
                    index,
                    source,
                    more,
                });
            }
        }
        rules.sort_by_key(|rule| rule.index);
        keep_what_is_passed_over(&mut rules);
        self.required(path, entity, slot);
        Some(SlotPlan {
            name: name.to_owned(),
            entity,
            conditions,
            empty_without,
            rules,
            custom: slot.custom,
            retired: slot.retired,
        })
    }

    fn conditions(&mut self, path: &str, slot: &Slot, plan: &ObjectPlan) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (field, wanted) in &slot.filter {
            let path = format!("{path}.where.{field}");
            let Some(place) = plan.place(field) else {
                continue;
            };
            let described = self.fields.iter().find(|one| one.name == *field);
            let asked = Asked {
                place,
                name: &format!("{}.{field}", self.name),
                declared: described.map(|one| one.kind.as_str()),
            };
            // A field that isn't there counts as null.
            let condition = Condition::new(asked, wanted);
            let may_lack = condition.as_ref().is_ok_and(Condition::takes_empty);
            if !may_lack && !self.has(field) {
                self.no_field(path.clone(), field);
            }
            match condition {
                Ok(condition) => conditions.push(condition),
                Err(wrong) => wrong.into_iter().for_each(|one| {
                    self.problem(format!("{path}{}", one.below), one.what, one.advice);
                }),
            }
        }
        conditions
    }

    /// A required field without a rule would make every record a dead letter.
    fn required(&mut self, path: &str, entity: &Entity, slot: &Slot) {
        for field in entity.fields.iter().filter(|field| field.required) {
            if !slot.retired && !slot.fields.contains_key(&field.name) {
                self.problem(
                    format!("{path}.fields"),
                    format!("{}.{} is required and has no rule", entity.name, field.name),
                    format!("map a source field to {}", field.name),
                );
            }
        }
    }

    /// Whether the object may have the field.
    fn has(&self, name: &str) -> bool {
        self.template || self.fields.is_empty() || self.fields.iter().any(|f| f.name == name)
    }

    fn no_field(&mut self, path: String, name: &str) {
        let known = self.fields.iter().map(|field| field.name.as_str());
        let advice = did_you_mean(name, known);
        self.problem(
            path,
            format!("the source's object {} shows no field `{name}`", self.name),
            format!("{advice}; or grant the right to see it"),
        );
    }

    fn problem(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.problems.push(Problem::at(path, message, advice));
    }
}

fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "correct the name, or remove it".to_owned(),
    }
}
