//! What works in a migration and is hardly meant: told, and nothing is refused for
//! it. Mappings here, names of objects in `objects`, values of a choice in `listed`.

mod listed;
mod objects;

pub(crate) use listed::unlisted;
pub(crate) use objects::{undrifted, unsupported};

use drover_pipeline::config::{Mappings, Problem};
use drover_pipeline::extract::{Object, SourceField};
use drover_pipeline::transform::{
    FieldRule, Form, Mapping, Shape, Slot, can_fill, form_fits, form_name, holds, shape, value_fits,
};
use drover_schemas::{Kind, entity};

/// Ids of other records that go into a plain text, texts that go into a number, and
/// forms that the source field has never had by the connector's own rules. Paths are
/// those of the migration's document.
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
                let rule = own.rules.get(&object.name).and_then(|own| own.get(source));
                let rule = rule.filter(|_| by_object.is_some_and(|own| own.contains_key(source)));
                let told = described
                    .and_then(|described| bare_id(object, described, slot, canonical))
                    .or_else(|| {
                        // A map of values makes of it what is due.
                        let plain = rule.is_none_or(|rule| rule.values.is_empty());
                        no_number(object, described.filter(|_| plain)?, slot, canonical)
                    })
                    .or_else(|| {
                        let rule = rule?;
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

/// A text in a field of numbers: it may hold one, and a record whose text is none
/// becomes a dead letter.
fn no_number(
    object: &Object,
    source: &SourceField,
    slot: &Slot,
    canonical: &str,
) -> Option<(String, String)> {
    let entity = entity(&slot.entity)?;
    let (_, field) = entity.field(canonical)?;
    let due = matches!(field.kind, Kind::Long | Kind::Decimal | Kind::Boolean);
    let is_refused = !can_fill(&source.kind, entity, field);
    if !due
        || is_refused
        || shape(&source.kind) != Shape::Text
        || reading(slot, &source.name) == Some(canonical)
    {
        return None;
    }
    let (name, object) = (&source.name, &object.name);
    let held = match source
        .values
        .iter()
        .find(|value| !value_fits(value, field.kind))
    {
        Some(value) if source.values.iter().any(|one| value_fits(one, field.kind)) => {
            format!("{object}.{name} may be `{value}`")
        }
        // All of them fit, or none does, which is refused.
        _ if !source.values.is_empty() => return None,
        _ => format!("{object}.{name} is declared as {}", source.kind),
    };
    Some((
        format!(
            "{held}, and {}.{canonical} is {}: a record with another text becomes a dead letter",
            entity.name,
            holds(entity, field)
        ),
        format!("map a field that is declared as one, or leave {name} to `custom`"),
    ))
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
  Account:
    slots: { company: { entity: company, fields: { name: Name } } }
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
  Account:
    Notes__c: employees
    Size__c: annualRevenue
    Tier__c: { to: person, values: { A: 'true' } }
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
        let size = SourceField {
            values: ["10", "Many"].map(str::to_owned).into(),
            ..field("Size__c", "picklist", &[])
        };
        let account = Object {
            name: "Account".to_owned(),
            fields: vec![
                field("Notes__c", "textarea", &[]),
                size,
                field("Tier__c", "string", &[]),
            ],
            ..Object::default()
        };
        let told: Vec<String> = doubtful(&document.mappings(), &connector, &[contact, account])
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
                "mappings.Account.Notes__c: Account.Notes__c is declared as textarea, and company.employees \
                 is a whole number: a record with another text becomes a dead letter (m.yaml:12); \
                 map a field that is declared as one, or leave Notes__c to `custom`",
                "mappings.Account.Size__c: Account.Size__c may be `Many`, and company.annualRevenue is a \
                 decimal number: a record with another text becomes a dead letter (m.yaml:13); \
                 map a field that is declared as one, or leave Size__c to `custom`",
            ]
        );
    }
}
