//! Records of a real org, as recorded from its API, the whole way into
//! PostgreSQL. Nothing here knows the mapper: rows are written out by hand, and
//! counts and sums are taken from the recording itself.
//!
//! The recording is not part of this tree: without it the test says so and
//! passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use drover_tests::services::root;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

/// Records by id.
type Records = BTreeMap<String, Value>;

/// An object, its table, and where each of its fields goes; what has no
/// column and is not dropped must stand in `custom`.
struct Object {
    name: &'static str,
    table: &'static str,
    count: usize,
    columns: &'static [(&'static str, &'static str, Kind)],
    dropped: &'static [&'static str],
    rows: &'static [Row],
}

/// How a column's contents are summed up.
enum Kind {
    Text,
    Number,
    Date,
    Moment,
    Bool,
    /// A link to a row of that table.
    Link(&'static str),
}

/// A row, written out: its record's id and every column that is filled, as
/// PostgreSQL prints it as JSON. All others are null. A link is the id of the
/// record that it leads to.
struct Row {
    id: &'static str,
    columns: &'static [(&'static str, &'static str)],
    custom: &'static str,
}

use Kind::{Bool, Date, Link, Moment, Number, Text};

/// The time at which the org's sample data came into being.
const BORN: &str = "2026-05-01T07:25:37+00:00";
/// What is filled in a case beside its columns.
const OWNED: &str = r#"{"OwnerId": "005dM00000aYf0qQAC"}"#;
/// The same in an opportunity, with the switches that are never null.
const OWNED_DEAL: &str =
    r#"{"OwnerId": "005dM00000aYf0qQAC", "IsPrivate": false, "HasOpportunityLineItem": false}"#;

/// The switches of an account that have no column; they are never null.
const ACCOUNT_SWITCHES: &str = r#"{"PersonDoNotCall": false, "PersonHasOptedOutOfEmail": false}"#;
/// The same of a contact.
const CONTACT_SWITCHES: &str = r#"{"DoNotCall": false, "IsEmailBounced": false,
    "IsPersonAccount": false, "HasOptedOutOfFax": false, "HasOptedOutOfEmail": false}"#;

const OBJECTS: &[Object] = &[
    Object {
        name: "Account",
        table: "company",
        count: 2086,
        columns: &[
            ("name", "Name", Text),
            ("website", "Website", Text),
            ("phone_number", "Phone", Text),
            ("fax", "Fax", Text),
            ("industry", "Industry", Text),
            ("type", "Type", Text),
            ("account_number", "AccountNumber", Text),
            ("annual_revenue", "AnnualRevenue", Number),
            ("employees", "NumberOfEmployees", Number),
            ("description", "Description", Text),
            ("billing_street", "BillingStreet", Text),
            ("billing_city", "BillingCity", Text),
            ("billing_state", "BillingState", Text),
            ("billing_postal_code", "BillingPostalCode", Text),
            ("billing_country", "BillingCountry", Text),
            ("shipping_street", "ShippingStreet", Text),
            ("shipping_city", "ShippingCity", Text),
            ("shipping_state", "ShippingState", Text),
            ("shipping_postal_code", "ShippingPostalCode", Text),
            ("shipping_country", "ShippingCountry", Text),
            ("parent_id", "ParentId", Link("company")),
            ("person", "IsPersonAccount", Bool),
            ("created_at", "CreatedDate", Moment),
            ("updated_at", "LastModifiedDate", Moment),
        ],
        dropped: &[
            "Id",
            "IsDeleted",
            "SystemModstamp",
            "PhotoUrl",
            "BillingAddress",
            "ShippingAddress",
        ],
        rows: &[
            // An ampersand in the name.
            Row {
                id: "001dM00003jU9H1QAK",
                columns: &[
                    ("name", "Grand Hotels & Resorts Ltd"),
                    ("website", "www.grandhotels.com"),
                    ("phone_number", "(312) 596-1000"),
                    ("industry", "Hospitality"),
                    ("type", "Customer - Direct"),
                    ("account_number", "CD439877"),
                    (
                        "description",
                        "Chain of hotels and resorts across the US, UK, Eastern Europe, Japan, and SE Asia.",
                    ),
                    ("billing_city", "Chicago"),
                    ("billing_state", "IL"),
                    ("billing_country", "United States"),
                    ("person", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // A comma in the name, a state without a city or a country, a plus.
            Row {
                id: "001dM00003jU9H5QAK",
                columns: &[
                    ("name", "United Oil & Gas, UK"),
                    ("website", "http://www.uos.com"),
                    ("phone_number", "+44 191 4956203"),
                    ("industry", "Energy"),
                    ("type", "Customer - Direct"),
                    ("account_number", "CD355119-A"),
                    ("billing_state", "UK"),
                    ("person", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // A web address that is none, a misspelt word that must stay so.
            Row {
                id: "001dM00003jU9H3QAK",
                columns: &[
                    ("name", "Express Logistics and Transport"),
                    ("website", "www.expressl&t.net"),
                    ("phone_number", "(503) 421-7800"),
                    ("industry", "Transportation"),
                    ("type", "Customer - Channel"),
                    ("account_number", "CC947211"),
                    (
                        "description",
                        "Commerical logistics and transportation company.",
                    ),
                    ("billing_city", "Portland"),
                    ("billing_state", "OR"),
                    ("billing_country", "United States"),
                    ("person", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // An apostrophe.
            Row {
                id: "001dM00003jU9H2QAK",
                columns: &[
                    ("name", "United Oil & Gas Corp."),
                    ("website", "http://www.uos.com"),
                    ("phone_number", "(212) 842-5500"),
                    ("industry", "Energy"),
                    ("type", "Customer - Direct"),
                    ("account_number", "CD355118"),
                    ("description", "World's third largest oil and gas company."),
                    ("billing_city", "New York"),
                    ("billing_state", "NY"),
                    ("billing_country", "United States"),
                    ("person", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // A city and a country without a state, a telephone number that
            // begins with a zero.
            Row {
                id: "001dM00003jU9GzQAK",
                columns: &[
                    ("name", "Pyramid Construction Inc."),
                    ("website", "www.pyramid.com"),
                    ("phone_number", "(014) 427-4427"),
                    ("industry", "Construction"),
                    ("type", "Customer - Channel"),
                    ("account_number", "CC213425"),
                    ("billing_city", "Paris"),
                    ("billing_country", "France"),
                    ("person", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // Empty number, industry and type between filled fields; a name
            // that begins with a small letter.
            Row {
                id: "001dM00003jU9H8QAK",
                columns: &[
                    ("name", "sForce"),
                    ("website", "www.sforce.com"),
                    ("phone_number", "(415) 901-7000"),
                    ("billing_city", "San Francisco"),
                    ("billing_state", "CA"),
                    ("billing_country", "US"),
                    ("person", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // Nothing but a name.
            Row {
                id: "001dM00003jU9H9QAK",
                columns: &[
                    ("name", "Sample Account for Entitlements"),
                    ("person", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // Changed after it was created; a telephone number of letters.
            Row {
                id: "001dM00003kReWpQAK",
                columns: &[
                    ("name", "Test Account For Update"),
                    ("website", "www.updated.com"),
                    ("phone_number", "555-UPDATED"),
                    ("person", "false"),
                    ("created_at", "2026-05-06T11:34:07+00:00"),
                    ("updated_at", "2026-05-06T11:34:43+00:00"),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // The system's stamp is a second after the last change.
            Row {
                id: "001dM00003kSKFxQAO",
                columns: &[
                    ("name", "Test Account for Pagination 84 - 1778067975"),
                    ("person", "false"),
                    ("created_at", "2026-05-06T11:46:16+00:00"),
                    ("updated_at", "2026-05-06T11:46:16+00:00"),
                ],
                custom: ACCOUNT_SWITCHES,
            },
            // One of two of the same name.
            Row {
                id: "001dM00003kS2ndQAC",
                columns: &[
                    ("name", "Test Account from Nango Action"),
                    ("person", "false"),
                    ("created_at", "2026-05-06T11:27:37+00:00"),
                    ("updated_at", "2026-05-06T11:27:37+00:00"),
                ],
                custom: ACCOUNT_SWITCHES,
            },
        ],
    },
    Object {
        name: "Contact",
        table: "contact",
        count: 213,
        columns: &[
            ("first_name", "FirstName", Text),
            ("last_name", "LastName", Text),
            ("salutation", "Salutation", Text),
            ("email", "Email", Text),
            ("phone_number", "Phone", Text),
            ("mobile_number", "MobilePhone", Text),
            ("title", "Title", Text),
            ("department", "Department", Text),
            ("bio", "Description", Text),
            ("birth_date", "Birthdate", Date),
            ("lead_source", "LeadSource", Text),
            ("mailing_street", "MailingStreet", Text),
            ("mailing_city", "MailingCity", Text),
            ("mailing_state", "MailingState", Text),
            ("mailing_postal_code", "MailingPostalCode", Text),
            ("mailing_country", "MailingCountry", Text),
            ("company_id", "AccountId", Link("company")),
            ("manager_id", "ReportsToId", Link("contact")),
            ("created_at", "CreatedDate", Moment),
            ("updated_at", "LastModifiedDate", Moment),
        ],
        dropped: &[
            "Id",
            "IsDeleted",
            "Name",
            "SystemModstamp",
            "PhotoUrl",
            "MailingAddress",
            "OtherAddress",
        ],
        rows: &[
            // An apostrophe in the name, three lines of street.
            Row {
                id: "003dM00001vWOXYQA4",
                columns: &[
                    ("first_name", "Liz"),
                    ("last_name", "D'Cruz"),
                    ("email", "ldcruz@uog.com"),
                    ("phone_number", "(650) 450-8810"),
                    ("mobile_number", "(650) 345-6637"),
                    ("title", "VP, Production"),
                    ("department", "Production"),
                    (
                        "mailing_street",
                        "10 Tagore Lane\nSingapore, Singapore 787472\nSingapore",
                    ),
                    ("company_id", "001dM00003jU9H6QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // An e-mail address that Salesforce takes: & in the domain.
            Row {
                id: "003dM00001vWOXSQA4",
                columns: &[
                    ("first_name", "Babara"),
                    ("last_name", "Levy"),
                    ("email", "b.levy@expressl&t.net"),
                    ("phone_number", "(503) 421-7800"),
                    ("mobile_number", "(503) 421-5451"),
                    ("title", "SVP, Operations"),
                    ("department", "Operations"),
                    (
                        "mailing_street",
                        "620 SW 5th Avenue Suite 400\nPortland, Oregon 97204\nUnited States",
                    ),
                    ("company_id", "001dM00003jU9H3QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // A space in front of the line's end.
            Row {
                id: "003dM00001vWOXQQA4",
                columns: &[
                    ("first_name", "Stella"),
                    ("last_name", "Pavlova"),
                    ("email", "spavlova@uog.com"),
                    ("phone_number", "(212) 842-5500"),
                    ("mobile_number", "(212) 842-5501"),
                    ("title", "SVP, Production"),
                    ("department", "Production"),
                    (
                        "mailing_street",
                        "1303 Avenue of the Americas \nNew York, NY 10019\nUSA",
                    ),
                    ("company_id", "001dM00003jU9H2QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // The whole address but the state.
            Row {
                id: "003dM00001vWOXMQA4",
                columns: &[
                    ("first_name", "Pat"),
                    ("last_name", "Stumuller"),
                    ("email", "pat@pyramid.net"),
                    ("phone_number", "(014) 427-4427"),
                    ("mobile_number", "(014) 454-6364"),
                    ("title", "SVP, Administration and Finance"),
                    ("department", "Finance"),
                    ("mailing_street", "2 Place Jussieu"),
                    ("mailing_city", "Paris"),
                    ("mailing_postal_code", "75251"),
                    ("mailing_country", "France"),
                    ("company_id", "001dM00003jU9GzQAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // The longest street, with a comma at the line's end.
            Row {
                id: "003dM00001vWOXWQA4",
                columns: &[
                    ("first_name", "Ashley"),
                    ("last_name", "James"),
                    ("email", "ajames@uog.com"),
                    ("phone_number", "+44 191 4956203"),
                    ("mobile_number", "+44 191 3456234"),
                    ("title", "VP, Finance"),
                    ("department", "Finance"),
                    (
                        "mailing_street",
                        "Kings Park, 17th Avenue, Team Valley Trading Estate,\n\
                         Gateshead, Tyne and Wear NE26 3HS\nUnited Kingdom",
                    ),
                    ("company_id", "001dM00003jU9H5QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // An @ in the street and no e-mail address.
            Row {
                id: "003dM00001vWOXbQAO",
                columns: &[
                    ("first_name", "Siddartha"),
                    ("last_name", "Nedaerk"),
                    ("mailing_street", "The Landmark @ One Market"),
                    ("mailing_city", "San Francisco"),
                    ("mailing_state", "CA"),
                    ("mailing_postal_code", "94087"),
                    ("mailing_country", "US"),
                    ("company_id", "001dM00003jU9H8QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // Nothing but a name and a company.
            Row {
                id: "003dM00001vWOXcQAO",
                columns: &[
                    ("first_name", "Jake"),
                    ("last_name", "Llorrac"),
                    ("company_id", "001dM00003jU9H8QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // No company and no first name.
            Row {
                id: "003dM00001wBXA1QAO",
                columns: &[
                    ("last_name", "TestUser"),
                    ("email", "test_upsert_002@example.com"),
                    ("created_at", "2026-05-06T11:29:26+00:00"),
                    ("updated_at", "2026-05-06T11:29:26+00:00"),
                ],
                custom: CONTACT_SWITCHES,
            },
            // Four lines, one with a space at its end.
            Row {
                id: "003dM00001vWOXUQA4",
                columns: &[
                    ("first_name", "Jane"),
                    ("last_name", "Grey"),
                    ("email", "jane_gray@uoa.edu"),
                    ("phone_number", "(520) 773-9050"),
                    ("mobile_number", "(520) 773-4539"),
                    ("title", "Dean of Administration"),
                    ("department", "Administration"),
                    (
                        "mailing_street",
                        "888 N Euclid \nHallis Center, Room 501\nTucson, AZ 85721\nUnited States",
                    ),
                    ("company_id", "001dM00003jU9H4QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
            // An address in parts, title and no department.
            Row {
                id: "003dM00001vWOXLQA4",
                columns: &[
                    ("first_name", "Jack"),
                    ("last_name", "Rogers"),
                    ("email", "jrogers@burlington.com"),
                    ("phone_number", "(336) 222-7000"),
                    ("title", "VP, Facilities"),
                    ("mailing_street", "525 S. Lexington Ave"),
                    ("mailing_city", "Burlington"),
                    ("mailing_state", "NC"),
                    ("mailing_postal_code", "27215"),
                    ("mailing_country", "USA"),
                    ("company_id", "001dM00003jU9GyQAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: CONTACT_SWITCHES,
            },
        ],
    },
    Object {
        name: "Opportunity",
        table: "deal",
        count: 31,
        columns: &[
            ("name", "Name", Text),
            ("stage", "StageName", Text),
            ("amount", "Amount", Number),
            // The org has one currency: it does not show the field.
            ("currency", "CurrencyIsoCode", Text),
            ("probability", "Probability", Number),
            ("close_date", "CloseDate", Date),
            ("type", "Type", Text),
            ("next_step", "NextStep", Text),
            ("lead_source", "LeadSource", Text),
            ("closed", "IsClosed", Bool),
            ("won", "IsWon", Bool),
            ("description", "Description", Text),
            ("company_id", "AccountId", Link("company")),
            ("created_at", "CreatedDate", Moment),
            ("updated_at", "LastModifiedDate", Moment),
        ],
        dropped: &["Id", "IsDeleted", "SystemModstamp"],
        // The recorded query did not ask for the account or the switches: the
        // one is null, the others are false.
        rows: &[
            // Three of the same name, two of them with the same amount.
            Row {
                id: "006dM00000Mw7W7QAJ",
                columns: &[
                    ("name", "United Oil Installations"),
                    ("stage", "Negotiation/Review"),
                    ("amount", "270000"),
                    ("close_date", "2026-02-20"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            Row {
                id: "006dM00000Mw7WAQAZ",
                columns: &[
                    ("name", "United Oil Installations"),
                    ("stage", "Closed Won"),
                    ("amount", "270000"),
                    ("close_date", "2026-02-19"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            Row {
                id: "006dM00000Mw7WHQAZ",
                columns: &[
                    ("name", "United Oil Installations"),
                    ("stage", "Closed Won"),
                    ("amount", "235000"),
                    ("close_date", "2026-03-03"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            // The largest amount; the next shares its name.
            Row {
                id: "006dM00000Mw7WCQAZ",
                columns: &[
                    ("name", "United Oil Refinery Generators"),
                    ("stage", "Closed Won"),
                    ("amount", "915000"),
                    ("close_date", "2026-04-03"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            // A slash in the stage.
            Row {
                id: "006dM00000Mw7VyQAJ",
                columns: &[
                    ("name", "United Oil Refinery Generators"),
                    ("stage", "Proposal/Price Quote"),
                    ("amount", "270000"),
                    ("close_date", "2026-04-10"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            // A dot in the stage, the smallest amount.
            Row {
                id: "006dM00000Mw7VxQAJ",
                columns: &[
                    ("name", "Grand Hotels Kitchen Generator"),
                    ("stage", "Id. Decision Makers"),
                    ("amount", "15000"),
                    ("close_date", "2026-01-15"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            // The first and the last of the close dates; a date must not
            // move by the zone.
            Row {
                id: "006dM00000Mw7W9QAJ",
                columns: &[
                    ("name", "Edge SLA"),
                    ("stage", "Closed Won"),
                    ("amount", "60000"),
                    ("close_date", "2026-01-10"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            Row {
                id: "006dM00000Mw7WNQAZ",
                columns: &[
                    ("name", "Edge Emergency Generator"),
                    ("stage", "Id. Decision Makers"),
                    ("amount", "35000"),
                    ("close_date", "2026-05-01"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            // The longest name, and the first of a month as the date.
            Row {
                id: "006dM00000Mw7WGQAZ",
                columns: &[
                    ("name", "Burlington Textiles Weaving Plant Generator"),
                    ("stage", "Closed Won"),
                    ("amount", "235000"),
                    ("close_date", "2026-03-01"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
            // The first of 31 with one stamp.
            Row {
                id: "006dM00000Mw7VtQAJ",
                columns: &[
                    ("name", "Dickenson Mobile Generators"),
                    ("stage", "Qualification"),
                    ("amount", "15000"),
                    ("close_date", "2026-03-08"),
                    ("closed", "false"),
                    ("won", "false"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED_DEAL,
            },
        ],
    },
    Object {
        name: "Case",
        table: "ticket",
        count: 26,
        columns: &[
            ("number", "CaseNumber", Text),
            ("subject", "Subject", Text),
            ("description", "Description", Text),
            ("status", "Status", Text),
            ("priority", "Priority", Text),
            ("channel", "Origin", Text),
            ("type", "Type", Text),
            ("reason", "Reason", Text),
            ("closed", "IsClosed", Bool),
            ("closed_at", "ClosedDate", Moment),
            ("escalated", "IsEscalated", Bool),
            ("requester_name", "SuppliedName", Text),
            ("requester_email", "SuppliedEmail", Text),
            ("contact_id", "ContactId", Link("contact")),
            ("company_id", "AccountId", Link("company")),
            ("parent_id", "ParentId", Link("ticket")),
            ("created_at", "CreatedDate", Moment),
            ("updated_at", "LastModifiedDate", Moment),
        ],
        dropped: &["Id", "IsDeleted", "SystemModstamp"],
        rows: &[
            // A number with zeros in front; closed a year before it was made.
            Row {
                id: "500dM00003F2OMkQAN",
                columns: &[
                    ("number", "00001000"),
                    ("subject", "Starting generator after electrical failure"),
                    ("status", "Closed"),
                    ("priority", "High"),
                    ("channel", "Phone"),
                    ("type", "Electrical"),
                    ("reason", "Equipment Complexity"),
                    ("closed", "true"),
                    ("closed_at", "2025-03-11T18:59:51+00:00"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXJQA4"),
                    ("company_id", "001dM00003jU9GxQAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            // The three that are open, without a closing time.
            Row {
                id: "500dM00003F2OMlQAN",
                columns: &[
                    ("number", "00001002"),
                    (
                        "subject",
                        "Seeking guidance on electrical wiring installation for GC5060",
                    ),
                    ("status", "New"),
                    ("priority", "Low"),
                    ("channel", "Web"),
                    ("type", "Electrical"),
                    ("reason", "Installation"),
                    ("closed", "false"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXQQA4"),
                    ("company_id", "001dM00003jU9H2QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            Row {
                id: "500dM00003F2OMzQAN",
                columns: &[
                    ("number", "00001016"),
                    ("subject", "Maintenance guidelines for generator unclear"),
                    ("status", "New"),
                    ("priority", "Low"),
                    ("channel", "Web"),
                    ("type", "Other"),
                    ("reason", "Feedback"),
                    ("closed", "false"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXZQA4"),
                    ("company_id", "001dM00003jU9H7QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            Row {
                id: "500dM00003F2ON7QAN",
                columns: &[
                    ("number", "00001024"),
                    ("subject", "Design issue with mechanical rotor"),
                    ("status", "New"),
                    ("priority", "Low"),
                    ("channel", "Web"),
                    ("type", "Mechanical"),
                    ("reason", "Equipment Design"),
                    ("closed", "false"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXRQA4"),
                    ("company_id", "001dM00003jU9H2QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            // Two more with a subject of above.
            Row {
                id: "500dM00003F2OMnQAN",
                columns: &[
                    ("number", "00001004"),
                    ("subject", "Maintenance guidelines for generator unclear"),
                    ("status", "Closed"),
                    ("priority", "Medium"),
                    ("channel", "Phone"),
                    ("type", "Other"),
                    ("reason", "Other"),
                    ("closed", "true"),
                    ("closed_at", "2025-03-11T18:59:51+00:00"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXSQA4"),
                    ("company_id", "001dM00003jU9H3QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            Row {
                id: "500dM00003F2OMtQAN",
                columns: &[
                    ("number", "00001010"),
                    ("subject", "Maintenance guidelines for generator unclear"),
                    ("status", "Closed"),
                    ("priority", "Low"),
                    ("channel", "Web"),
                    ("type", "Other"),
                    ("reason", "Feedback"),
                    ("closed", "true"),
                    ("closed_at", "2025-03-11T18:59:51+00:00"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXXQA4"),
                    ("company_id", "001dM00003jU9H6QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            // A semicolon.
            Row {
                id: "500dM00003F2OMxQAN",
                columns: &[
                    ("number", "00001014"),
                    ("subject", "Delay in installation; spare parts unavailable"),
                    ("status", "Closed"),
                    ("priority", "High"),
                    ("channel", "Phone"),
                    ("type", "Other"),
                    ("reason", "Installation"),
                    ("closed", "true"),
                    ("closed_at", "2025-03-11T18:59:51+00:00"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXPQA4"),
                    ("company_id", "001dM00003jU9H1QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            // Its contact and its company have an & in their addresses.
            Row {
                id: "500dM00003F2OMoQAN",
                columns: &[
                    ("number", "00001005"),
                    ("subject", "Electrical circuit malfunctioning"),
                    ("status", "Closed"),
                    ("priority", "Medium"),
                    ("channel", "Phone"),
                    ("type", "Electrical"),
                    ("reason", "Performance"),
                    ("closed", "true"),
                    ("closed_at", "2025-03-11T18:59:51+00:00"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXTQA4"),
                    ("company_id", "001dM00003jU9H3QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            // A contact's id with a small letter before the checksum.
            Row {
                id: "500dM00003F2OMjQAN",
                columns: &[
                    ("number", "00001001"),
                    (
                        "subject",
                        "Performance inadequate for second consecutive week",
                    ),
                    ("status", "Closed"),
                    ("priority", "High"),
                    ("channel", "Phone"),
                    ("type", "Electrical"),
                    ("reason", "Performance"),
                    ("closed", "true"),
                    ("closed_at", "2025-03-11T18:59:51+00:00"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXaQAO"),
                    ("company_id", "001dM00003jU9H2QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
            // The last number.
            Row {
                id: "500dM00003F2ON8QAN",
                columns: &[
                    ("number", "00001025"),
                    ("subject", "Motor design hindering performance"),
                    ("status", "Closed"),
                    ("priority", "Medium"),
                    ("channel", "Phone"),
                    ("type", "Electrical"),
                    ("reason", "Equipment Design"),
                    ("closed", "true"),
                    ("closed_at", "2025-03-11T18:59:51+00:00"),
                    ("escalated", "false"),
                    ("contact_id", "003dM00001vWOXRQA4"),
                    ("company_id", "001dM00003jU9H2QAK"),
                    ("created_at", BORN),
                    ("updated_at", BORN),
                ],
                custom: OWNED,
            },
        ],
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_records_arrive_field_by_field() {
    let Some(recorded) = recording() else { return };
    let folder = tempfile::tempdir().expect("a temporary directory");
    for object in OBJECTS {
        let records = &recorded[object.name];
        assert_eq!(records.len(), object.count, "{}s recorded", object.name);
        let lines: String = records.values().map(|r| format!("{r}\n")).collect();
        fs::write(folder.path().join(format!("{}.jsonl", object.name)), lines)
            .expect("the records are written");
    }
    let data = folder.path().to_str().expect("a path in UTF-8");
    // The recording has no users: without them an owner's id stays in `custom`.
    let objects: Vec<&str> = OBJECTS.iter().map(|object| object.name).collect();
    let mut migration = Migration::with(
        "recorded",
        &["--data", data],
        "postgres",
        json!({}),
        json!({"objects": objects}),
    );
    migration.start_all(1);
    let equal = migration.until_equal(Duration::from_secs(120)).await;
    let all: usize = OBJECTS.iter().map(|object| object.count).sum();
    assert_eq!((equal.compared, equal.waiting), (all, 0));

    let client = connect(&migration.services().postgres).await;
    client
        .batch_execute(&format!(
            "set timezone = 'UTC'; set search_path = \"{}\"",
            migration.schema
        ))
        .await
        .expect("the session's settings");
    let ids = source_ids(&client).await;
    let mut wrong = Vec::new();
    for object in OBJECTS {
        let truth = migration.sandbox.records(object.name).await;
        let records = &recorded[object.name];
        written_rows(object, &client, &ids, &mut wrong).await;
        totals(object, records, &truth, &client, &mut wrong).await;
        customs(object, records, &truth, &client, &mut wrong).await;
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let status = migration.status();
    for object in status["objects"].as_array().expect("objects") {
        let (parked, dead) = (&object["parked"], &object["dead"]);
        assert_eq!((parked, dead), (&json!(0), &json!(0)), "{object}");
    }
    migration.stop_all();
}

/// What the recorded queries answered, by object and id; what several queries
/// told about one record is put together.
fn recording() -> Option<BTreeMap<String, Records>> {
    let file = root().join("../shared/records/salesforce/nango.jsonl");
    let Ok(text) = fs::read_to_string(&file) else {
        println!("skipped: no recording at {}", file.display());
        return None;
    };
    let mut objects: BTreeMap<String, Records> = BTreeMap::new();
    for line in text.lines() {
        let exchange: Value = serde_json::from_str(line).expect("an exchange");
        let path = exchange["path"].as_str().unwrap_or_default();
        if exchange["method"] != "GET" || !path.contains("/query") {
            continue;
        }
        for record in exchange["body"]["records"].as_array().into_iter().flatten() {
            let (Some(object), Some(id)) =
                (record["attributes"]["type"].as_str(), record["Id"].as_str())
            else {
                continue;
            };
            let merged = objects
                .entry(object.to_owned())
                .or_default()
                .entry(id.to_owned())
                .or_insert_with(|| json!({}));
            for (field, value) in record.as_object().into_iter().flatten() {
                let known = merged[field].take();
                let same = known.is_null() || field == "attributes" || known == *value;
                assert!(same, "{object} {id} has two values of {field}");
                merged[field] = value.clone();
            }
        }
    }
    Some(objects)
}

/// The source's id of every row, by table and row.
async fn source_ids(client: &Client) -> BTreeMap<(&'static str, i64), String> {
    let mut ids = BTreeMap::new();
    for object in OBJECTS {
        let sql = format!("select id, drover_id from \"{}\"", object.table);
        for row in client.query(&sql, &[]).await.expect("rows") {
            ids.insert((object.table, row.get(0)), row.get(1));
        }
    }
    ids
}

/// Every row that is written out above, column by column.
async fn written_rows(
    object: &Object,
    client: &Client,
    ids: &BTreeMap<(&'static str, i64), String>,
    wrong: &mut Vec<String>,
) {
    assert_eq!(object.rows.len(), 10, "{}", object.name);
    let sql = format!(
        "select to_jsonb(t) from \"{}\" t where drover_id = $1",
        object.table
    );
    for expected in object.rows {
        let place = format!("{} {}", object.name, expected.id);
        let rows = client.query(&sql, &[&expected.id]).await.expect("rows");
        assert_eq!(rows.len(), 1, "{place}");
        let Value::Object(mut row) = rows[0].get::<_, Value>(0) else {
            panic!("{place}: no object");
        };
        let own: Vec<&str> = vec!["drover_source", "drover_object", "drover_id"];
        let key: Vec<Value> = own.iter().map(|name| row[*name].clone()).collect();
        assert_eq!(
            json!(key),
            json!(["salesforce", object.name, expected.id]),
            "{place}"
        );
        assert!(row["drover_deleted_at"].is_null(), "{place}");
        row.retain(|column, _| column != "id" && !column.starts_with("drover_"));
        let custom: Value = serde_json::from_str(expected.custom).expect("JSON");
        if row["custom"] != custom {
            wrong.push(format!("{place}.custom: {custom} is {}", row["custom"]));
        }
        row.remove("custom");
        for (column, _, kind) in object.columns {
            let value = row.remove(*column).unwrap_or_default();
            let have = match (kind, &value) {
                (Link(table), Value::Number(id)) => {
                    ids.get(&(*table, id.as_i64().unwrap_or_default())).cloned()
                }
                _ => printed(&value),
            };
            let want = expected
                .columns
                .iter()
                .find(|(name, _)| name == column)
                .map(|(_, value)| (*value).to_owned());
            if want != have {
                wrong.push(format!("{place}.{column}: {want:?} is {have:?}"));
            }
        }
        for (column, _) in expected.columns {
            assert!(
                object.columns.iter().any(|(name, ..)| name == column),
                "{place}: no column {column}"
            );
        }
        // Owners, record types and currencies are not recorded.
        row.retain(|_, value| !value.is_null());
        assert!(row.is_empty(), "{place}: more columns: {row:?}");
    }
}

fn printed(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Counts and sums of every column, from the recording and by SQL. A field
/// that no recorded query asked for is counted in the source's own records.
async fn totals(
    object: &Object,
    recorded: &Records,
    truth: &Records,
    client: &Client,
    wrong: &mut Vec<String>,
) {
    for (column, field, kind) in object.columns {
        let asked = recorded.values().any(|record| record.get(field).is_some());
        let records = if asked { recorded } else { truth };
        let values: Vec<&Value> = records
            .values()
            .map(|record| &record[*field])
            .filter(|value| !value.is_null())
            .collect();
        let texts = || values.iter().map(|value| value.as_str().unwrap_or("?"));
        let edge = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let distinct = || texts().collect::<BTreeSet<_>>().len();
        // The same three figures, told by a string from either side.
        let (want, sql) = match kind {
            Text => (
                format!(
                    "{} distinct, {} characters",
                    distinct(),
                    texts().map(|text| text.chars().count()).sum::<usize>()
                ),
                format!(
                    "count(distinct \"{column}\") || ' distinct, ' \
                     || coalesce(sum(char_length(\"{column}\")), 0) || ' characters'"
                ),
            ),
            Link(parents) => (
                format!("{} distinct", distinct()),
                // Counted behind the link, so that it must lead somewhere.
                format!(
                    "(select count(distinct p.drover_id) || ' distinct' from \"{parents}\" p \
                     join \"{}\" c on c.\"{column}\" = p.id)",
                    object.table
                ),
            ),
            Number => (
                values
                    .iter()
                    .fold(0.0, |sum, value| sum + value.as_f64().expect("a number"))
                    .to_string(),
                format!("coalesce(sum(\"{column}\"), 0)::float8::text"),
            ),
            Bool => (
                values
                    .iter()
                    .filter(|value| **value == &json!(true))
                    .count()
                    .to_string(),
                format!("(count(*) filter (where \"{column}\"))::text"),
            ),
            Date => (
                format!("{} {}", edge(texts().min()), edge(texts().max())),
                format!(
                    "coalesce(min(\"{column}\")::text, '-') || ' ' \
                     || coalesce(max(\"{column}\")::text, '-')"
                ),
            ),
            Moment => (
                format!(
                    "{} {} {} distinct",
                    edge(texts().min()),
                    edge(texts().max()),
                    distinct()
                ),
                ["min", "max"]
                    .map(|end| {
                        format!(
                            "coalesce(to_char({end}(\"{column}\"), \
                             'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"+0000\"'), '-') || ' '"
                        )
                    })
                    .join(" || ")
                    + &format!(" || count(distinct \"{column}\") || ' distinct'"),
            ),
        };
        let sql = format!(
            "select count(\"{column}\")::text || ': ' || {sql} from \"{}\"",
            object.table
        );
        let have: String = match client.query_one(&sql, &[]).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("{sql}: {error:?}"),
        };
        let want = format!("{}: {want}", values.len());
        if want != have {
            wrong.push(format!(
                "{}.{field} ({column}): {want} is {have}",
                object.name
            ));
        }
    }
}

/// Every filled field without a column stands in `custom` under its API name,
/// and nothing else does.
async fn customs(
    object: &Object,
    recorded: &Records,
    truth: &Records,
    client: &Client,
    wrong: &mut Vec<String>,
) {
    let sql = format!("select drover_id, custom from \"{}\"", object.table);
    let rows = client.query(&sql, &[]).await.expect("rows");
    assert_eq!(rows.len(), object.count, "{}", object.name);
    for row in &rows {
        let id: &str = row.get(0);
        let have: Value = row.get(1);
        let mut want = Map::new();
        // What was recorded goes over what the stand-in filled in for the rest.
        for record in [&truth[id], &recorded[id]] {
            for (field, value) in record.as_object().into_iter().flatten() {
                let elsewhere = object.columns.iter().any(|(_, from, _)| from == field)
                    || object.dropped.contains(&field.as_str())
                    || field == "attributes";
                if !elsewhere && !value.is_null() {
                    want.insert(field.clone(), value.clone());
                }
            }
        }
        if json!(want) != have {
            wrong.push(format!(
                "{} {id}.custom: {} is {have}",
                object.name,
                json!(want)
            ));
        }
    }
}
