//! Every failure of Drover has a [`Code`]; the code decides its [`Class`]; the
//! class decides what a runner does. The table at [`Code::facts`] is the whole
//! failure behaviour of the product on one screen. A connector adds its
//! system's own code as `source_code` and never a new variant here.

use std::fmt;
use std::time::Duration;

/// A result whose error is Drover's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a runner does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Heals by itself: retried with a jittered back-off, without a limit; the
    /// lane is shown as degraded meanwhile.
    Transient,
    /// The other side asks us to wait: we wait as told, keep polling Kafka and
    /// say until when.
    Throttled,
    /// A person must act: the lane is blocked, the process stays up and not
    /// ready, the advice is printed. Exit code 3 when every lane is blocked.
    Operator,
    /// This one record is at fault: it becomes a dead letter and the lane goes on.
    Record,
    /// Drover itself is wrong: exit code 1, nothing is committed.
    Bug,
}

impl Class {
    /// Its name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Transient => "transient",
            Class::Throttled => "throttled",
            Class::Operator => "operator",
            Class::Record => "record",
            Class::Bug => "bug",
        }
    }
}

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, $class:ident, $advice:literal; )*) => {
        /// What went wrong, in terms that are the same for every system.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $( $(#[$doc])* $name, )* }

        impl Code {
            /// Every code there is, in the order of the table.
            pub const ALL: &'static [Code] = &[ $( Code::$name, )* ];

            /// The code's stable text, its class, and what a person should do.
            pub fn facts(self) -> (&'static str, Class, &'static str) {
                match self { $( Code::$name => ($text, Class::$class, $advice), )* }
            }

            /// The code's page, `docs/errors/<CODE>.md`: what happened, why, what to
            /// do, and an example.
            pub fn page(self) -> &'static str {
                match self {
                    $( Code::$name => include_str!(concat!("../../docs/errors/", $text, ".md")), )*
                }
            }
        }
    };
}

codes! {
    /// The configuration has one or more problems; each is listed with its place.
    ConfigInvalid = "CONFIG_INVALID", Operator, "mend each place that is listed, then start again";
    /// A loader was started although the migration is a dry run.
    DryRun = "DRY_RUN", Operator, "set dryRun to false to load into the target";
    /// No record of the key that a command was given is known.
    UnknownRecord = "UNKNOWN_RECORD", Operator, "write the key as source/object/id; `drover deadletter list --all`, `drover parked list` and `drover balance` name keys";
    /// The broker can't be reached.
    BrokerUnreachable = "BROKER_UNREACHABLE", Transient, "check kafka.brokers and that the broker runs";
    /// A topic that `drover init` creates isn't there.
    TopicMissing = "TOPIC_MISSING", Operator, "run `drover init -c FILE`";
    /// A topic has another partition count or cleanup policy than it must have.
    TopicMismatch = "TOPIC_MISMATCH", Operator, "remove that topic, or choose another migration id, then run `drover init`";
    /// A topic was deleted and made anew: the positions we hold mean nothing in it.
    TopicRecreated = "TOPIC_RECREATED", Operator, "restore the topic, or start the migration anew under another id";
    /// The migration was not initialised, or its control topic is empty.
    NotInitialised = "NOT_INITIALISED", Operator, "run `drover init -c FILE`";
    /// The configuration's mapping or objects differ from those the migration was initialised with.
    ControlMismatch = "CONTROL_MISMATCH", Operator, "take over a changed mapping by `drover remap`; otherwise restore the old mapping and objects, or start a new migration id";
    /// The idempotency topic is shorter than what was committed against it: loading would create everything again.
    IdempotencyLost = "IDEMPOTENCY_LOST", Operator, "restore the idempotency topic from a backup; do not start a loader without it";
    /// The broker's log starts behind our position: records we had not read are gone.
    RecordsLost = "RECORDS_LOST", Operator, "records were removed before they were read, by retention or by hand; `drover explain RECORDS_LOST` says how to write and read them again";
    /// The source counts more records than it showed us.
    Short = "SHORT", Operator, "grant the integration user the right to see every record (View All Data), then have the object copied again";
    /// The source lost a job of ours: it failed, was aborted, deleted, or has expired.
    JobLost = "JOB_LOST", Transient, "look at the job's message in the source if it happens again";
    /// Another process took over this one's transactional id or partitions.
    Fenced = "FENCED", Transient, "another process took over, or the broker was away for longer than a transaction may last; a stage that nobody replaced starts again by itself";
    /// Kafka refused something that a retry will not mend.
    KafkaRefused = "KAFKA_REFUSED", Operator, "read the broker's message; check its ACLs, disk and limits";
    /// Kafka answered with a passing error.
    KafkaBusy = "KAFKA_BUSY", Transient, "the broker is busy or electing a leader";
    /// The last stable offset stands still: an open transaction hides records.
    StableOffsetStuck = "STABLE_OFFSET_STUCK", Transient, "a producer left a transaction open; the broker ends it after that producer's transaction.timeout.ms, or end it by `kafka-transactions.sh abort`";
    /// A value in a topic was written by a newer Drover than this one.
    NewerSchema = "NEWER_SCHEMA", Operator, "upgrade this stage before the stages in front of it";
    /// A value in a topic is not ours at all.
    ForeignBytes = "FOREIGN_BYTES", Record, "something else writes into Drover's topic; stop it";
    /// A connection could not be made: the request was not sent.
    Connection = "CONNECTION", Transient, "check the address in the migration's file, and the network";
    /// The request may have been sent, but no answer came.
    AnswerLost = "ANSWER_LOST", Transient, "the connection broke before the answer; check the network";
    /// The server says that it failed (5xx, 408).
    ServerError = "SERVER_ERROR", Transient, "the other system has a fault";
    /// The answer is not what the API promises (not JSON, cut, an HTML page).
    BadAnswer = "BAD_ANSWER", Transient, "a proxy or the other system sent something else than its API's answer";
    /// The other side limits the rate of requests.
    Throttled = "THROTTLED", Throttled, "the other side limits how much may be asked of it; give it time";
    /// The account's quota is used up.
    QuotaExhausted = "QUOTA_EXHAUSTED", Throttled, "wait until the quota is renewed, or ask the vendor for more";
    /// The credentials are wrong or have expired (401).
    Unauthorized = "UNAUTHORIZED", Operator, "renew the credentials, then run this again";
    /// The credentials lack a right (403).
    Forbidden = "FORBIDDEN", Operator, "grant the missing right or scope, then run this again";
    /// The source does not know the object.
    UnknownObject = "UNKNOWN_OBJECT", Operator, "remove it from `objects`, or grant the right to see it";
    /// The source does not know the field.
    UnknownField = "UNKNOWN_FIELD", Operator, "remove it from the mapping, or grant the right to see it";
    /// The source describes an object otherwise than the mapping was made for.
    SourceChanged = "SOURCE_CHANGED", Operator, "bring it back, or allow the change under `drift`; then restart the extractor, unless its lane is parked";
    /// The other side refused a request in a way that no retry mends, and that no rule covers.
    Refused = "REFUSED", Operator, "read the other system's message; Drover asks instead of guessing";
    /// The target's tables or fields are not as `prepare` made them.
    TargetAltered = "TARGET_ALTERED", Operator, "undo the change in the target, then restart the loader";
    /// The target can't be reached, or restarts.
    TargetUnavailable = "TARGET_UNAVAILABLE", Transient, "check that the target runs";
    /// A lane had more dead letters than its limit allows.
    TooManyDeadLetters = "TOO_MANY_DEAD_LETTERS", Operator, "see `drover deadletter list`; mend the cause, then run this again";
    /// A changed mapping or filter takes more of the target's records away than may go unasked.
    EmptiedByMapping = "EMPTIED_BY_MAPPING", Operator, "look at the changed mapping and filters; if they are right: `drover remap --accept-absent`";
    /// A run has ended, and records are missing in the target.
    Incomplete = "INCOMPLETE", Operator, "see `drover deadletter list` and `drover status`; mend the cause, then run again";
    /// Records are in no place, or in two: something was lost on the way, or came from elsewhere.
    Unbalanced = "UNBALANCED", Operator, "see `drover balance`: it names each key, and what to do";
    /// A record came without an id.
    MissingId = "MISSING_ID", Record, "the source gave a record without an id; report it to the source's owner";
    /// A text is not UTF-8.
    InvalidUtf8 = "INVALID_UTF8", Record, "mend the text in the source";
    /// A record's body is not the JSON object it must be.
    InvalidBody = "INVALID_BODY", Record, "mend the record in the source";
    /// A field holds another type than the mapping promises.
    WrongType = "WRONG_TYPE", Record, "mend the value in the source, or map the field to another one";
    /// A field that must be filled is empty.
    RequiredMissing = "REQUIRED_MISSING", Record, "fill the field in the source, or map another field to it";
    /// A text is longer than the entity's field allows.
    TooLong = "TOO_LONG", Record, "shorten the text in the source, or map it to a longer field";
    /// A text is not an e-mail address.
    BadEmail = "BAD_EMAIL", Record, "mend the address in the source, or map the field to a plain text";
    /// A reference does not have the shape of an id.
    BadReference = "BAD_REFERENCE", Record, "mend the reference in the source";
    /// What a record must refer to never comes: it is deleted, left out by a
    /// filter, not visible to us, or not migrated at all.
    ParentNeverComes = "PARENT_NEVER_COMES", Record, "make the parent visible to the source's user, or mend the reference in the source; the record goes on by itself when its parent comes. `onOrphan: drop-link` in the mapping loads such records without the link";
    /// Records require each other in a circle, so none of them can be first.
    ReferenceCycle = "REFERENCE_CYCLE", Record, "make one of these references optional in the mapping (`required: false`), or break the circle in the source";
    /// A row that we made was taken away in the target by somebody else.
    RowRemoved = "ROW_REMOVED", Record, "restore the row in the target under its id and retry the dead letter, or waive it; records that link to it hold its id";
    /// A record is larger than the bus takes.
    TooLarge = "TOO_LARGE", Record, "shorten the record in the source, or name a place for the bodies of such records by `objectStore`";
    /// The body of a record that is too large for the bus is not in the object store, or is another one.
    BodyLost = "BODY_LOST", Operator, "put the body back, or name the store where it lies by `objectStore`, then start this stage again";
    /// The object store can't be reached, or refuses.
    ObjectStoreUnavailable = "OBJECT_STORE_UNAVAILABLE", Transient, "check that what `objectStore` names is there and can be written";
    /// The target refused this record.
    TargetRefused = "TARGET_REFUSED", Record, "read the target's message; mend the record in the source, or the rule in the target and retry";
    /// Drover's own rules are broken.
    Invariant = "INVARIANT", Bug, "this is a bug in Drover; please report it with the message";
}

impl Code {
    /// The stable text of the code, as in `docs/errors/<CODE>.md`.
    pub fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// What a runner does about it.
    pub fn class(self) -> Class {
        self.facts().1
    }

    /// What a person should do about it.
    pub fn advice(self) -> &'static str {
        self.facts().2
    }

    /// What a stage or `drover run` does about it by itself; a command that asks
    /// once does nothing.
    pub fn meanwhile(self) -> Option<&'static str> {
        match self.class() {
            Class::Transient => Some("Drover keeps trying"),
            Class::Throttled => Some("Drover waits as told and goes on by itself"),
            Class::Operator | Class::Record | Class::Bug => None,
        }
    }

    /// The process exit code when this ends the process: 1 bug, 2 bad
    /// configuration, 3 environment or operator action.
    pub fn exit(self) -> u8 {
        match (self, self.class()) {
            (Code::ConfigInvalid | Code::DryRun | Code::UnknownRecord, _) => 2,
            (_, Class::Bug) => 1,
            _ => 3,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure. Its texts never hold a secret or a record's body.
#[derive(Debug, Clone)]
pub struct Error {
    /// What went wrong.
    pub code: Code,
    /// What happened, for a person: one sentence without the code.
    pub message: String,
    /// The other system's own code (`REQUEST_LIMIT_EXCEEDED`, SQLSTATE `23505`).
    pub source_code: Option<String>,
    /// Where: a file and line, a field, a record's key, a topic and offset.
    pub place: Option<String>,
    /// How long the other side asks us to wait.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// A failure with its code and what happened.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            message: message.into(),
            source_code: None,
            place: None,
            retry_after: None,
        }
    }

    /// Adds the other system's own code.
    pub fn source_code(mut self, code: impl Into<String>) -> Self {
        self.source_code = Some(code.into());
        self
    }

    /// Adds where it happened.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds how long the other side asks us to wait.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What a runner does about it.
    pub fn class(&self) -> Class {
        self.code.class()
    }

    /// The error as a stage tells it that goes on running.
    pub fn while_running(&self) -> String {
        match self.code.meanwhile() {
            Some(meanwhile) => format!("{self}; {meanwhile}"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(code) = &self.source_code {
            write!(f, " [{code}]")?;
        }
        if let Some(place) = &self.place {
            write!(f, " (at {place})")?;
        }
        write!(f, "; {}", self.code.advice())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_code_place_and_advice() {
        let error = Error::new(Code::TargetRefused, "value too long")
            .source_code("22001")
            .at("contact.email");
        assert_eq!(
            error.to_string(),
            "TARGET_REFUSED: value too long [22001] (at contact.email); \
             read the target's message; mend the record in the source, or the rule in the \
             target and retry"
        );
    }

    #[test]
    fn only_a_stage_that_runs_keeps_trying() {
        let away = Error::new(Code::Connection, "refused");
        let told =
            "CONNECTION: refused; check the address in the migration's file, and the network";
        assert_eq!(away.to_string(), told);
        assert_eq!(away.while_running(), format!("{told}; Drover keeps trying"));
        let wrong = Error::new(Code::Unauthorized, "401");
        assert_eq!(wrong.while_running(), wrong.to_string());
    }

    #[test]
    fn exit_codes_follow_the_table() {
        assert_eq!(Code::ConfigInvalid.exit(), 2);
        assert_eq!(Code::DryRun.exit(), 2);
        assert_eq!(Code::IdempotencyLost.exit(), 3);
        assert_eq!(Code::Invariant.exit(), 1);
    }

    #[test]
    fn only_what_is_listed_is_tried_again() {
        let again = Code::ALL
            .iter()
            .filter(|code| matches!(code.class(), Class::Transient | Class::Throttled))
            .map(|code| code.as_str());
        assert_eq!(
            again.collect::<Vec<_>>(),
            [
                "BROKER_UNREACHABLE",
                "JOB_LOST",
                "FENCED",
                "KAFKA_BUSY",
                "STABLE_OFFSET_STUCK",
                "CONNECTION",
                "ANSWER_LOST",
                "SERVER_ERROR",
                "BAD_ANSWER",
                "THROTTLED",
                "QUOTA_EXHAUSTED",
                "TARGET_UNAVAILABLE",
                "OBJECT_STORE_UNAVAILABLE",
            ]
        );
    }

    #[test]
    fn every_code_has_its_page_and_every_page_its_code() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        let files: std::collections::BTreeSet<String> = std::fs::read_dir(folder)
            .expect("docs/errors")
            .map(|entry| {
                entry
                    .expect("a file")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        let pages = Code::ALL.iter().map(|code| format!("{code}.md")).collect();
        assert_eq!(files, pages);
        for code in Code::ALL {
            let page = code.page();
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            let class = format!("Class **{}**", code.class().as_str());
            assert!(page.contains(&class), "{code} is of another class");
            let (_, rest) = page.split_once("## What happened").expect("what happened");
            let (_, rest) = rest.split_once("## Why").expect("why");
            let (to_do, example) = rest.split_once("## Example").expect("an example");
            assert!(to_do.contains("## What to do\n\n1. "), "{code}");
            assert!(
                example.contains(&format!("{code}: ")),
                "{code}: its example"
            );
            let long = page.lines().find(|line| line.chars().count() > 80);
            assert_eq!(long, None, "{code}");
        }
    }

    #[test]
    fn texts_are_unique() {
        let texts: std::collections::HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
    }
}
