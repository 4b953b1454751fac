//! Makes the values of records: what a user might have typed.

use rand::Rng;
use rand::rngs::StdRng;

use super::derive::STAGES;
use super::id::Id;
use super::moment::{self, DAY, Millis};
use super::record::{Values, double, quote};
use super::schema::Object;
use super::words::{
    self, CITY, COMPANY, DEPARTMENT, FIRST, FORM, LAST, STREET, SUBJECT, TITLE, TRADE, one,
};

/// Sets values of one object by the names of its fields.
pub struct Fields<'a> {
    object: &'a Object,
    /// The values set so far.
    pub values: Values,
}

impl Fields<'_> {
    /// Nothing set yet, of this object.
    pub fn of(object: &Object) -> Fields<'_> {
        Fields {
            object,
            values: Values::new(),
        }
    }

    /// Sets a field to JSON text.
    pub fn json(&mut self, name: &'static str, json: impl Into<String>) {
        if let Some(number) = self.object.number(name) {
            self.values.set_json(number, json);
        }
    }

    /// Sets a field to a text.
    pub fn text(&mut self, name: &'static str, text: &str) {
        self.json(
            name,
            if text.is_empty() {
                "null".to_owned()
            } else {
                quote(text)
            },
        );
    }

    /// Sets a field to a reference.
    pub fn id(&mut self, name: &'static str, id: Option<Id>) {
        if let Some(id) = id {
            self.json(name, quote(&id.to_string()));
        }
    }

    /// Sets a field to one of its picklist's values, with this probability.
    pub fn pick(&mut self, rng: &mut StdRng, name: &'static str, share: f64) {
        if !rng.random_bool(share) {
            return;
        }
        let Some(field) = self.object.field(name) else {
            return;
        };
        if !field.picklist.is_empty() {
            let value = field.picklist[rng.random_range(0..field.picklist.len())].clone();
            self.text(name, &value);
        }
    }

    /// Sets an amount of money, most often a small one.
    pub fn money(&mut self, rng: &mut StdRng, name: &'static str, most: f64) {
        let cents = (rng.random::<f64>().powi(3) * most * 100.0).round();
        let whole = rng.random_bool(0.6);
        self.json(
            name,
            double(if whole {
                (cents / 100.0).round()
            } else {
                cents / 100.0
            }),
        );
    }

    fn phone(&mut self, rng: &mut StdRng, name: &'static str, share: f64) {
        if rng.random_bool(share) {
            self.text(name, &phone(rng));
        }
    }

    fn address(&mut self, rng: &mut StdRng, stem: [&'static str; 5], share: f64) {
        if !rng.random_bool(share) {
            return;
        }
        let (city, state, country, code) = CITY[rng.random_range(0..CITY.len())];
        let street = format!("{} {}", rng.random_range(1..2_000), one(rng, &STREET));
        for (name, text) in stem
            .into_iter()
            .zip([street.as_str(), city, state, code, country])
        {
            if rng.random_bool(0.95) {
                self.text(name, text);
            }
        }
    }

    fn description(&mut self, rng: &mut StdRng, name: &'static str, share: f64) {
        if rng.random_bool(share) {
            let sentences = rng.random_range(1..6);
            self.text(name, &words::text(rng, sentences));
        }
    }
}

/// A phone number, in one of many habits.
pub fn phone(rng: &mut StdRng) -> String {
    let (area, office, line) = (
        rng.random_range(201..990),
        rng.random_range(200..999),
        rng.random_range(0..10_000),
    );
    match rng.random_range(0..7) {
        0 => format!("({area}) {office}-{line:04}"),
        1 => format!("+1 {area} {office} {line:04}"),
        2 => format!("+49 89 {office}{line:04}"),
        3 => format!(
            "00 33 1 {} {} {:02}",
            area % 90 + 10,
            office % 90 + 10,
            line % 100
        ),
        4 => format!("{area}.{office}.{line:04} ext. {}", line % 900 + 1),
        5 => format!("{area}{office}{line:04}"),
        _ => format!("({area}) {office}-{line:04} x{}", line % 99),
    }
}

/// A name of a company.
pub fn company(rng: &mut StdRng) -> String {
    let name = format!(
        "{} {} {}",
        one(rng, &COMPANY),
        one(rng, &TRADE),
        one(rng, &FORM)
    );
    name.trim_end().to_owned()
}

/// An e-mail address: valid, if odd at times.
pub fn email(rng: &mut StdRng, first: &str, last: &str, number: u64) -> String {
    let (first, last) = (words::ascii(first), words::ascii(last));
    match rng.random_range(0..20) {
        0 => format!("{first}.{last}+crm{number}@example.com"),
        1 => format!("{last}@mail.eu.{first}-{number}.example.org"),
        2 => format!(
            "{first}_{last}-{number}.{}@example.net",
            "very-long-local-part"
        ),
        3 => format!("o'{last}{number}@example.co.uk"),
        4 => format!("{}.{}{number}@Example.COM", first.to_uppercase(), last),
        _ => format!("{first}.{last}{number}@{last}.example.com"),
    }
}

/// A date within so many days of another one.
pub fn date(rng: &mut StdRng, around: Millis, days: i64) -> String {
    moment::print_date(around + rng.random_range(-days..=days) * DAY)
}

/// The values of an account.
pub fn account(fields: &mut Fields<'_>, rng: &mut StdRng, today: Millis) {
    let name = company(rng);
    fields.text("Name", &name);
    fields.pick(rng, "Type", 0.8);
    fields.address(
        rng,
        [
            "BillingStreet",
            "BillingCity",
            "BillingState",
            "BillingPostalCode",
            "BillingCountry",
        ],
        0.9,
    );
    fields.address(
        rng,
        [
            "ShippingStreet",
            "ShippingCity",
            "ShippingState",
            "ShippingPostalCode",
            "ShippingCountry",
        ],
        0.4,
    );
    if rng.random_bool(0.03) {
        fields.json(
            "BillingLatitude",
            double((rng.random_range(-90.0..90.0_f64) * 1e6).round() / 1e6),
        );
        fields.json(
            "BillingLongitude",
            double((rng.random_range(-180.0..180.0_f64) * 1e6).round() / 1e6),
        );
    }
    fields.phone(rng, "Phone", 0.85);
    fields.phone(rng, "Fax", 0.3);
    if rng.random_bool(0.6) {
        fields.text(
            "AccountNumber",
            &format!("CD{:06}", rng.random_range(0..1_000_000)),
        );
    }
    if rng.random_bool(0.7) {
        let host = words::ascii(&name);
        let url = match rng.random_range(0..4) {
            0 => format!("http://{host}.example.com"),
            1 => format!("https://www.{host}.example.com/über?id=1&x=2"),
            2 => format!("www.{host}.example.com"),
            _ => format!("{host}.example.org"),
        };
        fields.text("Website", &url);
    }
    if rng.random_bool(0.3) {
        fields.text("Sic", &rng.random_range(1000..9999).to_string());
    }
    fields.pick(rng, "Industry", 0.8);
    if rng.random_bool(0.7) {
        fields.money(rng, "AnnualRevenue", 5e9);
    }
    if rng.random_bool(0.7) {
        fields.json(
            "NumberOfEmployees",
            rng.random_range(1..200_000).to_string(),
        );
    }
    fields.pick(rng, "Ownership", 0.5);
    if rng.random_bool(0.1) {
        fields.text(
            "TickerSymbol",
            &words::ascii(&name)
                .to_uppercase()
                .chars()
                .take(4)
                .collect::<String>(),
        );
    }
    fields.description(rng, "Description", 0.5);
    fields.pick(rng, "Rating", 0.5);
    fields.text("CleanStatus", "Pending");
    fields.pick(rng, "AccountSource", 0.4);
    fields.pick(rng, "CustomerPriority__c", 0.4);
    fields.pick(rng, "SLA__c", 0.4);
    fields.pick(rng, "Active__c", 0.6);
    if rng.random_bool(0.3) {
        fields.json(
            "NumberofLocations__c",
            double(f64::from(rng.random_range(1..200))),
        );
        fields.text(
            "SLASerialNumber__c",
            &rng.random_range(1000..9999).to_string(),
        );
        let expires = date(rng, today, 400);
        fields.text("SLAExpirationDate__c", &expires);
    }
    if rng.random_bool(0.3) {
        fields.money(rng, "Net_Worth__c", 1e8);
    }
}

/// The values of a contact; `number` keeps e-mail addresses apart.
pub fn contact(fields: &mut Fields<'_>, rng: &mut StdRng, number: u64) {
    let first = one(rng, &FIRST);
    let last = one(rng, &LAST);
    fields.text("LastName", last);
    if rng.random_bool(0.93) {
        fields.text("FirstName", first);
    }
    fields.pick(rng, "Salutation", 0.4);
    fields.address(
        rng,
        [
            "MailingStreet",
            "MailingCity",
            "MailingState",
            "MailingPostalCode",
            "MailingCountry",
        ],
        0.7,
    );
    fields.phone(rng, "Phone", 0.75);
    fields.phone(rng, "MobilePhone", 0.5);
    fields.phone(rng, "HomePhone", 0.05);
    fields.phone(rng, "Fax", 0.1);
    if rng.random_bool(0.9) {
        let address = email(rng, first, last, number);
        fields.text("Email", &address);
    }
    if rng.random_bool(0.7) {
        fields.text("Title", one(rng, &TITLE));
    }
    if rng.random_bool(0.5) {
        fields.text("Department", one(rng, &DEPARTMENT));
    }
    fields.pick(rng, "LeadSource", 0.5);
    if rng.random_bool(0.3) {
        // Before 1970 as well.
        let birth = moment::print_date(rng.random_range(-14_000..12_000) * DAY);
        fields.text("Birthdate", &birth);
    }
    fields.description(rng, "Description", 0.3);
    fields.text("CleanStatus", "Pending");
    fields.pick(rng, "Level__c", 0.4);
    if rng.random_bool(0.3) {
        let known: Vec<&str> = ["English", "French", "German", "Japanese", "Spanish"]
            .into_iter()
            .filter(|_| rng.random_bool(0.4))
            .collect();
        fields.text("Languages__c", &known.join(";"));
    }
    fields.pick(rng, "Loyalty_Level__c", 0.4);
}

/// The values of a lead.
pub fn lead(fields: &mut Fields<'_>, rng: &mut StdRng, number: u64) {
    let (first, last) = (one(rng, &FIRST), one(rng, &LAST));
    fields.text("LastName", last);
    if rng.random_bool(0.9) {
        fields.text("FirstName", first);
    }
    let company = company(rng);
    fields.text("Company", &company);
    fields.pick(rng, "Salutation", 0.3);
    if rng.random_bool(0.6) {
        fields.text("Title", one(rng, &TITLE));
    }
    fields.address(
        rng,
        ["Street", "City", "State", "PostalCode", "Country"],
        0.7,
    );
    fields.phone(rng, "Phone", 0.8);
    fields.phone(rng, "MobilePhone", 0.3);
    if rng.random_bool(0.9) {
        let address = email(rng, first, last, number);
        fields.text("Email", &address);
    }
    if rng.random_bool(0.3) {
        fields.text(
            "Website",
            &format!("www.{}.example.com", words::ascii(&company)),
        );
    }
    fields.description(rng, "Description", 0.2);
    fields.pick(rng, "LeadSource", 0.8);
    let status = [
        "Open - Not Contacted",
        "Working - Contacted",
        "Closed - Not Converted",
    ];
    fields.text("Status", one(rng, &status));
    fields.pick(rng, "Industry", 0.6);
    fields.pick(rng, "Rating", 0.5);
    if rng.random_bool(0.4) {
        fields.money(rng, "AnnualRevenue", 1e9);
        fields.json("NumberOfEmployees", rng.random_range(1..10_000).to_string());
    }
    fields.json("IsUnreadByOwner", rng.random_bool(0.3).to_string());
    fields.text("CleanStatus", "Pending");
    fields.pick(rng, "ProductInterest__c", 0.4);
}

/// The values of an opportunity.
pub fn opportunity(fields: &mut Fields<'_>, rng: &mut StdRng, today: Millis) {
    let name = format!(
        "{} {}",
        company(rng),
        one(
            rng,
            &["Generators", "Renewal", "– Erweiterung", "Phase 2", "(new)"]
        )
    );
    fields.text("Name", &name.chars().take(120).collect::<String>());
    fields.text("StageName", STAGES[rng.random_range(0..STAGES.len())].0);
    let close = date(rng, today, 365);
    fields.text("CloseDate", &close);
    if rng.random_bool(0.9) {
        fields.money(rng, "Amount", 2e7);
    }
    if rng.random_bool(0.2) {
        fields.json(
            "TotalOpportunityQuantity",
            double(f64::from(rng.random_range(1..2_000)) / 4.0),
        );
    }
    fields.pick(rng, "Type", 0.7);
    fields.pick(rng, "LeadSource", 0.5);
    if rng.random_bool(0.3) {
        fields.text("NextStep", "Call back \"soon\" — über's Büro");
    }
    fields.description(rng, "Description", 0.3);
    fields.json("IsPrivate", "false");
    if rng.random_bool(0.2) {
        fields.text(
            "OrderNumber__c",
            &rng.random_range(100_000..999_999).to_string(),
        );
    }
}

/// The values of a case.
pub fn case(fields: &mut Fields<'_>, rng: &mut StdRng, number: u64) {
    fields.text("Subject", one(rng, &SUBJECT));
    fields.text(
        "Status",
        one(rng, &["New", "Working", "Escalated", "Closed", "Closed"]),
    );
    fields.pick(rng, "Priority", 1.0);
    fields.pick(rng, "Origin", 0.95);
    fields.pick(rng, "Type", 0.7);
    fields.pick(rng, "Reason", 0.7);
    fields.description(rng, "Description", 0.7);
    if rng.random_bool(0.1) {
        let (first, last) = (one(rng, &FIRST), one(rng, &LAST));
        fields.text("SuppliedName", &format!("{first} {last}"));
        let address = email(rng, first, last, number);
        fields.text("SuppliedEmail", &address);
        fields.text(
            "SuppliedCompany",
            &company(rng).chars().take(80).collect::<String>(),
        );
    }
    fields.description(rng, "Comments", 0.05);
    fields.pick(rng, "SLAViolation__c", 0.2);
}

/// The values of an invoice.
pub fn invoice(fields: &mut Fields<'_>, rng: &mut StdRng, today: Millis) {
    fields.money(rng, "Amount__c", 500_000.0);
    let due = date(rng, today, 300);
    fields.text("Due_Date__c", &due);
    let paid = rng.random_bool(0.5);
    fields.json("Paid__c", paid.to_string());
    fields.pick(rng, "Status__c", 0.95);
    if rng.random_bool(0.7) {
        let sent = today - rng.random_range(0..700 * DAY);
        fields.text("Sent_At__c", &moment::print(moment::second(sent)));
    }
    fields.description(rng, "Notes__c", 0.4);
    if rng.random_bool(0.8) {
        fields.json(
            "Quantity__c",
            double(f64::from(rng.random_range(0..100_000)) / 100.0),
        );
    }
}
