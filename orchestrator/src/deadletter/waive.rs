//! `drover deadletter waive` and `unwaive`.

use std::time::Duration;

use drover_pipeline::Code;
use drover_pipeline::kafka::producer::{PlainProducer, Record};
use drover_pipeline::status::now;
use drover_pipeline::waiver::Waiver;
use serde_json::json;

use super::{Choice, Letter, Waive, count, meant};
use crate::cli::{Format, blocking, print, print_json};
use crate::failure::{Failure, Result};
use crate::migration::Bus;
use crate::table::wrap;

/// How long the broker may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn waive(bus: Bus, options: Waive, format: Format) -> Result<()> {
    let user = || std::env::var("USER").unwrap_or_default();
    let actor = options.actor.unwrap_or_else(user);
    let (reason, actor) = (options.reason.trim(), actor.trim());
    for (missing, text) in [
        ("--reason is empty", reason),
        ("$USER does not say who you are, nor does --actor", actor),
    ] {
        if text.is_empty() {
            let advice = "a waiver says who decided it (`--actor NAME`), and why";
            return Err(Failure::new(Code::ConfigInvalid, missing, advice).into());
        }
    }
    let letters = meant(bus.again(), options.choice).await?;
    let waivers: Vec<Waiver> = letters
        .iter()
        .map(|with| Waiver::of(&with.letter, reason, actor, now()))
        .collect();
    let records = waivers.iter().map(|waiver| {
        let value = serde_json::to_vec(waiver).unwrap_or_default();
        (waiver.control_key(), Some(value))
    });
    write(bus, records.collect()).await?;
    match format {
        Format::Json => print_json(&json!({"waived": waivers})),
        Format::Table => print(&tell(
            &letters,
            &format!("waived by {actor}: {reason}"),
            "A new failure of these records, with another content or another code, is not covered.",
        )),
    }
    Ok(())
}

pub(super) async fn unwaive(bus: Bus, choice: Choice, format: Format) -> Result<()> {
    let mut letters = meant(bus.again(), choice).await?;
    letters.retain(|with| with.waiver.is_some());
    let keys: Vec<String> = letters
        .iter()
        .filter_map(|with| with.waiver.as_ref().map(Waiver::control_key))
        .collect();
    write(bus, keys.into_iter().map(|key| (key, None)).collect()).await?;
    match format {
        Format::Json => {
            let keys: Vec<&str> = letters.iter().map(|w| w.letter.key.as_str()).collect();
            print_json(&json!({"unwaived": keys}));
        }
        Format::Table => print(&tell(&letters, "no longer waived", "")),
    }
    Ok(())
}

/// Writes records to `control`.
async fn write(bus: Bus, records: Vec<(String, Option<Vec<u8>>)>) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    blocking(move || {
        let producer = PlainProducer::open(&bus.client)?;
        let control = bus.topics.control();
        for (key, value) in &records {
            producer.send(Record::new(&control, key.as_bytes(), value.as_deref()))?;
        }
        producer.flush(LIMIT)
    })
    .await
}

fn tell(letters: &[Letter], what: &str, note: &str) -> String {
    if letters.is_empty() {
        return "no dead letter is meant; nothing was changed\n".to_owned();
    }
    let mut text = wrap(&format!("{} {what}", count(letters.len())), "");
    for with in letters.iter().take(10) {
        let letter = &with.letter;
        let line = format!(
            "{}: {} ({})",
            letter.key,
            letter.code,
            letter.stage.as_str()
        );
        text.push_str(&wrap(&line, "  "));
    }
    if letters.len() > 10 {
        text.push_str(&format!("  and {} more\n", letters.len() - 10));
    }
    text.push_str(&wrap(note, ""));
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{letter, open};
    use super::*;

    #[test]
    fn it_says_what_is_waived() {
        let letters: Vec<Letter> = (0..12).map(|n| open(letter(n, Code::TooLong, 5))).collect();
        let text = tell(&letters, "waived by ann: fine", "A note.");
        assert!(
            text.starts_with("12 dead letters waived by ann: fine\n"),
            "{text}"
        );
        assert!(
            text.contains("  salesforce/Contact/0: TOO_LONG (transformer)\n"),
            "{text}"
        );
        assert!(text.ends_with("  and 2 more\nA note.\n"), "{text}");
        assert!(tell(&[], "waived", "").starts_with("no dead letter"));
    }
}
