//! What the org has (`reference/salesforce.md` section 4).

use std::collections::HashMap;

use drover_pipeline::extract::{Discovery, Object, SourceField};
use drover_pipeline::{Class, Result};
use serde::Deserialize;

use crate::api::Api;
use crate::query;

/// The standard objects that `mapping.yaml` covers, parents first.
pub const STANDARD: &[&str] = &[
    "User",
    "Group",
    "RecordType",
    "Account",
    "Contact",
    "AccountContactRelation",
    "Campaign",
    "Lead",
    "CampaignMember",
    "OpportunityStage",
    "Product2",
    "Pricebook2",
    "PricebookEntry",
    "Opportunity",
    "OpportunityContactRole",
    "OpportunityLineItem",
    "Case",
    "CaseComment",
    "EmailMessage",
    "Task",
    "Event",
    "Note",
    "ContentNote",
    "ContentDocument",
    "ContentDocumentLink",
    "ContentVersion",
    "Attachment",
];

/// The most values of a picklist that are kept: a longer list (countries, time
/// zones) would make the plan of a large org larger than a Kafka record.
const MOST_VALUES: usize = 100;

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
    queryable: bool,
    #[serde(default)]
    key_prefix: Option<String>,
    /// Whether the source keeps a log of its deletes.
    #[serde(default = "yes")]
    replicateable: bool,
}

fn yes() -> bool {
    true
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
    #[serde(default)]
    picklist_values: Vec<Choice>,
    #[serde(default)]
    calculated: bool,
}

/// A value of a picklist.
#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    active: bool,
    value: String,
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
/// every custom object that can be queried, and every other one that is named.
pub async fn discover(api: &Api, named: &[String]) -> Result<Discovery> {
    let global: Global = api.get("/sobjects", &[], None).await?.json()?;
    let wanted = choose(global.sobjects, named);
    let counts = counts(api, &wanted).await?;
    let mut objects = Vec::with_capacity(wanted.len());
    for entry in wanted {
        let name = query::identifier(&entry.name)?;
        let path = format!("/sobjects/{name}/describe");
        let described: Described = api.get(&path, &[], Some(name)).await?.json()?;
        objects.push(Object {
            count: counts.get(&entry.name).copied(),
            custom: entry.custom,
            fields: described.fields.into_iter().map(Field::known).collect(),
            id_prefix: entry.key_prefix,
            marks: if entry.replicateable {
                Vec::new()
            } else {
                vec![query::NO_LOG.to_owned()]
            },
            name: entry.name,
        });
    }
    Ok(Discovery {
        objects,
        quota: None,
    })
}

impl Field {
    /// The field as the pipeline knows it.
    fn known(self) -> SourceField {
        let active = self.picklist_values.iter().filter(|value| value.active);
        let values: Vec<String> = active.map(|value| value.value.clone()).collect();
        SourceField {
            // Several values stand in one text (`reference/salesforce.md` section 9).
            separator: (self.kind == "multipicklist").then_some(';'),
            name: self.name,
            kind: self.kind,
            references: self.reference_to,
            values: if values.len() > MOST_VALUES {
                Vec::new()
            } else {
                values
            },
            computed: self.calculated,
        }
    }
}

/// Parents first, then the others by name.
fn choose(entries: Vec<Entry>, named: &[String]) -> Vec<Entry> {
    let place = |entry: &Entry| STANDARD.iter().position(|name| *name == entry.name);
    let mut wanted: Vec<Entry> = entries
        .into_iter()
        .filter(|entry| entry.queryable)
        .filter(|entry| {
            let custom = entry.custom && entry.name.ends_with("__c");
            custom || place(entry).is_some() || named.contains(&entry.name)
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
    fn the_mapped_the_custom_and_the_named_objects_are_wanted() {
        let entry = |name: &str, custom, queryable| Entry {
            name: name.to_owned(),
            custom,
            queryable,
            key_prefix: None,
            replicateable: true,
        };
        let entries = || {
            vec![
                entry("Zebra__c", true, true),
                entry("Contact", false, true),
                entry("Zebra__Share", false, true),
                entry("Hidden__c", true, false),
                entry("Rule__mdt", true, true),
                entry("Solution", false, true),
                entry("Account", false, true),
                entry("ns__Ant__c", true, true),
            ]
        };
        let names = |named: &[&str]| -> Vec<String> {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            let wanted = choose(entries(), &named);
            wanted.into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names(&[]), ["Account", "Contact", "Zebra__c", "ns__Ant__c"]);
        assert_eq!(
            names(&["Solution", "Rule__mdt", "Hidden__c", "Account"]),
            [
                "Account",
                "Contact",
                "Rule__mdt",
                "Solution",
                "Zebra__c",
                "ns__Ant__c"
            ]
        );
    }

    #[test]
    fn a_field_keeps_what_the_mapping_needs_of_it() {
        let field = |json: &str| {
            serde_json::from_str::<Field>(json)
                .expect("a field")
                .known()
        };
        let interests = field(
            r#"{"name":"Interests__c","type":"multipicklist","picklistValues":[
                {"active":true,"value":"Sun"},{"active":false,"value":"Rain"}]}"#,
        );
        assert_eq!(interests.separator, Some(';'));
        assert_eq!(interests.values, ["Sun"]);
        assert!(!interests.computed);
        let many: Vec<String> = (0..=MOST_VALUES)
            .map(|n| format!(r#"{{"active":true,"value":"{n}"}}"#))
            .collect();
        let long = field(&format!(
            r#"{{"name":"C","type":"picklist","calculated":true,"picklistValues":[{}]}}"#,
            many.join(",")
        ));
        assert_eq!(
            (long.values.len(), long.separator, long.computed),
            (0, None, true)
        );
    }
}
