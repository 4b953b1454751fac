//! What every kind of record needs while an org is made: times, owners,
//! references to what is there.

use std::collections::HashMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::{DANGLING, LONG_TEXTS, SPAN};
use crate::salesforce::derive;
use crate::salesforce::id::Id;
use crate::salesforce::moment::{self, DAY, Millis};
use crate::salesforce::people::{self, Fields};
use crate::salesforce::record::{Record, quote};
use crate::salesforce::schema::Mark;
use crate::salesforce::store::Store;
use crate::salesforce::words;

/// The records of one object.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// Those that are not in the bin.
    pub live: u64,
    /// Of each record, whether it is in the bin.
    pub binned: Vec<bool>,
}

impl Count {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.binned.len() as u64
    }
}

/// Makes records.
pub struct Maker {
    /// What is random.
    pub rng: StdRng,
    /// The newest moment of the org.
    pub newest: Millis,
    /// Records by object.
    pub counts: Vec<Count>,
    /// Users there are.
    pub users: u64,
    /// Queues there are.
    pub queues: u64,
    /// Accounts that are persons, by the number of the contact that belongs
    /// to each.
    pub persons: HashMap<u64, Person>,
}

/// An account that is a person: what its contact says, too.
#[derive(Clone, Debug)]
pub struct Person {
    /// The account's number.
    pub account: u64,
    /// First name.
    pub first: &'static str,
    /// Last name.
    pub last: &'static str,
    /// E-mail address.
    pub email: String,
}

/// When a record was made, modified, and last touched.
pub struct Times {
    /// `CreatedDate`.
    pub created: Millis,
    /// `LastModifiedDate`.
    pub modified: Millis,
    /// `SystemModstamp`.
    pub modstamp: Millis,
}

impl Maker {
    /// Chooses which records are in the bin: about 1.5 % more than live ones.
    pub fn bin(&mut self, live: u64) -> Count {
        let extra = if live < 20 {
            0
        } else {
            (live * 15 / 1000).max(1)
        };
        let mut binned = vec![false; (live + extra) as usize];
        let mut left = extra;
        while left > 0 {
            let at = self.rng.random_range(0..binned.len());
            // The very first ones stay, so that small orgs have parents.
            if at > 5 && !binned[at] {
                binned[at] = true;
                left -= 1;
            }
        }
        Count { live, binned }
    }

    /// Makes all records of an object.
    pub fn fill(&mut self, store: &mut Store, object: usize, name: &str) {
        let count = self.counts[object].all();
        let prefix = store.schema.objects[object].prefix.clone();
        let touched = self.mass_updates();
        let mut bulk: Option<(Millis, u64)> = None;
        let mut earlier: Option<String> = None;
        for number in 1..=count {
            let times = self.times(number, count, &mut bulk, &touched);
            let deleted = self.counts[object].binned[number as usize - 1];
            let described = &store.schema.objects[object];
            let mut fields = Fields::of(described);
            let today = self.newest;
            let rng = &mut self.rng;
            match name {
                "Account" => people::account(&mut fields, rng, today),
                "Contact" => people::contact(&mut fields, rng, number),
                "Lead" => people::lead(&mut fields, rng, number),
                "Opportunity" => people::opportunity(&mut fields, rng, today),
                "Case" => people::case(&mut fields, rng, number),
                "Invoice__c" => people::invoice(&mut fields, rng, today),
                _ => {}
            }
            self.owners(&mut fields, name);
            let other = self.set_up(&mut fields, name, number)
                || self.sales(store, &mut fields, name, number, &times)
                || self.service(store, &mut fields, name, number, &times)
                || self.files(store, &mut fields, name, number, &times);
            if !other {
                self.links(store, &mut fields, name, number);
                self.long_text(&mut fields, name, number, count);
            }
            if name == "Contact" && !self.persons.contains_key(&number) {
                // One in a hundred is the same person as an earlier one.
                if let Some(email) = earlier.as_ref().filter(|_| number % 100 == 7) {
                    fields.text("Email", email);
                }
                let own = described
                    .number("Email")
                    .and_then(|field| fields.values.text(field).map(|t| t.into_owned()));
                if own.is_some() && number % 3 == 0 {
                    earlier = own;
                }
            }
            if deleted && matches!(name, "Account" | "Contact" | "Lead") && number % 4 == 0 {
                // Lost a merge to another record.
                let winner = self.live(object, number);
                fields.id(
                    "MasterRecordId",
                    winner.map(|winner| Id::numbered(&prefix, winner)),
                );
            }
            let mut values = fields.values;
            let id = Id::numbered(&prefix, store.table_mut(object).new_number());
            if let Some(field) = described_auto(store, object) {
                let number = store.table_mut(object).new_name();
                values.set_text(field, &derive::auto_name(name, number));
            }
            derive::dependents(store, object, &mut values, None, times.modified);
            let record = Record {
                id,
                created: times.created,
                modified: times.modified,
                modstamp: times.modstamp,
                deleted,
                values: values.pack(),
            };
            store.put(object, id, Some(record), times.modstamp, self.newest);
        }
        debug_assert_eq!(store.table(object).live(), self.counts[object].live);
    }

    /// Moments at which a job touched many records at once.
    fn mass_updates(&mut self) -> Vec<Millis> {
        (0..3)
            .map(|_| moment::second(self.newest - self.rng.random_range(0..60 * DAY)))
            .collect()
    }

    /// Records are made over the whole span, in the order of their ids; some
    /// of them hundreds at once.
    fn times(
        &mut self,
        number: u64,
        count: u64,
        bulk: &mut Option<(Millis, u64)>,
        touched: &[Millis],
    ) -> Times {
        let step = SPAN / count.max(1) as i64;
        let due =
            self.newest - SPAN + step * (number as i64 - 1) + self.rng.random_range(0..step.max(1));
        let created = match bulk {
            Some((at, left)) if *left > 0 => {
                *left -= 1;
                *at
            }
            _ => {
                let at = moment::second(due);
                let size = self.rng.random_range(100..700).min(count / 10);
                *bulk = (size > 1 && self.rng.random_bool(0.003)).then_some((at, size));
                at
            }
        };
        let newest = moment::second(self.newest);
        let created = created.min(newest);
        let modified = if self.rng.random_bool(0.5) || created == newest {
            created
        } else {
            moment::second(self.rng.random_range(created..newest))
        };
        let mut modstamp = modified;
        if self.rng.random_bool(0.12) {
            let at = touched[self.rng.random_range(0..touched.len())];
            modstamp = modstamp.max(at);
        }
        Times {
            created,
            modified,
            modstamp,
        }
    }

    fn owners(&mut self, fields: &mut Fields<'_>, name: &str) {
        let user = |rng: &mut StdRng, users: u64| {
            Some(Id::numbered("005", rng.random_range(1..=users.max(1))))
        };
        let queued =
            self.queues > 0 && matches!(name, "Lead" | "Case") && self.rng.random_bool(0.2);
        let owner = if queued {
            Some(Id::numbered("00G", self.rng.random_range(1..=self.queues)))
        } else {
            user(&mut self.rng, self.users)
        };
        fields.id("OwnerId", owner);
        fields.id("CreatedById", user(&mut self.rng, self.users));
        fields.id("LastModifiedById", user(&mut self.rng, self.users));
    }

    /// The number of a record of an object that is not in the bin.
    pub fn live(&mut self, object: usize, except: u64) -> Option<u64> {
        let count = &self.counts[object];
        if count.live == 0 {
            return None;
        }
        (0..50)
            .map(|_| self.rng.random_range(1..=count.all()))
            .find(|number| *number != except && !count.binned[*number as usize - 1])
    }

    /// Whether a record is there and not in the bin.
    pub fn is_live(&self, object: usize, number: u64) -> bool {
        let count = &self.counts[object];
        number >= 1 && number <= count.all() && !count.binned[number as usize - 1]
    }

    /// How many records of an object there are, those in the bin too.
    pub fn count(&self, store: &Store, name: &str) -> u64 {
        store
            .schema
            .number(name)
            .map_or(0, |object| self.counts[object].all())
    }

    /// A reference to a record that is there.
    pub fn present(&mut self, store: &Store, name: &str) -> Option<Id> {
        let object = store.schema.number(name)?;
        let number = self.live(object, 0)?;
        Some(Id::numbered(&store.schema.objects[object].prefix, number))
    }

    /// A reference to a record of an object: nearly always to one that is there.
    pub fn reference(&mut self, store: &Store, name: &str) -> Option<Id> {
        let object = store.schema.number(name)?;
        let prefix = &store.schema.objects[object].prefix;
        if self.rng.random_ratio(DANGLING, 1_000) {
            return Some(Id::numbered(
                prefix,
                900_000_000 + self.rng.random_range(0..1_000_000),
            ));
        }
        self.live(object, 0)
            .map(|number| Id::numbered(prefix, number))
    }

    /// A parent of the same object, which may have a larger id. A record's
    /// rank (its number modulo 4) is above its parent's: no circles.
    pub fn parent(
        &mut self,
        store: &Store,
        fields: &mut Fields<'_>,
        name: &str,
        field: &'static str,
        number: u64,
        share: f64,
    ) {
        let rank = number % 4;
        if rank == 0 || !self.rng.random_bool(share * 4.0 / 3.0) {
            return;
        }
        let Some(object) = store.schema.number(name) else {
            return;
        };
        if let Some(parent) = self.live(object, number) {
            let parent = parent - parent % 4 + self.rng.random_range(0..rank);
            let count = &self.counts[object];
            let there = parent >= 1 && parent <= count.all() && !count.binned[parent as usize - 1];
            if there {
                fields.id(
                    field,
                    Some(Id::numbered(&store.schema.objects[object].prefix, parent)),
                );
            }
        }
    }

    fn long_text(&mut self, fields: &mut Fields<'_>, name: &str, number: u64, count: u64) {
        let field = if name == "Invoice__c" {
            "Notes__c"
        } else {
            "Description"
        };
        let length = if name == "Invoice__c" { 32_768 } else { 32_000 };
        if (count >= 50 && number == count / 3) || self.rng.random_range(0..LONG_TEXTS) == 0 {
            let text = words::long_text(&mut self.rng, length);
            fields.json(field, quote(&text));
        }
    }
}

fn described_auto(store: &Store, object: usize) -> Option<u16> {
    let described = &store.schema.objects[object];
    described
        .fields
        .iter()
        .position(|field| field.has(Mark::AutoNumber))
        .map(|at| at as u16)
}
