//! The transformer's process.

fn main() -> std::process::ExitCode {
    drover_pipeline::process::transformer::<drover_transformer_mapper::Mapper>()
}
