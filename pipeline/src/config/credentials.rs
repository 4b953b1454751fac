//! Where the credentials of a connector's part come from, for who is told that one of
//! them is refused. Never their values.

use super::document::Value;
use super::schema::Schema;
use super::secrets::Environment;
use super::{Document, variable_of};

impl Document {
    /// The credentials of a part that are given, each with where its value came
    /// from: `sourceConfig.clientSecret from ${SECRET}`.
    pub fn credentials(
        &self,
        path: &str,
        schema: &serde_json::Value,
        environment: &Environment,
    ) -> Vec<String> {
        let connector = match path {
            "targetConfig" => self.target_type(),
            _ => self.text("sourceType").unwrap_or_default(),
        };
        let part = self.root.get(path);
        let properties = Schema::new(schema).properties().into_iter();
        let credentials = properties.filter(|(_, property)| property.is_credential());
        let told = credentials.filter_map(|(name, _)| {
            let node = part.and_then(|part| part.get(name));
            let from = match node.map(|node| &node.value) {
                None | Some(Value::Null) => {
                    let variable = variable_of(connector, name);
                    environment.get(&variable).map(|_| variable)?
                }
                Some(Value::Text(text)) => match named(text) {
                    places if places.is_empty() => "the file itself".to_owned(),
                    places => places.join(" and "),
                },
                Some(_) => "the file itself".to_owned(),
            };
            Some(format!("{path}.{name} from {from}"))
        });
        told.collect()
    }
}

/// What a text refers to, without what stands around it.
fn named(text: &str) -> Vec<String> {
    let text = text.replace("$${", "");
    let parts = text.split("${").skip(1);
    let names = parts.filter_map(|part| Some(format!("${{{}}}", part.split_once('}')?.0)));
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn credentials_are_named_by_field_and_place_and_never_by_value() {
        let secret = serde_json::json!({"type": "string", "secret": true});
        let schema = serde_json::json!({"properties": {
            "clientId": {"type": "string", "credential": true},
            "instanceUrl": {"type": "string"}, "clientSecret": secret, "password": secret,
            "privateKey": secret, "url": secret, "token": secret,
        }});
        let text = "
sourceType: sales-force
sourceConfig:
  clientId: 3MVG9
  instanceUrl: https://a.b
  password: open-sesame
  privateKey: ${file:/run/key}
  url: https://ann:${PW}@host
";
        let document = Document::parse("m.yaml", text.as_bytes()).expect("YAML");
        let variables = [(
            "DROVER_SALES_FORCE_CLIENT_SECRET".to_owned(),
            "s3cret".to_owned(),
        )];
        let environment = Environment::of(variables, Path::new(""));
        let mut told = document.credentials("sourceConfig", &schema, &environment);
        told.sort();
        assert_eq!(
            told,
            [
                "sourceConfig.clientId from the file itself",
                "sourceConfig.clientSecret from DROVER_SALES_FORCE_CLIENT_SECRET",
                "sourceConfig.password from the file itself",
                "sourceConfig.privateKey from ${file:/run/key}",
                "sourceConfig.url from ${PW}",
            ]
        );
    }
}
