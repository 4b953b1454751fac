//! Who may call: the token endpoint and the tokens it gave.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::errors::JSON;
use super::id::Id;
use super::moment::{self, Millis};
use crate::exchange::{Answer, Call, form};

/// The connected app's key.
pub const CLIENT_ID: &str = "3MVG9sandboxDroverConnectedApp0000000001";
/// The connected app's secret. The sandbox guards nothing: it may be known.
pub const CLIENT_SECRET: &str = "sandbox-client-secret";
/// The user all calls act as.
pub const USERNAME: &str = "admin@drover.sandbox";
/// The user's password.
pub const PASSWORD: &str = "sandbox-password";
/// What clients append to the password.
pub const SECURITY_TOKEN: &str = "sandboxSecurityToken";
/// A token that every sandbox accepts.
pub const ACCESS_TOKEN: &str = "00DDv0000000001MAA!sandboxAccessToken";
/// A token that buys access tokens.
pub const REFRESH_TOKEN: &str = "5Aep861sandboxRefreshToken";

/// The org's id.
pub fn organization() -> Id {
    Id::numbered("00D", 1)
}

/// The id of the user all calls act as.
pub fn user() -> Id {
    Id::numbered("005", 1)
}

/// What a client needs to log in.
pub fn credentials() -> Value {
    json!({
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "username": USERNAME,
        "password": PASSWORD,
        "access_token": ACCESS_TOKEN,
        "refresh_token": REFRESH_TOKEN,
    })
}

/// Whether this is the user's password, with or without the security token.
pub fn is_user(name: &str, password: &str) -> bool {
    name == USERNAME
        && (password == PASSWORD || password.strip_suffix(SECURITY_TOKEN) == Some(PASSWORD))
}

/// The tokens in use.
#[derive(Debug, Default)]
pub struct Auth {
    tokens: Mutex<Tokens>,
}

#[derive(Debug, Default)]
struct Tokens {
    /// Tokens, and until when each is good.
    given: HashMap<String, Millis>,
    expired: HashSet<String>,
    /// Codes of the web server flow that nobody has used yet.
    codes: HashSet<String>,
    /// How long tokens are good; for ever if nothing is said.
    lifetime: Option<Millis>,
    made: u64,
}

/// The token that a call brings.
pub fn bearer(call: &Call) -> Option<&str> {
    let value = call.header("authorization")?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth"))
        .then(|| token.trim())
}

impl Auth {
    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the call's token is good.
    pub fn allows(&self, call: &Call) -> bool {
        bearer(call).is_some_and(|token| self.knows(token))
    }

    /// Whether a token is good.
    pub fn knows(&self, token: &str) -> bool {
        let tokens = self.tokens();
        let given = tokens
            .given
            .get(token)
            .is_some_and(|until| moment::now() < *until);
        !tokens.expired.contains(token) && (token == ACCESS_TOKEN || given)
    }

    /// From now on the token is expired.
    pub fn expire(&self, token: &str) {
        let mut tokens = self.tokens();
        tokens.given.remove(token);
        tokens.expired.insert(token.to_owned());
    }

    /// Gives a new token.
    pub fn issue(&self) -> String {
        let mut tokens = self.tokens();
        tokens.made += 1;
        let number = Id::numbered(
            "AQE",
            tokens.made.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 62_u64.pow(9),
        );
        let token = format!("{}!{number}.{:x}", organization(), moment::now());
        let until = tokens
            .lifetime
            .map_or(Millis::MAX, |lifetime| moment::now() + lifetime);
        tokens.given.insert(token.clone(), until);
        token
    }

    /// From now on tokens are good for so long.
    pub fn set_lifetime(&self, lifetime: Option<Millis>) {
        self.tokens().lifetime = lifetime;
    }

    /// Answers `/services/oauth2/authorize`: nobody is asked, the code goes to
    /// the client's address.
    pub fn authorize(&self, call: &Call) -> Answer {
        let asked = |name: &str| call.parameter(name);
        if asked("client_id").as_deref() != Some(CLIENT_ID) {
            return refused("invalid_client_id", "client identifier invalid");
        }
        if asked("response_type").as_deref() != Some("code") {
            return refused("unsupported_response_type", "response type must be code");
        }
        let Some(back) = asked("redirect_uri") else {
            return refused(
                "redirect_uri_mismatch",
                "redirect_uri must match configuration",
            );
        };
        let code = format!("aPrx{}", self.issue().split_off(19));
        self.tokens().codes.insert(code.clone());
        let joint = if back.contains('?') { '&' } else { '?' };
        let state = call
            .query
            .split('&')
            .find(|pair| pair.starts_with("state="))
            .map_or(String::new(), |pair| format!("&{pair}"));
        Answer::empty(StatusCode::FOUND)
            .with("location", &format!("{back}{joint}code={code}{state}"))
    }

    /// Answers `/services/oauth2/introspect`.
    pub fn introspect(&self, call: &Call) -> Answer {
        let body = String::from_utf8_lossy(&call.body).into_owned();
        let token = form(&body).into_iter().find(|pair| pair.0 == "token");
        let token = token.map(|pair| pair.1).unwrap_or_default();
        let until = self.tokens().given.get(&token).copied();
        let body = if self.knows(&token) {
            let now = moment::now();
            let until = until.filter(|until| *until != Millis::MAX);
            json!({
                "active": true,
                "scope": "api refresh_token",
                "client_id": CLIENT_ID,
                "username": USERNAME,
                "sub": format!("{}/id/{}/{}", call.origin(), organization(), user()),
                "token_type": "access_token",
                "exp": until.unwrap_or(now + 2 * moment::HOUR) / moment::SECOND,
                "iat": now / moment::SECOND,
                "nbf": now / moment::SECOND,
            })
        } else {
            json!({"active": false})
        };
        Answer::new(StatusCode::OK, JSON, body.to_string())
    }

    /// Answers the token endpoint.
    pub fn token(&self, call: &Call) -> Answer {
        if call.method != Method::POST {
            return refused("invalid_request", "must use HTTP POST");
        }
        let body = String::from_utf8_lossy(&call.body).into_owned();
        let mut fields = form(&body);
        fields.extend(form(&call.query));
        let field = |name: &str| {
            fields
                .iter()
                .find(|pair| pair.0 == name)
                .map(|pair| pair.1.as_str())
        };
        let basic = basic(call);
        let (id, secret) = match &basic {
            Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
            None => (field("client_id"), field("client_secret")),
        };
        let grant = field("grant_type").unwrap_or_default();
        if grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" && known_grant(grant) {
            if id != Some(CLIENT_ID) {
                return refused("invalid_client_id", "client identifier invalid");
            }
            if secret.is_some_and(|secret| secret != CLIENT_SECRET) {
                return refused("invalid_client", "invalid client credentials");
            }
        }
        match grant {
            "client_credentials" if secret.is_none() => {
                refused("invalid_client", "invalid client credentials")
            }
            "client_credentials" => self.granted(call, true),
            "password" => {
                let (name, password) = (field("username"), field("password"));
                if is_user(name.unwrap_or_default(), password.unwrap_or_default()) {
                    self.granted(call, false)
                } else {
                    refused("invalid_grant", "authentication failure")
                }
            }
            "refresh_token" => {
                if field("refresh_token") == Some(REFRESH_TOKEN) {
                    self.granted(call, true)
                } else {
                    refused("invalid_grant", "expired access/refresh token")
                }
            }
            "authorization_code" => {
                let code = field("code").unwrap_or_default();
                if self.tokens().codes.remove(code) {
                    self.answered(call, true, true)
                } else {
                    refused("invalid_grant", "invalid authorization code")
                }
            }
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                match field("assertion").map(assertion) {
                    Some(Ok(())) => self.granted(call, true),
                    Some(Err(reason)) => refused("invalid_grant", reason),
                    None => refused("invalid_grant", "invalid assertion"),
                }
            }
            _ => refused("unsupported_grant_type", "grant type not supported"),
        }
    }

    fn granted(&self, call: &Call, scoped: bool) -> Answer {
        self.answered(call, scoped, false)
    }

    fn answered(&self, call: &Call, scoped: bool, refresh: bool) -> Answer {
        let origin = call.origin();
        let mut body = serde_json::Map::new();
        let mut put = |key: &str, value: String| body.insert(key.to_owned(), Value::from(value));
        put("access_token", self.issue());
        if refresh {
            put("refresh_token", REFRESH_TOKEN.to_owned());
        }
        if scoped {
            put(
                "signature",
                "0CmxinZir53YexampleSignatureOfTheSandbox=".to_owned(),
            );
            put("scope", "api".to_owned());
        }
        put("instance_url", origin.clone());
        put("id", format!("{origin}/id/{}/{}", organization(), user()));
        put("token_type", "Bearer".to_owned());
        put("issued_at", moment::now().to_string());
        if scoped {
            put("api_instance_url", origin);
        } else {
            put(
                "signature",
                "0CmxinZir53YexampleSignatureOfTheSandbox=".to_owned(),
            );
        }
        Answer::new(StatusCode::OK, JSON, Value::Object(body).to_string())
            .with("cache-control", "no-cache, no-store")
            .with("pragma", "no-cache")
    }

    /// Answers the end of a session.
    pub fn revoke(&self, call: &Call) -> Answer {
        let body = String::from_utf8_lossy(&call.body).into_owned();
        let fields = form(&body).into_iter().chain(form(&call.query));
        match fields.into_iter().find(|pair| pair.0 == "token") {
            Some((_, token)) if self.knows(&token) => {
                self.expire(&token);
                Answer::empty(StatusCode::OK)
            }
            _ => refused("unsupported_token_type", "this token type is not supported"),
        }
    }
}

fn known_grant(grant: &str) -> bool {
    matches!(
        grant,
        "client_credentials" | "password" | "refresh_token" | "authorization_code"
    )
}

fn refused(error: &str, description: &str) -> Answer {
    let body = json!({"error": error, "error_description": description});
    Answer::new(StatusCode::BAD_REQUEST, JSON, body.to_string())
}

/// Id and secret in the header.
fn basic(call: &Call) -> Option<(String, String)> {
    let (scheme, value) = call.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(base64(value.trim())?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((
        crate::exchange::decode(id, false),
        crate::exchange::decode(secret, false),
    ))
}

/// Checks the form and the claims of a JWT; whether its signature is right is
/// not looked at, since the sandbox has no certificate to check it with.
fn assertion(token: &str) -> Result<(), &'static str> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else {
        return Err("invalid assertion");
    };
    let read = |part: &str| {
        base64(part)
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .ok_or("invalid assertion")
    };
    let (header, claims) = (read(header)?, read(claims)?);
    // RS256 signs with 2048 bits and more.
    let signed = base64(signature).is_some_and(|bytes| bytes.len() >= 128);
    if header["alg"] != "RS256" || !signed {
        return Err("invalid assertion");
    }
    if !claims["aud"].is_string() {
        return Err("audience is invalid");
    }
    if claims["iss"] != CLIENT_ID {
        return Err("client identifier invalid");
    }
    if claims["sub"] != USERNAME {
        return Err("user hasn't approved this consumer");
    }
    // Some clients write milliseconds, and some a text, as the documentation's
    // own example does.
    let text = claims["exp"].as_str().and_then(|text| text.parse().ok());
    let expires = claims["exp"].as_i64().or(text).map(|at| {
        if at > 100_000_000_000 {
            at
        } else {
            at * moment::SECOND
        }
    });
    match expires {
        Some(at) if at > moment::now() => Ok(()),
        _ => Err("assertion has expired"),
    }
}

/// Reads base64 of either alphabet, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    use ::base64::Engine;
    let plain = text
        .trim_end_matches('=')
        .replace('-', "+")
        .replace('_', "/");
    ::base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(plain)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(base64("Zm9vOmJhcg==").unwrap(), b"foo:bar");
        assert_eq!(base64("Zm9vOmJhcg").unwrap(), b"foo:bar");
        assert_eq!(base64("_-8").unwrap(), [0xff, 0xef]);
        assert_eq!(base64("a b"), None);
    }
}
