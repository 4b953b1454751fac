//! The process `drover-loader-appendonly`.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_pipeline::process::loader::<drover_loader_appendonly::AppendOnly>()
}
