//! Where a transformer writes what it makes of a record: memory that is used
//! again for the next one.

use std::ops::Range;

use drover_schemas::Entity;

use crate::record::{AbsentReason, Canonical, Content, RawKey, Told};

/// What a transformer makes of one record, one output a slot.
#[derive(Debug, Default)]
pub struct Outputs<'t> {
    data: Vec<u8>,
    made: Vec<Made<'t>>,
}

#[derive(Debug)]
struct Made<'t> {
    slot: &'t str,
    entity: &'static Entity,
    content: Result<Range<usize>, AbsentReason>,
    told: Told,
}

/// One output, as it lies in [`Outputs`].
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The slot's name.
    pub slot: &'a str,
    /// The canonical entity.
    pub entity: &'static Entity,
    /// The Avro datum of the entity's schema, or why there is none.
    pub content: Result<&'a [u8], AbsentReason>,
    /// What is worth telling about it.
    pub told: &'a Told,
}

impl<'t> Outputs<'t> {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.made.clear();
    }

    /// The slot has nothing.
    pub fn absent(&mut self, slot: &'t str, entity: &'static Entity, reason: AbsentReason) {
        let content = Err(reason);
        self.made.push(Made {
            slot,
            entity,
            content,
            told: Told::default(),
        });
    }

    /// The slot has a datum, which `write` appends to the bytes that it is given;
    /// it returns what is worth telling about it.
    pub fn upsert(
        &mut self,
        slot: &'t str,
        entity: &'static Entity,
        write: impl FnOnce(&mut Vec<u8>) -> Told,
    ) {
        let start = self.data.len();
        let told = write(&mut self.data);
        let content = Ok(start..self.data.len());
        self.made.push(Made {
            slot,
            entity,
            content,
            told,
        });
    }

    /// The outputs in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = Output<'_>> {
        self.made.iter().map(|made| Output {
            slot: made.slot,
            entity: made.entity,
            content: match &made.content {
                Ok(range) => Ok(&self.data[range.clone()]),
                Err(reason) => Err(*reason),
            },
            told: &made.told,
        })
    }

    /// The same as owned records of that raw key.
    pub fn to_canonical(&self, key: &RawKey) -> Vec<Canonical> {
        let outputs = self.iter().map(|output| Canonical {
            key: key.slot(output.slot),
            entity: output.entity.name.clone(),
            content: match output.content {
                Ok(datum) => Content::Upsert {
                    schema: output.entity.schema.clone(),
                    datum: datum.to_vec(),
                },
                Err(reason) => Content::Absent(reason),
            },
            told: output.told.clone(),
        });
        outputs.collect()
    }
}
