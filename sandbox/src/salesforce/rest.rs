//! The REST API: which path means what.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::errors::{ApiError, JSON};
use super::query::Request;
use super::schema::Lack;
use super::{
    Salesforce, auth, blob, bulk, collections, composite, limits, replication, rows, search, soap,
    tree,
};
use crate::exchange::{Answer, Call};

/// The versions served: the first one that the real host still has, the newest.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 31..=67;
/// Rows of a page: fewest, most, and what a client gets that does not ask.
const BATCH: (usize, usize, usize) = (200, 2_000, 2_000);

/// The longest path with query string that the real host takes.
const LONGEST_URL: usize = 16 << 10;

/// A JSON answer of the API.
pub fn ok(body: &Value) -> Answer {
    Answer::new(StatusCode::OK, JSON, body.to_string())
}

/// Answers any call but those of the token endpoint.
pub fn answer(org: &Salesforce, call: &Call) -> Answer {
    if call.path.len() + call.query.len() > LONGEST_URL {
        let page = "<h1>Bad Message 414</h1><pre>reason: URI Too Long</pre>";
        return Answer::new(
            StatusCode::URI_TOO_LONG,
            "text/html;charset=iso-8859-1",
            page,
        );
    }
    let segments = call.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["services", "oauth2", "token"] => org.auth.token(call),
        ["services", "oauth2", "revoke"] => org.auth.revoke(call),
        ["services", "oauth2", "userinfo"] => identified(org, call, userinfo),
        ["services", "async", version, rest @ ..] => bulk::v1::answer(org, call, version, rest),
        ["services", "oauth2", "authorize"] => org.auth.authorize(call),
        ["services", "oauth2", "introspect"] => org.auth.introspect(call),
        ["services", "Soap", dialect @ ("u" | "c"), version, ..] => {
            soap::answer(org, call, dialect, version)
        }
        ["id", _, _] => identified(org, call, identity),
        ["services", "data"] if call.method == Method::GET => ok(&versions()),
        ["services", "data", version, rest @ ..] => {
            if !org.auth.allows(call) {
                return ApiError::session().answer();
            }
            let answer = if !org.usage.take() {
                ApiError::limit().answer()
            } else if known_version(version) {
                let base = format!("/services/data/{version}");
                routed(org, call, &base, rest).unwrap_or_else(|error| error.answer())
            } else {
                ApiError::not_found().answer()
            };
            answer.with("sforce-limit-info", &org.usage.header())
        }
        _ => ApiError::not_found().answer(),
    }
}

fn identified(org: &Salesforce, call: &Call, body: fn(&Call) -> Value) -> Answer {
    if org.auth.allows(call) {
        ok(&body(call))
    } else {
        Answer::new(
            StatusCode::FORBIDDEN,
            "text/html;charset=UTF-8",
            "Bad_OAuth_Token",
        )
    }
}

fn userinfo(call: &Call) -> Value {
    let origin = call.origin();
    json!({
        "sub": format!("{origin}/id/{}/{}", auth::organization(), auth::user()),
        "user_id": auth::user().to_string(),
        "organization_id": auth::organization().to_string(),
        "preferred_username": auth::USERNAME,
        "nickname": "admin",
        "name": "Admin Sandbox",
        "email": "admin@example.com",
        "email_verified": true,
        "given_name": "Admin",
        "family_name": "Sandbox",
        "zoneinfo": "America/Los_Angeles",
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_US",
        "utcOffset": -28_800_000,
    })
}

fn identity(call: &Call) -> Value {
    let origin = call.origin();
    let data = format!("{origin}/services/data/v{{version}}");
    json!({
        "id": format!("{origin}/id/{}/{}", auth::organization(), auth::user()),
        "asserted_user": true,
        "user_id": auth::user().to_string(),
        "organization_id": auth::organization().to_string(),
        "username": auth::USERNAME,
        "nick_name": "admin",
        "display_name": "Admin Sandbox",
        "email": "admin@example.com",
        "email_verified": true,
        "first_name": "Admin",
        "last_name": "Sandbox",
        "timezone": "America/Los_Angeles",
        "urls": {
            "rest": format!("{data}/"),
            "sobjects": format!("{data}/sobjects/"),
            "query": format!("{data}/query/"),
            "search": format!("{data}/search/"),
        },
        "active": true,
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_US",
        "utcOffset": -28_800_000,
        "is_app_installed": true,
    })
}

fn known_version(version: &str) -> bool {
    version
        .strip_prefix('v')
        .and_then(|number| number.strip_suffix(".0"))
        .and_then(|number| number.parse().ok())
        .is_some_and(|number: u32| VERSIONS.contains(&number))
}

/// Releases come in spring, summer and winter; winter is named after the
/// year to come. v31 was Summer '14.
fn versions() -> Value {
    VERSIONS
        .map(|version| {
            let seasons = version - 30;
            let (season, year) = match seasons % 3 {
                1 => ("Summer", 14 + seasons / 3),
                2 => ("Winter", 15 + seasons / 3),
                _ => ("Spring", 14 + seasons / 3),
            };
            // One label of the real list has another apostrophe.
            let apostrophe = if version == 42 { '’' } else { '\'' };
            json!({
                "label": format!("{season} {apostrophe}{year}"),
                "url": format!("/services/data/v{version}.0"),
                "version": format!("{version}.0"),
            })
        })
        .collect()
}

fn resources(base: &str, origin: &str) -> Value {
    let mut all = serde_json::Map::new();
    for name in [
        "composite",
        "jobs",
        "limits",
        "parameterizedSearch",
        "query",
        "queryAll",
        "recent",
        "search",
        "sobjects",
    ] {
        all.insert(name.to_owned(), Value::from(format!("{base}/{name}")));
    }
    all.insert(
        "identity".to_owned(),
        Value::from(format!(
            "{origin}/id/{}/{}",
            auth::organization(),
            auth::user()
        )),
    );
    Value::Object(all)
}

/// Answers a call below a version; also the parts of composite calls.
pub fn routed(
    org: &Salesforce,
    call: &Call,
    base: &str,
    rest: &[&str],
) -> Result<Answer, ApiError> {
    let method = method(call);
    let reads = |allowed: &str| {
        if matches!(method, Method::GET | Method::HEAD) {
            Ok(())
        } else {
            Err(ApiError::method(method.as_str(), allowed))
        }
    };
    match rest {
        [] => {
            reads("HEAD,GET")?;
            Ok(ok(&resources(base, &call.origin())))
        }
        ["limits"] => {
            reads("HEAD,GET")?;
            Ok(ok(&limits::limits(&org.usage, org.jobs.queries())))
        }
        ["limits", "recordCount"] => {
            reads("HEAD,GET")?;
            Ok(ok(&limits::record_counts(&org.reading(), call)?))
        }
        ["query" | "queryAll"] => {
            reads("HEAD,GET")?;
            let text = call.parameter("q").ok_or_else(|| {
                super::soql::malformed("SOQL statements can not be empty or null")
            })?;
            let store = org.reading();
            let body =
                org.cursors
                    .start(&store, &text, rest[0] == "queryAll", request(call, base))?;
            Ok(Answer::new(StatusCode::OK, JSON, body))
        }
        ["query" | "queryAll", locator] => {
            reads("HEAD,GET")?;
            let body = org
                .cursors
                .resume(&org.reading(), locator, request(call, base))?;
            Ok(Answer::new(StatusCode::OK, JSON, body))
        }
        ["recent"] => {
            reads("HEAD,GET")?;
            Ok(ok(&search::recent(&org.reading(), base)))
        }
        ["search"] | ["parameterizedSearch"] => search::answer(org, call, base),
        ["sobjects"] => {
            reads("HEAD,GET")?;
            org.described.global(call, &org.reading().schema, base)
        }
        ["sobjects", object, "describe"] => {
            reads("HEAD,GET")?;
            let store = org.reading();
            let number = store.schema.shown(object).ok_or_else(ApiError::not_found)?;
            org.described.object(call, &store, number, base)
        }
        ["sobjects", object, what @ ("updated" | "deleted")] => {
            reads("HEAD,GET")?;
            let store = org.reading();
            let number = store.schema.shown(object).ok_or_else(ApiError::not_found)?;
            let described = &store.schema.objects[number];
            if !described.can(Lack::Replicate) {
                return Err(ApiError::bad(
                    "INVALID_TYPE_FOR_OPERATION",
                    format!("entity type {} is not replicateable", described.name),
                ));
            }
            let (now, delay) = (super::moment::now(), org.visibility_delay);
            Ok(ok(&match *what {
                "updated" => replication::updated(&store, number, call, now, delay)?,
                _ => replication::deleted(&store, number, call, now, delay)?,
            }))
        }
        ["sobjects", object] => rows::collection(org, call, base, &method, object),
        ["sobjects", object, id] => rows::by_id(org, call, base, &method, object, id),
        ["sobjects", object, id, field] if blob::is_one(org, object, field) => {
            reads("HEAD,GET")?;
            blob::answer(org, object, id, field)
        }
        ["sobjects", object, field, value] => {
            rows::by_field(org, call, base, &method, object, field, value)
        }
        ["jobs", rest @ ..] => bulk::answer(org, call, base, &method, rest),
        ["composite", "sobjects", rest @ ..] => collections::answer(org, call, base, &method, rest),
        ["composite", "tree", object] if method == Method::POST => tree::answer(org, call, object),
        ["composite", "graph"] if method == Method::POST => composite::graphs(org, call),
        ["composite"] if method == Method::POST => composite::requests(org, call),
        ["composite", "batch"] if method == Method::POST => composite::batch(org, call),
        _ => Err(ApiError::not_found()),
    }
}

/// The method; clients that can't send PATCH say so in a parameter.
fn method(call: &Call) -> Method {
    call.parameter("_HttpMethod")
        .filter(|_| call.method == Method::POST)
        .and_then(|name| Method::from_bytes(name.as_bytes()).ok())
        .unwrap_or_else(|| call.method.clone())
}

fn request<'a>(call: &Call, base: &'a str) -> Request<'a> {
    let wanted = call
        .header("sforce-query-options")
        .and_then(|options| {
            options.split(',').find_map(|option| {
                let (name, value) = option.split_once('=')?;
                name.trim()
                    .eq_ignore_ascii_case("batchSize")
                    .then(|| value.trim().parse::<usize>().ok())?
            })
        })
        .unwrap_or(BATCH.2);
    Request {
        base,
        batch: wanted.clamp(BATCH.0, BATCH.1),
    }
}

/// The path of a call with ids and locators left out, for counting.
pub fn label(call: &Call) -> String {
    let segments = call.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let path = match parts.as_slice() {
        ["services", "data", version, "query" | "queryAll", _] => {
            vec!["services", "data", version, parts[3], "{locator}"]
        }
        ["services", "async", version, "job", _, rest @ ..] => {
            let rest = rest.iter().map(|part| match part.len() {
                15 | 18 => "{id}",
                _ => part,
            });
            ["services", "async", version, "job", "{id}"]
                .into_iter()
                .chain(rest)
                .collect()
        }
        ["services", "data", version, "jobs", kind, _, rest @ ..] => {
            [&["services", "data", version, "jobs", kind, "{id}"], rest].concat()
        }
        ["services", "data", version, "sobjects", object, id]
            if !matches!(*id, "describe" | "updated" | "deleted") =>
        {
            vec!["services", "data", version, "sobjects", object, "{id}"]
        }
        ["services", "data", version, "sobjects", object, field, _] => {
            vec![
                "services", "data", version, "sobjects", object, field, "{value}",
            ]
        }
        other => other.to_vec(),
    };
    format!("/{}", path.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_as_the_real_ones() {
        let all = versions();
        let list = all.as_array().unwrap();
        let label = |version: &str| {
            list.iter()
                .find(|entry| entry["version"] == version)
                .unwrap()["label"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(label("31.0"), "Summer '14");
        assert_eq!(label("32.0"), "Winter '15");
        assert_eq!(label("33.0"), "Spring '15");
        assert_eq!(label("34.0"), "Summer '15");
        assert_eq!(label("66.0"), "Spring '26");
        assert_eq!(label("67.0"), "Summer '26");
        assert!(known_version("v55.0") && !known_version("v68.0") && !known_version("55.0"));
    }
}
