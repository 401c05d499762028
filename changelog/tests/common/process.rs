//! Servers that end with the test process, whatever ends that.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Runs its arguments, says under which number, and kills that once nobody holds the other end of its input.
const KEEPER: &str = r#""$@" >"$LOG" 2>&1 </dev/null & echo $!; cat >/dev/null; kill -9 $! 2>/dev/null; wait"#;

/// A server's process; it ends when this is dropped.
pub struct Server {
    keeper: Child,
    id: String,
}

impl Server {
    /// Starts `command`, which writes what it has to say to the file `log`.
    pub fn start(command: &[&str], log: &std::path::Path) -> Server {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .args(command)
            .env("LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut id = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut id).unwrap();
        Server { keeper, id: id.trim().to_owned() }
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.signal("-0")
    }

    /// Sends it a signal; whether it was there to get it.
    pub fn signal(&self, signal: &str) -> bool {
        Command::new("kill").args([signal, &self.id]).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
