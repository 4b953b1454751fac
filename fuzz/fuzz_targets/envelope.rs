//! Bytes of a topic: an envelope that survives being written again, or refused.
#![no_main]

use drover_pipeline::envelope::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::decode(bytes) {
        let mut again = Vec::new();
        envelope.encode_into(&mut again);
        assert_eq!(Envelope::decode(&again).ok(), Some(envelope));
    }
});
