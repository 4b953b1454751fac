//! A connector's mapping: read and compiled, or refused with problems.
#![no_main]

use drover_pipeline::transform::{Mapping, Transformer};
use drover_transformer_mapper::Mapper;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(mapping) = Mapping::parse("mapping.yaml", text) {
        let _ = Mapper::new(&mapping, &[]);
    }
});
