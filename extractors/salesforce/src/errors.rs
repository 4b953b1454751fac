//! What the API's refusals mean.
//!
//! The shapes and codes are those of `reference/salesforce.md`: an array of
//! `{message, errorCode, fields}` from the API (section 1, general error
//! shape), an object `{error, error_description}` from the token endpoint
//! (section 1, token errors), 403 for a used-up quota (section 8).

use std::time::Duration;

use drover_pipeline::http::Answer;
use drover_pipeline::{Code, Error};
use serde::Deserialize;

/// One entry of the API's error array.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "errorCode", default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Entry {
    /// Whether it refuses what the token may be used for, not the token itself.
    fn lost_its_scope(&self) -> bool {
        NEVER_HEALS.iter().any(|text| self.message.contains(text))
    }
}

/// The token endpoint's error.
#[derive(Debug, Deserialize)]
struct TokenError {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The API's error codes that mean something to Drover, whatever the status.
/// What is not listed is [`Code::Refused`]: a person is asked.
const TABLE: &[(&str, Code)] = &[
    ("INVALID_SESSION_ID", Code::Unauthorized),
    ("REQUEST_LIMIT_EXCEEDED", Code::QuotaExhausted),
    ("INVALID_TYPE", Code::UnknownObject),
    ("INVALID_FIELD", Code::UnknownField),
    ("API_DISABLED_FOR_ORG", Code::Forbidden),
    ("API_CURRENTLY_DISABLED", Code::Forbidden),
    ("INSUFFICIENT_ACCESS", Code::Forbidden),
    ("FUNCTIONALITY_NOT_ENABLED", Code::Forbidden),
    ("SERVER_UNAVAILABLE", Code::ServerError),
    ("UNKNOWN_EXCEPTION", Code::ServerError),
    ("UNABLE_TO_LOCK_ROW", Code::ServerError),
    ("QUERY_TIMEOUT", Code::ServerError),
    // A page's locator has lapsed; the call starts again from its own key.
    ("INVALID_QUERY_LOCATOR", Code::BadAnswer),
];

/// Messages of a refused token that no new one mends (`reference/salesforce.md`
/// section 1): what it stands for may not be used here.
const NEVER_HEALS: [&str; 2] = ["not valid for use with the", "is not attached to"];

/// Whether the answer says that the token has expired, so that a new one helps.
pub fn session_expired(answer: &Answer) -> bool {
    answer.status == 401
        && first(answer)
            .is_some_and(|entry| entry.code == "INVALID_SESSION_ID" && !entry.lost_its_scope())
}

/// The failure that an answer of the API tells of; nothing if it is a success.
/// `about` is the object that was asked for.
pub fn of_api(answer: &Answer, about: Option<&str>) -> Option<Error> {
    if answer.status == 200 {
        return None;
    }
    let Some(entry) = first(answer) else {
        return Some(of_status(answer));
    };
    let code = match (answer.status, entry.code.as_str()) {
        (_, "INVALID_SESSION_ID") if entry.lost_its_scope() => Code::Forbidden,
        (403, "REQUEST_LIMIT_EXCEEDED") if entry.message.contains("ConcurrentRequests") => {
            Code::Throttled
        }
        (404, "NOT_FOUND") if about.is_some() => Code::UnknownObject,
        (status, known) => TABLE
            .iter()
            .find(|row| row.0 == known)
            .map_or_else(|| by_status(status), |row| row.1),
    };
    let text = brief(&entry.message);
    let message = match (code, about) {
        (Code::UnknownObject, Some(object)) => {
            format!("Salesforce does not know `{object}`: {text}")
        }
        (Code::Forbidden, _) if entry.lost_its_scope() => format!(
            "Salesforce knows the token and no longer lets it use the API: the app has lost the \
             scope \"Manage user data via APIs (api)\", or its user the right \"API Enabled\": {text}"
        ),
        (Code::UnknownField, _) => match quoted_behind(&entry.message, "No such column '") {
            Some(field) => {
                let object = about.unwrap_or("the object");
                format!("{object} has no field `{field}`, or this user may not see it")
            }
            None => format!("Salesforce does not know a field: {text}"),
        },
        _ => format!("Salesforce answered {}: {text}", answer.status),
    };
    Some(finish(Error::new(code, message), answer).source_code(entry.code))
}

/// The failure that an answer of the token endpoint tells of; nothing if it is
/// a success.
pub fn of_token(answer: &Answer) -> Option<Error> {
    if answer.status == 200 {
        return None;
    }
    let Ok(said) = serde_json::from_slice::<TokenError>(&answer.body) else {
        if answer.status == 404 || (300..400).contains(&answer.status) {
            return Some(Error::new(
                Code::Refused,
                format!(
                    "there is no token endpoint at instanceUrl (status {}); give the org's My Domain address",
                    answer.status
                ),
            ));
        }
        return Some(of_api(answer, None).unwrap_or_else(|| of_status(answer)));
    };
    let code = if answer.status >= 500 {
        Code::ServerError
    } else if answer.status == 429 || said.error_description.contains("rate exceeded") {
        Code::Throttled
    } else {
        Code::Unauthorized
    };
    let message = format!(
        "Salesforce gives no token: {}",
        brief(&said.error_description)
    );
    Some(finish(Error::new(code, message), answer).source_code(said.error))
}

/// A success that is not what the API promises: an HTML page, half an answer.
pub fn not_the_api(answer: &Answer, why: &str) -> Error {
    let kind = answer.header("content-type").unwrap_or("no content type");
    Error::new(
        Code::BadAnswer,
        format!(
            "the answer with status {} is not the API's ({kind}, {} bytes): {why}",
            answer.status,
            answer.body.len()
        ),
    )
}

fn first(answer: &Answer) -> Option<Entry> {
    let entries: Vec<Entry> = serde_json::from_slice(&answer.body).ok()?;
    entries.into_iter().find(|entry| !entry.code.is_empty())
}

/// A failure without the API's own words.
fn of_status(answer: &Answer) -> Error {
    let code = match by_status(answer.status) {
        // The API explains every refusal; what doesn't, is something between us.
        Code::Refused if answer.status >= 400 => Code::BadAnswer,
        code => code,
    };
    let message = format!(
        "status {} without an error of the API ({})",
        answer.status,
        answer.header("content-type").unwrap_or("no content type")
    );
    finish(Error::new(code, message), answer)
}

fn by_status(status: u16) -> Code {
    match status {
        401 => Code::Unauthorized,
        403 => Code::Forbidden,
        408 | 500..=599 => Code::ServerError,
        429 => Code::Throttled,
        _ => Code::Refused,
    }
}

/// Adds how long to wait. The real API names no time for its quota: too many
/// long requests at once heal in seconds, the daily quota in hours (section 8);
/// without a header the runner's own back-off decides.
fn finish(error: Error, answer: &Answer) -> Error {
    match (answer.retry_after(), error.code) {
        (Some(wait), _) => error.retry_after(wait),
        (None, Code::Throttled) => error.retry_after(Duration::from_secs(5)),
        (None, _) => error,
    }
}

/// The part of a message that says what is wrong. Messages about a query repeat
/// the query first and point into it; the sentence stands behind that.
fn brief(message: &str) -> String {
    let sentence = match message.find("ERROR at Row:") {
        Some(at) => message[at..].split_once('\n').map_or("", |parts| parts.1),
        None => message,
    };
    let words = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words,
    }
}

fn quoted_behind<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    let rest = &message[message.find(start)? + start.len()..];
    rest.split_once('\'').map(|parts| parts.0)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::Class;
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            HeaderValue::from_static("application/json;charset=UTF-8"),
        );
        Answer {
            status,
            headers,
            body: body.as_bytes().to_vec(),
        }
    }

    fn said(status: u16, code: &str, message: &str) -> Answer {
        answer(
            status,
            &serde_json::json!([{"message": message, "errorCode": code}]).to_string(),
        )
    }

    #[test]
    fn each_refusal_has_its_code() {
        // Codes and messages as recorded (errors.jsonl) or quoted by the reference.
        for (status, code, message, expected) in [
            (
                401,
                "INVALID_SESSION_ID",
                "Session expired or invalid",
                Code::Unauthorized,
            ),
            (
                403,
                "INVALID_SESSION_ID",
                "This session is not valid for use with the REST API",
                Code::Forbidden,
            ),
            (
                401,
                "INVALID_AUTH_HEADER",
                "INVALID_HEADER_TYPE",
                Code::Unauthorized,
            ),
            (
                403,
                "REQUEST_LIMIT_EXCEEDED",
                "TotalRequests Limit exceeded.",
                Code::QuotaExhausted,
            ),
            (
                403,
                "REQUEST_LIMIT_EXCEEDED",
                "ConcurrentRequests (Concurrent API Requests) Limit exceeded.",
                Code::Throttled,
            ),
            (
                403,
                "API_DISABLED_FOR_ORG",
                "The REST API is not enabled",
                Code::Forbidden,
            ),
            (403, "SOMETHING_ELSE", "no", Code::Forbidden),
            (
                404,
                "NOT_FOUND",
                "The requested resource does not exist",
                Code::UnknownObject,
            ),
            (
                400,
                "INVALID_TYPE",
                "sObject type 'Accout' is not supported.",
                Code::UnknownObject,
            ),
            (
                400,
                "INVALID_FIELD",
                "No such column 'X__c' on entity 'Contact'.",
                Code::UnknownField,
            ),
            (400, "MALFORMED_QUERY", "unexpected token", Code::Refused),
            (
                400,
                "INVALID_QUERY_LOCATOR",
                "invalid query locator",
                Code::BadAnswer,
            ),
            (
                500,
                "UNKNOWN_EXCEPTION",
                "An unexpected error occurred",
                Code::ServerError,
            ),
            (503, "SERVER_UNAVAILABLE", "try again", Code::ServerError),
        ] {
            let error = of_api(&said(status, code, message), Some("Contact")).expect("a failure");
            assert_eq!(error.code, expected, "{status} {code}");
            assert_eq!(error.source_code.as_deref(), Some(code));
        }
        assert_eq!(
            of_api(&said(404, "NOT_FOUND", "x"), None).map(|e| e.code),
            Some(Code::Refused)
        );
        assert!(of_api(&answer(200, "{}"), None).is_none());
    }

    #[test]
    fn the_message_names_the_field_and_leaves_the_query_out() {
        let message = "\nSELECT Id, Nope__c FROM Contact\n           ^\nERROR at Row:1:Column:12\nNo such column \
                       'Nope__c' on entity 'Contact'. If you are attempting to use a custom field, ...";
        let error =
            of_api(&said(400, "INVALID_FIELD", message), Some("Contact")).expect("a failure");
        assert_eq!(
            error.message,
            "Contact has no field `Nope__c`, or this user may not see it"
        );
        let error = of_api(&said(400, "MALFORMED_QUERY", message), None).expect("a failure");
        assert!(
            error
                .message
                .starts_with("Salesforce answered 400: No such column"),
            "{error}"
        );
        assert!(!error.message.contains("SELECT"));
    }

    #[test]
    fn pages_of_others_are_no_answers() {
        for (status, expected) in [
            (400, Code::BadAnswer),
            (401, Code::Unauthorized),
            (403, Code::Forbidden),
            (404, Code::BadAnswer),
            (429, Code::Throttled),
            (502, Code::ServerError),
            (302, Code::Refused),
        ] {
            let error = of_api(&answer(status, "<html>"), Some("Case")).expect("a failure");
            assert_eq!(error.code, expected, "{status}");
        }
    }

    #[test]
    fn token_errors_ask_the_operator() {
        let refused = |status, body: &str| of_token(&answer(status, body)).expect("a failure");
        let error = refused(
            400,
            r#"{"error":"invalid_client","error_description":"invalid client credentials"}"#,
        );
        assert_eq!(
            (error.code, error.class()),
            (Code::Unauthorized, Class::Operator)
        );
        assert_eq!(error.source_code.as_deref(), Some("invalid_client"));
        let rate = r#"{"error":"invalid_grant","error_description":"login rate exceeded"}"#;
        assert_eq!(refused(400, rate).code, Code::Throttled);
        assert_eq!(refused(404, "<html>").code, Code::Refused);
        assert_eq!(refused(503, "busy").code, Code::ServerError);
        assert!(of_token(&answer(200, "{}")).is_none());
    }

    #[test]
    fn waiting_is_as_told() {
        let mut told = said(
            403,
            "REQUEST_LIMIT_EXCEEDED",
            "TotalRequests Limit exceeded.",
        );
        told.headers
            .insert("retry-after", HeaderValue::from_static("7"));
        let wait = |answer: &Answer| of_api(answer, None).and_then(|error| error.retry_after);
        assert_eq!(wait(&told), Some(Duration::from_secs(7)));
        assert_eq!(
            wait(&said(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests")),
            None
        );
    }
}
