//! The object store for bodies that the bus does not take.
//!
//! A record above [`MAX_RECORD`](crate::transform::MAX_RECORD) goes through
//! Kafka with a [`Stored`] in place of its body, which lies under
//! `<url>/<migration>/<sha256>`. It lies there, durably, before the transaction
//! begins that names it, so a reader of the record finds it. The name is the
//! content: writing it once more, after a kill or by two processes, changes
//! nothing, and what is read is known to be what was written. Nothing is ever
//! removed here: raw topics are kept, and with them what they name.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use reqwest::Url;
use tokio::runtime::Handle;

use crate::error::{Code, Error, Result};

/// Where a body lies: its name, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// In bytes.
    pub length: u64,
}

impl Stored {
    /// What a body is stored as.
    pub fn of(body: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, body).as_ref());
        Stored {
            sha256,
            length: body.len() as u64,
        }
    }

    /// Its name in the migration's part of the store.
    pub fn name(&self) -> String {
        self.sha256.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Where the object store is, as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `file:///…`: a folder that every stage sees under that path.
    Folder(PathBuf),
    /// `s3://bucket/prefix`; credentials and region come from the environment.
    Bucket(Url),
}

impl Location {
    /// Reads the configuration's `objectStore.url`. The error is what is wrong,
    /// and what to do about it.
    pub fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        const FOLDER: &str = "write `file:///` and the folder's whole path";
        let url = Url::parse(text).map_err(|_| ("is no URL", FOLDER))?;
        match url.scheme() {
            "file" => match url.to_file_path() {
                Ok(path) if url.query().is_none() && path.parent().is_some() => {
                    Ok(Location::Folder(path))
                }
                _ => Err(("names no folder", FOLDER)),
            },
            "s3" if url.host_str().is_none_or(str::is_empty) => {
                Err(("names no bucket", "write `s3://bucket/prefix`"))
            }
            // Keys belong into the environment, where no file shows them.
            "s3" if !url.username().is_empty() || url.query().is_some() => Err((
                "holds more than a bucket and a prefix",
                "write `s3://bucket/prefix`; keys come from AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY",
            )),
            "s3" => Ok(Location::Bucket(url)),
            _ => Err((
                "is neither a folder nor a bucket",
                "write `file:///…` or `s3://bucket/prefix`",
            )),
        }
    }
}

/// One migration's part of the object store.
#[derive(Debug)]
pub struct Bodies {
    store: Arc<dyn ObjectStore>,
    /// Under which its bodies lie.
    prefix: Path,
    /// Must be there: a folder that was not mounted is not made anew, or bodies
    /// would lie where nobody looks for them.
    folder: Option<PathBuf>,
    runtime: Handle,
}

impl Bodies {
    /// The store of that migration; nothing is asked of it yet. Must be called
    /// inside a runtime, which does the work for callers outside of one.
    pub fn open(location: &Location, migration: &str) -> Result<Self> {
        let wrong =
            |error: &dyn std::fmt::Display| Error::new(Code::ConfigInvalid, error.to_string());
        let runtime = Handle::try_current().map_err(|e| wrong(&e))?;
        let (store, prefix, folder): (Arc<dyn ObjectStore>, _, _) = match location {
            Location::Folder(folder) => (
                Arc::new(LocalFileSystem::new().with_fsync(true)),
                Path::from_absolute_path(folder).map_err(|e| wrong(&e))?,
                Some(folder.clone()),
            ),
            Location::Bucket(url) => (
                bucket(url).map_err(|e| wrong(&e))?,
                Path::from_url_path(url.path()).map_err(|e| wrong(&e))?,
                None,
            ),
        };
        Ok(Bodies {
            store,
            prefix: prefix.join(migration),
            folder,
            runtime,
        })
    }

    /// Writes a body. When this returns, it is durable.
    pub async fn put(&self, body: Vec<u8>) -> Result<Stored> {
        let stored = Stored::of(&body);
        self.is_there()?;
        let written = self.store.put(&self.at(&stored), body.into()).await;
        written.map_err(|error| unavailable(&error))?;
        Ok(stored)
    }

    /// The body, proved to be the one that was written. [`Code::BodyLost`] when
    /// it is not there, or another.
    pub async fn get(&self, stored: &Stored) -> Result<Vec<u8>> {
        self.is_there()?;
        let at = self.at(stored);
        let lost = |what: &str| {
            let message = format!("the record's body {what}");
            Error::new(Code::BodyLost, message).at(at.to_string())
        };
        let found = match self.store.get(&at).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(lost("is not in the object store"));
            }
            Err(error) => return Err(unavailable(&error)),
        };
        let length = found.meta.size;
        if length != stored.length {
            let what = format!("was altered: it has {length} bytes, not {}", stored.length);
            return Err(lost(&what));
        }
        let body = found.bytes().await.map_err(|error| unavailable(&error))?;
        if Stored::of(&body) != *stored {
            return Err(lost("was altered: its SHA-256 is another"));
        }
        Ok(body.into())
    }

    /// The same as [`put`](Self::put), outside of a runtime's own threads.
    pub fn put_now(&self, body: Vec<u8>) -> Result<Stored> {
        self.runtime.block_on(self.put(body))
    }

    /// The same as [`get`](Self::get), outside of a runtime's own threads.
    pub fn get_now(&self, stored: &Stored) -> Result<Vec<u8>> {
        self.runtime.block_on(self.get(stored))
    }

    /// Proves that the store can be written and read, by a body that it removes
    /// again.
    pub async fn check(&self) -> Result<()> {
        // Another one each time: two that check at once do not meet.
        let body = format!("drover check {:016x}", rand::random::<u64>());
        let stored = self.put(body.into_bytes()).await?;
        self.get(&stored).await?;
        let removed = self.store.delete(&self.at(&stored)).await;
        removed.map_err(|error| unavailable(&error))
    }

    fn at(&self, stored: &Stored) -> Path {
        self.prefix.clone().join(stored.name())
    }

    fn is_there(&self) -> Result<()> {
        match &self.folder {
            Some(folder) if !folder.is_dir() => {
                let message = format!("there is no folder {}", folder.display());
                Err(Error::new(Code::ObjectStoreUnavailable, message))
            }
            _ => Ok(()),
        }
    }
}

/// The body that a record names, from the store that may be configured.
pub async fn get(bodies: Option<&Bodies>, stored: &Stored) -> Result<Vec<u8>> {
    match bodies {
        Some(bodies) => bodies.get(stored).await,
        None => Err(none()),
    }
}

fn none() -> Error {
    let message = "the record's body is in an object store, and this process knows of none";
    Error::new(Code::BodyLost, message)
}

/// The same as [`get`], outside of a runtime's own threads.
pub fn get_now(bodies: Option<&Bodies>, stored: &Stored) -> Result<Vec<u8>> {
    match bodies {
        Some(bodies) => bodies.get_now(stored),
        None => Err(none()),
    }
}

fn unavailable(error: &object_store::Error) -> Error {
    Error::new(Code::ObjectStoreUnavailable, error.to_string())
}

fn bucket(url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    let store = AmazonS3Builder::from_env()
        .with_url(url.as_str())
        // The stages try again themselves, and say so meanwhile.
        .with_retry(RetryConfig {
            max_retries: 2,
            retry_timeout: std::time::Duration::from_secs(10),
            ..RetryConfig::default()
        });
    Ok(Arc::new(store.build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &std::path::Path) -> Bodies {
        Bodies::open(&Location::Folder(folder.into()), "m-1").expect("a store")
    }

    fn code<T>(result: Result<T>) -> Option<Code> {
        result.err().map(|error| error.code)
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_may_be_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let bodies = open(folder.path());
        let body = b"x".repeat(100_000);
        let stored = bodies.put(body.clone()).await.expect("written");
        assert_eq!(bodies.get(&stored).await.expect("read"), body);
        let again = bodies.put(body.clone()).await.expect("written again");
        assert_eq!(again, stored);
        // `sha256sum` of the same says the same.
        let sum = "d69e68988157833272305aaf21f453c800346e8a3640db6578e260215542e5d4";
        assert_eq!(stored.name(), sum);
        let path = folder.path().join("m-1").join(stored.name());
        assert_eq!(std::fs::read(path).expect("its file"), body);
        bodies.check().await.expect("it works");
        let files = std::fs::read_dir(folder.path().join("m-1")).expect("a folder");
        assert_eq!(files.count(), 1, "a check leaves nothing behind");
    }

    #[tokio::test]
    async fn a_body_that_is_gone_or_altered_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let bodies = open(folder.path());
        let stored = bodies.put(b"one body".to_vec()).await.expect("written");
        let path = folder.path().join("m-1").join(stored.name());
        for wrong in [&b"two body"[..], b"one bod", b"one body!", b""] {
            std::fs::write(&path, wrong).expect("altered");
            assert_eq!(code(bodies.get(&stored).await), Some(Code::BodyLost));
        }
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(code(bodies.get(&stored).await), Some(Code::BodyLost));
        assert_eq!(code(get(None, &stored).await), Some(Code::BodyLost));
        std::fs::write(&path, b"one body").expect("put back");
        assert_eq!(bodies.get(&stored).await.expect("read"), b"one body");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_mounted_is_waited_for_and_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("not mounted");
        let bodies = open(&inner);
        let unavailable = Some(Code::ObjectStoreUnavailable);
        assert_eq!(code(bodies.put(vec![1]).await), unavailable);
        assert_eq!(code(bodies.get(&Stored::of(&[1])).await), unavailable);
        assert_eq!(code(bodies.check().await), unavailable);
        assert!(!inner.exists());
        std::fs::create_dir(&inner).expect("mounted");
        let stored = bodies.put(vec![1]).await.expect("written");
        assert_eq!(bodies.get(&stored).await.expect("read"), [1]);
    }

    #[test]
    fn only_a_folder_or_a_bucket_is_taken() {
        let folder = |path: &str| Ok(Location::Folder(path.into()));
        let parse = |text: &str| Location::parse(text).map_err(|(what, _)| what);
        assert_eq!(
            parse("file:///var/lib/drover/bodies"),
            folder("/var/lib/drover/bodies")
        );
        assert_eq!(parse("file:///a%20b"), folder("/a b"));
        assert_eq!(parse("file://bodies"), Err("names no folder"));
        assert_eq!(parse("file:///"), Err("names no folder"));
        assert_eq!(parse("/var/lib/bodies"), Err("is no URL"));
        assert_eq!(
            parse("https://x/y"),
            Err("is neither a folder nor a bucket")
        );
        assert!(parse("s3://bucket/a").is_ok());
        assert!(parse("s3://").is_err());
        assert!(parse("s3://key:secret@bucket/a").is_err());
    }
}
