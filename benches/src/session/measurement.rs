//! [`Measurement`]: what one workload measured on one engine.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::engines::LevelShape;
use crate::error::{Error, Result};
use crate::measure::{Kind, Latencies, Second};
use crate::settings::Durability;
use crate::workloads::Workload;

/// What one workload measured on one engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Which workload.
    pub workload: Workload,
    /// What an acknowledged write survived in it.
    #[serde(default)]
    pub durability: Durability,
    /// Operations of all kinds that were done; see [`Workload::unit`].
    pub ops: u64,
    /// The same by kind, the one that the workload is named after first.
    #[serde(default)]
    pub kinds: Vec<KindMeasurement>,
    /// Whether it ended by the clock, with steps left; how many keys it wrote then shows in `live_bytes` and `ops`.
    #[serde(default)]
    pub cut: bool,
    /// From the first operation to the end of the last, in seconds.
    pub seconds: f64,
    /// From there until nothing worked in the background, in seconds; 0 if it was not [`settled`](Self::settled).
    pub idle_seconds: f64,
    /// Whether the session waited until nothing worked in the background. Where it did not, since the next workload
    /// begins at once, all that is measured "until idle" is measured until the last operation.
    #[serde(default = "yes")]
    pub settled: bool,
    /// Of the first of `kinds`.
    pub latencies: Latencies,
    /// CPU time of the threads that called the engine, in nanoseconds: what an operation costs its caller, whatever
    /// else the machine does.
    pub caller_cpu_ns: u64,
    /// CPU time of all threads of the process until idle, less that of the one that takes samples, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes of keys and values that were put (of deletes, the keys).
    pub user_bytes: u64,
    /// Bytes that the process caused to be sent to storage until idle.
    pub device_write_bytes: Option<u64>,
    /// The same as the engine itself counts it.
    pub engine_write_bytes: Option<u64>,
    /// How long the engine says that it held writers back, all threads together, in nanoseconds.
    #[serde(default)]
    pub stall_ns: Option<u64>,
    /// What the store's files take on storage once idle, logs included, in bytes.
    pub disk_bytes: u64,
    /// The most that they took, seen ten times a second, in bytes.
    #[serde(default)]
    pub peak_disk_bytes: u64,
    /// What its tables alone take, in bytes.
    pub table_bytes: Option<u64>,
    /// Bytes of the keys and values that the store should hold.
    pub live_bytes: u64,
    /// The largest resident set during the workload, in bytes; pages of mapped files count.
    pub peak_rss_bytes: Option<u64>,
    /// What of it, at the end, belongs to no file.
    pub anonymous_bytes: Option<u64>,
    /// What the benchmark's own ledger of the expected answers takes of both, in bytes.
    #[serde(default)]
    pub harness_bytes: u64,
    /// What each level of an LSM tree holds once idle, and has cost since the store was opened.
    #[serde(default)]
    pub levels: Vec<LevelShape>,
    /// What happened second by second, until idle.
    #[serde(default)]
    pub series: Vec<Second>,
}

/// One kind of a workload's operations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindMeasurement {
    /// Which.
    pub kind: Kind,
    /// How many were done; divided by the workload's seconds it is their rate.
    pub ops: u64,
    /// How long they took.
    pub latencies: Latencies,
}

/// What a file of older measurements says by its silence.
fn yes() -> bool {
    true
}

/// A line that a session's process prints for the one that started it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A workload ended.
    Measured(Box<Measurement>),
    /// The store is filled, and the process waits to be killed; see [`crate::crash`].
    Filled,
    /// What the engine says of itself after the last one.
    Details(String),
    /// Why the session ended before.
    Failed(String),
}

/// Writes one line of JSON.
///
/// # Errors
/// [`Error::Io`].
pub fn print(out: &mut impl Write, line: &Line) -> Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from).map_err(Error::io("standard output"))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(Error::io("standard output"))
}
