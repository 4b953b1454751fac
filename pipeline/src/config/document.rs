//! A configuration file as a tree that knows its lines, read from JSON or YAML.
//!
//! Reading never fails half-way on what a person can mend later: a name that
//! stands twice is a problem beside all others, only bad syntax ends it.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Problem;

/// How deep a document may be nested.
const DEPTH: usize = 64;

/// A value and the line it stands in, from 1.
///
/// There is no `Debug`: the tree may hold secrets.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// The line, from 1; 0 for what does not stand in the file.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, as its digits stand in the file.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Named values, in the order of the file.
    Map(Vec<Field>),
}

/// A named value.
#[derive(Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The line of the name.
    pub line: usize,
    /// The value.
    pub node: Node,
}

impl Node {
    /// The field of that name, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.fields()
            .iter()
            .find(|field| field.name == name)
            .map(|field| &field.node)
    }

    /// The fields; none if this is no map.
    pub fn fields(&self) -> &[Field] {
        match &self.value {
            Value::Map(fields) => fields,
            _ => &[],
        }
    }

    /// What kind of value it is, for a message.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a group of fields",
        }
    }

    /// The same as JSON, without the lines.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(digits) => {
                number(digits).map_or_else(|| digits.clone().into(), serde_json::Value::Number)
            }
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(fields) => fields
                .iter()
                .map(|field| (field.name.clone(), field.node.to_json()))
                .collect(),
        }
    }

    /// The line of what stands at a path (`mappings.Contact`, `objects[2]`), or
    /// of the nearest thing around it.
    pub fn line_of(&self, path: &str) -> usize {
        self.find(path).unwrap_or(self.line)
    }

    /// Names may hold dots, so each field whose name the path starts with is
    /// tried; the line is that of the name, not of what follows it.
    fn find(&self, path: &str) -> Option<usize> {
        let path = path.strip_prefix('.').unwrap_or(path);
        if path.is_empty() {
            return None;
        }
        if let Some((index, rest)) = path.strip_prefix('[').and_then(|p| p.split_once(']')) {
            let Value::List(items) = &self.value else {
                return None;
            };
            let item = items.get(index.parse::<usize>().ok()?)?;
            return Some(item.line_of(rest));
        }
        self.fields().iter().find_map(|field| {
            let rest = path.strip_prefix(field.name.as_str())?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then(|| {
                let inner = field.node.find(rest);
                inner.unwrap_or(field.line)
            })
        })
    }
}

/// A number with those digits, where JSON has one.
pub(super) fn number(digits: &str) -> Option<serde_json::Number> {
    if let Ok(whole) = digits.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = digits.parse::<u64>() {
        return Some(whole.into());
    }
    serde_json::Number::from_f64(digits.parse().ok()?)
}

/// Reads a file's bytes. `file` is its name as on the command line; its ending
/// says what it is, and without one a document that starts with `{` is JSON.
///
/// The error is a syntax problem; names that stand twice are put into `problems`.
pub fn parse(file: &str, bytes: &[u8], problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        Problem {
            file: file.to_owned(),
            line,
            ..Problem::at("", "the file is not UTF-8 text", "save it as UTF-8")
        }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let ends = |ending: &str| file.to_ascii_lowercase().ends_with(ending);
    let looks = text.trim_start().starts_with('{');
    let json = Json {
        text,
        file,
        newlines: text.match_indices('\n').map(|(at, _)| at).collect(),
    };
    let is_json = ends(".json")
        || (looks && !ends(".yaml") && !ends(".yml"))
        // JSON in a YAML file is YAML too, but for tabs and a few escapes.
        || (looks && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    let mut root = if is_json {
        json.read()?
    } else {
        super::yaml::read(file, text)?
    };
    remove_repeated(&mut root, "", file, problems);
    Ok(root)
}

/// Removes names that stand twice, each with its problem: the first one counts
/// until that is mended.
fn remove_repeated(node: &mut Node, path: &str, file: &str, problems: &mut Vec<Problem>) {
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                remove_repeated(item, &format!("{path}[{index}]"), file, problems);
            }
        }
        Value::Map(fields) => {
            let mut first = HashMap::new();
            fields.retain_mut(|field| {
                let path = join(path, &field.name);
                match first.get(&field.name) {
                    Some(line) => problems.push(Problem {
                        file: file.to_owned(),
                        line: field.line,
                        ..Problem::at(
                            path,
                            format!("stands twice, in line {line} and line {}", field.line),
                            "keep one of them",
                        )
                    }),
                    None => {
                        first.insert(field.name.clone(), field.line);
                        remove_repeated(&mut field.node, &path, file, problems);
                        return true;
                    }
                }
                false
            });
        }
        _ => {}
    }
}

/// The path of a field of what stands at `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

pub(super) fn too_deep(file: &str, line: usize) -> Problem {
    Problem {
        file: file.to_owned(),
        line,
        ..Problem::at(
            "",
            format!("the document is nested deeper than {DEPTH} levels"),
            "a configuration needs four; mend the brackets or the indentation",
        )
    }
}

pub(super) fn is_too_deep(depth: usize) -> bool {
    depth > DEPTH
}

/// JSON is read with serde_json, level by level as raw text: a slice of the
/// text knows its own place, and with it its line.
struct Json<'a> {
    text: &'a str,
    file: &'a str,
    newlines: Vec<usize>,
}

struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl<'a> Json<'a> {
    fn read(&self) -> Result<Node, Problem> {
        self.node(self.typed(self.text)?, 1)
    }

    fn node(&self, raw: &'a RawValue, depth: usize) -> Result<Node, Problem> {
        let text = raw.get();
        let line = self.line(text);
        if is_too_deep(depth) {
            return Err(too_deep(self.file, line));
        }
        let value = match text.as_bytes().first() {
            Some(b'{') => {
                let mut fields = Vec::new();
                for (name, value) in self.typed::<Members<'a>>(text)?.0 {
                    fields.push(Field {
                        name: self.typed(name.get())?,
                        line: self.line(name.get()),
                        node: self.node(value, depth + 1)?,
                    });
                }
                Value::Map(fields)
            }
            Some(b'[') => Value::List(
                self.typed::<Vec<&'a RawValue>>(text)?
                    .into_iter()
                    .map(|item| self.node(item, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Some(b'"') => Value::Text(self.typed(text)?),
            Some(b't' | b'f') => Value::Bool(self.typed(text)?),
            Some(b'n') => Value::Null,
            _ => Value::Number(text.to_owned()),
        };
        Ok(Node { line, value })
    }

    fn typed<T: Deserialize<'a>>(&self, part: &'a str) -> Result<T, Problem> {
        serde_json::from_str(part).map_err(|error| {
            let text = error.to_string();
            // serde_json's own text ends in the place within the part it read.
            let what = text
                .rsplit_once(" at line ")
                .map_or(&*text, |(what, _)| what);
            let line = self.line(part) + error.line().saturating_sub(1);
            let column = if std::ptr::eq(part, self.text) {
                format!(" in column {}", error.column())
            } else {
                String::new()
            };
            Problem {
                file: self.file.to_owned(),
                line,
                ..Problem::at(
                    "",
                    format!("bad JSON{column}: {what}"),
                    "mend the syntax there, or just before it",
                )
            }
        })
    }

    /// The line of a slice of the text, by where it lies in memory.
    fn line(&self, part: &str) -> usize {
        let at = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        1 + self.newlines.partition_point(|newline| *newline < at)
    }
}
