//! What the loader needs to know.

use std::time::Duration;

use drover_pipeline::config::Problem;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::tls::Tls;

/// `targetConfig` of the target `postgres`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where the database is: `postgres://user:password@host:5432/database`, or
    /// `host=… user=… password=… dbname=…`. `sslmode` and `sslrootcert` as in
    /// PostgreSQL's own clients: `verify-full` for any network that is not
    /// yours, with the system's authorities unless a file is named; `require`
    /// encrypts and trusts any certificate; `prefer`, the default, encrypts
    /// where the server can; `disable` never does. A connection pooler in
    /// between must pool sessions, not transactions.
    #[schemars(extend("secret" = true))]
    pub url: String,
    /// The schema that holds the tables; made when it is missing.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// How many connections one process opens at the most. Entities are applied
    /// side by side over them; more than the database has cores gains nothing.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 100))]
    pub connections: usize,
}

fn default_schema() -> String {
    "public".to_owned()
}

fn default_connections() -> usize {
    2
}

/// The most bytes of a PostgreSQL identifier; it cuts longer ones silently.
const IDENTIFIER: usize = 63;

impl Config {
    /// The driver's configuration, or everything that is wrong. No text of a
    /// problem holds a part of `url`.
    pub(crate) fn parse(&self) -> Result<(tokio_postgres::Config, Tls), Vec<Problem>> {
        let mut problems = Vec::new();
        if !(1..=100).contains(&self.connections) {
            problems.push(Problem::at(
                "targetConfig.connections",
                format!("{} connections can't be opened", self.connections),
                "give a number from 1 to 100",
            ));
        }
        if self.schema.is_empty() || self.schema.len() > IDENTIFIER || self.schema.contains('\0') {
            problems.push(Problem::at(
                "targetConfig.schema",
                format!("the schema's name has {} bytes", self.schema.len()),
                format!("give a name of 1 to {IDENTIFIER} bytes"),
            ));
        } else if self.schema.starts_with("pg_") || self.schema == "information_schema" {
            problems.push(Problem::at(
                "targetConfig.schema",
                format!("`{}` is one of PostgreSQL's own schemas", self.schema),
                "give the name of a schema for the migrated tables, such as `public`",
            ));
        }
        match self.parse_url() {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
        Err(problems)
    }

    fn parse_url(&self) -> Result<(tokio_postgres::Config, Tls), Problem> {
        let problem =
            |message: &str, advice: &str| Problem::at("targetConfig.url", message, advice);
        let (url, tls) = Tls::split(&self.url).map_err(|setting| {
            problem(
                &format!("`{setting}` is not known to this loader"),
                "leave it out: certificates of clients and lists of revoked ones are not supported",
            )
        })?;
        // The driver's own error can hold a part of the text, so it is not shown.
        let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
            problem(
                "this is no address of a PostgreSQL database",
                "write postgres://user:password@host:5432/database, special characters of the password percent-encoded",
            )
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(problem("the host is missing", "name the database's host"));
        }
        if config.get_user().is_none() {
            return Err(problem("the user is missing", "name the database's user"));
        }
        if config.get_application_name().is_none() {
            config.application_name("drover-loader-postgres");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        // A server that vanished without a word is noticed within half a minute.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(30));
        }
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(4);
        Ok((config, tls))
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;
    use crate::tls::Trust;

    fn config(url: &str) -> Config {
        serde_json::from_value(serde_json::json!({ "url": url })).expect("a config")
    }

    fn problems(config: &Config) -> Vec<Problem> {
        config.parse().err().unwrap_or_default()
    }

    #[test]
    fn both_forms_of_an_address_are_taken() {
        for url in [
            "postgres://ann:s3cret@db.example:6543/crm",
            "postgresql://ann:s3cret@db.example:6543/crm?sslmode=disable",
            "host=db.example port=6543 user=ann password=s3cret dbname=crm",
        ] {
            let (parsed, _) = config(url).parse().expect("an address");
            assert_eq!(parsed.get_ports(), [6543], "{url}");
            assert_eq!(parsed.get_dbname(), Some("crm"), "{url}");
            assert_eq!(parsed.get_password(), Some(b"s3cret".as_slice()), "{url}");
        }
        assert_eq!(config("x").schema, "public");
        assert_eq!(config("x").connections, 2);
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once_and_without_the_secret() {
        let mut all = config("postgres://ann:s3cret@:bad-port/crm");
        all.schema = "pg_catalog".into();
        all.connections = 0;
        let found = problems(&all);
        let paths: Vec<_> = found.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "targetConfig.connections",
                "targetConfig.schema",
                "targetConfig.url"
            ]
        );
        for problem in found {
            assert!(!problem.to_string().contains("s3cret"), "{problem}");
        }
        for url in ["dbname=crm user=ann", "host=db dbname=crm", "mysql://db"] {
            assert_eq!(problems(&config(url)).len(), 1, "{url}");
        }
    }

    #[test]
    fn a_demand_for_encryption_is_never_ignored() {
        for (mode, trust) in [
            ("require", Trust::Anybody),
            ("verify-ca", Trust::Authority),
            ("verify-full", Trust::Host),
        ] {
            let url = format!("postgres://a:s3cret@db/crm?sslmode={mode}");
            let (parsed, tls) = config(&url).parse().expect("an address");
            assert_eq!(parsed.get_ssl_mode(), SslMode::Require, "{mode}");
            assert_eq!(tls.trust, trust, "{mode}");
        }
        for wrong in ["sslmode=verify", "sslkey=/etc/key.pem"] {
            let url = format!("postgres://a:s3cret@db/crm?{wrong}");
            assert_eq!(problems(&config(&url)).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_and_the_url_is_marked_secret() {
        let wrong = serde_json::json!({ "url": "x", "Schema": "y" });
        assert!(serde_json::from_value::<Config>(wrong).is_err());
        let schema = serde_json::to_value(schemars::schema_for!(Config)).expect("JSON");
        assert_eq!(schema["properties"]["url"]["secret"], true);
        assert!(schema["properties"]["schema"]["secret"].is_null());
    }
}
