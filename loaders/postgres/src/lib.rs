//! The target `postgres`: the company's own platform. One table per canonical
//! entity, each row under the source's key, guarded by the version's order.
//!
//! # Guarantees
//! | what | how |
//! | --- | --- |
//! | no second row for a key | unique (`drover_source`, `drover_object`, `drover_id`, `drover_slot`) |
//! | no older version over a newer one | the upsert's own `WHERE drover_order < …` |
//! | a lost answer is harmless | one transaction a batch; sent again, it finds its own order and writes nothing |
//! | Applied is durable | answered behind COMMIT, with `synchronous_commit` at least `on` |
//! | a row taken away by hand is not made anew under another id | its record becomes a dead letter (`ROW_REMOVED`): others link to the id |
//! | a table altered by hand stops its lane | columns, types and unique key are compared at the start and between batches |
//! | one bad row rejects only itself | the batch is divided inside its transaction until the culprit is alone |
//!
//! Read in this order: `config` (what it needs), `table` (what it makes),
//! `prepare`, `apply` (how a batch gets in), `quick` (how it mostly does), `isolate` (how a culprit gets
//! out), `error` (what PostgreSQL's codes mean to a runner).

mod apply;
mod binary;
mod config;
mod error;
mod isolate;
mod lookup;
mod pool;
mod prepare;
mod quick;
mod table;
mod text;
mod tls;

use std::time::Duration;

use drover_pipeline::config::Problem;
use drover_pipeline::http::HttpClient;
use drover_pipeline::idempotency::{Identity, Lease, TargetId};
use drover_pipeline::load::{EntitySupport, Found, Item, Loader, Outcome};
use drover_pipeline::record::CanonicalKey;
use drover_pipeline::{Code, Error, Result};
use drover_schemas::Entity;

pub use config::Config;
use pool::Pool;
use table::Table;

/// The most rows of one `apply`: one COPY and one upsert.
const BATCH: usize = 5_000;

/// The loader.
pub struct Postgres {
    pool: Pool,
    connections: usize,
    schema: String,
    tables: Vec<Table>,
}

impl Postgres {
    fn table(&self, entity: &Entity) -> Result<&Table> {
        self.tables
            .iter()
            .find(|table| table.entity.name == entity.name)
            .ok_or_else(|| {
                Error::new(
                    Code::Invariant,
                    format!("no table is known for the entity {}", entity.name),
                )
            })
    }
}

impl Loader for Postgres {
    const NAME: &'static str = "postgres";
    type Config = Config;

    fn new(config: Config, _http: HttpClient) -> Result<Self, Vec<Problem>> {
        let (parsed, tls) = config.parse()?;
        let tables = drover_schemas::entities()
            .iter()
            .map(|entity| Table::new(entity, &config.schema))
            .collect();
        Ok(Postgres {
            pool: Pool::new(parsed, tls, config.connections),
            connections: config.connections,
            schema: config.schema,
            tables,
        })
    }

    fn entities(&self) -> Vec<EntitySupport> {
        self.tables
            .iter()
            .map(|table| EntitySupport {
                entity: table.entity.name.clone(),
                batch: BATCH,
                // While some batches are decoded or committed, the others keep
                // the connections busy.
                concurrency: 2 * self.connections,
                // The unique key refuses a second create at once, so nobody
                // ever waits for this lease.
                lease: Lease {
                    identity: Identity::Upsert,
                    length: Duration::from_secs(60),
                },
                ordered: true,
            })
            .collect()
    }

    async fn check(&self) -> Result<()> {
        let connection = self.pool.take().await?;
        prepare::check(&connection.client, &self.schema).await?;
        prepare::stands(&connection.client, &self.schema, &self.tables).await?;
        self.pool.give_back(connection);
        Ok(())
    }

    async fn plan(&self) -> Result<Vec<String>> {
        let connection = self.pool.take().await?;
        let plan = prepare::plan(&connection.client, &self.schema, &self.tables).await?;
        self.pool.give_back(connection);
        Ok(plan)
    }

    async fn prepare(&self) -> Result<()> {
        let connection = self.pool.take().await?;
        prepare::prepare(&connection.client, &self.schema, &self.tables).await?;
        self.pool.give_back(connection);
        Ok(())
    }

    async fn altered(&self, entity: &Entity) -> Result<()> {
        let table = self.table(entity)?;
        let connection = self.pool.take().await?;
        prepare::altered(&connection.client, &self.schema, table).await?;
        self.pool.give_back(connection);
        Ok(())
    }

    async fn apply(&self, batch: &[Item<'_>]) -> Result<Vec<Outcome>> {
        let Some(first) = batch.first() else {
            return Ok(Vec::new());
        };
        if batch
            .iter()
            .any(|item| item.entity.name != first.entity.name)
        {
            return Err(Error::new(
                Code::Invariant,
                "a batch holds more than one entity",
            ));
        }
        let table = self.table(first.entity)?;
        let mut connection = self.pool.take().await?;
        // After any error the connection is dropped, and with it whatever the
        // transaction had done.
        let outcomes = apply::apply(&mut connection, table, batch).await?;
        self.pool.give_back(connection);
        Ok(outcomes)
    }

    async fn find(&self, entity: &Entity, keys: &[&CanonicalKey]) -> Result<Vec<Option<Found>>> {
        let table = self.table(entity)?;
        let connection = self.pool.take().await?;
        let found = lookup::find(&connection.client, table, keys).await?;
        self.pool.give_back(connection);
        Ok(found
            .into_iter()
            .map(|found| {
                found.map(|standing| Found {
                    id: standing.id.to_string(),
                    order: standing.order,
                })
            })
            .collect())
    }

    async fn read(&self, entity: &Entity, ids: &[&TargetId]) -> Result<Vec<Option<String>>> {
        let table = self.table(entity)?;
        let connection = self.pool.take().await?;
        let rows = lookup::read(&connection.client, table, ids).await?;
        self.pool.give_back(connection);
        Ok(rows)
    }
}
