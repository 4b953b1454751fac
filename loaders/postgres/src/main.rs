//! The process `drover-loader-postgres`.

fn main() {
    // The stage's `main` comes with the runner.
    eprintln!("drover-loader-postgres: the runner is not part of this build");
    std::process::exit(2);
}
