//! The part of JSON schema that a connector's `spec` uses, checked against a
//! document that knows its lines: type, properties, required,
//! additionalProperties, items, enum, const, minimum, maximum, minLength,
//! anyOf, oneOf, allOf, and references within the schema. Other words are
//! passed over. A message never holds the value that was given: it may be a
//! secret.

use serde_json::Value as Json;

use super::document::{Node, Value, join, number};
use super::{Problem, nearest};

/// How many references are followed before a schema counts as circular.
const REFERENCES: usize = 32;

/// How deep a schema may lead: it comes from another process, and may be
/// circular where the document is not.
const DEPTH: usize = 128;

/// Every way in which `node` is not what `schema` asks for. `path` is where the
/// node stands in its document; the problems have lines, and no file.
pub fn validate_against(schema: &Json, node: &Node, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    Schema::new(schema).check(node, path, node.line, &mut problems);
    problems
}

/// A schema, with the document that its references point into.
#[derive(Clone, Copy)]
pub(super) struct Schema<'s> {
    root: &'s Json,
    here: &'s Json,
    depth: usize,
}

impl<'s> Schema<'s> {
    pub(super) fn new(root: &'s Json) -> Self {
        Schema {
            root,
            here: root,
            depth: 0,
        }
        .resolved()
    }

    fn at(self, here: &'s Json) -> Self {
        Schema {
            here,
            depth: self.depth + 1,
            ..self
        }
        .resolved()
    }

    fn resolved(mut self) -> Self {
        for _ in 0..REFERENCES {
            let Some(target) = self.here.get("$ref").and_then(Json::as_str) else {
                break;
            };
            let Some(there) = target.strip_prefix('#').and_then(|t| self.root.pointer(t)) else {
                break;
            };
            self.here = there;
        }
        self
    }

    /// The fields it names, its own and those of what it is composed of.
    pub(super) fn properties(self) -> Vec<(&'s str, Schema<'s>)> {
        let own = self.here.get("properties").and_then(Json::as_object);
        let mut all: Vec<_> = own
            .into_iter()
            .flatten()
            .map(|(name, property)| (name.as_str(), self.at(property)))
            .collect();
        if self.depth < DEPTH {
            for word in ["allOf", "anyOf", "oneOf"] {
                for part in self.parts(word) {
                    all.extend(part.properties());
                }
            }
        }
        all
    }

    /// Whether what it describes is marked as a secret.
    pub(super) fn is_secret(self) -> bool {
        self.here.get("secret") == Some(&Json::Bool(true))
    }

    /// What a literal secret begins with, where anything else is none: the name of a
    /// file, say, given where its content belongs.
    pub(super) fn begins(self) -> &'s str {
        let begins = self.here.get("begins").and_then(Json::as_str);
        begins.unwrap_or_default()
    }

    /// The least number that is advised, and what happens below it.
    pub(super) fn advised(self) -> Option<(f64, &'s str)> {
        let advised = self.here.get("advised")?;
        let why = advised.get("below").and_then(Json::as_str)?;
        Some((advised.get("minimum")?.as_f64()?, why))
    }

    /// Whether what it describes is part of who asks: a secret, or marked as a name
    /// that goes with one.
    pub(super) fn is_credential(self) -> bool {
        self.is_secret() || self.here.get("credential") == Some(&Json::Bool(true))
    }

    /// Whether a text is among what it takes.
    pub(super) fn takes_text(self) -> bool {
        let types = self.types();
        let parts = || {
            ["anyOf", "oneOf"]
                .into_iter()
                .flat_map(|word| self.parts(word))
        };
        if types.is_empty() && parts().next().is_some() {
            return parts().any(|part| part.types().contains(&"string"));
        }
        types.is_empty() || types.contains(&"string")
    }

    fn types(self) -> Vec<&'s str> {
        match self.here.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn parts(self, word: &str) -> Vec<Schema<'s>> {
        let parts = self.here.get(word).and_then(Json::as_array);
        parts
            .into_iter()
            .flatten()
            .map(|part| self.at(part))
            .collect()
    }

    fn check(self, node: &Node, path: &str, line: usize, problems: &mut Vec<Problem>) {
        if self.depth > DEPTH {
            return;
        }
        let mut problem = |line: usize, path: String, message: String, advice: String| {
            problems.push(Problem {
                line,
                ..Problem::at(path, message, advice)
            });
        };
        let types = self.types();
        if !types.is_empty() && !types.iter().any(|name| is(node, name)) {
            let wanted = types
                .iter()
                .map(|name| words(name))
                .collect::<Vec<_>>()
                .join(" or ");
            problem(
                line,
                path.to_owned(),
                match (&node.value, types.contains(&"integer")) {
                    (Value::Number(_), true) => format!("must be {wanted}"),
                    _ => format!("must be {wanted}, not {}", node.kind()),
                },
                advice(&types, node),
            );
            return;
        }
        if let Some(allowed) = self.here.get("enum").and_then(Json::as_array) {
            let value = node.to_json();
            if !allowed.contains(&value) {
                problem(
                    line,
                    path.to_owned(),
                    "is none of the values it may have".into(),
                    one_of(allowed, &value),
                );
            }
        }
        if let Some(only) = self.here.get("const")
            && *only != node.to_json()
        {
            problem(
                line,
                path.to_owned(),
                "has another value than the one it may have".into(),
                format!("use {}", plain(only)),
            );
        }
        if let Some((message, advice)) = self.bounds(node) {
            problem(line, path.to_owned(), message, advice);
        }
        self.check_fields(node, path, line, problems);
        if let (Value::List(items), Some(schema)) = (&node.value, self.here.get("items")) {
            for (index, item) in items.iter().enumerate() {
                self.at(schema)
                    .check(item, &format!("{path}[{index}]"), item.line, problems);
            }
        }
        for part in self.parts("allOf") {
            part.check(node, path, line, problems);
        }
        for word in ["anyOf", "oneOf"] {
            self.check_choices(&self.parts(word), node, path, line, problems);
        }
    }

    fn bounds(self, node: &Node) -> Option<(String, String)> {
        let bound = |word: &str| self.here.get(word).and_then(Json::as_f64);
        match &node.value {
            Value::Number(digits) => {
                let value = number(digits)?.as_f64()?;
                if let Some(least) = bound("minimum").filter(|least| value < *least) {
                    return Some(("is too small".into(), format!("use {least} or more")));
                }
                let most = bound("maximum").filter(|most| value > *most)?;
                Some(("is too large".into(), format!("use {most} or less")))
            }
            Value::Text(text) => {
                let least =
                    bound("minLength").filter(|least| (text.chars().count() as f64) < *least)?;
                Some(if text.is_empty() {
                    ("is empty".into(), "fill it in".into())
                } else {
                    (
                        "is too short".into(),
                        format!("use {least} characters or more"),
                    )
                })
            }
            _ => None,
        }
    }

    fn check_fields(self, node: &Node, path: &str, line: usize, problems: &mut Vec<Problem>) {
        let Value::Map(fields) = &node.value else {
            return;
        };
        let known = self.here.get("properties").and_then(Json::as_object);
        let names = || {
            known
                .into_iter()
                .flat_map(|known| known.keys())
                .map(String::as_str)
        };
        for field in fields {
            let path = join(path, &field.name);
            if let Some(schema) = known.and_then(|known| known.get(&field.name)) {
                self.at(schema)
                    .check(&field.node, &path, field.line, problems);
                continue;
            }
            match self.here.get("additionalProperties") {
                Some(Json::Bool(false)) => problems.push(Problem {
                    line: field.line,
                    ..super::unknown_field(path, &field.name, names())
                }),
                Some(schema @ Json::Object(_)) => {
                    self.at(schema)
                        .check(&field.node, &path, field.line, problems);
                }
                _ => {}
            }
        }
        let required = self.here.get("required").and_then(Json::as_array);
        for name in required.into_iter().flatten().filter_map(Json::as_str) {
            if node.get(name).is_none() {
                problems.push(Problem {
                    line,
                    ..Problem::at(join(path, name), "is missing", "add it")
                });
            }
        }
    }

    /// One of the choices must hold. If none does, the one that comes nearest
    /// explains why; "nothing" is never meant by who wrote something.
    fn check_choices(
        self,
        choices: &[Schema<'s>],
        node: &Node,
        path: &str,
        line: usize,
        problems: &mut Vec<Problem>,
    ) {
        // Values with a text each, of which a choice alone would name only its own.
        let values = choices.iter().map(|choice| match choice.here.get("enum") {
            Some(Json::Array(several)) => Some(several.clone()),
            _ => choice.here.get("const").map(|only| vec![only.clone()]),
        });
        if let Some(values) = values.collect::<Option<Vec<_>>>()
            && values.len() > 1
        {
            let (values, value) = (values.concat(), node.to_json());
            if !values.contains(&value) {
                problems.push(Problem {
                    line,
                    ..Problem::at(
                        path,
                        "is none of the values it may have",
                        one_of(&values, &value),
                    )
                });
            }
            return;
        }
        let mut best: Option<Vec<Problem>> = None;
        for choice in choices {
            let mut found = Vec::new();
            choice.check(node, path, line, &mut found);
            if found.is_empty() {
                return;
            }
            let is_null = choice.types() == ["null"];
            if !is_null && best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        problems.extend(best.unwrap_or_default());
    }
}

fn is(node: &Node, name: &str) -> bool {
    match (&node.value, name) {
        (Value::Null, "null")
        | (Value::Bool(_), "boolean")
        | (Value::Number(_), "number")
        | (Value::Text(_), "string")
        | (Value::List(_), "array")
        | (Value::Map(_), "object") => true,
        (Value::Number(digits), "integer") => {
            number(digits).is_some_and(|n| n.is_i64() || n.is_u64())
        }
        _ => false,
    }
}

fn words(name: &str) -> &str {
    match name {
        "null" => "nothing",
        "boolean" => "true or false",
        "number" => "a number",
        "integer" => "a whole number",
        "string" => "a text",
        "array" => "a list",
        "object" => "a group of fields",
        other => other,
    }
}

fn advice(types: &[&str], node: &Node) -> String {
    match &node.value {
        Value::Null => "fill it in, or remove it".into(),
        Value::Number(_) if types.contains(&"integer") => "leave the fraction out".into(),
        Value::Number(_) | Value::Bool(_) if types.contains(&"string") => "put it in quotes".into(),
        Value::Text(text) if number(text).is_some() && !types.contains(&"string") => {
            "leave the quotes out".into()
        }
        _ => "write the value in that form".into(),
    }
}

/// Which values there are, and the one that comes nearest to what was given.
fn one_of(allowed: &[Json], given: &Json) -> String {
    let allowed: Vec<String> = allowed.iter().map(plain).collect();
    let all = format!("use one of: {}", allowed.join(", "));
    let given = given.as_str().unwrap_or_default();
    let same_letters = |one: &&String| one.eq_ignore_ascii_case(given);
    let names = || allowed.iter().map(String::as_str);
    let near = allowed.iter().find(same_letters).map(String::as_str);
    match near.or_else(|| nearest(given, names())) {
        Some(near) => format!("write `{near}`, or {all}"),
        None => all,
    }
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
