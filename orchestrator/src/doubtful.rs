//! Mappings of a migration that work, and are hardly meant: told, and nothing is
//! refused for them.

use drover_pipeline::config::{Mappings, Problem};
use drover_pipeline::extract::{Object, SourceField};
use drover_pipeline::transform::{
    FieldRule, Form, Mapping, Slot, can_fill, form_fits, form_name, holds,
};
use drover_schemas::{Kind, entity};

/// Ids of other records that go into a plain text, and forms that the source field
/// has never had by the connector's own rules. Paths are those of the migration's
/// document.
pub(crate) fn doubtful(own: &Mappings, connector: &Mapping, objects: &[Object]) -> Vec<Problem> {
    let mut found: Vec<Problem> = Vec::new();
    for object in objects {
        let Some(rules) = connector.of(object) else {
            continue;
        };
        let by_object = own.by_object.get(&object.name);
        let everywhere = own.everywhere.iter().filter(|(source, _)| {
            by_object.is_none_or(|by_object| !by_object.contains_key(*source))
        });
        let flat = everywhere.map(|(source, to)| (format!("mappings.{source}"), source, to));
        let named = by_object.into_iter().flatten();
        let named =
            named.map(|(source, to)| (format!("mappings.{}.{source}", object.name), source, to));
        for (path, source, canonical) in named.chain(flat) {
            let described = object.fields.iter().find(|field| field.name == *source);
            for slot in rules.slots.values() {
                let told = described
                    .and_then(|described| bare_id(object, described, slot, canonical))
                    .or_else(|| {
                        let rule = own.rules.get(&object.name)?.get(source)?;
                        other_form(object, source, slot, (canonical, rule.form?))
                    });
                let told = told.map(|(what, advice)| Problem::at(&path, what, advice));
                found.extend(told.filter(|told| !found.contains(told)));
            }
        }
    }
    found
}

/// An id that points to a record, in a field that links to none.
fn bare_id(
    object: &Object,
    source: &SourceField,
    slot: &Slot,
    canonical: &str,
) -> Option<(String, String)> {
    let entity = entity(&slot.entity)?;
    let (_, field) = entity.field(canonical)?;
    let is_refused = !can_fill(&source.kind, entity, field);
    if source.references.is_empty() || field.kind != Kind::String || is_refused {
        return None;
    }
    let name = &source.name;
    let what = format!(
        "{}.{name} is the id of a record of {}, and {}.{canonical} is a text",
        object.name,
        source.references.join(" or "),
        entity.name
    );
    Some(match reading(slot, name) {
        Some(link) => (
            format!("{what}, so {link} loses its link"),
            format!("write `{name}: {link}`, unless the bare id is wanted there"),
        ),
        None => (
            format!("{what}, which links to nothing"),
            format!("leave {name} to `custom`, unless the bare id is wanted there"),
        ),
    })
}

/// A form that is not that of the canonical field to which the connector maps the
/// source field.
fn other_form(
    object: &Object,
    source: &str,
    slot: &Slot,
    (canonical, form): (&str, Form),
) -> Option<(String, String)> {
    let entity = entity(&slot.entity)?;
    // What the field never takes is refused.
    entity
        .field(canonical)
        .filter(|(_, field)| form_fits(field, form))?;
    let (_, field) = entity.field(reading(slot, source)?)?;
    if field.holds.is_none() || form_fits(field, form) {
        return None;
    }
    let what = format!(
        "`as` makes {} of a text, and {}.{source} is {}, which the connector maps to {}",
        form_name(form),
        object.name,
        holds(entity, field),
        field.name
    );
    Some((what, "map another field, or remove `as`".to_owned()))
}

/// The canonical field that the connector's rules fill from a source field.
fn reading<'s>(slot: &'s Slot, source: &str) -> Option<&'s str> {
    let mut rules = slot.fields.iter();
    let (name, _) =
        rules.find(|(_, rule): &(_, &FieldRule)| rule.source_field() == Some(source))?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::config::Document;

    use super::*;

    const CONNECTOR: &str = "
objects:
  Contact:
    slots:
      contact:
        entity: contact
        fields:
          lastName: LastName
          mailingCountry: MailingCountry
          companyId: { from: AccountId, reference: Contact#contact }
";

    #[test]
    fn a_lost_link_and_a_strange_form_are_told() {
        let text = "
mappings:
  Boss__c: title
  Contact:
    AccountId: department
    MailingCountry: { to: phoneNumber, as: phone }
    Phone: { to: mobileNumber, as: phone }
    Home__c: { to: mailingCountry, as: country }
    Id: bio
    OwnerId: ownerType
";
        let document = Document::parse("m.yaml", text.as_bytes()).expect("YAML");
        let connector = Mapping::parse("mapping.yaml", CONNECTOR).expect("a mapping");
        let field = |name: &str, kind: &str, references: &[&str]| SourceField {
            name: name.to_owned(),
            kind: kind.to_owned(),
            references: references.iter().map(|one| (*one).to_owned()).collect(),
            ..SourceField::default()
        };
        let contact = Object {
            name: "Contact".to_owned(),
            fields: vec![
                field("Id", "id", &[]),
                field("AccountId", "reference", &["Account"]),
                field("Boss__c", "reference", &["Contact", "User"]),
                field("OwnerId", "reference", &["User"]),
                field("MailingCountry", "string", &[]),
                field("Phone", "phone", &[]),
                field("Home__c", "string", &[]),
            ],
            ..Object::default()
        };
        let told: Vec<String> = doubtful(&document.mappings(), &connector, &[contact])
            .into_iter()
            .map(|problem| document.placed(problem).to_string())
            .collect();
        assert_eq!(
            told,
            [
                "mappings.Contact.AccountId: Contact.AccountId is the id of a record of Account, and \
                 contact.department is a text, so companyId loses its link (m.yaml:5); \
                 write `AccountId: companyId`, unless the bare id is wanted there",
                "mappings.Contact.MailingCountry: `as` makes a telephone number of a text, and \
                 Contact.MailingCountry is a country, which the connector maps to mailingCountry \
                 (m.yaml:6); map another field, or remove `as`",
                "mappings.Boss__c: Contact.Boss__c is the id of a record of Contact or User, and \
                 contact.title is a text, which links to nothing (m.yaml:3); \
                 leave Boss__c to `custom`, unless the bare id is wanted there",
            ]
        );
    }
}
