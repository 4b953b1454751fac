//! An S3 bucket, served from a folder by this process.

use std::path::{Path, PathBuf};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

/// Its bucket's name.
const NAME: &str = "drover-bodies";
const KEY: &str = "key-under-test";
const SECRET: &str = "secret-under-test";

/// A server of one bucket, which ends with the runtime it was started in.
pub struct Bucket {
    endpoint: String,
    root: PathBuf,
}

impl Bucket {
    /// Serves the bucket from inside that folder, which must be there.
    pub async fn serve(root: &Path) -> Bucket {
        std::fs::create_dir(root.join(NAME)).expect("the bucket");
        let files = FileSystem::new(root).expect("a file system");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let stream = TokioIo::new(stream);
                    // A client that leaves in the middle is no fault of ours.
                    let _ = http1::Builder::new()
                        .serve_connection(stream, service)
                        .await;
                });
            }
        });
        Bucket {
            endpoint: format!("http://{address}"),
            root: root.to_path_buf(),
        }
    }

    /// What `objectStore.url` says of it.
    pub fn url(&self) -> String {
        format!("s3://{NAME}/bodies")
    }

    /// Where the objects of that URL lie as files.
    pub fn folder(&self) -> PathBuf {
        self.root.join(NAME).join("bodies")
    }

    /// The environment by which it is reached.
    pub fn environment(&self) -> [(&'static str, &str); 5] {
        [
            ("AWS_ENDPOINT", &self.endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
    }
}
