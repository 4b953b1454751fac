//! What a balance asks of the topics' values; bodies are not decoded.

use drover_pipeline::balance::{Canonical, Entry, Letter, Parked, Raw, State};
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::compacted::Scanned;
use drover_pipeline::parking::Reason;
use drover_pipeline::record::{AbsentReason, Millis, Op, Order};
use drover_pipeline::spec::Stage;
use drover_pipeline::{Class, Error, Result};
use serde::Deserialize;

/// Of a canonical record; an error is a newer schema than this program knows.
pub(crate) fn canonical(record: &Scanned<'_>, incarnation: u32) -> Result<Option<Canonical>> {
    Ok(match record.value.map(Envelope::decode) {
        None => None,
        Some(Ok(envelope)) => Some(Canonical::Record {
            order: Order {
                version: envelope.version,
                mapping: envelope.mapping,
                incarnation,
                offset: record.offset,
                reapply: 0,
            },
            absent: envelope.op == Op::Absent,
        }),
        Some(Err(error)) => {
            foreign(record, error)?;
            Some(Canonical::Foreign)
        }
    })
}

/// Of a raw record. One that can't be read is of no version.
pub(crate) fn raw(record: &Scanned<'_>) -> Result<Option<Raw>> {
    let version = match record.value.map(Envelope::decode) {
        None => return Ok(None),
        Some(Ok(envelope)) => envelope.version,
        Some(Err(error)) => {
            foreign(record, error)?;
            Millis::MIN
        }
    };
    let offset = record.offset;
    Ok(Some(Raw { version, offset }))
}

/// Lets pass what is no envelope at all: the stage buries it.
fn foreign(record: &Scanned<'_>, error: Error) -> Result<()> {
    if error.class() == Class::Record {
        return Ok(());
    }
    let place = Place::new(record.topic, record.partition);
    Err(error.at(format!("{place}@{}", record.offset)))
}

/// The order of a redo record, where it names one.
pub(crate) fn redo(value: &[u8]) -> Option<Order> {
    Envelope::decode(value).ok().and_then(|redo| redo.order)
}

/// Of a parked record.
pub(crate) fn parked(value: &[u8]) -> Parked {
    #[derive(Deserialize)]
    struct Waiting {
        reason: Reason,
        order: Order,
    }
    match serde_json::from_slice::<Waiting>(value) {
        Ok(Waiting { reason, order }) => match reason {
            Reason::Dropped { .. } => Parked::Dropped { order },
            // It is applied already.
            Reason::Link { .. } => Parked::Waits { order, link: true },
            Reason::Parent { .. } | Reason::Lease => Parked::Waits { order, link: false },
        },
        Err(_) => Parked::Unreadable,
    }
}

/// Whose letter a key of the dead-letter topic names, and the record's key.
pub(crate) fn letter_of(key: &str) -> Option<(Stage, &str)> {
    [Stage::Extractor, Stage::Transformer, Stage::Loader]
        .into_iter()
        .find_map(|stage| {
            let key = key.strip_prefix(stage.as_str())?.strip_prefix('/')?;
            Some((stage, key))
        })
}

/// A letter that can't be read is one of no version.
pub(crate) fn letter(stage: Stage, value: &[u8]) -> Letter {
    let letter = serde_json::from_slice::<DeadLetter>(value).ok();
    match stage {
        Stage::Extractor => Letter::Extractor,
        Stage::Transformer => Letter::Transformer {
            version: letter.as_ref().map_or(Millis::MIN, |l| l.version),
            offset: letter
                // A retry may not know where the raw record lay.
                .filter(|letter| letter.offset >= 0 && letter.topic.contains(".raw."))
                .map(|letter| letter.offset),
        },
        Stage::Loader => Letter::Loader {
            version: letter.as_ref().map_or(Millis::MIN, |l| l.version),
            order: letter.and_then(|letter| letter.order),
        },
    }
}

/// What is asked of an entry.
pub(crate) fn entry(value: &[u8]) -> Entry {
    #[derive(Deserialize)]
    struct Known {
        order: Order,
        state: Name,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        Pending(serde::de::IgnoredAny),
        Applied,
        Deleted { reason: AbsentReason },
    }
    match serde_json::from_slice::<Known>(value) {
        Ok(Known { order, state }) => Entry {
            order,
            state: match state {
                Name::Pending(_) => State::Pending,
                Name::Applied => State::Applied,
                Name::Deleted { reason } => State::Deleted(reason),
            },
        },
        Err(_) => Entry {
            order: Order::default(),
            state: State::Unreadable,
        },
    }
}
