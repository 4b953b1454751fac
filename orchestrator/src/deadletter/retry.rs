//! `drover deadletter retry`: letters back to the stage that gave up.
//!
//! A loader's record goes with the order that its letter names, so that the
//! owner of its key drops it where a newer version is in the target. A
//! transformer takes its own only while the letter is live.

use std::process::ExitCode;
use std::time::Duration;

use drover_pipeline::Result as Done;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::kafka::Place;
use drover_pipeline::record::Order;
use drover_pipeline::spec::Stage;
use serde_json::json;

use super::{Letter, Retry, count, meant};
use crate::cli::{Format, blocking, print, print_json};
use crate::failure::Result;
use crate::lookup;
use crate::migration::Bus;
use crate::redo::{Again, Outcome, ask, is_through, tell};
use crate::table::wrap;

/// The letters that can be tried again, and why the others can't.
struct Choices {
    records: Vec<Again>,
    left: Vec<(String, &'static str)>,
}

pub(super) async fn run(bus: Bus, options: Retry, format: Format) -> Result<ExitCode> {
    let letters = meant(bus.again(), options.choice).await?;
    let limit = Duration::from_secs(options.wait);
    let (choices, outcomes) = blocking(move || {
        let choices = choose(&bus, &letters)?;
        let outcomes = match options.dry_run || choices.records.is_empty() {
            true => None,
            false => Some(ask(&bus, &choices.records, limit)?),
        };
        Ok::<_, drover_pipeline::Error>((choices, outcomes))
    })
    .await?;
    match format {
        Format::Json => print_json(&document(&choices, outcomes.as_deref())),
        Format::Table => print(&render(&choices, outcomes.as_deref(), options.wait)),
    }
    let code = exit(&choices, outcomes.as_deref(), options.dry_run);
    Ok(ExitCode::from(code))
}

/// 0 only where nobody has to look at anything.
fn exit(choices: &Choices, outcomes: Option<&[Outcome]>, dry_run: bool) -> u8 {
    let through = outcomes.into_iter().flatten().all(is_through);
    match dry_run || through && choices.left.is_empty() {
        true => 0,
        false => 3,
    }
}

fn choose(bus: &Bus, letters: &[Letter]) -> Done<Choices> {
    let mut choices = Choices {
        records: Vec::new(),
        left: Vec::new(),
    };
    for Letter { letter, .. } in letters {
        match again(bus, letter)? {
            Ok(record) => choices.records.push(record),
            Err(why) => choices.left.push((letter.key.clone(), why)),
        }
    }
    Ok(choices)
}

/// The record of a letter as it is written to be tried again, or why it can't be.
fn again(bus: &Bus, letter: &DeadLetter) -> Done<Result<Again, &'static str>> {
    let mut value = letter.envelope().unwrap_or_default();
    let order = match letter.stage {
        Stage::Extractor => {
            let why = "the source gave no record that could be read; it goes when the source \
                       gives it again";
            return Ok(Err(why));
        }
        Stage::Loader => letter.order,
        // The raw record's own place, for a letter that has to be written again.
        Stage::Transformer => Some(Order {
            version: letter.version,
            offset: letter.offset,
            ..Order::default()
        }),
    };
    if value.is_empty() && letter.stage == Stage::Transformer {
        // Too large to lie in the letter as well.
        let place = Place::new(&letter.topic, letter.partition);
        match lookup::at(&bus.client, &place, letter.offset, &letter.key)? {
            Some(found) => value = found.value.unwrap_or_default(),
            None => return Ok(Err("its raw record was replaced by a newer version")),
        }
    }
    let Ok(mut envelope) = Envelope::decode(&value) else {
        return Ok(Err("its bytes are no record of Drover's; waive it"));
    };
    if order.is_none() {
        return Ok(Err("it names no order, as foreign bytes do not; waive it"));
    }
    envelope.order = order;
    Ok(Ok(Again {
        stage: letter.stage,
        key: letter.key.clone(),
        value: envelope.encode(),
        dead: true,
    }))
}

fn document(choices: &Choices, outcomes: Option<&[Outcome]>) -> serde_json::Value {
    let records: Vec<serde_json::Value> = choices
        .records
        .iter()
        .enumerate()
        .map(|(at, record)| {
            let mut shown = match outcomes.and_then(|all| all.get(at)) {
                Some(outcome) => serde_json::to_value(outcome).unwrap_or_default(),
                None => json!({}),
            };
            shown["stage"] = json!(record.stage);
            shown["key"] = json!(record.key);
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
    let mut text = String::new();
    if choices.records.is_empty() && choices.left.is_empty() {
        return "no dead letter is meant; nothing was changed\n".to_owned();
    }
    let number = choices.records.len();
    match outcomes {
        None => text.push_str(&format!("{} can be tried again\n", count(number))),
        Some(outcomes) => {
            let through = outcomes
                .iter()
                .filter(|outcome| is_through(outcome))
                .count();
            let unknown = outcomes.iter().filter(|o| **o == Outcome::Unknown).count();
            let mut line = format!("{}: {through} through", count(number));
            let others = number - through - unknown;
            if others > 0 {
                line.push_str(&format!(", {others} not"));
            }
            if unknown > 0 {
                line.push_str(&format!(", {unknown} not known after {wait} s"));
            }
            text.push_str(&wrap(&line, ""));
        }
    }
    for (at, record) in choices.records.iter().take(50).enumerate() {
        let outcome = outcomes
            .and_then(|all| all.get(at))
            .map(|outcome| format!(": {}", tell(outcome)))
            .unwrap_or_default();
        let line = format!("{} ({}){outcome}", record.key, record.stage.as_str());
        text.push_str(&wrap(&line, "  "));
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
    use super::*;

    #[test]
    fn airbyte_27124_what_failed_is_never_called_through() {
        let record = |key: &str| Again {
            stage: Stage::Loader,
            key: key.to_owned(),
            value: Vec::new(),
            dead: true,
        };
        let choices = Choices {
            records: vec![record("a"), record("b"), record("c")],
            left: vec![("d".into(), "its bytes are no record of Drover's; waive it")],
        };
        let outcomes = [
            Outcome::InTarget,
            Outcome::Dead {
                code: "TOO_LONG".into(),
                message: "no".into(),
                attempt: 2,
            },
            Outcome::Unknown,
        ];
        let text = render(&choices, Some(&outcomes), 10);
        let first = "3 dead letters: 1 through, 1 not, 1 not known after 10 s\n";
        assert!(text.starts_with(first), "{text}");
        assert!(
            text.contains("b (loader): failed again, attempt 2: TOO_LONG: no"),
            "{text}"
        );
        assert!(text.contains("d is left: "), "{text}");
        let text = render(&choices, None, 10);
        assert!(
            text.starts_with("3 dead letters can be tried again\n"),
            "{text}"
        );
        assert_eq!(exit(&choices, Some(&outcomes), false), 3);
        assert_eq!(exit(&choices, None, true), 0);
        let whole = Choices {
            left: Vec::new(),
            records: choices.records.clone(),
        };
        assert_eq!(exit(&whole, Some(&outcomes[..1]), false), 0);
        for bad in &outcomes[1..] {
            assert_eq!(exit(&whole, Some(std::slice::from_ref(bad)), false), 3);
        }
        let document = document(&choices, Some(&outcomes));
        assert_eq!(document["records"][1]["outcome"], "dead");
        assert_eq!(document["records"][0]["outcome"], "in-target");
    }
}
