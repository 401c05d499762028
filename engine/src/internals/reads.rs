//! What one get touches, level by level.

use crate::error::Result;
use crate::key::Lookup;
use crate::keyspace::Keyspace;
use crate::version::LEVELS;

/// What a get touches in one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelTouched {
    /// Tables whose filter was asked.
    pub tables: u64,
    /// Blocks that were searched.
    pub blocks: u64,
}

/// What a get touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TracedGet {
    /// Whether the key has a value.
    pub found: bool,
    /// Level 0 first. A get that a memtable answers touches no level.
    pub levels: [LevelTouched; LEVELS],
}

/// Gets `key` as [`Keyspace::get`] does, and answers what that touched. Slower, and not counted in the metrics.
///
/// # Errors
/// As [`Keyspace::get`].
pub fn trace_get(keyspace: &Keyspace, key: &[u8]) -> Result<TracedGet> {
    let (view, seqno) = keyspace.latest()?;
    let lookup = Lookup::new(key, seqno);
    let mut traced = TracedGet::default();
    for memtable in view.memtables() {
        if let Some((trailer, _)) = memtable.get(&lookup) {
            return Ok(TracedGet { found: trailer.is_put(), ..traced });
        }
    }
    let level0 = view.version.find_in_level0(key).map(|handle| (0, handle));
    let deeper = (1..LEVELS).filter_map(|level| Some((level, view.version.find(level, key)?)));
    for (level, handle) in level0.chain(deeper) {
        let table = handle.table()?;
        traced.levels[level].tables += 1;
        if !table.may_contain(lookup.hash) {
            continue;
        }
        traced.levels[level].blocks += 1;
        if let Some(hit) = table.get(&lookup)? {
            return Ok(TracedGet { found: hit.trailer.is_put(), ..traced });
        }
    }
    Ok(traced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_get_touches_what_lies_above_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let db = Options::new().open(dir.path()).unwrap();
        let ks = db.keyspace("ks", Default::default()).unwrap();
        ks.put("a", "1").unwrap();
        ks.put("z", "1").unwrap();
        ks.compact().unwrap();
        ks.put("b", "2").unwrap();
        ks.put("c", "2").unwrap();
        ks.flush().unwrap();
        ks.delete("c").unwrap();
        let touched = |key: &str| {
            let traced = trace_get(&ks, key.as_bytes()).unwrap();
            (traced.found, traced.levels[0], traced.levels[LEVELS - 1])
        };
        let (none, table, block) = (LevelTouched::default(), LevelTouched { tables: 1, blocks: 0 }, 1);
        let searched = LevelTouched { blocks: block, ..table };
        assert_eq!(touched("a"), (true, none, searched));
        assert_eq!(touched("b"), (true, searched, none));
        assert_eq!(touched("c"), (false, none, none), "the memtable says so");
        assert_eq!(touched("~"), (false, none, none), "outside of all ranges");
        db.close().unwrap();
        assert!(trace_get(&ks, b"a").is_err());
    }
}
