//! What `prepare` makes, adds and refuses.

use drover_pipeline::load::Loader;
use drover_pipeline::testing::loader::{Driver, Harness};
use drover_pipeline::{Code, Error};

use crate::harness::Schema;
use crate::own::contacts;

#[tokio::test]
async fn a_plan_says_what_is_made_and_is_empty_afterwards() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    let loader = schema.loader();
    let plan = loader.plan().await.expect("a plan");
    assert_eq!(plan[0], format!("schema {}", schema.name));
    assert_eq!(plan.len(), 1 + drover_schemas::entities().len());
    let contact = format!("table {}.contact with 34 columns", schema.name);
    assert!(plan.contains(&contact), "{plan:#?}");
    let tables = "SELECT count(*)::text FROM information_schema.tables \
                  WHERE quote_ident(table_schema) = '{schema}'";
    assert_eq!(
        schema.ask(tables).await.as_deref(),
        Some("0"),
        "only a plan"
    );
    loader.prepare().await.expect("prepared");
    let all = drover_schemas::entities().len().to_string();
    assert_eq!(schema.ask(tables).await, Some(all));
    assert_eq!(loader.plan().await.expect("a plan"), [""; 0]);
}

#[tokio::test]
async fn columns_have_the_types_that_are_promised() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    schema.loader().prepare().await.expect("prepared");
    let columns = schema
        .ask(
            "SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position) \
             FROM information_schema.columns \
             WHERE quote_ident(table_schema) = '{schema}' AND table_name = 'deal'",
        )
        .await;
    assert_eq!(
        columns.as_deref(),
        Some(
            "id bigint, name text, stage text, amount numeric, currency text, \
             probability numeric, close_date date, type text, next_step text, lead_source text, \
             closed boolean, won boolean, description text, company_id bigint, \
             campaign_id bigint, record_type_id bigint, owner_id bigint, owner_type text, \
             created_at timestamp with time zone, updated_at timestamp with time zone, \
             custom jsonb, drover_source text, drover_object text, drover_id text, \
             drover_slot text, drover_version timestamp with time zone, drover_order ARRAY, \
             drover_created timestamp with time zone, \
             drover_deleted_at timestamp with time zone"
        )
    );
}

#[tokio::test]
async fn a_missing_column_is_added_and_rows_are_kept() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    let mut driver = Driver::new(schema).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(2, 1)).await;
    let drop = "ALTER TABLE {contact} DROP bio, DROP custom, DROP company_id, \
                ADD remarks text DEFAULT 'of the customer'";
    driver.harness.run(drop).await;
    let plan = driver.loader.plan().await.expect("a plan");
    let name = &driver.harness.name;
    assert_eq!(
        plan,
        [
            format!("column {name}.contact.bio text"),
            format!("column {name}.contact.company_id bigint"),
            format!("column {name}.contact.custom jsonb"),
        ]
    );
    // By another process: this one has prepared its statements already.
    driver.harness.loader().prepare().await.expect("prepared");
    driver.apply(entity, &contacts(3, 2)).await;
    driver.expect(entity, &contacts(3, 2)).await;
    let remarks = "SELECT string_agg(DISTINCT remarks, '') FROM {contact}";
    let remarks = driver.harness.ask(remarks).await;
    assert_eq!(remarks.as_deref(), Some("of the customer"));
}

#[tokio::test]
async fn a_check_tells_of_a_table_that_was_altered() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    schema.loader().check().await.expect("nothing is there yet");
    schema.loader().prepare().await.expect("prepared");
    schema.loader().check().await.expect("as it was made");
    schema.run("ALTER TABLE {contact} RENAME bio TO life").await;
    let error = schema.loader().check().await.expect_err("altered");
    assert_eq!(error.code, Code::TargetAltered, "{error}");
    let rename = "RENAME \"life\" TO \"bio\"";
    assert!(error.to_string().contains(rename), "{error}");
}

/// What `prepare` and `plan` say of a table that was changed in that way.
async fn refusal(change: &str) -> Option<Error> {
    let schema = Schema::fresh().await?;
    schema.loader().prepare().await.expect("prepared");
    schema.run(change).await;
    let error = schema.loader().prepare().await.expect_err(change);
    let planned = schema.loader().plan().await.expect_err(change);
    assert_eq!(error.to_string(), planned.to_string());
    assert_eq!(error.code, Code::TargetAltered, "{error}");
    assert_eq!(error.place, Some(format!("{}.contact", schema.name)));
    Some(error)
}

#[tokio::test]
async fn an_altered_table_is_refused_by_name() {
    for (change, says) in [
        (
            "ALTER TABLE {contact} ALTER bio TYPE varchar(80)",
            ".contact.bio is character varying(80), it must be text",
        ),
        (
            "ALTER TABLE {contact} ALTER company_id TYPE text",
            ".contact.company_id is text, it must be bigint",
        ),
        (
            "ALTER TABLE {contact} DROP drover_slot",
            ".contact.drover_slot is gone",
        ),
        (
            "ALTER TABLE {contact} DROP CONSTRAINT \
             contact_drover_id_drover_slot_drover_object_drover_source_key",
            "ADD UNIQUE (drover_id, drover_slot, drover_object, drover_source)",
        ),
        (
            "DROP TABLE {contact}; CREATE TABLE {contact} (id int, bio text)",
            "was not made by Drover; set targetConfig.schema to another schema",
        ),
        (
            "ALTER TABLE {contact} RENAME TO own; \
             CREATE VIEW {contact} AS SELECT * FROM {schema}.own",
            "was not made by Drover",
        ),
    ] {
        if let Some(error) = refusal(change).await {
            assert!(error.message.contains(says), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_gone_is_told_with_what_brings_it_back() {
    for (change, says) in [
        (
            "ALTER TABLE {contact} RENAME bio TO about",
            "\"contact\" RENAME \"about\" TO \"bio\"; was it dropped, then ALTER TABLE",
        ),
        (
            "ALTER TABLE {contact} DROP bio",
            "ADD COLUMN \"bio\" text, and after the restart `drover remap --reload contact`",
        ),
        (
            "DROP TABLE {contact}",
            ".contact is gone, and with it its rows and their ids; if it was renamed",
        ),
    ] {
        let Some(schema) = Schema::fresh().await else {
            return;
        };
        let driver = Driver::new(schema).await;
        let entity = driver.entity("contact");
        let as_made = driver.loader.altered(entity).await;
        as_made.expect("as it was made");
        driver.harness.run(change).await;
        let error = driver.loader.altered(entity).await.expect_err(change);
        assert_eq!(error.code, Code::TargetAltered, "{error}");
        assert!(error.message.contains(says), "{error}");
        let text = error.to_string();
        assert!(text.matches("restart the loader").count() <= 1, "{text}");
    }
}

#[tokio::test]
async fn a_user_without_the_right_to_create_can_load_into_prepared_tables() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    schema.loader().prepare().await.expect("prepared");
    let role = format!("r{}", schema.application());
    schema
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {{schema}} TO {role}; \
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {{schema}} TO {role}"
        ))
        .await;
    let url = schema.url.replace("postgres@", &format!("{role}@"));
    let mut driver = Driver::new(schema).await;
    driver.loader = driver.harness.loader_at(&url, 1);
    driver.loader.check().await.expect("check");
    driver.loader.prepare().await.expect("nothing to make");
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(2, 1)).await;
    driver.expect(entity, &contacts(2, 1)).await;
}
