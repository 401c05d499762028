//! A real NATS server of one's own, with JetStream, on a free port of the loopback.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process;

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A server; it ends, and its data with it, when this is dropped.
pub struct Server {
    directory: tempfile::TempDir,
    port: u16,
    process: Option<process::Server>,
}

impl Server {
    /// Starts one; `None`, and a word about it, if there is no `nats-server`. In CI that is a failure.
    pub fn start() -> Option<Server> {
        if Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "SKIPPED in CI: there is no nats-server");
            eprintln!("SKIPPED: there is no nats-server");
            return None;
        }
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut server = Server { directory: tempfile::tempdir().unwrap(), port, process: None };
        server.go_on();
        Some(server)
    }

    /// Where clients find it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again, with the data that it has, and waits until it answers.
    pub fn go_on(&mut self) {
        let (port, directory) = (self.port.to_string(), self.directory.path().to_str().unwrap());
        let command = ["nats-server", "--jetstream", "--addr", "127.0.0.1", "--port", &port, "--store_dir", directory];
        let process = process::Server::start(&command, &self.directory.path().join("output"));
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(process.is_running() && Instant::now() < deadline, "the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }
}
