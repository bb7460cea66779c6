//! `forebay demo`: a node on a database that it brings along, and what it does as it does it.

mod data;
mod herd;
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

use crate::app::{App, StartError};
use crate::config::{Config, DemoOptions};
use crate::node::Node;
use crate::signals::Signals;
use crate::telemetry::figures::Figures;
pub use data::DataError;
use screen::Screen;

static GROUPS: &str = include_str!("groups.toml");

/// How long connections may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Time between two rows of figures.
const SECOND: Duration = Duration::from_secs(1);

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
/// When the database cannot be made, or the node does not start.
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
    let app = App::start(&config_of(config, &database)?, background).await?;
    screen.welcome(cities, app.ports(), options.load)?;
    let started = Instant::now();
    tokio::select! {
        shown = watch(app.node(), &mut screen) => shown?,
        ended = herd(&app, options, cities) => ended?,
        () = limit(options) => {}
        () = app.node().gates.shutdown_requested() => {}
        _ = signals.next() => {}
    }
    screen.farewell(app.node(), started.elapsed())?;
    app.drain(GRACE, async move {
        signals.next().await;
    })
    .await;
    Ok(())
}

/// The node's configuration, with the demo's database and groups.
fn config_of(config: &Config, database: &Path) -> Result<Config, StartError> {
    let origin = OriginConfig::new(format!("sqlite://{}", database.display()));
    let groups = parse_groups(GROUPS, "groups.toml").map_err(StartError::Faults)?;
    Ok(Config { origin: Some(origin), groups, ..config.clone() })
}

/// Shows the figures once a second, until the future is dropped.
async fn watch(node: &Node, screen: &mut Screen) -> io::Result<()> {
    let mut interval = tokio::time::interval(SECOND);
    interval.tick().await;
    let mut before = Figures::default();
    loop {
        interval.tick().await;
        let now = Figures::of(node);
        screen.figures(now - before, now)?;
        before = now;
    }
}

async fn herd(app: &App, options: &DemoOptions, cities: usize) -> io::Result<()> {
    match options.load {
        false => pending().await,
        true => herd::run(SocketAddr::new(app.bind(), app.ports().open), cities).await,
    }
}

async fn limit(options: &DemoOptions) {
    match options.seconds {
        None => pending().await,
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
    }
}
