//! The org in use: people make, edit, delete and restore records.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::Salesforce;
use super::convert::Strictness;
use super::derive::STAGES;
use super::id::Id;
use super::moment;
use super::people::{self, Fields};
use super::store::Store;
use super::words::{self, one};
use super::write::{self, When};

/// How often the due changes are made.
const BEAT: Duration = Duration::from_millis(20);

/// Objects and how often they are chosen.
const OBJECTS: [(&str, u32); 7] = [
    ("Account", 20),
    ("Contact", 35),
    ("Lead", 12),
    ("Opportunity", 15),
    ("Case", 12),
    ("Invoice__c", 5),
    ("User", 1),
];

/// Makes changes until the org is dropped.
pub async fn run(org: Arc<Salesforce>, per_second: f64) {
    let mut people = People {
        rng: StdRng::seed_from_u64(org.seed ^ 0x11FE),
        number: 0,
    };
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = tokio::time::Instant::now();
    let mut owed = 0.0;
    loop {
        let now = beat.tick().await;
        owed += per_second * now.duration_since(last).as_secs_f64();
        last = now;
        while owed >= 1.0 {
            let mut store = org.locked();
            if org.frozen.load(Ordering::SeqCst) {
                owed = 0.0;
                break;
            }
            // The org refuses some; then somebody else makes a change.
            let made = (0..10)
                .map(|_| people.change(&mut store, org.visibility_delay))
                .find(|made| *made > 0);
            owed -= f64::from(made.unwrap_or(1));
        }
    }
}

struct People {
    rng: StdRng,
    number: u64,
}

impl People {
    /// One change: most edit, some make, few delete, fewer restore. How many
    /// records were written; an account comes with what belongs to it.
    fn change(&mut self, store: &mut Store, delay: i64) -> u32 {
        // Some writes were stamped late in their transaction: they show
        // earlier than others, so that rows become visible out of order.
        let delay = if self.rng.random_bool(0.5) {
            delay
        } else {
            self.rng.random_range(0..=delay)
        };
        let now = moment::now();
        let when = When {
            stamp: moment::second(now),
            visible: now + delay,
            now,
            user: super::auth::user(),
        };
        let Some(object) = self.object(store) else {
            return 0;
        };
        let user = store.schema.objects[object].name == "User";
        let done = match self.rng.random_range(0..100) {
            0..25 if !user => return self.enter(store, object, when),
            25..37 if !user => self
                .choose(store, object, false)
                .map(|id| write::delete(store, object, id, Strictness::Checked, when)),
            37..40 if !user => self
                .choose(store, object, true)
                .map(|id| write::undelete(store, object, id, when)),
            _ => self.choose(store, object, false).map(|id| {
                let fields = self.edit(store, object);
                write::update(store, object, id, &fields, Strictness::Checked, when)
            }),
        };
        // Refused: an account with cases, a converted lead.
        u32::from(matches!(done, Some(Ok(()))))
    }

    /// Makes a record. People who enter an account enter its contacts, too.
    fn enter(&mut self, store: &mut Store, object: usize, when: When) -> u32 {
        let id = self.create(store, object, None, when);
        let mut made = 1;
        if store.schema.objects[object].name == "Account" {
            for name in ["Contact", "Opportunity", "Case", "Invoice__c"] {
                if self.rng.random_bool(0.4)
                    && let Some(child) = store.schema.number(name)
                {
                    self.create(store, child, Some(id), when);
                    made += 1;
                }
            }
        }
        made
    }

    fn object(&mut self, store: &Store) -> Option<usize> {
        let sum: u32 = OBJECTS.iter().map(|object| object.1).sum();
        let mut at = self.rng.random_range(0..sum);
        for (name, weight) in OBJECTS {
            if at < weight {
                return store.schema.number(name);
            }
            at -= weight;
        }
        None
    }

    /// A record that is, or is not, in the bin.
    fn choose(&mut self, store: &Store, object: usize, deleted: bool) -> Option<Id> {
        let ids = store.table(object).ids();
        if ids.is_empty() {
            return None;
        }
        (0..if deleted { 200 } else { 20 })
            .map(|_| ids[self.rng.random_range(0..ids.len())])
            .find(|id| {
                store
                    .truth(object, *id)
                    .is_some_and(|record| record.deleted == deleted)
            })
    }

    fn create(&mut self, store: &mut Store, object: usize, account: Option<Id>, when: When) -> Id {
        self.number += 1;
        let number = 1_000_000_000 + self.number;
        let described = &store.schema.objects[object];
        let mut fields = Fields::of(described);
        let rng = &mut self.rng;
        match described.name.as_str() {
            "Account" => people::account(&mut fields, rng, when.now),
            "Contact" => people::contact(&mut fields, rng, number),
            "Lead" => people::lead(&mut fields, rng, number),
            "Opportunity" => people::opportunity(&mut fields, rng, when.now),
            "Case" => people::case(&mut fields, rng, number),
            _ => people::invoice(&mut fields, rng, when.now),
        }
        let field = match described.name.as_str() {
            "Contact" | "Opportunity" | "Case" => Some("AccountId"),
            "Invoice__c" => Some("Account__c"),
            _ => None,
        };
        let values = fields.values.clone();
        let mut fields: Map<String, Value> = store.schema.objects[object]
            .fields
            .iter()
            .enumerate()
            .filter_map(|(at, field)| {
                let json = values.json(at as u16)?;
                Some((field.name.clone(), serde_json::from_str(json).ok()?))
            })
            .collect();
        if let Some(field) = field {
            let account = account.or_else(|| {
                let accounts = store.schema.number("Account")?;
                self.choose(store, accounts, false)
            });
            fields.insert(
                field.to_owned(),
                account.map_or(Value::Null, |id| Value::from(id.to_string())),
            );
        }
        write::create(store, object, &fields, Strictness::Raw, when).unwrap_or(Id::MIN)
    }

    /// One or two fields set anew; emptied at times.
    fn edit(&mut self, store: &Store, object: usize) -> Map<String, Value> {
        let rng = &mut self.rng;
        let mut fields = Map::new();
        let name = store.schema.objects[object].name.as_str();
        for _ in 0..rng.random_range(1..3) {
            let (field, value) = match (name, rng.random_range(0..4)) {
                ("Account" | "Contact" | "Lead" | "User", 0) => {
                    ("Phone", json!(people::phone(rng)))
                }
                ("Account", 1) => ("Name", json!(people::company(rng))),
                ("Account", 2) => ("AnnualRevenue", json!(rng.random_range(0..10_000_000_i64))),
                ("Contact", 1) => ("LastName", json!(one(rng, &words::LAST))),
                ("Contact", 2) => ("Title", json!(one(rng, &words::TITLE))),
                ("Lead", 1) => (
                    "Status",
                    json!(one(rng, &["Working - Contacted", "Closed - Not Converted"])),
                ),
                ("Lead", 2) => ("Company", json!(people::company(rng))),
                ("Opportunity", 0 | 1) => (
                    "StageName",
                    json!(STAGES[rng.random_range(0..STAGES.len())].0),
                ),
                ("Opportunity", 2) => (
                    "Amount",
                    json!(f64::from(rng.random_range(0..100_000_000)) / 100.0),
                ),
                ("Case", 0 | 1) => (
                    "Status",
                    json!(one(rng, &["Working", "Escalated", "Closed"])),
                ),
                ("Case", 2) => ("Subject", json!(one(rng, &words::SUBJECT))),
                ("Invoice__c", 0 | 1) => ("Paid__c", json!(rng.random_bool(0.8))),
                ("Invoice__c", 2) => (
                    "Amount__c",
                    json!(f64::from(rng.random_range(0..10_000_000)) / 100.0),
                ),
                ("Invoice__c", _) => ("Notes__c", json!(words::text(rng, 2))),
                ("User", _) => ("Title", json!(one(rng, &words::TITLE))),
                _ if rng.random_bool(0.1) => ("Description", Value::Null),
                _ => ("Description", json!(words::text(rng, 3))),
            };
            fields.insert(field.to_owned(), value);
        }
        fields
    }
}
