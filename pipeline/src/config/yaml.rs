//! YAML as a tree that knows its lines: plain values of the core schema,
//! without aliases and foreign tags, whose meaning a reader can't see in place.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::Problem;
use super::document::{Field, Node, Value, is_too_deep, too_deep};

/// A list or map that is not closed yet.
enum Open {
    List(usize, Vec<Node>),
    Map(usize, Vec<Field>, Option<(String, usize)>),
}

pub(super) fn read(file: &str, text: &str) -> Result<Node, Problem> {
    let refuse = |line: usize, message: String, advice: &str| Problem {
        file: file.to_owned(),
        line,
        ..Problem::at("", message, advice)
    };
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            if let Some(line) = indented_by_tab(text, error.marker().line()) {
                return refuse(
                    line,
                    "bad YAML: a tab stands in front of the line".into(),
                    "indent with spaces",
                );
            }
            refuse(
                error.marker().line(),
                format!(
                    "bad YAML in column {}: {}",
                    error.marker().col() + 1,
                    error.info()
                ),
                "mend the syntax there, or just before it; indent with spaces",
            )
        })?;
        let line = line(&span);
        let done = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(refuse(
                        line,
                        "a second document starts".into(),
                        "keep one migration in a file, without a further `---`",
                    ));
                }
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::Alias(_) => {
                return Err(refuse(
                    line,
                    "an alias (`*name`) can't be used".into(),
                    "write the value out",
                ));
            }
            Event::SequenceStart(_, tag) => {
                plain_tag(tag.as_deref(), "seq").map_err(|m| refuse(line, m, "leave it out"))?;
                open.push(Open::List(line, Vec::new()));
                None
            }
            Event::MappingStart(_, tag) => {
                plain_tag(tag.as_deref(), "map").map_err(|m| refuse(line, m, "leave it out"))?;
                open.push(Open::Map(line, Vec::new(), None));
                None
            }
            Event::Scalar(text, style, _, tag) => {
                let value = match tag.as_deref() {
                    None if style == ScalarStyle::Plain => plain(&text),
                    Some(tag) if plain_tag(Some(tag), "str").is_err() => {
                        return Err(refuse(line, foreign(tag), "leave it out"));
                    }
                    _ => Value::Text(text.into_owned()),
                };
                Some(Node { line, value })
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|closed| match closed {
                Open::List(line, items) => Node {
                    line,
                    value: Value::List(items),
                },
                Open::Map(line, fields, _) => Node {
                    line,
                    value: Value::Map(fields),
                },
            }),
        };
        if is_too_deep(open.len()) {
            return Err(too_deep(file, line));
        }
        let Some(node) = done else { continue };
        match open.last_mut() {
            None => root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, _, name @ None)) => match node.value {
                Value::Text(text) | Value::Number(text) => *name = Some((text, line)),
                Value::Bool(value) => *name = Some((value.to_string(), line)),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    return Err(refuse(
                        line,
                        "a field's name must be a text".into(),
                        "write `name: value`",
                    ));
                }
            },
            Some(Open::Map(_, fields, name)) => {
                if let Some((name, line)) = name.take() {
                    fields.push(Field { name, line, node });
                }
            }
        }
    }
    Ok(root.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

fn line(span: &Span) -> usize {
    span.start.line()
}

/// The line, from 1, that a tab indents, if the reader ends by it: it notices at the
/// end of the line before, or in what follows.
fn indented_by_tab(text: &str, noticed: usize) -> Option<usize> {
    let around = noticed.saturating_sub(1).max(1)..=noticed + 1;
    let mut lines = text.lines().zip(1..);
    let found = lines.find(|(line, number)| {
        let indent = line.len() - line.trim_start().len();
        around.contains(number) && line[..indent].contains('\t') && indent < line.len()
    });
    found.map(|(_, number)| number)
}

fn plain_tag(tag: Option<&Tag>, suffix: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == suffix) => Err(foreign(tag)),
        _ => Ok(()),
    }
}

fn foreign(tag: &Tag) -> String {
    format!("the tag `{tag}` can't be used")
}

/// A plain scalar by YAML 1.2's core schema, except that what JSON has no
/// number for (`.inf`, `0x1F`) stays a text.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// JSON's grammar of a number, with YAML's leading `+` and leading zeros.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let whole = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && (part.is_empty() || digits(part)),
        None => digits(mantissa),
    };
    whole && exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)))
}
