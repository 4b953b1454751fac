//! A configuration, as JSON and as YAML: read, or refused with problems.
#![no_main]

use drover_pipeline::config::{Document, Part};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for file in ["m.json", "m.yaml"] {
        if let Ok(document) = Document::parse(file, bytes) {
            let _ = document.migration(&document.environment(), Part::Plain, Part::Plain);
        }
    }
});
