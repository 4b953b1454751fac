//! The process `drover-loader-postgres`.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_pipeline::process::loader::<drover_loader_postgres::Postgres>()
}
