//! TLS to Postgres, with a certificate made for the test.

use std::path::Path;
use std::process::Command;

use forebay_origin::{LoadError, OriginConfig};

use crate::shop::{self, load, text};

#[tokio::test]
async fn a_verified_connection_is_made_and_a_wrong_certificate_is_refused() {
    let mut postgres = shop::postgres().await;
    let data = postgres.data_directory();
    make_certificate(&data, "server");
    make_certificate(&data, "stranger");
    postgres.sql("postgres", "ALTER SYSTEM SET ssl = on").await;
    let hba = data.join("pg_hba.conf");
    std::fs::write(hba, "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhostssl all all all trust\n")
        .unwrap();
    postgres.stop().await;
    postgres.start_again().await;
    let secured =
        shop::group("tls", "tls:{id}", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND $1 > 0", "string");
    let with = |certificate: &str| {
        let certificate = data.join(certificate);
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url("postgres"), certificate.display());
        OriginConfig { url, ..shop::patient(&postgres) }
    };
    let origin = shop::origin(with("server.crt"), vec![secured.clone()]).await;
    assert_eq!(text(&origin, "tls:1").await.as_deref(), Some("true"));
    origin.close().await;
    let origin = shop::origin(with("stranger.crt"), vec![secured]).await;
    let error = load(&origin, "tls:1").await.unwrap_err();
    assert!(matches!(&error, LoadError::Down { reason } if reason.to_lowercase().contains("certificate")), "{error:?}");
    origin.close().await;
}

/// Makes a self-signed certificate for 127.0.0.1 that the server's user may read.
fn make_certificate(directory: &Path, name: &str) {
    let key = directory.join(format!("{name}.key"));
    let certificate = directory.join(format!("{name}.crt"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=forebay test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // PostgreSQL wants a key that is its own and that nobody else can read.
    let owner = std::fs::metadata(directory).unwrap();
    std::os::unix::fs::chown(&key, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&certificate, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
}
