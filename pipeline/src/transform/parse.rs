//! Reads a connector's `mapping.yaml`. The shapes are those of [`Mapping`]; it
//! is read by hand because every problem is to be told at once, with its line.

use std::collections::BTreeMap;

use super::{Convert, FieldRule, Mapping, ObjectMapping, OnOrphan, Slot};
use crate::config::{Field, Node, Problem, Value, nearest, parse_document};

impl Mapping {
    /// Reads a mapping from YAML or JSON. `file` is what problems name.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let mut repeated = Vec::new();
        let root = parse_document(file, text.as_bytes(), &mut repeated)
            .map_err(|problem| vec![problem])?;
        let mut reader = Reader {
            file,
            root: &root,
            problems: repeated,
        };
        let mapping = reader.mapping(&root);
        if reader.problems.is_empty() {
            Ok(mapping)
        } else {
            reader.problems.sort_by_key(|problem| problem.line);
            Err(reader.problems)
        }
    }
}

/// Reads a migration's own rule, `{to: rating, values: {Hot: hot}}`: the
/// canonical field, and what is done to the value, as far as that can be read, and
/// every problem. Paths in problems begin with `path`.
pub(crate) fn own_rule(
    file: &str,
    node: &Node,
    path: &str,
) -> (Option<String>, Convert, Vec<Problem>) {
    let mut reader = Reader {
        file,
        root: node,
        problems: Vec::new(),
    };
    reader.known(node, "", OWN_RULE);
    let to = reader
        .due(node, "", "to")
        .and_then(|_| reader.text(node, "", "to"));
    let rule = reader.rule(node, "");
    for problem in &mut reader.problems {
        problem.path = join(path, &problem.path);
    }
    (to, rule, reader.problems)
}

/// What a migration's own rule may hold.
pub(crate) const OWN_RULE: &[&str] = &[
    "to",
    "or",
    "onOrphan",
    "values",
    "default",
    "as",
    "region",
    "regionFrom",
];

/// What a field's rule may hold.
pub(crate) const RULE: &[&str] = &[
    "from",
    "or",
    "constant",
    "reference",
    "required",
    "onOrphan",
    "optional",
    "values",
    "default",
    "as",
    "region",
    "regionFrom",
];

struct Reader<'d> {
    file: &'d str,
    root: &'d Node,
    problems: Vec<Problem>,
}

impl<'d> Reader<'d> {
    fn mapping(&mut self, node: &'d Node) -> Mapping {
        let mut mapping = Mapping::default();
        if !self.is_map(node, "") {
            return mapping;
        }
        self.known(node, "", &["objects", "customObjects"]);
        if let Some(objects) = self.due(node, "", "objects") {
            for (name, path, node) in self.fields(objects, "objects") {
                let object = self.object(node, &path);
                mapping.objects.insert(name, object);
            }
        }
        let custom = node.get("customObjects");
        mapping.custom_objects = custom.map(|node| self.object(node, "customObjects"));
        mapping
    }

    fn object(&mut self, node: &'d Node, path: &str) -> ObjectMapping {
        let mut object = ObjectMapping::default();
        if !self.is_map(node, path) {
            return object;
        }
        self.known(node, path, &["slots", "ignore"]);
        if let Some(slots) = self.due(node, path, "slots") {
            for (name, path, node) in self.fields(slots, &format!("{path}.slots")) {
                let slot = self.slot(node, &path);
                object.slots.insert(name, slot);
            }
        }
        object.ignore = self.texts(node, path, "ignore");
        object
    }

    fn slot(&mut self, node: &'d Node, path: &str) -> Slot {
        let mut slot = Slot {
            custom: true,
            ..Slot::default()
        };
        if !self.is_map(node, path) {
            return slot;
        }
        self.known(
            node,
            path,
            &[
                "entity",
                "where",
                "emptyWithout",
                "fields",
                "custom",
                "retired",
            ],
        );
        if self.due(node, path, "entity").is_some() {
            slot.entity = self.text(node, path, "entity").unwrap_or_default();
        }
        if let Some(filter) = node.get("where") {
            let conditions = self.fields(filter, &format!("{path}.where"));
            let plain = conditions
                .into_iter()
                .map(|(name, _, node)| (name, node.to_json()));
            slot.filter = plain.collect();
        }
        slot.empty_without = self.texts(node, path, "emptyWithout");
        if let Some(fields) = self.due(node, path, "fields") {
            slot.fields = self.rules(fields, &format!("{path}.fields"));
        }
        slot.custom = self.flag(node, path, "custom").unwrap_or(true);
        slot.retired = self.flag(node, path, "retired").unwrap_or_default();
        slot
    }

    fn rules(&mut self, node: &'d Node, path: &str) -> BTreeMap<String, FieldRule> {
        let mut rules = BTreeMap::new();
        for (name, path, node) in self.fields(node, path) {
            match &node.value {
                Value::Text(field) => {
                    rules.insert(name, FieldRule::From(field.clone()));
                }
                Value::Map(_) => {
                    self.known(node, &path, RULE);
                    let rule = self.rule(node, &path);
                    rules.insert(name, FieldRule::Rule(rule));
                }
                _ => self.wrong(node, &path, "a source field's name, or a rule"),
            }
        }
        rules
    }

    fn rule(&mut self, node: &'d Node, path: &str) -> Convert {
        Convert {
            from: self.text(node, path, "from"),
            or: match node.get("or").map(|or| &or.value) {
                Some(Value::Text(one)) => vec![one.clone()],
                _ => self.texts(node, path, "or"),
            },
            constant: self.text(node, path, "constant"),
            reference: self.text(node, path, "reference"),
            required: self.flag(node, path, "required").unwrap_or_default(),
            on_orphan: self.on_orphan(node, path),
            optional: self.flag(node, path, "optional").unwrap_or_default(),
            values: self.values(node, path),
            default: node.get("default").and_then(|default| {
                let path = join(path, "default");
                self.plain(default, &path)
            }),
            form: self.text(node, path, "as").and_then(|form| {
                let read = serde_json::from_value(serde_json::Value::String(form.clone()));
                if read.is_err() {
                    let path = join(path, "as");
                    let message = format!("`{form}` is no form");
                    self.problem(&path, &message, "write `phone` or `country`");
                }
                read.ok()
            }),
            region: self.text(node, path, "region"),
            region_from: self.text(node, path, "regionFrom"),
        }
    }

    /// A map of values; a number or a switch counts as its text.
    fn values(&mut self, node: &'d Node, path: &str) -> BTreeMap<String, Option<String>> {
        let Some(values) = node.get("values") else {
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for (name, path, node) in self.fields(values, &join(path, "values")) {
            let value = match &node.value {
                Value::Null => None,
                _ => self.plain(node, &path),
            };
            map.insert(name, value);
        }
        map
    }

    fn plain(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => {
                self.wrong(node, path, "a text, a number, true or false");
                None
            }
        }
    }

    /// The named values of a group, with their paths.
    fn fields(&mut self, node: &'d Node, path: &str) -> Vec<(String, String, &'d Node)> {
        if !self.is_map(node, path) {
            return Vec::new();
        }
        let named = |field: &'d Field| {
            let path = join(path, &field.name);
            (field.name.clone(), path, &field.node)
        };
        node.fields().iter().map(named).collect()
    }

    fn known(&mut self, node: &Node, path: &str, known: &[&str]) {
        for field in node.fields() {
            if known.contains(&field.name.as_str()) {
                continue;
            }
            let advice = match nearest(&field.name, known.iter().copied()) {
                Some(near) => format!("write `{near}`, or remove it"),
                None => format!("remove it, or use one of: {}", known.join(", ")),
            };
            let path = join(path, &field.name);
            self.problem(&path, "is no known field", &advice);
        }
    }

    fn due(&mut self, node: &'d Node, path: &str, name: &str) -> Option<&'d Node> {
        let found = node.get(name);
        if found.is_none() {
            self.problem(path, &format!("`{name}` is missing"), "add it");
        }
        found
    }

    fn text(&mut self, node: &'d Node, path: &str, name: &str) -> Option<String> {
        let node = node.get(name)?;
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => {
                self.wrong(node, &join(path, name), "a text");
                None
            }
        }
    }

    fn on_orphan(&mut self, node: &'d Node, path: &str) -> Option<OnOrphan> {
        match self.text(node, path, "onOrphan")?.as_str() {
            "drop-link" => Some(OnOrphan::DropLink),
            "dead-letter" => Some(OnOrphan::DeadLetter),
            other => {
                let path = join(path, "onOrphan");
                let message = format!("`{other}` is none of what it may say");
                self.problem(&path, &message, "write `drop-link` or `dead-letter`");
                None
            }
        }
    }

    fn flag(&mut self, node: &'d Node, path: &str, name: &str) -> Option<bool> {
        let node = node.get(name)?;
        match node.value {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.wrong(node, &join(path, name), "true or false");
                None
            }
        }
    }

    fn texts(&mut self, node: &'d Node, path: &str, name: &str) -> Vec<String> {
        let Some(node) = node.get(name) else {
            return Vec::new();
        };
        let path = join(path, name);
        let Value::List(items) = &node.value else {
            self.wrong(node, &path, "a list of field names");
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match &item.value {
                Value::Text(text) => texts.push(text.clone()),
                _ => self.wrong(item, &format!("{path}[{at}]"), "a field's name"),
            }
        }
        texts
    }

    fn is_map(&mut self, node: &Node, path: &str) -> bool {
        let is_map = matches!(node.value, Value::Map(_));
        if !is_map {
            self.wrong(node, path, "a group of fields");
        }
        is_map
    }

    fn wrong(&mut self, node: &Node, path: &str, due: &str) {
        let message = format!("must be {due}, not {}", node.kind());
        self.problem(path, &message, "write the value in that form");
    }

    fn problem(&mut self, path: &str, message: &str, advice: &str) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: self.root.line_of(path),
            ..Problem::at(path, message, advice)
        });
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ if name.is_empty() => path.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: &str = "
objects:
  Lead:
    ignore: [attributes, Id]
    slots:
      contact:
        entity: contact
        where: { IsConverted: [false, null], Rating: Hot }
        emptyWithout: [LastName]
        custom: false
        fields:
          lastName: LastName
          companyId: { from: Id, reference: Lead#company, required: true, onOrphan: drop-link }
          title: { from: Title, optional: true }
customObjects:
  slots:
    record:
      entity: record
      fields:
        type: { constant: $object }
";

    #[test]
    fn yaml_gives_what_json_gives() {
        let mapping = Mapping::parse("mapping.yaml", GOOD).expect("no problems");
        let json = json!({
            "objects": {"Lead": {"ignore": ["attributes", "Id"], "slots": {"contact": {
                "entity": "contact", "where": {"IsConverted": [false, null], "Rating": "Hot"},
                "emptyWithout": ["LastName"], "custom": false,
                "fields": {
                    "lastName": "LastName",
                    "companyId": {"from": "Id", "reference": "Lead#company", "required": true, "onOrphan": "drop-link"},
                    "title": {"from": "Title", "optional": true},
                },
            }}}},
            "customObjects": {"slots": {"record": {"entity": "record", "fields": {"type": {"constant": "$object"}}}}},
        });
        let same: Mapping = serde_json::from_value(json).expect("serde reads it");
        assert_eq!(mapping, same);
        assert!(
            mapping
                .custom_objects
                .is_some_and(|m| m.slots["record"].custom)
        );
        let text = serde_json::to_string(&same).expect("serialises");
        assert_eq!(
            Mapping::parse("mapping.json", &text).expect("no problems"),
            same
        );
    }

    #[test]
    fn every_problem_has_its_path_and_line() {
        let text = "
objects:
  Lead:
    ignore: Id
    slots:
      contact:
        entitty: contact
        fields:
          lastName: 5
          title: { form: Title, optional: 1 }
        emptyWithout: [LastName, 7]
  Contact: Phone
customObject: {}
customObject: {}
";
        let problems = Mapping::parse("mapping.yaml", text).expect_err("problems");
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let places: Vec<_> = problems.iter().map(|p| (p.line, p.path.as_str())).collect();
        assert_eq!(
            places,
            [
                (4, "objects.Lead.ignore"),
                (6, "objects.Lead.slots.contact"),
                (7, "objects.Lead.slots.contact.entitty"),
                (9, "objects.Lead.slots.contact.fields.lastName"),
                (10, "objects.Lead.slots.contact.fields.title.form"),
                (10, "objects.Lead.slots.contact.fields.title.optional"),
                (11, "objects.Lead.slots.contact.emptyWithout[1]"),
                (12, "objects.Contact"),
                (13, "customObject"),
                (14, "customObject"),
            ],
            "{told:#?}"
        );
        assert!(
            told[2].ends_with("is no known field (mapping.yaml:7); write `entity`, or remove it")
        );
        assert!(told[4].contains("write `from`"));
    }

    #[test]
    fn syntax_is_told_by_line() {
        let problems = Mapping::parse("mapping.yaml", "objects:\n  a: [\n").expect_err("cut");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].line >= 2);
        assert!(Mapping::parse("mapping.yaml", "").is_err());
        assert!(Mapping::parse("mapping.yaml", "[]").is_err());
    }
}
