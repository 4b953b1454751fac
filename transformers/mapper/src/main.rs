//! The process `drover-transformer-mapper`.

fn main() -> std::process::ExitCode {
    drover_pipeline::process::transformer::<drover_transformer_mapper::Mapper>()
}
