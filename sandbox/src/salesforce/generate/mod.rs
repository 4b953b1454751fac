//! An org of any size from a seed: the same seed gives the same records,
//! with times that end before the day of the start.

mod core;
mod files;
mod maker;
mod sales;
mod service;
mod setup;

use std::collections::HashMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::moment::{self, DAY, MINUTE, Millis};
use super::store::Store;
use super::team;
use maker::{Count, Maker};

/// Shares of the objects among the records that are neither users nor
/// set-up; contacts take the rest.
const SHARES: [(&str, f64); 5] = [
    ("Account", 0.18),
    ("Lead", 0.14),
    ("Opportunity", 0.12),
    ("Case", 0.11),
    ("Invoice__c", 0.05),
];

/// The same in an org that is large enough to have everything.
const ALL_SHARES: [(&str, f64); 25] = [
    ("Account", 0.13),
    ("Lead", 0.10),
    ("Opportunity", 0.09),
    ("Case", 0.08),
    ("Invoice__c", 0.035),
    ("Campaign", 0.002),
    ("Product2", 0.008),
    ("PricebookEntry", 0.012),
    ("OpportunityLineItem", 0.035),
    ("OpportunityContactRole", 0.02),
    ("AccountContactRelation", 0.015),
    ("CampaignMember", 0.015),
    ("Invoice_Line__c", 0.015),
    ("CaseComment", 0.03),
    ("EmailMessage", 0.03),
    ("CaseHistory", 0.01),
    ("Task", 0.06),
    ("Event", 0.02),
    ("Note", 0.006),
    ("Attachment", 0.006),
    ("ContentDocument", 0.008),
    ("ContentVersion", 0.009),
    ("ContentDocumentLink", 0.014),
    ("ContentNote", 0.002),
    ("CampaignMemberStatus", 0.0),
];

/// From this size on an org has records of every object.
const LARGE: u64 = 1_000;

/// The order in which records are made: what is looked up while others are
/// made comes first.
const ORDER: [&str; 33] = [
    "Organization",
    "UserRole",
    "RecordType",
    "OpportunityStage",
    "CaseStatus",
    "Pricebook2",
    "GroupMember",
    "Account",
    "Contact",
    "Lead",
    "Campaign",
    "CampaignMemberStatus",
    "Opportunity",
    "Case",
    "Invoice__c",
    "Product2",
    "PricebookEntry",
    "OpportunityLineItem",
    "OpportunityContactRole",
    "AccountContactRelation",
    "CampaignMember",
    "Invoice_Line__c",
    "CaseComment",
    "EmailMessage",
    "CaseHistory",
    "Task",
    "Event",
    "Note",
    "Attachment",
    "ContentDocument",
    "ContentVersion",
    "ContentDocumentLink",
    "ContentNote",
];

/// Objects whose records are told by their number, so that none is deleted.
const WHOLE: [&str; 14] = [
    "Organization",
    "UserRole",
    "RecordType",
    "OpportunityStage",
    "CaseStatus",
    "Pricebook2",
    "GroupMember",
    "CampaignMemberStatus",
    "Campaign",
    "Product2",
    "PricebookEntry",
    "ContentDocument",
    "ContentVersion",
    "ContentNote",
];

/// How long ago the oldest record was made.
const SPAN: Millis = 730 * DAY;

/// One record in so many has a text as long as its field takes.
const LONG_TEXTS: u64 = 5_000;

/// References to records that are gone, in a thousand.
const DANGLING: u32 = 2;

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
    let large = records >= LARGE;
    let mut rest = records - users - set_up.iter().map(|count| count.1).sum::<u64>();
    counts.extend(set_up);
    counts.push(("User", users));
    if large {
        counts.extend(setup::COUNTS);
        rest -= setup::COUNTS.iter().map(|count| count.1).sum::<u64>();
    }
    let mut contacts = rest;
    let shares: &[_] = if large { &ALL_SHARES } else { &SHARES };
    for (name, share) in shares {
        let count = match *name {
            "CampaignMemberStatus" => 2 * (rest as f64 * 0.002) as u64,
            _ => (rest as f64 * share) as u64,
        };
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
        persons: HashMap::new(),
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
        let live = count(name);
        maker.counts[object] = if WHOLE.contains(&name) {
            Count {
                live,
                binned: vec![false; live as usize],
            }
        } else {
            maker.bin(live)
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::moment::SECOND;
    use crate::salesforce::record::Record;
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
