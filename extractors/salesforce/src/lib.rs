//! Salesforce as a source: REST with keyset pages, changes by
//! `SystemModstamp`, deletes by `queryAll` and the log of deletes.
//!
//! [`fetch`] says why nothing is lost; [`rows`] says what a record's bytes are;
//! [`errors`] is the table of refusals.

pub mod api;
pub mod auth;
pub mod bulk;
pub mod canon;
pub mod config;
pub mod count;
pub mod cursor;
pub mod deletes;
pub mod delta;
pub mod describe;
pub mod errors;
pub mod fetch;
pub mod id;
pub mod links;
pub mod lookup;
pub mod query;
pub mod quota;
pub mod rows;
pub mod sheet;
pub mod time;
pub mod wide;

use drover_pipeline::Result;
use drover_pipeline::config::Problem;
use drover_pipeline::extract::{Change, Discovery, Extractor, Ids, Object, Page};
use drover_pipeline::http::HttpClient;

pub use config::Config;
pub use cursor::Cursor;

/// The extractor. What it keeps, the token, can be lost at any moment.
pub struct Salesforce {
    api: api::Api,
}

impl Extractor for Salesforce {
    const NAME: &'static str = "salesforce";
    type Config = Config;
    type Cursor = Cursor;

    fn mapping() -> &'static str {
        include_str!("../mapping.yaml")
    }

    fn parity() -> Option<&'static str> {
        Some(include_str!("../parity.yaml"))
    }

    fn new(config: Config, http: HttpClient) -> Result<Self, Vec<Problem>> {
        let origins = config.validate()?;
        Ok(Salesforce {
            api: api::Api::new(config, origins, http),
        })
    }

    async fn check(&self) -> Result<()> {
        lookup::check(&self.api).await
    }

    async fn discover(&self, named: &[String]) -> Result<Discovery> {
        describe::discover(&self.api, named).await
    }

    async fn fetch(&self, object: &Object, from: Option<&Cursor>) -> Result<Page<Cursor>> {
        fetch::fetch(&self.api, object, from).await
    }

    fn again(&self, cursor: &Cursor) -> Option<Cursor> {
        Some(cursor.again())
    }

    async fn get(&self, object: &Object, ids: &[&str]) -> Result<Vec<Option<Change>>> {
        lookup::get(&self.api, object, ids).await
    }

    async fn ids(&self, object: &Object, page: Option<&str>) -> Result<Ids> {
        lookup::ids(&self.api, object, page).await
    }
}
