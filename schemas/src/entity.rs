//! The canonical entities, read from the schemas themselves, so that schema
//! and code can't disagree.

use std::sync::LazyLock;

use serde::Deserialize;

/// A canonical entity: `contact`, `deal`, …
#[derive(Debug)]
pub struct Entity {
    /// The entity's name, which is also its topic's and its table's.
    pub name: String,
    /// The schema's name, as in an envelope's `body_schema`: `contact.v1`.
    pub schema: String,
    /// What it is, for documents.
    pub doc: String,
    /// Its typed fields, in the schema's order. `custom` is not among them.
    pub fields: Vec<Field>,
}

impl Entity {
    /// The field of that name, with its place among the fields.
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields
            .iter()
            .enumerate()
            .find(|(_, field)| field.name == name)
    }
}

/// A typed field of an entity. All are nullable in the schema.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The field's name, camelCase: `phoneNumber`.
    pub name: String,
    /// What it is, for documents.
    pub doc: String,
    /// Its type.
    pub kind: Kind,
    /// Whether a record without it is a dead letter.
    #[serde(default)]
    pub required: bool,
    /// The most characters (Unicode scalar values) it may have.
    pub max_length: Option<usize>,
    /// A shape the text must have.
    pub format: Option<Format>,
    /// What the text is, where a mapping can bring it into one form. Nothing of it
    /// is checked: people write telephone numbers and countries as they like.
    pub holds: Option<Holds>,
    /// The entity that a reference points to. A reference without one may point
    /// to any entity, and has `type_field`.
    pub entity: Option<String>,
    /// For a reference that may point to any entity: the text field beside it
    /// that says to which one it points.
    pub type_field: Option<String>,
}

/// A shape that a text must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An e-mail address.
    Email,
    /// A currency's code, three capital letters (ISO 4217).
    Currency,
}

/// What a text is that has many spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// A telephone or fax number.
    Phone,
    /// A country.
    Country,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// A whole number.
    Long,
    /// A decimal number, kept as its text: money is never a float.
    Decimal,
    /// A day without a zone, as days since 1970-01-01.
    Date,
    /// A moment, as milliseconds since 1970 in UTC.
    Datetime,
    /// The canonical key of another record. Where it is not known which slot of
    /// that record is filled, the key names each that may be:
    /// `source/object/id#slot|slot`.
    Reference,
}

#[derive(Deserialize)]
struct Schema {
    name: String,
    doc: String,
    fields: Vec<serde_json::Value>,
}

macro_rules! schemas {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../", $name, ".avsc")))),*]
    };
}

/// Every entity schema, by name.
pub(crate) const SCHEMAS: &[(&str, &str)] = &schemas![
    "user.v1",
    "group.v1",
    "company.v1",
    "contact.v1",
    "lead.v1",
    "campaign.v1",
    "pipeline.v1",
    "product.v1",
    "deal.v1",
    "line_item.v1",
    "ticket.v1",
    "comment.v1",
    "task.v1",
    "activity.v1",
    "document.v1",
    "association.v1",
    "record.v1",
];

static ENTITIES: LazyLock<Vec<Entity>> = LazyLock::new(|| {
    SCHEMAS
        .iter()
        .map(|(name, text)| {
            // The schemas are compiled in and a test reads each, so a failure
            // here can't reach a user.
            #[allow(clippy::expect_used)]
            let schema: Schema = serde_json::from_str(text).expect("a schema of this crate");
            #[allow(clippy::expect_used)]
            let fields = schema
                .fields
                .into_iter()
                .filter(|field| field["name"] != "custom")
                .map(|field| serde_json::from_value(field).expect("a field of this crate"))
                .collect();
            Entity {
                name: schema.name,
                schema: (*name).to_owned(),
                doc: schema.doc,
                fields,
            }
        })
        .collect()
});

/// All canonical entities.
pub fn entities() -> &'static [Entity] {
    &ENTITIES
}

/// The entity of that name: `contact`.
pub fn entity(name: &str) -> Option<&'static Entity> {
    ENTITIES.iter().find(|entity| entity.name == name)
}

/// The entity whose schema has that name: `contact.v1`.
pub fn entity_of_schema(schema: &str) -> Option<&'static Entity> {
    ENTITIES.iter().find(|entity| entity.schema == schema)
}
