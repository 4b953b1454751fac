use std::io::Write;

use serde_json::json;

use super::*;

pub(super) const PLAYBOOK: &str = r#"{"id":"mig-tenant-123","tenantId":"tenant-123","sourceType":"salesforce","sourceConfig":{"instanceUrl":"https://na01.salesforce.com","clientId":"..."},"dryRun":true,"mappings":{"Phone":"phoneNumber","Description":"bio"}}"#;

pub(super) fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Environment::of(variables, Path::new("."))
}

fn load(file: &str, text: &str) -> Result<MigrationConfig, Vec<Problem>> {
    load_in(file, text, &environment(&[]), Part::Plain)
}

fn load_in(
    file: &str,
    text: &str,
    environment: &Environment,
    source: Part<'_>,
) -> Result<MigrationConfig, Vec<Problem>> {
    Document::parse(file, text.as_bytes())?.migration(environment, source, Part::Plain)
}

/// The problems as `line path: message; advice`.
fn problems(result: Result<MigrationConfig, Vec<Problem>>) -> Vec<String> {
    result
        .expect_err("it has problems")
        .into_iter()
        .map(|p| format!("{} {}: {}; {}", p.line, p.path, p.message, p.advice))
        .collect()
}

#[test]
fn the_playbooks_document_is_accepted_as_it_stands() {
    let config = load("m.json", PLAYBOOK).expect("valid");
    assert_eq!(config.id, "mig-tenant-123");
    assert_eq!(config.tenant_id, "tenant-123");
    assert_eq!(config.source_type, "salesforce");
    let source = serde_json::Value::Object(config.source_config.expose().clone());
    assert_eq!(
        source,
        json!({"instanceUrl": "https://na01.salesforce.com", "clientId": "..."})
    );
    assert_eq!(config.target_type, "postgres");
    assert!(config.dry_run);
    assert_eq!(config.mappings.everywhere["Phone"], "phoneNumber");
    assert_eq!(config.mappings.everywhere["Description"], "bio");
    assert_eq!(config.poll_interval_ms, 120_000);
    assert_eq!(config.kafka.brokers, "127.0.0.1:9092");
    assert_eq!(config.kafka.partitions, 4);
    assert_eq!(config.kafka.replication, None);

    // The same as YAML, and with tabs, escapes and line breaks that only JSON has.
    let yaml = "id: mig-tenant-123\ntenantId: tenant-123\nsourceType: salesforce\nsourceConfig:\n  instanceUrl: https://na01.salesforce.com\n  clientId: '...'\ndryRun: true\nmappings: {Phone: phoneNumber, Description: bio}\n";
    assert_eq!(load("m.yaml", yaml).expect("valid"), config);
    let tabs = PLAYBOOK
        .replace(",", ",\n\t")
        .replace("\":", "\"\t\n:\t")
        .replace("bio", "b\\u0069o");
    for file in ["m.json", "m.yaml", "m"] {
        assert_eq!(load(file, &tabs).expect("valid"), config, "{file}");
    }
}

#[test]
fn a_connector_has_no_name_of_drovers_own() {
    let text = "id: m\ntenantId: t\nsourceType: cursor\ntargetType: transform\n";
    assert_eq!(
        problems(load("m.yaml", text)),
        ["3 sourceType", "4 targetType"].map(|place| {
            let name = if place.starts_with('3') {
                "cursor"
            } else {
                "transform"
            };
            format!(
                "{place}: `{name}` is a word of Drover's own topics and settings; no connector \
                 is called that; write the connector's name"
            )
        })
    );
}

#[test]
fn every_problem_is_told_at_once_with_line_and_path() {
    let text = r#"{
  "id": "mig tenant",
  "tenantid": "tenant-123",
  "sourceType": "Salesforce",
  "sourceConfig": [],
  "dryRun": "true",
  "mappings": {
    "Phone": "phoneNumber",
    "MobilePhone": "phoneNumber",
    "Contact": {"Fax": "fax", "OtherFax": "fax", "Phone": 7}
  },
  "objects": ["Contact", "Lead",
    "Contact", 3],
  "pollIntervalMs": 5,
  "kafka": {"broker": "x", "partitions": 0, "replication": 1.5,
    "security.protocol": "SASL", "client": {"acks": "0", "saslx": 1}},
  "dryRun": false
}"#;
    assert_eq!(
        problems(load("m.json", text)),
        [
            "1 tenantId: is missing; say whose data it is",
            "2 id: can't be part of a topic's name; use 1 to 100 of the characters A-Z a-z 0-9 . _ -, not dots alone",
            "3 tenantid: is no known field; write `tenantId`, or remove it",
            "4 sourceType: is no connector's name; write `salesforce`",
            "5 sourceConfig: must be a group of fields, not a list; write the value in that form",
            "6 dryRun: must be true or false, not a text; leave the quotes out",
            "10 mappings.Contact.Phone: must be the name of one canonical field, not a number; \
             write `Phone: phoneNumber`, or a rule: `Phone: { to: phoneNumber }`",
            "13 objects[2]: `Contact` stands twice, in line 12 and line 13; keep one of them",
            "13 objects[3]: must be a text, not a number; put it in quotes",
            "14 pollIntervalMs: is out of range; use 100 to 86400000",
            "15 kafka.broker: is no known field; write `brokers`, or remove it",
            "15 kafka.partitions: is out of range; use 1 to 1000",
            "15 kafka.replication: must be a whole number, not a number; write the value in that form",
            "16 kafka.security.protocol: has a value that librdkafka refuses; see its CONFIGURATION.md for the values",
            "16 kafka.client.acks: is a setting that Drover makes itself; remove it: nothing is lost or doubled because Drover sets it",
            "16 kafka.client.saslx: is no setting of librdkafka; see its CONFIGURATION.md for the name",
            "17 dryRun: stands twice, in line 6 and line 17; keep one of them",
        ]
    );
    let yaml = "\n# a comment\nid: 123\ntenantId:\nsourceType: salesforce\ndry_run: yes\nkafka:\n  brokers: host:port\nobjects: Contact\nmappings:\n  A: x\n  A: y\n";
    assert_eq!(
        problems(load("m.yml", yaml)),
        [
            "3 id: must be a text, not a number; put it in quotes",
            "4 tenantId: must be a text, not nothing; fill it in, or remove it",
            "6 dry_run: is no known field; write `dryRun`, or remove it",
            "8 kafka.brokers: is no list of brokers; write `host:port`, several separated by commas",
            "9 objects: must be a list of names, not a text; write the value in that form",
            "12 mappings.A: stands twice, in line 11 and line 12; keep one of them",
        ]
    );
}

#[test]
fn a_mapping_that_says_it_wrongly_is_told_what_was_meant() {
    let text = "
id: m
tenantId: t
sourceType: x
mappings:
  Fax: { to: faxNumber, as: phone }
  $where: { Id: 1 }
  Email: { to: phoneNumber }
  Contact:
    $were: { LeadSource: { nott: Web } }
    $where:
      CreatedDate: { atLeat: 2020-01-01 }
      Level__c: { more: 3 }
      Name: {}
      Phone: { not: a, below: 3 }
      LeadSource: { not: [Other] }
    Phone: { to: phoneNumber, as: phon }
    AccountId: { to: companyId, onOrphan: drop }
    Description: [department, bio]
";
    let outside = "write it under the object it is for: `OBJECT: {";
    let forms = "write a value, a list, `{ not: … }` or `{ atLeast: …, below: … }`";
    assert_eq!(
        problems(load("m.yaml", text)),
        [
            format!("6 mappings.Fax: is a rule outside an object; {outside} Fax: {{ to: … }} }}`"),
            format!("7 mappings.$where: stands outside an object; {outside} $where: … }}`"),
            "10 mappings.Contact.$were: is no setting of a mapping; write `$where`, or remove it"
                .to_owned(),
            "10 mappings.Contact.$were.LeadSource.nott: is no condition; write `not`".to_owned(),
            "12 mappings.Contact.$where.CreatedDate.atLeat: is no condition; write `atLeast`"
                .to_owned(),
            format!("13 mappings.Contact.$where.Level__c.more: is no condition; {forms}"),
            format!("14 mappings.Contact.$where.Name: holds no condition; {forms}"),
            "15 mappings.Contact.$where.Phone.not: stands beside another condition; keep one of them"
                .to_owned(),
            "17 mappings.Contact.Phone.as: `phon` is no form; write `phone` or `country`"
                .to_owned(),
            "18 mappings.Contact.AccountId.onOrphan: `drop` is none of what it may say; write \
             `drop-link` or `dead-letter`"
                .to_owned(),
            "19 mappings.Contact.Description: must be the name of one canonical field, not a list; \
             write `Description: department`, or a rule: `Description: { to: department }`"
                .to_owned(),
        ]
    );
}

#[test]
fn a_secret_in_the_file_itself_is_told_by_its_place_alone() {
    let text = "
id: m
sourceType: sales-force
sourceConfig:
  clientSecret: hush
  refreshToken: ${TOKEN}
  password: ${file:/run/secret}
  clientId: hush
  proxy: { password: '$${hush', user: hush }
targetConfig:
  url: postgres://me:hush@db/crm
kafka:
  sasl.password: hush
  client: { sasl.password: '${KAFKA}', sasl.username: hush, ssl.key.password: hush }
";
    let secret = || serde_json::json!({"type": ["string", "null"], "secret": true});
    let plain = || serde_json::json!({"type": "string"});
    let source = serde_json::json!({
        "properties": {
            "clientSecret": secret(), "refreshToken": secret(), "password": secret(),
            "clientId": plain(), "proxy": {"$ref": "#/$defs/Proxy"},
        },
        "$defs": {"Proxy": {"properties": {"password": secret(), "user": plain()}}},
    });
    let target = serde_json::json!({"properties": {"url": secret()}});
    let told = |text: &str| -> Vec<String> {
        let document = Document::parse("m.yaml", text.as_bytes()).expect("YAML");
        let problems = document.literal_secrets(Some(&source), Some(&target));
        problems.iter().map(ToString::to_string).collect()
    };
    let stands = "the secret stands in the file itself";
    let write = "write `${ENV}` or `${file:PATH}`";
    assert_eq!(
        told(text),
        [
            format!(
                "sourceConfig.clientSecret: {stands} (m.yaml:5); \
                 remove it and set DROVER_SALES_FORCE_CLIENT_SECRET, or {write}"
            ),
            format!("sourceConfig.proxy.password: {stands} (m.yaml:9); {write}"),
            format!(
                "targetConfig.url: {stands} (m.yaml:11); \
                 remove it and set DROVER_POSTGRES_URL, or {write}"
            ),
            format!("kafka.sasl.password: {stands} (m.yaml:13); {write}"),
            format!("kafka.client.ssl.key.password: {stands} (m.yaml:14); {write}"),
        ]
    );
    // The name of a file is no key.
    let key = serde_json::json!({"properties": {
        "key": {"type": "string", "secret": true, "begins": "-----BEGIN"},
        "overlap": {"type": "integer", "advised": {"minimum": 60, "below": "late ones are lost"}},
    }});
    let parse = |text: &str| Document::parse("m.yaml", text.as_bytes()).expect("YAML");
    for (value, found) in [("a.key", 0), ("'-----BEGIN PRIVATE KEY-----'", 1)] {
        let document = parse(&format!("id: m\nsourceConfig: {{ key: {value} }}\n"));
        let problems = document.literal_secrets(Some(&key), None);
        assert_eq!(problems.len(), found, "{value}");
    }
    for (value, told) in [
        ("60", None),
        (
            "59",
            Some(
                "sourceConfig.overlap: is less than 60: late ones are lost (m.yaml:2); use 60 or more",
            ),
        ),
    ] {
        let document = parse(&format!("id: m\nsourceConfig: {{ overlap: {value} }}\n"));
        let problems = document.ill_advised(Some(&key), None);
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts.first().map(String::as_str), told);
    }
    // An address without a password is none, and neither is what nobody gave.
    for open in ["postgres://me@db/crm", "postgres://db:5432", "${URL}", " "] {
        let text = format!("id: m\ntargetConfig: {{ url: \"{open}\" }}\n");
        assert!(told(&text).is_empty(), "{open}");
    }
}

#[test]
fn bad_syntax_has_its_line() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let bomb = "a: &a [x, x]\nb: *a\n";
    for (file, text, told) in [
        (
            "m.json",
            "{\n \"id\": \"x\",\n}",
            "3 : bad JSON in column 1: key must be a string; mend the syntax there, or just before it",
        ),
        (
            "m.json",
            "{\n \"id\": \"\\ud800\"}",
            "2 : bad JSON: unexpected end of hex escape; mend the syntax there, or just before it",
        ),
        (
            "m.json",
            "",
            "1 : bad JSON in column 0: EOF while parsing a value; mend the syntax there, or just before it",
        ),
        (
            "m.json",
            "7",
            "1 : holds a number, not a group of fields; start with `id: mig-tenant-123`",
        ),
        (
            "m.yaml",
            "",
            "1 : holds nothing, not a group of fields; start with `id: mig-tenant-123`",
        ),
        (
            "m.yaml",
            "id: x\n\ttenantId: y\n",
            "2 : bad YAML: a tab stands in front of the line; indent with spaces",
        ),
        (
            "m.yaml",
            "id: x\nkafka:\n\tbrokers: y\nobjects: []\n",
            "3 : bad YAML: a tab stands in front of the line; indent with spaces",
        ),
        ("m.yaml", "id: [x\n", "2 : bad YAML"),
        (
            "m.yaml",
            "id: x\n---\nid: y\n",
            "2 : a second document starts",
        ),
        (
            "m.yaml",
            bomb,
            "2 : an alias (`*name`) can't be used; write the value out",
        ),
        (
            "m.yaml",
            "id: !env X\n",
            "1 : the tag `!env` can't be used; leave it out",
        ),
        (
            "m.yaml",
            &deep,
            "1 : the document is nested deeper than 64 levels",
        ),
        (
            "m.json",
            &format!("{{\"a\":{deep}}}"),
            "1 : the document is nested deeper than 64 levels",
        ),
    ] {
        let problems = problems(load(file, text));
        assert_eq!(problems.len(), 1, "{text:.40}");
        assert!(problems[0].starts_with(told), "{} for {told}", problems[0]);
    }
    let latin = Document::parse("m.yaml", b"id: x\ntenantId: M\xfcller\n").expect_err("refused");
    assert_eq!(
        latin[0].to_string(),
        "the file is not UTF-8 text (m.yaml:2); save it as UTF-8"
    );
    let missing = Document::read(Path::new("/nowhere/m.yaml")).expect_err("refused");
    assert_eq!(
        missing[0].to_string(),
        "can't be read: no such file or directory (/nowhere/m.yaml); name the migration's configuration by `-c FILE`"
    );
}

pub(super) fn schema() -> serde_json::Value {
    json!({
        "type": "object",
        "properties": {
            "instanceUrl": {"type": "string", "minLength": 1},
            "clientId": {"type": "string"},
            "clientSecret": {"type": "string"},
            "apiVersion": {"anyOf": [{"$ref": "#/$defs/Version"}, {"type": "null"}]},
            "pageSize": {"type": ["integer", "null"], "minimum": 1, "maximum": 2000},
            "login": {"enum": ["password", "client"]},
            "filters": {"type": "object", "additionalProperties": {"type": "string"}},
            "hosts": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["instanceUrl", "clientId", "clientSecret"],
        "additionalProperties": false,
        "$defs": {"Version": {"type": "string"}},
    })
}

#[test]
fn of_values_with_a_text_each_all_are_named_and_the_nearest_first() {
    let flow = |name: &str| json!({"const": name, "description": "a way to log in"});
    let flows = ["clientCredentials", "jwtBearer", "password"].map(flow);
    let schema = json!({"properties": {"auth": {"oneOf": flows}}});
    let judged = |auth: &str| {
        let text = format!(
            "id: m\ntenantId: t\nsourceType: salesforce\nsourceConfig:\n  auth: {auth}\nmappings: {{}}\n"
        );
        let part = Part::Against(&schema);
        problems(load_in("m.yaml", &text, &environment(&[]), part))
    };
    let all = "use one of: clientCredentials, jwtBearer, password";
    let wrong = "5 sourceConfig.auth: is none of the values it may have";
    assert_eq!(
        judged("JwtBearer"),
        [format!("{wrong}; write `jwtBearer`, or {all}")]
    );
    assert_eq!(judged("oauth"), [format!("{wrong}; {all}")]);
}

#[test]
fn a_connectors_schema_judges_its_part() {
    let text = "id: m\ntenantId: t\nsourceType: salesforce\nsourceConfig:\n  instanceURL: x\n  clientId: 5\n  apiVersion: 62.0\n  pageSize: 5000\n  login: secret-word\n  filters:\n    a: 1\n  hosts: [a,\n    true]\n";
    assert_eq!(
        problems(load_in(
            "m.yaml",
            text,
            &environment(&[]),
            Part::Against(&schema())
        )),
        [
            "4 sourceConfig.instanceUrl: is missing; add it, or set DROVER_SALESFORCE_INSTANCE_URL",
            "4 sourceConfig.clientSecret: is missing; add it, or set DROVER_SALESFORCE_CLIENT_SECRET",
            "5 sourceConfig.instanceURL: is no known field; write `instanceUrl`, or remove it",
            "6 sourceConfig.clientId: must be a text, not a number; put it in quotes",
            "7 sourceConfig.apiVersion: must be a text, not a number; put it in quotes",
            "8 sourceConfig.pageSize: is too large; use 2000 or less",
            "9 sourceConfig.login: is none of the values it may have; use one of: password, client",
            "11 sourceConfig.filters.a: must be a text, not a number; put it in quotes",
            "13 sourceConfig.hosts[1]: must be a text, not true or false; put it in quotes",
        ]
    );
    let circular = json!({"anyOf": [{"$ref": "#"}], "$ref": "#"});
    load_in(
        "m.json",
        PLAYBOOK,
        &environment(&[]),
        Part::Against(&circular),
    )
    .expect("ends");
    let circular = json!({"anyOf": [{"$ref": "#"}]});
    load_in(
        "m.json",
        PLAYBOOK,
        &environment(&[]),
        Part::Against(&circular),
    )
    .expect("ends");
}

#[test]
fn secrets_come_from_where_they_are_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let mut file = std::fs::File::create(folder.path().join("token")).expect("file");
    file.write_all(b"from-file\r\n").expect("written");
    let text = "id: m\ntenantId: t\nsourceType: salesforce\nsourceConfig:\n  instanceUrl: https://${HOST}/${file:token}\n  clientId: a$${b}$\n  clientSecret:\ntargetConfig:\n  schema: crm\nkafka:\n  sasl.password: ${PASS}\n";
    let variables = [
        ("HOST", "h"),
        ("PASS", "kafka-secret"),
        ("DROVER_SALESFORCE_CLIENT_SECRET", "s3cret"),
        ("DROVER_SALESFORCE_PAGE_SIZE", "10"),
        ("DROVER_SALESFORCE_PORT_80_TCP", "set by Kubernetes"),
        ("DROVER_SALESFORCE_INSTANCE_URL", "given is given"),
        ("DROVER_POSTGRES_URL", "postgres://u:pw@h/db"),
        ("KAFKA_BROKERS", "k1:9092,k2:9092"),
    ];
    let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned()));
    let environment = Environment::of(variables, folder.path());
    let config = load_in("m.yaml", text, &environment, Part::Against(&schema())).expect("valid");
    assert_eq!(
        serde_json::Value::Object(config.source_config.expose().clone()),
        json!({"instanceUrl": "https://h/from-file", "clientId": "a${b}$", "clientSecret": "s3cret", "pageSize": 10})
    );
    assert_eq!(config.target_config.expose()["url"], "postgres://u:pw@h/db");
    assert_eq!(config.kafka.client["sasl.password"], "kafka-secret");
    assert_eq!(config.kafka.brokers, "k1:9092,k2:9092");
    let printed = format!("{config:?} {config:#?}");
    for secret in ["s3cret", "from-file", "pw@h", "kafka-secret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    // Without a schema every variable with the prefix counts.
    let config = load_in("m.yaml", text, &environment, Part::Plain).expect("valid");
    assert_eq!(
        config.source_config.expose()["port80Tcp"],
        "set by Kubernetes"
    );
    // Who doesn't need them needs not have them.
    let none = Environment::of([("PASS".into(), "x".into())], Path::new("/nowhere"));
    let document = Document::parse("m.yaml", text.as_bytes()).expect("syntax");
    let config = document
        .migration(&none, Part::Skip, Part::Skip)
        .expect("valid");
    assert!(config.source_config.expose().is_empty());
}

#[test]
fn a_missing_secret_is_told_where_it_is_named() {
    let text = "id: m\ntenantId: t\nsourceType: s\nsourceConfig:\n  a: ${NOPE}\n  b: ${file:nope}\n  c: ${1X}\n  d: ${\n  e: ${EMPTY}\nkafka:\n  client:\n    ssl.key.password: x${NOPE}\n";
    let mut told = problems(load_in(
        "m.yaml",
        text,
        &environment(&[("EMPTY", "")]),
        Part::Plain,
    ));
    told.truncate(6);
    assert_eq!(
        told,
        [
            "5 sourceConfig.a: the environment variable NOPE is not set; set NOPE, or use `${file:PATH}`",
            "6 sourceConfig.b: the file `nope` can't be read: no such file or directory; name a readable file; a relative path starts at the configuration's folder",
            "7 sourceConfig.c: what stands in `${...}` is no variable's name; write `${NAME}` or `${file:PATH}`, or `$${` for the plain characters",
            "8 sourceConfig.d: a `${` is not closed; write `${NAME}` or `${file:PATH}`, or `$${` for the plain characters",
            "9 sourceConfig.e: the environment variable EMPTY is empty; set EMPTY, or use `${file:PATH}`",
            "12 kafka.client.ssl.key.password: the environment variable NOPE is not set; set NOPE, or use `${file:PATH}`",
        ]
    );
}

#[test]
fn sasl_without_a_mechanism_is_told() {
    let text = |more: &str| {
        format!(
            "id: m\ntenantId: t\nsourceType: s\nmappings: {{}}\ndryRun: true\nkafka:\n  \
             client:\n      security.protocol: SASL_SSL\n{more}"
        )
    };
    let load = |text: &str| load_in("m.yaml", text, &environment(&[]), Part::Skip);
    assert_eq!(
        problems(load(&text(""))),
        [
            "6 kafka.client: has a `security.protocol` with SASL, but no `sasl.mechanism`; name \
             the broker's: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        ]
    );
    let named = load(&text("      sasl.mechanism: PLAIN\n"));
    assert!(named.is_ok(), "{named:?}");
}

#[test]
fn no_secret_is_in_a_message() {
    let text = r#"{"id":"m","tenantId":"t","sourceType":"s",
        "sourceConfig":{"instanceUrl":"TOPSECRET","clientId":"TOPSECRET","clientSecret":"TOPSECRET","login":"TOPSECRET","pageSize":"TOPSECRET","hosts":"TOPSECRET"},
        "kafka":{"security.protocol":"TOPSECRET","sasl.mechanism":["TOPSECRET"]}}"#;
    let told = problems(load_in(
        "m.json",
        text,
        &environment(&[]),
        Part::Against(&schema()),
    ));
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(!told.join("").contains("TOPSECRET"), "{told:#?}");
}

#[test]
fn paths_lead_to_lines() {
    let text = b"id: m\nkafka:\n  client:\n    a.b: 1\nobjects:\n  - x\n  - y\n";
    let document = Document::parse("m.yaml", text).expect("syntax");
    for (path, line) in [
        ("id", 1),
        ("kafka.client.a.b", 4),
        ("kafka.client.nope", 3),
        ("objects[1]", 7),
        ("objects[9]", 5),
        ("nope.nope", 1),
    ] {
        assert_eq!(document.problem(path, "", "").line, line, "{path}");
    }
}

#[test]
fn the_nearest_name_is_found() {
    let known = ["sourceType", "sourceConfig", "tenantId"];
    assert_eq!(nearest("source_type", known), Some("sourceType"));
    assert_eq!(nearest("tenant", known), Some("tenantId"));
    assert_eq!(nearest("xyz", known), None);
}

#[test]
fn the_object_store_is_a_folder_or_nothing() {
    let of = |line: &str| {
        load(
            "m.yaml",
            &format!("id: m\ntenantId: t\nsourceType: s\n{line}"),
        )
    };
    assert_eq!(of("").expect("valid").object_store, None);
    let folder = crate::bodies::Location::Folder("/var/lib/bodies".into());
    let config = of("objectStore: { url: file:///var/lib/bodies }").expect("valid");
    assert_eq!(config.object_store, Some(folder));
    for (line, wanted) in [
        (
            "objectStore: /var/lib/bodies",
            "4 objectStore: must be a group of fields, not a text; write the value in that form",
        ),
        (
            "objectStore: {}",
            "4 objectStore.url: is missing; name a folder that every stage sees: `url: file:///var/lib/drover/bodies`",
        ),
        (
            "objectStore: { url: bodies }",
            "4 objectStore.url: is no URL; write `file:///` and the folder's whole path",
        ),
        (
            "objectStore: { url: file:///b, uri: x }",
            "4 objectStore.uri: is no known field; write `url`, or remove it",
        ),
    ] {
        assert_eq!(problems(of(line)), [wanted]);
    }
}

#[test]
fn a_wrong_value_of_a_variable_is_no_line_of_the_file() {
    let schema = serde_json::json!({"properties": {"pageSize": {"type": "integer"}}});
    let told = |part: &str| {
        let text = format!("id: x\nsourceType: salesforce\nsourceConfig: {part}\n");
        let document = Document::parse("m.yaml", text.as_bytes()).expect("YAML");
        let environment = environment(&[("DROVER_SALESFORCE_PAGE_SIZE", "2.5")]);
        let loaded = document.migration(&environment, Part::Against(&schema), Part::Skip);
        let problems = loaded.err().unwrap_or_default();
        let of_part = problems
            .iter()
            .filter(|p| p.path.starts_with("sourceConfig"));
        of_part.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told("{}"),
        [
            "sourceConfig.pageSize: must be a whole number (it comes from \
             DROVER_SALESFORCE_PAGE_SIZE); leave the fraction out"
        ]
    );
    // The file goes first.
    let own = "sourceConfig.pageSize: must be a whole number (m.yaml:3); leave the fraction out";
    assert_eq!(told("{ pageSize: 3.5 }"), [own]);
}

#[test]
fn an_empty_variable_is_to_blame_and_no_line() {
    let schema = serde_json::json!({
        "properties": {"clientSecret": {"type": "string"}}, "required": ["clientSecret"],
    });
    let text = "id: x\ntenantId: t\nsourceType: salesforce\nsourceConfig: {}\n";
    let document = Document::parse("m.yaml", text.as_bytes()).expect("YAML");
    let told = |variables: &[(&str, &str)]| {
        let environment = environment(variables);
        let loaded = document.migration(&environment, Part::Against(&schema), Part::Skip);
        let problems = loaded.err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(told(&[("DROVER_SALESFORCE_CLIENT_SECRET", "s3cret")]).is_empty());
    assert_eq!(
        told(&[("DROVER_SALESFORCE_CLIENT_SECRET", "")]),
        [
            "sourceConfig.clientSecret: the environment variable DROVER_SALESFORCE_CLIENT_SECRET is \
             empty; fill DROVER_SALESFORCE_CLIENT_SECRET, or unset it and give the field in the file"
        ]
    );
}
