//! The target itself: a folder an entity, a file a record.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use drover_pipeline::idempotency::TargetId;
use drover_pipeline::load::{Applied, Item};
use drover_pipeline::record::{CanonicalKey, Fingerprint, Op, Order};
use drover_pipeline::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use crate::content::Content;

/// A record, as its file holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    /// Our id of it.
    pub id: TargetId,
    /// The canonical key that it stands for.
    pub key: String,
    /// The version that it is.
    pub order: Order,
    /// Whether it is taken away; its file stays, so that an older version that
    /// comes late is refused.
    pub deleted: bool,
    /// What it holds.
    pub content: Content,
}

/// The folder.
pub struct Store(PathBuf);

/// The folder while nobody else writes into it.
pub struct Locked<'s> {
    store: &'s Store,
    _lock: File,
}

impl Store {
    pub fn new(folder: PathBuf) -> Self {
        Store(folder)
    }

    /// The id of a key's record: the same for ever, and a good file name.
    pub fn id(key: &CanonicalKey) -> TargetId {
        Fingerprint::of(Op::Upsert, "", key.as_str().as_bytes()).to_string()
    }

    /// Proves that the folder, or the one it would be made in, can be written.
    pub fn check(&self) -> Result<()> {
        let there = self.0.ancestors().find(|folder| folder.is_dir());
        let there = there.unwrap_or(Path::new("."));
        let probe = there.join(".drover-check");
        File::create(&probe)
            .and_then(|_| fs::remove_file(&probe))
            .map_err(|e| failed(there, &e))
    }

    /// The folders that are not there yet.
    pub fn missing(&self) -> Vec<String> {
        let folders = drover_schemas::entities().iter();
        let folders = folders.map(|entity| self.0.join(&entity.name));
        let missing = folders.filter(|folder| !folder.is_dir());
        missing.map(|folder| folder.display().to_string()).collect()
    }

    /// Makes them.
    pub fn make(&self) -> Result<()> {
        for entity in drover_schemas::entities() {
            let folder = self.0.join(&entity.name);
            fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
        }
        Ok(())
    }

    /// The record of that id.
    pub fn read(&self, entity: &str, id: &str) -> Result<Option<Stored>> {
        let path = self.path(entity, id);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, &error)),
        };
        let stored = serde_json::from_str(&text).map_err(|error| {
            let what = format!("{} is no record of ours: {error}", path.display());
            Error::new(Code::TargetAltered, what)
        })?;
        Ok(Some(stored))
    }

    /// Waits until nobody else writes.
    pub fn lock(&self) -> Result<Locked<'_>> {
        let path = self.0.join("lock");
        let lock = File::create(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|e| failed(&path, &e))?;
        Ok(Locked {
            store: self,
            _lock: lock,
        })
    }

    fn path(&self, entity: &str, id: &str) -> PathBuf {
        self.0.join(entity).join(format!("{id}.json"))
    }
}

impl Locked<'_> {
    /// Creates the record or brings it to this content, unless it is newer.
    pub fn upsert(&self, item: &Item<'_>, content: Content) -> Result<Applied> {
        self.write(item, false, Some(content))
    }

    /// Marks the record as taken away, unless it is newer.
    pub fn delete(&self, item: &Item<'_>) -> Result<Applied> {
        self.write(item, true, None)
    }

    fn write(&self, item: &Item<'_>, deleted: bool, content: Option<Content>) -> Result<Applied> {
        let id = Store::id(item.key);
        let known = self.store.read(&item.entity.name, &id)?;
        let applied = |id: Option<TargetId>, newer: bool| Applied {
            id,
            created: known.is_none() && !deleted,
            newer,
        };
        match &known {
            Some(known) if known.order > item.order => return Ok(applied(Some(id), true)),
            None if deleted => return Ok(applied(None, false)),
            _ => {}
        }
        let stored = Stored {
            key: item.key.as_str().to_owned(),
            order: item.order,
            deleted,
            content: content
                .or_else(|| known.as_ref().map(|known| known.content.clone()))
                .unwrap_or_default(),
            id: id.clone(),
        };
        let path = self.store.path(&item.entity.name, &id);
        let text = serde_json::to_vec(&stored)
            .map_err(|e| Error::new(Code::Invariant, format!("writing a record: {e}")))?;
        replace(&path, &text).map_err(|e| failed(&path, &e))?;
        Ok(applied(Some(id), false))
    }

    /// Makes what was written last through a loss of power.
    pub fn sync(&self) -> Result<()> {
        for entity in drover_schemas::entities() {
            let folder = self.store.0.join(&entity.name);
            File::open(&folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|e| failed(&folder, &e))?;
        }
        Ok(())
    }
}

/// Replaces a file as a whole: a reader sees the old one or the new one.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(part, path)
}

/// An error of the target as Drover's: which of its own codes it is decides
/// whether it is tried again. A full disk passes, a right that is missing asks
/// for a person.
fn failed(path: &Path, error: &std::io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Code::Forbidden,
        ErrorKind::NotFound | ErrorKind::NotADirectory => Code::TargetAltered,
        _ => Code::TargetUnavailable,
    };
    Error::new(code, format!("{}: {error}", path.display()))
}
