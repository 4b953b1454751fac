//! Values that the org fills in by itself: defaults, names put together from
//! their parts, what a stage or a status implies.

use super::id::Id;
use super::moment::{self, Millis};
use super::record::{Record, Values, double, quote};
use super::related;
use super::schema::{Mark, Object, Source, Type};
use super::store::Store;
use super::write::When;

/// A stage of an opportunity and what it implies: probability, closed, won,
/// forecast category and its label.
pub const STAGES: [(&str, f64, bool, bool, &str, &str); 10] = [
    ("Prospecting", 10.0, false, false, "Pipeline", "Pipeline"),
    ("Qualification", 10.0, false, false, "Pipeline", "Pipeline"),
    ("Needs Analysis", 20.0, false, false, "Pipeline", "Pipeline"),
    (
        "Value Proposition",
        50.0,
        false,
        false,
        "Pipeline",
        "Pipeline",
    ),
    (
        "Id. Decision Makers",
        60.0,
        false,
        false,
        "Pipeline",
        "Pipeline",
    ),
    (
        "Perception Analysis",
        70.0,
        false,
        false,
        "Pipeline",
        "Pipeline",
    ),
    (
        "Proposal/Price Quote",
        75.0,
        false,
        false,
        "BestCase",
        "Best Case",
    ),
    (
        "Negotiation/Review",
        90.0,
        false,
        false,
        "BestCase",
        "Best Case",
    ),
    ("Closed Won", 100.0, true, true, "Closed", "Closed"),
    ("Closed Lost", 0.0, true, false, "Omitted", "Omitted"),
];

/// What a new record has that nobody set.
pub fn defaults(store: &mut Store, object: usize, values: &mut Values, when: When) {
    let described = &store.schema.objects[object];
    let user = quote(&when.user.to_string());
    let mut numbered = None;
    let mut set = Vec::new();
    for (at, field) in described.fields.iter().enumerate() {
        let number = at as u16;
        if field.source != Source::Stored || values.json(number).is_some() {
            continue;
        }
        if field.has(Mark::AutoNumber) {
            numbered = Some(number);
        } else if let Some(default) = &field.default {
            set.push((number, quote(default)));
        } else if matches!(
            field.name.as_str(),
            "CreatedById" | "LastModifiedById" | "OwnerId"
        ) {
            set.push((number, user.clone()));
        } else if field.kind == Type::Boolean && field.has(Mark::Defaulted) {
            set.push((number, field.has(Mark::DefaultTrue).to_string()));
        }
    }
    for (number, json) in set {
        values.set_json(number, json);
    }
    if let Some(field) = numbered {
        let name = store.schema.objects[object].name.clone();
        let number = store.table_mut(object).new_name();
        values.set_text(field, &auto_name(&name, number));
    }
}

/// The text of an autonumber.
pub fn auto_name(object: &str, number: u64) -> String {
    match object {
        "Case" => format!("{:08}", 1_000 + number),
        "Invoice_Line__c" => format!("LINE-{number:07}"),
        _ => format!("INV-{number:06}"),
    }
}

/// Who modified the record.
pub fn modifier(store: &Store, object: usize, values: &mut Values, user: Id) {
    if let Some(field) = store.schema.objects[object].number("LastModifiedById") {
        values.set_json(field, quote(&user.to_string()));
    }
}

/// What follows from other values of the record.
pub fn dependents(
    store: &Store,
    object: usize,
    values: &mut Values,
    before: Option<&Record>,
    stamp: Millis,
) {
    let described = &store.schema.objects[object];
    person_name(described, values);
    match described.name.as_str() {
        "Opportunity" => opportunity(described, values, before, stamp),
        "Case" => case(store, described, values, stamp),
        "Task" | "Event" => related::activity(store, described, values, stamp),
        "OpportunityLineItem" => related::line_item(store, described, values),
        "PricebookEntry" => related::price(store, described, values),
        "CampaignMember" => related::member(store, described, values, stamp),
        "Account" => related::person(described, values),
        _ => {}
    }
}

/// A name put together from its parts.
pub fn person_name(described: &Object, values: &mut Values) {
    let (Some(name), Some(first), Some(last)) = (
        described.number("Name"),
        described.number("FirstName"),
        described.number("LastName"),
    ) else {
        return;
    };
    let parts: Vec<String> = [first, last]
        .into_iter()
        .filter_map(|part| values.text(part).map(|text| text.into_owned()))
        .collect();
    if !parts.is_empty() {
        values.set_text(name, &parts.join(" "));
    }
}

fn opportunity(described: &Object, values: &mut Values, before: Option<&Record>, stamp: Millis) {
    let number = |name: &str| described.number(name).unwrap_or(u16::MAX);
    let stage = values
        .text(number("StageName"))
        .map(|text| text.into_owned());
    let known = STAGES
        .iter()
        .find(|known| Some(known.0) == stage.as_deref());
    let moved = before.is_none_or(|before| {
        before
            .text(number("StageName"))
            .map(|text| text.into_owned())
            != stage
    });
    if let (Some((_, probability, closed, won, category, label)), true) = (known, moved) {
        let given = before.is_none() && values.json(number("Probability")).is_some();
        if !given {
            values.set_json(number("Probability"), double(*probability));
        }
        values.set_json(number("IsClosed"), closed.to_string());
        values.set_json(number("IsWon"), won.to_string());
        values.set_text(number("ForecastCategory"), category);
        values.set_text(number("ForecastCategoryName"), label);
        if before.is_some() {
            values.set_text(number("LastStageChangeDate"), &moment::print(stamp));
        }
    }
    let read = |values: &Values, name: &str| {
        values
            .json(number(name))
            .and_then(|json| json.parse::<f64>().ok())
    };
    if let (Some(amount), Some(probability)) = (read(values, "Amount"), read(values, "Probability"))
    {
        let expected = (amount * probability).round() / 100.0;
        values.set_json(number("ExpectedRevenue"), double(expected));
    } else {
        values.set_json(number("ExpectedRevenue"), "null");
    }
    let closes = values
        .text(number("CloseDate"))
        .map(|text| text.into_owned());
    if let Some((year, rest)) = closes.as_deref().and_then(|date| date.split_once('-'))
        && let Some(month) = rest.get(..2).and_then(|month| month.parse::<u32>().ok())
    {
        let quarter = (month.max(1) - 1) / 3 + 1;
        values.set_json(number("FiscalQuarter"), quarter.to_string());
        values.set_json(
            number("FiscalYear"),
            year.trim_start_matches('0').to_owned(),
        );
        values.set_text(number("Fiscal"), &format!("{year} {quarter}"));
    }
}

fn case(store: &Store, described: &Object, values: &mut Values, stamp: Millis) {
    let number = |name: &str| described.number(name).unwrap_or(u16::MAX);
    let closed = values.text(number("Status")).as_deref() == Some("Closed");
    values.set_json(number("IsClosed"), closed.to_string());
    if !closed {
        values.set_json(number("ClosedDate"), "null");
    } else if values.json(number("ClosedDate")).is_none() {
        values.set_text(number("ClosedDate"), &moment::print(stamp));
    }
    let Some(contacts) = store.schema.number("Contact") else {
        return;
    };
    let contact = values
        .text(number("ContactId"))
        .and_then(|text| Id::parse(&text))
        .and_then(|id| store.truth(contacts, id));
    for (own, theirs) in [
        ("ContactPhone", "Phone"),
        ("ContactMobile", "MobilePhone"),
        ("ContactEmail", "Email"),
        ("ContactFax", "Fax"),
    ] {
        let json = contact
            .and_then(|contact| contact.json(store.schema.objects[contacts].number(theirs)?))
            .unwrap_or("null");
        values.set_json(number(own), json);
    }
}
