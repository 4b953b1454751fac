//! A few connections, made when they are needed and made anew when they broke.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use drover_pipeline::{Code, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::explain;
use crate::table::Table;
use crate::tls::Tls;

/// What every session is told.
/// - A lock that someone else holds is waited for, but not for ever: the lane
///   then shows what it waits for.
/// - A process that stands still inside a transaction gives its row locks up.
/// - A customer's time-outs for ordinary users would cut a large batch.
/// - Rows are found by an index, however small a table was when a statement was
///   planned first: it may hold a million rows an hour later.
/// - What is answered as applied must outlive a crash of the server, so an
///   `off` of the role or database is overruled.
const SESSION: &str = "SET client_min_messages = warning; \
    SET lock_timeout = '30s'; \
    SET idle_in_transaction_session_timeout = '20s'; \
    SET statement_timeout = 0; \
    SET jit = off; \
    SET plan_cache_mode = force_custom_plan; \
    SET enable_hashjoin = off; \
    SET enable_mergejoin = off; \
    SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') = 'off'";

/// The connections.
pub(crate) struct Pool {
    config: Config,
    tls: Tls,
    permits: std::sync::Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
}

/// A session of the database, with what was prepared in it.
struct Session {
    client: Client,
    statements: HashMap<String, Statements>,
}

/// The statements of a table's fast path.
#[derive(Clone)]
pub(crate) struct Statements {
    /// [`Table::copy`].
    pub(crate) copy: Statement,
    /// [`Table::upsert`].
    pub(crate) upsert: Statement,
    /// What is faster, where the table lets it be.
    pub(crate) quick: Option<Quick>,
}

/// Statements for rows of which the runner knows whether they are there.
#[derive(Clone)]
pub(crate) struct Quick {
    /// So many new ids as an array, and the transaction's time in microseconds
    /// since 2000.
    pub(crate) ids: Statement,
    /// The sequence of the ids.
    pub(crate) sequence: String,
    /// [`Table::copy_new`].
    pub(crate) copy_new: Statement,
    /// [`Table::copy_known`].
    pub(crate) copy_known: Statement,
    /// [`Table::update`].
    pub(crate) update: Statement,
}

const IDS: &str = "SELECT array_agg(nextval($1::text::regclass)), \
    (extract(epoch FROM now() - '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint \
    FROM generate_series(1, $2::bigint)";

/// A connection in use. Dropped without [`Pool::give_back`] it is closed, and
/// the server rolls back what was open: that is the way out of every error.
pub(crate) struct Connection {
    /// The session.
    pub(crate) client: Client,
    statements: HashMap<String, Statements>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool that connects when it is first asked.
    pub(crate) fn new(config: Config, tls: Tls, connections: usize) -> Self {
        Pool {
            config,
            tls,
            permits: std::sync::Arc::new(Semaphore::new(connections)),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// An open connection; waits while all are in use.
    pub(crate) async fn take(&self) -> Result<Connection> {
        let permit = std::sync::Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| Error::new(Code::Invariant, "the connection pool is closed"))?;
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            // When one was closed by the server, most others were too.
            idle.retain(|session| !session.client.is_closed());
            idle.pop()
        };
        let session = match idle {
            Some(session) => session,
            None => {
                // Read anew each time: certificates are renewed under a process.
                let tls = self.tls.connector()?;
                self.connect(tls)
                    .await
                    .map_err(|error| self.named(&error))?
            }
        };
        Ok(Connection {
            client: session.client,
            statements: session.statements,
            _permit: permit,
        })
    }

    /// Keeps a connection for the next call. Only for one without an open
    /// transaction.
    pub(crate) fn give_back(&self, connection: Connection) {
        let session = Session {
            client: connection.client,
            statements: connection.statements,
        };
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(session);
    }

    /// An error of connecting, which says to where.
    fn named(&self, error: &tokio_postgres::Error) -> Error {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate();
        let places: Vec<String> = hosts
            .map(|(at, host)| {
                let port = ports.get(at).or(ports.first()).unwrap_or(&5432);
                match host {
                    Host::Tcp(name) => format!("{name}:{port}"),
                    Host::Unix(folder) => format!("{}:{port}", folder.display()),
                }
            })
            .collect();
        explain(error).at(places.join(", "))
    }

    async fn connect(&self, tls: MakeRustlsConnect) -> Result<Session, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(tls).await?;
        // The driver's own half of the connection; it ends with the client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %explain(&error), "a connection to PostgreSQL ended");
            }
        });
        client.batch_execute(SESSION).await?;
        Ok(Session {
            client,
            statements: HashMap::new(),
        })
    }
}

impl Connection {
    /// The table's statements, prepared once a session, and its staging table.
    pub(crate) async fn statements(
        &mut self,
        table: &Table,
    ) -> Result<Statements, tokio_postgres::Error> {
        if let Some(known) = self.statements.get(&table.name) {
            return Ok(known.clone());
        }
        self.client.batch_execute(&table.create_stage).await?;
        let quick = match self.client.query_opt(&table.plain, &[]).await? {
            Some(row) => Some(Quick {
                ids: self.client.prepare(IDS).await?,
                sequence: row.try_get(0)?,
                copy_new: self.client.prepare(&table.copy_new).await?,
                copy_known: self.client.prepare(&table.copy_known).await?,
                update: self.client.prepare(&table.update).await?,
            }),
            None => None,
        };
        let statements = Statements {
            quick,
            copy: self.client.prepare(&table.copy).await?,
            upsert: self.client.prepare(&table.upsert).await?,
        };
        self.statements
            .insert(table.name.clone(), statements.clone());
        Ok(statements)
    }
}
