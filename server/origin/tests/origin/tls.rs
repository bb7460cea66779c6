//! TLS to Postgres, with a certificate made for the test.

use std::path::Path;
use std::process::Command;

use forebay_origin::{Feed, FeedState, LoadError, OriginConfig};

use crate::feed;
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

#[tokio::test]
async fn a_feed_goes_by_the_same_certificate_and_a_password() {
    let mut postgres = shop::postgres().await;
    postgres.sql("postgres", feed::MORE_TABLES).await;
    postgres.sql("postgres", "CREATE ROLE ann LOGIN SUPERUSER PASSWORD 'Geheim:/%25'").await;
    let data = postgres.data_directory();
    make_certificate(&data, "server");
    make_certificate(&data, "stranger");
    postgres.sql("postgres", "ALTER SYSTEM SET ssl = on").await;
    let hba = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhostssl all ann all scram-sha-256\n";
    std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
    postgres.stop().await;
    postgres.start_again().await;
    let follow = async |password: &str, certificate: &str| {
        let certificate = data.join(certificate);
        let user = format!("ann:{password}@");
        let url = postgres.url("postgres").replace("postgres@", &user);
        let url = format!("{url}?sslmode=verify-full&sslrootcert={}", certificate.display());
        let origin = shop::origin(OriginConfig { url, ..shop::patient(&postgres) }, feed::groups(feed::GROUPS)).await;
        let feed = origin.follow(Feed::Wal, feed::config(1, None)).unwrap();
        (origin, feed)
    };
    let (origin, mut told) = follow("Geheim%3A%2F%2525", "server.crt").await;
    feed::gap(&mut told).await;
    feed::wait_until("the feed is followed", &told, |status| status.state == FeedState::Following).await;
    postgres.sql("postgres", "UPDATE products SET name = 'x' WHERE id = 1").await;
    assert_eq!(feed::keys(&feed::change(&mut told).await), ["product:1"]);
    let secured = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl";
    assert_eq!(postgres.sql("postgres", secured).await, "1");
    told.close().await;
    origin.close().await;
    for (password, certificate, said) in [("Geheim", "server.crt", "password"), ("x", "stranger.crt", "certificate")] {
        let (origin, told) = follow(password, certificate).await;
        feed::wait_until("the error is told", &told, |status| status.last_error.to_lowercase().contains(said)).await;
        told.close().await;
        origin.close().await;
    }
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
