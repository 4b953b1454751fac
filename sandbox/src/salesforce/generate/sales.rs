//! What sales people add: products and prices, line items, roles, campaigns.

use rand::Rng;

use super::maker::{Maker, Times};
use crate::salesforce::id::Id;
use crate::salesforce::moment::{self, DAY};
use crate::salesforce::people::{self, Fields};
use crate::salesforce::record::double;
use crate::salesforce::store::Store;
use crate::salesforce::words::{self, one};

/// Words of product names.
const PRODUCT: [&str; 8] = [
    "Generator",
    "Générateur",
    "SLA: Gold",
    "Installation",
    "Wartung – Büro",
    "Panel \"X\"",
    "Propeller 5'",
    "保守サービス",
];

impl Maker {
    /// The values of a record of sales, true if the object is one of these.
    pub fn sales(
        &mut self,
        store: &Store,
        fields: &mut Fields<'_>,
        name: &str,
        number: u64,
        times: &Times,
    ) -> bool {
        match name {
            "Product2" => self.product(fields, number),
            "PricebookEntry" => self.price(store, fields, number),
            "OpportunityLineItem" => self.line_item(store, fields, number),
            "OpportunityContactRole" => {
                let (opportunity, contact) = (
                    self.present(store, "Opportunity"),
                    self.present(store, "Contact"),
                );
                fields.id("OpportunityId", opportunity);
                fields.id("ContactId", contact);
                fields.pick(&mut self.rng, "Role", 0.8);
                fields.json("IsPrimary", self.rng.random_bool(0.3).to_string());
            }
            "AccountContactRelation" => self.relation(store, fields, number),
            "Campaign" => self.campaign(store, fields, number, times),
            "CampaignMemberStatus" => {
                let campaign = number.div_ceil(2);
                fields.id("CampaignId", Some(Id::numbered("701", campaign)));
                let first = number % 2 == 1;
                fields.text("Label", if first { "Sent" } else { "Responded" });
                fields.json("SortOrder", if first { "1" } else { "2" });
                fields.json("IsDefault", first.to_string());
                fields.json("HasResponded", (!first).to_string());
            }
            "CampaignMember" => {
                let campaign = self.present(store, "Campaign");
                fields.id("CampaignId", campaign);
                if self.rng.random_bool(0.5) {
                    let lead = self.present(store, "Lead");
                    fields.id("LeadId", lead);
                } else {
                    let contact = self.present(store, "Contact");
                    fields.id("ContactId", contact);
                }
                fields.pick(&mut self.rng, "Status", 1.0);
            }
            "Invoice_Line__c" => {
                let (invoice, product) = (
                    self.present(store, "Invoice__c"),
                    self.reference(store, "Product2"),
                );
                fields.id("Invoice__c", invoice);
                fields.id("Product__c", product);
                fields.text("External_Id__c", &format!("LINE-{number}"));
                let quantity = f64::from(self.rng.random_range(1..4_000)) / 4.0;
                fields.json("Quantity__c", double(quantity));
                fields.money(&mut self.rng, "Unit_Price__c", 9_000.0);
                if self.rng.random_bool(0.3) {
                    fields.json(
                        "Discount__c",
                        double(f64::from(self.rng.random_range(0..100))),
                    );
                }
            }
            _ => return false,
        }
        fields.pick(&mut self.rng, "CurrencyIsoCode", 1.0);
        true
    }

    fn product(&mut self, fields: &mut Fields<'_>, number: u64) {
        let rng = &mut self.rng;
        let name = format!("{} {number}", one(rng, &PRODUCT));
        fields.text("Name", &name);
        fields.text("ProductCode", &format!("P-{number:04}"));
        fields.text("StockKeepingUnit", &format!("SKU{number:06}"));
        fields.json("IsActive", rng.random_bool(0.9).to_string());
        fields.json("IsArchived", "false");
        fields.pick(rng, "Family", 0.8);
        fields.pick(rng, "QuantityUnitOfMeasure", 0.5);
        if rng.random_bool(0.6) {
            fields.text("Description", &words::text(rng, 2));
        }
    }

    /// Each product has a standard price first; then some have others.
    fn price(&mut self, store: &Store, fields: &mut Fields<'_>, number: u64) {
        let products = self.count(store, "Product2");
        let product = (number - 1) % products.max(1) + 1;
        let book = if number <= products { 1 } else { 2 };
        fields.id("Pricebook2Id", Some(Id::numbered("01s", book)));
        fields.id("Product2Id", Some(Id::numbered("01t", product)));
        fields.money(&mut self.rng, "UnitPrice", 50_000.0);
        fields.json("IsActive", "true");
        fields.json("UseStandardPrice", "false");
        fields.json("IsArchived", "false");
    }

    /// Every third opportunity has line items.
    fn line_item(&mut self, store: &Store, fields: &mut Fields<'_>, number: u64) {
        let third = self.count(store, "Opportunity") / 3;
        let opportunity = (number - 1) % third.max(1) * 3 + 3;
        let there = store
            .schema
            .number("Opportunity")
            .is_some_and(|object| self.is_live(object, opportunity));
        let opportunity = if there {
            Some(Id::numbered("006", opportunity))
        } else {
            self.present(store, "Opportunity")
        };
        fields.id("OpportunityId", opportunity);
        let entry = self.present(store, "PricebookEntry");
        fields.id("PricebookEntryId", entry);
        let quantity = f64::from(self.rng.random_range(1..400)) / 4.0;
        fields.json("Quantity", double(quantity));
        fields.money(&mut self.rng, "UnitPrice", 50_000.0);
        fields.json("SortOrder", (number % 9 + 1).to_string());
        if self.rng.random_bool(0.4) {
            let date = people::date(&mut self.rng, self.newest, 300);
            fields.text("ServiceDate", &date);
            fields.text("Description", one(&mut self.rng, &words::SUBJECT));
        }
    }

    /// The first half tells which account a contact belongs to, the others
    /// to which ones besides.
    fn relation(&mut self, store: &Store, fields: &mut Fields<'_>, number: u64) {
        let contact = self.present(store, "Contact");
        let own = contact.and_then(|contact| {
            let object = store.schema.number("Contact")?;
            let account = store.schema.objects[object].number("AccountId")?;
            store.truth(object, contact)?.reference(account)
        });
        let direct = number.is_multiple_of(2) && own.is_some();
        let account = if direct {
            own
        } else {
            self.present(store, "Account")
        };
        fields.id("ContactId", contact);
        fields.id("AccountId", account);
        fields.json("IsDirect", (direct || account == own).to_string());
        fields.json("IsActive", self.rng.random_bool(0.9).to_string());
        if self.rng.random_bool(0.6) {
            let roles: Vec<&str> = ["Business User", "Decision Maker", "Evaluator", "Other"]
                .into_iter()
                .filter(|_| self.rng.random_bool(0.4))
                .collect();
            fields.text("Roles", &roles.join(";"));
        }
    }

    fn campaign(&mut self, store: &Store, fields: &mut Fields<'_>, number: u64, times: &Times) {
        let rng = &mut self.rng;
        let name = format!(
            "{} {} {number}",
            one(
                rng,
                &[
                    "Messe München",
                    "Webinar",
                    "Dreamforce",
                    "Été",
                    "Newsletter"
                ]
            ),
            2024 + number % 3
        );
        fields.text("Name", &name);
        fields.pick(rng, "Type", 0.9);
        fields.pick(rng, "Status", 1.0);
        fields.text("StartDate", &moment::print_date(times.created + 20 * DAY));
        fields.text("EndDate", &moment::print_date(times.created + 50 * DAY));
        fields.json("IsActive", rng.random_bool(0.5).to_string());
        fields.money(rng, "BudgetedCost", 90_000.0);
        if rng.random_bool(0.5) {
            fields.json(
                "ExpectedResponse",
                double(f64::from(rng.random_range(0..2_000)) / 100.0),
            );
        }
        for name in [
            "NumberOfLeads",
            "NumberOfConvertedLeads",
            "NumberOfContacts",
            "NumberOfResponses",
            "NumberOfOpportunities",
            "NumberOfWonOpportunities",
        ] {
            fields.json(name, "0");
        }
        fields.json("AmountAllOpportunities", "0.0");
        fields.json("AmountWonOpportunities", "0.0");
        self.parent(store, fields, "Campaign", "ParentId", number, 0.2);
    }
}
