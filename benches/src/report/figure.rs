//! [`Figure`]: what a report reads from a measurement.

use crate::measure::{Kind, Latencies};
use crate::session::Measurement;

/// One number of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Operations a second over the phase, of all kinds.
    Rate,
    /// The same of one kind.
    RateOf(Kind),
    /// Operations a second until nothing worked in the background any more; none where nobody waited for that.
    RateToIdle,
    /// How long the phase took, in seconds.
    Seconds,
    /// From the last operation to idle, in seconds.
    IdleSeconds,
    /// A latency that this share of the operations kept below, in microseconds; of the kind of operation that the
    /// workload is named after.
    Latency(Quantile),
    /// The same of one kind of operation.
    LatencyOf(Kind, Quantile),
    /// CPU time an operation of the calling threads, in microseconds.
    CallerCpu,
    /// CPU time an operation of all threads, until idle, in microseconds.
    Cpu,
    /// Bytes sent to storage / user bytes, as the operating system counts; none of reads, or without a device.
    DeviceWriteAmplification,
    /// The same as the engine counts.
    EngineWriteAmplification,
    /// Bytes on storage once idle, logs included / live user bytes.
    SpaceAmplification,
    /// The most bytes on storage in the phase / live user bytes at its end.
    PeakSpaceAmplification,
    /// Bytes of tables alone / live user bytes.
    TableSpaceAmplification,
    /// How long the engine says it held writers back, in seconds.
    StallSeconds,
    /// The largest resident set, in MiB; pages of mapped files count, and so does the benchmark itself.
    PeakRss,
    /// What of the resident set at the end belongs to no file, without what the benchmark itself holds, in MiB.
    Anonymous,
}

/// Which latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// That half of the operations kept below.
    P50,
    /// That 99 in 100 did.
    P99,
    /// That 999 in 1,000 did.
    P999,
    /// The longest.
    Max,
}

impl Quantile {
    fn of(self, latencies: &Latencies) -> Option<f64> {
        let us = match self {
            Quantile::P50 => latencies.p50_us,
            Quantile::P99 => latencies.p99_us,
            Quantile::P999 => latencies.p999_us,
            Quantile::Max => latencies.max_us,
        };
        (latencies.samples > 0).then_some(us)
    }
}

impl Figure {
    /// The number, if the measurement has it. What is to be measured once idle is not there if nobody waited for that.
    pub fn of(self, m: &Measurement) -> Option<f64> {
        if self.is_once_idle() && !m.settled {
            return None;
        }
        let an_operation = |ns: u64| ratio(ns as f64 / 1e3, m.ops as f64);
        let of_live = |bytes: u64| ratio(bytes as f64, m.live_bytes as f64);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        match self {
            Figure::Rate => ratio(m.ops as f64, m.seconds),
            Figure::RateOf(kind) => {
                let of_kind = m.kinds.iter().find(|of| of.kind == kind)?;
                ratio(of_kind.ops as f64, m.seconds)
            }
            Figure::RateToIdle => ratio(m.ops as f64, m.seconds + m.idle_seconds),
            Figure::Seconds => Some(m.seconds),
            Figure::IdleSeconds => Some(m.idle_seconds),
            Figure::Latency(quantile) => quantile.of(&m.latencies),
            Figure::LatencyOf(kind, quantile) => quantile.of(&m.kinds.iter().find(|of| of.kind == kind)?.latencies),
            Figure::CallerCpu => an_operation(m.caller_cpu_ns),
            Figure::Cpu => an_operation(m.cpu_ns),
            // A file system in memory has no device to write to.
            Figure::DeviceWriteAmplification => m
                .device_write_bytes
                .filter(|&bytes| bytes > 0)
                .and_then(|bytes| ratio(bytes as f64, m.user_bytes as f64)),
            Figure::EngineWriteAmplification => {
                m.engine_write_bytes.and_then(|bytes| ratio(bytes as f64, m.user_bytes as f64))
            }
            Figure::SpaceAmplification => of_live(m.disk_bytes),
            Figure::PeakSpaceAmplification => of_live(m.peak_disk_bytes).filter(|_| m.peak_disk_bytes > 0),
            Figure::TableSpaceAmplification => m.table_bytes.and_then(of_live),
            Figure::StallSeconds => m.stall_ns.map(|ns| ns as f64 / 1e9),
            Figure::PeakRss => m.peak_rss_bytes.map(mib),
            Figure::Anonymous => m.anonymous_bytes.map(|bytes| mib(bytes.saturating_sub(m.harness_bytes))),
        }
    }

    /// Whether it tells what it took, or what is left, once nothing works in the background.
    pub fn is_once_idle(self) -> bool {
        use Figure::*;
        matches!(
            self,
            RateToIdle
                | IdleSeconds
                | Cpu
                | DeviceWriteAmplification
                | EngineWriteAmplification
                | SpaceAmplification
                | TableSpaceAmplification
        )
    }

    /// Whether more is better.
    pub fn is_more_better(self) -> bool {
        matches!(self, Figure::Rate | Figure::RateOf(_) | Figure::RateToIdle)
    }

    /// Its name, unit included.
    pub fn name(self) -> String {
        match self {
            Figure::RateOf(kind) => format!("thousand {} a second", kind.name()),
            Figure::Rate => "thousand operations a second".to_owned(),
            Figure::RateToIdle => "thousand operations a second, to idle".to_owned(),
            other => other.short_name().to_owned(),
        }
    }

    /// A head for a narrow column.
    pub fn short_name(self) -> &'static str {
        match self {
            Figure::Rate | Figure::RateOf(_) => "kops/s",
            Figure::RateToIdle => "to idle",
            Figure::Seconds => "seconds",
            Figure::IdleSeconds => "idle s",
            Figure::Latency(Quantile::P50) | Figure::LatencyOf(_, Quantile::P50) => "p50 us",
            Figure::Latency(Quantile::P99) | Figure::LatencyOf(_, Quantile::P99) => "p99 us",
            Figure::Latency(Quantile::P999) | Figure::LatencyOf(_, Quantile::P999) => "p99.9 us",
            Figure::Latency(Quantile::Max) | Figure::LatencyOf(_, Quantile::Max) => "max us",
            Figure::CallerCpu => "own CPU us",
            Figure::Cpu => "CPU us",
            Figure::DeviceWriteAmplification => "WA",
            Figure::EngineWriteAmplification => "own WA",
            Figure::SpaceAmplification => "SA",
            Figure::PeakSpaceAmplification => "peak SA",
            Figure::TableSpaceAmplification => "table SA",
            Figure::StallSeconds => "stall s",
            Figure::PeakRss => "RSS MiB",
            Figure::Anonymous => "anon MiB",
        }
    }

    /// A value of it as reports write it, in the unit of [`name`](Figure::name).
    pub fn format(self, value: f64) -> String {
        match self {
            Figure::Rate | Figure::RateOf(_) | Figure::RateToIdle => three_digits(value / 1e3),
            _ => three_digits(value),
        }
    }
}

fn ratio(part: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| part / of)
}

/// A number with three significant digits, or all before the point, in groups.
///
/// ```
/// use siltstone_benches::report::three_digits;
/// let written = [0.0, 0.01234, 0.9996, 1.0, 43.21, 987.6, -123456.7].map(three_digits);
/// assert_eq!(written, ["0", "0.0123", "1.00", "1.00", "43.2", "988", "-123,457"]);
/// ```
pub fn three_digits(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || !size.is_finite() {
        return value.to_string();
    }
    let decimals = |size: f64| (2.0 - size.log10().floor()).clamp(0.0, 12.0);
    let scale = 10f64.powf(decimals(size));
    // Rounding may carry into another digit: 9.996 becomes 10.0.
    let rounded = (size * scale).round() / scale;
    let text = format!("{rounded:.*}", decimals(rounded) as usize);
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}
