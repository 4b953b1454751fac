//! A schema of its own in the shared server, looked at by a connection that
//! has nothing to do with the loader.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use drover_loader_postgres::{Config, Postgres};
use drover_pipeline::http::HttpClient;
use drover_pipeline::load::Loader;
use drover_pipeline::testing::loader::{Harness, Row};
use drover_schemas::{Datum, Entity, Kind, Value};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls};

use crate::server;

/// A schema of its own, with a space and a quote in its name.
pub struct Schema {
    /// The server's address.
    pub url: String,
    /// The schema's name.
    pub name: String,
    /// The test's own connection.
    pub client: Client,
    turn: Option<SemaphorePermit<'static>>,
}

/// So many tests use the shared server at once: on a machine with many cores
/// they would run out of its connections.
static TURNS: Semaphore = Semaphore::const_new(12);

impl Schema {
    /// A schema in that server.
    pub async fn on(url: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let name = format!(
            "t \"{}\" {}",
            COUNT.fetch_add(1, Ordering::Relaxed),
            since.as_nanos()
        );
        Schema {
            url: url.to_owned(),
            name,
            client: connect(url).await,
            turn: None,
        }
    }

    /// A loader over that many connections.
    pub fn loader_with(&self, connections: usize) -> Postgres {
        let mut url = self.url.clone();
        // Told apart from other tests' connections by their name.
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str("application_name=");
        url.push_str(self.application());
        self.loader_at(&url, connections)
    }

    /// The name of this test's connections.
    pub fn application(&self) -> &str {
        self.name.rsplit(' ').next().expect("a name")
    }

    /// The table of that entity, quoted.
    pub fn table(&self, entity: &str) -> String {
        format!("\"{}\".\"{entity}\"", self.name.replace('"', "\"\""))
    }

    /// Runs statements; `{contact}` stands for the quoted table, `{schema}` for
    /// the quoted schema.
    pub async fn run(&self, sql: &str) {
        let sql = self.fill(sql);
        self.client.batch_execute(&sql).await.expect(&sql);
    }

    /// One value of a question, as text.
    pub async fn ask(&self, sql: &str) -> Option<String> {
        let sql = self.fill(sql);
        let row = self.client.query_one(&sql, &[]).await.expect(&sql);
        row.get(0)
    }
}

impl Schema {
    fn fill(&self, sql: &str) -> String {
        let schema = format!("\"{}\"", self.name.replace('"', "\"\""));
        sql.replace("{contact}", &self.table("contact"))
            .replace("{schema}", &schema)
    }

    /// A loader at that address, in this schema.
    pub fn loader_at(&self, url: &str, connections: usize) -> Postgres {
        let config = serde_json::json!({
            "url": url, "schema": self.name, "connections": connections,
        });
        let config: Config = serde_json::from_value(config).expect("a config");
        let http = HttpClient::new().expect("a client");
        match Postgres::new(config, http) {
            Ok(loader) => loader,
            Err(problems) => panic!("{problems:?}"),
        }
    }
}

/// A connection of the test's own.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

impl Harness for Schema {
    type Loader = Postgres;

    async fn fresh() -> Option<Self> {
        let url = tokio::task::spawn_blocking(server::shared)
            .await
            .expect("the server")?;
        let turn = TURNS.acquire().await.expect("never closed");
        let mut schema = Schema::on(url).await;
        schema.turn = Some(turn);
        Some(schema)
    }

    fn loader(&self) -> Postgres {
        self.loader_with(2)
    }

    async fn rows(&self, entity: &'static Entity) -> Vec<Row> {
        let fields: Vec<String> = entity.fields.iter().map(question).collect();
        let sql = format!(
            "SELECT drover_source || '/' || drover_object || '/' || drover_id || '#' || drover_slot, \
             id::text, drover_deleted_at IS NOT NULL, \
             ARRAY(SELECT key FROM jsonb_each(custom) ORDER BY key), \
             ARRAY(SELECT value::text FROM jsonb_each(custom) ORDER BY key), {} \
             FROM {}",
            fields.join(", "),
            self.table(&entity.name),
        );
        let rows = self.client.query(&sql, &[]).await.expect(&sql);
        rows.iter()
            .map(|row| {
                let values = entity.fields.iter().enumerate().map(|(place, field)| {
                    let text: Option<String> = row.get(place + 5);
                    text.map_or(Value::Null, |text| value(field.kind, text))
                });
                let (names, texts): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
                Row {
                    key: row.get(0),
                    id: row.get(1),
                    deleted: row.get(2),
                    values: values.collect(),
                    custom: names.into_iter().zip(texts).collect(),
                }
            })
            .collect()
    }

    async fn creates(&self, entity: &'static Entity) -> usize {
        let sql = format!("SELECT count(*) FROM {}", self.table(&entity.name));
        let count: i64 = self.client.query_one(&sql, &[]).await.expect(&sql).get(0);
        count as usize
    }

    async fn settle(&self) {}

    fn spoil(&self, datum: &mut Datum<'static>) {
        datum.values[0] = Value::String("nothing can hold \0".into());
    }

    async fn restart(&self) {
        let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                   WHERE application_name = $1";
        let gone = self.client.query(cut, &[&self.application()]).await;
        assert!(!gone.expect(cut).is_empty(), "the loader had a connection");
    }
}

/// The column as a text that [`value`] reads, whatever the session's settings.
fn question(field: &drover_schemas::Field) -> String {
    let name = field.name.chars().fold(String::new(), |mut name, letter| {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
        name
    });
    // Some are words of SQL (`primary`).
    let column = format!("\"{name}\"");
    match field.kind {
        Kind::Date => format!("({column} - date '1970-01-01')::text"),
        Kind::Datetime => format!("trunc(extract(epoch FROM {column}) * 1000)::text"),
        _ => format!("{column}::text"),
    }
}

fn value(kind: Kind, text: String) -> Value<'static> {
    let number = || text.parse::<i64>().expect("a number");
    match kind {
        Kind::String => Value::String(Cow::Owned(text)),
        Kind::Boolean => Value::Boolean(text == "true"),
        Kind::Long => Value::Long(number()),
        Kind::Decimal => Value::Decimal(Cow::Owned(text)),
        Kind::Date => Value::Date(number() as i32),
        Kind::Datetime => Value::Datetime(number()),
        Kind::Reference => Value::Reference(Cow::Owned(text)),
    }
}
