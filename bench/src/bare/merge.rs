//! What a home-made script does that loads fast: COPY a batch into a temporary
//! table, merge it by version, over a few connections. It reads nothing: its
//! rows are made as they are sent.

use std::fmt::Write as _;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::SinkExt;
use serde::{Deserialize, Serialize};
use tokio_postgres::NoTls;

use crate::bench::Result;
use crate::canonical::{START, customs, id, moments, texts};

/// The merging program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Merge {
    /// URL of the database.
    pub url: String,
    /// The table; made when it is missing.
    pub table: String,
    /// How many keys there are.
    pub keys: u64,
    /// How many versions of each key are merged, one after the other.
    pub versions: u64,
    /// How many rows a batch has.
    pub batch: u64,
    /// How many connections it has.
    pub connections: usize,
}

const COLUMNS: &str = "id text PRIMARY KEY, version bigint NOT NULL, first_name text, \
    last_name text, email text, phone_number text, title text, mailing_street text, \
    mailing_city text, mailing_state text, mailing_postal_code text, mailing_country text, \
    birth_date date, created_at timestamptz, updated_at timestamptz, custom jsonb";

impl Merge {
    /// Merges everything once.
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let merge = Arc::new(self);
            let (client, connection) = tokio_postgres::connect(&merge.url, NoTls).await?;
            tokio::spawn(connection);
            let make = format!("CREATE TABLE IF NOT EXISTS {} ({COLUMNS})", merge.table);
            client.batch_execute(&make).await?;
            let batches = merge.keys.div_ceil(merge.batch);
            // Versions of a key must not overtake each other, or be merged at
            // once: the connections share the batches of one version.
            for version in 0..merge.versions {
                let next = Arc::new(AtomicU64::new(0));
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..merge.connections {
                    let (merge, next) = (Arc::clone(&merge), Arc::clone(&next));
                    tasks.spawn(async move {
                        merge
                            .work(version, batches, &next)
                            .await
                            .map_err(|error| error.to_string())
                    });
                }
                while let Some(done) = tasks.join_next().await {
                    done??;
                }
            }
            Ok(())
        })
    }

    async fn work(&self, version: u64, batches: u64, next: &AtomicU64) -> Result<()> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        let columns: Vec<&str> = COLUMNS
            .split(", ")
            .filter_map(|column| column.split_whitespace().next())
            .collect();
        let set: Vec<String> = columns[1..]
            .iter()
            .map(|column| format!("{column} = excluded.{column}"))
            .collect();
        client
            .batch_execute(&format!(
                "CREATE TEMP TABLE stage (LIKE {}) ON COMMIT DELETE ROWS",
                self.table
            ))
            .await?;
        let copy = client.prepare("COPY stage FROM STDIN").await?;
        let merge = client
            .prepare(&format!(
                "INSERT INTO {} AS t SELECT * FROM stage ON CONFLICT (id) \
                 DO UPDATE SET {} WHERE t.version < excluded.version",
                self.table,
                set.join(", ")
            ))
            .await?;
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= batches {
                return Ok(());
            }
            client.batch_execute("BEGIN").await?;
            let mut sink = pin!(client.copy_in::<_, Cursor<Vec<u8>>>(&copy).await?);
            let mut rows = String::new();
            for n in batch * self.batch..((batch + 1) * self.batch).min(self.keys) {
                row(&mut rows, n, version)?;
                if rows.len() > 64 << 10 {
                    sink.send(Cursor::new(std::mem::take(&mut rows).into_bytes()))
                        .await?;
                    rows.reserve(70 << 10);
                }
            }
            sink.send(Cursor::new(rows.into_bytes())).await?;
            sink.as_mut().finish().await?;
            client.execute(&merge, &[]).await?;
            client.batch_execute("COMMIT").await?;
        }
    }
}

fn row(out: &mut String, n: u64, version: u64) -> Result<()> {
    write!(out, "{}\t{}", id(n), START + version as i64)?;
    let (texts, birth) = texts(n, version);
    for (_, text) in texts {
        out.push('\t');
        // Only a line break needs an escape in these texts.
        match text.split_once('\n') {
            Some((one, other)) => write!(out, "{one}\\n{other}")?,
            None => out.push_str(&text),
        }
    }
    let day = chrono::DateTime::from_timestamp(i64::from(birth) * 86_400, 0).unwrap_or_default();
    write!(out, "\t{}", day.format("%Y-%m-%d"))?;
    let (created, updated) = moments(n);
    for millis in [created, updated] {
        let at = chrono::DateTime::from_timestamp_millis(millis).unwrap_or_default();
        write!(out, "\t{}", at.format("%Y-%m-%d %H:%M:%S%.3f+00"))?;
    }
    let [(one, first), (other, second)] = customs(n);
    writeln!(out, "\t{{\"{one}\":{first},\"{other}\":{second}}}")?;
    Ok(())
}
