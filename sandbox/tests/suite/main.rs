//! The sandbox as its clients see it: the real binary, over HTTP.

#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod bulk;
mod data;
mod faults;
mod generated;
mod harness;
mod login;
mod objects;
mod queries;
mod recorded;
mod replay;
mod visibility;
