//! The harness of the end-to-end tests: real processes, a real Apache Kafka and
//! a real PostgreSQL, the stand-in of the source, and an oracle that does not
//! use Drover's mapper.

pub mod account;
pub mod bucket;
pub mod bus;
pub mod chaos;
pub mod migration;
pub mod oracle;
pub mod process;
pub mod sandbox;
pub mod services;
