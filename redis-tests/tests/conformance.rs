//! The case files, against both servers: `forebay::strings` runs `cases/strings.cases` against Forebay.

use std::collections::BTreeSet;
use std::fs;

use forebay_redis_tests::cases;
use forebay_redis_tests::conformance::{record_file, run_file};
use forebay_redis_tests::server::Target;

macro_rules! case_files {
    ($($name:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];

        /// With `RECORD_CASES=1`, redis-server's replies are written below steps without any.
        mod redis {
            $(#[test] fn $name() {
                if std::env::var_os("RECORD_CASES").is_some() {
                    super::record_file(stringify!($name));
                }
                super::run_file(stringify!($name), super::Target::Redis);
            })*
        }

        mod forebay {
            $(#[test] fn $name() {
                super::run_file(stringify!($name), super::Target::Forebay);
            })*
        }
    };
}

case_files!(
    arity,
    bitfield,
    bitmaps,
    bitop,
    client,
    command,
    config,
    connection,
    databases,
    expiry,
    getset,
    hashes,
    hash_random_scan,
    incr,
    keys,
    lcs,
    object,
    protocol,
    pubsub,
    scan,
    server,
    string_ranges,
    strings,
    tracking,
    wrong_type,
);

#[test]
fn every_file_is_run() {
    let on_disk: BTreeSet<String> = fs::read_dir(cases::directory())
        .expect("the directory of the cases")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(on_disk, FILES.iter().map(|name| (*name).to_owned()).collect());
}
