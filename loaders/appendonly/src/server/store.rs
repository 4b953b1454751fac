//! What the server has: records in memory, every write in a log.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::faults::{Draws, Fate, Faults, Stats};

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where every write is appended; read back at the start.
    pub log: Option<PathBuf>,
    /// How far the search index lags behind.
    pub index_delay: Duration,
    /// The longest a request is worked on.
    pub max_processing: Duration,
}

/// The content of a record, as a client sends it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Content {
    /// The canonical entity.
    pub entity: String,
    /// Our key.
    pub key: String,
    /// The source's modification time.
    pub version: i64,
    /// The fields, as they came.
    pub fields: Box<RawValue>,
    /// Everything else, as it came.
    pub custom: Box<RawValue>,
}

/// Why a request is refused.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

/// A line of the log.
#[derive(Serialize, Deserialize)]
struct Line {
    op: Op,
    id: String,
    /// When, in milliseconds since 1970.
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Create,
    Update,
    Delete,
}

/// A record.
struct Record {
    content: Content,
    created_at: u64,
    deleted: bool,
}

/// Everything the server has.
pub struct Store {
    settings: Settings,
    inner: Mutex<Inner>,
}

struct Inner {
    log: Option<File>,
    // By number; the id is `r-<number>`.
    records: BTreeMap<u64, Record>,
    by_key: HashMap<(String, String), Vec<u64>>,
    draws: Draws,
}

impl Store {
    /// Opens the log, with what an earlier run left in it.
    pub fn open(settings: Settings) -> std::io::Result<Self> {
        let mut inner = Inner {
            log: None,
            records: BTreeMap::new(),
            by_key: HashMap::new(),
            draws: Draws::new(Faults::default(), Stats::default()),
        };
        if let Some(path) = &settings.log {
            let log = File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(path)?;
            let mut whole = 0;
            let mut reader = BufReader::new(&log);
            let mut text = Vec::new();
            while reader.read_until(b'\n', &mut text)? > 0 {
                // A line without its end was never answered: cut by a kill.
                if text.last() != Some(&b'\n') {
                    break;
                }
                inner.replay(serde_json::from_slice(&text)?);
                whole += text.len() as u64;
                text.clear();
            }
            log.set_len(whole)?;
            inner.log = Some(log);
        }
        Ok(Store {
            settings,
            inner: Mutex::new(inner),
        })
    }

    /// How it was set up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn create(&self, content: Content) -> Result<(StatusCode, String), Refusal> {
        let mut inner = self.lock();
        let number = inner.records.keys().next_back().map_or(1, |last| last + 1);
        let id = format!("r-{number}");
        inner.write(Line {
            op: Op::Create,
            id: id.clone(),
            at: now(),
            content: Some(content),
        })?;
        Ok((StatusCode::CREATED, id))
    }

    /// Replaces the content, or marks as deleted without one.
    pub(super) fn update(
        &self,
        id: &str,
        content: Option<Content>,
    ) -> Result<(StatusCode, String), Refusal> {
        let mut inner = self.lock();
        if number_of(id).is_none_or(|number| !inner.records.contains_key(&number)) {
            return Err(Refusal::new(404, "there is no such record"));
        }
        inner.write(Line {
            op: if content.is_some() {
                Op::Update
            } else {
                Op::Delete
            },
            id: id.to_owned(),
            at: now(),
            content,
        })?;
        Ok((StatusCode::OK, id.to_owned()))
    }

    pub(super) fn record(&self, id: &str) -> Option<String> {
        let number = number_of(id)?;
        self.lock().records.get(&number).map(|r| r.json(number))
    }

    /// The ids under a key, of what the index has by now.
    pub(super) fn search(&self, entity: &str, key: &str) -> Vec<String> {
        let visible = now().saturating_sub(self.settings.index_delay.as_millis() as u64);
        let inner = self.lock();
        let hits = inner.by_key.get(&(entity.to_owned(), key.to_owned()));
        hits.into_iter()
            .flatten()
            .filter(|number| inner.records[number].created_at <= visible)
            .map(|number| format!("r-{number}"))
            .collect()
    }

    /// How long until the index has all that there is; `None` when it has.
    pub(super) fn index_lag(&self) -> Option<Duration> {
        let newest = {
            let inner = self.lock();
            inner.records.values().next_back()?.created_at
        };
        let complete = newest + self.settings.index_delay.as_millis() as u64;
        let left = complete.checked_sub(now())?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    pub(super) fn creates(&self) -> String {
        let inner = self.lock();
        let lines = inner.records.iter().map(|(number, record)| {
            serde_json::json!({
                "id": format!("r-{number}"),
                "entity": record.content.entity,
                "key": record.content.key,
                "at": record.created_at,
            })
        });
        lines.map(|line| format!("{line}\n")).collect()
    }

    pub(super) fn records(&self) -> String {
        let inner = self.lock();
        let lines = inner.records.iter().map(|(number, r)| r.json(*number));
        lines.map(|line| line + "\n").collect()
    }

    pub(super) fn draw(&self, key: &str) -> (Fate, Duration) {
        self.lock().draws.draw(key)
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        let mut inner = self.lock();
        let stats = inner.draws.stats.clone();
        inner.draws = Draws::new(faults, stats);
    }

    pub(super) fn stats(&self) -> Stats {
        self.lock().draws.stats.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Logs, then does: what was answered stands in the log of a killed server.
    fn write(&mut self, line: Line) -> Result<(), Refusal> {
        if let Some(log) = &mut self.log {
            let written = serde_json::to_vec(&line)
                .map_err(std::io::Error::from)
                .and_then(|mut text| {
                    text.push(b'\n');
                    log.write_all(&text)
                });
            if let Err(error) = written {
                return Err(Refusal::new(500, &format!("the log: {error}")));
            }
        }
        self.replay(line);
        Ok(())
    }

    fn replay(&mut self, line: Line) {
        let Some(number) = number_of(&line.id) else {
            return;
        };
        match (line.op, line.content) {
            (Op::Create, Some(content)) => {
                let key = (content.entity.clone(), content.key.clone());
                self.by_key.entry(key).or_default().push(number);
                let record = Record {
                    content,
                    created_at: line.at,
                    deleted: false,
                };
                self.records.insert(number, record);
            }
            (_, content) => {
                if let Some(record) = self.records.get_mut(&number) {
                    record.deleted = line.op == Op::Delete;
                    if let Some(content) = content {
                        record.content = content;
                    }
                }
            }
        }
    }
}

impl Record {
    fn json(&self, number: u64) -> String {
        #[derive(Serialize)]
        struct Shown<'a> {
            id: String,
            deleted: bool,
            #[serde(rename = "createdAt")]
            created_at: u64,
            entity: &'a str,
            key: &'a str,
            version: i64,
            fields: &'a RawValue,
            custom: &'a RawValue,
        }
        let content = &self.content;
        let shown = Shown {
            id: format!("r-{number}"),
            deleted: self.deleted,
            created_at: self.created_at,
            entity: &content.entity,
            key: &content.key,
            version: content.version,
            fields: &content.fields,
            custom: &content.custom,
        };
        serde_json::to_string(&shown).unwrap_or_default()
    }
}

impl Content {
    /// Reads a body. NUL in a text is refused, as most systems do.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let content: Content = serde_json::from_slice(body)
            .map_err(|error| Refusal::new(400, &format!("the body: {error}")))?;
        if content.key.is_empty() || content.fields.get().contains("\\u0000") {
            return Err(Refusal::new(422, "a text holds NUL, or the key is empty"));
        }
        Ok(content)
    }
}

impl Refusal {
    pub(super) fn new(status: u16, message: &str) -> Self {
        Refusal {
            status,
            message: message.to_owned(),
        }
    }
}

fn number_of(id: &str) -> Option<u64> {
    id.strip_prefix("r-")?.parse().ok()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
