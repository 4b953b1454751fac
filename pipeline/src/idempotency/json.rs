//! An entry's JSON, read and written without a tree.
//!
//! A start reads every entry of the target, so that is where its time goes:
//! serde's flattened `unknown` buffers each value first. What is not in the very
//! form that we write goes the general way, through serde.

use super::{Entry, FirstTouch, State};
use crate::record::{AbsentReason, Fingerprint, Order};

impl Entry {
    /// Reads the value in the topic. Fails on what is no entry.
    pub fn from_json(json: &[u8]) -> serde_json::Result<Self> {
        match (Scan { rest: json }).entry() {
            Some(entry) => Ok(entry),
            None => serde_json::from_slice(json),
        }
    }

    /// Appends the value for the topic.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let state: &[u8] = match &self.state {
            State::Applied => b"\"applied\"",
            State::Deleted { reason } => match reason {
                AbsentReason::Deleted => b"{\"deleted\":{\"reason\":\"deleted\"}}",
                AbsentReason::Filtered => b"{\"deleted\":{\"reason\":\"filtered\"}}",
                AbsentReason::SlotEmpty => b"{\"deleted\":{\"reason\":\"slot-empty\"}}",
            },
            State::Pending { .. } => return self.write_any(out),
        };
        let id = self.target_id.as_deref();
        if !self.unknown.is_empty() || !id.unwrap_or_default().bytes().all(is_plain) {
            return self.write_any(out);
        }
        out.extend_from_slice(b"{\"order\":{\"version\":");
        put_number(out, self.order.version);
        out.extend_from_slice(b",\"mapping\":");
        put_number(out, self.order.mapping.into());
        out.extend_from_slice(b",\"incarnation\":");
        put_number(out, self.order.incarnation.into());
        out.extend_from_slice(b",\"offset\":");
        put_number(out, self.order.offset);
        out.extend_from_slice(b",\"reapply\":");
        put_number(out, self.order.reapply.into());
        out.extend_from_slice(b"},\"fingerprint\":\"");
        for byte in self.fingerprint.0 {
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
        out.extend_from_slice(b"\",\"state\":");
        out.extend_from_slice(state);
        if let Some(id) = id {
            out.extend_from_slice(b",\"targetId\":\"");
            out.extend_from_slice(id.as_bytes());
            out.push(b'"');
        }
        match self.first_touch {
            None => {}
            Some(FirstTouch::Created) => out.extend_from_slice(b",\"firstTouch\":\"created\""),
            Some(FirstTouch::Updated) => out.extend_from_slice(b",\"firstTouch\":\"updated\""),
        }
        out.push(b'}');
    }

    fn write_any(&self, out: &mut Vec<u8>) {
        // No entry has a key that is no text, and a `Vec` takes everything.
        let _ = serde_json::to_writer(out, self);
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether a byte stands in a JSON text as it is.
fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

fn put_number(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Reads what [`Entry::write_json`] writes; `None` on anything else, be it
/// valid or not.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    fn entry(mut self) -> Option<Entry> {
        self.word(b"{\"order\":{\"version\":")?;
        let version = self.number()?;
        self.word(b",\"mapping\":")?;
        let mapping = self.number()?.try_into().ok()?;
        self.word(b",\"incarnation\":")?;
        let incarnation = self.number()?.try_into().ok()?;
        self.word(b",\"offset\":")?;
        let offset = self.number()?;
        self.word(b",\"reapply\":")?;
        let reapply = self.number()?.try_into().ok()?;
        self.word(b"},\"fingerprint\":\"")?;
        let fingerprint = self.fingerprint()?;
        self.word(b"\",\"state\":")?;
        let state = self.state()?;
        let mut entry = Entry {
            order: Order {
                version,
                mapping,
                incarnation,
                offset,
                reapply,
            },
            fingerprint,
            state,
            target_id: None,
            first_touch: None,
            unknown: serde_json::Map::new(),
        };
        if self.word(b",\"targetId\":\"").is_some() {
            let end = self.rest.iter().position(|byte| !is_plain(*byte))?;
            let id = std::str::from_utf8(&self.rest[..end]).ok()?;
            entry.target_id = Some(id.to_owned());
            self.rest = &self.rest[end..];
            self.word(b"\"")?;
        }
        if self.word(b",\"firstTouch\":\"created\"").is_some() {
            entry.first_touch = Some(FirstTouch::Created);
        } else if self.word(b",\"firstTouch\":\"updated\"").is_some() {
            entry.first_touch = Some(FirstTouch::Updated);
        }
        (self.rest == b"}").then_some(entry)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// A whole number as we write it; what may not fit 64 bits is left to serde.
    fn number(&mut self) -> Option<i64> {
        let negative = self.word(b"-").is_some();
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let zero = self.rest.first() == Some(&b'0');
        if digits == 0 || digits > 18 || (zero && (digits > 1 || negative)) {
            return None;
        }
        let value = self.rest[..digits]
            .iter()
            .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        self.rest = &self.rest[digits..];
        Some(if negative { -value } else { value })
    }

    fn fingerprint(&mut self) -> Option<Fingerprint> {
        let (text, rest) = self.rest.split_at_checked(32)?;
        let mut print = Fingerprint::default();
        for (byte, pair) in print.0.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        self.rest = rest;
        Some(print)
    }

    fn state(&mut self) -> Option<State> {
        if self.word(b"\"applied\"").is_some() {
            return Some(State::Applied);
        }
        self.word(b"{\"deleted\":{\"reason\":\"")?;
        let reason = if self.word(b"deleted").is_some() {
            AbsentReason::Deleted
        } else if self.word(b"filtered").is_some() {
            AbsentReason::Filtered
        } else {
            self.word(b"slot-empty")?;
            AbsentReason::SlotEmpty
        };
        self.word(b"\"}}")?;
        Some(State::Deleted { reason })
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let order = (any::<i64>(), any::<u32>(), 0u32..9, any::<i64>(), 0u32..9);
        let id = prop::option::of(prop_oneof!["[a-z0-9]{0,20}", any::<String>()]);
        (order, any::<[u8; 16]>(), id, 0u8..5, 0u8..3, any::<bool>()).prop_map(
            |(
                (version, mapping, incarnation, offset, reapply),
                print,
                target_id,
                state,
                touch,
                odd,
            )| {
                let mut entry = Entry {
                    order: Order {
                        version,
                        mapping,
                        incarnation,
                        offset,
                        reapply,
                    },
                    fingerprint: Fingerprint(print),
                    state: State::Applied,
                    target_id,
                    first_touch: [None, Some(FirstTouch::Created), Some(FirstTouch::Updated)]
                        [usize::from(touch)],
                    unknown: serde_json::Map::new(),
                };
                let deleted = |reason| State::Deleted { reason };
                entry.state = match state {
                    0 => State::Applied,
                    1 => deleted(AbsentReason::Deleted),
                    2 => deleted(AbsentReason::Filtered),
                    3 => deleted(AbsentReason::SlotEmpty),
                    _ => State::Pending {
                        owner: "me".into(),
                        since: offset,
                        before: Some(Box::new(entry.clone())),
                    },
                };
                if odd {
                    entry
                        .unknown
                        .insert("later".into(), serde_json::json!({"a": 1}));
                }
                entry
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_what_serde_reads_and_writes(entry in any_entry()) {
            let mut ours = Vec::new();
            entry.write_json(&mut ours);
            let serdes = serde_json::to_vec(&entry).expect("serialises");
            prop_assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&serdes));
            prop_assert_eq!(Entry::from_json(&ours).expect("reads"), entry.clone());
            if let Some(scanned) = (Scan { rest: &ours }).entry() {
                prop_assert_eq!(scanned, entry);
            }
        }

        /// Whatever one byte of it becomes, both ways say the same.
        #[test]
        fn an_altered_value_is_read_as_serde_reads_it(entry in any_entry(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut json = Vec::new();
            entry.write_json(&mut json);
            let at = at.index(json.len());
            json[at] = byte;
            let ours = Entry::from_json(&json).ok();
            prop_assert_eq!(ours, serde_json::from_slice::<Entry>(&json).ok());
        }
    }

    #[test]
    fn the_ordinary_entry_needs_no_tree() {
        let json = br#"{"order":{"version":1700000000000,"mapping":1,"incarnation":1,"offset":4,"reapply":0},"fingerprint":"0f00000000000000000000000000000a","state":"applied","targetId":"9","firstTouch":"created"}"#;
        let entry = (Scan { rest: json })
            .entry()
            .expect("the form that we write");
        assert_eq!(entry, serde_json::from_slice(json).expect("an entry"));
    }
}
