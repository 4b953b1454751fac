//! Secrets that stand in the configuration itself, where a copy of the file, a
//! backup or a repository gives them away. They are taken all the same; who starts
//! a migration is told, without the value.

use super::document::{Node, Value, join};
use super::schema::Schema;
use super::{Document, Problem, variable_of};

/// How deep groups of fields are looked into.
const DEPTH: usize = 16;

const ELSEWHERE: &str = "write `${ENV}` or `${file:PATH}`";

impl Document {
    /// The secrets that stand in the document: of the connectors' parts by their
    /// schemas, where `"secret": true` marks one, and of the bus by the names of the
    /// settings. Never with the value.
    pub fn literal_secrets(
        &self,
        source: Option<&serde_json::Value>,
        target: Option<&serde_json::Value>,
    ) -> Vec<Problem> {
        let mut found = Vec::new();
        let parts = [
            ("sourceConfig", self.text("sourceType"), source),
            ("targetConfig", Some(self.target_type()), target),
        ];
        for (path, connector, schema) in parts {
            let (Some(node), Some(schema)) = (self.root.get(path), schema) else {
                continue;
            };
            let mut paths = Vec::new();
            secrets(Schema::new(schema), node, path, DEPTH, &mut paths);
            for secret in paths {
                let name = secret.strip_prefix(path).and_then(|p| p.strip_prefix('.'));
                let variable = name
                    .filter(|name| !name.contains('.'))
                    .and_then(|name| Some(variable_of(connector?, name)));
                let advice = match variable {
                    Some(variable) => format!("remove it and set {variable}, or {ELSEWHERE}"),
                    None => ELSEWHERE.to_owned(),
                };
                found.push((secret, advice));
            }
        }
        let bus = self.root.get("kafka");
        let client = bus.and_then(|bus| bus.get("client"));
        for (path, node) in [("kafka", bus), ("kafka.client", client)] {
            for field in node.map_or(&[][..], Node::fields) {
                if is_secret_setting(&field.name) && is_literal(&field.node) {
                    found.push((join(path, &field.name), ELSEWHERE.to_owned()));
                }
            }
        }
        let told =
            |(path, advice)| self.problem(path, "the secret stands in the file itself", advice);
        let mut told: Vec<Problem> = found.into_iter().map(told).collect();
        told.sort_by_key(|problem| problem.line);
        told
    }
}

/// The paths of literal secrets at a node and below it.
fn secrets(schema: Schema<'_>, node: &Node, path: &str, depth: usize, found: &mut Vec<String>) {
    if schema.is_secret() && is_literal(node) {
        found.push(path.to_owned());
    }
    if depth == 0 {
        return;
    }
    for (name, property) in schema.properties() {
        if let Some(below) = node.get(name) {
            secrets(property, below, &join(path, name), depth - 1, found);
        }
    }
}

/// librdkafka marks its own as sensitive, and tells nobody which they are.
fn is_secret_setting(name: &str) -> bool {
    name.ends_with("password") || name.ends_with("secret") || name == "ssl.key.pem"
}

/// Whether a text holds a secret, and not where one is kept. An address without a
/// password gives nothing away.
fn is_literal(node: &Node) -> bool {
    let Value::Text(text) = &node.value else {
        return false;
    };
    let named = text.replace("$${", "").contains("${");
    !named && !text.trim().is_empty() && !is_open_address(text)
}

fn is_open_address(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    !user.contains(':') && !text.to_ascii_lowercase().contains("password")
}
