//! What a run that has ended is short of: nothing is called done in green while
//! records are missing in the target.

use std::collections::BTreeMap;

use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::parking::{Parked, Reason};
use drover_pipeline::{Code, Result};

use crate::failure::Failure;
use crate::migration::Bus;
use crate::view::View;

/// Records that wait, by what they wait for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Not in the target.
    outside: u64,
    /// In the target, without a link to another record.
    unlinked: u64,
}

/// Counts the parked records; a dry run parks none.
pub(crate) fn waiting(bus: &Bus) -> Result<Waiting> {
    let mut waiting = Waiting::default();
    if bus.config.dry_run {
        return Ok(waiting);
    }
    for value in read_to_end(&bus.client, &bus.topics.parked())?.into_values() {
        match serde_json::from_slice::<Parked>(&value) {
            Ok(Parked {
                reason: Reason::Link { .. } | Reason::Dropped { .. },
                ..
            }) => waiting.unlinked += 1,
            _ => waiting.outside += 1,
        }
    }
    Ok(waiting)
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
    if waiting != Waiting::default() {
        advice.push(
            "`drover parked list` says what the others wait for: they go on by themselves when it \
             comes",
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
        };
        let told = shortfall(&view, waiting).expect("something is missing");
        assert_eq!(
            told.to_string(),
            "INCOMPLETE: not everything is in the target as it should be: 2 dead (Contact 2); \
             3 parked, waiting for a record they require; \
             1 loaded without a link to a record that is not there; \
             `drover deadletter list` says why they are dead, \
             and `drover parked list` says what the others wait for: \
             they go on by themselves when it comes"
        );
        assert_eq!(told.code.exit(), 3);
    }
}
