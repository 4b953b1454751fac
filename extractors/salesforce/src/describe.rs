//! What the org has (`reference/salesforce.md` section 4).

use std::collections::HashMap;

use drover_pipeline::extract::{Discovery, Object, SourceField};
use drover_pipeline::{Class, Result};
use serde::Deserialize;

use crate::api::Api;
use crate::query;

/// The standard objects that `mapping.yaml` covers, parents first.
pub const STANDARD: &[&str] = &["Account", "Contact", "Lead", "Opportunity", "Case"];

/// Objects in one question for counts, so that its address stays short.
const COUNTED: usize = 100;

/// The global describe.
#[derive(Debug, Deserialize)]
struct Global {
    sobjects: Vec<Entry>,
}

/// An object in the global describe.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    #[serde(default)]
    custom: bool,
    #[serde(default)]
    custom_setting: bool,
    #[serde(default)]
    queryable: bool,
}

/// An object's describe.
#[derive(Debug, Deserialize)]
struct Described {
    fields: Vec<Field>,
}

/// A field in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    reference_to: Vec<String>,
}

/// The answer of `/limits/recordCount`.
#[derive(Debug, Deserialize)]
struct Counts {
    #[serde(rename = "sObjects")]
    objects: Vec<Count>,
}

#[derive(Debug, Deserialize)]
struct Count {
    name: String,
    count: u64,
}

/// The standard objects that the mapping covers, as far as this user sees them,
/// and every custom object that can be queried.
pub async fn discover(api: &Api) -> Result<Discovery> {
    let global: Global = api.get("/sobjects", &[], None).await?.json()?;
    let wanted = choose(global.sobjects);
    let counts = counts(api, &wanted).await?;
    let mut objects = Vec::with_capacity(wanted.len());
    for entry in wanted {
        let name = query::identifier(&entry.name)?;
        let path = format!("/sobjects/{name}/describe");
        let described: Described = api.get(&path, &[], Some(name)).await?.json()?;
        objects.push(Object {
            count: counts.get(&entry.name).copied(),
            custom: entry.custom,
            fields: described
                .fields
                .into_iter()
                .map(|field| SourceField {
                    name: field.name,
                    kind: field.kind,
                    references: field.reference_to,
                })
                .collect(),
            name: entry.name,
        });
    }
    Ok(Discovery { objects })
}

/// Parents first, then custom objects by name.
fn choose(entries: Vec<Entry>) -> Vec<Entry> {
    let place = |entry: &Entry| STANDARD.iter().position(|name| *name == entry.name);
    let mut wanted: Vec<Entry> = entries
        .into_iter()
        .filter(|entry| entry.queryable)
        .filter(|entry| {
            let custom = entry.custom && !entry.custom_setting && entry.name.ends_with("__c");
            custom || place(entry).is_some()
        })
        .collect();
    wanted.sort_by(|a, b| {
        let key = |entry: &Entry| place(entry).unwrap_or(STANDARD.len());
        (key(a), &a.name).cmp(&(key(b), &b.name))
    });
    wanted
}

/// About how many records the objects have. It needs a right of its own ("View
/// Setup"), and an object may be missing: then there is no count.
async fn counts(api: &Api, wanted: &[Entry]) -> Result<HashMap<String, u64>> {
    let mut counts = HashMap::new();
    for some in wanted.chunks(COUNTED) {
        let names: Vec<&str> = some.iter().map(|entry| entry.name.as_str()).collect();
        let query = [("sObjects", names.join(","))];
        let query: Vec<(&str, &str)> = query.iter().map(|(k, v)| (*k, v.as_str())).collect();
        match api.get("/limits/recordCount", &query, None).await {
            Ok(reply) => {
                let read: Counts = reply.json()?;
                counts.extend(read.objects.into_iter().map(|o| (o.name, o.count)));
            }
            Err(error) if error.class() == Class::Operator => {
                tracing::info!(%error, "Salesforce gives no record counts");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapped_and_the_custom_objects_are_wanted() {
        let entry = |name: &str, custom, custom_setting, queryable| Entry {
            name: name.to_owned(),
            custom,
            custom_setting,
            queryable,
        };
        let names: Vec<String> = choose(vec![
            entry("Zebra__c", true, false, true),
            entry("Contact", false, false, true),
            entry("Setting__c", true, true, true),
            entry("Zebra__Share", false, false, true),
            entry("Hidden__c", true, false, false),
            entry("Chatter", false, false, true),
            entry("Account", false, false, true),
            entry("ns__Ant__c", true, false, true),
        ])
        .into_iter()
        .map(|entry| entry.name)
        .collect();
        assert_eq!(names, ["Account", "Contact", "Zebra__c", "ns__Ant__c"]);
    }
}
