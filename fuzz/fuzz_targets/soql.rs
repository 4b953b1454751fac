//! A query to the stand-in of Salesforce: read, or refused as the API refuses.
#![no_main]

use drover_sandbox::salesforce::soql;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = soql::parse(text) {
        assert!(error.status.is_client_error() && !error.message.is_empty());
    }
});
