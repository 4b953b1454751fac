//! Board and alert rules use only metrics that exist, with labels they have.

use std::collections::BTreeSet;
use std::path::Path;

use drover_pipeline::metrics::{ALL, Family, Server};

fn expressions(path: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let text = std::fs::read_to_string(&path).expect("it is there");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => {
            let board: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let panels = board["panels"].as_array().expect("panels");
            let targets = panels
                .iter()
                .flat_map(|p| p["targets"].as_array().expect("targets"));
            let mut all: Vec<String> = targets
                .map(|target| target["expr"].as_str().expect("an expression").to_owned())
                .collect();
            let variables = board["templating"]["list"].as_array().expect("variables");
            let queries = variables.iter().filter(|v| v["type"] == "query");
            all.extend(queries.map(|v| v["query"].as_str().expect("a query").to_owned()));
            all
        }
        _ => {
            let rules = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("expr: "));
            rules.map(str::to_owned).collect()
        }
    }
}

/// PromQL's words, as far as they look like names.
const WORDS: &[&str] = &[
    "sum",
    "max",
    "by",
    "on",
    "and",
    "rate",
    "deriv",
    "min_over_time",
    "avg_over_time",
    "time",
    "absent",
    "label_values",
];

/// The names in an expression (metrics and labels), without what stands in quotes and the durations.
fn names(expression: &str) -> BTreeSet<String> {
    let outside: String = expression
        .split('"')
        .step_by(2)
        .collect::<Vec<_>>()
        .join(" ");
    let outside = outside.replace("$migration", "");
    let names = outside.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    names
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter(|name| !WORDS.contains(name))
        .map(str::to_owned)
        .collect()
}

fn labels(family: &Family) -> Vec<&'static str> {
    let common: &[&str] = match family.server {
        Server::Migration => &["migration"],
        Server::Stage | Server::Library => &["migration", "stage", "instance"],
    };
    family.labels.iter().chain(common).copied().collect()
}

fn unknown(expression: &str) -> Vec<String> {
    let names = names(expression);
    let metrics: Vec<&Family> = ALL.iter().filter(|f| names.contains(f.name)).collect();
    let known = |name: &String| {
        metrics
            .iter()
            .any(|family| family.name == name || labels(family).contains(&name.as_str()))
    };
    names.iter().filter(|name| !known(name)).cloned().collect()
}

#[test]
fn the_board_and_the_rules_use_what_exists() {
    for file in [
        "deploy/grafana/drover.json",
        "deploy/prometheus/drover.rules.yaml",
    ] {
        let all = expressions(file);
        assert!(all.len() > 8, "{file}: {} expressions", all.len());
        for expression in all {
            assert_eq!(
                unknown(&expression),
                Vec::<String>::new(),
                "{file}: {expression}"
            );
        }
    }
}

#[test]
fn a_wrong_name_or_label_is_noticed() {
    assert_eq!(
        unknown("sum by (lane) (drover_lane_state) > 0"),
        Vec::<String>::new()
    );
    assert_eq!(unknown("drover_lane_stat > 0"), ["drover_lane_stat"]);
    assert_eq!(unknown("sum by (object) (drover_lane_state)"), ["object"]);
    assert_eq!(unknown(r#"drover_lane_state{lanes="x"}"#), ["lanes"]);
}
