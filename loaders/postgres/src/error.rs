//! What PostgreSQL's error codes mean to a runner.

use drover_pipeline::{Code, Error};
use tokio_postgres::error::DbError;

/// Whether the error is about the content of a row, so that other rows of the
/// same batch may well be good: bad values, constraints, what a trigger
/// raised, what is too large for an index.
pub(crate) fn concerns_rows(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        // 09 and 38, 39: triggers and functions; 22 values; 23 constraints;
        // 44 a view's check option; 54 limits; P0 what PL/pgSQL raises.
        matches!(
            class(db.code().code()),
            "09" | "22" | "23" | "38" | "39" | "44" | "54" | "P0"
        )
    })
}

/// The dead letter of a row that PostgreSQL refuses: its own code and message.
/// DETAIL and CONTEXT hold values of the row and are left out.
pub(crate) fn refused(error: &tokio_postgres::Error, table: &str) -> Error {
    let Some(db) = error.as_db_error() else {
        return unavailable(error);
    };
    let place = match (db.column().or_else(|| column_of(db)), db.constraint()) {
        (_, Some(constraint)) => format!("{table}, constraint {constraint}"),
        (Some(column), None) => format!("{table}.{column}"),
        (None, None) => table.to_owned(),
    };
    Error::new(Code::TargetRefused, message(db))
        .source_code(db.code().code())
        .at(place)
}

/// An error that concerns a whole call.
pub(crate) fn explain(error: &tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        return unavailable(error);
    };
    let sqlstate = db.code().code();
    let code = match (class(sqlstate), sqlstate) {
        ("28", _) => Code::Unauthorized,
        (_, "42501") => Code::Forbidden,
        // Also what fails inside a customer's trigger function: a person must look.
        ("42" | "3F", _) => Code::TargetAltered,
        // Connections; serialization and deadlocks; a standby that is not
        // writable yet; resources; locks held by others; shutdown and restart.
        ("08" | "40" | "53" | "57" | "58", _) | (_, "25006" | "25P03" | "55P03") => {
            Code::TargetUnavailable
        }
        // A key twice in one statement: the runner promises that it never is.
        ("21", _) => Code::Invariant,
        _ => Code::Refused,
    };
    Error::new(code, message(db)).source_code(sqlstate)
}

/// An error without an answer of the server: no connection, or a lost one.
fn unavailable(error: &tokio_postgres::Error) -> Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    // The server asked for a password and the configuration has none.
    let code = if text.contains("password missing") {
        Code::Unauthorized
    } else {
        Code::TargetUnavailable
    };
    Error::new(code, text)
}

fn class(sqlstate: &str) -> &str {
    sqlstate.get(..2).unwrap_or(sqlstate)
}

/// PostgreSQL's message. Those of class 22 quote the value that is wrong
/// (`invalid input syntax for type date: "…"`), and a record's content must not
/// travel in an error: the quotation is left out.
fn message(db: &DbError) -> String {
    if class(db.code().code()) == "22" {
        without_value(db.message())
    } else {
        db.message().to_owned()
    }
}

fn without_value(message: &str) -> String {
    let quoted = message
        .find(": \"")
        .map(|at| at + 2)
        .or_else(|| message.starts_with("value \"").then_some(6));
    let Some(from) = quoted else {
        return message.to_owned();
    };
    match message.rfind('"') {
        Some(to) if to > from => format!("{}\"…\"{}", &message[..from], &message[to + 1..]),
        _ => message.to_owned(),
    }
}

/// The column that COPY was reading: `COPY t, line 3, column amount: "…"`.
fn column_of(db: &DbError) -> Option<&str> {
    let (_, rest) = db.where_()?.split_once(", column ")?;
    rest.split([':', ',']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_left_out_of_messages() {
        for (given, want) in [
            (
                "invalid input syntax for type date: \"Ann \"A\" Lee\"",
                "invalid input syntax for type date: \"…\"",
            ),
            (
                "value \"99\" is out of range for type bigint",
                "value \"…\" is out of range for type bigint",
            ),
            (
                "invalid byte sequence for encoding \"UTF8\": 0x00",
                "invalid byte sequence for encoding \"UTF8\": 0x00",
            ),
            (
                "value too long for type character varying(10)",
                "value too long for type character varying(10)",
            ),
        ] {
            assert_eq!(without_value(given), want);
        }
    }
}
