//! An org of any size from a seed: the same seed gives the same records,
//! with times that end before the day of the start.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::derive;
use super::id::Id;
use super::moment::{self, DAY, MINUTE, Millis};
use super::people::{self, Fields};
use super::record::{Record, quote};
use super::store::Store;
use super::team;
use super::words;

/// Shares of the objects among the records that are neither users nor
/// set-up; contacts take the rest.
const SHARES: [(&str, f64); 5] = [
    ("Account", 0.18),
    ("Lead", 0.14),
    ("Opportunity", 0.12),
    ("Case", 0.11),
    ("Invoice__c", 0.05),
];

/// The order in which records are made, parents first.
const ORDER: [&str; 6] = [
    "Account",
    "Contact",
    "Lead",
    "Opportunity",
    "Case",
    "Invoice__c",
];

/// How long ago the oldest record was made.
const SPAN: Millis = 730 * DAY;

/// One record in so many has a text as long as its field takes.
const LONG_TEXTS: u64 = 5_000;

/// References to records that are gone, in a thousand.
const DANGLING: u32 = 2;

/// The records of one object.
#[derive(Clone, Debug, Default)]
struct Count {
    live: u64,
    binned: Vec<bool>,
}

impl Count {
    fn all(&self) -> u64 {
        self.binned.len() as u64
    }
}

/// How many records of each object an org of this size has; the sum is the
/// size. Records in the recycle bin come on top.
pub fn shares(records: u64) -> Vec<(&'static str, u64)> {
    let mut counts = Vec::new();
    let set_up = if records >= 200 {
        [("Profile", 3), ("Group", 4)]
    } else {
        [("Profile", 0), ("Group", 0)]
    };
    let users = (records / 200).clamp(1, 300).min(records);
    let rest = records - users - set_up.iter().map(|count| count.1).sum::<u64>();
    counts.extend(set_up);
    counts.push(("User", users));
    let mut contacts = rest;
    for (name, share) in SHARES {
        let count = (rest as f64 * share) as u64;
        contacts -= count;
        counts.push((name, count));
    }
    counts.push(("Contact", contacts));
    counts
}

/// Fills a store with records, as an org of this size that was last used on
/// the day before `start`. Objects in `except` stay as they are.
pub fn fill(store: &mut Store, seed: u64, records: u64, start: Millis, except: &[usize]) {
    let newest = moment::day(start) - 5 * MINUTE;
    let mut maker = Maker {
        rng: StdRng::seed_from_u64(seed),
        newest,
        counts: Vec::new(),
        users: 1,
        queues: 0,
    };
    let shares = shares(records);
    let count = |name: &str| {
        shares
            .iter()
            .find(|share| share.0 == name)
            .map_or(0, |share| share.1)
    };
    maker.users = count("User");
    maker.queues = count("Group");
    maker.counts = store
        .schema
        .objects
        .iter()
        .map(|_| Count::default())
        .collect();
    for name in ORDER {
        let Some(object) = store
            .schema
            .number(name)
            .filter(|object| !except.contains(object))
        else {
            continue;
        };
        maker.counts[object] = maker.bin(count(name));
    }
    for (name, count) in [
        ("Profile", count("Profile")),
        ("Group", count("Group")),
        ("User", count("User")),
    ] {
        let Some(object) = store
            .schema
            .number(name)
            .filter(|object| !except.contains(object))
        else {
            continue;
        };
        for number in 1..=count {
            team::add(
                store,
                &mut maker.rng,
                object,
                number,
                newest - SPAN - 30 * DAY,
            );
        }
    }
    for name in ORDER {
        if let Some(object) = store
            .schema
            .number(name)
            .filter(|object| !except.contains(object))
        {
            maker.fill(store, object, name);
        }
    }
}

struct Maker {
    rng: StdRng,
    newest: Millis,
    counts: Vec<Count>,
    users: u64,
    queues: u64,
}

/// When a record was made, modified, and last touched.
struct Times {
    created: Millis,
    modified: Millis,
    modstamp: Millis,
}

impl Maker {
    /// Chooses which records are in the bin: about 1.5 % more than live ones.
    fn bin(&mut self, live: u64) -> Count {
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

    fn fill(&mut self, store: &mut Store, object: usize, name: &str) {
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
                _ => people::invoice(&mut fields, rng, today),
            }
            self.owners(&mut fields, name);
            self.links(store, &mut fields, name, number);
            if name == "Contact" {
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
            self.long_text(&mut fields, name, number, count);
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
                values.set_text(field, &derive::auto_name(name == "Invoice__c", number));
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
    fn live(&mut self, object: usize, except: u64) -> Option<u64> {
        let count = &self.counts[object];
        if count.live == 0 {
            return None;
        }
        (0..50)
            .map(|_| self.rng.random_range(1..=count.all()))
            .find(|number| *number != except && !count.binned[*number as usize - 1])
    }

    /// A reference to a record of an object: nearly always to one that is there.
    fn reference(&mut self, store: &Store, name: &str) -> Option<Id> {
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

    fn links(&mut self, store: &Store, fields: &mut Fields<'_>, name: &str, number: u64) {
        match name {
            "Account" => self.parent(store, fields, "Account", "ParentId", number, 0.12),
            "Contact" => {
                if self.rng.random_bool(0.94) {
                    let account = self.reference(store, "Account");
                    fields.id("AccountId", account);
                }
                self.parent(store, fields, "Contact", "ReportsToId", number, 0.2);
            }
            "Lead" => {
                if self.rng.random_bool(0.1) {
                    fields.json("IsConverted", "true");
                    fields.text("Status", "Closed - Converted");
                    fields.json("IsUnreadByOwner", "false");
                    let at = self.newest - self.rng.random_range(0..SPAN);
                    fields.text("ConvertedDate", &moment::print_date(at));
                    let (account, contact) = (
                        self.reference(store, "Account"),
                        self.reference(store, "Contact"),
                    );
                    fields.id("ConvertedAccountId", account);
                    fields.id("ConvertedContactId", contact);
                    if self.rng.random_bool(0.6) {
                        let opportunity = self.reference(store, "Opportunity");
                        fields.id("ConvertedOpportunityId", opportunity);
                    }
                } else {
                    fields.json("IsConverted", "false");
                }
            }
            "Opportunity" => {
                let account = self.reference(store, "Account");
                fields.id("AccountId", account);
                fields.json("HasOpportunityLineItem", "false");
            }
            "Case" => {
                fields.json("IsEscalated", self.rng.random_bool(0.05).to_string());
                if self.rng.random_bool(0.9) {
                    let account = self.reference(store, "Account");
                    fields.id("AccountId", account);
                }
                if self.rng.random_bool(0.8) {
                    let contact = self.reference(store, "Contact");
                    fields.id("ContactId", contact);
                }
                self.parent(store, fields, "Case", "ParentId", number, 0.05);
            }
            _ => {
                if self.rng.random_bool(0.95) {
                    let account = self.reference(store, "Account");
                    fields.id("Account__c", account);
                }
            }
        }
    }

    /// A parent of the same object, which may have a larger id. A record's
    /// rank (its number modulo 4) is above its parent's: no circles.
    fn parent(
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
        .position(|field| field.has(super::schema::Mark::AutoNumber))
        .map(|at| at as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::moment::SECOND;
    use crate::salesforce::schema::Schema;

    const START: Millis = 1_780_000_123_456;

    fn org(seed: u64, records: u64) -> Store {
        let mut store = Store::new(Schema::standard());
        fill(&mut store, seed, records, START, &[]);
        store
    }

    #[test]
    fn the_counts_add_up() {
        for records in [0, 1, 2, 7, 199, 200, 1_000, 20_000] {
            let sum: u64 = shares(records).iter().map(|share| share.1).sum();
            assert_eq!(sum, records);
        }
        let store = org(1, 1_000);
        let live: u64 = (0..store.schema.objects.len())
            .map(|object| store.table(object).live())
            .sum();
        let binned: u64 = (0..store.schema.objects.len())
            .map(|object| store.table(object).binned())
            .sum();
        assert_eq!(live, 1_000);
        assert!(binned >= 5, "{binned}");
    }

    #[test]
    fn a_seed_is_an_org() {
        let (one, same, other) = (org(1, 500), org(1, 500), org(2, 500));
        let mut differs = false;
        for object in 0..one.schema.objects.len() {
            assert_eq!(one.table(object).rows(), same.table(object).rows());
            differs |= one.table(object).rows() != other.table(object).rows();
        }
        assert!(differs);
    }

    #[test]
    fn the_traps_are_there() {
        let store = org(42, 20_000);
        let contacts = store.schema.number("Contact").unwrap();
        let described = &store.schema.objects[contacts];
        let rows = store.table(contacts).rows();
        let number = |name: &str| described.number(name).unwrap();

        let newest = rows.values().map(|row| row.modstamp).max().unwrap();
        let oldest = rows.values().map(|row| row.created).min().unwrap();
        assert!(newest <= START - 5 * MINUTE && newest > START - 3 * DAY);
        assert!(newest - oldest > 700 * DAY);
        assert!(
            rows.values()
                .all(|row| row.created <= row.modified && row.modified <= row.modstamp)
        );
        assert!(rows.values().all(|row| row.modstamp % SECOND == 0));

        let mut stamps: Vec<Millis> = rows.values().map(|row| row.modstamp).collect();
        stamps.sort_unstable();
        let most = stamps
            .chunk_by(|a, b| a == b)
            .map(<[Millis]>::len)
            .max()
            .unwrap();
        assert!(most >= 100, "{most} rows share a stamp");

        let accounts = store.schema.number("Account").unwrap();
        let account = |row: &Record| row.reference(number("AccountId"));
        let gone = rows
            .values()
            .filter_map(account)
            .filter(|id| store.table(accounts).row(*id).is_none())
            .count();
        let linked = rows.values().filter_map(account).count();
        assert!(gone > 0 && gone * 200 < linked, "{gone} of {linked} dangle");

        let text = |row: &Record, name: &str| row.text(number(name)).map(|text| text.into_owned());
        let emails: Vec<String> = rows.values().filter_map(|row| text(row, "Email")).collect();
        let different: std::collections::HashSet<&String> = emails.iter().collect();
        assert!(different.len() < emails.len(), "duplicates");
        let texts: Vec<String> = rows
            .values()
            .filter_map(|row| text(row, "Description"))
            .collect();
        assert!(texts.iter().any(|text| text.chars().count() == 32_000));
        assert!(texts.iter().any(|text| text.contains("\r\n")));
        assert!(texts.iter().any(|text| text.contains('👍')));
        assert!(rows.values().any(|row| row.deleted));
        assert!(rows.values().any(|row| {
            row.reference(number("ReportsToId"))
                .is_some_and(|id| id > row.id)
        }));
    }
}
