//! Records by their ids, and all ids.

use std::collections::HashMap;

use drover_pipeline::extract::{Change, Ids, Object};
use drover_pipeline::{Code, Error, Result};
use serde::Deserialize;

use crate::api::{Api, Reply};
use crate::query::Selection;
use crate::rows::Text;
use crate::{fetch, id, time, wide};

/// Ids per page; a query answers at most 2,000 records.
const IDS: u32 = 2_000;

/// The part of a query's answer that leads on.
#[derive(Debug, Deserialize)]
struct Onward {
    done: bool,
    #[serde(rename = "nextRecordsUrl", default)]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct IdPage {
    done: bool,
    records: Vec<OnlyId>,
}

#[derive(Debug, Deserialize)]
struct OnlyId {
    #[serde(rename = "Id")]
    id: String,
}

/// The records with these ids as `queryAll` shows them, deleted ones too.
pub async fn get(api: &Api, object: &Object, ids: &[&str]) -> Result<Vec<Option<Change>>> {
    let selection = Selection::of(object)?;
    let wanted: Vec<Option<String>> = ids.iter().map(|text| id::normalise(text)).collect();
    let mut asked: Vec<String> = wanted.iter().flatten().cloned().collect();
    asked.sort_unstable();
    asked.dedup();
    let mut found: HashMap<String, Change> = HashMap::with_capacity(asked.len());
    let mut parts = Vec::with_capacity(selection.parts.len());
    for places in &selection.parts {
        let part = selection.part(places);
        let mut found = Vec::with_capacity(asked.len());
        for soql in part.by_ids(&asked) {
            for reply in pages(api, selection.object, &soql).await? {
                found.extend(fetch::rows(&reply, &part, selection.object)?.0);
            }
        }
        parts.push(found);
    }
    let mut parts = parts.into_iter();
    let shown = parts.next().unwrap_or_default();
    let seen = shown.len();
    let others = parts.collect();
    let whole = wide::together(&selection, shown, others);
    if whole.len() < seen {
        // Of this version half was read before an edit and half behind it.
        let message = "a record was edited while its parts were read";
        return Err(Error::new(Code::BadAnswer, message).at(selection.object));
    }
    for row in whole {
        match row.content {
            Ok(change) => found.insert(change.id.clone(), change),
            Err(bad) => {
                return Err(Error::new(bad.code, bad.message)
                    .at(format!("{} {}", selection.object, bad.place)));
            }
        };
    }
    Ok(wanted
        .into_iter()
        .map(|id| id.and_then(|id| found.get(&id).cloned()))
        .collect())
}

/// A page of live ids, in their order.
pub async fn ids(api: &Api, object: &Object, page: Option<&str>) -> Result<Ids> {
    let after = page.map(|id| id::normalise(id).unwrap_or_default());
    let selection = Selection::of(object)?;
    if selection.through.is_some() {
        let page = fetch::whole(api, &selection, after.as_deref(), false).await?;
        return Ok(Ids {
            ids: page.rows.into_iter().filter_map(|row| row.id).collect(),
            next: page.key.filter(|_| !page.last).map(|key| key.1),
        });
    }
    let soql = selection.ids(after.as_deref(), IDS);
    let resource = format!("/{}", selection.operation());
    let reply = api
        .get(&resource, &[("q", &soql)], Some(&object.name))
        .await?;
    let read: IdPage = reply.json()?;
    let ids: Vec<String> = read
        .records
        .iter()
        .map(|record| id::normalise(&record.id))
        .collect::<Option<_>>()
        .ok_or_else(|| reply.broken("an id in it can't be read"))?;
    if !read.done && ids.is_empty() {
        return Err(reply.broken("it holds no id and says that more follow"));
    }
    let more = !read.done || ids.len() >= IDS as usize;
    let next = ids.last().filter(|_| more).cloned();
    Ok(Ids { ids, next })
}

/// Every answer to a query of bounded size, following `nextRecordsUrl`.
pub async fn pages(api: &Api, object: &str, soql: &str) -> Result<Vec<Reply>> {
    let mut replies = vec![api.get("/queryAll", &[("q", soql)], Some(object)).await?];
    while let Some(reply) = replies.last() {
        let text = Text::of(reply.body());
        let onward: Onward =
            serde_json::from_str(&text.text).map_err(|error| reply.malformed(&error))?;
        match onward.next {
            Some(path) if !onward.done => {
                // The token goes to no other place than the API's.
                if !path.starts_with("/services/") {
                    return Err(reply.broken("its next page is not below /services/"));
                }
                drop(text);
                let next = api.get(&path, &[], Some(object)).await?;
                replies.push(next);
            }
            None if !onward.done => {
                return Err(reply.broken("it says that more follow and not where"));
            }
            _ => break,
        }
    }
    Ok(replies)
}

/// One cheap live call: the token, and the limits that every user may read
/// (`reference/salesforce.md` section 8).
pub async fn check(api: &Api) -> Result<()> {
    let reply = api.get("/limits", &[], None).await;
    let reply = reply.map_err(|error| {
        let field = match (error.code, error.source_code.as_deref()) {
            (Code::Connection, _) => "instanceUrl",
            // Every org has limits; of a version that it lacks it has nothing.
            (Code::Refused, Some("NOT_FOUND")) => "apiVersion",
            _ => return error,
        };
        match error.place {
            None => error.at(format!("sourceConfig.{field}")),
            Some(_) => error,
        }
    })?;
    api.limits(&reply.json()?);
    tracing::debug!(source_time = %time::print(reply.at), "Salesforce answers");
    Ok(())
}
