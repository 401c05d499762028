//! The suites: which sessions `peers` runs.
//!
//! A suite is a list of chains; a chain is a list of steps on one store. Each chain runs for each length of values and
//! each compression of the suite, as a session of its own.

use crate::engines::EngineKind;
use crate::error::{Error, Result};
use crate::run::Session;
use crate::settings::{Compression, Settings};
use crate::step::Step;

/// A named list of chains.
#[derive(Debug)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it compares.
    pub about: &'static str,
    chains: &'static [Chain],
    value_bytes: &'static [usize],
    compressions: &'static [Compression],
    /// What is different from the settings that were given.
    adapt: fn(&mut Settings),
}

/// Steps that are done one after the other on one store.
#[derive(Debug)]
struct Chain {
    name: &'static str,
    /// As on the command line of `run`.
    steps: &'static str,
}

/// What to make sessions of.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// In this order; sessions of an engine that cannot compress are left out in profiles with compression.
    pub engines: &'a [EngineKind],
    /// What the suites adapt.
    pub settings: &'a Settings,
    /// Which of a suite's lengths of values; all if empty.
    pub value_bytes: &'a [usize],
    /// Which of a suite's compressions; all if empty.
    pub compressions: &'a [Compression],
}

/// Both lengths of values that are compared, in bytes.
const VALUES: &[usize] = &[100, 1024];

/// Without compression all engines compare; with it those that have it.
const PROFILES: &[Compression] = &[Compression::None, Compression::Lz4Bottom];

/// A store filled by 100 B values has as many keys as were asked for; others as many bytes.
const REFERENCE_VALUE_BYTES: usize = 100;

/// How many times the keys a store has that is larger than memory.
const LARGE_FACTOR: u64 = 10;

/// The memory limit of such a store is its data divided by this.
const DATA_PER_MEMORY: u64 = 4;

/// Less memory leaves an engine no room to work, whatever its data take.
const MIN_LIMIT_MIB: u64 = 64;

/// What a session remembers of each key to check the answers, in bytes: it comes on top of the limit.
const LEDGER_BYTES: u64 = 4;

/// Enough memory that 64 MiB of log are in one memtable, with all that memtables add.
const CRASH_MEMORY_MIB: usize = 2048;

/// All suites, in the order they run.
pub static SUITES: &[Suite] = &[
    Suite {
        name: "fill",
        about: "Puts into an empty store: in order, at random, by 1 and 2 threads, in batches of 100; each checked by scans",
        chains: &[
            Chain { name: "fillseq", steps: "fillseq,scan,scanreverse" },
            Chain { name: "fillrandom", steps: "fillrandom,scan" },
            Chain { name: "fillrandom-2-threads", steps: "fillrandom:threads=2,scan" },
            Chain { name: "fillbatch", steps: "fillbatch,scan" },
        ],
        value_bytes: VALUES,
        compressions: PROFILES,
        adapt: |_| {},
    },
    Suite {
        name: "read",
        about: "Gets, seeks and scans after a random fill, by 1 and 2 threads",
        chains: &[Chain {
            name: "read",
            steps: "fillrandom,readrandom,readrandom:threads=2,readzipf,readzipf:threads=2,readmissing,readmissing:threads=2,\
                    seekrandom:entries=10,seekreverse:entries=10,seekrandom:entries=100,seekreverse:entries=100,scan,scanreverse",
        }],
        value_bytes: VALUES,
        compressions: PROFILES,
        adapt: |_| {},
    },
    Suite {
        name: "update",
        about: "Overwrites to a steady state, reads right after them, deletes of half of the keys; the space of both",
        chains: &[Chain {
            name: "update",
            steps: "fillrandom,overwrite,readrandom,scan,overwrite,readuncompacted,readrandom,flush,\
                    deleterandom,readrandom,scan,flush",
        }],
        value_bytes: VALUES,
        compressions: PROFILES,
        adapt: |_| {},
    },
    Suite {
        name: "mixed",
        about: "Gets beside a writer at full rate, and the production model of Cao et al. (FAST '20)",
        chains: &[
            Chain { name: "readwhilewriting", steps: "fillrandom,readwhilewriting,scan" },
            Chain { name: "mixgraph", steps: "fillrandom,mixgraph,scan" },
        ],
        value_bytes: VALUES,
        compressions: PROFILES,
        adapt: |_| {},
    },
    Suite {
        name: "ycsb",
        about: "YCSB A to F, in the order that YCSB recommends, by 1 and 2 threads",
        chains: &[
            Chain { name: "ycsb", steps: "fillrandom,ycsba,ycsbb,ycsbc,ycsbf,ycsbd,fillrandom,ycsbe" },
            Chain {
                name: "ycsb-2-threads",
                steps: "fillrandom,ycsba:threads=2,ycsbb:threads=2,ycsbc:threads=2,ycsbf:threads=2,ycsbd:threads=2,\
                        fillrandom,ycsbe:threads=2",
            },
        ],
        value_bytes: VALUES,
        compressions: PROFILES,
        adapt: |_| {},
    },
    Suite {
        name: "sync",
        about: "Puts that survive power loss, by 1, 2, 8 and 16 threads",
        chains: &[Chain {
            name: "fillsync",
            steps: "fillsync,fillsync:threads=2,fillsync:threads=8,fillsync:threads=16",
        }],
        value_bytes: VALUES,
        compressions: &[Compression::None],
        adapt: |_| {},
    },
    Suite {
        name: "load",
        about: "A sorted bulk load, by the fastest way that each engine documents",
        chains: &[Chain { name: "bulkload", steps: "bulkload,readrandom,scan" }],
        value_bytes: VALUES,
        compressions: PROFILES,
        adapt: |_| {},
    },
    Suite {
        name: "crash",
        about: "Opening what a killed process left with 64 MiB in its log, until the first get is answered",
        chains: &[Chain { name: "openafterkill", steps: "openafterkill" }],
        value_bytes: VALUES,
        compressions: &[Compression::None],
        adapt: |settings| settings.memory_mib = settings.memory_mib.max(CRASH_MEMORY_MIB),
    },
    Suite {
        name: "large",
        about: "Ten times the keys under a memory limit of a quarter of the data, the system's file cache included",
        chains: &[Chain {
            name: "large",
            steps: "fillrandom,readrandom,readzipf,readmissing,seekrandom:entries=10,scan,overwrite,readrandom",
        }],
        value_bytes: VALUES,
        compressions: PROFILES,
        adapt: limit_memory,
    },
];

/// More data, and less memory than it takes: half of what the limit leaves is the engine's budget.
fn limit_memory(settings: &mut Settings) {
    settings.keys = settings.keys.saturating_mul(LARGE_FACTOR);
    let data_bytes = settings.keys.saturating_mul((settings.key_bytes + settings.value_bytes) as u64);
    let memory_mib = ((data_bytes / DATA_PER_MEMORY) >> 20).max(MIN_LIMIT_MIB);
    settings.memory_mib = settings.memory_mib.min(usize::try_from(memory_mib / 2).unwrap_or(usize::MAX));
    let ledger_mib = settings.keys.saturating_mul(LEDGER_BYTES) >> 20;
    settings.memory_limit_mib = Some(memory_mib.saturating_add(ledger_mib));
    settings.scan_passes = 1;
    settings.overwrite_passes = 1;
}

/// The suite of this name.
///
/// # Errors
/// A text that lists what there is.
pub fn find(name: &str) -> std::result::Result<&'static Suite, String> {
    SUITES.iter().find(|suite| suite.name == name).ok_or_else(|| {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        format!("there is no suite {name:?}; there are {}", names.join(", "))
    })
}

impl Suite {
    /// Its sessions.
    ///
    /// # Errors
    /// [`Error::Settings`] if no session is left, and as [`Session::check`].
    pub fn sessions(&self, selection: &Selection<'_>) -> Result<Vec<Session>> {
        let chosen = |all: &[usize], some: &[usize]| -> Vec<usize> {
            all.iter().copied().filter(|length| some.is_empty() || some.contains(length)).collect()
        };
        let mut sessions = Vec::new();
        for value_bytes in chosen(self.value_bytes, selection.value_bytes) {
            for &compression in self.compressions {
                if selection.compressions.is_empty() || selection.compressions.contains(&compression) {
                    for chain in self.chains {
                        sessions.extend(self.session(chain, selection, value_bytes, compression)?);
                    }
                }
            }
        }
        sessions.iter().try_for_each(Session::check)?;
        Ok(sessions)
    }

    /// One session; `None` if no engine is left.
    fn session(
        &self,
        chain: &Chain,
        selection: &Selection<'_>,
        value_bytes: usize,
        compression: Compression,
    ) -> Result<Option<Session>> {
        let compressed = compression != Compression::None;
        let engines = selection.engines.iter().copied().filter(|engine| !compressed || engine.compresses());
        let engines: Vec<_> = engines.collect();
        if engines.is_empty() {
            return Ok(None);
        }
        let given = selection.settings;
        let mut settings = Settings { value_bytes, compression, ..given.clone() };
        settings.keys = keys_of_as_many_bytes(given, value_bytes);
        (self.adapt)(&mut settings);
        let steps: std::result::Result<Vec<Step>, _> = chain.steps.split(',').map(str::parse).collect();
        let name = format!("{}, {value_bytes} B, {}", chain.name, profile(compression));
        let steps = steps.map_err(Error::Settings)?;
        Ok(Some(Session { suite: self.name.to_owned(), name, steps, settings, engines }))
    }
}

/// As many keys as give the same number of bytes as the given ones with 100 B values.
fn keys_of_as_many_bytes(given: &Settings, value_bytes: usize) -> u64 {
    let entry_bytes = |value_bytes: usize| (given.key_bytes + value_bytes).max(1) as u128;
    let bytes = u128::from(given.keys) * entry_bytes(REFERENCE_VALUE_BYTES);
    u64::try_from(bytes / entry_bytes(value_bytes)).unwrap_or(u64::MAX).max(1)
}

fn profile(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "uncompressed",
        Compression::Lz4Bottom => "lz4 at the bottom",
        Compression::Lz4 => "lz4",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection<'a>(engines: &'a [EngineKind], settings: &'a Settings) -> Selection<'a> {
        Selection { engines, settings, value_bytes: &[], compressions: &[] }
    }

    #[test]
    fn all_suites_can_run() {
        let settings = Settings { keys: 1000, ..Settings::default() };
        let engines = [EngineKind::Siltstone, EngineKind::Floor];
        let mut names = std::collections::BTreeSet::new();
        for suite in SUITES {
            let sessions = suite.sessions(&selection(&engines, &settings)).unwrap();
            assert!(!sessions.is_empty());
            for session in sessions {
                assert!(names.insert((session.suite, session.name)), "names are unique");
            }
            assert!(std::ptr::eq(find(suite.name).unwrap(), suite));
        }
        assert!(find("fil").unwrap_err().contains("fill, read, update"));
    }

    #[test]
    fn engines_that_cannot_compress_are_left_out_where_others_do() {
        let settings = Settings::default();
        let engines = [EngineKind::Siltstone, EngineKind::Floor];
        let sessions = find("load").unwrap().sessions(&selection(&engines, &settings)).unwrap();
        let engines_of = |compression| {
            let session = sessions.iter().find(|session| session.settings.compression == compression);
            session.unwrap().engines.clone()
        };
        assert_eq!(engines_of(Compression::None), engines);
        assert_eq!(engines_of(Compression::Lz4Bottom), [EngineKind::Siltstone]);
        let sessions = find("load").unwrap().sessions(&selection(&[EngineKind::Floor], &settings)).unwrap();
        assert!(sessions.iter().all(|session| session.settings.compression == Compression::None));
    }

    #[test]
    fn longer_values_make_fewer_keys() {
        let settings = Settings::default();
        let only = Selection { value_bytes: &[1024], ..selection(&[EngineKind::Floor], &settings) };
        let sessions = find("fill").unwrap().sessions(&only).unwrap();
        assert!(
            sessions.iter().all(|session| session.settings.keys == 223_076 && session.settings.value_bytes == 1024)
        );
    }

    #[test]
    fn large_data_are_larger_than_their_memory() {
        let settings = Settings::default();
        let sessions = find("large").unwrap().sessions(&selection(&[EngineKind::Siltstone], &settings)).unwrap();
        let Settings { keys, memory_mib, memory_limit_mib, .. } = sessions[0].settings;
        assert_eq!((keys, memory_limit_mib, memory_mib), (20_000_000, Some(553 + 76), 276));
    }
}
