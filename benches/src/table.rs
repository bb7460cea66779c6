//! The result, as a table for benches/RESULTS.md.

/// One workload at one pipeline depth.
pub(crate) struct Row {
    workload: &'static str,
    pipeline: u32,
    pub(crate) redis: Rounds,
    pub(crate) forebay: Rounds,
}

/// Microseconds per request, one figure a round.
#[derive(Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Row {
    pub(crate) fn new(workload: &'static str, pipeline: u32) -> Row {
        Row { workload, pipeline, redis: Rounds::default(), forebay: Rounds::default() }
    }
}

impl Rounds {
    pub(crate) fn add(&mut self, micros: f64) {
        self.0.push(micros);
    }

    fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Prints the table in Markdown.
pub(crate) fn print(rows: &[Row]) {
    println!("| workload | pipeline | redis-server, CPU µs | Forebay, CPU µs | ratio |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for row in rows {
        let (redis, forebay) = (row.redis.best(), row.forebay.best());
        let ratio = forebay / redis;
        println!("| {} | {} | {redis:.2} | {forebay:.2} | {ratio:.2} |", row.workload, row.pipeline);
    }
}
