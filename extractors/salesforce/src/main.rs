//! The process `drover-extractor-salesforce`.

fn main() -> std::process::ExitCode {
    drover_pipeline::process::extractor::<drover_extractor_salesforce::Salesforce>()
}
