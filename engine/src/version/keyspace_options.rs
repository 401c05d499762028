//! How [`KeyspaceOptions`] are kept in the manifest.
//!
//! The fields of the first format have to be there, except for the two that may have no value. Options added later have
//! their default where they are absent, so that they do not touch what is written already.

use crate::options::{Compression, KeyspaceOptions, MemtableKind};

use super::fields::{number, number_u32, read_fields, required, set_once, write_number};

const BLOCK_BYTES: u64 = required(1);
const FILTER_BITS_PER_KEY: u64 = required(2);
const COMPRESSION: u64 = required(3);
const LEVEL0_TRIGGER: u64 = required(4);
const LEVEL_RATIO: u64 = required(5);
const DYNAMIC_LEVELS: u64 = required(6);
const BASE_LEVEL_BYTES: u64 = required(7);
const TARGET_TABLE_BYTES: u64 = required(8);
const MEMTABLE: u64 = required(9);

/// Appends the encoding of `options`: every field that has a value.
pub(super) fn encode(options: &KeyspaceOptions, out: &mut Vec<u8>) {
    write_number(out, BLOCK_BYTES, options.block_bytes.into());
    write_number(out, FILTER_BITS_PER_KEY, options.filter_bits_per_key.into());
    let compression = match options.compression {
        Compression::None => 0,
        Compression::Lz4Bottom => 1,
        Compression::Lz4 => 2,
    };
    write_number(out, COMPRESSION, compression);
    write_number(out, LEVEL0_TRIGGER, options.level0_trigger.into());
    write_number(out, LEVEL_RATIO, options.level_ratio.into());
    write_number(out, DYNAMIC_LEVELS, options.dynamic_levels.into());
    if let Some(bytes) = options.base_level_bytes {
        write_number(out, BASE_LEVEL_BYTES, bytes);
    }
    if let Some(bytes) = options.target_table_bytes {
        write_number(out, TARGET_TABLE_BYTES, bytes);
    }
    let memtable = match options.memtable {
        MemtableKind::SkipList => 0,
        MemtableKind::BTree => 1,
    };
    write_number(out, MEMTABLE, memtable);
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// The reason, also for a value that is out of the option's bounds.
pub(super) fn decode(input: &[u8]) -> Result<KeyspaceOptions, String> {
    let mut seen = [None::<()>; 9];
    let mut options = KeyspaceOptions::default();
    read_fields(input, |tag, content| {
        match tag {
            BLOCK_BYTES => options.block_bytes = number_u32(content)?,
            FILTER_BITS_PER_KEY => options.filter_bits_per_key = number_u32(content)?,
            COMPRESSION => options.compression = compression(number(content)?)?,
            LEVEL0_TRIGGER => options.level0_trigger = number_u32(content)?,
            LEVEL_RATIO => options.level_ratio = number_u32(content)?,
            DYNAMIC_LEVELS => options.dynamic_levels = flag(number(content)?)?,
            BASE_LEVEL_BYTES => options.base_level_bytes = Some(number(content)?),
            TARGET_TABLE_BYTES => options.target_table_bytes = Some(number(content)?),
            MEMTABLE => options.memtable = memtable(number(content)?)?,
            _ => return Ok(false),
        }
        set_once(&mut seen[(tag >> 1) as usize - 1], ())
    })?;
    let optional = |tag: u64| tag == BASE_LEVEL_BYTES || tag == TARGET_TABLE_BYTES;
    if let Some(at) = (0..seen.len()).find(|&at| seen[at].is_none() && !optional(required(at as u64 + 1))) {
        return Err(format!("keyspace option {} is missing", at + 1));
    }
    options.check().map_err(|error| error.to_string())?;
    Ok(options)
}

fn compression(n: u64) -> Result<Compression, String> {
    match n {
        0 => Ok(Compression::None),
        1 => Ok(Compression::Lz4Bottom),
        2 => Ok(Compression::Lz4),
        n => Err(format!("unknown compression {n}: written by a newer release?")),
    }
}

fn memtable(n: u64) -> Result<MemtableKind, String> {
    match n {
        0 => Ok(MemtableKind::SkipList),
        1 => Ok(MemtableKind::BTree),
        n => Err(format!("unknown memtable kind {n}: written by a newer release?")),
    }
}

fn flag(n: u64) -> Result<bool, String> {
    match n {
        0 | 1 => Ok(n == 1),
        n => Err(format!("a flag is {n}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::fields::write_field;

    fn encoded(options: &KeyspaceOptions) -> Vec<u8> {
        let mut out = Vec::new();
        encode(options, &mut out);
        out
    }

    #[test]
    fn every_option_round_trips() {
        let custom = KeyspaceOptions::new()
            .block_bytes(16 << 10)
            .filter_bits_per_key(0)
            .level0_trigger(7)
            .level_ratio(5)
            .dynamic_levels(false)
            .base_level_bytes(1 << 40)
            .target_table_bytes(1 << 20);
        for compression in [Compression::None, Compression::Lz4Bottom, Compression::Lz4] {
            let options = custom.clone().compression(compression);
            assert_eq!(decode(&encoded(&options)), Ok(options));
        }
        assert_eq!(decode(&encoded(&KeyspaceOptions::new())), Ok(KeyspaceOptions::new()));
        assert!(decode(&[]).is_err(), "the first format's fields have to be there");
    }

    #[test]
    fn what_cannot_be_an_option_is_refused() {
        for (tag, value) in [(BLOCK_BYTES, 0), (LEVEL_RATIO, 1), (COMPRESSION, 3), (MEMTABLE, 9), (DYNAMIC_LEVELS, 2)] {
            let mut out = Vec::new();
            write_number(&mut out, tag, value);
            let good = encoded(&KeyspaceOptions::new());
            read_fields(&good, |other, content| {
                if other != tag {
                    write_field(&mut out, other, content);
                }
                Ok(true)
            })
            .unwrap();
            assert!(decode(&out).is_err(), "field {tag} = {value}");
        }
        let mut twice = encoded(&KeyspaceOptions::new());
        write_number(&mut twice, LEVEL_RATIO, 10);
        assert!(decode(&twice).is_err());
        let mut later = encoded(&KeyspaceOptions::new());
        write_field(&mut later, required(10), b"");
        assert!(decode(&later).unwrap_err().contains("newer release"));
    }
}
