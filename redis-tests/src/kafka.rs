//! Kafka brokers for tests: librdkafka's mock cluster, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::programs::{installed, script_path};

/// Brokers that end with this.
pub struct Kafka {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    addresses: String,
}

impl Kafka {
    /// Starts so many brokers.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start(brokers: usize) -> Kafka {
        let mut command = Command::new(installed("python/bin/python"));
        command.arg(script_path("kafka_brokers.py")).arg(brokers.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut kafka = Kafka { process, input, output, addresses: String::new() };
        kafka.addresses = kafka.line();
        assert!(kafka.addresses.contains(':'), "there are no brokers: run redis-tests/scripts/setup clients");
        kafka
    }

    /// The brokers, with commas between them.
    pub fn addresses(&self) -> &str {
        &self.addresses
    }

    /// Writes a message to partition 0 of a topic, which is made if it is not there.
    pub fn produce(&mut self, topic: &str, value: &str) {
        self.produce_with(topic, value, "");
    }

    /// The same with further fields of the request, as `kafka_brokers.py` describes them.
    ///
    /// # Panics
    /// When a broker does not take it.
    pub fn produce_with(&mut self, topic: &str, value: &str, fields: &str) {
        self.send(
            topic,
            &format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")),
            fields,
        );
    }

    /// Writes a message without a value.
    pub fn produce_tombstone(&mut self, topic: &str) {
        self.send(topic, "null", "");
    }

    fn send(&mut self, topic: &str, value: &str, fields: &str) {
        let comma = if fields.is_empty() { "" } else { ", " };
        let request = format!("{{\"topic\": \"{topic}\", \"value\": {value}{comma}{fields}}}\n");
        self.input.write_all(request.as_bytes()).expect("the process reads");
        let answer = self.line();
        assert_eq!(answer, "done", "{request}");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
