//! TLS for SIP (RFC 3261 §26.2, RFC 5922): our certificate, whom we trust, and both read again
//! while connections go on.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::Tls as Settings;

/// Both sides of TLS. Connections keep what they were opened with.
pub struct Tls {
    settings: Settings,
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads all files; the error names the key at fault and what to do.
    pub fn open(settings: Settings) -> Result<Tls, String> {
        let loaded = ArcSwap::from_pointee(load(&settings)?);
        Ok(Tls { settings, loaded })
    }

    /// Reads all files again. If they cannot be used, those in use stay.
    pub fn reload(&self) -> Result<(), String> {
        self.loaded.store(Arc::new(load(&self.settings)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.loaded.load().server.clone().into()
    }

    pub(super) fn connector(&self) -> TlsConnector {
        self.loaded.load().client.clone().into()
    }
}

/// What is wrong with the files, without using them.
pub fn check(settings: &Settings) -> Result<(), String> {
    load(settings).map(drop)
}

fn load(settings: &Settings) -> Result<Loaded, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates("certificate_file", &settings.certificate_file)?;
    let key = key(&settings.key_file)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match client_verifier(settings, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let unfit = |error: rustls::Error| {
        let (key, chain) = (settings.key_file.display(), settings.certificate_file.display());
        let what = match error {
            rustls::Error::InconsistentKeys(_) => "does not belong to the first certificate in",
            _ => "cannot be used with",
        };
        format!("[sip.tls] key_file {key}: {what} {chain} ({error}); issue both again together")
    };
    let server = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(unfit)?;
    let roots = server_roots(settings.ca_file.as_deref())?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let client = match WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build() {
        Ok(verifier) => builder.with_webpki_verifier(verifier),
        // A machine without any root trusts nobody, but peers may still connect to it.
        Err(_) => builder.with_root_certificates(RootCertStore::empty()),
    };
    let client = client.with_client_auth_cert(chain, key).map_err(unfit)?;
    Ok(Loaded { server: server.into(), client: client.into() })
}

fn client_verifier(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let Some(file) = &settings.client_ca_file else { return Ok(None) };
    let roots = store("client_ca_file", file, RootCertStore::empty())?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let builder = match settings.client_required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    let built = builder.build().map(Some);
    built.map_err(|error| format!("[sip.tls] client_ca_file {}: {error}", file.display()))
}

/// The system's roots, which may be none, and those of a file.
fn server_roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Single ones that cannot be read are no reason to trust none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match file {
        Some(file) => store("ca_file", file, roots),
        None => Ok(roots),
    }
}

fn store(key: &str, file: &Path, mut roots: RootCertStore) -> Result<RootCertStore, String> {
    for certificate in certificates(key, file)? {
        roots.add(certificate).map_err(|error| {
            format!("[sip.tls] {key} {}: {error}; it must hold authorities", file.display())
        })?;
    }
    Ok(roots)
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |why: String| format!("[sip.tls] {key} {}: {why}", file.display());
    let pem = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(failed("no certificate in it; it must hold BEGIN CERTIFICATE lines".into())),
        Err(error) => Err(failed(format!("{error}; write the certificates as PEM again"))),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let failed = |why: String| format!("[sip.tls] key_file {}: {why}", file.display());
    let pem = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    // What the parser says could quote the key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        failed("no key in it; it must hold an unencrypted BEGIN PRIVATE KEY in PEM".into())
    })
}

/// Whom a certificate names: `sip:` domains and host names (RFC 5922 §7.1), in lower case. Only of
/// a certificate that was verified.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Arc<[String]> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
        return Arc::default();
    };
    let domain = |uri: &str| {
        let uri = uri.to_ascii_lowercase();
        let host = uri.strip_prefix("sip:").or(uri.strip_prefix("sips:"));
        // One with a user part names a person, not a domain.
        host.filter(|host| !host.contains('@')).map(String::from)
    };
    let domains = certificate.valid_uri_names().filter_map(domain);
    domains.chain(certificate.valid_dns_names().map(str::to_ascii_lowercase)).collect()
}

/// The name a peer must prove to bear: its domain, or its address if that is all we know.
pub(super) fn server_name(
    name: Option<&str>,
    address: std::net::IpAddr,
) -> Result<ServerName<'static>, String> {
    match name {
        None => Ok(address.into()),
        Some(name) => ServerName::try_from(name.to_string())
            .map_err(|_| format!("`{name}` is no name that a certificate could bear")),
    }
}

#[cfg(test)]
pub(in crate::server) mod tests {
    use super::*;
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

    /// An authority that signs certificates into a folder of its own.
    pub struct Authority {
        folder: tempfile::TempDir,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub fn new() -> Authority {
            let folder = tempfile::tempdir().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let root = params.self_signed(&key).unwrap();
            std::fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
            Authority { folder, issuer: Issuer::new(params, key) }
        }

        pub fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Signs one for these names (`sip:...` becomes a URI) as `<file>.pem` and `<file>.key`.
        pub fn sign(&self, file: &str, names: &[&str]) -> Settings {
            let (uris, hosts): (Vec<&str>, _) =
                names.iter().partition(|name| name.starts_with("sip:"));
            let hosts: Vec<&str> = hosts;
            let mut params =
                CertificateParams::new(hosts.into_iter().map(String::from).collect::<Vec<_>>())
                    .unwrap();
            let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
            params.subject_alt_names.extend(uris.into_iter().map(uri));
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            let settings = Settings {
                certificate_file: self.file(&format!("{file}.pem")),
                key_file: self.file(&format!("{file}.key")),
                client_ca_file: None,
                client_required: false,
                ca_file: Some(self.file("ca.pem")),
            };
            std::fs::write(&settings.certificate_file, certificate.pem()).unwrap();
            std::fs::write(&settings.key_file, key.serialize_pem()).unwrap();
            settings
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_to_do() {
        let authority = Authority::new();
        let good = authority.sign("a", &["localhost"]);
        assert_eq!(check(&good), Ok(()));
        let other = authority.sign("b", &["localhost"]);
        let told = |settings: Settings| check(&settings).unwrap_err();
        let mixed = told(Settings { key_file: other.key_file, ..good.clone() });
        assert!(mixed.contains("does not belong") && mixed.contains("issue both"), "{mixed}");
        let absent = told(Settings { ca_file: Some(authority.file("none")), ..good.clone() });
        assert!(absent.contains("[sip.tls] ca_file"), "{absent}");
        let swapped = told(Settings { key_file: good.certificate_file.clone(), ..good.clone() });
        assert!(swapped.contains("no key in it"), "{swapped}");
        let key = std::fs::read_to_string(&good.key_file).unwrap();
        std::fs::write(&good.key_file, &key[..key.len() / 2]).unwrap();
        let cut = told(good.clone());
        assert!(!cut.contains(key.lines().nth(1).unwrap()), "the key is in the error");
        let empty = told(Settings { certificate_file: good.key_file.clone(), ..good });
        assert!(empty.contains("certificate_file"), "{empty}");
    }

    #[test]
    fn a_reload_that_fails_leaves_what_was() {
        let authority = Authority::new();
        let settings = authority.sign("a", &["localhost"]);
        let tls = Tls::open(settings.clone()).unwrap();
        let before = tls.loaded.load_full();
        std::fs::write(&settings.certificate_file, "nothing").unwrap();
        assert!(tls.reload().unwrap_err().contains("certificate_file"));
        assert!(Arc::ptr_eq(&before, &tls.loaded.load_full()));
        authority.sign("a", &["localhost"]);
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.loaded.load_full()));
    }

    #[test]
    fn names_of_a_certificate() {
        let authority = Authority::new();
        let listed = ["sip:Example.com", "sip:user@example.com", "SBC.example.com"];
        let settings = authority.sign("a", &listed);
        let chain = certificates("", &settings.certificate_file).unwrap();
        assert_eq!(*names(&chain[0]), ["example.com", "sbc.example.com"]);
        assert!(names(&CertificateDer::from(vec![1, 2, 3])).is_empty());
    }
}
