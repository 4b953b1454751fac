//! The source `dummy`: a small API of JSON over HTTP, as many products have one.
//! It is whole, and passes the suite of every extractor; `drover new-extractor`
//! makes a new source of it. Nobody runs this API; its stand-in is in `tests/`.
//!
//! What the API has, and this extractor leans on:
//! | call | answer |
//! | --- | --- |
//! | `POST /token` `{key}` | `{token}`, good for a while |
//! | `GET /time` | `{now}`, in milliseconds |
//! | `GET /objects` | `{objects: [{name, count, fields: [{name, type, references}]}]}` |
//! | `GET /records/OBJECT?since&until&afterModified&afterId&limit` | `{records, more}`: `since` ≤ `modified` < `until`, in the order of (`modified`, `id`), behind the given pair |
//! | `POST /records/OBJECT/get` `{ids}` | `{records}`: those that are there |
//! | `GET /records/OBJECT/ids?after&limit` | `{ids, more}`: the live ones |
//!
//! A record is an object with `id`, `modified` and its fields. One that was
//! deleted is shown without fields, as `{id, modified, deleted: true}`.

mod api;
mod fetch;
mod record;

use drover_pipeline::config::Problem;
use drover_pipeline::extract::{Change, Discovery, Extractor, Ids, Object, Page};
use drover_pipeline::http::HttpClient;
use drover_pipeline::{Code, Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use api::Api;
pub use fetch::Cursor;

/// `sourceConfig` of a migration from `dummy`. It has no `Debug`, so that
/// nothing prints the key.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The API's address: `https://api.example.com`.
    pub url: String,
    /// The key of an integration user who sees every record. It can come from
    /// the variable `DROVER_DUMMY_API_KEY`.
    #[schemars(extend("secret" = true))]
    pub api_key: String,
    /// Records per request; the API answers with at most 2,000.
    #[serde(default = "default_page_size")]
    #[schemars(range(min = 1, max = 2000))]
    pub page_size: usize,
    /// How far each round of changes reaches back behind the one before it, in
    /// milliseconds: longer than the time from a record's stamp to the moment
    /// at which it shows. Zero would lose records.
    #[serde(default = "default_lookback_ms")]
    #[schemars(range(min = 1000, max = 86_400_000))]
    pub lookback_ms: u32,
}

fn default_page_size() -> usize {
    2_000
}

fn default_lookback_ms() -> u32 {
    300_000
}

/// The extractor. What it keeps, the token, can be lost at any moment.
pub struct Dummy {
    api: Api,
}

impl Extractor for Dummy {
    const NAME: &'static str = "dummy";
    type Config = Config;
    type Cursor = Cursor;

    fn mapping() -> &'static str {
        include_str!("../mapping.yaml")
    }

    fn new(config: Config, http: HttpClient) -> Result<Self, Vec<Problem>> {
        // The schema has judged numbers and types; what it can't say stands here.
        // Every problem is told at once, so that nobody mends them one by one.
        let mut problems = Vec::new();
        let url = reqwest::Url::parse(&config.url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        if url.is_none() {
            let (what, advice) = ("is no address", "write `https://HOST`");
            problems.push(Problem::at("sourceConfig.url", what, advice));
        }
        if config.api_key.is_empty() {
            let advice = "make a key in the product's settings";
            problems.push(Problem::at("sourceConfig.apiKey", "is empty", advice));
        }
        match url {
            Some(url) if problems.is_empty() => Ok(Dummy {
                api: Api::new(config, url, http),
            }),
            _ => Err(problems),
        }
    }

    async fn check(&self) -> Result<()> {
        self.api.objects().await.map(drop)
    }

    async fn discover(&self, _named: &[String]) -> Result<Discovery> {
        // All objects are shown, those that the migration names among them.
        Ok(Discovery {
            objects: self.api.objects().await?,
            quota: None,
        })
    }

    async fn fetch(&self, object: &Object, from: Option<&Cursor>) -> Result<Page<Cursor>> {
        fetch::fetch(&self.api, &object.name, from).await
    }

    async fn get(&self, object: &Object, ids: &[&str]) -> Result<Vec<Option<Change>>> {
        let text = self.api.get(&object.name, ids).await?;
        let listed = record::read(&text, &object.name)?;
        if let Some(bad) = listed.bad.into_iter().next() {
            return Err(Error::new(bad.code, bad.message).at(bad.place));
        }
        let mut found = listed.changes;
        // The answer's order is the API's; ours is that of the ids.
        let mut take = |id: &&str| {
            let at = found.iter().position(|change| change.id == *id)?;
            Some(found.swap_remove(at))
        };
        Ok(ids.iter().map(&mut take).collect())
    }

    async fn ids(&self, object: &Object, page: Option<&str>) -> Result<Ids> {
        let listed = self.api.ids(&object.name, page).await?;
        let next = match (listed.more, listed.ids.last()) {
            (false, _) => None,
            (true, Some(last)) => Some(last.clone()),
            (true, None) => {
                let what = "a page of ids is empty and says that more follow";
                return Err(Error::new(Code::BadAnswer, what));
            }
        };
        Ok(Ids {
            ids: listed.ids,
            next,
        })
    }
}
