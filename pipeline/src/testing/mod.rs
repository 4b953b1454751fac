//! What every connector is held to: one conformance suite for extractors, one
//! for loaders. And a dead letter for tests.

pub mod extractor;
pub mod loader;

use crate::deadletter::{Author, DeadLetter, Origin};
use crate::error::{Code, Error};
use crate::kafka::Place;
use crate::record::Millis;
use crate::spec::Stage;

/// A dead letter of a loader, of a record whose value is `held`: "no" is what it
/// says.
pub fn letter(key: &str, code: Code, version: Millis, held: &[u8]) -> DeadLetter {
    let author = Author {
        stage: Stage::Loader,
        connector: "postgres".into(),
        instance: "loader-1".into(),
    };
    let origin = Origin {
        place: Place::new("t", 0),
        offset: 1,
    };
    let error = Error::new(code, "no");
    DeadLetter::new(&author, key, &error, &origin, version, None, 5, held)
}
