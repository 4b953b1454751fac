//! The process `drover-extractor-dummy`.

fn main() -> std::process::ExitCode {
    drover_pipeline::process::extractor::<drover_extractor_dummy::Dummy>()
}
