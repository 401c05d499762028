//! A list of operations as the text of a Rust test.

use std::fmt::Write as _;
use std::ops::Bound;

use siltstone::Durability;

use crate::options::Config;
use crate::state::short;
use crate::steps::{Bounds, NumberedWrite, Step};

/// A test of the integration tests of this crate that runs `steps` under `config`.
pub fn test(name: &str, config: &Config, steps: &[Step]) -> String {
    let mut text = format!(
        "#[test]\n#[rustfmt::skip]\nfn {name}() {{\n    use siltstone_tests::steps::Step;\n    \
         siltstone_tests::metamorphic::replay(&siltstone_tests::{}, &[\n",
        config.source
    );
    for step in steps {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "        {},", self::step(step));
    }
    text + "    ]);\n}\n"
}

/// Bytes as an expression of type `Vec<u8>`.
fn bytes(bytes: &[u8]) -> String {
    match bytes {
        [] => "vec![]".to_owned(),
        [first, rest @ ..] if bytes.len() > 8 && rest.iter().all(|byte| byte == first) => {
            format!("vec![{first}; {}]", bytes.len())
        }
        _ => format!("b\"{}\".to_vec()", bytes.escape_ascii()),
    }
}

fn list<T>(items: &[T], item: impl Fn(&T) -> String) -> String {
    format!("vec![{}]", items.iter().map(item).collect::<Vec<_>>().join(", "))
}

fn option<T>(option: Option<&T>, some: impl Fn(&T) -> String) -> String {
    option.map_or("None".to_owned(), |value| format!("Some({})", some(value)))
}

fn maybe_bytes(value: Option<&Vec<u8>>) -> String {
    option(value, |value| bytes(value))
}

fn durability(durability: &Durability) -> String {
    format!("siltstone::Durability::{durability:?}")
}

fn bounds((from, to): &Bounds) -> String {
    let bound = |bound: &Bound<Vec<u8>>| match bound {
        Bound::Included(key) => format!("std::ops::Bound::Included({})", bytes(key)),
        Bound::Excluded(key) => format!("std::ops::Bound::Excluded({})", bytes(key)),
        Bound::Unbounded => "std::ops::Bound::Unbounded".to_owned(),
    };
    format!("({}, {})", bound(from), bound(to))
}

/// One operation as an expression.
pub fn step(step: &Step) -> String {
    let writes = |writes: &Vec<NumberedWrite>| {
        list(writes, |(n, key, value)| format!("({n}, {}, {})", bytes(key), maybe_bytes(value.as_ref())))
    };
    let pairs = |pairs: &Vec<(usize, Vec<u8>)>| list(pairs, |(name, value)| format!("({name}, {})", bytes(value)));
    let keys = |keys: &Vec<Vec<u8>>| list(keys, |key| bytes(key));
    let fields = match step {
        Step::Put { keyspace, key, value } => {
            format!("keyspace: {keyspace}, key: {}, value: {}", bytes(key), bytes(value))
        }
        Step::Delete { keyspace, key } | Step::Get { keyspace, key } => {
            format!("keyspace: {keyspace}, key: {}", bytes(key))
        }
        Step::Write { batch, metadata, durability: promised } => {
            let metadata = list(metadata, |(name, value)| format!("({name}, {})", maybe_bytes(value.as_ref())));
            let promised = option(promised.as_ref(), durability);
            format!("batch: {}, metadata: {metadata}, durability: {promised}", writes(batch))
        }
        Step::PutAll { keyspace, entries } => {
            let entries = list(entries, |(key, value)| format!("({}, {})", bytes(key), bytes(value)));
            format!("keyspace: {keyspace}, entries: {entries}")
        }
        Step::Ingest { keyspace, entries, unfollowed } => {
            let entries = list(entries, |(key, value)| format!("({}, {})", bytes(key), bytes(value)));
            format!("keyspace: {keyspace}, entries: {entries}, unfollowed: {unfollowed}")
        }
        Step::DeleteAll { keyspace, keys: all } | Step::GetMany { keyspace, keys: all } => {
            format!("keyspace: {keyspace}, keys: {}", keys(all))
        }
        Step::Apply { at, writes: all, metadata } => {
            format!("at: {at}, writes: {}, metadata: {}", writes(all), pairs(metadata))
        }
        Step::ApplyDrop { at, keyspace, writes: all, metadata } => {
            format!("at: {at}, keyspace: {keyspace}, writes: {}, metadata: {}", writes(all), pairs(metadata))
        }
        Step::Range { keyspace, bounds: within, ends } => {
            format!("keyspace: {keyspace}, bounds: {}, ends: {ends:#x}", bounds(within))
        }
        Step::Prefix { keyspace, prefix, ends } => {
            format!("keyspace: {keyspace}, prefix: {}, ends: {ends:#x}", bytes(prefix))
        }
        Step::Iterate { keyspace, ends } => format!("keyspace: {keyspace}, ends: {ends:#x}"),
        Step::ReadSnapshot { which, keyspace, then, bounds: within, ends } => {
            let within = bounds(within);
            format!("which: {which}, keyspace: {keyspace}, then: {then}, bounds: {within}, ends: {ends:#x}")
        }
        Step::ReadSnapshotPrefix { which, keyspace, then, prefix, ends } => {
            let prefix = bytes(prefix);
            format!("which: {which}, keyspace: {keyspace}, then: {then}, prefix: {prefix}, ends: {ends:#x}")
        }
        Step::GetSnapshot { which, keyspace, then, keys: all } => {
            format!("which: {which}, keyspace: {keyspace}, then: {then}, keys: {}", keys(all))
        }
        Step::OpenIter { keyspace, bounds: within } => format!("keyspace: {keyspace}, bounds: {}", bounds(within)),
        Step::SetCursor { name, at, metadata } => format!("name: {name}, at: {at}, metadata: {}", pairs(metadata)),
        // Numbers and flags print as they are written.
        _ => return format!("Step::{step:?}"),
    };
    format!("Step::{} {{ {fields} }}", variant(step))
}

/// The name of an operation's variant.
pub fn variant(step: &Step) -> String {
    let text = format!("{step:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

/// An operation for messages: cut to what can be read.
pub fn brief(step: &Step) -> String {
    let text = self::step(step);
    if text.len() <= 200 { text } else { short(text.as_bytes()).replace("\\\"", "'") }
}
