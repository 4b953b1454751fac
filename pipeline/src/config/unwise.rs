//! What of the configuration is taken and hardly wise; who starts a migration is
//! told. Secrets that stand in it, where a copy of the file, a backup or a repository
//! gives them away, told without the value; and numbers that a connector advises
//! against.

use super::document::{Node, Value, join, number};
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
        self.each(
            source,
            target,
            &mut |connector, part, path, schema, node| {
                if !schema.is_secret() || !is_literal(node, schema.begins()) {
                    return;
                }
                let name = path.strip_prefix(part).and_then(|p| p.strip_prefix('.'));
                let variable = name
                    .filter(|name| !name.contains('.'))
                    .and_then(|name| Some(variable_of(connector?, name)));
                let advice = match variable {
                    Some(variable) => format!("remove it and set {variable}, or {ELSEWHERE}"),
                    None => ELSEWHERE.to_owned(),
                };
                found.push((path.to_owned(), advice));
            },
        );
        let bus = self.root.get("kafka");
        let client = bus.and_then(|bus| bus.get("client"));
        for (path, node) in [("kafka", bus), ("kafka.client", client)] {
            for field in node.map_or(&[][..], Node::fields) {
                if is_secret_setting(&field.name) && is_literal(&field.node, "") {
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

    /// The numbers of the connectors' parts that are allowed and hardly wise: their
    /// schemas say `"advised": {"minimum": 5, "below": "what happens then"}`.
    pub fn ill_advised(
        &self,
        source: Option<&serde_json::Value>,
        target: Option<&serde_json::Value>,
    ) -> Vec<Problem> {
        let mut found = Vec::new();
        self.each(source, target, &mut |_, _, path, schema, node| {
            let (Value::Number(digits), Some((least, why))) = (&node.value, schema.advised())
            else {
                return;
            };
            if number(digits)
                .and_then(|n| n.as_f64())
                .is_some_and(|n| n < least)
            {
                let message = format!("is less than {least}: {why}");
                found.push(self.problem(path, message, format!("use {least} or more")));
            }
        });
        found
    }

    /// Everything in the connectors' parts that their schemas describe.
    fn each(
        &self,
        source: Option<&serde_json::Value>,
        target: Option<&serde_json::Value>,
        visit: &mut Visit<'_>,
    ) {
        let parts = [
            ("sourceConfig", self.text("sourceType"), source),
            ("targetConfig", Some(self.target_type()), target),
        ];
        for (part, connector, schema) in parts {
            if let (Some(node), Some(schema)) = (self.root.get(part), schema) {
                let mut visit = |path: &str, schema: Schema<'_>, node: &Node| {
                    visit(connector, part, path, schema, node);
                };
                each(Schema::new(schema), node, part, DEPTH, &mut visit);
            }
        }
    }
}

/// What is done with each part of a document that a schema describes: the connector,
/// `sourceConfig` or `targetConfig`, the part's path, its schema, and what stands there.
type Visit<'v> = dyn FnMut(Option<&str>, &str, &str, Schema<'_>, &Node) + 'v;

/// That node, and all below it.
fn each(
    schema: Schema<'_>,
    node: &Node,
    path: &str,
    depth: usize,
    visit: &mut dyn FnMut(&str, Schema<'_>, &Node),
) {
    visit(path, schema, node);
    if depth == 0 {
        return;
    }
    for (name, property) in schema.properties() {
        if let Some(below) = node.get(name) {
            each(property, below, &join(path, name), depth - 1, visit);
        }
    }
}

/// librdkafka marks its own as sensitive, and tells nobody which they are.
fn is_secret_setting(name: &str) -> bool {
    name.ends_with("password") || name.ends_with("secret") || name == "ssl.key.pem"
}

/// Whether a text holds a secret, and not where one is kept. An address without a
/// password gives nothing away, nor does what begins otherwise than the secret.
fn is_literal(node: &Node, begins: &str) -> bool {
    let Value::Text(text) = &node.value else {
        return false;
    };
    let named = text.replace("$${", "").contains("${");
    let is_one = !text.trim().is_empty() && text.trim_start().starts_with(begins);
    !named && is_one && !is_open_address(text)
}

fn is_open_address(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    !user.contains(':') && !text.to_ascii_lowercase().contains("password")
}
