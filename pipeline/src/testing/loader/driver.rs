//! A loader driven as the runner drives it: it remembers the target's ids,
//! sends again what was not sent, and asks for what became of the unknown.

use std::collections::{BTreeMap, HashMap};

use drover_schemas::{Datum, Entity, Value};

use super::{Harness, Row};
use crate::error::{Class, Error};
use crate::idempotency::{Identity, TargetId};
use crate::load::{Applied, EntitySupport, Item, Loader, Outcome, Write};
use crate::record::{AbsentReason, CanonicalKey, Order};

/// How often a batch is sent again before the suite gives up.
const TRIES: usize = 40;

/// A version of a key, to be applied.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its key.
    pub key: CanonicalKey,
    /// Its order, whose version is the record's.
    pub order: Order,
    /// The content; `None` deletes.
    pub datum: Option<Datum<'static>>,
    /// The links that could be resolved.
    pub links: Vec<(usize, TargetId)>,
}

impl Record {
    /// An upsert.
    pub fn upsert(key: &CanonicalKey, version: i64, datum: Datum<'static>) -> Self {
        Record {
            key: key.clone(),
            order: order(version),
            datum: Some(datum),
            links: Vec::new(),
        }
    }

    /// A delete.
    pub fn delete(key: &CanonicalKey, version: i64) -> Self {
        Record {
            key: key.clone(),
            order: order(version),
            datum: None,
            links: Vec::new(),
        }
    }

    fn item<'a>(&'a self, entity: &'static Entity, target_id: Option<&'a TargetId>) -> Item<'a> {
        Item {
            key: &self.key,
            entity,
            order: self.order,
            version: self.order.version,
            target_id,
            write: match &self.datum {
                Some(datum) => Write::Upsert {
                    datum,
                    links: self.links.clone(),
                },
                None => Write::Delete {
                    reason: AbsentReason::Deleted,
                },
            },
        }
    }
}

/// The order of the n-th version: n seconds after some moment of 2023.
pub fn order(version: i64) -> Order {
    Order {
        version: 1_700_000_000_000 + version * 1000,
        mapping: 1,
        incarnation: 1,
        offset: version,
        reapply: 0,
    }
}

/// The key of the n-th contact.
pub fn contact(number: usize) -> CanonicalKey {
    CanonicalKey::parse(&format!("salesforce/Contact/003{number:015}#contact"))
        .expect("a canonical key")
}

/// What the target has, of an outcome that must be Applied.
pub fn applied(outcome: &Outcome) -> &Applied {
    match outcome {
        Outcome::Applied(applied) => applied,
        other => panic!("expected Applied, got {other:?}"),
    }
}

/// The error of an outcome that must be Rejected.
pub fn rejected(outcome: &Outcome) -> &Error {
    match outcome {
        Outcome::Rejected(error) => error,
        other => panic!("expected Rejected, got {other:?}"),
    }
}

/// A loader with its target, and what a runner would know of it.
pub struct Driver<H: Harness> {
    /// The target.
    pub harness: H,
    /// The loader.
    pub loader: H::Loader,
    ids: HashMap<String, TargetId>,
}

impl<H: Harness> Driver<H> {
    /// A prepared target with a loader.
    pub async fn new(harness: H) -> Self {
        let loader = harness.loader();
        loader.check().await.expect("check");
        loader.prepare().await.expect("prepare");
        Driver {
            harness,
            loader,
            ids: HashMap::new(),
        }
    }

    /// The entity of that name, which the loader must support.
    pub fn entity(&self, name: &str) -> &'static Entity {
        self.support(name);
        drover_schemas::entity(name).expect("a canonical entity")
    }

    /// What the loader says of that entity.
    pub fn support(&self, name: &str) -> EntitySupport {
        self.loader
            .entities()
            .into_iter()
            .find(|support| support.entity == name)
            .unwrap_or_else(|| panic!("the loader does not take the entity {name}"))
    }

    /// Applies once, and expects an answer for every record.
    pub async fn apply(&mut self, entity: &'static Entity, records: &[Record]) -> Vec<Outcome> {
        self.try_apply(entity, records).await.expect("apply")
    }

    /// Applies once; the error is the whole batch's.
    pub async fn try_apply(
        &mut self,
        entity: &'static Entity,
        records: &[Record],
    ) -> Result<Vec<Outcome>, Error> {
        let items: Vec<Item<'_>> = records
            .iter()
            .map(|record| record.item(entity, self.ids.get(record.key.as_str())))
            .collect();
        let outcomes = self.loader.apply(&items).await?;
        assert_eq!(outcomes.len(), records.len(), "one outcome a record");
        for (record, outcome) in records.iter().zip(&outcomes) {
            if let Outcome::Applied(Applied { id: Some(id), .. }) = outcome {
                self.ids.insert(record.key.as_str().to_owned(), id.clone());
            }
        }
        Ok(outcomes)
    }

    /// Applies until every record is Applied or Rejected, as the runner does.
    pub async fn deliver(&mut self, entity: &'static Entity, records: &[Record]) -> Vec<Outcome> {
        let size = self.support(&entity.name).batch;
        let mut done: BTreeMap<usize, Outcome> = BTreeMap::new();
        for _ in 0..TRIES {
            let todo: Vec<usize> = (0..records.len())
                .filter(|place| !done.contains_key(place))
                .collect();
            if todo.is_empty() {
                return done.into_values().collect();
            }
            let mut unknown = Vec::new();
            for places in todo.chunks(size) {
                let batch: Vec<Record> = places.iter().map(|&p| records[p].clone()).collect();
                let outcomes = match self.try_apply(entity, &batch).await {
                    Ok(outcomes) => outcomes,
                    Err(error) if error.class() == Class::Transient => continue,
                    Err(error) => panic!("apply: {error}"),
                };
                for (&place, outcome) in places.iter().zip(outcomes) {
                    match outcome {
                        Outcome::NotSent(_) => {}
                        Outcome::Unknown(_) => unknown.push(place),
                        known => {
                            done.insert(place, known);
                        }
                    }
                }
            }
            if !unknown.is_empty() {
                let keys: Vec<_> = unknown.iter().map(|&place| &records[place].key).collect();
                self.recover(entity, &keys).await;
            }
        }
        panic!("{TRIES} tries were not enough: {done:?}");
    }

    /// Forgets the target's ids, as a process does that is killed before it
    /// could note them.
    pub fn forget(&mut self) {
        self.ids.clear();
        self.loader = self.harness.loader();
    }

    /// What a runner does about keys of an unknown fate: where sending again
    /// could create twice, it asks the target first.
    pub async fn recover(&mut self, entity: &'static Entity, keys: &[&CanonicalKey]) {
        if self.support(&entity.name).lease.identity == Identity::Upsert {
            return;
        }
        self.harness.settle().await;
        let found = self.loader.find(entity, keys).await.expect("find");
        for (key, found) in keys.iter().zip(found) {
            if let Some(found) = found {
                self.ids.insert(key.as_str().to_owned(), found.id);
            }
        }
    }

    /// The target's records by key; fails when a key has two.
    pub async fn rows(&self, entity: &'static Entity) -> BTreeMap<String, Row> {
        let mut rows = BTreeMap::new();
        for row in self.harness.rows(entity).await {
            if let Some(twice) = rows.insert(row.key.clone(), row) {
                panic!("{} has two records", twice.key);
            }
        }
        rows
    }

    /// Fails unless the target has exactly these contents, and none is deleted.
    pub async fn expect(&self, entity: &'static Entity, records: &[Record]) {
        let rows = self.rows(entity).await;
        let mut keys: Vec<_> = records.iter().map(|r| r.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(rows.keys().map(String::as_str).collect::<Vec<_>>(), keys);
        for record in records {
            let row = &rows[record.key.as_str()];
            assert!(!row.deleted, "{} is deleted", row.key);
            same_content(entity, record, row);
        }
    }
}

/// Fails unless the row has the record's content, field by field.
fn same_content(entity: &Entity, record: &Record, row: &Row) {
    let datum = record.datum.as_ref().expect("an upsert");
    for (place, field) in entity.fields.iter().enumerate() {
        let want = match (&datum.values[place], &record.links) {
            (Value::Reference(_), links) => links
                .iter()
                .find(|(linked, _)| *linked == place)
                .map_or(Value::Null, |(_, id)| Value::Reference(id.clone().into())),
            (other, _) => other.clone(),
        };
        assert_eq!(row.values[place], want, "{}.{}", row.key, field.name);
    }
    let names: Vec<_> = datum.custom.iter().map(|c| c.name.as_ref()).collect();
    let mut there: Vec<_> = row.custom.keys().map(String::as_str).collect();
    there.sort_unstable();
    assert_eq!(there, names, "{}.custom", row.key);
    for custom in &datum.custom {
        let there = &row.custom[custom.name.as_ref()];
        assert!(
            same_json(there, &custom.json),
            "{}.custom.{}: {there}, expected {}",
            row.key,
            custom.name,
            custom.json
        );
    }
}

/// Equal as JSON; numbers digit by digit, since a parser would round them.
fn same_json(one: &str, other: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    match (parse(one), parse(other)) {
        (Some(serde_json::Value::Number(_)), Some(_)) => one == other,
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}
