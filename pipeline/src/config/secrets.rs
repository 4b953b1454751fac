//! Secrets are named in the configuration and kept elsewhere: `${NAME}` in the
//! environment, `${file:PATH}` in a file, or, for a field that is not given at
//! all, the variable `DROVER_<CONNECTOR>_<FIELD>`. `$${` stands for a plain
//! `${`. What was read is never part of a message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;
use super::document::{Field, Node, Value, join};
use super::schema::Schema;
use super::validate::Check;
use super::yaml;

/// The largest file that a secret is read from.
const MAX_FILE: u64 = 1 << 20;

/// The environment that secrets are taken from.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    folder: PathBuf,
}

impl Environment {
    /// The environment of this process. Paths of files are relative to `folder`.
    pub fn of_process(folder: &Path) -> Self {
        Environment {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            folder: folder.to_owned(),
        }
    }

    /// These variables, and no others.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>, folder: &Path) -> Self {
        Environment {
            variables: variables.into_iter().collect(),
            folder: folder.to_owned(),
        }
    }

    /// The variable of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }
}

/// Replaces what texts refer to, here and further down.
pub(super) fn fill(node: &mut Node, path: &str, from: &Environment, check: &mut Check<'_>) {
    let line = node.line;
    match &mut node.value {
        Value::Text(text) if text.contains("${") => match filled(text, from) {
            Ok(whole) => *text = whole,
            Err((message, advice)) => check.problem(line, path, message, advice),
        },
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill(item, &format!("{path}[{index}]"), from, check);
            }
        }
        Value::Map(fields) => {
            for field in fields {
                fill(&mut field.node, &join(path, &field.name), from, check);
            }
        }
        _ => {}
    }
}

fn filled(text: &str, from: &Environment) -> Result<String, (String, String)> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, name) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            whole.push_str(before);
            whole.push_str("${");
            rest = &name[2..];
            continue;
        }
        whole.push_str(before);
        let Some((name, after)) = name[2..].split_once('}') else {
            return Err((
                "a `${` is not closed".into(),
                "write `${NAME}` or `${file:PATH}`, or `$${` for the plain characters".into(),
            ));
        };
        whole.push_str(&match name.strip_prefix("file:") {
            Some(path) => file(path, from)?,
            None => variable(name, from)?,
        });
        rest = after;
    }
    whole.push_str(rest);
    Ok(whole)
}

fn variable(name: &str, from: &Environment) -> Result<String, (String, String)> {
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || !good || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err((
            "what stands in `${...}` is no variable's name".into(),
            "write `${NAME}` or `${file:PATH}`, or `$${` for the plain characters".into(),
        ));
    }
    match from.get(name) {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        found => Err((
            format!(
                "the environment variable {name} is {}",
                if found.is_some() { "empty" } else { "not set" }
            ),
            format!("set {name}, or use `${{file:PATH}}`"),
        )),
    }
}

/// The file's text without the line break that editors put at its end.
fn file(path: &str, from: &Environment) -> Result<String, (String, String)> {
    let whole = from.folder.join(path);
    let refuse = |what: String| {
        Err((
            format!("the file `{path}` {what}"),
            "name a readable file; a relative path starts at the configuration's folder".to_owned(),
        ))
    };
    match std::fs::metadata(&whole) {
        Err(error) => return refuse(format!("can't be read: {}", reason(&error))),
        Ok(facts) if facts.is_dir() => return refuse("is a folder".into()),
        Ok(facts) if facts.len() > MAX_FILE => return refuse("is larger than 1 MB".into()),
        Ok(_) => {}
    }
    match std::fs::read(&whole).map(String::from_utf8) {
        Err(error) => refuse(format!("can't be read: {}", reason(&error))),
        Ok(Err(_)) => refuse("is not UTF-8 text".into()),
        Ok(Ok(text)) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.trim().is_empty() {
                return refuse("is empty".into());
            }
            Ok(text.to_owned())
        }
    }
}

/// The operating system's words without its number.
pub(super) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// Takes fields that are not given from `DROVER_<CONNECTOR>_<FIELD>`. With the
/// connector's schema only what it knows is looked for; without, every variable
/// with the prefix counts. One that is empty is a problem where nothing else gives
/// the field; the names of such fields are returned.
pub(super) fn add_variables(
    part: &mut Node,
    (path, connector): (&str, &str),
    schema: Option<&serde_json::Value>,
    from: &Environment,
    check: &mut Check<'_>,
) -> Vec<String> {
    let line = part.line;
    let prefix = prefix(connector);
    let found: Vec<(String, Value)> = match schema {
        Some(schema) => Schema::new(schema)
            .properties()
            .into_iter()
            .filter_map(|(name, property)| {
                let text = from.get(&format!("{prefix}{}", upper_snake(name)))?;
                let value = if property.takes_text() {
                    Value::Text(text.to_owned())
                } else {
                    yaml::plain(text)
                };
                Some((name.to_owned(), value))
            })
            .collect(),
        None => from
            .variables
            .iter()
            .filter_map(|(name, text)| {
                let name = camel(name.strip_prefix(&prefix)?);
                (!name.is_empty()).then(|| (name, Value::Text(text.clone())))
            })
            .collect(),
    };
    let mut empty = Vec::new();
    let Value::Map(fields) = &mut part.value else {
        return empty;
    };
    for (name, value) in found {
        let is_given = |field: &Field| field.name == name && field.node.value != Value::Null;
        let blank = match &value {
            Value::Text(text) => text.trim().is_empty(),
            other => *other == Value::Null,
        };
        if blank {
            if !fields.iter().any(is_given) {
                let variable = variable_of(connector, &name);
                let message = format!("the environment variable {variable} is empty");
                let advice = format!("fill {variable}, or unset it and give the field in the file");
                // No line of the file is to blame.
                check
                    .problems
                    .push(Problem::at(join(path, &name), message, advice));
                empty.push(name);
            }
            continue;
        }
        let node = Node { line, value };
        match fields.iter_mut().find(|field| field.name == name) {
            // `clientSecret:` with nothing behind it is not given either.
            Some(field) if field.node.value == Value::Null => field.node = node,
            Some(_) => {}
            None => fields.push(Field { name, line, node }),
        }
    }
    empty
}

/// The variable that can hold a field of a connector's configuration.
pub fn variable_of(connector: &str, field: &str) -> String {
    format!("{}{}", prefix(connector), upper_snake(field))
}

fn prefix(connector: &str) -> String {
    format!(
        "DROVER_{}_",
        connector.replace(['-', '.'], "_").to_ascii_uppercase()
    )
}

/// `clientSecret` → `CLIENT_SECRET`, `baseURL` → `BASE_URL`.
fn upper_snake(name: &str) -> String {
    let mut text = String::new();
    let chars: Vec<char> = name.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at));
        let new_word = c.is_uppercase()
            && before.is_some_and(|b| {
                !b.is_uppercase() || chars.get(at + 1).is_some_and(|next| next.is_lowercase())
            });
        if new_word && !text.ends_with('_') {
            text.push('_');
        }
        if c.is_alphanumeric() {
            text.extend(c.to_uppercase());
        } else if !text.ends_with('_') {
            text.push('_');
        }
    }
    text
}

/// `CLIENT_SECRET` → `clientSecret`.
fn camel(name: &str) -> String {
    let mut words = name.split('_').filter(|word| !word.is_empty());
    let mut text = words.next().unwrap_or_default().to_ascii_lowercase();
    for word in words {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        text.push_str(&first.to_uppercase());
        text.push_str(&rest.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_after_fields() {
        for (field, variable) in [
            ("clientSecret", "DROVER_SALES_FORCE_CLIENT_SECRET"),
            ("url", "DROVER_SALES_FORCE_URL"),
            ("baseURL", "DROVER_SALES_FORCE_BASE_URL"),
            ("apiURLPath", "DROVER_SALES_FORCE_API_URL_PATH"),
        ] {
            assert_eq!(variable_of("sales-force", field), variable);
        }
        assert_eq!(camel("CLIENT_SECRET"), "clientSecret");
        assert_eq!(camel("URL"), "url");
    }
}
