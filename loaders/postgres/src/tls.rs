//! Encryption of the connections, as PostgreSQL's own clients mean `sslmode`
//! and `sslrootcert` (PostgreSQL documentation, "SSL Support" of libpq). The
//! driver itself knows neither `verify-ca` and `verify-full` nor the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover_pipeline::{Code, Error, Result};
use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is asked of the server's certificate, once a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing: who listens in learns nothing, who stands in between may.
    Anybody,
    /// That an authority we trust has signed it.
    Authority,
    /// And that it is the host's that was asked for.
    Host,
}

/// What `sslmode` and `sslrootcert` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) trust: Trust,
    /// The authorities' certificates, PEM; without one, the system's.
    pub(crate) roots: Option<PathBuf>,
}

impl Tls {
    /// Takes the two settings out of an address, and leaves what the driver
    /// understands. The error is a setting that asks for something else.
    pub(crate) fn split(url: &str) -> Result<(String, Tls), String> {
        let mut tls = Tls {
            trust: Trust::Anybody,
            roots: None,
        };
        let is_url = url.contains("://");
        let (start, settings, separator) = match (is_url, url.split_once('?')) {
            (true, Some((start, query))) => (start, query, "&"),
            (true, None) => return Ok((url.to_owned(), tls)),
            // A quoted value is left to the driver: none of ours needs quotes.
            (false, _) => ("", url, " "),
        };
        let mut left = Vec::new();
        for setting in settings.split(separator) {
            match setting.split_once('=') {
                Some(("sslmode", mode @ ("verify-ca" | "verify-full"))) => {
                    if mode == "verify-full" {
                        tls.trust = Trust::Host;
                    } else if tls.trust != Trust::Host {
                        tls.trust = Trust::Authority;
                    }
                    left.push("sslmode=require");
                }
                // As libpq: the system's authorities sign for anybody, so they say
                // something only with the host's name.
                Some(("sslrootcert", "system")) => {
                    (tls.trust, tls.roots) = (Trust::Host, None);
                    if !settings.contains("sslmode=") {
                        left.push("sslmode=require");
                    }
                }
                Some(("sslrootcert", path)) => {
                    let path = match is_url {
                        true => percent_decode_str(path).decode_utf8_lossy(),
                        false => path.into(),
                    };
                    tls.roots = Some(PathBuf::from(path.as_ref()));
                }
                Some((name @ ("sslcert" | "sslkey" | "sslcrl"), _)) => return Err(name.to_owned()),
                _ => left.push(setting),
            }
        }
        // As libpq: with a file of authorities at hand, `require` asks them too.
        if tls.trust == Trust::Anybody && tls.roots.is_some() {
            tls.trust = Trust::Authority;
        }
        let left = left.join(separator);
        Ok(match (is_url, left.is_empty()) {
            (true, false) => (format!("{start}?{left}"), tls),
            (true, true) => (start.to_owned(), tls),
            (false, _) => (left, tls),
        })
    }

    /// What the driver encrypts with. Reads the authorities' certificates.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::new(Code::ConfigInvalid, error.to_string()).at("targetConfig.url, sslrootcert")
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?;
        let verifier: Arc<dyn ServerCertVerifier> = match self.trust {
            Trust::Anybody => Arc::new(Lenient {
                provider,
                known: None,
            }),
            trust => {
                let roots = Arc::new(roots(self.roots.as_deref()).map_err(|e| wrong(&e))?);
                let known =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
                let known = known.build().map_err(|error| wrong(&error))?;
                match trust {
                    Trust::Authority => Arc::new(Lenient {
                        provider,
                        known: Some(known),
                    }),
                    _ => known,
                }
            }
        };
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(file) = file else {
        // One that can't be read is no reason to trust none of the others.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    };
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| told(&error))? {
        let certificate = certificate.map_err(|error| told(&error))?;
        store.add(certificate).map_err(|error| told(&error))?;
    }
    match store.is_empty() {
        true => Err(told(&"there is no certificate in it")),
        false => Ok(store),
    }
}

/// Takes certificates that the driver's own choice would refuse; the server must
/// have the certificate's key all the same.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// The authorities that must have signed it, whatever name it bears. None:
    /// any certificate will do.
    known: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(known) = &self.known else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is looked at last, when everything else is well.
        match known.verify_server_cert(certificate, chain, host, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(url: &str) -> (String, Trust, Option<PathBuf>) {
        let (left, tls) = Tls::split(url).expect("settings that are known");
        (left, tls.trust, tls.roots)
    }

    #[test]
    fn an_address_is_split_into_what_the_driver_knows_and_the_rest() {
        let file = || Some(PathBuf::from("/etc/ca.pem"));
        for (url, left, trust, roots) in [
            ("postgres://a@h/d", "postgres://a@h/d", Trust::Anybody, None),
            (
                "postgres://a@h/d?sslmode=require&application_name=x",
                "postgres://a@h/d?sslmode=require&application_name=x",
                Trust::Anybody,
                None,
            ),
            (
                "postgres://a@h/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
                "postgres://a@h/d?sslmode=require",
                Trust::Host,
                file(),
            ),
            (
                "postgres://a@h/d?sslrootcert=system",
                "postgres://a@h/d?sslmode=require",
                Trust::Host,
                None,
            ),
            (
                "postgres://a@h/d?sslrootcert=system&sslmode=verify-ca",
                "postgres://a@h/d?sslmode=require",
                Trust::Host,
                None,
            ),
            (
                "postgres://a@h/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
                "postgres://a@h/d?sslmode=require",
                Trust::Host,
                file(),
            ),
            (
                "host=h sslmode=verify-ca user=a sslrootcert=/etc/ca.pem",
                "host=h sslmode=require user=a",
                Trust::Authority,
                file(),
            ),
            (
                "host=h sslmode=require sslrootcert=/etc/ca.pem",
                "host=h sslmode=require",
                Trust::Authority,
                file(),
            ),
        ] {
            assert_eq!(split(url), (left.to_owned(), trust, roots), "{url}");
        }
        assert_eq!(
            Tls::split("postgres://a@h/d?sslcert=x"),
            Err("sslcert".to_owned())
        );
    }

    #[test]
    fn a_file_without_authorities_is_told_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let tls = Tls {
            trust: Trust::Host,
            roots: Some(path.clone()),
        };
        for text in [None, Some("no certificate")] {
            if let Some(text) = text {
                std::fs::write(&path, text).expect("written");
            }
            let error = tls.connector().err().expect("nothing to trust");
            assert_eq!(error.code, Code::ConfigInvalid);
            assert!(error.message.contains("ca.pem"), "{error}");
        }
    }
}
