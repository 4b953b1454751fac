//! `drover deadletter list`: by cause, or one line a letter.

use std::collections::BTreeMap;

use drover_pipeline::record::Millis;
use drover_pipeline::status::now;
use serde::Serialize;

use super::{Letter, advice, count};
use crate::cli::{Format, print, print_json};
use crate::table::{WIDTH, fit_middle, seconds, wrap};
use crate::when;

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
    /// When the oldest and the newest of them failed first and last.
    first: Millis,
    last: Millis,
    example: Example,
    /// The most attempts at one of them.
    attempts: u32,
    /// Who decided to leave them, and why.
    waived: Option<Waived>,
    advice: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Example {
    key: String,
    message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Waived {
    pub(super) actor: String,
    pub(super) reason: String,
}

/// One letter, for a program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'l> {
    stage: &'l str,
    key: &'l str,
    object: &'l str,
    code: &'l str,
    source_code: Option<&'l str>,
    place: Option<&'l str>,
    message: &'l str,
    attempt: u32,
    first_seen: Millis,
    at: Millis,
    version: Millis,
    waived: Option<Waived>,
}

impl Letter {
    pub(super) fn waived(&self) -> Option<Waived> {
        self.waiver.as_ref().map(|waiver| Waived {
            actor: waiver.actor.clone(),
            reason: waiver.reason.clone(),
        })
    }
}

pub(super) fn print_list(letters: &[Letter], all: bool, format: Format) {
    match (format, all) {
        (Format::Json, false) => print_json(&group(letters)),
        (Format::Json, true) => print_json(&letters.iter().map(line).collect::<Vec<_>>()),
        (Format::Table, false) => print(&render(&group(letters))),
        (Format::Table, true) => print(&render_all(letters, now())),
    }
}

fn line(letter: &Letter) -> Line<'_> {
    let waived = letter.waived();
    let letter = &letter.letter;
    Line {
        stage: letter.stage.as_str(),
        key: &letter.key,
        object: &letter.object,
        code: &letter.code,
        source_code: letter.source_code.as_deref(),
        place: letter.place.as_deref(),
        message: &letter.message,
        attempt: letter.attempt,
        first_seen: letter.first_seen,
        at: letter.at,
        version: letter.version,
        waived,
    }
}

/// The most frequent cause first, and waived ones last; the example is the
/// newest letter.
fn group(letters: &[Letter]) -> Vec<Cause> {
    let mut causes: BTreeMap<_, Cause> = BTreeMap::new();
    for with in letters {
        let letter = &with.letter;
        let stage = letter.stage.as_str();
        let key = (
            stage,
            &letter.object,
            &letter.code,
            &letter.source_code,
            &letter.place,
            with.waived(),
        );
        let example = || Example {
            key: letter.key.clone(),
            message: letter.message.clone(),
        };
        let first = match letter.first_seen {
            0 => letter.at,
            first => first,
        };
        let cause = causes.entry(key).or_insert_with(|| Cause {
            stage: stage.to_owned(),
            object: letter.object.clone(),
            code: letter.code.clone(),
            source_code: letter.source_code.clone(),
            place: letter.place.clone(),
            count: 0,
            first,
            last: letter.at,
            example: example(),
            attempts: 0,
            waived: with.waived(),
            advice: advice(&letter.code).to_owned(),
        });
        cause.count += 1;
        cause.first = cause.first.min(first);
        cause.attempts = cause.attempts.max(letter.attempt);
        if (letter.at, &letter.key) > (cause.last, &cause.example.key) {
            cause.last = letter.at;
            cause.example = example();
        }
    }
    let mut causes: Vec<Cause> = causes.into_values().collect();
    causes.sort_by_key(|cause| (cause.waived.is_some(), std::cmp::Reverse(cause.count)));
    causes
}

fn render(causes: &[Cause]) -> String {
    let number = |which: &dyn Fn(&&Cause) -> bool| -> u64 {
        causes.iter().filter(which).map(|cause| cause.count).sum()
    };
    let total = number(&|_| true);
    let waived = number(&|cause| cause.waived.is_some());
    if total == 0 {
        return "no dead letters\n".to_owned();
    }
    let mut text = count(usize::try_from(total).unwrap_or(usize::MAX));
    text.push_str(match causes.len() {
        1 => ", 1 cause",
        _ => ", ",
    });
    if causes.len() > 1 {
        text.push_str(&format!("{} causes", causes.len()));
    }
    if waived > 0 {
        text.push_str(&format!("; {waived} waived"));
    }
    text.push('\n');
    let indent = "         ";
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
        let (number, object, stage) = (cause.count, &cause.object, &cause.stage);
        let line = format!("{object}: {}{source_code}{place} ({stage})", cause.code);
        let line = wrap(&line, indent);
        let line = line.get(indent.len()..).unwrap_or_default();
        text.push_str(&format!("\n{number:>7}  {line}"));
        let mut times = format!(
            "first {}, last {}",
            when::show(cause.first),
            when::show(cause.last)
        );
        if cause.attempts > 1 {
            times.push_str(&format!(", tried {} times", cause.attempts));
        }
        text.push_str(&wrap(&times, indent));
        let example = format!("example {}: {}", cause.example.key, cause.example.message);
        text.push_str(&wrap(&example, indent));
        match &cause.waived {
            Some(Waived { actor, reason }) => {
                text.push_str(&wrap(&format!("waived by {actor}: {reason}"), indent));
            }
            None => {
                text.push_str(&wrap(&cause.advice, indent));
                let page = format!("more: drover explain {}", cause.code);
                text.push_str(&wrap(&page, indent));
            }
        }
    }
    text
}

fn render_all(letters: &[Letter], now: Millis) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let codes = letters.iter().map(|with| with.letter.code.len()).max();
    let width = codes.unwrap_or_default();
    let mut text = format!("{:>5}  {:<width$}  KEY\n", "AGE", "CODE");
    let mut cut = false;
    for with in letters {
        let letter = &with.letter;
        let age = seconds(Some(when::age(letter.at, now)));
        let waived = match with.waiver {
            Some(_) => "  (waived)",
            None => "",
        };
        let before = format!("{age:>5}  {:<width$}  ", letter.code);
        let room = WIDTH.saturating_sub(before.chars().count() + waived.len());
        let key = fit_middle(&letter.key, room);
        cut |= key != letter.key;
        text.push_str(&format!("{before}{key}{waived}\n"));
    }
    if cut {
        text.push_str("Keys that are cut stand whole in `--format json`.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use drover_pipeline::Code;

    use super::super::tests::{letter, open, waived};
    use super::*;

    #[test]
    fn letters_are_grouped_by_cause() {
        let letters = [
            open(letter(1, Code::BadEmail, 5)),
            open(letter(2, Code::TooLong, 5)),
            open(letter(3, Code::TooLong, 9)),
            open(letter(4, Code::TooLong, 7)),
            waived(letter(5, Code::TooLong, 7)),
        ];
        let causes = group(&letters);
        let counts: Vec<(u64, bool)> = causes
            .iter()
            .map(|c| (c.count, c.waived.is_some()))
            .collect();
        assert_eq!(counts, [(3, false), (1, false), (1, true)]);
        assert_eq!(causes[0].example.key, "salesforce/Contact/3");
        assert_eq!((causes[0].first, causes[0].last), (5, 9));
        let text = render(&causes);
        assert!(
            text.starts_with("5 dead letters, 3 causes; 1 waived\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "      3  Contact: TOO_LONG at Contact.Email -> contact.email (transformer)\n"
            ),
            "{text}"
        );
        assert!(text.contains("waived by ann: agreed with sales"), "{text}");
        let all = render_all(&letters, 20_000);
        let line = "  19s  TOO_LONG   salesforce/Contact/5  (waived)\n";
        assert!(all.ends_with(line), "{all}");
        for text in [text, all] {
            let fits = text.lines().all(|line| line.chars().count() <= 80);
            assert!(fits, "{text}");
        }
        assert_eq!(render(&[]), "no dead letters\n");
        let mut long = letter(6, Code::TooManyDeadLetters, 5);
        long.key = format!(
            "salesforce/A_long_object_of_ours__c/{}#record",
            "0".repeat(40)
        );
        let all = render_all(&[waived(long)], 20_000);
        let fits = all.lines().all(|line| line.chars().count() <= 80);
        assert!(fits && all.contains("0#record  (waived)\n"), "{all}");
        assert!(
            all.contains("salesforce/A_") && all.contains("--format json"),
            "{all}"
        );
    }
}
