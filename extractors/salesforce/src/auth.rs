//! Tokens: the flow that gets one, when a new one is needed, and one task that
//! asks while the others wait for what it gets (`reference/salesforce.md`
//! section 1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drover_pipeline::http::HttpClient;
use drover_pipeline::record::Millis;
use drover_pipeline::{Class, Code, Error, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::config::{self, Config, Flow, Origins};
use crate::errors;
use crate::time::Clock;

/// How long an assertion is good, in seconds; the API takes no longer ones.
const ASSERTION: i64 = 180;

/// How long a token that could not be renewed early is used on before the next
/// try, in milliseconds.
const AGAIN: Millis = 60_000;

/// A token and where it is good.
#[derive(Debug)]
pub struct Session {
    /// The token.
    pub token: Secret,
    /// Scheme, host and port of the API.
    pub origin: String,
}

/// A text that no message shows.
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What gets tokens. Its state can be lost at any moment.
pub struct Auth {
    http: HttpClient,
    config: Arc<Config>,
    origins: Origins,
    clock: Arc<Clock>,
    state: Mutex<State>,
    /// How many requests for a token are over.
    answered: AtomicU64,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// From when on, by the source's clock, the token is too old to be used.
    renew_at: Millis,
    /// Why the last request for a token brought none.
    failed: Option<Error>,
    /// The refresh token that replaced the configured one.
    rotated: Option<Secret>,
}

/// The token endpoint's answer.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    instance_url: String,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// What an assertion says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: i64,
}

impl Auth {
    /// Tokens as the configuration says.
    pub fn new(http: HttpClient, config: Arc<Config>, origins: Origins, clock: Arc<Clock>) -> Self {
        Auth {
            http,
            config,
            origins,
            clock,
            state: Mutex::default(),
            answered: AtomicU64::new(0),
        }
    }

    /// The token; a new one if there is none, if it is nearly as old as a
    /// session may be, or if it is still the one that was refused.
    ///
    /// The lock makes one task ask; those that waited for it take what it got,
    /// be it a failure.
    pub async fn session(&self, refused: Option<&Arc<Session>>) -> Result<Arc<Session>> {
        let begun = self.answered.load(Ordering::SeqCst);
        let mut state = self.state.lock().await;
        let current = state
            .session
            .clone()
            .filter(|session| refused.is_none_or(|refused| !Arc::ptr_eq(refused, session)));
        if let Some(session) = &current
            && self.clock.latest() < state.renew_at
        {
            return Ok(Arc::clone(session));
        }
        if let (true, Some(error)) = (
            self.answered.load(Ordering::SeqCst) != begun,
            state.failed.as_ref(),
        ) {
            return Err(copy(error));
        }
        state.failed = None;
        if current.is_none() {
            state.session = None;
        }
        let old = state.rotated.as_ref().map(|token| token.0.clone());
        let got = self.ask(old.as_deref()).await;
        // Only now: who came while this was under way shares what it brought.
        self.answered.fetch_add(1, Ordering::SeqCst);
        match got {
            Ok((session, rotated)) => {
                if let Some(token) = rotated {
                    tracing::warn!(
                        "Salesforce has replaced the refresh token; the configured one may not \
                         work after a restart: switch refresh token rotation off for this app"
                    );
                    state.rotated = Some(Secret(token));
                }
                let session = Arc::new(session);
                state.renew_at = self.clock.latest() + self.lifetime();
                state.session = Some(Arc::clone(&session));
                Ok(session)
            }
            // The token is old, and still good.
            Err(error)
                if matches!(error.class(), Class::Transient | Class::Throttled)
                    && current.is_some() =>
            {
                tracing::warn!(%error, "the token could not be renewed yet");
                state.renew_at = self.clock.latest() + AGAIN;
                current.ok_or(error)
            }
            Err(error) => {
                state.failed = Some(copy(&error));
                Err(error)
            }
        }
    }

    /// How long a token is used: nine tenths of the org's session timeout.
    fn lifetime(&self) -> Millis {
        Millis::from(self.config.session_minutes) * 54_000
    }

    /// Asks for a token; gives the refresh token too, where it was replaced.
    async fn ask(&self, rotated: Option<&str>) -> Result<(Session, Option<String>)> {
        let config = &self.config;
        let of = |value: &'static str| ("grant_type", value.to_owned());
        let mut form = match config.auth {
            Flow::ClientCredentials => vec![of("client_credentials")],
            Flow::JwtBearer => vec![
                of("urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", self.assertion().await?),
            ],
            Flow::RefreshToken => {
                let token = rotated.or(config.refresh_token.as_deref());
                vec![
                    of("refresh_token"),
                    ("refresh_token", token.unwrap_or_default().to_owned()),
                ]
            }
            Flow::Password => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                let password = text(&config.password) + &text(&config.security_token);
                vec![
                    of("password"),
                    ("username", text(&config.username)),
                    ("password", password),
                ]
            }
        };
        if config.auth != Flow::JwtBearer {
            form.push(("client_id", config.client_id.clone()));
            if let Some(secret) = config.client_secret.clone() {
                form.push(("client_secret", secret));
            }
        }
        let url = format!("{}/services/oauth2/token", self.origins.login);
        let request = self.http.request(Method::POST, &url).form(&form);
        let answer = self.http.send(request).await;
        let answer = answer.map_err(|error| match (error.code, &config.login_url) {
            (Code::Connection, Some(_)) => error.at("sourceConfig.loginUrl"),
            _ => error,
        })?;
        if let Some(error) = errors::of_token(&answer) {
            return Err(error);
        }
        self.clock.note(&answer)?;
        // serde's own message could quote what it found, which may be a token.
        let granted: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| errors::not_the_api(&answer, "it holds no token"))?;
        serves(granted.scope.as_deref())?;
        let origin = config::origin(&granted.instance_url).map_err(|why| {
            errors::not_the_api(&answer, &format!("its instance_url can't be used: {why}"))
        })?;
        let session = Session {
            token: Secret(granted.access_token),
            origin,
        };
        let known = config.refresh_token.as_deref();
        let replaced = granted.refresh_token.filter(|token| {
            config.auth == Flow::RefreshToken && Some(token.as_str()) != rotated.or(known)
        });
        Ok((session, replaced))
    }

    /// A signed assertion for the JWT bearer flow. Its end follows from the
    /// source's own clock, which needs no token to be asked for: this machine's
    /// may be wrong by more than an assertion lasts.
    async fn assertion(&self) -> Result<String> {
        let url = format!("{}/services/data", self.origins.instance);
        let answer = self.http.send(self.http.request(Method::GET, &url)).await?;
        if let Some(error) = errors::of_api(&answer, None) {
            return Err(error);
        }
        let now = self.clock.note(&answer)?;
        sign(&self.config, now)
    }
}

/// The assertion of a configuration at a moment.
fn sign(config: &Config, now: Millis) -> Result<String> {
    let claims = Claims {
        iss: config.client_id.clone(),
        sub: config.username.clone().unwrap_or_default(),
        aud: config.jwt_audience.clone(),
        exp: now / 1_000 + ASSERTION,
    };
    let key = key(config.private_key.as_deref().unwrap_or_default());
    let key = key.map_err(|why| Error::new(Code::Unauthorized, format!("privateKey: {why}")))?;
    let signed = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key);
    // The library's words name what is wrong with a key, and hold nothing of it.
    signed.map_err(|_| Error::new(Code::Unauthorized, "privateKey does not sign with RS256"))
}

/// Reads an RSA key in PEM.
pub fn key(pem: &str) -> Result<EncodingKey, &'static str> {
    // The library takes public keys and certificates, too, and then can't sign.
    for (label, what) in [
        (
            "-----BEGIN CERTIFICATE",
            "it is a certificate, and no private key",
        ),
        (
            "-----BEGIN PUBLIC KEY",
            "it is a public key, and no private one",
        ),
        (
            "-----BEGIN RSA PUBLIC KEY",
            "it is a public key, and no private one",
        ),
        (
            "-----BEGIN ENCRYPTED",
            "it is encrypted; `openssl rsa` writes it without a password",
        ),
    ] {
        if pem.trim_start().starts_with(label) {
            return Err(what);
        }
    }
    EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| match pem.contains("-----BEGIN") {
        true => "it begins as a key in PEM and can't be read: it is cut, altered, or no RSA key",
        false => "it is no RSA private key in PEM",
    })
}

/// Whether a token of these scopes may use the API. Some flows tell none.
fn serves(scopes: Option<&str>) -> Result<()> {
    let Some(scopes) = scopes else { return Ok(()) };
    if scopes
        .split_whitespace()
        .any(|scope| matches!(scope, "api" | "full"))
    {
        return Ok(());
    }
    let message = format!(
        "the token may be used for `{scopes}` and not for the API: give the app the scope \
         \"Manage user data via APIs (api)\""
    );
    Err(Error::new(Code::Forbidden, message).source_code("insufficient_scope"))
}

/// The same failure for another task.
fn copy(error: &Error) -> Error {
    Error {
        code: error.code,
        message: error.message.clone(),
        source_code: error.source_code.clone(),
        place: error.place.clone(),
        retry_after: error.retry_after,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::json;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        let lines = lines.join("\n");
        format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
    }

    #[test]
    fn what_is_no_private_key_is_told_apart() {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
        for (label, says) in [
            ("CERTIFICATE", "it is a certificate"),
            ("PUBLIC KEY", "it is a public key"),
            ("ENCRYPTED PRIVATE KEY", "it is encrypted"),
            ("EC PRIVATE KEY", "it begins as a key in PEM"),
        ] {
            let Err(why) = key(&pem(label, public.as_ref())) else {
                panic!("{label} is taken");
            };
            assert!(why.starts_with(says), "{label}: {why}");
        }
    }

    #[test]
    fn an_assertion_is_signed_and_says_who_for_whom_and_until_when() {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("DER");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
        let config: Config = serde_json::from_value(json!({
            "instanceUrl": "https://acme.my.salesforce.com", "clientId": "app",
            "auth": "jwtBearer", "username": "drover@acme.com",
            "privateKey": pem("PRIVATE KEY", private.as_ref()),
        }))
        .expect("a config");
        assert!(config.validate().is_ok());
        let token = sign(&config, 1_774_948_512_345).expect("signed");
        let mut asked = Validation::new(Algorithm::RS256);
        asked.set_audience(&["https://login.salesforce.com"]);
        asked.validate_exp = false;
        let public = pem("PUBLIC KEY", public.as_ref());
        let key = DecodingKey::from_rsa_pem(public.as_bytes()).expect("a public key");
        let claims = jsonwebtoken::decode::<Claims>(&token, &key, &asked)
            .expect("a good signature")
            .claims;
        assert_eq!(
            (claims.iss.as_str(), claims.sub.as_str(), claims.exp),
            ("app", "drover@acme.com", 1_774_948_512 + 180)
        );
        let other = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let other: PublicKeyX509Der<'_> = other.public_key().as_der().expect("DER");
        let other = pem("PUBLIC KEY", other.as_ref());
        let key = DecodingKey::from_rsa_pem(other.as_bytes()).expect("a public key");
        assert!(jsonwebtoken::decode::<Claims>(&token, &key, &asked).is_err());
    }

    #[test]
    fn a_token_that_is_not_for_the_api_is_no_use() {
        assert!(serves(None).is_ok());
        assert!(serves(Some("id api refresh_token")).is_ok());
        assert!(serves(Some("full")).is_ok());
        let error = serves(Some("id openid")).expect_err("no api");
        assert_eq!(error.code, Code::Forbidden);
        assert!(error.message.contains("`id openid`"), "{error}");
    }
}
