//! What the loader needs to know.

use drover_pipeline::config::Problem;
use schemars::JsonSchema;
use serde::Deserialize;

/// `targetConfig` of the target `appendonly`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where the server listens: `http://127.0.0.1:41234`.
    pub url: String,
    /// How long a request of an unknown fate is left alone. More than four
    /// times what the server may work on one request.
    #[serde(default = "default_lease")]
    pub lease_ms: u64,
    /// How far the server's search index may lag behind.
    #[serde(default = "default_index_delay")]
    pub index_delay_ms: u64,
}

fn default_lease() -> u64 {
    2000
}

fn default_index_delay() -> u64 {
    500
}

impl Config {
    /// The server's address, or everything that is wrong.
    pub(crate) fn parse(&self) -> Result<reqwest::Url, Vec<Problem>> {
        let mut problems = Vec::new();
        if self.lease_ms == 0 {
            problems.push(Problem::at(
                "targetConfig.leaseMs",
                "a lease of no length covers no request",
                "give more than four times the server's --max-processing-ms",
            ));
        }
        let url = reqwest::Url::parse(&self.url).ok();
        match url.filter(|url| url.scheme() == "http" && url.has_host()) {
            Some(url) if problems.is_empty() => return Ok(url),
            Some(_) => {}
            None => problems.push(Problem::at(
                "targetConfig.url",
                "this is no http address",
                "give the address that drover-appendonly-server prints",
            )),
        }
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in_and_problems_are_all_named() {
        let parse = |text| serde_json::from_str::<Config>(text);
        let config = parse(r#"{"url":"http://127.0.0.1:1"}"#).expect("a config");
        assert_eq!((config.lease_ms, config.index_delay_ms), (2000, 500));
        assert!(config.parse().is_ok());
        let config = parse(r#"{"url":"ftp://x","leaseMs":0}"#).expect("a config");
        assert_eq!(config.parse().expect_err("problems").len(), 2);
        assert!(parse(r#"{"url":"http://x","lease":1}"#).is_err());
    }
}
