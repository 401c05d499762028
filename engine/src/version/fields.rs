//! Tagged, length-delimited fields: the encoding of everything in the manifest.
//!
//! `tag: varint | length: varint | content`. Fields come in any order. The lowest bit of a tag says whether a reader
//! that does not know it may pass over it; every other unknown tag means that a newer release wrote something that
//! matters.

use crate::varint::{read_varint, write_bytes, write_varint};

/// The bit of a tag that lets a reader who does not know it pass over the field.
pub(super) const IGNORABLE: u64 = 1;

/// The tag of field `number` that every reader has to know.
pub(super) const fn required(number: u64) -> u64 {
    number << 1
}

/// Appends a field that holds one number.
pub(super) fn write_number(out: &mut Vec<u8>, tag: u64, value: u64) {
    let mut content = Vec::with_capacity(10);
    write_varint(&mut content, value);
    write_field(out, tag, &content);
}

/// Appends a field.
pub(super) fn write_field(out: &mut Vec<u8>, tag: u64, content: &[u8]) {
    write_varint(out, tag);
    write_bytes(out, content);
}

/// Calls `visit` with the tag and content of every field of `input`; `visit` answers whether it knows the tag.
///
/// # Errors
/// The reason: a field that is cut off, an unknown tag that is not ignorable, or what `visit` found.
pub(super) fn read_fields<'a>(
    mut input: &'a [u8],
    mut visit: impl FnMut(u64, &'a [u8]) -> Result<bool, String>,
) -> Result<(), String> {
    while !input.is_empty() {
        let tag = read_varint(&mut input).ok_or("a field tag is cut off")?;
        let content = crate::varint::read_bytes(&mut input).ok_or_else(|| format!("field {tag} is cut off"))?;
        if !visit(tag, content)? && tag & IGNORABLE == 0 {
            return Err(format!("unknown field {tag}: written by a newer release?"));
        }
    }
    Ok(())
}

/// The number that is the whole content of a field.
pub(super) fn number(mut content: &[u8]) -> Result<u64, String> {
    let value = read_varint(&mut content).ok_or("a number is cut off")?;
    if content.is_empty() { Ok(value) } else { Err("bytes follow a number".into()) }
}

/// Like [`number`], for one that has to fit 32 bits.
pub(super) fn number_u32(content: &[u8]) -> Result<u32, String> {
    let value = number(content)?;
    u32::try_from(value).map_err(|_| format!("{value} does not fit 32 bits"))
}

/// Exactly `N` numbers, one after the other, that are the whole content of a field.
pub(super) fn numbers<const N: usize>(mut content: &[u8]) -> Result<[u64; N], String> {
    let mut values = [0; N];
    for value in &mut values {
        *value = read_varint(&mut content).ok_or("a number is cut off")?;
    }
    if content.is_empty() { Ok(values) } else { Err("bytes follow the numbers".into()) }
}

/// Fills a field that may occur once.
pub(super) fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<bool, String> {
    match slot.replace(value) {
        None => Ok(true),
        Some(_) => Err("a field occurs twice".into()),
    }
}

/// The value of a field that has to occur.
pub(super) fn present<T>(slot: Option<T>, name: &str) -> Result<T, String> {
    slot.ok_or_else(|| format!("{name} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_passed_over_only_if_they_say_so() {
        let mut out = Vec::new();
        write_number(&mut out, required(3), 7);
        write_field(&mut out, required(9) | IGNORABLE, b"later");
        let mut seen = None;
        let known = |tag, content| if tag == required(3) { set_once(&mut seen, number(content)?) } else { Ok(false) };
        assert_eq!(read_fields(&out, known), Ok(()));
        assert_eq!(seen, Some(7));

        write_field(&mut out, required(9), b"later");
        let reason = read_fields(&out, |tag, _| Ok(tag == required(3))).unwrap_err();
        assert!(reason.contains("newer release"), "{reason}");
    }

    #[test]
    fn numbers_must_fill_their_field() {
        assert_eq!(numbers::<2>(&[1, 2]), Ok([1, 2]));
        assert!(numbers::<2>(&[1]).is_err());
        assert!(numbers::<2>(&[1, 2, 3]).is_err());
        assert!(number(&[1, 2]).is_err());
        assert!(number_u32(&[0xff, 0xff, 0xff, 0xff, 0x1f]).is_err());
        let mut slot = None;
        assert!(set_once(&mut slot, 1).is_ok() && set_once(&mut slot, 1).is_err());
    }
}
