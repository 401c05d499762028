//! A real Kafka broker of one's own, in KRaft mode, on free ports of the loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Server;

/// How long a broker may take until it answers.
const START: Duration = Duration::from_secs(90);

/// The folder with Kafka's jars, which `.ci/run` fills: none, and a word about it, where it is missing. In CI that is a
/// failure.
pub fn jars() -> Option<PathBuf> {
    let found = std::env::var_os("SILTSTONE_KAFKA_JARS").map(PathBuf::from).filter(|jars| jars.is_dir());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "SKIPPED in CI: SILTSTONE_KAFKA_JARS names no folder with Kafka's jars"
        );
        eprintln!("SKIPPED: no Kafka broker; SILTSTONE_KAFKA_JARS is to name a folder with its jars, see .ci/run");
    }
    found
}

/// A broker; it ends, and its data with it, when this is dropped.
pub struct Broker {
    jars: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    server: Option<Server>,
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Broker {
    /// Starts one; `None` if there are no jars.
    pub fn start() -> Option<Broker> {
        let jars = jars()?;
        let directory = tempfile::tempdir().unwrap();
        let (port, controller_port) = (free_port(), free_port());
        let logs = directory.path().join("logs");
        let settings = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n\
             log.cleaner.backoff.ms=200\n\
             log.cleaner.min.cleanable.ratio=0.01\n",
            logs.display()
        );
        fs::write(directory.path().join("server.properties"), settings).unwrap();
        let mut broker = Broker { jars, directory, port, server: None };
        let formatted = Command::new("java")
            .arg("-cp")
            .arg(format!("{}/*", broker.jars.display()))
            .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"])
            .arg(broker.settings())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(formatted.success(), "formatting the broker's storage");
        broker.go_on();
        Some(broker)
    }

    fn settings(&self) -> PathBuf {
        self.directory.path().join("server.properties")
    }

    /// Where clients find it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again, with the data that it has, and waits until it answers.
    pub fn go_on(&mut self) {
        let (log, settings) = (self.directory.path().join("output"), self.settings());
        let classes = format!("{}/*", self.jars.display());
        let command = ["java", "-Xmx512m", "-cp", &classes, "kafka.Kafka", settings.to_str().unwrap()];
        let server = Server::start(&command, &log);
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(server.is_running() && Instant::now() < deadline, "the broker does not start: {}", said());
            std::thread::sleep(Duration::from_millis(100));
        }
        self.server = Some(server);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Stops it without ending it, as a machine that hangs: its clients get no answer.
    pub fn freeze(&self) {
        assert!(self.server.as_ref().unwrap().signal("-STOP"));
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        assert!(self.server.as_ref().unwrap().signal("-CONT"));
    }
}
