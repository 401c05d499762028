//! The program itself: sessions in processes of their own, what is reported of those that go wrong, and results files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use siltstone_benches::engines::EngineKind;
use siltstone_benches::run::{Outcome, Record};

fn program(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siltstone-benches"));
    command.args(args).arg("--dir").arg(dir).stdin(Stdio::null());
    command
}

fn run(args: &[&str], dir: &Path) -> Output {
    program(args, dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn records(path: &Path) -> Vec<Record> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The part of a report under `heading`; empty if there is none.
fn part<'o>(out: &'o str, heading: &str) -> &'o str {
    let from = out.split_once(&format!("=== {heading}\n")).map_or("", |(_, from)| from);
    from.split_once("===").map_or(from, |(part, _)| part)
}

fn failed(out: &str) -> &str {
    part(out, "Failed")
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn a_run_reports_and_leaves_a_line_for_each_step() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("results.jsonl");
    let args = ["run", "fillrandom,readrandom:threads=2,scan", "--keys", "2000", "--repeat", "2", "--json"];
    let output = run(&[&args[..], &[json.to_str().unwrap()]].concat(), dir.path());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.lines().any(|line| line.starts_with("readrandom, 2 threads")), "{out}");
    assert!(err.contains("[1/4] siltstone, repetition 1 of 2") && err.contains(" left"), "{err}");
    let records = records(&json);
    let measured: Vec<_> = records
        .iter()
        .filter(|record| matches!(record.outcome, Outcome::Measurement(_)))
        .map(|record| (record.repetition, record.engine, record.at, record.settings.threads))
        .collect();
    let session = |repetition, engine| [0, 1, 2].map(|at| (repetition, engine, at, if at == 1 { 2 } else { 1 }));
    use EngineKind::{Floor, Siltstone};
    assert_eq!(
        measured,
        [session(1, Siltstone), session(1, Floor), session(2, Floor), session(2, Siltstone)].concat(),
        "the second repetition begins with the other engine"
    );
    assert_eq!(records.len(), measured.len() + 4, "and what the engines say of themselves");
    assert!(is_empty(dir.path()), "nothing is left behind");
}

#[test]
fn runs_write_their_report_and_results_files_come_to_the_same() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |name: &str| results.path().join(name).to_str().unwrap().to_owned();
    let (json, first, second) = (file("results.jsonl"), file("first.md"), file("second.md"));
    let args = ["run", "fillrandom,scan", "--keys", "2000", "--json", &json, "--markdown", &first];
    let output = run(&[&args[..], &["--html", &file("page.html")]].concat(), dir.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_siltstone-benches")).args(args).output().unwrap();
    let output = report(&["report", &json, "--markdown", &second]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ours / floor"));
    // How long reading the clock takes differs.
    let table = |path: &str| -> String {
        let markdown = fs::read_to_string(path).unwrap();
        markdown.lines().filter(|line| line.starts_with('|')).collect()
    };
    assert_eq!(table(&first), table(&second));
    assert!(fs::read_to_string(file("page.html")).unwrap().contains("<svg "));
    let refused = run(&[&args[..], &["--html", &file("no/such/page.html")]].concat(), dir.path());
    assert!(!refused.status.success() && text(&refused.stdout).is_empty(), "before anything runs");
}

#[test]
fn suites_run_with_what_this_build_has() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("results.jsonl");
    let args =
        ["peers", "--suite", "load,crash", "--engines", "siltstone", "--quick", "--value-bytes", "100", "--json"];
    let output = run(&[&args[..], &[json.to_str().unwrap()]].concat(), dir.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let records = records(&json);
    let opened = records.iter().find(|record| record.suite == "crash").unwrap();
    assert!(matches!(&opened.outcome, Outcome::Measurement(measured) if measured.ops == 1), "{opened:?}");
    assert!(records.iter().all(|record| record.engine_version.starts_with("siltstone ")));
    assert!(is_empty(dir.path()));
}

#[test]
fn an_engine_that_loses_what_it_acknowledged_is_reported_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["run", "openafterkill", "--engines", "floor,siltstone", "--keys", "3000"];
    let output = run(&args, dir.path());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success());
    assert!(failed(&out).contains("floor") && failed(&out).contains("is missing"), "{out}");
    assert!(err.contains("is missing"), "{err}");
    assert!(out.lines().any(|line| line.starts_with("openafterkill") && line.contains("siltstone")), "{out}");
    assert!(is_empty(dir.path()), "nor is what the killed process left");
}

#[test]
fn what_cannot_run_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |args: &[&str]| {
        let output = run(args, dir.path());
        assert!(!output.status.success() && output.stdout.is_empty(), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    assert!(refusal(&["run", "readrandom"]).contains("fillrandom"));
    assert!(refusal(&["run", "openafterkill,scan"]).contains("session of its own"));
    assert!(refusal(&["run", "fillrandom", "--keys", "0"]).contains("keys"));
    assert!(refusal(&["peers", "--suite", "fil"]).contains("fill, read"));
    assert!(refusal(&["peers", "--value-bytes", "7"]).contains("no session is left"));
    if !cfg!(feature = "peers") {
        assert!(refusal(&["run", "fillseq", "--engines", "rocksdb"]).contains("--features peers"));
        assert!(refusal(&["peers"]).contains("--features peers"));
    }
    assert!(is_empty(dir.path()));
}

#[test]
fn a_results_file_that_cannot_be_written_costs_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["run", "fillseq", "--keys", "100", "--json", "/dev/full"], dir.path());
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/dev/full"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("fillseq"), "{}", text(&output.stdout));
}

#[test]
fn a_session_that_takes_too_long_is_ended_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["run", "fillrandom", "--engines", "floor", "--keys", "100000000", "--session-limit", "1"];
    let output = run(&args, dir.path());
    let out = text(&output.stdout);
    assert!(!output.status.success() && failed(&out).contains("floor"), "{out}");
    assert!(failed(&out).contains("longer than 1 s"), "{out}");
    assert!(is_empty(dir.path()));
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("results.jsonl");
    // The first step is soon done, the second one never.
    let args = ["run", "fillseq,scan", "--engines", "floor", "--keys", "1000", "--scan-passes", "1000000000", "--json"];
    let mut command = program(&[&args[..], &[json.to_str().unwrap()]].concat(), dir.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while fs::read_to_string(&json).unwrap_or_default().is_empty() && began.elapsed() < Duration::from_secs(600) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(Command::new("/bin/kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success() && err.contains("interrupted"), "{err}");
    assert!(out.lines().any(|line| line.starts_with("fillseq")) && failed(&out).is_empty(), "{out}");
    assert_eq!(records(&json).len(), 1);
    assert!(is_empty(dir.path()));
}

#[test]
fn a_memory_limit_that_cannot_be_set_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["run", "fillseq", "--engines", "floor", "--keys", "100", "--memory-limit-mib", "64"];
    let output = run(&args, dir.path());
    let out = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Where it can be set, the session runs.
    let ran = out.lines().any(|line| line.starts_with("fillseq"));
    let missing = part(&out, "Not tried on this machine");
    assert!(ran != (missing.contains("floor") && missing.contains("a memory limit needs")), "{out}");
    assert!(failed(&out).is_empty(), "{out}");
    assert!(is_empty(dir.path()));
}
