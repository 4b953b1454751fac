//! `drover`, the operator's command: checks a configuration, prepares the bus,
//! runs the stages of a migration on this machine, and shows where it stands.
//!
//! It knows no connector by name: it finds their programs ([`connectors`]) and
//! asks them. What a running migration looks like is one model, [`view`], read
//! from Kafka alone; every command only renders it.

pub mod connectors;
pub mod failure;
pub mod migration;
pub mod quota;
pub mod table;
pub mod topics;
pub mod vain;
mod view;

mod balance;
mod body;
mod check;
mod cli;
mod deadletter;
mod doctor;
mod doubtful;
mod dryrun;
mod explain;
mod exporter;
mod init;
mod inventory;
mod lookup;
mod offsets;
mod outages;
mod parked;
mod patience;
mod record;
mod redo;
mod remap;
mod run;
mod status;
mod template;
mod when;

pub use cli::main;
