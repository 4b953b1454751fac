//! The Avro envelope around every record in Kafka, and its bytes.
//!
//! A value is Avro single-object encoding: `C3 01`, the eight bytes of the
//! schema's CRC-64-AVRO fingerprint, the datum. It names its schema itself, so
//! that no registry has to run, and a newer schema is told from foreign bytes.

use std::sync::LazyLock;

use drover_schemas::avro::{Malformed, Reader, put_bytes, put_long, put_str};

use crate::bodies::Stored;
use crate::error::{Code, Error, Result};
use crate::record::{AbsentReason, Fingerprint, Millis, Op, Order, Phase, Raw, RawKey};

/// `body_schema` of a raw record.
pub const JSON: &str = "json";

/// A value of a raw, canonical, redo or parked topic. Text and body borrow
/// from the message.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    /// The migration's id.
    pub migration: &'a str,
    /// The source's name: `salesforce`.
    pub source: &'a str,
    /// The object's name in the source: `Contact`.
    pub object: &'a str,
    /// The record's id in the source.
    pub id: &'a str,
    /// The slot; empty in a raw record.
    pub slot: &'a str,
    /// What the record says.
    pub op: Op,
    /// Why the slot is absent; set if and only if `op` is Absent.
    pub reason: Option<AbsentReason>,
    /// The source's modification time.
    pub version: Millis,
    /// Snapshot or delta.
    pub phase: Phase,
    /// When we read it, by our clock.
    pub extracted_at: Millis,
    /// Generation of the mapping; 0 in a raw record.
    pub mapping: u32,
    /// What the content is.
    pub fingerprint: Fingerprint,
    /// [`JSON`], or an entity schema's name (`contact.v1`).
    pub body_schema: &'a str,
    /// Set where the record no longer lies at its own place.
    pub order: Option<Order>,
    /// The content; `None` unless `op` is Upsert.
    pub body: Option<&'a [u8]>,
    /// Where the content is, if not in `body`: the record is too large for the
    /// bus.
    pub stored: Option<Stored>,
}

static HEADER: LazyLock<[u8; 10]> = LazyLock::new(|| header(drover_schemas::ENVELOPE));

/// Of a record whose body lies in the object store.
static STORED_HEADER: LazyLock<[u8; 10]> =
    LazyLock::new(|| header(drover_schemas::ENVELOPE_STORED));

fn header(schema: &str) -> [u8; 10] {
    // The schema is compiled in and read by a test, so this can't reach a user.
    #[allow(clippy::expect_used)]
    let schema = apache_avro::Schema::parse_str(schema).expect("our own schema");
    let rabin = schema.fingerprint::<apache_avro::rabin::Rabin>();
    let mut header = [0xC3, 0x01, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..].copy_from_slice(&rabin.bytes);
    header
}

/// How many bytes of a value's body lie in the object store, which whoever
/// collects records for memory must count; 0 of every other value. Almost free.
pub fn away(value: &[u8]) -> usize {
    if value.get(..10) != Some(&STORED_HEADER[..]) {
        return 0;
    }
    let stored = Envelope::decode(value).ok().and_then(|e| e.stored);
    stored.map_or(0, |stored| {
        usize::try_from(stored.length).unwrap_or(usize::MAX)
    })
}

impl<'a> Envelope<'a> {
    /// The envelope of a raw record.
    pub fn of_raw(migration: &'a str, raw: &'a Raw) -> Self {
        let (source, object, id) = raw.key.parts();
        let body = raw.body.as_deref();
        Envelope {
            migration,
            source,
            object,
            id,
            slot: "",
            op: raw.op,
            reason: None,
            version: raw.version,
            phase: raw.phase,
            extracted_at: raw.extracted_at,
            mapping: 0,
            fingerprint: Fingerprint::of(raw.op, JSON, body.unwrap_or_default()),
            body_schema: JSON,
            order: None,
            body,
            stored: None,
        }
    }

    /// The same record with its body in the store.
    pub fn with_body_at(self, stored: Stored) -> Self {
        Envelope {
            body: None,
            stored: Some(stored),
            ..self
        }
    }

    /// The same record with its body here, as the store gave it.
    pub fn with_body<'b>(&'b self, body: &'b [u8]) -> Envelope<'b> {
        Envelope {
            body: Some(body),
            stored: None,
            ..self.clone()
        }
    }

    /// The raw record that the envelope carries.
    pub fn to_raw(&self) -> Result<Raw> {
        Ok(Raw {
            key: RawKey::new(self.source, self.object, self.id)?,
            op: self.op,
            version: self.version,
            phase: self.phase,
            extracted_at: self.extracted_at,
            body: self.body.map(<[u8]>::to_vec),
        })
    }

    /// Appends the bytes of the value to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.stored {
            None => &*HEADER,
            Some(_) => &*STORED_HEADER,
        });
        for text in [self.migration, self.source, self.object, self.id, self.slot] {
            put_str(out, text);
        }
        put_long(out, self.op as i64);
        match self.reason {
            None => put_long(out, 0),
            Some(reason) => {
                put_long(out, 1);
                put_long(out, reason as i64);
            }
        }
        put_long(out, self.version);
        put_long(out, self.phase as i64);
        put_long(out, self.extracted_at);
        put_long(out, self.mapping.into());
        out.extend_from_slice(&self.fingerprint.0);
        put_str(out, self.body_schema);
        match &self.order {
            None => put_long(out, 0),
            Some(order) => {
                put_long(out, 1);
                for number in order.as_array() {
                    put_long(out, number);
                }
            }
        }
        match self.body {
            None => put_long(out, 0),
            Some(body) => {
                put_long(out, 1);
                put_bytes(out, body);
            }
        }
        if let Some(stored) = &self.stored {
            put_long(out, 1);
            out.extend_from_slice(&stored.sha256);
            put_long(out, stored.length as i64);
        }
    }

    /// The bytes of the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + self.body.map_or(0, <[u8]>::len));
        self.encode_into(&mut out);
        out
    }

    /// Reads a value. [`Code::NewerSchema`] when it is single-object encoding
    /// of a schema this program doesn't know, [`Code::ForeignBytes`] when it is
    /// anything else.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        match bytes.get(..10) {
            Some(header) if header == &HEADER[..] || header == &STORED_HEADER[..] => {
                let mut reader = Reader::new(&bytes[10..]);
                Self::read(&mut reader, header == &STORED_HEADER[..])
                    .and_then(|envelope| reader.end().map(|()| envelope))
                    .map_err(|malformed| {
                        Error::new(
                            Code::ForeignBytes,
                            format!("the envelope is cut: {malformed}"),
                        )
                    })
            }
            Some(header) if header[..2] == [0xC3, 0x01] => Err(Error::new(
                Code::NewerSchema,
                format!(
                    "the value's schema fingerprint {:016x} is unknown to this program",
                    u64::from_le_bytes(header[2..10].try_into().unwrap_or_default())
                ),
            )),
            _ => Err(Error::new(
                Code::ForeignBytes,
                format!("{} bytes that are not an envelope", bytes.len()),
            )),
        }
    }

    fn read(reader: &mut Reader<'a>, may_be_stored: bool) -> Result<Self, Malformed> {
        let migration = reader.str()?;
        let source = reader.str()?;
        let object = reader.str()?;
        let id = reader.str()?;
        let slot = reader.str()?;
        let op = [Op::Upsert, Op::Delete, Op::Absent][reader.choice(3)? as usize];
        let reason = match reader.choice(2)? {
            0 => None,
            _ => Some(
                [
                    AbsentReason::Deleted,
                    AbsentReason::Filtered,
                    AbsentReason::SlotEmpty,
                ][reader.choice(3)? as usize],
            ),
        };
        let version = reader.long()?;
        let phase = [Phase::Snapshot, Phase::Delta][reader.choice(2)? as usize];
        let extracted_at = reader.long()?;
        let mapping = int(reader)?;
        let mut fingerprint = Fingerprint::default();
        fingerprint.0.copy_from_slice(reader.take(16)?);
        let body_schema = reader.str()?;
        let order = match reader.choice(2)? {
            0 => None,
            _ => Some(Order {
                version: reader.long()?,
                mapping: int(reader)?,
                incarnation: int(reader)?,
                offset: reader.long()?,
                reapply: int(reader)?,
            }),
        };
        let body = match reader.choice(2)? {
            0 => None,
            _ => Some(reader.bytes()?),
        };
        let stored = match may_be_stored && reader.choice(2)? == 1 {
            false => None,
            true => Some(Stored {
                sha256: {
                    let mut sha256 = [0; 32];
                    sha256.copy_from_slice(reader.take(32)?);
                    sha256
                },
                length: u64::try_from(reader.long()?).map_err(|_| reader.malformed("a length"))?,
            }),
        };
        Ok(Envelope {
            migration,
            source,
            object,
            id,
            slot,
            op,
            reason,
            version,
            phase,
            extracted_at,
            mapping,
            fingerprint,
            body_schema,
            order,
            body,
            stored,
        })
    }
}

fn int(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let value = reader.long()?;
    u32::try_from(value).map_err(|_| reader.malformed("a whole number of 32 bits"))
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value as Avro;
    use proptest::prelude::*;

    use super::*;

    fn union(value: Option<Avro>) -> Avro {
        match value {
            None => Avro::Union(0, Box::new(Avro::Null)),
            Some(value) => Avro::Union(1, Box::new(value)),
        }
    }

    fn symbol(index: u32, symbols: &[&str]) -> Avro {
        Avro::Enum(index, symbols[index as usize].into())
    }

    fn to_avro(e: &Envelope<'_>) -> Avro {
        let text = |t: &str| Avro::String(t.into());
        let mut fields = vec![
            ("migration".into(), text(e.migration)),
            ("source".into(), text(e.source)),
            ("object".into(), text(e.object)),
            ("id".into(), text(e.id)),
            ("slot".into(), text(e.slot)),
            (
                "op".into(),
                symbol(e.op as u32, &["UPSERT", "DELETE", "ABSENT"]),
            ),
            (
                "reason".into(),
                union(
                    e.reason
                        .map(|r| symbol(r as u32, &["DELETED", "FILTERED", "SLOT_EMPTY"])),
                ),
            ),
            ("version".into(), Avro::TimestampMillis(e.version)),
            (
                "phase".into(),
                symbol(e.phase as u32, &["SNAPSHOT", "DELTA"]),
            ),
            ("extracted_at".into(), Avro::TimestampMillis(e.extracted_at)),
            ("mapping".into(), Avro::Int(e.mapping as i32)),
            (
                "fingerprint".into(),
                Avro::Fixed(16, e.fingerprint.0.to_vec()),
            ),
            ("body_schema".into(), text(e.body_schema)),
            (
                "order".into(),
                union(e.order.map(|o| {
                    Avro::Record(vec![
                        ("version".into(), Avro::Long(o.version)),
                        ("mapping".into(), Avro::Int(o.mapping as i32)),
                        ("incarnation".into(), Avro::Int(o.incarnation as i32)),
                        ("offset".into(), Avro::Long(o.offset)),
                        ("reapply".into(), Avro::Int(o.reapply as i32)),
                    ])
                })),
            ),
            (
                "body".into(),
                union(e.body.map(|b| Avro::Bytes(b.to_vec()))),
            ),
        ];
        if let Some(stored) = &e.stored {
            let stored = Avro::Record(vec![
                ("sha256".into(), Avro::Fixed(32, stored.sha256.to_vec())),
                ("length".into(), Avro::Long(stored.length as i64)),
            ]);
            fields.push(("stored".into(), union(Some(stored))));
        }
        Avro::Record(fields)
    }

    proptest! {
        #[test]
        fn the_value_is_what_apache_avro_writes(
            id in any::<String>(), slot in "[a-z]*", op in 0usize..3, reason in prop::option::of(0usize..3),
            version in any::<i64>(), delta in any::<bool>(), mapping in 0u32..i32::MAX as u32,
            fingerprint in any::<[u8; 16]>(),
            order in prop::option::of((any::<i64>(), 0u32..9, 0u32..9, any::<i64>(), 0u32..9)),
            body in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
            stored in prop::option::of((any::<[u8; 32]>(), 0..i64::MAX as u64)),
        ) {
            let envelope = Envelope {
                migration: "m", source: "salesforce", object: "Contact", id: &id, slot: &slot,
                op: [Op::Upsert, Op::Delete, Op::Absent][op],
                reason: reason.map(|r| [AbsentReason::Deleted, AbsentReason::Filtered, AbsentReason::SlotEmpty][r]),
                version, phase: if delta { Phase::Delta } else { Phase::Snapshot }, extracted_at: 5, mapping,
                fingerprint: Fingerprint(fingerprint), body_schema: "contact.v1",
                order: order.map(|(version, mapping, incarnation, offset, reapply)| Order { version, mapping, incarnation, offset, reapply }),
                body: body.as_deref(),
                stored: stored.map(|(sha256, length)| Stored { sha256, length }),
            };
            let ours = envelope.encode();
            let schema = match stored {
                None => drover_schemas::ENVELOPE,
                Some(_) => drover_schemas::ENVELOPE_STORED,
            };
            let schema = apache_avro::Schema::parse_str(schema).expect("our schema");
            let theirs = apache_avro::to_avro_datum(&schema, to_avro(&envelope)).expect("encodes");
            prop_assert_eq!(&ours[10..], &theirs[..]);
            prop_assert_eq!(Envelope::decode(&ours).expect("decodes"), envelope);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), ours in 0..3) {
            match ours {
                0 => {}
                1 => drop(bytes.splice(0..0, HEADER.iter().copied())),
                _ => drop(bytes.splice(0..0, STORED_HEADER.iter().copied())),
            }
            away(&bytes);
            if let Err(error) = Envelope::decode(&bytes) {
                prop_assert!(matches!(error.code, Code::ForeignBytes | Code::NewerSchema));
            }
        }
    }

    #[test]
    fn a_newer_schema_is_told_from_foreign_bytes() {
        fn code(bytes: &[u8]) -> Result<Envelope<'_>, Code> {
            Envelope::decode(bytes).map_err(|e| e.code)
        }
        assert_eq!(code(b"{\"json\":true}"), Err(Code::ForeignBytes));
        assert_eq!(code(b"\xC3\x01abcdefgh"), Err(Code::NewerSchema));
        assert_eq!(code(b""), Err(Code::ForeignBytes));
    }

    #[test]
    fn the_header_is_apache_avros_single_object_header() {
        let schema = apache_avro::Schema::parse_str(drover_schemas::ENVELOPE).expect("our schema");
        let mut writer = apache_avro::GenericSingleObjectWriter::new_with_capacity(&schema, 200)
            .expect("writer");
        let raw = Raw {
            key: RawKey::new("s", "o", "1").expect("key"),
            op: Op::Delete,
            version: 1,
            phase: Phase::Delta,
            extracted_at: 2,
            body: None,
        };
        let envelope = Envelope::of_raw("m", &raw);
        let mut theirs = Vec::new();
        writer
            .write_value_ref(&to_avro(&envelope), &mut theirs)
            .expect("writes");
        assert_eq!(envelope.encode(), theirs);
    }

    fn small() -> Raw {
        Raw {
            key: RawKey::new("s", "o", "1").expect("key"),
            op: Op::Upsert,
            version: 1,
            phase: Phase::Delta,
            extracted_at: 2,
            body: Some(b"{}".to_vec()),
        }
    }

    /// Stages of different versions work beside each other, and a topic holds
    /// what was written years ago: these bytes never change.
    #[test]
    fn a_small_record_is_written_as_ever() {
        let hex: String = Envelope::of_raw("m", &small())
            .encode()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let ever = "c301588348874bf95a2d026d0273026f023100000002020400\
                    fba05d2b039d6a4c8b2b5ca79285cdee086a736f6e0002047b7d";
        assert_eq!(hex, ever);
    }

    #[test]
    fn a_body_in_the_store_is_named_by_its_record_and_counted() {
        let raw = small();
        let whole = Envelope::of_raw("m", &raw);
        let stored = Stored {
            sha256: [7; 32],
            length: 10_000_000,
        };
        let value = whole.clone().with_body_at(stored).encode();
        assert!(value.len() < 200);
        assert_eq!((away(&value), away(&whole.encode())), (10_000_000, 0));
        let read = Envelope::decode(&value).expect("decodes");
        assert_eq!((read.body, read.stored), (None, Some(stored)));
        // What the record is, is the same wherever its body lies.
        assert_eq!(read.with_body(b"{}"), whole);
        // A program that knows only the first schema stops instead of taking it
        // for a record without a body.
        assert_ne!(value[..10], HEADER[..]);
        assert_eq!(value[..2], HEADER[..2]);
    }
}
