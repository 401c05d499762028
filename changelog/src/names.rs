//! Keyspaces' names as parts of other names.

/// `name` in letters, digits, hyphens and underscores: every other byte, and the underscore itself, is an underscore and
/// two hexadecimal digits. Different names stay different.
pub(crate) fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(byte.into()),
            _ => out.push_str(&format!("_{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(escaped("words-1"), "words-1");
        assert_eq!(escaped("größe.1_x"), "gr_c3_b6_c3_9fe_2e1_5fx");
        assert_ne!(escaped("_2e"), escaped("."));
    }
}
