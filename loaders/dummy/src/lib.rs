//! The target `dummy`: a folder with one JSON file a record. `drover new-loader`
//! makes a new target of it, whose author replaces `store.rs` by the calls of a
//! real one. What it promises it keeps, as its suite shows, but nobody should
//! keep a company's data in it.
//!
//! # Guarantees
//! | what | how |
//! | --- | --- |
//! | no second create by our key | the file's name is made of the key |
//! | no older version | the file holds its order; a lock on the folder makes comparing and writing one step |
//! | nothing applied is forgotten | the file and its folder are synced before `Applied` |

mod content;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use drover_pipeline::config::Problem;
use drover_pipeline::http::HttpClient;
use drover_pipeline::idempotency::{Identity, Lease, TargetId};
use drover_pipeline::load::{EntitySupport, Found, Item, Loader, Outcome, Write};
use drover_pipeline::record::CanonicalKey;
use drover_pipeline::{Code, Error, Result};
use drover_schemas::Entity;
use schemars::JsonSchema;
use serde::Deserialize;

use store::Store;

/// `targetConfig` of the target `dummy`. A field that holds a secret is marked
/// with `#[schemars(extend("secret" = true))]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The folder that the records go to; it is made if it is not there.
    pub folder: PathBuf,
}

/// The loader.
pub struct Dummy {
    store: Store,
}

impl Loader for Dummy {
    const NAME: &'static str = "dummy";
    type Config = Config;

    fn new(config: Config, _http: HttpClient) -> Result<Self, Vec<Problem>> {
        if config.folder.as_os_str().is_empty() {
            return Err(vec![Problem::at(
                "targetConfig.folder",
                "is empty",
                "name the folder that the records go to",
            )]);
        }
        Ok(Dummy {
            store: Store::new(config.folder),
        })
    }

    fn entities(&self) -> Vec<EntitySupport> {
        drover_schemas::entities()
            .iter()
            .map(|entity| EntitySupport {
                entity: entity.name.clone(),
                batch: 100,
                concurrency: 1,
                lease: Lease {
                    identity: Identity::Upsert,
                    length: Duration::from_secs(10),
                },
                ordered: true,
            })
            .collect()
    }

    async fn check(&self) -> Result<()> {
        self.store.check()
    }

    async fn plan(&self) -> Result<Vec<String>> {
        Ok(self.store.missing())
    }

    async fn prepare(&self) -> Result<()> {
        self.store.make()
    }

    async fn apply(&self, batch: &[Item<'_>]) -> Result<Vec<Outcome>> {
        // Files are read and written by blocking calls; a loader of an HTTP API
        // awaits its requests instead.
        tokio::task::block_in_place(|| {
            let locked = self.store.lock()?;
            let outcomes = batch.iter().map(|item| {
                let applied = match &item.write {
                    Write::Upsert { datum, links } => content::of(item, datum, links)
                        .and_then(|content| locked.upsert(item, content)),
                    Write::Delete { .. } => locked.delete(item),
                };
                match applied {
                    Ok(applied) => Outcome::Applied(applied),
                    // The record's fault, and only of this record.
                    Err(error) if error.code == Code::TargetRefused => Outcome::Rejected(error),
                    // The target's: the file is as it was. A request that was
                    // sent and has no answer would be `Unknown`.
                    Err(error) => Outcome::NotSent(error),
                }
            });
            let outcomes = outcomes.collect();
            locked.sync()?;
            Ok(outcomes)
        })
    }

    async fn find(&self, entity: &Entity, keys: &[&CanonicalKey]) -> Result<Vec<Option<Found>>> {
        let found = keys.iter().map(|key| {
            let stored = self.store.read(&entity.name, &Store::id(key))?;
            Ok(stored.map(|stored| Found {
                id: stored.id,
                order: Some(stored.order),
            }))
        });
        found.collect()
    }

    async fn read(&self, entity: &Entity, ids: &[&TargetId]) -> Result<Vec<Option<String>>> {
        let read = ids.iter().map(|id| {
            let stored = self.store.read(&entity.name, id)?;
            let text = stored.map(|stored| serde_json::to_string(&stored));
            text.transpose()
                .map_err(|e| Error::new(Code::Invariant, e.to_string()))
        });
        read.collect()
    }
}
