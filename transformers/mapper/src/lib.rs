//! The transformer `mapper`: raw records become canonical ones by a mapping
//! that is data. A mapping is compiled once (`compile.rs`) into tables of
//! places (`plan.rs`); a record's JSON is then read once (`body.rs`), each
//! field converted where it lies (`convert.rs`), and written as Avro.

mod body;
mod compile;
mod convert;
mod filter;
mod json;
mod plan;

use std::borrow::Cow;
use std::collections::HashMap;

use drover_pipeline::config::Problem;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::extract::Object;
use drover_pipeline::record::{AbsentReason, Op};
use drover_pipeline::transform::{Mapping, Outputs, Transformer};
use drover_pipeline::{Code, Error, Result};
use drover_schemas::{Custom, Value, encode_custom};

use crate::body::Body;
use crate::convert::{Fault, convert, reference};
use crate::json::compact;
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
                out.upsert(&slot.name, slot.entity, |datum| {
                    self.values(slot, source, &body, &mut faults, datum);
                    self.custom(slot, filled, &body, datum);
                });
            } else if let Some(reason) = slot.absent(&body) {
                out.absent(&slot.name, slot.entity, reason);
            }
        }
        self.error(&faults).map_or(Ok(()), Err)
    }

    /// Writes the typed fields. With a fault the datum is of no use.
    fn values<'p>(
        &'p self,
        slot: &'p SlotPlan,
        source: &str,
        body: &Body<'_>,
        faults: &mut Vec<At<'p>>,
        datum: &mut Vec<u8>,
    ) {
        let mut rules = slot.rules.iter().peekable();
        for (index, field) in slot.entity.fields.iter().enumerate() {
            let Some(rule) = rules.next_if(|rule| rule.index == index) else {
                Value::Null.encode(datum);
                continue;
            };
            let raw = rule.source.field().and_then(|place| body.filled(place));
            let written = match (&rule.source, raw) {
                (Source::Constant(value), _) => {
                    value.encode(datum);
                    Ok(())
                }
                (_, None) if field.required => Err(Fault::new(
                    Code::RequiredMissing,
                    "the field is empty and must be filled",
                )),
                (_, None) => {
                    Value::Null.encode(datum);
                    Ok(())
                }
                (Source::Field(_), Some(raw)) => {
                    convert(raw, field).map(|value| value.encode(datum))
                }
                (Source::Reference { object, slot, .. }, Some(raw)) => {
                    reference(raw, source, object, slot, datum)
                }
            };
            if let Err(fault) = written {
                faults.push(At { slot, rule, fault });
            }
        }
    }

    /// What no rule of a filled slot reads. A field that only an absent slot
    /// would read comes here too: no filled field is lost.
    fn custom(&self, slot: &SlotPlan, filled: SlotSet, body: &Body<'_>, datum: &mut Vec<u8>) {
        if !slot.custom {
            return encode_custom([].iter(), datum);
        }
        let known = body.all_filled().filter_map(|(place, raw)| {
            let field = &self.fields[place];
            (field.typed & filled == 0 && !field.ignored).then(|| Custom {
                name: Cow::Borrowed(field.name.as_str()),
                kind: Cow::Borrowed(field.kind.as_str()),
                json: compact(raw),
            })
        });
        let mut custom: Vec<Custom<'_>> = known.collect();
        if !body.foreign.is_empty() {
            custom.extend(body.foreign.iter().map(|(name, raw)| Custom {
                name: name.clone(),
                kind: Cow::Borrowed("unknown"),
                json: compact(raw),
            }));
            custom.sort_by(|a, b| a.name.cmp(&b.name));
        }
        encode_custom(custom.iter(), datum);
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
