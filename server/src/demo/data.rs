//! The demo's database: cities and countries of the world, from tables that the binary carries.

use std::io::Read;
use std::path::Path;

use forebay_origin::{EmbeddedDatabase, EmbeddedError};
use lz4_flex::frame::FrameDecoder;

static CITIES: &[u8] = include_bytes!("cities.tsv.lz4");
static COUNTRIES: &str = include_str!("countries.tsv");
static SCHEMA: &str = include_str!("schema.sql");
static INDEX: &str = include_str!("index.sql");

/// Both take rows as a JSON array of arrays.
static INSERT_COUNTRIES: &str = "INSERT INTO countries \
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each($1)";
static INSERT_CITIES: &str = "INSERT INTO cities \
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, NULL FROM json_each($1)";

/// Rows of one INSERT.
const CHUNK: usize = 1000;

/// Why the demo has no database.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(transparent)]
    Database(#[from] EmbeddedError),
    #[error("the carried data cannot be unpacked: {0}")]
    Unpack(#[from] std::io::Error),
    #[error("the carried data is no table: {0}")]
    Table(#[from] serde_json::Error),
}

/// Makes the database at `path`. `progress` is told the cities stored so far, and how many there are.
pub(super) async fn build(path: &Path, mut progress: impl FnMut(usize, usize)) -> Result<usize, DataError> {
    let cities = unpack()?;
    let total = cities.lines().count();
    let mut database = EmbeddedDatabase::create(path).await?;
    database.run(SCHEMA).await?;
    let countries = json(&rows(COUNTRIES))?;
    database.run_with(INSERT_COUNTRIES, &countries).await?;
    let mut stored = 0;
    for chunk in rows(&cities).chunks(CHUNK) {
        database.run_with(INSERT_CITIES, &json(chunk)?).await?;
        stored += chunk.len();
        progress(stored, total);
    }
    database.run(INDEX).await?;
    database.finish().await?;
    Ok(total)
}

fn unpack() -> Result<String, DataError> {
    let mut text = String::new();
    FrameDecoder::new(CITIES).read_to_string(&mut text)?;
    Ok(text)
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split('\t').collect()).collect()
}

fn json(rows: &[Vec<&str>]) -> Result<String, serde_json::Error> {
    serde_json::to_string(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_all_its_columns() {
        let cities = unpack().expect("unpacked");
        let cities = rows(&cities);
        assert!(cities.len() > 30_000, "{}", cities.len());
        assert!(cities.iter().all(|row| row.len() == 7 && row[0].parse::<u32>().is_ok()));
        assert!(rows(COUNTRIES).iter().all(|row| row.len() == 6 && row[0].len() == 2));
    }
}
