//! What is told to the facade `metrics`. In a process of its own, since the recorder is the process's.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{db_path, eager, sim, small};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use siltstone::fs::SimFileSystem;
use siltstone_changelog::{MemorySink, Restore, Standby, ship};

/// Counters and gauges by name and labels.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Told {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: String = key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
        self.0.lock().unwrap().entry(format!("{}{labels}", key.name())).or_default().clone()
    }

    fn counter(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).unwrap_or_else(|| panic!("{name} was not told")).load(Ordering::Relaxed)
    }

    /// Gauges are the bits of a float.
    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.counter(name))
    }
}

impl Recorder for Told {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn rates_retries_and_lag_are_told() {
    let told = Told::default();
    assert!(metrics::set_global_recorder(told.clone()).is_ok());
    let db = small(&sim().0).open(db_path()).unwrap();
    let sink = MemorySink::new();
    let shipper = ship(&db, sink.clone(), eager(&Arc::default()).cursor("mirror")).unwrap();
    let words = db.keyspace("words", Default::default()).unwrap();
    for n in 0..20u32 {
        words.put(n.to_be_bytes(), "value").unwrap();
    }
    shipper.flush().unwrap();
    sink.fail_appends(3, true);
    words.put("one", "more").unwrap();
    shipper.stop().unwrap();
    let counter = |name: &str| told.counter(&format!("siltstone_ship_{name} cursor=mirror"));
    assert_eq!((counter("sent_batches_total"), counter("sent_bytes_total")), (21, 20 * 9 + 7));
    assert_eq!((counter("acknowledged_batches_total"), counter("acknowledged_bytes_total")), (21, 20 * 9 + 7));
    assert_eq!(counter("retries_total"), 3);
    assert_eq!(told.gauge("siltstone_ship_lag_seqnos cursor=mirror"), 0.0);

    let fs = SimFileSystem::new();
    let restore = Restore::new(sink.source()).into_with("/again", small(&fs)).file_system(Arc::new(fs));
    drop(restore.run().unwrap());
    assert_eq!(told.counter("siltstone_restore_changes_total"), 21);
    assert_eq!(told.counter("siltstone_restore_bytes_total"), 20 * 9 + 7);

    let directory = tempfile::tempdir().unwrap();
    let standby = Standby::follow(sink.source(), directory.path()).unwrap();
    assert!(standby.wait_until_caught_up(Duration::from_secs(60)));
    assert_eq!(told.gauge("siltstone_standby_lag_seqnos"), 0.0);
}
