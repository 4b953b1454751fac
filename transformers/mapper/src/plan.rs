//! A mapping after compiling: names have become places in tables, so that a
//! record is read once and nothing is looked up by name but its own fields.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use drover_pipeline::transform::Form;
use drover_schemas::{Entity, Value};

use crate::filter::Condition;
use crate::prefix::Prefixes;

/// The most slots an object may have: they are bits of a [`SlotSet`].
pub const MAX_SLOTS: usize = 64;

/// A set of an object's slots, one bit each.
pub type SlotSet = u64;

/// One object of the source.
#[derive(Debug)]
pub struct ObjectPlan {
    /// The API name.
    pub name: String,
    /// Every field that is described or mapped, sorted by name, which is also
    /// the order of `custom`.
    pub fields: Vec<SourceField>,
    /// Where a field stands in `fields`.
    by_name: HashMap<String, usize>,
    /// Its slots, sorted by name.
    pub slots: Vec<SlotPlan>,
}

/// A field of the source.
#[derive(Debug)]
pub struct SourceField {
    /// The API name.
    pub name: String,
    /// The type that the source declares, or `unknown`.
    pub kind: String,
    /// Where the field stands that the source names behind this one: a record
    /// mostly comes in that order, and a guess costs less than a look-up.
    next: usize,
    /// The slots whose rules read it.
    pub typed: SlotSet,
    /// Whether it stays out of `custom`.
    pub ignored: bool,
    /// What stands between several values in one text: in `custom` they are a
    /// list.
    pub separator: Option<char>,
}

/// One canonical output of an object.
#[derive(Debug)]
pub struct SlotPlan {
    /// The slot's name.
    pub name: String,
    /// What it yields.
    pub entity: &'static Entity,
    /// All must hold, or the slot is filtered.
    pub conditions: Vec<Condition>,
    /// One of these fields must be filled, or the slot is empty.
    pub empty_without: Vec<usize>,
    /// One rule a mapped field of the entity, in the entity's order.
    pub rules: Vec<Rule>,
    /// Whether what no rule reads goes to `custom`.
    pub custom: bool,
    /// Whether it never has anything.
    pub retired: bool,
}

/// How one field of the entity gets its value.
#[derive(Debug)]
pub struct Rule {
    /// The field's place in the entity.
    pub index: usize,
    /// Where the value comes from.
    pub source: Source,
    /// What few rules have.
    pub more: Option<Box<More>>,
}

/// What a rule says beside its source field.
#[derive(Debug, Default)]
pub struct More {
    /// Further source fields: the first filled one counts. With each, whether no
    /// other rule of the slot reads it, so that it goes to `custom` when it
    /// is passed over.
    pub or: Vec<(usize, bool)>,
    /// The value of an empty field.
    pub default: Option<Value<'static>>,
    /// What stands for each value; `None` empties the field.
    pub values: HashMap<String, Option<String>>,
    /// The values that the source lists for the field: only these may be told.
    pub listed: HashSet<String>,
    /// What stands between several values in one text.
    pub separator: Option<char>,
    /// The form that a text is brought into.
    pub form: Option<Form>,
    /// The country of a telephone number that names none.
    pub region: Option<String>,
    /// The field that names it.
    pub region_from: Option<usize>,
}

/// Where a value comes from.
#[derive(Debug)]
pub enum Source {
    /// A constant, converted already.
    Constant(Value<'static>),
    /// A field's place in [`ObjectPlan::fields`].
    Field(usize),
    /// The same, holding the id of a record of that object and slot.
    Reference {
        /// The field's place.
        field: usize,
        /// The object that the id belongs to.
        object: String,
        /// The slot of that object.
        slot: String,
        /// Which field of the entity says what the reference points to, and what
        /// it says.
        beside: Option<(usize, String)>,
    },
    /// The same, of whatever object the id tells.
    Any {
        /// The field's place.
        field: usize,
        /// The objects by their ids.
        known: Arc<Prefixes>,
        /// Which field of the entity says what the reference points to.
        beside: Option<usize>,
    },
}

impl Rule {
    /// The places of all source fields that it may take its value from.
    pub fn fields(&self) -> impl Iterator<Item = usize> {
        let or = self.more.iter().flat_map(|more| &more.or);
        let first = self.source.field().into_iter();
        first.chain(or.map(|(field, _)| *field))
    }
}

impl Source {
    /// The place of the source field, if one is read.
    pub fn field(&self) -> Option<usize> {
        match self {
            Source::Constant(_) => None,
            Source::Field(field) | Source::Reference { field, .. } | Source::Any { field, .. } => {
                Some(*field)
            }
        }
    }
}

impl ObjectPlan {
    /// A plan without slots. `fields` come in the source's order, as name and
    /// type; a name that comes again is passed over.
    pub fn new<'a>(name: &str, fields: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut order: Vec<&str> = Vec::new();
        let mut kinds = std::collections::BTreeMap::new();
        for (name, kind) in fields {
            if let std::collections::btree_map::Entry::Vacant(free) = kinds.entry(name) {
                free.insert(kind);
                order.push(name);
            }
        }
        let by_name: HashMap<String, usize> = kinds
            .keys()
            .enumerate()
            .map(|(at, name)| ((*name).to_owned(), at))
            .collect();
        let mut fields: Vec<SourceField> = kinds
            .iter()
            .map(|(name, kind)| SourceField {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                next: 0,
                typed: 0,
                ignored: false,
                separator: None,
            })
            .collect();
        for pair in order.windows(2) {
            fields[by_name[pair[0]]].next = by_name[pair[1]];
        }
        ObjectPlan {
            name: name.to_owned(),
            fields,
            by_name,
            slots: Vec::new(),
        }
    }

    /// Where a field stands, if it is known.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The same, for a field that comes behind the one at `last`.
    pub fn place_behind(&self, last: usize, name: &str) -> Option<usize> {
        let guess = self.fields.get(last).map_or(0, |field| field.next);
        match self.fields.get(guess) {
            Some(field) if field.name == name => Some(guess),
            _ => self.place(name),
        }
    }
}
