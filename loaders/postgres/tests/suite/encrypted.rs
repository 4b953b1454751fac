//! Encryption, by a server with a certificate of an authority made here.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use drover_pipeline::Code;
use drover_pipeline::load::Loader;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::harness::{Schema, connect};
use crate::server::Server;

/// An authority: its certificate, and what signs with it.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), Issuer::new(params, key))
}

/// Writes a file that the server may read, and nobody else.
fn write(data: &Path, name: &str, text: &str) {
    let path = data.join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("hidden");
    let owner = std::fs::metadata(data).expect("the data").uid();
    chown(&path, Some(owner), None).expect("given to the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_as_safe_as_its_address_says() {
    let Some(server) = Server::start() else {
        return;
    };
    let schema = Schema::on(&server.url).await;
    // Encrypted where the server can, which is not yet.
    let is_encrypted = async || {
        let sql = format!(
            "SELECT string_agg(ssl::text, ',') FROM pg_stat_ssl NATURAL JOIN pg_stat_activity \
             WHERE application_name = '{}'",
            schema.application()
        );
        let client = connect(&server.url).await;
        let row = client.query_one(&sql, &[]).await.expect("the connections");
        row.get::<_, Option<String>>(0)
    };
    let at = |more: &str| {
        let joint = if server.url.contains('?') { '&' } else { '?' };
        let name = schema.application();
        let url = format!("{}{joint}application_name={name}{more}", server.url);
        schema.loader_at(&url, 1)
    };
    let plain = at("");
    plain.check().await.expect("a plain connection");
    assert_eq!(is_encrypted().await.as_deref(), Some("false"));
    let refused = at("&sslmode=require").check().await.expect_err("no TLS");
    assert_eq!(refused.code, Code::TargetUnavailable, "{refused}");
    drop(plain);

    let folder = tempfile::tempdir().expect("a folder");
    let (ours, issuer) = authority();
    let (another, _) = authority();
    std::fs::write(folder.path().join("ours.pem"), ours).expect("written");
    std::fs::write(folder.path().join("another.pem"), another).expect("written");
    let key = KeyPair::generate().expect("a key");
    let names = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = names.signed_by(&key, &issuer).expect("signed");
    write(&server.data(), "server.crt", &certificate.pem());
    write(&server.data(), "server.key", &key.serialize_pem());
    schema.run("ALTER SYSTEM SET ssl = on").await;
    schema.run("SELECT pg_reload_conf()").await;
    loop {
        let client = connect(&server.url).await;
        let row = client.query_one("SHOW ssl", &[]).await.expect("a setting");
        if row.get::<_, String>(0) == "on" {
            break;
        }
    }

    let file = |name: &str| format!("sslrootcert={}", folder.path().join(name).display());
    let (ours, another) = (file("ours.pem"), file("another.pem"));
    // The certificate is of localhost, the address has a number.
    for (settings, passes) in [
        (String::new(), true),
        ("&sslmode=require".to_owned(), true),
        (format!("&sslmode=require&{ours}"), true),
        (format!("&sslmode=require&{another}"), false),
        (format!("&sslmode=verify-ca&{ours}"), true),
        (format!("&sslmode=verify-ca&{another}"), false),
        (format!("&sslmode=verify-full&{ours}"), false),
        ("&sslmode=verify-full".to_owned(), false),
    ] {
        let loader = at(&settings);
        match loader.check().await {
            Ok(()) => {
                assert!(passes, "{settings} trusts too much");
                assert_eq!(is_encrypted().await.as_deref(), Some("true"), "{settings}");
            }
            Err(error) => {
                assert!(!passes, "{settings}: {error}");
                assert_eq!(error.code, Code::TargetUnavailable, "{settings}");
                assert!(error.message.contains("certificate"), "{error}");
            }
        }
    }
    let named = server.url.replace("127.0.0.1", "localhost");
    let joint = if named.contains('?') { '&' } else { '?' };
    let url = format!("{named}{joint}sslmode=verify-full&{ours}");
    let full = schema.loader_at(&url, 1).check().await;
    full.expect("the host that the certificate names");
}
