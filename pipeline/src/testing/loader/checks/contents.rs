//! What is written stands in the target unchanged.

use drover_schemas::{Datum, Entity, Kind, Value};

use super::contacts;
use crate::load::Loader;
use crate::record::CanonicalKey;
use crate::testing::loader::content::full;
use crate::testing::loader::{Driver, Harness, Record, applied, contact, content};

/// A reference holds the target's id of what it points to; one that could not
/// be resolved is empty, and one that is resolved later is filled in.
pub async fn links_are_the_targets_ids<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let (company, contact_entity) = (driver.entity("company"), driver.entity("contact"));
    let parent = CanonicalKey::parse("salesforce/Account/001#company").expect("a key");
    let outcomes = driver
        .apply(company, &[Record::upsert(&parent, 1, full(company, 1))])
        .await;
    let parent_id = applied(&outcomes[0]).id.clone().expect("an id");
    let (place, _) = contact_entity.field("companyId").expect("the reference");
    let mut records = contacts(2, 1);
    for record in &mut records {
        if let Some(datum) = &mut record.datum {
            datum.values[place] = Value::Reference(parent.as_str().to_owned().into());
        }
    }
    records[0].links = vec![(place, parent_id.clone())];
    driver.apply(contact_entity, &records).await;
    driver.expect(contact_entity, &records).await;
    // Asked to be applied again when the link has become possible.
    records[1].links = vec![(place, parent_id)];
    records[1].order.reapply = 1;
    driver.apply(contact_entity, &records[1..]).await;
    driver.expect(contact_entity, &records).await;
}

/// A key of that entity: two entities never share one.
fn key(entity: &Entity, number: usize) -> CanonicalKey {
    CanonicalKey::parse(&format!("jira/Thing/{number}#{}", entity.name)).expect("a key")
}

/// Each entity the loader takes, with every field filled.
pub async fn every_field_of_every_entity_arrives<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    for support in driver.loader.entities() {
        let entity = driver.entity(&support.entity);
        let records: Vec<_> = (0..3)
            .map(|n| Record::upsert(&key(entity, n), 1, full(entity, n as i64)))
            .collect();
        let outcomes = driver.apply(entity, &records).await;
        assert!(outcomes.iter().all(|outcome| applied(outcome).created));
        driver.expect(entity, &records).await;
    }
}

/// Texts of every kind, in fields, in names, in values without a mapping and in
/// keys.
pub async fn foreign_texts_arrive_unchanged<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    let (bio, _) = entity.field("bio").expect("the text");
    let (first, _) = entity.field("firstName").expect("the name");
    let mut records = Vec::new();
    for (n, text) in content::texts().into_iter().enumerate() {
        let mut datum = full(entity, n as i64);
        datum.values[bio] = Value::String(text.clone().into());
        datum.values[first] = Value::String(text.chars().take(40).collect::<String>().into());
        let json = serde_json::Value::from(text.as_str()).to_string();
        datum.custom = vec![
            content::custom("A \"quoted\" \\ name", "string", &json),
            content::custom("Z", "string", &json),
        ];
        // The id is a text of the source too.
        let id: String = format!("{n} {}", text.chars().take(20).collect::<String>());
        let key = CanonicalKey::parse(&format!("salesforce/Contact/{id}#contact"));
        records.push(Record::upsert(&key.expect("a key"), 1, datum));
    }
    driver.deliver(entity, &records).await;
    driver.expect(entity, &records).await;
    driver.harness.settle().await;
    let keys: Vec<_> = records.iter().map(|record| &record.key).collect();
    let found = driver.loader.find(entity, &keys).await.expect("find");
    assert!(found.iter().all(Option::is_some), "{found:?}");
}

/// Decimals keep each digit, days their day, moments their millisecond, values
/// without a mapping their type.
pub async fn numbers_and_times_are_exact<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    for name in ["company", "deal", "ticket", "contact"] {
        let entity = driver.entity(name);
        let mut records = Vec::new();
        for n in 0..content::JSON.len() {
            let mut datum = full(entity, 1);
            for (value, field) in datum.values.iter_mut().zip(&entity.fields) {
                let longs = [0, 1, -1, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1];
                match field.kind {
                    Kind::Decimal => {
                        let text = content::DECIMALS[n % content::DECIMALS.len()];
                        *value = Value::Decimal(text.into());
                    }
                    Kind::Date => *value = Value::Date(content::DATES[n % 7]),
                    Kind::Datetime => *value = Value::Datetime(content::MOMENTS[n % 7]),
                    Kind::Long => *value = Value::Long(longs[n % 7]),
                    _ => {}
                }
            }
            datum.custom = vec![content::custom("Value", "any", content::JSON[n])];
            records.push(Record::upsert(&key(entity, n), 1, datum));
        }
        driver.deliver(entity, &records).await;
        driver.expect(entity, &records).await;
    }
}

/// What a newer version leaves empty becomes empty, values without a mapping
/// too.
pub async fn empty_fields_empty_the_target<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(2, 1)).await;
    let empty: Vec<_> = (0..2)
        .map(|n| Record::upsert(&contact(n), 2, Datum::empty(entity)))
        .collect();
    driver.apply(entity, &empty).await;
    driver.expect(entity, &empty).await;
}
