//! The process `drover-appendonly-server`: see `drover_loader_appendonly::server`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use drover_loader_appendonly::server::{Settings, Store, router};
use tokio::io::AsyncReadExt;

/// A target for tests: creates what it is told to, twice if it is told twice.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where it listens; port 0 picks one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Every write is appended here as a line of JSON; read back at the start.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How far the search index lags behind.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    index_delay_ms: u64,
    /// The longest a request is worked on; later it is refused without effect.
    #[arg(long, value_name = "MS", default_value_t = 400)]
    max_processing_ms: u64,
    /// Ends when standard input ends, so that it never outlives its starter.
    #[arg(long)]
    until_stdin_ends: bool,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let store = Store::open(Settings {
        log: arguments.log,
        index_delay: Duration::from_millis(arguments.index_delay_ms),
        max_processing: Duration::from_millis(arguments.max_processing_ms),
    })?;
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("{}", serde_json::json!({ "url": url }));
    std::io::stdout().flush()?;
    let serve = axum::serve(listener, router(store));
    if !arguments.until_stdin_ends {
        return serve.await;
    }
    let mut rest = Vec::new();
    let mut stdin = tokio::io::stdin();
    tokio::select! {
        served = async { serve.await } => served,
        ended = stdin.read_to_end(&mut rest) => ended.map(|_| ()),
    }
}
