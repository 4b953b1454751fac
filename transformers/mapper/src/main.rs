//! The transformer's process; until the runner is there it has nothing to run.
fn main() {}
