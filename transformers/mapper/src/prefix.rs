//! Which object an id belongs to, where the source's ids tell it.

use std::collections::HashMap;

use drover_pipeline::extract::Object;
use drover_pipeline::transform::Mapping;

/// The object that an id belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The object's API name.
    pub object: String,
    /// Its slot; several, with `|` between them, where it is not known which of
    /// them a record fills.
    pub slots: String,
    /// The entity of that slot, if there is one slot.
    pub entity: Option<String>,
}

/// The objects of a migration by what their ids begin with.
#[derive(Debug, Default)]
pub struct Prefixes {
    /// By the length of the prefix in bytes, the longest first.
    lengths: Vec<(usize, HashMap<String, Owner>)>,
}

impl Prefixes {
    /// Of the objects that have a prefix and a mapping.
    pub fn of(mapping: &Mapping, objects: &[Object]) -> Self {
        let mut lengths: Vec<(usize, HashMap<String, Owner>)> = Vec::new();
        for object in objects {
            let (Some(prefix), Some(rules)) = (&object.id_prefix, mapping.of(object)) else {
                continue;
            };
            let slots: Vec<&str> = rules.slots.keys().map(String::as_str).collect();
            let mut entities = rules.slots.values().map(|slot| &slot.entity);
            let owner = Owner {
                object: object.name.clone(),
                slots: slots.join("|"),
                entity: entities.next().filter(|_| slots.len() == 1).cloned(),
            };
            let known = lengths
                .iter_mut()
                .find(|(length, _)| *length == prefix.len());
            match known {
                Some((_, owners)) => {
                    owners.insert(prefix.clone(), owner);
                }
                None => lengths.push((prefix.len(), HashMap::from([(prefix.clone(), owner)]))),
            }
        }
        lengths.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        Prefixes { lengths }
    }

    /// The object that the id belongs to, if it is known.
    pub fn owner(&self, id: &str) -> Option<&Owner> {
        let mut found = self.lengths.iter().filter_map(|(length, owners)| {
            let prefix = id.get(..*length)?;
            owners.get(prefix)
        });
        found.next()
    }
}
