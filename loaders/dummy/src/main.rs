//! The process `drover-loader-dummy`.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_pipeline::process::loader::<drover_loader_dummy::Dummy>()
}
