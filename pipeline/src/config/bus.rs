//! The parts `kafka` and `objectStore` of the configuration.

use std::collections::BTreeMap;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::KafkaConfig;
use super::document::{Field, Node, Value, join};
use super::secrets::{Environment, fill};
use super::validate::{Check, field};
use crate::bodies::Location;

const KAFKA_FIELDS: [&str; 4] = ["brokers", "partitions", "replication", "client"];

/// Client settings that decide whether anything is lost or doubled, or that
/// stand elsewhere in the configuration.
const OWN_SETTINGS: [&str; 16] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

/// The bus, from the document or the environment.
pub(super) fn kafka(
    given: Option<&Field>,
    environment: &Environment,
    check: &mut Check<'_>,
) -> KafkaConfig {
    let mut given = given.cloned().unwrap_or_else(|| Field {
        name: "kafka".into(),
        line: 0,
        node: Node {
            line: 0,
            value: Value::Map(Vec::new()),
        },
    });
    if !matches!(given.node.value, Value::Map(_)) {
        check.wrong_type(&given, "kafka", "a group of fields");
        given.node.value = Value::Map(Vec::new());
    }
    fill(&mut given.node, "kafka", environment, check);
    let mut client = BTreeMap::new();
    for field in given.node.fields() {
        match field.name.as_str() {
            "client" if matches!(field.node.value, Value::Map(_)) => {
                for setting in field.node.fields() {
                    client_setting(setting, "kafka.client", &mut client, check);
                }
            }
            "client" => check.wrong_type(field, "kafka.client", "a group of client settings"),
            // A client setting may also stand beside the others.
            name if name.contains('.') => client_setting(field, "kafka", &mut client, check),
            name if KAFKA_FIELDS.contains(&name) => {}
            _ => check.unknown(field, "kafka", &KAFKA_FIELDS),
        }
    }
    // librdkafka's own mechanism then is GSSAPI, which it is built without here.
    let protocol = client
        .get("security.protocol")
        .map(|p| p.to_ascii_lowercase());
    let mechanism = ["sasl.mechanism", "sasl.mechanisms"].map(|name| client.contains_key(name));
    if protocol.is_some_and(|p| p.starts_with("sasl")) && mechanism == [false, false] {
        check.problem(
            given.line,
            "kafka.client",
            "has a `security.protocol` with SASL, but no `sasl.mechanism`",
            "name the broker's: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
        );
    }
    let number = |name: &str, most: i64, check: &mut Check<'_>| {
        check
            .whole(field(&given.node, name), &join("kafka", name), (1, most))
            .and_then(|n| i32::try_from(n).ok())
    };
    KafkaConfig {
        partitions: number("partitions", 1000, check).unwrap_or(super::DEFAULT_PARTITIONS),
        replication: number("replication", 100, check),
        brokers: brokers(field(&given.node, "brokers"), environment, check),
        client,
    }
}

/// Where bodies lie that the bus does not take.
pub(super) fn object_store(
    given: Option<&Field>,
    environment: &Environment,
    check: &mut Check<'_>,
) -> Option<Location> {
    let mut given = given?.clone();
    if !matches!(given.node.value, Value::Map(_)) {
        check.wrong_type(&given, "objectStore", "a group of fields");
        return None;
    }
    fill(&mut given.node, "objectStore", environment, check);
    for field in given.node.fields().iter().filter(|f| f.name != "url") {
        check.unknown(field, "objectStore", &["url"]);
    }
    let Some(url) = field(&given.node, "url") else {
        let advice = "name a folder that every stage sees: `url: file:///var/lib/drover/bodies`";
        check.problem(given.line, "objectStore.url", "is missing", advice);
        return None;
    };
    let text = check.text(Some(url), "objectStore.url")?;
    Location::parse(&text)
        .map_err(|(what, advice)| check.problem(url.line, "objectStore.url", what, advice))
        .ok()
}

fn brokers(given: Option<&Field>, environment: &Environment, check: &mut Check<'_>) -> String {
    let (text, line, path) = match (given, environment.get("KAFKA_BROKERS")) {
        (Some(field), _) => match check.text(Some(field), "kafka.brokers") {
            Some(text) => (text, field.line, "kafka.brokers"),
            None => return super::DEFAULT_BROKERS.to_owned(),
        },
        (None, Some(text)) if !text.trim().is_empty() => (text.to_owned(), 0, "KAFKA_BROKERS"),
        (None, _) => return super::DEFAULT_BROKERS.to_owned(),
    };
    let good = |broker: &str| {
        let address = broker
            .split_once("://")
            .map_or(broker, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if !text.split(',').all(|broker| good(broker.trim())) {
        check.problem(
            line,
            path,
            "is no list of brokers",
            "write `host:port`, several separated by commas",
        );
    }
    text
}

fn client_setting(
    field: &Field,
    path: &str,
    into: &mut BTreeMap<String, String>,
    check: &mut Check<'_>,
) {
    let name = field.name.as_str();
    let path = join(path, name);
    let value = match &field.node.value {
        Value::Text(text) => text.clone(),
        Value::Number(digits) => digits.clone(),
        Value::Bool(value) => value.to_string(),
        _ => return check.wrong_type(field, &path, "a text, a number, or true or false"),
    };
    if OWN_SETTINGS.contains(&name) {
        let advice = "remove it: nothing is lost or doubled because Drover sets it";
        return check.problem(
            field.line,
            path,
            "is a setting that Drover makes itself",
            advice,
        );
    }
    // The client library's own message would name the value, which may be a secret.
    if let Err(KafkaError::ClientConfig(_, text, ..)) =
        ClientConfig::new().set(name, &value).create_native_config()
    {
        let unknown = text.contains("No such configuration");
        let (message, advice) = if unknown {
            (
                "is no setting of librdkafka",
                "see its CONFIGURATION.md for the name",
            )
        } else {
            (
                "has a value that librdkafka refuses",
                "see its CONFIGURATION.md for the values",
            )
        };
        return check.problem(field.line, path, message, advice);
    }
    if into.insert(name.to_owned(), value).is_some() {
        let advice = "keep it in kafka.client only";
        check.problem(field.line, path, "is given twice", advice);
    }
}
