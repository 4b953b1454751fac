//! The API's errors: an array of messages and codes.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::exchange::Answer;

/// The content type of every JSON answer of the API.
pub const JSON: &str = "application/json;charset=UTF-8";

/// An error as the API answers it.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// Status of the answer.
    pub status: StatusCode,
    /// `errorCode`.
    pub code: &'static str,
    /// `message`.
    pub message: String,
    /// `fields`, where the API names them.
    pub fields: Option<Vec<String>>,
}

impl ApiError {
    /// An error with this status.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            code,
            message: message.into(),
            fields: None,
        }
    }

    /// An error of status 400.
    pub fn bad(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The same, naming fields.
    pub fn on(mut self, fields: &[&str]) -> ApiError {
        self.fields = Some(fields.iter().map(|field| (*field).to_owned()).collect());
        self
    }

    /// No such resource.
    pub fn not_found() -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "The requested resource does not exist",
        )
    }

    /// The method does not exist for the resource.
    pub fn method(method: &str, allowed: &str) -> ApiError {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            format!("HTTP Method '{method}' not allowed. Allowed are {allowed}"),
        )
    }

    /// The token is missing, unknown or expired.
    pub fn session() -> ApiError {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "INVALID_SESSION_ID",
            "Session expired or invalid",
        )
    }

    /// The daily calls are used up.
    pub fn limit() -> ApiError {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "REQUEST_LIMIT_EXCEEDED",
            "TotalRequests Limit exceeded.",
        )
    }

    /// The instance is down.
    pub fn unavailable() -> ApiError {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "SERVER_UNAVAILABLE",
            "The server is temporarily unavailable. Please try again later.",
        )
    }

    /// The record is out of reach for writing: the org is read-only.
    pub fn read_only() -> ApiError {
        ApiError::bad(
            "INSUFFICIENT_ACCESS_OR_READONLY",
            "insufficient access rights on object id",
        )
        .on(&[])
    }

    /// The entry of the error array; the order of keys is the API's.
    pub fn entry(&self) -> Value {
        if self.code == "NOT_FOUND" || self.code == "METHOD_NOT_ALLOWED" {
            return json!({"errorCode": self.code, "message": self.message});
        }
        match &self.fields {
            Some(fields) => {
                json!({"message": self.message, "errorCode": self.code, "fields": fields})
            }
            None => json!({"message": self.message, "errorCode": self.code}),
        }
    }

    /// One record's error in the answer to a collection.
    pub fn in_collection(&self) -> Value {
        json!({"statusCode": self.code, "message": self.message, "fields": self.fields.clone().unwrap_or_default()})
    }

    /// The answer.
    pub fn answer(&self) -> Answer {
        let answer = Answer::new(
            self.status,
            JSON,
            Value::from(vec![self.entry()]).to_string(),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            return answer.with("www-authenticate", "Token");
        }
        answer
    }
}
