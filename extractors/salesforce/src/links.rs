//! Objects that the source shows only by the documents they belong to: a query
//! for them must name the documents, 200 at a time (`reference/salesforce.md`
//! section 3).
//!
//! A link that is made or removed leaves no trace on its document. So a round
//! reads the links of documents that changed, which finds most of them soon, and
//! all links are read whole again at an interval; up to when the object is
//! covered is the start of the last whole reading.

use drover_pipeline::Result;
use drover_pipeline::record::Millis;
use serde::Deserialize;

use crate::api::{Api, Reply};
use crate::fetch::{Rows, rows};
use crate::lookup;
use crate::query::{Selection, Through};
use crate::{id, time};

/// Documents in one query.
const DOCUMENTS: u32 = 200;

#[derive(Debug, Deserialize)]
struct Documents {
    done: bool,
    records: Vec<Document>,
}

#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "SystemModstamp")]
    stamp: String,
}

/// A page of all links, in the order of their documents.
pub async fn whole(
    api: &Api,
    selection: &Selection<'_>,
    through: Through,
    after: Option<&str>,
    deleted: bool,
) -> Result<Rows> {
    let soql = through.documents(after, most(api), deleted);
    of_documents(api, selection, through, &soql, deleted).await
}

/// A page of the links of documents that changed in a window.
pub async fn stamped(
    api: &Api,
    selection: &Selection<'_>,
    through: Through,
    window: (Millis, Millis),
    after: Option<(Millis, &str)>,
) -> Result<Rows> {
    let soql = through.changed(window, after, most(api));
    of_documents(api, selection, through, &soql, true).await
}

fn most(api: &Api) -> u32 {
    api.config().page_size.min(DOCUMENTS)
}

async fn of_documents(
    api: &Api,
    selection: &Selection<'_>,
    through: Through,
    soql: &str,
    deleted: bool,
) -> Result<Rows> {
    let reply = api
        .get("/queryAll", &[("q", soql)], Some(through.parent))
        .await?;
    let (ids, key, last) = read(api, &reply)?;
    let mut found = Vec::new();
    for soql in selection.of_parents(through, &ids, deleted) {
        // A locator that lapses in the middle starts this page again.
        for reply in lookup::pages(api, selection.object, &soql).await? {
            found.extend(rows(&reply, selection, through.parent)?.0);
        }
    }
    Ok(Rows {
        rows: found,
        key,
        last,
        reply,
    })
}

/// Where a document stands in the order of stamps.
type Key = (Millis, String);

/// The documents of an answer, the last one's key, and whether nothing follows.
fn read(api: &Api, reply: &Reply) -> Result<(Vec<String>, Option<Key>, bool)> {
    let said: Documents = reply.json()?;
    let mut key = None;
    let mut ids = Vec::with_capacity(said.records.len());
    for document in &said.records {
        let (Some(id), Some(at)) = (id::normalise(&document.id), time::parse(&document.stamp))
        else {
            return Err(reply.broken("a document in it has no id or no stamp"));
        };
        ids.push(id.clone());
        key = Some((at, id));
    }
    if !said.done && ids.is_empty() {
        return Err(reply.broken("it holds no record and says that more follow"));
    }
    let full = ids.len() >= most(api) as usize;
    Ok((ids, key, said.done && !full))
}
