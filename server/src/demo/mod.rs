//! `forebay demo`: three nodes on a database that they bring along, and what they do as they do it.

mod data;
mod herd;
mod nodes;
mod screen;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use forebay_origin::{Fault, OriginConfig, parse_groups};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::app::StartError;
use crate::config::{Config, DemoOptions};
use crate::signals::Signals;
use crate::telemetry::figures::Figures;
pub use data::DataError;
use nodes::Nodes;
use screen::Screen;

static GROUPS: &str = include_str!("groups.toml");

/// How long connections may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Time between two rows of figures.
const SECOND: Duration = Duration::from_secs(1);

/// How long a load may take.
const LOAD: Duration = Duration::from_secs(10);

/// Why the demo does not run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("error: {0}")]
    Data(#[from] DataError),
    #[error("error: {0}")]
    System(#[from] io::Error),
}

/// Runs until a signal, or for as long as was asked.
///
/// # Errors
/// When the database cannot be made, or a node does not start.
pub async fn run(config: &Config, options: &DemoOptions, background: &Handle) -> Result<(), DemoError> {
    if config.origin.is_some() {
        let fault = Fault::unplaced("--origin", "the demo brings its own", "run `forebay node` for yours");
        return Err(StartError::Faults(vec![fault]).into());
    }
    let mut screen = Screen::new();
    let mut signals = Signals::listen()?;
    let directory = TempDir::with_prefix("forebay-demo-")?;
    let database = directory.path().join("cities.sqlite");
    let mut shown = Ok(());
    let cities = data::build(&database, |done, total| shown = screen.progress(done, total)).await?;
    shown?;
    let nodes = Nodes::start(&config_of(config, &database)?, background).await?;
    screen.welcome(cities, &nodes.ports(), options.load)?;
    let started = Instant::now();
    tokio::select! {
        shown = watch(&nodes, &mut screen) => shown?,
        ended = herd(&nodes, options, cities) => ended?,
        () = limit(options) => {}
        () = nodes.shutdown_requested() => {}
        _ = signals.next() => {}
    }
    screen.farewell(nodes.figures(), started.elapsed())?;
    nodes
        .end(GRACE, async move {
            signals.next().await;
        })
        .await;
    Ok(())
}

/// The configuration with the demo's database and groups.
fn config_of(config: &Config, database: &Path) -> Result<Config, StartError> {
    let mut origin = OriginConfig::new(format!("sqlite://{}", database.display()));
    // Three nodes begin at once on what may be a busy laptop, and nobody has a better answer than a late one.
    origin.load_timeout = LOAD;
    let groups = parse_groups(GROUPS, "groups.toml").map_err(StartError::Faults)?;
    Ok(Config { origin: Some(origin), groups, ..config.clone() })
}

/// Shows the figures once a second, until the future is dropped.
async fn watch(nodes: &Nodes, screen: &mut Screen) -> io::Result<()> {
    let mut interval = tokio::time::interval(SECOND);
    interval.tick().await;
    let mut before = Figures::default();
    loop {
        interval.tick().await;
        let now = nodes.figures();
        screen.figures(now - before, now)?;
        before = now;
    }
}

async fn herd(nodes: &Nodes, options: &DemoOptions, cities: usize) -> io::Result<()> {
    match options.load {
        false => pending().await,
        true => {
            let doors: Vec<_> = nodes.ports().iter().map(|ports| SocketAddr::new(nodes.bind(), ports.open)).collect();
            herd::run(&doors, cities).await
        }
    }
}

async fn limit(options: &DemoOptions) {
    match options.seconds {
        None => pending().await,
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
    }
}
