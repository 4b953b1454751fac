//! The transformer `mapper`: raw records become canonical ones by a mapping
//! that is data. A mapping is compiled once (`compile.rs`) into tables of
//! places (`plan.rs`); a record's JSON is then read once (`body.rs`), each
//! field converted where it lies (`convert.rs`), and written as Avro.

mod body;
mod compile;
mod convert;
mod filter;
mod form;
mod json;
mod plan;
mod prefix;
mod value;

use std::borrow::Cow;
use std::collections::HashMap;

use drover_pipeline::config::Problem;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::extract::Object;
use drover_pipeline::record::{AbsentReason, Op, Told};
use drover_pipeline::transform::{Mapping, Outputs, Transformer};
use drover_pipeline::{Code, Error, Result};
use drover_schemas::{Custom, Datum, Value};

use crate::body::Body;
use crate::convert::{Fault, any_reference, reference};
use crate::json::{compact, list};
use crate::plan::{ObjectPlan, Rule, SlotPlan, SlotSet, Source};

/// How many further problems of a record its error names.
const NAMED: usize = 5;

/// A compiled mapping.
#[derive(Debug)]
pub struct Mapper {
    objects: HashMap<String, ObjectPlan>,
}

impl Transformer for Mapper {
    const NAME: &'static str = "mapper";

    fn new(mapping: &Mapping, objects: &[Object]) -> Result<Self, Vec<Problem>> {
        compile::compile(mapping, objects).map(|objects| Mapper { objects })
    }

    /// Writes the canonical records of a raw one, one a slot.
    ///
    /// A record of an object that has no mapping is [`Code::Invariant`], not a
    /// dead letter: the plan lists only objects that have one, so something is
    /// wrong with Drover and not with the record. Every other error is of class
    /// Record.
    fn write<'t>(&'t self, record: &Envelope<'_>, out: &mut Outputs<'t>) -> Result<()> {
        let plan = self.objects.get(record.object).ok_or_else(|| {
            let message = format!(
                "a record of {}, which the mapping doesn't have",
                record.object
            );
            Error::new(Code::Invariant, message).at(key(record))
        })?;
        match (record.op, record.body) {
            (Op::Delete, _) => {
                for slot in &plan.slots {
                    out.absent(&slot.name, slot.entity, AbsentReason::Deleted);
                }
                Ok(())
            }
            (Op::Upsert, Some(bytes)) => plan.write(record.source, bytes, out),
            (Op::Upsert, None) => {
                Err(Error::new(Code::InvalidBody, "the record has no body").at(record.object))
            }
            (Op::Absent, _) => {
                Err(Error::new(Code::Invariant, "a raw record can't be ABSENT").at(key(record)))
            }
        }
    }
}

fn key(record: &Envelope<'_>) -> String {
    format!("{}/{}/{}", record.source, record.object, record.id)
}

impl ObjectPlan {
    fn write<'p>(&'p self, source: &str, bytes: &[u8], out: &mut Outputs<'p>) -> Result<()> {
        let body = Body::read(self, bytes)?;
        let filled = self
            .slots
            .iter()
            .enumerate()
            .fold(0, |set: SlotSet, (at, slot)| {
                set | (SlotSet::from(slot.absent(&body).is_none()) << at)
            });
        let mut faults = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            if filled & (1 << at) != 0 {
                out.upsert(&slot.name, slot.entity, |bytes| {
                    let mut told = Told::default();
                    let mut unread = Vec::new();
                    let values =
                        self.values(slot, source, &body, &mut unread, &mut told, &mut faults);
                    let custom = self.custom(slot, filled, &unread, &body);
                    told.custom = custom.len();
                    Datum { values, custom }.encode(bytes);
                    told
                });
            } else if let Some(reason) = slot.absent(&body) {
                out.absent(&slot.name, slot.entity, reason);
            }
        }
        self.error(&faults).map_or(Ok(()), Err)
    }

    /// The values of a slot. `unread` are filled fields that a rule passed over.
    fn values<'a, 'p: 'a>(
        &'p self,
        slot: &'p SlotPlan,
        source: &str,
        body: &Body<'a>,
        unread: &mut Vec<usize>,
        told: &mut Told,
        faults: &mut Vec<At<'p>>,
    ) -> Vec<Value<'a>> {
        let mut values = vec![Value::Null; slot.entity.fields.len()];
        for rule in &slot.rules {
            let field = &slot.entity.fields[rule.index];
            let read = rule.read(body, unread);
            let value = match (&rule.source, read) {
                (Source::Constant(value), _) => Ok(borrowed(value)),
                (Source::Reference { .. } | Source::Any { .. }, None) => continue,
                (_, None) => match rule.default() {
                    Some(value) => Ok(borrowed(value)),
                    None if field.required => Err(Fault::new(
                        Code::RequiredMissing,
                        "the field is empty and must be filled",
                    )),
                    None => continue,
                },
                (Source::Field(_), Some((place, raw))) => {
                    let name = &self.fields[place].name;
                    rule.convert(raw, field, name, body, &mut told.remarks)
                }
                (
                    Source::Reference {
                        object,
                        slot,
                        beside,
                        ..
                    },
                    Some((_, raw)),
                ) => {
                    if let Some((place, entity)) = beside {
                        values[*place] = Value::String(Cow::Borrowed(entity));
                    }
                    reference(raw, source, object, slot).map(|key| Value::Reference(key.into()))
                }
                (Source::Any { known, beside, .. }, Some((place, raw))) => {
                    match any_reference(raw, source, known) {
                        Ok(Some((key, owner))) => {
                            if let (Some(at), Some(entity)) = (beside, &owner.entity) {
                                values[*at] = Value::String(Cow::Borrowed(entity));
                            }
                            Ok(Value::Reference(key.into()))
                        }
                        Ok(None) => {
                            unread.push(place);
                            continue;
                        }
                        Err(fault) => Err(fault),
                    }
                }
            };
            match value {
                Ok(value) => values[rule.index] = value,
                Err(fault) => faults.push(At { slot, rule, fault }),
            }
        }
        values
    }

    /// What no rule of a filled slot reads, and what this one's rules passed
    /// over. A field that only an absent slot would read comes here too: no
    /// filled field is lost.
    fn custom<'a, 'p: 'a>(
        &'p self,
        slot: &SlotPlan,
        filled: SlotSet,
        unread: &[usize],
        body: &Body<'a>,
    ) -> Vec<Custom<'a>> {
        if !slot.custom {
            return Vec::new();
        }
        let known = body.all_filled().filter_map(|(place, raw)| {
            let field = &self.fields[place];
            let free = field.typed & filled == 0 || unread.contains(&place);
            (free && !field.ignored).then(|| Custom {
                name: Cow::Borrowed(field.name.as_str()),
                kind: Cow::Borrowed(field.kind.as_str()),
                json: match field.separator {
                    Some(separator) => list(raw, separator),
                    None => compact(raw),
                },
            })
        });
        let mut custom: Vec<Custom<'a>> = known.collect();
        if !body.foreign.is_empty() {
            custom.extend(body.foreign.iter().map(|(name, raw)| Custom {
                name: name.clone(),
                kind: Cow::Borrowed("unknown"),
                json: compact(raw),
            }));
            custom.sort_by(|a, b| a.name.cmp(&b.name));
        }
        custom
    }

    /// All problems of a record as one error: the first one decides the code.
    fn error(&self, faults: &[At<'_>]) -> Option<Error> {
        let (first, more) = faults.split_first()?;
        let mut message = first.fault.message.clone();
        if !more.is_empty() {
            message.push_str(&format!("; and {} more:", more.len()));
            for (at, one) in more.iter().take(NAMED).enumerate() {
                let comma = if at == 0 { "" } else { "," };
                message.push_str(&format!(
                    "{comma} {} at {}",
                    one.fault.code,
                    one.place(self)
                ));
            }
            if more.len() > NAMED {
                message.push_str(", …");
            }
        }
        Some(Error::new(first.fault.code, message).at(first.place(self)))
    }
}

impl SlotPlan {
    /// Why the slot has nothing, if it has nothing.
    fn absent(&self, body: &Body<'_>) -> Option<AbsentReason> {
        if self.retired {
            return Some(AbsentReason::SlotEmpty);
        }
        let meets = |condition: &filter::Condition| condition.holds(body.filled(condition.field));
        if !self.conditions.iter().all(meets) {
            return Some(AbsentReason::Filtered);
        }
        let is_empty = |place: &usize| body.filled(*place).is_none();
        let empty = !self.empty_without.is_empty() && self.empty_without.iter().all(is_empty);
        empty.then_some(AbsentReason::SlotEmpty)
    }
}

/// A fault and the rule that met it.
struct At<'p> {
    slot: &'p SlotPlan,
    rule: &'p Rule,
    fault: Fault,
}

impl At<'_> {
    /// `Contact.Email -> contact.email`
    fn place(&self, plan: &ObjectPlan) -> String {
        let from = match self.rule.source.field() {
            Some(place) => format!("{}.{}", plan.name, plan.fields[place].name),
            None => plan.name.clone(),
        };
        let entity = self.slot.entity;
        format!(
            "{from} -> {}.{}",
            entity.name, entity.fields[self.rule.index].name
        )
    }
}

fn borrowed<'v>(value: &'v Value<'static>) -> Value<'v> {
    match value {
        Value::String(text) => Value::String(Cow::Borrowed(text)),
        Value::Decimal(text) => Value::Decimal(Cow::Borrowed(text)),
        // No other kind lies on the heap: a constant is never a reference.
        other => other.clone(),
    }
}
