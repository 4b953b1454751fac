//! Record ids in their one canonical form: 18 characters.
//!
//! Salesforce prints an id as 15 characters in which case matters, or as the
//! same with three more, so that programs which fold case keep ids apart
//! (`reference/salesforce.md` section 2, checked against recorded records).

const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// The id with 18 characters; nothing if the text is no id.
pub fn normalise(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    if !matches!(bytes.len(), 15 | 18) || !bytes.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let mut id = text[..15].to_owned();
    for group in bytes[..15].chunks(5) {
        // One letter says which of five characters are capitals.
        let capitals = group.iter().enumerate().fold(0, |bits, (at, byte)| {
            bits | usize::from(byte.is_ascii_uppercase()) << at
        });
        id.push(char::from(LETTERS[capitals]));
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_three_follow_from_the_first_fifteen() {
        // Ids of recorded answers (nango, airbyte, grouparoo).
        for id in [
            "001dM00003kS5tZQAS",
            "0014W000027f6UwQAI",
            "0034S000005YJVlQAO",
            "00Q4S000002sSacUAE",
            "750R0000000zlh9IAA",
            "012000000000000AAA",
        ] {
            assert_eq!(normalise(&id[..15]).as_deref(), Some(id));
            assert_eq!(normalise(id).as_deref(), Some(id));
            let folded = format!("{}{}", &id[..15], id[15..].to_lowercase());
            assert_eq!(normalise(&folded).as_deref(), Some(id));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "001",
            "001dM00003kS5t'",
            "001dM00003kS5tZQASx",
            "00é0000000000",
        ] {
            assert_eq!(normalise(text), None, "{text}");
        }
    }
}
