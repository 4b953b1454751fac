//! What the conformance suite can't ask because only this target has it: the
//! customer's own constraints and triggers, and what its errors mean.

use drover_pipeline::load::Loader;
use drover_pipeline::testing::loader::{
    Driver, Harness, Record, applied, contact, content, rejected,
};
use drover_pipeline::{Class, Code};
use drover_schemas::{Datum, Value};

use crate::harness::Schema;

/// Contacts of that version; the first name of the n-th is `name n`.
pub fn contacts(count: usize, version: i64) -> Vec<Record> {
    let entity = drover_schemas::entity("contact").expect("the contact");
    (0..count)
        .map(|n| {
            let mut datum = content::full(entity, version * 100 + n as i64);
            datum.values[0] = Value::String(format!("name {n}").into());
            Record::upsert(&contact(n), version, datum)
        })
        .collect()
}

async fn driver() -> Option<Driver<Schema>> {
    Some(Driver::new(Schema::fresh().await?).await)
}

/// Applies five contacts to a table that the customer changed so that it
/// refuses the third: the others must go in, and the error must be that one.
async fn refuses_the_third(change: &str, code: &str, message: &str, place: &str) {
    let Some(mut driver) = driver().await else {
        return;
    };
    let entity = driver.entity("contact");
    driver.harness.run(change).await;
    let outcomes = driver.apply(entity, &contacts(5, 1)).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        if n != 2 {
            assert!(applied(outcome).created, "{change}");
            continue;
        }
        let error = rejected(outcome);
        assert_eq!(error.code, Code::TargetRefused, "{change}");
        assert_eq!(error.source_code.as_deref().unwrap_or(""), code);
        assert!(error.message.contains(message), "{}", error.message);
        assert!(!error.message.contains("name 2"), "{}", error.message);
        assert_eq!(error.place.as_deref(), Some(place));
    }
    let names = "SELECT string_agg(first_name, ',' ORDER BY drover_id) FROM {contact}";
    assert_eq!(
        driver.harness.ask(names).await.as_deref(),
        Some("name 0,name 1,name 3,name 4")
    );
}

#[tokio::test]
async fn a_check_of_the_customers_rejects_one_row() {
    refuses_the_third(
        "ALTER TABLE {contact} ADD CONSTRAINT no_second CHECK (first_name <> 'name 2')",
        "23514",
        "violates check constraint \"no_second\"",
        "contact, constraint no_second",
    )
    .await;
}

/// A function that a trigger calls, and the trigger.
fn trigger(kind: &str, body: &str) -> String {
    format!(
        "CREATE FUNCTION {{schema}}.f() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN IF new.first_name = 'name 2' THEN {body}; END IF; RETURN new; END $$; \
         CREATE {kind} EXECUTE FUNCTION {{schema}}.f()"
    )
}

#[tokio::test]
async fn a_trigger_that_raises_rejects_one_row() {
    refuses_the_third(
        &trigger(
            "TRIGGER t BEFORE INSERT OR UPDATE ON {contact} FOR EACH ROW",
            "RAISE EXCEPTION 'no contact without a permit'",
        ),
        "P0001",
        "no contact without a permit",
        "contact",
    )
    .await;
}

#[tokio::test]
async fn a_deferred_trigger_rejects_one_row() {
    refuses_the_third(
        &trigger(
            "CONSTRAINT TRIGGER t AFTER INSERT ON {contact} DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW",
            "RAISE EXCEPTION 'too late' USING ERRCODE = 'check_violation'",
        ),
        "23514",
        "too late",
        "contact",
    )
    .await;
}

#[tokio::test]
async fn a_trigger_that_swallows_a_row_is_noticed() {
    let body = "RETURN NULL";
    let kind = "TRIGGER t BEFORE INSERT OR UPDATE ON {contact} FOR EACH ROW";
    refuses_the_third(&trigger(kind, body), "", "a trigger or rule", "contact").await;
    // The same when the row is there already, and would only change.
    let Some(mut driver) = driver().await else {
        return;
    };
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(3, 1)).await;
    driver.harness.run(&trigger(kind, body)).await;
    let outcomes = driver.apply(entity, &contacts(3, 2)).await;
    applied(&outcomes[1]);
    rejected(&outcomes[2]);
}

#[tokio::test]
async fn a_narrower_column_and_a_new_required_one_reject_their_rows() {
    refuses_the_third(
        "ALTER TABLE {contact} ALTER first_name TYPE varchar(6); \
         ALTER TABLE {contact} ADD COLUMN g text GENERATED ALWAYS AS \
         (CASE WHEN first_name = 'name 2' THEN NULL ELSE 'x' END) STORED NOT NULL",
        "23502",
        "null value in column \"g\"",
        "contact.g",
    )
    .await;
    let Some(mut driver) = driver().await else {
        return;
    };
    let entity = driver.entity("contact");
    let narrow = "ALTER TABLE {contact} ALTER first_name TYPE varchar(5)";
    driver.harness.run(narrow).await;
    for outcome in driver.apply(entity, &contacts(3, 1)).await {
        let error = rejected(&outcome);
        assert_eq!(error.source_code.as_deref(), Some("22001"));
        assert_eq!(
            error.message,
            "value too long for type character varying(5)"
        );
    }
}

#[tokio::test]
async fn values_that_postgresql_cannot_hold_reject_their_rows() {
    let Some(mut driver) = driver().await else {
        return;
    };
    let company = driver.entity("company");
    let contact_entity = driver.entity("contact");
    let with = |change: &dyn Fn(&mut Record)| {
        let mut record = Record::upsert(&contact(1), 1, content::full(company, 1));
        change(&mut record);
        record
    };
    let field = |name: &str, value: Value<'static>| {
        let place = company.field(name).expect(name).0;
        with(&move |record| {
            if let Some(datum) = &mut record.datum {
                datum.values[place] = value.clone();
            }
        })
    };
    let json = |text: &str| {
        with(&|record| {
            if let Some(datum) = &mut record.datum {
                datum.custom = vec![content::custom("A", "any", text)];
            }
        })
    };
    let key = |id: &str| {
        with(&|record| {
            let key = format!("salesforce/Account/{id}#company");
            record.key = drover_pipeline::record::CanonicalKey::parse(&key).expect("a key");
        })
    };
    // Text that can't be compressed, so that the index can't take it either.
    let long: String = (0..9_000u32)
        .map(|n| char::from_u32(0x4e00 + n * 7919 % 20_000).unwrap_or('x'))
        .collect();
    let huge = "9".repeat(140_000);
    let cases = [
        (field("name", Value::String("secret \0".into())), "22021"),
        (key("secret \0"), "22021"),
        (key(&long), "54000"),
        (
            field("annualRevenue", Value::Decimal("secret".into())),
            "22P02",
        ),
        (field("annualRevenue", Value::Decimal(huge.into())), "22003"),
        (field("createdAt", Value::Datetime(i64::MAX)), "22008"),
        (field("createdAt", Value::Datetime(i64::MIN)), "22008"),
        (with(&|record| record.order.version = i64::MAX / 2), "22008"),
        (json("\"secret \\u0000\""), "22P05"),
        (json("{\"secret\":"), "22P02"),
        (json("1e999999"), "22003"),
        (with(&|record| record.links = Vec::new()), ""),
    ];
    for (n, (record, code)) in cases.into_iter().enumerate() {
        let version = n as i64 + 1;
        let good = Record::upsert(&contact(2), version, content::full(company, version));
        let outcomes = driver.apply(company, &[record, good]).await;
        applied(&outcomes[1]);
        if code.is_empty() {
            applied(&outcomes[0]);
            continue;
        }
        let error = rejected(&outcomes[0]);
        assert_eq!(
            error.source_code.as_deref(),
            Some(code),
            "case {n}: {error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.to_string().len() < 400, "{error}");
    }
    let (place, _) = contact_entity.field("companyId").expect("the reference");
    let mut linked = Record::upsert(&contact(1), 1, content::full(contact_entity, 1));
    linked.datum = Some(Datum {
        values: vec![Value::Reference("a/b/c#d".into()); contact_entity.fields.len()],
        custom: Vec::new(),
    });
    linked.links = vec![(place, "no number".to_owned())];
    let outcomes = driver.apply(contact_entity, &[linked]).await;
    let error = rejected(&outcomes[0]);
    assert_eq!(
        error.place.as_deref(),
        Some("contact.company_id"),
        "{error}"
    );
}

#[tokio::test]
async fn a_changed_table_stops_the_lane() {
    for (change, code, sqlstate) in [
        (
            "ALTER TABLE {contact} DROP COLUMN bio",
            Code::TargetAltered,
            "42703",
        ),
        ("DROP TABLE {contact}", Code::TargetAltered, "42P01"),
        (
            "ALTER TABLE {contact} ALTER title TYPE int USING 1",
            Code::TargetAltered,
            "42804",
        ),
        (
            "REVOKE ALL ON {contact} FROM CURRENT_USER; \
             CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}",
            Code::Forbidden,
            "42501",
        ),
    ] {
        let Some(mut driver) = driver().await else {
            return;
        };
        let entity = driver.entity("contact");
        let role = format!("r{}", driver.harness.application());
        driver.harness.run(&change.replace("{role}", &role)).await;
        if change.contains("{role}") {
            let url = driver.harness.url.replace("postgres@", &format!("{role}@"));
            driver.loader = driver.harness.loader_at(&url, 1);
        }
        let outcomes = driver.try_apply(entity, &contacts(2, 1)).await;
        let error = outcomes.err().unwrap_or_else(|| panic!("{change}"));
        assert_eq!(error.code, code, "{error}");
        assert_eq!(error.source_code.as_deref(), Some(sqlstate), "{error}");
        assert_eq!(error.class(), Class::Operator);
    }
}

#[tokio::test]
async fn who_may_not_enter_is_told_so() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    let nobody = schema.url.replace("postgres@", "no_such_user@");
    let error = schema
        .loader_at(&nobody, 1)
        .check()
        .await
        .expect_err("no user");
    assert_eq!(error.code, Code::Unauthorized, "{error}");
    let nowhere = format!("{}_nowhere", schema.url);
    let error = schema
        .loader_at(&nowhere, 1)
        .check()
        .await
        .expect_err("no database");
    assert_eq!(error.code, Code::Refused, "{error}");
    assert_eq!(error.source_code.as_deref(), Some("3D000"));
    // A port that nobody listens on: bound, and given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let deaf = format!("postgres://ann:secret@127.0.0.1:{port}/crm");
    let error = schema
        .loader_at(&deaf, 1)
        .check()
        .await
        .expect_err("no server");
    assert_eq!(error.code, Code::TargetUnavailable, "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    let role = format!("r{}", schema.application());
    schema
        .run(&format!(
            "CREATE ROLE {role} LOGIN; CREATE SCHEMA {{schema}}"
        ))
        .await;
    let url = schema.url.replace("postgres@", &format!("{role}@"));
    let error = schema
        .loader_at(&url, 1)
        .check()
        .await
        .expect_err("no right");
    assert_eq!(error.code, Code::Forbidden, "{error}");
    assert!(error.message.contains("USAGE on the schema"), "{error}");
}
