//! Where a feed's database is, and who asks: as sqlx reads it from the URL, the environment and the password file.

use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::tls::{TlsFiles, Verify};

/// Settings under which every server prints values in the same way.
const PRINTING: [(&str, &str); 4] =
    [("datestyle", "ISO"), ("intervalstyle", "postgres"), ("bytea_output", "hex"), ("extra_float_digits", "3")];

/// How to reach the database that has the log.
#[derive(Clone)]
pub(crate) struct Address {
    /// For ordinary connections.
    pub(in crate::feed) options: PgConnectOptions,
    pub(super) end: End,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
    /// Settings of the session, as `-c name=value`.
    pub(super) settings: String,
    pub(super) tls: Option<Tls>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// TLS, if the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// A server without TLS is not spoken to.
    pub(super) required: bool,
    pub(super) verify: Verify,
    pub(super) files: TlsFiles,
}

impl Address {
    /// Reads a `postgres://` URL. `name` is what the database shows of the connections.
    pub(crate) fn parse(url: &str, name: &str) -> Result<Self, String> {
        let options = PgConnectOptions::from_str(url).map_err(|error| error.to_string())?;
        let options = options.application_name(name).options(PRINTING).disable_statement_logging();
        let user = options.get_username().to_owned();
        let secrets = Secrets::of(&options);
        let (required, verify) = match options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow => (false, None),
            PgSslMode::Prefer => (false, Some(Verify::Nothing)),
            PgSslMode::Require => (true, Some(Verify::Nothing)),
            PgSslMode::VerifyCa => (true, Some(Verify::Authority)),
            PgSslMode::VerifyFull => (true, Some(Verify::Name)),
        };
        let port = options.get_port();
        let end = match (options.get_socket(), options.get_host()) {
            (Some(directory), _) => End::Unix(directory.join(format!(".s.PGSQL.{port}"))),
            (None, host) if host.starts_with('/') => End::Unix(PathBuf::from(host).join(format!(".s.PGSQL.{port}"))),
            (None, host) => End::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port },
        };
        Ok(Address {
            tls: verify.filter(|_| !matches!(end, End::Unix(_))).map(|verify| Tls {
                required,
                verify,
                files: secrets.files,
            }),
            end,
            password: secrets.password,
            database: options.get_database().unwrap_or(&user).to_owned(),
            settings: options.get_options().unwrap_or_default().to_owned(),
            user,
            options,
        })
    }
}

/// What sqlx tells in a URL only.
struct Secrets {
    password: Option<String>,
    files: TlsFiles,
}

impl Secrets {
    fn of(options: &PgConnectOptions) -> Self {
        // Host and user are written into that URL as they are, so simple ones stand in.
        let url = options.clone().host("host").username("user").to_url_lossy();
        let password = url.password().map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
        let query =
            |wanted: &str| url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
        // It marks the names of files, and writes certificates themselves as they are.
        let file = |wanted: &str| query(wanted).map(|text| text.strip_prefix("file: ").unwrap_or(&text).to_owned());
        Secrets {
            password,
            files: TlsFiles { authority: file("sslrootcert"), certificate: file("sslcert"), key: file("sslkey") },
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Address").field("end", &self.end).field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Address {
        Address::parse(url, "forebay feed").unwrap()
    }

    #[test]
    fn a_url_says_all_that_a_connection_needs() {
        let address = parsed(
            "postgres://ann%20b:s%2525e%3A%40c%2F@[::1]:6000/shop?sslmode=verify-full&sslrootcert=/a%20b/ca.pem&sslcert=/c.pem&sslkey=/k.pem\
             &options=-c%20search_path=app",
        );
        assert_eq!(address.end, End::Tcp { host: "::1".into(), port: 6000 });
        assert_eq!((address.user.as_str(), address.database.as_str()), ("ann b", "shop"));
        assert_eq!(address.password.as_deref(), Some("s%25e:@c/"));
        let files = TlsFiles {
            authority: Some("/a b/ca.pem".into()),
            certificate: Some("/c.pem".into()),
            key: Some("/k.pem".into()),
        };
        assert_eq!(address.tls, Some(Tls { required: true, verify: Verify::Name, files }));
        assert!(address.settings.starts_with("-c search_path=app -c datestyle=ISO"), "{}", address.settings);
        assert!(!format!("{address:?}").contains("s%25e"));
    }

    #[test]
    fn what_is_left_out_is_what_it_is_for_any_client() {
        let address = parsed("postgres://ann@db.example");
        assert_eq!(address.end, End::Tcp { host: "db.example".into(), port: 5432 });
        assert_eq!(address.database, "ann");
        let prefer = Tls { required: false, verify: Verify::Nothing, files: TlsFiles::default() };
        assert_eq!(address.tls, Some(prefer));
        assert_eq!(parsed("postgres://ann@db?sslmode=disable").tls, None);
        let socket = parsed("postgres://ann@%2Frun%2Fpostgresql/shop");
        assert_eq!((socket.end, socket.tls), (End::Unix("/run/postgresql/.s.PGSQL.5432".into()), None));
        assert!(Address::parse("postgres://db:port", "x").is_err());
    }
}
