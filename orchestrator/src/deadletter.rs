//! `drover deadletter list`: what could not go on, by cause.

use std::collections::BTreeMap;
use std::path::Path;

use drover_pipeline::Code;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::record::Millis;
use serde::Serialize;

use crate::cli::{Format, blocking, print, print_json};
use crate::failure::Result;
use crate::migration::Bus;
use crate::table::wrap;

/// Dead letters with one cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cause {
    stage: String,
    object: String,
    code: String,
    source_code: Option<String>,
    place: Option<String>,
    count: u64,
    /// When the oldest and the newest of them were written.
    first: Millis,
    last: Millis,
    example: Example,
    advice: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Example {
    key: String,
    message: String,
}

pub(crate) async fn list(file: &Path, format: Format) -> Result<()> {
    let bus = Bus::load(file)?;
    let letters = blocking(move || read_to_end(&bus.client, &bus.topics.deadletter())).await?;
    // One that can't be read is one more that could not go on.
    let unreadable = |key: &[u8]| format!("{} is not readable", String::from_utf8_lossy(key));
    let mut parsed = Vec::new();
    for (key, value) in &letters {
        match serde_json::from_slice::<DeadLetter>(value) {
            Ok(letter) => parsed.push(letter),
            Err(_) => eprintln!(
                "{}: {}; {}",
                Code::ForeignBytes,
                unreadable(key),
                Code::ForeignBytes.advice()
            ),
        }
    }
    let causes = group(&parsed);
    match format {
        Format::Json => print_json(&causes),
        Format::Table => print(&render(&causes)),
    }
    Ok(())
}

/// The most frequent cause first; the example is the newest letter.
fn group(letters: &[DeadLetter]) -> Vec<Cause> {
    let mut causes: BTreeMap<_, Cause> = BTreeMap::new();
    for letter in letters {
        let stage = letter.stage.as_str();
        let key = (
            stage,
            &letter.object,
            &letter.code,
            &letter.source_code,
            &letter.place,
        );
        let example = || Example {
            key: letter.key.clone(),
            message: letter.message.clone(),
        };
        let cause = causes.entry(key).or_insert_with(|| Cause {
            stage: stage.to_owned(),
            object: letter.object.clone(),
            code: letter.code.clone(),
            source_code: letter.source_code.clone(),
            place: letter.place.clone(),
            count: 0,
            first: letter.at,
            last: letter.at,
            example: example(),
            advice: Code::ALL
                .iter()
                .find(|code| code.as_str() == letter.code)
                .map_or_else(String::new, |code| code.advice().to_owned()),
        });
        cause.count += 1;
        cause.first = cause.first.min(letter.at);
        if (letter.at, &letter.key) > (cause.last, &cause.example.key) {
            cause.last = letter.at;
            cause.example = example();
        }
    }
    let mut causes: Vec<Cause> = causes.into_values().collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes
}

fn render(causes: &[Cause]) -> String {
    let total: u64 = causes.iter().map(|cause| cause.count).sum();
    if total == 0 {
        return "no dead letters\n".to_owned();
    }
    let mut text = format!("{total} dead letters, {} causes\n", causes.len());
    for cause in causes {
        let source_code = cause
            .source_code
            .as_ref()
            .map(|c| format!(" [{c}]"))
            .unwrap_or_default();
        let place = cause
            .place
            .as_ref()
            .map(|p| format!(" at {p}"))
            .unwrap_or_default();
        let (count, object, stage) = (cause.count, &cause.object, &cause.stage);
        let line = format!("{object}: {}{source_code}{place} ({stage})", cause.code);
        let line = wrap(&line, "         ");
        let line = line.get(9..).unwrap_or_default();
        text.push_str(&format!("\n{count:>7}  {line}"));
        let example = format!("example {}: {}", cause.example.key, cause.example.message);
        text.push_str(&wrap(&example, "         "));
        text.push_str(&wrap(&cause.advice, "         "));
    }
    text
}

#[cfg(test)]
mod tests {
    use drover_pipeline::Error;
    use drover_pipeline::deadletter::{Author, Origin};
    use drover_pipeline::kafka::Place;
    use drover_pipeline::spec::Stage;

    use super::*;

    fn letter(id: u32, code: Code, at: Millis) -> DeadLetter {
        let error = Error::new(code, format!("message {id}")).at("contact.email");
        let origin = Origin {
            place: Place::new("t", 0),
            offset: 1,
        };
        let key = format!("salesforce/Contact/{id}");
        let author = Author {
            stage: Stage::Transformer,
            connector: "mapper".into(),
            instance: "transformer-1".into(),
        };
        DeadLetter::new(&author, &key, &error, &origin, 1, None, at, b"x")
    }

    #[test]
    fn letters_are_grouped_by_cause() {
        let letters = [
            letter(1, Code::BadEmail, 5),
            letter(2, Code::TooLong, 5),
            letter(3, Code::TooLong, 9),
            letter(4, Code::TooLong, 7),
        ];
        let causes = group(&letters);
        assert_eq!(causes.iter().map(|c| c.count).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(causes[0].example.key, "salesforce/Contact/3");
        assert_eq!((causes[0].first, causes[0].last), (5, 9));
        let text = render(&causes);
        assert!(text.starts_with("4 dead letters, 2 causes\n"), "{text}");
        assert!(
            text.contains("      3  Contact: TOO_LONG at contact.email (transformer)\n"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert_eq!(render(&[]), "no dead letters\n");
    }
}
