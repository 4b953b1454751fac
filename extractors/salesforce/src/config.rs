//! What `sourceConfig` holds for Salesforce.

use std::fmt;
use std::net::IpAddr;

use drover_pipeline::config::Problem;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

/// `sourceConfig` of a migration from Salesforce.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The org's My Domain address, `https://acme.my.salesforce.com`: the
    /// client credentials flow works nowhere else. `http` only for a loopback
    /// address.
    pub instance_url: String,
    /// The consumer key of the connected app or external client app.
    pub client_id: String,
    /// The consumer secret of that app.
    #[schemars(extend("secret" = true))]
    pub client_secret: String,
    /// The version of the REST API, as in its paths.
    #[serde(default = "default_api_version")]
    #[schemars(regex(pattern = r"^[0-9]{2,3}\.0$"))]
    pub api_version: String,
    /// Records per request, at most; a query answers at most 2,000.
    #[serde(default = "default_page_size")]
    #[schemars(range(min = 1, max = 2000))]
    pub page_size: u32,
    /// How far each round of changes reaches back behind the one before it, in
    /// milliseconds. A record is stamped when its transaction writes it and
    /// shows when the transaction commits; a shorter time than the longest
    /// transaction loses records.
    #[serde(default = "default_lookback_ms")]
    #[schemars(range(max = 86_400_000))]
    pub lookback_ms: u32,
    /// The first copy of an object with at least so many records is made by
    /// Bulk API 2.0; smaller ones are read by REST.
    #[serde(default = "default_bulk_threshold")]
    pub bulk_threshold: u64,
    /// Records per request of a Bulk job's file, at most. A page is held in
    /// memory: choose fewer for objects whose records are large.
    #[serde(default = "default_bulk_page_size")]
    #[schemars(range(min = 1, max = 50000))]
    pub bulk_page_size: u32,
}

fn default_api_version() -> String {
    "67.0".to_owned()
}

fn default_page_size() -> u32 {
    2_000
}

fn default_lookback_ms() -> u32 {
    600_000
}

fn default_bulk_threshold() -> u64 {
    100_000
}

fn default_bulk_page_size() -> u32 {
    10_000
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("instance_url", &self.instance_url)
            .field("client_id", &self.client_id)
            .field("client_secret", &"***")
            .field("api_version", &self.api_version)
            .field("page_size", &self.page_size)
            .field("lookback_ms", &self.lookback_ms)
            .field("bulk_threshold", &self.bulk_threshold)
            .field("bulk_page_size", &self.bulk_page_size)
            .finish()
    }
}

impl Config {
    /// Everything that is wrong with the values; the instance's address
    /// without a slash at the end if nothing is.
    pub fn validate(&self) -> Result<String, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: String, advice: &str| {
            problems.push(Problem::at(
                format!("sourceConfig.{field}"),
                message,
                advice,
            ));
        };
        let origin = origin(&self.instance_url);
        if let Err(message) = &origin {
            problem(
                "instanceUrl",
                message.clone(),
                "give the org's My Domain address, such as https://acme.my.salesforce.com",
            );
        }
        if self.client_id.trim().is_empty() {
            problem(
                "clientId",
                "it is empty".to_owned(),
                "give the app's consumer key",
            );
        }
        if self.client_secret.trim().is_empty() {
            problem(
                "clientSecret",
                "it is empty".to_owned(),
                "give the app's consumer secret by DROVER_SALESFORCE_CLIENT_SECRET, ${ENV} or ${file:PATH}",
            );
        }
        let version = self.api_version.strip_suffix(".0");
        if version
            .and_then(|major| major.parse::<u16>().ok())
            .is_none_or(|v| v < 41)
        {
            problem(
                "apiVersion",
                format!("`{}` is no version that can be used", self.api_version),
                "give a version from 41.0 on, such as 67.0",
            );
        }
        if !(1..=2_000).contains(&self.page_size) {
            problem(
                "pageSize",
                format!("{} records are not possible", self.page_size),
                "give a number from 1 to 2000",
            );
        }
        if !(1..=50_000).contains(&self.bulk_page_size) {
            problem(
                "bulkPageSize",
                format!("{} records are not possible", self.bulk_page_size),
                "give a number from 1 to 50000",
            );
        }
        if self.lookback_ms > 86_400_000 {
            problem(
                "lookbackMs",
                format!("{} ms are more than a day", self.lookback_ms),
                "give the longest time that a transaction may take, such as 600000",
            );
        }
        match origin {
            Ok(origin) if problems.is_empty() => Ok(origin),
            _ => Err(problems),
        }
    }
}

/// The scheme, host and port of an address to which a token may be sent: https,
/// or http to this very machine.
pub fn origin(address: &str) -> Result<String, String> {
    let url = Url::parse(address.trim()).map_err(|error| format!("it is no address: {error}"))?;
    let Some(host) = url.host_str() else {
        return Err("it names no host".to_owned());
    };
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err("http would send the secret in the clear".to_owned()),
        other => return Err(format!("`{other}` is not https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password".to_owned());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("there is something behind the host".to_owned());
    }
    Ok(url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(instance_url: &str) -> Config {
        serde_json::from_value(
            json!({"instanceUrl": instance_url, "clientId": "id", "clientSecret": "hush"}),
        )
        .expect("a config")
    }

    #[test]
    fn defaults_are_safe() {
        let config = config("https://na01.salesforce.com/");
        assert_eq!(
            (
                config.page_size,
                config.lookback_ms,
                config.api_version.as_str()
            ),
            (2_000, 600_000, "67.0")
        );
        assert_eq!(
            config.validate(),
            Ok("https://na01.salesforce.com".to_owned())
        );
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in [
            "http://127.0.0.1:4000",
            "http://localhost:1",
            "http://[::1]:80",
            "https://a.b",
        ] {
            assert!(config(good).validate().is_ok(), "{good}");
        }
        for bad in [
            "http://a.b",
            "ftp://a.b",
            "a.b",
            "",
            "https://user:x@a.b",
            "https://a.b/path",
        ] {
            assert!(config(bad).validate().is_err(), "{bad}");
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let config: Config = serde_json::from_value(json!({
            "instanceUrl": "http://a.b", "clientId": "", "clientSecret": " ",
            "apiVersion": "v67", "pageSize": 2001, "bulkPageSize": 0, "lookbackMs": 90_000_000,
        }))
        .expect("a config");
        let paths: Vec<String> = config
            .validate()
            .expect_err("seven")
            .into_iter()
            .map(|p| p.path)
            .collect();
        assert_eq!(
            paths,
            [
                "instanceUrl",
                "clientId",
                "clientSecret",
                "apiVersion",
                "pageSize",
                "bulkPageSize",
                "lookbackMs"
            ]
            .map(|field| format!("sourceConfig.{field}"))
        );
        assert!(
            serde_json::from_value::<Config>(
                json!({"instanceUrl": "", "clientId": "", "clientSecret": "", "x": 1})
            )
            .is_err()
        );
    }

    #[test]
    fn the_schema_marks_the_secret() {
        let schema = schemars::schema_for!(Config);
        assert_eq!(
            schema.as_value()["properties"]["clientSecret"]["secret"],
            true
        );
        for (name, field) in schema.as_value()["properties"]
            .as_object()
            .expect("properties")
        {
            assert!(field["description"].is_string(), "{name} has no text");
        }
    }
}
