//! Every way to get a token, against `drover-sandbox`.

mod sandbox;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use drover_pipeline::extract::Extractor;
use drover_pipeline::testing::extractor::{Setup, Source};
use drover_pipeline::{Class, Code};
use reqwest::Method;
use sandbox::Sandbox;
use serde_json::{Value, json};

async fn small() -> Sandbox {
    let (records, late) = (10, false);
    Sandbox::start(Setup { records, late }).await
}

/// An RSA key as `openssl genpkey` writes it.
fn private_key() -> String {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("DER");
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----")
}

fn flow(sandbox: &Sandbox, name: &str) -> Value {
    let mut config = match name {
        "clientCredentials" => json!({}),
        "jwtBearer" => json!({
            "clientSecret": null,
            "username": sandbox.credential("username"),
            "privateKey": private_key(),
        }),
        "refreshToken" => json!({"refreshToken": sandbox.credential("refresh_token")}),
        "password" => json!({
            "username": sandbox.credential("username"),
            "password": sandbox.credential("password"),
            "securityToken": "sandboxSecurityToken",
        }),
        other => panic!("no flow {other}"),
    };
    config["auth"] = json!(name);
    config
}

const FLOWS: [&str; 4] = ["clientCredentials", "jwtBearer", "refreshToken", "password"];

/// Each flow gets a token, and another one when that has expired in the middle.
#[tokio::test]
async fn each_flow_gets_a_token_and_the_next() {
    let sandbox = small().await;
    for name in FLOWS {
        let extractor = sandbox.client(flow(&sandbox, name));
        extractor
            .check()
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let fault = json!({"kind": "expired_token", "path": "/services/data", "at": 1, "times": 1});
        sandbox
            .control(Method::POST, "faults", Some(fault))
            .await
            .expect("set");
        let before = sandbox.tokens().await;
        extractor
            .check()
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(sandbox.tokens().await - before, 1, "{name}");
    }
}

/// An address where nobody listens, and a version that the org does not have.
#[tokio::test]
async fn a_wrong_address_or_version_is_named_by_its_field() {
    let sandbox = small().await;
    let nowhere = "http://127.0.0.1:1";
    let jwt = |field: &str, value: &str| {
        let mut config = flow(&sandbox, "jwtBearer");
        config[field] = json!(value);
        config
    };
    for (config, place) in [
        (json!({"instanceUrl": nowhere}), "sourceConfig.instanceUrl"),
        (jwt("loginUrl", nowhere), "sourceConfig.loginUrl"),
        (json!({"apiVersion": "99.0"}), "sourceConfig.apiVersion"),
    ] {
        let error = sandbox.client(config).check().await.expect_err(place);
        assert_eq!(error.place.as_deref(), Some(place), "{error}");
    }
}

/// What is wrong is named, without a word of the secret.
#[tokio::test]
async fn each_flow_says_what_is_wrong() {
    let sandbox = small().await;
    for (name, field, said) in [
        (
            "clientCredentials",
            "clientSecret",
            "invalid client credentials",
        ),
        (
            "jwtBearer",
            "username",
            "user hasn't approved this consumer",
        ),
        (
            "refreshToken",
            "refreshToken",
            "expired access/refresh token",
        ),
        ("password", "password", "authentication failure"),
    ] {
        let mut config = flow(&sandbox, name);
        config[field] = json!("guessed");
        let error = sandbox.client(config).check().await.expect_err("refused");
        assert_eq!(
            (error.code, error.class()),
            (Code::Unauthorized, Class::Operator)
        );
        assert!(error.message.contains(said), "{error}");
        assert!(!error.to_string().contains("guessed"), "{error}");
    }
}

/// The app loses its scope while Drover works: no new token is asked for, and a
/// person is told which right is missing.
#[tokio::test]
async fn a_lost_scope_is_named() {
    let sandbox = small().await;
    let extractor = sandbox.extractor();
    extractor.check().await.expect("a token");
    let fault = json!({"kind": "lost_scope", "path": "/services/data", "at": 1, "times": 100});
    sandbox
        .control(Method::POST, "faults", Some(fault))
        .await
        .expect("set");
    let before = sandbox.requests().await;
    let error = extractor.check().await.expect_err("no scope");
    assert_eq!(error.code, Code::Forbidden);
    assert!(error.message.contains("lost the scope"), "{error}");
    assert!(error.message.contains("(api)"), "{error}");
    assert_eq!(sandbox.requests().await - before, 1);
}
