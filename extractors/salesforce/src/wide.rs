//! Records with more fields than one query can name: each page is read by several
//! queries of the same bounds, and their answers are put together by id.
//!
//! The queries do not run at one moment. A record that was edited, deleted or
//! made between two of them shows different stamps, or is missing in one: it is
//! left out. Its new stamp lies behind the start of the copy or of the round, so
//! a later round brings it; that is the very case of a record which was edited
//! just behind its page.

use std::collections::HashMap;

use drover_pipeline::Result;
use drover_pipeline::extract::Change;
use serde_json::value::RawValue;

use crate::api::Api;
use crate::fetch::{Rows, page};
use crate::query::Selection;
use crate::rows::{Row, begin_field, members};

/// Reads a page by one query, or by several; `soql` writes the query of some of
/// the fields, and `key` says what the page is ordered by.
pub async fn read<K: Ord>(
    api: &Api,
    selection: &Selection<'_>,
    resource: &str,
    soql: impl Fn(&Selection<'_>) -> String,
    place: &str,
    key: impl Fn(&Row) -> Option<K>,
) -> Result<Rows> {
    if selection.parts.len() < 2 {
        return page(api, selection, resource, &soql(selection), place).await;
    }
    let mut parts = Vec::with_capacity(selection.parts.len());
    for places in &selection.parts {
        let part = selection.part(places);
        parts.push(page(api, &part, resource, &soql(&part), place).await?);
    }
    // One that holds fewer records ends the page for all.
    let end = |rows: &Rows| rows.rows.iter().rev().find_map(&key);
    let ends = parts.iter().filter(|part| !part.last).map(end);
    let shortest = ends.min_by(|a, b| match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        // A page without a key: the caller can't follow it, and says so.
        (None, _) => std::cmp::Ordering::Less,
        (_, None) => std::cmp::Ordering::Greater,
    });
    let within = |row: &Row| match (&shortest, key(row)) {
        (Some(Some(end)), Some(key)) => key <= *end,
        _ => true,
    };
    for part in &mut parts {
        part.rows.retain(within);
    }
    let mut parts = parts.into_iter();
    let Some(mut first) = parts.next() else {
        return page(api, selection, resource, &soql(selection), place).await;
    };
    let others: Vec<Rows> = parts.collect();
    let last = first.last && others.iter().all(|part| part.last);
    // The key is the last one that every part has reached.
    let keyed = std::iter::once(&first).chain(&others);
    let farthest = keyed
        .flat_map(|part| part.rows.iter())
        .filter_map(|row| Some((key(row)?, (row.stamp.unwrap_or(0), row.id.clone()?))))
        .max_by(|a, b| a.0.cmp(&b.0));
    first.key = farthest.map(|found| found.1);
    first.last = last;
    let others = others.into_iter().map(|part| part.rows).collect();
    first.rows = together(selection, first.rows, others);
    Ok(first)
}

/// The records that all parts show alike.
pub fn together(selection: &Selection<'_>, first: Vec<Row>, others: Vec<Vec<Row>>) -> Vec<Row> {
    let mut others: Vec<HashMap<String, Row>> = others
        .into_iter()
        .map(|rows| {
            rows.into_iter()
                .filter_map(|row| Some((row.id.clone()?, row)))
        })
        .map(Iterator::collect)
        .collect();
    let mut found = Vec::with_capacity(first.len());
    for mut row in first {
        let Some(id) = row.id.clone() else {
            found.push(row);
            continue;
        };
        let rest: Option<Vec<Row>> = others.iter_mut().map(|part| part.remove(&id)).collect();
        let Some(rest) = rest.filter(|rest| rest.iter().all(|it| it.stamp == row.stamp)) else {
            continue;
        };
        for part in rest {
            row.content = match (row.content, part.content) {
                (Ok(mine), Ok(its)) if mine.op == its.op => Ok(join(selection, mine, &its)),
                // Deleted between the two, within one stamp.
                (Ok(mine), Ok(its)) => Ok(if mine.body.is_none() { mine } else { its }),
                (Err(bad), _) | (Ok(_), Err(bad)) => Err(bad),
            };
        }
        found.push(row);
    }
    found
}

/// A change with the fields of both, in the order of the describe.
fn join(selection: &Selection<'_>, mut mine: Change, its: &Change) -> Change {
    let (Some(left), Some(right)) = (&mine.body, &its.body) else {
        return mine;
    };
    let mut values: HashMap<String, &RawValue> = HashMap::new();
    values.extend(members(left));
    values.extend(members(right));
    let mut body = String::with_capacity(left.len() + right.len());
    let present = selection
        .fields
        .iter()
        .filter_map(|name| Some((name, values.get(*name)?)));
    for (at, (name, raw)) in present.enumerate() {
        begin_field(name, at, &mut body);
        body.push_str(raw.get());
    }
    body.push('}');
    mine.body = Some(body);
    mine
}
