//! What stands in a table: by our keys, and by the table's ids.

use drover_pipeline::Result;
use drover_pipeline::idempotency::TargetId;
use drover_pipeline::record::{CanonicalKey, Order};
use tokio_postgres::Client;

use crate::error::explain;
use crate::table::Table;

/// What stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The row's id.
    pub(crate) id: i64,
    /// The order that the row carries, if it is one.
    pub(crate) order: Option<Order>,
}

/// The parts of keys, each part a list, in the order of [`crate::table::KEY`].
#[derive(Default)]
pub(crate) struct KeyParts<'a> {
    /// The record's ids.
    pub(crate) ids: Vec<&'a str>,
    /// The slots.
    pub(crate) slots: Vec<&'a str>,
    /// The objects.
    pub(crate) objects: Vec<&'a str>,
    /// The sources.
    pub(crate) sources: Vec<&'a str>,
}

impl<'a> KeyParts<'a> {
    /// Adds a key.
    pub(crate) fn push(&mut self, key: &'a CanonicalKey) {
        let (source, object, id, slot) = key.parts();
        self.ids.push(id);
        self.slots.push(slot);
        self.objects.push(object);
        self.sources.push(source);
    }
}

/// What stands under each of the keys.
pub(crate) async fn find(
    client: &Client,
    table: &Table,
    keys: &[&CanonicalKey],
) -> Result<Vec<Option<Standing>>> {
    standing(client, table, keys)
        .await
        .map_err(|error| explain(&error))
}

/// [`find`] with the driver's own error.
pub(crate) async fn standing(
    client: &Client,
    table: &Table,
    keys: &[&CanonicalKey],
) -> Result<Vec<Option<Standing>>, tokio_postgres::Error> {
    let mut places = Vec::with_capacity(keys.len());
    let mut parts = KeyParts::default();
    for (place, key) in keys.iter().enumerate() {
        // PostgreSQL can't hold NUL, so no row has such a key; asked for, it
        // would fail the whole question.
        if !key.as_str().contains('\0') {
            places.push(place);
            parts.push(key);
        }
    }
    let rows = client
        .query(
            &table.find,
            &[&parts.ids, &parts.slots, &parts.objects, &parts.sources],
        )
        .await?;
    let mut found = vec![None; keys.len()];
    for row in rows {
        let nth: i64 = row.try_get(0)?;
        let place = usize::try_from(nth - 1).ok().and_then(|n| places.get(n));
        if let Some(slot) = place.and_then(|place| found.get_mut(*place)) {
            *slot = Some(Standing {
                id: row.try_get(1)?,
                order: order_of(&row.try_get::<_, Vec<Option<i64>>>(2)?),
            });
        }
    }
    Ok(found)
}

/// The rows with those ids, as JSON.
pub(crate) async fn read(
    client: &Client,
    table: &Table,
    ids: &[&TargetId],
) -> Result<Vec<Option<String>>> {
    // A text that is no number is no id of ours: there is no such row.
    let numbers: Vec<Option<i64>> = ids.iter().map(|id| id.parse().ok()).collect();
    let rows = client
        .query(&table.read, &[&numbers])
        .await
        .map_err(|error| explain(&error))?;
    let mut found = vec![None; ids.len()];
    for row in rows {
        let nth: i64 = row.try_get(0).map_err(|error| explain(&error))?;
        let json: String = row.try_get(1).map_err(|error| explain(&error))?;
        if let Some(slot) = usize::try_from(nth - 1).ok().and_then(|n| found.get_mut(n)) {
            *slot = Some(json);
        }
    }
    Ok(found)
}

fn order_of(numbers: &[Option<i64>]) -> Option<Order> {
    let &[
        Some(version),
        Some(mapping),
        Some(incarnation),
        Some(offset),
        Some(reapply),
    ] = numbers
    else {
        return None;
    };
    Some(Order {
        version,
        mapping: mapping.try_into().ok()?,
        incarnation: incarnation.try_into().ok()?,
        offset,
        reapply: reapply.try_into().ok()?,
    })
}
