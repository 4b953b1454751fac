//! Bytes of a canonical body, as each entity: a datum, or refused.
#![no_main]

use drover_schemas::{Datum, entity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, body)) = bytes.split_first() else {
        return;
    };
    let names = ["company", "contact", "deal", "ticket", "activity", "record"];
    if let Some(entity) = entity(names[usize::from(*which) % names.len()])
        && let Ok(datum) = Datum::decode(entity, body)
    {
        let mut again = Vec::new();
        datum.encode(&mut again);
        assert!(Datum::decode(entity, &again).is_ok());
    }
});
