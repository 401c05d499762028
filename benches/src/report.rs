//! [`Report`]: medians over the repetitions, beside the floor, as a table.

use std::collections::BTreeMap;
use std::fmt;

use crate::engines::EngineKind;
use crate::machine;
use crate::run::{Outcome, Record};
use crate::session::Measurement;
use crate::settings::Settings;
use crate::step::Step;

/// One measurement and where it comes from.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of which engine.
    pub engine: EngineKind,
    /// In which repetition, from 1.
    pub repetition: u32,
    /// Of which step of the session, from 0.
    pub at: usize,
    /// What was measured.
    pub measurement: Measurement,
}

/// Everything a run measured; `Display` prints it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The names of suite and session.
    pub title: String,
    /// What it was measured on.
    pub machine: String,
    /// In the order they ran.
    pub samples: Vec<Sample>,
    /// What the engines say of themselves, after their last session.
    pub details: BTreeMap<EngineKind, String>,
    /// Sessions that ended early.
    pub failures: Vec<String>,
    /// Sessions that cannot run on this machine, and what is missing.
    pub unavailable: Vec<String>,
    steps: Vec<Step>,
    engines: Vec<EngineKind>,
    settings: Settings,
    repeat: u32,
    clock_ns: f64,
}

/// A line of the table: medians of one engine at one place of the list of workloads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Operations a second, in thousands.
    pub kops: f64,
    /// How far the repetitions are apart: (largest - smallest) / median of `kops`.
    pub spread: f64,
    /// From the last operation to idle, in seconds.
    pub idle_seconds: f64,
    /// Latency percentiles, in microseconds: 50, 99, 99.9.
    pub percentiles_us: [f64; 3],
    /// The longest latency sampled, in microseconds.
    pub max_us: f64,
    /// CPU time an operation of the calling threads, in microseconds.
    pub caller_cpu_us: f64,
    /// CPU time an operation, all threads, until idle, in microseconds.
    pub cpu_us: f64,
    /// Bytes written / user bytes, as the engine counts; `None` of workloads that only read, or if it does not count.
    pub write_amplification: Option<f64>,
    /// Bytes sent to storage / user bytes, as the operating system counts.
    pub device_write_amplification: Option<f64>,
    /// Bytes on storage, logs included / live user bytes.
    pub space_amplification: f64,
    /// Bytes of tables / live user bytes.
    pub table_space_amplification: Option<f64>,
    /// The largest resident set, in MiB.
    pub peak_rss_mib: Option<f64>,
    /// What of the resident set at the end belongs to no file, in MiB.
    pub anonymous_mib: Option<f64>,
}

impl Report {
    /// One report for each session, in the order they first came.
    pub fn of(records: &[Record]) -> Vec<Report> {
        let mut reports: Vec<(&str, &str, Report)> = Vec::new();
        for record in records {
            let known = reports.iter().position(|(suite, session, _)| (*suite, *session) == record.key());
            let at = known.unwrap_or_else(|| {
                let (suite, session) = record.key();
                reports.push((suite, session, Report::empty(record)));
                reports.len() - 1
            });
            reports[at].2.add(record);
        }
        reports.into_iter().map(|(_, _, report)| report).collect()
    }

    fn empty(record: &Record) -> Self {
        Report {
            title: [record.suite.as_str(), record.session.as_str()].join(" ").trim().to_owned(),
            machine: record.machine.clone(),
            samples: Vec::new(),
            details: BTreeMap::new(),
            failures: Vec::new(),
            unavailable: Vec::new(),
            steps: record.steps.clone(),
            engines: Vec::new(),
            settings: record.settings.clone(),
            repeat: 0,
            clock_ns: machine::clock_ns(),
        }
    }

    fn add(&mut self, record: &Record) {
        let &Record { engine, repetition, at, .. } = record;
        self.repeat = self.repeat.max(repetition);
        if !self.engines.contains(&engine) {
            self.engines.push(engine);
        }
        let who = || format!("{}, repetition {repetition}, after {at} of {} steps", engine.name(), record.steps.len());
        match &record.outcome {
            Outcome::Measurement(measurement) => {
                self.samples.push(Sample { engine, repetition, at, measurement: (**measurement).clone() });
            }
            Outcome::Details(details) => drop(self.details.insert(engine, details.clone())),
            Outcome::Failure(why) => self.failures.push(format!("{}: {why}", who())),
            Outcome::Unavailable(why) => self.unavailable.push(format!("{}: {why}", engine.name())),
        }
    }

    /// The medians of an engine at place `at` of the list of workloads; `None` if no session came so far.
    pub fn row(&self, engine: EngineKind, at: usize) -> Option<Row> {
        let samples = self.samples.iter().filter(|sample| sample.engine == engine && sample.at == at);
        let measurements: Vec<_> = samples.map(|sample| &sample.measurement).collect();
        Row::of(&measurements)
    }
}

impl Row {
    /// The medians of `measurements` of one workload; `None` of none.
    pub fn of(measurements: &[&Measurement]) -> Option<Row> {
        let all = |of: &dyn Fn(&Measurement) -> f64| measurements.iter().map(|m| of(m)).collect::<Vec<_>>();
        let some =
            |of: &dyn Fn(&Measurement) -> Option<f64>| median(measurements.iter().filter_map(|m| of(m)).collect());
        let kops = |m: &Measurement| m.ops as f64 / m.seconds / 1e3;
        let rates = all(&kops);
        let (least, most) = rates.iter().fold((f64::MAX, 0.0f64), |(least, most), &r| (least.min(r), most.max(r)));
        let middle = median(rates)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Some(Row {
            kops: middle,
            spread: (most - least) / middle,
            idle_seconds: median(all(&|m| m.idle_seconds))?,
            percentiles_us: [
                median(all(&|m| m.latencies.p50_us))?,
                median(all(&|m| m.latencies.p99_us))?,
                median(all(&|m| m.latencies.p999_us))?,
            ],
            max_us: median(all(&|m| m.latencies.max_us))?,
            caller_cpu_us: median(all(&|m| m.caller_cpu_ns as f64 / 1e3 / m.ops as f64))?,
            cpu_us: median(all(&|m| m.cpu_ns as f64 / 1e3 / m.ops as f64))?,
            write_amplification: some(&|m| ratio(m.engine_write_bytes?, m.user_bytes)),
            device_write_amplification: some(&|m| ratio(m.device_write_bytes?, m.user_bytes)),
            space_amplification: some(&|m| ratio(m.disk_bytes, m.live_bytes)).unwrap_or(0.0),
            table_space_amplification: some(&|m| ratio(m.table_bytes?, m.live_bytes)),
            peak_rss_mib: some(&|m| m.peak_rss_bytes.map(mib)),
            anonymous_mib: some(&|m| m.anonymous_bytes.map(mib)),
        })
    }
}

fn ratio(bytes: u64, of_bytes: u64) -> Option<f64> {
    (of_bytes > 0).then(|| bytes as f64 / of_bytes as f64)
}

/// The middle value; of an even number the mean of the two in the middle; `None` of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

/// What a value is called on the command line.
fn name_of(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// A number with `decimals`, or a dash.
fn or_dash(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header(f)?;
        self.table(f)?;
        self.notes(f)?;
        for (engine, details) in &self.details {
            if !details.is_empty() {
                write!(f, "\n{} after the last workload:\n{}", engine.name(), details)?;
            }
        }
        for failure in &self.failures {
            writeln!(f, "\nFAILED {failure}")?;
        }
        for unavailable in &self.unavailable {
            writeln!(f, "\nNOT AVAILABLE {unavailable}")?;
        }
        Ok(())
    }
}

impl Report {
    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.settings;
        writeln!(f, "{} siltstone {}; {}", self.title, env!("CARGO_PKG_VERSION"), self.machine)?;
        writeln!(
            f,
            "{} keys of {} B, values of {} B ({:.0} MiB); seed {}, threads {}, memory {} MiB, durability {}, compression {}, blocks {} B; medians of {}",
            s.keys,
            s.key_bytes,
            s.value_bytes,
            (s.keys as f64) * (s.key_bytes + s.value_bytes) as f64 / f64::from(1 << 20),
            s.seed,
            s.threads,
            s.memory_mib,
            name_of(&s.durability),
            name_of(&s.compression),
            s.block_bytes,
            self.repeat
        )
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<24}{:<11}{:>10}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}{:>10}{:>8}{:>8}{:>7}{:>8}{:>7}{:>8}{:>9}{:>9}",
            "workload",
            "engine",
            "kops/s",
            "spread",
            "of floor",
            "own us",
            "of floor",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "CPU us",
            "idle s",
            "WA",
            "dev WA",
            "SA",
            "tab SA",
            "RSS MiB",
            "anon MiB"
        )?;
        for (at, step) in self.steps.iter().enumerate() {
            let floor = self.row(EngineKind::Floor, at);
            for &engine in &self.engines {
                if let Some(row) = self.row(engine, at) {
                    row.line(f, &step.to_string(), engine.name(), floor.as_ref())?;
                }
            }
        }
        Ok(())
    }

    fn notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nkops/s: thousand operations a second over the phase, without the time to idle, which is `idle s`. own us: CPU time an operation of the calling threads, and its ratio, which bears up better when the machine does other work; CPU: of all threads, until idle. An operation of seekrandom is a seek and {} entries, of a scan an entry; all else is a put, get or delete.\n\
             Latencies: of 1 operation in 16, chosen at random, in the same pass, and of every write where several kinds are mixed, batched or synced; each is too long by the {:.0} ns of a reading of the clock. What lies between two of a sample is timed as one span, so that `max` misses no stall; a sample of the reads of a mix has none.\n\
             Making keys and values, and checking every byte of every answer, is part of all figures, alike for all engines.\n\
             WA: bytes written / user bytes, log included, as the engine counts; dev WA: as the operating system counts (- without a device). SA: files / live data, logs and spare logs included; tab SA: tables alone.\n\
             RSS: the peak in the phase; pages of mapped files count. anon: what of it belongs to no file, at the end of the phase.\n\
             Floor: a BTreeMap in memory behind an uncontended read-write lock, each write also appended to a log through a 64 KiB buffer: its `buffered` may lose that buffer with the process, siltstone's may not. Gets of siltstone answer a value that can be kept, those of the floor are visited in place.\n\
             Each session has its own process and directory; both use the system's allocator.",
            self.settings.seek_entries, self.clock_ns
        )
    }
}

impl Row {
    fn line(&self, f: &mut fmt::Formatter<'_>, workload: &str, engine: &str, floor: Option<&Row>) -> fmt::Result {
        let [p50, p99, p999] = self.percentiles_us;
        // A file system in memory has no device to write to.
        let device = self.device_write_amplification.filter(|&wa| wa > 0.0);
        writeln!(
            f,
            "{workload:<24}{engine:<11}{:>10.1}{:>7.0}%{:>9}{:>9.2}{:>9}{p50:>9.2}{p99:>9.2}{p999:>10.2}{:>10.1}{:>8.2}{:>8.2}{:>7}{:>8}{:>7.2}{:>8}{:>9}{:>9}",
            self.kops,
            self.spread * 100.0,
            or_dash(floor.map(|floor| self.kops / floor.kops), 2),
            self.caller_cpu_us,
            or_dash(floor.map(|floor| floor.caller_cpu_us / self.caller_cpu_us), 2),
            self.max_us,
            self.cpu_us,
            self.idle_seconds,
            or_dash(self.write_amplification, 2),
            or_dash(device, 2),
            self.space_amplification,
            or_dash(self.table_space_amplification, 2),
            or_dash(self.peak_rss_mib, 0),
            or_dash(self.anonymous_mib, 0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::Workload;

    fn measurement(ops: u64, seconds: f64) -> Measurement {
        Measurement {
            workload: Workload::FillRandom,
            durability: Default::default(),
            ops,
            kinds: Vec::new(),
            cut: false,
            seconds,
            idle_seconds: 0.5,
            settled: true,
            latencies: Default::default(),
            caller_cpu_ns: 1_000 * ops,
            cpu_ns: 2_000 * ops,
            user_bytes: 1000,
            device_write_bytes: Some(3000),
            engine_write_bytes: None,
            stall_ns: None,
            disk_bytes: 1500,
            peak_disk_bytes: 1500,
            table_bytes: Some(1100),
            live_bytes: 1000,
            peak_rss_bytes: Some(2 << 20),
            anonymous_bytes: None,
            harness_bytes: 0,
            levels: Vec::new(),
            series: Vec::new(),
        }
    }

    #[test]
    fn medians_do_not_depend_on_the_order() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(vec![9.0, 1.0, 4.0, 6.0]), Some(5.0));
    }

    #[test]
    fn rows_are_ratios_of_medians() {
        let runs = [measurement(1_000_000, 1.0), measurement(1_000_000, 4.0), measurement(1_000_000, 2.0)];
        let row = Row::of(&runs.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((row.kops, row.spread, row.caller_cpu_us, row.cpu_us), (500.0, 1.5, 1.0, 2.0));
        assert_eq!((row.write_amplification, row.device_write_amplification), (None, Some(3.0)));
        assert_eq!((row.space_amplification, row.table_space_amplification), (1.5, Some(1.1)));
        assert_eq!((row.peak_rss_mib, row.anonymous_mib), (Some(2.0), None));
        let reads = Measurement { user_bytes: 0, ..measurement(1, 1.0) };
        assert_eq!(Row::of(&[&reads]).unwrap().device_write_amplification, None);
        assert_eq!(Row::of(&[]), None);
    }

    #[test]
    fn engines_stand_beside_the_floor() {
        let record = |engine, repetition, at, outcome| Record {
            suite: "suite".to_owned(),
            session: "fill".to_owned(),
            engine,
            engine_version: String::new(),
            repetition,
            steps: vec![Workload::FillRandom.into(), Workload::FillRandom.into()],
            at,
            machine: "a machine".to_owned(),
            version: String::new(),
            rustc: String::new(),
            notes: String::new(),
            settings: Settings::default(),
            outcome,
        };
        let mut records = Vec::new();
        let mut add = |engine, repetition, at, seconds| {
            let outcome = Outcome::Measurement(Box::new(measurement(1_000_000, seconds)));
            records.push(record(engine, repetition, at, outcome));
        };
        for repetition in [1, 2] {
            add(EngineKind::Siltstone, repetition, 0, 2.0);
            add(EngineKind::Floor, repetition, 0, 1.0);
            add(EngineKind::Siltstone, repetition, 1, 8.0);
        }
        records.push(record(EngineKind::Floor, 2, 1, Outcome::Failure("wrong answer".to_owned())));
        records.push(Record { session: "other".to_owned(), ..records[0].clone() });
        let reports = Report::of(&records);
        assert_eq!(reports.len(), 2);
        assert_eq!((reports[1].title.as_str(), reports[1].samples.len()), ("suite other", 1));
        let report = &reports[0];
        assert_eq!(report.row(EngineKind::Siltstone, 1).unwrap().kops, 125.0);
        assert_eq!(report.row(EngineKind::Floor, 1), None, "it did not come so far");
        let text = report.to_string();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("fillrandom")).collect();
        let ratios: Vec<_> = lines.iter().map(|line| line.split_whitespace().nth(4).unwrap()).collect();
        assert_eq!(ratios, ["0.50", "1.00", "-"], "{text}");
        assert!(text.contains("seed 42") && text.contains("durability buffered, compression none"), "{text}");
        assert!(text.contains("FAILED floor, repetition 2, after 1 of 2 steps: wrong answer"), "{text}");
    }
}
