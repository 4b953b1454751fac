//! Makes schema and tables, and judges what is there already.

use std::collections::{BTreeMap, BTreeSet};

use drover_pipeline::{Code, Error, Result};
use tokio_postgres::Client;

use crate::error::explain;
use crate::table::{KEY, Table, quote};

/// One thing to make.
struct Step {
    /// For the plan: `table public.contact with 30 columns`.
    text: String,
    sql: String,
}

/// A relation that has the name of one of our tables.
#[derive(Default)]
struct Existing {
    /// PostgreSQL's letter for what it is: `r` a table, `v` a view, …
    kind: String,
    /// The columns' types.
    columns: BTreeMap<String, String>,
    /// How many columns were taken away since it was made.
    dropped: i64,
}

/// Proves that the database can be written to with these rights.
pub(crate) async fn check(client: &Client, schema: &str) -> Result<()> {
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(), \
             has_database_privilege(current_database(), 'TEMP'), \
             CASE WHEN to_regnamespace($2) IS NULL \
                  THEN has_database_privilege(current_database(), 'CREATE') \
                  ELSE has_schema_privilege($1, 'USAGE') END, \
             current_user::text",
            &[&schema, &quote(schema)],
        )
        .await
        .map_err(|error| explain(&error))?;
    let get = |place| {
        row.try_get::<_, bool>(place)
            .map_err(|error| explain(&error))
    };
    if get(0)? {
        return Err(Error::new(
            Code::Refused,
            "the database is a standby that can only be read; name the primary in targetConfig.url",
        ));
    }
    let user: String = row.try_get(3).map_err(|error| explain(&error))?;
    let missing = if !get(1)? {
        "TEMPORARY on the database (rows are staged in a temporary table)".to_owned()
    } else if !get(2)? {
        format!("USAGE on the schema {schema}, or CREATE on the database if it is not there")
    } else {
        return Ok(());
    };
    Err(Error::new(
        Code::Forbidden,
        format!("the user {user} lacks the right {missing}"),
    ))
}

/// What [`prepare`] would make, one line each.
pub(crate) async fn plan(client: &Client, schema: &str, tables: &[Table]) -> Result<Vec<String>> {
    let steps = steps(client, schema, tables).await?;
    Ok(steps.into_iter().map(|step| step.text).collect())
}

/// Makes what is missing. Two processes at once are led one behind the other
/// by an advisory lock, and the second finds nothing to do.
pub(crate) async fn prepare(client: &Client, schema: &str, tables: &[Table]) -> Result<()> {
    let run = async |sql: &str| {
        client
            .batch_execute(sql)
            .await
            .map_err(|error| explain(&error))
    };
    run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    client
        .query(
            "SELECT pg_advisory_xact_lock(hashtextextended('drover prepare ' || $1, 0))",
            &[&schema],
        )
        .await
        .map_err(|error| explain(&error))?;
    // A second statement, hence a snapshot taken behind the lock.
    for step in steps(client, schema, tables).await? {
        tracing::info!(made = step.text, "prepared");
        run(&step.sql).await?;
    }
    run("COMMIT").await
}

async fn steps(client: &Client, schema: &str, tables: &[Table]) -> Result<Vec<Step>> {
    let existing = existing(client, schema, tables)
        .await
        .map_err(|error| explain(&error))?;
    let unique = unique(client, schema)
        .await
        .map_err(|error| explain(&error))?;
    let mut steps = Vec::new();
    let schema_exists = client
        .query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema])
        .await
        .map_err(|error| explain(&error))?
        .is_some();
    if !schema_exists {
        steps.push(Step {
            text: format!("schema {schema}"),
            sql: format!("CREATE SCHEMA {}", quote(schema)),
        });
    }
    for table in tables {
        let name = format!("{schema}.{}", table.entity.name);
        let Some(existing) = existing.get(&table.entity.name) else {
            steps.push(Step {
                text: format!("table {name} with {} columns", table.columns.len()),
                sql: table.create(),
            });
            continue;
        };
        judge(&name, table, existing, unique.contains(&table.entity.name))?;
        for column in &table.columns {
            if !existing.columns.contains_key(&column.name) {
                steps.push(Step {
                    text: format!("column {name}.{} {}", column.name, column.kind),
                    sql: format!(
                        "ALTER TABLE {} ADD COLUMN {}",
                        table.name,
                        column.definition()
                    ),
                });
            }
        }
    }
    Ok(steps)
}

/// Whether a table that is there was altered by hand, so that a loader would stop at
/// it. One that is not there is what [`prepare`] makes.
pub(crate) async fn stands(client: &Client, schema: &str, tables: &[Table]) -> Result<()> {
    let found = existing(client, schema, tables).await;
    let found = found.map_err(|error| explain(&error))?;
    for table in tables {
        if found.contains_key(&table.entity.name) {
            altered(client, schema, table).await?;
        }
    }
    Ok(())
}

/// Whether a table that was loaded before was altered by hand, so that what it
/// held is gone: [`prepare`] would make it anew, empty.
///
/// A column that is missing although nobody took one away is a new one of a
/// newer Drover. PostgreSQL remembers columns that were dropped; one that was
/// renamed leaves a column that is not ours.
pub(crate) async fn altered(client: &Client, schema: &str, table: &Table) -> Result<()> {
    let driver = |error: tokio_postgres::Error| explain(&error);
    let tables = std::slice::from_ref(table);
    let name = format!("{schema}.{}", table.entity.name);
    let gone = |message: String| Err(Error::new(Code::TargetAltered, message).at(name.as_str()));
    let found = existing(client, schema, tables).await.map_err(driver)?;
    let Some(existing) = found.get(&table.entity.name) else {
        return gone(format!(
            "the table {name} is gone, and with it its rows and their ids; if it was renamed, \
             give it its name back, else restore it from a backup, or migrate anew under another \
             id into another schema"
        ));
    };
    let unique = unique(client, schema).await.map_err(driver)?;
    judge(&name, table, existing, unique.contains(&table.entity.name))?;
    let missing = table
        .columns
        .iter()
        .find(|column| !existing.columns.contains_key(&column.name));
    let ours = |name: &String| table.columns.iter().any(|column| column.name == *name);
    if let Some(column) = missing
        && (existing.dropped > 0 || !existing.columns.keys().all(ours))
    {
        let same = |(name, kind): &(&String, &String)| !ours(name) && **kind == column.kind;
        let renamed = existing.columns.iter().find(same);
        let renamed = renamed.map_or_else(String::new, |(strange, _)| {
            format!(
                "; was it renamed, then ALTER TABLE {} RENAME {} TO {}",
                table.name,
                quote(strange),
                quote(&column.name)
            )
        });
        // The code's own advice follows: to undo it, and to restart the loader.
        return gone(format!(
            "the column {name}.{} is gone{renamed}; was it dropped, then ALTER TABLE {} \
             ADD COLUMN {}, and after the restart `drover remap --reload {}` writes again \
             what was in it",
            column.name,
            table.name,
            column.definition(),
            table.entity.name
        ));
    }
    Ok(())
}

/// Refuses a relation that is not, or no longer, as we make it.
fn judge(name: &str, table: &Table, existing: &Existing, unique: bool) -> Result<()> {
    let altered = |message: String| Err(Error::new(Code::TargetAltered, message).at(name));
    let ours = existing.columns.keys().any(|c| c.starts_with("drover_"));
    if !ours || !matches!(existing.kind.as_str(), "r" | "p") {
        return altered(format!(
            "{name} exists and was not made by Drover; \
             set targetConfig.schema to another schema, or rename what is there"
        ));
    }
    for column in &table.columns {
        match existing.columns.get(&column.name) {
            Some(kind) if kind == column.kind => {}
            Some(kind) => {
                return altered(format!(
                    "the column {name}.{} is {kind}, it must be {}",
                    column.name, column.kind
                ));
            }
            None if column.addable => {}
            None => {
                return altered(format!(
                    "the column {name}.{} is gone, and what it held can't be made again",
                    column.name
                ));
            }
        }
    }
    if !unique {
        return altered(format!(
            "the unique key of {name} is gone; without it rows would be doubled: \
             ALTER TABLE {} ADD UNIQUE ({})",
            table.name,
            KEY.join(", ")
        ));
    }
    Ok(())
}

async fn existing(
    client: &Client,
    schema: &str,
    tables: &[Table],
) -> Result<BTreeMap<String, Existing>, tokio_postgres::Error> {
    let names: Vec<&str> = tables.iter().map(|t| t.entity.name.as_str()).collect();
    let rows = client
        .query(
            "SELECT c.relname::text, c.relkind::text, a.attname::text, \
             format_type(a.atttypid, a.atttypmod), \
             (SELECT count(*) FROM pg_attribute d \
              WHERE d.attrelid = c.oid AND d.attnum > 0 AND d.attisdropped) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_attribute a \
             ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE n.nspname = $1 AND c.relname = ANY($2::text[])",
            &[&schema, &names],
        )
        .await?;
    let mut found: BTreeMap<String, Existing> = BTreeMap::new();
    for row in rows {
        let relation = found.entry(row.try_get(0)?).or_default();
        relation.kind = row.try_get(1)?;
        relation.dropped = row.try_get(4)?;
        if let (Some(column), Some(kind)) = (row.try_get(2)?, row.try_get(3)?) {
            relation.columns.insert(column, kind);
        }
    }
    Ok(found)
}

/// The tables that have a unique index over exactly our key, one that holds for
/// all rows and at once.
async fn unique(client: &Client, schema: &str) -> Result<BTreeSet<String>, tokio_postgres::Error> {
    let mut key: Vec<&str> = KEY.to_vec();
    key.sort_unstable();
    let rows = client
        .query(
            "SELECT c.relname::text FROM pg_index i \
             JOIN pg_class c ON c.oid = i.indrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
             AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 4 \
             AND (SELECT array_agg(a.attname::text ORDER BY a.attname) \
                  FROM pg_attribute a \
                  WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey)) = $2::text[]",
            &[&schema, &key],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
