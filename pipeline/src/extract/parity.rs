//! What becomes of each object of a source: the file `parity.yaml` beside the
//! connector, which its `spec` carries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Problem, parse_document};

/// Every object that the source's vendor ships, by what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parity {
    /// Objects that are migrated whole.
    pub migrated: Vec<String>,
    /// Objects of which something is lost, with what that is.
    #[serde(default)]
    pub partly: BTreeMap<String, String>,
    /// Objects that are migrated as plain records, where a migration names them.
    #[serde(default)]
    pub needs_mapping: Vec<String>,
    /// Objects that are not migrated.
    #[serde(default)]
    pub not_supported: Vec<NotSupported>,
}

/// Objects that are not migrated for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotSupported {
    /// Why.
    pub why: String,
    /// Their names; one that begins with `*` stands for all that end so.
    pub objects: Vec<String>,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'p> {
    /// It is migrated whole.
    Migrated,
    /// This of it is lost.
    Partly(&'p str),
    /// It is migrated as plain records, where a migration names it.
    NeedsMapping,
    /// It is not migrated, and why.
    NotSupported(&'p str),
}

impl Parity {
    /// Reads the file. `file` is what problems name.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let root = parse_document(file, text.as_bytes(), &mut problems)
            .map_err(|problem| vec![problem])?;
        match serde_json::from_value(root.to_json()) {
            Ok(parity) if problems.is_empty() => Ok(parity),
            Ok(_) => Err(problems),
            Err(error) => {
                let advice = "see the connector guide for the file's form";
                problems.push(Problem::at(file, error.to_string(), advice));
                Err(problems)
            }
        }
    }

    /// What the file says of an object: everything it says, since saying two
    /// things is a fault of the file. A name goes before a pattern.
    pub fn standings(&self, object: &str) -> Vec<Standing<'_>> {
        let named = |names: &[String]| names.iter().any(|name| name == object);
        let mut found = Vec::new();
        if named(&self.migrated) {
            found.push(Standing::Migrated);
        }
        found.extend(self.partly.get(object).map(|lost| Standing::Partly(lost)));
        if named(&self.needs_mapping) {
            found.push(Standing::NeedsMapping);
        }
        let by_name = self.not_supported.iter().filter(|one| named(&one.objects));
        found.extend(by_name.map(|one| Standing::NotSupported(&one.why)));
        if found.is_empty() {
            let like = |pattern: &String| {
                let end = pattern.strip_prefix('*');
                end.is_some_and(|end| object.ends_with(end))
            };
            let alike = self
                .not_supported
                .iter()
                .filter(|one| one.objects.iter().any(like));
            found.extend(alike.map(|one| Standing::NotSupported(&one.why)));
        }
        found
    }

    /// Every name and pattern in the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let plain = self.migrated.iter().chain(self.partly.keys());
        let plain = plain.chain(&self.needs_mapping);
        let refused = self.not_supported.iter().flat_map(|one| &one.objects);
        plain.chain(refused).map(String::as_str)
    }
}
