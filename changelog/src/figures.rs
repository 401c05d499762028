//! What is told to the `metrics` facade, with the feature of that name; without it nothing is.
//!
//! | name | kind | label |
//! |---|---|---|
//! | `siltstone_ship_sent_batches_total`, `.._sent_bytes_total` | counters: taken by the sink | `cursor` |
//! | `siltstone_ship_acknowledged_batches_total`, `.._acknowledged_bytes_total` | counters: acknowledged by it | `cursor` |
//! | `siltstone_ship_lag_seqnos` | gauge: sequence numbers that are not acknowledged, as of the last acknowledgement | `cursor` |
//! | `siltstone_ship_retries_total` | counter: calls of the sink that were tried again | `cursor` |
//! | `siltstone_restore_changes_total`, `.._bytes_total` | counters: restored | |
//! | `siltstone_standby_lag_seqnos` | gauge: sequence numbers that are not applied | |
//!
//! Bytes are those of keys and values.

#[cfg(feature = "metrics")]
mod told {
    use metrics::{counter, gauge};

    pub(crate) fn sent(cursor: &str, batches: u64, bytes: u64) {
        counter!("siltstone_ship_sent_batches_total", "cursor" => cursor.to_owned()).increment(batches);
        counter!("siltstone_ship_sent_bytes_total", "cursor" => cursor.to_owned()).increment(bytes);
    }

    pub(crate) fn acknowledged(cursor: &str, batches: u64, bytes: u64, lag_seqnos: u64) {
        counter!("siltstone_ship_acknowledged_batches_total", "cursor" => cursor.to_owned()).increment(batches);
        counter!("siltstone_ship_acknowledged_bytes_total", "cursor" => cursor.to_owned()).increment(bytes);
        gauge!("siltstone_ship_lag_seqnos", "cursor" => cursor.to_owned()).set(lag_seqnos as f64);
    }

    pub(crate) fn retried(cursor: &str) {
        counter!("siltstone_ship_retries_total", "cursor" => cursor.to_owned()).increment(1);
    }

    pub(crate) fn restored(changes: u64, bytes: u64) {
        counter!("siltstone_restore_changes_total").increment(changes);
        counter!("siltstone_restore_bytes_total").increment(bytes);
    }

    pub(crate) fn standby_lag(seqnos: u64) {
        gauge!("siltstone_standby_lag_seqnos").set(seqnos as f64);
    }
}

#[cfg(not(feature = "metrics"))]
mod told {
    pub(crate) fn sent(_cursor: &str, _batches: u64, _bytes: u64) {}

    pub(crate) fn acknowledged(_cursor: &str, _batches: u64, _bytes: u64, _lag_seqnos: u64) {}

    pub(crate) fn retried(_cursor: &str) {}

    pub(crate) fn restored(_changes: u64, _bytes: u64) {}

    pub(crate) fn standby_lag(_seqnos: u64) {}
}

pub(crate) use told::*;
