//! `parity.yaml` against the global describes of real orgs, both ways, and
//! against the mapping.

use std::collections::BTreeSet;
use std::path::Path;

use drover_extractor_salesforce::Salesforce;
use drover_pipeline::extract::{Extractor, Parity, Standing};
use drover_pipeline::transform::Mapping;

fn parity() -> Parity {
    let text = Salesforce::parity().expect("the connector has the file");
    Parity::parse("parity.yaml", text).expect("a file without problems")
}

/// Every object of the recorded global describes; `None` without them.
fn described() -> Option<BTreeSet<String>> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/records/salesforce/describe");
    let mut names = BTreeSet::new();
    for file in ["cumulusci_Global.json", "nango_v59_Global.json"] {
        let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
            println!("skipped: no {file} in {}", folder.display());
            return None;
        };
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let list = json["sobjects"]
            .as_array()
            .or(json["body"]["sobjects"].as_array());
        for object in list.expect("objects") {
            names.insert(object["name"].as_str().expect("a name").to_owned());
        }
    }
    Some(names)
}

#[test]
fn every_object_of_a_real_org_stands_in_one_place() {
    let Some(described) = described() else { return };
    assert!(described.len() > 1_300, "{}", described.len());
    let parity = parity();
    let wrong: Vec<String> = described
        .iter()
        .map(|name| (name, parity.standings(name)))
        .filter(|(_, standings)| standings.len() != 1)
        .map(|(name, standings)| format!("{name}: {standings:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_name_in_the_file_is_an_object() {
    let Some(described) = described() else { return };
    // Real ones that these two orgs did not have: they are switched on.
    let elsewhere = ["AccountContactRelation", "ContentNote"];
    let invented: Vec<String> = parity()
        .names()
        .filter(|name| {
            let known = match name.strip_prefix('*') {
                Some(end) => described.iter().any(|object| object.ends_with(end)),
                None => described.contains(*name) || elsewhere.contains(name),
            };
            !known
        })
        .map(str::to_owned)
        .collect();
    assert!(invented.is_empty(), "{invented:?}");
}

#[test]
fn what_the_mapping_lists_is_migrated_and_nothing_else() {
    let mapping = Mapping::parse("mapping.yaml", Salesforce::mapping()).expect("a mapping");
    let parity = parity();
    let migrated: BTreeSet<&str> = parity
        .names()
        .filter(|name| {
            let standings = parity.standings(name);
            matches!(standings[..], [Standing::Migrated | Standing::Partly(_)])
        })
        .collect();
    let mapped: BTreeSet<&str> = mapping.objects.keys().map(String::as_str).collect();
    assert_eq!(migrated, mapped);
}
