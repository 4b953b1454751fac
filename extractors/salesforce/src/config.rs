//! What `sourceConfig` holds for Salesforce.

use std::fmt;
use std::net::IpAddr;

use drover_pipeline::config::{Problem, variable_of};
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth;

/// `sourceConfig` of a migration from Salesforce.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The org's My Domain address, `https://acme.my.salesforce.com`: the
    /// client credentials flow works nowhere else. `http` only for a loopback
    /// address.
    pub instance_url: String,
    /// How Drover gets its tokens: `clientCredentials` (needs `clientSecret`),
    /// `jwtBearer` (`username`, `privateKey`), `refreshToken` (`refreshToken`,
    /// and `clientSecret` if the app asks for it), or `password` (`username`,
    /// `password`, `clientSecret`), which is for sandboxes.
    #[serde(default)]
    pub auth: Flow,
    /// The consumer key of the connected app or external client app.
    #[schemars(extend("credential" = true))]
    pub client_id: String,
    /// The consumer secret of that app.
    #[serde(default)]
    #[schemars(extend("secret" = true))]
    pub client_secret: Option<String>,
    /// Where tokens are asked for, if not at `instanceUrl`, which can't be
    /// changed for client credentials: `https://login.salesforce.com` or
    /// `https://test.salesforce.com`.
    #[serde(default)]
    pub login_url: Option<String>,
    /// The user that Drover works as (`jwtBearer`, `password`).
    #[serde(default)]
    #[schemars(extend("credential" = true))]
    pub username: Option<String>,
    /// The RSA key whose certificate the app has, in PEM, as
    /// `${file:/run/secrets/salesforce.key}` (`jwtBearer`).
    #[serde(default)]
    #[schemars(extend("secret" = true, "begins" = "-----BEGIN"))]
    pub private_key: Option<String>,
    /// For whom an assertion is: `https://login.salesforce.com`, for a sandbox
    /// `https://test.salesforce.com` (`jwtBearer`).
    #[serde(default = "default_jwt_audience")]
    pub jwt_audience: String,
    /// A refresh token that the app has given, without rotation
    /// (`refreshToken`).
    #[serde(default)]
    #[schemars(extend("secret" = true))]
    pub refresh_token: Option<String>,
    /// The user's password (`password`).
    #[serde(default)]
    #[schemars(extend("secret" = true))]
    pub password: Option<String>,
    /// The user's security token, where the org asks for one (`password`).
    #[serde(default)]
    #[schemars(extend("secret" = true))]
    pub security_token: Option<String>,
    /// The org's session timeout, in minutes: a token is replaced when nine
    /// tenths of it have passed. Salesforce does not tell it with the token.
    #[serde(default = "default_session_minutes")]
    #[schemars(range(min = 15, max = 1440))]
    pub session_minutes: u32,
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
    #[schemars(range(max = 86_400_000), extend("advised" = lookback_advice()))]
    pub lookback_ms: u32,
    /// How much of the org's daily calls Drover leaves to the customer's other
    /// tools, in hundredths: it waits when no more than that is left.
    #[serde(default = "default_reserve_percent")]
    #[schemars(range(max = 95))]
    pub reserve_percent: u32,
    /// The first copy of an object with at least so many records is made by
    /// Bulk API 2.0; smaller ones are read by REST.
    #[serde(default = "default_bulk_threshold")]
    pub bulk_threshold: u64,
    /// Records per request of a Bulk job's file, at most. A page is held in
    /// memory: choose fewer for objects whose records are large.
    #[serde(default = "default_bulk_page_size")]
    #[schemars(range(min = 1, max = 50000))]
    pub bulk_page_size: u32,
    /// How often an object is read whole again whose values change without a
    /// sign, in milliseconds: formula fields, and the links of documents. It
    /// takes a call per 2,000 records (per 100 documents); 0: never, else at
    /// least 1000.
    #[serde(default = "default_reread_interval_ms")]
    pub reread_interval_ms: u32,
}

fn default_reserve_percent() -> u32 {
    10
}

/// How a token is got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum Flow {
    /// The app's own: it works as the app's "Run As" user.
    #[default]
    ClientCredentials,
    /// An assertion that the app's certificate proves.
    JwtBearer,
    /// A refresh token that a person has got by logging in once.
    RefreshToken,
    /// A user's name and password.
    Password,
}

/// Where the org is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Scheme, host and port of the org itself.
    pub instance: String,
    /// Those of the token endpoint.
    pub login: String,
}

fn default_jwt_audience() -> String {
    "https://login.salesforce.com".to_owned()
}

fn default_session_minutes() -> u32 {
    120
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

/// What shows later than the overlap reaches back is never read.
fn lookback_advice() -> serde_json::Value {
    let below = "records of transactions that take longer are lost";
    serde_json::json!({"minimum": 60_000, "below": below})
}

fn default_bulk_threshold() -> u64 {
    100_000
}

fn default_bulk_page_size() -> u32 {
    10_000
}

/// Six hours.
fn default_reread_interval_ms() -> u32 {
    21_600_000
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("instance_url", &self.instance_url)
            .field("auth", &self.auth)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("api_version", &self.api_version)
            .field("page_size", &self.page_size)
            .field("lookback_ms", &self.lookback_ms)
            .field("bulk_threshold", &self.bulk_threshold)
            .field("bulk_page_size", &self.bulk_page_size)
            .field("reread_interval_ms", &self.reread_interval_ms)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Everything that is wrong with the values; the addresses without a slash
    /// at the end if nothing is.
    pub fn validate(&self) -> Result<Origins, Vec<Problem>> {
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
        for (field, value) in self.needed() {
            let message = match value {
                Some(text) if !text.trim().is_empty() => continue,
                Some(_) => "is empty",
                None => "is missing",
            };
            let variable = variable_of("salesforce", field);
            let advice = format!("add it, or set {variable}");
            problem(field, message.to_owned(), &advice);
        }
        if let (Flow::JwtBearer, Some(pem)) = (self.auth, &self.private_key)
            && let Err(why) = auth::key(pem)
        {
            let advice = match pem.contains("-----BEGIN") {
                true => "give the whole file, line breaks and end included, by ${file:PATH}",
                false => "give the key's file by ${file:PATH}; it begins with -----BEGIN",
            };
            problem("privateKey", why.to_owned(), advice);
        }
        let login = self.login_url.as_deref().map(self::origin);
        if let Some(Err(message)) = &login {
            let advice = "give https://login.salesforce.com or https://test.salesforce.com";
            problem("loginUrl", message.clone(), advice);
        }
        match (self.auth, &login) {
            (Flow::ClientCredentials, Some(Ok(_))) => problem(
                "loginUrl",
                "client credentials are good at the org's own address only".to_owned(),
                "remove it",
            ),
            (Flow::Password, Some(Ok(login))) if login == "https://login.salesforce.com" => {
                problem(
                    "auth",
                    "a password is for sandboxes".to_owned(),
                    "use clientCredentials or jwtBearer for a production org",
                );
            }
            _ => {}
        }
        if !(15..=1_440).contains(&self.session_minutes) {
            problem(
                "sessionMinutes",
                format!("{} minutes are no session timeout", self.session_minutes),
                "give the org's session timeout, from 15 to 1440",
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
        if self.reserve_percent > 95 {
            problem(
                "reservePercent",
                format!("{} % leave nothing to read with", self.reserve_percent),
                "give a number from 0 to 95, such as 10",
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
        if (1..1_000).contains(&self.reread_interval_ms) {
            problem(
                "rereadIntervalMs",
                format!(
                    "{} ms would read all of it without a pause",
                    self.reread_interval_ms
                ),
                "give 0 for never, or how often, such as 21600000 for every six hours",
            );
        }
        match origin {
            Ok(instance) if problems.is_empty() => Ok(Origins {
                login: login
                    .and_then(Result::ok)
                    .unwrap_or_else(|| instance.clone()),
                instance,
            }),
            _ => Err(problems),
        }
    }

    /// The fields that the flow needs, with their values.
    fn needed(&self) -> Vec<(&'static str, Option<&String>)> {
        let secret = ("clientSecret", self.client_secret.as_ref());
        let user = ("username", self.username.as_ref());
        match self.auth {
            Flow::ClientCredentials => vec![secret],
            Flow::JwtBearer => vec![user, ("privateKey", self.private_key.as_ref())],
            Flow::RefreshToken => vec![("refreshToken", self.refresh_token.as_ref())],
            Flow::Password => vec![user, ("password", self.password.as_ref()), secret],
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
            Ok(Origins {
                instance: "https://na01.salesforce.com".to_owned(),
                login: "https://na01.salesforce.com".to_owned(),
            })
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
            "rereadIntervalMs": 1,
        }))
        .expect("a config");
        let paths: Vec<String> = config
            .validate()
            .expect_err("eight")
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
                "lookbackMs",
                "rereadIntervalMs"
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
    fn each_flow_names_what_it_lacks() {
        for (flow, lacking) in [
            ("clientCredentials", &["clientSecret"][..]),
            ("jwtBearer", &["username", "privateKey"]),
            ("refreshToken", &["refreshToken"]),
            ("password", &["username", "password", "clientSecret"]),
        ] {
            let config: Config = serde_json::from_value(
                json!({"instanceUrl": "https://a.b", "clientId": "id", "auth": flow}),
            )
            .expect("a config");
            let told = config.validate().expect_err("incomplete");
            let told: Vec<String> = told.iter().map(ToString::to_string).collect();
            let expected: Vec<String> = lacking
                .iter()
                .map(|field| {
                    let variable = variable_of("salesforce", field);
                    format!("sourceConfig.{field}: is missing; add it, or set {variable}")
                })
                .collect();
            assert_eq!(told, expected, "{flow}");
        }
        let told = |more: serde_json::Value| {
            let mut config =
                json!({"instanceUrl": "https://a.b", "clientId": "id", "clientSecret": "hush"});
            let fields = more.as_object().expect("fields").clone();
            config.as_object_mut().expect("fields").extend(fields);
            let config: Config = serde_json::from_value(config).expect("a config");
            let told = config.validate().expect_err("a problem");
            assert!(!format!("{config:?} {told:?}").contains("hush"));
            told.into_iter().map(|p| p.path).collect::<Vec<_>>()
        };
        let login = "https://login.salesforce.com";
        assert_eq!(told(json!({"loginUrl": login})), ["sourceConfig.loginUrl"]);
        assert_eq!(
            told(
                json!({"auth": "password", "loginUrl": login, "username": "u", "password": "hush"})
            ),
            ["sourceConfig.auth"]
        );
        assert_eq!(
            told(json!({"auth": "jwtBearer", "username": "u", "privateKey": "hush"})),
            ["sourceConfig.privateKey"]
        );
    }

    #[test]
    fn the_schema_marks_the_secrets() {
        let schema = schemars::schema_for!(Config);
        for secret in [
            "clientSecret",
            "privateKey",
            "refreshToken",
            "password",
            "securityToken",
        ] {
            let field = &schema.as_value()["properties"][secret];
            assert_eq!(field["secret"], true, "{secret}");
        }
        for (name, field) in schema.as_value()["properties"]
            .as_object()
            .expect("properties")
        {
            assert!(field["description"].is_string(), "{name} has no text");
        }
    }
}
