//! Snapshots on a server that speaks S3: moto's, on a free port of the loopback.

mod common;
#[path = "common/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Random, contents, write_randomly};
use process::Server;
use siltstone::{Db, Options};
use siltstone_changelog::{Error, RetryPolicy, SnapshotOptions, SnapshotStore};

/// How long the server may take until it answers.
const START: Duration = Duration::from_secs(60);

const BUCKET: &str = "snapshots";

/// The server's command, which `tests/brokers/run` installs: none, and a word about it, where it is missing. In CI that is
/// a failure.
fn command() -> Option<PathBuf> {
    let found = std::env::var_os("SILTSTONE_MOTO_SERVER").map(PathBuf::from).filter(|command| command.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "SKIPPED in CI: SILTSTONE_MOTO_SERVER names no command");
        eprintln!("SKIPPED: no S3 server; SILTSTONE_MOTO_SERVER is to name the command moto_server");
    }
    found
}

/// A server with an empty bucket; it ends when this is dropped.
struct S3 {
    directory: tempfile::TempDir,
    port: u16,
    _server: Server,
}

impl S3 {
    fn start() -> Option<S3> {
        let command = command()?;
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let log = directory.path().join("output");
        let number = port.to_string();
        let server = Server::start(&[command.to_str().unwrap(), "-H", "127.0.0.1", "-p", &number], &log);
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(server.is_running() && Instant::now() < deadline, "the server does not start: {}", said());
            std::thread::sleep(Duration::from_millis(100));
        }
        let s3 = S3 { directory, port, _server: server };
        assert!(s3.request("PUT", &format!("/{BUCKET}")).starts_with("HTTP/1.1 200"), "making the bucket");
        Some(s3)
    }

    /// A request without a signature, which the server does not ask for.
    fn request(&self, method: &str, path: &str) -> String {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn store(&self) -> SnapshotStore {
        let settings = [
            ("aws_endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("aws_allow_http", "true".to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", "siltstone".to_owned()),
            ("aws_secret_access_key", "siltstone".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        let options = SnapshotOptions::new().grace(Duration::ZERO).retry(RetryPolicy::default());
        SnapshotStore::at(&format!("s3://{BUCKET}/some/where"), settings, options).unwrap()
    }
}

#[test]
fn snapshots_go_to_s3_and_come_back() {
    let Some(s3) = S3::start() else { return };
    let path = |name: &str| s3.directory.path().join(name);
    let db = Options::new().memory_bytes(64 << 20).open(path("db")).unwrap();
    let mut random = Random(20_261_201);
    write_randomly(&db, &mut random, 500).unwrap();
    // A table of several parts.
    let large = db.keyspace("large", Default::default()).unwrap();
    for n in 0..20_000u32 {
        let value: Vec<u8> = (0..125).flat_map(|_| random.next().to_le_bytes()).collect();
        large.put(n.to_be_bytes(), value).unwrap();
    }
    db.flush().unwrap();
    let store = s3.store();
    let first = store.upload(&db, path("scratch")).unwrap();
    assert!(first.tables > 1 && first.bytes > 16 << 20, "{first:?}");
    assert_eq!(store.upload(&db, path("scratch")).unwrap().tables, 0, "nothing changed");
    let before = contents(&db);
    write_randomly(&db, &mut random, 500).unwrap();
    let last = store.upload(&db, path("scratch")).unwrap();

    let restored = |id: &str, name: &str| {
        store.restore(id, path(name)).unwrap();
        contents(&Db::open(path(name)).unwrap())
    };
    assert!(restored(&first.snapshot.id, "first") == before);
    assert!(restored(&last.snapshot.id, "last") == contents(&db));
    let pruned = store.prune(1).unwrap();
    assert_eq!(pruned.snapshots, 2);
    assert!(pruned.blobs > 0, "{pruned:?}");
    assert_eq!(store.list().unwrap(), [last.snapshot.clone()]);
    assert!(restored(&last.snapshot.id, "again") == contents(&db));
    let missing = store.restore(&first.snapshot.id, path("none")).unwrap_err();
    assert!(matches!(missing, Error::Foreign { retryable: false, .. }), "{missing}");
}
