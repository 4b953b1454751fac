//! Ways in: OAuth flows, SOAP login, the life of a token.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{DATA, Reply, Sandbox, binary};

fn credentials() -> Value {
    let printed = binary()
        .args(["credentials", "--system", "salesforce"])
        .output()
        .unwrap();
    serde_json::from_slice(&printed.stdout).unwrap()
}

async fn token(sandbox: &Sandbox, form: &[(&str, &str)]) -> Reply {
    let request = sandbox
        .http
        .post(format!("{}/services/oauth2/token", sandbox.url))
        .form(form);
    sandbox.send(request).await
}

async fn soap(sandbox: &Sandbox, version: &str, name: &str, password: &str) -> Reply {
    let body = format!(
        "<?xml version=\"1.0\"?><se:Envelope xmlns:se=\"http://schemas.xmlsoap.org/soap/envelope/\"><se:Body>\
         <login xmlns=\"urn:partner.soap.sforce.com\"><username>{name}</username><password>{password}</password>\
         </login></se:Body></se:Envelope>"
    );
    let request = sandbox
        .http
        .post(format!("{}/services/Soap/u/{version}", sandbox.url))
        .header("content-type", "text/xml")
        .header("soapaction", "login")
        .header("x-forwarded-proto", "https")
        .body(body);
    sandbox.send(request).await
}

fn element(text: &str, name: &str) -> String {
    let start = text
        .find(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("no {name}: {text}"));
    let rest = &text[start + name.len() + 2..];
    rest[..rest.find('<').unwrap()].to_owned()
}

#[tokio::test]
async fn soap_login_gives_a_session() {
    let sandbox = Sandbox::start(&["--records", "5"]);
    let known = credentials();
    let name = known["username"].as_str().unwrap();
    let password = known["password"].as_str().unwrap();
    let with_token = format!("{password}{}", "sandboxSecurityToken");
    for password in [password, with_token.as_str()] {
        let reply = soap(&sandbox, "59.0", name, password).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let server = element(&reply.text, "serverUrl");
        assert!(
            server.starts_with("https://127.0.0.1:")
                && server.contains("/services/Soap/u/59.0/00D"),
            "{server}"
        );
        let session = element(&reply.text, "sessionId");
        let request = sandbox
            .http
            .get(format!("{}{DATA}/limits", sandbox.url))
            .bearer_auth(&session);
        assert_eq!(sandbox.send(request).await.status, 200);
        assert_eq!(element(&reply.text, "organizationId").len(), 18);
        assert!(element(&reply.text, "userId").starts_with("005"));
    }
    let wrong = soap(&sandbox, "59.0", name, "x").await;
    assert_eq!(wrong.status, 500);
    assert_eq!(element(&wrong.text, "sf:exceptionCode"), "INVALID_LOGIN");
    assert_eq!(
        element(&wrong.text, "sf:exceptionMessage"),
        "Invalid username, password, security token; or user locked out."
    );
    // From version 65 on there is no login.
    let late = soap(&sandbox, "65.0", name, password).await;
    assert_eq!(
        (
            late.status.as_u16(),
            element(&late.text, "sf:exceptionCode").as_str()
        ),
        (500, "INVALID_OPERATION")
    );
    let early = soap(&sandbox, "20.0", name, password).await;
    assert_eq!(
        element(&early.text, "sf:exceptionCode"),
        "UNSUPPORTED_API_VERSION"
    );
}

#[tokio::test]
async fn the_web_server_flow_uses_a_code_once() {
    let sandbox = Sandbox::start(&["--records", "5"]);
    let known = credentials();
    let client = known["client_id"].as_str().unwrap();
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let answer = http
        .get(format!("{}/services/oauth2/authorize", sandbox.url))
        .query(&[
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", "http://localhost/cb"),
            ("state", "s 1"),
        ])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 302);
    let back = answer.headers()["location"].to_str().unwrap().to_owned();
    assert!(
        back.starts_with("http://localhost/cb?code=aPrx") && back.ends_with("&state=s+1"),
        "{back}"
    );
    let code = back
        .split("code=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("client_id", client),
        ("client_secret", known["client_secret"].as_str().unwrap()),
        ("redirect_uri", "http://localhost/cb"),
    ];
    let first = token(&sandbox, &form).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let first = first.json();
    let again = token(&sandbox, &form).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["error"]),
        (400, &json!("invalid_grant"))
    );
    let refreshed = token(
        &sandbox,
        &[
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", first["refresh_token"].as_str().unwrap()),
        ],
    )
    .await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.text);

    let introspect = async |token: &str| {
        let request = sandbox
            .http
            .post(format!("{}/services/oauth2/introspect", sandbox.url))
            .form(&[("token", token)]);
        sandbox.send(request).await.json()
    };
    let access = first["access_token"].as_str().unwrap();
    assert_eq!(introspect(access).await["active"], true);
    let revoke = sandbox
        .http
        .post(format!("{}/services/oauth2/revoke", sandbox.url))
        .form(&[("token", access)]);
    assert_eq!(sandbox.send(revoke).await.status, 200);
    assert_eq!(introspect(access).await, json!({"active": false}));
}

#[tokio::test]
async fn assertions_must_have_the_form_of_signed_ones() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let sandbox = Sandbox::start(&["--records", "5"]);
    let known = credentials();
    let soon = chrono::Utc::now().timestamp() + 180;
    let asked = async |header: Value, change: Value, signature: &[u8]| {
        let mut claims = json!({
            "iss": known["client_id"],
            "sub": known["username"],
            "aud": "https://login.salesforce.com",
            "exp": soon,
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let parts = [
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string()),
            BASE64.encode(signature),
        ];
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &parts.join(".")),
        ];
        let reply = token(&sandbox, &form).await;
        (
            reply.status.as_u16(),
            reply.json()["error_description"]
                .as_str()
                .unwrap_or("")
                .to_owned(),
        )
    };
    let good = json!({"alg": "RS256"});
    let signature = [7_u8; 256];
    assert_eq!(asked(good.clone(), json!({}), &signature).await.0, 200);
    let text = json!({"exp": soon.to_string()});
    assert_eq!(asked(good.clone(), text, &signature).await.0, 200);
    for (header, change, signature, said) in [
        (
            json!({"alg": "none"}),
            json!({}),
            &signature[..],
            "invalid assertion",
        ),
        (
            good.clone(),
            json!({}),
            &signature[..10],
            "invalid assertion",
        ),
        (
            good.clone(),
            json!({"iss": "x"}),
            &signature[..],
            "client identifier invalid",
        ),
        (
            good.clone(),
            json!({"sub": "x"}),
            &signature[..],
            "user hasn't approved this consumer",
        ),
        (
            good.clone(),
            json!({"aud": null}),
            &signature[..],
            "audience is invalid",
        ),
        (
            good,
            json!({"exp": 1}),
            &signature[..],
            "assertion has expired",
        ),
    ] {
        assert_eq!(
            asked(header, change, signature).await,
            (400, said.to_owned())
        );
    }
}

#[tokio::test]
async fn tokens_end_and_lose_scopes() {
    let sandbox = Sandbox::start(&["--records", "5"]);
    let known = credentials();
    sandbox
        .post("/_sandbox/session", &json!({"lifetime_s": 0.2}))
        .await;
    let given = token(
        &sandbox,
        &[
            ("grant_type", "client_credentials"),
            ("client_id", known["client_id"].as_str().unwrap()),
            ("client_secret", known["client_secret"].as_str().unwrap()),
        ],
    )
    .await
    .json();
    let access = given["access_token"].as_str().unwrap().to_owned();
    let ask = async || {
        let request = sandbox
            .http
            .get(format!("{}{DATA}/limits", sandbox.url))
            .bearer_auth(&access);
        sandbox.send(request).await
    };
    crate::harness::until("the token ends", async || ask().await.status == 401).await;
    assert_eq!(ask().await.code(), "INVALID_SESSION_ID");
    sandbox
        .fault(json!({"kind": "lost_scope", "path": "/services/data"}))
        .await;
    let lost = sandbox.get(&format!("{DATA}/limits")).await;
    assert_eq!(lost.status, 403);
    assert_eq!(
        lost.json()[0]["message"],
        "This session is not valid for use with the REST API"
    );
    let root = sandbox.get(DATA).await.json();
    assert!(root["identity"].as_str().unwrap().contains("/id/00D"));
}

/// Bulk API 1.0, as its clients use it.
#[tokio::test]
async fn batches_are_worked_off() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let call = async |method: Method, path: &str, kind: &str, body: String| {
        let request = sandbox
            .http
            .request(
                method,
                format!("{}/services/async/62.0/{path}", sandbox.url),
            )
            .header("x-sfdc-session", crate::harness::TOKEN)
            .header("content-type", kind)
            .body(body);
        sandbox.send(request).await
    };
    let xml = "application/xml; charset=UTF-8";
    let job = "<?xml version=\"1.0\"?><jobInfo xmlns=\"http://www.force.com/2009/06/asyncapi/dataload\">\
               <operation>insert</operation><object>Account</object><contentType>CSV</contentType></jobInfo>";
    let made = call(Method::POST, "job", xml, job.to_owned()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = element(&made.text, "id");
    assert_eq!(element(&made.text, "state"), "Open");
    let rows = "Name,Website\nA,a.example\n,b.example\nC,\n";
    let batch = call(
        Method::POST,
        &format!("job/{id}/batch"),
        "text/csv",
        rows.to_owned(),
    )
    .await;
    assert_eq!(
        (
            batch.status.as_u16(),
            element(&batch.text, "state").as_str()
        ),
        (201, "Queued")
    );
    let batch = element(&batch.text, "id");
    let close = "<jobInfo xmlns=\"x\"><state>Closed</state></jobInfo>".to_owned();
    let closed = call(Method::POST, &format!("job/{id}"), xml, close).await;
    assert_eq!(element(&closed.text, "state"), "Closed");
    assert_eq!(element(&closed.text, "numberRecordsFailed"), "1");
    let looked = call(
        Method::GET,
        &format!("job/{id}/batch/{batch}"),
        xml,
        String::new(),
    )
    .await;
    assert_eq!(element(&looked.text, "state"), "Completed");
    let result = call(
        Method::GET,
        &format!("job/{id}/batch/{batch}/result"),
        xml,
        String::new(),
    )
    .await;
    let lines: Vec<&str> = result.text.lines().collect();
    assert_eq!(lines[0], "\"Id\",\"Success\",\"Created\",\"Error\"");
    assert!(
        lines[1].ends_with("\"true\",\"true\",\"\"")
            && lines[3].ends_with("\"true\",\"true\",\"\"")
    );
    assert!(lines[2].contains("REQUIRED_FIELD_MISSING"), "{}", lines[2]);

    let job = json!({"operation": "query", "object": "Account", "contentType": "JSON"});
    let made = call(Method::POST, "job", "application/json", job.to_string())
        .await
        .json();
    let id = made["id"].as_str().unwrap();
    let query = "SELECT Id, Name, CreatedDate FROM Account ORDER BY Name".to_owned();
    let batch = call(
        Method::POST,
        &format!("job/{id}/batch"),
        "application/json",
        query,
    )
    .await
    .json();
    let path = format!("job/{id}/batch/{}/result", batch["id"].as_str().unwrap());
    let list = call(Method::GET, &path, "application/json", String::new())
        .await
        .json();
    let path = format!("{path}/{}", list[0].as_str().unwrap());
    let rows = call(Method::GET, &path, "application/json", String::new())
        .await
        .json();
    assert_eq!(
        (&rows[0]["Name"], &rows[1]["Name"]),
        (&json!("A"), &json!("C"))
    );
    assert!(rows[0]["CreatedDate"].is_i64());

    let refused = sandbox
        .send(
            sandbox
                .http
                .post(format!("{}/services/async/62.0/job", sandbox.url))
                .header("x-sfdc-session", "x"),
        )
        .await;
    assert_eq!(element(&refused.text, "exceptionCode"), "InvalidSessionId");
}

#[tokio::test]
async fn answers_are_packed_for_who_asks() {
    let sandbox = Sandbox::start(&["--records", "50"]);
    let path = format!("{DATA}/sobjects/Account/describe");
    let raw = reqwest::Client::builder().no_gzip().build().unwrap();
    let asked = |kind: &'static str| {
        let request = raw
            .get(format!("{}{path}", sandbox.url))
            .bearer_auth(crate::harness::TOKEN)
            .header("accept-encoding", kind);
        sandbox.send(request)
    };
    let plain = asked("identity").await;
    let packed = asked("gzip").await;
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_ne!(plain.text, packed.text);
    let unpacked = reqwest::Client::builder().gzip(true).build().unwrap();
    let answer = unpacked
        .get(format!("{}{path}", sandbox.url))
        .bearer_auth(crate::harness::TOKEN);
    assert_eq!(
        answer.send().await.unwrap().text().await.unwrap(),
        plain.text
    );
}
