//! What a run that has ended is short of: nothing is called done in green while
//! records are missing in the target.

use std::collections::BTreeMap;

use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::parking::{Parked, Reason};
use drover_pipeline::record::CanonicalKey;
use drover_pipeline::transform::{FieldRule, Mapping, OnOrphan};
use drover_pipeline::{Code, Result};

use crate::failure::Failure;
use crate::migration::Bus;
use crate::table::counted;
use crate::view::View;

/// Records that wait, by what they wait for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Not in the target.
    outside: u64,
    /// In the target, without a link to another record.
    unlinked: u64,
    /// The same, because the mapping says `onOrphan: drop-link`.
    chosen: u64,
}

/// Counts the parked records; a dry run parks none.
pub(crate) fn waiting(bus: &Bus, mapping: &Mapping) -> Result<Waiting> {
    let mut waiting = Waiting::default();
    if bus.config.dry_run {
        return Ok(waiting);
    }
    for (key, value) in read_to_end(&bus.client, &bus.topics.parked())? {
        let key = std::str::from_utf8(&key).ok().and_then(CanonicalKey::parse);
        let parked = serde_json::from_slice::<Parked>(&value).ok();
        waiting.count(key.as_ref(), parked.map(|parked| parked.reason), mapping);
    }
    Ok(waiting)
}

impl Waiting {
    fn count(&mut self, key: Option<&CanonicalKey>, reason: Option<Reason>, mapping: &Mapping) {
        let drops = |parents: &[CanonicalKey]| {
            key.is_some_and(|key| parents.iter().all(|parent| drops(mapping, key, parent)))
        };
        match reason {
            Some(Reason::Dropped { parents }) if drops(&parents) => self.chosen += 1,
            Some(Reason::Link { .. } | Reason::Dropped { .. }) => self.unlinked += 1,
            _ => self.outside += 1,
        }
    }

    /// What is no failure, because somebody has asked for it.
    pub(crate) fn note(&self) -> Option<String> {
        let records = match self.chosen {
            0 => return None,
            number => counted(number, "record is", "records are"),
        };
        Some(format!(
            "{records} loaded without a link to a record that never comes, as the mapping \
             says by `onOrphan: drop-link`; `drover parked list` shows them"
        ))
    }
}

/// Whether the mapping itself asks to drop every link of that record to such a
/// parent. That it says nothing, and drops it by default, is nobody's decision.
fn drops(mapping: &Mapping, key: &CanonicalKey, parent: &CanonicalKey) -> bool {
    let ((_, object, _, slot), (_, points_to, _, _)) = (key.parts(), parent.parts());
    let rules = mapping.objects.get(object);
    let rules = rules.or(mapping.custom_objects.as_ref());
    let Some(slot) = rules.and_then(|rules| rules.slots.get(slot)) else {
        return false;
    };
    let mut references = slot
        .fields
        .values()
        .filter_map(|rule| match rule {
            FieldRule::Rule(rule) if rule.points_to()?.0 == points_to => Some(rule.on_orphan),
            _ => None,
        })
        .peekable();
    references.peek().is_some() && references.all(|rule| rule == Some(OnOrphan::DropLink))
}

/// What is missing, or nothing.
pub(crate) fn shortfall(view: &View, waiting: Waiting) -> Option<Failure> {
    let dead: BTreeMap<&str, u64> = view
        .objects
        .iter()
        // What a person has decided to leave is not missing.
        .map(|object| {
            (
                object.object.as_str(),
                object.dead.saturating_sub(object.waived),
            )
        })
        .filter(|(_, dead)| *dead > 0)
        .collect();
    let mut parts = Vec::new();
    let mut advice = Vec::new();
    if !dead.is_empty() {
        let all: u64 = dead.values().sum();
        let each: Vec<String> = dead.iter().map(|(name, n)| format!("{name} {n}")).collect();
        parts.push(format!("{all} dead ({})", each.join(", ")));
        advice.push("`drover deadletter list` says why they are dead");
    }
    if waiting.outside > 0 {
        let n = waiting.outside;
        parts.push(format!("{n} parked, waiting for a record they require"));
    }
    if waiting.unlinked > 0 {
        let n = waiting.unlinked;
        parts.push(format!(
            "{n} loaded without a link to a record that is not there"
        ));
    }
    if waiting.outside > 0 {
        advice.push(
            "`drover parked list` says what the parked ones wait for: they go on by \
             themselves when it comes, and by `drover parked release` when it never does",
        );
    } else if waiting.unlinked > 0 {
        advice.push(
            "`drover parked list` names those without a link: they are linked by themselves \
             when the other end comes; one that may stay away is agreed to by `onOrphan: \
             drop-link` in the mapping",
        );
    }
    if parts.is_empty() {
        return None;
    }
    let what = match view.dry_run {
        true => "not everything would be loaded",
        false => "not everything is in the target as it should be",
    };
    let message = format!("{what}: {}", parts.join("; "));
    Some(Failure::new(
        Code::Incomplete,
        message,
        advice.join(", and "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    #[test]
    fn a_link_that_the_mapping_drops_is_counted_and_no_failure() {
        let mapping = |rule: &str| -> Mapping {
            let text = format!(
                "objects:\n  Contact:\n    slots:\n      contact:\n        entity: contact\n        \
                 fields:\n          companyId: {{ from: AccountId, reference: Account#company{rule} }}\n"
            );
            Mapping::parse("mapping.yaml", &text).unwrap_or_else(|wrong| panic!("{wrong:?}"))
        };
        let key = |text: &str| CanonicalKey::parse(text).expect("a key");
        let count = |mapping: &Mapping, parent: &str| {
            let mut waiting = Waiting::default();
            let parents = vec![key(parent)];
            let reason = Some(Reason::Dropped { parents });
            waiting.count(Some(&key("s/Contact/1#contact")), reason, mapping);
            waiting
        };
        let chosen = mapping(", onOrphan: drop-link");
        let waiting = count(&chosen, "s/Account/9#company");
        assert_eq!((waiting.chosen, waiting.unlinked), (1, 0));
        let mut view = example();
        for object in &mut view.objects {
            object.dead = 0;
        }
        assert_eq!(shortfall(&view, waiting), None);
        let note = waiting.note().expect("it is said");
        assert!(
            note.starts_with("1 record is loaded without a link"),
            "{note}"
        );
        // Nobody has asked for it.
        for (mapping, parent) in [
            (&mapping(""), "s/Account/9#company"),
            (&chosen, "s/Lead/9#company"),
        ] {
            let waiting = count(mapping, parent);
            assert_eq!((waiting.chosen, waiting.unlinked), (0, 1), "{parent}");
            assert!(shortfall(&view, waiting).is_some());
            assert_eq!(waiting.note(), None);
        }
    }

    #[test]
    fn what_is_missing_is_said_and_nothing_else() {
        let mut view = example();
        for object in &mut view.objects {
            object.dead = 0;
        }
        assert_eq!(shortfall(&view, Waiting::default()), None);
        view.objects[1].dead = 2;
        view.objects[1].waived = 2;
        assert_eq!(shortfall(&view, Waiting::default()), None, "waived");
        view.objects[1].dead = 4;
        let waiting = Waiting {
            outside: 3,
            unlinked: 1,
            chosen: 5,
        };
        let told = shortfall(&view, waiting).expect("something is missing");
        assert_eq!(
            told.to_string(),
            "INCOMPLETE: not everything is in the target as it should be: 2 dead (Contact 2); \
             3 parked, waiting for a record they require; \
             1 loaded without a link to a record that is not there; \
             `drover deadletter list` says why they are dead, \
             and `drover parked list` says what the parked ones wait for: they go on by \
             themselves when it comes, and by `drover parked release` when it never does"
        );
        assert_eq!(told.code.exit(), 3);
        // A link that is missing is no record that waits: releasing does nothing.
        let waiting = Waiting {
            outside: 0,
            ..waiting
        };
        let told = shortfall(&view, waiting).expect("a link is missing");
        let told = told.to_string();
        assert!(told.contains("names those without a link"), "{told}");
        assert!(!told.contains("release"), "{told}");
    }
}
