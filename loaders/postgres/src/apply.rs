//! A batch's careful way into its table, taken where the quick one (`quick.rs`)
//! does not lead to the end: COPY into the connection's staging table, one
//! guarded upsert, one guarded update for the deletes, and a look at the rows
//! that neither touched. All in one transaction, so that an error leaves
//! nothing behind, and a resend after a lost COMMIT finds its own orders.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::pin::pin;

use drover_pipeline::load::{Applied, Item, Outcome, Write};
use drover_pipeline::{Code, Error, Result};
use drover_schemas::{Datum, Value};
use futures::SinkExt;

use crate::error::{concerns_rows, explain};
use crate::isolate::isolate;
use crate::lookup::{KeyParts, standing};
use crate::pool::Connection;
use crate::quick::quick;
use crate::table::Table;
use crate::text::{self, NULL};

/// Constraints that a customer made DEFERRABLE would otherwise speak at COMMIT,
/// when the culprit can no longer be found.
pub(crate) const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET CONSTRAINTS ALL IMMEDIATE";

/// How many bytes are encoded before they are sent: the server reads them
/// while we encode the next.
pub(crate) const CHUNK: usize = 64 << 10;

/// Applies a batch of that table's entity. After an error the connection must
/// not be used again.
pub(crate) async fn apply(
    connection: &mut Connection,
    table: &Table,
    batch: &[Item<'_>],
) -> Result<Vec<Outcome>> {
    let driver = |error: tokio_postgres::Error| explain(&error);
    connection.statements(table).await.map_err(driver)?;
    connection
        .client
        .batch_execute(BEGIN)
        .await
        .map_err(driver)?;
    let mut written = quick(connection, table, batch).await;
    if !matches!(written, Ok(Some(_))) {
        // Somebody else wrote such a key, or a row is bad. What it is, the
        // careful way finds out; a broken connection fails here.
        let again = format!("ROLLBACK; {BEGIN}");
        connection
            .client
            .batch_execute(&again)
            .await
            .map_err(driver)?;
        written = write(connection, table, batch, 0..batch.len())
            .await
            .map(Some);
    }
    let outcomes = match written {
        Ok(outcomes) => outcomes.unwrap_or_default(),
        Err(error) if concerns_rows(&error) => {
            let again = format!("ROLLBACK; {BEGIN}");
            connection
                .client
                .batch_execute(&again)
                .await
                .map_err(driver)?;
            isolate(connection, table, batch, error)
                .await
                .map_err(driver)?
        }
        Err(error) => return Err(explain(&error)),
    };
    // When the answer to this is lost, the batch may be there or not: sent
    // again, the rows that are there have its order and stay as they are.
    connection
        .client
        .batch_execute("COMMIT")
        .await
        .map_err(driver)?;
    Ok(outcomes)
}

/// Writes those items inside the open transaction, of which the staging table
/// must be empty: one outcome an item.
pub(crate) async fn write(
    connection: &mut Connection,
    table: &Table,
    batch: &[Item<'_>],
    range: Range<usize>,
) -> Result<Vec<Outcome>, tokio_postgres::Error> {
    let items = &batch[range];
    let mut applied: Vec<Option<Applied>> = vec![None; items.len()];
    let all: Vec<usize> = (0..items.len()).collect();
    upsert(connection, table, items, &all, &mut applied).await?;
    finish(connection, table, items, applied).await
}

/// Takes back what must not be, marks the deletes, and judges what was not
/// written.
pub(crate) async fn finish(
    connection: &mut Connection,
    table: &Table,
    items: &[Item<'_>],
    mut applied: Vec<Option<Applied>>,
) -> Result<Vec<Outcome>, tokio_postgres::Error> {
    let removed = take_back(connection, table, items, &mut applied).await?;
    delete(connection, table, items, &mut applied).await?;
    let untouched: Vec<usize> = (0..items.len())
        .filter(|&place| applied[place].is_none() && !removed.contains(&place))
        .collect();
    let mut outcomes: Vec<Option<Outcome>> = applied
        .into_iter()
        .map(|applied| applied.map(Outcome::Applied))
        .collect();
    if !untouched.is_empty() {
        let keys: Vec<_> = untouched.iter().map(|&place| items[place].key).collect();
        let found = standing(&connection.client, table, &keys).await?;
        for (place, found) in untouched.into_iter().zip(found) {
            outcomes[place] = Some(judge_untouched(&items[place], found, table));
        }
    }
    for place in removed {
        outcomes[place] = Some(Outcome::Rejected(row_removed(&items[place], table)));
    }
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| swallowed(table)))
        .collect())
}

/// Takes back the rows that were made although we have made them before: a person
/// removed them, and the new ones would have other ids than the links to them.
/// Returns their places.
async fn take_back(
    connection: &Connection,
    table: &Table,
    items: &[Item<'_>],
    applied: &mut [Option<Applied>],
) -> Result<Vec<usize>, tokio_postgres::Error> {
    let mut places = Vec::new();
    let mut ids: Vec<i64> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        if let Some(Applied {
            id: Some(id),
            created: true,
            ..
        }) = &applied[place]
            && item.target_id.is_some()
        {
            places.push(place);
            ids.extend(id.parse::<i64>());
        }
    }
    if !places.is_empty() {
        connection.client.execute(&table.take_back, &[&ids]).await?;
        for place in &places {
            applied[*place] = None;
        }
    }
    Ok(places)
}

fn row_removed(item: &Item<'_>, table: &Table) -> Error {
    let id = item.target_id.map_or("", String::as_str);
    let message = format!("the row {id} was made by Drover, and somebody has removed it");
    Error::new(Code::RowRemoved, message).at(format!("{}.id", table.entity.name))
}

/// An item whose row the guard left as it is.
fn judge_untouched(
    item: &Item<'_>,
    found: Option<crate::lookup::Standing>,
    table: &Table,
) -> Outcome {
    let applied = |id, newer| {
        Outcome::Applied(Applied {
            id,
            created: false,
            newer,
        })
    };
    match (found, &item.write) {
        (None, Write::Delete { .. }) => applied(None, false),
        (Some(row), _) if row.order >= Some(item.order) => {
            applied(Some(row.id.to_string()), row.order > Some(item.order))
        }
        _ => swallowed(table),
    }
}

/// A trigger that returns NULL, or a rule, took the row without a word.
fn swallowed(table: &Table) -> Outcome {
    Outcome::Rejected(
        Error::new(
            Code::TargetRefused,
            "the database took the row without an error and did not write it; \
             a trigger or rule of the table does that",
        )
        .at(table.entity.name.as_str()),
    )
}

/// Writes those of the items that are upserts, be their rows there or not.
pub(crate) async fn upsert(
    connection: &mut Connection,
    table: &Table,
    items: &[Item<'_>],
    which: &[usize],
    applied: &mut [Option<Applied>],
) -> Result<(), tokio_postgres::Error> {
    let mut places = HashMap::with_capacity(which.len());
    let mut rows = Vec::with_capacity(which.len());
    for &place in which {
        let item = &items[place];
        if let Write::Upsert { datum, links } = &item.write {
            let (source, object, id, slot) = item.key.parts();
            places.insert((id, slot, object, source), place);
            rows.push((item, *datum, links));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let statements = connection.statements(table).await?;
    let mut sink = pin!(
        connection
            .client
            .copy_in::<_, Cursor<Vec<u8>>>(&statements.copy)
            .await?
    );
    let mut chunk = Vec::with_capacity(CHUNK + CHUNK / 4);
    for (item, datum, links) in rows {
        put_row(&mut chunk, item, datum, links);
        if chunk.len() >= CHUNK {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK + CHUNK / 4));
            sink.send(Cursor::new(full)).await?;
        }
    }
    sink.send(Cursor::new(chunk)).await?;
    sink.as_mut().finish().await?;
    let written = connection.client.query(&statements.upsert, &[]).await?;
    for row in &written {
        let key = (
            row.try_get(2)?,
            row.try_get(3)?,
            row.try_get(4)?,
            row.try_get(5)?,
        );
        if let Some(&place) = places.get(&key) {
            applied[place] = Some(Applied {
                id: Some(row.try_get::<_, i64>(0)?.to_string()),
                created: row.try_get(1)?,
                newer: false,
            });
        }
    }
    Ok(())
}

async fn delete(
    connection: &mut Connection,
    table: &Table,
    items: &[Item<'_>],
    applied: &mut [Option<Applied>],
) -> Result<(), tokio_postgres::Error> {
    let mut places = Vec::new();
    let mut parts = KeyParts::default();
    let mut versions = Vec::new();
    let mut orders = Vec::new();
    for (place, item) in items.iter().enumerate() {
        // A key with NUL has no row (see `standing`), so there is nothing to mark.
        if matches!(item.write, Write::Delete { .. }) && !item.key.as_str().contains('\0') {
            places.push(place);
            parts.push(item.key);
            versions.push(text::moment(item.version));
            orders.push(text::order(&item.order));
        }
    }
    if places.is_empty() {
        return Ok(());
    }
    let marked = connection
        .client
        .query(
            &table.delete,
            &[
                &parts.ids,
                &parts.slots,
                &parts.objects,
                &parts.sources,
                &versions,
                &orders,
            ],
        )
        .await?;
    for row in &marked {
        let nth: i64 = row.try_get(1)?;
        if let Some(&place) = usize::try_from(nth - 1).ok().and_then(|n| places.get(n)) {
            applied[place] = Some(Applied {
                id: Some(row.try_get::<_, i64>(0)?.to_string()),
                created: false,
                newer: false,
            });
        }
    }
    Ok(())
}

/// Appends a row for COPY, in the order of the staging table's columns.
fn put_row(out: &mut Vec<u8>, item: &Item<'_>, datum: &Datum<'_>, links: &[(usize, String)]) {
    for (field, value) in datum.values.iter().enumerate() {
        match value {
            Value::Null => out.extend_from_slice(NULL),
            Value::String(text) | Value::Decimal(text) => text::put_text(out, text),
            Value::Boolean(value) => out.push(if *value { b't' } else { b'f' }),
            Value::Long(number) => text::put_number(out, *number),
            Value::Date(days) => text::put_date(out, i64::from(*days)),
            Value::Datetime(millis) => text::put_moment(out, *millis),
            Value::Reference(_) => match links.iter().find(|(linked, _)| *linked == field) {
                Some((_, id)) => text::put_text(out, id),
                None => out.extend_from_slice(NULL),
            },
        }
        out.push(b'\t');
    }
    put_custom(out, datum);
    let (source, object, id, slot) = item.key.parts();
    for part in [source, object, id, slot] {
        out.push(b'\t');
        text::put_text(out, part);
    }
    out.push(b'\t');
    text::put_moment(out, item.version);
    out.push(b'\t');
    text::put_order(out, &item.order);
    out.push(b'\n');
}

/// Appends `{API name: value}`; the values are JSON texts already.
fn put_custom(out: &mut Vec<u8>, datum: &Datum<'_>) {
    out.push(b'{');
    for (nth, custom) in datum.custom.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        text::put_text(out, &serde_json::Value::from(&*custom.name).to_string());
        out.push(b':');
        text::put_text(out, &custom.json);
    }
    out.push(b'}');
}
