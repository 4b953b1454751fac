//! Who works in a generated org: users, their profiles, and the queues that
//! own what nobody has taken yet.

use rand::Rng;
use rand::rngs::StdRng;

use super::auth;
use super::id::Id;
use super::moment::{self, Millis, SECOND};
use super::people::{self, Fields};
use super::record::Record;
use super::store::Store;
use super::words::{self, DEPARTMENT, FIRST, LAST, TITLE, one};

/// Names of the queues.
const QUEUES: [&str; 4] = [
    "Support Tier 1",
    "Support Tier 2",
    "Inside Sales",
    "Büro München",
];
/// Names of the profiles.
const PROFILES: [&str; 3] = [
    "System Administrator",
    "Standard User",
    "Minimum Access - Salesforce",
];

/// Adds the next profile, queue or user; the first user is who calls.
pub fn add(store: &mut Store, rng: &mut StdRng, object: usize, number: u64, founded: Millis) {
    let at = moment::second(founded) + number as i64 * SECOND;
    let described = &store.schema.objects[object];
    let mut fields = Fields::of(described);
    let named = |names: &'static [&'static str]| names[(number as usize - 1) % names.len()];
    match described.name.as_str() {
        "Profile" => {
            fields.text("Name", named(&PROFILES));
            fields.text("UserType", "Standard");
        }
        "Group" => {
            fields.text("Name", named(&QUEUES));
            fields.text("DeveloperName", &format!("Queue_{number}"));
            fields.text("Type", "Queue");
            fields.json("DoesSendEmailToMembers", "false");
        }
        _ => user(&mut fields, rng, number),
    }
    let me = Some(auth::user());
    fields.id("CreatedById", me);
    fields.id("LastModifiedById", me);
    let values = fields.values.pack();
    let prefix = described.prefix.clone();
    let id = Id::numbered(&prefix, store.table_mut(object).new_number());
    let record = Record {
        id,
        created: at,
        modified: at,
        modstamp: at,
        deleted: false,
        values,
    };
    store.put(object, id, Some(record), at, at);
}

fn user(fields: &mut Fields<'_>, rng: &mut StdRng, number: u64) {
    let me = number == 1;
    let (first, last) = if me {
        ("Admin", "Sandbox")
    } else {
        (one(rng, &FIRST), one(rng, &LAST))
    };
    fields.text("FirstName", first);
    fields.text("LastName", last);
    fields.text("Name", &format!("{first} {last}"));
    let local = format!("{}.{}{number}", words::ascii(first), words::ascii(last));
    let username = if me {
        auth::USERNAME.to_owned()
    } else {
        format!("{local}@org.example.com")
    };
    fields.text("Username", &username);
    // Several users share an address.
    let shared = number % 25 == 3;
    let email = if shared {
        "sales@example.com".to_owned()
    } else {
        format!("{local}@example.com")
    };
    fields.text("Email", &email);
    fields.text("Alias", &local.chars().take(8).collect::<String>());
    fields.text(
        "CommunityNickname",
        &format!("{}{number}", words::ascii(first)),
    );
    fields.json("IsActive", (me || rng.random_bool(0.9)).to_string());
    fields.pick(rng, "TimeZoneSidKey", 1.0);
    fields.pick(rng, "LocaleSidKey", 1.0);
    fields.text("EmailEncodingKey", "UTF-8");
    fields.text("LanguageLocaleKey", "en_US");
    fields.text("UserType", "Standard");
    let profile = if me {
        1
    } else {
        rng.random_range(1..=PROFILES.len() as u64)
    };
    fields.id("ProfileId", Some(Id::numbered("00e", profile)));
    if number > 3 {
        fields.id(
            "ManagerId",
            Some(Id::numbered("005", rng.random_range(1..number))),
        );
    }
    if rng.random_bool(0.7) {
        fields.text("Title", one(rng, &TITLE));
        fields.text("Department", one(rng, &DEPARTMENT));
        fields.text("Phone", &people::phone(rng));
    }
    fields.json("ReceivesInfoEmails", "false");
    fields.json("ReceivesAdminInfoEmails", me.to_string());
}
