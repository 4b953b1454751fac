//! Values that a migration's mappings name and the source does not list for the
//! field: mostly a typo. Older records may still have such a value, so it is told
//! and refused nothing.

use drover_pipeline::config::{Mappings, Problem, WHERE, nearest};
use drover_pipeline::extract::{Object, SourceField};
use serde_json::Value;

/// How many of a field's values are named.
const NAMED: usize = 8;

/// What `values` and `$where` name beside what the source lists. Paths are those of
/// the migration's document.
pub(crate) fn unlisted(mappings: &Mappings, objects: &[Object]) -> Vec<Problem> {
    let listed = |object: &str, field: &str| {
        let object = objects.iter().find(|one| one.name == object)?;
        let found = object.fields.iter().find(|one| one.name == field)?;
        (!found.values.is_empty()).then_some(found)
    };
    let mut problems = Vec::new();
    for (object, rules) in &mappings.rules {
        for (name, rule) in rules {
            let Some(field) = listed(object, name) else {
                continue;
            };
            for value in rule.values.keys() {
                let path = format!("mappings.{object}.{name}.values.{value}");
                problems.extend(unknown(path, object, field, value));
            }
        }
    }
    for (object, conditions) in &mappings.filters {
        for (name, wanted) in conditions {
            let Some(field) = listed(object, name) else {
                continue;
            };
            let wanted = wanted.get("not").unwrap_or(wanted);
            let wanted = match wanted {
                Value::Array(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            for value in wanted.iter().filter_map(Value::as_str) {
                let path = format!("mappings.{object}.{WHERE}.{name}");
                problems.extend(unknown(path, object, field, value));
            }
        }
    }
    problems
}

fn unknown(path: String, object: &str, field: &SourceField, value: &str) -> Option<Problem> {
    let values = || field.values.iter().map(String::as_str);
    // A field may hold several as one text.
    let mut parts = value.split(|c| Some(c) == field.separator);
    let part = parts.find(|part| !part.is_empty() && !values().any(|known| known == *part))?;
    let message = format!(
        "the source lists no value `{part}` for {object}.{}",
        field.name
    );
    let advice = match nearest(part, values()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let first: Vec<&str> = values().take(NAMED).collect();
            let more = match field.values.len() > NAMED {
                true => ", …",
                false => "",
            };
            format!("it lists {}{more}", first.join(", "))
        }
    };
    Some(Problem::at(path, message, advice))
}

#[cfg(test)]
mod tests {
    use drover_pipeline::config::Document;

    use super::*;

    #[test]
    fn a_value_that_the_source_does_not_list_is_told() {
        let text = "
mappings:
  Contact:
    Level__c: { to: department, values: { Primary: A, Secondry: B } }
    Name: { to: lastName, values: { Anything: x } }
    $where:
      LeadSource: { not: [Web, Other] }
      Level__c: [Primary, null, Nowhere]
      Langs__c: German;English
      Langs2__c: German;Englsh
      Age__c: { atLeast: 3 }
";
        let document = Document::parse("m.yaml", text.as_bytes()).expect("YAML");
        let field = |name: &str, values: &[&str], separator| SourceField {
            name: name.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            separator,
            ..SourceField::default()
        };
        let contact = Object {
            name: "Contact".to_owned(),
            fields: vec![
                field("Level__c", &["Primary", "Secondary"], None),
                field("Name", &[], None),
                field("LeadSource", &["Web"], None),
                field("Langs__c", &["German", "English"], Some(';')),
                field("Langs2__c", &["German", "English"], Some(';')),
                field("Age__c", &["1"], None),
            ],
            ..Object::default()
        };
        let told: Vec<String> = unlisted(&document.mappings(), &[contact])
            .into_iter()
            .map(|problem| document.placed(problem).to_string())
            .collect();
        assert_eq!(
            told,
            [
                "mappings.Contact.Level__c.values.Secondry: the source lists no value `Secondry` \
                 for Contact.Level__c (m.yaml:4); did you mean `Secondary`?",
                "mappings.Contact.$where.Langs2__c: the source lists no value `Englsh` for \
                 Contact.Langs2__c (m.yaml:10); did you mean `English`?",
                "mappings.Contact.$where.LeadSource: the source lists no value `Other` for \
                 Contact.LeadSource (m.yaml:7); it lists Web",
                "mappings.Contact.$where.Level__c: the source lists no value `Nowhere` for \
                 Contact.Level__c (m.yaml:8); it lists Primary, Secondary",
            ]
        );
    }
}
