//! [`SessionProcess`]: starting a session's process, reading what it says, and ending it when its time is over.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Session;
use super::interrupt::Interrupt;
use super::memory_limit::MemoryLimit;
use crate::engines::EngineKind;
use crate::error::{Error, Result};
use crate::session::Line;

/// How soon an interruption or the end of the time is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// When a process has to end.
pub(super) struct Deadline<'a> {
    at: Instant,
    limit: Duration,
    interrupt: &'a Interrupt,
}

/// How a session's process ended.
#[derive(Debug, PartialEq)]
pub(super) enum Ending {
    /// It said all it had to say.
    Completed,
    /// It did not, and why.
    Failed(String),
    /// The user wanted to end.
    Interrupted,
}

impl<'a> Deadline<'a> {
    pub(super) fn new(limit: Duration, interrupt: &'a Interrupt) -> Self {
        let now = Instant::now();
        // What the clock cannot say is as good as no limit.
        let at = now.checked_add(limit).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        Deadline { at, limit, interrupt }
    }

    /// Why the process has to end now, if it has to.
    fn passed(&self) -> Option<Ending> {
        if self.interrupt.is_set() {
            return Some(Ending::Interrupted);
        }
        let late = Instant::now() >= self.at;
        late.then(|| Ending::Failed(format!("took longer than {} s and was ended", self.limit.as_secs())))
    }
}

/// What a process says next.
pub(super) enum Said {
    /// A line.
    Line(Line),
    /// Nothing more: it closed its output, or its time is over, or what it said is no line.
    Ended(Ending),
}

/// The process of a session. It is killed when it is dropped.
pub(super) struct SessionProcess {
    child: Child,
    lines: Receiver<std::io::Result<String>>,
}

impl SessionProcess {
    /// Runs this program's hidden `command` for `session` on `engine` in `dir`.
    pub(super) fn start(
        command: &str,
        session: &Session,
        engine: EngineKind,
        dir: &Path,
        limit: Option<&MemoryLimit>,
    ) -> Result<Self> {
        let program = std::env::current_exe().map_err(Error::io("this program"))?;
        let settings = serde_json::to_string(&session.settings).map_err(|error| Error::Settings(error.to_string()))?;
        let steps: Vec<_> = session.steps.iter().map(ToString::to_string).collect();
        let mut process = limit.map_or_else(|| Command::new(&program), |limit| limit.command(&program));
        process.arg(command).arg(steps.join(",")).args(["--engine", engine.name(), "--settings", &settings]);
        process.arg("--dir").arg(dir);
        Self::spawn(process).map_err(Error::io(program))
    }

    fn spawn(mut command: Command) -> std::io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (sender, lines) = channel();
        if let Some(output) = child.stdout.take() {
            // It ends with the process, which holds the other end.
            thread::Builder::new().name("session-output".to_owned()).spawn(move || forward(output, &sender))?;
        }
        Ok(SessionProcess { child, lines })
    }

    /// Waits for the next line, or the end.
    pub(super) fn next(&mut self, deadline: &Deadline<'_>) -> Said {
        loop {
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(Ok(line)) => return parse(&line),
                Ok(Err(error)) => return Said::Ended(Ending::Failed(format!("its output cannot be read: {error}"))),
                // The terminal sends its signal to the session as well.
                Err(RecvTimeoutError::Disconnected) if deadline.interrupt.is_set() => {
                    return Said::Ended(Ending::Interrupted);
                }
                Err(RecvTimeoutError::Disconnected) => return Said::Ended(self.end()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(ending) = deadline.passed() {
                return Said::Ended(ending);
            }
        }
    }

    /// Waits for a process that said all it had to say.
    fn end(&mut self) -> Ending {
        match self.child.wait() {
            Ok(status) if status.success() => Ending::Completed,
            Ok(status) => Ending::Failed(format!("its process ended early: {status}")),
            Err(error) => Ending::Failed(format!("its process cannot be waited for: {error}")),
        }
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub(super) fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for SessionProcess {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

fn forward(output: ChildStdout, lines: &Sender<std::io::Result<String>>) {
    for line in BufReader::new(output).lines() {
        if lines.send(line).is_err() {
            return;
        }
    }
}

fn parse(line: &str) -> Said {
    match serde_json::from_str(line) {
        Ok(line) => Said::Line(line),
        Err(error) => Said::Ended(Ending::Failed(format!("it printed what is no line of a session: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> SessionProcess {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        SessionProcess::spawn(command).unwrap()
    }

    fn ending(mut process: SessionProcess, limit: Duration, interrupt: &Interrupt) -> (usize, Ending) {
        let deadline = Deadline::new(limit, interrupt);
        let mut lines = 0;
        loop {
            match process.next(&deadline) {
                Said::Line(_) => lines += 1,
                Said::Ended(ending) => return (lines, ending),
            }
        }
    }

    fn reason(ending: Ending) -> String {
        if let Ending::Failed(reason) = ending { reason } else { panic!("{ending:?}") }
    }

    #[test]
    fn endings_are_told_apart() {
        let never = Interrupt::default();
        let hour = Duration::from_secs(3600);
        let details = r#"echo '{"details":"x"}';"#;
        assert_eq!(ending(shell(details), hour, &never), (1, Ending::Completed));
        let (lines, died) = ending(shell(&format!("{details} exit 3")), hour, &never);
        assert!(lines == 1 && reason(died).contains("exit status: 3"));
        let (_, killed) = ending(shell("kill -9 $$"), hour, &never);
        assert!(reason(killed).contains("signal: 9"));
        let (_, babbled) = ending(shell("echo hello"), hour, &never);
        assert!(reason(babbled).contains("no line of a session"));
        let (lines, late) = ending(shell(&format!("{details} exec sleep 1000")), Duration::ZERO, &never);
        assert!(lines <= 1 && reason(late).contains("took longer than 0 s"));
        assert_eq!(ending(shell("sleep 0.01"), Duration::MAX, &never), (0, Ending::Completed));
    }

    #[test]
    fn an_interruption_ends_the_process() {
        let interrupt = Interrupt::default();
        interrupt.set();
        let mut process = shell("exec sleep 1000");
        let id = process.child.id();
        let said = process.next(&Deadline::new(Duration::MAX, &interrupt));
        assert!(matches!(said, Said::Ended(Ending::Interrupted)));
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
