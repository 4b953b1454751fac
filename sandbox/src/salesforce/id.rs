//! Record ids: fifteen case-sensitive characters, printed as eighteen.

use std::fmt;

/// A record id, kept as its fifteen significant characters and ordered by
/// them as bytes, as the API orders ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 15]);

/// The digits of an id in the order they count.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The alphabet of the three checksum characters.
const CHECKSUM: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
/// The two characters that name the instance (and a reserved `0`) after the
/// key prefix.
const INSTANCE: &[u8; 3] = b"Dv0";

impl Id {
    /// The smallest id, for ranges.
    pub const MIN: Id = Id([0; 15]);
    /// Above every id, for ranges.
    pub const MAX: Id = Id([0xff; 15]);

    /// Reads an id of fifteen or eighteen characters. The checksum is not
    /// verified: recorded ids with blanked parts are taken as they stand.
    pub fn parse(text: &str) -> Option<Id> {
        let bytes = text.as_bytes();
        if bytes.len() != 15 && bytes.len() != 18 {
            return None;
        }
        if !bytes.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        let mut id = [0; 15];
        id.copy_from_slice(&bytes[..15]);
        Some(Id(id))
    }

    /// The id with this number among those of one key prefix.
    pub fn numbered(prefix: &str, number: u64) -> Id {
        let mut id = [b'0'; 15];
        for (at, byte) in prefix.bytes().take(3).enumerate() {
            id[at] = byte;
        }
        id[3..6].copy_from_slice(INSTANCE);
        let mut rest = number;
        for at in (6..15).rev() {
            id[at] = DIGITS[(rest % 62) as usize];
            rest /= 62;
        }
        Id(id)
    }

    /// The first three characters, which name the object.
    pub fn prefix(&self) -> &str {
        std::str::from_utf8(&self.0[..3]).unwrap_or("")
    }

    /// All eighteen characters.
    pub fn chars18(&self) -> [u8; 18] {
        let mut text = [0; 18];
        text[..15].copy_from_slice(&self.0);
        for group in 0..3 {
            let mut bits = 0;
            for at in 0..5 {
                if self.0[group * 5 + at].is_ascii_uppercase() {
                    bits |= 1 << at;
                }
            }
            text[15 + group] = CHECKSUM[bits];
        }
        text
    }

    /// Appends the eighteen characters.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chars18());
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.chars18()).unwrap_or(""))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_documented_ones() {
        // Ids as the real API printed them.
        for id in [
            "001dM00003jU9GxQAK",
            "005dM00000awSFJQA2",
            "003dM00001vWOXJQA4",
            "00edM00000Qj7rBQAR",
        ] {
            assert_eq!(Id::parse(&id[..15]).unwrap().to_string(), id);
            assert_eq!(Id::parse(id).unwrap().to_string(), id);
        }
    }

    #[test]
    fn numbers_keep_their_order() {
        let ids: Vec<Id> = [0, 1, 9, 10, 35, 36, 61, 62, 3843, 3844, 1_000_000]
            .iter()
            .map(|n| Id::numbered("001", *n))
            .collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(ids[0].to_string(), "001Dv0000000000IAA");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "001",
            "001dM00003jU9G!",
            "001dM00003jU9GxQA",
            "ä01dM00003jU9G",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
