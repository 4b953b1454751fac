//! References and states of the objects at the heart of an org: accounts,
//! contacts, leads, opportunities, cases and invoices.

use rand::Rng;

use super::SPAN;
use super::maker::{Maker, Person};
use super::setup::record_type;
use crate::salesforce::id::Id;
use crate::salesforce::moment;
use crate::salesforce::people::{self, Fields};
use crate::salesforce::store::Store;
use crate::salesforce::words::{FIRST, LAST, one};

impl Maker {
    /// Sets what a record refers to.
    pub fn links(&mut self, store: &Store, fields: &mut Fields<'_>, name: &str, number: u64) {
        match name {
            "Account" => {
                if !self.person(store, fields, number) {
                    self.parent(store, fields, "Account", "ParentId", number, 0.12);
                }
            }
            "Contact" if self.persons.contains_key(&number) => {
                let person = self.persons[&number].clone();
                fields.id("AccountId", Some(Id::numbered("001", person.account)));
                fields.text("FirstName", person.first);
                fields.text("LastName", person.last);
                fields.text("Email", &person.email);
                fields.json("Salutation", "null");
                fields.json("IsPersonAccount", "true");
            }
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
                let lines = self.count(store, "OpportunityLineItem");
                let has = number.is_multiple_of(3) && number / 3 <= lines;
                fields.json("HasOpportunityLineItem", has.to_string());
                if has {
                    fields.id("Pricebook2Id", Some(Id::numbered("01s", 1)));
                }
                if self.rng.random_bool(0.2) {
                    let campaign = self.present(store, "Campaign");
                    fields.id("CampaignId", campaign);
                }
                let kind = self.rng.random_range(4..6);
                self.record_type(store, fields, kind);
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
                let kind = self.rng.random_range(2..4);
                self.record_type(store, fields, kind);
            }
            _ => {
                if self.rng.random_bool(0.95) {
                    let account = self.reference(store, "Account");
                    fields.id("Account__c", account);
                }
            }
        }
        fields.pick(&mut self.rng, "CurrencyIsoCode", 1.0);
    }

    /// Sets the record type, in an org that has some.
    fn record_type(&mut self, store: &Store, fields: &mut Fields<'_>, at: usize) {
        if self.count(store, "RecordType") > at as u64 {
            fields.id("RecordTypeId", Some(record_type(at)));
        }
    }

    /// Makes one in twenty accounts a person, with a contact of its own; an
    /// account that is no person gets its record type.
    fn person(&mut self, store: &Store, fields: &mut Fields<'_>, number: u64) -> bool {
        if self.count(store, "RecordType") == 0 {
            return false;
        }
        let contact = 6 + number / 20 * 3;
        let there = |name: &str, number: u64| {
            store
                .schema
                .number(name)
                .is_some_and(|object| self.is_live(object, number))
        };
        let chosen = number % 20 == 9 && there("Account", number) && there("Contact", contact);
        self.record_type(store, fields, usize::from(chosen));
        fields.json("IsPersonAccount", chosen.to_string());
        if !chosen {
            return false;
        }
        let rng = &mut self.rng;
        let (first, last) = (one(rng, &FIRST), one(rng, &LAST));
        let email = people::email(rng, first, last, 500_000_000 + number);
        fields.text("FirstName", first);
        fields.text("LastName", last);
        fields.text("PersonEmail", &email);
        fields.pick(rng, "PersonLeadSource", 0.5);
        fields.json("PersonHasOptedOutOfEmail", rng.random_bool(0.1).to_string());
        fields.json("PersonDoNotCall", "false");
        fields.id("PersonContactId", Some(Id::numbered("003", contact)));
        let person = Person {
            account: number,
            first,
            last,
            email,
        };
        self.persons.insert(contact, person);
        true
    }
}
