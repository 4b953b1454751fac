//! A batch's quick way into its table. The runner's memory says of nearly every
//! item whether its row is there: new ones are put straight into the table by
//! binary COPY, under ids that were drawn before; known ones are updated by id.
//!
//! The unique key and the order still judge: where memory is wrong (a killed
//! sender was here before), COPY meets the unique key and the batch goes the
//! careful way, or the update leaves the row alone and we look at it. Half the
//! work of staging and ON CONFLICT for a new row, in time and in WAL.

use std::io::Cursor;
use std::pin::pin;

use drover_pipeline::load::{Applied, Item, Outcome, Write};
use futures::SinkExt;
use tokio_postgres::{Error, Statement};

use crate::apply::{CHUNK, finish, upsert};
use crate::binary::{self, put_columns, put_long, put_staged, staged};
use crate::lookup::standing;
use crate::pool::{Connection, Quick};
use crate::table::Table;

/// Writes a batch inside the open transaction: one outcome an item. `None`, or
/// an error of the server, when it has to go the careful way, in a transaction
/// of its own.
pub(crate) async fn quick(
    connection: &mut Connection,
    table: &Table,
    items: &[Item<'_>],
) -> Result<Option<Vec<Outcome>>, Error> {
    let Some(quick) = connection.statements(table).await?.quick else {
        return Ok(None);
    };
    let mut new = Vec::new();
    let mut known = Vec::new();
    for (place, item) in items.iter().enumerate() {
        if matches!(item.write, Write::Upsert { .. }) {
            match item.target_id.map(|id| id.parse::<i64>()) {
                None => new.push(place),
                Some(Ok(id)) => known.push((place, id)),
                Some(Err(_)) => return Ok(None),
            }
        }
    }
    let mut applied: Vec<Option<Applied>> = vec![None; items.len()];
    let done = insert(connection, &quick, items, &new, &mut applied).await?
        && update(connection, &quick, table, items, &known, &mut applied).await?;
    if !done {
        return Ok(None);
    }
    finish(connection, table, items, applied).await.map(Some)
}

/// Puts new rows into the table. `false` when one can't be told in binary, or
/// the server took fewer than it was given.
async fn insert(
    connection: &Connection,
    quick: &Quick,
    items: &[Item<'_>],
    new: &[usize],
    applied: &mut [Option<Applied>],
) -> Result<bool, Error> {
    if new.is_empty() {
        return Ok(true);
    }
    let count = new.len() as i64;
    let row = connection
        .client
        .query_one(&quick.ids, &[&quick.sequence, &count])
        .await?;
    let (ids, created): (Vec<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
    let rows = new
        .iter()
        .zip(&ids)
        .map(|(place, id)| (&items[*place], *id));
    let written = copy(connection, &quick.copy_new, rows, Some(created)).await?;
    for (place, id) in new.iter().zip(ids) {
        applied[*place] = Some(Applied {
            id: Some(id.to_string()),
            created: true,
            newer: false,
        });
    }
    Ok(written == Some(count as u64))
}

/// Updates rows by id. What is not as it should be goes through the upsert.
async fn update(
    connection: &mut Connection,
    quick: &Quick,
    table: &Table,
    items: &[Item<'_>],
    known: &[(usize, i64)],
    applied: &mut [Option<Applied>],
) -> Result<bool, Error> {
    if known.is_empty() {
        return Ok(true);
    }
    let rows = known.iter().map(|(place, id)| (&items[*place], *id));
    if copy(connection, &quick.copy_known, rows, None).await? != Some(known.len() as u64) {
        return Ok(false);
    }
    let updated = connection.client.execute(&quick.update, &[]).await?;
    if updated == known.len() as u64 {
        for &(place, id) in known {
            applied[place] = Some(Applied {
                id: Some(id.to_string()),
                created: false,
                newer: false,
            });
        }
        return Ok(true);
    }
    let keys: Vec<_> = known.iter().map(|(place, _)| items[*place].key).collect();
    let found = standing(&connection.client, table, &keys).await?;
    let mut left = Vec::new();
    for (&(place, _), found) in known.iter().zip(found) {
        let order = Some(items[place].order);
        match found {
            Some(row) if row.order >= order => {
                applied[place] = Some(Applied {
                    id: Some(row.id.to_string()),
                    created: false,
                    newer: row.order > order,
                });
            }
            _ => left.push(place),
        }
    }
    if !left.is_empty() {
        let empty = format!("DELETE FROM {}", table.stage);
        connection.client.batch_execute(&empty).await?;
        upsert(connection, table, items, &left, applied).await?;
    }
    Ok(true)
}

/// Sends rows, each with its id and, where given, the moment of its creation;
/// says how many the server took. `None` when one has no binary form.
async fn copy<'i>(
    connection: &Connection,
    statement: &Statement,
    rows: impl Iterator<Item = (&'i Item<'i>, i64)>,
    created: Option<i64>,
) -> Result<Option<u64>, Error> {
    let mut sink = pin!(
        connection
            .client
            .copy_in::<_, Cursor<Vec<u8>>>(statement)
            .await?
    );
    let room = CHUNK + CHUNK / 4;
    let mut chunk = Vec::with_capacity(room);
    chunk.extend_from_slice(binary::HEAD);
    for (item, id) in rows {
        let Write::Upsert { datum, links } = &item.write else {
            continue;
        };
        let columns = 1 + staged(datum.values.len()) + usize::from(created.is_some());
        put_columns(&mut chunk, columns);
        put_long(&mut chunk, id);
        if put_staged(&mut chunk, item, datum, links).is_none() {
            // Dropped before its end, the COPY fails and with it the transaction.
            return Ok(None);
        }
        if let Some(created) = created {
            put_long(&mut chunk, created);
        }
        if chunk.len() >= CHUNK {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(room));
            sink.send(Cursor::new(full)).await?;
        }
    }
    chunk.extend_from_slice(binary::END);
    sink.send(Cursor::new(chunk)).await?;
    sink.as_mut().finish().await.map(Some)
}
