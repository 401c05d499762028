//! What the reliability tests did, in numbers: gathered while they run, shown in `docs/durability.md`.
//!
//! With `SILTSTONE_EVIDENCE` set to a file, every [`record`] appends a line `what<TAB>count` to it; the binary
//! `evidence` adds them up and writes the table. Without it the numbers are only printed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// The environment variable that names the file.
pub const FILE: &str = "SILTSTONE_EVIDENCE";

/// Where the table stands in the document, between these two lines.
pub const MARKS: [&str; 2] = ["<!-- evidence: begin -->", "<!-- evidence: end -->"];

/// Every figure of the table, in its order: the key under which it is recorded, and what it says.
pub const FIGURES: [(&str, &str); 27] = [
    ("crash_points", "Power cuts: calls of the filesystem at which a workload was stopped"),
    (
        "crash_states",
        "Power cuts: states recovered and checked (each stop with 0 %, some and all of what was unsynced)",
    ),
    ("double_crash_states", "Power cuts inside such a recovery: states recovered and checked"),
    ("read_only_opens", "States opened read-only without changing a byte"),
    ("ship_crash_states", "Power cuts while shipping or restoring: states checked, log against store"),
    ("fault_points", "Faults: calls at which an error was injected"),
    ("fault_reopens", "Faults: reopens checked afterwards, with and without a power cut"),
    ("metamorphic_configurations", "Metamorphic runs: configurations"),
    ("metamorphic_lists", "Metamorphic runs: operation lists"),
    ("metamorphic_operations", "Metamorphic runs: operations, over all configurations"),
    ("kills_at_random", "SIGKILLs at random moments"),
    ("kills_at_points", "SIGKILLs at named points"),
    ("killed_batches", "Batches written by processes that were killed"),
    ("flipped_bytes", "Damage: bytes flipped, one at a time"),
    ("truncations", "Damage: files cut short, at every offset"),
    ("damage_found_by_verify", "Damage: cases found by `verify` or refused at open"),
    ("repairs", "Damage: databases repaired and compared with what was intact"),
    ("schedules", "Concurrency: schedules explored in models"),
    ("linearizable_histories", "Concurrency: recorded histories found linearizable"),
    ("linearizable_operations", "Concurrency: operations in them"),
    ("fuzz_targets", "Fuzzing: targets"),
    ("fuzz_executions", "Fuzzing: executions"),
    ("mutants", "Mutants: in wal, manifest and version, retention, commit and recovery"),
    ("mutants_caught", "Mutants: caught by a test"),
    ("mutants_explained", "Mutants: survivors listed with the reason why they change nothing"),
    ("lost", "Acknowledged writes lost"),
    ("wrong", "Wrong answers"),
];

/// What this process has recorded so far.
static TOTALS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// The figures that this process has recorded so far.
pub fn totals() -> BTreeMap<String, u64> {
    TOTALS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Adds `count` to a figure of [`FIGURES`].
///
/// # Panics
/// If there is no such figure, or the file cannot be written.
pub fn record(figure: &str, count: u64) {
    assert!(FIGURES.iter().any(|(key, _)| *key == figure), "no figure {figure:?}");
    println!("evidence: {figure} {count}");
    *TOTALS.lock().unwrap_or_else(PoisonError::into_inner).entry(figure.to_owned()).or_default() += count;
    let Some(path) = std::env::var_os(FILE) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the evidence file opens");
    // One call, so that lines of tests that run at the same time stay whole.
    file.write_all(format!("{figure}\t{count}\n").as_bytes()).expect("the evidence file can be written");
}

/// Adds up the lines of an evidence file.
///
/// # Errors
/// The line that is none.
pub fn sum(lines: &str) -> Result<BTreeMap<String, u64>, String> {
    let mut sums = BTreeMap::new();
    for line in lines.lines() {
        let (figure, count) = line.split_once('\t').ok_or_else(|| format!("no figure and count: {line:?}"))?;
        let count: u64 = count.parse().map_err(|_| format!("no count: {line:?}"))?;
        if !FIGURES.iter().any(|(key, _)| *key == figure) {
            return Err(format!("no such figure: {line:?}"));
        }
        *sums.entry(figure.to_owned()).or_default() += count;
    }
    Ok(sums)
}

/// The table in Markdown; figures that were not recorded are left out.
pub fn table(sums: &BTreeMap<String, u64>) -> String {
    let mut table = String::from("| What was done | Count |\n|---|---:|\n");
    for (key, text) in FIGURES {
        if let Some(count) = sums.get(key) {
            table += &format!("| {text} | {} |\n", grouped(*count));
        }
    }
    table
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `document` with `table` between its marks.
///
/// # Errors
/// That the marks are missing.
pub fn insert(document: &str, table: &str) -> Result<String, String> {
    let [begin, end] = MARKS;
    let (before, rest) = document.split_once(begin).ok_or_else(|| format!("no line {begin:?}"))?;
    let (_, after) = rest.split_once(end).ok_or_else(|| format!("no line {end:?}"))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_added_up_and_shown_in_their_order() {
        let sums = sum("lost\t0\ncrash_points\t1200\ncrash_points\t34\n").unwrap();
        let table = table(&sums);
        assert_eq!(
            table.lines().skip(2).collect::<Vec<_>>(),
            [
                "| Power cuts: calls of the filesystem at which a workload was stopped | 1,234 |",
                "| Acknowledged writes lost | 0 |"
            ]
        );
        let document = format!("a\n{}\nold\n{}\nb\n", MARKS[0], MARKS[1]);
        assert_eq!(insert(&document, "new\n").unwrap(), format!("a\n{}\nnew\n{}\nb\n", MARKS[0], MARKS[1]));
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for lines in ["crash_points 3", "crash_points\tmany", "nothing\t3"] {
            assert!(sum(lines).is_err(), "{lines}");
        }
        assert!(insert("no marks", "").is_err());
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
