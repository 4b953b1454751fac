//! `docs/sources/salesforce.md` says what the schema and `parity.yaml` say. Run
//! with `UPDATE_DOCS=1` to write it anew.

use std::fmt::Write;
use std::path::Path;

use drover_extractor_salesforce::{Config, Salesforce};
use drover_pipeline::config::variable_of;
use drover_pipeline::extract::{Extractor, Parity};
use serde_json::Value;

/// The table of the configuration's fields.
fn settings() -> String {
    let schema = schemars::schema_for!(Config).to_value();
    let required = schema["required"].as_array().expect("required fields");
    let mut text = "| field | default | what it is | variable |\n|---|---|---|---|\n".to_owned();
    for (name, field) in schema["properties"].as_object().expect("properties") {
        let default = match &field["default"] {
            _ if required.iter().any(|one| one == name) => "required".to_owned(),
            Value::Null => "none".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let words = field["description"].as_str().expect("a description");
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let secret = if field["secret"] == true {
            " A secret."
        } else {
            ""
        };
        let variable = variable_of(Salesforce::NAME, name);
        writeln!(
            text,
            "| `{name}` | {default} | {words}{secret} | `{variable}` |"
        )
        .expect("text");
    }
    text
}

/// What becomes of each object.
fn objects() -> String {
    let parity = Parity::parse("parity.yaml", Salesforce::parity().expect("a parity file"));
    let parity = parity.expect("a good parity file");
    let list = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let mut text = format!(
        "**Migrated**: {}, and every custom object.\n\n",
        list(&parity.migrated)
    );
    text += "**Partly**, and what is lost:\n\n| object | lost |\n|---|---|\n";
    for (name, lost) in &parity.partly {
        writeln!(text, "| `{name}` | {lost} |").expect("text");
    }
    text += "\n**As plain records, where `objects` names them**: ";
    text += &list(&parity.needs_mapping);
    text += ".\n\n**Not supported**, and why (`*` stands for any beginning of the name):\n";
    for one in &parity.not_supported {
        write!(text, "\n- {}: {}.\n", one.why, list(&one.objects)).expect("text");
    }
    text
}

fn replaced(text: &str, of: &str, with: &str) -> String {
    let begin = format!("<!-- generated from {of}: begin -->\n");
    let end = format!("<!-- generated from {of}: end -->");
    let (before, rest) = text.split_once(&begin).expect("the beginning's mark");
    let (_, after) = rest.split_once(&end).expect("the end's mark");
    format!("{before}{begin}{with}{end}{after}")
}

#[test]
fn the_page_says_what_the_sources_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sources/salesforce.md");
    let text = std::fs::read_to_string(&path).expect("the page");
    let wanted = replaced(&text, "the schema in `spec`", &settings());
    let wanted = replaced(&wanted, "`parity.yaml`", &objects());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).expect("written");
        return;
    }
    let differs = text
        .lines()
        .zip(wanted.lines())
        .find(|(is, should)| is != should);
    assert_eq!(differs, None, "run this test with UPDATE_DOCS=1");
    assert_eq!(text.len(), wanted.len(), "run this test with UPDATE_DOCS=1");
}
