//! `drover parked release`: a parked record back to its owner, with its order.
//!
//! Nothing is forced: the owner judges it as it judges every record. One whose
//! parent is still missing waits again, and a lease is not cut short, because a
//! request that is on its way would be doubled. Only `--without-link` changes
//! what is asked: whether the record has to wait for the links that it requires.
//! They are made as soon as the other end comes.

use std::process::ExitCode;
use std::time::Duration;

use drover_pipeline::envelope::Envelope;
use drover_pipeline::parking::Parked;
use drover_pipeline::spec::Stage;
use serde_json::json;

use super::{Release, kind, read, reason_of, reason_text};
use crate::cli::{Format, blocking, print, print_json};
use crate::failure::{Failure, Result};
use crate::lookup;
use crate::migration::Bus;
use crate::redo::{Again, Outcome, ask, is_through, tell};
use crate::table::wrap;

struct Choices {
    records: Vec<Again>,
    /// What each waits for.
    reasons: Vec<serde_json::Value>,
    left: Vec<(String, String)>,
}

pub(super) async fn run(bus: Bus, options: Release, format: Format) -> Result<ExitCode> {
    if options.key.is_none() && options.reason.is_none() {
        let told = "no parked record is named";
        let advice = "give a KEY (`drover parked list` shows what waits), or all of one \
                      reason by --reason";
        return Err(Failure::new(drover_pipeline::Code::ConfigInvalid, told, advice).into());
    }
    let all = {
        let bus = bus.again();
        blocking(move || read(&bus)).await?
    };
    let (wait, dry_run) = (options.wait, options.dry_run);
    let choices = choose(&all, &options);
    if let (true, true, Some(key)) = (
        choices.records.is_empty(),
        choices.left.is_empty(),
        &options.key,
    ) {
        let told = format!("`{key}` does not wait");
        let advice = "`drover parked list` shows what does";
        return Err(Failure::new(drover_pipeline::Code::UnknownRecord, told, advice).into());
    }
    let records = choices.records.clone();
    let outcomes = match dry_run || records.is_empty() {
        true => None,
        false => Some(blocking(move || ask(&bus, &records, Duration::from_secs(wait))).await?),
    };
    match format {
        Format::Json => print_json(&document(&choices, outcomes.as_deref())),
        Format::Table => print(&render(&choices, outcomes.as_deref(), wait)),
    }
    let through = outcomes.iter().flatten().all(is_through) && choices.left.is_empty();
    Ok(match through || dry_run {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(3),
    })
}

fn choose<'p>(
    all: impl IntoIterator<Item = (&'p String, &'p Parked)>,
    options: &Release,
) -> Choices {
    let mut choices = Choices {
        records: Vec::new(),
        reasons: Vec::new(),
        left: Vec::new(),
    };
    for (key, parked) in all {
        let reason = reason_of(parked);
        let meant = match (&options.key, options.reason) {
            (Some(wanted), _) => lookup::names(key, wanted),
            (None, Some(wanted)) => kind(&reason) == wanted.as_str(),
            (None, None) => false,
        };
        if !meant {
            continue;
        }
        match value_of(parked, kind(&reason), options.without_link) {
            Ok(value) => {
                choices.records.push(Again {
                    stage: Stage::Loader,
                    key: key.clone(),
                    value,
                    dead: false,
                });
                choices.reasons.push(reason);
            }
            Err(why) => choices.left.push((key.clone(), why)),
        }
    }
    choices
}

/// The record as it is written to be judged again, or why it is not.
fn value_of(parked: &Parked, kind: &str, without_link: bool) -> Result<Vec<u8>, String> {
    if matches!(kind, "link" | "dropped") {
        let why = "it is in the target; it is applied again by itself as soon as its link is \
                   possible";
        return Err(why.to_owned());
    }
    if without_link && kind != "parent" {
        return Err("it waits for no link".to_owned());
    }
    let bytes = parked.envelope().unwrap_or_default();
    let mut envelope =
        Envelope::decode(&bytes).map_err(|_| "it is not readable any more".to_owned())?;
    envelope.order = Some(match without_link {
        true => parked.order_without_links(),
        false => parked.order,
    });
    Ok(envelope.encode())
}

fn document(choices: &Choices, outcomes: Option<&[Outcome]>) -> serde_json::Value {
    let records: Vec<serde_json::Value> = choices
        .records
        .iter()
        .zip(&choices.reasons)
        .enumerate()
        .map(|(at, (record, reason))| {
            let mut shown = match outcomes.and_then(|all| all.get(at)) {
                Some(outcome) => serde_json::to_value(outcome).unwrap_or_default(),
                None => json!({}),
            };
            shown["key"] = json!(record.key);
            shown["waitedFor"] = reason.clone();
            shown
        })
        .collect();
    let left: Vec<serde_json::Value> = choices
        .left
        .iter()
        .map(|(key, why)| json!({"key": key, "why": why}))
        .collect();
    json!({"dryRun": outcomes.is_none(), "records": records, "left": left})
}

fn render(choices: &Choices, outcomes: Option<&[Outcome]>, wait: u64) -> String {
    if choices.records.is_empty() && choices.left.is_empty() {
        return "nothing waits for that reason; nothing was changed\n".to_owned();
    }
    let number = choices.records.len();
    let mut text = match outcomes {
        None => format!("{number} to be judged again\n"),
        Some(outcomes) => {
            let through = outcomes.iter().filter(|o| is_through(o)).count();
            let unknown = outcomes.iter().filter(|o| **o == Outcome::Unknown).count();
            let waiting = number - through - unknown;
            let mut line = format!("{number} judged again: {through} in the target");
            if waiting > 0 {
                line.push_str(&format!(", {waiting} not"));
            }
            if unknown > 0 {
                line.push_str(&format!(", {unknown} not known after {wait} s"));
            }
            wrap(&line, "")
        }
    };
    for (at, record) in choices.records.iter().take(50).enumerate() {
        let what = match outcomes.and_then(|all| all.get(at)) {
            Some(Outcome::Parked { reason }) => format!("waits again: {}", reason_text(reason)),
            Some(outcome) => tell(outcome),
            None => format!("waits: {}", reason_text(&choices.reasons[at])),
        };
        text.push_str(&wrap(&format!("{}: {what}", record.key), "  "));
    }
    if number > 50 {
        text.push_str(&format!("  and {} more; see --format json\n", number - 50));
    }
    for (key, why) in choices.left.iter().take(50) {
        text.push_str(&wrap(&format!("{key} is left: {why}"), "  "));
    }
    text
}

#[cfg(test)]
mod tests {
    use drover_pipeline::parking::Reason;
    use drover_pipeline::record::{CanonicalKey, Fingerprint, Op, Order, Phase};

    use super::*;

    #[test]
    fn only_what_waits_for_a_required_link_is_let_go_without_it() {
        let envelope = Envelope {
            migration: "m",
            source: "s",
            object: "Contact",
            id: "1",
            slot: "contact",
            op: Op::Upsert,
            reason: None,
            version: 5,
            phase: Phase::Delta,
            extracted_at: 6,
            mapping: 1,
            fingerprint: Fingerprint::of(Op::Upsert, "contact.v1", b"body"),
            body_schema: "contact.v1",
            order: None,
            body: Some(b"body"),
            stored: None,
        };
        let order = Order {
            version: 5,
            offset: 9,
            ..Order::default()
        };
        let reason = Reason::Parent {
            parent: CanonicalKey::parse("s/Account/1#company").expect("a key"),
        };
        let parked = Parked::new(reason, "contact", order, 1, &envelope.encode());

        let same = value_of(&parked, "parent", false).expect("a value");
        let same = Envelope::decode(&same).expect("decodes");
        assert_eq!((same.order, same.body), (Some(order), envelope.body));

        // The content stays whole, so that the link can still be made.
        let bare = value_of(&parked, "parent", true).expect("a value");
        let bare = Envelope::decode(&bare).expect("decodes");
        assert!(bare.order > same.order);
        assert_eq!(bare.order, Some(parked.order_without_links()));
        assert_eq!((bare.fingerprint, bare.body), (same.fingerprint, same.body));

        assert!(value_of(&parked, "link", false).is_err());
        assert!(value_of(&parked, "lease", true).is_err());
    }
}
