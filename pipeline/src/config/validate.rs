//! From the tree to the [`MigrationConfig`], with every problem on the way.

use std::collections::BTreeMap;

use super::document::{Field, Node, Value, join, number};
use crate::topics;
use crate::transform::{OWN_RULE, own_rule};

use super::secrets::{Environment, add_variables, fill};
use super::{
    Mappings, MigrationConfig, Part, Problem, Secret, WHERE, bus, nearest, schema, unknown_field,
    variable_of,
};

/// Every field of the document.
pub(super) const FIELDS: [&str; 13] = [
    "id",
    "tenantId",
    "sourceType",
    "sourceConfig",
    "targetType",
    "targetConfig",
    "dryRun",
    "mappings",
    "objects",
    "pollIntervalMs",
    "drift",
    "kafka",
    "objectStore",
];

/// Collects problems, each with its file and line.
pub(super) struct Check<'d> {
    pub(super) file: &'d str,
    pub(super) problems: Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn problem(
        &mut self,
        line: usize,
        path: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            ..Problem::at(path, message, advice)
        });
    }

    pub(super) fn wrong_type(&mut self, field: &Field, path: &str, wanted: &str) {
        let advice = match (&field.node.value, wanted) {
            (Value::Number(_) | Value::Bool(_), "a text") => "put it in quotes",
            (Value::Text(text), _) if number(text).is_some() || is_bool(text) => {
                "leave the quotes out"
            }
            (Value::Null, _) => "fill it in, or remove it",
            _ => "write the value in that form",
        };
        let kind = field.node.kind();
        self.problem(
            field.line,
            path,
            format!("must be {wanted}, not {kind}"),
            advice,
        );
    }

    pub(super) fn unknown(&mut self, field: &Field, path: &str, known: &[&str]) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: field.line,
            ..unknown_field(join(path, &field.name), &field.name, known.iter().copied())
        });
    }

    pub(super) fn text(&mut self, field: Option<&Field>, path: &str) -> Option<String> {
        let field = field?;
        match &field.node.value {
            Value::Text(text) if text.trim().is_empty() => {
                self.problem(field.line, path, "is empty", "fill it in");
                None
            }
            Value::Text(text) => Some(text.clone()),
            _ => {
                self.wrong_type(field, path, "a text");
                None
            }
        }
    }

    fn required(&mut self, root: &Node, name: &str, advice: &str) -> Option<String> {
        let field = field(root, name);
        if field.is_none() {
            self.problem(root.line, name, "is missing", advice);
        }
        self.text(field, name)
    }

    fn bool(&mut self, field: Option<&Field>, path: &str) -> Option<bool> {
        let field = field?;
        match field.node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.wrong_type(field, path, "true or false");
                None
            }
        }
    }

    pub(super) fn whole(
        &mut self,
        field: Option<&Field>,
        path: &str,
        range: (i64, i64),
    ) -> Option<i64> {
        let field = field?;
        let value = match &field.node.value {
            Value::Number(digits) => number(digits),
            _ => None,
        };
        let Some(value) = value.filter(|n| n.is_i64() || n.is_u64()) else {
            self.wrong_type(field, path, "a whole number");
            return None;
        };
        let (least, most) = range;
        match value.as_i64().filter(|n| (least..=most).contains(n)) {
            Some(value) => Some(value),
            None => {
                self.problem(
                    field.line,
                    path,
                    "is out of range",
                    format!("use {least} to {most}"),
                );
                None
            }
        }
    }
}

fn is_bool(text: &str) -> bool {
    matches!(text, "true" | "false")
}

pub(super) fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Field> {
    node.fields().iter().find(|field| field.name == name)
}

/// The whole document. What can't be read has a problem, and a stand-in here.
pub(super) fn migration(
    root: &Node,
    environment: &Environment,
    (source, target): (Part<'_>, Part<'_>),
    check: &mut Check<'_>,
) -> MigrationConfig {
    for field in root.fields() {
        if !FIELDS.contains(&field.name.as_str()) {
            check.unknown(field, "", &FIELDS);
        }
    }
    let id = check.required(root, "id", "name the migration: `id: mig-tenant-123`");
    if let Some(id) = &id {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        // Dots alone would also be a folder above the one for logs.
        let dots = id.bytes().all(|b| b == b'.');
        if id.len() > 100 || dots || !id.bytes().all(good) {
            check.problem(
                root.line_of("id"),
                "id",
                "can't be part of a topic's name",
                "use 1 to 100 of the characters A-Z a-z 0-9 . _ -, not dots alone",
            );
        }
    }
    let tenant_id = check.required(root, "tenantId", "say whose data it is");
    let source_type = check.required(root, "sourceType", "name the source's connector");
    let target_type = check.text(field(root, "targetType"), "targetType");
    let target_type = target_type.unwrap_or_else(|| super::DEFAULT_TARGET.to_owned());
    connector_name(root, "sourceType", source_type.as_deref(), check);
    connector_name(root, "targetType", Some(&target_type), check);
    let source_type = source_type.unwrap_or_default();
    MigrationConfig {
        id: id.unwrap_or_default(),
        tenant_id: tenant_id.unwrap_or_default(),
        source_config: part(
            root,
            "sourceConfig",
            &source_type,
            source,
            environment,
            check,
        ),
        target_config: part(
            root,
            "targetConfig",
            &target_type,
            target,
            environment,
            check,
        ),
        source_type,
        target_type,
        dry_run: check.bool(field(root, "dryRun"), "dryRun").unwrap_or(false),
        mappings: mappings(field(root, "mappings"), check),
        objects: objects(field(root, "objects"), check),
        poll_interval_ms: check
            .whole(
                field(root, "pollIntervalMs"),
                "pollIntervalMs",
                (100, 86_400_000),
            )
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(super::DEFAULT_POLL_INTERVAL_MS),
        drift: super::drift::drift(field(root, "drift"), check),
        kafka: bus::kafka(field(root, "kafka"), environment, check),
        object_store: bus::object_store(field(root, "objectStore"), environment, check),
    }
}

/// It becomes part of a program's name, of topics and of keys.
fn connector_name(root: &Node, path: &str, name: Option<&str>, check: &mut Check<'_>) {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if let Some(name) = name.filter(|name| topics::is_reserved(name)) {
        check.problem(
            root.line_of(path),
            path,
            format!("`{name}` is a word of Drover's own topics and settings"),
            "no connector is called that; write the connector's name",
        );
        return;
    }
    let Some(name) = name.filter(|n| n.len() > 50 || !n.bytes().all(good)) else {
        return;
    };
    let advice = if name.to_ascii_lowercase().bytes().all(good) {
        format!("write `{}`", name.to_ascii_lowercase())
    } else {
        "use the connector's name: small letters, digits and `-`".to_owned()
    };
    check.problem(root.line_of(path), path, "is no connector's name", advice);
}

/// `sourceConfig` or `targetConfig`: secrets filled in, then judged by the
/// connector's schema where it is known.
fn part(
    root: &Node,
    path: &str,
    connector: &str,
    wanted: Part<'_>,
    environment: &Environment,
    check: &mut Check<'_>,
) -> Secret {
    let given = field(root, path);
    if let Some(given) = given
        && !matches!(given.node.value, Value::Map(_))
    {
        check.wrong_type(given, path, "a group of fields");
        return Secret::default();
    }
    let schema = match wanted {
        Part::Skip => return Secret::default(),
        Part::Plain => None,
        Part::Against(schema) => Some(schema),
    };
    let mut node = given.map_or_else(
        || Node {
            line: root.line,
            value: Value::Map(Vec::new()),
        },
        |field| Node {
            line: field.line,
            value: field.node.value.clone(),
        },
    );
    fill(&mut node, path, environment, check);
    let is_given = |node: &Node, name: &str| node.get(name).is_some_and(|n| n.value != Value::Null);
    let file = node.clone();
    let empty = match connector {
        "" => Vec::new(),
        name => add_variables(&mut node, (path, name), schema, environment, check),
    };
    let is_told = |problem: &Problem| empty.iter().any(|name| problem.path == join(path, name));
    for mut problem in schema.map_or_else(Vec::new, |s| schema::validate_against(s, &node, path)) {
        if is_told(&problem) {
            continue;
        }
        let name = problem.path.strip_prefix(path);
        let name = name
            .and_then(|name| name.strip_prefix('.'))
            .unwrap_or_default();
        if is_given(&node, name) && !is_given(&file, name) {
            // No line of the file is to blame.
            problem.line = 0;
            let variable = variable_of(connector, name);
            problem.message = format!("{} (it comes from {variable})", problem.message);
            check.problems.push(problem);
            continue;
        }
        problem.file = check.file.to_owned();
        if problem.message == "is missing"
            && let Some(name) = problem
                .path
                .strip_prefix(path)
                .and_then(|p| p.strip_prefix('.'))
            && !name.contains(['.', '['])
        {
            problem.advice = format!("add it, or set {}", variable_of(connector, name));
        }
        check.problems.push(problem);
    }
    match node.to_json() {
        serde_json::Value::Object(document) => Secret::new(document),
        _ => Secret::default(),
    }
}

/// The migration's own mappings.
pub(super) fn mappings(given: Option<&Field>, check: &mut Check<'_>) -> Mappings {
    let mut mappings = Mappings::default();
    let Some(given) = given else {
        return mappings;
    };
    if !matches!(given.node.value, Value::Map(_)) {
        check.wrong_type(given, "mappings", "a group of fields");
        return mappings;
    }
    for field in given.node.fields() {
        let path = join("mappings", &field.name);
        if is_outside(field, &path, check) {
            continue;
        }
        match &field.node.value {
            Value::Map(inner) => {
                let name = &field.name;
                let object = mappings.by_object.entry(field.name.clone()).or_default();
                for field in inner {
                    let path = join(&path, &field.name);
                    if field.name == WHERE {
                        if let Some(filter) = filter(field, &path, check) {
                            mappings.filters.insert(name.clone(), filter);
                        }
                        continue;
                    }
                    if field.name.starts_with('$') {
                        let advice = format!("write `{WHERE}`, or remove it");
                        check.problem(field.line, &path, "is no setting of a mapping", advice);
                        // What is meant is judged all the same.
                        if nearest(&field.name, [WHERE]).is_some() {
                            filter(field, &path, check);
                        }
                        continue;
                    }
                    if let Value::Map(_) = field.node.value {
                        let (to, rule, problems) = own_rule(check.file, &field.node, &path);
                        check.problems.extend(problems);
                        let rules = mappings.rules.entry(name.clone()).or_default();
                        if let Some(to) = to {
                            object.insert(field.name.clone(), to);
                            rules.insert(field.name.clone(), rule);
                        }
                        continue;
                    }
                    mapping(field, &path, object, check);
                }
            }
            _ => mapping(field, &path, &mut mappings.everywhere, check),
        }
    }
    mappings
}

/// Whether a field of `mappings` says what only an object's own mappings may say;
/// then that is a problem.
fn is_outside(given: &Field, path: &str, check: &mut Check<'_>) -> bool {
    let name = &given.name;
    if name.starts_with('$') {
        check.problem(
            given.line,
            path,
            "stands outside an object",
            format!("write it under the object it is for: `OBJECT: {{ {WHERE}: … }}`"),
        );
        return true;
    }
    let says = given.node.fields();
    // An object of a source may well have a field `to`, but not all of these.
    let is_rule = says.len() > 1
        && says.iter().any(|field| field.name == "to")
        && says.iter().all(|f| OWN_RULE.contains(&f.name.as_str()));
    if is_rule {
        check.problem(
            given.line,
            path,
            "is a rule outside an object",
            format!("write it under the object it is for: `OBJECT: {{ {name}: {{ to: … }} }}`"),
        );
    }
    is_rule
}

/// What a condition may say beside plain values.
const CONDITIONS: [&str; 3] = ["not", "atLeast", "below"];

/// Whether a condition of `$where` has a form that it may have.
fn condition(given: &Field, path: &str, check: &mut Check<'_>) {
    let Value::Map(says) = &given.node.value else {
        return;
    };
    let forms = "write a value, a list, `{ not: … }` or `{ atLeast: …, below: … }`";
    for field in says {
        if !CONDITIONS.contains(&field.name.as_str()) {
            let advice = match nearest(&field.name, CONDITIONS) {
                Some(near) => format!("write `{near}`"),
                None => forms.to_owned(),
            };
            check.problem(
                field.line,
                join(path, &field.name),
                "is no condition",
                advice,
            );
        }
    }
    if says.is_empty() {
        check.problem(given.line, path, "holds no condition", forms);
    } else if let Some(not) = says.iter().find(|field| field.name == "not")
        && says.len() > 1
    {
        let message = "stands beside another condition";
        check.problem(not.line, join(path, "not"), message, "keep one of them");
    }
}

/// Which records of an object are migrated; the mapper judges the values.
fn filter(
    given: &Field,
    path: &str,
    check: &mut Check<'_>,
) -> Option<BTreeMap<String, serde_json::Value>> {
    let Value::Map(fields) = &given.node.value else {
        check.wrong_type(given, path, "a group of fields");
        return None;
    };
    for field in fields {
        condition(field, &join(path, &field.name), check);
    }
    let conditions = fields.iter();
    Some(
        conditions
            .map(|field| (field.name.clone(), field.node.to_json()))
            .collect(),
    )
}

/// One mapping.
fn mapping(field: &Field, path: &str, into: &mut BTreeMap<String, String>, check: &mut Check<'_>) {
    if field.name.trim().is_empty() {
        check.problem(
            field.line,
            path,
            "names no field",
            "name the source's field",
        );
    }
    let Value::Text(_) = field.node.value else {
        let mut items = match &field.node.value {
            Value::List(items) => items.iter(),
            _ => [].iter(),
        };
        let first = items.find_map(|item| match &item.value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        });
        let (name, first) = (&field.name, first.unwrap_or("phoneNumber"));
        let message = format!(
            "must be the name of one canonical field, not {}",
            field.node.kind()
        );
        let advice = format!("write `{name}: {first}`, or a rule: `{name}: {{ to: {first} }}`");
        check.problem(field.line, path, message, advice);
        return;
    };
    let Some(target) = check.text(Some(field), path) else {
        return;
    };
    into.insert(field.name.clone(), target);
}

fn objects(given: Option<&Field>, check: &mut Check<'_>) -> Vec<String> {
    let Some(given) = given else {
        return Vec::new();
    };
    let Value::List(items) = &given.node.value else {
        check.wrong_type(given, "objects", "a list of names");
        return Vec::new();
    };
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut objects = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("objects[{index}]");
        let line = item.line;
        let item = Field {
            name: path.clone(),
            line,
            node: item.clone(),
        };
        let Some(name) = check.text(Some(&item), &path) else {
            continue;
        };
        if name.contains('/') {
            check.problem(line, path, "holds a slash", "name an object of the source");
        } else if let Some(first) = lines.get(&name) {
            let message = format!("`{name}` stands twice, in line {first} and line {line}");
            check.problem(line, path, message, "keep one of them");
        } else {
            lines.insert(name.clone(), line);
            objects.push(name);
        }
    }
    objects
}
