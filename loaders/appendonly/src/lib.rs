//! The target `appendonly`: **a target for tests only.** An HTTP API as many
//! SaaS products have it: no unique key, a search index that lags behind, and
//! answers that get lost. It uses Pending, Unknown and Recover for real, and
//! its own log of creates shows each double create, which PostgreSQL's unique
//! key would hide. [`server`] is the target itself.
//!
//! # Guarantees
//! | what | how |
//! | --- | --- |
//! | no double create after a lost answer | the runner waits lease + index delay, searches, then creates |
//! | the lease covers a request on its way | `check` refuses a server that may work longer on a request than a quarter of the lease; a request that has no answer after a quarter is given up |
//! | what is left | a process that stands still between the runner's check and the socket for more than half a lease |

mod api;
mod body;
mod config;
pub mod server;

use std::time::Duration;

use drover_pipeline::Result;
use drover_pipeline::config::Problem;
use drover_pipeline::http::HttpClient;
use drover_pipeline::idempotency::{Identity, Lease, TargetId};
use drover_pipeline::load::{EntitySupport, Found, Item, Loader, Outcome};
use drover_pipeline::record::CanonicalKey;
use drover_schemas::Entity;

use api::Api;
pub use config::Config;

/// The most requests of one `apply`. All leave at once, so that none of them
/// leaves later than the runner's look at the lease.
const BATCH: usize = 20;

/// The loader.
pub struct AppendOnly {
    api: Api,
    lease: Lease,
}

impl Loader for AppendOnly {
    const NAME: &'static str = "appendonly";
    type Config = Config;

    fn new(config: Config, http: HttpClient) -> Result<Self, Vec<Problem>> {
        let url = config.parse()?;
        let length = Duration::from_millis(config.lease_ms);
        Ok(AppendOnly {
            api: Api::new(http, url, length / 4),
            lease: Lease {
                identity: Identity::None {
                    index_delay: Duration::from_millis(config.index_delay_ms),
                },
                length,
            },
        })
    }

    fn entities(&self) -> Vec<EntitySupport> {
        drover_schemas::entities()
            .iter()
            .map(|entity| EntitySupport {
                entity: entity.name.clone(),
                batch: BATCH,
                concurrency: 1,
                lease: self.lease,
                ordered: false,
            })
            .collect()
    }

    async fn check(&self) -> Result<()> {
        self.api.check(&self.lease).await
    }

    async fn plan(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn apply(&self, batch: &[Item<'_>]) -> Result<Vec<Outcome>> {
        let requests = batch.iter().map(|item| self.api.write(item));
        Ok(futures::future::join_all(requests).await)
    }

    async fn find(&self, entity: &Entity, keys: &[&CanonicalKey]) -> Result<Vec<Option<Found>>> {
        let searches = keys.iter().map(|key| self.api.search(entity, key));
        futures::future::try_join_all(searches).await
    }

    async fn read(&self, _entity: &Entity, ids: &[&TargetId]) -> Result<Vec<Option<String>>> {
        let reads = ids.iter().map(|id| self.api.read(id));
        futures::future::try_join_all(reads).await
    }
}
