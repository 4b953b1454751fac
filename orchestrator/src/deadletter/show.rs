//! `drover deadletter show`: everything about one record's letters.

use std::path::Path;

use drover_pipeline::Code;
use drover_pipeline::spec::Stage;
use serde_json::{Value, json};

use super::filter::is_of;
use super::{Letter, advice};
use crate::body::describe;
use crate::cli::{Format, print, print_json};
use crate::failure::{Failure, Result};
use crate::table::{WIDTH, wrap};
use crate::when;

pub(super) fn print_letters(
    letters: &[Letter],
    key: &str,
    bodies: bool,
    file: &Path,
    format: Format,
) -> Result<()> {
    let meant: Vec<&Letter> = letters
        .iter()
        .filter(|with| is_of(&with.letter, key))
        .collect();
    if meant.is_empty() {
        let told = format!("`{key}` has no dead letter");
        let advice = "`drover deadletter list --all` shows the keys";
        return Err(Failure::new(Code::UnknownRecord, told, advice).into());
    }
    let shown: Vec<Value> = meant.iter().map(|with| whole(with, bodies, file)).collect();
    match format {
        Format::Json => print_json(&shown),
        Format::Table => {
            let texts: Vec<String> = shown.iter().map(render).collect();
            print(&texts.join("\n"));
        }
    }
    Ok(())
}

fn whole(with: &Letter, bodies: bool, file: &Path) -> Value {
    let letter = &with.letter;
    json!({
        "stage": letter.stage,
        "key": letter.key,
        "object": letter.object,
        "code": letter.code,
        "class": letter.class,
        "sourceCode": letter.source_code,
        "message": letter.message,
        "place": letter.place,
        "attempt": letter.attempt,
        "firstSeen": letter.first_seen,
        "at": letter.at,
        "version": letter.version,
        "order": letter.order,
        "origin": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        "connector": letter.connector,
        "instance": letter.instance,
        "waived": with.waiver,
        "advice": advice(&letter.code),
        "page": format!("docs/errors/{}.md", letter.code),
        "retry": next(letter.stage, &letter.code, &letter.key, file),
        "body": describe(&letter.envelope().unwrap_or_default(), bodies),
    })
}

/// What is wrong with the record itself: the same version fails in the same way,
/// however often it is tried.
const OF_THE_RECORD: [Code; 8] = [
    Code::MissingId,
    Code::InvalidUtf8,
    Code::InvalidBody,
    Code::WrongType,
    Code::RequiredMissing,
    Code::TooLong,
    Code::BadEmail,
    Code::BadReference,
];

/// What is told of these where others have a command.
const BY_ITSELF: &str = "the record's next version clears this letter, and so does `drover remap` with \
    a mapping that fits; a retry changes nothing";

/// Whether the record's next version is what clears its letter.
fn clears_itself(code: &str) -> bool {
    OF_THE_RECORD.iter().any(|one| one.as_str() == code)
}

/// The command that has it tried again, where one does and helps: whose parent
/// never comes goes on by itself if it comes, and not sooner.
fn next(stage: Stage, code: &str, key: &str, file: &Path) -> Option<String> {
    let waits = code == Code::ParentNeverComes.as_str() || clears_itself(code);
    let helps = stage != Stage::Extractor && !waits;
    helps.then(|| {
        let file = quoted(&file.to_string_lossy());
        format!("drover deadletter retry -c {file} --key {}", quoted(key))
    })
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn render(letter: &Value) -> String {
    let text = |field: &str| match &letter[field] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let moment = |field: &str| letter[field].as_i64().map_or("-".into(), when::show);
    let origin = &letter["origin"];
    let mut out = format!("{}\n", text("key"));
    let source_code = match letter["sourceCode"].as_str() {
        Some(code) => format!(" [{code}]"),
        None => String::new(),
    };
    let mended = match letter["code"].as_str().is_some_and(clears_itself) {
        true => BY_ITSELF.to_owned(),
        false => text("retry"),
    };
    let rows = [
        (
            "what",
            format!("{}{source_code}: {}", text("code"), text("message")),
        ),
        ("where", text("place")),
        (
            "stage",
            format!(
                "{} ({} {})",
                text("stage"),
                text("connector"),
                text("instance")
            ),
        ),
        (
            "tried",
            match letter["attempt"].as_u64() {
                Some(0 | 1) => format!("once, {}", moment("at")),
                _ => format!(
                    "{} times, first {}, last {}",
                    text("attempt"),
                    moment("firstSeen"),
                    moment("at")
                ),
            },
        ),
        ("version", moment("version")),
        (
            "lies in",
            format!(
                "{} partition {} offset {}",
                origin["topic"].as_str().unwrap_or("-"),
                origin["partition"],
                origin["offset"]
            ),
        ),
        ("what to do", text("advice")),
        ("more", format!("drover explain {}", text("code"))),
        ("once mended", mended),
    ];
    for (name, value) in rows {
        if value != "-" {
            out.push_str(&hanging(name, &value));
        }
    }
    if let Some(reason) = letter["waived"]["reason"].as_str() {
        let actor = letter["waived"]["actor"].as_str().unwrap_or("-");
        let at = letter["waived"]["at"]
            .as_i64()
            .map_or("-".into(), when::show);
        out.push_str(&hanging("waived", &format!("by {actor}, {at}: {reason}")));
    }
    out.push_str("  the record\n");
    let body = &letter["body"];
    match body["fields"].as_object() {
        Some(fields) => {
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                out.push_str(&wrap(&format!("{name}: {value}"), "    "));
            }
        }
        None => {
            let what = match (&body["fields"], &body["foreign"]) {
                (Value::String(text), _) | (_, Value::String(text)) => text.clone(),
                _ => format!("{} bytes", body["bytes"]),
            };
            out.push_str(&wrap(&what, "    "));
        }
    }
    out
}

/// A name and its text, which goes on under itself; a command in a way that a
/// shell takes.
fn hanging(name: &str, text: &str) -> String {
    let indent = " ".repeat(15);
    let wrapped = match text.starts_with("drover deadletter ") && text.len() + 15 > WIDTH {
        true => format!(
            "{indent}{}\n",
            text.replace(" --", &format!(" \\\n{indent}  --"))
        ),
        false => wrap(text, &indent),
    };
    let first = format!("  {name:<13}");
    wrapped.replacen(&indent, &first, 1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{letter, open, waived};
    use super::*;

    #[test]
    fn a_letter_is_told_whole_and_its_values_only_when_asked_for() {
        let one = waived(letter(1, Code::BadEmail, 1_800_000_000_000));
        let text = render(&whole(&one, false, Path::new("our m.json")));
        for part in [
            "salesforce/Contact/1\n",
            "BAD_EMAIL: message 1",
            "t partition 0 offset 1",
            "waived       by ann, 2027-01-15T08:00:00Z: agreed with sales",
            "more         drover explain BAD_EMAIL\n",
            "once mended  the record's next version clears this letter, and so does",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(text.contains("  tried        once, "), "{text}");
        assert!(!text.contains("deadletter retry"), "{text}");
        let refused = open(letter(1, Code::TargetRefused, 5));
        let text = render(&whole(&refused, false, Path::new("our m.json")));
        let command = "drover deadletter retry -c 'our m.json' \\\n                 --key salesforce/Contact/1\n";
        assert!(text.contains(command), "{text}");
        let orphan = whole(
            &open(letter(1, Code::ParentNeverComes, 5)),
            false,
            Path::new("m.json"),
        );
        assert!(orphan["retry"].is_null(), "{orphan}");
        assert!(!text.contains("ann at example"), "{text}");
        let shown = whole(
            &open(letter(1, Code::BadEmail, 5)),
            true,
            Path::new("m.json"),
        );
        assert_eq!(shown["body"]["foreign"], "{\"Email\":\"ann at example\"}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}
