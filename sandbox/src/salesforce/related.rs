//! Values that follow from the records that a record refers to: what an
//! activity is about, what a line item costs, who is member of a campaign.

use std::borrow::Cow;

use super::id::Id;
use super::moment::{self, DAY, MINUTE, Millis};
use super::record::{Record, Values, double, quote};
use super::schema::Object;
use super::store::Store;

/// Reads and writes the values of a record by the names of its fields.
struct Named<'a> {
    object: &'a Object,
    values: &'a mut Values,
}

impl Named<'_> {
    fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values.text(self.object.number(name)?)
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.values.json(self.object.number(name)?)?.parse().ok()
    }

    fn is(&self, name: &str) -> bool {
        self.object
            .number(name)
            .is_some_and(|number| self.values.json(number) == Some("true"))
    }

    fn id(&self, name: &str) -> Option<Id> {
        Id::parse(&self.text(name)?)
    }

    fn set(&mut self, name: &str, json: impl Into<String>) {
        if let Some(number) = self.object.number(name) {
            self.values.set_json(number, json);
        }
    }

    fn set_text(&mut self, name: &str, text: Option<&str>) {
        self.set(name, text.map_or("null".to_owned(), quote));
    }
}

/// The record that an id names, with its object.
fn found(store: &Store, id: Option<Id>) -> Option<(&Object, &Record)> {
    let id = id?;
    let object = store.schema.by_prefix(id.prefix())?;
    Some((&store.schema.objects[object], store.truth(object, id)?))
}

/// Tasks and events: the account they belong to, when they are, whether done.
pub fn activity(store: &Store, object: &Object, values: &mut Values, stamp: Millis) {
    let mut named = Named { object, values };
    let account = [named.id("WhatId"), named.id("WhoId")]
        .into_iter()
        .find_map(|id| {
            let (of, record) = found(store, id)?;
            if of.name == "Account" {
                return Some(record.id);
            }
            let field = of.number("AccountId").or(of.number("Account__c"))?;
            record.reference(field)
        });
    named.set_text("AccountId", account.map(|id| id.to_string()).as_deref());
    if object.name == "Task" {
        let done = named.text("Status").as_deref() == Some("Completed");
        named.set("IsClosed", done.to_string());
        let high = named.text("Priority").as_deref() == Some("High");
        named.set("IsHighPriority", high.to_string());
        match (done, named.text("CompletedDateTime").is_some()) {
            (true, false) => named.set_text("CompletedDateTime", Some(&moment::print(stamp))),
            (false, _) => named.set("CompletedDateTime", "null"),
            _ => {}
        }
        return;
    }
    let read = |text: Option<Cow<'_, str>>| text.and_then(|text| moment::parse(&text));
    let start = read(named.text("StartDateTime")).or(read(named.text("ActivityDateTime")));
    let Some(start) = start else { return };
    let minutes = match (
        named.number("DurationInMinutes"),
        read(named.text("EndDateTime")),
    ) {
        (Some(minutes), _) => minutes as i64,
        (None, Some(end)) => (end - start) / MINUTE,
        (None, None) => 0,
    };
    named.set("DurationInMinutes", minutes.to_string());
    named.set_text("StartDateTime", Some(&moment::print(start)));
    named.set_text("ActivityDate", Some(&moment::print_date(start)));
    // A day-long event ends on its last day, others at their last minute.
    let (end, at) = if named.is("IsAllDayEvent") {
        (start + (minutes * MINUTE - DAY).max(0), None)
    } else {
        (start + minutes * MINUTE, Some(moment::print(start)))
    };
    named.set_text("EndDateTime", Some(&moment::print(end)));
    named.set_text("EndDate", Some(&moment::print_date(end)));
    named.set_text("ActivityDateTime", at.as_deref());
}

/// The product, its name and code, and what a line costs.
pub fn line_item(store: &Store, object: &Object, values: &mut Values) {
    let mut named = Named { object, values };
    if let Some((of, entry)) = found(store, named.id("PricebookEntryId")) {
        let product = of
            .number("Product2Id")
            .and_then(|field| entry.reference(field));
        named.set_text("Product2Id", product.map(|id| id.to_string()).as_deref());
        let price = of.number("UnitPrice").and_then(|field| entry.json(field));
        named.set("ListPrice", price.unwrap_or("null"));
        if named.number("UnitPrice").is_none() {
            named.set("UnitPrice", price.unwrap_or("null"));
        }
    }
    if let Some((of, product)) = found(store, named.id("Product2Id")) {
        let text = |name: &str| of.number(name).and_then(|field| product.text(field));
        let code = text("ProductCode");
        named.set_text("ProductCode", code.as_deref());
        let deal = found(store, named.id("OpportunityId"))
            .and_then(|(of, deal)| deal.text(of.number("Name")?))
            .unwrap_or_default();
        let name = format!("{deal} {}", text("Name").unwrap_or_default());
        named.set_text("Name", Some(name.trim()));
    }
    if let (Some(quantity), Some(price)) = (named.number("Quantity"), named.number("UnitPrice")) {
        let total = (quantity * price * 100.0).round() / 100.0;
        named.set("TotalPrice", double(total));
    }
}

/// The name and code of the product that a price is of.
pub fn price(store: &Store, object: &Object, values: &mut Values) {
    let mut named = Named { object, values };
    if let Some((of, product)) = found(store, named.id("Product2Id")) {
        for (own, theirs) in [("Name", "Name"), ("ProductCode", "ProductCode")] {
            let text = of.number(theirs).and_then(|field| product.text(field));
            named.set_text(own, text.as_deref());
        }
    }
}

/// Who a member of a campaign is, and whether it answered.
pub fn member(store: &Store, object: &Object, values: &mut Values, stamp: Millis) {
    let mut named = Named { object, values };
    let who = named.id("ContactId").or(named.id("LeadId"));
    let kind = named.id("ContactId").map_or("Lead", |_| "Contact");
    named.set_text("Type", Some(kind));
    named.set_text("LeadOrContactId", who.map(|id| id.to_string()).as_deref());
    if let Some((of, record)) = found(store, who) {
        let owner = of.number("OwnerId").and_then(|field| record.text(field));
        named.set_text("LeadOrContactOwnerId", owner.as_deref());
        let company = match of.number("AccountId") {
            Some(field) => found(store, record.reference(field))
                .and_then(|(of, account)| account.text(of.number("Name")?)),
            None => of.number("Company").and_then(|field| record.text(field)),
        };
        named.set_text("CompanyOrAccount", company.as_deref());
    }
    let responded = named.text("Status").as_deref() == Some("Responded");
    named.set("HasResponded", responded.to_string());
    if responded && named.text("FirstRespondedDate").is_none() {
        named.set_text("FirstRespondedDate", Some(&moment::print_date(stamp)));
    }
}

/// An account with a last name is a person.
pub fn person(object: &Object, values: &mut Values) {
    let mut named = Named { object, values };
    let person = named.text("LastName").is_some();
    named.set("IsPersonAccount", person.to_string());
}
