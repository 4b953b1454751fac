//! A migration's own mappings on top of its connector's.

use std::collections::{BTreeMap, BTreeSet};

use drover_schemas::{Kind, entity};

use super::kinds::{declared_as, needs_a_form, value_fits};
use super::{ANY, Convert, FieldRule, Mapping, ObjectMapping, Slot, can_fill, holds};
use crate::config::{Mappings, Problem, WHERE, nearest};
use crate::extract::{Object, SourceField};

/// Puts the migration's mappings on top of the connector's mapping.
///
/// - `{"Phone": "phoneNumber"}` applies to every object that has the source
///   field and a slot whose entity has the canonical one; there must be one at
///   least. `{"Contact": {"Phone": "phoneNumber"}}` applies to that object, and
///   for it wins over the first form.
/// - Where several slots of an object have the canonical field, those that read
///   the source field already are meant, else all of them.
/// - A rule of the connector for a field that this customer's source does not
///   show (another edition, no permission) is left out, unless the entity
///   requires the field: then the transformer names it as a problem.
/// - A reference to an object that this migration does not take is left out too.
/// - In such a slot the source field *moves*: its former rule goes, and so does
///   the canonical field's former rule, whose source field falls to `custom`.
///   A reference keeps what it points to.
///
/// A source field whose declared type can never become what the canonical field
/// holds is refused, and so is a plain text for a date or a reference, and an
/// enumeration for a number of which none of its values is one.
///
/// `objects` are those to migrate, as the source describes them; what isn't
/// described (no fields, or no objects at all) is judged by the connector's
/// mapping alone, and a name that this does not hold is no problem: the source
/// may show it. Paths in problems are those of the migration's document.
pub fn merge(
    connector: &Mapping,
    migration: &Mappings,
    objects: &[Object],
) -> Result<Mapping, Vec<Problem>> {
    match merge_all(connector, migration, objects) {
        (merged, problems) if problems.is_empty() => Ok(merged),
        (_, problems) => Err(problems),
    }
}

/// The same as far as it goes, and every problem: what is wrong with one rule need
/// not hide what the transformer finds wrong with another.
pub fn merge_all(
    connector: &Mapping,
    migration: &Mappings,
    objects: &[Object],
) -> (Mapping, Vec<Problem>) {
    let targets = Target::all(connector, objects);
    let mut merger = Merger {
        connector,
        migration,
        targets: &targets,
        asked: !objects.is_empty(),
        customs: connector.custom_objects.is_some(),
        used: BTreeSet::new(),
        problems: Vec::new(),
    };
    let mut merged = connector.clone();
    for target in &targets {
        if let Some(rules) = merger.object(target) {
            merged.objects.insert(target.name.to_owned(), rules);
        }
    }
    merger.unused();
    for target in &targets {
        if let Some(rules) = merged.objects.get_mut(target.name) {
            drop_hidden(rules, target);
        }
    }
    if !objects.is_empty() {
        let all = merged
            .objects
            .values_mut()
            .chain(&mut merged.custom_objects);
        all.for_each(|rules| drop_dangling(rules, objects));
    }
    (merged, merger.problems)
}

/// Leaves out rules for fields that the described object does not have.
fn drop_hidden(rules: &mut ObjectMapping, target: &Target<'_>) {
    if target.described.is_none() {
        return;
    }
    for slot in rules.slots.values_mut() {
        let Some(entity) = entity(&slot.entity) else {
            continue;
        };
        slot.fields.retain(|canonical, rule| {
            let required = entity
                .field(canonical)
                .is_some_and(|(_, field)| field.required);
            let mut long = rule.long();
            let Some(first) = &long.from else {
                return true;
            };
            if target.has(first) && long.or.is_empty() && long.region_from.is_none() {
                return true;
            }
            let all = std::iter::once(first).chain(&long.or);
            let mut shown: Vec<String> = all.filter(|name| target.has(name)).cloned().collect();
            if shown.is_empty() {
                return required;
            }
            long.from = Some(shown.remove(0));
            long.or = shown;
            long.region_from = long.region_from.filter(|name| target.has(name));
            *rule = FieldRule::Rule(long);
            true
        });
    }
}

/// Leaves out references to objects that this migration does not take: the ids
/// stay in `custom`, and no record waits for what never comes.
fn drop_dangling(rules: &mut ObjectMapping, objects: &[Object]) {
    for slot in rules.slots.values_mut() {
        slot.fields.retain(|_, rule| {
            let long = rule.long();
            let fixed = long.points_to().filter(|(object, _)| *object != ANY);
            fixed.is_none_or(|(name, _)| objects.iter().any(|object| object.name == name))
        });
    }
}

/// An object that mappings may apply to.
struct Target<'a> {
    name: &'a str,
    rules: &'a ObjectMapping,
    /// Its fields, if the source has described them.
    described: Option<&'a Object>,
    /// Whether the rules are those of all custom objects.
    template: bool,
}

impl<'a> Target<'a> {
    fn all(connector: &'a Mapping, objects: &'a [Object]) -> Vec<Target<'a>> {
        if objects.is_empty() {
            let all = connector.objects.iter().map(|(name, rules)| Target {
                name,
                rules,
                described: None,
                template: false,
            });
            return all.collect();
        }
        let covered = objects.iter().filter_map(|object| {
            Some(Target {
                name: &object.name,
                rules: connector.of(object)?,
                described: Some(object).filter(|object| !object.fields.is_empty()),
                template: !connector.objects.contains_key(&object.name),
            })
        });
        covered.collect()
    }

    /// The source's fields, or as many as the connector's mapping names.
    fn sources(&self) -> BTreeSet<&'a str> {
        if let Some(object) = self.described {
            return object.fields.iter().map(|f| f.name.as_str()).collect();
        }
        let slots = self.rules.slots.values();
        let named = slots.flat_map(|slot| {
            let read = slot.fields.values().flat_map(FieldRule::source_fields);
            let asked = slot.filter.keys().chain(&slot.empty_without);
            read.chain(asked.map(String::as_str))
        });
        named
            .chain(self.rules.ignore.iter().map(String::as_str))
            .collect()
    }

    fn described(&self, source: &str) -> Option<&'a SourceField> {
        let fields = &self.described?.fields;
        fields.iter().find(|field| field.name == source)
    }

    /// How the source declares a field; where it was not asked, what the
    /// connector's own rule makes of it.
    fn declared(&self, source: &str) -> Option<&'a str> {
        if self.described.is_some() {
            return self.described(source).map(|field| field.kind.as_str());
        }
        self.rules.slots.values().find_map(|slot| {
            let (name, _) = slot
                .fields
                .iter()
                .find(|(_, rule)| rule.source_field() == Some(source))?;
            let (_, field) = entity(&slot.entity)?.field(name)?;
            Some(declared_as(field.kind))
        })
    }

    fn has(&self, source: &str) -> bool {
        match self.described {
            Some(object) => object.fields.iter().any(|field| field.name == source),
            None => self.sources().contains(source),
        }
    }

    /// Whether a mapping names the canonical field first and the source's after it.
    fn is_reversed(&self, source: &str, canonical: &str) -> bool {
        let works =
            |source, canonical| self.has(source) && !self.slots(source, canonical).is_empty();
        !self.has(source) && self.slots(source, canonical).is_empty() && works(canonical, source)
    }

    /// The slots that a mapping applies to.
    fn slots(&self, source: &str, canonical: &str) -> Vec<&'a str> {
        let fitting = self.rules.slots.iter().filter(|(_, slot)| {
            entity(&slot.entity).is_some_and(|entity| entity.field(canonical).is_some())
        });
        let (reading, others): (Vec<_>, Vec<_>) =
            fitting.partition(|(_, slot)| reads(slot, source));
        let chosen = if reading.is_empty() { others } else { reading };
        chosen.into_iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn reads(slot: &Slot, source: &str) -> bool {
    slot.fields
        .values()
        .any(|rule| rule.source_field() == Some(source))
}

/// A mapping in one slot.
struct Move<'a> {
    source: &'a str,
    canonical: &'a str,
    path: String,
}

struct Merger<'a> {
    connector: &'a Mapping,
    migration: &'a Mappings,
    targets: &'a [Target<'a>],
    /// Whether the source has named its objects.
    asked: bool,
    /// Whether there are rules for objects that the connector does not list.
    customs: bool,
    /// Mappings of the flat form that applied somewhere.
    used: BTreeSet<&'a str>,
    problems: Vec<Problem>,
}

impl<'a> Merger<'a> {
    /// The object's new rules, if a mapping applies to it.
    fn object(&mut self, target: &Target<'a>) -> Option<ObjectMapping> {
        let mut moves: BTreeMap<&str, Vec<Move<'a>>> = BTreeMap::new();
        let own = self.migration.by_object.get(target.name);
        for (source, canonical) in own.into_iter().flatten() {
            let path = format!("mappings.{}.{source}", target.name);
            if target.is_reversed(source, canonical) {
                let message = format!("{} has no field `{source}`", target.name);
                self.problem(&path, message, reversed(source, canonical));
                continue;
            }
            if target.described.is_some() && !target.has(source) {
                let message = format!("{} shows no field `{source}`", target.name);
                self.problem(&path, message, did_you_mean(source, target.sources()));
            }
            self.also_read(target, source, &path);
            let slots = target.slots(source, canonical);
            if slots.is_empty() {
                let known = fields_of(target);
                let entities: BTreeSet<_> =
                    target.rules.slots.values().map(|s| &*s.entity).collect();
                let entities: Vec<_> = entities.into_iter().collect();
                let message = format!("{} has no field `{canonical}`", entities.join(" or "));
                self.problem(&path, message, did_you_mean(canonical, known));
            }
            for slot in slots {
                self.add(
                    &mut moves,
                    target,
                    slot,
                    Move {
                        source,
                        canonical,
                        path: path.clone(),
                    },
                );
            }
        }
        for (source, canonical) in &self.migration.everywhere {
            if own.is_some_and(|own| own.contains_key(source)) {
                self.used.insert(source);
                continue;
            }
            if !target.has(source) {
                continue;
            }
            for slot in target.slots(source, canonical) {
                self.used.insert(source);
                let path = format!("mappings.{source}");
                self.add(
                    &mut moves,
                    target,
                    slot,
                    Move {
                        source,
                        canonical,
                        path,
                    },
                );
            }
        }
        let filter = self.migration.filters.get(target.name);
        if moves.is_empty() && filter.is_none() {
            return None;
        }
        let mut rules = target.rules.clone();
        if target.template {
            lenient(&mut rules);
        }
        for (name, moves) in moves {
            if let Some(slot) = rules.slots.get_mut(name) {
                self.apply(target.name, slot, &moves);
            }
        }
        for (field, wanted) in filter.into_iter().flatten() {
            if target.described.is_some() && !target.has(field) {
                let path = format!("mappings.{}.{WHERE}.{field}", target.name);
                let message = format!("{} shows no field `{field}`", target.name);
                self.problem(&path, message, did_you_mean(field, target.sources()));
            }
            for slot in rules.slots.values_mut() {
                slot.filter.insert(field.clone(), wanted.clone());
            }
        }
        Some(rules)
    }

    /// What a rule of the migration reads beside its field must be there, too: a
    /// rule of the connector may name what an edition does not show, a person's
    /// has a typo in it.
    fn also_read(&mut self, target: &Target<'_>, source: &str, path: &str) {
        let own = self.migration.rules.get(target.name);
        let Some(rule) = own.and_then(|own| own.get(source)) else {
            return;
        };
        let beside = rule.region_from.iter().map(|name| (name, "regionFrom"));
        for (name, what) in beside.chain(rule.or.iter().map(|name| (name, "or"))) {
            if target.described.is_some() && !target.has(name) {
                let message = format!("{} shows no field `{name}`", target.name);
                let advice = did_you_mean(name, target.sources());
                self.problem(&format!("{path}.{what}"), message, advice);
            }
        }
    }

    /// Notes a mapping of a slot, unless another one fills the same field.
    fn add<'s>(
        &mut self,
        moves: &mut BTreeMap<&'s str, Vec<Move<'a>>>,
        target: &Target<'_>,
        slot: &'s str,
        new: Move<'a>,
    ) {
        let moves = moves.entry(slot).or_default();
        if let Some(first) = moves.iter().find(|one| one.canonical == new.canonical) {
            let message = format!(
                "`{}` and `{}` both fill `{}`",
                first.path, new.path, new.canonical
            );
            let advice = "keep one of them, or map the other one elsewhere";
            self.problem(&new.path, message, advice);
            return;
        }
        self.fits(target, slot, &new);
        moves.push(new);
    }

    /// Whether the source field can ever give what the canonical field holds.
    fn fits(&mut self, target: &Target<'_>, slot: &str, new: &Move<'_>) {
        let slot = &target.rules.slots[slot];
        let former = slot.fields.get(new.canonical).map(FieldRule::long);
        if former
            .as_ref()
            .is_some_and(|rule| rule.from.as_deref() == Some(new.source))
        {
            // The connector's own rule once more.
            return;
        }
        let own = self.migration.rules.get(target.name);
        let own = own.and_then(|own| own.get(new.source));
        if own.is_some_and(|rule| !rule.values.is_empty()) {
            // A map of values makes of it what is due.
            return;
        }
        let entity = entity(&slot.entity);
        let field = entity.and_then(|entity| Some((entity, entity.field(new.canonical)?.1)));
        let (Some((entity, field)), Some(declared)) = (field, target.declared(new.source)) else {
            return;
        };
        let (object, source) = (target.name, new.source);
        let filled = format!("{}.{}", slot.entity, field.name);
        let due = holds(entity, field);
        if !can_fill(declared, entity, field) {
            let message =
                format!("{object}.{source} is declared as {declared}, and {filled} is {due}");
            let advice = "map it to another field, or leave it to `custom`";
            self.problem(&new.path, message, advice);
        } else if needs_a_form(declared, field.kind) {
            let message = format!(
                "{object}.{source} is declared as {declared}, which promises no such form, \
                 and {filled} is {due}"
            );
            let advice = match field.kind {
                Kind::Reference => "map a field that the source declares as a reference",
                Kind::Date => "map a field that the source declares as a date",
                _ => "map a field that the source declares as a date with time",
            };
            self.problem(
                &new.path,
                message,
                format!("{advice}, or leave {source} to `custom`"),
            );
        } else if let Some(described) = target.described(source)
            && let Some(first) = described.values.first()
            && !described
                .values
                .iter()
                .any(|value| value_fits(value, field.kind))
        {
            let message = format!(
                "none of the values that the source lists for {object}.{source} (`{first}`, …) fits \
                 {filled}, which is {due}"
            );
            let advice = format!(
                "say by `values` what stands for them, map another field, or leave {source} to `custom`"
            );
            self.problem(&new.path, message, advice);
        } else if let Some((due, _)) = former.as_ref().and_then(Convert::points_to)
            && let Some(described) = target.described(new.source)
            && !described.references.is_empty()
            && !described.references.iter().any(|one| one == due)
        {
            let points_to = described.references.join(", ");
            let message = format!(
                "{object}.{source} points to {points_to}, and {filled} takes references to {due}"
            );
            self.problem(
                &new.path,
                message,
                format!("map a field that points to {due}, or leave {source} to `custom`"),
            );
        }
    }

    fn apply(&mut self, object: &str, slot: &mut Slot, moves: &[Move<'_>]) {
        let own = self.migration.rules.get(object);
        let former = slot.fields.clone();
        let moved = |rule: &FieldRule| {
            let source = rule.source_field();
            moves.iter().any(|one| source == Some(one.source))
        };
        slot.fields.retain(|_, rule| !moved(rule));
        for one in moves {
            let rule = match former.get(one.canonical).map(FieldRule::long) {
                Some(rule) if rule.from.as_deref() == Some(one.source) => {
                    former[one.canonical].clone()
                }
                Some(rule) if rule.reference.is_some() => FieldRule::Rule(Convert {
                    from: Some(one.source.to_owned()),
                    constant: None,
                    optional: false,
                    ..rule
                }),
                _ => FieldRule::From(one.source.to_owned()),
            };
            let rule = match own.and_then(|own| own.get(one.source)) {
                Some(own) => {
                    let former = rule.long();
                    FieldRule::Rule(Convert {
                        from: Some(one.source.to_owned()),
                        reference: former.reference,
                        required: former.required,
                        on_orphan: own.on_orphan.or(former.on_orphan),
                        ..own.clone()
                    })
                }
                None => rule,
            };
            slot.fields.insert(one.canonical.to_owned(), rule);
        }
        let Some(entity) = entity(&slot.entity) else {
            return;
        };
        for field in &entity.fields {
            let name = format!("{}.{}", entity.name, field.name);
            let filler = moves.iter().find(|one| one.canonical == field.name);
            if let Some(filler) = filler
                && field.kind == Kind::Reference
                && slot.fields[&field.name].long().reference.is_none()
            {
                let message = format!("{name} is a reference, and it isn't known to which object");
                self.problem(&filler.path, message, "leave it to the connector's mapping");
            }
            let Some(rule) = former.get(&field.name).filter(|_| field.required) else {
                continue;
            };
            let mover = moves
                .iter()
                .find(|one| rule.source_field() == Some(one.source));
            if let Some(mover) = mover.filter(|_| !slot.fields.contains_key(&field.name)) {
                let message = format!(
                    "takes {} away from {name}, which must be filled",
                    mover.source
                );
                self.problem(
                    &mover.path,
                    message,
                    format!("map another source field to {}", field.name),
                );
            }
        }
    }

    /// Mappings that applied nowhere.
    fn unused(&mut self) {
        let migration = self.migration;
        for (name, rules) in &migration.by_object {
            let may_be = !self.asked && self.customs;
            let known = self.targets.iter().any(|target| target.name == name);
            // A rule that can't be read says something, too.
            let says = !rules.is_empty()
                || migration.filters.contains_key(name)
                || migration.rules.contains_key(name);
            if !known && !may_be && says {
                let known = self.targets.iter().map(|target| target.name);
                let is_field = self.targets.iter().any(|target| target.has(name));
                let advice = match rules.get("to").filter(|_| is_field) {
                    Some(to) => format!(
                        "a rule stands under the object it is for: `OBJECT: {{ {name}: {to} }}`"
                    ),
                    None if self.connector.objects.contains_key(name) => {
                        "add it to `objects`, where the file has that list, or remove its mapping"
                            .to_owned()
                    }
                    None => did_you_mean(name, known),
                };
                let message = format!("`{name}` is no object of this migration");
                self.problem(&format!("mappings.{name}"), message, advice);
            }
        }
        for (source, canonical) in &migration.everywhere {
            if self.used.contains(source.as_str()) {
                continue;
            }
            let path = format!("mappings.{source}");
            if self
                .targets
                .iter()
                .any(|target| target.is_reversed(source, canonical))
            {
                let message = format!("no object of this migration shows a field `{source}`");
                self.problem(&path, message, reversed(source, canonical));
                continue;
            }
            let having: Vec<_> = self.targets.iter().filter(|t| t.has(source)).collect();
            let fields: BTreeSet<&str> = self.targets.iter().flat_map(fields_of).collect();
            if having.is_empty() && self.asked {
                let known: BTreeSet<_> = self.targets.iter().flat_map(Target::sources).collect();
                let message = format!("no object of this migration shows a field `{source}`");
                self.problem(&path, message, did_you_mean(source, known));
            }
            if !fields.contains(canonical.as_str()) {
                let message = format!("no entity of this migration has a field `{canonical}`");
                self.problem(&path, message, did_you_mean(canonical, fields));
            } else if !having.is_empty() {
                let names: Vec<_> = having.iter().map(|target| target.name).collect();
                let known: BTreeSet<&str> = having.iter().flat_map(|t| fields_of(t)).collect();
                let message = format!(
                    "the objects with a field `{source}` ({}) give no entity with a field `{canonical}`",
                    names.join(", ")
                );
                self.problem(&path, message, did_you_mean(canonical, known));
            }
        }
    }

    fn problem(&mut self, path: &str, message: impl Into<String>, advice: impl Into<String>) {
        let problem = Problem::at(path, message, advice);
        // The same mapping may fail in the same way in many objects.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

fn reversed(source: &str, canonical: &str) -> String {
    format!("reversed? the source's field comes first: write `{canonical}: {source}`")
}

/// Every canonical field of an object's entities.
fn fields_of(target: &Target<'_>) -> BTreeSet<&'static str> {
    let entities = target
        .rules
        .slots
        .values()
        .filter_map(|slot| entity(&slot.entity));
    entities
        .flat_map(|entity| entity.fields.iter().map(|field| field.name.as_str()))
        .collect()
}

/// Custom objects share rules and differ in fields; a copy for one of them must
/// not ask for fields that it doesn't have.
fn lenient(rules: &mut ObjectMapping) {
    for slot in rules.slots.values_mut() {
        for rule in slot.fields.values_mut() {
            let mut long = rule.long();
            long.optional = long.from.is_some();
            *rule = FieldRule::Rule(long);
        }
    }
}

fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "correct the name, or remove it".to_owned(),
    }
}
