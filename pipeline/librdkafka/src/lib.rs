//! librdkafka with one defect mended, linked by depending on this crate.
//!
//! Since version 2.4 librdkafka (2.12.1 here, and all later ones that were out
//! by November 2026) takes the leader of a partition out of a Fetch answer
//! (KIP-951). When a broker answers that a partition has no leader, as one does
//! that has just come back from a crash, librdkafka reads beyond what it has
//! written, and the process dies by SIGSEGV: extractor, transformer, loader and
//! `drover run` at once (<https://github.com/confluentinc/librdkafka/issues/5280>).
//!
//! `build.rs` says what is changed; `tests/no_leader.rs` shows the death without
//! it. The crate goes when a librdkafka without the defect is linked.

// Named, so that the linker gets it.
use rdkafka_sys as _;
